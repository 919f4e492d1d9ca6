//! The addresses that a master listens on, each for one protocol.

use super::identities::ANONYMOUS;
use super::permissions::{LetsIn, Permissions};
use crate::gateway::accept::{GatewayAccept, MakeDialect};
use crate::link::{Accept, Address, TcpAccept};
use actix::Message;
use meshwork_wire::{Allowed, ByteString, Dnode, LentFunctions, LightRpcServer, NodeMeshServer, ResultStyle};
use std::io;

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
}

enum ListenOn {
    Tcp,
    LightRpc,
    Dnode,
    NodeMesh,
    Acceptor(Box<dyn Accept>),
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

    /// Listens by an [`Accept`] of your own, as a simulated network or a wrapper that speaks TLS.
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

    /// The address that is asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.requested
    }

    fn at(requested: Address, on: ListenOn) -> Self {
        let (allowed, identity) = (Allowed::all(), ByteString::from_static(ANONYMOUS));
        Self { requested, on, allowed, identity, results: ResultStyle::default() }
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

    pub(super) async fn open(self) -> io::Result<Box<dyn Accept>> {
        let Self { requested, on, allowed, results, .. } = self;
        let asks_nobody = matches!(on, ListenOn::LightRpc | ListenOn::Dnode);
        let dialect: MakeDialect = match on {
            ListenOn::Acceptor(acceptor) => return Ok(acceptor),
            ListenOn::Tcp => return Ok(Box::new(TcpAccept::bind(&requested).await?)),
            ListenOn::LightRpc => Box::new(move |peer| Box::new(LightRpcServer::new(peer, allowed.clone()))),
            ListenOn::Dnode => {
                let lent = LentFunctions::default();
                Box::new(move |peer| Box::new(Dnode::server(peer, allowed.clone(), results).lending(&lent)))
            }
            ListenOn::NodeMesh => Box::new(move |peer| Box::new(NodeMeshServer::new(peer, allowed.clone()))),
        };
        let accept = Box::new(TcpAccept::bind(&requested).await?);
        let listens = accept.address();
        if asks_nobody && !listens.is_loopback() {
            log::warn!(
                "any program that reaches {listens} may call the actions that this gateway allows: its protocol has no authentication"
            );
        }
        Ok(Box::new(GatewayAccept { accept, dialect }))
    }
}

/// The permissions of a client without an identity.
fn only_calls(allowed: &Allowed) -> Permissions {
    let call = allowed.patterns().map(<[_]>::to_vec);
    Permissions { bind: None, describe: call.clone(), call, ..Permissions::nothing() }
}
