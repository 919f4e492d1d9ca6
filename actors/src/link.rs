//! The link between two nodes: a byte stream, how it is opened, its bounded outbox, and the functions that are lent and borrowed over it.
//! The actors know nothing of TCP: they are handed a [`Dial`] or an [`Accept`], so a simulated network is as good.

mod address;
pub(crate) mod backoff;
pub(crate) mod borrowed;
pub(crate) mod codec;
mod dial;
pub(crate) mod gathered;
pub(crate) mod lanes;
pub(crate) mod lent;
pub(crate) mod outbox;
pub(crate) mod refusal;
mod tcp;
pub(crate) mod writer;

pub use address::{Address, AddressError};
pub use dial::{Accept, Dial, Link};
pub use tcp::{Tcp, TcpAccept};
