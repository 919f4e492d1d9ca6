//! The runtimes that candidates live on, and how their users start a task there.

use anyhow::Context as _;
use std::future::Future;
use tokio::task::JoinHandle;

/// What `#[tokio::main]` makes: a runtime with a thread for each processor. So the documentation of every peer sets it up.
pub(crate) fn as_documented<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(work)
}

/// A runtime with one thread. With one connection and two processors most peers are faster on it than as documented.
pub(crate) fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// An actix system, as the users of meshwork have it.
pub(crate) fn on_actix<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    actix::System::new().block_on(work)
}

/// How the users of a candidate start a task.
pub(crate) trait Spawn: 'static {
    /// Starts a task on the runtime of the current thread.
    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T>;
}

/// As users of tokio start a task.
pub(crate) struct Tokio;

impl Spawn for Tokio {
    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(task)
    }
}

/// As users of actix start a task.
pub(crate) struct Actix;

impl Spawn for Actix {
    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        actix_rt::spawn(task)
    }
}
