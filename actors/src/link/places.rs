//! The places of connections at a master: who may come in, and who makes room. A connection has a place from the moment it is accepted
//! until its descriptor is closed, whatever became of it in between. `door.rs` hands places out and waits. Pure: moments come in.
//!
//! A connection that has not bound is nobody. The places for such connections are few, and one that says nothing cannot keep another one
//! out: when they are nearly all taken, the address that has the most of them gives one up, of its oldest connection that has said nothing.
//! A connection whose token was right has a place apart.

use crate::hashed::HashMap;
use meshwork_wire::limits::{LONG_BINDS_LEN_MAX, UNBOUND_KEPT_FOR};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

/// The address that a connection comes from, as far as it tells programs from each other: a host that has an IPv6 address has all those of its
/// network, so only the first 64 bits count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Origin {
    V4(Ipv4Addr),
    V6([u16; 4]),
    /// Of a link that is not of TCP.
    Other(String),
}

/// The listeners of a master are of two kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    Native,
    Gateway,
}

/// How many connections there may be at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How many have not bound; and as many again whose token was right.
    pub(crate) unbound_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) per_address_max: usize,
    pub(crate) gateway_max: usize,
    pub(crate) gateway_per_address_max: usize,
}

/// The places. `E` tells a connection that it must make room.
pub(crate) struct Places<E> {
    bounds: Bounds,
    /// The connections that have not bound, by number: the lowest has been there longest.
    unbound: BTreeMap<u64, Unbound<E>>,
    origins: HashMap<Origin, AtOrigin>,
    /// The origins that have connections which can be told to make room; the one of which that is asked first is the last.
    heaviest: BTreeSet<(Rank, Origin)>,
    /// The connections that were refused and are not closed yet.
    refused: BTreeSet<u64>,
    /// How many connections were told to make room and are not closed yet.
    told: usize,
    known: usize,
    connections: usize,
    gateway_connections: usize,
    /// How many bytes the frames of connections may have together that are longer than a first frame.
    long: usize,
    last: u64,
}

/// A connection that has not bound.
struct Unbound<E> {
    origin: Origin,
    since: Instant,
    stage: Stage,
    tell: Option<E>,
    long: usize,
}

/// How far a connection is on the way to its bind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It has not said who it is.
    Silent,
    /// Its bind is being checked.
    Checked,
    /// Its token was right, and the rest of its bind is being checked.
    Known,
    /// It was refused.
    Refused,
    /// It was told to make room.
    Told,
}

/// How soon an origin is asked to make room: by how many connections it has, refused and known ones not counted, and then by the number of its
/// oldest connection that has said nothing.
type Rank = (usize, Reverse<u64>);

/// The connections of one origin.
#[derive(Default)]
struct AtOrigin {
    connections: usize,
    gateway_connections: usize,
    silent: BTreeSet<u64>,
    checked: BTreeSet<u64>,
}

/// The answer to a connection that was accepted.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Answer<E> {
    /// It has the place of this number. Another one is to be told to make room, so that places are left for the next.
    Enters(u64, Option<E>),
    /// It waits until a place is free, or until this moment, and asks again.
    Waits(Option<E>, Instant),
    Full(Full),
}

/// Why a connection is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// So many connections have not bound yet, and none of them can make room.
    Unbound(usize),
    /// There are so many connections.
    Connections(usize),
    /// There are so many connections from the address.
    Address(usize),
    /// There are so many connections of programs of other protocols.
    Gateway(usize),
    /// There are so many connections of programs of other protocols from the address.
    GatewayAddress(usize),
}

impl Origin {
    pub(crate) fn of(peer: &str) -> Self {
        match peer.parse::<SocketAddr>().map(|address| address.ip().to_canonical()) {
            Ok(IpAddr::V4(address)) => Origin::V4(address),
            Ok(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Origin::V6([a, b, c, d])
            }
            Err(_) => Origin::Other(peer.to_owned()),
        }
    }
}

impl<E> Places<E> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds: Bounds { unbound_max: bounds.unbound_max.max(1), ..bounds },
            unbound: BTreeMap::new(),
            origins: HashMap::default(),
            heaviest: BTreeSet::new(),
            refused: BTreeSet::new(),
            told: 0,
            known: 0,
            connections: 0,
            gateway_connections: 0,
            long: 0,
            last: 0,
        }
    }

    /// How many connections have not bound yet, those that were refused among them.
    #[cfg(feature = "testing")]
    pub(crate) fn unbound(&self) -> usize {
        self.unbound.len()
    }

    /// Answers a connection that was accepted.
    pub(crate) fn enter(&mut self, now: Instant, origin: &Origin, via: Via) -> Answer<E> {
        if let Some(full) = self.full(origin, via) {
            return Answer::Full(full);
        }
        let (taken, max) = (self.unbound.len() - self.known, self.bounds.unbound_max);
        // A few places are kept free, so that a connection seldom waits until another one is closed.
        if taken < max - max / 16 {
            return Answer::Enters(self.add(now, origin, via), None);
        }
        if taken >= max && self.told > 0 {
            return Answer::Waits(None, now + UNBOUND_KEPT_FOR);
        }
        let (tell, young_until) = match self.victim(now, origin) {
            Victim::One(number) => (self.tell(number), None),
            Victim::Young(until) => (None, Some(until)),
            Victim::None => (None, None),
        };
        if taken < max {
            return Answer::Enters(self.add(now, origin, via), tell);
        }
        match (tell, young_until) {
            (tell @ Some(_), _) => Answer::Waits(tell, now + UNBOUND_KEPT_FOR),
            (None, Some(until)) => Answer::Waits(None, until),
            (None, None) => Answer::Full(Full::Unbound(max)),
        }
    }

    /// The reason for a connection that has waited too long for a place.
    pub(crate) fn full_of_unbound(&self) -> Full {
        Full::Unbound(self.bounds.unbound_max)
    }

    /// Gives the connection of this number the way in which it is told to make room.
    pub(crate) fn set_tell(&mut self, number: u64, tell: E) {
        if let Some(unbound) = self.unbound.get_mut(&number) {
            unbound.tell = Some(tell);
        }
    }

    /// Some connections that have not bound, which are to be told to make room: no descriptors are left. The longer they have said nothing, the
    /// sooner.
    pub(crate) fn make_room(&mut self) -> Vec<E> {
        if self.told > 0 {
            return Vec::new();
        }
        let count = self.unbound.len() / 16 + 1;
        let next = |this: &mut Self| {
            let number = this.refused.first().copied().or_else(|| {
                let origins = this.heaviest.iter().rev().filter_map(|(_, origin)| this.origins.get(origin));
                origins.filter_map(|origin| origin.silent.first().copied()).next()
            });
            this.tell(number?)
        };
        std::iter::from_fn(|| next(self)).take(count).collect()
    }

    /// Notes that the bind of a connection is being checked.
    pub(crate) fn checked(&mut self, number: u64) {
        self.set_stage(number, Stage::Checked);
    }

    /// Notes that the token of a connection was right, or its certificate: it has a place apart, if there is one.
    pub(crate) fn known(&mut self, number: u64) {
        if self.known < self.bounds.unbound_max {
            self.set_stage(number, Stage::Known);
        }
    }

    /// Notes that a connection is refused. It is the first that makes room.
    pub(crate) fn refused(&mut self, number: u64) {
        self.set_stage(number, Stage::Refused);
    }

    /// Notes that a connection is bound.
    pub(crate) fn bound(&mut self, number: u64) {
        self.set_stage(number, Stage::Told);
        if let Some(unbound) = self.unbound.remove(&number) {
            self.told -= 1;
            self.long -= unbound.long;
        }
    }

    /// Whether a connection has not bound yet.
    pub(crate) fn is_unbound(&self, number: u64) -> bool {
        self.unbound.contains_key(&number)
    }

    /// Whether the first frame of a connection may have so many bytes, more than others. It may until the connection is bound or closed.
    pub(crate) fn lengthen(&mut self, number: u64, len: usize) -> bool {
        let Some(unbound) = self.unbound.get_mut(&number) else {
            return true;
        };
        let long = self.long - unbound.long + len;
        if long > LONG_BINDS_LEN_MAX {
            return false;
        }
        (self.long, unbound.long) = (long, len);
        true
    }

    /// Notes that the descriptor of a connection is closed.
    pub(crate) fn leave(&mut self, number: u64, origin: &Origin, via: Via) {
        self.bound(number);
        let gateway = usize::from(via == Via::Gateway);
        self.connections -= 1;
        self.gateway_connections -= gateway;
        if let Some(at) = self.origins.get_mut(origin) {
            at.connections -= 1;
            at.gateway_connections -= gateway;
            if at.connections == 0 {
                self.origins.remove(origin);
            }
        }
        if self.origins.is_empty() {
            // A flood from many addresses made it long.
            self.origins = HashMap::default();
        }
    }

    fn full(&self, origin: &Origin, via: Via) -> Option<Full> {
        let bounds = &self.bounds;
        let here = self.origins.get(origin);
        let (connections, gateway) = here.map_or((0, 0), |here| (here.connections, here.gateway_connections));
        if self.connections >= bounds.connections_max {
            Some(Full::Connections(bounds.connections_max))
        } else if connections >= bounds.per_address_max {
            Some(Full::Address(bounds.per_address_max))
        } else if via == Via::Gateway && self.gateway_connections >= bounds.gateway_max {
            Some(Full::Gateway(bounds.gateway_max))
        } else if via == Via::Gateway && gateway >= bounds.gateway_per_address_max {
            Some(Full::GatewayAddress(bounds.gateway_per_address_max))
        } else {
            None
        }
    }

    fn add(&mut self, now: Instant, origin: &Origin, via: Via) -> u64 {
        self.last += 1;
        let gateway = usize::from(via == Via::Gateway);
        self.connections += 1;
        self.gateway_connections += gateway;
        let at = self.origins.entry(origin.clone()).or_default();
        at.connections += 1;
        at.gateway_connections += gateway;
        let unbound = Unbound { origin: origin.clone(), since: now, stage: Stage::Told, tell: None, long: 0 };
        self.unbound.insert(self.last, unbound);
        self.told += 1;
        self.move_to(self.last, Stage::Silent);
        self.last
    }

    /// The connection that makes room for one of this origin.
    fn victim(&self, now: Instant, origin: &Origin) -> Victim {
        if let Some(number) = self.refused.first() {
            return Victim::One(*number);
        }
        let own = self.origins.get(origin).map_or(0, AtOrigin::weight);
        let heaviest = self.heaviest.last().filter(|((weight, _), _)| *weight > own + 1);
        let (at, is_other) = match heaviest {
            Some((_, heaviest)) => (self.origins.get(heaviest), true),
            None if own > 0 => (self.origins.get(origin), false),
            // Each origin has one, or none.
            None => (self.heaviest.last().and_then(|(_, origin)| self.origins.get(origin)), false),
        };
        let Some(at) = at else {
            return Victim::None;
        };
        match at.silent.first().and_then(|number| Some((number, self.unbound.get(number)?.since))) {
            // Its bind may have arrived, and not be read yet.
            Some((_, since)) if !is_other && now < since + UNBOUND_KEPT_FOR => {
                Victim::Young(since + UNBOUND_KEPT_FOR)
            }
            Some((number, _)) => Victim::One(*number),
            None if is_other => at.checked.first().map_or(Victim::None, |number| Victim::One(*number)),
            None => Victim::None,
        }
    }

    fn tell(&mut self, number: u64) -> Option<E> {
        self.set_stage(number, Stage::Told);
        self.unbound.get_mut(&number)?.tell.take()
    }

    /// Moves a connection on. One that was told to make room, or was refused, does not come back.
    fn set_stage(&mut self, number: u64, stage: Stage) {
        match self.unbound.get(&number).map(|unbound| unbound.stage) {
            None | Some(Stage::Told) => {}
            Some(Stage::Refused) if stage != Stage::Told => {}
            Some(_) => self.move_to(number, stage),
        }
    }

    fn move_to(&mut self, number: u64, stage: Stage) {
        let Some(unbound) = self.unbound.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut unbound.stage, stage);
        let Some(at) = self.origins.get_mut(&unbound.origin) else {
            return;
        };
        let rank = at.rank();
        match before {
            Stage::Silent => _ = at.silent.remove(&number),
            Stage::Checked => _ = at.checked.remove(&number),
            Stage::Known => self.known -= 1,
            Stage::Refused => _ = self.refused.remove(&number),
            Stage::Told => self.told -= 1,
        }
        match stage {
            Stage::Silent => _ = at.silent.insert(number),
            Stage::Checked => _ = at.checked.insert(number),
            Stage::Known => self.known += 1,
            Stage::Refused => _ = self.refused.insert(number),
            Stage::Told => self.told += 1,
        }
        if at.rank() != rank {
            self.heaviest.remove(&(rank, unbound.origin.clone()));
            if at.weight() > 0 {
                self.heaviest.insert((at.rank(), unbound.origin.clone()));
            }
        }
    }
}

/// Who makes room for a connection.
enum Victim {
    One(u64),
    /// Nobody before this moment: the connections are too young.
    Young(Instant),
    None,
}

impl AtOrigin {
    fn weight(&self) -> usize {
        self.silent.len() + self.checked.len()
    }

    fn rank(&self) -> Rank {
        (self.weight(), Reverse(self.silent.first().copied().unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::Unbound(max) => write!(f, "the master is full: {max} connections have not bound yet"),
            Full::Connections(max) => write!(f, "the master is full: it has {max} connections"),
            Full::Address(max) => {
                write!(f, "the master is full for this address, which has {max} connections")
            }
            Full::Gateway(max) => {
                write!(f, "the master is full: programs of other protocols have {max} connections")
            }
            Full::GatewayAddress(max) => write!(
                f,
                "the master is full for programs of other protocols at this address, which have {max} connections"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const WIDE: Bounds = Bounds {
        unbound_max: 4,
        connections_max: 1_000,
        per_address_max: 1_000,
        gateway_max: 1_000,
        gateway_per_address_max: 1_000,
    };

    /// Places whose connections are told to make room by their own number.
    struct Hall {
        places: Places<u64>,
        now: Instant,
    }

    impl Hall {
        fn new(bounds: Bounds) -> Self {
            Self { places: Places::new(bounds), now: Instant::now() }
        }

        fn ask(&mut self, from: u8) -> Answer<u64> {
            let answer = self.places.enter(self.now, &origin(from), Via::Native);
            if let Answer::Enters(number, _) = answer {
                self.places.set_tell(number, number);
            }
            answer
        }

        /// The number of a connection that enters without another one making room.
        fn enters(&mut self, from: u8) -> u64 {
            match self.ask(from) {
                Answer::Enters(number, None) => number,
                other => panic!("it enters, not {other:?}"),
            }
        }

        /// The number of the connection that makes room for one from here.
        fn makes_room(&mut self, from: u8) -> u64 {
            match self.ask(from) {
                Answer::Waits(Some(number), _) => number,
                other => panic!("another one makes room, not {other:?}"),
            }
        }

        fn closes(&mut self, number: u64, from: u8) {
            self.places.leave(number, &origin(from), Via::Native);
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
        }
    }

    fn origin(from: u8) -> Origin {
        Origin::of(&format!("10.0.0.{from}:1000"))
    }

    #[test]
    fn connections_of_one_host_have_one_origin() {
        let same = |a, b| assert_eq!(Origin::of(a), Origin::of(b));
        same("10.0.0.1:1", "10.0.0.1:2");
        same("[2001:db8:0:7::1]:1", "[2001:db8:0:7:ffff:1:2:3]:2");
        same("[::ffff:10.0.0.1]:1", "10.0.0.1:9");
        let differ = |a, b| assert_ne!(Origin::of(a), Origin::of(b));
        differ("10.0.0.1:1", "10.0.0.2:1");
        differ("[2001:db8:0:7::1]:1", "[2001:db8:0:8::1]:1");
        differ("a peer", "another");
    }

    #[test]
    fn the_oldest_that_has_said_nothing_makes_room_and_its_place_is_taken_until_it_is_closed() {
        let mut hall = Hall::new(WIDE);
        let numbers: Vec<_> = (0..4).map(|_| hall.enters(1)).collect();
        assert_eq!(hall.ask(1), Answer::Waits(None, hall.now + UNBOUND_KEPT_FOR), "all are young");
        hall.places.checked(numbers[0]);
        hall.wait(UNBOUND_KEPT_FOR);
        assert_eq!(hall.makes_room(1), numbers[1]);
        assert!(
            matches!(hall.ask(1), Answer::Waits(None, _)),
            "it is not closed yet, and nobody else has to go"
        );
        hall.closes(numbers[1], 1);
        hall.enters(1);
    }

    #[test]
    fn the_address_that_has_the_most_places_gives_one_up_even_a_young_one() {
        let mut hall = Hall::new(WIDE);
        let lonely = hall.enters(2);
        let crowd: Vec<_> = (0..3).map(|_| hall.enters(1)).collect();
        assert_eq!(hall.makes_room(3), crowd[0]);
        hall.closes(crowd[0], 1);
        hall.enters(3);
        // Those of the crowd wait for those of the crowd.
        hall.wait(UNBOUND_KEPT_FOR);
        assert_eq!(hall.makes_room(1), crowd[1]);
        hall.places.bound(lonely);
    }

    /// The one with the highest address would else have made room for all.
    #[test]
    fn of_many_addresses_with_one_connection_each_the_oldest_makes_room() {
        let mut hall = Hall::new(WIDE);
        let numbers: Vec<_> = [7, 3, 9, 1].map(|from| hall.enters(from)).to_vec();
        hall.wait(UNBOUND_KEPT_FOR);
        for (oldest, (from, next)) in numbers.iter().zip([(7, 2), (3, 8), (9, 4), (1, 5)]) {
            assert_eq!(hall.makes_room(next), *oldest);
            hall.closes(*oldest, from);
            hall.enters(next);
        }
    }

    #[test]
    fn a_crowd_whose_binds_are_being_checked_makes_room_for_others_and_not_for_its_own() {
        let mut hall = Hall::new(WIDE);
        let crowd: Vec<_> = (0..4).map(|_| hall.enters(1)).collect();
        crowd.iter().for_each(|number| hall.places.checked(*number));
        hall.wait(UNBOUND_KEPT_FOR);
        assert_eq!(hall.ask(1), Answer::Full(Full::Unbound(4)));
        assert_eq!(hall.makes_room(2), crowd[0]);
    }

    #[test]
    fn one_whose_token_was_right_has_a_place_apart_and_one_that_was_refused_goes_first() {
        let mut hall = Hall::new(WIDE);
        let numbers: Vec<_> = (0..4).map(|_| hall.enters(1)).collect();
        hall.places.checked(numbers[0]);
        hall.places.known(numbers[0]);
        let fifth = hall.enters(1);
        hall.places.refused(fifth);
        hall.places.checked(fifth);
        assert_eq!(hall.makes_room(1), fifth, "it is younger than any");
        hall.closes(fifth, 1);
        hall.enters(1);
        hall.wait(UNBOUND_KEPT_FOR);
        assert_eq!(hall.makes_room(1), numbers[1]);
    }

    #[test]
    fn bound_connections_count_by_address_and_in_all() {
        let bounds = Bounds { connections_max: 5, per_address_max: 3, ..WIDE };
        let mut hall = Hall::new(bounds);
        let bound: Vec<_> = (0..3).map(|_| hall.enters(1)).collect();
        bound.iter().for_each(|number| hall.places.bound(*number));
        assert_eq!(hall.ask(1), Answer::Full(Full::Address(3)));
        let other = hall.enters(2);
        hall.enters(3);
        assert_eq!(hall.ask(4), Answer::Full(Full::Connections(5)));
        hall.closes(other, 2);
        hall.enters(4);
        hall.closes(bound[0], 1);
        hall.enters(1);
    }

    #[test]
    fn connections_of_gateways_have_bounds_of_their_own() {
        let bounds = Bounds { gateway_max: 3, gateway_per_address_max: 2, ..WIDE };
        let mut hall = Hall::new(bounds);
        let mut ask = |from| match hall.places.enter(hall.now, &origin(from), Via::Gateway) {
            Answer::Full(full) => Some(full),
            _ => None,
        };
        assert_eq!((ask(1), ask(1), ask(1)), (None, None, Some(Full::GatewayAddress(2))));
        assert_eq!((ask(2), ask(3)), (None, Some(Full::Gateway(3))));
        hall.enters(1);
    }

    #[test]
    fn long_first_frames_share_a_bound() {
        let mut hall = Hall::new(WIDE);
        let (one, two) = (hall.enters(1), hall.enters(1));
        assert!(hall.places.lengthen(one, LONG_BINDS_LEN_MAX));
        assert!(!hall.places.lengthen(two, 1));
        assert!(hall.places.lengthen(one, LONG_BINDS_LEN_MAX - 1));
        assert!(hall.places.lengthen(two, 1));
        hall.places.bound(one);
        hall.closes(two, 1);
        let three = hall.enters(1);
        assert!(hall.places.lengthen(three, LONG_BINDS_LEN_MAX));
    }

    #[test]
    fn where_no_descriptors_are_left_a_sixteenth_makes_room_and_the_next_when_those_are_closed() {
        let mut hall = Hall::new(Bounds { unbound_max: 64, ..WIDE });
        let numbers: Vec<_> = (0..32).map(|_| hall.enters(1)).collect();
        hall.places.checked(numbers[0]);
        assert_eq!(hall.places.make_room(), numbers[1..4]);
        assert!(hall.places.make_room().is_empty());
        numbers[1..4].iter().for_each(|number| hall.closes(*number, 1));
        assert_eq!(hall.places.make_room(), numbers[4..6]);
    }

    proptest! {
        /// However connections come, go on and go, no bound is passed, and nothing is left of those that are gone.
        #[test]
        fn the_bounds_hold_and_nothing_is_left(steps in proptest::collection::vec((0..8_u8, 0..3_u8, 0..40_usize), 0..400)) {
            let bounds = Bounds { unbound_max: 20, connections_max: 50, per_address_max: 30, ..WIDE };
            let mut hall = Hall::new(bounds);
            let mut there: Vec<(u64, u8)> = Vec::new();
            for (step, from, which) in steps {
                let chosen = there.get(which).copied();
                match (step, chosen) {
                    (0..=2, _) => {
                        if let Answer::Enters(number, _) = hall.ask(from) {
                            there.push((number, from));
                        }
                    }
                    (3, Some((number, _))) => hall.places.checked(number),
                    (4, Some((number, _))) => hall.places.known(number),
                    (5, Some((number, _))) => hall.places.refused(number),
                    (6, Some((number, _))) => hall.places.bound(number),
                    (7, Some((number, from))) => {
                        there.remove(which);
                        hall.closes(number, from);
                    }
                    _ => hall.wait(UNBOUND_KEPT_FOR / 4),
                }
                let places = &hall.places;
                prop_assert!(places.unbound.len() <= 40 && places.known <= 20);
                prop_assert_eq!(places.connections, there.len());
                let weights: usize = places.heaviest.iter().map(|((weight, _), _)| weight).sum();
                let others = places.refused.len() + places.told + places.known;
                prop_assert_eq!(weights + others, places.unbound.len());
            }
            for (number, from) in there {
                hall.closes(number, from);
            }
            let places = &hall.places;
            prop_assert_eq!((places.unbound.len(), places.told, places.known, places.long), (0, 0, 0, 0));
            prop_assert!(places.origins.is_empty() && places.heaviest.is_empty() && places.refused.is_empty());
        }
    }
}
