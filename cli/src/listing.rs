//! `meshwork actions` and `meshwork branches`: a table for people, one JSON object per line for programs.

use crate::failure::Done;
use crate::mesh::Mesh;
use crate::output::Output;
use clap::Args;
use comfy_table::Table;
use comfy_table::presets;
use serde_json::{Value, json};

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
    let branch = options.mesh.bind(|branch| branch).await?;
    let actions = branch.describe(&options.pattern).await?;
    let mut table = table(&["ACTION", "NODES", "ARGUMENTS", "REPLY"]);
    for action in actions {
        let nodes: Vec<&str> = action.nodes.iter().map(|node| &**node).collect();
        let schema = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
        let (arguments, reply) = match &action.shape {
            Some(shape) => (schema(&shape.arguments), schema(&shape.reply)),
            None => (Value::Null, Value::Null),
        };
        if output.json {
            let line =
                json!({ "action": &*action.action, "nodes": nodes, "arguments": arguments, "reply": reply });
            output.line(&line.to_string())?;
        } else {
            table.add_row([&*action.action, &nodes.join(" "), &short(&arguments), &short(&reply)]);
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
            let line = json!({ "branch": &*node.node, "session": node.session.0, "actions": actions });
            output.line(&line.to_string())?;
        } else {
            table.add_row([&*node.node, &node.session.0.to_string(), &actions.len().to_string()]);
        }
    }
    show(&table, output)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

fn show(table: &Table, output: &Output) -> Done {
    if output.json { Ok(()) } else { output.line(&table.to_string()) }
}

/// A JSON Schema in a few words: its type, or the types of its elements or fields.
fn short(schema: &Value) -> String {
    if let Some(parts) = schema["prefixItems"].as_array() {
        return format!("[{}]", parts.iter().map(short).collect::<Vec<_>>().join(", "));
    }
    if let Some(fields) = schema["properties"].as_object() {
        let fields: Vec<_> = fields.iter().map(|(name, field)| format!("{name}: {}", short(field))).collect();
        return format!("{{{}}}", fields.join(", "));
    }
    match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => String::new(),
    }
}
