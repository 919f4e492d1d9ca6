//! The flag for headers of what a command sends, and the headers of a request as variables of the environment.

use crate::failure::Failure;
use clap::Args;
use meshwork::Headers;

/// The headers that a command sets.
#[derive(Args)]
pub(super) struct HeaderFlags {
    /// A header, which travels beside the value: given again for each. Names have letters, digits and `-`.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
}

impl HeaderFlags {
    /// The headers, checked.
    pub(super) fn read(&self) -> Result<Headers, Failure> {
        let pairs = self.headers.iter().map(|header| {
            header.split_once('=').ok_or_else(|| {
                Failure::Use(format!("{header:?} is no header: write NAME=VALUE, as in tenant=acme"))
            })
        });
        let mut headers = Headers::none();
        for pair in pairs {
            let (name, value) = pair?;
            if headers.get(name).is_some() {
                return Err(Failure::Use(format!("the header {name:?} is given twice")));
            }
            headers.insert(name, value).map_err(|error| Failure::Use(error.to_string()))?;
        }
        Ok(headers)
    }
}

/// The headers of a request as variables: `x-tenant` is `MESHWORK_HEADER_X_TENANT`. A name has no other characters than those that remain here, and
/// a value none that a variable cannot have; [`meshwork::limits::HEADERS_LEN_MAX`] bounds them all.
pub(super) fn variables(headers: &Headers) -> Vec<(String, String)> {
    let variable = |(name, value): (&str, &str)| {
        let name = name.to_ascii_uppercase().replace('-', "_");
        (format!("MESHWORK_HEADER_{name}"), value.to_owned())
    };
    headers.iter().map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[&str]) -> Result<Headers, String> {
        let flags = HeaderFlags { headers: headers.iter().map(|header| (*header).to_owned()).collect() };
        flags.read().map_err(|failure| match failure {
            Failure::Use(why) => why,
            _ => "it is no wrong use".to_owned(),
        })
    }

    #[test]
    fn headers_are_read_from_flags_and_become_variables() {
        let headers = read(&["x-tenant=acme", "query=a=b", "Empty="]).expect("they are headers");
        let pairs: Vec<_> = headers.iter().collect();
        assert_eq!(pairs, [("empty", ""), ("query", "a=b"), ("x-tenant", "acme")]);
        let variable = |name: &str, value: &str| (format!("MESHWORK_HEADER_{name}"), value.to_owned());
        assert_eq!(
            variables(&headers),
            [variable("EMPTY", ""), variable("QUERY", "a=b"), variable("X_TENANT", "acme")]
        );
        for wrong in [&["tenant"][..], &["a=1", "A=2"], &["a b=1"], &["mesh-key=1"], &["a=1\n2"], &["=1"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
