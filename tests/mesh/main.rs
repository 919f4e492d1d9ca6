//! The promises of a mesh, through the public API: one binary, one file for each subject. A mesh is started in one place, here; a link
//! that can be cut or silenced stands in `cut.rs`.

mod actors;
mod binding;
mod blocking;
mod callbacks;
mod calls;
mod context;
mod cut;
mod dialects;
mod dnode;
mod doors;
#[cfg(feature = "tower")]
mod doubles;
mod drains;
mod durations;
mod ends;
mod events;
mod failing;
mod handlers;
mod headers;
mod hops;
mod in_flight;
mod last_values;
mod leaving;
mod light_rpc;
mod links;
mod liveness;
mod names;
mod node_mesh;
mod own_errors;
#[cfg(feature = "tower")]
mod passing;
mod permissions;
mod plain;
mod providers;
mod raw;
mod relays;
mod restarting;
mod shares;
mod spread;
mod storm;
mod streams;
mod tls;
#[cfg(feature = "tower")]
mod tower;
mod values;
mod versions;
mod waiting;

use meshwork::Address;
use meshwork::prelude::*;
use std::future::Future;
use std::process::Stdio;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A master that listens on a free port.
pub(crate) struct Mesh {
    pub(crate) master: Master,
    pub(crate) address: Address,
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        Self::of(MasterActor::new("master")).await
    }

    pub(crate) async fn of(master: MasterActor) -> Self {
        let actor = master.start();
        let address = actor.send(Listen::tcp("127.0.0.1:0")).await.expect("it runs").expect("it listens");
        Self { master: Master::from(actor), address }
    }

    /// A branch that answers nothing.
    pub(crate) async fn branch(&self, name: &'static str) -> Branch {
        self.bind(BranchActor::new(name)).await
    }

    pub(crate) async fn bind(&self, branch: BranchActor) -> Branch {
        branch.bind(&self.address).await.expect("it binds")
    }
}

/// A handler that puts its events into a channel, and the channel.
pub(crate) fn ear<T: Send + 'static>()
-> (impl Fn(Event<T>) + Clone + Send + Sync, mpsc::UnboundedReceiver<(String, T)>) {
    let (heard, events) = mpsc::unbounded_channel();
    let handler = move |event: Event<T>| {
        // The test may have dropped the receiver.
        let _ = heard.send((event.topic.to_string(), event.value));
    };
    (handler, events)
}

/// Fails if the future takes longer than any wait of a test should.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it happens soon")
}

/// Waits until the node knows another node of this name, or no longer knows one.
pub(crate) async fn until_known(node: &Node, name: &'static str, known: bool) {
    let (changed, mut changes) = mpsc::unbounded_channel();
    let watch = move |_: &meshwork::Change| {
        let _ = changed.send(());
    };
    node.on_change(watch).await.expect("it runs");
    soon(async {
        while node.nodes().await.expect("it runs").iter().any(|other| other.node == name) != known {
            changes.recv().await;
        }
    })
    .await;
}

/// Waits until a request is in flight in the mesh.
pub(crate) async fn until_asked(master: &Master) {
    soon(async {
        let sessions = || async { master.snapshot().await.expect("it runs").sessions };
        while sessions().await.iter().all(|session| session.in_flight == 0) {}
    })
    .await;
}

/// A script of `tests/node`, whose packages `cargo xtask test` installs.
pub(crate) fn node(script: &str, arguments: &[&str]) -> Child {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node");
    assert!(
        std::path::Path::new(folder).join("node_modules/dnode").is_dir(),
        "run `npm ci` in {folder}, or `cargo xtask test`, which does",
    );
    let mut command = Command::new("node");
    command.arg(script).args(arguments).current_dir(folder).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Node.js is installed")
}

/// Stops the actor that gets it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// Sends a message when it is dropped.
pub(crate) struct OnDrop(pub(crate) Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            let _ = told.send(());
        }
    }
}
