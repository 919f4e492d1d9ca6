//! What the code made by `#[meshwork::actions]` calls. Not for users: it may change with any version.

pub use crate::call::{call_typed, stream_typed};
pub use crate::context::taken;
pub use crate::own_error::{OwnError, message_of};
pub use crate::record::{Method, Record};
pub use crate::respond::{respond_stream_typed, respond_typed, respond_typed_blocking};
pub use crate::shape::{Probe, WithSchema, WithoutSchema, record_of, shape_of};
pub use meshwork_actors::answers::ContextRef;
pub use meshwork_wire::{DecodeError, PayloadRef, is_absent};
pub use serde;

/// The shape of an action from the types of its arguments and its reply, if both have a schema. With names, the arguments are a record.
#[doc(hidden)]
#[macro_export]
macro_rules! __shape {
    ([$($name:expr),*], $arguments:ty, $reply:ty) => {{
        let shape: ::core::option::Option<_> = $crate::__private::shape!($arguments, $reply);
        shape.and_then(|shape| {
            let arguments = $crate::__private::record_of(&[$($name),*], &shape.arguments)?;
            $crate::__private::shape_of(::core::option::Option::Some(arguments), ::core::option::Option::Some(shape.reply.into()))
        })
    }};
    ($arguments:ty, $reply:ty) => {{
        #[expect(unused_imports, reason = "which of them is used is what is asked")]
        use $crate::__private::{WithSchema as _, WithoutSchema as _};
        $crate::__private::shape_of(
            (&$crate::__private::Probe::<$arguments>::new()).schema(),
            (&$crate::__private::Probe::<$reply>::new()).schema(),
        )
    }};
}

pub use crate::__shape as shape;
