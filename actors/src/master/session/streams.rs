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
    /// Those that the branch reads and that have begun, by the ids that the branch gave its requests. Bounded by those.
    read: HashSet<CallbackId>,
}

/// A stream that the branch produces.
struct Produced<M> {
    to: SharedCaller<M>,
    id_at_caller: CallbackId,
    allowance: Allowance,
    has_begun: bool,
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
        Self { produced: HashMap::default(), read: HashSet::default() }
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
        self.produced.insert(id_at_provider, Produced { to, id_at_caller, allowance, has_begun: false });
    }

    /// Takes the start of a stream, from the branch.
    pub(super) fn starts(&mut self, id: CallbackId) -> Passes<M> {
        match self.produced.get_mut(&id) {
            // A second start is none.
            Some(stream) if stream.has_begun => Passes::Unknown,
            Some(stream) => stream.goes_on(),
            None => Passes::Unknown,
        }
    }

    /// Takes an item of so many bytes, from the branch of this name.
    #[inline]
    pub(super) fn item(&mut self, id: CallbackId, len: usize, name: &str) -> Passes<M> {
        match self.produced.get_mut(&id) {
            None => Passes::Unknown,
            Some(stream) => match stream.allowance.take(len) {
                Ok(()) => stream.goes_on(),
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
        self.produced.remove(&id);
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
    fn goes_on(&mut self) -> Passes<M> {
        let begins = !std::mem::replace(&mut self.has_begun, true);
        Passes::On { to: SharedCaller::clone(&self.to), id_at_caller: self.id_at_caller, begins }
    }
}
