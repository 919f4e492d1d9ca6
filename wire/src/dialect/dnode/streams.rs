//! Streams over dnode, which has functions only: one function of the consumer is called with each item, and the function that takes the result of a
//! call takes the end. This counts what may come and what has left, and holds what a program sends too early; `dnode.rs` hears and says
//! the lines.

use crate::error::{Code, Fate};
use crate::id::CallbackId;
use crate::limits::{
    FOREIGN_ITEM_COST, FOREIGN_ITEMS_HELD_LEN_MAX, FOREIGN_STREAM_HELD_LEN_MAX, FOREIGN_WINDOW_ITEMS,
    FOREIGN_WINDOW_LEN,
};
use crate::payload::{CallError, Grant, Payload};
use std::collections::{HashMap, VecDeque};

/// How much of a stream of the mesh is on its way to a program at most, and one item more.
pub(super) const WINDOW: Grant = Grant { items: FOREIGN_WINDOW_ITEMS, bytes: FOREIGN_WINDOW_LEN };

/// The streams of the mesh that the program reads, by the ids of its calls. Bounded as the calls are.
#[derive(Default, Debug)]
pub(super) struct Reads {
    by_id: HashMap<CallbackId, Read>,
    /// The streams of which half of the window was said to the program, and that are granted more when it has left.
    due: Vec<CallbackId>,
}

/// A stream that the program reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// The function of the program that is called with each item.
    pub(super) each: u64,
    /// The function of the program that takes the end.
    pub(super) done: u64,
    /// The number of the function that the program calls to read no further.
    pub(super) stop: u64,
    /// What was said to the program since the last grant.
    said: Grant,
}

impl Reads {
    /// Notes that a stream begins.
    pub(super) fn begin(&mut self, id: CallbackId, each: u64, done: u64, stop: u64) {
        self.by_id.insert(id, Read { each, done, stop, said: Grant::default() });
    }

    pub(super) fn find(&self, id: CallbackId) -> Option<Read> {
        self.by_id.get(&id).copied()
    }

    /// Notes that an item of this length was said.
    pub(super) fn said(&mut self, id: CallbackId, len: usize) {
        let Some(Read { said, .. }) = self.by_id.get_mut(&id) else { return };
        let was_due = is_due(*said);
        said.items = said.items.saturating_add(1);
        said.bytes = said.bytes.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if !was_due && is_due(*said) {
            self.due.push(id);
        }
    }

    /// Takes what is granted more, now that all that was said has left.
    pub(super) fn left(&mut self) -> Vec<(CallbackId, Grant)> {
        let due = std::mem::take(&mut self.due).into_iter();
        let taken = due.filter_map(|id| Some((id, std::mem::take(&mut self.by_id.get_mut(&id)?.said))));
        taken.collect()
    }

    /// Ends a stream.
    pub(super) fn end(&mut self, id: CallbackId) -> Option<Read> {
        self.by_id.remove(&id)
    }
}

fn is_due(said: Grant) -> bool {
    said.items >= WINDOW.items / 2 || said.bytes >= WINDOW.bytes / 2
}

/// The streams that the program makes, by the ids of the requests from the mesh. Bounded as the requests are.
#[derive(Default, Debug)]
pub(super) struct Makes {
    by_id: HashMap<CallbackId, Make>,
    /// The cost of all items that are held.
    held_len: usize,
}

#[derive(Debug)]
struct Make {
    /// The number of the function that the program calls with each item.
    each: u64,
    /// What may still leave. Below zero, the last item was longer than what was left.
    items: u64,
    bytes: i64,
    /// The items that came before they were granted.
    held: VecDeque<Item>,
    held_len: usize,
    /// How the program has ended the stream, behind these items.
    end: Option<Result<Payload, CallError>>,
}

/// An item, and the function of the program that is called when it has left, if the program passed one.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) payload: Payload,
    pub(super) on_left: Option<u64>,
}

impl Item {
    fn cost(&self) -> usize {
        self.payload.len() + FOREIGN_ITEM_COST
    }
}

/// What leaves for the mesh next.
#[derive(Debug)]
pub(super) enum Next {
    Item(Item),
    /// The end, and the number of the function that takes no further items.
    End(Result<Payload, CallError>, u64),
}

impl Makes {
    /// Notes that a stream begins, of which so much is granted.
    pub(super) fn begin(&mut self, id: CallbackId, each: u64, grant: Grant) {
        let (held, held_len, end) = (VecDeque::new(), 0, None);
        let make = Make { each, items: grant.items.into(), bytes: grant.bytes.into(), held, held_len, end };
        self.by_id.insert(id, make);
    }

    /// Takes an item from the program. One for which there is no room ends the stream.
    pub(super) fn came(&mut self, id: CallbackId, item: Item) {
        let Some(make) = self.by_id.get_mut(&id).filter(|make| make.end.is_none()) else { return };
        let cost = item.cost();
        let fits = make.held.is_empty()
            || make.held_len + cost <= FOREIGN_STREAM_HELD_LEN_MAX
                && self.held_len + cost <= FOREIGN_ITEMS_HELD_LEN_MAX;
        if fits {
            (make.held_len, self.held_len) = (make.held_len + cost, self.held_len + cost);
            make.held.push_back(item);
        } else {
            let what = "the program sends items faster than they are read, and takes no notice";
            make.end = Some(Err(CallError::new(Code::OVERLOADED, Fate::Failed, what)));
        }
    }

    /// Takes the end from the program; `false` if this is no stream.
    pub(super) fn ended(&mut self, id: CallbackId, end: Result<Payload, CallError>) -> bool {
        let Some(make) = self.by_id.get_mut(&id) else { return false };
        make.end.get_or_insert(end.map(|_| Payload::default()));
        true
    }

    /// Takes what is granted more.
    pub(super) fn granted(&mut self, id: CallbackId, grant: Grant) {
        if let Some(make) = self.by_id.get_mut(&id) {
            // The relay in between counts along, and lets through no more than may be granted at a time.
            make.items = make.items.saturating_add(grant.items.into());
            make.bytes = make.bytes.saturating_add(grant.bytes.into());
        }
    }

    /// What leaves now; none while nothing is granted or nothing is there.
    pub(super) fn next(&mut self, id: CallbackId) -> Option<Next> {
        let make = self.by_id.get_mut(&id)?;
        if !make.held.is_empty() {
            if make.items == 0 || make.bytes <= 0 {
                return None;
            }
            let item = make.held.pop_front()?;
            let cost = item.cost();
            (make.held_len, self.held_len) = (make.held_len - cost, self.held_len - cost);
            make.items -= 1;
            make.bytes -= i64::try_from(item.payload.len()).unwrap_or(i64::MAX / 2);
            return Some(Next::Item(item));
        }
        make.end.as_ref()?;
        let Make { each, end, .. } = self.by_id.remove(&id)?;
        end.map(|end| Next::End(end, each))
    }

    /// Drops a stream that nobody reads any more; gives the number of the function that takes its items.
    pub(super) fn drop(&mut self, id: CallbackId) -> Option<u64> {
        let Make { each, held_len, .. } = self.by_id.remove(&id)?;
        self.held_len -= held_len;
        Some(each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Encoding;
    use proptest::prelude::*;

    const ID: CallbackId = CallbackId(1);

    fn item(len: usize) -> Item {
        Item { payload: Payload::new(Encoding::Json, vec![b'1'; len]), on_left: None }
    }

    #[test]
    fn more_is_granted_when_half_of_the_window_has_left() {
        let mut reads = Reads::default();
        reads.begin(ID, 1, 2, 3);
        for _ in 1..FOREIGN_WINDOW_ITEMS / 2 {
            reads.said(ID, 1);
            assert!(reads.left().is_empty());
        }
        reads.said(ID, 1);
        let half = FOREIGN_WINDOW_ITEMS / 2;
        assert_eq!(reads.left(), [(ID, Grant { items: half, bytes: half })]);
        reads.said(ID, FOREIGN_WINDOW_LEN as usize * 3);
        reads.said(ID, 1);
        assert_eq!(reads.left(), [(ID, Grant { items: 2, bytes: FOREIGN_WINDOW_LEN * 3 + 1 })]);
        reads.said(ID, FOREIGN_WINDOW_LEN as usize);
        assert!(reads.end(ID).is_some() && reads.left().is_empty(), "what has ended needs no grant");
    }

    #[test]
    fn a_program_that_sends_too_fast_gets_the_error_behind_what_it_sent_before() {
        let mut makes = Makes::default();
        makes.begin(ID, 7, Grant::default());
        let len = FOREIGN_STREAM_HELD_LEN_MAX / 2;
        for _ in 0..3 {
            makes.came(ID, item(len));
        }
        assert!(makes.next(ID).is_none());
        makes.granted(ID, Grant { items: 9, bytes: u32::MAX });
        assert!(matches!(makes.next(ID), Some(Next::Item(_))));
        let Some(Next::End(Err(error), 7)) = makes.next(ID) else { panic!("only one item had room") };
        assert_eq!(error.code(), Code::OVERLOADED);
        assert!(makes.next(ID).is_none() && makes.held_len == 0);
    }

    proptest! {
        /// Whatever a program and a consumer do: items leave in order, none without a grant, and the end behind the last of them, once.
        #[test]
        fn items_leave_in_order_within_their_grants_and_the_end_once(
            steps in prop::collection::vec((0..4_u8, 0_u32..40, 0_u32..3), 1..200),
        ) {
            let mut makes = Makes::default();
            makes.begin(ID, 7, Grant { items: 2, bytes: 20 });
            let (mut items, mut bytes) = (2_u64, 20_i64);
            let (mut came, mut left, mut has_ended) = (0_usize, 0_usize, false);
            let mut is_over = false;
            for (step, len, count) in steps {
                match step {
                    0 | 1 => {
                        came += usize::from(!has_ended);
                        let payload = Payload::new(Encoding::Json, vec![b'1'; len as usize]);
                        makes.came(ID, Item { payload, on_left: Some(came as u64) });
                    }
                    2 => {
                        makes.granted(ID, Grant { items: count, bytes: len });
                        (items, bytes) = (items + u64::from(count), bytes + i64::from(len));
                    }
                    _ if count == 0 => {
                        let known = makes.ended(ID, Ok(Payload::new(Encoding::Json, "1")));
                        prop_assert_eq!(known, !is_over);
                        has_ended = true;
                    }
                    _ => {}
                }
                while let Some(next) = makes.next(ID) {
                    prop_assert!(!is_over);
                    match next {
                        Next::Item(item) => {
                            prop_assert!(items > 0 && bytes > 0);
                            (items, bytes) = (items - 1, bytes - item.payload.len() as i64);
                            left += 1;
                            prop_assert_eq!(item.on_left, Some(left as u64));
                        }
                        Next::End(end, _) => {
                            prop_assert!(has_ended && left == came);
                            prop_assert_eq!(end.ok(), Some(Payload::default()));
                            is_over = true;
                        }
                    }
                }
            }
            prop_assert_eq!(makes.held_len == 0, left == came);
            makes.drop(ID);
            prop_assert_eq!(makes.held_len, 0);
        }
    }
}
