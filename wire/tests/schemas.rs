//! The tracer of types, with types made at random: whatever a type asks for and refuses, it has a signature of its own or a reason.

use meshwork_wire::{Obstacle, Signature, trace};
use proptest::prelude::*;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::ser::{SerializeMap, SerializeSeq, SerializeTuple};
use serde::{Deserialize, Serialize, Serializer};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// What a type asks of serde.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Schema {
    Unit,
    Bool,
    U8,
    I64,
    Char,
    Text,
    Bytes,
    Option(Rc<Schema>),
    List(Rc<Schema>),
    Map(Rc<Schema>, Rc<Schema>),
    Tuple(Vec<Schema>),
    Struct(usize, Vec<Schema>),
    Enum(usize, Vec<Content>),
    Newtype(Rc<Schema>),
    /// Refuses all values but one of so many.
    Picky(Rc<Schema>, u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    Unit,
    Newtype(Schema),
    Tuple(Vec<Schema>),
    Struct(usize, Vec<Schema>),
}

const NAMES: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];

fn names(from: usize, len: usize) -> &'static [&'static str] {
    &NAMES[from..from + len]
}

impl Schema {
    /// The part that the bytes depend on.
    fn bare(&self) -> Self {
        let within = |schema: &Rc<Schema>| Rc::new(schema.bare());
        let all = |schemas: &[Schema]| schemas.iter().map(Schema::bare).collect();
        let from = |from: usize, fields: &[Schema]| if fields.is_empty() { 0 } else { from };
        match self {
            Schema::Option(part) => Schema::Option(within(part)),
            Schema::List(part) => Schema::List(within(part)),
            Schema::Map(key, value) => Schema::Map(within(key), within(value)),
            Schema::Tuple(items) => Schema::Tuple(all(items)),
            Schema::Struct(first, fields) => Schema::Struct(from(*first, fields), all(fields)),
            Schema::Enum(first, variants) => {
                let content = |content: &Content| match content {
                    Content::Unit => Content::Unit,
                    Content::Newtype(part) => Content::Newtype(part.bare()),
                    Content::Tuple(items) => Content::Tuple(all(items)),
                    Content::Struct(first, fields) => Content::Struct(from(*first, fields), all(fields)),
                };
                Schema::Enum(*first, variants.iter().map(content).collect())
            }
            Schema::Newtype(part) | Schema::Picky(part, _) => part.bare(),
            leaf => leaf.clone(),
        }
    }

    fn is_picky(&self) -> bool {
        format!("{self:?}").contains("Picky")
    }
}

/// A value of a schema, and the places and variants that it shows.
#[derive(Clone, PartialEq, Debug)]
enum Made {
    Unit,
    Bool(bool),
    U8(u8),
    I64(i64),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    None,
    Some(Box<Made>),
    List(Vec<Made>),
    Map(Vec<(Made, Made)>),
    Items(Vec<Made>),
    Variant(u32, Box<Made>),
}

impl Serialize for Made {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Made::Unit => serializer.serialize_unit(),
            Made::Bool(value) => serializer.serialize_bool(*value),
            Made::U8(value) => serializer.serialize_u8(*value),
            Made::I64(value) => serializer.serialize_i64(*value),
            Made::Char(value) => serializer.serialize_char(*value),
            Made::Text(value) => serializer.serialize_str(value),
            Made::Bytes(value) => serializer.serialize_bytes(value),
            Made::None => serializer.serialize_none(),
            Made::Some(value) => serializer.serialize_some(value),
            Made::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(value)?;
                }
                list.end()
            }
            Made::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Made::Items(items) => {
                let mut tuple = serializer.serialize_tuple(items.len())?;
                for item in items {
                    tuple.serialize_element(item)?;
                }
                tuple.end()
            }
            // In bincode, a variant is its number and then its content.
            Made::Variant(number, content) => serializer.serialize_newtype_variant("", *number, "", content),
        }
    }
}

struct Seed<'s>(&'s Schema);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Made;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Made, D::Error> {
        let Self(schema) = self;
        let reader = Reader(schema);
        match schema {
            Schema::Unit => deserializer.deserialize_unit(reader),
            Schema::Bool => deserializer.deserialize_bool(reader),
            Schema::U8 => deserializer.deserialize_u8(reader),
            Schema::I64 => deserializer.deserialize_i64(reader),
            Schema::Char => deserializer.deserialize_char(reader),
            Schema::Text => deserializer.deserialize_string(reader),
            Schema::Bytes => deserializer.deserialize_byte_buf(reader),
            Schema::Option(_) => deserializer.deserialize_option(reader),
            Schema::List(_) => deserializer.deserialize_seq(reader),
            Schema::Map(..) => deserializer.deserialize_map(reader),
            Schema::Tuple(items) => deserializer.deserialize_tuple(items.len(), reader),
            Schema::Struct(from, fields) => {
                deserializer.deserialize_struct("", names(*from, fields.len()), reader)
            }
            Schema::Enum(from, variants) => {
                deserializer.deserialize_enum("", names(*from, variants.len()), reader)
            }
            Schema::Newtype(_) => deserializer.deserialize_newtype_struct("", reader),
            Schema::Picky(part, of) => {
                let made = Seed(part).deserialize(deserializer)?;
                let mut hasher = DefaultHasher::new();
                format!("{made:?}").hash(&mut hasher);
                if hasher.finish().is_multiple_of(*of) {
                    Ok(made)
                } else {
                    Err(D::Error::custom("not this one"))
                }
            }
        }
    }
}

struct Reader<'s>(&'s Schema);

impl Reader<'_> {
    fn items(&self) -> &[Schema] {
        match self.0 {
            Schema::Tuple(items) | Schema::Struct(_, items) => items,
            _ => &[],
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Made;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }

    fn visit_unit<E>(self) -> Result<Made, E> {
        Ok(Made::Unit)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Made, E> {
        Ok(Made::Bool(value))
    }

    fn visit_u8<E>(self, value: u8) -> Result<Made, E> {
        Ok(Made::U8(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Made, E> {
        Ok(Made::I64(value))
    }

    fn visit_char<E>(self, value: char) -> Result<Made, E> {
        Ok(Made::Char(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Made, E> {
        Ok(Made::Text(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Made, E> {
        Ok(Made::Bytes(value.to_owned()))
    }

    fn visit_none<E>(self) -> Result<Made, E> {
        Ok(Made::None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Made, D::Error> {
        let Schema::Option(part) = self.0 else { return Err(D::Error::custom("no option")) };
        Ok(Made::Some(Box::new(Seed(part).deserialize(deserializer)?)))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Made, D::Error> {
        let Schema::Newtype(part) = self.0 else { return Err(D::Error::custom("no newtype")) };
        Seed(part).deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Made, A::Error> {
        let mut made = Vec::new();
        if let Schema::List(part) = self.0 {
            while let Some(element) = seq.next_element_seed(Seed(part))? {
                made.push(element);
            }
            return Ok(Made::List(made));
        }
        for item in self.items() {
            made.push(seq.next_element_seed(Seed(item))?.ok_or_else(|| A::Error::custom("too short"))?);
        }
        Ok(Made::Items(made))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Made, A::Error> {
        let Schema::Map(key, value) = self.0 else { return Err(A::Error::custom("no map")) };
        let mut made = Vec::new();
        while let Some(entry) = map.next_entry_seed(Seed(key), Seed(value))? {
            made.push(entry);
        }
        Ok(Made::Map(made))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Made, A::Error> {
        let Schema::Enum(_, variants) = self.0 else { return Err(A::Error::custom("no enum")) };
        let (Index(number), variant) = access.variant()?;
        let content = variants.get(number as usize).ok_or_else(|| A::Error::custom("no variant"))?;
        let content = match content {
            Content::Unit => variant.unit_variant().map(|()| Made::Items(Vec::new()))?,
            Content::Newtype(part) => variant.newtype_variant_seed(Seed(part))?,
            Content::Tuple(items) => {
                variant.tuple_variant(items.len(), Reader(&Schema::Tuple(items.clone())))?
            }
            Content::Struct(from, fields) => variant
                .struct_variant(names(*from, fields.len()), Reader(&Schema::Struct(*from, fields.clone())))?,
        };
        Ok(Made::Variant(number, Box::new(content)))
    }
}

struct Index(u32);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Index;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u32<E>(self, number: u32) -> Result<Index, E> {
                Ok(Index(number))
            }
        }
        deserializer.deserialize_identifier(Number)
    }
}

thread_local! {
    static SCHEMA: RefCell<Option<Rc<Schema>>> = const { RefCell::new(None) };
}

/// A type of the schema of this thread.
#[derive(Debug)]
struct Dynamic(Made);

impl<'de> Deserialize<'de> for Dynamic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let schema = SCHEMA.with_borrow(Clone::clone).expect("set by the test");
        Seed(&schema).deserialize(deserializer).map(Self)
    }
}

/// The parts of a schema that a value shows: the way to each, and what stands there.
fn shown(schema: &Schema, made: &Made, way: &str, all: &mut HashSet<String>) {
    match (schema, made) {
        (Schema::Newtype(part) | Schema::Picky(part, _), made) => shown(part, made, way, all),
        (Schema::Option(part), Made::Some(made)) => {
            all.insert(format!("{way}:some"));
            shown(part, made, &format!("{way}?"), all);
        }
        (Schema::Option(_), _) => drop(all.insert(format!("{way}:none"))),
        (Schema::List(part), Made::List(list)) => {
            all.insert(format!("{way}:empty={}", list.is_empty()));
            list.iter().for_each(|made| shown(part, made, &format!("{way}[]"), all));
        }
        (Schema::Map(key, value), Made::Map(map)) => {
            all.insert(format!("{way}:empty={}", map.is_empty()));
            for (made_key, made) in map {
                shown(key, made_key, &format!("{way}[key]"), all);
                shown(value, made, &format!("{way}[value]"), all);
            }
        }
        (Schema::Tuple(items) | Schema::Struct(_, items), Made::Items(made)) => {
            for (index, (item, made)) in items.iter().zip(made).enumerate() {
                shown(item, made, &format!("{way}.{index}"), all);
            }
        }
        (Schema::Enum(_, variants), Made::Variant(number, made)) => {
            all.insert(format!("{way}::{number}"));
            let way = format!("{way}::{number}");
            match &variants[*number as usize] {
                Content::Unit => {}
                Content::Newtype(part) => shown(part, made, &way, all),
                Content::Tuple(items) | Content::Struct(_, items) => {
                    shown(&Schema::Tuple(items.clone()), made, &way, all);
                }
            }
        }
        (Schema::Unit, _) => {}
        (_, made) => {
            let zero = match made {
                Made::Bool(value) => !value,
                Made::U8(value) => *value == 0,
                Made::I64(value) => *value == 0,
                Made::Char(value) => *value == '\0',
                Made::Text(value) => value.is_empty(),
                Made::Bytes(value) => value.is_empty(),
                _ => false,
            };
            all.insert(format!("{way}:zero={zero}"));
        }
    }
}

/// How many parts the samples of a schema should show.
fn parts(schema: &Schema) -> usize {
    let all = |schemas: &[Schema]| schemas.iter().map(parts).sum::<usize>();
    match schema {
        Schema::Unit => 0,
        Schema::Option(part) | Schema::List(part) => 2 + parts(part),
        Schema::Map(key, value) => 2 + parts(key) + parts(value),
        Schema::Tuple(items) | Schema::Struct(_, items) => all(items),
        Schema::Enum(_, variants) => {
            let within = variants.iter().map(|content| match content {
                Content::Unit => 0,
                Content::Newtype(part) => parts(part),
                Content::Tuple(items) | Content::Struct(_, items) => all(items),
            });
            variants.len() + within.sum::<usize>()
        }
        Schema::Newtype(part) | Schema::Picky(part, _) => parts(part),
        _ => 2,
    }
}

fn schemas(picky: bool) -> impl Strategy<Value = Schema> {
    let leaf = prop_oneof![
        Just(Schema::Unit),
        Just(Schema::Bool),
        Just(Schema::U8),
        Just(Schema::I64),
        Just(Schema::Char),
        Just(Schema::Text),
        Just(Schema::Bytes),
    ];
    leaf.prop_recursive(4, 48, 5, move |part| {
        let rc = part.clone().prop_map(Rc::new);
        let list = proptest::collection::vec(part.clone(), 0..5);
        let content = prop_oneof![
            Just(Content::Unit),
            part.prop_map(Content::Newtype),
            list.clone().prop_map(Content::Tuple),
            (0..8_usize, list.clone()).prop_map(|(from, fields)| Content::Struct(from, fields)),
        ];
        let of = if picky { 2..40_u64 } else { 1..2 };
        prop_oneof![
            rc.clone().prop_map(Schema::Option),
            rc.clone().prop_map(Schema::List),
            (rc.clone(), rc.clone()).prop_map(|(key, value)| Schema::Map(key, value)),
            list.clone().prop_map(Schema::Tuple),
            (0..8_usize, list).prop_map(|(from, fields)| Schema::Struct(from, fields)),
            (0..8_usize, proptest::collection::vec(content, 1..6))
                .prop_map(|(from, variants)| Schema::Enum(from, variants)),
            rc.clone().prop_map(Schema::Newtype),
            (rc, of).prop_map(|(part, of)| Schema::Picky(part, of)),
        ]
    })
}

fn traced(schema: &Schema) -> Result<(Signature, Vec<Made>), Obstacle> {
    SCHEMA.set(Some(Rc::new(schema.clone())));
    let traced = trace::<Dynamic>().map_err(|untraceable| untraceable.obstacle)?;
    let samples = traced.samples.into_iter().map(|Dynamic(made)| made).collect();
    Ok((Signature::of(&[&traced.shape]), samples))
}

fn come_back(samples: &[Made]) {
    for sample in samples {
        let written = bincode::serde::encode_to_vec(sample, bincode::config::standard()).expect("has bytes");
        let read = bincode::serde::decode_from_slice::<Dynamic, _>(&written, bincode::config::standard());
        let (Dynamic(read), len) = read.expect("is a sample");
        assert_eq!((&read, len), (sample, written.len()));
    }
}

proptest! {
    #[test]
    fn any_type_has_a_signature_and_samples_that_show_every_part(schema in schemas(false)) {
        let (_, samples) = traced(&schema).expect("refuses nothing");
        come_back(&samples);
        let mut all = HashSet::new();
        samples.iter().for_each(|sample| shown(&schema, sample, "", &mut all));
        prop_assert_eq!(all.len(), parts(&schema), "{:?} of {:?}", samples, all);
    }

    #[test]
    fn two_types_have_one_signature_if_they_read_the_same_bytes(one in schemas(false), other in schemas(false)) {
        let (signature, _) = traced(&one).expect("refuses nothing");
        prop_assert_eq!(signature, traced(&one.bare()).expect("refuses nothing").0);
        let (of_other, _) = traced(&other).expect("refuses nothing");
        prop_assert_eq!(signature == of_other, one.bare() == other.bare());
    }

    #[test]
    fn a_type_that_refuses_most_values_has_the_same_signature_or_none(schema in schemas(true)) {
        match traced(&schema) {
            Ok((signature, samples)) => {
                come_back(&samples);
                prop_assert_eq!(signature, traced(&schema.bare()).expect("refuses nothing").0);
            }
            Err(Obstacle::Hidden(_) | Obstacle::NoValue(_)) => prop_assert!(schema.is_picky()),
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }
}
