//! Any value of an encoding that describes itself, to be written in the other one. Numbers keep their kind and all their
//! digits, maps their order.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::fmt;

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float32(f32),
    Float64(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

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
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

/// How many elements room is made for before they are there.
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
