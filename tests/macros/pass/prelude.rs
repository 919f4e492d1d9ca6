//! The names of the prelude can be used beside those of other preludes, and beside those that programs import by name.

#![allow(unused_imports)]

use actix::prelude::*;
use futures::prelude::*;
use meshwork::prelude::*;
use proptest::prelude::*;
use serde::*;
use std::prelude::rust_2024::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

// Every name of the prelude, used: a name that two globs bring for two items is an error here.
type Everything = (
    ActionError,
    ApplicationCode,
    Branch,
    BranchActor,
    Broadcast,
    Call<()>,
    CallContext,
    CallError,
    Callback<(), ()>,
    Code,
    Dialect,
    Event<()>,
    EventError,
    Fate,
    Listen,
    Master,
    MasterActor,
    Node,
    Publish,
    Responders,
    RestartPolicy,
    Subscribe,
    Subscription,
    Addr<BranchActor>,
    Recipient<Tick>,
    Duration,
);

fn traits<T: BindBranch, U: ConfigureNode + Respond, V: OrActionError<()>, W: RunMaster + SpreadMaster>() {}

#[derive(Message, Clone, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Tick;

#[derive(Debug, MeshError)]
enum Failing {
    Call(CallError),
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failing")
    }
}

struct Ticking;

impl Actor for Ticking {
    type Context = Context<Self>;
}

impl Handler<Tick> for Ticking {
    type Result = ();
    fn handle(&mut self, _: Tick, _: &mut Context<Self>) {}
}

/// A name that a program imports by itself, or defines, stands before that of a glob.
mod by_name {
    use actix::prelude::*;
    use anyhow::Context as _;
    use meshwork::prelude::*;

    pub struct Node(pub u8);
    pub enum Code {
        Mine,
    }

    pub fn read() -> anyhow::Result<Node> {
        let number = "7".parse().context("a number")?;
        let _ = Code::Mine;
        Ok(Node(number))
    }
}

fn main() {
    assert_eq!(by_name::read().unwrap().0, 7);
    let _ = std::mem::size_of::<Everything>();
}
