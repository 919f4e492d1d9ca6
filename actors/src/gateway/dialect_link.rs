//! A link that speaks another protocol at its far end. It stands between a foreign socket and a session, a branch or a master, which read
//! and write frames as on any link. The protocols themselves are the dialects in `meshwork-wire`.

use crate::link::door::Place;
use crate::link::refusal::{too_long, too_many_hops};
use crate::link::{Handshake, Link};
use crate::log_line;
use crate::repeated::Repeated;
use bytes::{Buf, BytesMut};
use meshwork_wire::limits::{
    BIND_FRAME_LEN_MAX, CALLBACKS_PER_REQUEST_MAX, FIRST_FRAME_LEN_MAX, FOREIGN_BUFFER_LEN_MAX,
    FOREIGN_OUT_LEN_MAX, FOREIGN_SILENT_WITHIN, FRAME_LEN_MAX, HEAD_RESERVE_LEN, HEARTBEAT_EVERY_MIN,
    HOPS_MAX, READ_BUFFER_LEN_START,
};
use meshwork_wire::{
    Bound, CallError, Callbacks, Code, DialectError, ExtendedBind, ExtendedBound, Fate, Features, Frame,
    FrameCodec, FrameError, Invoke, Item, OpenStream, Refused, Request, Response, Said, is_native, spoken,
};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Interval, Sleep};
use tokio_util::codec::Decoder;

/// How often a dialect link sends the near end a heartbeat in place of its peer, and looks for calls whose deadline has passed; more often
/// if the master asks for a shorter heartbeat.
const BEAT: Duration = Duration::from_secs(1);

/// The events that did not fit, the messages that nobody is told of, and the links that ended with an error. The peers choose how often,
/// and each link has a peer of its own.
static UNFIT: Repeated = Repeated::new();
static NOTES: Repeated = Repeated::new();
static ENDED: Repeated = Repeated::new();

/// The features that a dialect link knows, whatever its dialect.
const FEATURES: Features = Features::FORMS;

/// The features of a near end of this version that a dialect link may use.
const NEAR_FEATURES: Features = Features(FEATURES.0 | Features::STREAMS.0);

/// A link with frames at the near end, where a node of this process is, and another protocol at the far end.
pub(crate) struct DialectLink {
    link: Box<dyn Link>,
    /// The handshake of the link; none when it is done. Before, the near end is told nothing: a dialect may bind its peer at once, and a peer
    /// whose certificate was not checked is to bind nothing.
    handshake: Option<Arc<Handshake>>,
    dialect: Box<dyn meshwork_wire::Dialect>,
    peer: String,
    /// Bytes from the far end that the dialect has not read yet.
    heard: BytesMut,
    /// Bytes for the far end.
    out: BytesMut,
    /// Frames for the near end.
    frames: BytesMut,
    /// Bytes from the near end that are no whole frame yet.
    written: BytesMut,
    codec: FrameCodec,
    said: Said,
    beat: Interval,
    /// Whether the link was dialled. An accepted peer is not heard while it does not read. A dialled peer is always heard, since it may not
    /// hear us either until we read.
    dialled: bool,
    bind: BindProgress,
    /// How the near end is asked to bind the far end.
    asks: Asks,
    /// The features that the near end knows.
    features: Features,
    /// Whether the near end did not understand the extended bind.
    pub(crate) wants_plain_bind: bool,
    /// When the near end was given the bind.
    asked: Option<tokio::time::Instant>,
    /// When the bind was done, for the bridge.
    pub(crate) bound: Option<tokio::time::Instant>,
    /// The longest frame that the near end reads.
    frame_len_max: usize,
    state: State,
    /// The peer of a gateway that has not said its first message; none once it has.
    first_message: Option<FirstMessage>,
    /// The error of a bind that was refused, for the bridge.
    pub(crate) refused: Option<CallError>,
    /// Whether the far end refused it, and not the near end.
    pub(crate) refused_by_far: bool,
    /// What was wrong with the far end or the near end, for the bridge.
    pub(crate) fault: Option<Fault>,
    /// The first bytes that came from the far end.
    first: BytesMut,
    /// Whether the near end is a branch, which is told why the far end is no master.
    pub(crate) near_is_branch: bool,
    /// The near end, when it waits to read.
    reader: Option<Waker>,
    /// The near end, when it waits to write.
    writer: Option<Waker>,
}

/// The wait for the first message of a peer that a gateway has accepted. Until it is there the peer is nobody, as a branch that has not bound,
/// also where it needs no bind.
struct FirstMessage {
    place: Arc<Place>,
    within: Duration,
    /// The end of the wait.
    alarm: Pin<Box<Sleep>>,
    /// Whether the message is there, and its bind is not done.
    is_there: bool,
}

/// Why a link between two programs did not last.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The far end speaks another protocol than that of the dialect.
    FarSpeaksOther(String),
    /// The near end does not speak the native protocol.
    NearSpeaksOther(String),
    /// The far end said nothing, or closed the connection.
    FarIsSilent(String),
    /// The near end does not answer the bind.
    NearIsSilent(String),
    /// The near end closed the connection.
    Closed(String),
}

/// How many of the first bytes of the far end are kept: they tell which protocol it speaks.
const FIRST_LEN: usize = 16;

/// The progress of the bind: nothing else may be said before it is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BindProgress {
    NotAsked,
    Asked,
    Done,
}

/// How a near end that is a master is asked to bind the far end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// With an extended bind, of a branch with this incarnation.
    Extended(u64),
    /// As a master of an earlier version understands it.
    Plain,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The far end is not heard any more; the near end reads the frames that are there, then the end of the link.
    Ended,
}

impl DialectLink {
    /// Speaks a dialect over a link that `peer` opened, to a session of this process.
    pub(crate) fn accepted(
        link: Box<dyn Link>,
        dialect: Box<dyn meshwork_wire::Dialect>,
        peer: String,
        handshake: Option<Arc<Handshake>>,
        (place, first_within): (Arc<Place>, Duration),
    ) -> Self {
        let alarm = Box::pin(tokio::time::sleep(first_within));
        let first_message = Some(FirstMessage { place, within: first_within, alarm, is_there: false });
        // Each connection is a branch of its own.
        let asks = Asks::Extended(fastrand::u64(..));
        let mut this = Self { first_message, handshake, ..Self::new(link, dialect, peer, asks) };
        this.near_knows(NEAR_FEATURES);
        this
    }

    /// Speaks a dialect over a link that was dialled to `peer`, to a branch of this process.
    pub(crate) fn dialled(
        link: Box<dyn Link>,
        dialect: Box<dyn meshwork_wire::Dialect>,
        peer: String,
    ) -> Self {
        let mut this = Self { dialled: true, ..Self::new(link, dialect, peer, Asks::Plain) };
        this.near_knows(NEAR_FEATURES);
        this
    }

    /// Speaks a dialect over a link that was dialled to `peer`, to a master that may be of another version.
    pub(crate) fn bridged(
        link: Box<dyn Link>,
        dialect: Box<dyn meshwork_wire::Dialect>,
        peer: String,
        asks: Asks,
    ) -> Self {
        Self { dialled: true, ..Self::new(link, dialect, peer, asks) }
    }

    fn new(
        link: Box<dyn Link>,
        mut dialect: Box<dyn meshwork_wire::Dialect>,
        peer: String,
        asks: Asks,
    ) -> Self {
        let mut said = Said::default();
        dialect.begin(Instant::now(), &mut said);
        let mut this = Self {
            link,
            handshake: None,
            dialect,
            peer,
            heard: BytesMut::new(),
            out: BytesMut::new(),
            frames: BytesMut::new(),
            written: BytesMut::new(),
            codec: FrameCodec::new(FRAME_LEN_MAX),
            said,
            beat: every(BEAT),
            dialled: false,
            bind: BindProgress::NotAsked,
            asks,
            features: Features::default(),
            wants_plain_bind: false,
            asked: None,
            bound: None,
            frame_len_max: FRAME_LEN_MAX,
            state: State::Open,
            first_message: None,
            refused: None,
            refused_by_far: false,
            fault: None,
            first: BytesMut::new(),
            near_is_branch: false,
            reader: None,
            writer: None,
        };
        this.pass_on();
        this
    }

    /// The features that the near end may use.
    fn known(&self) -> Features {
        Features(FEATURES.0 | self.dialect.features().0)
    }

    /// Notes the features that the near end knows.
    fn near_knows(&mut self, features: Features) {
        self.features = features;
        self.dialect.near_knows(features);
    }

    /// Passes on what the dialect said: frames to the near end, bytes to the far end.
    fn pass_on(&mut self) {
        while !self.said.frames.is_empty() {
            for frame in std::mem::take(&mut self.said.frames) {
                let frame = match (frame, self.asks) {
                    (Frame::Bind(bind), Asks::Extended(incarnation)) => {
                        self.bind = BindProgress::Asked;
                        let (features, replaces) = (self.known(), false);
                        Frame::ExtendedBind(ExtendedBind { bind, features, incarnation, replaces })
                    }
                    (Frame::Bind(bind), Asks::Plain) => {
                        self.bind = BindProgress::Asked;
                        Frame::Bind(bind)
                    }
                    (Frame::Bound(bound), _) => {
                        self.let_in(&bound);
                        let features = self.known();
                        Frame::ExtendedBound(ExtendedBound { bound, features, publish: None })
                    }
                    (frame, _) => frame,
                };
                match self.unfit(&frame) {
                    Some(error) => self.refuse(frame, error),
                    None => self.say(frame),
                }
            }
        }
        for note in self.said.notes.drain(..) {
            let line = NOTES.warn(tokio::time::Instant::now().into_std());
            log_line!(line, "{}: {note}", self.peer);
        }
        self.out.unsplit(self.said.bytes.split());
        if !self.frames.is_empty()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// Says a frame to the near end, in a form that the near end knows.
    fn say(&mut self, frame: Frame) {
        frame.for_features(self.features).encode(&mut self.frames);
    }

    /// Notes that the bind is done, with the bounds of the master.
    fn let_in(&mut self, bound: &Bound) {
        self.bind = BindProgress::Done;
        self.let_in_if_heard();
        self.bound = Some(tokio::time::Instant::now());
        self.frame_len_max = usize::try_from(bound.frame_len_max).unwrap_or(FRAME_LEN_MAX).min(FRAME_LEN_MAX);
        self.beat = every(BEAT.min(Duration::from_millis(bound.heartbeat_ms)).max(HEARTBEAT_EVERY_MIN));
    }

    /// The error of a frame that the near end would give the link up for if it read it; none if the frame fits.
    fn unfit(&self, frame: &Frame) -> Option<CallError> {
        let payload = frame.payload()?;
        let (len, max) = (payload.len() + HEAD_RESERVE_LEN, self.frame_len_max);
        let (code, what) = if payload.callbacks.len() > CALLBACKS_PER_REQUEST_MAX {
            (Code::OVERLOADED, format!("at most {CALLBACKS_PER_REQUEST_MAX} functions are passed at once"))
        } else if len > max {
            (Code::FRAME_TOO_LARGE, too_long(len, max))
        } else {
            return None;
        };
        Some(CallError::new(code, Fate::NotSent, what))
    }

    /// Drops a frame that does not fit: its sender, or the caller whose reply it is, gets the error, and its functions are released.
    fn refuse(&mut self, frame: Frame, error: CallError) {
        let callbacks = frame.payload().map_or_else(Callbacks::none, |payload| payload.callbacks.clone());
        let asked = match frame {
            Frame::Request(Request { callback_id, .. }) => Some(callback_id),
            Frame::Invoke(Invoke { callback_id, .. }) => callback_id,
            Frame::Response(Response { callback_id, .. }) => {
                let outcome = Err(error.clone().with_fate(Fate::Failed));
                Frame::Response(Response { callback_id, outcome }).encode(&mut self.frames);
                None
            }
            // A stream has no gap: it ends.
            Frame::Item(Item { callback_id, .. }) => {
                let outcome = Err(error.clone().with_fate(Fate::Failed));
                Frame::Response(Response { callback_id, outcome }).encode(&mut self.frames);
                if let Err(error) =
                    self.dialect.say(Frame::Cancel(callback_id), Instant::now(), &mut self.said)
                {
                    self.end(&error);
                }
                None
            }
            Frame::OpenStream(OpenStream { request: Request { callback_id, .. }, .. }) => Some(callback_id),
            _ => {
                let line = UNFIT.warn(tokio::time::Instant::now().into_std());
                log_line!(line, "{}: an event is dropped: {error}", self.peer);
                None
            }
        };
        let released = callbacks.ids().into_iter().map(Frame::Release);
        let answered =
            asked.map(|callback_id| Frame::Response(Response { callback_id, outcome: Err(error) }));
        for frame in released.chain(answered) {
            if let Err(error) = self.dialect.say(frame, Instant::now(), &mut self.said) {
                self.end(&error);
            }
        }
    }

    /// Counts the hop of a request to the far end. A request that has come over too many hops is refused: it goes round between meshes.
    fn relayed(&mut self, request: Request) -> Option<Request> {
        if request.hops < HOPS_MAX {
            return Some(Request { hops: request.hops + 1, ..request });
        }
        let Request { callback_id, action, payload, .. } = request;
        let outcome = Err(too_many_hops(&action));
        self.said.frames.extend(payload.callbacks.ids().into_iter().map(Frame::Release));
        self.said.frames.push(Frame::Response(Response { callback_id, outcome }));
        None
    }

    /// Ends the link with this error: the far end is not heard any more.
    fn end(&mut self, error: &DialectError) {
        let what = self.explained(error);
        let line = ENDED.warn(tokio::time::Instant::now().into_std());
        let link = if self.dialled { "the link to " } else { "" };
        log_line!(line, "{link}{}: {what}", self.peer);
        match error {
            DialectError::Refused(refused) => self.refused = Some(refused.clone()),
            DialectError::Malformed { .. } | DialectError::TooLong { .. } => {
                if self.near_is_branch && self.bind != BindProgress::Done {
                    let message = what.as_str().into();
                    let refused = Refused { code: Code::UNKNOWN, message, may_return: true };
                    self.said.frames.push(Frame::Refused(refused));
                }
                self.fault = Some(Fault::FarSpeaksOther(what));
            }
            DialectError::Closed(_) => self.fault = Some(Fault::Closed(what)),
        }
        if let DialectError::Malformed { dialect, .. } | DialectError::TooLong { dialect, .. } = error {
            self.refuse_native(dialect);
        }
        self.state = State::Ended;
        self.pass_on();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Refuses a meshwork node that has dialled a gateway, in its own protocol.
    fn refuse_native(&mut self, dialect: &str) {
        if self.dialled || !is_native(&self.first) {
            return;
        }
        self.said.bytes.clear();
        let message = format!("this port is for programs of {dialect}; meshwork has a port of its own");
        Frame::Refused(Refused { code: Code::BIND_ERROR, message: message.into(), may_return: false })
            .encode(&mut self.out);
    }

    /// The error, with the protocol that the far end seems to speak.
    fn explained(&self, error: &DialectError) -> String {
        let (DialectError::Malformed { dialect, .. } | DialectError::TooLong { dialect, .. }) = error else {
            return error.to_string();
        };
        let (what, looks_like) = (error.to_string(), "it looks like");
        match spoken(&self.first).filter(|spoken| spoken != dialect && !what.contains(looks_like)) {
            Some(spoken) => format!("{what}; {looks_like} {spoken}"),
            None => what,
        }
    }

    /// Waits until the far end has said what it offers, or the link has ended.
    ///
    /// # Errors
    ///
    /// When the socket fails, or when the far end says nothing for [`FOREIGN_SILENT_WITHIN`].
    pub(crate) async fn hear_first(&mut self) -> io::Result<()> {
        let heard = std::future::poll_fn(|context| self.poll_frames(context));
        let Ok(heard) = tokio::time::timeout(FOREIGN_SILENT_WITHIN, heard).await else {
            let what = match self.first.is_empty() {
                true => "it has said nothing",
                false => "it has not said what it offers",
            };
            self.fault = Some(Fault::FarIsSilent(format!("{what} for {FOREIGN_SILENT_WITHIN:?}")));
            return Err(io::ErrorKind::TimedOut.into());
        };
        heard
    }

    /// Writes the bytes for the far end, as far as the socket takes them.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.link).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        // The bytes that the dialect said are in the socket: its peer may have more.
        self.dialect.left(&mut self.said);
        self.pass_on();
        // The socket wakes only one of the reader and the writer that may wait for it.
        for waiting in [self.writer.take(), self.reader.take()].into_iter().flatten() {
            waiting.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until the handshake of the link is done.
    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(handshake) = &self.handshake else {
            return Poll::Ready(Ok(()));
        };
        if !handshake.is_done() {
            self.heard.reserve(READ_BUFFER_LEN_START);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.link), context, &mut self.heard);
            match read {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(_)) => self.keep_first(),
                // The reader of the socket is woken for the next bytes, also when the handshake has ended with the last.
                Poll::Pending if !handshake.is_done() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        self.handshake = None;
        Poll::Ready(Ok(()))
    }

    /// Keeps the first bytes of the far end.
    fn keep_first(&mut self) {
        if self.first.len() < FIRST_LEN {
            let len = self.heard.len().min(FIRST_LEN);
            self.first = BytesMut::from(&self.heard[..len]);
        }
    }

    /// Reads from the far end until there are frames for the near end, or the link has ended.
    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_handshake(context))?;
        loop {
            while self.beat.poll_tick(context).is_ready() {
                self.dialect.expire(Instant::now(), &mut self.said);
                if self.bind == BindProgress::Done {
                    // The far end knows no heartbeat; as long as the socket is open, it counts as alive.
                    self.said.frames.push(Frame::Ping);
                }
                self.pass_on();
                self.check_near()?;
            }
            self.poll_first_message(context);
            // An accepted peer that asks and does not read is not heard until it reads.
            let unread = self.poll_out(context)?.is_pending();
            let blocked = unread && !self.dialled && self.out.len() > FOREIGN_BUFFER_LEN_MAX;
            if unread && self.out.len() > FOREIGN_OUT_LEN_MAX {
                let what = format!("{} bytes wait for it, and it reads none", self.out.len());
                self.end(&DialectError::Closed(CallError::new(Code::OVERLOADED, Fate::Unknown, what)));
            }
            if self.state == State::Open && !blocked {
                self.said.enough = false;
                let unheard = self.heard.len();
                let heard = self.dialect.hear(&mut self.heard, Instant::now(), &mut self.said);
                if self.heard.len() < unheard {
                    self.first_message_came();
                }
                if let Err(error) = heard {
                    self.refused_by_far = matches!(error, DialectError::Refused(_));
                    self.end(&error);
                }
                self.pass_on();
            }
            if !self.frames.is_empty() || self.state == State::Ended {
                // The bytes for the far end leave, as far as the socket takes them.
                _ = self.poll_out(context)?;
                return Poll::Ready(Ok(()));
            }
            if blocked {
                return Poll::Pending;
            }
            if self.said.enough {
                continue;
            }
            if self.poll_out(context)?.is_pending()
                && self.out.len() > FOREIGN_BUFFER_LEN_MAX
                && !self.dialled
            {
                return Poll::Pending;
            }
            if !self.frames.is_empty() {
                continue;
            }
            // A whole message of the peer must fit. A peer that has said nothing yet may send no more than a first frame takes; more, if there is
            // room for it.
            let claimed = self.heard.len();
            let max = match &self.first_message {
                Some(first) if claimed > FIRST_FRAME_LEN_MAX => match first.place.lengthen(claimed) {
                    true => BIND_FRAME_LEN_MAX,
                    false => FIRST_FRAME_LEN_MAX,
                },
                Some(_) => FIRST_FRAME_LEN_MAX,
                None => FRAME_LEN_MAX,
            };
            if claimed > max {
                // Bytes behind a bind wait until it is done.
                if self.bind == BindProgress::Asked {
                    return Poll::Pending;
                }
                let dialect = "the protocol that is listened for";
                self.end(&DialectError::TooLong { dialect, claimed, max });
                continue;
            }
            self.heard.reserve(READ_BUFFER_LEN_START);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.link), context, &mut self.heard);
            if ready!(read)? == 0 {
                self.state = State::Ended;
                self.fault.get_or_insert_with(|| Fault::FarIsSilent("it closed the connection".to_owned()));
            }
            self.keep_first();
        }
    }

    /// Notes that the peer has said its first message. If that is its bind, the peer is somebody when the bind is done.
    fn first_message_came(&mut self) {
        if let Some(first) = &mut self.first_message {
            first.is_there = true;
        }
        self.let_in_if_heard();
    }

    fn let_in_if_heard(&mut self) {
        if self.bind == BindProgress::Done
            && let Some(FirstMessage { place, is_there: true, .. }) = &self.first_message
        {
            place.bound();
            self.first_message = None;
        }
    }

    /// Gives up a peer that has not said its first message in time.
    fn poll_first_message(&mut self, context: &mut Context<'_>) {
        let Some(first) = &mut self.first_message else {
            return;
        };
        // A bind that is being checked has a deadline of its own, at the session.
        if self.state == State::Open && !first.is_there && first.alarm.as_mut().poll(context).is_ready() {
            let what = format!("it has not said its first message within {:?}", first.within);
            self.end(&DialectError::Closed(CallError::new(Code::BIND_TIMEOUT, Fate::NotSent, what)));
        }
    }

    /// Gives up a near end in another process that does not answer the bind: nothing else would ever end the wait for it.
    fn check_near(&mut self) -> io::Result<()> {
        let is_silent = self.asked.is_some_and(|asked| asked.elapsed() >= FOREIGN_SILENT_WITHIN);
        if !is_silent || self.bind != BindProgress::Asked || !self.dialled || self.near_is_branch {
            return Ok(());
        }
        let what = format!("it has not answered the bind for {FOREIGN_SILENT_WITHIN:?}");
        self.fault = Some(Fault::NearIsSilent(what));
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Notes that the near end has written no frames.
    fn near_fault(&mut self, error: FrameError) -> io::Error {
        self.fault = Some(Fault::NearSpeaksOther(error.to_string()));
        io::Error::other(error)
    }

    /// Takes the frames that the near end has written.
    fn take_written(&mut self) -> io::Result<()> {
        while let Some(block) =
            self.codec.decode(&mut self.written).map_err(|error| self.near_fault(error))?
        {
            let now = Instant::now();
            for frame in block.frames() {
                let frame = match frame.map_err(|error| self.near_fault(error))? {
                    Frame::ExtendedBind(ExtendedBind { bind, .. }) => Frame::Bind(bind),
                    Frame::ExtendedBound(ExtendedBound { bound, features, .. }) => {
                        self.near_knows(features);
                        Frame::Bound(bound)
                    }
                    Frame::Request(request) => match self.relayed(request) {
                        Some(request) => Frame::Request(request),
                        None => continue,
                    },
                    Frame::OpenStream(OpenStream { grant, request }) => match self.relayed(request) {
                        Some(request) => Frame::OpenStream(OpenStream { grant, request }),
                        None => continue,
                    },
                    frame => frame,
                };
                match &frame {
                    Frame::Bound(bound) => self.let_in(bound),
                    // A master of before refuses the extended bind as no frame of its protocol.
                    Frame::Refused(Refused { code: Code::UNKNOWN, may_return: false, .. })
                        if self.bind == BindProgress::Asked && self.asks != Asks::Plain =>
                    {
                        self.wants_plain_bind = true;
                        self.state = State::Ended;
                        continue;
                    }
                    _ => {}
                }
                if let Err(error) = self.dialect.say(frame, now, &mut self.said) {
                    self.end(&error);
                }
            }
            self.pass_on();
        }
        // The reader may go on now: the bind may be done, or the dialect may have answered a frame itself.
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Ok(())
    }
}

impl AsyncRead for DialectLink {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.poll_frames(context) {
            Poll::Pending => {
                this.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(outcome) => outcome?,
        }
        // No frames mean the end of the link.
        if this.bind == BindProgress::Asked && this.asked.is_none() {
            this.asked = Some(tokio::time::Instant::now());
        }
        let len = this.frames.len().min(buffer.remaining());
        buffer.put_slice(&this.frames.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DialectLink {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.poll_out(context)?.is_pending() && this.out.len() > FOREIGN_BUFFER_LEN_MAX {
            this.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        this.written.extend_from_slice(bytes);
        this.take_written()?;
        // Bytes that do not leave now leave when the socket takes them, with the next read or write.
        if this.poll_out(context)?.is_pending() {
            this.writer = Some(context.waker().clone());
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        // A near end that writes no more is not to read any more either.
        this.state = State::Ended;
        if let Some(reader) = this.reader.take() {
            reader.wake();
        }
        Pin::new(&mut this.link).poll_shutdown(context)
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::limits::LENGTH_PREFIX_LEN;
    use meshwork_wire::{CallbackId, Encoding, Payload};
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A dialect that says a MiB for each byte that it hears.
    struct Verbose;

    impl meshwork_wire::Dialect for Verbose {
        fn begin(&mut self, _: Instant, _: &mut Said) {}

        fn hear(&mut self, bytes: &mut BytesMut, _: Instant, said: &mut Said) -> Result<(), DialectError> {
            said.bytes.resize(said.bytes.len() + bytes.len() * 1024 * 1024, b'.');
            bytes.clear();
            Ok(())
        }

        fn say(&mut self, _: Frame, _: Instant, _: &mut Said) -> Result<(), DialectError> {
            Ok(())
        }

        fn expire(&mut self, _: Instant, _: &mut Said) {}
    }

    #[actix_rt::test]
    async fn a_dialled_peer_that_reads_nothing_is_given_up() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut link = DialectLink::dialled(Box::new(near), Box::new(Verbose), "far".to_owned());
        let asking = async {
            let mut asked = 0;
            // The loop ends with the link.
            while far.write_all(b"?").await.is_ok() {
                asked += 1;
                tokio::task::yield_now().await;
            }
            asked
        };
        let hearing = async {
            let ended = link.read(&mut [0; 8]).await.expect("the socket has not failed");
            drop(link);
            ended
        };
        let (asked, ended) = futures::join!(asking, hearing);
        assert_eq!(ended, 0);
        // The last bytes, 1,024 at most, stood in the socket.
        let limit = FOREIGN_OUT_LEN_MAX / (1024 * 1024);
        assert!((limit..limit + 1_030).contains(&asked), "{asked} MiB");
    }

    /// A dialect that says an item which is too long for a frame, and keeps what it is told.
    struct LongItem(Arc<Mutex<Vec<Frame>>>);

    impl meshwork_wire::Dialect for LongItem {
        fn begin(&mut self, _: Instant, said: &mut Said) {
            let payload = Payload::new(Encoding::Json, vec![b'1'; FRAME_LEN_MAX]);
            said.frames.push(Frame::Item(Item { callback_id: CallbackId(7), payload }));
        }

        fn hear(&mut self, _: &mut BytesMut, _: Instant, _: &mut Said) -> Result<(), DialectError> {
            Ok(())
        }

        fn say(&mut self, frame: Frame, _: Instant, _: &mut Said) -> Result<(), DialectError> {
            self.0.lock().expect("nobody panics with it").push(frame);
            Ok(())
        }

        fn expire(&mut self, _: Instant, _: &mut Said) {}
    }

    #[actix_rt::test]
    async fn an_item_that_is_too_long_ends_its_stream_at_both_ends() {
        let told = Arc::<Mutex<Vec<Frame>>>::default();
        let dialect = Box::new(LongItem(Arc::clone(&told)));
        let (near, _far) = tokio::io::duplex(1024);
        let mut link = DialectLink::dialled(Box::new(near), dialect, "far".to_owned());
        let mut heard = vec![0; 1024];
        let len = link.read(&mut heard).await.expect("it is open");
        heard.truncate(len);
        let frame = Frame::decode(&bytes::Bytes::from(heard.split_off(LENGTH_PREFIX_LEN)));
        let Ok(Frame::Response(Response { callback_id: CallbackId(7), outcome: Err(error) })) = frame else {
            panic!("{frame:?}");
        };
        assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::Failed));
        assert_eq!(*told.lock().expect("nobody panics with it"), [Frame::Cancel(CallbackId(7))]);
    }
}
