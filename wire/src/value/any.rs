//! [`Value`]: any value of an encoding that describes itself, such as for transcoding MessagePack to JSON and back. Numbers keep
//! their kind and all their digits, maps their order.

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_bytes::{ByteBuf, Bytes};
use std::fmt;

/// Any value of MessagePack or JSON, for code that does not know the type of the value. MessagePack that is read as a `Value` and
/// written again is unchanged. A `Value` cannot be read from bincode, which does not describe its values.
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
    /// An extension of MessagePack: the number of its kind, and its bytes. Kind -1 is a timestamp, which JSON writes as text; JSON
    /// writes other extensions as their bytes.
    Extension(i8, Vec<u8>),
}

/// The name of the newtype that rmp-serde takes for an extension.
const EXTENSION: &str = "_ExtStruct";

/// The extension that Node.js writes for `undefined`, which is nil to all others.
const UNDEFINED: (i8, &[u8]) = (0, &[0]);

/// The kind of a timestamp: <https://github.com/msgpack/msgpack/blob/master/spec.md#timestamp-extension-type>.
const TIMESTAMP: i8 = -1;

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Nil => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Unsigned(value) => serializer.serialize_u64(*value),
            Value::Signed(value) => serializer.serialize_i64(*value),
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
            // JSON has no extensions: a timestamp is written as `JSON.stringify` writes a date, other kinds as their bytes.
            Value::Extension(TIMESTAMP, bytes) if serializer.is_human_readable() => {
                let moment = timestamp(bytes).map(|at| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
                moment.serialize(serializer)
            }
            Value::Extension(_, bytes) if serializer.is_human_readable() => serializer.serialize_bytes(bytes),
            Value::Extension(kind, bytes) => {
                serializer.serialize_newtype_struct(EXTENSION, &(*kind, Bytes::new(bytes)))
            }
        }
    }
}

/// The moment of a timestamp of 32, 64 or 96 bits. None for other lengths, such as an invalid date of Node.js has.
fn timestamp(bytes: &[u8]) -> Option<Timestamp> {
    let (seconds, nanoseconds) = match *bytes {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            (i64::try_from(both & 0x3_FFFF_FFFF).ok()?, u32::try_from(both >> 34).ok()?)
        }
        [a, b, c, d, ref seconds @ ..] => {
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes([a, b, c, d]))
        }
        _ => return None,
    };
    let nanoseconds = i32::try_from(nanoseconds).ok().filter(|part| *part < 1_000_000_000)?;
    Timestamp::from_second(seconds).ok()?.checked_add(jiff::SignedDuration::new(0, nanoseconds)).ok()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
        Ok(Value::Map(entries))
    }

    /// An extension.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let (kind, bytes) = <(i8, ByteBuf)>::deserialize(deserializer)?;
        if (kind, &bytes[..]) == UNDEFINED {
            return Ok(Value::Nil);
        }
        Ok(Value::Extension(kind, bytes.into_vec()))
    }
}

#[cfg(test)]
mod tests {
    use crate::{CallbackId, Callbacks, Encoding, Payload};

    #[test]
    fn the_codec_knows_extensions_by_this_name() {
        assert_eq!(super::EXTENSION, rmp_serde::MSGPACK_EXT_STRUCT_NAME);
    }

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
        let packed = Payload::new(Encoding::MessagePack, &[0x91, 0xC7, 3, 0x42, 1, 2, 3][..]);
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
