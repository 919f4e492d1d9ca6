//! What the code made by `#[meshwork::actions]` calls. Not for users: it may change with any version.

pub use crate::call::call_typed;
pub use crate::record::{Method, Record};
pub use crate::respond::respond_typed;
pub use crate::shape::{Probe, WithSchema, WithoutSchema, record_of, shape, shape_of};
pub use meshwork_wire::{DecodeError, PayloadRef, is_none};
pub use serde;
