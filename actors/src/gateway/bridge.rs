//! A bridge: an old server of another protocol becomes a branch. Its functions are actions while it is there; when it goes,
//! they go, and the bridge dials again.

use super::dialect_link::DialectLink;
use crate::link::backoff::Backoff;
use crate::link::{Address, AddressError, Dial, Link, Tcp};
use futures::future::BoxFuture;
use meshwork_wire::{
    ByteString, CallError, Dialect, Dnode, LightRpcClient, NameError, NodeMeshClient, ResultStyle,
    check_action, check_node,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Makes the dialect of a bridge for each of its links.
type MakeDialect = dyn Fn(&Bridge) -> Box<dyn Dialect> + Send + Sync;

/// Binds an old server of another protocol to a master, as a branch that offers its functions.
pub struct Bridge {
    server: Address,
    name: ByteString,
    token: Option<ByteString>,
    server_token: Option<ByteString>,
    prefix: String,
    needs_prefix: bool,
    results: ResultStyle,
    dial: Arc<dyn Dial>,
    dialect: Arc<MakeDialect>,
}

/// Why a bridge does not run, or runs no more.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// An address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The name or the prefix cannot be part of a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// One of its two ends refuses it for good: a wrong token, a name that another one has taken over.
    #[error("the bridge is refused: {0}")]
    Refused(CallError),
    /// A server that does not say which actions there are needs a place in the names of ours.
    #[error(
        "this bridge needs a prefix: its server does not say which actions there are, so all under the prefix are asked of it"
    )]
    NoPrefix,
}

/// A link that held this long was well: the next loss starts from the shortest wait.
const WELL_AFTER: Duration = Duration::from_secs(5);

impl Bridge {
    /// To a server that speaks light_rpc, as `nodejs-light_rpc` 0.1 and 0.2 do.
    #[must_use]
    pub fn light_rpc(server: impl Into<Address>) -> Self {
        Self::to(server.into(), "light_rpc", |bridge| {
            Box::new(LightRpcClient::new(bridge.name.clone(), bridge.token.clone(), &bridge.prefix))
        })
    }

    /// To a server that speaks dnode, as the npm package `dnode` 1.2.2 does.
    #[must_use]
    pub fn dnode(server: impl Into<Address>) -> Self {
        Self::to(server.into(), "dnode", |bridge| {
            let (name, token) = (bridge.name.clone(), bridge.token.clone());
            Box::new(Dnode::client(name, token, &bridge.prefix, bridge.results))
        })
    }

    /// To a master that speaks node-mesh, as the npm package `node-mesh` 2.0 does. It does not say which actions there are, so everything
    /// under the [prefix](Self::prefix), which is needed, is asked of it: `legacy/add` of its `add`.
    #[must_use]
    pub fn node_mesh(server: impl Into<Address>) -> Self {
        let bridge = Self::to(server.into(), "node-mesh", |bridge| {
            Box::new(NodeMeshClient::bridge(
                bridge.server.as_str(),
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
        dialect: &str,
        make: impl Fn(&Self) -> Box<dyn Dialect> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: format!("bridge/{dialect}/{server}").into(),
            server,
            token: None,
            server_token: None,
            needs_prefix: false,
            results: ResultStyle::default(),
            prefix: String::new(),
            dial: Arc::new(Tcp),
            dialect: Arc::new(make),
        }
    }

    /// What stands before the names of its functions, and a `/`. Default: nothing.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What the branch is called. Default: the protocol and the address.
    #[must_use]
    pub fn name(mut self, name: impl Into<ByteString>) -> Self {
        self.name = name.into();
        self
    }

    /// What it shows the master.
    #[must_use]
    pub fn token(mut self, token: impl Into<ByteString>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// What a dnode server calls result callbacks with. Default: the result.
    #[must_use]
    pub fn results(mut self, style: ResultStyle) -> Self {
        self.results = style;
        self
    }

    /// What it shows a server that asks for something: the `auth` of node-mesh.
    #[must_use]
    pub fn server_token(mut self, token: impl Into<ByteString>) -> Self {
        self.server_token = Some(token.into());
        self
    }

    /// How it reaches server and master. Default: TCP.
    #[must_use]
    pub fn dial(mut self, dial: impl Dial) -> Self {
        self.dial = Arc::new(dial);
        self
    }

    /// Binds it to this master, again and again, until the master refuses it for good.
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
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            match self.once(&master).await {
                Ok(Some(refused)) => return BridgeError::Refused(refused),
                Ok(None) => log::info!("{}: {} or {master} closed the link", self.name, self.server),
                Err(error) => log::warn!("{}: {error}", self.name),
            }
            if begun.elapsed() >= WELL_AFTER {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Runs until one of the links ends. Gives why the master wants it no more.
    async fn once(&self, master: &Address) -> std::io::Result<Option<CallError>> {
        let reached = |address: &Address, error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("{address} cannot be reached: {error}"))
        };
        let server = self.dial.dial(&self.server).await.map_err(|error| reached(&self.server, error))?;
        let mut ours = self.dial.dial(master).await.map_err(|error| reached(master, error))?;
        let mut theirs = DialectLink::dialled(server, (self.dialect)(self), self.server.to_string());
        let piped = pipe(&mut theirs, &mut ours).await;
        match theirs.refused.take() {
            Some(refused) => Ok(Some(refused)),
            None => piped.map(|()| None),
        }
    }
}

/// Moves bytes both ways until one end has none.
async fn pipe(theirs: &mut DialectLink, ours: &mut Box<dyn Link>) -> std::io::Result<()> {
    // When one end is done, the other one is told, and that ends the whole.
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
