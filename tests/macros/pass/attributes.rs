//! What stands above a trait or a method goes where it belongs: `cfg` to every part of the expansion, `deprecated` and the
//! documentation to both ends.

#![deny(warnings, dead_code, missing_docs)]

use meshwork::ActionError;

/// Some of it is not there.
#[meshwork::actions(prefix = "some/part")]
#[cfg(not(any()))]
pub trait Attributes {
    /// There.
    async fn there(&self) -> Result<(), ActionError>;

    /// Not there.
    #[cfg(any())]
    async fn gone(&self, with: TypeOfThePast) -> Result<TypeOfThePast, ActionError>;

    /// One of two.
    #[cfg(any())]
    async fn either(&self) -> Result<(), ActionError>;

    /// The other of two.
    #[cfg(not(any()))]
    async fn either(&self) -> Result<(), ActionError>;

    /// Still there.
    #[deprecated = "use `there`"]
    async fn old(&self) -> Result<(), ActionError>;

    /// Long, with its lint allowed at both ends.
    #[allow(clippy::too_many_arguments, reason = "as many as there may be")]
    async fn long(
        &self,
        a: u8,
        b: u8,
        c: u8,
        d: u8,
        e: u8,
        f: u8,
        g: u8,
        h: u8,
        i: u8,
        j: u8,
        k: u8,
        l: u8,
    ) -> Result<u8, ActionError>;
}

fn main() {
    let names = ["some/part/there", "some/part/either", "some/part/old", "some/part/long"];
    assert_eq!(AttributesRequester::ACTIONS, names);
}
