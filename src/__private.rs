//! The functions that the code made by `#[meshwork::actions]` calls. Not for users: they may change with any version.

use meshwork_wire::Shape;
use std::marker::PhantomData;

/// Finds out whether a type has a JSON Schema. The compiler looks for methods of `Probe` before methods of `&Probe`, so
/// [`WithSchema`] wins where it is implemented.
pub struct Probe<T>(PhantomData<T>);

impl<T> Probe<T> {
    /// A probe of the type `T`.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only made code calls it")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

/// For types that implement `schemars::JsonSchema`.
pub trait WithSchema {
    /// The JSON Schema, as text.
    fn schema(&self) -> Option<String>;
}

/// For all other types.
pub trait WithoutSchema {
    /// Always none.
    fn schema(&self) -> Option<String> {
        None
    }
}

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> WithSchema for Probe<T> {
    fn schema(&self) -> Option<String> {
        serde_json::to_string(schemars::schema_for!(T).as_value()).ok()
    }
}

impl<T> WithoutSchema for &Probe<T> {}

/// The shape of an action, if the schemas of its arguments and its reply are known.
#[must_use]
pub fn shape_of(arguments: Option<String>, reply: Option<String>) -> Option<Shape> {
    Some(Shape { arguments: arguments?.into(), reply: reply?.into() })
}

/// The shape of an action from the types of its arguments and its reply, if both have a schema.
#[doc(hidden)]
#[macro_export]
macro_rules! __shape {
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
