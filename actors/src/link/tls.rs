//! TLS over links: certificates and keys from files, read again while links stand; the handshake at either end; and the byte stream
//! behind it. Everything above sees links as over plain TCP.

mod accepted;
mod dial;
mod explain;
mod listen;
mod pem;
mod stream;
mod subject;

pub use dial::DialTls;
pub use listen::ListenTls;
pub use pem::{Pem, TlsError};
