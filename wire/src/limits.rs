//! Every bound of every crate, with its reason: each queue, table and length that can grow has a name here. Bounds that a user may
//! change are the defaults of a builder method or a flag; the rest are promises of the protocol.

use std::time::Duration;

/// The version of the native protocol that this crate speaks. A master refuses a [`Bind`](crate::Bind) of another version.
pub const PROTOCOL_VERSION: u16 = 1;

/// The longest frame, in bytes, its length prefix not counted: large enough for a document, small enough that 64 of them in
/// flight fit into a small machine.
pub const FRAME_LEN_MAX: usize = 16 * 1024 * 1024;

/// The longest first frame of a connection, in bytes, if others have long ones: the memory that a peer which has not been checked may take.
/// The longest credentials fit, with a name; the actions and subscriptions for which there is no room follow when the bind was checked.
pub const FIRST_FRAME_LEN_MAX: usize = 20 * 1024;

/// The longest frame of a connection that is not bound yet, in bytes: branches of earlier versions put up to 1,024 actions with their shapes into a
/// bind. A frame longer than [`FIRST_FRAME_LEN_MAX`] counts towards [`LONG_BINDS_LEN_MAX`].
pub const BIND_FRAME_LEN_MAX: usize = 1024 * 1024;

/// How many bytes the first frames of all connections of a master that are longer than [`FIRST_FRAME_LEN_MAX`] may have together, by what they
/// claim: eight of the longest, or a hundred usual ones of earlier versions. A frame above the bound is refused, and its branch comes again.
pub const LONG_BINDS_LEN_MAX: usize = 8 * BIND_FRAME_LEN_MAX;

/// The length of the prefix that tells the length of a frame, in bytes.
pub const LENGTH_PREFIX_LEN: usize = 4;

/// The part of a frame that is kept for its head, in bytes. A payload that leaves less room is refused.
pub const HEAD_RESERVE_LEN: usize = 64 * 1024;

/// How many elements all lists in one head may have together: an empty element takes one to three bytes, and 120 when it has been
/// read, so a frame of such elements would take forty times its length in memory. The sender of a list that may be longer, such as
/// the nodes of every action, splits or cuts the list.
pub const HEAD_ELEMENTS_MAX: usize = 131_072;

/// The shortest payload, in bytes, that is not copied into an outbox but travels as a shared slice: a copy of a shorter payload is
/// cheaper than one more write.
pub const PAYLOAD_SHARED_LEN_MIN: usize = 16 * 1024;

/// How much a new connection reads at once, in bytes. Small, since an idle connection holds a buffer of this length.
pub const READ_BUFFER_LEN_START: usize = 512;

/// How much a busy connection reads at once, in bytes: several frames of 64 KiB, since a frame that is cut at the end of the buffer
/// is copied to a place where the rest of it fits.
pub const READ_BUFFER_LEN_MAX: usize = 256 * 1024;

/// How much a connection reads at once, in bytes, however many others its thread reads from.
pub const READ_BUFFER_LEN_SHORT: usize = 16 * 1024;

/// How much the connections of one thread that read more than [`READ_BUFFER_LEN_SHORT`] at once read together, in bytes: as much as the cache of
/// a processor holds. Longer buffers, filled in turn, would all be fetched from memory.
pub const READ_BUFFERS_LEN_MAX: usize = 4 * 1024 * 1024;

/// How many frames an actor takes in one turn. After a turn its answers are written, and the far end works on them while the next
/// frames are read here: two ends that took turns with everything in flight would each wait half of the time. The bound also lets
/// the other actors of an arbiter have their turn during a flood.
pub const BLOCK_FRAMES_MAX: usize = 512;

/// The longest name of an action, a topic, a pattern, a group or a node, in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// How many headers a call or an event may have: each costs a step when one is looked for.
pub const HEADERS_MAX: usize = 32;

/// The longest name of a header, in bytes.
pub const HEADER_NAME_LEN_MAX: usize = 64;

/// The longest value of a header, in bytes: a signed token of the usual kinds fits.
pub const HEADER_VALUE_LEN_MAX: usize = 4 * 1024;

/// How many bytes the headers of a call or an event may have together, two for each header besides its name and value: as many as most HTTP
/// servers take. They stand in the head of a frame, and each relay walks over them once.
pub const HEADERS_LEN_MAX: usize = 8 * 1024;

/// The longest message of an error that crosses the wire, in bytes: that of a program which puts the answer of another service into its
/// message. A longer message is cut: an error must always fit into a frame.
pub const ERROR_MESSAGE_LEN_MAX: usize = 32 * 1024;

/// The longest name of an error that crosses the wire, in bytes. A longer name is cut.
pub const ERROR_NAME_LEN_MAX: usize = 4 * 1024;

/// The longest text that is the code of an application's error, in bytes. A longer one, which no program looks for, is cut.
pub const ERROR_CODE_LEN_MAX: usize = 1024;

/// How much of what a codec says about bytes that it cannot read goes into an error, in bytes: codecs quote text that they cannot read.
pub const REASON_LEN_MAX: usize = 4 * 1024;

/// The longest text of credentials in a bind, in bytes: a signed token of the usual kinds fits.
pub const CREDENTIALS_LEN_MAX: usize = 16 * 1024;

/// How many segments the name of an action, a topic or a pattern may have: each segment costs a step when a name is matched or looked up.
pub const SEGMENTS_MAX: usize = 32;

/// How many of the patterns that a branch is permitted an error names which refuses it: enough to see what would be right, and an error
/// stays short however long the list is.
pub const PATTERNS_SHOWN_MAX: usize = 8;

/// How many actions one node may offer.
pub const ACTIONS_PER_NODE_MAX: usize = 131_072;

/// How many patterns one node may be subscribed to.
pub const PATTERNS_PER_NODE_MAX: usize = 131_072;

/// How many subscriptions of one node one event may match: each costs a step with every such event, and in a group a copy of it. Counted
/// as the most that any topic could match, by the lengths of the patterns, by where their stars stand, and by the groups on one pattern.
pub const SUBSCRIPTIONS_PER_TOPIC_MAX: usize = 128;

/// How many bytes the subscriptions of one branch may take at its master, by default: [`PATTERNS_PER_NODE_MAX`] patterns of three or four
/// segments. What a level of the tree takes counts, not the bytes in the frame: a path of 32 segments of one letter takes 8 KiB.
pub const SUBSCRIBED_LEN_MAX: usize = 128 * 1024 * 1024;

/// How many last values a master keeps, by default, and how many a node keeps of those that it published, to say them again to a master that was
/// started again: each topic costs a step when one subscribes to patterns.
pub const LAST_VALUES_MAX: usize = 65_536;

/// How many bytes the last values that a master keeps may take, by default, with their topics; and those that a node keeps. One publisher takes
/// eight ninths of them at most.
pub const LAST_VALUES_LEN_MAX: usize = 64 * 1024 * 1024;

/// How many topics whose last value was taken away are remembered: so that a node which comes back late does not say a value again that is
/// forgotten. The oldest goes first.
pub const FORGOTTEN_MAX: usize = 16_384;

/// How many last values are looked at in one turn, of those that do not match, too, before the router takes other messages.
pub const LAST_VALUES_IN_A_ROW_MAX: usize = 1_024;

/// How many subscriptions of one node may not have heard all last values yet: as many as it may have, since a bind may bring them together.
pub const FEEDS_PER_NODE_MAX: usize = PATTERNS_PER_NODE_MAX;

/// How many bytes the offers of one branch may take at its master, by default, shapes counted: [`ACTIONS_PER_NODE_MAX`] actions with names
/// of usual length, or thousands with a shape of some KiB each.
pub const OFFERED_LEN_MAX: usize = 128 * 1024 * 1024;

/// The bytes that the offers of all branches take at their master, and as many again for their subscriptions: more than the largest meshes have,
/// and less than a machine. One branch may have a ninth of what the others leave.
pub const REGISTERED_IN_ALL_LEN_MAX: usize = 2 * 1024 * 1024 * 1024;

/// The bytes of offers, and of subscriptions, that a branch may have however much the others have: those of two dozen actions.
pub const IN_ALL_OWN_LEN_MIN: usize = 16 * 1024;

/// The longest shape of an action, in bytes, both schemas together: those of types with hundreds of fields fit. It is kept at the master, and
/// told to every node that asks.
pub const SHAPE_LEN_MAX: usize = 64 * 1024;

/// How many actions one frame may carry: a longer list travels as several frames.
pub const ACTIONS_PER_FRAME_MAX: usize = 1_024;

/// How many descriptions the answer to a `describe` may have: a longer list travels as several answers. A branch of before that knows no
/// further answers gets so many; others get shorter parts, of [`DESCRIBED_PART_MAX`].
pub const DESCRIBED_MAX: usize = 10_000;

/// How many actions one part of a description may have: the registry makes it in a millisecond, and then takes other messages.
pub const DESCRIBED_PART_MAX: usize = 1_024;

/// How many bytes one part of a description may take, above its first action: what is made and kept at once.
pub const DESCRIBED_PART_LEN_MAX: usize = 1024 * 1024;

/// How many list elements one part of a description may have, above its first action: the nodes of each action cost a step each.
pub const DESCRIBED_PART_ELEMENTS_MAX: usize = 8_192;

/// How many names of actions one part of a description looks at: of those that do not match, too.
pub const DESCRIBED_STEPS_MAX: usize = 8_192;

/// How many bytes of parts of descriptions the registry keeps for the next who ask, until an action comes or goes.
pub const DESCRIBED_KEPT_LEN_MAX: usize = 8 * 1024 * 1024;

/// How many bytes the names and shapes in the answer to a `describe` may take: with the lengths beside them they must fit into one frame.
pub const DESCRIBED_LEN_MAX: usize = FRAME_LEN_MAX / 2;

/// How many descriptions a node gathers from such answers: eight nodes that offer as many actions as a node may. A master could go on
/// answering without an end.
pub const DESCRIBED_IN_ALL_MAX: usize = 8 * ACTIONS_PER_NODE_MAX;

/// How many functions may travel as arguments of one request.
pub const CALLBACKS_PER_REQUEST_MAX: usize = 64;

/// How many functions may be lent over one connection, in each direction, and not be released: each keeps its closure alive. A call
/// that would pass one more is refused at its sender.
pub const CALLBACKS_PER_CONNECTION_MAX: usize = 131_072;

/// How many functions of the mesh the programs at one gateway, or behind one bridge, may hold together: such programs seldom say that
/// they need a function no more. Above the bound, the function is taken back that was passed or called longest ago. A part of
/// [`CALLBACKS_PER_CONNECTION_MAX`], since all these functions may be those of one node, and the connection of that node lends functions
/// to others too.
pub const FOREIGN_FUNCTIONS_MAX: usize = CALLBACKS_PER_CONNECTION_MAX / 4;

/// How many calls may be in flight on one connection, in each direction: twice what a busy gateway has, and it bounds the
/// callback table. A call above the bound fails at once with [`Code::OVERLOADED`](crate::Code::OVERLOADED).
pub const IN_FLIGHT_MAX: usize = 65_536;

/// How many calls of one node may wait for a lost link to come back. A call above the bound fails at once.
pub const WAITING_MAX: usize = 4_096;

/// How many bytes may stand in an outbox before events are dropped.
pub const OUTBOX_LEN_MAX: usize = 16 * 1024 * 1024;

/// How many bytes may stand in an outbox before requests are refused: there is room for 1,024 requests of 64 KiB. The bound on
/// requests in flight holds too.
pub const OUTBOX_REQUEST_LEN_MAX: usize = 128 * 1024 * 1024;

/// How many bytes may stand in an outbox before a reply is replaced by an `OVERLOADED` error of a few bytes. It bounds the memory
/// that a peer which sends requests and never reads can take.
pub const OUTBOX_REPLY_LEN_MAX: usize = 256 * 1024 * 1024;

/// How many bytes may stand in all outboxes of one master together, besides [`FRAME_LEN_MAX`] of replies in each, or
/// [`OUTBOX_EVENTS_LEN_MIN`] of events: one connection takes at most as much as it leaves, so many connections that do not read share what one
/// may take alone.
pub const OUTBOXES_LEN_MAX: usize = 1024 * 1024 * 1024;

/// How many bytes may stand in an outbox before events are dropped, however much others of its master hold: a subscriber that reads loses nothing
/// to those that do not. So many bytes are also the steps in which outboxes tell their master what stands in them.
pub const OUTBOX_EVENTS_LEN_MIN: usize = 64 * 1024;

/// How many bytes an error that replaces a reply takes at most. A link is given up when more of them stand in its outbox than there may be
/// requests in flight: they pile up when a peer goes on sending requests and never reads.
pub const OUTBOX_ERROR_LEN_MAX: usize = 128;

/// How many bytes stand in an outbox in the order in which they came. Requests and replies above that wait apart for each caller, and the
/// callers take turns: so a call waits for so many bytes, and for its share of the others. Enough to keep a link busy until its writer
/// has its next turn.
pub const OUTBOX_IN_ORDER_LEN_MAX: usize = 4 * 1024 * 1024;

/// How many bytes of replies may wait at a provider before a caller that has its share of them gets errors instead: twice what its master
/// lets stand for one caller, since many callers may each ask for what is large. A caller alone has eight ninths of it.
pub const PROVIDER_REPLIES_LEN_MAX: usize = 2 * OUTBOX_REPLY_LEN_MAX;

/// How many bytes of arguments the requests of one connection may have that are being answered: values that were read from them take as
/// much and more. Several of the longest frames fit.
pub const ANSWERING_LEN_MAX: usize = 8 * FRAME_LEN_MAX;

/// How many bytes the registry, the router and other sessions may hold of what one connection has sent, before its reader stops: several
/// reads, so that those actors have work while the next bytes come.
pub const CREDIT_LEN_MAX: usize = 1024 * 1024;

/// How long a publishing master waits for a subscriber whose outbox is half full, and which takes events. One that takes none in this time is
/// not waited for again before it has caught up.
pub const SUBSCRIBER_WAIT_MAX: Duration = Duration::from_millis(100);

/// How many of the last events that a branch got as a member of groups it may give back. The master remembers a number for each, so that it
/// knows an event that a branch gives back from one that the branch has made up.
pub const GROUP_EVENTS_REMEMBERED_MAX: usize = 16_384;

/// How many events a branch may give back that the master does not remember: each costs a search among those that it does.
pub const GIVEN_BACK_AMISS_MAX: usize = 1_024;

/// How many events may be handed to one subscriber and not be handled yet. An event above the bound is dropped and counted.
pub const EVENTS_PENDING_MAX: usize = 16_384;

/// How many bytes of events may be handed to one subscriber and not be handled yet, as they came over the link. An event above the bound is
/// dropped and counted, unless it is the only one.
pub const EVENTS_PENDING_LEN_MAX: usize = 64 * 1024 * 1024;

/// How many events in a row an async handler is given before the other tasks of the arbiter have their turns: a handler that never waits would
/// keep them from it while a full queue lasts.
pub const EVENTS_IN_A_ROW_MAX: usize = 64;

/// How many response actors a node keeps for the next calls. A burst that needs more makes more actors, and drops them afterwards.
pub const RESPONSE_POOL_MAX: usize = 4_096;

/// How many routes a session caches. A full cache is emptied, and its routes are looked up at the registry again.
pub const ROUTE_CACHE_MAX: usize = 16_384;

/// How many bytes of requests that are in flight a node may keep at its master, in case that a provider does not run one of them and another
/// provider does. A request above the bound is not kept: then its caller is told that it was not sent.
pub const KEPT_LEN_MAX: usize = 16 * 1024 * 1024;

/// How many bytes of requests of one connection the layers of a master may hold: two of the longest frames. A request above the bound is refused
/// with [`Code::OVERLOADED`](crate::Code::OVERLOADED), not sent.
pub const HELD_LEN_MAX: usize = 2 * FRAME_LEN_MAX;

/// The bytes of requests that all sessions of a master keep together, in case that other providers have to run them, and that its layers hold: a
/// session keeps no more than the others leave. What is not kept is not lost: it fails as not sent if its provider does not run it.
pub const KEPT_IN_ALL_LEN_MAX: usize = 256 * 1024 * 1024;

/// How many bytes of arguments a call of a method keeps at its caller until the reply comes, so that it can be made again by name if its provider turns
/// out to have other types. Longer arguments are not kept: then the call fails, not sent.
pub const ARGUMENTS_KEPT_LEN_MAX: usize = 64 * 1024;

/// How many providers one request is sent to, one after the other, while each says that it did not run it: further ones would most likely
/// say so too, and hostile ones could take a request through all of them.
pub const PROVIDERS_TRIED_MAX: usize = 32;

/// How many requests in a row a provider fails before it has a rest, by default: fewer happen by chance, since one caller may ask for what
/// cannot be done. Zero: no provider has a rest.
pub const FAILED_IN_ROW_MAX: usize = 8;

/// How long a row of failures lasts at least before a provider has a rest: one caller that asks many times at once what fails is not to
/// send a provider away from which others get replies.
pub const FAILING_FOR_MIN: Duration = Duration::from_millis(100);

/// The first rest of a provider that failed in a row, by default. Each further one, without a reply in between, is twice as long.
pub const REST_MIN: Duration = Duration::from_secs(1);

/// The longest rest of a provider, by default: one that works again gets requests so soon.
pub const REST_MAX: Duration = Duration::from_secs(30);

/// How long before its deadline a request that is cancelled counts as one whose deadline has passed: the cancel of a caller travels as long
/// as its request did, give or take so much.
pub const CANCELLED_AS_LATE: Duration = Duration::from_millis(10);

/// Over which time the latency of a provider is measured: an older request counts less, by the factor e for each such time.
pub const LATENCY_OVER: Duration = Duration::from_secs(2);

/// The weight of a provider that was given none: a part of it is given without fractions.
pub const WEIGHT_DEFAULT: u32 = 100;

/// The greatest weight of a provider: a hundred times the usual one, and the weights of all providers of an action add up without overflow.
pub const WEIGHT_MAX: u32 = 10_000;

/// How many labels a node may have, and how many a call may ask for: each costs a step for each provider when one is picked. With names and values
/// of [`LABEL_LEN_MAX`] they take less than 2 KiB of a session, a part of what any connection takes.
pub const LABELS_MAX: usize = 8;

/// The longest name of a label, and the longest value, in bytes: those of a version, a region or a tenant fit, as in Kubernetes.
pub const LABEL_LEN_MAX: usize = 63;

/// How many labels of the providers the error of a call names that asks for others: enough to see a slip.
pub const LABELS_TOLD_MAX: usize = 16;

/// The longest key of a call, in bytes, by which calls of one key get one provider: it is hashed for each request.
pub const KEY_LEN_MAX: usize = 255;

/// How many providers one call of all may ask: each costs a call in flight, and its reply waits for the caller.
pub const ASKED_IN_ALL_MAX: usize = 4_096;

/// How many connections may be accepted and not bound yet, from the moment that they are accepted until their descriptors are closed: some 40 MiB
/// at most, by [`FIRST_FRAME_LEN_MAX`] and what a buffer of that length grows to. As many again have room whose token was right. When the places
/// are taken, a connection that has said
/// nothing makes room for the next one.
pub const UNBOUND_SESSIONS_MAX: usize = 1_024;

/// How long a connection that has said nothing keeps its place if others of its address want it: longer than a branch takes to send its bind, and
/// so short that a crowd of connections which say nothing is through in a moment.
pub const UNBOUND_KEPT_FOR: Duration = Duration::from_millis(100);

/// How long a connection that was accepted waits for a place: others that have to make room are closed sooner. One that waits longer is turned
/// away, so that it does not keep out those that come after it.
pub const DOOR_WITHIN: Duration = Duration::from_millis(500);

/// How long the words for a connection that makes room, or is turned away, may take to leave: they fit into the buffer of any socket.
pub const PARTING_WITHIN: Duration = Duration::from_millis(50);

/// How many connections that are turned away are told why at a time. Further ones are closed without a word.
pub const TURNED_AWAY_MAX: usize = 64;

/// How many connections are accepted before the other tasks of the arbiter have their turns: a flood of connections must not delay the calls of
/// branches that are bound.
pub const ACCEPTED_IN_A_ROW_MAX: usize = 16;

/// How many connections a master may have, bound or not: ten thousand idle branches take 60 MiB, so these take less than one GiB.
pub const CONNECTIONS_MAX: usize = 131_072;

/// How many connections a master may have from one address, or from one network of 64 bits with IPv6: more than a host has free ports by default, so
/// the bound holds for networks and for those who set it.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 32_768;

/// How many connections of programs of other protocols a master may have: such programs show no token, so they have a part of
/// [`CONNECTIONS_MAX`].
pub const GATEWAY_CONNECTIONS_MAX: usize = 16_384;

/// How many connections of programs of other protocols a master may have from one address.
pub const GATEWAY_CONNECTIONS_PER_ADDRESS_MAX: usize = 4_096;

/// How deep a payload may be nested, each `Some` and each newtype counted: without a bound, a few bytes could overflow the stack.
pub const DEPTH_MAX: usize = 128;

/// How deep the tracer follows a type, each newtype counted: values of a deeper type would hardly fit into [`DEPTH_MAX`], and a type
/// that holds only itself has no end.
pub const TRACE_DEPTH_MAX: usize = 64;

/// How often the tracer reads a type before it gives up: a variant takes a run, and so does each value that a validated part refuses.
pub const TRACE_RUNS_MAX: usize = 20_000;

/// How many places the tracer enters in all runs for one type: a tenth of a second, once a type.
pub const TRACE_STEPS_MAX: usize = 1_000_000;

/// How many samples of a type are made: enough for each variant of any enum that people write.
pub const SAMPLES_MAX: usize = 1_024;

/// How many elements that take no bytes (such as `()`) one payload may hold: of no other elements could a short payload claim
/// millions.
pub const EMPTY_ELEMENTS_MAX: usize = 65_536;

/// How long a thread stays awake for the next frame by default: not at all. Where calls come by chance, a thread that polls for them
/// takes several times the processor time for the same latency.
pub const BUSY_POLL_WITHIN: Duration = Duration::ZERO;

/// The longest that a thread may be told to stay awake in vain.
pub const BUSY_POLL_WITHIN_MAX: Duration = Duration::from_millis(10);

/// The shortest time between two news of nodes that came and went: all news in between travel together.
pub const NEWS_EVERY: Duration = Duration::from_millis(10);

/// How much longer than [`NEWS_EVERY`] the time between two news is, for each node that is told: telling a node costs some
/// microseconds, so the part of the master's time that news take does not grow with the number of nodes.
pub const NEWS_EVERY_PER_NODE: Duration = Duration::from_micros(100);

/// How many changes of the actions of one node are told one by one until all nodes are told the next news. Further changes gather, and only
/// the last change of each action is told: a node that offers and withdraws all the time costs the others little.
pub const NEWS_PER_NODE_MAX: usize = 64;

/// How many bytes the changes of one node take that are told one by one: see [`NEWS_PER_NODE_MAX`]. A node that offers many actions when it
/// starts stays below it.
pub const NEWS_PER_NODE_LEN_MAX: usize = 1024 * 1024;

/// How much longer the changes that gather by action wait, for each KiB that was told of them last and each node that was told: they take a
/// small part of the time of the master, however many nodes there are.
pub const GATHERED_NEWS_EVERY_PER_KIB: Duration = Duration::from_micros(4);

/// The longest that changes which gather by action wait.
pub const GATHERED_NEWS_WITHIN: Duration = Duration::from_secs(10);

/// How often news of one node may be told at once in this time, since calls could be refused without them; those above wait for the next news.
pub const NEWS_AT_ONCE_MAX: usize = 64;

/// How long a branch waits for a link to be opened.
pub const DIAL_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection may take to bind.
pub const BIND_WITHIN: Duration = Duration::from_secs(2);

/// For how long a branch tries its first bind again that a full master turns away, though it waits for no master otherwise: thousands of branches may
/// start at once, and a full master has room again in a moment.
pub const FULL_MASTER_WITHIN: Duration = Duration::from_secs(30);

/// How many branches of one thread bind at a time; the others wait for their turn. Thousands that start at once would open their connections long
/// before the thread comes to write their binds, and meet the deadline of the master.
pub const BINDS_AT_ONCE_MAX: usize = 256;

/// The default deadline of a call.
pub const CALL_WITHIN: Duration = Duration::from_secs(10);

/// The deadline of a call from a program whose protocol knows no deadlines.
pub const FOREIGN_CALL_WITHIN: Duration = Duration::from_secs(60);

/// How often one request may be relayed from one mesh to another, by gateways, bridges and responders that call a node of another mesh. A
/// request that goes round between meshes ends after so many hops; no meshes are chained so long.
pub const HOPS_MAX: u8 = 64;

/// How many bytes may wait to be written to a foreign program before reading from it pauses: a program that sends requests must read
/// the answers.
pub const FOREIGN_BUFFER_LEN_MAX: usize = 1024 * 1024;

/// How many bytes may wait to be written to a foreign server, which a bridge or a branch dialled, before its connection is given up.
/// Reading from such a server never pauses, since both ends might then wait for each other.
pub const FOREIGN_OUT_LEN_MAX: usize = 4 * FRAME_LEN_MAX;

/// The longest batch of messages of a foreign program, in bytes: node-mesh packs up to 50 messages together, each of which may be as long as a
/// frame. No more than one of them is held at a time.
pub const FOREIGN_BATCH_LEN_MAX: usize = 64 * FRAME_LEN_MAX;

/// How many bytes a message of a foreign program may have that is too long to be read: its bytes pass by unread, and its caller gets an
/// error. More than any text that Node.js can hold. A connection that brings a longer message is closed.
pub const FOREIGN_UNREAD_LEN_MAX: usize = 2 * 1024 * 1024 * 1024 - 1;

/// How many lines of the log the messages of one read may cause, of a foreign program: more would tell the same.
pub const FOREIGN_NOTES_MAX: usize = 16;

/// How many items of a stream are on their way to a foreign program, which says nothing of what it has read: more are granted when these have
/// left through its socket.
pub const FOREIGN_WINDOW_ITEMS: u32 = 1024;

/// How many bytes of a stream are on their way to a foreign program, and one item more.
pub const FOREIGN_WINDOW_LEN: u32 = 256 * 1024;

/// What an item costs that is held, beside its bytes: about what its entry takes.
pub const FOREIGN_ITEM_COST: usize = 128;

/// How many bytes of one stream are held that a foreign program sent before they were granted, in a protocol where it is not told: as many as
/// a node of the mesh lets come by default. Above that the stream ends with an error.
pub const FOREIGN_STREAM_HELD_LEN_MAX: usize = STREAM_WINDOW_LEN_MAX as usize;

/// How many bytes of all streams of one foreign program are held.
pub const FOREIGN_ITEMS_HELD_LEN_MAX: usize = 4 * FOREIGN_STREAM_HELD_LEN_MAX;

/// How long a foreign server may say nothing to a bridge that has connected, and a master may not answer its bind.
pub const FOREIGN_SILENT_WITHIN: Duration = Duration::from_secs(5);

/// How long a TCP connection is silent before the operating system asks whether the other end is there, and how often it asks again.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// See [`KEEPALIVE_AFTER`].
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// How often a branch sends a heartbeat, by default. Both ends give up a link that stays silent for [`HEARTBEATS_MISSED_MAX`]
/// heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// The shortest heartbeat: with a shorter one, a busy machine would give up links that work.
pub const HEARTBEAT_EVERY_MIN: Duration = Duration::from_millis(10);

/// For how many heartbeats a link may stay silent before it is given up.
pub const HEARTBEATS_MISSED_MAX: u32 = 3;

/// The shortest wait of a branch before it binds again, by default. The first wait after a link was lost is between this and twice as
/// long, by chance.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait of a branch before it binds again, by default: node-mesh waits 3 s each time. Waits double up to this one, and the
/// longest are between half of it and all of it, by chance. After a link that held for as long as the longest wait, the next wait is the
/// shortest again: a master that loses its links sooner is dialled no more often than a master that is down.
pub const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// The shortest wait that a branch may be given: without any, it would dial a master that is down without a pause.
pub const BACKOFF_FLOOR: Duration = Duration::from_millis(1);

/// The shortest time between two lines of one kind in the log, where a peer or a condition may repeat them at will: short enough to see that
/// the cause lasts, long enough that it cannot fill a disk. The lines in between are counted.
pub const LOG_EVERY: Duration = Duration::from_secs(10);

/// How many lines of the log that each tell something else, such as the nodes that come and go, may be written at once: a mesh of usual size that
/// starts is told in full. Above that, one each [`LOG_NEWS_EVERY`]; the lines in between are counted.
pub const LOG_NEWS_AT_ONCE_MAX: u32 = 64;

/// See [`LOG_NEWS_AT_ONCE_MAX`]. A peer that binds and leaves without an end writes ten megabytes a day.
pub const LOG_NEWS_EVERY: Duration = Duration::from_secs(1);

/// The longest line of the log, in bytes: parts of it are texts of peers, of which the start tells enough.
pub const LOG_LINE_LEN_MAX: usize = 1_024;

/// How often an actor that panics is started again within [`RESTARTS_WITHIN`], by default: often enough for a fault that passes, and an actor that
/// cannot work says so within a minute.
pub const RESTARTS_MAX: usize = 8;

/// See [`RESTARTS_MAX`].
pub const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// The shortest wait before an actor that panicked is started again, by default. Each further panic within [`RESTARTS_WITHIN`] doubles the wait.
pub const RESTART_AFTER_MIN: Duration = Duration::from_millis(100);

/// The longest wait before an actor that panicked is started again, by default.
pub const RESTART_AFTER_MAX: Duration = Duration::from_secs(10);

/// How long a request waits at most for an actor that is to be started again. One that would wait longer is declined, so that another provider
/// runs it.
pub const RESTART_WAIT_MAX: Duration = Duration::from_secs(1);

/// How many messages wait for an actor that is to be started again: as many as a busy actor has in a moment. Further requests are declined, and
/// further events dropped.
pub const RESTART_WAITING_MAX: usize = 1_024;

/// How many actors that are started again a snapshot of a node shows: the first ones. More than any program has by hand.
pub const RESTARTING_SHOWN_MAX: usize = 1_024;

/// How many calls with an idempotency key a node runs or remembers, by default: those of some seconds of a busy provider. When there are more, the
/// oldest outcomes are forgotten.
pub const DOUBLES_MAX: usize = 65_536;

/// How many bytes the outcomes of calls with an idempotency key take that a node remembers, by default: four of the longest replies, or a KiB for
/// each.
pub const DOUBLES_LEN_MAX: usize = 4 * FRAME_LEN_MAX;

/// How long the outcome of a call with an idempotency key is remembered, by default, and how long such a call may run: a caller that was cut off
/// and comes back makes its call again by then.
pub const DOUBLES_WITHIN: Duration = Duration::from_secs(120);

/// How many times one call is made again at most, by default: a provider that comes back in a second is met, and a call that fails for another
/// reason costs little.
pub const RETRIES_MAX: u32 = 5;

/// How many retries a second a budget gives in any case, by default, so that a caller which calls seldom may retry at all.
pub const RETRIES_PER_SECOND: u32 = 10;

/// How many retries a budget holds at most for a burst, such as that of the calls which were in flight when a link was lost.
pub const RETRIES_HELD_MAX: u32 = 100;

/// The shortest wait before a call is made again, by default: a provider that drained is not chosen any more by then. Waits double.
pub const RETRY_AFTER_MIN: Duration = Duration::from_millis(10);

/// The longest wait before a call is made again, by default.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// How many circuits of actions and nodes one breaker keeps: more than a program calls. While all are in use, calls of further actions pass
/// without one.
pub const CIRCUITS_MAX: usize = 4_096;

/// How many of the last calls the window of a circuit counts at most: a bit each.
pub const CIRCUIT_CALLS_MAX: usize = 65_536;

/// How many requests may wait at `meshwork respond` for a command of others to end, not decoded: some seconds of work of a quick command. A
/// request above the bound goes to another provider, or fails with [`Code::OVERLOADED`](crate::Code::OVERLOADED).
pub const JOBS_WAITING_MAX: usize = 4_096;

/// How many pieces of blocking work a node does at once at least, by default, however few processors there are: work that waits for a disk or
/// another program takes no processor, and that of a computation shares the processors fairly with the arbiters.
pub const BLOCKING_MAX_MIN: usize = 8;

/// How many requests may wait at a node for blocking work of others to end, by default, not decoded: some seconds of quick work. Their bytes are
/// bounded by [`ANSWERING_LEN_MAX`].
pub const BLOCKING_WAITING_MAX: usize = 4_096;

/// How many bytes of lines of the command line may wait for a reader of stderr that is slow or has stopped: some thousand lines, which tell what
/// happened before. Further lines are counted.
pub const STDERR_WAITING_LEN_MAX: usize = 1024 * 1024;

/// How long a command waits at its end for the reader of its stderr: long enough for one that reads, and nobody waits for a command that hangs.
pub const STDERR_FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// How many bytes a link writes before others of its thread have their turn. A socket may take megabytes at once.
pub const WRITTEN_IN_TURN_LEN_MAX: usize = 128 * 1024;

/// How long the last frames of a connection that this end closes may take to leave.
pub const LINGER: Duration = Duration::from_secs(2);

/// How often a node looks whether the actors that answer its actions and handle its events are running. One that has stopped is noticed at
/// once by the request or event that meets it, and after this time in any case.
pub const ACTORS_CHECKED_EVERY: Duration = Duration::from_millis(250);

/// How long a drain takes at most, by default.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(10);

const _: () = assert!(BIND_FRAME_LEN_MAX <= FRAME_LEN_MAX);
const _: () = assert!(CREDENTIALS_LEN_MAX + NAME_LEN_MAX + 1024 <= FIRST_FRAME_LEN_MAX);
const _: () = assert!(FIRST_FRAME_LEN_MAX < BIND_FRAME_LEN_MAX && BIND_FRAME_LEN_MAX <= LONG_BINDS_LEN_MAX);
const _: () = assert!(FRAME_LEN_MAX <= u32::MAX as usize, "a length prefix has four bytes");
const _: () = assert!(HEAD_RESERVE_LEN + PAYLOAD_SHARED_LEN_MIN < FRAME_LEN_MAX);
const _: () =
    assert!(OUTBOX_LEN_MAX >= FRAME_LEN_MAX, "a frame that is allowed must fit into an empty outbox");
const _: () = assert!(OUTBOX_REQUEST_LEN_MAX >= OUTBOX_LEN_MAX);
const _: () = assert!(OUTBOX_EVENTS_LEN_MIN < OUTBOX_LEN_MAX);
const _: () = assert!(HEADER_NAME_LEN_MAX + HEADER_VALUE_LEN_MAX + 2 <= HEADERS_LEN_MAX);
const _: () = assert!(
    HEADERS_LEN_MAX + 4 * NAME_LEN_MAX + 9 * CALLBACKS_PER_REQUEST_MAX + 128 < HEAD_RESERVE_LEN,
    "the head of a request has room for the longest headers"
);
const _: () = assert!(OUTBOX_REPLY_LEN_MAX >= OUTBOX_REQUEST_LEN_MAX);
const _: () =
    assert!(DESCRIBED_PART_ELEMENTS_MAX <= HEAD_ELEMENTS_MAX && DESCRIBED_PART_LEN_MAX <= DESCRIBED_LEN_MAX);
const _: () = assert!(OUTBOX_IN_ORDER_LEN_MAX < OUTBOX_REQUEST_LEN_MAX);
const _: () = assert!(CREDIT_LEN_MAX >= READ_BUFFER_LEN_MAX);
const _: () = assert!(READ_BUFFER_LEN_START <= READ_BUFFER_LEN_MAX);
const _: () = assert!(ACTIONS_PER_FRAME_MAX * (NAME_LEN_MAX + 16) <= BIND_FRAME_LEN_MAX);
const _: () = assert!(
    ERROR_MESSAGE_LEN_MAX + ERROR_NAME_LEN_MAX + ERROR_CODE_LEN_MAX + 16 * CALLBACKS_PER_REQUEST_MAX
        < HEAD_RESERVE_LEN / 4 * 3,
    "an error of any size fits into a head"
);
const _: () = assert!(FOREIGN_FUNCTIONS_MAX + CALLBACKS_PER_REQUEST_MAX < CALLBACKS_PER_CONNECTION_MAX);

/// The longest file of certificates or keys that is read, in bytes: a bundle of all public authorities has about 250 KB.
pub const TLS_FILE_LEN_MAX: usize = 1024 * 1024;

/// How long the TLS handshake of a link that is dialled may take: less than [`DIAL_WITHIN`], so that a handshake that hangs is told from an
/// address that nobody answers at. At a listener the handshake is part of the bind, whose deadline holds.
pub const TLS_HANDSHAKE_WITHIN: Duration = Duration::from_secs(4);

const _: () = assert!(TLS_HANDSHAKE_WITHIN.as_nanos() < DIAL_WITHIN.as_nanos());

/// How many bytes the TLS handshake of a connection that was accepted may take, on the way in: the memory that a peer which has not been
/// checked may take there. A chain of four certificates with keys of 4,096 bits takes half of it. Up to 4 KiB more are read at once.
pub const TLS_HANDSHAKE_LEN_MAX: usize = 16 * 1024;

/// How many bytes are read, and dropped, from a peer whose TLS handshake has failed: as long as bytes of the peer are unread, closing the
/// connection would take away the reason that was sent to the peer. As much as a peer may have sent before it heard of the failure.
pub const TLS_REFUSED_LEN_MAX: usize = 128 * 1024;

/// How many names of a certificate count: a certificate of a service has a few.
pub const CERTIFICATE_NAMES_MAX: usize = 64;

/// How many items of a stream its consumer lets come at first: enough to keep a quick producer busy until more are granted, and few enough that
/// ten thousand streams that nobody reads take little.
pub const STREAM_WINDOW_ITEMS_START: u32 = 128;

/// How many bytes of a stream its consumer lets come at first. An item may be longer.
pub const STREAM_WINDOW_LEN_START: u32 = 32 * 1024;

/// How many items of a stream may be on their way to its consumer, or wait there. A stream that flows grows to it; each item takes some bytes
/// besides its payload.
pub const STREAM_WINDOW_ITEMS_MAX: u32 = 16_384;

/// How many bytes of a stream may be on their way to its consumer, or wait there, by default, and one item more. A stream that flows grows to
/// it: as much as a path of 1 Gbit/s holds that takes 30 ms there and back.
pub const STREAM_WINDOW_LEN_MAX: u32 = 4 * 1024 * 1024;

/// How many items a consumer may have granted that have not come. Whoever grants more is refused: nobody needs it, and the numbers stay in range.
pub const STREAM_GRANTED_ITEMS_MAX: u32 = 1024 * 1024;

/// How many bytes a consumer may have granted that have not come: 64 of the longest frames.
pub const STREAM_GRANTED_LEN_MAX: u32 = 1024 * 1024 * 1024;

/// How many bytes may stand in the outbox of a node before the producers of its streams wait: enough to keep a link busy until its writer has its
/// next turn, and little, since replies to others wait behind them.
pub const STREAM_OUTBOX_LEN_MAX: usize = 1024 * 1024;

/// How many bytes of short items a producer gathers before they go into the outbox, and how many bytes it makes before the other tasks of its thread
/// have their turns.
pub const STREAM_GATHERED_LEN_MAX: usize = 64 * 1024;

/// How many items a producer makes before the other tasks of its thread have their turns.
pub const STREAM_GATHERED_ITEMS_MAX: usize = 512;

/// How many streams of one link are told of room at once: as many as fill the room again, so that ten thousand do not wake for it.
pub const STREAMS_WOKEN_AT_ONCE: usize = STREAM_OUTBOX_LEN_MAX / STREAM_GATHERED_LEN_MAX;

const _: () = assert!(STREAM_WINDOW_LEN_START <= STREAM_WINDOW_LEN_MAX);
const _: () = assert!(STREAM_WINDOW_LEN_MAX <= STREAM_GRANTED_LEN_MAX / 2);
const _: () = assert!(STREAM_WINDOW_ITEMS_START <= STREAM_WINDOW_ITEMS_MAX);
const _: () = assert!(STREAM_WINDOW_ITEMS_MAX <= STREAM_GRANTED_ITEMS_MAX / 2);
const _: () =
    assert!(STREAM_OUTBOX_LEN_MAX < OUTBOX_IN_ORDER_LEN_MAX, "items of a node itself stand in no lane");
const _: () = assert!(STREAMS_WOKEN_AT_ONCE > 0);
