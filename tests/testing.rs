//! Meshes in memory, as tests of services use them: what their links and nodes suffer, and when.

use meshwork::limits::{CALL_WITHIN, HEARTBEAT_EVERY, HEARTBEATS_MISSED_MAX};
use meshwork::prelude::*;
use meshwork::testing::{self, Mesh, Setup};
use meshwork::{Balance, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// After so long, a silent link is given up.
const SILENT: Duration = HEARTBEAT_EVERY.saturating_mul(HEARTBEATS_MISSED_MAX);

/// A branch that answers `who` with its name, and counts.
fn provider(name: &'static str, count: &Arc<AtomicU32>) -> BranchActor {
    let count = Arc::clone(count);
    BranchActor::new(name).respond("who", move |(): ()| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { Ok(name.to_owned()) }
    })
}

/// A provider named `one` and a caller.
async fn pair(mesh: &Mesh) -> (Branch, Branch, Arc<AtomicU32>) {
    let count = Arc::default();
    let one = mesh.bind(provider("one", &count)).await.expect("it binds");
    let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
    (one, caller, count)
}

#[test]
fn a_call_takes_no_time_where_nothing_delays_it() {
    testing::run(async |mesh| {
        let (_one, caller, count) = pair(&mesh).await;
        let before = mesh.elapsed();
        assert_eq!(caller.call::<String>("who", ()).await.unwrap(), "one");
        assert_eq!((mesh.elapsed(), count.load(Ordering::Relaxed)), (before, 1));
        assert_eq!(mesh.master().snapshot().await.unwrap().sessions.len(), 2);
    });
}

#[test]
fn an_hour_passes_in_a_moment() {
    let begun = Instant::now();
    testing::run(async |mesh| {
        let (_one, caller, _) = pair(&mesh).await;
        mesh.pass(Duration::from_secs(3600)).await;
        assert!(mesh.elapsed() >= Duration::from_secs(3600));
        assert_eq!(caller.call::<String>("who", ()).await.unwrap(), "one", "the heartbeats went on");
    });
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_delay_is_paid_on_every_way() {
    const EACH_WAY: Duration = Duration::from_millis(20);
    testing::run(async |mesh| {
        let (_one, caller, _) = pair(&mesh).await;
        // The route of the action is known from now on.
        caller.call::<String>("who", ()).await.unwrap();
        mesh.delay("one", EACH_WAY);
        let before = mesh.elapsed();
        caller.call::<String>("who", ()).await.unwrap();
        assert_eq!(mesh.elapsed() - before, EACH_WAY * 2);
    });
}

#[test]
fn what_was_written_during_a_short_cut_arrives_after_it() {
    testing::run(async |mesh| {
        let (_one, caller, count) = pair(&mesh).await;
        mesh.cut("one");
        let calling = caller.call::<String>("who", ());
        let mending = async {
            mesh.pass(Duration::from_secs(1)).await;
            assert_eq!(count.load(Ordering::Relaxed), 0);
            mesh.mend("one");
        };
        let (outcome, ()) = tokio::join!(calling, mending);
        assert_eq!(outcome.unwrap(), "one");
        assert_eq!(mesh.elapsed().as_secs(), 1);
    });
}

#[test]
fn a_long_cut_ends_the_call_and_a_mend_brings_the_branch_back() {
    testing::run(async |mesh| {
        let (one, caller, count) = pair(&mesh).await;
        mesh.cut("one");
        let error = caller.call::<String>("who", ()).within(Duration::MAX).await.expect_err("it is cut off");
        assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
        assert!(mesh.elapsed() <= SILENT + HEARTBEAT_EVERY, "{:?}", mesh.elapsed());
        let error = caller.call::<String>("who", ()).await.expect_err("nobody is there");
        assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));

        let mut status = one.status().await.unwrap();
        status.wait_for(|status| *status == Status::Rebinding).await.unwrap();
        mesh.mend("one");
        caller.wait_for("who", Duration::from_secs(10)).await.unwrap();
        assert_eq!(caller.call::<String>("who", ()).await.unwrap(), "one");
        assert_eq!(count.load(Ordering::Relaxed), 1, "the first call never ran");
    });
}

#[test]
fn a_way_is_cut_alone() {
    testing::run(async |mesh| {
        let (_one, caller, count) = pair(&mesh).await;
        caller.call::<String>("who", ()).await.unwrap();
        mesh.cut_to_master("one");
        let error = caller.call::<String>("who", ()).await.expect_err("no reply comes");
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
        assert_eq!(count.load(Ordering::Relaxed), 2, "it ran");
        mesh.mend("one");
        mesh.cut_from_master("one");
        let _ = caller
            .call::<String>("who", ())
            .within(Duration::from_secs(1))
            .await
            .expect_err("it does not come");
        assert_eq!(count.load(Ordering::Relaxed), 2, "it did not run");
    });
}

#[test]
fn a_branch_that_stalls_answers_when_it_goes_on() {
    testing::run(async |mesh| {
        let (_one, caller, count) = pair(&mesh).await;
        mesh.stall("one");
        let error =
            caller.call::<String>("who", ()).within(Duration::from_secs(2)).await.expect_err("it stands");
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
        assert_eq!(count.load(Ordering::Relaxed), 0);
        mesh.resume("one");
        assert_eq!(caller.call::<String>("who", ()).await.unwrap(), "one");
    });
}

#[test]
fn a_branch_that_crashes_is_gone_at_once_and_its_name_is_free() {
    testing::run(async |mesh| {
        let (one, caller, count) = pair(&mesh).await;
        mesh.crash("one").await;
        let error = caller.call::<String>("who", ()).await.expect_err("it has crashed");
        assert_eq!(error.fate(), Fate::NotSent);
        assert!(one.call::<String>("who", ()).await.is_err(), "a handle on a node that has crashed");
        mesh.bind(provider("one", &count)).await.expect("the name is free");
        assert_eq!(caller.call::<String>("who", ()).await.unwrap(), "one");
        assert_eq!(mesh.elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_crash_behind_a_cut_is_noticed_when_the_link_is_silent() {
    testing::run(async |mesh| {
        let (_one, caller, _) = pair(&mesh).await;
        mesh.cut("one");
        mesh.crash("one").await;
        let error = caller.call::<String>("who", ()).within(Duration::MAX).await.expect_err("it has crashed");
        assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
        assert!(mesh.elapsed() >= SILENT, "{:?}", mesh.elapsed());
    });
}

#[test]
fn branches_come_back_to_a_master_that_crashed() {
    testing::run(async |mesh| {
        let (_one, caller, _) = pair(&mesh).await;
        mesh.crash_master().await;
        let calling = caller.call::<String>("who", ()).within(Duration::from_secs(60));
        let returning = async {
            mesh.pass(Duration::from_secs(20)).await;
            mesh.restart_master().await;
            caller.wait_for("who", Duration::from_secs(10)).await.unwrap();
        };
        let (_, ()) = tokio::join!(calling, returning);
        assert_eq!(caller.call::<String>("who", ()).await.unwrap(), "one");
        assert_eq!(mesh.master().snapshot().await.unwrap().sessions.len(), 2);
    });
}

#[test]
fn a_reset_link_is_bound_again() {
    testing::run(async |mesh| {
        let (one, caller, _) = pair(&mesh).await;
        let mut status = one.status().await.unwrap();
        mesh.reset("one");
        status.wait_for(|status| *status == Status::Rebinding).await.unwrap();
        status.wait_for(|status| *status == Status::Bound).await.unwrap();
        assert_eq!(caller.call::<String>("who", ()).await.unwrap(), "one");
        assert!(mesh.elapsed() < Duration::from_secs(1), "{:?}", mesh.elapsed());
    });
}

#[test]
fn a_deadline_passes_in_the_time_of_the_mesh() {
    testing::run(async |mesh| {
        let stuck = BranchActor::new("stuck")
            .respond("stuck", |(): ()| std::future::pending::<Result<(), ActionError>>());
        let _stuck = mesh.bind(stuck).await.unwrap();
        let caller = mesh.bind(BranchActor::new("caller")).await.unwrap();
        let error = caller.call::<()>("stuck", ()).await.expect_err("it is stuck");
        assert_eq!((error.code(), mesh.elapsed()), (Code::REQUEST_TIMEOUT, CALL_WITHIN));
    });
}

/// A long payload fills the buffers of its link, and a reader that is cut off empties them later.
#[test]
fn a_payload_longer_than_the_buffers_of_a_link_arrives_whole() {
    testing::run(async |mesh| {
        let echo = BranchActor::new("echo").respond("len", |text: String| async move { Ok(text.len()) });
        let _echo = mesh.bind(echo).await.unwrap();
        let caller = mesh.bind(BranchActor::new("caller")).await.unwrap();
        mesh.delay("echo", Duration::from_millis(5));
        let text = "x".repeat(3_000_000);
        assert_eq!(caller.call::<usize>("len", text).await.unwrap(), 3_000_000);
    });
}

#[test]
fn one_seed_goes_one_way() {
    let drawn = |seed| {
        let setup = Setup::new().seed(seed).master(|| MasterActor::new("master").balance(Balance::Random));
        setup.run(async |mesh| {
            let count = Arc::default();
            for name in ["one", "two", "three"] {
                mesh.bind(provider(name, &count)).await.unwrap();
            }
            let caller = mesh.bind(BranchActor::new("caller")).await.unwrap();
            let mut drawn = Vec::new();
            for _ in 0..24 {
                drawn.push(caller.call::<String>("who", ()).await.unwrap());
            }
            drawn
        })
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn events_and_functions_cross_a_mesh_in_memory() {
    testing::run(async |mesh| {
        let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
        let reader = mesh.bind(BranchActor::new("reader")).await.unwrap();
        let handler = move |event: Event<u32>| {
            let _ = heard.send(event.value);
        };
        let _kept = reader.subscribe("news/*", handler).await.unwrap();
        let twice = BranchActor::new("twice").respond("twice", |function: Callback<u32, u32>| async move {
            Ok(function.call(function.call(1).await?).await?)
        });
        let _twice = mesh.bind(twice).await.unwrap();
        let caller = mesh.bind(BranchActor::new("caller")).await.unwrap();
        caller.publish("news/today", &7_u32).await.unwrap();
        assert_eq!(events.recv().await, Some(7));
        let reply: u32 = caller.call("twice", Callback::new(|number: u32| number * 10)).await.unwrap();
        assert_eq!(reply, 100);
    });
}

#[test]
fn what_handlers_are_handed_is_made_by_hand() {
    let event = testing::event_from("shop", "orders/created", 7_u32);
    assert_eq!((&*event.publisher, &*event.topic, event.value), ("shop", "orders/created", 7));
    let context = testing::context("charge");
    assert_eq!((context.action(), context.caller(), context.time_left()), ("charge", "caller", None));
    testing::run(async |mesh| {
        let context = testing::context_from("shop", "charge", Duration::from_secs(3));
        mesh.pass(Duration::from_secs(1)).await;
        assert_eq!((context.caller(), context.time_left()), ("shop", Some(Duration::from_secs(2))));
    });
}

/// A responder whose context outlives its reply, or a stream that outlives its start.
#[test]
fn a_context_that_outlives_its_reply_has_the_deadline_and_no_cancel() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const SECOND: Duration = Duration::from_secs(1);
    testing::run(async |mesh| {
        let tell = |(): (), context: CallContext| async move {
            Ok((context.traceparent().map(str::to_owned), context.time_left()))
        };
        let _teller = mesh.bind(BranchActor::new("teller").respond("tell", tell)).await.unwrap();
        let (say, mut contexts) = tokio::sync::mpsc::unbounded_channel();
        let keep = move |waits: bool, context: CallContext| {
            say.send(context).unwrap();
            async move {
                if waits {
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        };
        let middle = mesh.bind(BranchActor::new("middle").respond("keep", keep)).await.unwrap();
        let caller = mesh.bind(BranchActor::new("caller")).await.unwrap();
        for (node, waits) in [(&caller, false), (&caller, true), (&middle, false), (&middle, true)] {
            let call = node.call::<()>("keep", waits).header("traceparent", TRACE);
            call.within(SECOND).await.unwrap();
            let context = contexts.recv().await.unwrap();
            let told = || context.call::<(Option<String>, Option<Duration>)>("tell", ());
            assert_eq!(told().await, Ok((Some(TRACE.to_owned()), Some(SECOND))));
            mesh.pass(SECOND / 2).await;
            assert_eq!(told().await.unwrap().1, Some(SECOND / 2), "no cancel has come");
            mesh.pass(SECOND / 2).await;
            for late in [told().await.map(drop), context.publish("t", &1).await] {
                let late = late.expect_err("its time is over");
                assert_eq!((late.code(), late.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent));
            }
            assert!(!context.is_cancelled());
            let own = context.node().call::<(Option<String>, Option<Duration>)>("tell", ()).await;
            assert_eq!(own, Ok((None, Some(CALL_WITHIN))), "the node calls for itself");
        }
    });
}

#[test]
fn the_calls_of_a_stream_go_on_behind_the_deadline_of_its_start() {
    const SECOND: Duration = Duration::from_secs(1);
    testing::run(async |mesh| {
        let calls = |(): (), context: CallContext| async move {
            let items = futures::stream::once(async move {
                let nobody = context.node().wait_for("nobody", 2 * SECOND).await;
                assert!(nobody.is_err(), "it takes its time");
                assert_eq!(context.time_left(), Some(Duration::ZERO), "its start is long over");
                Ok::<String, ActionError>(context.call("who", ()).await?)
            });
            Ok(Streaming::of_results(items))
        };
        let (_one, caller, _) = pair(&mesh).await;
        let middle = BranchActor::new("middle").respond_all(Responders::new().respond_stream("ask", calls));
        let _middle = mesh.bind(middle).await.unwrap();
        let mut answers = caller.stream::<String>("ask", ()).within(SECOND).await.unwrap();
        assert_eq!(answers.next().await, Some(Ok("one".to_owned())));
    });
}

#[test]
fn a_responder_is_called_with_a_request_that_was_made_by_hand() {
    async fn relay((): (), context: CallContext) -> Result<String, ActionError> {
        Ok(context.call("who", ()).await?)
    }
    testing::run(async |mesh| {
        let (_one, caller, _) = pair(&mesh).await;
        let request = testing::Request::new("relay").caller("shop").header("tenant", "a");
        let context = request.clone().at(&caller).context();
        assert_eq!((context.caller(), context.header("tenant")), ("shop", Some("a")));
        assert_eq!(relay((), context.clone()).await.unwrap(), "one");
        testing::cancel(&context);
        let error = CallError::from(relay((), context).await.unwrap_err());
        assert_eq!(error.code(), Code::CANCELLED);
        let error = CallError::from(relay((), request.context()).await.unwrap_err());
        assert_eq!(error.code(), Code::LINK_LOST);
        assert!(error.message().contains("no node"), "{error}");
    });
}
