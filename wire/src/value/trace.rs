//! The shape of a type: what the type asks of serde while it is read. Two ends whose types have one [`Signature`] may leave the names
//! out of a payload; where the signatures differ, or a type has none, a value travels with its names.
//!
//! [`trace`] reads the type again and again, from values that it makes up. It needs nothing of the type but `Deserialize`, so it sees
//! what a payload would meet, and not what the type's declaration says. Whether the samples come back from their bytes is tried elsewhere.
//!
//! In `trace/`: the values, and combinations of them (`candidates.rs`, `combination.rs`); what is known of the type so far
//! (`place.rs`), each decision while it is read (`tree.rs`), and what a run teaches (`lessons.rs`); the deserializer (`reader.rs`); the
//! shape as a number (`shape.rs`); and why there may be none (`refused.rs`).

mod candidates;
mod combination;
mod lessons;
mod place;
mod reader;
mod refused;
mod shape;
mod tree;

pub use refused::{Obstacle, Untraceable};
pub use shape::TypeShape;

use crate::error::{Code, Fate};
use crate::limits::{SAMPLES_MAX, TRACE_RUNS_MAX, TRACE_STEPS_MAX};
use crate::payload::{CallError, Callable, Callbacks, Function, Invocation, Invoked, Passed};
use place::{At, ROOT};
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tree::Tree;

/// What the tracer found out about a type.
#[derive(Debug)]
pub struct Traced<T> {
    /// The shape of the type.
    pub shape: TypeShape,
    /// Values of the type, at least one and at most [`SAMPLES_MAX`](crate::limits::SAMPLES_MAX): together they show each variant, `None` and
    /// `Some`, empty lists and others, zero and other numbers, at each place of the type that takes them. Functions in them fail
    /// with [`Code::CALLBACK_GONE`] when they are called.
    pub samples: Vec<T>,
}

/// Finds the shape of a type, and makes samples of it. Costs some microseconds for a usual type, and some milliseconds for a type of
/// thousands of parts, so it is done once for each type.
///
/// The type's `Deserialize` meets values that no honest peer sends. A panic in it is caught, though the panic hook reports it as ever; a program that
/// aborts at a panic ends.
///
/// # Errors
///
/// When the type asks what the bytes hold, as tagged, untagged and flattened types do; when a part of it cannot be reached, or no
/// value made up is taken; when it is too deep or too large.
pub fn trace<T: DeserializeOwned>() -> Result<Traced<T>, Untraceable> {
    let tree = RefCell::new(Tree::new());
    let functions = Callbacks::new([Passed::Here(Function::new(Gone))]);
    let traced = functions
        .hand_out(|| catch_unwind(AssertUnwindSafe(|| explore(&tree).map(|first| sample(&tree, first)))));
    let mut tree = tree.into_inner();
    let failed = match traced {
        Ok(Ok(samples)) => match tree.stopped() {
            None => return Ok(Traced { shape: TypeShape::of(&tree), samples }),
            Some(stopped) => stopped,
        },
        Ok(Err(failed)) => failed,
        Err(panic) => (tree.last, Obstacle::Panicked(message(&*panic))),
    };
    let (at, obstacle) = failed;
    Err(Untraceable { type_name: type_name::<T>(), place: tree.text(at), obstacle })
}

/// Reads the type until its shape is known and a value of it was taken.
fn explore<T: DeserializeOwned>(tree: &RefCell<Tree>) -> Result<T, (At, Obstacle)> {
    for _ in 0..TRACE_RUNS_MAX {
        let read = reader::read(tree);
        let mut tree = tree.borrow_mut();
        if let Some(stopped) = tree.stopped() {
            return Err(stopped);
        }
        let done = tree.is_done(ROOT);
        match read {
            Ok(value) if done => return Ok(value),
            read => {
                if !tree.learn_from_run(read.is_ok()) {
                    let refusal = std::mem::take(&mut tree.refusal);
                    return Err(if done {
                        (ROOT, Obstacle::NoValue(refusal))
                    } else {
                        (tree.hidden(), Obstacle::Hidden(refusal))
                    });
                }
            }
        }
    }
    Err((ROOT, Obstacle::TooLarge))
}

/// Makes samples until they show all that the type takes.
fn sample<T: DeserializeOwned>(tree: &RefCell<Tree>, first: T) -> Vec<T> {
    let mut samples = Vec::new();
    let mut runs = 0;
    let steps_max = tree.borrow().steps() + TRACE_STEPS_MAX / 10;
    tree.borrow_mut().begin_sampling();
    loop {
        {
            let tree = tree.borrow();
            if !tree.lacks_samples()
                || samples.len() >= SAMPLES_MAX
                || runs >= TRACE_RUNS_MAX
                || tree.steps() > steps_max
            {
                break;
            }
        }
        runs += 1;
        let read = reader::read(tree);
        let mut tree = tree.borrow_mut();
        let more = match read {
            Ok(value) => {
                let new = tree.sampled();
                if new || samples.is_empty() {
                    samples.push(value);
                }
                new
            }
            Err(_) => tree.not_sampled(),
        };
        if !more {
            break;
        }
    }
    if samples.is_empty() {
        samples.push(first);
    }
    samples
}

/// The function in a sample.
struct Gone;

impl Callable for Gone {
    fn invoke(&self, _: Invocation) -> Invoked {
        let gone =
            CallError::new(Code::CALLBACK_GONE, Fate::NotSent, "the function stands in a sample of a type");
        Box::pin(std::future::ready(Err(gone)))
    }
}

/// What a panic says.
pub(super) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().copied();
    let mut message =
        message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default().to_owned();
    message.truncate(crate::error::cut_at(&message, crate::limits::REASON_LEN_MAX));
    message
}
