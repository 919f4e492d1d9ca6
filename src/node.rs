//! The methods of a handle. [`Branch`](crate::Branch) and [`Master`](crate::Master) are both a [`Node`], so both call, publish,
//! subscribe, respond and drain.

use crate::call::Calling;
use crate::call_all::CallingAll;
use crate::handle::Node;
use crate::publishing::{Publishing, To};
use crate::respond::Responders;
use crate::streaming::{Opening, decode_item, raw_item};
use crate::subscribe::{IntoSubscriber, MakeHandler, Subscribing, topics};
use meshwork_actors::node::{Change, Drained, ManyCalls, NewEvent, Snapshot, Status, SubscribeTo};
use meshwork_wire::limits::CALL_WITHIN;
use meshwork_wire::{
    ActionDescription, ByteString, CallError, Code, Encoding, Fate, Headers, NodeNews, Pattern, Payload,
};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use tokio::sync::watch;

/// How many calls of [`Node::call_many`] are written before the first requests leave: few, so that providers begin at once.
const CALLS_AT_FIRST: usize = 24;

impl Node {
    /// Calls an action: at this node if it answers the action, else at a provider. The arguments are one serde value; a responder
    /// that takes a tuple or a struct reads both. The arguments are encoded now, the request is sent when the call is first polled.
    /// The type of the reply is inferred, or written `call::<i64>(..)`.
    ///
    /// Arguments and reply travel as MessagePack with the names of fields: an integer fits the type that it is read as, or is an error. A trait
    /// for both ends costs less: [`actions`](crate::actions).
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// let sum: i64 = branch.call("add", (22, 22)).within(Duration::from_secs(1)).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn call<R: DeserializeOwned>(
        &self,
        action: impl AsRef<str> + Into<ByteString>,
        arguments: impl Serialize,
    ) -> Calling<R> {
        Calling::new(self, action, &arguments)
    }

    /// Calls an action with arguments that are encoded already. The reply is a payload in the encoding of the arguments. For tools
    /// that know no types: the encoding is one that describes itself, since bincode is for methods of traits, and refused elsewhere.
    pub fn call_raw(&self, action: impl Into<ByteString>, arguments: Payload) -> Calling<Payload> {
        Calling::raw(self, action.into(), arguments)
    }

    /// Asks for the stream that an action answers with: see [`Streaming`](crate::Streaming). Ready when the responder has begun to answer; the
    /// type of the items is inferred, or written `stream::<Line>(..)`.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// let mut lines = branch.stream::<String>("log/tail", ("app.log",)).await?;
    /// while let Some(line) = lines.next().await {
    ///     println!("{}", line?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream<T: DeserializeOwned>(
        &self,
        action: impl Into<ByteString>,
        arguments: impl Serialize,
    ) -> Opening<T> {
        let action = action.into();
        let form = match self.attached() {
            Some(attached) => attached.wanted(&action, None).form,
            None => Encoding::MessagePack.into(),
        };
        let arguments = Payload::encode(form, &arguments).map_err(CallError::from);
        Opening::new(self, action, arguments, decode_item)
    }

    /// Asks for a stream with arguments that are encoded already. The items are payloads in the encoding of the arguments: see
    /// [`Node::call_raw`].
    pub fn stream_raw(&self, action: impl Into<ByteString>, arguments: Payload) -> Opening<Payload> {
        Opening::new(self, action.into(), Ok(arguments), raw_item)
    }

    /// Calls every provider of an action, and yields each outcome with the node that it is of, until all have answered or the deadline is there:
    /// 10 s, unless [`CallingAll::within`] says another one. A provider that has not answered then, or is lost, has that as its outcome. Called are
    /// the branches that take requests for the action when the master is asked, several of one name each, the master and this node itself, if
    /// they answer it; not a node that comes meanwhile.
    ///
    /// If nobody answers the action, more than 4,096 nodes do, or the master is not there in time or of an earlier version, nobody is called:
    /// the only outcome is that error, of a node without a name. Each call counts as one in flight; those without room are refused.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) {
    /// let mut answers = branch.call_all::<Vec<String>>("search", "rust").within(Duration::from_millis(200));
    /// while let Some(answer) = answers.next().await {
    ///     match answer.outcome {
    ///         Ok(hits) => println!("{}: {hits:?}", answer.node),
    ///         Err(error) => println!("{}: {error}", answer.node),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn call_all<R: DeserializeOwned>(
        &self,
        action: impl Into<ByteString>,
        arguments: impl Serialize,
    ) -> CallingAll<R> {
        CallingAll::new(self, action.into(), &arguments)
    }

    /// Calls every provider with arguments that are encoded already. The replies are payloads in the encoding of the arguments: see
    /// [`Node::call_raw`].
    pub fn call_all_raw(&self, action: impl Into<ByteString>, arguments: Payload) -> CallingAll<Payload> {
        CallingAll::raw(self, action.into(), arguments)
    }

    /// Makes many calls of one action at once and waits for all replies. Each call has its own outcome, in the order of the
    /// arguments. Cheaper than as many single calls; deadline: 10 s.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) {
    /// let sums: Vec<Result<i64, CallError>> = branch.call_many("add", [(1, 2), (3, 4)]).await;
    /// # }
    /// ```
    pub async fn call_many<R: DeserializeOwned>(
        &self,
        action: impl Into<ByteString>,
        arguments: impl IntoIterator<Item = impl Serialize>,
    ) -> Vec<Result<R, CallError>> {
        self.call_many_with(action, Headers::none(), arguments).await
    }

    /// As [`Node::call_many`], with headers, which all calls have: see [`Calling::header`].
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// use meshwork::Headers;
    ///
    /// # async fn example(branch: Branch) -> Result<(), Box<dyn std::error::Error>> {
    /// let headers = Headers::of([("tenant", "a")])?;
    /// let sums: Vec<Result<i64, CallError>> = branch.call_many_with("add", headers, [(1, 2), (3, 4)]).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_many_with<R: DeserializeOwned>(
        &self,
        action: impl Into<ByteString>,
        headers: Headers,
        arguments: impl IntoIterator<Item = impl Serialize>,
    ) -> Vec<Result<R, CallError>> {
        let node = match self.attach().await {
            Ok(node) => node,
            Err(error) => return arguments.into_iter().map(|_| Err(error.clone())).collect(),
        };
        if node.has_layers() || self.cause().is_some() {
            // The handle is attached now.
            let action = action.into();
            let calls = arguments
                .into_iter()
                .map(|arguments| Calling::new(self, action.clone(), &arguments).headers(&headers));
            return futures::future::join_all(calls).await;
        }
        let mut calls = ManyCalls::new(&node, action, headers);
        let mut part = CALLS_AT_FIRST;
        for arguments in arguments {
            calls.add(&arguments);
            if calls.unsent() == part || calls.is_full() {
                calls.submit();
                part = usize::MAX;
                // These requests leave, and are answered, while the next calls are written.
                tokio::task::yield_now().await;
            }
        }
        calls.submit();
        let mut results = Vec::new();
        results.resize_with(calls.count(), || None);
        // The first replies are decoded while providers answer the rest.
        while let Some(replies) = calls.next().await {
            for (number, reply) in replies {
                results[number as usize] = Some(reply.decode());
            }
        }
        let lost = || Err(CallError::new(Code::UNKNOWN, Fate::Unknown, "a call has no outcome"));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    /// Publishes an event to the subscribers of its topic: at most once to each, in the order of this publisher. The event travels
    /// as MessagePack. It is encoded now, and sent when the future is first polled. Ready when the event is in the queue of this node: it leaves,
    /// unless the link is lost before.
    /// Waits only while that queue and the outbox of this node's own link hold 16 MiB of events, or 16,384 events wait.
    ///
    /// # Errors
    ///
    /// Not sent: when the topic is invalid, the node may not publish to it, the event is too large or holds callbacks, or the link is down,
    /// closes, or stays full for 10 s.
    pub fn publish<T: Serialize + ?Sized>(&self, topic: impl Into<ByteString>, event: &T) -> Publishing {
        Publishing::new(self, written(topic, event), To::Subscribers)
    }

    /// Publishes an event that is encoded already.
    ///
    /// # Errors
    ///
    /// As [`Node::publish`].
    pub fn publish_raw(&self, topic: impl Into<ByteString>, event: Payload) -> Publishing {
        Publishing::new(self, Ok(NewEvent::new(topic, event)), To::Subscribers)
    }

    /// Publishes an event, and lets the master keep its value as the last of its topic: a handler that subscribes later hears it first, and finds
    /// [`Event::is_last_value`](crate::Event::is_last_value) set. Ready when the master keeps it, which takes a round trip. All nodes, this
    /// one too, hear the values of a topic in the order in which the master took them; a subscriber whose link has no room for a value hears the last
    /// one as soon as it has.
    ///
    /// The values live as long as the master. To a master that was started again each node says its last values again, unless there is a
    /// later one. A master keeps 65,536 values and 64 MiB ([`Limits::last_values_max`](crate::Limits::last_values_max),
    /// [`Limits::last_values_len_max`](crate::Limits::last_values_len_max)), of one publisher eight ninths at most; a node keeps its own too. Members
    /// of a group hear no last value. Nodes of earlier versions, and programs of other protocols, hear it as an event. The permission is that of
    /// [`Node::publish`].
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// branch.publish_last("doors/north", "open").await?;
    /// let doors = branch.subscribe("doors/*", |event: Event<String>| {
    ///     println!("{} is {}{}", event.topic, event.value, if event.is_last_value() { "" } else { " now" });
    /// });
    /// # doors.await?.keep();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Not sent: as [`Node::publish`]; with [`Code::OVERLOADED`] when this node or the master has no room for the value; with
    /// [`Code::CANNOT_ENCODE`] when the master is of an earlier version or of another protocol. *Unknown* when the link is lost, or no answer comes
    /// within 10 s.
    pub fn publish_last<T: Serialize + ?Sized>(&self, topic: impl Into<ByteString>, value: &T) -> Publishing {
        Publishing::new(self, written(topic, value), To::Kept)
    }

    /// Publishes a last value that is encoded already.
    ///
    /// # Errors
    ///
    /// As [`Node::publish_last`].
    pub fn publish_last_raw(&self, topic: impl Into<ByteString>, value: Payload) -> Publishing {
        Publishing::new(self, Ok(NewEvent::new(topic, value)), To::Kept)
    }

    /// Takes the last value of a topic away, whoever published it: those that subscribe later hear none. Subscribers hear nothing of it. A topic
    /// without a last value is no error.
    ///
    /// # Errors
    ///
    /// As [`Node::publish_last`].
    pub async fn forget_last(&self, topic: impl Into<ByteString>) -> Result<(), CallError> {
        self.attach().await?.keep_last(NewEvent::new(topic, Payload::default()), true).await
    }

    /// Sends an event to every other node: to the handlers that [`Node::on_broadcast`] registered there.
    ///
    /// # Errors
    ///
    /// As [`Node::publish`].
    pub fn broadcast<T: Serialize + ?Sized>(&self, topic: impl Into<ByteString>, event: &T) -> Publishing {
        Publishing::new(self, written(topic, event), To::EveryNode)
    }

    /// Broadcasts an event that is encoded already.
    ///
    /// # Errors
    ///
    /// As [`Node::publish`].
    pub fn broadcast_raw(&self, topic: impl Into<ByteString>, event: Payload) -> Publishing {
        Publishing::new(self, Ok(NewEvent::new(topic, event)), To::EveryNode)
    }

    /// Hands the events of matching topics to a closure or a recipient, until the [`Subscription`](crate::Subscription) is dropped. Ready when the
    /// master knows the subscription: events that any node publishes from then on reach the handler. While the link is down it is
    /// ready at once, and the next bind tells the master. After a lost link the subscription goes on by itself.
    ///
    /// Where last values of topics are kept ([`Node::publish_last`]), the handler hears those of all topics that match, each before the next
    /// event of its topic.
    ///
    /// A closure handles each event at once, and must be quick. One that is async handles one event after the other, and the others wait: see
    /// [`Subscribing`](crate::Subscribing) for how many run at once, and how many wait. A recipient has its mailbox. Where 16,384 events or 64 MiB
    /// of them wait for a handler, further ones are dropped and counted.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn store(order: u64) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// let seen = branch.subscribe("orders/**", |event: Event<u64>| println!("{}", event.value)).await?;
    /// let stored = branch.subscribe("orders/new", |event: Event<u64>| async move { store(event.value).await }).await?;
    /// # (seen.keep(), stored.keep());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// An event whose value is not of the type that the handler takes is not handed over: it counts in
    /// [`Snapshot::events_undecodable`], and a warning with topic, publisher and reason goes to the log, for each handler at most
    /// one each 10 s. A closure or an actor that takes `Event<Result<T, EventError>>`, and a closure that takes
    /// `Result<Event<T>, EventError>`, get such an event with an [`EventError`](crate::EventError) instead.
    ///
    /// One event matches at most 128 subscriptions of a node
    /// ([`Limits::subscriptions_per_topic_max`](crate::Limits::subscriptions_per_topic_max)), counted by the lengths of their patterns, by where
    /// the stars stand, and by the groups on one pattern; and what a node subscribes to takes at most [`Limits::subscribed_len_max`](crate::Limits::subscribed_len_max) at
    /// its master. A subscription above that is refused with [`Code::OVERLOADED`].
    ///
    /// # Errors
    ///
    /// When the pattern is invalid, or the master refuses the subscription or does not answer.
    pub fn subscribe<Form>(
        &self,
        pattern: impl AsRef<str>,
        handler: impl IntoSubscriber<Form>,
    ) -> Subscribing<Form> {
        Subscribing::new(self.clone(), topics(pattern.as_ref(), None), MakeHandler::of(handler))
    }

    /// As [`Node::subscribe`], but each event goes to one member of the group only, at whichever nodes its members are. A group is named as a
    /// topic is. Its members hear no last values: each new member would handle them again.
    ///
    /// # Errors
    ///
    /// As [`Node::subscribe`].
    pub fn subscribe_group<Form>(
        &self,
        group: impl Into<ByteString>,
        pattern: impl AsRef<str>,
        handler: impl IntoSubscriber<Form>,
    ) -> Subscribing<Form> {
        let to = topics(pattern.as_ref(), Some(group.into()));
        Subscribing::new(self.clone(), to, MakeHandler::of(handler))
    }

    /// Hands the broadcasts of other nodes to a recipient or a closure, until the [`Subscription`](crate::Subscription) is dropped.
    ///
    /// # Errors
    ///
    /// When the pattern is invalid, or the node has ended.
    pub fn on_broadcast<Form>(
        &self,
        pattern: impl AsRef<str>,
        handler: impl IntoSubscriber<Form>,
    ) -> Subscribing<Form> {
        let to = read_pattern(pattern.as_ref()).map(SubscribeTo::Broadcasts);
        Subscribing::new(self.clone(), to, MakeHandler::of(handler))
    }

    /// Answers more actions from now on: all actions of the set or none. Ready when every node of the mesh can call them;
    /// while the link is down it is ready at once, and the next bind offers them.
    ///
    /// # Errors
    ///
    /// When one of the actions is answered already, the node would answer more than 131,072 actions, the node has ended, or the
    /// master refuses the actions: then none is answered. When the master does not answer within 10 s: then the actions stay.
    pub async fn respond(&self, responders: Responders) -> Result<(), CallError> {
        self.attach().await?.respond(responders.into_actions()).await
    }

    /// Answers these actions no longer. Requests that are being answered are finished.
    ///
    /// # Errors
    ///
    /// When the master cannot be told.
    pub async fn withdraw(
        &self,
        actions: impl IntoIterator<Item = impl Into<ByteString>>,
    ) -> Result<(), CallError> {
        self.attach().await?.withdraw(actions.into_iter().map(Into::into).collect()).await
    }

    /// The actions of the mesh whose names match, sorted by name, with their providers and, where known, their shapes. The master tells them
    /// in parts of up to 1,024; actions that come or go meanwhile may be missing. A master of before parts tells its first 10,000 only.
    ///
    /// # Errors
    ///
    /// When the pattern is invalid, the link is down, the master does not answer within 10 s for each part, or more than 1,048,576 actions
    /// match.
    pub async fn describe(&self, pattern: impl AsRef<str>) -> Result<Vec<ActionDescription>, CallError> {
        let pattern = read_pattern(pattern.as_ref())?;
        self.attach().await?.describe(pattern, CALL_WITHIN).await
    }

    /// The other nodes and their actions, as far as this node was told, sorted by name. A branch knows all nodes that were bound
    /// when it bound; it is told of a later node a moment after that node has bound.
    ///
    /// # Errors
    ///
    /// When the node is a master that has ended.
    pub async fn nodes(&self) -> Result<Vec<NodeNews>, CallError> {
        Ok(self.attach().await?.known_nodes())
    }

    /// Waits until a node answers an action: this node, the master or a branch, by its name or with an offer that ends in `/**` above it. A
    /// call that is made then is not refused with [`Code::ACTION_NOT_FOUND`], unless the provider goes meanwhile. Waits on while the link is
    /// down. `Duration::MAX` waits for ever; zero finds only the actions of this node, since the master is asked about others. Dropping the
    /// future ends the wait.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// branch.wait_for("add", Duration::from_secs(5)).await?;
    /// let sum: i64 = branch.call("add", (22, 22)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// All with the fate [`Fate::NotSent`]: [`Code::ACTION_NOT_FOUND`] when no provider is there before the time is over, or at once where a
    /// node-mesh does not say which actions there are; [`Code::BAD_NAME`] when the name is not valid; [`Code::DRAINING`] when this node drains,
    /// and the reason of its end when it has ended.
    pub async fn wait_for(&self, action: impl AsRef<str>, within: Duration) -> Result<(), CallError> {
        self.attach().await?.wait_for(action.as_ref(), within).await
    }

    /// Calls a closure whenever another node comes or goes, or offers more or fewer actions. When a branch loses its link, all
    /// other nodes count as gone. The closure runs on the node's arbiter: it must be quick.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn on_change(&self, watcher: impl FnMut(&Change) + Send + 'static) -> Result<(), CallError> {
        self.attach().await?.watch(Box::new(watcher)).await
    }

    /// How the node stands to its mesh, now and at each change.
    ///
    /// # Errors
    ///
    /// When the node is a master that has ended.
    pub async fn status(&self) -> Result<watch::Receiver<Status>, CallError> {
        Ok(self.attach().await?.status())
    }

    /// Waits until the node has ended: drained, or refused by its master for good. Returns the reason.
    pub async fn closed(&self) -> CallError {
        let mut status = match self.status().await {
            Ok(status) => status,
            Err(error) => return error,
        };
        let closed = status.wait_for(|status| matches!(status, Status::Closed(_))).await;
        match closed.as_deref() {
            Ok(Status::Closed(why)) => why.clone(),
            _ => CallError::new(Code::LINK_LOST, Fate::NotSent, "the node has ended"),
        }
    }

    /// The calls, requests, sessions and queues of this node at one moment.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn snapshot(&self) -> Result<Snapshot, CallError> {
        self.attach().await?.snapshot().await
    }

    /// Takes no more requests, finishes the requests in flight within a time, then closes the node. A branch tells its master,
    /// answers the requests and hears the events that are still on their way, and goes when the master has said that nothing more
    /// comes: requests that the master has for it go to other providers, if there are any. A master drains its sessions, stops
    /// listening and lets nobody in. Returns how many requests finished and how many were abandoned.
    ///
    /// # Errors
    ///
    /// When the node has ended already.
    pub async fn drain(&self, within: Duration) -> Result<Drained, CallError> {
        self.attach().await?.drain(within).await
    }
}

/// An event in MessagePack.
fn written<T: Serialize + ?Sized>(topic: impl Into<ByteString>, event: &T) -> Result<NewEvent, CallError> {
    Ok(NewEvent::new(topic, Payload::encode(Encoding::MessagePack, event)?))
}

fn read_pattern(pattern: &str) -> Result<Pattern, CallError> {
    Ok(Pattern::new(pattern)?)
}
