//! The messages that a master and a branch both take, sent by their handles, and the mailboxes that a handle reaches.

use super::change::Watcher;
use super::snapshot::Snapshot;
use crate::answers::Actions;
use crate::events::{Deliver, SubscriberId};
use actix::{Actor, Addr, Handler, Message, Recipient};
use meshwork_wire::{ActionDescription, ByteString, CallError, Pattern, SubscriptionKey};
use std::sync::Arc;
use std::time::Duration;

/// The mailboxes that a handle reaches.
pub(crate) struct Mailboxes {
    pub(crate) flush: Recipient<Flush>,
    pub(crate) subscribe: Recipient<Subscribe>,
    pub(crate) unsubscribe: Recipient<Unsubscribe>,
    pub(crate) respond: Recipient<Respond>,
    pub(crate) withdraw: Recipient<Withdraw>,
    pub(crate) describe: Recipient<Describe>,
    pub(crate) watch: Recipient<Watch>,
    pub(crate) drain: Recipient<Drain>,
    pub(crate) snapshot: Recipient<TakeSnapshot>,
}

/// There is something in the queue. Sent by a handle when the queue was empty; the receiver takes all of it.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Flush;

/// Delivers the events of a pattern to a handler of this node. Sent by a handle; answered when the master knows of it.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub struct Subscribe {
    /// The number of the handler, drawn by [`Node::draw_subscriber`].
    pub id: SubscriberId,
    /// Which events.
    pub to: SubscribeTo,
    /// Who handles them.
    pub subscriber: Arc<dyn Deliver>,
}

/// Which events a handler gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubscribeTo {
    /// Those published to a topic that matches.
    Topics(SubscriptionKey),
    /// Those broadcast by others under a topic that matches. No master needs to know of it.
    Broadcasts(Pattern),
}

/// Ends a subscription. Sent by a handle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Unsubscribe(pub SubscriberId);

/// Answers more actions from now on. Sent by a handle; answered when they are callable from everywhere. All are taken or
/// none.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub struct Respond(pub Actions);

/// Answers actions no longer. Sent by a handle; answered when the master knows.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<(), CallError>")]
pub struct Withdraw(pub Vec<ByteString>);

/// Which actions are there? Sent by a handle.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<Vec<ActionDescription>, CallError>")]
pub struct Describe {
    /// Which actions: their names are matched as topics are.
    pub pattern: Pattern,
    /// How long the answer is waited for.
    pub within: Duration,
}

/// Tells who comes and goes from now on. Sent by a handle.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Watch(pub Watcher);

/// Takes no more, finishes what is in flight, closes. Sent by a handle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Drained")]
pub struct Drain {
    /// How long to wait for what is in flight.
    pub within: Duration,
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// How many requests ended in time.
    pub finished: u64,
    /// How many did not: their callers have been told.
    pub abandoned: u64,
}

/// Shows what goes on. Sent by a handle.
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
            + Handler<Describe>
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
            watch: actor.clone().recipient(),
            drain: actor.clone().recipient(),
            snapshot: actor.clone().recipient(),
        }
    }
}
