//! The options that a master and a branch share, and the methods that set them.

use super::layers::CallLayer;
use super::limits::Limits;
use super::shared::Node;
use crate::answers::{Action, Actions};
use crate::turns::busy_poll::BusyPoll;
use meshwork_wire::limits::{BUSY_POLL_WITHIN, WEIGHT_DEFAULT};
use meshwork_wire::{ByteString, Label, Labels};
use std::sync::Arc;
use std::time::Duration;

/// The options that a master and a branch share.
pub struct NodeOptions {
    pub(crate) node: Arc<Node>,
    pub(crate) actions: Actions,
    pub(crate) limits: Limits,
    /// The labels and the weight of the node; none if it was given none.
    pub(crate) labels: Option<Labels>,
    /// How long threads stay awake for the next frame.
    pub(crate) busy_poll: BusyPoll,
    /// The layers around the calls of the node, in the order in which calls meet them.
    call_layers: Vec<CallLayer>,
}

impl NodeOptions {
    pub(crate) fn new(name: ByteString) -> Self {
        Self {
            node: Node::new(name),
            actions: Actions::default(),
            limits: Limits::default(),
            labels: None,
            busy_poll: BusyPoll::new(BUSY_POLL_WITHIN),
            call_layers: Vec::new(),
        }
    }

    /// Adds a layer around the calls of the node, inside the layers that were added before.
    pub fn layer_calls(&mut self, layer: CallLayer) {
        self.call_layers.push(layer);
    }

    /// Puts the layers around the calls of the node, which starts now.
    pub(crate) fn set_layers(&mut self) {
        self.node.put_layers(std::mem::take(&mut self.call_layers));
    }
}

/// Sets the options that a [`MasterActor`](crate::master::MasterActor) and a [`BranchActor`](crate::branch::BranchActor) share, before
/// they start.
pub trait ConfigureNode: Sized {
    /// The options of this node.
    #[doc(hidden)]
    fn options(&mut self) -> &mut NodeOptions;

    /// The bounds of this node, all at once.
    #[must_use]
    fn limits(mut self, limits: Limits) -> Self {
        let options = self.options();
        options.node.set_in_flight_max(limits.in_flight_max);
        options.node.with_said(|said| said.bounds = limits.last_bounds());
        options.node.keyed().set_bounds(limits.doubles_bounds());
        options.limits = limits;
        self
    }

    /// How long a bind may take: at a branch, how long the master has to answer it; at a master, how long a connection has to bind
    /// before it is closed with `BIND_TIMEOUT`. Default: 2 s.
    #[must_use]
    fn bind_within(mut self, within: Duration) -> Self {
        self.options().limits.bind_within = within;
        self
    }

    /// How many requests may be in flight on one connection, each way. Default: 65,536; a branch keeps to the bound of its master if that is
    /// less. A further request fails at once with `OVERLOADED`.
    #[must_use]
    fn in_flight_max(mut self, max: usize) -> Self {
        let options = self.options();
        options.limits.in_flight_max = max;
        options.node.set_in_flight_max(max);
        self
    }

    /// How long the threads of this node's connections stay awake for the next frame instead of sleeping. Default: zero, which lets the
    /// threads sleep; at most 10 ms.
    ///
    /// About 200 us are worth it where one call follows the reply to the call before it: then neither end sleeps, and a call takes a
    /// fraction of the time. A thread stays awake only as long as nearly all frames come that soon, and gives way to its other tasks and to
    /// other threads that want its processor. Where calls come by chance, busy polling costs processor time and gains nothing.
    #[must_use]
    fn busy_poll(mut self, within: Duration) -> Self {
        self.options().busy_poll = BusyPoll::new(within);
        self
    }

    /// Gives the node a label, such as `version` and `2`: a call that asks for labels goes only to nodes that have them all. Labels count for all
    /// actions of the node. A node has up to 8, each name once. Its master must know labels: one of an earlier version passes them over.
    ///
    /// # Panics
    ///
    /// When the name or the value is empty, has more than 63 bytes, or holds a character besides ASCII letters, digits and `-_./:+`; when the
    /// node has a label of this name, or 8 labels: mistakes in the program.
    #[must_use]
    fn label(mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        let label = Label::new(name, value).unwrap_or_else(|error| panic!("{error}"));
        let labels = self.options().labels.get_or_insert_with(unlabelled);
        labels.labels.push(label);
        labels.check().unwrap_or_else(|error| panic!("{error}"));
        self
    }

    /// How much of the requests for its actions a branch gets, beside the weights of the other providers: one of 10 gets a tenth of what one of
    /// 100 gets. With 0 it gets what is asked of it by name or label, and what no other provider takes. Default: 100; at most 10,000. Where the
    /// weights differ, each request is drawn by chance in their proportion, then [`Balance`](crate::master::Balance) decides among the providers
    /// of one weight. A master that answers an action itself answers before its branches, whatever their weights.
    ///
    /// # Panics
    ///
    /// When the weight is above 10,000.
    #[must_use]
    fn weight(mut self, weight: u32) -> Self {
        let labels = self.options().labels.get_or_insert_with(unlabelled);
        labels.weight = weight;
        labels.check().unwrap_or_else(|error| panic!("{error}"));
        self
    }

    /// Answers an action. A master that answers an action answers all requests for it, whichever branches offer the action too.
    ///
    /// # Panics
    ///
    /// When the name of the action is not valid, or the node answers it already: that is a mistake in the program.
    #[doc(hidden)]
    #[must_use]
    fn action(mut self, action: Action) -> Self {
        if let Err(refused) = self.options().actions.insert(action) {
            panic!("{refused}");
        }
        self
    }
}

/// No label, and the usual weight.
fn unlabelled() -> Labels {
    Labels { labels: Vec::new(), weight: WEIGHT_DEFAULT }
}
