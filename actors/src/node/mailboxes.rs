//! The messages that a master and a branch both take from their handles, and the mailboxes that take them.

use super::change::Watcher;
use super::snapshot::Snapshot;
use crate::answers::Actions;
use crate::events::{Deliver, SubscriberId};
use actix::{Actor, Addr, Handler, Message, Recipient};
use meshwork_wire::{ActionDescription, ByteString, CallError, Label, Pattern, SessionId, SubscriptionKey};
use std::sync::Arc;
use std::time::Duration;

/// The mailboxes of a node, one for each message of its handles.
pub(crate) struct Mailboxes {
    pub(crate) flush: Recipient<Flush>,
    pub(crate) subscribe: Recipient<Subscribe>,
    pub(crate) unsubscribe: Recipient<Unsubscribe>,
    pub(crate) respond: Recipient<Respond>,
    pub(crate) withdraw: Recipient<Withdraw>,
    pub(crate) describe: Recipient<DescribePart>,
    pub(crate) find_providers: Recipient<FindProviders>,
    pub(crate) watch: Recipient<Watch>,
    pub(crate) drain: Recipient<Drain>,
    pub(crate) snapshot: Recipient<TakeSnapshot>,
}

/// Lets the node take its queue. Sent by a handle whose submission found the queue empty; the node takes all submissions.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Flush;

/// Delivers the events of a pattern to a handler of this node. Sent by a handle; answered when the master knows of the subscription.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub struct Subscribe {
    /// The number of the handler, drawn by [`Node::draw_subscriber`](super::shared::Node::draw_subscriber).
    pub id: SubscriberId,
    /// The events that the handler gets.
    pub to: SubscribeTo,
    /// The handler.
    pub subscriber: Arc<dyn Deliver>,
}

/// Which events a handler gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubscribeTo {
    /// The events published to a topic that matches.
    Topics(SubscriptionKey),
    /// The events that other nodes broadcast under a topic that matches. The master is not told of such a subscription.
    Broadcasts(Pattern),
}

/// Ends a subscription. Sent by a handle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Unsubscribe(pub SubscriberId);

/// Answers more actions from now on. Sent by a handle; answered when the actions are callable from every node. Either all actions are
/// added, or none.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub struct Respond(pub Actions);

/// Answers actions no longer. Sent by a handle; answered when the master has taken the actions out.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<(), CallError>")]
pub struct Withdraw(pub Vec<ByteString>);

/// Asks which actions there are, sorted by name.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<Vec<ActionDescription>, CallError>")]
pub struct Describe {
    /// The names of the actions, matched as topics are.
    pub pattern: Pattern,
    /// How long the answer is waited for.
    pub within: Duration,
}

/// Asks for a part of the actions that there are, sorted by name: at most 10,000, and as many as fit into a frame. Sent by a handle, again after
/// the last name for more, until none comes. A master of before tells no more.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<Vec<ActionDescription>, CallError>")]
pub struct DescribePart {
    /// The names of the actions, matched as topics are.
    pub pattern: Pattern,
    /// Only actions whose names sort after this one, byte by byte; empty: from the first action on.
    pub after: ByteString,
    /// How long the answer is waited for.
    pub within: Duration,
}

/// Asks who provides an action now. Sent by a handle.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<Vec<Provided>, CallError>")]
pub struct FindProviders {
    /// The action.
    pub action: ByteString,
    /// The labels that the providers must have.
    pub labels: Vec<Label>,
    /// How long the answer is waited for.
    pub within: Duration,
}

/// A provider of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provided {
    /// The name of the node.
    pub node: ByteString,
    /// Its session, since several nodes may have one name; none for the node that asks.
    pub session: Option<SessionId>,
}

impl Provided {
    /// A provider, as a node sees it whose own session this is.
    pub(crate) fn of(session: SessionId, node: ByteString, own: SessionId) -> Self {
        Self { node, session: (session != own).then_some(session) }
    }
}

/// Tells a watcher which nodes come and go from now on. Sent by a handle.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Watch(pub Watcher);

/// Drains the node: it takes no more requests, finishes those in flight, and closes. Sent by a handle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Drained")]
pub struct Drain {
    /// How long to wait for the requests in flight.
    pub within: Duration,
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// How many requests ended in time.
    pub finished: u64,
    /// How many requests did not end in time: their callers have been told.
    pub abandoned: u64,
}

/// Takes a snapshot of the node. Sent by a handle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Snapshot")]
pub struct TakeSnapshot;

impl Mailboxes {
    pub(crate) fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Actor<Context = actix::Context<A>>
            + Handler<Flush>
            + Handler<Subscribe>
            + Handler<Unsubscribe>
            + Handler<Respond>
            + Handler<Withdraw>
            + Handler<DescribePart>
            + Handler<FindProviders>
            + Handler<Watch>
            + Handler<Drain>
            + Handler<TakeSnapshot>,
    {
        Self {
            flush: actor.clone().recipient(),
            subscribe: actor.clone().recipient(),
            unsubscribe: actor.clone().recipient(),
            respond: actor.clone().recipient(),
            withdraw: actor.clone().recipient(),
            describe: actor.clone().recipient(),
            find_providers: actor.clone().recipient(),
            watch: actor.clone().recipient(),
            drain: actor.clone().recipient(),
            snapshot: actor.clone().recipient(),
        }
    }
}
