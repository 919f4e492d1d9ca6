//! The address of a master.

use std::net::SocketAddr;
use std::{fmt, sync::Arc};

/// The address that a master listens on: `host:port`. In front of it, `tls://` demands TLS, and `tcp://` demands plain TCP; without
/// either, the certificates that are given or not given decide.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address(Arc<str>);

/// A text is no address. The message gives examples of addresses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no address: write HOST:PORT, as in 127.0.0.1:3010 or [::1]:3010, or tls://HOST:PORT")]
pub struct AddressError(String);

/// Whether an address demands TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// The address says nothing.
    Unsaid,
    /// The address begins with `tcp://`: it is spoken to without TLS.
    Plain,
    /// The address begins with `tls://`: nothing is said to it without TLS.
    Tls,
}

impl Address {
    /// The text of the address, as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the address demands TLS.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.parts().0
    }

    /// The address without `tls://` or `tcp://` in front of it.
    #[must_use]
    pub fn host_and_port(&self) -> &str {
        self.parts().1
    }

    /// The host of the address; an address of IPv6 is without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.host_and_port().rsplit_once(':').map_or(self.host_and_port(), |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The address without `tls://` or `tcp://` in front of it, for a [`Dial`](super::Dial).
    pub(crate) fn bare(&self) -> Self {
        match self.parts() {
            (Transport::Unsaid, _) => self.clone(),
            (_, host_and_port) => host_and_port.into(),
        }
    }

    fn parts(&self) -> (Transport, &str) {
        if let Some(rest) = self.0.strip_prefix("tls://") {
            (Transport::Tls, rest)
        } else if let Some(rest) = self.0.strip_prefix("tcp://") {
            (Transport::Plain, rest)
        } else {
            (Transport::Unsaid, &self.0)
        }
    }

    /// Whether only this machine reaches the address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host_and_port = self.host_and_port();
        match host_and_port.parse::<SocketAddr>() {
            Ok(address) => address.ip().is_loopback(),
            Err(_) => host_and_port.starts_with("localhost:"),
        }
    }

    /// Checks that the address is a host and a port. Whether the host exists shows when it is dialled.
    ///
    /// # Errors
    ///
    /// When the address is not of the form `host:port`, `tls://host:port` or `tcp://host:port`.
    pub fn check(&self) -> Result<(), AddressError> {
        let wrong = || AddressError(self.0.to_string());
        let (host, port) = self.host_and_port().rsplit_once(':').ok_or_else(wrong)?;
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
        for good in [
            "127.0.0.1:3010",
            "[::1]:3010",
            "localhost:0",
            "mesh.example:65535",
            "tls://a:1",
            "tcp://[::1]:1",
        ] {
            assert_eq!(Address::from(good).check(), Ok(()), "{good}");
        }
        for bad in [
            "",
            "localhost",
            ":3010",
            "::1:3010",
            "localhost:",
            "localhost:99999",
            "udp://a:1",
            "tls://a",
            "tls://tls://a:1",
            "a b:1",
        ] {
            assert!(Address::from(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_may_demand_tls_or_plain_tcp() {
        for (text, transport, host_and_port, host) in [
            ("tls://[::1]:3010", Transport::Tls, "[::1]:3010", "::1"),
            ("tcp://127.0.0.1:3010", Transport::Plain, "127.0.0.1:3010", "127.0.0.1"),
            ("mesh.example:3010", Transport::Unsaid, "mesh.example:3010", "mesh.example"),
        ] {
            let address = Address::from(text);
            assert_eq!(address.transport(), transport);
            assert_eq!((address.host_and_port(), address.host()), (host_and_port, host));
            assert_eq!(address.bare().as_str(), host_and_port);
        }
        assert!(
            Address::from("tls://127.0.0.1:1").is_loopback()
                && Address::from("tcp://localhost:1").is_loopback()
        );
    }
}
