//! The streams that pass a session: those that its branch produces for other nodes, and those that its branch reads. A relay holds no item. It counts
//! what was granted and what came, since it trusts neither end. Pure.

use crate::hashed::{HashMap, HashSet};
use crate::master::forwarded::SharedCaller;
use crate::streams::{Allowance, ungranted};
use meshwork_wire::{CallError, CallbackId, Code, Fate, Grant};

/// The streams that pass one session.
pub(super) struct Streams<M> {
    /// Those that the branch produces, by the ids that were drawn here. Bounded by the requests to the branch.
    produced: HashMap<CallbackId, Produced<M>>,
    /// How many of these have begun.
    begun: usize,
    /// Those that the branch reads and that have begun, by the ids that the branch gave its requests. Bounded by those.
    read: HashSet<CallbackId>,
}

/// A stream that the branch produces.
struct Produced<M> {
    to: SharedCaller<M>,
    id_at_caller: CallbackId,
    allowance: Allowance,
    stage: Stage,
}

/// How far a stream is that the branch produces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked,
    Begun,
    /// It has begun, and [`Streams::begins`] has said so.
    Noted,
}

/// What becomes of an item, or of the start of a stream.
pub(super) enum Passes<M> {
    /// It goes on to the consumer.
    On { to: SharedCaller<M>, id_at_caller: CallbackId, begins: bool },
    /// It is of no stream that passes here.
    Unknown,
    /// It ends its stream with this error.
    Ends(CallError),
}

impl<M> Default for Streams<M> {
    fn default() -> Self {
        Self { produced: HashMap::default(), begun: 0, read: HashSet::default() }
    }
}

impl<M> Streams<M> {
    /// Whether no stream passes.
    pub(super) fn is_empty(&self) -> bool {
        self.produced.is_empty() && self.read.is_empty()
    }

    /// How many streams pass.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.produced.len() + self.read.len()
    }

    /// Notes that the branch was asked for a stream.
    pub(super) fn asked(
        &mut self,
        id_at_provider: CallbackId,
        to: SharedCaller<M>,
        id_at_caller: CallbackId,
        first: Grant,
    ) {
        let allowance = Allowance::new(first);
        self.produced.insert(id_at_provider, Produced { to, id_at_caller, allowance, stage: Stage::Asked });
    }

    /// Takes the start of a stream, from the branch.
    pub(super) fn starts(&mut self, id: CallbackId) -> Passes<M> {
        match self.produced.get_mut(&id) {
            // A second start is none.
            Some(stream) if stream.has_begun() => Passes::Unknown,
            Some(stream) => stream.goes_on(&mut self.begun),
            None => Passes::Unknown,
        }
    }

    /// Takes an item of so many bytes, from the branch of this name.
    #[inline]
    pub(super) fn item(&mut self, id: CallbackId, len: usize, name: &str) -> Passes<M> {
        match self.produced.get_mut(&id) {
            None => Passes::Unknown,
            Some(stream) => match stream.allowance.take(len) {
                Ok(()) => stream.goes_on(&mut self.begun),
                Err(_) => Passes::Ends(ungranted(name)),
            },
        }
    }

    /// Takes a grant for a stream that the branch produces. `Ok(false)`: there is no such stream any more.
    pub(super) fn granted(&mut self, id: CallbackId, grant: Grant) -> Result<bool, CallError> {
        let Some(stream) = self.produced.get_mut(&id) else {
            return Ok(false);
        };
        stream.allowance.grant(grant).map_err(|_| {
            let what = "more items were granted than any consumer may: the stream is ended";
            CallError::new(Code::OVERLOADED, Fate::Unknown, what)
        })?;
        Ok(true)
    }

    /// Forgets a stream that the branch produced.
    pub(super) fn produced_ends(&mut self, id: CallbackId) {
        let stream = self.produced.remove(&id);
        self.begun -= usize::from(stream.is_some_and(|stream| stream.has_begun()));
    }

    /// How many streams that the branch produces have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun
    }

    /// Whether the branch has begun this stream.
    pub(super) fn has_begun(&self, id: CallbackId) -> bool {
        self.produced.get(&id).is_some_and(Produced::has_begun)
    }

    /// Whether the branch has begun this stream since this was asked last.
    pub(super) fn begins(&mut self, id: CallbackId) -> bool {
        let begun = self.produced.get_mut(&id).filter(|stream| stream.stage == Stage::Begun);
        begun.map(|stream| stream.stage = Stage::Noted).is_some()
    }

    /// Notes that a stream has begun that the branch reads.
    pub(super) fn reads(&mut self, id: CallbackId) {
        self.read.insert(id);
    }

    /// Forgets a stream that the branch read. `true` if it had begun.
    pub(super) fn read_ends(&mut self, id: CallbackId) -> bool {
        self.read.remove(&id)
    }
}

impl<M> Produced<M> {
    fn has_begun(&self) -> bool {
        self.stage != Stage::Asked
    }

    fn goes_on(&mut self, begun: &mut usize) -> Passes<M> {
        let begins = !self.has_begun();
        if begins {
            self.stage = Stage::Begun;
            *begun += 1;
        }
        Passes::On { to: SharedCaller::clone(&self.to), id_at_caller: self.id_at_caller, begins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::forwarded::{Caller, CallerHere};
    use meshwork_wire::SessionId;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;

    #[test]
    fn streams_that_have_begun_are_counted_and_each_beginning_is_told_once() {
        let mut streams = Streams::default();
        let caller = Arc::new(Caller { id: SessionId(1), name: "caller".into(), mailbox: () });
        let to = Rc::new(CallerHere { caller, in_flight: Cell::new(0) });
        let ids = [1, 2].map(CallbackId);
        for id in ids {
            streams.asked(id, Rc::clone(&to), id, Grant { items: 9, bytes: 9 });
            assert!(!streams.has_begun(id) && !streams.begins(id));
        }
        // One begins with its start, one with its first item.
        assert!(matches!(streams.starts(ids[0]), Passes::On { begins: true, .. }));
        assert!(matches!(streams.item(ids[1], 1, ""), Passes::On { begins: true, .. }));
        for id in ids {
            assert!(matches!(streams.item(id, 1, ""), Passes::On { begins: false, .. }));
            assert!(streams.has_begun(id) && streams.begins(id) && !streams.begins(id));
        }
        assert_eq!(streams.begun(), 2);
        streams.asked(CallbackId(3), to, CallbackId(3), Grant::default());
        for (id, left) in [(3, 2), (1, 1), (1, 1), (2, 0)] {
            streams.produced_ends(CallbackId(id));
            assert_eq!(streams.begun(), left);
        }
        assert!(streams.is_empty());
    }
}
