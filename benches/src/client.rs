//! The calls that the client of every candidate can make, so that one loop drives all clients.

use crate::job::Work;
use anyhow::ensure;
use bytes::Bytes;
use std::future::Future;

/// A client with one connection. Clones share it.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// Adds two numbers at the server.
    fn add(&self, a: i32, b: i32) -> impl Future<Output = anyhow::Result<i32>> + Send;

    /// Sends bytes to the server and back; gives how many came back.
    fn echo(&self, bytes: Bytes) -> impl Future<Output = anyhow::Result<usize>> + Send;

    /// Makes a number of calls at once and awaits them as one; gives how many replies were right.
    fn many(&self, _: Work, _: usize, _: &Bytes) -> impl Future<Output = anyhow::Result<usize>> + Send {
        async { anyhow::bail!("this candidate has no call_many") }
    }
}

/// Makes one call and checks its answer. The number makes one call of `add` differ from the next.
pub(crate) async fn ask(client: &impl Client, work: Work, number: i32, bytes: &Bytes) -> anyhow::Result<()> {
    match work {
        Work::Add => {
            let number = number & 0xFFFF;
            let sum = client.add(number, 1).await?;
            ensure!(sum == number + 1, "{number} + 1 is not {sum}");
        }
        Work::Echo1K | Work::Echo64K => {
            let len = client.echo(bytes.clone()).await?;
            ensure!(len == bytes.len(), "{len} bytes came back");
        }
    }
    Ok(())
}

/// The bytes that go in each direction, beside what a candidate adds. `add` has its two numbers.
pub(crate) fn bytes(work: Work) -> Bytes {
    let len = match work {
        Work::Add => 8,
        Work::Echo1K => 1024,
        Work::Echo64K => 65_536,
    };
    different_bytes(len)
}

/// Different bytes, so that no candidate gains from compressing them.
pub(crate) fn different_bytes(len: u32) -> Bytes {
    (0..len).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into()
}
