//! The tracer of types: what a signature tells apart and what it does not, which types have none and why, and what the samples show.

#![expect(dead_code, reason = "many types are only read")]

use meshwork_wire::limits::SAMPLES_MAX;
use meshwork_wire::{
    Code, Function, Invocation, Obstacle, Payload, Signature, Traced, Untraceable, Wants, trace,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::type_name;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::num::{NonZeroI64, NonZeroU8, NonZeroU128, Wrapping};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

fn traced<T: DeserializeOwned>() -> Traced<T> {
    trace::<T>().unwrap_or_else(|untraceable| panic!("{untraceable}"))
}

fn signature<T: DeserializeOwned>() -> Signature {
    Signature::of(&[&traced::<T>().shape])
}

fn untraceable<T: DeserializeOwned>() -> Untraceable {
    match trace::<T>() {
        Ok(_) => panic!("{} was traced", type_name::<T>()),
        Err(untraceable) => untraceable,
    }
}

/// Writes and reads each sample in bincode.
fn samples_come_back<T: DeserializeOwned + Serialize>() {
    for sample in traced::<T>().samples {
        let written = bincode::serde::encode_to_vec(&sample, bincode::config::standard());
        let written = written.unwrap_or_else(|error| panic!("{}: {error}", type_name::<T>()));
        let (read, len) = bincode::serde::decode_from_slice::<T, _>(&written, bincode::config::standard())
            .unwrap_or_else(|error| panic!("{}: {error}", type_name::<T>()));
        assert_eq!(len, written.len(), "{}", type_name::<T>());
        let again =
            bincode::serde::encode_to_vec(&read, bincode::config::standard()).expect("written before");
        // A hash set has no order.
        let sorted = |mut bytes: Vec<u8>| {
            bytes.sort_unstable();
            bytes
        };
        assert_eq!(sorted(again), sorted(written), "{}", type_name::<T>());
    }
}

mod plain {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    pub(crate) struct Point {
        pub(crate) x: i32,
        pub(crate) y: i32,
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Order {
        pub(crate) id: u64,
        pub(crate) lines: Vec<Line>,
        pub(crate) note: Option<String>,
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Line {
        pub(crate) sku: String,
        pub(crate) count: u32,
        pub(crate) price: f64,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    pub(crate) enum State {
        Open,
        Paid { at: u64, by: String },
        Sent(u32, String),
        Lost(String),
    }
}

use plain::{Line, Order, Point, State};

#[derive(Serialize, Deserialize)]
struct Nest(Vec<Nest>);

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Expr {
    Add(Box<Expr>, Box<Expr>),
    Num(f64),
}

#[derive(Serialize, Deserialize)]
enum NamedExpr {
    Add { left: Box<NamedExpr>, right: Box<NamedExpr> },
    Not(Box<NamedExpr>),
    All(Vec<NamedExpr>),
    Num(f64),
}

#[derive(Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
    value: u8,
}

#[derive(Serialize, Deserialize)]
struct Folder {
    files: Vec<File>,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct File {
    parent: Option<Box<Folder>>,
    links: HashMap<String, Folder>,
    size: u64,
}

/// Neither is known before the other.
#[derive(Serialize, Deserialize)]
enum Even {
    Next(Box<Odd>),
    Zero,
}

#[derive(Serialize, Deserialize)]
enum Odd {
    Next(Box<Even>, u8),
}

#[derive(Serialize, Deserialize)]
struct LateEnd {
    kids: Option<(Box<LateEnd>, u8)>,
    end: u16,
}

#[derive(Serialize, Deserialize)]
struct G<T> {
    value: T,
}

#[derive(Serialize, Deserialize)]
struct Two {
    a: G<u8>,
    b: G<String>,
    c: G<G<u8>>,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(try_from = "String", into = "String")]
struct Sku(String);

impl TryFrom<String> for Sku {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Err("a SKU is not empty") } else { Ok(Self(text)) }
    }
}

impl From<Sku> for String {
    fn from(sku: Sku) -> Self {
        sku.0
    }
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(try_from = "u32", into = "u32")]
struct Month(u32);

impl TryFrom<u32> for Month {
    type Error = String;

    fn try_from(month: u32) -> Result<Self, String> {
        if (1..=12).contains(&month) { Ok(Self(month)) } else { Err(format!("{month} is no month")) }
    }
}

impl From<Month> for u32 {
    fn from(month: Month) -> Self {
        month.0
    }
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
struct Span(u32, u32);

impl TryFrom<(u32, u32)> for Span {
    type Error = &'static str;

    fn try_from((begin, end): (u32, u32)) -> Result<Self, Self::Error> {
        if begin < end { Ok(Self(begin, end)) } else { Err("ends before it begins") }
    }
}

impl From<Span> for (u32, u32) {
    fn from(span: Span) -> Self {
        (span.0, span.1)
    }
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(try_from = "Vec<f32>", into = "Vec<f32>")]
struct Vector([f32; 3]);

impl TryFrom<Vec<f32>> for Vector {
    type Error = &'static str;

    fn try_from(list: Vec<f32>) -> Result<Self, Self::Error> {
        list.try_into().map(Self).map_err(|_| "not three numbers")
    }
}

impl From<Vector> for Vec<f32> {
    fn from(vector: Vector) -> Self {
        vector.0.to_vec()
    }
}

/// Refuses parts that do not fit each other, in the third and the fifth field.
#[derive(Serialize, Deserialize, Clone)]
#[serde(try_from = "RawRequest", into = "RawRequest")]
struct Request(RawRequest);

#[derive(Serialize, Deserialize, Clone)]
struct RawRequest {
    name: String,
    note: String,
    email: Option<String>,
    count: u32,
    phone: Option<String>,
    items: Vec<String>,
}

impl TryFrom<RawRequest> for Request {
    type Error = &'static str;

    fn try_from(raw: RawRequest) -> Result<Self, Self::Error> {
        if raw.email.is_none() == raw.phone.is_none() {
            return Err("one of email and phone");
        }
        if raw.count == 0 || raw.name.is_empty() { Err("nothing is ordered") } else { Ok(Self(raw)) }
    }
}

impl From<Request> for RawRequest {
    fn from(request: Request) -> Self {
        request.0
    }
}

#[derive(Serialize, Deserialize)]
struct Validated {
    sku: Sku,
    month: Month,
    span: Span,
    vector: Vector,
    spans: BTreeMap<Month, (Span, Option<Sku>)>,
    last: u8,
}

impl PartialEq for Month {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Month {}

impl PartialOrd for Month {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Month {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Attributes {
    #[serde(rename = "#id")]
    id: u64,
    #[serde(default)]
    first_name: Option<String>,
    #[serde(with = "serde_bytes")]
    photo: Vec<u8>,
    #[serde(skip)]
    seen: bool,
    #[serde(alias = "old_name", alias = "older_name")]
    new_name: String,
    last: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Transparent {
    inner: Vec<Option<u32>>,
}

#[derive(Serialize, Deserialize)]
struct Unit;

#[derive(Serialize, Deserialize)]
enum WithOther {
    A,
    B,
    #[serde(other)]
    Unknown,
}

macro_rules! wide {
    ($name:ident: $($field:ident)*) => {
        #[derive(Serialize, Deserialize)]
        struct $name { $($field: Line),* }
    };
}

wide! { Wide:
    f00 f01 f02 f03 f04 f05 f06 f07 f08 f09 f10 f11 f12 f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f24 f25 f26 f27 f28 f29 f30 f31
    f32 f33 f34 f35 f36 f37 f38 f39 f40 f41 f42 f43 f44 f45 f46 f47 f48 f49 f50 f51 f52 f53 f54 f55 f56 f57 f58 f59 f60 f61 f62 f63
    f64 f65 f66 f67 f68 f69
}

macro_rules! many {
    ($name:ident: $($variant:ident)*) => {
        #[derive(Serialize, Deserialize)]
        enum $name { $($variant { a: u8, b: Option<State>, c: Vec<Line> }),* }
    };
}

many! { Many:
    V00 V01 V02 V03 V04 V05 V06 V07 V08 V09 V10 V11 V12 V13 V14 V15 V16 V17 V18 V19 V20 V21 V22 V23 V24 V25 V26 V27 V28 V29 V30 V31
    V32 V33 V34 V35 V36 V37 V38 V39 V40 V41 V42 V43 V44 V45 V46 V47 V48 V49 V50 V51 V52 V53 V54 V55 V56 V57 V58 V59 V60 V61 V62 V63
    V64 V65 V66 V67 V68 V69 V70 V71 V72 V73 V74 V75 V76 V77 V78 V79 V80 V81 V82 V83 V84 V85 V86 V87 V88 V89 V90 V91 V92 V93 V94 V95
}

macro_rules! signatures {
    ($($type:ty),* $(,)?) => {
        [$({
            samples_come_back::<$type>();
            (stringify!($type), signature::<$type>())
        }),*]
    };
}

#[test]
fn types_of_different_shapes_have_different_signatures() {
    let signatures = signatures![
        (), bool, i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, f32, f64, char, String, serde_bytes::ByteBuf,
        (u8,), (u8, u8), (u8, u16), (u16, u8), [u8; 3], [u8; 32], [u16; 0], [Option<Point>; 2],
        (u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, char),
        (u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, f32, f64, char, bool, String, ()),
        Option<u8>, Option<Option<u8>>, Option<()>, Option<Option<Option<String>>>, Option<Vec<u8>>, Vec<Option<u8>>,
        Vec<u8>, Vec<u16>, Vec<Vec<u8>>, Vec<String>, Vec<()>, Vec<(u8, u8)>, VecDeque<u32>, HashSet<char>,
        HashMap<String, u8>, HashMap<u8, String>, BTreeMap<(u8, u8), bool>, BTreeMap<Option<i64>, Vec<u8>>,
        BTreeMap<char, BTreeMap<u8, ()>>, HashMap<(i8, bool), Point>,
        Point, Order, Line, State, Nest, Expr, NamedExpr, Chain, Folder, File, Even, Odd, LateEnd,
        G<u8>, G<String>, G<G<u8>>, G<Vec<u8>>, Two, Validated, Attributes, Transparent, WithOther, Wide, Many,
        Duration, SystemTime, Ipv4Addr, Ipv6Addr, IpAddr, SocketAddr, SocketAddrV4,
        std::ops::Range<u8>, std::ops::Bound<u8>, std::ops::RangeFrom<u8>, std::ops::RangeTo<u8>,
        Result<u8, String>, Result<(), u8>, Result<Point, State>,
        chrono::TimeDelta,
        Vec<Point>, Vec<State>, Vec<Expr>, Option<Expr>, Option<Point>, BTreeMap<String, State>, BTreeMap<String, Order>,
        (Point, State), (State, Point), (Order,), (Option<String>, Option<u32>), (Vec<Order>, HashMap<u64, Vec<State>>),
        [[u8; 2]; 2], [String; 4], (String, String), (String, f64), (f64, String), Vec<Option<Option<u8>>>, Vec<f32>, Vec<f64>, Vec<i128>,
        BTreeMap<i32, String>, BTreeMap<i64, String>, BTreeMap<u128, String>, BTreeMap<bool, String>, BTreeMap<(), String>,
        Option<[u8; 16]>, Option<serde_bytes::ByteBuf>, Vec<serde_bytes::ByteBuf>, (Unit, u8), (u8, Unit), Option<Nest>, Option<Chain>,
    ];
    assert!(signatures.len() >= 100, "{}", signatures.len());
    let mut seen = HashMap::new();
    for (name, signature) in signatures {
        if let Some(other) = seen.insert(signature, name) {
            panic!("{name} and {other} have one signature");
        }
    }
}

/// Types that read the same bytes to the same values.
mod again {
    use super::*;

    /// `plain::Point` and the others, by other names, in another place, with attributes that change no bytes.
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct Position {
        #[serde(default)]
        x: Box<i32>,
        #[serde(alias = "why")]
        y: Wrapping<i32>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case", default)]
    #[derive(Default)]
    pub(crate) struct Purchase {
        #[serde(rename = "id")]
        number: u64,
        #[serde(alias = "items", alias = "a", alias = "zz")]
        lines: Arc<[Item]>,
        note: Option<Cow<'static, str>>,
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Item {
        #[serde(skip)]
        seen: u8,
        sku: Sku,
        count: Month,
        price: Metres,
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Metres(f64);

    #[derive(Serialize, Deserialize)]
    pub(crate) enum Phase {
        Open,
        Paid {
            #[serde(with = "seconds")]
            at: Duration,
            by: Rc<str>,
        },
        Sent(u32, Box<str>),
        Lost(Text),
    }

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    pub(crate) struct Text {
        text: Cow<'static, str>,
    }

    mod seconds {
        use super::*;

        pub(super) fn serialize<S: Serializer>(
            duration: &Duration,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            duration.as_secs().serialize(serializer)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
            u64::deserialize(deserializer).map(Duration::from_secs)
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Leaves(LinkedList<Box<Leaves>>);

    #[derive(Serialize, Deserialize)]
    pub(crate) enum Term {
        Add(Rc<Term>, Box<Term>),
        Num(Metres),
    }
}

#[test]
fn types_of_one_shape_have_one_signature() {
    fn same<A: DeserializeOwned + Serialize, B: DeserializeOwned + Serialize>() {
        samples_come_back::<A>();
        samples_come_back::<B>();
        assert_eq!(signature::<A>(), signature::<B>(), "{} and {}", type_name::<A>(), type_name::<B>());
    }
    same::<Point, again::Position>();
    same::<Order, again::Purchase>();
    same::<Line, again::Item>();
    same::<State, again::Phase>();
    same::<Nest, again::Leaves>();
    same::<Nest, Vec<Nest>>();
    same::<Expr, again::Term>();
    same::<Vec<Order>, LinkedList<Box<again::Purchase>>>();
    same::<f64, again::Metres>();
    same::<f64, G2<f64>>();
    same::<String, Box<str>>();
    same::<String, Cow<'static, str>>();
    same::<String, Arc<str>>();
    same::<String, PathBuf>();
    same::<String, again::Text>();
    same::<String, url::Url>();
    same::<String, chrono::DateTime<chrono::Utc>>();
    same::<String, chrono::DateTime<chrono::FixedOffset>>();
    same::<String, chrono::NaiveDate>();
    same::<String, chrono::NaiveTime>();
    same::<String, chrono::NaiveDateTime>();
    same::<String, chrono::Weekday>();
    same::<String, chrono::Month>();
    same::<String, jiff::Timestamp>();
    same::<String, jiff::civil::Date>();
    same::<String, jiff::civil::DateTime>();
    same::<String, jiff::civil::Time>();
    same::<String, jiff::Span>();
    same::<String, jiff::SignedDuration>();
    same::<serde_bytes::ByteBuf, uuid::Uuid>();
    same::<Option<serde_bytes::ByteBuf>, Option<uuid::Uuid>>();
    same::<serde_bytes::ByteBuf, std::ffi::CString>();
    same::<(), Unit>();
    same::<(), PhantomData<String>>();
    same::<u8, NonZeroU8>();
    same::<i64, NonZeroI64>();
    same::<u128, NonZeroU128>();
    same::<i64, Wrapping<i64>>();
    same::<i64, std::cmp::Reverse<i64>>();
    same::<i64, std::num::Saturating<i64>>();
    same::<u32, std::sync::atomic::AtomicU32>();
    same::<u32, RefCell<u32>>();
    same::<Vec<u32>, Mutex<Box<[u32]>>>();
    same::<[u8; 4], Ipv4Addr>();
    same::<[u8; 2], (u8, NonZeroU8)>();
    same::<std::ops::Range<u8>, std::ops::RangeInclusive<u8>>();
    same::<Vec<u32>, HashSet<u32>>();
    same::<Vec<u32>, BTreeSet<Box<u32>>>();
    same::<Vec<u32>, BinaryHeap<u32>>();
    same::<HashMap<String, u8>, BTreeMap<Box<str>, u8>>();
    same::<Vec<Option<u32>>, Transparent>();
    same::<usize, u64>();
    same::<isize, i64>();
    same::<(u32, u32), Span>();
    same::<Vec<f32>, Vector>();
    same::<RawRequest, Request>();
    // Without a database of time zones, a `Zoned` does not read what it writes.
    assert_eq!(signature::<String>(), signature::<jiff::Zoned>());
}

#[derive(Serialize, Deserialize)]
struct G2<T>(T);

#[test]
fn a_change_of_a_type_changes_its_signature() {
    /// Each module is one version of one type.
    macro_rules! versions {
        ($($name:ident { $($item:tt)* })*) => {
            [$({
                mod $name {
                    use super::*;
                    #[derive(Serialize, Deserialize)]
                    pub(super) $($item)*
                }
                (stringify!($name), signature::<$name::T>(), signature::<Vec<Option<G<(u8, $name::T)>>>>())
            }),*]
        };
    }
    let versions = versions! {
        first { struct T { a: u8, b: Option<u16>, c: Vec<G<i32>> } }
        added { struct T { a: u8, b: Option<u16>, c: Vec<G<i32>>, d: Option<u8> } }
        added_first { struct T { d: u8, a: u8, b: Option<u16>, c: Vec<G<i32>> } }
        removed { struct T { a: u8, b: Option<u16> } }
        reordered { struct T { b: Option<u16>, a: u8, c: Vec<G<i32>> } }
        renamed { struct T { a: u8, bb: Option<u16>, c: Vec<G<i32>> } }
        renamed_by_attribute { struct T { #[serde(rename = "x")] a: u8, b: Option<u16>, c: Vec<G<i32>> } }
        skipped { struct T { a: u8, #[serde(skip)] b: Option<u16>, c: Vec<G<i32>> } }
        wider { struct T { a: u8, b: Option<u32>, c: Vec<G<i32>> } }
        signed { struct T { a: i8, b: Option<u16>, c: Vec<G<i32>> } }
        not_optional { struct T { a: u8, b: u16, c: Vec<G<i32>> } }
        optional { struct T { a: Option<u8>, b: Option<u16>, c: Vec<G<i32>> } }
        within { struct T { a: u8, b: Option<u16>, c: Vec<G<u32>> } }
        within_deeper { struct T { a: u8, b: Option<u16>, c: Vec<G<G<i32>>> } }
        tuple { struct T(u8, Option<u16>, Vec<G<i32>>); }
        variants { enum T { A, B(u8), C { x: u8 } } }
        variant_added { enum T { A, B(u8), C { x: u8 }, D } }
        variant_in_the_middle { enum T { A, D, B(u8), C { x: u8 } } }
        variant_renamed { enum T { A, Bb(u8), C { x: u8 } } }
        variants_reordered { enum T { B(u8), A, C { x: u8 } } }
        variant_of_other_content { enum T { A, B(i8), C { x: u8 } } }
        variant_of_a_tuple { enum T { A, B(u8, u8), C { x: u8 } } }
        variant_of_a_struct { enum T { A, B { b: u8 }, C { x: u8 } } }
        variant_of_another_field { enum T { A, B(u8), C { y: u8 } } }
        variant_skipped { enum T { A, #[serde(skip)] B(u8), C { x: u8 } } }
        recursive { struct T { next: Option<Box<T>> } }
        recursive_in_a_list { struct T { next: Vec<T> } }
        recursive_twice { struct T { next: Option<Box<Option<Box<T>>>> } }
        recursive_deeper { struct T { next: Option<Box<G<T>>> } }
        recursive_through_another { struct T { next: Option<Box<G2<G<T>>>>, b: u8 } }
    };
    for (index, (name, alone, within)) in versions.iter().enumerate() {
        for (other, other_alone, other_within) in &versions[..index] {
            assert_ne!(alone, other_alone, "{name} and {other}");
            assert_ne!(within, other_within, "{name} and {other}, within");
        }
    }
}

/// The shapes of the arguments of a method.
#[test]
fn the_shape_of_a_record_does_not_depend_on_its_defaults() {
    #[derive(Serialize, Deserialize)]
    struct Strict {
        path: String,
        depth: Option<u32>,
        hidden: bool,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Record {
        path: String,
        #[serde(default)]
        depth: Option<u32>,
        #[serde(default)]
        hidden: bool,
    }

    assert_eq!(signature::<Strict>(), signature::<Record>());
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    assert_ne!(signature::<Nothing>(), signature::<()>());
}

#[test]
fn a_signature_is_of_all_shapes_in_their_order() {
    let (number, text) = (traced::<u8>().shape, traced::<String>().shape);
    let all = [
        Signature::of(&[]),
        Signature::of(&[&number]),
        Signature::of(&[&text]),
        Signature::of(&[&number, &text]),
        Signature::of(&[&text, &number]),
        Signature::of(&[&number, &number]),
        Signature::of(&[&number, &text, &text]),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert_eq!(serde_json::to_string(&all[1]).unwrap(), all[1].number().to_string());
    assert_eq!(serde_json::from_str::<Signature>(&all[1].number().to_string()).unwrap(), all[1]);
}

mod not_traced {
    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(tag = "type")]
    pub(crate) enum Tagged {
        A { a: u8 },
        B,
    }

    #[derive(Deserialize, Debug)]
    #[serde(untagged)]
    pub(crate) enum Untagged {
        A(u8),
        B(String),
    }

    #[derive(Deserialize, Debug)]
    #[serde(tag = "type", content = "content")]
    pub(crate) enum Adjacent {
        A { a: u8 },
        B,
    }

    #[derive(Deserialize, Debug)]
    pub(crate) struct Flattened {
        pub(crate) a: u8,
        #[serde(flatten)]
        pub(crate) rest: HashMap<String, u8>,
    }

    #[derive(Deserialize, Debug)]
    pub(crate) struct Wrapped {
        pub(crate) items: Vec<(u8, Option<HashMap<String, Untagged>>)>,
    }

    #[derive(Deserialize, Debug)]
    pub(crate) struct Itself(pub(crate) Box<Itself>);

    #[derive(Deserialize, Debug)]
    pub(crate) struct WithoutEnd {
        pub(crate) number: u8,
        pub(crate) next: Box<WithoutEnd>,
    }

    #[derive(Deserialize, Debug)]
    pub(crate) enum VariantAlias {
        #[serde(alias = "Old")]
        New,
        Other,
    }

    #[derive(Deserialize, Debug)]
    #[serde(try_from = "String")]
    pub(crate) struct Impossible;

    impl TryFrom<String> for Impossible {
        type Error = &'static str;

        fn try_from(_: String) -> Result<Self, Self::Error> {
            Err("there is no such text")
        }
    }

    #[derive(Deserialize, Debug)]
    pub(crate) struct HidesTheRest {
        pub(crate) text: Impossible,
        pub(crate) number: u8,
    }

    #[derive(Deserialize, Debug)]
    #[serde(from = "u8")]
    pub(crate) struct Panics;

    impl From<u8> for Panics {
        fn from(_: u8) -> Self {
            panic!("no {}", "luck")
        }
    }

    #[derive(Deserialize, Debug)]
    pub(crate) enum Never {}

    #[derive(Debug)]
    pub(crate) struct OnlyByName;

    impl<'de> Deserialize<'de> for OnlyByName {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = OnlyByName;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a map")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<OnlyByName, A::Error> {
                    while map.next_entry::<String, u8>()?.is_some() {}
                    Ok(OnlyByName)
                }
            }
            deserializer.deserialize_struct("OnlyByName", &["a"], Visitor)
        }
    }

    /// A list whose elements are of several types.
    #[derive(Debug)]
    pub(crate) struct Mixed;

    impl<'de> Deserialize<'de> for Mixed {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Mixed;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a list")
                }
                fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Mixed, A::Error> {
                    let missing = || serde::de::Error::custom("an element is missing");
                    list.next_element::<u8>()?.ok_or_else(missing)?;
                    list.next_element::<String>()?.ok_or_else(missing)?;
                    Ok(Mixed)
                }
            }
            deserializer.deserialize_seq(Visitor)
        }
    }

    /// Goes on after each error, for ever.
    #[derive(Debug)]
    pub(crate) struct Stubborn;

    impl<'de> Deserialize<'de> for Stubborn {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Stubborn;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a map")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Stubborn, A::Error> {
                    map.next_key::<u8>()?;
                    while map.next_value::<serde_json::Value>().is_err() {}
                    Ok(Stubborn)
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
}

#[test]
fn a_type_that_bincode_cannot_carry_has_no_signature_and_says_why() {
    use not_traced::*;
    assert_eq!(untraceable::<serde_json::Value>().obstacle, Obstacle::AsksForAny);
    assert_eq!(untraceable::<Tagged>().obstacle, Obstacle::AsksForAny);
    assert_eq!(untraceable::<Untagged>().obstacle, Obstacle::AsksForAny);
    assert_eq!(untraceable::<Flattened>().obstacle, Obstacle::AsksForName);
    assert_eq!(untraceable::<serde::de::IgnoredAny>().obstacle, Obstacle::Skips);
    assert_eq!(untraceable::<VariantAlias>().obstacle, Obstacle::Variants);
    assert_eq!(untraceable::<Itself>().obstacle, Obstacle::TooDeep);
    assert!(matches!(untraceable::<Never>().obstacle, Obstacle::NoValue(_)));
    assert!(matches!(untraceable::<WithoutEnd>().obstacle, Obstacle::NoValue(_)));
    assert!(matches!(untraceable::<OnlyByName>().obstacle, Obstacle::Hidden(_)));
    assert_eq!(untraceable::<Mixed>().obstacle, Obstacle::Varies);
    assert_eq!(untraceable::<Impossible>().obstacle, Obstacle::NoValue("there is no such text".into()));
    assert_eq!(untraceable::<Panics>().obstacle, Obstacle::Panicked("no luck".into()));
    let _ = untraceable::<Stubborn>();
    let _ = untraceable::<Adjacent>();

    let wrapped = untraceable::<Wrapped>();
    assert_eq!(wrapped.place, ".items[].1[value]");
    assert_eq!(
        wrapped.to_string(),
        "the type trace::not_traced::Wrapped cannot be traced: at `.items[].1[value]`, it asks what the bytes hold, as tagged, untagged \
         and flattened types do"
    );
    let hides = untraceable::<HidesTheRest>();
    assert_eq!(
        (hides.place.as_str(), hides.obstacle),
        (".text", Obstacle::Hidden("there is no such text".into()))
    );
}

#[test]
fn samples_show_what_the_two_derives_may_disagree_about() {
    #[derive(Deserialize)]
    struct Sparse {
        option: Option<u8>,
        list: Vec<State>,
        map: BTreeMap<String, Option<bool>>,
        text: String,
        number: i64,
        float: f64,
        flag: bool,
        character: char,
        bytes: serde_bytes::ByteBuf,
        state: State,
        point: Point,
        twice: Option<Option<()>>,
        sku: Sku,
        months: Vec<Month>,
    }

    let samples = traced::<Sparse>().samples;
    assert!(samples.len() <= 10, "{}", samples.len());
    let both = |name: &str, of: &dyn Fn(&Sparse) -> bool| {
        assert!(samples.iter().any(of), "{name} is never so");
        assert!(!samples.iter().all(of), "{name} is always so");
    };
    both("option.is_none", &|sample| sample.option.is_none());
    both("option == Some(0)", &|sample| sample.option == Some(0));
    both("list.is_empty", &|sample| sample.list.is_empty());
    both("map.is_empty", &|sample| sample.map.is_empty());
    both("text.is_empty", &|sample| sample.text.is_empty());
    both("number == 0", &|sample| sample.number == 0);
    both("float == 0.0", &|sample| sample.float == 0.0);
    both("flag", &|sample| sample.flag);
    both("character == 0", &|sample| sample.character == '\0');
    both("bytes.is_empty", &|sample| sample.bytes.is_empty());
    both("point is the default", &|sample| sample.point == Point { x: 0, y: 0 });
    both("twice == None", &|sample| sample.twice.is_none());
    both("twice == Some(None)", &|sample| sample.twice == Some(None));
    both("twice == Some(Some)", &|sample| sample.twice == Some(Some(())));
    both("months.is_empty", &|sample| sample.months.is_empty());
    let states: Vec<&State> = samples.iter().map(|sample| &sample.state).collect();
    let in_lists: Vec<&State> = samples.iter().flat_map(|sample| &sample.list).collect();
    for states in [states, in_lists] {
        assert!(states.iter().any(|state| matches!(state, State::Open)));
        assert!(states.iter().any(|state| matches!(state, State::Paid { at: 0, by } if by.is_empty())));
        assert!(
            states.iter().any(|state| matches!(state, State::Paid { at, by } if *at > 0 && !by.is_empty()))
        );
        assert!(states.iter().any(|state| matches!(state, State::Sent(0, _))));
        assert!(states.iter().any(|state| matches!(state, State::Lost(text) if text.is_empty())));
        assert!(states.iter().any(|state| matches!(state, State::Lost(text) if !text.is_empty())));
    }
    let values: Vec<_> = samples.iter().flat_map(|sample| sample.map.values()).collect();
    for value in [None, Some(false), Some(true)] {
        assert!(values.contains(&&value), "{value:?}");
    }
}

#[test]
fn the_first_sample_is_empty_where_the_type_allows_it() {
    let sample = &traced::<Order>().samples[0];
    assert!(sample.id == 0 && sample.lines.is_empty() && sample.note.is_none());
    let sample = &traced::<Validated>().samples[0];
    assert!(sample.spans.is_empty() && sample.last == 0);
}

#[test]
fn samples_of_a_recursive_type_are_small_and_show_its_variants() {
    let samples = traced::<Expr>().samples;
    assert!(samples.iter().any(|expr| matches!(expr, Expr::Add(..))));
    assert!(samples.contains(&Expr::Num(0.0)) && samples.contains(&Expr::Num(1.0)));
    let samples = traced::<NamedExpr>().samples;
    assert!(samples.iter().any(|expr| matches!(expr, NamedExpr::All(list) if list.len() == 2)));
    let samples = traced::<Odd>().samples;
    assert!(samples.iter().any(|Odd::Next(even, _)| matches!(**even, Even::Zero)));
    let samples = traced::<LateEnd>().samples;
    assert!(samples.iter().any(|late| late.kids.is_some()) && samples.iter().any(|late| late.kids.is_none()));
}

#[test]
fn samples_leave_out_what_the_type_refuses() {
    let months = traced::<Month>().samples;
    assert!(months.iter().all(|month| (1..=12).contains(&month.0)));
    for Validated { sku, month, span, vector, spans, .. } in traced::<Validated>().samples {
        assert!(!sku.0.is_empty() && month.0 > 0 && span.0 < span.1 && vector.0.len() == 3);
        assert!(spans.iter().all(|(month, (span, _))| month.0 > 0 && span.0 < span.1));
    }
    let maps = traced::<Validated>().samples;
    assert!(maps.iter().any(|sample| sample.spans.values().any(|(_, sku)| sku.is_some())));
    // One part takes no value at all; the type can do without.
    let samples = traced::<Option<not_traced::Impossible>>().samples;
    assert!(samples.len() == 1 && samples[0].is_none());
    let samples = traced::<Result<u8, Vec<not_traced::Impossible>>>().samples;
    assert!(samples.iter().any(Result::is_ok) && samples.iter().any(Result::is_err));
}

/// An enum whose variants are made at run time.
struct Numbered<const VARIANTS: usize>(u32);

impl<'de, const VARIANTS: usize> Deserialize<'de> for Numbered<VARIANTS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const VARIANTS: usize>;
        impl<'de, const VARIANTS: usize> serde::de::Visitor<'de> for Visitor<VARIANTS> {
            type Value = Numbered<VARIANTS>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a variant")
            }
            fn visit_enum<A: serde::de::EnumAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
                use serde::de::{Error, VariantAccess};
                let (number, variant): (Index, _) = access.variant()?;
                if number.0 as usize >= VARIANTS {
                    return Err(A::Error::custom("no such variant"));
                }
                variant.newtype_variant::<Line>()?;
                Ok(Numbered(number.0))
            }
        }
        static NAMES: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
        let names = NAMES.get_or_init(|| (0..5_000).map(|n| &*format!("V{n}").leak()).collect());
        deserializer.deserialize_enum("Numbered", &names[..VARIANTS], Visitor)
    }
}

struct Index(u32);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Index;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number")
            }
            fn visit_u32<E>(self, number: u32) -> Result<Index, E> {
                Ok(Index(number))
            }
        }
        deserializer.deserialize_identifier(Visitor)
    }
}

#[test]
fn a_type_of_many_parts_is_traced_within_bounds() {
    let samples = traced::<Numbered<500>>().samples;
    let shown: HashSet<u32> = samples.iter().map(|sample| sample.0).collect();
    assert_eq!(shown.len(), 500);
    assert!(traced::<Numbered<5_000>>().samples.len() <= SAMPLES_MAX);
    assert!(traced::<Many>().samples.len() <= SAMPLES_MAX);
    // 4,096 leaves, and 65,536.
    type Doubled<T> = (T, T, T, T);
    type Leaves4 = Doubled<Doubled<Doubled<Doubled<Doubled<Doubled<u8>>>>>>;
    assert_eq!(traced::<Leaves4>().samples.len(), 2);
    type Leaves16 = Doubled<Doubled<Leaves4>>;
    let _ = trace::<Leaves16>();
    type Lists<T> = Vec<Vec<Vec<Vec<Vec<Vec<Vec<Vec<T>>>>>>>>;
    assert!(traced::<Lists<Lists<Lists<(u8, State)>>>>().samples.len() < 50);
}

#[test]
fn a_function_is_a_kind_of_its_own() {
    #[derive(Serialize, Deserialize)]
    struct Import {
        path: String,
        progress: Option<Function>,
        all: Vec<Function>,
    }

    #[derive(Serialize, Deserialize)]
    struct Placeholder {
        #[serde(rename = "$callback")]
        index: u32,
    }

    let function = signature::<Function>();
    assert_ne!(function, signature::<Placeholder>());
    assert_ne!(function, signature::<HashMap<String, u32>>());
    assert_ne!(function, signature::<u32>());
    let samples = traced::<Import>().samples;
    assert!(samples.iter().any(|sample| sample.progress.is_some() && !sample.all.is_empty()));
    for sample in samples {
        let payload = Payload::encode(meshwork_wire::Encoding::Json, &sample).unwrap();
        assert_eq!(payload.decode::<Import>().unwrap().all, sample.all);
        for function in sample.all {
            let invocation = Invocation { arguments: Payload::default(), within: None, wants: Wants::Result };
            let invoked = std::pin::pin!(function.invoke(invocation));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match Future::poll(invoked, &mut context) {
                std::task::Poll::Ready(Err(error)) => assert_eq!(error.code(), Code::CALLBACK_GONE),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn some_of_nothing_is_seen_in_the_shape() {
    let place = |shape: meshwork_wire::TypeShape| shape.some_of_nothing().map(str::to_owned);
    assert_eq!(place(traced::<Order>().shape), None);
    assert_eq!(place(traced::<Option<()>>().shape), Some(String::new()));
    assert_eq!(place(traced::<(u8, G<Vec<Option<Option<u8>>>>)>().shape).as_deref(), Some(".1.value[]"));
    #[derive(Deserialize)]
    struct Layers(Option<Box<Layers>>);
    assert_eq!(place(traced::<Layers>().shape), Some(String::new()));
}

/// Another number makes typed ends of different versions of meshwork speak by name.
#[test]
fn signatures_are_frozen() {
    let frozen = [
        signature::<()>(),
        signature::<u8>(),
        signature::<String>(),
        signature::<Option<Vec<f64>>>(),
        signature::<BTreeMap<String, [i128; 3]>>(),
        signature::<Order>(),
        signature::<State>(),
        signature::<Expr>(),
        signature::<Folder>(),
        signature::<WithOther>(),
        signature::<Function>(),
        signature::<(uuid::Uuid, Duration, IpAddr, Result<bool, char>)>(),
    ];
    assert_eq!(
        frozen.map(Signature::number),
        [
            9314487763114408367,
            15281108267388790652,
            11595024933359367598,
            15562671365985973346,
            5115692038763456207,
            10527743388926330425,
            14961900585793854402,
            1037015863242760785,
            8667530691934850655,
            5357793292677441965,
            64213196606223242,
            15843619893697785457
        ]
    );
}

#[test]
fn types_that_hold_large_values_are_traced_on_a_small_stack() {
    type Large<T> = ([u64; 32], G<Option<(T, [(u64, u64); 32])>>);
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(|| {
            signature::<Large<Large<Large<Large<Large<Large<Large<Large<Expr>>>>>>>>>();
            untraceable::<not_traced::Itself>();
        })
        .unwrap()
        .join()
        .unwrap();
}
