//! [`Untraceable`]: why a type has no signature, for the user's log; and the error that ends a single run of the tracer.

use crate::limits::{TRACE_DEPTH_MAX, TRACE_RUNS_MAX};
use std::fmt;

/// A type has no signature, so its values travel by name. Its text names the type, the place in the type and the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Untraceable {
    /// The name of the type.
    pub type_name: &'static str,
    /// The place in the type, as in `.items[].price`; empty for the type itself.
    pub place: String,
    /// The obstacle there.
    pub obstacle: Obstacle,
}

/// What keeps a type from having a signature.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Obstacle {
    /// The type asks what the bytes hold, as tagged, untagged and flattened types do.
    AsksForAny,
    /// The type asks for the name of a field, and none is written there: it flattens another type into itself.
    AsksForName,
    /// The type skips a value whose type it does not know.
    Skips,
    /// The type does not read the same each time, or has two parts of one name.
    Varies,
    /// A part of the type cannot be reached, since no value that was made up for an earlier part is taken. With the last refusal.
    Hidden(String),
    /// No value that was made up for the whole type is taken. With the last refusal.
    NoValue(String),
    /// The type is nested too deep, or holds itself and nothing else.
    TooDeep,
    /// The type has too many parts.
    TooLarge,
    /// The numbers of the variants and their names do not fit, as with a variant that has an alias.
    Variants,
    /// The fields and their names do not fit.
    Fields,
    /// The type's `Deserialize` panicked.
    Panicked(String),
}

impl fmt::Display for Untraceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { type_name, place, obstacle } = self;
        write!(f, "the type {type_name} cannot be traced: ")?;
        if !place.is_empty() {
            write!(f, "at `{place}`, ")?;
        }
        match obstacle {
            Obstacle::AsksForAny => {
                f.write_str("it asks what the bytes hold, as tagged, untagged and flattened types do")
            }
            Obstacle::AsksForName => {
                f.write_str("it asks for a name where none is written, as flattened types do")
            }
            Obstacle::Skips => f.write_str("it skips a value of unknown type"),
            Obstacle::Varies => f.write_str("it does not read the same each time"),
            Obstacle::Hidden(refusal) => {
                f.write_str("no value that was made up is taken, so what follows cannot be reached")?;
                because(f, refusal)
            }
            Obstacle::NoValue(refusal) => {
                f.write_str("no value that was made up is taken")?;
                because(f, refusal)
            }
            Obstacle::TooDeep => {
                write!(
                    f,
                    "it is nested deeper than {TRACE_DEPTH_MAX} levels, or holds itself and nothing else"
                )
            }
            Obstacle::TooLarge => {
                write!(f, "it has too many parts, or takes more than {TRACE_RUNS_MAX} runs")
            }
            Obstacle::Variants => {
                f.write_str("its variants are not as many as their names, as where a variant has an alias")
            }
            Obstacle::Fields => f.write_str("its fields are not as many as their names"),
            Obstacle::Panicked(message) => {
                f.write_str("its `Deserialize` panicked")?;
                because(f, message)
            }
        }
    }
}

impl std::error::Error for Untraceable {}

fn because(f: &mut fmt::Formatter<'_>, reason: &str) -> fmt::Result {
    if reason.is_empty() { Ok(()) } else { write!(f, " ({reason})") }
}

/// Ends a run: the type refused a value that was made up, or the tracer has learnt what it wanted.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) reason: String,
    /// The name of the field that was given twice.
    pub(super) duplicate: Option<&'static str>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refused {}

impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self { reason: reason.to_string(), duplicate: None }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { reason: String::new(), duplicate: Some(field) }
    }
}
