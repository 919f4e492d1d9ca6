//! The heads of requests, each written once: the calls of an action differ in their ids and arguments alone. A thread remembers
//! the indexes of the heads of its actions, so that a call finds its head without a lock.

use super::known::Wanted;
use crate::hashed::HashMap;
use bytes::BytesMut;
use meshwork_wire::{
    ByteString, CallbackId, Encoding, HeadTemplate, Headers, NameError, Payload, Request, Signature,
    check_action, check_node,
};
use std::cell::RefCell;
use std::time::Duration;

/// How many heads a node keeps. Calls that need a further head are written by the actor.
const HEADS_MAX: usize = 1_024;

/// The heads that a node keeps.
#[derive(Default)]
pub(crate) struct Heads {
    heads: Vec<Head>,
    indexes: HashMap<Spec, HeadIndex>,
}

/// The contents of a head besides the id of a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Spec {
    pub(crate) action: ByteString,
    /// The node that is to answer the request; empty for any.
    pub(crate) node: ByteString,
    pub(crate) within: Option<Duration>,
    pub(crate) encoding: Encoding,
}

/// The index of a head at its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadIndex(u32);

struct Head {
    spec: Spec,
    template: HeadTemplate,
}

impl Heads {
    /// The index of a head, which is written now if the node does not keep it yet. None if [`HEADS_MAX`] heads are kept, or the names of this
    /// one are too long.
    pub(crate) fn find(&mut self, spec: &Spec) -> Option<HeadIndex> {
        if let Some(index) = self.indexes.get(spec) {
            return Some(*index);
        }
        // A call under a name that is none has no head: the call is refused when it is asked.
        if self.heads.len() >= HEADS_MAX || check_called(&spec.action, &spec.node).is_err() {
            return None;
        }
        let template = HeadTemplate::of_request(&Request {
            callback_id: CallbackId(0),
            action: spec.action.clone(),
            node: spec.node.clone(),
            caller: ByteString::new(),
            time_left: spec.within,
            hops: 0,
            headers: Headers::none(),
            payload: Payload::new(spec.encoding, Vec::new()),
        })?;
        let index = HeadIndex(u32::try_from(self.heads.len()).ok()?);
        self.heads.push(Head { spec: spec.clone(), template });
        self.indexes.insert(spec.clone(), index);
        Some(index)
    }

    pub(crate) fn spec(&self, index: HeadIndex) -> Option<&Spec> {
        self.heads.get(index.0 as usize).map(|head| &head.spec)
    }

    /// Appends the frame of a request; `false` if there is no head of this index.
    #[inline]
    pub(crate) fn write(
        &self,
        index: HeadIndex,
        callback_id: CallbackId,
        arguments: &[u8],
        frames: &mut BytesMut,
    ) -> bool {
        let Some(head) = self.heads.get(index.0 as usize) else {
            return false;
        };
        head.template.write_request(callback_id, arguments, frames);
        true
    }
}

/// Checks the names in a call: that of the action, and that of the node, which is empty for any node.
pub(crate) fn check_called(action: &str, node: &str) -> Result<(), NameError> {
    check_action(action)?;
    if node.is_empty() { Ok(()) } else { check_node(node) }
}

/// The head of an action that this thread called with this signature, or by name, with the default deadline and at any node.
#[derive(Clone, Debug)]
struct Remembered {
    /// The number of the node in this process.
    node: u64,
    /// The version of the node when the head was found.
    version: u64,
    action: ByteString,
    /// The action as it stands in the program, if it does: it is the same one at the same place, whose bytes need not be looked at.
    literal: Option<&'static str>,
    signature: Option<Signature>,
    index: HeadIndex,
    wanted: Wanted,
}

/// How many actions a thread remembers. Two actions may have one index in the cache: then the action that was called last is remembered.
const REMEMBERED: usize = 64;

thread_local! {
    static THREAD: RefCell<Vec<Option<Remembered>>> = const { RefCell::new(Vec::new()) };
}

/// The head of an action at this version of a node, if this thread has found it before.
#[inline(always)]
pub(crate) fn remembered(
    node: u64,
    version: u64,
    action: &str,
    signature: Option<Signature>,
) -> Option<(HeadIndex, Wanted)> {
    // All that is handed out of the thread's storage fits into a register.
    let found: Option<(HeadIndex, Encoding, bool)> = THREAD
        .try_with(|thread| {
            let thread = thread.borrow();
            let found = thread.get(cache_index(node, action, signature))?.as_ref()?;
            let is_it = found.node == node
                && found.version == version
                && found.signature == signature
                && (found.literal.is_some_and(|literal| std::ptr::eq(literal, action))
                    || *found.action == *action);
            is_it.then(|| (found.index, found.wanted.form.encoding(), found.wanted.as_list))
        })
        .unwrap_or_default();
    let (index, encoding, as_list) = found?;
    Some((index, Wanted::written(encoding, as_list, signature)))
}

/// Remembers the index of the head of an action.
pub(crate) fn remember(
    node: u64,
    version: u64,
    (action, literal): (&ByteString, Option<&'static str>),
    signature: Option<Signature>,
    index: HeadIndex,
    wanted: Wanted,
) {
    // A thread that ends has nothing more to remember.
    let _ = THREAD.try_with(|thread| {
        let mut thread = thread.borrow_mut();
        if thread.is_empty() {
            thread.resize(REMEMBERED, None);
        }
        let at = cache_index(node, action, signature);
        let action = action.clone();
        thread[at] = Some(Remembered { node, version, action, literal, signature, index, wanted });
    });
}

/// The index of an action in the cache of a thread. It is made of the length and the last bytes of the name, which differ more often than
/// the first bytes.
#[inline]
fn cache_index(node: u64, action: &str, signature: Option<Signature>) -> usize {
    let bytes = action.as_bytes();
    let last = bytes.last_chunk::<4>().map_or(0, |last| u32::from_le_bytes(*last));
    let signature = signature.map_or(0, |signature| signature.0);
    let mixed =
        (u64::from(last) ^ node ^ signature ^ (bytes.len() as u64) << 7).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 58) as usize
}

const _: () = assert!(REMEMBERED == 1 << 6, "an index in the cache has six bits");
