//! Functions as arguments. A function has no bytes: it travels beside the payload, and the payload holds its index among the
//! functions that travel with it. While a value is written, the functions in it are noted; while a value is read, the functions are
//! handed out to it. So a function may stand at any depth of a value, in any encoding.
//!
//! The functions themselves, and the payloads that hold them, are in `payload.rs`.

use crate::limits::CALLBACKS_PER_REQUEST_MAX;
use crate::payload::{Callbacks, Function, Passed};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::{Cell, RefCell};

/// The name of the value that stands in a payload in place of a function. No encoding writes it; the tracer of types knows a function by it.
pub(crate) const PLACEHOLDER: &str = "$meshwork::callback";

/// The value that stands in a payload in place of a function: in an encoding that describes itself, a map with this one entry.
#[derive(Serialize, Deserialize)]
#[serde(rename = "$meshwork::callback", deny_unknown_fields)]
struct Placeholder {
    #[serde(rename = "$callback")]
    index: u32,
}

thread_local! {
    /// Whether a value is being written on this thread, and whether it has functions. Most values have none, and cost no more than
    /// this look.
    static NOTING: Cell<Noting> = const { Cell::new(Noting::No) };
    /// The functions of the value that is being written, behind those of the values around it.
    static NOTED: RefCell<Vec<Function>> = const { RefCell::new(Vec::new()) };
    /// Where the functions of the value that is being written begin.
    static BEGIN: Cell<usize> = const { Cell::new(0) };
    /// Whether functions are handed out to the value that is being read on this thread.
    static HANDING_OUT: Cell<bool> = const { Cell::new(false) };
    /// The functions that are handed out.
    static HANDED_OUT: Cell<Callbacks> = const { Cell::new(Callbacks::none()) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Noting {
    /// No value is being written.
    No,
    /// A value without functions so far.
    None,
    /// A value with functions.
    Some,
}

/// How many functions are noted. While a thread ends, the place may be gone already; no further function is noted then.
#[cold]
fn count_noted() -> usize {
    NOTED.try_with(|noted| noted.borrow().len()).unwrap_or_default()
}

/// The functions of the value that is being written, which are noted no longer.
#[cold]
fn take_noted() -> Vec<Function> {
    NOTED.try_with(|noted| noted.borrow_mut().split_off(BEGIN.get())).unwrap_or_default()
}

impl Callbacks {
    /// Notes the functions of the value that `write` writes. Gives the outcome of `write`, and the functions.
    ///
    /// # Errors
    ///
    /// When there are more than [`CALLBACKS_PER_REQUEST_MAX`].
    #[inline]
    pub(crate) fn noted<T>(write: impl FnOnce() -> T) -> (T, Result<Self, String>) {
        /// Goes back to the value that was being written around this one, also after a panic.
        struct Around {
            noting: Noting,
            begin: usize,
        }

        impl Drop for Around {
            #[inline]
            fn drop(&mut self) {
                if NOTING.replace(self.noting) == Noting::Some {
                    take_noted();
                }
                if self.noting == Noting::Some {
                    BEGIN.set(self.begin);
                }
            }
        }

        let noting = NOTING.replace(Noting::None);
        // Without functions so far, this value begins where the one around it does.
        let begin = if noting == Noting::Some { BEGIN.replace(count_noted()) } else { 0 };
        let _around = Around { noting, begin };
        let written = write();
        if NOTING.get() != Noting::Some {
            return (written, Ok(Self::none()));
        }
        let noted = take_noted();
        if noted.len() > CALLBACKS_PER_REQUEST_MAX {
            let count = noted.len();
            return (
                written,
                Err(format!("{count} functions are passed, and {CALLBACKS_PER_REQUEST_MAX} may be")),
            );
        }
        (written, Ok(Self::new(noted.into_iter().map(Passed::Here))))
    }

    /// Hands these functions out to the value that `read` reads.
    #[inline]
    pub(crate) fn hand_out<T>(&self, read: impl FnOnce() -> T) -> T {
        if self.is_empty() && !HANDING_OUT.get() { read() } else { self.hand_out_some(read) }
    }

    #[inline(never)]
    fn hand_out_some<T>(&self, read: impl FnOnce() -> T) -> T {
        /// Goes back to the value that was being read around this one, also after a panic.
        struct Around {
            handing_out: bool,
            handed_out: Callbacks,
        }

        impl Drop for Around {
            fn drop(&mut self) {
                HANDING_OUT.set(self.handing_out);
                let _ =
                    HANDED_OUT.try_with(|handed_out| handed_out.set(std::mem::take(&mut self.handed_out)));
            }
        }

        let handed_out = HANDED_OUT.try_with(|handed_out| handed_out.replace(self.clone()));
        let _around =
            Around { handing_out: HANDING_OUT.replace(true), handed_out: handed_out.unwrap_or_default() };
        read()
    }
}

impl Serialize for Function {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nowhere = || {
            serde::ser::Error::custom("a function can be passed in a call and its reply, and nowhere else")
        };
        if NOTING.get() == Noting::No {
            return Err(nowhere());
        }
        let noted = NOTED.try_with(|noted| noted.borrow().len() - BEGIN.get());
        let index = noted.ok().and_then(|count| u32::try_from(count).ok()).ok_or_else(nowhere)?;
        let written = Placeholder { index }.serialize(serializer)?;
        // A serializer that only looks what the value is has refused it, and notes no function.
        let _ = NOTED.try_with(|noted| noted.borrow_mut().push(self.clone()));
        NOTING.set(Noting::Some);
        Ok(written)
    }
}

impl<'de> Deserialize<'de> for Function {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Placeholder { index } = Placeholder::deserialize(deserializer)?;
        let handed_out = HANDED_OUT.try_with(|handed_out| {
            let callbacks = handed_out.take();
            let passed = callbacks.iter().nth(index as usize).cloned();
            handed_out.set(callbacks);
            passed
        });
        match handed_out {
            Ok(Some(Passed::Here(function))) => Ok(function),
            _ => {
                Err(serde::de::Error::custom(format_args!("no function number {index} came with the value")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Callable, CallbackId, Encoding, Invocation, Invoked, Payload};

    struct Nothing;

    impl Callable for Nothing {
        fn invoke(&self, _: Invocation) -> Invoked {
            Box::pin(async { Ok(Payload::default()) })
        }
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Deep {
        One(Function),
        Many { list: Vec<Option<Function>>, number: u8 },
    }

    #[test]
    fn functions_stand_at_any_depth_in_any_encoding() {
        let (one, two) = (Function::new(Nothing), Function::new(Nothing));
        let value =
            vec![Deep::One(one.clone()), Deep::Many { list: vec![None, Some(two), Some(one)], number: 7 }];
        for encoding in [Encoding::Bincode, Encoding::MessagePack, Encoding::Json] {
            let payload = Payload::encode(encoding, &value).unwrap();
            assert_eq!(payload.callbacks.len(), 3, "{encoding}");
            assert_eq!(payload.decode::<Vec<Deep>>().unwrap(), value, "{encoding}");
        }
    }

    #[test]
    fn the_placeholder_is_a_map_of_one_entry() {
        let payload = Payload::encode(Encoding::Json, &(1, Function::new(Nothing))).unwrap();
        assert_eq!(&payload.bytes[..], br#"[1,{"$callback":0}]"#);
    }

    #[test]
    fn a_function_is_written_and_read_in_a_payload_and_nowhere_else() {
        let function = Function::new(Nothing);
        let mut out = Vec::new();
        let written = function.serialize(&mut rmp_serde::Serializer::new(&mut out));
        assert!(written.unwrap_err().to_string().contains("can be passed in a call"));
        let mut payload = Payload::encode(Encoding::Json, &function).unwrap();
        payload.callbacks = Callbacks::none();
        assert!(payload.decode::<Function>().unwrap_err().reason.contains("no function number 0"));
        payload.callbacks = Callbacks::from_iter([CallbackId(0)]);
        assert!(payload.decode::<Function>().is_err(), "one that only has a number cannot be called");
    }

    #[test]
    fn too_many_functions_are_refused_where_they_are_passed() {
        let many = vec![Function::new(Nothing); CALLBACKS_PER_REQUEST_MAX];
        assert!(Payload::encode(Encoding::Bincode, &many).is_ok());
        let too_many = vec![Function::new(Nothing); CALLBACKS_PER_REQUEST_MAX + 1];
        let refused = Payload::encode(Encoding::Bincode, &too_many).unwrap_err();
        assert!(refused.reason.contains("65 functions are passed, and 64 may be"), "{refused}");
    }

    /// A value that is itself written and read as a payload of its own while another one is.
    #[derive(Clone)]
    struct Wrapped(Function);

    impl Serialize for Wrapped {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let inner = Payload::encode(Encoding::Json, &self.0).map_err(serde::ser::Error::custom)?;
            assert_eq!(inner.callbacks.len(), 1);
            inner.decode::<Function>().map_err(serde::ser::Error::custom)?.serialize(serializer)
        }
    }

    #[test]
    fn payloads_within_payloads_keep_their_functions_apart() {
        let function = Function::new(Nothing);
        let value = (function.clone(), Wrapped(function.clone()), function.clone());
        let payload = Payload::encode(Encoding::Bincode, &value).unwrap();
        assert_eq!(payload.callbacks.len(), 3);
        let read: (Function, Function, Function) = payload.decode().unwrap();
        assert_eq!(read, (function.clone(), function.clone(), function));
    }
}
