//! The address of a master.

use std::net::SocketAddr;
use std::{fmt, sync::Arc};

/// The address that a master listens on: `host:port`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address(Arc<str>);

/// A text is no address. The message gives examples of addresses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no address: write HOST:PORT, as in 127.0.0.1:3010 or [::1]:3010")]
pub struct AddressError(String);

impl Address {
    /// The text of the address, as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only this machine reaches the address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.0.parse::<SocketAddr>() {
            Ok(address) => address.ip().is_loopback(),
            Err(_) => self.0.starts_with("localhost:"),
        }
    }

    /// Checks that the address is a host and a port. Whether the host exists shows when it is dialled.
    ///
    /// # Errors
    ///
    /// When the address is not of the form `host:port`.
    pub fn check(&self) -> Result<(), AddressError> {
        let wrong = || AddressError(self.0.to_string());
        let (host, port) = self.0.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let host_is_good = !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && (bracketed || !host.contains(':'));
        if host_is_good && port.parse::<u16>().is_ok() { Ok(()) } else { Err(wrong()) }
    }
}

impl From<&str> for Address {
    fn from(address: &str) -> Self {
        Self(address.into())
    }
}

impl From<String> for Address {
    fn from(address: String) -> Self {
        Self(address.into())
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:3010", "[::1]:3010", "localhost:0", "mesh.example:65535"] {
            assert_eq!(Address::from(good).check(), Ok(()), "{good}");
        }
        for bad in
            ["", "localhost", ":3010", "::1:3010", "localhost:", "localhost:99999", "tcp://a:1", "a b:1"]
        {
            assert!(Address::from(bad).check().is_err(), "{bad}");
        }
    }
}
