//! [`Value`]: any value of an encoding that describes itself, such as for transcoding MessagePack to JSON and back. Numbers keep
//! their kind and all their digits, maps their order.

use crate::value::distinct::Distinct;
use crate::value::extension::{
    EXTENSION, INTEGER, Integer, READABLE_EXTENSION, TIMESTAMP, UNDEFINED, VALUE, date, visit_integer,
};
use crate::value::number::shown;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, Serialize, SerializeMap, SerializeSeq, SerializeTuple, Serializer};
use serde_bytes::{ByteBuf, Bytes};
use std::fmt;
use std::hash::{Hash, Hasher};

/// Any value of MessagePack or JSON, for code that does not know the type of the value. MessagePack that is read as a `Value` and
/// written again is unchanged. A `Value` cannot be read from bincode, which does not describe its values. A map with two equal keys is
/// an error.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// `nil` in MessagePack, `null` in JSON.
    Nil,
    /// True or false.
    Bool(bool),
    /// An integer that is not negative.
    Unsigned(u64),
    /// An integer.
    Signed(i64),
    /// An integer of more than 64 bits that is not negative. MessagePack has an extension for it, the one of msgpackr.
    Unsigned128(u128),
    /// An integer of more than 64 bits.
    Signed128(i128),
    /// A float of 32 bits.
    Float32(f32),
    /// A float of 64 bits.
    Float64(f64),
    /// Text.
    Text(String),
    /// Bytes, which JSON writes as a list of numbers.
    Bytes(Vec<u8>),
    /// Values in their order.
    List(Vec<Value>),
    /// Keys and values, in the order of the bytes.
    Map(Vec<(Value, Value)>),
    /// An extension of MessagePack: the number of its kind, and its bytes. Kind -1 is a timestamp, which JSON writes as text, such as
    /// `"2023-06-21T15:49:20.000Z"`; kind 0 with one zero is `undefined` of Node.js, which JSON writes as null. JSON writes other extensions
    /// as their bytes.
    Extension(i8, Vec<u8>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Nil => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Unsigned(value) => serializer.serialize_u64(*value),
            Value::Signed(value) => serializer.serialize_i64(*value),
            Value::Unsigned128(value) => serializer.serialize_u128(*value),
            Value::Signed128(value) => serializer.serialize_i128(*value),
            Value::Float32(value) => serializer.serialize_f32(*value),
            Value::Float64(value) => serializer.serialize_f64(*value),
            Value::Text(value) => serializer.serialize_str(value),
            Value::Bytes(value) => serializer.serialize_bytes(value),
            Value::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(value)?;
                }
                list.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Value::Extension(kind, bytes) if serializer.is_human_readable() => {
                serializer.serialize_newtype_struct(READABLE_EXTENSION, &Parts { kind: *kind, bytes })
            }
            Value::Extension(kind, bytes) => {
                serializer.serialize_newtype_struct(EXTENSION, &(*kind, Bytes::new(bytes)))
            }
        }
    }
}

/// The parts of an extension. JSON has no extensions: there a timestamp is written as `JSON.stringify` writes a date, an integer as its
/// digits, `undefined` as null, and other kinds are written as their bytes.
struct Parts<'v> {
    kind: i8,
    bytes: &'v [u8],
}

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { kind, bytes } = *self;
        if !serializer.is_human_readable() {
            let mut parts = serializer.serialize_tuple(2)?;
            parts.serialize_element(&kind)?;
            parts.serialize_element(Bytes::new(bytes))?;
            return parts.end();
        }
        match kind {
            TIMESTAMP => match date(bytes) {
                Some(text) => serializer.serialize_str(&text),
                None => serializer.serialize_unit(),
            },
            INTEGER => match Integer::of_bytes(bytes) {
                Some(Integer::Unsigned(value)) => serializer.serialize_u128(value),
                Some(Integer::Negative(value)) => serializer.serialize_i128(value),
                None => Err(ser::Error::custom("no integer type holds an integer of more than 128 bits")),
            },
            _ if (kind, bytes) == UNDEFINED => serializer.serialize_unit(),
            _ => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(VALUE, Named)
    }
}

/// The visitor of a value that was asked for by name.
struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AnyValue.expecting(f)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

/// How many elements of a list get room before they are read, however many the bytes claim.
const ROOM_MAX: usize = 64;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON and MessagePack both have")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Signed(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Unsigned128(value), Value::Unsigned))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(match (u128::try_from(value), i64::try_from(value)) {
            (Ok(value), _) => return self.visit_u128(value),
            (Err(_), Ok(value)) => Value::Signed(value),
            (Err(_), Err(_)) => Value::Signed128(value),
        })
    }

    fn visit_f32<E: Error>(self, value: f32) -> Result<Value, E> {
        Ok(Value::Float32(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float64(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::with_capacity(list.size_hint().unwrap_or(0).min(ROOM_MAX));
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0).min(ROOM_MAX));
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        check_distinct(&entries)?;
        Ok(Value::Map(entries))
    }

    /// An extension.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let (kind, bytes) = <(i8, ByteBuf)>::deserialize(deserializer)?;
        // Another form of an integer is kept as it is: what is read and written again is unchanged.
        let integer = Integer::of_bytes(&bytes).filter(|integer| {
            kind == INTEGER && bytes.len() > size_of::<u64>() && integer.bytes(&mut [0; 17]) == &bytes[..]
        });
        match integer {
            Some(integer) => visit_integer(integer, self),
            None => Ok(Value::Extension(kind, bytes.into_vec())),
        }
    }
}

fn check_distinct<E: Error>(entries: &[(Value, Value)]) -> Result<(), E> {
    if entries.len() < 2 {
        return Ok(());
    }
    let mut keys = Distinct::new();
    match entries.iter().find(|(key, _)| !keys.insert(Key(key))) {
        None => Ok(()),
        Some((Value::Text(key), _)) => {
            Err(E::custom(format_args!("the key {:?} comes twice in one map", shown(key))))
        }
        Some((key, _)) => {
            Err(E::custom(format_args!("the key {} comes twice in one map", shown(&format!("{key:?}")))))
        }
    }
}

/// The key of a map, to be told from the other keys: integers are equal whatever their type, and floats if their bits are.
struct Key<'v>(&'v Value);

impl Key<'_> {
    fn integer(&self) -> Option<Integer> {
        Some(match *self.0 {
            Value::Unsigned(value) => Integer::Unsigned(value.into()),
            Value::Signed(value) => Integer::signed(value.into()),
            Value::Unsigned128(value) => Integer::Unsigned(value),
            Value::Signed128(value) => Integer::signed(value),
            _ => return None,
        })
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Value::Float32(one), Value::Float32(other)) => one.to_bits() == other.to_bits(),
            (Value::Float64(one), Value::Float64(other)) => one.to_bits() == other.to_bits(),
            (Value::List(one), Value::List(other)) => one.iter().map(Key).eq(other.iter().map(Key)),
            (Value::Map(one), Value::Map(other)) => {
                one.len() == other.len()
                    && one
                        .iter()
                        .zip(other)
                        .all(|(one, other)| Key(&one.0) == Key(&other.0) && Key(&one.1) == Key(&other.1))
            }
            (one, other) => match (self.integer(), Key(other).integer()) {
                (Some(one), Some(other)) => one == other,
                _ => one == other,
            },
        }
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Some(integer) = self.integer() {
            let mut room = [0; 17];
            return integer.bytes(&mut room).hash(state);
        }
        std::mem::discriminant(self.0).hash(state);
        match self.0 {
            Value::Bool(value) => value.hash(state),
            Value::Float32(value) => value.to_bits().hash(state),
            Value::Float64(value) => value.to_bits().hash(state),
            Value::Text(text) => text.hash(state),
            Value::Bytes(bytes) => bytes.hash(state),
            Value::Extension(kind, bytes) => (kind, bytes).hash(state),
            Value::List(values) => values.iter().for_each(|value| Key(value).hash(state)),
            Value::Map(entries) => {
                entries.iter().for_each(|(key, value)| [key, value].map(Key).hash(state));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{CallbackId, Callbacks, Encoding, Payload};

    #[test]
    fn what_goes_to_the_other_encoding_and_back_is_the_same() {
        for json in [
            "null",
            "true",
            "[0,-1,18446744073709551615,-9223372036854775808,1.5,-0.001,1e300]",
            r#"{"text":"h\u00e9llo \u2603 \ud83d\ude00","list":[[],[[1]],{}],"nothing":null}"#,
        ] {
            let before = Payload::new(Encoding::Json, json);
            let packed = before.transcode(Encoding::MessagePack).unwrap();
            let after = packed.transcode(Encoding::Json).unwrap();
            let (before, after): (serde_json::Value, serde_json::Value) =
                (before.decode().unwrap(), after.decode().unwrap());
            assert_eq!(before, after);
        }
    }

    #[test]
    fn bytes_become_numbers_and_find_their_way_back() {
        let bytes = serde_bytes::ByteBuf::from(vec![0, 127, 128, 255]);
        let packed = Payload::encode(Encoding::MessagePack, &bytes).unwrap();
        let json = packed.transcode(Encoding::Json).unwrap();
        assert_eq!(&json.bytes[..], b"[0,127,128,255]");
        assert_eq!(json.decode::<serde_bytes::ByteBuf>().unwrap(), bytes);
    }

    #[test]
    fn a_date_stays_one_and_is_the_text_that_node_js_makes_of_it_where_there_are_none() {
        // As msgpackr writes `new Date(..)`: whole seconds, with milliseconds, before 1970, and none at all.
        for (bytes, text) in [
            (&[0xD6, 0xFF, 0x64, 0x93, 0x1C, 0x00][..], r#""2023-06-21T15:49:20.000Z""#),
            (&[0xD7, 0xFF, 0x1D, 0x53, 0x53, 0x00, 0x64, 0x93, 0x1C, 0x00], r#""2023-06-21T15:49:20.123Z""#),
            (
                &[0xC7, 12, 0xFF, 0x1D, 0xCD, 0x65, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
                r#""1969-12-31T23:59:59.500Z""#,
            ),
            (&[0xD4, 0xFF, 0xFF], "null"),
        ] {
            let packed = Payload::new(Encoding::MessagePack, bytes);
            let value: super::Value = packed.decode().unwrap();
            assert_eq!(Payload::encode(Encoding::MessagePack, &value).unwrap(), packed);
            assert_eq!(packed.transcode(Encoding::Json).unwrap().bytes, text);
        }
    }

    #[test]
    fn an_extension_of_unknown_kind_is_kept() {
        let packed = Payload::new(Encoding::MessagePack, &[0x91, 0xC7, 3, 0x43, 1, 2, 3][..]);
        let value: super::Value = packed.decode().unwrap();
        assert_eq!(Payload::encode(Encoding::MessagePack, &value).unwrap(), packed);
        assert_eq!(packed.transcode(Encoding::Json).unwrap().bytes, "[[1,2,3]]");
    }

    #[test]
    fn the_functions_of_a_value_stay_with_it() {
        let mut json = Payload::new(Encoding::Json, r#"[{"$callback":0}]"#);
        json.callbacks = Callbacks::from_iter([CallbackId(7)]);
        assert_eq!(json.transcode(Encoding::MessagePack).unwrap().callbacks, json.callbacks);
    }

    #[test]
    fn what_does_not_describe_itself_is_refused() {
        let bincode = Payload::encode(Encoding::Bincode, &1).unwrap();
        assert!(bincode.transcode(Encoding::Json).is_err());
        assert!(Payload::new(Encoding::Json, "1").transcode(Encoding::Bincode).is_err());
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(Payload::new(Encoding::Json, deep).transcode(Encoding::MessagePack).is_err());
    }
}
