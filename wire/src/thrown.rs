//! The errors of programs of other languages: an error as the value that such a program throws, and a thrown value as an error. One rule for
//! every dialect, so that an error comes out as it went in, in whichever order it passes dialects and nodes of meshwork.
//!
//! A thrown value travels whole, beside what was found in it. The error of a Rust application becomes an object: its name, message and code,
//! and beside them the fields of its data. Data that are no object, or that have fields of these names, are the field `data`.

use crate::encoding::Encoding;
use crate::error::{ApplicationCode, Code, Fate};
use crate::limits::{ERROR_CODE_LEN_MAX, ERROR_MESSAGE_LEN_MAX, ERROR_NAME_LEN_MAX};
use crate::payload::{CallError, Payload};
use crate::value::{DecodeError, Value};
use serde::de::DeserializeOwned;

const NAME: &str = "name";
const MESSAGE: &str = "message";
const CODE: &str = "code";
/// The field for data that cannot stand beside name, message and code.
const DATA: &str = "data";

/// The name of an error that has none, as in JavaScript.
const NAMELESS: &str = "Error";

impl CallError {
    /// Gives the error a code of the application; it is one of the application from then on, with the code [`Code::UNKNOWN`]. A text is cut
    /// to [`ERROR_CODE_LEN_MAX`].
    #[must_use]
    pub fn with_application_code(mut self, code: impl Into<ApplicationCode>) -> Self {
        if self.is_thrown() {
            // The thrown value has another code in it.
            let fields = self.data().cloned();
            self.hold(fields, false);
        }
        self.set_application_code(Some(code.into()));
        self
    }

    /// The error without a code of the application.
    pub(crate) fn without_application_code(mut self) -> Self {
        self.set_application_code(None);
        self
    }

    /// The error with the value that a program threw for it, and gets again.
    pub(crate) fn with_thrown(mut self, whole: Payload) -> Self {
        self.hold(Some(whole), true);
        self
    }

    /// The data of the application. Of what a program of another language threw: all fields beside name, message and code; or the value
    /// itself, if it is no object.
    #[must_use]
    pub fn data(&self) -> Option<&Payload> {
        match self.held() {
            Some(whole) if self.is_thrown() => self.found(|| fields_of(whole)),
            held => held,
        }
    }

    /// The data as a value of this type.
    ///
    /// # Errors
    ///
    /// When the data are no `T`, or there are none and a `T` is not read from nothing, as an `Option` is.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        match self.data() {
            Some(data) => data.decode(),
            None => Payload::new(Encoding::Json, "null").decode(),
        }
    }

    /// The whole value that a program of another language threw; none for the error of a Rust program.
    #[must_use]
    pub fn thrown(&self) -> Option<&Payload> {
        self.held().filter(|_| self.is_thrown())
    }

    /// The error of an application that threw this value, in an encoding that describes itself.
    #[must_use]
    pub fn of_thrown(whole: Payload) -> Self {
        let value = whole.decode().unwrap_or_else(|_| {
            // A value that cannot be read, such as a number that is too large, still arrives whole.
            Value::Text(String::from_utf8_lossy(&whole.bytes).into_owned())
        });
        Self::of_thrown_value(&value, whole)
    }

    /// The error of an application that threw this value, which `whole` has the bytes of.
    pub(crate) fn of_thrown_value(value: &Value, whole: Payload) -> Self {
        let name = text(value, NAME, ERROR_NAME_LEN_MAX).unwrap_or(NAMELESS);
        let message = match (value, text(value, MESSAGE, usize::MAX)) {
            (Value::Text(message), _) => message.clone(),
            (_, Some(message)) => message.to_owned(),
            _ => as_json(value),
        };
        let mut error = Self::named(Code::UNKNOWN, Fate::Failed, name, message);
        error.set_application_code(code_of(value));
        error.hold(Some(whole), true);
        error
    }

    /// The value that a program gets whose protocol has numbers as codes: codes of meshwork are their numbers.
    pub(crate) fn to_thrown_with_numbers(&self) -> Value {
        self.to_thrown(|code| (code != Code::UNKNOWN).then(|| Value::Unsigned(code.0.into())))
    }

    /// The value that a program of another language gets for this error. `own` writes a code of meshwork; [`Code::UNKNOWN`] is that of an
    /// application's error without a code.
    pub(crate) fn to_thrown(&self, own: impl FnOnce(Code) -> Option<Value>) -> Value {
        match self.thrown().map(Payload::decode) {
            // Where an error is expected, null says that there is none.
            None | Some(Err(_) | Ok(Value::Nil)) => {}
            Some(Ok(thrown)) => return thrown,
        }
        // A code of a later version of meshwork has no name here.
        let is_nameless = self.name().is_empty() && self.code() != Code::UNKNOWN;
        let name = if is_nameless { NAMELESS } else { self.name() };
        let mut fields =
            vec![(NAME, Value::Text(name.into())), (MESSAGE, Value::Text(self.message().into()))];
        let code = self.application_code().map_or_else(|| own(self.code()), |code| Some(value_of(code)));
        fields.extend(code.map(|code| (CODE, code)));
        let mut fields: Vec<_> =
            fields.into_iter().map(|(key, value)| (Value::Text(key.into()), value)).collect();
        match self.data().map(Payload::decode) {
            Some(Ok(data)) if !stands_beside(&data) => fields.push((Value::Text(DATA.into()), data)),
            Some(Ok(Value::Map(data))) => fields.extend(data),
            // Only data in bincode cannot be read here, and `with_data` of an `ActionError` writes none.
            _ => {}
        }
        Value::Map(fields)
    }
}

/// Whether the fields of these data can stand beside name, message and code, and are found there again by [`fields_of`].
fn stands_beside(data: &Value) -> bool {
    let Value::Map(fields) = data else { return false };
    let has_own_name =
        |key: &Value| matches!(key, Value::Text(key) if ![NAME, MESSAGE, CODE].contains(&&**key));
    match &fields[..] {
        [] => false,
        [(Value::Text(key), inner)] if key == DATA => stands_beside(inner),
        fields => fields.iter().all(|(key, _)| has_own_name(key)),
    }
}

/// The data in a thrown value.
fn fields_of(whole: &Payload) -> Option<Payload> {
    let value = match whole.decode().ok()? {
        Value::Map(fields) => Value::Map(fields),
        _ => return Some(whole.clone()),
    };
    let found = [
        (NAME, text(&value, NAME, ERROR_NAME_LEN_MAX).is_some()),
        (MESSAGE, text(&value, MESSAGE, ERROR_MESSAGE_LEN_MAX).is_some()),
        (CODE, code_of(&value).is_some()),
    ];
    let Value::Map(mut fields) = value else { return None };
    for (name, _) in found.into_iter().filter(|(_, found)| *found) {
        if let Some(at) = fields.iter().position(|(key, _)| matches!(key, Value::Text(key) if key == name)) {
            fields.remove(at);
        }
    }
    let data = match &mut fields[..] {
        [] => return None,
        [(Value::Text(key), inner)] if key == DATA && !stands_beside(inner) => {
            std::mem::replace(inner, Value::Nil)
        }
        _ => Value::Map(fields),
    };
    let encoded = Payload::encode(whole.encoding, &data).ok()?;
    Some(Payload { callbacks: whole.callbacks.clone(), ..encoded })
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Map(fields) = value else { return None };
    let found = fields.iter().find(|(key, _)| matches!(key, Value::Text(key) if key == name));
    found.map(|(_, value)| value)
}

/// A field that is a text of at most so many bytes. A longer one is no name, message or code, but stays with the data, whole.
fn text<'a>(value: &'a Value, name: &str, len_max: usize) -> Option<&'a str> {
    match field(value, name) {
        Some(Value::Text(text)) if text.len() <= len_max => Some(text),
        _ => None,
    }
}

fn code_of(value: &Value) -> Option<ApplicationCode> {
    Some(match field(value, CODE)? {
        Value::Unsigned(number) => (*number).into(),
        Value::Signed(number) => (*number).into(),
        Value::Unsigned128(number) => ApplicationCode::Integer(i128::try_from(*number).ok()?),
        Value::Signed128(number) => (*number).into(),
        Value::Float32(number) => (*number).into(),
        Value::Float64(number) => (*number).into(),
        Value::Text(text) if text.len() <= ERROR_CODE_LEN_MAX => text.as_str().into(),
        _ => return None,
    })
}

fn value_of(code: &ApplicationCode) -> Value {
    match code {
        ApplicationCode::Integer(number) => match (u64::try_from(*number), i64::try_from(*number)) {
            (Ok(number), _) => Value::Unsigned(number),
            (_, Ok(number)) => Value::Signed(number),
            _ => u128::try_from(*number).map_or(Value::Signed128(*number), Value::Unsigned128),
        },
        ApplicationCode::Float(number) => Value::Float64(*number),
        ApplicationCode::Text(text) => Value::Text(text.to_string()),
    }
}

/// A value as its JSON, for people.
fn as_json(value: &Value) -> String {
    let json = Payload::encode(Encoding::Json, value).unwrap_or_default();
    String::from_utf8_lossy(&json.bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Keys of which many collide with those of an error.
    fn key() -> impl Strategy<Value = Value> {
        prop_oneof![Just(NAME), Just(MESSAGE), Just(CODE), Just(DATA), Just("path")]
            .prop_map(|key| Value::Text(key.to_owned()))
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Bool),
            any::<u64>().prop_map(Value::Unsigned),
            (i64::MIN..0).prop_map(Value::Signed),
            ".{0,4}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let map = proptest::collection::vec((key(), inner.clone()), 0..4).prop_map(|mut entries| {
                let mut seen = Vec::new();
                entries.retain(|(key, _)| {
                    !seen.contains(key) && {
                        seen.push(key.clone());
                        true
                    }
                });
                Value::Map(entries)
            });
            prop_oneof![proptest::collection::vec(inner, 0..3).prop_map(Value::List), map]
        })
    }

    fn encoding() -> impl Strategy<Value = Encoding> {
        prop_oneof![Just(Encoding::MessagePack), Just(Encoding::Json)]
    }

    fn code() -> impl Strategy<Value = Option<ApplicationCode>> {
        prop_oneof![
            Just(None),
            any::<i64>().prop_map(|number| Some(number.into())),
            any::<u64>().prop_map(|number| Some(number.into())),
            "[a-zA-Z0-9_]{0,8}".prop_map(|text| Some(text.into())),
            (-1e300..1e300).prop_map(|number: f64| Some(number.into())),
        ]
    }

    fn none(code: Code) -> Option<Value> {
        assert_eq!(code, Code::UNKNOWN, "an error of an application has no code of meshwork");
        None
    }

    proptest! {
        /// Data whose fields have the names of those of an error once took their places.
        #[test]
        fn the_error_of_an_application_is_found_again_in_what_a_program_gets(
            code in code(), data in proptest::option::of(value()), encoding in encoding(),
        ) {
            let mut error = CallError::named(Code::UNKNOWN, Fate::Failed, "OutOfStock", "none left");
            if let Some(code) = &code {
                error = error.with_application_code(code.clone());
            }
            if let Some(data) = &data {
                error = error.with_data(Payload::encode(Encoding::MessagePack, data).unwrap());
            }
            let object = Payload::encode(encoding, &error.to_thrown(none)).unwrap();
            let back = CallError::of_thrown(object);
            prop_assert_eq!((back.name(), back.message(), back.fate()), ("OutOfStock", "none left", Fate::Failed));
            prop_assert_eq!((back.code(), back.application_code()), (Code::UNKNOWN, code.as_ref()));
            prop_assert_eq!(back.data().map(|data| data.decode::<Value>().unwrap()), data);
        }

        #[test]
        fn what_was_thrown_comes_out_as_it_went_in(value in value(), encoding in encoding()) {
            let whole = Payload::encode(encoding, &value).unwrap();
            let error = CallError::of_thrown(whole.clone());
            prop_assert_eq!((error.code(), error.fate()), (Code::UNKNOWN, Fate::Failed));
            prop_assert_eq!(error.thrown(), Some(&whole));
            match value {
                // A program would take it for a success.
                Value::Nil => prop_assert!(field(&error.to_thrown(none), MESSAGE).is_some()),
                value => prop_assert_eq!(error.to_thrown(none), value),
            }
        }

        /// A Rust program takes what was thrown apart, and makes an error of its own of the parts.
        #[test]
        fn the_parts_of_what_was_thrown_make_the_same_object(value in value()) {
            let value = match value {
                Value::Map(fields) => Value::Map(fields),
                other => Value::Map(vec![(Value::Text("path".to_owned()), other)]),
            };
            let error = CallError::of_thrown(Payload::encode(Encoding::MessagePack, &value).unwrap());
            let mut made = CallError::named(Code::UNKNOWN, Fate::Failed, error.name(), error.message());
            if let Some(code) = error.application_code() {
                made = made.with_application_code(code.clone());
            }
            if let Some(data) = error.data() {
                made = made.with_data(data.clone());
            }
            let again = CallError::of_thrown(Payload::encode(Encoding::MessagePack, &made.to_thrown(none)).unwrap());
            prop_assert_eq!((again.name(), again.message()), (error.name(), error.message()));
            prop_assert_eq!(again.application_code(), error.application_code());
            prop_assert_eq!(again.data(), error.data());
        }
    }

    #[test]
    fn a_thrown_error_has_its_own_name_message_code_and_fields() {
        let json = r#"{"errno":-2,"code":"ENOENT","syscall":"open","name":"SystemError","message":"gone"}"#;
        let error = CallError::of_thrown(Payload::new(Encoding::Json, json));
        assert_eq!((error.name(), error.message()), ("SystemError", "gone"));
        assert_eq!(error.application_code(), Some(&"ENOENT".into()));
        assert_eq!(error.data().unwrap().bytes, r#"{"errno":-2,"syscall":"open"}"#);
    }

    #[test]
    fn what_is_no_error_is_thrown_all_the_same() {
        for (json, message) in [
            (r#""bad""#, "bad"),
            ("7", "7"),
            ("null", "null"),
            ("[1,2]", "[1,2]"),
            (r#"{"why":"x"}"#, r#"{"why":"x"}"#),
            ("1e400", "1e400"),
        ] {
            let error = CallError::of_thrown(Payload::new(Encoding::Json, json));
            assert_eq!((error.name(), error.message(), error.application_code()), ("Error", message, None));
            assert_eq!(error.thrown().unwrap().bytes, json);
        }
    }

    #[test]
    fn a_code_given_to_what_was_thrown_takes_the_place_of_its_own() {
        let json = r#"{"message":"gone","code":2,"path":"/x"}"#;
        let error = CallError::of_thrown(Payload::new(Encoding::Json, json)).with_application_code("GONE");
        let object = Payload::encode(Encoding::Json, &error.to_thrown(none)).unwrap();
        assert_eq!(object.bytes, r#"{"name":"Error","message":"gone","code":"GONE","path":"/x"}"#);
    }

    /// A message of 100,000 characters was cut and its end was nowhere.
    #[test]
    fn what_is_too_long_for_a_head_stays_with_the_data() {
        let long = "x".repeat(100_000);
        let json = format!(r#"{{"name":"{long}","message":"{long}","code":"{long}"}}"#);
        let error = CallError::of_thrown(Payload::new(Encoding::Json, json.clone()));
        assert_eq!((error.name(), error.message().len()), ("Error", ERROR_MESSAGE_LEN_MAX));
        assert_eq!(error.application_code(), None);
        assert_eq!(error.data().unwrap().bytes, json);
    }
}
