//! The outlet of a stream at its producer: it writes the items, as many as the consumer has granted and the link has room for.
//!
//! Short items gather, and leave in one go when the producer waits or has made enough for one turn: an item costs no lock, no allocation and no
//! task.

use crate::link::outbox::{AwaitsRoom, Encoded, Kind, Outbox};
use crate::link::refusal::{Receiver, Refusal};
use crate::streams::{Allowance, Inbox};
use bytes::BytesMut;
use futures::task::AtomicWaker;
use meshwork_wire::limits::{
    LENGTH_PREFIX_LEN, PAYLOAD_SHARED_LEN_MIN, STREAM_GATHERED_ITEMS_MAX, STREAM_GATHERED_LEN_MAX,
};
use meshwork_wire::{
    CallError, Callable, CallbackId, Code, EncodeError, Encoding, Fate, Form, Frame, Function, Grant,
    Invocation, Invoked, Item, Payload, PayloadRef, write_item,
};
use serde::Serialize;
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// Writes the items of one stream. The end of the stream is the outcome of its request.
pub struct Outlet {
    callback_id: CallbackId,
    to: To,
    /// What is left of the grants that were taken from `grants`.
    allowance: Allowance,
    grants: Arc<Grants>,
    gathered: Gathered,
    /// How many items, and how many bytes, were made since the other tasks of the thread had their turns.
    made_items: usize,
    made_len: usize,
    awaits_room: Arc<AwaitsRoom>,
}

/// The receiver of the items of a stream.
pub(crate) enum To {
    /// The other end of a link.
    Link(Outbox),
    /// A consumer in this process; `on_start` is called when the stream begins.
    Here { inbox: Arc<Inbox>, on_start: Option<Box<dyn FnOnce() + Send>> },
}

/// Short items that leave together, as frames.
#[derive(Default)]
struct Gathered {
    bytes: BytesMut,
    count: usize,
    longest: usize,
}

/// What the consumer of a stream has granted, on its way to the producer.
#[derive(Default, Debug)]
pub(crate) struct Grants {
    granted: Mutex<Allowance>,
    producer: AtomicWaker,
}

impl Grants {
    pub(crate) fn add(&self, grant: Grant) {
        // Who grants too much is told so at the relay; a producer takes what is within the bound.
        let _ = self.granted.lock().unwrap_or_else(PoisonError::into_inner).grant(grant);
        self.producer.wake();
    }

    fn take(&self) -> Grant {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).take_all()
    }
}

impl Outlet {
    pub(crate) fn new(callback_id: CallbackId, to: To, first: Grant) -> Self {
        Self {
            callback_id,
            to,
            allowance: Allowance::new(first),
            grants: Arc::default(),
            gathered: Gathered::default(),
            made_items: 0,
            made_len: 0,
            awaits_room: Arc::default(),
        }
    }

    pub(crate) fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Tells the consumer that the stream begins. Before, it waits for that, within the deadline of its request.
    pub fn start(&mut self) {
        match &mut self.to {
            To::Link(outbox) => outbox.say(&Frame::Started(self.callback_id)),
            To::Here { inbox, on_start } => {
                if let Some(on_start) = on_start.take() {
                    on_start();
                }
                inbox.start();
            }
        }
    }

    /// Waits until an item may be written: until the consumer has granted one, the link has room, and the other tasks of the thread have had their
    /// turns.
    ///
    /// # Errors
    ///
    /// When the link is gone, and with it the consumer.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        if self.made_items >= STREAM_GATHERED_ITEMS_MAX || self.made_len >= STREAM_GATHERED_LEN_MAX {
            self.pause()?;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.allowance.is_left() {
            self.take_grants();
            if !self.allowance.is_left() {
                self.pause()?;
                self.grants.producer.register(context.waker());
                // One may have come meanwhile.
                self.take_grants();
                if !self.allowance.is_left() {
                    return Poll::Pending;
                }
            }
        }
        if let To::Link(outbox) = &self.to
            && outbox.poll_room_for_items(&self.awaits_room, context.waker()).is_pending()
        {
            self.pause()?;
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn take_grants(&mut self) {
        let _ = self.allowance.grant(self.grants.take());
    }

    /// Writes an item, after [`Outlet::poll_ready`].
    ///
    /// # Errors
    ///
    /// When the item cannot be written in the encoding, is longer than the link allows, or the link is gone.
    pub fn write<T: Serialize + ?Sized>(&mut self, form: Form, item: &T) -> Result<(), CallError> {
        let Self { callback_id, to, gathered, .. } = self;
        let is_link = matches!(to, To::Link(_));
        let mut small_len = None;
        let written = match to {
            To::Link(_) => Payload::encode_unless_small(form, item, |bytes| {
                gathered.push(*callback_id, form.encoding(), bytes);
                small_len = Some(bytes.len());
            }),
            To::Here { .. } => Payload::encode(form, item).map(Some),
        };
        let payload = match written {
            Ok(payload) => payload,
            Err(error) => Some(written_instead(form, item, error)?),
        };
        let len = payload.as_ref().map_or(small_len.unwrap_or_default(), Payload::len);
        // `poll_ready` has said that something is left.
        let _ = self.allowance.take(len);
        self.made_items += 1;
        self.made_len += len;
        match payload {
            None => Ok(()),
            Some(payload) if is_link => self.send(payload),
            Some(payload) => {
                if let To::Here { inbox, .. } = &self.to {
                    inbox.push((&payload).into(), || payload.clone());
                }
                Ok(())
            }
        }
    }

    /// Writes an item that is encoded already, after [`Outlet::poll_ready`].
    ///
    /// # Errors
    ///
    /// As [`Outlet::write`].
    pub fn write_raw(&mut self, item: PayloadRef<'_>) -> Result<(), CallError> {
        let len = item.bytes.len();
        let _ = self.allowance.take(len);
        self.made_items += 1;
        self.made_len += len;
        let PayloadRef { encoding, bytes, callbacks } = item;
        let owned = || Payload { callbacks: callbacks.clone(), ..Payload::new(encoding, bytes.to_vec()) };
        match &self.to {
            To::Link(_) => self.send(owned()),
            To::Here { inbox, .. } => {
                inbox.push(item, owned);
                Ok(())
            }
        }
    }

    /// Sends an item that is not small.
    fn send(&mut self, payload: Payload) -> Result<(), CallError> {
        let To::Link(outbox) = &self.to else { return Ok(()) };
        let len = payload.len() + Gathered::HEAD_LEN_MAX;
        let fits = len <= outbox.frame_len_max();
        if payload.callbacks.is_empty() && payload.len() < PAYLOAD_SHARED_LEN_MIN && fits {
            self.gathered.push(self.callback_id, payload.encoding, &payload.bytes);
            return Ok(());
        }
        let outbox = outbox.clone();
        self.flush()?;
        let item = Item { callback_id: self.callback_id, payload };
        outbox.push(&item, Kind::Item).map_err(refused)
    }

    /// Sends the items that have gathered, since the producer waits now: the other tasks of its thread have their turns.
    ///
    /// # Errors
    ///
    /// When the link is gone.
    pub fn pause(&mut self) -> Result<(), CallError> {
        (self.made_items, self.made_len) = (0, 0);
        self.flush()
    }

    /// Sends the items that have gathered.
    ///
    /// # Errors
    ///
    /// As [`Outlet::pause`].
    pub fn flush(&mut self) -> Result<(), CallError> {
        let Gathered { bytes, count, longest } = &mut self.gathered;
        let To::Link(outbox) = &self.to else { return Ok(()) };
        if *count == 0 {
            return Ok(());
        }
        let pushed = outbox.push_encoded(Encoded::taken(bytes, *count, *longest), Kind::Item);
        bytes.clear();
        (*count, *longest) = (0, 0);
        if bytes.capacity() > Gathered::KEPT_LEN_MAX {
            *bytes = BytesMut::new();
        }
        pushed.map_err(refused)
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("callback_id", &self.callback_id).finish_non_exhaustive()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // The items that a producer made before it panicked leave, and the error behind them.
        let _ = self.flush();
    }
}

impl Gathered {
    /// The most bytes of a head of an item without functions, its length prefix counted.
    const HEAD_LEN_MAX: usize = 16;

    /// A buffer that is longer is given back, so that a stream that falls idle keeps little.
    const KEPT_LEN_MAX: usize = 4 * 1024;

    fn push(&mut self, callback_id: CallbackId, encoding: Encoding, bytes: &[u8]) {
        let start = self.bytes.len();
        write_item(callback_id, encoding, bytes, &mut self.bytes);
        self.count += 1;
        self.longest = self.longest.max(self.bytes.len() - start - LENGTH_PREFIX_LEN);
    }
}

/// Writes an item in MessagePack that bincode has no form for. Its producer ran, so the fate of an error must not be *not sent*.
#[cold]
fn written_instead<T: Serialize + ?Sized>(
    form: Form,
    item: &T,
    error: EncodeError,
) -> Result<Payload, CallError> {
    if form.encoding() != Encoding::Bincode {
        return Err(CallError::from(error).with_fate(Fate::Failed));
    }
    Payload::encode(Encoding::MessagePack, item)
        .map_err(|error| CallError::from(error).with_fate(Fate::Failed))
}

#[cold]
fn refused(refusal: Refusal) -> CallError {
    match refusal {
        Refusal::TooLong { len, max } => {
            let what = format!("the item takes a frame of {len} bytes, and the link allows {max}");
            CallError::new(Code::FRAME_TOO_LARGE, Fate::Failed, what)
        }
        refusal => refusal.into_error(Receiver::Caller),
    }
}

/// A stream that is passed as a function is: whoever opens the function is the consumer. It is opened once.
pub struct Source(Mutex<Option<Opens>>);

/// Makes the future of the producer, which writes the items to an outlet. Its outcome is the end of the stream.
type Opens = Box<dyn FnOnce(Outlet) -> Invoked + Send>;

impl Source {
    /// The function of a stream, whose producer is made when it is opened.
    pub fn function(opens: impl FnOnce(Outlet) -> Invoked + Send + 'static) -> Function {
        Function::new(Self(Mutex::new(Some(Box::new(opens)))))
    }

    /// Takes the stream of this function, to be opened.
    ///
    /// # Errors
    ///
    /// When the function is no stream, or its stream was opened before.
    fn of(function: &Function) -> Result<Opens, CallError> {
        let Some(Self(opens)) = function.as_any().and_then(|it| it.downcast_ref()) else {
            let what = "the function that was passed is no stream: it is to be called";
            return Err(CallError::new(Code::CANNOT_DECODE, Fate::NotSent, what));
        };
        let opens = opens.lock().unwrap_or_else(PoisonError::into_inner).take();
        opens.ok_or_else(|| {
            let what = "the stream was opened before: it can be read once";
            CallError::new(Code::CALLBACK_GONE, Fate::NotSent, what)
        })
    }

    /// Opens the stream of a function of this process; gives the future of its producer, which is to be polled where its items are wanted.
    ///
    /// # Errors
    ///
    /// When the function is no stream, or its stream was opened before.
    pub(crate) fn open(function: &Function, outlet: Outlet) -> Result<Invoked, CallError> {
        Ok(Self::of(function)?(outlet))
    }
}

impl Callable for Source {
    fn invoke(&self, _: Invocation) -> Invoked {
        let error = CallError::answers_with_stream(&"the function that was passed");
        Box::pin(std::future::ready(Err(error)))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
