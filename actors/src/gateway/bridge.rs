//! A bridge: an old server of another protocol becomes a branch. The functions of the server are actions as long as it is connected; when
//! the link to it ends, the actions go, and the bridge dials again.

use super::dialect_link::{Asks, DialectLink, Fault};
use crate::link::backoff::Backoff;
use crate::link::plain::{Over, secured};
use crate::link::{Address, AddressError, Dial, Link, Tcp, TlsFault};
use crate::log_line;
use crate::repeated::Repeated;
use futures::future::BoxFuture;
use meshwork_wire::{
    ByteString, CallError, Dialect, Dnode, LightRpcClient, NameError, NodeMeshClient, ResultStyle,
    TokenError, check_action, check_node, check_token,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Makes the dialect of a bridge for each of its links.
type MakeDialect = dyn Fn(&Bridge) -> Box<dyn Dialect> + Send + Sync;

/// Binds an old server of another protocol to a master, as a branch that offers the functions of the server.
pub struct Bridge {
    server: Address,
    /// The protocol of the server.
    protocol: &'static str,
    name: ByteString,
    token: Option<ByteString>,
    server_token: Option<ByteString>,
    prefix: String,
    needs_prefix: bool,
    results: ResultStyle,
    dial: Arc<dyn Dial>,
    /// TLS for the link to the master.
    over: Option<Over>,
    /// TLS for the link to the server.
    server_over: Option<Over>,
    dialect: Arc<MakeDialect>,
    /// Drawn by chance: the bridge replaces its own earlier session, whose link is lost.
    incarnation: u64,
}

/// Why a bridge does not run, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// An address is not valid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The name or the prefix is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A token cannot be shown: the one for the master, or the one for the server.
    #[error("a bridge cannot show this token: {0}")]
    Token(#[from] TokenError),
    /// The server or the master refuses the bridge for good: its token is wrong, or another branch has taken its name over.
    #[error("the bridge is refused: {0}")]
    Refused(CallError),
    /// The program that was dialled as the server, or as the master, speaks another protocol: its port is that of something else.
    #[error("what listens at {address} does not speak {protocol}: {reason}")]
    OtherProtocol {
        /// The address of the program.
        address: Address,
        /// The protocol that the program was dialled for.
        protocol: &'static str,
        /// What the program said instead.
        reason: String,
    },
    /// The server or the master is there, and its TLS handshake fails; or its address demands TLS, and none was configured.
    #[error("no TLS with {address}: {fault}")]
    Tls {
        /// The address of the server or the master.
        address: Address,
        /// Why there is no TLS.
        fault: TlsFault,
    },
    /// The bridge needs a prefix, since its server does not say which functions it has.
    #[error(
        "this bridge needs a prefix: its server does not say which actions there are, so all under the prefix are asked of it"
    )]
    NoPrefix,
}

impl Bridge {
    /// A bridge to a server that speaks light_rpc, as `nodejs-light_rpc` 0.1 and 0.2 do.
    #[must_use]
    pub fn light_rpc(server: impl Into<Address>) -> Self {
        Self::to(server.into(), "light_rpc", |bridge| {
            Box::new(LightRpcClient::new(bridge.name.clone(), bridge.token.clone(), &bridge.prefix))
        })
    }

    /// A bridge to a server that speaks dnode, as the npm package `dnode` 1.2.2 does.
    #[must_use]
    pub fn dnode(server: impl Into<Address>) -> Self {
        Self::to(server.into(), "dnode", |bridge| {
            let (name, token) = (bridge.name.clone(), bridge.token.clone());
            Box::new(Dnode::client(name, token, &bridge.prefix, bridge.results))
        })
    }

    /// A bridge to a master that speaks node-mesh, as the npm package `node-mesh` 2.0 does. That master does not say which actions it has, so
    /// the bridge needs a [prefix](Self::prefix), and calls of all actions under the prefix go to it: a call of `legacy/add` to its `add`.
    #[must_use]
    pub fn node_mesh(server: impl Into<Address>) -> Self {
        let bridge = Self::to(server.into(), "node-mesh", |bridge| {
            Box::new(NodeMeshClient::bridge(
                bridge.server.host_and_port(),
                bridge.name.clone(),
                bridge.server_token.clone(),
                bridge.token.clone(),
                bridge.prefix.as_str().into(),
            ))
        });
        Self { needs_prefix: true, ..bridge }
    }

    fn to(
        server: Address,
        protocol: &'static str,
        make: impl Fn(&Self) -> Box<dyn Dialect> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: format!("bridge/{protocol}/{}", server.host_and_port()).into(),
            server,
            protocol,
            token: None,
            server_token: None,
            needs_prefix: false,
            results: ResultStyle::default(),
            prefix: String::new(),
            dial: Arc::new(Tcp),
            over: None,
            server_over: None,
            dialect: Arc::new(make),
            incarnation: fastrand::u64(..),
        }
    }

    /// The prefix of the actions, followed by a `/`, before the names of the functions of the server. Default: none.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The name of the branch. Default: `bridge/`, the protocol, `/` and the address of the server.
    #[must_use]
    pub fn name(mut self, name: impl Into<ByteString>) -> Self {
        self.name = name.into();
        self
    }

    /// The token that the bridge shows the master. Default: none.
    #[must_use]
    pub fn token(mut self, token: impl Into<ByteString>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The arguments that a dnode server calls result callbacks with. Default: the result alone, and `(null, error)` for a call that
    /// failed.
    #[must_use]
    pub fn results(mut self, style: ResultStyle) -> Self {
        self.results = style;
        self
    }

    /// The token that the bridge shows the server, as the `auth` of node-mesh. Default: none.
    #[must_use]
    pub fn server_token(mut self, token: impl Into<ByteString>) -> Self {
        self.server_token = Some(token.into());
        self
    }

    /// How the bridge reaches server and master. Default: TCP.
    #[must_use]
    pub fn dial(mut self, dial: impl Dial) -> Self {
        self.dial = Arc::new(dial);
        self
    }

    /// Speaks TLS to the master: checks its certificate against the CA, and against the host of the address. Default: no TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: &crate::link::DialTls) -> Self {
        let tls = tls.clone();
        self.over = Some(Arc::new(move |dial| tls.over(dial)));
        self
    }

    /// Speaks TLS to the server, which need not trust the CA of the mesh. Default: no TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn server_tls(mut self, tls: &crate::link::DialTls) -> Self {
        let tls = tls.clone();
        self.server_over = Some(Arc::new(move |dial| tls.over(dial)));
        self
    }

    /// Binds the server to this master, again after each lost link, until server or master refuses the bridge for good. It also ends if
    /// one of the two speaks another protocol, or a certificate is not accepted, and the bridge has never been bound.
    pub fn run(self, master: impl Into<Address>) -> BoxFuture<'static, BridgeError> {
        let master = master.into();
        Box::pin(self.bridge(master))
    }

    async fn bridge(self, master: Address) -> BridgeError {
        let checked = [&self.server, &master].into_iter().try_for_each(Address::check);
        if let Err(error) = checked {
            return error.into();
        }
        if self.prefix.is_empty() && self.needs_prefix {
            return BridgeError::NoPrefix;
        }
        let prefix = if self.prefix.is_empty() { Ok(()) } else { check_action(&self.prefix) };
        if let Err(error) = check_node(&self.name).and(prefix) {
            return error.into();
        }
        let mut tokens = [&self.token, &self.server_token].into_iter().flatten();
        if let Err(error) = tokens.try_for_each(|token| check_token(token)) {
            return error.into();
        }
        let (mut backoff, failing, closed) = (Backoff::default(), Repeated::new(), Repeated::news());
        let mut was_bound = false;
        loop {
            let mut bound = None;
            let ended = self.once(&master, &mut bound).await;
            was_bound |= bound.is_some();
            match ended {
                Ok(None) => {
                    let line = closed.info(Instant::now().into_std());
                    log_line!(line, "{}: {} or {master} closed the link", self.name, self.server);
                }
                // A program that has spoken the protocol before speaks it again, whatever came between, and certificates are renewed.
                Ok(Some(error @ (BridgeError::OtherProtocol { .. } | BridgeError::Tls { .. })))
                    if was_bound =>
                {
                    let line = failing.warn(Instant::now().into_std());
                    log_line!(line, "{} waits: {error}", self.name);
                }
                Ok(Some(error)) => return error,
                Err(error) => {
                    let line = failing.warn(Instant::now().into_std());
                    log_line!(line, "{} waits: {error}", self.name);
                }
            }
            // A dial may take long, and is no link that held.
            backoff.lost(bound.map_or(Duration::ZERO, |bound: Instant| bound.elapsed()));
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Dials and runs until one of the two links ends. Gives the error of an end that is for good, and when the bridge was bound.
    async fn once(
        &self,
        master: &Address,
        bound: &mut Option<Instant>,
    ) -> std::io::Result<Option<BridgeError>> {
        let server_dial = secured(Arc::clone(&self.dial), self.server_over.as_ref());
        let master_dial = secured(Arc::clone(&self.dial), self.over.as_ref());
        let mut asks = Asks::Extended(self.incarnation);
        // The server has said something before the master is dialled: so a handshake that fails after that is the master's.
        let mut shaking = &self.server;
        let (mut theirs, piped) = loop {
            let server = match dialled(&*server_dial, &self.server).await? {
                Ok(link) => link,
                Err(error) => return Ok(Some(error)),
            };
            let (dialect, peer) = ((self.dialect)(self), self.server.to_string());
            let mut theirs = DialectLink::bridged(server, dialect, peer, asks);
            // Before the master is dialled, which does not wait long for the bind.
            let mut piped = theirs.hear_first().await;
            if piped.is_ok() && theirs.fault.is_none() && theirs.refused.is_none() {
                let mut ours = match dialled(&*master_dial, master).await? {
                    Ok(link) => link,
                    Err(error) => return Ok(Some(error)),
                };
                shaking = master;
                piped = pipe(&mut theirs, &mut ours).await;
            }
            if !theirs.wants_plain_bind || asks == Asks::Plain {
                break (theirs, piped);
            }
            asks = Asks::Plain;
        };
        *bound = theirs.bound;
        if let Err(error) = &piped
            && let Some(fault) = TlsFault::of(error)
        {
            return Ok(Some(BridgeError::Tls { address: shaking.clone(), fault: fault.clone() }));
        }
        if let Some(refused) = theirs.refused.take() {
            let by = if theirs.refused_by_far { &self.server } else { master };
            let (name, what) = (refused.name().to_owned(), format!("{by} says: {}", refused.message()));
            return Ok(Some(BridgeError::Refused(CallError::named(
                refused.code(),
                refused.fate(),
                name,
                what,
            ))));
        }
        let other = |address: &Address, protocol, reason| {
            Ok(Some(BridgeError::OtherProtocol { address: address.clone(), protocol, reason }))
        };
        match theirs.fault.take() {
            Some(Fault::FarSpeaksOther(reason)) => other(&self.server, self.protocol, reason),
            Some(Fault::NearSpeaksOther(reason)) => other(master, "the native protocol of meshwork", reason),
            Some(Fault::FarIsSilent(what)) if bound.is_none() => {
                let what = format!("{}: {what}; does it speak {}?", self.server, self.protocol);
                Err(std::io::Error::other(what))
            }
            Some(Fault::NearIsSilent(what)) => {
                Err(std::io::Error::other(format!("{master}: {what}; is it a meshwork master?")))
            }
            Some(Fault::Closed(what)) if bound.is_none() => Err(std::io::Error::other(what)),
            _ if bound.is_none() && piped.is_ok() => Err(std::io::Error::other(format!(
                "{master} closed the connection before the bridge was bound"
            ))),
            _ => piped.map(|()| None),
        }
    }
}

/// Dials; gives the link, or the error of a TLS handshake that failed.
async fn dialled(dial: &dyn Dial, address: &Address) -> std::io::Result<Result<Box<dyn Link>, BridgeError>> {
    let error = match dial.dial(address).await {
        Ok(link) => return Ok(Ok(link)),
        Err(error) => error,
    };
    match TlsFault::of(&error) {
        Some(fault) => Ok(Err(BridgeError::Tls { address: address.clone(), fault: fault.clone() })),
        None => Err(std::io::Error::new(error.kind(), format!("{address} cannot be reached: {error}"))),
    }
}

/// Moves bytes both ways until one end has none.
async fn pipe(theirs: &mut DialectLink, ours: &mut Box<dyn Link>) -> std::io::Result<()> {
    // When one link ends, the other link is shut down, and that ends the copy.
    tokio::io::copy_bidirectional(theirs, ours).await.map(drop)
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token must not find its way into a log.
        f.debug_struct("Bridge")
            .field("server", &self.server)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
