//! The layers of a simulated mesh: around the calls of some branches and around what passes some masters. They retry, hold, delay, refuse and give
//! up, as the chance of their host has it; the journal judges the calls as it judges all, so a fate that a layer makes untrue is found. In a run
//! without faults no layer refuses or gives up.

use crate::journal::is_healthy;
use crate::programs::FAULTS_UNTIL;
use meshwork::prelude::*;
use meshwork::tower::{BoxError, LayerCalls, LayerRequests, OutgoingCall, PassingRequest, RetryNotSent};
use std::sync::{Arc, Mutex, PoisonError};
use tower::filter::AsyncFilterLayer;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;

/// How long a layer waits at most.
const DELAY_MS_MAX: u64 = 20;

/// How many requests or calls a layer lets go at once: enough for those in the end.
const AT_ONCE: usize = 200;

type Chance = Arc<Mutex<fastrand::Rng>>;

fn draw(chance: &Chance, below: u64) -> u64 {
    chance.lock().unwrap_or_else(PoisonError::into_inner).u64(0..below)
}

/// Whether a layer may do what ends calls.
fn may_fail() -> bool {
    !is_healthy() && turmoil::sim_elapsed().is_some_and(|now| now < FAULTS_UNTIL)
}

/// Waits for a moment, and refuses some while there are faults.
async fn delay(chance: Chance) -> Result<(), BoxError> {
    if draw(&chance, 3) == 0 {
        let delay = Duration::from_millis(draw(&chance, DELAY_MS_MAX));
        tokio::time::sleep(delay).await;
    }
    match draw(&chance, 20) {
        0 if may_fail() => Err("a layer that refuses now and then".into()),
        1 if may_fail() => {
            Err(CallError::new(Code::OVERLOADED, Fate::NotSent, "a layer is full now and then").into())
        }
        _ => Ok(()),
    }
}

/// Puts layers around the calls of a branch.
pub(crate) fn around_calls(branch: BranchActor, chance: &mut fastrand::Rng) -> BranchActor {
    let own: Chance = Arc::new(Mutex::new(chance.fork()));
    let wait = AsyncFilterLayer::new(move |call: OutgoingCall| {
        let chance = Arc::clone(&own);
        async move { delay(chance).await.map(|()| call) }
    });
    let retry = RetryNotSent::budget(0.5).after(Duration::from_millis(1), Duration::from_millis(30));
    let branch = branch.layer_calls(retry).layer_calls(wait);
    let branch = branch.layer_calls(GlobalConcurrencyLimitLayer::new(AT_ONCE));
    if is_healthy() { branch } else { branch.layer_calls(TimeoutLayer::new(Duration::from_millis(400))) }
}

/// Puts layers around what passes a master.
pub(crate) fn around_requests(master: MasterActor, chance: &mut fastrand::Rng) -> MasterActor {
    let own: Chance = Arc::new(Mutex::new(chance.fork()));
    let wait = AsyncFilterLayer::new(move |request: PassingRequest| {
        let chance = Arc::clone(&own);
        async move { delay(chance).await.map(|()| request) }
    });
    let master = master.layer_requests(GlobalConcurrencyLimitLayer::new(AT_ONCE)).layer_requests(wait);
    if is_healthy() { master } else { master.layer_requests(TimeoutLayer::new(Duration::from_millis(300))) }
}
