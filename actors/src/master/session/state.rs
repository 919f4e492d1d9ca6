//! The phase of a session, and which frames of its branch are legal in each phase. It decides; `session.rs` acts.

use meshwork_wire::Frame;

/// The phase of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Connected, and not checked. Only a bind is legal, and no action runs.
    Unbound,
    /// The bind is being checked. No frame is legal: the branch waits for the answer.
    Binding,
    /// Checked and in the registry.
    Bound,
    /// Bound, and the branch takes no more requests: it finishes those in flight.
    BranchDrains,
    /// Bound, and the master takes no more requests, of this branch or for it: those in flight are finished.
    Draining,
    /// Refused or done: the outbox is still written, and no frame is heard.
    Closing,
}

/// Whether a frame is legal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Legality {
    Legal,
    /// The frame is not heard: the link is closing.
    Ignored,
    /// The branch broke the protocol, in this way: the link is closed.
    Illegal(&'static str),
}

impl Phase {
    /// Whether a frame of the branch is legal in this phase.
    pub(crate) fn judge(self, frame: &Frame) -> Legality {
        match (self, frame) {
            (Phase::Closing, _) => Legality::Ignored,
            (Phase::Unbound, Frame::Bind(_) | Frame::ExtendedBind(_)) => Legality::Legal,
            (Phase::Unbound, _) => Legality::Illegal("the first frame must be a bind"),
            (Phase::Binding, _) => Legality::Illegal("a frame came before the bind was answered"),
            (Phase::Bound | Phase::BranchDrains | Phase::Draining, frame) => match frame {
                Frame::Bind(_) | Frame::ExtendedBind(_) => Legality::Illegal("a session is bound once"),
                Frame::Bound(_)
                | Frame::ExtendedBound(_)
                | Frame::Refused(_)
                | Frame::Online(_)
                | Frame::Offline(_)
                | Frame::Described(_)
                | Frame::Kept(_)
                | Frame::LastValue(_) => Legality::Illegal("a branch sent what only a master may"),
                _ => Legality::Legal,
            },
        }
    }

    /// Whether requests, replies and events are legal: then they are read without a call of [`Phase::judge`] for each.
    pub(crate) fn is_calling(self) -> bool {
        matches!(self, Phase::Bound | Phase::BranchDrains | Phase::Draining)
    }

    /// Whether the bind deadline still counts.
    pub(crate) fn is_before_bound(self) -> bool {
        matches!(self, Phase::Unbound | Phase::Binding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::{Bind, ByteString, CallbackId, Headers, NodeNews, Payload, Request, SessionId};

    fn bind() -> Frame {
        Frame::Bind(Bind {
            version: 1,
            name: "a".into(),
            credentials: None,
            offers: Vec::new(),
            subscriptions: Vec::new(),
        })
    }

    fn request() -> Frame {
        Frame::Request(Request {
            callback_id: CallbackId(1),
            action: "add".into(),
            node: ByteString::new(),
            caller: ByteString::new(),
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload: Payload::default(),
        })
    }

    #[test]
    fn nothing_but_a_bind_is_legal_before_the_bind_is_answered() {
        assert_eq!(Phase::Unbound.judge(&bind()), Legality::Legal);
        for frame in [request(), Frame::Ping, Frame::Cancel(CallbackId(1)), Frame::Drain] {
            assert!(matches!(Phase::Unbound.judge(&frame), Legality::Illegal(_)), "{frame:?}");
            assert!(matches!(Phase::Binding.judge(&frame), Legality::Illegal(_)), "{frame:?}");
        }
        assert!(matches!(Phase::Binding.judge(&bind()), Legality::Illegal(_)));
    }

    #[test]
    fn a_bound_branch_may_not_speak_as_a_master_or_bind_again() {
        let news = NodeNews { node: "a".into(), session: SessionId(1), whole: true, actions: Vec::new() };
        for phase in [Phase::Bound, Phase::BranchDrains, Phase::Draining] {
            assert_eq!(phase.judge(&request()), Legality::Legal);
            assert!(matches!(phase.judge(&bind()), Legality::Illegal(_)));
            assert!(matches!(phase.judge(&Frame::Online(news.clone())), Legality::Illegal(_)));
        }
    }

    #[test]
    fn nothing_is_heard_when_closing() {
        assert_eq!(Phase::Closing.judge(&request()), Legality::Ignored);
    }

    #[test]
    fn requests_are_read_past_the_judge_only_where_it_takes_them() {
        let calling = [Phase::Bound, Phase::BranchDrains, Phase::Draining];
        for phase in [Phase::Unbound, Phase::Binding, Phase::Closing].into_iter().chain(calling) {
            assert_eq!(phase.is_calling(), phase.judge(&request()) == Legality::Legal, "{phase:?}");
        }
    }
}
