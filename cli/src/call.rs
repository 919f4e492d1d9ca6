//! `meshwork call`: one call, its reply on stdout.

use crate::failure::Done;
use crate::input::{check, read_duration, read_json};
use crate::mesh::Mesh;
use crate::output::{Output, received};
use clap::Args;
use meshwork::{check_action, check_node};
use std::time::Duration;

#[derive(Args)]
pub(super) struct Options {
    /// The name of the action.
    action: String,
    /// The arguments as JSON: an object by their names, `{"a":2,"b":3}`, a list in their order, `[2,3]`, or the only argument itself,
    /// `2`; `-` reads stdin, `@file` reads a file. Default: `null`.
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    arguments: Option<String>,
    /// The deadline: how long to wait for the reply.
    #[arg(long, value_parser = read_duration, default_value = "10s")]
    within: Duration,
    /// The name of the node that is to answer. Default: any provider of the action.
    #[arg(long, value_name = "NODE")]
    on: Option<String>,
    #[command(flatten)]
    mesh: Mesh,
}

pub(super) async fn run(options: Options, output: &Output) -> Done {
    check(check_action(&options.action))?;
    options.on.as_deref().map_or(Ok(()), |node| check(check_node(node)))?;
    let arguments = read_json(options.arguments.as_deref())?;
    let branch = options.mesh.bind(|branch| branch).await?;
    let mut call = branch.call_raw(options.action, arguments).within(options.within).fail_when_down();
    if let Some(node) = options.on {
        call = call.on(node);
    }
    output.line(&received(&call.await?)?)
}
