//! The process that branches bind to. It listens, starts a session for each connection, and is itself a node: it calls,
//! responds, subscribes, publishes. It takes [`Listen`], [`Flush`] and the other messages of
//! [`crate::node`], [`session::Replies`](crate::session) from sessions that it asked, and [`Drain`].

use crate::busy_poll::BusyPoll;
use crate::functions::gone;
use crate::gateway::{GatewayAccept, MakeDialect};
use crate::link::{Accept, Address, Link, TcpAccept};
use crate::node::{
    Ask, Change, Describe, Door, Drain, Drained, Flush, Node, Respond, Status, Submission, Subscribe,
    SubscribeTo, SubscriberId, TakeSnapshot, Unsubscribe, Watch, WayOut, Withdraw,
};
use crate::on_wake::run_later;
use crate::registry::{self, Balance, Found, NoProvider, OnNameTaken, RegistryActor, Route, Ways};
use crate::responder::{Action, Actions, Answering, Context as RequestContext};
use crate::response::{Requests, Way};
use crate::router::{self, Event, RouterActor};
use crate::session::{
    self, AskerAddr, Authenticate, Batches, Cancel, Forward, Forwarded, Permit, Replies, SessionActor,
    SessionHandle, no_provider,
};
use crate::snapshot::Snapshot;
use crate::subscribers::Subscribers;
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult,
    Recipient, ResponseActFuture, ResponseFuture, SpawnHandle, WrapFuture,
};
use futures::future::LocalBoxFuture;
use hashbrown::HashMap;
use meshwork_wire::limits::{
    BIND_WITHIN, BUSY_POLL_WITHIN, FRAME_LEN_MAX, HEARTBEAT_EVERY, HEARTBEAT_EVERY_MIN, IN_FLIGHT_MAX,
    ROUTE_CACHE_MAX, UNBOUND_SESSIONS_MAX,
};
use meshwork_wire::{
    Allowed, Broadcast, ByteString, CallError, CallbackId, Code, Dnode, Fate, Frame, LightRpcServer,
    NameError, NodeMeshServer, Pattern, Request, ResultStyle, SessionId, SubscriptionKey, check_node,
};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The process that branches bind to. Build it, `start()` it in an actix system, send it [`Listen`].
pub struct MasterActor {
    name: ByteString,
    config: Config,
    actions: Actions,
    node: Arc<Node>,
    running: Option<Master>,
}

/// What a master was told when it was built.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) heartbeat: Duration,
    pub(crate) bind_within: Duration,
    pub(crate) frame_len_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) on_taken: OnNameTaken,
    pub(crate) balance: Balance,
    pub(crate) busy_poll: BusyPoll,
    token: Option<ByteString>,
    authenticate: Option<Recipient<Authenticate>>,
    place: Option<Arc<dyn Place>>,
}

/// Where the sessions of a master live. Threads are the business of whoever starts the master, so they are handed in.
pub trait Place: Send + Sync + 'static {
    /// Runs this on the arbiter that the next session is to live on.
    fn run(&self, start: Box<dyn FnOnce() + Send>);
}

/// What the sessions of a master share.
pub(crate) struct MasterShared {
    pub(crate) name: ByteString,
    pub(crate) config: Config,
    pub(crate) address: Addr<MasterActor>,
    pub(crate) registry: Addr<RegistryActor>,
    pub(crate) router: Addr<RouterActor>,
    /// How many connections have not bound yet.
    pub(crate) unbound: AtomicUsize,
    sessions: AtomicU64,
}

/// A master that runs.
struct Master {
    shared: Arc<MasterShared>,
    requests: Rc<RefCell<Requests>>,
    /// Calls of the master to itself that were not answered at once.
    answering: Answering,
    routes: HashMap<ByteString, Arc<Route>>,
    broadcasts: Subscribers,
    subscriptions: HashMap<SubscriberId, bool>,
    listeners: Vec<AbortHandle>,
    submissions: Vec<Submission>,
    forwards: Batches<SessionHandle, Forwarded>,
    alarm: Option<(Instant, SpawnHandle)>,
    draining: bool,
}

/// Takes connections in from now on. Sent by your code, as often as there are addresses; answered with the address that is
/// listened on, which tells the port if 0 was asked for.
#[derive(Message)]
#[rtype(result = "Result<Address, ListenError>")]
pub struct Listen {
    asked: Address,
    on: ListenOn,
    allowed: Allowed,
    results: ResultStyle,
}

enum ListenOn {
    Tcp,
    LightRpc,
    Dnode,
    NodeMesh,
    Acceptor(Box<dyn Accept>),
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// The address that was asked for.
    pub address: Address,
    /// What the operating system says.
    pub source: io::Error,
}

/// What handles share with this master. Sent by a handle that was made from its address.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Arc<Node>")]
pub struct Attach;

/// Events that a branch broadcast. Sent by its session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct HeardBroadcasts(pub(crate) Vec<Event>);

impl Listen {
    /// Listens on a TCP address, as `host:port`; port 0 takes a free one.
    #[must_use]
    pub fn tcp(address: impl Into<Address>) -> Self {
        Self::at(address.into(), ListenOn::Tcp)
    }

    /// Listens on a TCP address for clients that speak light_rpc, as `nodejs-light_rpc` 0.1 and 0.2 do: they see the actions of the mesh
    /// as functions. The protocol has no authentication, so whoever reaches the address may call what is [allowed](Self::allow),
    /// whatever token branches need.
    #[must_use]
    pub fn light_rpc(address: impl Into<Address>) -> Self {
        Self::at(address.into(), ListenOn::LightRpc)
    }

    /// Listens on a TCP address for clients that speak dnode, as the npm package `dnode` 1.2.2 does: they see the actions that there
    /// are when they come as functions, and may pass functions themselves. What their result callbacks are called with is up
    /// to the [style](Self::results). The protocol has no authentication, so whoever reaches the address may call what is
    /// [allowed](Self::allow), whatever token branches need.
    #[must_use]
    pub fn dnode(address: impl Into<Address>) -> Self {
        Self::at(address.into(), ListenOn::Dnode)
    }

    /// Listens on a TCP address for branches that speak node-mesh, as the npm package `node-mesh` 2.0 does: they bind with what they
    /// show, checked as any branch is, and are branches of the mesh.
    #[must_use]
    pub fn node_mesh(address: impl Into<Address>) -> Self {
        Self::at(address.into(), ListenOn::NodeMesh)
    }

    /// Listens on whatever takes links in: a simulated network, a wrapper that speaks TLS.
    #[must_use]
    pub fn on(acceptor: impl Accept) -> Self {
        Self::at(acceptor.address(), ListenOn::Acceptor(Box::new(acceptor)))
    }

    /// The actions that programs of another protocol may see and call. Default: all. What branches of ours may do is said by their
    /// [`Permit`].
    #[must_use]
    pub fn allow(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    /// What the result callbacks of dnode clients are called with. Default: the result.
    #[must_use]
    pub fn results(mut self, style: ResultStyle) -> Self {
        self.results = style;
        self
    }

    fn at(asked: Address, on: ListenOn) -> Self {
        Self { asked, on, allowed: Allowed::all(), results: ResultStyle::default() }
    }

    /// What those may do who come this way; none if each is checked.
    fn admitted(&self) -> Option<Permit> {
        matches!(self.on, ListenOn::LightRpc | ListenOn::Dnode).then(|| only_calls(&self.allowed))
    }

    async fn open(self) -> io::Result<Box<dyn Accept>> {
        let Self { asked, on, allowed, results } = self;
        let asks_nobody = matches!(on, ListenOn::LightRpc | ListenOn::Dnode);
        let dialect: MakeDialect = match on {
            ListenOn::Acceptor(acceptor) => return Ok(acceptor),
            ListenOn::Tcp => return Ok(Box::new(TcpAccept::bind(&asked).await?)),
            ListenOn::LightRpc => Box::new(move |peer| Box::new(LightRpcServer::new(peer, allowed.clone()))),
            ListenOn::Dnode => Box::new(move |peer| Box::new(Dnode::server(peer, allowed.clone(), results))),
            ListenOn::NodeMesh => Box::new(move |peer| Box::new(NodeMeshServer::new(peer, allowed.clone()))),
        };
        let accept = Box::new(TcpAccept::bind(&asked).await?);
        let listens = accept.address();
        if asks_nobody && !listens.is_loopback() {
            log::warn!(
                "whoever reaches {listens} may call what this gateway allows: its protocol has no authentication"
            );
        }
        Ok(Box::new(GatewayAccept { accept, dialect }))
    }
}

/// What a client may do that was not asked who it is.
fn only_calls(allowed: &Allowed) -> Permit {
    Permit {
        call: allowed.patterns().map(<[_]>::to_vec),
        respond: Some(Vec::new()),
        publish: Some(Vec::new()),
        subscribe: Some(Vec::new()),
    }
}

impl MasterActor {
    /// A master that lets everyone bind, listens nowhere and answers nothing yet.
    #[must_use]
    pub fn new(name: impl Into<ByteString>) -> Self {
        let name = name.into();
        Self {
            node: Node::new(name.clone()),
            name,
            config: Config {
                heartbeat: HEARTBEAT_EVERY,
                bind_within: BIND_WITHIN,
                frame_len_max: FRAME_LEN_MAX,
                in_flight_max: IN_FLIGHT_MAX,
                on_taken: OnNameTaken::default(),
                balance: Balance::default(),
                busy_poll: BusyPoll::new(BUSY_POLL_WITHIN),
                token: None,
                authenticate: None,
                place: None,
            },
            actions: Actions::default(),
            running: None,
        }
    }

    /// Lets in only who shows this token. It is compared in constant time.
    #[must_use]
    pub fn token(mut self, token: impl Into<ByteString>) -> Self {
        self.config.token = Some(token.into());
        self
    }

    /// Lets in only whom this recipient lets in; its [`Permit`] says what each may do. It has the rest of the bind deadline
    /// to answer. With a token too, the token is checked first.
    #[must_use]
    pub fn authenticate(mut self, recipient: Recipient<Authenticate>) -> Self {
        self.config.authenticate = Some(recipient);
        self
    }

    /// Lets its sessions live elsewhere. Default: on its own arbiter.
    #[must_use]
    pub fn place(mut self, place: impl Place) -> Self {
        self.config.place = Some(Arc::new(place));
        self
    }

    /// What happens when a name is bound twice. Default: [`OnNameTaken::Replace`].
    #[must_use]
    pub fn on_name_taken(mut self, on_taken: OnNameTaken) -> Self {
        self.config.on_taken = on_taken;
        self
    }

    /// Which of several providers of an action gets a request. Default: [`Balance::RoundRobin`].
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.config.balance = balance;
        self
    }

    /// How often a branch must say something; after three silent beats its link is given up. Default: 5 s; at least 10 ms.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.config.heartbeat = every.max(HEARTBEAT_EVERY_MIN);
        self
    }

    /// How long a connection has to bind. Default: 2 s. One that does not is closed with `BIND_TIMEOUT`.
    #[must_use]
    pub fn bind_within(mut self, within: Duration) -> Self {
        self.config.bind_within = within;
        self
    }

    /// The longest frame that a bound branch may send, in bytes. Default and most: 16 MiB. What is longer ends the link.
    #[must_use]
    pub fn frame_len_max(mut self, len: usize) -> Self {
        self.config.frame_len_max = len.min(FRAME_LEN_MAX);
        self
    }

    /// How many requests may be in flight on one connection, each way. Default: 65,536. The next one fails at once with
    /// `OVERLOADED`.
    #[must_use]
    pub fn in_flight_max(mut self, max: usize) -> Self {
        self.config.in_flight_max = max;
        self.node.set_in_flight_max(max);
        self
    }

    /// How long a thread of its sessions stays awake for what comes next, where something nearly always has come that soon.
    /// It gives way to whatever else the thread has to do, and once a round to whoever wants its processor. Default: 200 us; at most
    /// 10 ms; zero lets it sleep whenever there is nothing to do.
    #[must_use]
    pub fn busy_poll(mut self, within: Duration) -> Self {
        self.config.busy_poll = BusyPoll::new(within);
        self
    }

    /// Answers an action itself, before any branch that offers it too.
    ///
    /// # Panics
    ///
    /// When the name is none, or is taken: that is a mistake in the program.
    #[must_use]
    pub fn action(mut self, action: Action) -> Self {
        if let Err(refused) = self.actions.insert(action) {
            panic!("{refused}");
        }
        self
    }

    /// What handles on it share with it.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn running(&mut self) -> &mut Master {
        self.running.as_mut().expect("it is made in `started`, before anything else")
    }

    /// Sends a call of the master's own on its way: its own responders first, then the branches.
    fn ask(&mut self, ask: Ask, now: Instant, unrouted: &mut Vec<Routing>) {
        let own = self.actions.get(&ask.request.action);
        let here = ask.request.node.is_empty() || ask.request.node == self.name;
        let this = self.running.as_mut().expect("it is made in `started`, before anything else");
        if this.draining {
            let error = CallError::new(Code::DRAINING, Fate::NotSent, "the master is draining");
            return ask.refuse(&self.node, error);
        }
        let Ask { request, reply, .. } = ask;
        let callback_id = request.callback_id;
        let deadline = request.time_left.and_then(|within| now.checked_add(within));
        let until = deadline.map(Instant::into_std);
        if let (Some(action), true) = (own, here) {
            this.requests.borrow_mut().open(callback_id, Way::Here, reply, until);
            let context = RequestContext::new(request.action, self.name.clone(), deadline);
            let arguments = (&request.payload).into();
            return this.answering.start(action, arguments, &context, callback_id, &this.requests);
        }
        this.requests.borrow_mut().open(callback_id, Way::Waiting, reply, until);
        match this.routes.get(&request.action).map(|route| route.now()) {
            Some(ways) if !ways.is_empty() => this.dispatch(Routing { request, deadline }, &ways),
            _ => unrouted.push(Routing { request, deadline }),
        }
    }

    /// Asks the registry about all new actions of the turn, then sends their calls on their way.
    fn look_up(&mut self, unrouted: Vec<Routing>, context: &mut Context<Self>) {
        let actions: Vec<_> = unrouted.iter().map(|routing| routing.request.action.clone()).collect();
        let asking = self.running().shared.registry.send(registry::Lookup { actions });
        context.spawn(asking.into_actor(self).map(move |found, this, context| {
            let running = this.running();
            let found = found.unwrap_or_default().into_iter().chain(std::iter::repeat(Found::Nowhere));
            for (routing, found) in unrouted.into_iter().zip(found) {
                // The caller may have given up meanwhile.
                if !running.requests.borrow().contains(routing.request.callback_id) {
                    continue;
                }
                match found {
                    Found::Named(route) => {
                        if running.routes.len() >= ROUTE_CACHE_MAX {
                            running.routes.clear();
                        }
                        running.routes.insert(routing.request.action.clone(), Arc::clone(&route));
                        running.dispatch(routing, &route.now());
                    }
                    Found::Wide(route) => running.dispatch(routing, &route.now()),
                    Found::Nowhere => {
                        let Request { callback_id, action, node, .. } = routing.request;
                        let error = no_provider(NoProvider::None, &action, &node);
                        running.requests.borrow_mut().resolve(callback_id, Err(error));
                    }
                }
            }
            this.end_turn(context);
        }));
    }

    fn cancel(&mut self, callback_id: CallbackId) {
        let this = self.running();
        let way = this.requests.borrow_mut().cancel(callback_id);
        if let Some(way) = way {
            this.stop(callback_id, way);
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by what is in flight: one message a turn and receiver"
    )]
    fn end_turn(&mut self, context: &mut Context<Self>) {
        let this = self.running();
        for (to, requests) in this.forwards.drain(..) {
            let (asker, caller) = (AskerAddr::Master(this.shared.address.clone()), this.shared.name.clone());
            to.addr().do_send(Forward { asker, caller, requests });
        }
        self.set_alarm(context);
    }

    /// One timer for all deadlines: it is set for the first, and for the next one when it has rung.
    fn set_alarm(&mut self, context: &mut Context<Self>) {
        let this = self.running();
        let Some(next) = this.requests.borrow_mut().next_deadline().map(Instant::from_std) else {
            return;
        };
        if let Some((set_for, alarm)) = &this.alarm {
            if *set_for <= next {
                return;
            }
            context.cancel_future(*alarm);
        }
        let after = next.saturating_duration_since(Instant::now());
        let alarm = run_later(context, after, |this: &mut Self, context| {
            this.running().alarm = None;
            this.expire();
            this.set_alarm(context);
        });
        self.running().alarm = Some((next, alarm));
    }

    fn expire(&mut self) {
        let now = Instant::now().into_std();
        let this = self.running();
        loop {
            let expired = this.requests.borrow_mut().expire(now);
            match expired {
                Some((callback_id, way)) => this.stop(callback_id, way),
                None => return,
            }
        }
    }
}

/// A call of the master's own whose way is not known yet.
struct Routing {
    request: Request,
    deadline: Option<Instant>,
}

impl Master {
    fn dispatch(&mut self, Routing { request, deadline }: Routing, ways: &Ways) {
        let Request { callback_id, action, node, payload, .. } = request;
        // Its own actions are tried first, those that stand for everything below a name only now.
        if (node.is_empty() || node == self.shared.name)
            && let Some(own) = ways.own()
        {
            self.requests.borrow_mut().goes(callback_id, Way::Here);
            let context = RequestContext::new(action, self.shared.name.clone(), deadline);
            return self.answering.start(own, (&payload).into(), &context, callback_id, &self.requests);
        }
        match ways.pick(self.shared.config.balance, &node) {
            Ok(session) => {
                let drawn = session.next_id();
                self.requests.borrow_mut().goes(callback_id, Way::Session(session.clone(), drawn));
                let forwarded =
                    Forwarded { asked_as: callback_id, callback_id: drawn, action, deadline, payload };
                let is = |to: &SessionHandle| to.id() == session.id();
                session::push_to(&mut self.forwards, is, || Rc::new(session.clone()), forwarded, 0);
            }
            Err(reason) => {
                let error = no_provider(reason, &action, &node);
                self.requests.borrow_mut().resolve(callback_id, Err(error));
            }
        }
    }

    /// Nobody waits for it any more: whoever runs it is told.
    fn stop(&mut self, callback_id: CallbackId, way: Way) {
        match way {
            Way::Here => {
                self.answering.cancel(callback_id);
            }
            Way::Session(session, callback_id) => {
                #[expect(clippy::disallowed_methods, reason = "bounded by the requests in flight")]
                session.addr().do_send(Cancel(vec![callback_id]));
            }
            Way::Waiting | Way::Link => {}
        }
    }
}

impl MasterShared {
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a branch may bind, and what it may do then.
    pub(crate) fn authenticate(
        &self,
        asked: Authenticate,
    ) -> LocalBoxFuture<'static, Result<Permit, String>> {
        if let Some(token) = &self.config.token {
            let shown = asked.credentials.as_deref().unwrap_or_default();
            if !bool::from(shown.as_bytes().ct_eq(token.as_bytes())) {
                let why = match asked.credentials {
                    Some(_) => "the token is wrong",
                    None => "a token is needed, and the branch shows none",
                };
                return Box::pin(async move { Err(why.to_owned()) });
            }
        }
        match &self.config.authenticate {
            Some(recipient) => {
                let asking = recipient.send(asked);
                Box::pin(async move {
                    asking.await.unwrap_or_else(|_| Err("nobody checks binds any more".to_owned()))
                })
            }
            None => Box::pin(async { Ok(Permit::default()) }),
        }
    }
}

/// Starts a session for every connection.
async fn accept(mut acceptor: Box<dyn Accept>, master: Arc<MasterShared>, admitted: Option<Permit>) {
    loop {
        match acceptor.accept().await {
            Ok((link, peer)) => {
                if master.unbound.load(Ordering::Relaxed) >= UNBOUND_SESSIONS_MAX {
                    log::warn!(
                        "{peer} is turned away: {UNBOUND_SESSIONS_MAX} connections have not bound yet"
                    );
                    continue;
                }
                start_session(&master, link, peer, admitted.clone());
            }
            Err(error) => {
                // Out of file descriptors, or a peer that was gone before it was taken in: neither ends the listener.
                log::warn!("a connection could not be taken in at {}: {error}", acceptor.address());
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// How long a listener rests after it could not take a connection in: long enough not to spin, short enough not to be felt.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(20);

fn start_session(master: &Arc<MasterShared>, link: Box<dyn Link>, peer: String, admitted: Option<Permit>) {
    let shared = Arc::clone(master);
    let start = move || {
        SessionActor::new(shared, link, peer, admitted).start();
    };
    match &master.config.place {
        Some(place) => place.run(Box::new(start)),
        None => start(),
    }
}

impl Actor for MasterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if let Err(error) = check_node(&self.name) {
            log::error!("a master cannot be named so: {error}");
        }
        let address = context.address();
        let registry = RegistryActor::new(self.name.clone()).start();
        let router = RouterActor::new().start();
        #[expect(clippy::disallowed_methods, reason = "bounded to one: at the start")]
        registry.do_send(registry::OfferOwn(self.actions.clone()));
        let shared = Arc::new(MasterShared {
            name: self.name.clone(),
            config: self.config.clone(),
            address: address.clone(),
            registry,
            router,
            unbound: AtomicUsize::new(0),
            sessions: AtomicU64::new(registry::MASTER.0 + 1),
        });
        self.running = Some(Master {
            shared,
            requests: Rc::new(RefCell::new(Requests::new(Arc::clone(&self.node)))),
            answering: Answering::new(),
            routes: HashMap::new(),
            broadcasts: Subscribers::new(),
            subscriptions: HashMap::new(),
            listeners: Vec::new(),
            submissions: Vec::new(),
            forwards: Vec::new(),
            alarm: None,
            draining: false,
        });
        // The master knows of its branches as they know of each other.
        let node = Arc::clone(&self.node);
        let follow = move |change: &Change| {
            if change.news().session != registry::MASTER {
                node.with_known(|known| known.follow(change));
            }
        };
        #[expect(clippy::disallowed_methods, reason = "bounded to one: at the start")]
        self.running().shared.registry.do_send(registry::Watch(Box::new(follow)));
        self.node.set_way_out(WayOut::Router);
        self.node.set_status(Status::Bound);
        self.node.open_door(Door::of(&address));
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        let ended = CallError::new(Code::LINK_LOST, Fate::Unknown, "the master has ended");
        self.node.close(ended.clone().with_fate(Fate::NotSent));
        if let Some(running) = self.running.take() {
            running.requests.borrow_mut().fail_all(&ended);
            for listener in running.listeners {
                listener.abort();
            }
        }
    }
}

impl Handler<Listen> for MasterActor {
    type Result = ResponseActFuture<Self, Result<Address, ListenError>>;

    fn handle(&mut self, listen: Listen, _: &mut Context<Self>) -> Self::Result {
        let (asked, admitted) = (listen.asked.clone(), listen.admitted());
        let name = check_node(&self.name);
        let opening = async move {
            if let Err(error) = name {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, NameError::to_string(&error)));
            }
            listen.open().await
        };
        Box::pin(opening.into_actor(self).map(move |opened, this, _| match opened {
            Ok(acceptor) => {
                let address = acceptor.address();
                log::info!("{} listens on {address}", this.name);
                let running = this.running();
                let task = actix_rt::spawn(accept(acceptor, Arc::clone(&running.shared), admitted));
                running.listeners.push(task.abort_handle());
                Ok(address)
            }
            Err(source) => Err(ListenError { address: asked, source }),
        }))
    }
}

impl Handler<Attach> for MasterActor {
    type Result = MessageResult<Attach>;

    fn handle(&mut self, _: Attach, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Arc::clone(&self.node))
    }
}

impl Handler<Flush> for MasterActor {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Context<Self>) {
        let now = Instant::now();
        let mut submissions = std::mem::take(&mut self.running().submissions);
        self.node.take_submissions(&mut submissions);
        let asks = submissions.iter().any(Submission::asks);
        let (mut unrouted, mut events) = (Vec::new(), Vec::new());
        for submission in submissions.drain(..) {
            match submission {
                Submission::Ask(ask) => self.ask(*ask, now, &mut unrouted),
                Submission::AskMany(many) => {
                    many.into_single().for_each(|ask| self.ask(ask, now, &mut unrouted));
                }
                Submission::Cancel(callback_id) => self.cancel(callback_id),
                // What a master borrows, it borrows over a session.
                Submission::Invoke(invoking) => invoking.refuse(&self.node, gone("no link brought it")),
                Submission::Release { .. } => {}
                Submission::Publish { topic, payload } => {
                    events.push(Event { topic, publisher: self.name.clone(), payload });
                }
                Submission::Broadcast { topic, payload } => {
                    let frame = Frame::Broadcast(Broadcast { topic, publisher: self.name.clone(), payload });
                    #[expect(clippy::disallowed_methods, reason = "bounded by the queue of the node")]
                    self.running().shared.registry.do_send(registry::Broadcast { from: None, frame });
                }
            }
        }
        if !events.is_empty() {
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded by the queue of the node: one message a flush"
            )]
            self.running().shared.router.do_send(router::Publish { from: None, events });
        }
        if !unrouted.is_empty() {
            self.look_up(unrouted, context);
        }
        self.running().submissions = submissions;
        if asks {
            self.config.busy_poll.asked();
        }
        self.end_turn(context);
    }
}

impl Handler<Replies> for MasterActor {
    type Result = ();

    fn handle(&mut self, Replies(replies): Replies, _: &mut Context<Self>) {
        let mut requests = self.running().requests.borrow_mut();
        for (callback_id, outcome) in replies {
            requests.resolve(callback_id, outcome);
        }
    }
}

impl Handler<HeardBroadcasts> for MasterActor {
    type Result = ();

    fn handle(&mut self, HeardBroadcasts(events): HeardBroadcasts, _: &mut Context<Self>) {
        for event in &events {
            self.running().broadcasts.deliver(event);
        }
    }
}

impl Handler<Subscribe> for MasterActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Subscribe { id, to, subscriber }: Subscribe, _: &mut Context<Self>) -> Self::Result {
        let this = self.running();
        this.subscriptions.insert(id, matches!(to, SubscribeTo::Topics(_)));
        match to {
            SubscribeTo::Broadcasts(pattern) => {
                this.broadcasts.insert(id, SubscriptionKey { pattern, group: None }, subscriber);
                Box::pin(async { Ok(()) })
            }
            SubscribeTo::Topics(key) => {
                let subscriber = router::Subscriber::Local(id, subscriber);
                let asking = this.shared.router.send(router::Subscribe { subscriber, keys: vec![key] });
                Box::pin(async move { asking.await.map_err(|_| ending())? })
            }
        }
    }
}

impl Handler<Unsubscribe> for MasterActor {
    type Result = ();

    fn handle(&mut self, Unsubscribe(id): Unsubscribe, _: &mut Context<Self>) {
        let this = self.running();
        match this.subscriptions.remove(&id) {
            Some(true) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "bounded by the subscriptions: one message each"
                )]
                this.shared.router.do_send(router::UnsubscribeLocal(id));
            }
            Some(false) => {
                this.broadcasts.remove(id);
            }
            None => {}
        }
    }
}

impl Handler<Respond> for MasterActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Respond(actions): Respond, _: &mut Context<Self>) -> Self::Result {
        if let Err(refused) = self.actions.extend(actions.clone()) {
            return Box::pin(async move { Err(refused.into()) });
        }
        let asking = self.running().shared.registry.send(registry::OfferOwn(actions));
        Box::pin(async move { asking.await.map_err(|_| ending()) })
    }
}

impl Handler<Withdraw> for MasterActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Withdraw(actions): Withdraw, _: &mut Context<Self>) -> Self::Result {
        for action in &actions {
            self.actions.remove(action);
        }
        let asking = self.running().shared.registry.send(registry::WithdrawOwn(actions));
        Box::pin(async move { asking.await.map_err(|_| ending()) })
    }
}

impl Handler<Describe> for MasterActor {
    type Result = ResponseFuture<Result<Vec<meshwork_wire::ActionDescription>, CallError>>;

    fn handle(&mut self, Describe { pattern, within }: Describe, _: &mut Context<Self>) -> Self::Result {
        let asking = self.describe(pattern);
        Box::pin(async move {
            let answered = tokio::time::timeout(within, asking).await;
            answered.unwrap_or_else(|_| Err(ending()))
        })
    }
}

impl MasterActor {
    fn describe(
        &mut self,
        pattern: Pattern,
    ) -> LocalBoxFuture<'static, Result<Vec<meshwork_wire::ActionDescription>, CallError>> {
        let asking = self.running().shared.registry.send(registry::Describe(pattern));
        Box::pin(async move { asking.await.map_err(|_| ending()) })
    }
}

impl Handler<Watch> for MasterActor {
    type Result = ();

    fn handle(&mut self, Watch(watcher): Watch, _: &mut Context<Self>) {
        #[expect(clippy::disallowed_methods, reason = "bounded by the watchers: one message each")]
        self.running().shared.registry.do_send(registry::Watch(watcher));
    }
}

impl Handler<TakeSnapshot> for MasterActor {
    type Result = ResponseActFuture<Self, Snapshot>;

    fn handle(&mut self, _: TakeSnapshot, _: &mut Context<Self>) -> Self::Result {
        let shared = Arc::clone(&self.running().shared);
        let asking = async move {
            let listing = shared.registry.send(registry::List).await;
            (listing, shared.router.send(router::Count).await)
        };
        Box::pin(asking.into_actor(self).map(|(listing, counted), this, _| {
            let (actions, sessions) =
                listing.map_or((0, Vec::new()), |listing| (listing.actions, listing.snapshots));
            let (subscriptions, dropped_here) = counted.unwrap_or_default();
            let dropped_on_the_way: u64 = sessions.iter().map(|session| session.events_dropped).sum();
            let (own_actions, name) = (this.actions.len(), this.name.clone());
            let running = this.running();
            let calls_in_flight = running.requests.borrow().len();
            Snapshot {
                calls_in_flight,
                calls_waiting: 0,
                answering: running.answering.len(),
                subscriptions: subscriptions + running.broadcasts.len(),
                events_dropped: dropped_here + dropped_on_the_way + running.broadcasts.dropped(),
                callbacks_lent: sessions.iter().map(|session| session.callbacks_lent).sum(),
                callbacks_borrowed: sessions.iter().map(|session| session.callbacks_borrowed).sum(),
                actions,
                sessions,
                own_actions,
                name,
            }
        }))
    }
}

impl Handler<Drain> for MasterActor {
    type Result = ResponseActFuture<Self, Drained>;

    fn handle(&mut self, Drain { within }: Drain, _: &mut Context<Self>) -> Self::Result {
        let node = Arc::clone(&self.node);
        node.set_status(Status::Draining);
        let this = self.running();
        this.draining = true;
        for listener in this.listeners.drain(..) {
            listener.abort();
        }
        let own = this.requests.borrow().len() as u64;
        let shared = Arc::clone(&this.shared);
        let draining = async move {
            let sessions =
                shared.registry.send(registry::List).await.map_or(Vec::new(), |listing| listing.sessions);
            let draining = sessions.iter().map(|session| session.addr().send(session::Drain { within }));
            let mut drained = Drained::default();
            // The master's own calls and those of its branches have the same time.
            let own_calls = tokio::time::timeout(within, node.idle());
            let (of_sessions, _) = futures::join!(futures::future::join_all(draining), own_calls);
            for of_session in of_sessions.into_iter().flatten() {
                drained.finished += of_session.finished;
                drained.abandoned += of_session.abandoned;
            }
            futures::future::join_all(sessions.iter().map(|session| session.addr().send(session::Close)))
                .await;
            drained
        };
        Box::pin(draining.into_actor(self).map(move |mut drained, this, context| {
            let ended =
                CallError::new(Code::DRAINING, Fate::Unknown, "the master ended before the reply came");
            let abandoned = this.running().requests.borrow_mut().fail_all(&ended) as u64;
            drained.abandoned += abandoned;
            drained.finished += own.saturating_sub(abandoned);
            this.node.close(CallError::new(Code::DRAINING, Fate::NotSent, "the master has drained"));
            context.stop();
            drained
        }))
    }
}

fn ending() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::NotSent, "the master ends")
}
