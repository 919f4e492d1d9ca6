//! The heads of requests, each written once: the calls of an action differ in their ids and arguments alone. A thread remembers
//! where the heads of its actions stand, so that a call finds its own without a lock.

use bytes::BytesMut;
use hashbrown::HashMap;
use meshwork_wire::{ByteString, CallbackId, Encoding, HeadTemplate, Payload, Request};
use std::cell::RefCell;
use std::time::Duration;

/// How many heads a node keeps. Calls that need another one are written by the actor.
const HEADS_MAX: usize = 1_024;

/// The heads that a node keeps.
#[derive(Default)]
pub(crate) struct Heads {
    heads: Vec<Head>,
    places: HashMap<Spec, HeadIndex>,
}

/// What a head says besides the id of a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Spec {
    pub(crate) action: ByteString,
    /// The node that is to run it; empty for any.
    pub(crate) node: ByteString,
    pub(crate) within: Option<Duration>,
    pub(crate) encoding: Encoding,
}

/// The place of a head at its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HeadIndex(u32);

struct Head {
    spec: Spec,
    template: HeadTemplate,
}

impl Heads {
    /// The place of a head, which is written if there is none yet. None if as many are kept as may be, or its names are too long.
    pub(crate) fn find(&mut self, spec: &Spec) -> Option<HeadIndex> {
        if let Some(place) = self.places.get(spec) {
            return Some(*place);
        }
        if self.heads.len() >= HEADS_MAX {
            return None;
        }
        let template = HeadTemplate::of_request(&Request {
            callback_id: CallbackId(0),
            action: spec.action.clone(),
            node: spec.node.clone(),
            caller: ByteString::new(),
            time_left: spec.within,
            payload: Payload::new(spec.encoding, Vec::new()),
        })?;
        let place = HeadIndex(u32::try_from(self.heads.len()).ok()?);
        self.heads.push(Head { spec: spec.clone(), template });
        self.places.insert(spec.clone(), place);
        Some(place)
    }

    pub(crate) fn spec(&self, place: HeadIndex) -> Option<&Spec> {
        self.heads.get(place.0 as usize).map(|head| &head.spec)
    }

    /// Appends the frame of a request; `false` if there is no such head.
    #[inline]
    pub(crate) fn write(
        &self,
        place: HeadIndex,
        callback_id: CallbackId,
        arguments: &[u8],
        frames: &mut BytesMut,
    ) -> bool {
        let Some(head) = self.heads.get(place.0 as usize) else {
            return false;
        };
        head.template.write_request(callback_id, arguments, frames);
        true
    }
}

/// What a thread remembers of the heads of an action that is called with the default deadline, at any node.
#[derive(Clone, Debug)]
struct Remembered {
    /// The number of the node in this process.
    node: u64,
    /// The version of the node when it was found.
    version: u64,
    action: ByteString,
    place: HeadIndex,
    encoding: Encoding,
}

/// How many actions a thread remembers. Two of them may need the same place: then the one that was called last has it.
const REMEMBERED: usize = 64;

thread_local! {
    static THREAD: RefCell<Vec<Option<Remembered>>> = const { RefCell::new(Vec::new()) };
}

/// The head of an action at this version of a node, if this thread has found it before.
#[inline]
pub(crate) fn remembered(node: u64, version: u64, action: &str) -> Option<(HeadIndex, Encoding)> {
    THREAD
        .try_with(|thread| {
            let thread = thread.borrow();
            let found = thread.get(place_of(node, action))?.as_ref()?;
            let is_it = found.node == node && found.version == version && *found.action == *action;
            is_it.then_some((found.place, found.encoding))
        })
        .ok()
        .flatten()
}

/// Remembers where the head of an action stands.
pub(crate) fn remember(node: u64, version: u64, action: &ByteString, place: HeadIndex, encoding: Encoding) {
    // A thread that ends has nothing more to remember.
    let _ = THREAD.try_with(|thread| {
        let mut thread = thread.borrow_mut();
        if thread.is_empty() {
            thread.resize(REMEMBERED, None);
        }
        let at = place_of(node, action);
        thread[at] = Some(Remembered { node, version, action: action.clone(), place, encoding });
    });
}

/// Made of the length and the last bytes, which differ more often than the first ones.
#[inline]
fn place_of(node: u64, action: &str) -> usize {
    let bytes = action.as_bytes();
    let last = bytes.last_chunk::<4>().map_or(0, |last| u32::from_le_bytes(*last));
    let mixed = (u64::from(last) ^ node ^ (bytes.len() as u64) << 7).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 58) as usize
}

const _: () = assert!(REMEMBERED == 1 << 6, "a place has six bits");
