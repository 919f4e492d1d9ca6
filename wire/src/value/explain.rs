//! Why a value cannot be written or read: the place in it, and the way out. Looked for when it has failed, by writing or reading it once
//! more with an eye on the path.

use super::any::Value;
use super::bincode_reader::BincodeBytes;
use super::bounded::{BoundedSeed, Bounds};
use super::json_reader::read_json;
use super::json_writer::JsonWriter;
use super::packed_writer::PackedWriter;
use super::sum::SUM_LEN;
use super::told::{Described, ToldValue};
use super::writer::Writer;
use crate::encoding::Encoding;
use crate::limits::{DEPTH_MAX, EMPTY_ELEMENTS_MAX};
use crate::payload::{Callbacks, PayloadRef};
use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer};
use serde_path_to_error as path;

/// The reason for a value whose check is another one.
pub(super) const OTHER_SUM: &str = "its check is another one";

/// Longer values are not read once more: their errors say less, and cost no more.
const EXPLAINED_LEN_MAX: usize = 64 * 1024;

/// The type of a value, and why the value cannot be written or read.
pub(super) struct Explained {
    pub(super) of: &'static str,
    pub(super) reason: String,
}

/// Explains why a value cannot be written.
#[cold]
pub(super) fn write<T: Serialize + ?Sized>(encoding: Encoding, value: &T, reason: String) -> Explained {
    let of = std::any::type_name::<T>();
    let mut track = path::Track::new();
    let told = ToldValue { value, teller: &Described::JSON };
    let explained = match encoding {
        Encoding::Json => {
            let mut writer = JsonWriter::new(std::io::sink());
            told.serialize(path::Serializer::new(&mut writer, &mut track))
                .err()
                .map(|error| error.to_string())
        }
        Encoding::MessagePack | Encoding::CompactMessagePack => {
            let mut writer = Writer::default();
            let written = told.serialize(path::Serializer::new(PackedWriter::new(&mut writer), &mut track));
            // Gives the shared buffer back.
            writer.finish();
            written.err().map(|error| error.to_string())
        }
        Encoding::Bincode | Encoding::PlainBincode => None,
    };
    let place = explained.as_ref().map(|_| track.path().to_string());
    let reason = explained.unwrap_or(reason);
    let way_out = match &*reason {
        reason if reason.contains("key must be") => {
            "give the map keys that have a text, or send a list of pairs"
        }
        // These reasons name their ways out.
        reason if reason.contains("instead") || reason.contains("may be") => "",
        _ => "send another type",
    };
    Explained { of, reason: sentence(place, &reason, way_out) }
}

/// Explains why a value cannot be read.
#[cold]
pub(super) fn read<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8], reason: String) -> Explained {
    let of = std::any::type_name::<T>();
    let found = match encoding {
        _ if bytes.len() > EXPLAINED_LEN_MAX => None,
        Encoding::Json => {
            // A text that is no JSON is none of any type: where the fault stands in the text is all there is to say.
            let bounds = Bounds::new(DEPTH_MAX, bytes.len() + EMPTY_ELEMENTS_MAX);
            let any = BoundedSeed::<std::marker::PhantomData<Value>>::new(&bounds);
            if let Err(reason) = read_json(bytes, any) {
                return Explained { of, reason };
            }
            explain_json::<T>(bytes)
        }
        Encoding::MessagePack | Encoding::CompactMessagePack => {
            // Read as JSON is, since its reader says what it found and what was expected.
            let callbacks = Callbacks::none();
            let payload = PayloadRef { encoding, bytes, callbacks: &callbacks };
            let mut json = Vec::new();
            let value = payload.decode_unexplained::<Value>();
            let written = value.and_then(|value| value.serialize(&mut JsonWriter::new(&mut json)).ok());
            written.and_then(|()| explain_json::<T>(&json))
        }
        Encoding::Bincode => explain_bincode::<T>(&bytes[..bytes.len().saturating_sub(SUM_LEN)]),
        Encoding::PlainBincode => explain_bincode::<T>(bytes),
    };
    let (place, reason) = found.map_or((None, reason), |(place, reason)| (Some(place), reason));
    let way_out = match &*reason {
        OTHER_SUM => {
            "it was written for another signature, or its Serialize and its Deserialize disagree: build both ends with the same \
             types, or call the action by name"
        }
        reason if reason.contains("missing field") => {
            "send it, or give it a default where it is read: an Option, or #[serde(default)]"
        }
        reason if reason.contains("unknown field") => {
            "the sender knows more than the reader: update the reader, or leave the field out"
        }
        reason if reason.contains("unknown variant") => {
            "the sender is of another version: update the reader, or give its enum a variant with #[serde(other)]"
        }
        reason if reason.contains("left over") => {
            "the sender writes more than the reader expects: both need the same type"
        }
        // Any value is a `Value`.
        _ if of == std::any::type_name::<Value>() => "",
        _ if !encoding.is_self_describing() => {
            "build both ends with the same types, or call the action by name"
        }
        _ => "send a value of this type, or read another type",
    };
    Explained { of, reason: sentence(place, &reason, way_out) }
}

/// A seed that notes where in the value an error is met.
struct Tracked<'t, S> {
    inner: S,
    track: &'t mut path::Track,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Tracked<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(path::Deserializer::new(deserializer, self.track))
    }
}

/// Reads JSON once more; gives the place of the error and its reason.
fn explain_json<T: DeserializeOwned>(bytes: &[u8]) -> Option<(String, String)> {
    let mut track = path::Track::new();
    let bounds = Bounds::new(DEPTH_MAX, bytes.len() + EMPTY_ELEMENTS_MAX);
    let inner = BoundedSeed::<std::marker::PhantomData<T>>::new(&bounds);
    let reason = read_json(bytes, Tracked { inner, track: &mut track }).err()?;
    // The line and the column are of a text that nobody sees.
    let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
    Some((track.path().to_string(), reason))
}

/// Reads bincode once more; gives the place of the error and its reason.
fn explain_bincode<T: DeserializeOwned>(bytes: &[u8]) -> Option<(String, String)> {
    let mut track = path::Track::new();
    let mut bincode = BincodeBytes::new(bytes, Described::MESSAGE_PACK);
    let error = T::deserialize(path::Deserializer::new(bincode.reader(), &mut track)).err()?;
    Some((track.path().to_string(), error.to_string()))
}

fn sentence(place: Option<String>, reason: &str, way_out: &str) -> String {
    // The path of the whole value is a dot.
    let at = place.filter(|place| !place.is_empty() && place != ".").map(|place| format!(" at `{place}`"));
    let more = if way_out.is_empty() { String::new() } else { format!("; {way_out}") };
    format!("{reason}{}{more}", at.unwrap_or_default())
}
