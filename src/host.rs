//! The thread that a node lives on: the arbiter of the current thread, or a thread of its own in a program that runs without an actix
//! system. Only this crate makes threads; the actors run on any.

use actix::{Actor, Addr, Arbiter, ArbiterHandle, Context, Handler, System};
use log::Level;
use meshwork_actors::log_line;
use meshwork_actors::node::{Drain, Node, Status, TakeSnapshot};
use meshwork_actors::repeated::Line;
use meshwork_wire::ByteString;
use std::cell::Cell;
use std::sync::{Arc, Once};
use std::time::Duration;
use std::{io, panic, thread};
use tokio::sync::oneshot;

/// An actor that has started and that no handle has taken over yet: dropped, it ends.
struct Started<A: NodeActor>(Option<Addr<A>>);

/// The actor of a node.
pub(crate) trait NodeActor:
    Actor<Context = Context<Self>> + Handler<Drain> + Handler<TakeSnapshot>
{
}

impl<A: Actor<Context = Context<A>> + Handler<Drain> + Handler<TakeSnapshot>> NodeActor for A {}

/// Starts a node where it is to live: on the arbiter of this thread, or on a thread of its own if there is none. `start` is called and
/// polled there. Dropping this future drops `start`, and ends a node that has started meanwhile.
///
/// # Errors
///
/// When there is no thread for the node.
pub(crate) async fn start<A, E, F>(
    node: Arc<Node>,
    start: impl FnOnce() -> F + Send + 'static,
) -> io::Result<Result<Addr<A>, E>>
where
    A: NodeActor,
    E: Send + 'static,
    F: Future<Output = Result<Addr<A>, E>> + 'static,
{
    let (mut asker, answer) = oneshot::channel();
    let starting = move || async move {
        let started = tokio::select! {
            biased;
            () = asker.closed() => return None,
            started = start() => started,
        };
        let actor = started.as_ref().ok().cloned();
        // An asker that has gone meanwhile drops the actor's `Started`.
        let _ = asker.send(started.map(|actor| Started(Some(actor))));
        actor
    };
    // The handle of an arbiter that has ended may still stand in its thread.
    match Arbiter::try_current().filter(ArbiterHandle::alive) {
        Some(arbiter) => _ = arbiter.spawn_fn(|| _ = actix::spawn(starting())),
        None if is_in_local_set() => _ = actix::spawn(starting()),
        None => on_own_thread(node, starting)?,
    }
    let started = answer.await.map_err(|_| io::Error::other("its thread has ended"))?;
    Ok(started.map(Started::take))
}

/// Whether this is polled in a `LocalSet`, as in a simulation, whose time and network belong to its thread. tokio has no question for this, and
/// panics where it cannot spawn a local task: the panic is caught, and the hook that would print it is passed over on this thread. A hook that
/// the program sets later hears of the panic.
fn is_in_local_set() -> bool {
    if cfg!(panic = "abort") {
        return false;
    }
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_ASKING.get() {
                hook(panic);
            }
        }));
    });
    IS_ASKING.set(true);
    let spawned = panic::catch_unwind(|| drop(tokio::task::spawn_local(async {})));
    IS_ASKING.set(false);
    spawned.is_ok()
}

static HOOK: Once = Once::new();

thread_local! {
    /// Whether [`is_in_local_set`] is asking on this thread.
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a node on a thread of its own, with an actix system of its own, until the node has ended.
///
/// # Errors
///
/// When the thread cannot be started.
pub(crate) fn on_own_thread<A: NodeActor, F: Future<Output = Option<Addr<A>>>>(
    node: Arc<Node>,
    start: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let name = thread_name(node.name());
    let live = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            // Dropping `start` tells its caller that the thread has ended.
            Err(error) => {
                log_line!(Line::own(Level::Error), "{}: its thread has no runtime: {error}", node.name());
                return;
            }
        };
        System::with_tokio_rt(|| runtime).block_on(async {
            if let Some(actor) = start().await {
                let mut status = node.status();
                // The node outlives this wait, so its status does too.
                let _ = status.wait_for(|status| matches!(status, Status::Closed(_))).await;
                // An actor that closes its node has one more turn, in which it ends: then it answers no more.
                let _ = actor.send(TakeSnapshot).await;
                // The answers to those who drained it are tasks that were woken before this one.
                let _ = actix::spawn(async {}).await;
            }
        });
    };
    thread::Builder::new().name(name).spawn(live).map(drop)
}

/// The name of the thread of a node. An operating system refuses a name with a zero byte in it, which no node may have either.
fn thread_name(node: &ByteString) -> String {
    format!("meshwork {node}").replace('\0', "")
}

impl<A: NodeActor> Started<A> {
    fn take(mut self) -> Addr<A> {
        self.0.take().expect("it is taken once, here")
    }
}

impl<A: NodeActor> Drop for Started<A> {
    fn drop(&mut self) {
        if let Some(actor) = self.0.take() {
            #[expect(clippy::disallowed_methods, reason = "bounded to one: the node ends")]
            actor.do_send(Drain { within: Duration::ZERO });
        }
    }
}
