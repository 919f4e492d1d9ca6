//! Any bytes from programs of other protocols, at either end of each protocol: all answers are whole messages, all requests to the mesh
//! can be written as frames and read again, and no request comes before the bind.

use bytes::BytesMut;
use meshwork_wire::{
    Accepts, Allowed, Bind, Bound, CallError, CallbackId, Code, Dialect, DialectError, Dnode, Encoding, Fate,
    Features, Frame, Grant, Granted, Invoke, Item, LightRpcClient, LightRpcServer, NodeMeshClient,
    NodeMeshServer, NodeNews, Payload, Response, ResultStyle, Said, SessionId, Wants,
};
use std::time::{Duration, Instant};

/// One end of a protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) name: &'static str,
    open: fn() -> Box<dyn Dialect>,
    /// Checks that bytes are whole messages.
    whole: fn(&[u8]),
}

/// Every end of every protocol.
pub(crate) const ENDS: [End; 7] = [
    End {
        name: "light_rpc server",
        open: || Box::new(LightRpcServer::new("peer", Allowed::all())),
        whole: packets,
    },
    End {
        name: "light_rpc client",
        open: || Box::new(LightRpcClient::new("bridge".into(), None, "old")),
        whole: packets,
    },
    End {
        name: "dnode server",
        open: || Box::new(Dnode::server("peer", Allowed::all(), ResultStyle::Result)),
        whole: lines,
    },
    End {
        name: "dnode client",
        open: || Box::new(Dnode::client("bridge".into(), None, "old", ResultStyle::ErrorFirst)),
        whole: lines,
    },
    End {
        name: "node-mesh server",
        open: || Box::new(NodeMeshServer::new("peer", Allowed::all())),
        whole: bins,
    },
    End { name: "node-mesh branch", open: || Box::new(NodeMeshClient::branch("peer")), whole: bins },
    End {
        name: "node-mesh bridge",
        open: || {
            let token = Some("token".into());
            Box::new(NodeMeshClient::bridge("peer", "bridge".into(), None, token, "old".into()))
        },
        whole: bins,
    },
];

/// The actions that the mesh offers.
const ACTIONS: [&str; 5] = ["boom", "combine", "deep", "multiply", "pair"];

/// A connection: one end of a protocol between a foreign program and the mesh, both of which the target plays.
pub(crate) struct Connection {
    end: End,
    dialect: Box<dyn Dialect>,
    pub(crate) now: Instant,
    /// The bytes that came and are not read yet.
    heard: BytesMut,
    /// All frames and bytes that the end has said.
    pub(crate) said: Said,
    bound: bool,
}

impl Connection {
    /// A connection that has begun. At the end of a branch, the branch has sent its bind.
    pub(crate) fn open(end: End) -> Self {
        let mut connection = Self {
            end,
            dialect: (end.open)(),
            now: Instant::now(),
            heard: BytesMut::new(),
            said: Said::default(),
            bound: false,
        };
        connection.dialect.near_knows(Features::ALL);
        connection.dialect.begin(connection.now, &mut connection.said);
        if end.name == "node-mesh branch" {
            let (name, credentials) = ("b".into(), Some("k".into()));
            let (offers, subscriptions) = (Vec::new(), Vec::new());
            let bind = Frame::Bind(Bind { version: 1, name, credentials, offers, subscriptions });
            connection.say(bind).expect("it may bind");
        }
        connection.let_in();
        connection
    }

    /// Hears bytes, and answers a bind.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Result<(), DialectError> {
        self.heard.extend_from_slice(bytes);
        loop {
            let heard = self.dialect.hear(&mut self.heard, self.now, &mut self.said);
            let before_the_bind = if self.bound { &[][..] } else { &self.said.frames[..] };
            assert!(
                before_the_bind
                    .iter()
                    .all(|frame| matches!(frame, Frame::Bind(_) | Frame::Bound(_) | Frame::Refused(_)))
                    || before_the_bind.iter().any(|frame| matches!(frame, Frame::Bound(_))),
                "{}: something is asked before the bind: {before_the_bind:?}",
                self.end.name
            );
            heard?;
            if !self.let_in() {
                return Ok(());
            }
        }
    }

    fn let_in(&mut self) -> bool {
        if self.bound || !self.said.frames.iter().any(|frame| matches!(frame, Frame::Bind(_))) {
            return false;
        }
        self.bound = true;
        // A client of dnode calls actions by the numbers that they have in this order.
        let actions = ACTIONS.map(|action| (action.into(), Accepts::List)).to_vec();
        let news = NodeNews { node: "node".into(), session: SessionId(2), whole: true, actions };
        self.say(Frame::Online(news)).expect("it hears news");
        let bound = Bound {
            session: SessionId(1),
            master: "master".into(),
            frame_len_max: 1 << 24,
            in_flight_max: 1 << 16,
            heartbeat_ms: 5_000,
        };
        self.say(Frame::Bound(bound)).expect("it is let in");
        true
    }

    pub(crate) fn say(&mut self, frame: Frame) -> Result<(), DialectError> {
        self.dialect.say(frame, self.now, &mut self.said)
    }

    /// Ends the calls whose deadlines have passed.
    pub(crate) fn after(&mut self, time: Duration) {
        self.now += time;
        self.dialect.expire(self.now, &mut self.said);
    }

    /// Plays the mesh of all streams that are asked for: each has some items, and most of them end.
    fn stream(&mut self) {
        let opened: Vec<_> = self.said.frames.iter().filter_map(opened).collect();
        for (number, callback_id) in opened.into_iter().enumerate() {
            let _ = self.say(Frame::Started(callback_id));
            for json in ["1", "[{", r#"{"$callback":0}"#].iter().cycle().skip(number % 2).take(number % 4) {
                let payload = Payload::new(Encoding::Json, *json);
                let _ = self.say(Frame::Item(Item { callback_id, payload }));
                self.dialect.left(&mut self.said);
            }
            let outcome = match number % 3 {
                0 => Ok(Payload::default()),
                1 => Err(CallError::new(Code(1200), Fate::Failed, "bad")),
                _ => continue,
            };
            let _ = self.say(Frame::Response(Response { callback_id, outcome }));
        }
    }

    /// Reads functions of the far end as streams, whether there are such functions or not.
    fn read_streams(&mut self) {
        for number in 0..4 {
            let (function, callback_id) = (CallbackId(number), CallbackId(1_000 + number));
            let (wants, payload) =
                (Wants::Stream(Grant { items: 1, bytes: 9 }), Payload::new(Encoding::Json, "[]"));
            let time_left = None;
            let callback = Some(callback_id);
            let _ = self.say(Frame::Invoke(Invoke {
                function,
                callback_id: callback,
                time_left,
                wants,
                payload,
            }));
            let _ = self.say(Frame::Granted(Granted { callback_id, grant: Grant { items: 2, bytes: 9 } }));
        }
    }

    /// How many bytes are heard and not read yet.
    pub(crate) fn left(&self) -> usize {
        self.heard.len()
    }

    /// Checks all frames and bytes that the end has said.
    pub(crate) fn check(&self) {
        (self.end.whole)(&self.said.bytes);
        for frame in &self.said.frames {
            let mut bytes = BytesMut::new();
            frame.encode(&mut bytes);
            assert_eq!(Frame::decode(&bytes.split_off(4).freeze()).as_ref().ok(), Some(frame));
        }
    }
}

/// Reads the bytes: the first byte chooses the end. Requests are answered, most of them with an error.
pub(crate) fn run(bytes: &[u8]) {
    let Some((chosen, bytes)) = bytes.split_first() else { return };
    let mut connection = Connection::open(ENDS[usize::from(*chosen) % ENDS.len()]);
    // Half of the bytes find functions that are read as streams, under numbers that this end drew.
    if connection.bound && bytes.len() % 2 == 0 {
        connection.read_streams();
    }
    let _ = connection.hear(bytes);
    while connection.said.enough && connection.left() > 0 {
        connection.check();
        connection.said.bytes.clear();
        connection.said.enough = false;
        let _ = connection.hear(&[]);
    }
    let asked: Vec<_> = connection.said.frames.iter().filter_map(asked).collect();
    for (number, callback_id) in asked.into_iter().enumerate() {
        let json = |text: &'static str| Payload::new(Encoding::Json, text);
        let outcome = match number % 6 {
            0 => Ok(json("[1]")),
            1 => Err(CallError::new(Code(1200), Fate::Failed, "bad").with_data(json("[1]"))),
            2 => Err(CallError::of_thrown(json(r#"{"code":"E","message":1}"#))),
            3 => Err(CallError::of_thrown(json("{")).with_application_code(-1)),
            4 => Err(CallError::answers_with_stream(&"it")),
            _ => continue,
        };
        let _ = connection.say(Frame::Response(Response { callback_id, outcome }));
    }
    connection.stream();
    connection.after(Duration::from_secs(100));
    connection.check();
}

/// The id of a stream that is asked for.
fn opened(frame: &Frame) -> Option<CallbackId> {
    match frame {
        Frame::OpenStream(open) => Some(open.request.callback_id),
        Frame::Invoke(Invoke { callback_id, wants: Wants::Stream(_), .. }) => *callback_id,
        _ => None,
    }
}

/// The id that the answer to a frame has.
pub(crate) fn asked(frame: &Frame) -> Option<CallbackId> {
    match frame {
        Frame::Request(request) => Some(request.callback_id),
        Frame::Register(register) => Some(register.callback_id),
        Frame::Subscribe(subscribe) => Some(subscribe.callback_id),
        Frame::Invoke(invoke) => invoke.callback_id,
        _ => None,
    }
}

fn packets(mut bytes: &[u8]) {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let length: usize = std::str::from_utf8(&bytes[..end]).expect("digits").parse().expect("a length");
        let json = &bytes[end + 1..][..length];
        assert!(json.starts_with(b"{") && json.ends_with(b"}"), "a packet is an object");
        bytes = &bytes[end + 1 + length..];
    }
    assert!(bytes.is_empty(), "a packet that is not whole");
}

fn lines(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "a line that is not whole");
    assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "a line is an object");
}

fn bins(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (head, len) = match bytes[0] {
            0xC4 => (2, usize::from(bytes[1])),
            0xC5 => (3, usize::from(u16::from_be_bytes([bytes[1], bytes[2]]))),
            first => {
                assert_eq!(first, 0xC6, "a bin");
                (5, u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize)
            }
        };
        assert_eq!(bytes[head], 0x91, "a list of one message");
        bytes = &bytes[head + len..];
    }
}
