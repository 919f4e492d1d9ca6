//! `meshwork bridge`: a server of another protocol becomes a branch of the mesh. Also the names of the protocols, which the
//! gateways of `meshwork master` use too.

use crate::failure::{Done, Failure};
use crate::input::{SERVER_TOKEN, TOKEN, read_token};
use crate::mesh::Mesh;
use crate::output::say;
use crate::signals::Signals;
use crate::tls::{Dialled, Reloaded, ServerFlags, hint, reload_at_hangup};
use clap::{Args, ValueEnum};
use meshwork::{Bridge, BridgeError, ResultStyle};
use serde::Deserialize;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Args)]
pub(super) struct Options {
    /// The protocol and the address of the server, as in `light-rpc=127.0.0.1:5555`. Protocols: light-rpc, dnode, node-mesh.
    #[arg(value_name = "PROTOCOL=HOST:PORT")]
    server: Foreign,
    /// The prefix of the actions: with `legacy`, the server's function `add` is the action `legacy/add`. Required for node-mesh, whose
    /// masters do not tell their actions: every call below the prefix goes to the server.
    #[arg(long, default_value = "")]
    prefix: String,
    /// A file with the token for a node-mesh server, its `auth`. Default: the token in MESHWORK_SERVER_TOKEN, if it is set. The token for the
    /// master is never shown to the server.
    #[arg(long, value_name = "FILE")]
    server_token_file: Option<PathBuf>,
    /// The arguments that a dnode server calls result callbacks with.
    #[arg(long, value_enum, default_value = "result")]
    dnode_results: Results,
    #[command(flatten)]
    server_tls: ServerFlags,
    #[command(flatten)]
    mesh: Mesh,
}

/// The address of a program of another protocol.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Foreign {
    pub(super) protocol: Protocol,
    pub(super) address: String,
}

#[derive(Clone, Copy)]
pub(super) enum Protocol {
    LightRpc,
    Dnode,
    NodeMesh,
}

#[derive(Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Results {
    /// `(result)`, and `(null, error)` when the call failed.
    Result,
    /// `(error, result)`, as is usual in Node.js.
    ErrorFirst,
}

impl FromStr for Foreign {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, address) =
            text.split_once('=').ok_or("write PROTOCOL=HOST:PORT, as in light-rpc=127.0.0.1:5555")?;
        let protocol = match protocol {
            "light-rpc" => Protocol::LightRpc,
            "dnode" => Protocol::Dnode,
            "node-mesh" => Protocol::NodeMesh,
            _ => {
                let there_are = "there are light-rpc, dnode and node-mesh";
                return Err(format!("{protocol:?} is none of the protocols: {there_are}"));
            }
        };
        meshwork::Address::from(address).check().map_err(|error| error.to_string())?;
        Ok(Self { protocol, address: address.to_owned() })
    }
}

impl From<Results> for ResultStyle {
    fn from(results: Results) -> Self {
        match results {
            Results::Result => ResultStyle::Result,
            Results::ErrorFirst => ResultStyle::ErrorFirst,
        }
    }
}

pub(super) async fn run(options: Options) -> Done {
    let Options { server, prefix, server_token_file, dnode_results, server_tls, mesh } = options;
    let Foreign { protocol, address } = server;
    let bridge = match protocol {
        Protocol::LightRpc => Bridge::light_rpc(address.as_str()),
        Protocol::Dnode => Bridge::dnode(address.as_str()).results(dnode_results.into()),
        Protocol::NodeMesh => Bridge::node_mesh(address.as_str()),
    };
    let mut bridge = bridge.prefix(prefix);
    if let Some(name) = mesh.name {
        bridge = bridge.name(name);
    }
    if let Some(token) = read_token(server_token_file.as_deref(), SERVER_TOKEN)? {
        bridge = bridge.server_token(token);
    }
    if let Some(token) = read_token(mesh.token_file.as_deref(), TOKEN)? {
        bridge = bridge.token(token);
    }
    let (server_tls, tls) = (server_tls.read(&address)?, mesh.tls.read(&mesh.master)?);
    if let Some(tls) = &server_tls {
        bridge = bridge.server_tls(tls);
    }
    if let Some(tls) = &tls {
        bridge = bridge.tls(tls);
    }
    let mut signals = Signals::new()?;
    reload_at_hangup(server_tls.into_iter().chain(tls).map(Reloaded::Dial).collect())?;
    say(format_args!("bridging {address} to {}", mesh.master));
    tokio::select! {
        error = bridge.run(mesh.master.as_str()) => Err(match error {
            BridgeError::Refused(_) | BridgeError::OtherProtocol { .. } => Failure::Bind(error.to_string()),
            BridgeError::Tls { address: at, fault } => {
                let dialled = if at.as_str() == address { Dialled::Server } else { Dialled::Master };
                let hint = hint(&fault, dialled);
                Failure::Bind(format!("no TLS with {at}: {fault}{hint}"))
            }
            BridgeError::Address(_)
            | BridgeError::Name(_)
            | BridgeError::Token(_)
            | BridgeError::NoPrefix => {
                Failure::Use(error.to_string())
            }
        }),
        () = signals.next() => Ok(()),
    }
}
