//! How a command finds its mesh and binds to it, as a branch of its own.

use crate::failure::Failure;
use crate::input::read_token;
use clap::Args;
use meshwork::{BindBranch, BindError, Branch, BranchActor};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

/// How a command finds its mesh.
#[derive(Args)]
pub(super) struct Mesh {
    /// Where the master listens.
    #[arg(long, value_name = "HOST:PORT", env = "MESHWORK_MASTER", default_value = "127.0.0.1:3010")]
    pub(super) master: String,
    /// A file that holds the token. Without it, MESHWORK_TOKEN is looked at.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// What this process is called in the mesh. A name of its own by default.
    #[arg(long)]
    pub(super) name: Option<String>,
}

impl Mesh {
    /// Binds, as a branch that answers nothing unless `with` gives it actions.
    pub(super) async fn bind(
        &self,
        with: impl FnOnce(BranchActor) -> BranchActor,
    ) -> Result<Branch, Failure> {
        let name = self.name.clone().unwrap_or_else(own_name);
        let mut branch = BranchActor::new(name);
        if let Some(token) = read_token(self.token_file.as_deref())? {
            branch = branch.token(token);
        }
        with(branch).bind(self.master.as_str()).await.map_err(|error| match error {
            BindError::Address(_) | BindError::Name(_) => Failure::Use(error.to_string()),
            BindError::Unreachable { .. } => Failure::Bind(format!(
                "{error}; start one with `meshwork master`, or say where it is with --master"
            )),
            BindError::Refused { ref message, .. } if message.contains("token") => {
                Failure::Bind(format!("{error}; give it with --token-file or MESHWORK_TOKEN"))
            }
            BindError::Refused { .. } => Failure::Bind(error.to_string()),
            BindError::Timeout { .. } | BindError::NoMaster { .. } => {
                Failure::Bind(format!("{error}; say where the master is with --master"))
            }
        })
    }
}

/// A name that no other command has: two of one name would replace each other.
fn own_name() -> String {
    // Process ids repeat: in containers, nearly all are 1. The keys of a hash map are the standard library's random number.
    let random = RandomState::new().hash_one(());
    format!("cli-{}-{random:016x}", std::process::id())
}
