//! The consumer's end of a stream: it opens the stream, takes its items, and grants more as they are taken. Dropping it ends the stream at its
//! producer, too.

use super::shared::Node;
use super::submission::Call;
use crate::answers::outlet::{Grants, Outlet, Source, To};
use crate::link::borrowed::borrowed_over;
use crate::node::lender::NodeLender;
use crate::streams::{Batch, Inbox, Window};
use meshwork_wire::limits::STREAM_WINDOW_LEN_MAX;
use meshwork_wire::{
    CallError, CallbackId, Code, Fate, Function, Invocation, Invoked, Outcome, Payload, PayloadRef, Wants,
};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A stream that is read.
pub struct Reading {
    from: From,
    inbox: Arc<Inbox>,
    window: Window,
    /// The items that were taken from the inbox together.
    batch: Batch,
    has_ended: bool,
}

/// The producer of a stream, as its consumer knows it.
enum From {
    /// The answer to a call of this id, or to the call of a function, which is kept as long as it is read.
    Call { node: Arc<Node>, callback_id: CallbackId, _function: Option<Function> },
    /// A producer in this process, which this end polls. None when it has ended.
    Here { producing: Option<Invoked>, grants: Arc<Grants> },
}

impl Reading {
    /// Opens the stream that answers a call, with a window that grows to so many bytes. The deadline of the call is that of its start.
    ///
    /// # Errors
    ///
    /// At once, not sent: when too many calls are in flight, or the node has ended.
    pub fn open(node: &Arc<Node>, call: Call, window_len_max: u32) -> Result<Self, CallError> {
        let (window, first) = Window::new(window_len_max);
        let inbox = Inbox::new(first);
        let callback_id = node.open_stream(call, first, &inbox)?;
        let from = From::Call { node: Arc::clone(node), callback_id, _function: None };
        Ok(Self { from, inbox, window, batch: Batch::default(), has_ended: false })
    }

    /// Opens the stream of a function that was passed. Its start has no deadline of its own: the link to its producer is there.
    ///
    /// # Errors
    ///
    /// Not sent: when the function is no stream, was opened before, or cannot be reached.
    pub fn open_function(function: &Function, window_len_max: u32) -> Result<Self, CallError> {
        let (window, first) = Window::new(window_len_max);
        let inbox = Inbox::new(first);
        let from = match borrowed_over(function) {
            Some((lender, number)) => {
                let Some(NodeLender { node, link }) = lender.as_any().downcast_ref() else {
                    let what = "the stream comes over no link of this node";
                    return Err(CallError::new(Code::CALLBACK_GONE, Fate::NotSent, what));
                };
                let wants = Wants::Stream(first);
                let invocation = Invocation { arguments: nothing(function), within: None, wants };
                let callback_id = node.open_function(*link, number, invocation, &inbox)?;
                From::Call { node: Arc::clone(node), callback_id, _function: Some(function.clone()) }
            }
            None => {
                let to = To::Here { inbox: Arc::clone(&inbox), on_start: None };
                let outlet = Outlet::new(CallbackId(0), to, first);
                let grants = Arc::clone(outlet.grants());
                From::Here { producing: Some(Source::open(function, outlet)?), grants }
            }
        };
        Ok(Self { from, inbox, window, batch: Batch::default(), has_ended: false })
    }

    /// Waits until the stream begins.
    ///
    /// # Errors
    ///
    /// Why it does not: the error of the call.
    pub fn poll_started(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.produce(context);
        self.inbox.poll_started(context.waker())
    }

    /// Reads the next item; none behind the last one. Nothing comes behind an error.
    pub fn poll_next<T>(
        &mut self,
        context: &mut Context<'_>,
        read: impl FnOnce(PayloadRef<'_>) -> T,
    ) -> Poll<Option<Result<T, CallError>>> {
        if self.batch.is_empty() {
            if self.has_ended {
                return Poll::Ready(None);
            }
            self.produce(context);
            let taken = ready!(self.inbox.poll_take(&mut self.batch, context.waker()));
            if !matches!(taken, Some(Ok(()))) {
                self.has_ended = true;
                return Poll::Ready(taken.and_then(Result::err).map(Err));
            }
        }
        let item = self.batch.next(|payload| (payload.bytes.len(), read(payload)));
        Poll::Ready(item.map(|(len, item)| {
            self.window.taken(len);
            if self.window.is_due() {
                self.grant();
            }
            Ok(item)
        }))
    }

    fn grant(&mut self) {
        let grant = self.window.next(self.batch.is_empty() && self.inbox.is_empty());
        // Before the producer hears of it.
        self.inbox.grant(grant);
        match &self.from {
            From::Call { node, callback_id, .. } => node.grant(*callback_id, grant),
            From::Here { grants, .. } => grants.add(grant),
        }
    }

    /// Lets a producer of this process make items.
    fn produce(&mut self, context: &mut Context<'_>) {
        let From::Here { producing, .. } = &mut self.from else { return };
        if let Some(future) = producing
            && let Poll::Ready(outcome) = future.as_mut().poll(context)
        {
            *producing = None;
            self.inbox.end(outcome.map(drop));
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let From::Call { node, callback_id, .. } = &self.from {
            node.close_stream(*callback_id);
        }
    }
}

/// The function as one of this process, if it is a stream that comes over another link: it is read there, and its items go on.
pub(crate) fn source_of(function: Function) -> Function {
    match borrowed_over(&function) {
        Some(_) => Source::function(move |outlet| Box::pin(pass_on(function, outlet))),
        None => function,
    }
}

/// Reads a stream, and writes its items as its reader takes them.
async fn pass_on(function: Function, mut outlet: Outlet) -> Outcome {
    let mut reading = Reading::open_function(&function, STREAM_WINDOW_LEN_MAX)?;
    poll_fn(|context| reading.poll_started(context)).await?;
    outlet.start();
    poll_fn(|context| {
        loop {
            ready!(outlet.poll_ready(context))?;
            match reading.poll_next(context, |item| outlet.write_raw(item)) {
                Poll::Ready(Some(item)) => item??,
                Poll::Ready(None) => return Poll::Ready(Ok(Payload::default())),
                Poll::Pending => {
                    outlet.pause()?;
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// The arguments of the call of a function that takes none.
fn nothing(function: &Function) -> Payload {
    Payload::encode(function.encoding(), &()).unwrap_or_default()
}
