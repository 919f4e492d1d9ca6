//! The calls of a branch: an action of the branch itself answers a call, or the call leaves over the link, or it waits for a link.

use super::link::{draining, ended};
use crate::answers::answering::{Answering, AnsweringBounds};
use crate::answers::blocking::Blocking;
use crate::answers::{Action, Actions, CallContext};
use crate::calls::in_flight::Departure;
use crate::calls::requests::Requests;
use crate::link::outbox::{Encoded, Kind, Outbox, OutboxGuard};
use crate::link::refusal::{Receiver, Refusal, gone, link_down};
use crate::node::shared::Node;
use crate::node::submission::{Ask, Frames, Invoking, Keeping, NewEvent, Submission, WhenDown};
use meshwork_wire::limits::WAITING_MAX;
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Fate, Features, Frame, Granted, Invocation, Invoke, KeepLast,
    OpenStream, Publish, Request, Wants,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::iter::Peekable;
use std::rc::Rc;
use std::sync::Arc;
use std::vec::Drain;
use tokio::time::Instant;

/// The calls of a branch that have been submitted.
pub(super) struct BranchCalls {
    name: ByteString,
    node: Arc<Node>,
    /// A call that went over the link has no [`Destination`].
    pub(super) requests: Rc<RefCell<Requests<Destination>>>,
    /// Calls of this branch that it answers itself and did not answer at once. They outlive the link.
    pub(super) own_answering: Answering,
    /// Calls that wait for a link, at most [`WAITING_MAX`].
    waiting: VecDeque<Box<Ask>>,
}

/// The destination of a call that has not gone over the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Destination {
    /// The next link, which the call waits for.
    NextLink,
    /// A responder of this branch.
    OwnResponder,
}

/// Whether a branch has a link for calls that other nodes answer.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    /// The link, by its outbox.
    Link(&'a Outbox),
    /// There is no link that takes calls: they wait for one.
    Wait,
    /// The branch drains: it refuses also the calls that it would answer itself.
    Draining,
    /// The branch has ended.
    Ended,
}

impl<'a> Path<'a> {
    fn outbox(self) -> Option<&'a Outbox> {
        match self {
            Path::Link(outbox) => Some(outbox),
            Path::Wait | Path::Draining | Path::Ended => None,
        }
    }
}

impl BranchCalls {
    pub(super) fn new(node: &Arc<Node>, blocking: &Arc<Blocking>) -> Self {
        let requests = Requests::new(Arc::clone(node) as Arc<dyn crate::calls::response::Calls>);
        Self {
            name: node.name().clone(),
            node: Arc::clone(node),
            requests: Rc::new(RefCell::new(requests)),
            own_answering: Answering::new(
                node.handle(),
                AnsweringBounds::OWN,
                Arc::clone(blocking),
                node.keyed(),
            ),
            waiting: VecDeque::new(),
        }
    }

    /// Binds a response actor to the calls of a departure, which leave now.
    pub(super) fn bind(&self, departure: Option<Departure>) {
        if let Some(departure) = departure {
            self.requests.borrow_mut().bind(departure);
        }
    }

    /// Sends or answers the calls at the front of the submissions, up to the first submission that is no call.
    pub(super) fn send_calls(
        &mut self,
        submissions: &mut Peekable<Drain<'_, Submission>>,
        actions: &Actions,
        path: Path<'_>,
        now: Instant,
    ) {
        // Most submissions are calls over the link: the outbox is held for all calls that follow each other.
        let (mut guard, mut refused) = (None, Vec::new());
        while let Some(submission) = submissions.next_if(Submission::is_call) {
            match (submission, path.outbox()) {
                (Submission::Frames(frames), Some(outbox)) => {
                    let guard_now = guard.get_or_insert_with(|| outbox.hold());
                    if let Err((frames, refusal)) = self.send_frames(frames, guard_now) {
                        guard = None;
                        self.send_one_by_one(frames, Some(refusal), actions, path, now);
                    }
                }
                (Submission::Frames(frames), None) => {
                    self.send_one_by_one(frames, None, actions, path, now);
                }
                (Submission::Ask(ask), Some(outbox)) if self.own(actions, &ask.request, path).is_none() => {
                    refused.extend(Self::send(ask, guard.get_or_insert_with(|| outbox.hold()), now));
                }
                (Submission::Ask(ask), _) => {
                    // The outbox is let go, since a responder may need it.
                    guard = None;
                    self.ask(ask, actions, path, now);
                }
                _ => {}
            }
        }
        drop(guard);
        self.refuse_all(refused);
    }

    /// The action of this branch that answers the call itself, if there is one. A call of any node leaves while all permits are taken here, if
    /// there is a link: another node may have room. A call with a key or labels leaves in any case: the master knows whose it is.
    fn own<'a>(&self, actions: &'a Actions, request: &Request, path: Path<'_>) -> Option<&'a Action> {
        let is_here = request.node == self.name;
        let may_leave = request.node.is_empty() && path.outbox().is_some();
        let takes = |action: &&Action| {
            (is_here || request.node.is_empty())
                && !action.has_stopped()
                && (action.has_room() || !may_leave)
                && !request.headers.choose_provider()
        };
        actions.get(&request.action).filter(takes)
    }

    /// Sends calls whose frames are written already; gives all of them back if the outbox refuses them together.
    fn send_frames(&self, mut frames: Frames, guard: &mut OutboxGuard<'_>) -> Result<(), (Frames, Refusal)> {
        let frames_len = frames.bytes.len();
        let encoded = Encoded::taken(&mut frames.bytes, frames.count, frames.longest);
        match guard.push_encoded(encoded, Kind::Request) {
            Ok(()) => {
                self.node.give_back(frames.bytes, frames_len);
                Ok(())
            }
            Err(refusal) => Err((frames, refusal)),
        }
    }

    /// Sends or answers calls whose frames are written already, each for itself: a call that is too long does not keep the other calls from
    /// leaving. A refusal that concerns all calls ends all.
    fn send_one_by_one(
        &mut self,
        frames: Frames,
        refusal: Option<Refusal>,
        actions: &Actions,
        path: Path<'_>,
        now: Instant,
    ) {
        for request in frames.into_requests() {
            let callback_id = request.callback_id;
            match refusal {
                None | Some(Refusal::TooLong { .. }) => {
                    let deadline = self.requests.borrow().deadline(callback_id);
                    let ask = Ask { request, deadline, when_down: WhenDown::Wait, grant: None };
                    self.ask(Box::new(ask), actions, path, now);
                }
                Some(refusal) => self.refuse(callback_id, refusal.into_error(Receiver::Master)),
            }
        }
    }

    /// Answers a call with a responder of this branch, or else sends it over the link or lets it wait.
    fn ask(&mut self, ask: Box<Ask>, actions: &Actions, path: Path<'_>, now: Instant) {
        let callback_id = ask.request.callback_id;
        if let Path::Draining = path {
            return self.refuse(callback_id, draining());
        }
        if let Some(own) = self.own(actions, &ask.request, path) {
            return self.answer(own, *ask);
        }
        match path {
            Path::Link(outbox) => {
                let refused = Self::send(ask, &mut outbox.hold(), now);
                self.refuse_all(refused);
            }
            Path::Wait => self.wait(ask),
            Path::Draining | Path::Ended => self.refuse(callback_id, ended()),
        }
    }

    /// Answers a call with an action of this branch.
    fn answer(&mut self, own: &Action, ask: Ask) {
        let Ask { request, deadline, grant, .. } = ask;
        let Request { callback_id, action, hops, headers, payload, .. } = request;
        self.requests.borrow_mut().set_destination(callback_id, Destination::OwnResponder);
        let deadline = deadline.map(Instant::from_std);
        let context = CallContext::new(action, self.name.clone(), deadline, hops, headers);
        match grant {
            None => self.own_answering.start(own, (&payload).into(), &context, callback_id, &self.requests),
            Some(grant) => {
                let (id, requests) = ((callback_id, grant), &self.requests);
                self.own_answering.stream(own, (&payload).into(), &context, id, requests);
            }
        }
    }

    /// Sends a call over the link; gives it back if the outbox refuses it. The caller is told when the outbox has been let go, since its code,
    /// and the end of the functions in its arguments, may need the outbox.
    #[must_use]
    fn send(mut ask: Box<Ask>, guard: &mut OutboxGuard<'_>, now: Instant) -> Option<(Box<Ask>, Refusal)> {
        if let Some(deadline) = ask.deadline {
            ask.request.time_left = Some(Instant::from_std(deadline).saturating_duration_since(now));
        }
        if ask.request.headers.choose_provider() && !guard.features().contains(Features::LABELS) {
            return Some((ask, Refusal::NoChoice));
        }
        let Some(grant) = ask.grant else {
            let refusal = guard.push(&ask.request, Kind::Request).err()?;
            return Some((ask, refusal));
        };
        if !guard.features().contains(Features::STREAMS) {
            return Some((ask, Refusal::NoStreams));
        }
        let Ask { request, deadline, when_down, .. } = *ask;
        let open = OpenStream { grant, request };
        let refusal = guard.push(&open, Kind::Request).err()?;
        Some((Box::new(Ask { request: open.request, deadline, when_down, grant: Some(grant) }), refusal))
    }

    /// Grants more items of the stream that answers a call.
    pub(super) fn grant(&self, granted: Granted, outbox: Option<&Outbox>) {
        let destination = self.requests.borrow().destination(granted.callback_id).copied();
        match (destination, outbox) {
            (Some(Destination::OwnResponder), _) => {
                self.own_answering.grant(granted.callback_id, granted.grant)
            }
            (None, Some(outbox)) => outbox.say(&Frame::Granted(granted)),
            (Some(Destination::NextLink), _) | (None, None) => {}
        }
    }

    fn refuse_all(&self, refused: impl IntoIterator<Item = (Box<Ask>, Refusal)>) {
        for (ask, refusal) in refused {
            self.refuse(ask.request.callback_id, refusal.into_error(Receiver::Master));
        }
    }

    /// Lets a call wait for a link, if it may wait and fewer than [`WAITING_MAX`] calls wait.
    fn wait(&mut self, ask: Box<Ask>) {
        let callback_id = ask.request.callback_id;
        if ask.when_down == WhenDown::Fail {
            return self.refuse(callback_id, link_down());
        }
        if self.waiting.len() >= WAITING_MAX {
            let what = format!("{WAITING_MAX} calls wait for the link already");
            return self.refuse(callback_id, CallError::new(Code::OVERLOADED, Fate::NotSent, what));
        }
        self.requests.borrow_mut().set_destination(callback_id, Destination::NextLink);
        self.node.waits_for_link(callback_id);
        self.waiting.push_back(ask);
    }

    fn refuse(&self, callback_id: CallbackId, error: CallError) {
        self.requests.borrow_mut().resolve(callback_id, Err(error));
    }

    /// Sends the calls that wait for a link, over a new link.
    pub(super) fn send_waiting(&mut self, outbox: &Outbox, now: Instant) {
        if self.waiting.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        self.node.waits_no_longer(None);
        // Dropped when the lock is let go: the last handle on a function in their arguments may use the outbox.
        let mut late = Vec::new();
        let mut guard = outbox.hold();
        for ask in std::mem::take(&mut self.waiting) {
            let callback_id = ask.request.callback_id;
            // Callers whose deadline has passed have been told.
            if self.requests.borrow().is_waiting(callback_id) {
                self.requests.borrow_mut().clear_destination(callback_id);
                refused.extend(Self::send(ask, &mut guard, now));
            } else {
                late.push(ask);
            }
        }
        drop(guard);
        self.refuse_all(refused);
    }

    /// Calls a function at the other end of the link that it came over; `outbox` is none if that link is lost.
    pub(super) fn invoke(&self, invoking: Invoking, outbox: Option<&Outbox>) {
        let Invoking { function, callback_id, invocation, .. } = invoking;
        let Invocation { arguments: payload, within: time_left, wants } = invocation;
        let refused = match outbox {
            Some(outbox)
                if matches!(wants, Wants::Stream(_)) && !outbox.features().contains(Features::STREAMS) =>
            {
                Some(Refusal::NoStreams.into_error(Receiver::Master))
            }
            Some(outbox) => {
                let frame = Frame::Invoke(Invoke { function, callback_id, time_left, wants, payload });
                outbox.push(&frame, Kind::Request).err().map(|refusal| refusal.into_error(Receiver::Master))
            }
            None => Some(gone("the link that it came over is lost")),
        };
        match (refused, callback_id) {
            (Some(error), Some(callback_id)) => self.refuse(callback_id, error),
            (Some(error), None) => log::debug!("a callback was not called: {error}"),
            (None, _) => {}
        }
    }

    /// Lets the master keep a value; `outbox` is none without a link.
    pub(super) fn keep_last(&self, keeping: Keeping, outbox: Option<&Outbox>) {
        let Keeping { callback_id, event: NewEvent { topic, headers, payload }, forgets } = keeping;
        let (publisher, groups) = (ByteString::new(), Vec::new());
        let event = Publish { topic, publisher, for_all: true, groups, headers, payload };
        let frame = Frame::KeepLast(KeepLast { callback_id, number: None, forgets, event });
        let refused = match outbox {
            Some(outbox) => outbox.push(&frame, Kind::Request).err(),
            None => return self.refuse(callback_id, link_down()),
        };
        if let Some(refusal) = refused {
            self.refuse(callback_id, refusal.into_error(Receiver::Master));
        }
    }

    /// Cancels a call that its caller dropped.
    pub(super) fn cancel(&mut self, callback_id: CallbackId, outbox: Option<&Outbox>) {
        let destination = self.requests.borrow_mut().cancel(callback_id);
        self.stop(callback_id, destination, outbox);
    }

    /// Stops the work on a call whose caller waits no longer: the node that answers it is told. A cancel that is lost with its link does no
    /// harm, since the master cancels all requests of the branch when it loses the link. Nor does a cancel of a call that went over an
    /// earlier link.
    fn stop(&mut self, callback_id: CallbackId, destination: Option<Destination>, outbox: Option<&Outbox>) {
        match (destination, outbox) {
            (Some(Destination::OwnResponder), _) => {
                self.own_answering.cancel(callback_id);
            }
            // Drops the call with the functions in its arguments.
            (Some(Destination::NextLink), _) => {
                self.node.waits_no_longer(Some(callback_id));
                self.waiting.retain(|ask| ask.request.callback_id != callback_id)
            }
            (None, Some(outbox)) => outbox.say(&Frame::Cancel(callback_id)),
            (None, None) => {}
        }
    }

    /// Ends the calls whose deadlines have passed.
    pub(super) fn expire(&mut self, now: Instant, outbox: Option<&Outbox>) {
        let no_reply = |destination: Option<&Destination>| {
            let (fate, what) = match destination {
                Some(Destination::NextLink) => {
                    (Fate::NotSent, "the link did not come back before the deadline")
                }
                Some(Destination::OwnResponder) | None => {
                    (Fate::Unknown, "no reply came before the deadline")
                }
            };
            CallError::new(Code::REQUEST_TIMEOUT, fate, what)
        };
        let expired = self.requests.borrow_mut().expire(now.into_std(), no_reply);
        for (callback_id, destination) in expired {
            self.stop(callback_id, destination, outbox);
        }
    }

    /// Ends the calls that went over a lost link; gives how many.
    pub(super) fn lost(&self, error: &CallError) -> usize {
        self.requests.borrow_mut().fail_if(|destination| destination.is_none(), error)
    }

    /// Ends the calls that wait for a link, when the branch does not bind again; gives how many.
    pub(super) fn wait_no_longer(&mut self, error: &CallError) -> usize {
        self.waiting.clear();
        self.node.waits_no_longer(None);
        self.requests.borrow_mut().fail_if(|destination| destination == Some(&Destination::NextLink), error)
    }

    /// Ends all calls, at the end of the branch.
    pub(super) fn end(&mut self, why: &CallError) {
        self.wait_no_longer(why);
        // The other calls had left, so their fate is unknown, whatever the reason of the end says.
        self.requests.borrow_mut().fail_if(|_| true, &why.clone().with_fate(Fate::Unknown));
        self.own_answering.cancel_all();
    }

    /// How many calls wait for a link.
    pub(super) fn waiting(&self) -> usize {
        let requests = self.requests.borrow();
        self.waiting.iter().filter(|ask| requests.is_waiting(ask.request.callback_id)).count()
    }

    /// How many calls are not settled.
    pub(super) fn len(&self) -> usize {
        self.requests.borrow().len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.borrow_mut().next_deadline().map(Instant::from_std)
    }
}
