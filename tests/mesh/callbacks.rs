//! Functions as arguments: their places in values, the nodes that may call them, their lifetimes.

use crate::cut::CutDial;
use crate::{Mesh, OnDrop, soon, until_known};
use futures::StreamExt;
use meshwork::limits::{CALLBACKS_PER_CONNECTION_MAX, CALLBACKS_PER_REQUEST_MAX, IN_FLIGHT_MAX};
use meshwork::prelude::*;
use meshwork::{Encoding, Payload};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot, watch};

type Twice = Callback<u64, u64>;

fn twice() -> Twice {
    Callback::new(|number: u64| 2 * number)
}

/// Calls the callback that it gets with 1, 2 and 3.
fn three(name: &'static str) -> BranchActor {
    BranchActor::new(name).respond("three", |callback: Twice| async move {
        Ok((callback.call(1).await?, callback.call(2).await?, callback.call(3).await?))
    })
}

/// Keeps the callback that it gets until it is called again.
fn keeper(kept: &Arc<Mutex<Vec<Twice>>>) -> BranchActor {
    let (keep, drop_all) = (Arc::clone(kept), Arc::clone(kept));
    BranchActor::new("keeper")
        .respond("keep", move |callbacks: Vec<Twice>| {
            let keep = Arc::clone(&keep);
            async move {
                keep.lock().expect("it is free").extend(callbacks);
                Ok(())
            }
        })
        .respond("drop", move |(): ()| {
            let drop_all = Arc::clone(&drop_all);
            async move {
                drop_all.lock().expect("it is free").clear();
                Ok(())
            }
        })
}

/// Waits until no function is lent or borrowed at these nodes any more.
async fn until_none_is_left(nodes: &[&Node]) {
    soon(async {
        for node in nodes {
            loop {
                let snapshot = node.snapshot().await.expect("it runs");
                if snapshot.callbacks_lent == 0 && snapshot.callbacks_borrowed == 0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

#[actix::test]
async fn a_function_is_called_between_any_two_nodes() {
    let master = MasterActor::new("master").respond("at-master", |callback: Twice| async move {
        Ok((callback.call(1).await?, callback.call(2).await?, callback.call(3).await?))
    });
    let mesh = Mesh::of(master).await;
    let provider = mesh.bind(three("provider")).await;
    let caller = mesh.branch("caller").await;
    let expected = (2_u64, 4_u64, 6_u64);
    // Through the master, to the master, from the master, and within one node, without a link.
    assert_eq!(soon(caller.call("three", twice())).await, Ok(expected));
    assert_eq!(soon(caller.call("at-master", twice())).await, Ok(expected));
    assert_eq!(soon(mesh.master.call("three", twice())).await, Ok(expected));
    assert_eq!(soon(mesh.master.call("at-master", twice())).await, Ok(expected));
    assert_eq!(soon(provider.call("three", twice())).await, Ok(expected));
    until_none_is_left(&[&mesh.master, &caller, &provider]).await;
}

#[actix::test]
async fn it_works_in_every_encoding_and_at_any_depth() {
    #[derive(Serialize, Deserialize)]
    enum Deep {
        None,
        One(Twice),
        Named { by: BTreeMap<String, Vec<Option<Twice>>> },
    }
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond("deep", |deep: Vec<Deep>| async move {
        let mut sum = 0;
        for deep in deep {
            match deep {
                Deep::None => {}
                Deep::One(callback) => sum += callback.call(1).await?,
                Deep::Named { by } => {
                    for callback in by.into_values().flatten().flatten() {
                        sum += callback.call(10).await?;
                    }
                }
            }
        }
        Ok(sum)
    });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    for encoding in [Encoding::PlainBincode, Encoding::MessagePack, Encoding::Json] {
        let by =
            BTreeMap::from([("two".to_owned(), vec![None, Some(twice()), Some(Callback::new(|n: u64| n))])]);
        let deep = vec![Deep::None, Deep::One(twice()), Deep::Named { by }];
        let arguments = Payload::encode(encoding, &deep).unwrap();
        let reply = soon(caller.call_raw("deep", arguments)).await.unwrap();
        assert_eq!((reply.encoding, reply.decode::<u64>().unwrap()), (encoding, 2 + 20 + 10));
    }
}

#[actix::test]
async fn a_callback_is_passed_on_takes_callbacks_and_returns_them() {
    let mesh = Mesh::start().await;
    // The second node passes the callback that it gets on to the third node, within a callback of its own.
    let third = BranchActor::new("third").respond("third", |maker: Callback<Twice, Twice>| async move {
        let made = maker.call(Callback::new(|number: u64| number + 1)).await?;
        Ok(made.call(20).await?)
    });
    let third = mesh.bind(third).await;
    let second = mesh.bind(BranchActor::new("second")).await;
    let passing = second.clone();
    let pass_on = move |given: Twice| {
        let passing = passing.clone();
        async move {
            let maker = Callback::new(move |inner: Twice| {
                let given = given.clone();
                Callback::new_async(move |number: u64| {
                    let (given, inner) = (given.clone(), inner.clone());
                    async move { Ok(given.call(inner.call(number).await?).await?) }
                })
            });
            let made: u64 = passing.call("third", maker).await?;
            Ok(made)
        }
    };
    second.respond(Responders::new().respond("second", pass_on)).await.unwrap();
    let first = mesh.branch("first").await;
    assert_eq!(soon(first.call("second", twice())).await, Ok(42_u64));
    until_none_is_left(&[&mesh.master, &first, &second, &third]).await;
}

#[actix::test]
async fn a_function_may_be_an_async_closure_or_an_actor() {
    struct Counter(u64);
    #[derive(Message, Deserialize)]
    #[rtype(result = "Result<u64, ActionError>")]
    struct Add(u64);
    impl Actor for Counter {
        type Context = Context<Self>;
    }
    impl Handler<Add> for Counter {
        type Result = Result<u64, ActionError>;
        fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) -> Self::Result {
            self.0 += number;
            if self.0 > 5 {
                Err(ActionError::new("TooMuch", "it counts to five").with_code(1500))
            } else {
                Ok(self.0)
            }
        }
    }
    let mesh = Mesh::start().await;
    let _provider = mesh.bind(three("provider")).await;
    let caller = mesh.branch("caller").await;
    let later = Callback::new_async(async |number: u64| {
        tokio::task::yield_now().await;
        Ok(3 * number)
    });
    assert_eq!(soon(caller.call("three", later)).await, Ok((3_u64, 6_u64, 9_u64)));
    let counter = Callback::to_actor(Counter(0).start().recipient::<Add>());
    // The call fails with the error of the callback, which the responder passes on.
    let error = soon(caller.call::<(u64, u64, u64)>("three", counter)).await.unwrap_err();
    assert_eq!((error.name(), error.message()), ("TooMuch", "it counts to five"));
    assert_eq!(error.application_code(), Some(&1500.into()));
}

#[actix::test]
async fn a_panic_a_deadline_and_a_wrong_type_are_errors_of_that_call_only() {
    let mesh = Mesh::start().await;
    let provider =
        BranchActor::new("provider").respond("codes", |callback: Callback<u8, String>| async move {
            let mut codes = Vec::new();
            for number in 0..4 {
                // Printing the place of a panic may take a while, so only the call that is to time out has a short deadline.
                let within = if number == 1 { Duration::from_millis(50) } else { Duration::from_secs(10) };
                let called = callback.call(number).within(within).await;
                codes.push(called.map_err(|error| match error.application_code() {
                    Some(code) => code.to_string(),
                    None => error.code().to_string(),
                }));
            }
            Ok(codes)
        });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let callback: Callback<u8, String> = Callback::new_async(|number: u8| async move {
        match number {
            0 => panic!("as the test wants it"),
            1 => std::future::pending().await,
            2 => Err(ActionError::new("Two", "not two").with_code(1002)),
            _ => Ok("fine".to_owned()),
        }
    });
    let codes: Vec<Result<String, String>> = soon(caller.call("codes", callback)).await.unwrap();
    let expected = [Err("PANICKED"), Err("REQUEST_TIMEOUT"), Err("1002"), Ok("fine")];
    assert_eq!(codes, expected.map(|code| code.map(str::to_owned).map_err(str::to_owned)));
    let wrong: Callback<(String, String), ()> = Callback::new(|_| ());
    let codes: Vec<Result<String, String>> = soon(caller.call("codes", wrong)).await.unwrap();
    assert_eq!(codes, vec![Err("CANNOT_DECODE".to_owned()); 4]);
    until_none_is_left(&[&mesh.master, &caller, &provider]).await;
}

#[actix::test]
async fn it_lives_while_it_is_held_and_no_longer() {
    let mesh = Mesh::start().await;
    let kept = Arc::default();
    let keeper = mesh.bind(keeper(&kept)).await;
    let caller = mesh.branch("caller").await;
    let (told, dropped) = oneshot::channel();
    let guard = OnDrop(Some(told));
    let callback: Twice = Callback::new(move |number: u64| {
        let _held = &guard;
        number + 1
    });
    soon(caller.call::<()>("keep", vec![callback.clone(), callback])).await.unwrap();
    let snapshot = caller.snapshot().await.unwrap();
    assert_eq!((snapshot.callbacks_lent, snapshot.callbacks_borrowed), (2, 0));
    let snapshot = mesh.master.snapshot().await.unwrap();
    assert_eq!((snapshot.callbacks_lent, snapshot.callbacks_borrowed), (2, 2), "what it borrows, it lends");
    assert_eq!(keeper.snapshot().await.unwrap().callbacks_borrowed, 2);
    let held = kept.lock().unwrap()[0].clone();
    // The callback is called after the end of its request, from another task.
    assert_eq!(soon(held.call(6)).await, Ok(7));
    drop(held);
    soon(caller.call::<()>("drop", ())).await.unwrap();
    soon(dropped).await.expect("the closure is dropped, and says so");
    until_none_is_left(&[&mesh.master, &caller, &keeper]).await;
}

#[actix::test]
async fn what_is_said_before_a_callback_is_given_back_arrives() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond("tell", |callback: Callback<u32, ()>| async move {
        for number in 0..100 {
            callback.notify(number).await?;
        }
        Ok(())
    });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let callback = Callback::new(move |number: u32| {
        let _ = heard.send(number);
    });
    soon(caller.call::<()>("tell", callback)).await.unwrap();
    for expected in 0..100 {
        assert_eq!(soon(hearing.recv()).await, Some(expected));
    }
    assert_eq!(soon(hearing.recv()).await, None, "the closure is gone");
}

#[actix::test]
async fn a_lost_link_ends_its_callbacks_at_once() {
    let mesh = Mesh::start().await;
    let kept = Arc::default();
    let keeper = mesh.bind(keeper(&kept)).await;
    let dial = CutDial::default();
    let caller = mesh.bind(BranchActor::new("caller").dial(dial.clone())).await;
    let (told, dropped) = oneshot::channel();
    let guard = OnDrop(Some(told));
    let (start, mut started) = mpsc::unbounded_channel();
    let callback: Twice = Callback::new_async(move |number: u64| {
        let (_held, start) = (&guard, start.clone());
        async move {
            if number == 0 {
                let _ = start.send(());
                std::future::pending::<()>().await;
            }
            Ok(number)
        }
    });
    soon(caller.call::<()>("keep", vec![callback])).await.unwrap();
    let held = kept.lock().unwrap()[0].clone();
    assert_eq!(soon(held.call(5)).await, Ok(5));
    let waiting = actix_rt::spawn(held.call(0));
    soon(started.recv()).await.expect("it runs");
    dial.cut();
    let lost = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!(lost.fate(), Fate::Unknown, "{lost}");
    soon(dropped).await.expect("the closure is dropped, and says so");
    // The branch comes back, and the callback does not: it was lent over the lost link.
    dial.mend();
    until_known(&keeper, "caller", false).await;
    until_known(&keeper, "caller", true).await;
    let gone = soon(held.call(5)).await.unwrap_err();
    assert_eq!((gone.code(), gone.fate()), (Code::CALLBACK_GONE, Fate::NotSent), "{gone}");
    drop(held);
    kept.lock().unwrap().clear();
    until_none_is_left(&[&mesh.master, &keeper]).await;
}

#[actix::test]
async fn a_holder_that_is_lost_gives_everything_back() {
    let mesh = Mesh::start().await;
    let kept = Arc::default();
    let dial = CutDial::default();
    let _keeper = mesh.bind(keeper(&kept).dial(dial.clone())).await;
    let caller = mesh.branch("caller").await;
    soon(caller.call::<()>("keep", vec![twice(), twice()])).await.unwrap();
    assert_eq!(caller.snapshot().await.unwrap().callbacks_lent, 2);
    dial.cut();
    until_none_is_left(&[&caller, &mesh.master]).await;
    let held = kept.lock().unwrap()[0].clone();
    let gone = soon(held.call(1)).await.unwrap_err();
    assert_eq!((gone.code(), gone.fate()), (Code::CALLBACK_GONE, Fate::NotSent), "{gone}");
}

#[actix::test]
async fn giving_up_on_a_callback_cancels_it() {
    let mesh = Mesh::start().await;
    let provider =
        BranchActor::new("provider").respond("impatient", |callback: Callback<(), ()>| async move {
            let called = tokio::time::timeout(Duration::from_millis(50), callback.call(())).await;
            Ok(called.is_err())
        });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let (told, dropped) = oneshot::channel();
    let guard = Mutex::new(Some(OnDrop(Some(told))));
    let callback: Callback<(), ()> = Callback::new_async(move |()| {
        let guard = guard.lock().expect("it is free").take();
        async move {
            let _held = guard;
            std::future::pending().await
        }
    });
    let held = callback.clone();
    assert_eq!(soon(caller.call("impatient", callback)).await, Ok(true));
    soon(dropped).await.expect("its future is dropped");
    drop(held);
}

#[actix::test]
async fn a_request_that_reaches_nobody_gives_its_callbacks_back() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond("number", |number: u64| async move { Ok(number) });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let error = soon(caller.call::<u64>("none", twice())).await.unwrap_err();
    assert_eq!(error.code(), Code::ACTION_NOT_FOUND);
    let error = soon(caller.call::<u64>("number", ("text", twice()))).await.unwrap_err();
    assert_eq!(error.code(), Code::CANNOT_DECODE);
    until_none_is_left(&[&caller, &mesh.master, &provider]).await;
}

#[actix::test]
async fn too_many_callbacks_are_refused_at_the_caller() {
    let mesh = Mesh::start().await;
    let kept = Arc::default();
    let keeper = mesh.bind(keeper(&kept)).await;
    let caller = mesh.branch("caller").await;
    let callback = twice();
    let passed = |count| vec![callback.clone(); count];
    let error = soon(caller.call::<()>("keep", passed(CALLBACKS_PER_REQUEST_MAX + 1))).await.unwrap_err();
    assert_eq!((error.code(), error.fate()), (Code::CANNOT_ENCODE, Fate::NotSent));
    assert!(error.message().contains("65 functions are passed, and 64 may be"), "{error}");
    for _ in 0..CALLBACKS_PER_CONNECTION_MAX / CALLBACKS_PER_REQUEST_MAX {
        soon(caller.call::<()>("keep", passed(CALLBACKS_PER_REQUEST_MAX))).await.unwrap();
    }
    let error = soon(caller.call::<()>("keep", passed(1))).await.unwrap_err();
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    assert!(error.message().contains("callbacks are lent over this link already"), "{error}");
    soon(caller.call::<()>("drop", ())).await.unwrap();
    until_none_is_left(&[&caller, &mesh.master, &keeper]).await;
    soon(caller.call::<()>("keep", passed(1))).await.unwrap();
}

#[actix::test]
async fn an_event_carries_no_callbacks() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("branch").await;
    let error = soon(branch.publish("topic", &twice())).await.unwrap_err();
    assert_eq!((error.code(), error.fate()), (Code::CANNOT_ENCODE, Fate::NotSent));
}

#[actix::test]
async fn a_stream_goes_as_fast_as_the_far_side_takes_it() {
    const AT_ONCE: usize = 4;
    const ITEMS: u64 = 200;
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond("stream", |each: Callback<u64, ()>| async move {
        Ok(each.feed(futures::stream::iter(0..ITEMS), AT_ONCE).await?)
    });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let (counted, highest) = (Arc::clone(&now), Arc::clone(&most));
    let each = Callback::new_async(move |number: u64| {
        let (counted, highest, heard) = (Arc::clone(&counted), Arc::clone(&highest), heard.clone());
        async move {
            highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let _ = heard.send(number);
            counted.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    assert_eq!(soon(caller.call("stream", each)).await, Ok(ITEMS));
    assert!((1..=AT_ONCE).contains(&most.load(Ordering::SeqCst)), "{most:?} at once");
    until_none_is_left(&[&mesh.master, &caller, &provider]).await;
    let heard: Vec<_> = futures::stream::poll_fn(|context| hearing.poll_recv(context)).collect().await;
    assert_eq!(heard, (0..ITEMS).collect::<Vec<_>>());
}

/// A function among the arguments of a trait's method, at both of its ends.
#[meshwork::actions(prefix = "files")]
trait Files {
    async fn import(&self, path: String, progress: Callback<u8, ()>) -> Result<usize, ActionError>;
}

struct Disk;

impl Files for Disk {
    async fn import(&self, path: String, progress: Callback<u8, ()>) -> Result<usize, ActionError> {
        progress.call(100).await?;
        Ok(path.len())
    }
}

#[actix::test]
async fn a_trait_passes_functions_and_describes_them() {
    let mesh = Mesh::start().await;
    let _provider = mesh.bind(BranchActor::new("provider").respond_all(Disk.into_responders())).await;
    let caller = mesh.branch("caller").await;
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let progress = Callback::new(move |percent: u8| heard.send(percent).unwrap_or_default());
    assert_eq!(soon(FilesRequester::new(&caller).import("a.csv".to_owned(), progress)).await, Ok(5));
    assert_eq!(soon(hearing.recv()).await, Some(100));
    let described = soon(caller.describe("files/import")).await.unwrap();
    assert!(described[0].shape.as_ref().expect("it has one").arguments.contains("$callback"));
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is there");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

#[cfg(target_os = "linux")]
#[actix::test]
async fn a_hundred_thousand_calls_with_a_callback_leave_nothing() {
    const CALLS: usize = 100_000;
    const AT_ONCE: usize = 500;
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider")
        .respond("once", |callback: Twice| async move { Ok(callback.call(21).await?) });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let mut after_a_tenth = 0;
    for round in 0..CALLS / AT_ONCE {
        let calls = caller.call_many::<u64>("once", (0..AT_ONCE).map(|_| twice()));
        assert!(soon(calls).await.into_iter().all(|reply| reply == Ok(42)));
        if round == CALLS / AT_ONCE / 10 {
            after_a_tenth = resident_kib();
        }
    }
    until_none_is_left(&[&mesh.master, &caller, &provider]).await;
    let more = resident_kib().saturating_sub(after_a_tenth);
    // A leak of one allocation of 64 bytes a call would be 5,600 KiB.
    assert!(more < 4_096, "{more} KiB more than after a tenth of the calls");
}

#[actix::test]
async fn whoever_notifies_a_function_of_its_own_process_does_not_wait_either() {
    let mesh = Mesh::start().await;
    let (done, waits) = oneshot::channel::<()>();
    let (called, mut calls) = mpsc::unbounded_channel();
    let waits = Arc::new(Mutex::new(Some(waits)));
    let callback: Callback<u64, u64> = Callback::new_async(move |number: u64| {
        let (waits, called) = (waits.lock().expect("it is free").take(), called.clone());
        async move {
            if let Some(waits) = waits {
                let _ = waits.await;
            }
            let _ = called.send(number);
            Ok(number)
        }
    });
    let own = BranchActor::new("own").respond("own", |callback: Callback<u64, ()>| async move {
        callback.notify(1).await?;
        // The caller does not wait for the return value of a dnode function.
        callback.call(2).await?;
        Ok(())
    });
    let own = mesh.bind(own).await;
    assert_eq!(soon(own.call("own", callback)).await, Ok(()));
    assert_eq!(soon(calls.recv()).await, Some(2));
    done.send(()).expect("it waits");
    assert_eq!(soon(calls.recv()).await, Some(1), "it went on by itself");
}

#[actix::test]
async fn notifications_of_a_function_of_its_own_process_that_are_not_done_are_bounded() {
    let (open, opened) = watch::channel(false);
    let callback: Callback<(), ()> = Callback::new_async(move |()| {
        let mut opened = opened.clone();
        async move {
            let _ = opened.wait_for(|open| *open).await;
            Ok(())
        }
    });
    for _ in 0..IN_FLIGHT_MAX {
        assert_eq!(callback.notify(()).await, Ok(()));
    }
    let refused = callback.notify(()).await.unwrap_err();
    assert_eq!((refused.code(), refused.fate()), (Code::OVERLOADED, Fate::NotSent));
    open.send(true).expect("they wait for it");
    soon(async {
        while callback.notify(()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
