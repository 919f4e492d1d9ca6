//! `meshwork bridge`: an old server of another protocol becomes a branch of the mesh.

use super::{Done, Failure, Mesh, Signals, read_token, say};
use clap::Args;
use meshwork::{Bridge, BridgeError};
use std::str::FromStr;

#[derive(Args)]
pub(super) struct Options {
    /// What it speaks and where it is, as in `light-rpc=127.0.0.1:5555`.
    #[arg(value_name = "PROTOCOL=HOST:PORT")]
    server: Server,
    /// What stands before the names of its functions: `legacy` makes `add` the action `legacy/add`.
    #[arg(long, default_value = "")]
    prefix: String,
    #[command(flatten)]
    mesh: Mesh,
}

/// An old server.
#[derive(Clone)]
struct Server {
    address: String,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("light-rpc", address)) => {
                meshwork::Address::from(address).check().map_err(|error| error.to_string())?;
                Ok(Self { address: address.to_owned() })
            }
            Some((protocol, _)) => {
                Err(format!("{protocol:?} is no protocol that a bridge speaks: there is light-rpc"))
            }
            None => Err("write PROTOCOL=HOST:PORT, as in light-rpc=127.0.0.1:5555".to_owned()),
        }
    }
}

pub(super) async fn run(options: Options) -> Done {
    let Options { server, prefix, mesh } = options;
    let mut bridge = Bridge::light_rpc(server.address.as_str()).prefix(prefix);
    if let Some(name) = mesh.name {
        bridge = bridge.name(name);
    }
    if let Some(token) = read_token(mesh.token_file.as_deref())? {
        bridge = bridge.token(token);
    }
    let mut signals = Signals::new()?;
    say(format_args!("bridging {} to {}", server.address, mesh.master));
    tokio::select! {
        error = bridge.run(mesh.master) => Err(match error {
            BridgeError::Refused(_) => Failure::Bind(error.to_string()),
            BridgeError::Address(_) | BridgeError::Name(_) => Failure::Use(error.to_string()),
        }),
        () = signals.next() => Ok(()),
    }
}
