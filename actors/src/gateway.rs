//! Gateways: links that speak another protocol at their far end. The protocols themselves are the dialects in `meshwork-wire`.

pub(crate) mod accept;
pub mod bridge;
mod dialect_link;
pub(crate) mod dialled;

pub use dialled::Dialect;
