//! `meshwork actions` and `meshwork branches`: a table for people, one JSON object per line for programs.

use crate::failure::{Done, Failure};
use crate::mesh::Mesh;
use crate::output::{Output, json, object, one_line, text};
use crate::signature::signature;
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use meshwork::{CallError, Encoding, Pattern, Payload, Value};

#[derive(Args)]
pub(super) struct ActionsOptions {
    /// A pattern for the names of actions, as for topics: `math/*` one segment more, `math/**` one or more segments.
    #[arg(default_value = "**")]
    pattern: String,
    #[command(flatten)]
    mesh: Mesh,
}

#[derive(Args)]
pub(super) struct BranchesOptions {
    #[command(flatten)]
    mesh: Mesh,
}

pub(super) async fn actions(options: ActionsOptions, output: &Output) -> Done {
    Pattern::new(options.pattern.as_str()).map_err(|error| Failure::Use(error.to_string()))?;
    let branch = options.mesh.bind(|branch| branch).await?;
    let actions = branch.describe(&options.pattern).await?;
    let mut table = table(&["ACTION", "NODES"]);
    for action in actions {
        let shape = action.shape.as_ref().map(|shape| (schema(&shape.arguments), schema(&shape.reply)));
        let said = shape.as_ref().map(|(arguments, reply)| signature(&action.action, arguments, reply));
        if output.json {
            let (arguments, reply) = shape.unwrap_or((Value::Nil, Value::Nil));
            let nodes = Value::List(action.nodes.iter().map(|node| text(node)).collect());
            let Value::Map(mut line) = object([
                ("action", text(&action.action)),
                ("nodes", nodes),
                ("arguments", arguments),
                ("reply", reply),
            ]) else {
                continue;
            };
            line.extend(said.map(|said| (text("signature"), text(&said))));
            output.line(&json(&Value::Map(line)).map_err(CallError::from)?)?;
        } else {
            let nodes: Vec<&str> = action.nodes.iter().map(|node| &**node).collect();
            let said = said.unwrap_or_else(|| action.action.to_string());
            table.add_row([one_line(said), one_line(nodes.join(" "))]);
        }
    }
    show(&table, output)
}

pub(super) async fn branches(options: BranchesOptions, output: &Output) -> Done {
    let branch = options.mesh.bind(|branch| branch).await?;
    let mut table = table(&["BRANCH", "SESSION", "ACTIONS"]);
    // The master is in the list too, as session 0.
    for node in branch.nodes().await?.into_iter().filter(|node| node.session.0 != 0) {
        let actions: Vec<&str> = node.actions.iter().map(|(action, _)| &**action).collect();
        if output.json {
            let actions = Value::List(actions.into_iter().map(text).collect());
            let session = Value::Unsigned(node.session.0);
            let line = object([("branch", text(&node.node)), ("session", session), ("actions", actions)]);
            output.line(&json(&line).map_err(CallError::from)?)?;
        } else {
            table.add_row([one_line(&node.node), node.session.0.to_string(), actions.len().to_string()]);
        }
    }
    show(&table, output)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    // Rows are as wide as the terminal.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    table
}

fn show(table: &Table, output: &Output) -> Done {
    if output.json { Ok(()) } else { output.line(&table.to_string()) }
}

/// The JSON Schema that a node says; nil if it is none.
fn schema(json: &str) -> Value {
    Payload::new(Encoding::Json, json.to_owned()).decode().unwrap_or(Value::Nil)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_no_wider_than_its_terminal() {
        let mut table = table(&["ACTION", "NODES"]);
        table.add_row([
            "orders/place(order: {item: string, count: integer, größe?: string}) -> {id: integer}",
            "shop",
        ]);
        for width in [20, 40, 80] {
            table.set_width(width);
            let widest = table.to_string().lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width.into()), "{table}");
        }
    }
}
