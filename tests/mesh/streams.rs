//! Streams, as replies and as arguments: between any two nodes, in any encoding, no faster than they are read, and ended once, with the truth.

use crate::cut::CutDial;
use crate::in_flight::elsewhere;
use crate::raw::RawBranch;
use crate::{Mesh, OnDrop, soon, until_known};
use futures::{FutureExt, Stream, StreamExt, stream};
use meshwork::limits::{STREAM_GRANTED_LEN_MAX, STREAM_WINDOW_ITEMS_START, STREAM_WINDOW_LEN_START};
use meshwork::prelude::*;
use meshwork::{ByteBuf, Encoding, Limits, NobodyReads, Payload};
use meshwork_wire::{
    Accepts, Bind, CallbackId, ExtendedBind, Features, Frame, Grant, Granted, Item, Offer, OpenStream,
    Request,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Answers with the numbers from 1 on.
fn counter(name: &'static str) -> BranchActor {
    BranchActor::new(name)
        .respond_stream("count", |to: u32| async move { Ok(Streaming::new(stream::iter(1..=to))) })
}

/// Answers with an endless stream of numbers, and counts those that were made.
fn endless(made: &Arc<AtomicUsize>) -> impl Stream<Item = usize> + Send + use<> {
    let made = Arc::clone(made);
    stream::repeat_with(move || made.fetch_add(1, Ordering::Relaxed))
}

/// A stream that gives one number, and nothing more; and what is told when it is dropped.
fn pending() -> (impl Stream<Item = u32> + Send, oneshot::Receiver<()>) {
    let (tell, dropped) = oneshot::channel();
    let on_drop = OnDrop(Some(tell));
    let rest = stream::poll_fn(move |_| {
        let _kept = &on_drop;
        std::task::Poll::Pending
    });
    (stream::iter([1]).chain(rest), dropped)
}

/// Answers with streams that never end; says when each is dropped.
fn never_ending(name: &'static str) -> (BranchActor, mpsc::UnboundedReceiver<oneshot::Receiver<()>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let branch = BranchActor::new(name).respond_stream("never", move |(): ()| {
        let (items, dropped) = pending();
        let _ = tell.send(dropped);
        async move { Ok(Streaming::new(items)) }
    });
    (branch, told)
}

async fn all<T>(mut items: Streaming<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(item) = soon(items.next()).await {
        all.push(item.expect("it is an item"));
    }
    assert!(items.next().await.is_none(), "it has ended");
    all
}

async fn is_told_dropped(dropped: oneshot::Receiver<()>) {
    soon(dropped).await.expect("it is told");
}

/// Waits until no request, no stream and no function is left at these nodes.
async fn until_nothing_is_left(nodes: &[&Node]) {
    soon(async {
        for node in nodes {
            loop {
                let snapshot = node.snapshot().await.expect("it runs");
                let sessions = snapshot.sessions.iter().map(|session| session.in_flight).sum::<usize>();
                let functions = snapshot.callbacks_lent + snapshot.callbacks_borrowed;
                if snapshot.answering + snapshot.calls_in_flight + sessions + functions == 0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

/// Waits until so many requests to one branch are in flight.
async fn until_in_flight(mesh: &Mesh, count: usize) {
    soon(async {
        let sessions = || async { mesh.master.snapshot().await.expect("it runs").sessions };
        while sessions().await.iter().all(|session| session.in_flight != count) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[actix::test]
async fn a_stream_is_read_between_any_two_nodes() {
    let at_master = MasterActor::new("master")
        .respond_stream("at-master", |to: u32| async move { Ok(Streaming::new(stream::iter(1..=to))) });
    let mesh = Mesh::of(at_master).await;
    let provider = mesh.bind(counter("provider")).await;
    let caller = mesh.branch("caller").await;
    let expected: Vec<u32> = (1..=5_000).collect();
    // Through the master, to the master, from the master, and within one node, without a link.
    let ways: [(&Node, &str); 5] = [
        (&caller, "count"),
        (&caller, "at-master"),
        (&mesh.master, "count"),
        (&mesh.master, "at-master"),
        (&provider, "count"),
    ];
    for (node, action) in ways {
        assert_eq!(
            all(soon(node.stream::<u32>(action, 5_000).into_future()).await.unwrap()).await,
            expected,
            "{action}"
        );
        assert_eq!(
            all(soon(node.stream::<u32>(action, 0).into_future()).await.unwrap()).await,
            [] as [u32; 0]
        );
    }
    until_nothing_is_left(&[&caller, &provider, &mesh.master]).await;
}

#[actix::test]
async fn a_stream_is_asked_for_with_headers_between_any_two_nodes() {
    let tenant = |(): (), context: CallContext| async move {
        let tenant = context.header("tenant").map(str::to_owned);
        Ok(Streaming::new(stream::iter([tenant])))
    };
    let mesh = Mesh::of(MasterActor::new("master").respond_stream("at-master", tenant)).await;
    let provider = mesh.bind(BranchActor::new("provider").respond_stream("tenant", tenant)).await;
    // While there is another provider, the master keeps the request.
    let _other = mesh.bind(BranchActor::new("other").respond_stream("tenant", tenant)).await;
    let caller = mesh.branch("caller").await;
    let ways: [(&Node, &str); 5] = [
        (&caller, "tenant"),
        (&caller, "at-master"),
        (&mesh.master, "tenant"),
        (&mesh.master, "at-master"),
        (&provider, "tenant"),
    ];
    for (node, action) in ways {
        let opening = || node.stream::<Option<String>>(action, ());
        let tenants = soon(opening().header("tenant", "a").into_future()).await.unwrap();
        assert_eq!(all(tenants).await, [Some("a".to_owned())], "{action}");
        assert_eq!(all(soon(opening().into_future()).await.unwrap()).await, [None], "{action}");
        let error = soon(opening().header("no header", "a").into_future()).await.expect_err("a bad name");
        assert_eq!((error.code(), error.fate()), (Code::BAD_NAME, Fate::NotSent));
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Line {
    number: u32,
    text: Option<String>,
}

#[meshwork::actions(prefix = "log")]
trait Log {
    async fn tail(&self, from: u32, context: CallContext) -> Result<Streaming<Line>, ActionError>;
}

struct Here;

impl Log for Here {
    async fn tail(&self, from: u32, context: CallContext) -> Result<Streaming<Line>, ActionError> {
        if from > 10 {
            return Err(ActionError::new("TooFar", "there are ten lines"));
        }
        let text = Some(context.caller().to_owned());
        Ok(Streaming::new(stream::iter(from..10).map(move |number| Line { number, text: text.clone() })))
    }
}

#[actix::test]
async fn items_are_written_as_the_arguments_were() {
    let mesh = Mesh::start().await;
    let _provider = mesh.bind(BranchActor::new("log").respond_all(Here.into_responders())).await;
    let caller = mesh.branch("caller").await;
    until_known(&caller, "log", true).await;
    let expected: Vec<_> = (8..10).map(|number| Line { number, text: Some("caller".to_owned()) }).collect();
    let typed = LogRequester::new(&caller);
    assert_eq!(all(soon(typed.tail(8).into_future()).await.unwrap()).await, expected);
    assert_eq!(
        all(soon(caller.stream::<Line>("log/tail", (8,)).into_future()).await.unwrap()).await,
        expected
    );
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let arguments = Payload::encode(encoding, &(9,)).unwrap();
        let items = all(soon(caller.stream_raw("log/tail", arguments).into_future()).await.unwrap()).await;
        assert_eq!(items[0].encoding, encoding);
        assert_eq!(items[0].decode::<Line>().unwrap(), expected[1]);
    }
    let refused = soon(typed.tail(11).into_future()).await.expect_err("it is too far");
    assert_eq!((refused.name(), refused.fate()), ("TooFar", Fate::Failed));
}

#[derive(Serialize, Deserialize)]
struct Upload {
    name: String,
    parts: Vec<Feed<u32>>,
}

fn sums<A: Respond>(node: A, action: &'static str) -> A {
    node.respond(action, |upload: Upload| async move {
        let mut sum = 0_u64;
        for mut part in upload.parts {
            while let Some(number) = part.next().await {
                sum += u64::from(number?);
            }
        }
        Ok((upload.name, sum))
    })
}

#[actix::test]
async fn a_feed_goes_from_any_caller_to_any_responder() {
    let mesh = Mesh::of(sums(MasterActor::new("master"), "at-master")).await;
    let provider = mesh.bind(sums(BranchActor::new("provider"), "sum")).await;
    let caller = mesh.branch("caller").await;
    let ways: [(&Node, &str); 5] = [
        (&caller, "sum"),
        (&caller, "at-master"),
        (&mesh.master, "sum"),
        (&mesh.master, "at-master"),
        (&provider, "sum"),
    ];
    for (node, action) in ways {
        let (sender, sent) = Feed::channel(1);
        actix_rt::spawn(async move {
            for number in 0..1_000 {
                sender.send(number).await.expect("it is read");
            }
        });
        let upload = Upload { name: action.to_owned(), parts: vec![Feed::new(stream::iter(0..1_000)), sent] };
        let reply = soon(node.call::<(String, u64)>(action, upload)).await;
        assert_eq!(reply, Ok((action.to_owned(), 2 * 499_500)));
    }
    until_nothing_is_left(&[&caller, &provider, &mesh.master]).await;
}

#[actix::test]
async fn a_feed_that_is_passed_on_unread_is_read_by_the_third_node() {
    let mesh = Mesh::start().await;
    let summing = mesh.bind(sums(BranchActor::new("summing"), "sum")).await;
    let between = BranchActor::new("between");
    let node = mesh.branch("caller of between").await;
    let passing = mesh
        .bind(between.respond("pass", move |upload: Upload| {
            let node = node.clone();
            async move { Ok(node.call::<(String, u64)>("sum", upload).await?) }
        }))
        .await;
    let caller = mesh.branch("caller").await;
    let upload = Upload { name: "a".to_owned(), parts: vec![Feed::new(stream::iter(0..2_000))] };
    assert_eq!(soon(caller.call("pass", upload)).await, Ok(("a".to_owned(), 1_999_000_u64)));
    until_nothing_is_left(&[&caller, &summing, &passing, &mesh.master]).await;
}

#[actix::test]
async fn a_feed_can_stand_in_a_reply_and_is_read_once() {
    let mesh = Mesh::start().await;
    let _provider = mesh
        .bind(BranchActor::new("provider").respond("pair", |(): ()| async move {
            Ok((2_u64, Feed::new(stream::iter(["a", "b"].map(String::from)))))
        }))
        .await;
    let caller = mesh.branch("caller").await;
    let (count, mut items): (u64, Feed<String>) = soon(caller.call("pair", ())).await.unwrap();
    let mut read = Vec::new();
    while let Some(item) = soon(items.next()).await {
        read.push(item.unwrap());
    }
    assert_eq!((count, read), (2, vec!["a".to_owned(), "b".to_owned()]));
    assert!(items.next().await.is_none());
    let again = caller.call::<()>("pair", items).await.expect_err("it was read");
    assert_eq!((again.code(), again.fate()), (Code::CANNOT_ENCODE, Fate::NotSent));
}

#[actix::test]
async fn a_function_is_no_stream_and_a_stream_is_no_function() {
    let mesh = Mesh::start().await;
    let _provider = mesh
        .bind(
            BranchActor::new("provider")
                .respond("read", |mut items: Feed<u32>| async move {
                    items.next().await.expect("an error").map_err(ActionError::from)
                })
                .respond("call", |function: Callback<(), u32>| async move { Ok(function.call(()).await?) }),
        )
        .await;
    let caller = mesh.branch("caller").await;
    for (action, error) in [
        ("read", soon(caller.call::<u32>("read", Callback::new(|(): ()| 7_u32))).await),
        ("call", soon(caller.call::<u32>("call", Feed::new(stream::iter([7_u32])))).await),
    ] {
        assert_eq!(error.expect_err(action).code(), Code::CANNOT_DECODE, "{action}");
    }
}

#[actix::test]
async fn nothing_is_made_faster_than_it_is_read() {
    let mesh = Mesh::start().await;
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let provider = BranchActor::new("provider").respond_stream("endless", move |(): ()| {
        let items = endless(&counted);
        async move { Ok(Streaming::new(items)) }
    });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let ways: [(&Node, usize); 3] = [(&caller, 10), (&mesh.master, 10), (&provider, 10)];
    for (node, read) in ways {
        made.store(0, Ordering::Relaxed);
        let mut items = soon(node.stream::<usize>("endless", ()).into_future()).await.unwrap();
        // Answers to these come behind all that was sent meanwhile.
        for _ in 0..20 {
            soon(caller.describe("**")).await.unwrap();
            soon(provider.describe("**")).await.unwrap();
        }
        let at_first = made.load(Ordering::Relaxed);
        assert!(at_first <= STREAM_WINDOW_ITEMS_START as usize, "{at_first}");
        for number in 0..read {
            assert_eq!(soon(items.next()).await, Some(Ok(number)));
        }
        assert_eq!(made.load(Ordering::Relaxed), at_first, "so few items make no difference");
        for number in read..20_000 {
            assert_eq!(soon(items.next()).await, Some(Ok(number)));
        }
    }
}

#[actix::test]
async fn an_item_of_any_length_passes_a_window_of_any_length() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond_stream("long", |lens: Vec<usize>| async move {
        Ok(Streaming::new(stream::iter(lens).map(|len| ByteBuf::from(vec![7; len]))))
    });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let lens = vec![0, 1, 20_000, 3_000_000, 16_383, 16_384, 64 * 1024, 0, 1_000_000, 5];
    for window in [1, 4_096, u32::MAX] {
        let opening = caller.stream::<ByteBuf>("long", &lens).window(window);
        let items = all(soon(opening.into_future()).await.unwrap()).await;
        assert_eq!(items.iter().map(|item| item.len()).collect::<Vec<_>>(), lens);
    }
    let too_long = vec![1, 17 * 1024 * 1024];
    let mut items = soon(caller.stream::<ByteBuf>("long", too_long).into_future()).await.unwrap();
    assert_eq!(soon(items.next()).await.unwrap().unwrap().len(), 1, "those before it leave");
    let error = soon(items.next()).await.unwrap().expect_err("no frame is so long");
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::Failed));
    assert!(items.next().await.is_none());
}

#[actix::test]
async fn dropping_a_stream_drops_that_of_its_responder() {
    let mesh = Mesh::start().await;
    let (provider, mut asked) = never_ending("provider");
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let ways: [&Node; 3] = [&caller, &mesh.master, &provider];
    for node in ways {
        let mut items = soon(node.stream::<u32>("never", ()).into_future()).await.unwrap();
        assert_eq!(soon(items.next()).await, Some(Ok(1)));
        drop(items);
        is_told_dropped(soon(asked.recv()).await.unwrap()).await;
        // One that nothing was read of.
        drop(soon(node.stream::<u32>("never", ()).into_future()).await.unwrap());
        is_told_dropped(soon(asked.recv()).await.unwrap()).await;
    }
    until_nothing_is_left(&[&caller, &provider, &mesh.master]).await;
}

#[actix::test]
async fn dropping_a_feed_drops_the_stream_of_its_caller_and_its_sender_hears_it() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider")
        .respond("unread", |_: Feed<u32>| async move { Ok(()) })
        .respond("one", |mut items: Feed<u32>| async move {
            items.next().await.expect("there is one").map_err(ActionError::from)
        });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    for node in [&caller as &Node, &mesh.master, &provider] {
        let (items, dropped) = pending();
        assert_eq!(soon(node.call("unread", Feed::new(items))).await, Ok(()));
        is_told_dropped(dropped).await;
        let (items, dropped) = pending();
        assert_eq!(soon(node.call("one", Feed::new(items))).await, Ok(1_u32));
        is_told_dropped(dropped).await;
        let (sender, items) = Feed::channel(4);
        sender.send(7_u32).await.unwrap();
        assert_eq!(soon(node.call("one", items)).await, Ok(7_u32));
        soon(sender.closed()).await;
        assert_eq!(sender.send(8).await, Err(NobodyReads(8)));
    }
    until_nothing_is_left(&[&caller, &provider, &mesh.master]).await;
}

#[actix::test]
async fn a_stream_ends_once_with_the_error_of_its_responder_or_its_panic() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider")
        .respond_stream("fails", |(): ()| async move {
            let items = [Ok(1), Err(ActionError::new("Broken", "no paper")), Ok(2)];
            Ok(stream::iter(items))
        })
        .respond_stream("panics", |(): ()| async move {
            Ok(Streaming::new(stream::iter([1, 2]).map(|number| {
                assert!(number < 2, "no more");
                number
            })))
        })
        .respond_stream("sent", |(): ()| async move {
            let (sender, items) = Streaming::channel(2);
            sender.send(1).await.unwrap();
            sender.fail(ActionError::new("Broken", "no paper")).await;
            Ok(items)
        });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    for node in [&caller as &Node, &mesh.master, &provider] {
        for (action, name) in [("fails", "Broken"), ("panics", "PANICKED"), ("sent", "Broken")] {
            let mut items = soon(node.stream::<u32>(action, ()).into_future()).await.unwrap();
            assert_eq!(soon(items.next()).await, Some(Ok(1)));
            let error = soon(items.next()).await.unwrap().expect_err(action);
            assert_eq!((error.name(), error.fate()), (name, Fate::Failed));
            assert!(items.next().await.is_none() && items.next().await.is_none());
        }
    }
}

#[actix::test]
async fn a_stream_that_does_not_begin_fails_as_a_call_does() {
    let mesh = Mesh::start().await;
    let provider = counter("provider")
        .respond("one value", |(): ()| async move { Ok(7_u32) })
        .respond_stream("late", |(): ()| std::future::pending::<Result<Streaming<u32>, ActionError>>());
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let error = |error: Result<Streaming<u32>, CallError>| {
        let error = error.expect_err("it does not begin");
        (error.code(), error.fate())
    };
    for node in [&caller as &Node, &mesh.master, &provider] {
        let nowhere = soon(node.stream::<u32>("nowhere", ()).into_future()).await;
        assert_eq!(error(nowhere), (Code::ACTION_NOT_FOUND, Fate::NotSent));
        let one = soon(node.stream::<u32>("one value", ()).into_future()).await;
        assert_eq!(error(one), (Code::CANNOT_DECODE, Fate::NotSent));
        let wrong = soon(node.stream::<u32>("count", "text").into_future()).await;
        assert_eq!(error(wrong).0, Code::CANNOT_DECODE);
        let late = node.stream::<u32>("late", ()).within(Duration::from_millis(30));
        assert_eq!(error(soon(late.into_future()).await), (Code::REQUEST_TIMEOUT, Fate::Unknown));
        let called = soon(node.call::<u32>("count", 3)).await.expect_err("it is a stream");
        assert_eq!((called.code(), called.fate()), (Code::CANNOT_DECODE, Fate::NotSent));
        assert!(called.message().contains("read it with `stream`"), "{called}");
    }
    until_nothing_is_left(&[&caller, &provider, &mesh.master]).await;
}

#[actix::test]
async fn the_deadline_is_that_of_the_start_unless_the_whole_stream_has_one() {
    let mesh = Mesh::start().await;
    let (provider, mut asked) = never_ending("provider");
    let provider = mesh
        .bind(provider.respond("silent", |(): ()| std::future::pending::<Result<(), ActionError>>()))
        .await;
    let caller = mesh.branch("caller").await;
    for node in [&caller as &Node, &mesh.master, &provider] {
        let opening = node.stream::<u32>("never", ()).within(Duration::from_millis(200));
        let mut items = soon(opening.into_future()).await.unwrap();
        let dropped = soon(asked.recv()).await.unwrap();
        assert_eq!(soon(items.next()).await, Some(Ok(1)));
        // The deadline passes meanwhile, at every node.
        let silent = node.call::<()>("silent", ()).within(Duration::from_millis(400));
        assert_eq!(soon(silent).await.unwrap_err().code(), Code::REQUEST_TIMEOUT);
        assert!(items.next().now_or_never().is_none(), "it goes on");
        drop(items);
        is_told_dropped(dropped).await;

        let opening = node.stream::<u32>("never", ()).whole_within(Duration::from_millis(200));
        let mut items = soon(opening.into_future()).await.unwrap();
        assert_eq!(soon(items.next()).await, Some(Ok(1)));
        let error = soon(items.next()).await.unwrap().unwrap_err();
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
        assert!(items.next().await.is_none());
        is_told_dropped(soon(asked.recv()).await.unwrap()).await;
    }
}

#[actix::test]
async fn a_provider_that_dies_ends_its_streams_and_those_who_read_hear_it() {
    let mesh = Mesh::start().await;
    let dial = CutDial::default();
    let (provider, mut asked) = never_ending("provider");
    let provider = mesh.bind(provider.dial(dial.clone())).await;
    let caller = mesh.branch("caller").await;
    for node in [&caller as &Node, &mesh.master] {
        let mut items = soon(node.stream::<u32>("never", ()).into_future()).await.unwrap();
        assert_eq!(soon(items.next()).await, Some(Ok(1)));
        dial.cut();
        let error = soon(items.next()).await.unwrap().unwrap_err();
        assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
        assert!(items.next().await.is_none());
        is_told_dropped(soon(asked.recv()).await.unwrap()).await;
        dial.mend();
        soon(node.wait_for("never", Duration::from_secs(5))).await.unwrap();
    }
    until_nothing_is_left(&[&caller, &provider, &mesh.master]).await;
}

#[actix::test]
async fn a_reader_that_loses_its_link_hears_it_behind_the_items_that_came() {
    let mesh = Mesh::start().await;
    let (provider, mut asked) = never_ending("provider");
    let provider = mesh.bind(provider).await;
    let dial = CutDial::default();
    let caller = mesh.bind(BranchActor::new("caller").dial(dial.clone())).await;
    let mut items = soon(caller.stream::<u32>("never", ()).into_future()).await.unwrap();
    // The item is there when the answer to a later question is.
    soon(caller.describe("**")).await.unwrap();
    soon(provider.describe("**")).await.unwrap();
    soon(caller.describe("**")).await.unwrap();
    dial.cut();
    is_told_dropped(soon(asked.recv()).await.unwrap()).await;
    assert_eq!(soon(items.next()).await, Some(Ok(1)));
    let error = soon(items.next()).await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::Unknown));
    assert!(items.next().await.is_none());
}

#[actix::test]
async fn a_feed_ends_with_either_link() {
    let mesh = Mesh::start().await;
    let dial = CutDial::default();
    let (tell, mut ended) = mpsc::unbounded_channel();
    let provider = BranchActor::new("provider").respond("read", move |mut items: Feed<u32>| {
        let tell = tell.clone();
        actix_rt::spawn(async move {
            let mut last = None;
            while let Some(item) = items.next().await {
                last = Some(item);
            }
            let _ = tell.send(last);
        });
        async { Ok(()) }
    });
    let _provider = mesh.bind(provider.dial(dial.clone())).await;
    let cut = CutDial::default();
    let caller = mesh.bind(BranchActor::new("caller").dial(cut.clone())).await;
    for dial in [&dial, &cut] {
        soon(caller.wait_for("read", Duration::from_secs(5))).await.unwrap();
        let (items, dropped) = pending();
        assert_eq!(soon(caller.call("read", Feed::new(items))).await, Ok(()));
        // It has been opened when its first item has come; then the cut ends it.
        dial.cut();
        is_told_dropped(dropped).await;
        let last = soon(ended.recv()).await.unwrap().expect("an item, or why there is none");
        if let Err(error) = last {
            assert!(
                [Code::LINK_LOST, Code::PROVIDER_LOST, Code::CALLBACK_GONE].contains(&error.code()),
                "{error}"
            );
        } else {
            panic!("the error is the last that is heard");
        }
        dial.mend();
    }
}

#[actix::test]
async fn a_drain_waits_for_streams_and_no_longer_than_it_may() {
    let mesh = Mesh::start().await;
    let caller = mesh.branch("caller").await;
    let (finish, mut senders) = mpsc::unbounded_channel();
    let sending = |name: &'static str| {
        let finish = finish.clone();
        BranchActor::new(name).respond_stream("sent", move |(): ()| {
            let (sender, items) = Streaming::<u32>::channel(4);
            let _ = finish.send(sender);
            async move { Ok(items) }
        })
    };
    let provider = mesh.bind(sending("provider")).await;
    let items = soon(caller.stream::<u32>("sent", ()).into_future()).await.unwrap();
    let sender = soon(senders.recv()).await.unwrap();
    let draining = actix_rt::spawn(async move { provider.drain(Duration::MAX).await });
    soon(async {
        while caller.stream::<u32>("sent", ()).await.is_ok() {
            senders.recv().await;
        }
    })
    .await;
    sender.send(5).await.unwrap();
    drop(sender);
    assert_eq!(all(items).await, [5]);
    let drained = soon(draining).await.unwrap().unwrap();
    assert_eq!(drained.abandoned, 0, "{drained:?}");

    let provider = mesh.bind(sending("another")).await;
    let mut items = soon(caller.stream::<u32>("sent", ()).into_future()).await.unwrap();
    let sender = soon(senders.recv()).await.unwrap();
    let drained = soon(provider.drain(Duration::from_millis(50))).await.unwrap();
    assert_eq!(drained.abandoned, 1, "{drained:?}");
    soon(sender.closed()).await;
    let error = soon(items.next()).await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
}

#[actix::test]
async fn a_master_that_drains_ends_the_streams_that_do_not_end_themselves() {
    let mesh = Mesh::start().await;
    let (provider, mut asked) = never_ending("provider");
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let mut items = soon(caller.stream::<u32>("never", ()).into_future()).await.unwrap();
    let mut short = soon(mesh.master.stream::<u32>("never", ()).into_future()).await.unwrap();
    assert_eq!(soon(items.next()).await, Some(Ok(1)));
    let drained = soon(mesh.master.drain(Duration::from_millis(50))).await.unwrap();
    assert_eq!(drained.abandoned + drained.finished, 2, "{drained:?}");
    let error = soon(items.next()).await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::Unknown));
    assert_eq!(soon(short.next()).await, Some(Ok(1)));
    assert_eq!(soon(short.next()).await.unwrap().unwrap_err().fate(), Fate::Unknown);
    for _ in 0..2 {
        is_told_dropped(soon(asked.recv()).await.unwrap()).await;
    }
}

#[actix::test]
async fn a_stream_holds_its_permit_until_it_ends() {
    let mesh = Mesh::start().await;
    let (tell, mut asked) = mpsc::unbounded_channel();
    let responders = Responders::new()
        .respond_stream("one at a time", move |(): ()| {
            let (items, dropped) = pending();
            let _ = tell.send(dropped);
            async move { Ok(Streaming::new(items)) }
        })
        .permits_with_queue("one at a time", 1, 1);
    let _provider = mesh.bind(BranchActor::new("provider").respond_all(responders)).await;
    let caller = mesh.branch("caller").await;
    let first = soon(caller.stream::<u32>("one at a time", ()).into_future()).await.unwrap();
    let mut second = caller.stream::<u32>("one at a time", ()).into_future();
    assert!(futures::poll!(&mut second).is_pending());
    until_in_flight(&mesh, 2).await;
    assert!(futures::poll!(&mut second).is_pending(), "it waits for the permit of the first");
    drop(first);
    is_told_dropped(soon(asked.recv()).await.unwrap()).await;
    let mut second = soon(second).await.unwrap();
    assert_eq!(soon(second.next()).await, Some(Ok(1)));
}

#[actix::test]
async fn functions_and_streams_travel_in_items() {
    let mesh = Mesh::start().await;
    let provider =
        BranchActor::new("provider").respond_stream("functions", |(): ()| async move {
            Ok(Streaming::new(stream::iter(0..3_u32).map(|number| {
                (Callback::new(move |(): ()| number), Feed::new(stream::iter([number, number])))
            })))
        });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    for node in [&caller as &Node, &mesh.master, &provider] {
        let mut items =
            soon(node.stream::<(Callback<(), u32>, Feed<u32>)>("functions", ()).into_future()).await.unwrap();
        for number in 0..3 {
            let (function, mut feed) = soon(items.next()).await.unwrap().unwrap();
            assert_eq!(soon(function.call(())).await, Ok(number));
            assert_eq!(soon(feed.next()).await, Some(Ok(number)));
        }
        assert!(soon(items.next()).await.is_none());
    }
    until_nothing_is_left(&[&caller, &provider, &mesh.master]).await;
}

#[actix::test]
async fn a_responder_passes_on_the_stream_of_another() {
    let mesh = Mesh::start().await;
    let _counter = mesh.bind(counter("counter")).await;
    let node = mesh.branch("reader").await;
    let doubling = BranchActor::new("doubling").respond_stream("double", move |to: u32| {
        let node = node.clone();
        async move { Ok(node.stream::<u32>("count", to).await?.map(|number| number.map(|number| 2 * number))) }
    });
    let _doubling = mesh.bind(doubling).await;
    let caller = mesh.branch("caller").await;
    let items = soon(caller.stream::<u32>("double", 3_000).into_future()).await.unwrap();
    assert_eq!(all(items).await, (1..=3_000).map(|number| 2 * number).collect::<Vec<_>>());
}

/// Binds a raw branch that knows these features.
async fn raw(mesh: &Mesh, name: &'static str, offers: &[&'static str], features: Features) -> RawBranch {
    let mut branch = RawBranch::connect(mesh).await;
    let offer = |action: &&'static str| Offer {
        action: (*action).into(),
        accepts: Accepts::MessagePack,
        shape: None,
    };
    let bind = Bind {
        version: meshwork::limits::PROTOCOL_VERSION,
        name: name.into(),
        credentials: None,
        offers: offers.iter().map(offer).collect(),
        subscriptions: Vec::new(),
    };
    branch.say(&Frame::ExtendedBind(ExtendedBind { bind, features, incarnation: 7, replaces: false })).await;
    while !matches!(branch.hear().await.expect("it is bound"), Frame::ExtendedBound(_)) {}
    branch
}

async fn hear_open(branch: &mut RawBranch) -> OpenStream {
    match branch.hear_answer().await {
        Some(Frame::OpenStream(open)) => open,
        other => panic!("a request for a stream, not {other:?}"),
    }
}

fn item(callback_id: CallbackId, len: usize) -> Frame {
    let payload = Payload::encode(Encoding::MessagePack, &ByteBuf::from(vec![1; len])).expect("bytes");
    Frame::Item(Item { callback_id, payload })
}

#[actix::test]
async fn a_producer_that_sends_more_than_was_granted_ends_its_own_stream() {
    let mesh = Mesh::start().await;
    let mut flood = raw(&mesh, "flood", &["flood", "items", "unasked"], Features::ALL).await;
    let caller = mesh.branch("caller").await;
    until_known(&caller, "flood", true).await;
    // Too many items, and too many bytes.
    for len in [0, 20_000] {
        let opening = actix_rt::spawn(caller.stream::<ByteBuf>("flood", ()).into_future());
        let open = hear_open(&mut flood).await;
        let id = open.request.callback_id;
        flood.say(&Frame::Started(id)).await;
        for _ in 0..1_000 {
            flood.say(&item(id, len)).await;
        }
        let mut items = soon(opening).await.unwrap().unwrap();
        let (mut count, mut bytes) = (0, 0);
        let error = loop {
            match soon(items.next()).await.expect("an error ends it") {
                Ok(item) => {
                    count += 1;
                    bytes += item.len();
                }
                Err(error) => break error,
            }
        };
        assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::Unknown));
        assert!(error.message().starts_with("flood sent more items than were granted"), "{error}");
        assert!(count <= open.grant.items && bytes <= open.grant.bytes as usize + len, "{count} and {bytes}");
        assert_eq!(flood.hear_answer().await, Some(Frame::Cancel(id)), "it is told to stop, and stays");
    }
    // Items where one value was asked for.
    let calling = actix_rt::spawn({
        let caller = caller.clone();
        async move { caller.call::<u32>("unasked", ()).await }
    });
    let Request { callback_id, .. } = flood.hear_request().await;
    flood.say(&item(callback_id, 1)).await;
    assert_eq!(soon(calling).await.unwrap().unwrap_err().fate(), Fate::Unknown);
    assert_eq!(flood.hear_answer().await, Some(Frame::Cancel(callback_id)));
    // Items, starts and grants of nothing are ignored.
    for frame in [
        item(CallbackId(77), 1),
        Frame::Started(CallbackId(77)),
        Frame::Granted(Granted { callback_id: CallbackId(77), grant: Grant { items: 1, bytes: 1 } }),
    ] {
        flood.say(&frame).await;
    }
    flood.say(&Frame::Ping).await;
    while flood.hear().await != Some(Frame::Pong) {}
    until_nothing_is_left(&[&caller]).await;
}

fn open_stream(id: u64, action: &'static str, grant: Grant) -> Frame {
    let Frame::Request(request) = crate::raw::request(id, action) else { unreachable!("it is a request") };
    let payload = Payload::encode(Encoding::MessagePack, &()).expect("nothing");
    Frame::OpenStream(OpenStream { grant, request: Request { payload, ..request } })
}

#[actix::test]
async fn a_reader_that_grants_more_than_it_may_ends_its_own_stream() {
    let mesh = Mesh::start().await;
    let (provider, mut asked) = never_ending("provider");
    let _provider = mesh.bind(provider).await;
    let mut reader = raw(&mesh, "reader", &[], Features::ALL).await;
    reader.say(&open_stream(1, "never", Grant { items: u32::MAX, bytes: u32::MAX })).await;
    assert_eq!(reader.hear_answer().await, Some(Frame::Started(CallbackId(1))));
    assert!(matches!(reader.hear_answer().await, Some(Frame::Item(_))));
    let dropped = soon(asked.recv()).await.unwrap();
    let grant = Grant { items: 10, bytes: STREAM_GRANTED_LEN_MAX };
    reader.say(&Frame::Granted(Granted { callback_id: CallbackId(1), grant })).await;
    match reader.hear_answer().await {
        Some(Frame::Response(response)) => {
            let error = response.outcome.unwrap_err();
            assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::Unknown));
        }
        other => panic!("the end of the stream, not {other:?}"),
    }
    is_told_dropped(dropped).await;
}

#[actix::test]
async fn a_reader_that_grants_and_does_not_read_ends_its_own_stream() {
    let mut limits = Limits::default();
    limits.replies_len_max = 32 * 1024 * 1024;
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    let (tell, mut asked) = mpsc::unbounded_channel();
    let provider = BranchActor::new("provider").respond_stream("endless", move |(): ()| {
        let (told, dropped) = oneshot::channel();
        let _ = tell.send(dropped);
        let on_drop = OnDrop(Some(told));
        let items = stream::repeat_with(move || {
            let _kept = &on_drop;
            ByteBuf::from(vec![1; 256 * 1024])
        });
        async move { Ok(Streaming::new(items)) }
    });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let mut reader = raw(&mesh, "reader", &[], Features::ALL).await;
    reader.say(&open_stream(1, "endless", Grant { items: 10_000, bytes: u32::MAX })).await;
    is_told_dropped(soon(asked.recv()).await.unwrap()).await;
    // Others read on meanwhile.
    let mut items = soon(caller.stream::<ByteBuf>("endless", ()).into_future()).await.unwrap();
    for _ in 0..200 {
        assert_eq!(soon(items.next()).await.unwrap().unwrap().len(), 256 * 1024);
    }
    // What was sent arrives, and the error behind or before it.
    let error = loop {
        match reader.hear_answer().await.expect("it is not given up") {
            Frame::Response(response) => break response.outcome.unwrap_err(),
            Frame::Started(_) | Frame::Item(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::Unknown));
}

#[actix::test]
async fn nodes_of_earlier_versions_are_asked_for_no_stream() {
    let mesh = Mesh::start().await;
    let features = Features(Features::ALL.0 & !Features::STREAMS.0);
    let _before = raw(&mesh, "before", &["old"], features).await;
    let caller = mesh.branch("caller").await;
    for node in [&caller as &Node, &mesh.master] {
        soon(node.wait_for("old", Duration::from_secs(5))).await.unwrap();
        let error = soon(node.stream::<u32>("old", ()).into_future()).await.expect_err("it knows none");
        assert_eq!((error.code(), error.fate()), (Code::CANNOT_ENCODE, Fate::NotSent));
        assert!(
            error.message().contains("before is of an earlier version, which knows no streams"),
            "{error}"
        );
    }
    // One that knows streams is asked instead.
    let provider = BranchActor::new("after")
        .respond_stream("old", |(): ()| async move { Ok(Streaming::new(stream::iter([1_u32]))) });
    let _after = mesh.bind(provider).await;
    until_known(&caller, "after", true).await;
    for _ in 0..4 {
        let items = soon(caller.stream::<u32>("old", ()).into_future()).await.unwrap();
        assert_eq!(all(items).await, [1]);
    }
}

#[actix::test]
async fn ten_thousand_slow_streams_over_one_link_slow_nobody() {
    const STREAMS: usize = 10_000;
    let mesh = Mesh::start().await;
    let (provider, _arbiter) = elsewhere(mesh.address.clone(), || {
        BranchActor::new("provider")
            .respond("twice", |number: u64| async move { Ok(2 * number) })
            .respond_stream("slow", |(): ()| async move {
                // As much at once as it is let, and then for ever what is taken.
                Ok(Streaming::new(stream::repeat(ByteBuf::from(vec![7_u8; 100]))))
            })
    })
    .await;
    let caller = mesh.branch("caller").await;
    soon(caller.wait_for("slow", Duration::from_secs(5))).await.unwrap();
    let opening =
        futures::future::join_all((0..STREAMS).map(|_| caller.stream::<ByteBuf>("slow", ()).into_future()));
    let opened = tokio::time::timeout(Duration::from_secs(120), opening).await.expect("they begin");
    let mut streams: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    // Each stands at its window: what was granted is there, or on its way.
    let first = tokio::time::Instant::now();
    for number in 0..100 {
        assert_eq!(soon(caller.call("twice", number)).await, Ok(2 * number));
    }
    assert!(first.elapsed() < Duration::from_secs(20), "{:?}", first.elapsed());
    for items in &mut streams {
        assert_eq!(soon(items.next()).await.unwrap().unwrap().len(), 100);
    }
    drop(streams);
    until_nothing_is_left(&[&caller]).await;
    soon(provider.drain(Duration::from_secs(5))).await.unwrap();
}

#[actix::test]
async fn a_quick_stream_leaves_room_for_the_calls_of_its_reader() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider")
        .respond("twice", |number: u64| async move { Ok(2 * number) })
        .respond_stream("quick", |(): ()| async move {
            Ok(Streaming::new(stream::repeat(ByteBuf::from(vec![7_u8; STREAM_WINDOW_LEN_START as usize]))))
        });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let mut items = soon(caller.stream::<ByteBuf>("quick", ()).into_future()).await.unwrap();
    let reading = actix_rt::spawn(async move {
        let mut count = 0_u64;
        while let Some(Ok(_)) = items.next().await {
            count += 1;
            tokio::task::yield_now().await;
        }
        count
    });
    for number in 0..100 {
        assert_eq!(soon(caller.call("twice", number)).await, Ok(2 * number));
    }
    assert!(!reading.is_finished());
    reading.abort();
}
