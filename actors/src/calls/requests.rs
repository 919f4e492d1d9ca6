//! The calls of one node that have left it, as its actor knows them: which response actor is bound to which, the way that each went, and
//! when the next deadline passes. Generic over what a way is; no way is the usual one.

use super::bindings::Bindings;
use super::deadlines::Deadlines;
use super::in_flight::Run;
use super::reply::Reply;
use super::response::{Calls, Pooled};
use crate::answers::reply_to::ReplyTo;
use hashbrown::HashMap;
use meshwork_wire::limits::RESPONSE_POOL_MAX;
use meshwork_wire::{CallError, CallbackId, Outcome};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The calls of one node that have left it.
pub(crate) struct Requests<W> {
    calls: Arc<dyn Calls>,
    bindings: Bindings<Box<Pooled>>,
    pool: Vec<Box<Pooled>>,
    /// The ways of the calls that did not go the usual one.
    ways: HashMap<CallbackId, W>,
    /// One for each run whose deadlines are in order, under its first id, and one for each call of the others.
    deadlines: Deadlines,
    /// Replies that came together, to calls of the binding that stands there.
    row: Vec<(CallbackId, Reply)>,
    row_binding: usize,
}

impl<W> Requests<W> {
    pub(crate) fn new(calls: Arc<dyn Calls>) -> Self {
        Self {
            calls,
            bindings: Bindings::new(),
            pool: Vec::new(),
            ways: HashMap::new(),
            deadlines: Deadlines::default(),
            row: Vec::new(),
            row_binding: 0,
        }
    }

    /// Binds a response actor to the calls of a run, which leave now.
    pub(crate) fn bind(&mut self, run: Run) {
        let response = self.pool.pop().unwrap_or_else(|| Box::new(Pooled::new(Arc::clone(&self.calls))));
        // Nobody must be looked up by a place in a list that changes.
        self.end_row();
        self.bindings.bind(run, response);
        if run.in_order {
            if let Some(earliest) = run.earliest {
                self.deadlines.push(earliest, run.first);
            }
            return;
        }
        let deadlines = &mut self.deadlines;
        self.calls.with(&mut |in_flight| {
            for id in (run.first.0..=run.last.0).map(CallbackId) {
                if let Some(deadline) = in_flight.deadline(id) {
                    deadlines.push(deadline, id);
                }
            }
        });
    }

    /// Resolves a call. A late or unknown reply misses.
    pub(crate) fn resolve(&mut self, id: CallbackId, reply: impl Into<Reply>) {
        self.resolve_in_row(id, reply.into());
        self.end_row();
    }

    /// Resolves a call of a block in which more may follow; [`Requests::end_row`] must.
    #[inline]
    pub(crate) fn resolve_in_row(&mut self, id: CallbackId, reply: Reply) {
        if !self.ways.is_empty() {
            self.ways.remove(&id);
        }
        let before = self.row_binding;
        let Some(at) = self.bindings.find(id) else {
            return log::debug!("a reply to {id} came too late");
        };
        if at != before && !self.row.is_empty() {
            self.end_row();
            // A binding that ended may have moved this one.
            match self.bindings.find(id) {
                Some(at) => self.row_binding = at,
                None => return,
            }
        } else {
            self.row_binding = at;
        }
        self.row.push((id, reply));
    }

    /// Hands over the replies that came together.
    #[inline]
    pub(crate) fn end_row(&mut self) {
        if !self.row.is_empty() {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let at = self.row_binding;
        let response = self.bindings.get_mut(at).and_then(|binding| binding.response.as_mut());
        let Some(response) = response else {
            // All of its calls are settled.
            return self.row.clear();
        };
        let settled = response.resolve(&*self.calls, &mut self.row);
        self.settled(at, settled);
    }

    fn settled(&mut self, at: usize, count: usize) {
        let first = self.bindings.get_mut(at).map(|binding| binding.run.first);
        if let (Some(response), Some(first)) = (self.bindings.settled(at, count), first) {
            if self.pool.len() < RESPONSE_POOL_MAX {
                self.pool.push(response);
            }
            let bindings = &self.bindings;
            self.deadlines.settled(first, |id| bindings.has(id), bindings.open_count());
        }
    }

    /// A caller dropped its call, which was not settled; gives the way that it went, if it has left and it was not the usual one.
    pub(crate) fn cancel(&mut self, id: CallbackId) -> Option<W> {
        self.end_row();
        if let Some(at) = self.bindings.find(id) {
            self.settled(at, 1);
        }
        self.ways.remove(&id)
    }

    /// A call goes another way than the usual one.
    pub(crate) fn goes(&mut self, id: CallbackId, way: W) {
        self.ways.insert(id, way);
    }

    /// A call goes the usual way after all.
    pub(crate) fn goes_the_usual_way(&mut self, id: CallbackId) {
        self.ways.remove(&id);
    }

    /// Ends the calls whose deadline has passed, each with this error; gives them with the ways that they went.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        error: impl Fn(Option<&W>) -> CallError,
    ) -> Vec<(CallbackId, Option<W>)> {
        let mut expired = Vec::new();
        while let Some(id) = self.deadlines.pop(now) {
            let Some(at) = self.bindings.find(id) else {
                continue;
            };
            let Some((run, unexpired)) = self.bindings.get_mut(at).map(|it| (it.run, it.unexpired)) else {
                continue;
            };
            if !run.in_order {
                expired.push(id);
                continue;
            }
            let mut next = None;
            self.calls.with(&mut |in_flight| {
                for id in (unexpired.0..=run.last.0).map(CallbackId) {
                    match in_flight.deadline(id) {
                        Some(deadline) if deadline <= now => expired.push(id),
                        Some(deadline) => {
                            next = Some((deadline, id));
                            break;
                        }
                        None => {}
                    }
                }
            });
            if let Some((deadline, id)) = next {
                if let Some(binding) = self.bindings.get_mut(at) {
                    binding.unexpired = id;
                }
                self.deadlines.push(deadline, run.first);
            }
        }
        let calls = Arc::clone(&self.calls);
        calls.with(&mut |in_flight| expired.retain(|id| in_flight.is_waiting(*id)));
        let expired = expired.into_iter().map(|id| {
            let way = self.ways.remove(&id);
            self.resolve_in_row(id, Reply::failed(error(way.as_ref())));
            (id, way)
        });
        let expired = expired.collect();
        self.end_row();
        expired
    }

    /// When to look for expired calls again.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        let bindings = &self.bindings;
        self.deadlines.drop_settled(|id| bindings.has(id));
        self.deadlines.first()
    }

    /// Ends every call that has left and went a certain way; gives how many.
    pub(crate) fn fail_if(&mut self, gone: impl Fn(Option<&W>) -> bool, error: &CallError) -> usize {
        self.end_row();
        let mut lost = Vec::new();
        for run in self.bindings.open_runs() {
            let ways = &self.ways;
            self.calls.with(&mut |in_flight| {
                let ids = (run.first.0..=run.last.0).map(CallbackId);
                lost.extend(ids.filter(|id| in_flight.is_waiting(*id) && gone(ways.get(id))));
            });
        }
        for id in &lost {
            self.resolve_in_row(*id, Reply::failed(error.clone()));
        }
        self.end_row();
        lost.len()
    }

    /// Whether a call is not settled.
    pub(crate) fn is_waiting(&self, id: CallbackId) -> bool {
        let mut is_waiting = false;
        self.calls.with(&mut |in_flight| is_waiting = in_flight.is_waiting(id));
        is_waiting
    }

    /// Until when a call is waited for.
    pub(crate) fn deadline(&self, id: CallbackId) -> Option<Instant> {
        let mut deadline = None;
        self.calls.with(&mut |in_flight| deadline = in_flight.deadline(id));
        deadline
    }

    /// How many calls that have left are not settled.
    pub(crate) fn len(&self) -> usize {
        self.bindings.left()
    }
}

impl<W: 'static> ReplyTo for Rc<RefCell<Requests<W>>> {
    type Later = Self;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        self.borrow_mut().resolve(callback_id, outcome);
    }

    fn later(&self) -> Self {
        Rc::clone(self)
    }
}
