//! `meshwork token`: makes a token, and its line in the file of the identities.

use crate::failure::{Done, Failure};
use crate::input::read_token_file;
use crate::output::Output;
use clap::Args;
use meshwork::token_digest;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct Options {
    /// The name of the identity that the token is for.
    #[arg(value_name = "IDENTITY", default_value = "NAME")]
    identity: String,
    /// Writes the token into this file, which must not exist and only its owner may read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Makes no token: takes the one in this file, and prints its digest.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    of: Option<PathBuf>,
}

/// The random bytes of a token: nobody guesses them, so that their digest is as safe as they are.
const TOKEN_LEN: usize = 32;

pub(super) fn run(options: Options, output: &Output) -> Done {
    let Options { identity, out, of } = options;
    meshwork::check_topic(&identity)
        .map_err(|error| Failure::Use(format!("an identity cannot be named so: {error}")))?;
    let token = match &of {
        Some(file) => read_token_file(file)?,
        None => random()?,
    };
    let digest = token_digest(&token);
    if let Some(file) = &out {
        write_secret(file, &token)
            .map_err(|error| Failure::Use(format!("{} cannot be written: {error}", file.display())))?;
    }
    let is_shown = out.is_none() && of.is_none();
    if output.json {
        let mut line = Map::new();
        if is_shown {
            line.insert("token".to_owned(), Value::from(token));
        }
        line.insert("digest".to_owned(), Value::from(digest));
        return output.line(&Value::Object(line).to_string());
    }
    if is_shown {
        output.line(&format!("{token}\n"))?;
    }
    output.line("# In the file of `meshwork master --identities`:")?;
    // A name with a slash needs its quotes.
    output.line(&format!("[identities.{identity:?}]\ntokens = [{digest:?}]"))
}

fn random() -> Result<String, Failure> {
    let mut bytes = [0; TOKEN_LEN];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Use(format!("this system gives no random bytes: {error}")))?;
    // The prefix tells those who look for lost secrets what it is.
    Ok(bytes.iter().fold(String::from("mw_"), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    }))
}

fn write_secret(file: &Path, token: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(file)?, "{token}")
}
