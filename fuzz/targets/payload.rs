//! The first byte chooses the encoding, the rest is a payload: it is read as several types, and a value that can be read can be
//! written and read again.

use meshwork_wire::{Encoding, Payload, Value};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt};

/// A type with every shape of serde that comes back from every encoding, over and over.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(i64),
    Text(String),
    Pair(Box<Tree>, Option<Box<Tree>>),
    Node { name: String, children: Vec<Tree>, index: BTreeMap<String, Tree> },
}

/// A type that takes any value, which only self-describing encodings can be read into.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Anything {
    Bool(bool),
    Number(i64),
    Text(String),
    List(Vec<Anything>),
    Map(BTreeMap<String, Anything>),
    Nothing(()),
}

/// A type whose levels take no bytes in self-describing encodings.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
struct Layers(Option<Box<Layers>>);

/// A type of fixed shape.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
struct Fixed {
    id: u64,
    small: (u8, i16, char, bool),
    at: [i32; 3],
    name: Option<String>,
    #[serde(with = "serde_bytes")]
    seal: Vec<u8>,
    nothing: Vec<()>,
}

/// A type with keys that are no text, which have one in JSON.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
struct Keyed {
    integers: BTreeMap<i128, u128>,
    compound: BTreeMap<(u8, Option<char>), BTreeMap<bool, ()>>,
}

/// Reads the payload as each type.
pub(crate) fn run(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let encoding = [Encoding::Bincode, Encoding::MessagePack, Encoding::Json][usize::from(first % 3)];
    let payload = Payload::new(encoding, bytes.to_vec());
    read::<Tree>(&payload);
    read::<Fixed>(&payload);
    read::<Keyed>(&payload);
    any(&payload);
    // Some different values of these types are written alike, so they are only read.
    _ = payload.decode::<Layers>();
    _ = payload.decode::<Anything>();
    _ = payload.decode::<f64>();
    _ = payload.decode::<Vec<()>>();
}

fn read<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(payload: &Payload) {
    let Ok(value) = payload.decode::<T>() else { return };
    let written = Payload::encode(payload.encoding, &value).expect("what was read can be written");
    assert_eq!(written.decode::<T>().as_ref(), Ok(&value), "written and read again");
}

/// Reads the payload without a type. What is written again is read as what it was, in the other encoding too if that has a form for it.
fn any(payload: &Payload) {
    let Ok(value) = payload.decode::<Value>() else { return };
    let written = Payload::encode(payload.encoding, &value).expect("what was read can be written");
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let Ok(other) = written.transcode(encoding) else { continue };
        let first = other.decode::<Value>().expect("what was written can be read");
        let again = Payload::encode(encoding, &first).expect("what was read can be written");
        let again = again.decode::<Value>().expect("what was written can be read");
        // Not the bytes: in JSON the digits of a number are the same whatever its width, but not from where on it has an exponent.
        assert_eq!(format!("{again:?}"), format!("{first:?}"), "written and read again");
    }
}
