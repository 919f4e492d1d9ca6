//! Names that the expansion uses itself, or that other traits have, are free for users; so are `Result` and `Send`.

#![deny(warnings, dead_code, missing_docs)]
#![expect(missing_debug_implementations, reason = "the names below are not about that")]

/// A name of the user's that is also the standard library's.
pub struct Send;

/// The user's own method of the same name as an action's.
pub trait Other {
    /// Not an action.
    fn add(&self) {}
}

mod api {
    use meshwork::ActionError as Error;
    use meshwork::{ActionError, CallContext};

    /// The user's own, which the expansion does not take for the other one.
    pub type Result<T> = core::result::Result<T, Error>;

    /// It is used.
    pub fn nothing() -> Result<()> {
        Ok(())
    }

    /// Without a prefix. What it requires it may use.
    #[meshwork::actions()]
    pub trait Names: super::Other + Clone + core::marker::Send {
        /// The variables of the expansion.
        async fn this(
            &self,
            this: u8,
            responders: u8,
            context: u8,
            node: u8,
            given: CallContext,
        ) -> core::result::Result<u8, ActionError>;

        /// A method of `Arc`.
        async fn clone(&self) -> core::result::Result<(), ActionError>;

        /// A method of the node and of the responders.
        async fn call(&self, call: String) -> core::result::Result<String, meshwork::ActionError>;

        /// The other one.
        async fn respond(&self, r#type: Vec<[u8; 2]>) -> core::result::Result<Option<String>, ActionError>;

        /// A keyword.
        async fn r#move(&self, r#in: std::borrow::Cow<'static, str>)
        -> core::result::Result<(), ActionError>;

        /// An action with the name of the requester's `new`.
        #[action(name = "new")]
        async fn create(&self) -> core::result::Result<(), ActionError>;

        /// Another trait of the type has it, too.
        async fn add(&self) -> core::result::Result<(), ActionError>;
    }
}

fn main() {
    assert!(api::nothing().is_ok());
    assert_eq!(api::NamesRequester::ACTIONS, ["this", "clone", "call", "respond", "move", "new", "add"]);
}
