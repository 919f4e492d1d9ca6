//! The calls of a branch: its own actions answer them, or they leave over the link, or they wait for it.

use super::link::{draining, ended};
use crate::answers::answering::Answering;
use crate::answers::{Action, Actions, CallContext};
use crate::calls::in_flight::Run;
use crate::calls::requests::Requests;
use crate::link::outbox::{Encoded, Kind, Outbox, OutboxGuard};
use crate::link::refusal::{Receiver, Refusal, gone};
use crate::node::shared::Node;
use crate::node::submission::{Ask, Frames, Invoking, Submission, WhenDown};
use meshwork_wire::limits::WAITING_MAX;
use meshwork_wire::{ByteString, CallError, CallbackId, Code, Fate, Frame, Invocation, Invoke, Request};
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
    /// Those that went over the link have no way of their own.
    pub(super) requests: Rc<RefCell<Requests<Way>>>,
    /// Calls of this branch to itself that were not answered at once. They outlive the link.
    pub(super) own_answering: Answering,
    /// Calls that wait for the link, at most [`WAITING_MAX`].
    waiting: VecDeque<Box<Ask>>,
}

/// The way of a call that has not gone over the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// It waits for the link.
    Waiting,
    /// To a responder of this branch.
    Here,
}

/// Where calls of a branch go that others answer.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    /// Over the link, by this outbox.
    Link(&'a Outbox),
    /// Nowhere until there is a link that takes them.
    Wait,
    /// Nowhere: the branch drains, also what it would answer itself.
    Draining,
    /// Nowhere: the branch has ended.
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
    pub(super) fn new(node: &Arc<Node>) -> Self {
        let requests = Requests::new(Arc::clone(node) as Arc<dyn crate::calls::response::Calls>);
        Self {
            name: node.name().clone(),
            node: Arc::clone(node),
            requests: Rc::new(RefCell::new(requests)),
            own_answering: Answering::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Binds a response actor to the calls of a run, which leave now.
    pub(super) fn bind(&self, run: Option<Run>) {
        if let Some(run) = run {
            self.requests.borrow_mut().bind(run);
        }
    }

    /// Sends what was submitted on its way, up to the first submission that is no call.
    pub(super) fn send_calls(
        &mut self,
        submissions: &mut Peekable<Drain<'_, Submission>>,
        actions: &Actions,
        path: Path<'_>,
        now: Instant,
    ) {
        // Most of what is submitted are calls over the link: its outbox is held for as many as follow each other.
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
                (Submission::Ask(ask), Some(outbox)) if self.own(actions, &ask.request).is_none() => {
                    refused.extend(Self::send(ask, guard.get_or_insert_with(|| outbox.hold()), now));
                }
                (Submission::Ask(ask), _) => {
                    // A responder may have something to say over the link.
                    guard = None;
                    self.ask(ask, actions, path, now);
                }
                _ => {}
            }
        }
        drop(guard);
        self.refuse_all(refused);
    }

    /// The action that answers a call of this branch here.
    fn own<'a>(&self, actions: &'a Actions, request: &Request) -> Option<&'a Action> {
        let is_here = request.node.is_empty() || request.node == self.name;
        actions.get(&request.action).filter(|_| is_here)
    }

    /// Sends calls whose frames are written already; gives them back if the link does not take them together.
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

    /// Sends calls whose frames are written, each on its own way. One that is too long does not keep the others from leaving.
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
                    let ask = Ask { request, deadline, when_down: WhenDown::Wait };
                    self.ask(Box::new(ask), actions, path, now);
                }
                Some(refusal) => self.refuse(callback_id, refusal.into_error(Receiver::Master)),
            }
        }
    }

    /// Sends a call on its way: own responders first, then the link.
    fn ask(&mut self, ask: Box<Ask>, actions: &Actions, path: Path<'_>, now: Instant) {
        let callback_id = ask.request.callback_id;
        if let Path::Draining = path {
            return self.refuse(callback_id, draining());
        }
        if let Some(own) = self.own(actions, &ask.request) {
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

    /// Answers a call of this branch to itself.
    fn answer(&mut self, own: &Action, ask: Ask) {
        let Ask { request: Request { callback_id, action, payload, .. }, deadline, .. } = ask;
        self.requests.borrow_mut().goes(callback_id, Way::Here);
        let context = CallContext::new(action, self.name.clone(), deadline.map(Instant::from_std));
        self.own_answering.start(own, (&payload).into(), &context, callback_id, &self.requests);
    }

    /// Sends a call over the link; gives it back if the link does not take it. It is refused when the outbox is let go: its caller, and the functions
    /// in its arguments, may do anything then.
    #[must_use]
    fn send(mut ask: Box<Ask>, guard: &mut OutboxGuard<'_>, now: Instant) -> Option<(Box<Ask>, Refusal)> {
        if let Some(deadline) = ask.deadline {
            ask.request.time_left = Some(Instant::from_std(deadline).saturating_duration_since(now));
        }
        let refusal = guard.push(&ask.request, Kind::Request).err()?;
        Some((ask, refusal))
    }

    fn refuse_all(&self, refused: impl IntoIterator<Item = (Box<Ask>, Refusal)>) {
        for (ask, refusal) in refused {
            self.refuse(ask.request.callback_id, refusal.into_error(Receiver::Master));
        }
    }

    /// Lets a call wait for the link.
    fn wait(&mut self, ask: Box<Ask>) {
        let callback_id = ask.request.callback_id;
        if ask.when_down == WhenDown::Fail {
            let error = CallError::new(Code::LINK_LOST, Fate::NotSent, "the link to the master is down");
            return self.refuse(callback_id, error);
        }
        // Those whose callers gave up or were told meanwhile make room.
        if self.waiting.len() >= WAITING_MAX {
            let requests = self.requests.borrow();
            self.waiting.retain(|ask| requests.is_waiting(ask.request.callback_id));
        }
        if self.waiting.len() >= WAITING_MAX {
            let what = format!("{WAITING_MAX} calls wait for the link already");
            return self.refuse(callback_id, CallError::new(Code::OVERLOADED, Fate::NotSent, what));
        }
        self.requests.borrow_mut().goes(callback_id, Way::Waiting);
        self.waiting.push_back(ask);
    }

    fn refuse(&self, callback_id: CallbackId, error: CallError) {
        self.requests.borrow_mut().resolve(callback_id, Err(error));
    }

    /// There is a link again: the calls that wait for it leave.
    pub(super) fn leave(&mut self, outbox: &Outbox, now: Instant) {
        if self.waiting.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        let mut guard = outbox.hold();
        for ask in std::mem::take(&mut self.waiting) {
            let callback_id = ask.request.callback_id;
            // Those whose deadline passed have been told.
            if self.requests.borrow().is_waiting(callback_id) {
                self.requests.borrow_mut().goes_the_usual_way(callback_id);
                refused.extend(Self::send(ask, &mut guard, now));
            }
        }
        drop(guard);
        self.refuse_all(refused);
    }

    /// Calls a function at the other end of the link that it came over, if that is still there.
    pub(super) fn invoke(&self, invoking: Invoking, outbox: Option<&Outbox>) {
        let Invoking { function, callback_id, invocation, .. } = invoking;
        let Invocation { arguments: payload, within: time_left, wants } = invocation;
        let refused = match outbox {
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

    /// The caller of a call dropped it.
    pub(super) fn cancel(&mut self, callback_id: CallbackId, outbox: Option<&Outbox>) {
        let way = self.requests.borrow_mut().cancel(callback_id);
        self.stop(callback_id, way, outbox);
    }

    /// Nobody waits for a call any more: the node that runs it is told. A cancel that is lost with its link does no harm: the master
    /// cancels all that the branch asked when it loses the link; nor does one of a call that went over an earlier link.
    fn stop(&mut self, callback_id: CallbackId, way: Option<Way>, outbox: Option<&Outbox>) {
        match (way, outbox) {
            (Some(Way::Here), _) => {
                self.own_answering.cancel(callback_id);
            }
            // What it would have sent is let go, and the functions in it.
            (Some(Way::Waiting), _) => self.waiting.retain(|ask| ask.request.callback_id != callback_id),
            (None, Some(outbox)) => outbox.say(&Frame::Cancel(callback_id)),
            (None, None) => {}
        }
    }

    /// Ends the calls whose deadlines have passed.
    pub(super) fn expire(&mut self, now: Instant, outbox: Option<&Outbox>) {
        let no_reply = |way: Option<&Way>| {
            let (fate, what) = match way {
                Some(Way::Waiting) => (Fate::NotSent, "the link did not come back before the deadline"),
                Some(Way::Here) | None => (Fate::Unknown, "no reply came before the deadline"),
            };
            CallError::new(Code::REQUEST_TIMEOUT, fate, what)
        };
        let expired = self.requests.borrow_mut().expire(now.into_std(), no_reply);
        for (callback_id, way) in expired {
            self.stop(callback_id, way, outbox);
        }
    }

    /// The link is lost: the calls that went over it end; gives how many.
    pub(super) fn lost(&self, error: &CallError) -> usize {
        self.requests.borrow_mut().fail_if(|way| way.is_none(), error)
    }

    /// The branch does not bind again: the calls that wait for a link end; gives how many.
    pub(super) fn wait_no_longer(&mut self, error: &CallError) -> usize {
        self.waiting.clear();
        self.requests.borrow_mut().fail_if(|way| way == Some(&Way::Waiting), error)
    }

    /// The branch has ended: all that it called ends.
    pub(super) fn end(&mut self, why: &CallError) {
        self.wait_no_longer(why);
        // The others had left, whatever it is that ends the branch.
        self.requests.borrow_mut().fail_if(|_| true, &why.clone().with_fate(Fate::Unknown));
        self.own_answering.cancel_all();
    }

    /// How many calls wait for the link.
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
