//! The bind of a branch: dial the master, send the `Bind`, wait for `Bound`. It ends with a bound link, or with a [`BindError`].

use crate::hashed::HashSet;
use crate::link::backoff::Backoff;
use crate::link::codec::LinkCodec;
use crate::link::pulse::Pulse;
use crate::link::{Address, AddressError, Dial, Link, TlsFault};
use crate::log_line;
use crate::repeated::Line;
use bytes::BytesMut;
use futures::StreamExt;
use log::Level;
use meshwork_wire::limits::{
    ACTIONS_PER_FRAME_MAX, BIND_FRAME_LEN_MAX, BINDS_AT_ONCE_MAX, FIRST_FRAME_LEN_MAX, FULL_MASTER_WITHIN,
    READ_BUFFER_LEN_START,
};
use meshwork_wire::{
    Bind, Block, ByteString, CallError, CallbackId, Code, ExtendedBind, ExtendedBound, Features, Frame,
    FrameCodec, FrameError, Labels, NameError, Offer, Refused, Register, Response, Subscribe,
    SubscriptionKey, TokenError,
};
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::codec::FramedRead;

/// Why a branch could not bind.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name of the branch is not valid.
    #[error("a branch cannot be named so: {0}")]
    Name(#[from] NameError),
    /// The credentials cannot be shown in a bind.
    #[error("a branch cannot show this token: {0}")]
    Token(#[from] TokenError),
    /// The address is not valid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No connection was made. Check first that the master runs, and listens on this address.
    #[error("no master can be reached at {address}: {source}")]
    Unreachable {
        /// The address that was dialled.
        address: Address,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The master refused the bind.
    #[error("the master at {address} refuses the bind ({code}): {message}")]
    Refused {
        /// The address of the master.
        address: Address,
        /// The reason, as a code.
        code: Code,
        /// The reason, as a sentence.
        message: String,
        /// Whether a later bind may succeed.
        may_return: bool,
    },
    /// The master did not answer in time.
    #[error("the master at {address} did not answer the bind within {within:?}")]
    Timeout {
        /// The address of the master.
        address: Address,
        /// How long the branch waited.
        within: Duration,
    },
    /// The program at the address does not speak as a master does, or closed the connection.
    #[error("what listens at {address} does not answer as a meshwork master: {reason}")]
    NoMaster {
        /// The address of the program.
        address: Address,
        /// What the program did wrong.
        reason: String,
    },
    /// A connection was made, and its TLS handshake failed; or the address demands TLS, and none was configured. The certificates of both ends
    /// are told apart in the fault.
    #[error("no TLS with the master at {address}: {fault}")]
    Tls {
        /// The address of the master.
        address: Address,
        /// Why there is no TLS.
        fault: TlsFault,
    },
    /// The branch has no thread to live on: the operating system starts no more, or the thread that it was bound on has ended.
    #[error("the branch has no thread to live on: {0}")]
    NoThread(#[source] io::Error),
}

impl BindError {
    /// The code of the error: [`Code::BIND_ERROR`], [`Code::BIND_TIMEOUT`], [`Code::BAD_NAME`], or the code of the master.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            BindError::Refused { code, .. } => *code,
            BindError::Timeout { .. } => Code::BIND_TIMEOUT,
            BindError::Name(_) => Code::BAD_NAME,
            BindError::Token(_)
            | BindError::Address(_)
            | BindError::Unreachable { .. }
            | BindError::NoMaster { .. }
            | BindError::Tls { .. }
            | BindError::NoThread(_) => Code::BIND_ERROR,
        }
    }

    /// Whether the master is there, and has another branch of this name, or one of the two ends does not accept the certificate of the other:
    /// a branch that waits for its master does not wait for that.
    fn is_not_waited_for(&self) -> bool {
        matches!(
            self,
            BindError::Refused { code: Code::BIND_ERROR | Code::NOT_PERMITTED, .. } | BindError::Tls { .. }
        )
    }

    /// Whether the master is there, and has no room for the connection at the moment.
    fn is_of_a_full_master(&self) -> bool {
        matches!(self, BindError::Refused { code: Code::OVERLOADED, may_return: true, .. })
    }

    /// Whether a later bind may succeed.
    #[must_use]
    pub fn may_return(&self) -> bool {
        match self {
            BindError::Refused { may_return, .. } => *may_return,
            BindError::Unreachable { .. } | BindError::Timeout { .. } | BindError::NoMaster { .. } => true,
            // Certificates are renewed.
            BindError::Tls { fault, .. } => {
                !matches!(fault, TlsFault::NoCa | TlsFault::NotWanted | TlsFault::NoName(_))
            }
            BindError::Name(_) | BindError::Token(_) | BindError::Address(_) | BindError::NoThread(_) => {
                false
            }
        }
    }
}

/// A link that is bound.
pub(crate) struct Established {
    pub(crate) reader: FramedRead<ReadHalf<Box<dyn Link>>, LinkCodec>,
    pub(crate) writer: WriteHalf<Box<dyn Link>>,
    /// The consent of the master; that of a master of before knows no features.
    pub(crate) bound: ExtendedBound,
    /// The frames that the master sent during the bind, in their order.
    pub(crate) early: Vec<Frame>,
}

/// The content of a bind: the frame, and the offers and subscriptions that follow it.
#[derive(Clone)]
pub(crate) struct BindContent {
    pub(crate) bind: ExtendedBind,
    /// The labels and the weight of the branch, which the master is told before any offer.
    labels: Option<Labels>,
    /// The features that the bind is written for.
    written_for: Written,
    /// The offers that did not fit into the frame.
    pub(crate) more_offers: Vec<Offer>,
    /// The subscriptions that did not fit into the frame.
    pub(crate) more_subscriptions: Vec<SubscriptionKey>,
    /// The longest frame that the branch reads.
    pub(crate) frame_len_max: usize,
    /// Draws callback ids for the frames that follow.
    pub(crate) draw: Rc<dyn Fn() -> CallbackId>,
}

/// The versions that a bind is written for: an earlier master refuses a frame that it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written {
    /// This version.
    InFull,
    /// A version that knows extended binds, and no signatures.
    WithoutSignatures,
    /// A version that knows no extended binds.
    Plainly,
}

impl Written {
    /// The version before.
    fn before(self) -> Option<Self> {
        match self {
            Written::InFull => Some(Written::WithoutSignatures),
            Written::WithoutSignatures => Some(Written::Plainly),
            Written::Plainly => None,
        }
    }
}

/// A bind carries at most so many subscriptions; further ones follow in frames of their own.
const SUBSCRIPTIONS_PER_BIND_MAX: usize = ACTIONS_PER_FRAME_MAX;

/// The part of a bind that is neither name nor credentials, offers or subscriptions, in bytes, at most.
const BIND_REST_LEN: usize = 128;

/// A register carries offers of at most about so many bytes, and no more than the master reads in a frame.
const OFFERS_LEN_MAX: usize = BIND_FRAME_LEN_MAX / 2;

impl BindContent {
    pub(crate) fn new(
        mut bind: ExtendedBind,
        labels: Option<Labels>,
        frame_len_max: usize,
        draw: impl Fn() -> CallbackId + 'static,
    ) -> Self {
        let Bind { name, credentials, offers, subscriptions, .. } = &mut bind.bind;
        // The first frame is short: the rest follows when the bind was checked.
        let shown = name.len() + credentials.as_ref().map_or(0, |shown| shown.len());
        let room = FIRST_FRAME_LEN_MAX.saturating_sub(shown + BIND_REST_LEN);
        // Offers behind labels: the routes are to have the weight of the branch from the first request on.
        let offers_max = if labels.is_some() { 0 } else { ACTIONS_PER_FRAME_MAX };
        let (fitting, len) = fit(offers.iter().take(offers_max).map(offer_len), room);
        let more_offers = offers.split_off(fitting);
        let subscription_lens = subscriptions.iter().take(SUBSCRIPTIONS_PER_BIND_MAX).map(subscription_len);
        let (fitting, _) = fit(subscription_lens, room - len);
        let more_subscriptions = subscriptions.split_off(fitting);
        let written_for = Written::InFull;
        let draw = Rc::new(draw);
        Self { bind, labels, written_for, more_offers, more_subscriptions, frame_len_max, draw }
    }
}

/// How many items of these lengths, from the first one on, fit into so many bytes; and the bytes that they take.
fn fit(lens: impl Iterator<Item = usize>, len_max: usize) -> (usize, usize) {
    let (mut count, mut len) = (0, 0);
    for item in lens {
        if len + item > len_max {
            break;
        }
        (count, len) = (count + 1, len + item);
    }
    (count, len)
}

/// How many bytes an offer takes in a frame, at most.
fn offer_len(offer: &Offer) -> usize {
    let shape = offer.shape.as_ref().map_or(0, |shape| shape.arguments.len() + shape.reply.len());
    offer.action.len() + shape + 32
}

/// How many bytes a subscription takes in a frame, at most.
fn subscription_len(key: &SubscriptionKey) -> usize {
    key.pattern.as_str().len() + key.group.as_ref().map_or(0, |group| group.len()) + 16
}

/// Puts offers into as many registers as they need. The master reads frames of so many bytes.
pub(crate) fn registers(
    offers: Vec<Offer>,
    frame_len_max: usize,
    draw: &dyn Fn() -> CallbackId,
) -> Vec<Register> {
    let len_max = frame_len_max.saturating_sub(BIND_REST_LEN).min(OFFERS_LEN_MAX);
    let mut registers = Vec::new();
    let mut offers = offers.into_iter();
    loop {
        let (fitting, _) = fit(offers.as_slice().iter().take(ACTIONS_PER_FRAME_MAX).map(offer_len), len_max);
        // An offer that is too long by itself is sent, and meets the frame limit of the master.
        let first = fitting.max(usize::from(!offers.as_slice().is_empty()));
        if first == 0 {
            return registers;
        }
        registers.push(Register { callback_id: draw(), offers: offers.by_ref().take(first).collect() });
    }
}

/// Binds for the first time: tries again with the backoff until `within` is over, as long as a later bind may succeed. Says once for each
/// kind of error why the branch waits.
pub(crate) async fn establish_first<F>(
    name: &ByteString,
    within: Duration,
    backoff: &mut Backoff,
    mut establish: impl FnMut() -> F,
) -> Result<Established, BindError>
where
    F: Future<Output = Result<Established, BindError>>,
{
    let begun = Instant::now();
    // Bounded by the kinds of errors.
    let mut said = Vec::new();
    loop {
        let error = match establish().await {
            Err(error) if error.may_return() && !error.is_not_waited_for() => error,
            done => return done,
        };
        // A full master asks its branches to come again.
        let within = if error.is_of_a_full_master() { within.max(FULL_MASTER_WITHIN) } else { within };
        let left = within.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        let kind = std::mem::discriminant(&error);
        if said.contains(&kind) {
            log::debug!("{name} still waits for its master: {error}");
        } else {
            said.push(kind);
            log_line!(Line::own(Level::Warn), "{name} waits for its master: {error}");
        }
        tokio::time::sleep(backoff.next().min(left)).await;
    }
}

/// Dials and binds. A master of before, which refuses the extended bind as no frame of its protocol, is dialled again and sent a plain one.
pub(crate) async fn establish(
    dial: &dyn Dial,
    address: &Address,
    content: BindContent,
    dial_within: Duration,
    within: Duration,
) -> Result<Established, BindError> {
    let mut written_for = content.written_for;
    loop {
        let content = BindContent { written_for, ..content.clone() };
        let established = Box::pin(establish_once(dial, address, content, dial_within, within)).await;
        match (&established, written_for.before()) {
            (Err(BindError::Refused { code: Code::UNKNOWN, may_return: false, .. }), Some(before)) => {
                written_for = before;
            }
            _ => return established,
        }
    }
}

async fn establish_once(
    dial: &dyn Dial,
    address: &Address,
    content: BindContent,
    dial_within: Duration,
    within: Duration,
) -> Result<Established, BindError> {
    address.check()?;
    meshwork_wire::check_node(&content.bind.bind.name)?;
    if let Some(token) = &content.bind.bind.credentials {
        meshwork_wire::check_token(token)?;
    }
    let turns = TURNS.with(Rc::clone);
    // Nobody closes the semaphore. A turn is as long as a dial and a bind may take.
    let _turn = turns.acquire().await;
    let begun = Instant::now();
    let unreachable = |source| match TlsFault::of(&source) {
        Some(fault) => BindError::Tls { address: address.clone(), fault: fault.clone() },
        None => BindError::Unreachable { address: address.clone(), source },
    };
    let link = match tokio::time::timeout(dial_within, dial.dial(address)).await {
        Ok(dialled) => dialled.map_err(unreachable)?,
        Err(_) => return Err(unreachable(io::ErrorKind::TimedOut.into())),
    };
    let (read, writer) = tokio::io::split(link);
    let codec = LinkCodec::new(FrameCodec::new(content.frame_len_max), Pulse::default());
    let reader = FramedRead::with_capacity(read, codec, READ_BUFFER_LEN_START);
    let mut entering = Entering { address, reader, writer, early: Vec::new(), said: None };
    match tokio::time::timeout(within, entering.enter(content)).await {
        Ok(bound) => {
            let said = entering.said;
            let bound = bound.map_err(|error| explained(error, said.map(|said| said - begun), within))?;
            let Entering { reader, writer, early, .. } = entering;
            Ok(Established { reader, writer, bound, early })
        }
        Err(_) => Err(BindError::Timeout { address: address.clone(), within }),
    }
}

/// The error of a bind. A master that has waited in vain for a bind which left late is not at fault: the branch comes again, as to a full master.
fn explained(error: BindError, left_after: Option<Duration>, within: Duration) -> BindError {
    match (error, left_after) {
        (BindError::Refused { address, code: Code::BIND_TIMEOUT, message, may_return }, Some(late))
            if late >= within / 2 =>
        {
            let message =
                format!("{message}: this process or the network is busy, the bind left after {late:?}");
            BindError::Refused { address, code: Code::OVERLOADED, message, may_return }
        }
        (error, _) => error,
    }
}

thread_local! {
    /// The turns of the branches of this thread that bind.
    static TURNS: Rc<Semaphore> = Rc::new(Semaphore::new(BINDS_AT_ONCE_MAX));
}

/// A bind in progress.
struct Entering<'a> {
    address: &'a Address,
    reader: FramedRead<ReadHalf<Box<dyn Link>>, LinkCodec>,
    writer: WriteHalf<Box<dyn Link>>,
    early: Vec<Frame>,
    /// When the bind had left.
    said: Option<Instant>,
}

impl Entering<'_> {
    async fn enter(&mut self, content: BindContent) -> Result<ExtendedBound, BindError> {
        let BindContent { bind, labels, written_for, more_offers, more_subscriptions, draw, .. } = content;
        let bind = match written_for {
            Written::InFull => Frame::ExtendedBind(bind),
            Written::WithoutSignatures => Frame::ExtendedBind(bind).for_features(Features::default()),
            Written::Plainly => Frame::Bind(bind.bind).for_features(Features::default()),
        };
        self.said = Some(Instant::now());
        self.say(&[bind]).await?;
        let bound = loop {
            if let Some(bound) = self
                .hear(|frame| match frame {
                    Frame::Bound(bound) => {
                        let features = Features::default();
                        ControlFlow::Break(ExtendedBound { bound, features, publish: None })
                    }
                    Frame::ExtendedBound(bound) => ControlFlow::Break(bound),
                    other => ControlFlow::Continue(other),
                })
                .await?
            {
                break bound;
            }
        };
        let frame_len_max = usize::try_from(bound.bound.frame_len_max).unwrap_or(usize::MAX);
        if let Some(labels) = labels.filter(|_| bound.features.contains(Features::LABELS)) {
            self.say(&[Frame::Labels(labels)]).await?;
        }
        let registers = registers(more_offers, frame_len_max, &*draw).into_iter();
        let mut frames: Vec<_> =
            registers.map(|register| Frame::Register(register).for_features(bound.features)).collect();
        frames.extend(
            more_subscriptions
                .into_iter()
                .map(|key| Frame::Subscribe(Subscribe { callback_id: draw(), key })),
        );
        // Some at a time: the master bounds how many registers and subscribes it works at, and a link that is far takes a while for each answer.
        for frames in frames.chunks(ASKED_AT_ONCE) {
            let mut asked: HashSet<_> = frames.iter().filter_map(asked_under).collect();
            self.say(frames).await?;
            while !asked.is_empty() {
                let mut refused = None;
                self.hear(|frame| match frame {
                    Frame::Response(Response { callback_id, outcome }) if asked.remove(&callback_id) => {
                        refused = refused.take().or(outcome.err());
                        ControlFlow::Break(())
                    }
                    other => ControlFlow::Continue(other),
                })
                .await?;
                if let Some(error) = refused {
                    return Err(self.refused(&error));
                }
            }
        }
        Ok(bound)
    }

    async fn say(&mut self, frames: &[Frame]) -> Result<(), BindError> {
        let mut buffer = BytesMut::new();
        for frame in frames {
            frame.encode(&mut buffer);
        }
        let Err(error) = self.writer.write_all(&buffer).await else {
            return Ok(());
        };
        // A master that has no room says so before it closes the connection, without reading.
        match self.hear(ControlFlow::<(), _>::Continue).await {
            Err(refused @ BindError::Refused { .. }) => Err(refused),
            _ => Err(self.no_master(&error.to_string())),
        }
    }

    /// Reads one block; gives the first frame that is `wanted`, if it is there, and keeps all frames that are not in `early`.
    async fn hear<T>(
        &mut self,
        mut wanted: impl FnMut(Frame) -> ControlFlow<T, Frame>,
    ) -> Result<Option<T>, BindError> {
        let block: Block = match self.reader.next().await {
            Some(Ok(block)) => block,
            Some(Err(error)) => return Err(self.broken(&error)),
            None => {
                let reason =
                    "it closed the connection without a word, as a master may that has no room left, too";
                return Err(self.no_master(reason));
            }
        };
        let mut found = None;
        for frame in block.frames() {
            match frame.map_err(|error| self.no_master(&error.to_string()))? {
                Frame::Refused(Refused { code, message, may_return }) => {
                    let (address, message) = (self.address.clone(), message.to_string());
                    return Err(BindError::Refused { address, code, message, may_return });
                }
                frame => match wanted(frame) {
                    ControlFlow::Break(it) => found = Some(found.unwrap_or(it)),
                    ControlFlow::Continue(other) => self.early.push(other),
                },
            }
        }
        Ok(found)
    }

    fn refused(&self, error: &CallError) -> BindError {
        BindError::Refused {
            address: self.address.clone(),
            code: error.code(),
            message: error.message().to_owned(),
            may_return: false,
        }
    }

    /// The link has failed. A master with TLS 1.3 refuses a certificate after the handshake has succeeded at this end.
    fn broken(&self, error: &FrameError) -> BindError {
        if let FrameError::Io(error) = error
            && let Some(fault) = TlsFault::of(error)
        {
            return BindError::Tls { address: self.address.clone(), fault: fault.clone() };
        }
        self.no_master(&error.to_string())
    }

    fn no_master(&self, reason: &str) -> BindError {
        BindError::NoMaster { address: self.address.clone(), reason: reason.to_owned() }
    }
}

/// How many registers and subscribes are asked for before the answers are waited for.
const ASKED_AT_ONCE: usize = 64;

/// The id under which a register or a subscribe is answered.
fn asked_under(frame: &Frame) -> Option<CallbackId> {
    match frame {
        Frame::Register(register) => Some(register.callback_id),
        Frame::Subscribe(subscribe) => Some(subscribe.callback_id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn unreachable() -> BindError {
        let (address, source) = (Address::from("127.0.0.1:1"), io::ErrorKind::ConnectionRefused.into());
        BindError::Unreachable { address, source }
    }

    /// How many binds are tried within a time, and how long that takes, when each gives the error that `error` makes of its number.
    async fn tried(within: Duration, error: impl Fn(usize) -> BindError) -> (usize, Duration, BindError) {
        let (begun, count) = (Instant::now(), Cell::new(0));
        let establish = || {
            count.set(count.get() + 1);
            std::future::ready(Err(error(count.get())))
        };
        let established = establish_first(&"one".into(), within, &mut Backoff::default(), establish).await;
        (count.get(), begun.elapsed(), established.err().expect("each bind fails"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_bind_without_time_is_tried_once() {
        let (count, took, _) = tried(Duration::ZERO, |_| unreachable()).await;
        assert_eq!((count, took), (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_bind_is_tried_until_its_time_is_over() {
        let within = Duration::from_secs(60);
        let (count, took, error) = tried(within, |_| unreachable()).await;
        assert!(took >= within && took < within + Duration::from_millis(10), "{took:?}");
        // The waits grow from 50 ms to between 1.5 s and 3 s.
        assert!((20..60).contains(&count), "{count}");
        assert!(matches!(error, BindError::Unreachable { .. }), "{error}");
    }

    #[test]
    fn a_master_that_waited_for_a_bind_which_left_late_is_asked_again() {
        let timeout = || BindError::Refused {
            address: Address::from("127.0.0.1:1"),
            code: Code::BIND_TIMEOUT,
            message: "the connection did not bind in time".into(),
            may_return: true,
        };
        let within = Duration::from_secs(2);
        let late = explained(timeout(), Some(within), within);
        assert!(late.is_of_a_full_master() && late.to_string().contains("busy"), "{late}");
        for left_after in [None, Some(within / 4)] {
            assert_eq!(explained(timeout(), left_after, within).code(), Code::BIND_TIMEOUT);
        }
    }

    /// Thousands of branches that start at once once failed for want of room at their master, most of them with a misleading message.
    #[tokio::test(start_paused = true)]
    async fn a_full_master_is_asked_again_for_a_while_by_a_branch_that_does_not_wait() {
        let full = |_| BindError::Refused {
            address: Address::from("127.0.0.1:1"),
            code: Code::OVERLOADED,
            message: "the master is full".into(),
            may_return: true,
        };
        let (count, took, error) = tried(Duration::ZERO, full).await;
        assert!(count > 5 && took >= FULL_MASTER_WITHIN, "{count} in {took:?}");
        assert!(error.may_return() && error.to_string().contains("full"), "{error}");
        let (count, ..) =
            tried(Duration::ZERO, |count| if count < 4 { full(0) } else { unreachable() }).await;
        assert_eq!(count, 4, "no other error is waited for");
    }

    fn offer(action: String, shape: usize) -> Offer {
        let shape = (shape > 0).then(|| meshwork_wire::Shape {
            arguments: "a".repeat(shape).into(),
            reply: "r".repeat(shape).into(),
        });
        Offer { action: action.into(), accepts: meshwork_wire::Accepts::List, shape }
    }

    proptest::proptest! {
        #[test]
        fn the_first_frame_is_short_and_the_rest_follows(
            offers in proptest::collection::vec((1..255_usize, 0..3_000_usize), 0..300),
            subscriptions in proptest::collection::vec(1..200_usize, 0..300),
            credentials in 0..meshwork_wire::limits::CREDENTIALS_LEN_MAX,
            frame_len_max in 10_000..1_000_000_usize,
        ) {
            let offers: Vec<_> = offers.into_iter().map(|(name, shape)| offer("n".repeat(name), shape)).collect();
            let key = |len| SubscriptionKey {
                pattern: meshwork_wire::Pattern::new("p".repeat(len)).expect("a pattern"),
                group: Some("g".repeat(len).into()),
            };
            let subscriptions: Vec<_> = subscriptions.into_iter().map(key).collect();
            let bind = Bind {
                version: 1,
                name: "b".repeat(meshwork_wire::limits::NAME_LEN_MAX).into(),
                credentials: Some("c".repeat(credentials).into()),
                offers: offers.clone(),
                subscriptions: subscriptions.clone(),
            };
            let bind = ExtendedBind { bind, features: Features::ALL, incarnation: u64::MAX, replaces: true };
            let content = BindContent::new(bind, None, 1, || CallbackId(u64::MAX));
            let mut bytes = BytesMut::new();
            Frame::ExtendedBind(content.bind.clone()).encode(&mut bytes);
            proptest::prop_assert!(bytes.len() <= FIRST_FRAME_LEN_MAX, "{}", bytes.len());
            let bind = content.bind.bind;
            if !content.more_offers.is_empty() && bind.subscriptions.is_empty() {
                proptest::prop_assert!(bytes.len() > FIRST_FRAME_LEN_MAX - 10_000, "it could be fuller");
            }
            let registers = registers(content.more_offers, frame_len_max, &*content.draw);
            let mut all = bind.offers;
            for register in registers {
                bytes.clear();
                Frame::Register(register.clone()).encode(&mut bytes);
                proptest::prop_assert!(bytes.len() - 4 <= frame_len_max);
                all.extend(register.offers);
            }
            proptest::prop_assert_eq!(all, offers);
            proptest::prop_assert_eq!([bind.subscriptions, content.more_subscriptions].concat(), subscriptions);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_bind_that_can_never_succeed_ends_at_once() {
        let refused = |code, may_return| BindError::Refused {
            address: Address::from("127.0.0.1:1"),
            code,
            message: "no".into(),
            may_return,
        };
        // Its name is taken, or the master refuses it for good.
        for may_return in [true, false] {
            let (count, _, error) = tried(Duration::MAX, |count| match count {
                1 => unreachable(),
                2 => refused(Code::DRAINING, true),
                _ => refused(Code::BIND_ERROR, may_return),
            })
            .await;
            assert_eq!((count, error.code()), (3, Code::BIND_ERROR), "{error}");
        }
        let wrong = |_| Address::from("nowhere").check().expect_err("it is none").into();
        assert_eq!(tried(Duration::MAX, wrong).await.0, 1);
    }
}
