//! The link between two nodes: a byte stream, how it is opened, its bounded outbox, and the functions that are lent and borrowed over it.
//! The actors know nothing of TCP: they are handed a [`Dial`] or an [`Accept`], so a simulated network is as good. TLS stands between
//! them and the bytes (`tls.rs`).

mod address;
pub(crate) mod backoff;
pub(crate) mod borrowed;
pub(crate) mod codec;
mod dial;
pub(crate) mod door;
pub(crate) mod fault;
pub(crate) mod gathered;
pub(crate) mod lanes;
pub(crate) mod lent;
pub(crate) mod outbox;
pub(crate) mod places;
pub(crate) mod plain;
pub(crate) mod pulse;
pub(crate) mod refusal;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
pub(crate) mod writer;

pub use address::{Address, AddressError, Transport};
#[doc(hidden)]
pub use backoff::Backoff;
pub use dial::{Accept, Accepted, Certificate, Dial, Handshake, Link};
pub use fault::TlsFault;
pub(crate) use tcp::are_descriptors_gone;
pub use tcp::{Tcp, TcpAccept};
#[cfg(feature = "tls")]
pub use tls::{DialTls, ListenTls, Pem, TlsError};
