//! The flags that say where the master is, and the bind of a command as a branch of its own.

use crate::failure::Failure;
use crate::input::{TOKEN, read_token};
use crate::tls::{DialFlags, Dialled, Reloaded, hint, reload_at_hangup};
use clap::Args;
use meshwork::{BindBranch, BindError, Branch, BranchActor, Code, DialTls};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

/// The flags of all commands that bind to a master.
#[derive(Args)]
pub(super) struct Mesh {
    /// The address of the master.
    #[arg(long, value_name = "HOST:PORT", env = "MESHWORK_MASTER", default_value = "127.0.0.1:3010")]
    pub(super) master: String,
    /// A file with the token for the master. Default: the token in MESHWORK_TOKEN, if it is set.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) tls: DialFlags,
    /// The name of this process in the mesh. Default: a random name.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Takes the name over from the branch that has it, which ends. Without this, a name that is taken is refused.
    #[arg(long, requires = "name")]
    pub(super) replace: bool,
}

impl Mesh {
    /// Binds as [`Mesh::bind`] does, as soon as the master is up; the log says why the command waits. For commands that run until they are
    /// asked to end, which read their certificates again at SIGHUP.
    pub(super) async fn bind_when_up(
        &self,
        with: impl FnOnce(BranchActor) -> BranchActor,
    ) -> Result<Branch, Failure> {
        let tls = self.tls.read(&self.master)?;
        reload_at_hangup(tls.clone().map(Reloaded::Dial).into_iter().collect())?;
        self.bind_over(tls, |branch| with(branch.wait_for_master(Duration::MAX))).await
    }

    /// Binds, as a branch that answers nothing unless `with` gives it actions.
    pub(super) async fn bind(
        &self,
        with: impl FnOnce(BranchActor) -> BranchActor,
    ) -> Result<Branch, Failure> {
        self.bind_over(self.tls.read(&self.master)?, with).await
    }

    async fn bind_over(
        &self,
        tls: Option<DialTls>,
        with: impl FnOnce(BranchActor) -> BranchActor,
    ) -> Result<Branch, Failure> {
        let name = self.name.clone().unwrap_or_else(own_name);
        let mut branch = BranchActor::new(name);
        if self.replace {
            branch = branch.replace();
        }
        if let Some(token) = read_token(self.token_file.as_deref(), TOKEN)? {
            branch = branch.token(token);
        }
        if let Some(tls) = tls {
            branch = branch.tls(&tls);
        }
        with(branch).bind(self.master.as_str()).await.map_err(|error| match error {
            BindError::Address(_) | BindError::Name(_) | BindError::Token(_) => {
                Failure::Use(error.to_string())
            }
            BindError::Unreachable { .. } => Failure::Bind(format!(
                "{error}; start one with `meshwork master`, or say where it is with --master"
            )),
            BindError::Refused { ref message, .. } if message.contains("token") => {
                Failure::Bind(format!("{error}; give it with --token-file or MESHWORK_TOKEN"))
            }
            BindError::Refused { code: Code::NOT_PERMITTED, ref message, .. }
                if message.contains("bind under") =>
            {
                Failure::Bind(format!("{error}; bind under such a name with --name"))
            }
            BindError::Refused { ref message, .. } if message.contains("already") => {
                Failure::Bind(format!("{error}; with --replace it ends, and this process takes its name"))
            }
            BindError::Tls { ref fault, .. } => {
                Failure::Bind(format!("{error}{}", hint(fault, Dialled::Master)))
            }
            BindError::Refused { .. } | BindError::NoThread(_) => Failure::Bind(error.to_string()),
            BindError::Timeout { .. } | BindError::NoMaster { .. } => {
                Failure::Bind(format!("{error}; say where the master is with --master"))
            }
        })
    }
}

/// A name that no other command has: a name that is taken is refused.
fn own_name() -> String {
    // The process id alone is not unique: in containers it is nearly always 1. The keys of a hash map are the random numbers that the
    // standard library has.
    let random = RandomState::new().hash_one(());
    format!("cli-{}-{random:016x}", std::process::id())
}
