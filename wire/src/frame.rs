//! The frames of the native dialect and their bytes: `u32` length (little endian), head (bincode), payload as it is.
//!
//! The frames that a relay handles (requests, responses, events) are read without copying: names and payloads are slices of the buffer
//! that the frame came in.

mod before;
mod described;
mod error;
mod heads;
mod kinds;
mod next;
mod swift;

pub use described::DescribedPart;
pub use error::FrameError;
pub use kinds::{
    ActionDescription, Bind, Bound, Broadcast, Describe, DescribeAfter, Described, ExtendedBind,
    ExtendedBound, Features, FindProviders, Frame, FrameRef, Granted, Invoke, Item, KeepLast, Kept,
    LastValue, NodeNews, Offer, OpenStream, Outcome, Publish, Refused, Register, Request, Response, Shape,
    Subscribe, SubscribeToLast, SubscriptionKey, Unregister,
};
pub use next::{BlockPayload, Next};
pub use swift::{HeadTemplate, RequestRun, SMALL_REPLY_LEN_MAX, write_item, write_small_reply};
pub(crate) use swift::{KeptHead, PUBLISH, read_next};
