//! The census of a node: how many entries its tables hold, for tests. A node at rest, whose calls have ended and whose functions are
//! released, has no entry of the first kind, and of the second kind only those of who is there.

#[cfg(feature = "testing")]
use std::collections::BTreeMap;

/// How many entries the tables of a node hold.
#[cfg(feature = "testing")]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Tables whose entries end with a call, a function, a frame: all empty when the node is at rest. Only those that are not empty are here.
    pub passing: BTreeMap<String, usize>,
    /// Tables that have an entry for each branch, action or subscription that is there.
    pub lasting: BTreeMap<String, usize>,
}

/// Takes the census of a node. Sent by tests; a master asks its registry, its router and its sessions.
#[cfg(feature = "testing")]
#[derive(actix::Message, Clone, Copy, Debug)]
#[rtype(result = "Census")]
pub struct TakeCensus;

#[cfg(feature = "testing")]
impl Census {
    /// The census of an actor that has these tables.
    pub(crate) fn of(passing: &[(&str, usize)], lasting: &[(&str, usize)]) -> Self {
        let named = |tables: &[(&str, usize)]| -> BTreeMap<_, _> {
            tables.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let mut census = Self { passing: named(passing), lasting: named(lasting) };
        census.passing.retain(|_, count| *count != 0);
        census
    }

    /// Adds the tables of a part of the node, by their names behind the name of the part.
    pub(crate) fn add(&mut self, part: &str, census: Self) {
        let named = |(name, count): (String, usize)| (format!("{part}: {name}"), count);
        self.passing.extend(census.passing.into_iter().map(named));
        self.lasting.extend(census.lasting.into_iter().map(named));
    }
}

/// An actor that tells its census, in tests; any actor outside of them.
#[cfg(feature = "testing")]
pub(crate) trait TellsCensus: actix::Handler<TakeCensus> {}

#[cfg(feature = "testing")]
impl<A: actix::Handler<TakeCensus>> TellsCensus for A {}

/// An actor that tells its census, in tests; any actor outside of them.
#[cfg(not(feature = "testing"))]
pub(crate) trait TellsCensus {}

#[cfg(not(feature = "testing"))]
impl<A> TellsCensus for A {}
