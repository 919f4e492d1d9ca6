//! `#[meshwork::actions]` and `#[derive(MeshError)]`. One trait, both ends: From a trait of `async fn`s the macro makes the responders of each type that
//! implements the trait, and a requester with the methods of the trait for callers.
//!
//! `parse` reads the trait into a model and finds all errors in it; `expand` turns the model into code and cannot fail. Calls are
//! made by the facade: the expansion names items of the facade by their path (`::meshwork::..`), so this crate depends on no other
//! crate of the project. Users find the macro as `meshwork::actions`.

mod expand;
mod mesh_error;
mod parse;

use proc_macro::TokenStream;

/// Makes both ends of a set of actions, the responders and the requester, from one trait.
///
/// ```ignore (meshwork depends on this crate, so it cannot be used here: tests/macros of meshwork has what compiles)
/// use meshwork::prelude::*;
///
/// /// Arithmetic.
/// #[meshwork::actions(prefix = "math")]
/// pub trait Math {
///     /// Adds: the action `math/add`.
///     async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError>;
///
///     /// Multiplies: the action `math/mul`.
///     #[action(name = "mul")]
///     async fn multiply(&self, a: i64, b: i64) -> Result<i64, ActionError>;
///
///     /// The caller's name. The provider fills the `CallContext` in; `who()` of the requester does not take one.
///     async fn who(&self, context: CallContext) -> Result<String, ActionError>;
///
///     /// A body is a default, as in any trait.
///     async fn version(&self) -> Result<String, ActionError> {
///         Ok(String::from("1"))
///     }
/// }
///
/// // One end implements the trait, with plain `async fn`s, and offers it.
/// struct Calculator;
///
/// impl Math for Calculator {
///     async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError> {
///         Ok(a + b)
///     }
///     async fn multiply(&self, a: i64, b: i64) -> Result<i64, ActionError> {
///         Ok(a * b)
///     }
///     async fn who(&self, context: CallContext) -> Result<String, ActionError> {
///         Ok(context.caller().to_owned())
///     }
/// }
///
/// let offers = BranchActor::new("math").respond_all(Calculator.into_responders()).bind(address).await?;
///
/// // The other end calls it through the requester.
/// let math = MathRequester::new(&branch);
/// let sum: i64 = math.add(2, 3).await?;
/// let product: i64 = math.multiply(2, 3).within(Duration::from_secs(1)).await?;
/// ```
///
/// # What is made of the trait
///
/// - **The trait** becomes `Send + Sync + 'static`, since one value answers on every arbiter. The futures of its methods need
///   not be `Send`: each stays on the arbiter that read its request. The methods become plain methods that return a future, and
///   `async fn` implements them.
/// - **`into_responders(self)`** is a method of the trait that turns a value into the `Responders` of all its actions, for
///   `respond_all`.
/// - **The requester** is named after the trait (`Math`, `MathRequester`), has its visibility, and is as cheap to clone as the
///   node in it. `new` takes a `Branch`, a `Master` or a reference to one. Each method returns a `Calling`: await it, or set its
///   deadline with `within`. `MathRequester::ACTIONS` lists the names.
///
/// # Names and arguments
///
/// An action is named after its method, or by `#[action(name = "..")]`; the prefix and a slash come first where
/// `#[meshwork::actions(prefix = "..")]` gives one. The arguments of a method, up to twelve, are a record: its fields are the
/// parameters, by their names. A list fits too, in the order of the parameters, and so does a bare value if there is one parameter: so the
/// argument list of a foreign client fits as it is, and `branch.call("math/add", (2, 3))` does.
///
/// # Types and versions
///
/// Both ends find the signature of a method: a number made of the shapes of its arguments and its reply. Where all known providers have the
/// signature of the caller, arguments and reply travel as bincode with a check; everywhere else as MessagePack with names. Nothing has to
/// be switched on. So the two ends may be of different versions: fields and parameters are told apart by their names, and an argument that
/// is not sent has its default, if it is an `Option` or has the attribute `#[serde(default)]` or `#[serde(default = "path")]` on it, the only one that
/// a parameter may have. An argument that the provider does not know is an error, unless it is `None`.
///
/// The signature costs some microseconds for each type, once, when the method is first offered or called. It reads the type from values that
/// are made up, so a panic in a `Deserialize` of yours shows once, and is caught.
///
/// # What a method must be
///
/// Asynchronous, or a plain `fn` with `#[action(blocking)]`, which may block its thread and runs on a thread apart; with `&self`, without generics, with owned arguments that each have a plain name, and with
/// `Result<T, ActionError>` as its return type, or `Result<T, E>` with an error of your own, which an `ActionError` is made from
/// (`From<E> for ActionError`) and which is made from the error of a call (`From<CallError> for E`), as `#[derive(MeshError)]` does: the
/// requester's method fails with it. Everything else is a compile error at its place, and all errors come at once.
/// Attributes stay on the method of the trait; documentation, `cfg`, `allow` and `deprecated` are copied to the method of the
/// requester.
#[proc_macro_attribute]
pub fn actions(attribute: TokenStream, item: TokenStream) -> TokenStream {
    match parse::parse(attribute.into(), item.into()) {
        Ok(actions) => expand::expand(&actions).into(),
        Err(refused) => expand::expand_refused(refused).into(),
    }
}

/// Makes an enum the error of actions. A responder fails with the enum, and its callers get the enum back.
///
/// ```ignore (meshwork depends on this crate, so it cannot be used here: tests/macros of meshwork has what compiles)
/// use meshwork::prelude::*;
///
/// #[derive(Debug, thiserror::Error, MeshError)]
/// pub enum StockError {
///     /// The code is `OutOfStock`, the data are `{ "sku": .., "left": .. }`.
///     #[error("{left} of {sku} are left")]
///     OutOfStock { sku: String, left: u32 },
///     #[error("the shop is closed")]
///     #[mesh(code = "E_CLOSED")]
///     Closed,
///     /// Its fields stay at the provider: callers get code and message, as a `Call`.
///     #[error("the database: {0}")]
///     #[mesh(opaque)]
///     Database(#[from] std::io::Error),
///     /// All other ways in which a call fails.
///     #[error(transparent)]
///     Call(CallError),
/// }
///
/// #[meshwork::actions(prefix = "stock")]
/// pub trait Stock {
///     async fn take(&self, sku: String, count: u32) -> Result<u32, StockError>;
/// }
///
/// // At the caller:
/// match StockRequester::new(&branch).take("a7".to_owned(), 5).await {
///     Err(StockError::OutOfStock { left, .. }) => println!("only {left} are left"),
///     Err(StockError::Call(error)) if error.fate() == Fate::NotSent => println!("nothing was taken: {error}"),
///     taken => println!("{taken:?}"),
/// }
/// // Without the trait:
/// let taken = branch.call::<u32>("stock/take", ("a7", 5)).failing_as::<StockError>().await;
/// ```
///
/// It writes `From<StockError> for ActionError` and `From<CallError> for StockError`, so `?` works at both ends. The enum needs `Display`,
/// which says the message; thiserror writes it.
///
/// # On the wire
///
/// The name of the error is that of the enum, or the one of `#[mesh(name = "..")]` on it. Each variant has a code: its name, or the text or
/// number of `#[mesh(code = ..)]`. Its fields are the data, and are read and written as serde reads and writes those of a struct: a field may have
/// attributes of serde, such as `#[serde(default)]`. A program of another language finds them beside name, message and code of the error that it
/// catches, and one that throws such an error gives a caller in Rust the variant.
///
/// # One variant for all other errors
///
/// One variant has a `CallError` as its only field: the link was lost, the deadline passed, the action failed in another way. So does
/// an error whose code this version of the enum does not know, or whose data are no longer those of the variant: never is it a wrong variant. A
/// responder that fails with this variant passes the error of a call on as it was.
///
/// A new variant, or a field more with a default, is compatible; a code that changes is not. Errors without fields cost what their texts do.
#[proc_macro_derive(MeshError, attributes(mesh, serde))]
pub fn mesh_error(item: TokenStream) -> TokenStream {
    mesh_error::derive(item.into()).into()
}
