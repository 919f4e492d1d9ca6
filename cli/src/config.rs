//! The configuration file of `meshwork master`: each key is a flag of the command, with `_` for `-`, and `[limits]` holds the bounds that have no
//! flag. A flag on the command line counts before the file. A mistake is told with its line.

use crate::bridge::{Foreign, Results};
use crate::failure::Failure;
use crate::input::{read_duration, read_text};
use clap::ValueEnum;
use meshwork::limits::BUSY_POLL_WITHIN_MAX;
use meshwork::{FileError, Limits, Pattern};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// What the file says; nothing if there is none.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub(super) listen: Option<Vec<String>>,
    pub(super) gateway: Option<Vec<Foreign>>,
    pub(super) dnode_results: Option<Results>,
    pub(super) gateway_allow: Option<Vec<Allow>>,
    pub(super) gateway_identity: Option<String>,
    pub(super) name: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) identities: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    pub(super) on_name_taken: Option<Taken>,
    pub(super) balance: Option<Choice>,
    pub(super) arbiters: Option<Arbiters>,
    pub(super) busy_poll: Option<BusyPoll>,
    pub(super) heartbeat: Option<Long>,
    pub(super) drain_within: Option<Long>,
    pub(super) limits: Limits,
}

impl Config {
    /// Reads the file. The files that it names stand beside it, unless their paths are absolute.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let text = read_text(file, "the configuration file")?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            Failure::Use(format!("{}: {}", file.display(), FileError::of_toml(&text, &error)))
        })?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let Self { token_file, identities, tls_cert, tls_key, tls_client_ca, .. } = &mut config;
        for path in [token_file, identities, tls_cert, tls_key, tls_client_ca].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        Ok(config)
    }
}

/// A pattern of actions that programs of other protocols may see and call.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Allow(pub(super) Pattern);

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Pattern::new(text).map(Self).map_err(|error| error.to_string())
    }
}

/// A duration, such as `500ms`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Long(pub(super) Duration);

impl FromStr for Long {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read_duration(text).map(Self)
    }
}

/// How long a thread polls.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct BusyPoll(pub(super) Duration);

impl FromStr for BusyPoll {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let longest = BUSY_POLL_WITHIN_MAX;
        match read_duration(text)? {
            within if within <= longest => Ok(Self(within)),
            _ => Err(format!("a thread stays awake for at most {longest:?}")),
        }
    }
}

/// A number of arbiters.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "u16")]
pub(super) struct Arbiters(pub(super) u16);

/// How many arbiters a master may have.
const ARBITERS_MAX: u16 = 256;

impl TryFrom<u16> for Arbiters {
    type Error = String;

    fn try_from(count: u16) -> Result<Self, String> {
        match count {
            1..=ARBITERS_MAX => Ok(Self(count)),
            _ => Err(format!("a master has 1 to {ARBITERS_MAX} arbiters, and not {count}")),
        }
    }
}

impl FromStr for Arbiters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count =
            text.parse::<u16>().map_err(|_| format!("{text:?} is no number from 1 to {ARBITERS_MAX}"))?;
        count.try_into()
    }
}

/// Each of these is written in the file as on the command line.
macro_rules! from_its_text {
    ($($type:ty),*) => {
        $(impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        })*
    };
}

from_its_text!(Allow, Long, BusyPoll, Foreign);

#[derive(Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Taken {
    /// The old branch is told so, and ends.
    Replace,
    /// The new branch is refused, unless it asks to replace the old one.
    Refuse,
    /// Both branches stay, and share their calls.
    Share,
}

#[derive(Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Choice {
    /// Each provider after the other.
    RoundRobin,
    /// The next provider in turn, or another one by chance if that has fewer requests in flight.
    LeastOfTwo,
    /// The provider with the fewest requests in flight.
    LeastInFlight,
    /// As least-of-two, by latency and requests in flight.
    LeastLatency,
    /// A provider by chance.
    Random,
}
