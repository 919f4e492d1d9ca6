//! Payloads out of bounds: without bounds, each would overflow the stack, or loop for seconds.

use meshwork_wire::limits::{DEPTH_MAX, EMPTY_ELEMENTS_MAX};
use meshwork_wire::{Encoding, Payload};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error, Visitor},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Primitives {
    bool: bool,
    signed: (i8, i16, i32, i64, i128, isize),
    unsigned: (u8, u16, u32, u64, u128, usize),
    floats: [f64; 2],
    float: f32,
    char: char,
    string: String,
    boxed: Box<str>,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    buffer: serde_bytes::ByteBuf,
    unit: (),
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Newtype(Vec<u16>);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Pair(String, Option<Unit>);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Variants {
    Unit,
    Newtype(Box<Variants>),
    Tuple(u64, Newtype, Option<String>),
    Struct { pair: Pair, inner: Vec<Variants> },
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Shapes {
    none: Option<u32>,
    some: Option<Option<u32>>,
    result: Result<u8, String>,
    variants: Vec<Variants>,
    map: HashMap<String, Vec<Pair>>,
    ordered: BTreeMap<u32, BTreeSet<i64>>,
    nested: Vec<Vec<(u8, Newtype)>>,
    empty: (Unit, [u8; 0], Vec<String>),
    elapsed: std::time::Duration,
    address: std::net::SocketAddr,
}

/// A list whose nodes are two levels each: the newtype and the `Some`.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
struct List(Option<Box<List>>);

/// A tree whose nodes are one level each, with one more level for the sequence in a branch.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
    Branch { children: Vec<Tree> },
    Fork(Box<Tree>, Option<u8>),
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Payload {
    Payload::encode(Encoding::Bincode, value).expect("the codec has a form for it")
}

#[track_caller]
fn assert_unchanged<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
    assert_eq!(encode(&value).decode::<T>().expect("it comes back"), value);
}

#[track_caller]
fn assert_refused<T: DeserializeOwned + fmt::Debug>(payload: &Payload, reason: &str) {
    let refused = payload.decode::<T>().expect_err("it is out of bounds");
    assert!(format!("{refused:?}").contains(reason), "{refused:?} does not say: {reason}");
}

/// The length of a sequence or a text without its elements: a length is written like a number.
fn claim(len: u64) -> Payload {
    encode(&len)
}

/// How many bytes of a payload in bincode are its check, which has no elements.
const CHECK_LEN: usize = 4;

fn claim_too_many() -> String {
    format!("more than {} elements", claim(100_000_000).bytes.len() - CHECK_LEN + EMPTY_ELEMENTS_MAX)
}

fn too_deep() -> String {
    format!("nested deeper than {DEPTH_MAX} levels")
}

fn list(nodes: usize) -> List {
    (1..nodes).fold(List(None), |rest, _| List(Some(Box::new(rest))))
}

fn nodes(depth: usize) -> Tree {
    (1..depth).fold(Tree::Leaf, |tree, _| Tree::Node(Box::new(tree)))
}

#[test]
fn primitives_come_back_unchanged() {
    for extreme in [false, true] {
        assert_unchanged(Primitives {
            bool: extreme,
            signed: if extreme {
                (i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN, isize::MIN)
            } else {
                (1, -2, 3, -4, 5, -6)
            },
            unsigned: if extreme {
                (u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX, usize::MAX)
            } else {
                (1, 2, 3, 4, 5, 6)
            },
            floats: [f64::MIN_POSITIVE, f64::INFINITY],
            float: -0.5,
            char: if extreme { char::MAX } else { 'ß' },
            string: "tschüß".to_owned(),
            boxed: "".into(),
            bytes: (0..=255).collect(),
            buffer: serde_bytes::ByteBuf::from(vec![0; 100_000]),
            unit: (),
        });
    }
}

#[test]
fn every_shape_comes_back_unchanged() {
    let pair = Pair("pair".to_owned(), Some(Unit));
    assert_unchanged(Shapes {
        none: None,
        some: Some(Some(7)),
        result: Err("no".to_owned()),
        variants: vec![
            Variants::Unit,
            Variants::Newtype(Box::new(Variants::Newtype(Box::new(Variants::Unit)))),
            Variants::Tuple(u64::MAX, Newtype(vec![1, 2, 3]), None),
            Variants::Struct { pair: pair.clone(), inner: vec![Variants::Unit, Variants::Unit] },
        ],
        map: HashMap::from([("one".to_owned(), vec![pair]), ("none".to_owned(), Vec::new())]),
        ordered: BTreeMap::from([(1, BTreeSet::from([-1, 1])), (2, BTreeSet::new())]),
        nested: vec![vec![(1, Newtype(vec![]))], vec![], vec![(2, Newtype(vec![9])), (3, Newtype(vec![]))]],
        empty: (Unit, [], Vec::new()),
        elapsed: std::time::Duration::from_nanos(1_000_000_001),
        address: ([127, 0, 0, 1], 80).into(),
    });
    assert_unchanged(());
    assert_unchanged(Unit);
    assert_unchanged(Some(()));
    assert_unchanged(String::from("alone"));
}

/// The codec once cleared 16 MiB for a text that claimed this length before it saw that the text was missing: a millisecond for five
/// bytes. Bytes that a type wants to own are copied when they are there.
#[test]
fn owned_text_is_read_as_borrowed_and_owned_bytes_are_a_copy() {
    /// The length of the text that a visitor was given without a copy, or of the bytes that it was given to own.
    #[derive(PartialEq, Debug)]
    enum Given {
        Nothing,
        Borrowed(usize),
        Owned(usize),
    }
    impl<'de> Visitor<'de> for Given {
        type Value = Given;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text to borrow, or bytes to own")
        }
        fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Given, E> {
            Ok(Given::Borrowed(text.len()))
        }
        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Given, E> {
            assert!(bytes.iter().all(|byte| *byte == 3));
            Ok(Given::Owned(bytes.len()))
        }
    }
    #[derive(PartialEq, Debug)]
    struct Text(Given);
    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_string(Given::Nothing).map(Text)
        }
    }
    #[derive(PartialEq, Debug)]
    struct Blob(Given);
    impl<'de> Deserialize<'de> for Blob {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_byte_buf(Given::Nothing).map(Blob)
        }
    }
    let blobs = [0, 5, 100_000];
    let blobs_of =
        |blob: fn(usize) -> Given| blobs.map(|len| Blob(blob(len))).into_iter().collect::<Vec<_>>();
    for encoding in [Encoding::Bincode, Encoding::MessagePack] {
        let bytes = blobs.map(|len| serde_bytes::ByteBuf::from(vec![3; len])).to_vec();
        let payload = Payload::encode(encoding, &("four", bytes)).unwrap();
        let expected = (Text(Given::Borrowed(4)), blobs_of(Given::Owned));
        assert_eq!(payload.decode::<(Text, Vec<Blob>)>(), Ok(expected), "{encoding}");
    }
}

#[test]
fn as_many_elements_as_bytes_come_back_unchanged() {
    assert_unchanged(vec![7_u8; 1_000_000]);
    assert_unchanged((0..10_000_u64).map(|key| (key, vec![key; 3])).collect::<BTreeMap<_, _>>());
}

#[test]
fn nesting_up_to_the_bound_comes_back_unchanged() {
    assert_unchanged(list(DEPTH_MAX / 2));
    assert_unchanged(nodes(DEPTH_MAX));
    assert_unchanged(vec![nodes(DEPTH_MAX - 1), nodes(DEPTH_MAX - 1)]);
}

#[test]
fn nesting_beyond_the_bound_is_refused() {
    assert_refused::<List>(&encode(&list(DEPTH_MAX / 2 + 1)), &too_deep());
    assert_refused::<Tree>(&encode(&nodes(DEPTH_MAX + 1)), &too_deep());
    assert_refused::<Vec<Tree>>(&encode(&vec![nodes(DEPTH_MAX)]), &too_deep());
}

#[test]
fn nesting_20_000_deep_is_an_error_and_no_stack_overflow() {
    // Each `Some` is a 1. Each variant is its number, and a branch has one child.
    let mut some = vec![1; 20_000];
    some.push(0);
    assert_refused::<List>(&Payload::new(Encoding::PlainBincode, some), &too_deep());
    for level in [&[1_u8][..], &[2, 1], &[3]] {
        let mut tree = level.repeat(20_000);
        tree.push(0);
        assert_refused::<Tree>(&Payload::new(Encoding::PlainBincode, tree), &too_deep());
    }
}

#[test]
fn a_type_that_contains_itself_without_end_is_an_error_and_no_stack_overflow() {
    #[derive(Debug, Deserialize)]
    struct Endless(#[expect(dead_code, reason = "there never is one")] Box<Endless>);
    assert_refused::<Endless>(&Payload::new(Encoding::PlainBincode, Vec::new()), &too_deep());
}

/// JSON and MessagePack have no bytes for a newtype and none for a `Some`, so their readers once recursed into [`List`] without
/// reading a byte: `1` overflowed the stack.
#[test]
fn a_type_that_takes_no_bytes_for_a_level_is_bounded_in_every_encoding() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        assert_refused::<List>(&Payload::new(encoding, &b"1"[..]), &too_deep());
    }
    assert_eq!(Payload::new(Encoding::Json, &b"null"[..]).decode::<List>(), Ok(List(None)));
    assert_eq!(Payload::new(Encoding::MessagePack, &[0xc0][..]).decode::<List>(), Ok(List(None)));
}

#[test]
fn nesting_that_describes_itself_is_bounded_too() {
    let json = ["[".repeat(20_000), "{\"a\":".repeat(20_000)];
    for text in json {
        let payload = Payload::new(Encoding::Json, text.into_bytes());
        assert!(payload.decode::<serde_json::Value>().is_err());
        assert!(payload.decode::<serde::de::IgnoredAny>().is_err());
    }
    for level in [&[0x91][..], &[0x81, 0xa1, b'a'], &[0x81, 0xc0]] {
        let payload = Payload::new(Encoding::MessagePack, level.repeat(20_000));
        assert!(payload.decode::<serde_json::Value>().is_err());
        assert!(payload.decode::<serde::de::IgnoredAny>().is_err());
    }
}

#[test]
fn elements_that_take_no_bytes_come_back_up_to_their_bound() {
    assert_unchanged(vec![(); EMPTY_ELEMENTS_MAX]);
    assert_unchanged(vec![Unit; EMPTY_ELEMENTS_MAX]);
}

#[test]
fn a_hundred_million_elements_that_take_no_bytes_are_refused() {
    let hundred_million = claim(100_000_000);
    assert_refused::<Vec<()>>(&hundred_million, &claim_too_many());
    assert_refused::<Vec<Unit>>(&hundred_million, &claim_too_many());
    assert_refused::<HashMap<(), ()>>(&hundred_million, &claim_too_many());
    assert_refused::<Vec<[u64; 0]>>(&hundred_million, &claim_too_many());
}

#[test]
fn elements_that_take_no_bytes_are_bounded_in_all_sequences_together() {
    let most = vec![(); EMPTY_ELEMENTS_MAX / 2];
    assert_unchanged(vec![most.clone()]);
    assert_refused::<Vec<Vec<()>>>(&encode(&vec![most; 3]), "elements");
}

#[test]
fn a_length_that_lies_is_refused_before_anything_is_allocated() {
    // Room for any of these claims would abort the process.
    for lie in [u64::from(u32::MAX), 1 << 40, u64::MAX >> 4, u64::MAX] {
        let reason =
            format!("more than {} elements", claim(lie).bytes.len() - CHECK_LEN + EMPTY_ELEMENTS_MAX);
        assert_refused::<Vec<u64>>(&claim(lie), &reason);
        assert_refused::<HashMap<u64, [u64; 32]>>(&claim(lie), &reason);
        assert_refused::<BTreeMap<String, u8>>(&claim(lie), &reason);
        assert!(claim(lie).decode::<String>().is_err());
        assert!(claim(lie).decode::<serde_bytes::ByteBuf>().is_err());
    }
}
