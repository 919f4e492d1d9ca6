//! An enum is the error of actions, and comes back to callers as the enum.

use meshwork::{ActionError, CallError, Code, Fate, MeshError};
use std::fmt;

mod stock {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct Missing {
        pub sku: String,
        pub left: u32,
    }

    /// Fields, variants and types whose names are those of the expansion, of the prelude and of each other.
    #[derive(Debug, MeshError)]
    pub enum TakeError {
        OutOfStock { error: String, message: u32 },
        Missing(Missing),
        Both(Missing, #[serde(default)] Option<u8>),
        #[mesh(code = "E_CLOSED")]
        Closed,
        #[mesh(code = -7)]
        Number(),
        #[mesh(code = 18446744073709551615)]
        Empty {},
        r#None,
        Later {
            #[serde(default = "seven")]
            at: u8,
            #[serde(rename = "type")]
            kind: Option<String>,
        },
        #[mesh(opaque)]
        Disk(std::io::Error),
        #[mesh(opaque, code = "E_CAUSE")]
        Cause { cause: CallError, at: *const u8 },
        Call(meshwork::CallError),
    }

    fn seven() -> u8 {
        7
    }
}

use stock::{Missing, TakeError};

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {self:?}")
    }
}

/// Another enum with a variant of the same code and fields, whose call may be passed on.
#[derive(Debug, MeshError)]
#[mesh(name = "shop.PayError")]
enum PayError {
    Missing(Missing),
    #[mesh(code = "E_CLOSED")]
    Closed,
    #[allow(dead_code)]
    Other { call: CallError },
}

impl fmt::Display for PayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The error, sent and caught again.
fn back<E: From<CallError>>(error: impl Into<ActionError>) -> E {
    let error: ActionError = error.into();
    CallError::from(error).into()
}

fn missing() -> Missing {
    Missing { sku: "a7".to_owned(), left: 3 }
}

fn main() {
    for error in [
        TakeError::OutOfStock { error: "a7".to_owned(), message: 3 },
        TakeError::Missing(missing()),
        TakeError::Both(missing(), Some(1)),
        TakeError::Both(missing(), None),
        TakeError::Closed,
        TakeError::Number(),
        TakeError::Empty {},
        TakeError::r#None,
        TakeError::Later { at: 1, kind: Some("k".to_owned()) },
    ] {
        let shown = format!("{error:?}");
        assert_eq!(format!("{:?}", back::<TakeError>(error)), shown);
    }

    let sent = ActionError::from(TakeError::OutOfStock { error: "a7".to_owned(), message: 3 });
    assert_eq!((sent.name(), sent.code()), ("TakeError", Some(&"OutOfStock".into())));
    assert_eq!(sent.message(), "it is OutOfStock { error: \"a7\", message: 3 }");
    #[derive(serde::Deserialize)]
    struct Fields {
        error: String,
        message: u32,
    }
    let fields: Fields = sent.data_as().unwrap();
    assert_eq!((fields.error.as_str(), fields.message), ("a7", 3));
    assert_eq!(ActionError::from(TakeError::Number()).code(), Some(&(-7).into()));
    assert_eq!(ActionError::from(TakeError::Closed).data(), None);

    // The fields of an opaque variant stay; its code and message do not.
    let disk = ActionError::from(TakeError::Disk(std::io::Error::other("no disk")));
    assert_eq!((disk.code(), disk.data()), (Some(&"Disk".into()), None));
    let TakeError::Call(disk) = back(disk) else { panic!("it is opaque") };
    assert!(disk.message().contains("no disk"));
    let at = std::ptr::null();
    let cause = CallError::new(Code::LINK_LOST, Fate::Unknown, "lost");
    assert_eq!(ActionError::from(TakeError::Cause { cause: cause.clone(), at }).code(), Some(&"E_CAUSE".into()));

    // The error of a call is passed on as it was, but for its fate: the action failed.
    let passed = ActionError::from(TakeError::Call(cause.clone()));
    assert_eq!(passed.as_ref().code(), Code::LINK_LOST);
    assert!(matches!(TakeError::from(cause.clone()), TakeError::Call(call) if call == cause));

    // An error of another enum is never a variant of this one.
    assert!(matches!(back(PayError::Missing(missing())), TakeError::Call(_)));
    assert!(matches!(back(PayError::Closed), TakeError::Call(_)));
    assert!(matches!(back(TakeError::Closed), PayError::Other { .. }));
    let relayed = TakeError::Call(CallError::from(ActionError::from(PayError::Closed)));
    assert!(matches!(back(relayed), PayError::Closed), "but it is one for whoever knows it");

    // Nor is one with a code that it does not know, or with other fields.
    let newer = ActionError::new("TakeError", "new").with_code("Sold");
    assert!(matches!(back(newer), TakeError::Call(error) if error.message() == "new"));
    let other = ActionError::new("TakeError", "new").with_code("OutOfStock").with_data(&["a7"]);
    assert!(matches!(back(other), TakeError::Call(_)));
    let none = ActionError::new("TakeError", "none").with_code("OutOfStock");
    assert!(matches!(back(none), TakeError::Call(_)));
    let unsure = CallError::from(ActionError::from(TakeError::Closed)).with_fate(Fate::Unknown);
    assert!(matches!(TakeError::from(unsure), TakeError::Call(_)));

    // What an earlier version had not has its default; what a newer one has more is left out.
    let earlier = ActionError::new("TakeError", "old").with_code("Later");
    assert!(matches!(back(earlier), TakeError::Later { at: 7, kind: None }));
    let more = ActionError::new("TakeError", "more").with_code("E_CLOSED").with_data(&missing());
    assert!(matches!(back(more), TakeError::Closed));
}
