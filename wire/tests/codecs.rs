//! MessagePack and bincode as they are written and read here, held against rmp-serde and bincode, the codecs that wrote and read them before.

use meshwork_wire::{Encoding, Payload};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Cursor;

/// Every call that a type may make of its serializer.
#[derive(Clone, Debug)]
enum Told {
    Bool(bool),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    /// An integer of 128 bits, which only the compact form writes as rmp-serde does.
    I128(i128),
    U128(u128),
    F32(f32),
    F64(f64),
    Char(char),
    Text(String),
    Shown(String),
    Bytes(Vec<u8>),
    None,
    Unit,
    UnitStruct,
    UnitVariant(usize),
    Some(Box<Told>),
    Newtype(Box<Told>),
    NewtypeVariant(usize, Box<Told>),
    List(Vec<Told>),
    Uncounted(Vec<Told>),
    Tuple(Vec<Told>),
    TupleStruct(Vec<Told>),
    TupleVariant(usize, Vec<Told>),
    Map(Vec<(Told, Told)>),
    UncountedMap(Vec<(Told, Told)>),
    Struct(Vec<(usize, Told)>),
    StructVariant(usize, Vec<(usize, Told)>),
}

/// Names of fields and variants, whose lengths lie around those that the format tells apart.
const NAMES: [&str; 6] = [
    "",
    "a",
    "a name of thirty-one characters",
    "a name of thirty-two characters.",
    "ä name that is longer than thirty-two characters, and no more than that",
    "................................................................................................................\
     ................................................................................................................\
     ...................................................",
];

impl Serialize for Told {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Told::Bool(value) => serializer.serialize_bool(*value),
            Told::I8(value) => serializer.serialize_i8(*value),
            Told::I16(value) => serializer.serialize_i16(*value),
            Told::I32(value) => serializer.serialize_i32(*value),
            Told::I64(value) => serializer.serialize_i64(*value),
            Told::U8(value) => serializer.serialize_u8(*value),
            Told::U16(value) => serializer.serialize_u16(*value),
            Told::U32(value) => serializer.serialize_u32(*value),
            Told::U64(value) => serializer.serialize_u64(*value),
            Told::I128(value) => serializer.serialize_i128(*value),
            Told::U128(value) => serializer.serialize_u128(*value),
            Told::F32(value) => serializer.serialize_f32(*value),
            Told::F64(value) => serializer.serialize_f64(*value),
            Told::Char(value) => serializer.serialize_char(*value),
            Told::Text(value) => serializer.serialize_str(value),
            Told::Shown(value) => serializer.collect_str(value),
            Told::Bytes(value) => serializer.serialize_bytes(value),
            Told::None => serializer.serialize_none(),
            Told::Unit => serializer.serialize_unit(),
            Told::UnitStruct => serializer.serialize_unit_struct("Unit"),
            Told::UnitVariant(name) => serializer.serialize_unit_variant("Enum", 7, NAMES[*name]),
            Told::Some(value) => serializer.serialize_some(value),
            Told::Newtype(value) => serializer.serialize_newtype_struct("Newtype", value),
            Told::NewtypeVariant(name, value) => {
                serializer.serialize_newtype_variant("Enum", 7, NAMES[*name], value)
            }
            Told::List(values) => serializer.collect_seq(values),
            Told::Uncounted(values) => {
                let mut list = serializer.serialize_seq(None)?;
                values.iter().try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Told::Tuple(values) => {
                let mut tuple = serializer.serialize_tuple(values.len())?;
                values.iter().try_for_each(|value| tuple.serialize_element(value))?;
                tuple.end()
            }
            Told::TupleStruct(values) => {
                let mut tuple = serializer.serialize_tuple_struct("Tuple", values.len())?;
                values.iter().try_for_each(|value| tuple.serialize_field(value))?;
                tuple.end()
            }
            Told::TupleVariant(name, values) => {
                let mut tuple = serializer.serialize_tuple_variant("Enum", 7, NAMES[*name], values.len())?;
                values.iter().try_for_each(|value| tuple.serialize_field(value))?;
                tuple.end()
            }
            Told::Map(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key, value))),
            Told::UncountedMap(entries) => {
                let mut map = serializer.serialize_map(None)?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Told::Struct(fields) => {
                let mut written = serializer.serialize_struct("Struct", fields.len())?;
                fields.iter().try_for_each(|(name, value)| written.serialize_field(NAMES[*name], value))?;
                written.end()
            }
            Told::StructVariant(name, fields) => {
                let mut written =
                    serializer.serialize_struct_variant("Enum", 7, NAMES[*name], fields.len())?;
                fields.iter().try_for_each(|(name, value)| written.serialize_field(NAMES[*name], value))?;
                written.end()
            }
        }
    }
}

/// Integers of all lengths, and those next to them.
fn integer() -> impl Strategy<Value = i128> {
    (0..128_u32, -2..3_i128, any::<bool>()).prop_map(|(shift, by, negative)| {
        let value = (1_i128 << shift.min(126)).wrapping_add(by);
        if negative { value.wrapping_neg() } else { value }
    })
}

fn text() -> impl Strategy<Value = String> {
    let long = (prop_oneof![30..34_usize, 250..260_usize, 65_530..65_540_usize], "[a-zß€]");
    prop_oneof![8 => "[a-zß€]{0,9}", 2 => long.prop_map(|(len, text)| text.repeat(len))]
}

fn flat() -> impl Strategy<Value = Told> {
    prop_oneof![
        any::<bool>().prop_map(Told::Bool),
        integer().prop_map(|value| Told::I8(value as i8)),
        integer().prop_map(|value| Told::I16(value as i16)),
        integer().prop_map(|value| Told::I32(value as i32)),
        integer().prop_map(|value| Told::I64(value as i64)),
        integer().prop_map(|value| Told::U8(value as u8)),
        integer().prop_map(|value| Told::U16(value as u16)),
        integer().prop_map(|value| Told::U32(value as u32)),
        integer().prop_map(|value| Told::U64(value as u64)),
        integer().prop_map(Told::I128),
        integer().prop_map(|value| Told::U128(value as u128)),
        any::<f32>().prop_map(Told::F32),
        any::<f64>().prop_map(Told::F64),
        any::<char>().prop_map(Told::Char),
        text().prop_map(Told::Text),
        text().prop_map(Told::Shown),
        text().prop_map(|text| Told::Bytes(text.into_bytes())),
        Just(Told::None),
        Just(Told::Unit),
        Just(Told::UnitStruct),
        (0..NAMES.len()).prop_map(Told::UnitVariant),
    ]
}

fn told() -> impl Strategy<Value = Told> {
    flat().prop_recursive(4, 64, 20, |told| {
        let name = || 0..NAMES.len();
        let list = vec(told.clone(), 0..20).boxed();
        let entries = vec((flat(), told.clone()), 0..20).boxed();
        let fields = vec((name(), told.clone()), 0..20).boxed();
        prop_oneof![
            // A `Some` of nothing is refused: see `told.rs`.
            list.clone().prop_map(|values| Told::Some(Box::new(Told::Tuple(values)))),
            told.clone().prop_map(|value| Told::Newtype(Box::new(value))),
            (name(), told).prop_map(|(name, value)| Told::NewtypeVariant(name, Box::new(value))),
            list.clone().prop_map(Told::List),
            list.clone().prop_map(Told::Uncounted),
            list.clone().prop_map(Told::Tuple),
            list.clone().prop_map(Told::TupleStruct),
            (name(), list).prop_map(|(name, values)| Told::TupleVariant(name, values)),
            entries.clone().prop_map(Told::Map),
            entries.prop_map(Told::UncountedMap),
            fields.clone().prop_map(Told::Struct),
            (name(), fields).prop_map(|(name, fields)| Told::StructVariant(name, fields)),
        ]
    })
}

fn holds_wide(told: &Told) -> bool {
    match told {
        Told::I128(_) | Told::U128(_) => true,
        Told::Some(value) | Told::Newtype(value) | Told::NewtypeVariant(_, value) => holds_wide(value),
        Told::List(values)
        | Told::Uncounted(values)
        | Told::Tuple(values)
        | Told::TupleStruct(values)
        | Told::TupleVariant(_, values) => values.iter().any(holds_wide),
        Told::Map(entries) | Told::UncountedMap(entries) => {
            entries.iter().any(|(key, value)| holds_wide(key) || holds_wide(value))
        }
        Told::Struct(fields) | Told::StructVariant(_, fields) => {
            fields.iter().any(|(_, value)| holds_wide(value))
        }
        _ => false,
    }
}

fn written(encoding: Encoding, value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    Payload::encode(encoding, value).expect("the encoding has a form for it").bytes.to_vec()
}

/// As rmp-serde writes it, with names.
fn reference(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable();
    value.serialize(&mut writer).expect("MessagePack has a form for it");
    bytes
}

/// A type of whose values rmp-serde reads the same: without floats, integers of more than 32 bits, and keys that JSON writes as text.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Order {
    id: u32,
    #[serde(default)]
    note: Option<String>,
    state: State,
    lines: Vec<Line>,
    by_name: BTreeMap<String, i16>,
    #[serde(with = "serde_bytes")]
    raw: Vec<u8>,
    #[serde(flatten)]
    more: More,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct More {
    flag: bool,
    mark: char,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Line(i8, u16, Only, Nothing);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Only(i32);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Nothing;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum State {
    Open,
    Paid(u8),
    Split(i32, Option<bool>),
    Gone { reason: String, then: Vec<State> },
}

fn state() -> impl Strategy<Value = State> {
    let flat = prop_oneof![
        Just(State::Open),
        any::<u8>().prop_map(State::Paid),
        (any::<i32>(), any::<Option<bool>>()).prop_map(|(number, flag)| State::Split(number, flag)),
    ];
    flat.prop_recursive(3, 8, 3, |state| {
        ("[a-z]{0,40}", vec(state, 0..3)).prop_map(|(reason, then)| State::Gone { reason, then })
    })
}

fn order() -> impl Strategy<Value = Order> {
    let line = (any::<i8>(), any::<u16>(), any::<i32>())
        .prop_map(|(one, two, three)| Line(one, two, Only(three), Nothing));
    let note = proptest::option::of("[a-zß]{0,40}");
    let more = (any::<bool>(), any::<char>()).prop_map(|(flag, mark)| More { flag, mark });
    let map = proptest::collection::btree_map("[a-z]{0,3}", any::<i16>(), 0..20);
    (any::<u32>(), note, state(), vec(line, 0..20), map, vec(any::<u8>(), 0..40), more).prop_map(
        |(id, note, state, lines, by_name, raw, more)| Order { id, note, state, lines, by_name, raw, more },
    )
}

/// As rmp-serde reads it, to its end.
fn read_by_reference<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut reader = rmp_serde::Deserializer::new(Cursor::new(bytes)).with_human_readable();
    let value = T::deserialize(&mut reader).ok()?;
    (reader.into_inner().position() == bytes.len() as u64).then_some(value)
}

/// What rmp-serde reads is read the same. Only what holds an extension, a byte string or a text that is not UTF-8 may be read here and not
/// there: a date is a text, `undefined` is nil, a byte string and a text that is none are lists of numbers.
fn reads_alike<T: DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    let read = Payload::new(Encoding::MessagePack, bytes.to_vec()).decode::<T>();
    match (read, read_by_reference::<T>(bytes)) {
        (Ok(read), Some(expected)) => prop_assert_eq!(read, expected),
        (Err(_), None) => {}
        (Ok(read), None) => {
            let may_differ = |byte: &u8| matches!(byte, 0xA1..=0xBF | 0xC4..=0xC9 | 0xD4..=0xDB);
            prop_assert!(bytes.iter().any(may_differ), "{read:?} is read from {bytes:x?}");
        }
        (Err(error), Some(expected)) => {
            return Err(TestCaseError::fail(format!("{expected:?} is not read from {bytes:x?}: {error}")));
        }
    }
    Ok(())
}

/// A map of many small types, so that random bytes are values of some.
fn reads_alike_as_any_type(bytes: &[u8]) -> Result<(), TestCaseError> {
    reads_alike::<bool>(bytes)?;
    reads_alike::<i8>(bytes)?;
    reads_alike::<u16>(bytes)?;
    reads_alike::<i32>(bytes)?;
    reads_alike::<()>(bytes)?;
    reads_alike::<char>(bytes)?;
    reads_alike::<String>(bytes)?;
    reads_alike::<Option<u8>>(bytes)?;
    reads_alike::<Option<Option<String>>>(bytes)?;
    reads_alike::<(i32, i32)>(bytes)?;
    reads_alike::<[u8; 3]>(bytes)?;
    reads_alike::<Vec<u8>>(bytes)?;
    reads_alike::<Vec<Vec<Option<u8>>>>(bytes)?;
    reads_alike::<serde_bytes::ByteBuf>(bytes)?;
    reads_alike::<BTreeMap<String, i32>>(bytes)?;
    reads_alike::<State>(bytes)?;
    reads_alike::<Vec<State>>(bytes)?;
    reads_alike::<Line>(bytes)?;
    reads_alike::<Nothing>(bytes)?;
    reads_alike::<More>(bytes)?;
    reads_alike::<Order>(bytes)
}

/// As the library reads it, to its end. The limit is one on false claims, which cost the library memory.
fn read_by_bincode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let config = bincode::config::standard().with_limit::<1_000_000>();
    let (value, len) = bincode::serde::decode_from_slice(bytes, config).ok()?;
    (len == bytes.len()).then_some(value)
}

fn reads_bincode_alike<T: DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    let read = Payload::new(Encoding::PlainBincode, bytes.to_vec()).decode::<T>();
    prop_assert_eq!(read.ok(), read_by_bincode::<T>(bytes), "{:x?}", bytes);
    Ok(())
}

/// The parts of an order by their places, and integers of all widths.
type InBincode =
    (Only, Option<String>, State, Vec<Line>, BTreeMap<String, i16>, More, Wide, serde_bytes::ByteBuf);

type Wide = (i8, u8, i16, u16, i64, u64, i128, u128, [u32; 2]);

fn in_bincode(order: Order, integers: &[i128; 8]) -> InBincode {
    let Order { note, state, lines, by_name, raw, more, id } = order;
    let [a, b, c, d, e, f, g, h] = *integers;
    let wide = (a as i8, b as u8, c as i16, d as u16, e as i64, f as u64, g, h as u128, [a as u32, id]);
    (Only(b as i32), note, state, lines, by_name, more, wide, serde_bytes::ByteBuf::from(raw))
}

fn reads_bincode_alike_as_any_type(bytes: &[u8]) -> Result<(), TestCaseError> {
    reads_bincode_alike::<InBincode>(bytes)?;
    reads_bincode_alike::<Wide>(bytes)?;
    reads_bincode_alike::<(bool, char)>(bytes)?;
    reads_bincode_alike::<char>(bytes)?;
    reads_bincode_alike::<u16>(bytes)?;
    reads_bincode_alike::<i32>(bytes)?;
    reads_bincode_alike::<u64>(bytes)?;
    reads_bincode_alike::<i128>(bytes)?;
    reads_bincode_alike::<String>(bytes)?;
    reads_bincode_alike::<Option<Option<u8>>>(bytes)?;
    reads_bincode_alike::<Vec<Vec<u16>>>(bytes)?;
    reads_bincode_alike::<BTreeMap<u8, char>>(bytes)?;
    reads_bincode_alike::<State>(bytes)?;
    reads_bincode_alike::<Vec<State>>(bytes)
}

proptest! {
    #[test]
    fn bincode_is_written_as_by_the_library(told in told()) {
        let by_library = bincode::serde::encode_to_vec(&told, bincode::config::standard()).ok();
        let written = Payload::encode(Encoding::PlainBincode, &told).ok().map(|payload| payload.bytes.to_vec());
        prop_assert_eq!(&written, &by_library);
        // With a check of four bytes behind it.
        let checked = Payload::encode(Encoding::Bincode, &told).ok();
        prop_assert_eq!(checked.map(|payload| payload.bytes[..payload.len() - 4].to_vec()), by_library);
    }

    #[test]
    fn bincode_is_read_as_by_the_library(
        order in order(),
        integers in proptest::array::uniform8(integer()),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        len in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let value = in_bincode(order, &integers);
        let whole = written(Encoding::PlainBincode, &value);
        prop_assert_eq!(Payload::new(Encoding::PlainBincode, whole.clone()).decode(), Ok(value.clone()));
        for mut bytes in [whole, written(Encoding::PlainBincode, &value.6), written(Encoding::PlainBincode, &value.2)] {
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(len.map_or(bytes.len(), |len| len.index(bytes.len() + 1)));
            reads_bincode_alike_as_any_type(&bytes)?;
        }
    }

    #[test]
    fn any_few_bytes_are_read_as_by_the_library(bytes in vec(prop_oneof![any::<u8>(), 250..=255_u8, 0..4_u8], 0..20)) {
        reads_bincode_alike_as_any_type(&bytes)?;
    }

    #[test]
    fn a_value_is_written_as_rmp_serde_writes_it(told in told()) {
        let mut compact = Vec::new();
        told.serialize(&mut rmp_serde::Serializer::new(&mut compact).with_struct_map()).unwrap();
        prop_assert_eq!(written(Encoding::CompactMessagePack, &told), compact);
        if !holds_wide(&told) {
            prop_assert_eq!(written(Encoding::MessagePack, &told), reference(&told));
        }
    }

    #[test]
    fn a_value_is_read_as_rmp_serde_reads_it(order in order()) {
        let named = written(Encoding::MessagePack, &order);
        prop_assert_eq!(&named, &reference(&order));
        reads_alike::<Order>(&named)?;
        let lines = rmp_serde::to_vec(&(&order.lines, &order.state, &order.more)).unwrap();
        // Structs and variants by their places, as other programs write them.
        reads_alike::<(Vec<Line>, State, More)>(&lines)?;
        let read = Payload::new(Encoding::MessagePack, named).decode::<Order>();
        prop_assert_eq!(read, Ok(order));
    }

    #[test]
    fn bytes_that_are_changed_are_read_as_rmp_serde_reads_them(
        order in order(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        len in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        for mut bytes in [reference(&order), rmp_serde::to_vec(&order.state).unwrap(), reference(&order.lines), reference(&order.more)] {
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(len.map_or(bytes.len(), |len| len.index(bytes.len() + 1)));
            reads_alike_as_any_type(&bytes)?;
        }
    }

    #[test]
    fn any_few_bytes_are_read_as_rmp_serde_reads_them(bytes in vec(prop_oneof![any::<u8>(), 0x80..0xE0_u8, 0..4_u8], 0..9)) {
        reads_alike_as_any_type(&bytes)?;
    }
}

/// Lists of 16 and 65,536 elements begin with other markers than shorter ones.
#[test]
fn lists_texts_and_maps_of_all_lengths_are_written_and_read_as_by_rmp_serde() {
    for len in [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536, 70_000] {
        let list: Vec<u32> = (0..len).collect();
        let map: BTreeMap<u32, bool> = (0..len).map(|key| (key, key % 2 == 0)).collect();
        let text = "t".repeat(len as usize);
        let bytes = serde_bytes::ByteBuf::from(vec![7; len as usize]);
        let value = (list, map, text, bytes);
        let written = written(Encoding::MessagePack, &value);
        assert_eq!(written, reference(&value), "{len}");
        let read = Payload::new(Encoding::MessagePack, written).decode();
        assert_eq!(read, Ok(value), "{len}");
    }
}

#[test]
fn an_extension_is_a_pair_of_its_kind_and_its_bytes() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename = "_ExtStruct")]
    struct Extension((i8, serde_bytes::ByteBuf));

    for len in [0, 1, 2, 3, 4, 8, 16, 17, 255, 256, 65_536] {
        let extension = Extension((-7, serde_bytes::ByteBuf::from(vec![9; len])));
        let bytes = written(Encoding::MessagePack, &extension);
        assert_eq!(bytes, reference(&extension), "{len}");
        assert_eq!(Payload::new(Encoding::MessagePack, bytes).decode(), Ok(extension), "{len}");
    }

    #[derive(Serialize)]
    #[serde(rename = "_ExtStruct")]
    struct Wrong<T>(T);

    let reason = |refused: Result<Payload, meshwork_wire::EncodeError>| refused.unwrap_err().reason;
    for refused in [
        Payload::encode(Encoding::MessagePack, &Wrong((1_i8,))),
        Payload::encode(Encoding::MessagePack, &Wrong((1_i8, 2_i8))),
        Payload::encode(Encoding::MessagePack, &Wrong((1_i16, serde_bytes::Bytes::new(b"")))),
        Payload::encode(Encoding::MessagePack, &Wrong((serde_bytes::Bytes::new(b""), 1_i8))),
        Payload::encode(Encoding::MessagePack, &Wrong("text")),
        Payload::encode(Encoding::MessagePack, &Wrong(Some(1_i8))),
    ] {
        assert!(reason(refused).contains("a pair of its kind, an i8, and its bytes"));
    }
}
