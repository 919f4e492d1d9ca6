//! The wire of meshwork: [`Frame`]s and the bytes they are made of, [`Payload`]s in three encodings, names and
//! [`Pattern`]s, [`CallError`]s with stable codes, and every bound of every crate ([`limits`]).
//!
//! This crate has no runtime, no clock and no socket: it turns bytes into values and values into bytes. Decisions and waiting are the
//! business of `meshwork-actors`; users import `meshwork`.
#![deny(missing_docs)]

mod accepts;
mod codec;
mod copy;
mod coverage;
mod dialect;
mod encoding;
mod error;
mod frame;
mod function;
mod headers;
mod id;
mod label;
pub mod limits;
mod name;
mod pattern;
mod payload;
mod spoken;
mod thrown;
mod token;
mod value;

pub use accepts::{Accepts, Form, Signature};
pub use bytestring::ByteString;
pub use codec::{Block, FrameCodec, Frames};
pub use copy::append;
pub use dialect::{
    Allowed, Dialect, DialectError, Dnode, LentFunctions, LightRpcClient, LightRpcServer, NodeMeshClient,
    NodeMeshServer, ResultStyle, Said, foreign_name,
};
pub use encoding::Encoding;
pub use error::{ApplicationCode, Code, Fate};
pub use frame::{
    ActionDescription, Bind, BlockPayload, Bound, Broadcast, Describe, DescribeAfter, Described,
    DescribedPart, ExtendedBind, ExtendedBound, Features, FindProviders, Frame, FrameError, FrameRef,
    Granted, HeadTemplate, Invoke, Item, KeepLast, Kept, LastValue, Next, NodeNews, Offer, OpenStream,
    Outcome, Publish, Refused, Register, Request, RequestRun, Response, SMALL_REPLY_LEN_MAX, Shape,
    Subscribe, SubscribeToLast, SubscriptionKey, Unregister, write_item, write_small_reply,
};
pub use headers::{HeaderError, Headers};
pub use id::{CallbackId, SessionId};
pub use label::{Label, LabelError, Labels, check_key, check_labels};
pub use name::{
    NameError, check_action, check_group, check_node, check_topic, escape_unseen, everything_above,
    everything_below, is_everything_below, is_unseen, literal_action, meant_action,
};
pub use pattern::{Pattern, PatternError};
pub use payload::{
    CallError, Callable, Callbacks, Function, Grant, Invocation, Invoked, Passed, Payload, PayloadRef, Wants,
};
pub use spoken::{is_native, is_tls, spoken};
pub use token::{TokenError, check_token};
pub use value::{
    DecodeError, EncodeError, Obstacle, SMALL_VALUE_LEN_MAX, Traced, TypeShape, Untraceable, Value,
    is_absent, trace, try_sample,
};
