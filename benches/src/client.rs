//! What every candidate's client can do, so that one loop drives them all.

use bytes::Bytes;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;

/// What is asked of the far side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// `add(i32, i32)`.
    Add,
    /// 1,024 bytes, there and back.
    #[value(name = "echo-1k")]
    #[serde(rename = "echo-1k")]
    Echo1K,
    /// 65,536 bytes, there and back.
    #[value(name = "echo-64k")]
    #[serde(rename = "echo-64k")]
    Echo64K,
}

/// How a request gets there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Route {
    /// The process that is connected to answers itself.
    Direct,
    /// A third process answers; the one that is connected to passes it on.
    Relayed,
}

/// How the client asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// One call, one await: what users write.
    Single,
    /// Many calls, one await: `call_many`.
    Many,
    /// A message to the branch's actor: `addr.send(Call)`.
    Message,
}

/// A client with one connection. Clones share it.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// Adds two numbers over there.
    fn add(&self, a: i32, b: i32) -> impl Future<Output = anyhow::Result<i32>> + Send;

    /// Sends bytes there and back; gives how many came back.
    fn echo(&self, bytes: Bytes) -> impl Future<Output = anyhow::Result<usize>> + Send;

    /// Makes so many calls at once and awaits them as one; gives how many were right.
    fn many(&self, _: Work, _: usize, _: &Bytes) -> impl Future<Output = anyhow::Result<usize>> + Send {
        async { anyhow::bail!("this candidate has no call_many") }
    }
}

impl Work {
    /// The bytes that go in each direction, beside what a candidate adds. `add` has its two numbers.
    pub(crate) fn bytes(self) -> Bytes {
        let len = match self {
            Work::Add => 8,
            Work::Echo1K => 1024,
            Work::Echo64K => 65_536,
        };
        // Not all alike, so that nobody gains from compressing them.
        (0..len).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into()
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Work::Add => "add",
            Work::Echo1K => "echo 1 KiB",
            Work::Echo64K => "echo 64 KiB",
        })
    }
}
