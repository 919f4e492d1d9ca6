//! Values on their way through JSON, MessagePack and [`Value`], and back: each is what it was, or an error that says why not.

use meshwork_wire::{Encoding, Payload, Value};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

fn json(text: &str) -> Payload {
    Payload::new(Encoding::Json, text.to_owned())
}

fn packed<T: Serialize + ?Sized>(value: &T) -> Payload {
    Payload::encode(Encoding::MessagePack, value).expect("MessagePack has a form for it")
}

fn text(payload: &Payload) -> &str {
    assert_eq!(payload.encoding, Encoding::Json);
    std::str::from_utf8(&payload.bytes).expect("JSON is text")
}

/// Why it is no `T`.
fn refusal<T: DeserializeOwned + Debug>(payload: &Payload) -> String {
    payload.decode::<T>().expect_err("it is refused").reason
}

/// The value is itself on each way: in each encoding, in the other one, and through a `Value`. Gives its JSON.
fn on_each_way<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> String {
    let in_json = Payload::encode(Encoding::Json, value).expect("JSON has a form for it");
    let in_message_pack = packed(value);
    for payload in [&in_json, &in_message_pack] {
        assert_eq!(&payload.decode::<T>().expect("it is read"), value, "{payload:?}");
        let any: Value = payload.decode().expect("it is read");
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let other = payload.transcode(encoding).expect("it is read");
            assert_eq!(&other.decode::<T>().expect("it is read"), value, "{other:?}");
            assert_eq!(
                Payload::encode(encoding, &any).expect("each encoding has a form for it").bytes,
                other.bytes
            );
            let back = other.transcode(payload.encoding).expect("it is read");
            assert_eq!(&back.decode::<T>().expect("it is read"), value, "{back:?}");
        }
    }
    let crossed = in_message_pack.transcode(Encoding::Json).expect("it is read");
    assert_eq!(crossed.bytes, in_json.bytes);
    text(&in_json).to_owned()
}

#[test]
fn an_integer_has_all_its_digits_on_each_way() {
    assert_eq!(on_each_way(&u128::MAX), "340282366920938463463374607431768211455");
    assert_eq!(on_each_way(&i128::MIN), "-170141183460469231731687303715884105728");
    for value in [0, 1, u64::MAX.into(), u128::from(u64::MAX) + 1, 1 << 127, u128::MAX - 1] {
        assert_eq!(on_each_way(&value), value.to_string());
        assert_eq!(on_each_way(&vec![Some(value)]), format!("[{value}]"));
    }
    for value in [-1, i64::MIN.into(), i128::from(i64::MIN) - 1, i128::from(u64::MAX) + 1, i128::MAX] {
        assert_eq!(on_each_way(&value), value.to_string());
    }
    assert_eq!(on_each_way(&u64::MAX), u64::MAX.to_string());
    assert_eq!(on_each_way(&i64::MIN), i64::MIN.to_string());
}

/// A `u128` read 16 bytes of an `i128`, and -1 was 2^128 - 1.
#[test]
fn an_integer_of_the_other_sign_or_width_is_an_error() {
    for payload in [packed(&-1_i128), packed(&-1), json("-1"), packed(&i128::MIN)] {
        assert!(payload.decode::<u128>().is_err(), "{payload:?}");
    }
    for payload in [packed(&u128::MAX), json("340282366920938463463374607431768211455")] {
        assert!(payload.decode::<i128>().is_err() && payload.decode::<u64>().is_err());
        assert!(payload.decode::<f32>().is_err());
    }
    assert_eq!(packed(&7_u128).decode::<u8>(), Ok(7));
    assert_eq!(packed(&7_u8).decode::<i128>(), Ok(7));
    // As versions before wrote them.
    let before = |bytes: &[u8]| Payload::new(Encoding::MessagePack, [b"\xC4\x10", bytes].concat());
    assert_eq!(before(&u128::MAX.to_be_bytes()).decode::<u128>(), Ok(u128::MAX));
    assert_eq!(before(&(-5_i128).to_be_bytes()).decode::<i128>(), Ok(-5));
}

#[test]
fn a_number_that_no_type_holds_is_refused() {
    let digits = "1".repeat(60);
    for (number, reason) in [
        (&*digits, "no integer type holds"),
        ("1e400", "beyond the range"),
        ("-1e400", "beyond"),
        ("1e-400", "beyond"),
    ] {
        let payload = json(&format!("[1,\n {number}]"));
        let why = refusal::<Value>(&payload);
        assert!(why.contains(reason) && why.contains("line 2"), "{why}");
        assert!(payload.decode::<Vec<f64>>().is_err());
        assert!(payload.transcode(Encoding::MessagePack).is_err());
    }
    assert!(refusal::<Vec<serde_json::Value>>(&json("[18446744073709551616]")).contains("range"));
    assert!(
        refusal::<f64>(&json("9007199254740993")).contains("no float holds the integer 9007199254740993")
    );
    assert!(packed(&9_007_199_254_740_993_u64).decode::<f64>().is_err());
    assert!(packed(&16_777_217).decode::<f32>().is_err());
    assert!(packed(&1e300).decode::<f32>().is_err());
    assert_eq!(packed(&16_777_216).decode(), Ok(16_777_216_f32));
    assert_eq!(packed(&(1_u128 << 80)).decode(), Ok((1_u128 << 80) as f64));
    // As JavaScript writes 1e20 / 3.
    assert_eq!(json("33333333333333330000").decode(), Ok(1e20 / 3.0));
    assert_eq!(
        json("33333333333333330000").transcode(Encoding::MessagePack).unwrap().decode(),
        Ok(1e20 / 3.0)
    );
}

#[test]
fn a_float_stays_one_and_keeps_its_shortest_text() {
    for (float, text) in [(1.0, "1.0"), (-0.0, "-0.0"), (0.1, "0.1"), (1e300, "1e+300"), (5e-324, "5e-324")] {
        assert_eq!(on_each_way(&float), text);
        let back: f64 = json(text).transcode(Encoding::MessagePack).unwrap().decode().unwrap();
        assert_eq!(back.to_bits(), f64::to_bits(float));
        assert_eq!(json(text).decode::<Value>(), Ok(Value::Float64(float)));
    }
    for float in [f32::MIN, f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1), 0.1] {
        on_each_way(&float);
    }
    assert_eq!(json("1").decode::<Value>(), Ok(Value::Unsigned(1)));
    assert_eq!(json("-0").decode::<f64>().map(f64::to_bits), Ok((-0.0_f64).to_bits()));
    assert!(json("1.0").decode::<i64>().is_err());
}

/// They were null.
#[test]
fn a_float_that_json_lacks_is_its_name() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Reading {
        at: (f64, f32),
        more: Vec<Option<f64>>,
        label: String,
    }
    for (float, name) in [(f64::INFINITY, "\"Infinity\""), (f64::NEG_INFINITY, "\"-Infinity\"")] {
        assert_eq!(on_each_way(&float), name);
        assert_eq!(on_each_way(&(float as f32)), name);
        let label = "NaN".to_owned();
        on_each_way(&Reading { at: (float, float as f32), more: vec![Some(float), None], label });
    }
    let nan = Payload::encode(Encoding::Json, &(f64::NAN, f32::NAN)).unwrap();
    assert_eq!(text(&nan), r#"["NaN","NaN"]"#);
    for payload in [nan.transcode(Encoding::MessagePack).unwrap(), packed(&(f32::NAN, f64::NAN)), nan] {
        let (one, other) = payload.decode::<(f64, f32)>().unwrap();
        assert!(one.is_nan() && other.is_nan());
    }
    assert_eq!(text(&packed(&f32::NAN).transcode(Encoding::Json).unwrap()), "\"NaN\"");
    // serde_json's value has no such float, and would make it null.
    assert_eq!(packed(&[f64::NAN]).decode(), Ok(serde_json::json!(["NaN"])));
    for (number, wrong) in [("nan", true), ("inf", true), (" NaN", true), ("1.5", true), ("NaN", false)] {
        let payload = json(&format!("{number:?}"));
        assert_eq!(payload.decode::<f64>().is_err(), wrong, "{number}");
        assert_eq!(payload.transcode(Encoding::MessagePack).unwrap().decode::<f32>().is_err(), wrong);
        assert_eq!(payload.decode::<String>().as_deref(), Ok(number));
    }
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Clone, Debug)]
enum Kind {
    Plain,
    Sized(u8),
    Named { name: String },
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Wrapped(u32);

#[test]
fn a_map_with_keys_that_are_no_text_has_their_text() {
    fn map<K: Ord, const N: usize>(keys: [K; N]) -> BTreeMap<K, String> {
        keys.into_iter().map(|key| (key, "NaN".to_owned())).collect()
    }
    let text = |keys: &[&str]| {
        let entries: Vec<_> = keys.iter().map(|key| format!("{key:?}:\"NaN\"")).collect();
        format!("{{{}}}", entries.join(","))
    };
    assert_eq!(on_each_way(&map([0, 7, u64::MAX])), text(&["0", "7", "18446744073709551615"]));
    assert_eq!(on_each_way(&map([i128::MIN, 0])), text(&["-170141183460469231731687303715884105728", "0"]));
    assert_eq!(on_each_way(&map([u128::MAX])), text(&["340282366920938463463374607431768211455"]));
    assert_eq!(on_each_way(&map([-3_i8, 3])), text(&["-3", "3"]));
    assert_eq!(on_each_way(&map([false, true])), text(&["false", "true"]));
    assert_eq!(on_each_way(&map(['1', 'ü', '"'])), text(&["\"", "1", "ü"]));
    assert_eq!(on_each_way(&map([Wrapped(5)])), text(&["5"]));
    assert_eq!(on_each_way(&map([None, Some(5)])), text(&["null", "5"]));
    assert_eq!(on_each_way(&map([()])), text(&["null"]));
    assert_eq!(
        on_each_way(&map([(1, "a".to_owned()), (2, String::new())])),
        text(&["[1,\"a\"]", "[2,\"\"]"])
    );
    assert_eq!(on_each_way(&map([vec![1, 2], vec![]])), text(&["[]", "[1,2]"]));
    let kinds = [Kind::Plain, Kind::Sized(3), Kind::Named { name: "{\"".to_owned() }];
    assert_eq!(
        on_each_way(&map(kinds)),
        text(&["Plain", "{\"Sized\":3}", "{\"Named\":{\"name\":\"{\\\"\"}}"])
    );
    on_each_way(&HashMap::from([(true, HashMap::from([(1_u8, 'x')]))]));
    assert_eq!(on_each_way(&BTreeMap::from([(1, BTreeMap::from([(true, 2.5)]))])), r#"{"1":{"true":2.5}}"#);
}

#[test]
fn a_float_as_a_key_has_a_text_too() {
    /// A map in the order of its entries.
    #[derive(PartialEq, Debug)]
    struct Floats(Vec<(f64, u8)>);
    impl Serialize for Floats {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().copied())
        }
    }
    impl<'de> Deserialize<'de> for Floats {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Entries;
            impl<'de> serde::de::Visitor<'de> for Entries {
                type Value = Floats;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a map")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Floats, A::Error> {
                    let mut entries = Vec::new();
                    while let Some(entry) = map.next_entry()? {
                        entries.push(entry);
                    }
                    Ok(Floats(entries))
                }
            }
            deserializer.deserialize_map(Entries)
        }
    }
    let floats = Floats(vec![(0.5, 1), (1.0, 2), (f64::INFINITY, 3), (-1e300, 4)]);
    assert_eq!(on_each_way(&floats), r#"{"0.5":1,"1.0":2,"Infinity":3,"-1e+300":4}"#);
}

#[test]
fn keys_with_one_text_are_an_error_and_not_a_loss() {
    let map = Value::Map(vec![(Value::Unsigned(1), Value::Nil), (Value::Text("1".to_owned()), Value::Nil)]);
    let packed = packed(&map);
    assert_eq!(packed.decode(), Ok(map.clone()));
    for refused in [
        Payload::encode(Encoding::Json, &map).unwrap_err().to_string(),
        packed.transcode(Encoding::Json).unwrap_err().to_string(),
    ] {
        assert!(refused.contains("two keys of a map have the text \"1\""), "{refused}");
    }
    let ambiguous = BTreeMap::from([(Some("null"), 1)]);
    assert!(Payload::encode(Encoding::Json, &ambiguous).is_err(), "it would be read as None");
    // Each level would double the escapes.
    let nested = BTreeMap::from([(BTreeMap::from([(vec![1], 2)]), 3)]);
    assert!(Payload::encode(Encoding::Json, &nested).unwrap_err().reason.contains("a map within a key"));

    #[derive(Serialize)]
    struct Flat {
        id: u8,
        #[serde(flatten)]
        more: BTreeMap<String, u8>,
    }
    let flat = Flat { id: 1, more: BTreeMap::from([("id".to_owned(), 2)]) };
    assert!(Payload::encode(Encoding::Json, &flat).is_err());
}

/// A map has one of two entries whose keys are one key to its type.
#[test]
fn a_key_has_one_text() {
    for (key, wrong) in
        [("[1,2]", false), ("[1, 2]", true), (" [1,2]", true), ("[1,2]]", true), ("[1]", true), ("1", true)]
    {
        let object = json(&format!("{{{key:?}:0}}"));
        for payload in [object.transcode(Encoding::MessagePack).unwrap(), object] {
            assert_eq!(payload.decode::<BTreeMap<(u8, u8), u8>>().is_err(), wrong, "{key:?} {payload:?}");
        }
    }
    for key in ["1 ", " 1", "01", "+1", "1.0", "-0", "", "one", "\u{FEFF}1"] {
        let object = json(&format!("{{{key:?}:0}}").replace("\\u{feff}", "\u{FEFF}"));
        for payload in [object.transcode(Encoding::MessagePack).unwrap(), object] {
            assert!(payload.decode::<BTreeMap<u8, u8>>().is_err(), "{key:?}");
            assert!(payload.decode::<HashMap<bool, u8>>().is_err(), "{key:?}");
            assert!(payload.decode::<HashMap<String, u8>>().is_ok(), "{key:?}");
        }
    }
    // A number beside its own text.
    let two = Payload::new(Encoding::MessagePack, &b"\x82\x01\xC0\xA11\xC0"[..]);
    assert!(two.decode::<BTreeMap<u8, ()>>().is_err());
}

#[test]
fn what_serde_json_keeps_as_json_is_the_value() {
    let raw: Box<serde_json::value::RawValue> =
        serde_json::from_str(r#"{"a":[1,18446744073709551616,"x"]}"#).unwrap();
    let in_message_pack = packed(&(&raw, 1));
    assert_eq!(
        in_message_pack.bytes,
        json(r#"[{"a":[1,18446744073709551616,"x"]},1]"#).transcode(Encoding::MessagePack).unwrap().bytes
    );
    let (back, one): (Box<serde_json::value::RawValue>, u8) = in_message_pack.decode().unwrap();
    assert_eq!((back.get(), one), (raw.get(), 1));
    // serde_json keeps it however deep it is.
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let deep: Box<serde_json::value::RawValue> = json(&deep).decode().unwrap();
    assert!(Payload::encode(Encoding::MessagePack, &deep).unwrap_err().reason.contains("nested deeper"));
}

#[test]
fn bytes_are_a_list_in_json_and_may_be_a_text() {
    let bytes = serde_bytes::ByteBuf::from(vec![0, 255]);
    assert_eq!(on_each_way(&vec![Some(bytes)]), "[[0,255]]");
    assert_eq!(json("\"hi\"").decode(), Ok(serde_bytes::ByteBuf::from(b"hi".to_vec())));
}

/// The last one was taken.
#[test]
fn a_key_that_comes_twice_is_an_error() {
    let many: Vec<_> = (0..100).map(|key| format!("\"k{key}\":0")).collect();
    let many = format!("{{{},\"k50\":1}}", many.join(","));
    for object in [r#"{"a":1,"b":2,"a":3}"#, r#"{"a":1,"\u0061":1}"#, &many] {
        for payload in [json(object), json(&format!("[{object}]"))] {
            let why = refusal::<Value>(&payload);
            assert!(why.contains("comes twice"), "{why}");
            assert!(payload.decode::<serde_json::Value>().is_err());
            assert!(payload.decode::<serde::de::IgnoredAny>().is_err());
            assert!(payload.transcode(Encoding::MessagePack).is_err());
        }
        assert!(refusal::<HashMap<String, u8>>(&json(object)).contains("comes twice"));
    }
    let twice = |key: Value| {
        Payload::encode(
            Encoding::MessagePack,
            &Value::Map(vec![(key.clone(), Value::Nil), (key, Value::Nil)]),
        )
    };
    for key in [
        Value::Text("a".to_owned()),
        Value::Unsigned(1),
        Value::Nil,
        Value::Bool(true),
        Value::Float64(f64::NAN),
        Value::List(vec![Value::Signed(-1)]),
    ] {
        assert!(refusal::<Value>(&twice(key).unwrap()).contains("comes twice"));
    }
    // In MessagePack these are two keys.
    let two = Payload::new(Encoding::MessagePack, &b"\x82\x01\xC0\xA11\xC0"[..]);
    assert!(two.decode::<Value>().is_ok());
}

#[test]
fn the_order_of_keys_is_kept() {
    let object = r#"{"b":1,"a":{"z":[],"y":null},"10":2,"9":3}"#;
    let packed = json(object).transcode(Encoding::MessagePack).unwrap();
    assert_eq!(text(&packed.transcode(Encoding::Json).unwrap()), object);
    let value: Value = json(object).decode().unwrap();
    assert_eq!(text(&Payload::encode(Encoding::Json, &value).unwrap()), object);
}

#[test]
fn a_date_is_its_text_to_every_type_but_a_value() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct Made {
        at: String,
        more: serde_json::Value,
    }
    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    let date = Value::Extension(-1, vec![0x64, 0x93, 0x1C, 0x00]);
    let text = "2023-06-21T15:49:20.000Z".to_owned();
    let made = packed(&Value::Map(vec![
        (Value::Text("at".to_owned()), date.clone()),
        (Value::Text("more".to_owned()), Value::List(vec![date.clone()])),
    ]));
    assert_eq!(made.decode(), Ok(Made { at: text.clone(), more: serde_json::json!([text]) }));
    assert_eq!(packed(&date).decode(), Ok(Either::Text(text.clone())));
    assert_eq!(packed(&date).decode(), Ok(Some(date.clone())));
    assert_eq!(
        packed(&BTreeMap::from([(1, date)])).transcode(Encoding::Json).unwrap().bytes,
        format!("{{\"1\":\"{text}\"}}")
    );
}

#[test]
fn a_big_integer_is_one_to_every_type() {
    let value = Value::Unsigned128(1 << 64);
    assert_eq!(packed(&value).decode(), Ok(1_u128 << 64));
    assert_eq!(packed(&value).decode(), Ok(1_i128 << 64));
    assert_eq!(packed(&value).decode(), Ok(value.clone()));
    assert!(packed(&value).decode::<serde_json::Value>().is_err());
    // As msgpackr writes 2n ** 64n; and in more bytes than it takes, which stay as they are.
    let bytes = b"\xC7\x09\x42\x01\0\0\0\0\0\0\0\0";
    assert_eq!(&packed(&value).bytes[..], bytes);
    let padded = Payload::new(Encoding::MessagePack, &b"\xC7\x03\x42\0\0\x07"[..]);
    assert_eq!(packed(&padded.decode::<Value>().unwrap()), padded);
    assert_eq!(padded.decode(), Ok(7_u128));
    assert_eq!(text(&padded.transcode(Encoding::Json).unwrap()), "7");
    let huge = packed(&Value::Extension(0x42, vec![1; 40]));
    assert!(huge.transcode(Encoding::Json).unwrap_err().message().contains("128 bits"));
}

#[test]
fn a_field_that_nobody_knows_may_hold_anything() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct Known {
        id: u8,
    }
    let unknown = Value::List(vec![
        Value::Unsigned128(u128::MAX),
        Value::Signed128(i128::MIN),
        Value::Float64(f64::NAN),
        Value::Extension(-1, vec![0; 4]),
        Value::Extension(7, vec![1]),
        Value::Map(vec![(Value::List(vec![Value::Unsigned(1)]), Value::Bytes(vec![1]))]),
    ]);
    let id = (Value::Text("id".to_owned()), Value::Unsigned(5));
    let value = packed(&Value::Map(vec![(Value::Text("more".to_owned()), unknown), id]));
    for payload in [value.transcode(Encoding::Json).unwrap(), value] {
        assert_eq!(payload.decode(), Ok(Known { id: 5 }), "{payload:?}");
    }
}

#[test]
fn json_may_begin_with_a_byte_order_mark() {
    assert_eq!(json("\u{FEFF}[1, 2]").decode(), Ok((1, 2)));
    assert_eq!(json("\u{FEFF}[21]").decode_arguments(), Ok(21));
    assert!(json("[\u{FEFF}1]").decode::<Value>().is_err());
}

#[test]
fn some_of_nothing_is_refused_since_it_would_be_none() {
    for refused in [
        Payload::encode(Encoding::Json, &Some(())),
        Payload::encode(Encoding::Json, &Some(None::<u8>)),
        Payload::encode(Encoding::Json, &(1, Some(serde_json::Value::Null))),
    ] {
        assert!(refused.unwrap_err().reason.contains("`None`"));
    }
    let mixed: (Option<Option<u8>>, Option<bool>, Option<u16>, ()) =
        (Some(Some(1)), Some(true), Some(1000), ());
    assert_eq!(on_each_way(&mixed), "[1,true,1000,null]");
}

/// Each is refused by serde_json too.
#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for wrong in [
        "",
        " ",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "nul",
        "nulll",
        "True",
        "tru",
        "'a'",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "01",
        "-",
        "-a",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "1.e5",
        "0x10",
        "1 1",
        "[1]]",
        "NaN",
        "Infinity",
        "\u{7}",
        "é",
        "\"\u{0}\"",
    ] {
        assert!(serde_json::from_str::<serde_json::Value>(wrong).is_err(), "{wrong:?}");
        let why = refusal::<Value>(&json(wrong));
        assert!(why.contains(" at line "), "{wrong:?}: {why}");
        assert!(json(wrong).decode::<serde::de::IgnoredAny>().is_err());
    }
    let no_text = Payload::new(Encoding::Json, &b"\"\xFF\""[..]);
    assert!(refusal::<String>(&no_text).contains("UTF-8"));
    assert!(refusal::<(i32, i32)>(&json("[1,2,3]")).contains("more elements"));
    assert!(refusal::<Kind>(&json(r#"{"Sized":3,"Plain":null}"#)).contains("only entry"));
    assert!(refusal::<Kind>(&json(r#"{"Huge":3}"#)).contains("Huge"));
}

#[test]
fn json_is_read_as_serde_json_reads_it() {
    for right in [
        r#"{"a":[1,2.5e3,-7,true,false,null,"t\"\\\/\b\f\n\r\tü\u00e9\ud83d\ude00"],"":{}}"#,
        " [ ] ",
        "\t{ \"a\" : 1 ,\r\n \"b\" : [ { } ] } ",
        "1E5",
        "1e-5",
        "0",
        "0.0",
        "123456789.123456789",
        "\"\"",
    ] {
        let expected: serde_json::Value = serde_json::from_str(right).unwrap();
        assert_eq!(json(right).decode::<serde_json::Value>().unwrap(), expected);
        let raw: Box<serde_json::value::RawValue> = json(right).decode().unwrap();
        assert_eq!(raw.get(), right.trim());
        assert_eq!(text(&Payload::encode(Encoding::Json, &(raw,)).unwrap()), format!("[{}]", right.trim()));
        assert_eq!(text(&Payload::encode(Encoding::Json, &expected).unwrap()), expected.to_string());
    }
    for kind in [Kind::Plain, Kind::Sized(1), Kind::Named { name: "n".to_owned() }] {
        assert_eq!(on_each_way(&kind), serde_json::to_string(&kind).unwrap());
    }
}

/// Values that JSON has a form of their own for.
fn values() -> impl Strategy<Value = Value> {
    let integer = |value: i128| match (u64::try_from(value), i64::try_from(value)) {
        (Ok(value), _) => Value::Unsigned(value),
        (Err(_), Ok(value)) => Value::Signed(value),
        (Err(_), Err(_)) if value > 0 => Value::Unsigned128(value.unsigned_abs()),
        (Err(_), Err(_)) => Value::Signed128(value),
    };
    let shifted = (any::<i128>(), 0..127_u32).prop_map(|(value, shift)| value >> shift);
    let finite = any::<f64>().prop_filter("JSON has it", |float| float.is_finite()).prop_map(Value::Float64);
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        shifted.prop_map(integer),
        ((u128::from(u64::MAX) + 1)..).prop_map(Value::Unsigned128),
        finite,
        ".*".prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 64, 12, |inner| {
        let map = prop::collection::hash_map(".{0,3}", inner.clone(), 0..12);
        prop_oneof![
            prop::collection::vec(inner, 0..12).prop_map(Value::List),
            map.prop_map(|map| Value::Map(
                map.into_iter().map(|(key, value)| (Value::Text(key), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_itself_in_json_and_message_pack(value in values()) {
        let in_json = Payload::encode(Encoding::Json, &value).unwrap();
        prop_assert_eq!(&in_json.decode::<Value>().unwrap(), &value);
        let in_message_pack = packed(&value);
        prop_assert_eq!(&in_message_pack.decode::<Value>().unwrap(), &value);
        prop_assert_eq!(in_message_pack.transcode(Encoding::Json).unwrap().bytes, in_json.bytes);
    }

    #[test]
    fn json_is_what_serde_json_takes_for_json(text in r#"[\[\]{}:,"\\ue0-9.+\-tfn alsr]{0,12}"#) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match (json(&text).decode::<serde_json::Value>(), theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Ok(_), Err(error)) => prop_assert!(error.to_string().contains("surrogate"), "{}", error),
            (Err(error), Ok(_)) => {
                let ours_only = ["comes twice", "beyond the range", "no integer type"];
                prop_assert!(ours_only.iter().any(|why| error.reason.contains(why)), "{}", error);
            }
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let payload = Payload::new(encoding, bytes.clone());
            _ = payload.decode::<BTreeMap<(u8, Option<Kind>), (f32, u128)>>();
            if let Ok(value) = payload.decode::<Value>() {
                _ = Payload::encode(Encoding::Json, &value);
            }
        }
    }
}
