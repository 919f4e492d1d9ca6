//! The command line, `meshwork`: its flags, its output and its exit codes. Data go to stdout, everything else to stderr, and
//! scripts can rely on the exit code. Each command is in a file of its own. The binary uses the library as any user does.

mod bridge;
mod call;
mod config;
mod contained;
mod events;
mod failure;
mod headers;
mod input;
#[cfg(unix)]
mod keeper;
mod listing;
mod master;
mod mesh;
mod outlet;
mod output;
mod respond;
mod signals;
mod signature;
mod tls;
mod token;

use crate::failure::{Done, Failure};
use crate::outlet::{LogLines, flush_stderr};
use crate::output::{Output, error_as_json, error_in_words, one_line, say};
use clap::{Parser, Subcommand};
use log::Level;
use meshwork::repeated::OneLine;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// Calls actions and publishes events in a mesh of processes, and runs its master.
#[derive(Parser)]
#[command(name = "meshwork", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Logs more to stderr; given twice, still more. RUST_LOG sets the level in detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Prints one JSON object per line. The default when stdout is no terminal.
    #[arg(long, global = true)]
    json: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  the command succeeded
  1  the call failed: the error is on stderr
  2  wrong use: a flag, an address, a name, a file, or text that is not JSON
  3  could not bind to the master, or was refused by it later

Secrets come from a file (--token-file) or from MESHWORK_TOKEN, never from the command line; the secret of a
bridge's server from --server-token-file or MESHWORK_SERVER_TOKEN.";

#[derive(Subcommand)]
enum Command {
    /// Runs a master until Ctrl-C or SIGTERM, then drains.
    Master(master::Options),
    /// Calls an action and prints its reply as JSON.
    Call(call::Options),
    /// Answers an action with a shell command: JSON arguments on its stdin, a JSON reply on its stdout. Waits until the master is up.
    Respond(respond::Options),
    /// Binds a server of another protocol as a branch: its functions are actions, as long as the server runs. Waits until
    /// server and master are up.
    Bridge(bridge::Options),
    /// Publishes an event to the subscribers of a topic.
    Publish(events::PublishOptions),
    /// Prints the events of the topics that match. Waits until the master is up.
    Subscribe(events::SubscribeOptions),
    /// Sends an event to every other node of the mesh.
    Broadcast(events::BroadcastOptions),
    /// Lists the actions of the mesh.
    Actions(listing::ActionsOptions),
    /// Lists the branches that are bound.
    Branches(listing::BranchesOptions),
    /// Makes a token for an identity, and its line in the file of --identities.
    Token(token::Options),
}

/// Chosen for its speed: 10 to 25 % of a caller's processor time is allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(unix)]
    if let Some(kept) = keeper::run() {
        return kept;
    }
    let cli = Cli::parse();
    let is_master = matches!(cli.command, Command::Master(_));
    // A master runs unattended, so by default its log names the branches that come and go. Other commands log warnings only.
    let level = match cli.verbose.saturating_add(u8::from(is_master)) {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    log_to_stderr(level);
    let _says_all = SaysAll;
    let output = Output { json: cli.json || !io::stdout().is_terminal() };
    let asked_for_json = cli.json;
    let done = actix::System::new().block_on(run(cli.command, &output));
    end(done, asked_for_json)
}

/// Waits, when it is dropped, for the reader of what was said last: also when a panic ends the process.
struct SaysAll;

impl Drop for SaysAll {
    fn drop(&mut self) {
        flush_stderr();
    }
}

/// Starts the log. Neither the log nor a panic waits for the reader of stderr.
fn log_to_stderr(level: &str) {
    let mut log = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    log.target(env_logger::Target::Pipe(Box::new(LogLines)));
    let has_own_style =
        std::env::var_os("RUST_LOG_STYLE").is_some() || std::env::var_os("NO_COLOR").is_some();
    if io::stderr().is_terminal() && !has_own_style {
        log.write_style(env_logger::WriteStyle::Always);
    }
    log.format(|line, record| {
        let (level, target) = (record.level(), record.target());
        let style = line.default_level_style(level);
        write!(line, "[{} {style}{level:<5}{style:#} {target}] ", line.timestamp())?;
        if level <= Level::Info {
            return writeln!(line, "{}", record.args());
        }
        // The lines above are in one line already.
        writeln!(line, "{}", OneLine(record.args()))
    });
    log.init();
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        say(format_args!("thread {:?} {panic}", thread.name().unwrap_or("without a name")));
        if backtrace.status() == BacktraceStatus::Captured {
            say(format_args!("{backtrace}"));
        }
    }));
}

/// Says how a command failed, and gives its exit code.
fn end(done: Done, asked_for_json: bool) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Call(error)) => {
            if asked_for_json {
                say(error_as_json(&error));
            } else {
                say(one_line(error_in_words(&error)));
            }
            ExitCode::from(1)
        }
        Err(Failure::Use(message)) => {
            say(format_args!("meshwork: {}", one_line(message)));
            ExitCode::from(2)
        }
        Err(Failure::Bind(message)) => {
            say(format_args!("meshwork: {}", one_line(message)));
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
        Command::Token(options) => token::run(options, output),
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
}
