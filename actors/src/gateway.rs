//! Gateways: links that speak another protocol at their far end. What is said in which protocol is the business of the dialects in
//! `meshwork-wire`.

pub(crate) mod accept;
pub mod bridge;
mod dialect_link;
pub(crate) mod dialled;

pub use dialled::Dialect;
