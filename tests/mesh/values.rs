//! A value arrives as it was sent, or the call fails and says why: many types, by every way that a value may take. Each cell of the table is
//! *the same* or *an error that names the type and the way out*.

#![expect(clippy::type_complexity, reason = "the types are what is tried")]

use super::{Mesh, ear, soon};
use meshwork::prelude::*;
use meshwork::{Encoding, Payload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
enum Shape {
    Unit,
    New(u8),
    Tuple(i32, String),
    Struct { wide: u64, note: Option<String> },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Deep {
    list: Vec<Deep>,
    next: Option<Box<Deep>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    One { a: i32 },
    Two { b: String },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
    List(Vec<Untagged>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flat {
    id: u32,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Skips {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    second: Vec<u8>,
    third: i64,
}

/// A variant that one derive counts and the other does not.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Holes {
    First,
    #[serde(skip)]
    #[expect(dead_code, reason = "nobody makes one: it is there to be counted")]
    Gone,
    Second(u8),
    Third,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Nothing;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Many {
    a: u8,
    b: i8,
    c: Option<bool>,
    d: (f32, f64),
    e: [u16; 3],
    f: Vec<(String, char)>,
    g: BTreeMap<u32, Vec<Shape>>,
    h: Result<u8, String>,
}

fn deep(levels: usize) -> Deep {
    let leaf = || Deep { list: Vec::new(), next: None };
    (0..levels).fold(leaf(), |inner, _| Deep { list: vec![leaf()], next: Some(Box::new(inner)) })
}

fn many() -> Many {
    let (d, e) = ((f32::MAX, f64::MIN_POSITIVE), [0, 1, u16::MAX]);
    let g = BTreeMap::from([(7, vec![Shape::Unit, Shape::New(1)]), (u32::MAX, Vec::new())]);
    let f = vec![("ß".to_owned(), '€')];
    Many { a: 255, b: -128, c: Some(false), d, e, f, g, h: Err("no".to_owned()) }
}

/// What became of a value: whether it came back the same, or else the message of its error.
type Cell = Result<(), String>;

fn cell<T: Debug>(sent: &T, got: Result<T, CallError>) -> Cell {
    match got {
        // Values that are no number are equal to none, and to themselves in what is shown.
        Ok(got) => {
            assert_eq!(format!("{got:?}"), format!("{sent:?}"), "another value");
            Ok(())
        }
        Err(error) => {
            assert!([Code::CANNOT_ENCODE, Code::CANNOT_DECODE].contains(&error.code()), "{error}");
            Err(error.message().to_owned())
        }
    }
}

/// The ways of a value by name.
async fn by_name<T>(
    (mesh, caller, provider): (&Mesh, &Branch, &Branch),
    action: &'static str,
    value: &T,
) -> Vec<(&'static str, Cell)>
where
    T: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let mut cells = Vec::new();
    let mut note = |way, got: Result<T, CallError>| cells.push((way, cell(value, got)));
    note("by name", soon(caller.call(action, (value.clone(),))).await);
    note("by name, from the master", soon(mesh.master.call(action, (value.clone(),))).await);
    note("by name, at the own node", soon(provider.call(action, (value.clone(),))).await);
    note("of many", soon(caller.call_many(action, [(value.clone(),)])).await.remove(0));
    let plain = format!("plain/{action}");
    note("to a closure", soon(caller.call(plain.clone(), value.clone())).await);
    let back = Callback::new_async(|value: T| async move { Ok(value) });
    let applied = format!("apply/{action}");
    note("through a function", soon(caller.call(applied, (back, value.clone()))).await);
    let (handler, mut events) = ear::<T>();
    let _subscription = provider.subscribe(action, handler).await.expect("it subscribes");
    let published = caller.publish(action, value).await;
    note(
        "as an event",
        match published {
            Ok(()) => Ok(soon(events.recv()).await.expect("it arrives").1),
            Err(error) => Err(error),
        },
    );
    note(
        "as JSON",
        match Payload::encode(Encoding::Json, value) {
            Ok(json) => soon(caller.call_raw(plain, json)).await.and_then(|reply| Ok(reply.decode::<T>()?)),
            Err(error) => Err(error.into()),
        },
    );
    cells
}

/// A test for each type: its values come back the same by all ways; or, for those behind `refused by name`, the same between typed ends and as an
/// error with these words by name.
macro_rules! values {
    ($($name:ident($test:ident): $type:ty = $values:expr $(, refused by name: $refused:expr, $words:expr)?;)*) => {$(
        mod $name {
            use super::*;

            #[meshwork::actions]
            trait Echo {
                async fn $name(&self, value: $type) -> Result<$type, ActionError>;
            }

            struct Echoes;

            impl Echo for Echoes {
                async fn $name(&self, value: $type) -> Result<$type, ActionError> {
                    Ok(value)
                }
            }

            #[actix::test]
            async fn $test() {
                let mesh = Mesh::start().await;
                let action = stringify!($name);
                let provider = BranchActor::new("provider")
                    .respond_all(Echoes.into_responders())
                    .respond(format!("plain/{action}"), |value: $type| async move { Ok(value) })
                    .respond(
                        format!("apply/{action}"),
                        |(back, value): (Callback<$type, $type>, $type)| async move { Ok(back.call(value).await?) },
                    );
                let provider = mesh.bind(provider).await;
                let caller = mesh.branch("caller").await;
                let typed = async |value: &$type| {
                    for node in [Node::from(&*caller), Node::from(&*provider), Node::from(&*mesh.master)] {
                        let got = soon(EchoRequester::new(&node).$name(value.clone())).await;
                        assert_eq!(cell(value, got), Ok(()), "between typed ends: {value:?}");
                    }
                };
                for value in $values {
                    let value: $type = value;
                    typed(&value).await;
                    for (way, cell) in by_name((&mesh, &caller, &provider), action, &value).await {
                        assert_eq!(cell, Ok(()), "{way}: {value:?}");
                    }
                }
                $(
                    for value in $refused {
                        let value: $type = value;
                        typed(&value).await;
                        for (way, cell) in by_name((&mesh, &caller, &provider), action, &value).await {
                            let message = cell.expect_err(way);
                            assert!(message.contains($words), "{way}: {value:?}: {message}");
                        }
                    }
                )?
            }
        }
    )*};
}

values! {
    bools(a_bool_stays_the_same): bool = [true, false];
    bytes(small_integers_stay_the_same): (u8, i8, u16, i16) = [(0, 0, 0, 0), (255, -128, u16::MAX, i16::MIN)];
    words(integers_stay_the_same): (u32, i32, u64, i64) =
        [(0, -1, 1, 0), (u32::MAX, i32::MIN, u64::MAX, i64::MIN), (1, i32::MAX, 1 << 53, (1 << 53) + 1)];
    wides(integers_of_128_bits_stay_the_same): (u128, i128) =
        [(0, -1), (u128::MAX, i128::MIN), (u128::from(u64::MAX) + 1, i128::from(i64::MIN) - 1), (1, i128::MAX)];
    singles(floats_of_32_bits_stay_the_same): f32 =
        [0.0, -0.0, 0.1, 1.5, f32::MIN_POSITIVE / 2.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    doubles(floats_of_64_bits_stay_the_same): f64 =
        [0.0, -0.0, 0.1, 1e300, f64::MIN_POSITIVE / 2.0, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    chars(a_character_stays_the_same): char = ['a', 'ß', '\0', '\u{10FFFF}', '"'];
    texts(a_text_stays_the_same): String =
        [String::new(), "NaN".to_owned(), "a\"\\\u{0}\u{7F}é€𝄞".to_owned(), "x".repeat(1 << 20)];
    options(an_option_stays_the_same): (Option<u8>, Option<Vec<u8>>) = [(None, None), (Some(0), Some(vec![]))];
    nested(an_option_of_an_option_is_the_same_or_an_error): Option<Option<u8>> = [None, Some(Some(1))],
        refused by name: [Some(None)], "Some";
    nothings(an_option_of_nothing_is_the_same_or_an_error): Vec<Option<()>> = [vec![], vec![None]],
        refused by name: [vec![None, Some(())]], "Some";
    units(what_has_no_size_stays_the_same): ((), Nothing, [u8; 0]) = [((), Nothing, [])];
    unit(nothing_at_all_stays_the_same): () = [()];
    lists(lists_stay_the_same): (Vec<()>, Vec<Vec<i32>>, BTreeSet<char>) =
        [(vec![], vec![], BTreeSet::new()), (vec![(); 3], vec![vec![], vec![1, -1]], BTreeSet::from(['a', 'b']))];
    maps(maps_with_any_keys_stay_the_same): (BTreeMap<String, u8>, BTreeMap<u64, u8>, BTreeMap<bool, u8>, BTreeMap<char, u8>) =
        [Default::default(), (
            BTreeMap::from([(String::new(), 1), ("1".to_owned(), 2)]),
            BTreeMap::from([(0, 1), (u64::MAX, 2)]),
            BTreeMap::from([(true, 1), (false, 2)]),
            BTreeMap::from([('a', 1), ('"', 2)]),
        )];
    signed_keys(maps_with_signed_keys_stay_the_same): BTreeMap<i128, Vec<u8>> =
        [BTreeMap::from([(-1, vec![1]), (i128::MIN, vec![]), (0, vec![2])])];
    shapes(every_kind_of_variant_stays_the_same): Shape = [
        Shape::Unit,
        Shape::New(0),
        Shape::Tuple(-1, "x".to_owned()),
        Shape::Struct { wide: u64::MAX, note: None },
        Shape::Struct { wide: 0, note: Some(String::new()) },
    ];
    structs(a_struct_of_everything_stays_the_same): Many = [many()];
    nests(deep_nesting_within_the_limit_stays_the_same): Deep = [deep(0), deep(40)];
    tagged(a_tagged_enum_stays_the_same): Tagged = [Tagged::One { a: -1 }, Tagged::Two { b: "b".to_owned() }];
    untagged(an_untagged_enum_stays_the_same): Untagged = [
        Untagged::Number(i64::MIN),
        Untagged::Text("1".to_owned()),
        Untagged::List(vec![Untagged::Number(1), Untagged::List(vec![])]),
    ];
    flat(a_flattened_struct_stays_the_same): Flat =
        [Flat { id: 7, rest: BTreeMap::from([("x".to_owned(), serde_json::json!([1, null, { "y": "z" }]))]) }];
    jsons(a_value_of_json_stays_the_same): serde_json::Value =
        [serde_json::json!(null), serde_json::json!({ "a": [1, -1, 1.5, "x", null, true], "b": {} })];
    skips(fields_that_are_left_out_stay_out): Skips = [
        Skips { first: None, second: vec![], third: 1 },
        Skips { first: Some("a".to_owned()), second: vec![], third: 2 },
        Skips { first: None, second: vec![3], third: 3 },
        Skips { first: Some(String::new()), second: vec![0], third: -4 },
    ];
    holes(a_variant_that_is_skipped_moves_no_other): Holes = [Holes::First, Holes::Second(9), Holes::Third];
    times(times_stay_the_same): (Duration, SystemTime) = [
        (Duration::ZERO, SystemTime::UNIX_EPOCH),
        (Duration::MAX, SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789)),
    ];
    addresses(addresses_stay_the_same): (IpAddr, IpAddr, SocketAddr) =
        [("127.0.0.1".parse().unwrap(), "::1".parse().unwrap(), "[fe80::1]:65535".parse().unwrap())];
    paths(a_path_stays_the_same): PathBuf = [PathBuf::from("/tmp/ä b"), PathBuf::new()];
    results(a_result_stays_the_same): Result<Option<u8>, Vec<String>> = [Ok(None), Ok(Some(1)), Err(vec!["x".to_owned()])];
    boxed(a_value_behind_pointers_stays_the_same): Box<(Box<str>, std::borrow::Cow<'static, str>)> =
        [Box::new(("a".into(), "b".into()))];
}

/// Its fields are written in another order than they are read: bincode has no names, and two numbers would change places.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Crossed {
    amount: u32,
    tip: u32,
}

impl Serialize for Crossed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Crossed", 2)?;
        fields.serialize_field("tip", &self.tip)?;
        fields.serialize_field("amount", &self.amount)?;
        fields.end()
    }
}

/// One field is written and another one is read, and there are as many of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Halves {
    #[serde(default, skip_serializing)]
    read: u32,
    #[serde(skip_deserializing)]
    written: u32,
}

/// Nothing within a type of its own, which serde does not read from an absent field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Maybe(Option<u8>);

/// Its `Serialize` panics at a value that nobody makes but its `Deserialize`, which takes any.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Positive(u32);

impl Serialize for Positive {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 > 0, "it is positive");
        serializer.serialize_newtype_struct("Positive", &self.0)
    }
}

fn five() -> Option<u8> {
    Some(5)
}

/// What a provider sees is told in text: a value that changes on its way may change back.
#[meshwork::actions(prefix = "tell")]
trait Tell {
    async fn crossed(&self, value: Crossed) -> Result<String, ActionError>;
    async fn halves(&self, value: Halves) -> Result<String, ActionError>;
    async fn positive(&self, value: Positive) -> Result<String, ActionError>;
    async fn nothing(
        &self,
        #[serde(default = "five")] number: Option<u8>,
        maybe: Maybe,
    ) -> Result<String, ActionError>;
}

struct Told;

impl Tell for Told {
    async fn crossed(&self, value: Crossed) -> Result<String, ActionError> {
        Ok(format!("{} and {}", value.amount, value.tip))
    }
    async fn halves(&self, value: Halves) -> Result<String, ActionError> {
        Ok(format!("{} and {}", value.read, value.written))
    }
    async fn positive(&self, value: Positive) -> Result<String, ActionError> {
        Ok(value.0.to_string())
    }
    async fn nothing(&self, number: Option<u8>, maybe: Maybe) -> Result<String, ActionError> {
        Ok(format!("{number:?} and {:?}", maybe.0))
    }
}

/// The first call of the master's handle is by name, since the handle does not know the provider yet.
#[actix::test]
async fn typed_ends_see_what_was_sent_at_the_first_call_and_later() {
    let mesh = Mesh::start().await;
    let provider = mesh.bind(BranchActor::new("provider").respond_all(Told.into_responders())).await;
    for node in [Node::from(&mesh.master), Node::from(&*provider)] {
        for _ in 0..2 {
            let tell = TellRequester::new(&node);
            let nothing = soon(tell.nothing(None, Maybe(None))).await;
            assert_eq!(nothing.expect("it is read"), "None and None");
            let some = soon(tell.nothing(Some(1), Maybe(Some(2)))).await;
            assert_eq!(some.expect("it is read"), "Some(1) and Some(2)");
            let crossed = soon(tell.crossed(Crossed { amount: 1, tip: 2 })).await;
            assert_eq!(crossed.expect("it is read"), "1 and 2");
            let halves = soon(tell.halves(Halves { read: 1, written: 2 })).await;
            assert_eq!(halves.expect("it is read"), "0 and 0");
            let positive = soon(tell.positive(Positive(3))).await;
            assert_eq!(positive.expect("it is read"), "3");
        }
    }
}
