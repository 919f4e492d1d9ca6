//! The error of a call, looked at by the code that `#[derive(MeshError)]` makes: whether it is one of the enum, and of which variant.

use meshwork_wire::{ApplicationCode, CallError, Code, Encoding, Fate, Payload};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Display;

/// The error of a call, which may be one of an enum.
pub struct OwnError {
    error: CallError,
    /// Whether an action failed with an error of the name of the enum.
    is_own: bool,
}

impl OwnError {
    /// The error of a call, for an enum whose errors have this name.
    #[must_use]
    pub fn new(error: CallError, name: &str) -> Self {
        // The errors of meshwork have codes of their own, and only an action that ran fails with an error of an application.
        let is_own = error.code() == Code::UNKNOWN && error.fate() == Fate::Failed && error.name() == name;
        Self { error, is_own }
    }

    /// Whether the error has the code of a variant.
    pub fn is_of(&self, code: impl Into<ApplicationCode>) -> bool {
        self.is_own && self.error.application_code() == Some(&code.into())
    }

    /// The fields of the variant with this code: none if the error has another code, or its data are not those of the variant.
    pub fn fields_of<T: DeserializeOwned>(&self, code: impl Into<ApplicationCode>) -> Option<T> {
        if !self.is_of(code) {
            return None;
        }
        if let Some(data) = self.error.data() {
            return data.decode().ok();
        }
        // A provider of an earlier version, whose variant has no fields: they have their defaults, if they have some.
        let empty = Payload::encode(Encoding::MessagePack, &BTreeMap::<&str, ()>::new());
        empty.ok().and_then(|empty| empty.decode().ok())
    }

    /// The error of the call.
    #[must_use]
    pub fn into_call_error(self) -> CallError {
        self.error
    }
}

/// The message of an error of one's own: its text for people.
pub fn message_of(error: &impl Display) -> String {
    error.to_string()
}
