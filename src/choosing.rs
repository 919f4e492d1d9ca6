//! What a call asks of its provider besides its name, a key and labels, written into the headers of the call. The master reads them.

use meshwork_wire::{ByteString, CallError, Headers, Label, check_key};
use std::fmt;

/// Sets the key by which the provider is chosen.
pub(crate) fn set_key(headers: &mut Headers, key: impl fmt::Display) -> Result<(), CallError> {
    let key = key.to_string();
    check_key(&key)?;
    Ok(headers.insert_own(Headers::KEY, &key)?)
}

/// Asks for a label besides those that the headers ask for.
pub(crate) fn add_label(
    headers: &mut Headers,
    name: impl Into<ByteString>,
    value: impl Into<ByteString>,
) -> Result<(), CallError> {
    let label = Label::new(name, value)?;
    let labels = match headers.get(Headers::LABEL) {
        None => label.to_string(),
        Some(before) => format!("{before},{label}"),
    };
    Label::read_list(&labels)?;
    Ok(headers.insert_own(Headers::LABEL, &labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::Code;
    use meshwork_wire::limits::{KEY_LEN_MAX, LABELS_MAX};

    #[test]
    fn a_key_is_the_text_of_any_value() {
        let mut headers = Headers::none();
        let customer = "ann".to_owned();
        set_key(&mut headers, &customer).unwrap();
        assert_eq!(headers.get(Headers::KEY), Some("ann"));
        set_key(&mut headers, 17_u64).unwrap();
        assert_eq!(headers.get(Headers::KEY), Some("17"));
    }

    #[test]
    fn a_key_without_a_character_or_with_too_many_is_refused() {
        for key in [String::new(), "k".repeat(KEY_LEN_MAX + 1)] {
            let error = set_key(&mut Headers::none(), &key).unwrap_err();
            assert!(error.code() == Code::BAD_NAME && error.message().contains("255"), "{error}");
        }
        assert!(set_key(&mut Headers::none(), "a\nb").is_err());
    }

    #[test]
    fn labels_are_added_to_those_before_up_to_their_bound() {
        let mut headers = Headers::none();
        add_label(&mut headers, "version", "2").unwrap();
        add_label(&mut headers, "region", "eu").unwrap();
        assert_eq!(headers.get(Headers::LABEL), Some("version=2,region=eu"));
        assert!(add_label(&mut headers, "a,b", "2").is_err());
        for at in 2..LABELS_MAX {
            add_label(&mut headers, format!("n{at}"), "1").unwrap();
        }
        assert!(add_label(&mut headers, "more", "1").is_err());
    }
}
