//! The command line, `meshwork`, the facade's first user: what it takes, and how it ends: data on stdout, everything else on
//! stderr, an exit code that scripts can rely on. Each command is in a file of its own; what they share is here.

mod bridge;
mod call;
mod events;
mod listing;
mod master;
mod respond;

use clap::{Args, Parser, Subcommand};
use meshwork::{
    BindBranch, BindError, Branch, BranchActor, CallError, Code, Drained, Encoding, NameError, Node, Payload,
    Status,
};
use serde_json::{Value, json};
use std::env::VarError;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

/// Calls actions and publishes events in a mesh of processes, and runs its master.
#[derive(Parser)]
#[command(name = "meshwork", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Says more on stderr; twice, still more. RUST_LOG says it in detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Prints one JSON object a line. The default when stdout is no terminal.
    #[arg(long, global = true)]
    json: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked
  1  the call failed: the error is on stderr
  2  wrong use: a flag, an address, a name, a file, JSON that is none
  3  could not bind to the master, or was refused by it later

Secrets come from a file (--token-file) or from MESHWORK_TOKEN, never from the command line.";

#[derive(Subcommand)]
enum Command {
    /// Runs a master until Ctrl-C or SIGTERM, then drains.
    Master(master::Options),
    /// Calls an action and prints its reply as JSON.
    Call(call::Options),
    /// Answers an action with a command: JSON arguments on its stdin, a JSON reply on its stdout.
    Respond(respond::Options),
    /// Binds an old server of another protocol: its functions become actions, as long as it is there.
    Bridge(bridge::Options),
    /// Publishes an event to the subscribers of a topic.
    Publish(events::PublishOptions),
    /// Prints the events of the topics that match.
    Subscribe(events::SubscribeOptions),
    /// Sends an event to every other node.
    Broadcast(events::PublishOptions),
    /// Lists the actions of the mesh.
    Actions(listing::ActionsOptions),
    /// Lists the branches that are bound.
    Branches(listing::BranchesOptions),
}

/// How a command finds its mesh.
#[derive(Args)]
struct Mesh {
    /// Where the master listens.
    #[arg(long, value_name = "HOST:PORT", env = "MESHWORK_MASTER", default_value = "127.0.0.1:3010")]
    master: String,
    /// A file that holds the token. Without it, MESHWORK_TOKEN is looked at.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What this process is called in the mesh. A name of its own by default.
    #[arg(long)]
    name: Option<String>,
}

/// How a command ends when it does not work.
enum Failure {
    /// The call failed.
    Call(CallError),
    /// It was used in a wrong way.
    Use(String),
    /// The bind failed.
    Bind(String),
    /// Whoever reads stdout has gone.
    BrokenPipe,
}

type Done = Result<(), Failure>;

/// How much of a text that is not JSON is shown, in characters.
const JSON_SHOWN_MAX: usize = 60;

/// Where data go.
struct Output {
    json: bool,
}

/// 10 to 25 % of a caller's processor time is allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_master = matches!(cli.command, Command::Master(_));
    // A master runs unattended, so its log says who comes and goes; the other commands speak for themselves.
    let level = match cli.verbose.saturating_add(u8::from(is_master)) {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    let output = Output { json: cli.json || !io::stdout().is_terminal() };
    let asked_for_json = cli.json;
    let done = actix::System::new().block_on(run(cli.command, &output));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Call(error)) => {
            if asked_for_json {
                say(error_as_json(&error));
            } else {
                say(one_line(error));
            }
            ExitCode::from(1)
        }
        Err(Failure::Use(what)) => {
            say(format_args!("meshwork: {}", one_line(what)));
            ExitCode::from(2)
        }
        Err(Failure::Bind(what)) => {
            say(format_args!("meshwork: {}", one_line(what)));
            ExitCode::from(3)
        }
    }
}

async fn run(command: Command, output: &Output) -> Done {
    match command {
        Command::Master(options) => master::run(options, output).await,
        Command::Call(options) => call::run(options, output).await,
        Command::Respond(options) => respond::run(options).await,
        Command::Bridge(options) => bridge::run(options).await,
        Command::Publish(options) => events::publish(options).await,
        Command::Subscribe(options) => events::subscribe(options, output).await,
        Command::Broadcast(options) => events::broadcast(options).await,
        Command::Actions(options) => listing::actions(options, output).await,
        Command::Branches(options) => listing::branches(options, output).await,
    }
}

impl Mesh {
    /// Binds, as a branch that answers nothing unless `with` gives it actions.
    async fn bind(&self, with: impl FnOnce(BranchActor) -> BranchActor) -> Result<Branch, Failure> {
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

fn read_token(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(file) = file else {
        // One that is set and empty is a script's mistake, and a master must not let everyone in for that.
        return match std::env::var("MESHWORK_TOKEN") {
            Ok(token) if token.is_empty() => {
                Err(Failure::Use("MESHWORK_TOKEN is empty: set it to the token, or unset it".to_owned()))
            }
            Ok(token) => Ok(Some(token)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => {
                Err(Failure::Use("MESHWORK_TOKEN is no text: set it to a token in UTF-8".to_owned()))
            }
        };
    };
    let shown = file.display();
    let token = std::fs::read_to_string(file).map_err(|error| {
        Failure::Use(format!(
            "the token file {shown} cannot be read: {error}; name one that holds the token and nothing else"
        ))
    })?;
    let token = token.trim_end_matches(['\r', '\n']);
    if token.is_empty() {
        return Err(Failure::Use(format!("the token file {shown} is empty: write the token into it")));
    }
    Ok(Some(token.to_owned()))
}

/// Reads JSON: the text itself, `-` for stdin, `@file` for a file; nothing is `null`.
fn read_json(text: Option<&str>) -> Result<Payload, Failure> {
    let (text, whence) = match text {
        None => ("null".to_owned(), "nothing".to_owned()),
        Some("-") => {
            let mut read = String::new();
            io::stdin()
                .read_to_string(&mut read)
                .map_err(|error| Failure::Use(format!("stdin cannot be read: {error}")))?;
            (read, "stdin".to_owned())
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => {
                let read = std::fs::read_to_string(file)
                    .map_err(|error| Failure::Use(format!("{file} cannot be read: {error}")))?;
                (read, file.to_owned())
            }
            None => (text.to_owned(), text.chars().take(JSON_SHOWN_MAX).collect()),
        },
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::Use(format!("{whence} is not JSON: {error}; text needs quotes, as in '\"text\"'"))
    })?;
    Payload::encode(Encoding::Json, &value).map_err(|error| Failure::Use(error.to_string()))
}

/// Checks a name before anything is sent.
fn check(name: Result<(), NameError>) -> Done {
    name.map_err(|error| Failure::Use(error.to_string()))
}

fn read_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 100us, 500ms, 10s or 2m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match &text[digits.len()..] {
        "us" => number / 1_000_000.0,
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn error_as_json(error: &CallError) -> Value {
    let data = error.data().and_then(|data| data.decode::<Value>().ok());
    json!({ "error": {
        "code": error.code().0,
        "name": error.name(),
        "fate": error.fate().to_string(),
        "message": error.message(),
        "data": data,
    }})
}

impl Output {
    /// Prints a line, now.
    fn line(&self, line: &str) -> Done {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::Use(format!("stdout cannot be written: {error}")),
        })
    }
}

/// Says something on stderr.
fn say(what: impl Display) {
    // Whoever reads stderr may have gone, and that is no reason to fail.
    let _ = writeln!(io::stderr(), "{what}");
}

/// A text in one line. Others may have written it, so what is not text is escaped: it must not tell a terminal anything.
fn one_line(what: impl Display) -> String {
    let mut line = String::new();
    for c in what.to_string().trim_end().chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        if error.code() == Code::BAD_NAME {
            return Failure::Use(error.message().to_owned());
        }
        Failure::Call(error)
    }
}

/// Ctrl-C and SIGTERM. They are listened for from when it is made, so one that comes while nobody waits is not lost.
struct Signals {
    #[cfg(unix)]
    interrupted: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminated: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupted: tokio::signal::windows::CtrlC,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Self::listen().map_err(|error| Failure::Use(format!("signals cannot be listened for: {error}")))
    }

    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(windows)]
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupted: tokio::signal::windows::ctrl_c()? })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
        #[cfg(windows)]
        self.interrupted.recv().await;
    }
}

/// Drains a node that was asked to end, and says what became of what was in flight. One more signal ends it at once.
async fn drain(node: &Node, within: Duration, signals: &mut Signals) -> Done {
    let mut status = node.status().await?;
    // Said when it is so, not when it was asked for: whoever reads it relies on it.
    let mut begun = pin!(async {
        let _ = status.wait_for(|status| matches!(status, Status::Draining | Status::Closed(_))).await;
    });
    let mut draining = pin!(node.drain(within));
    let mut is_said = false;
    loop {
        tokio::select! {
            biased;
            () = &mut begun, if !is_said => {
                say("draining; once more ends at once");
                is_said = true;
            }
            drained = &mut draining => {
                let Drained { finished, abandoned } = drained?;
                say(format_args!("drained: {finished} finished, {abandoned} abandoned"));
                return Ok(());
            }
            () = signals.next() => {
                say("ended at once");
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_others_wrote_stays_in_its_line() {
        assert_eq!(one_line("größe\n\u{1b}[31m\u{9b}x\n"), "größe\\n\\u{1b}[31m\\u{9b}x");
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(read_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(read_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "5h", "1e400s"] {
            assert!(read_duration(wrong).is_err(), "{wrong}");
        }
    }
}
