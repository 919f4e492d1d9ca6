//! The addresses that a master listens on, each for one protocol.

use super::identities::ANONYMOUS;
use super::permissions::{LetsIn, Permissions};
use crate::gateway::accept::{MakeDialect, accepted};
use crate::link::door::Place;
use crate::link::places::Via;
use crate::link::{Accept, Accepted, Address, TcpAccept, Transport};
use crate::log_line;
use crate::repeated::Line;
use actix::Message;
use bytes::BytesMut;
use log::Level;
use meshwork_wire::{
    Allowed, ByteString, Code, Dnode, Frame, LentFunctions, LightRpcServer, NodeMeshServer, Refused,
    ResultStyle,
};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Accepts connections at an address from now on. Sent by your code, once for each address; answered with the address that is listened on,
/// with its port if port 0 was asked for.
#[derive(Message)]
#[rtype(result = "Result<Address, ListenError>")]
pub struct Listen {
    pub(super) requested: Address,
    on: ListenOn,
    allowed: Allowed,
    identity: ByteString,
    results: ResultStyle,
    secure: Option<Secure>,
}

type OverAccept = Box<dyn FnOnce(Box<dyn Accept>) -> Box<dyn Accept> + Send>;

/// TLS for a listener.
struct Secure {
    /// Puts TLS over the links that a listener accepts: a function, since a master that is built without TLS has no type for it.
    over: OverAccept,
    /// Whether clients must show a certificate.
    is_mutual: bool,
}

enum ListenOn {
    Tcp,
    LightRpc,
    Dnode,
    NodeMesh,
    Acceptor(Box<dyn Accept>),
}

/// An address that is listened on, and the dialect of its connections if they speak another protocol.
pub(super) struct Listening {
    pub(super) accept: Box<dyn Accept>,
    dialect: Option<MakeDialect>,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// The address that was asked for.
    pub address: Address,
    /// The error of the operating system.
    pub source: io::Error,
}

impl Listen {
    /// Listens on a TCP address, as `host:port`; port 0 takes a free port.
    #[must_use]
    pub fn tcp(address: impl Into<Address>) -> Self {
        Self::at(address.into(), ListenOn::Tcp)
    }

    /// Listens on a TCP address for clients that speak light_rpc, as `nodejs-light_rpc` 0.1 and 0.2 do: the clients see the actions of
    /// the mesh as functions. The protocol has no authentication, so any program that reaches the address may call the
    /// [allowed](Self::allow) actions, whatever token branches need.
    #[must_use]
    pub fn light_rpc(address: impl Into<Address>) -> Self {
        Self::at(address.into(), ListenOn::LightRpc)
    }

    /// Listens on a TCP address for clients that speak dnode, as the npm package `dnode` 1.2.2 does: a client sees the actions that there
    /// are when it connects as functions, and may pass functions itself. The [style](Self::results) says which arguments its result
    /// callbacks are called with. The protocol has no authentication, so any program that reaches the address may call the
    /// [allowed](Self::allow) actions, whatever token branches need.
    #[must_use]
    pub fn dnode(address: impl Into<Address>) -> Self {
        Self::at(address.into(), ListenOn::Dnode)
    }

    /// Listens on a TCP address for branches that speak node-mesh, as the npm package `node-mesh` 2.0 does. Each is a branch of the mesh:
    /// its bind and its credentials are checked as those of any branch. As in node-mesh, a branch replaces the branch that has its name.
    #[must_use]
    pub fn node_mesh(address: impl Into<Address>) -> Self {
        Self::at(address.into(), ListenOn::NodeMesh)
    }

    /// Listens by an [`Accept`] of your own, such as a simulated network.
    #[must_use]
    pub fn on(acceptor: impl Accept) -> Self {
        Self::at(acceptor.address(), ListenOn::Acceptor(Box::new(acceptor)))
    }

    /// The actions that clients of a foreign protocol may see and call. Default: all. A branch of meshwork has [`Permissions`] instead.
    #[must_use]
    pub fn allow(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    /// The identity of all clients of light_rpc or dnode, where the master has [`Identities`](super::Identities): they may do what this identity
    /// may, as far as [`allow`](Self::allow) lets them. Default: `anonymous`. Without such an identity no client is let in.
    #[must_use]
    pub fn identity(mut self, name: impl Into<ByteString>) -> Self {
        self.identity = name.into();
        self
    }

    /// The arguments that the result callbacks of dnode clients are called with. Default: the result alone.
    #[must_use]
    pub fn results(mut self, style: ResultStyle) -> Self {
        self.results = style;
        self
    }

    /// Speaks TLS, and nothing but TLS, to the clients of this listener. Default: no TLS; then an address that begins with `tls://` is not
    /// listened on.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: &crate::link::ListenTls) -> Self {
        let (is_mutual, tls) = (tls.is_mutual(), tls.clone());
        self.secure = Some(Secure { over: Box::new(move |accept| tls.over(accept)), is_mutual });
        self
    }

    /// The address that is asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.requested
    }

    fn at(requested: Address, on: ListenOn) -> Self {
        let (allowed, identity) = (Allowed::all(), ByteString::from_static(ANONYMOUS));
        Self { requested, on, allowed, identity, results: ResultStyle::default(), secure: None }
    }

    /// How this listener lets its clients in.
    pub(super) fn lets_in(&self) -> LetsIn {
        match self.on {
            ListenOn::LightRpc | ListenOn::Dnode => {
                let permissions = only_calls(&self.allowed);
                LetsIn::Everyone { permissions, identity: self.identity.clone() }
            }
            ListenOn::NodeMesh => LetsIn::CheckedAndReplacing,
            ListenOn::Tcp | ListenOn::Acceptor(_) => LetsIn::Checked,
        }
    }

    /// Opens the listener. `checks_binds` says whether the master checks who binds: it warns of a listener where anyone may.
    pub(super) async fn open(self, checks_binds: bool) -> io::Result<Listening> {
        let Self { requested, on, allowed, results, secure, .. } = self;
        check_transport(&requested, secure.is_some())?;
        let (is_tls, is_mutual) = (secure.is_some(), secure.as_ref().is_some_and(|secure| secure.is_mutual));
        let secured = |accept: Box<dyn Accept>| match secure {
            Some(secure) => (secure.over)(accept),
            None => accept,
        };
        let asks_nobody = matches!(on, ListenOn::LightRpc | ListenOn::Dnode);
        let dialect: Option<MakeDialect> = match on {
            ListenOn::Acceptor(acceptor) => {
                return Ok(Listening { accept: secured(acceptor), dialect: None });
            }
            ListenOn::Tcp => None,
            ListenOn::LightRpc => {
                Some(Box::new(move |peer| Box::new(LightRpcServer::new(peer, allowed.clone()))))
            }
            ListenOn::Dnode => {
                let lent = LentFunctions::default();
                let server = move |peer: &str| Dnode::server(peer, allowed.clone(), results).lending(&lent);
                Some(Box::new(move |peer| Box::new(server(peer))))
            }
            ListenOn::NodeMesh => {
                Some(Box::new(move |peer| Box::new(NodeMeshServer::new(peer, allowed.clone()))))
            }
        };
        let accept = secured(Box::new(TcpAccept::bind(&requested).await?));
        let listens = accept.address();
        if !listens.is_loopback() && !is_mutual {
            if asks_nobody {
                log_line!(
                    Line::own(Level::Warn),
                    "any program that reaches {listens} may call the actions that this gateway allows: its protocol has no authentication"
                );
            } else if !checks_binds {
                log_line!(
                    Line::own(Level::Warn),
                    "any program that reaches {listens} may bind: {}",
                    missing(is_tls)
                );
            }
        }
        Ok(Listening { accept, dialect })
    }
}

impl Listening {
    pub(super) fn via(&self) -> Via {
        if self.dialect.is_some() { Via::Gateway } else { Via::Native }
    }

    /// A connection that was accepted, as a link that carries frames. A program of another protocol has so long to say its first message.
    pub(super) fn speak(&self, connection: Accepted, place: &Arc<Place>, first_within: Duration) -> Accepted {
        match &self.dialect {
            Some(dialect) => {
                let dialect = dialect(&connection.peer);
                accepted(connection, dialect, place, first_within)
            }
            None => connection,
        }
    }

    /// The bytes that tell a connection why there is no place for it. Other protocols have no words for it.
    pub(super) fn parting_words(&self, reason: &str) -> BytesMut {
        let mut words = BytesMut::new();
        if self.dialect.is_none() {
            let message = format!("{reason}; try again later").into();
            Frame::Refused(Refused { code: Code::OVERLOADED, message, may_return: true }).encode(&mut words);
        }
        words
    }
}

/// What would keep strangers out of a listener.
fn missing(is_tls: bool) -> &'static str {
    match is_tls {
        true => "the master needs a token, or a CA that signs the certificates of branches",
        false => {
            "the master needs a token, or a CA that signs the certificates of branches, and speaks without TLS"
        }
    }
}

/// Refuses an address that demands TLS and has none, and the other way round.
fn check_transport(address: &Address, is_tls: bool) -> io::Result<()> {
    let what = match (address.transport(), is_tls) {
        (Transport::Tls, false) => {
            "the address asks for TLS, and no certificate is given for it: name one, with its key"
        }
        (Transport::Plain, true) => {
            "the address begins with tcp://, which asks for no TLS, and a certificate is given for it"
        }
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// The permissions of a client without an identity.
fn only_calls(allowed: &Allowed) -> Permissions {
    let call = allowed.patterns().map(<[_]>::to_vec);
    Permissions { bind: None, describe: call.clone(), call, ..Permissions::nothing() }
}
