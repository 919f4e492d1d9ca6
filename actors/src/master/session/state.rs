//! Where a session stands, and which frames of its branch are legal there. It decides; `session.rs` acts.

use meshwork_wire::Frame;

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Connected, not checked. Only a bind is legal, and nothing runs.
    Unbound,
    /// The bind is being checked. Nothing is legal: the branch waits for the answer.
    Binding,
    /// Checked and in the registry.
    Bound,
    /// Bound, and the master takes no more: what is in flight is finished.
    Draining,
    /// Refused or done: what is in the outbox is written, nothing is heard.
    Closing,
}

/// What to do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Act on it.
    Take,
    /// Do nothing.
    Ignore,
    /// Close the link: the branch broke the protocol, in this way.
    Refuse(&'static str),
}

impl Phase {
    /// Whether a frame of the branch is legal here.
    pub(crate) fn judge(self, frame: &Frame) -> Verdict {
        match (self, frame) {
            (Phase::Closing, _) => Verdict::Ignore,
            (Phase::Unbound, Frame::Bind(_)) => Verdict::Take,
            (Phase::Unbound, _) => Verdict::Refuse("the first frame must be a bind"),
            (Phase::Binding, _) => Verdict::Refuse("a frame came before the bind was answered"),
            (Phase::Bound | Phase::Draining, Frame::Bind(_)) => Verdict::Refuse("a session is bound once"),
            (
                Phase::Bound | Phase::Draining,
                Frame::Bound(_)
                | Frame::Refused(_)
                | Frame::Online(_)
                | Frame::Offline(_)
                | Frame::Described(_),
            ) => Verdict::Refuse("a branch sent what only a master may"),
            (Phase::Bound | Phase::Draining, _) => Verdict::Take,
        }
    }

    /// Whether requests, replies and events are legal: those are read without asking the judge about each.
    pub(crate) fn is_calling(self) -> bool {
        matches!(self, Phase::Bound | Phase::Draining)
    }

    /// Whether the bind deadline still counts.
    pub(crate) fn is_before_bound(self) -> bool {
        matches!(self, Phase::Unbound | Phase::Binding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::{Bind, ByteString, CallbackId, NodeNews, Payload, Request, SessionId};

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
            payload: Payload::default(),
        })
    }

    #[test]
    fn nothing_but_a_bind_is_legal_before_the_bind_is_answered() {
        assert_eq!(Phase::Unbound.judge(&bind()), Verdict::Take);
        for frame in [request(), Frame::Ping, Frame::Cancel(CallbackId(1)), Frame::Drain] {
            assert!(matches!(Phase::Unbound.judge(&frame), Verdict::Refuse(_)), "{frame:?}");
            assert!(matches!(Phase::Binding.judge(&frame), Verdict::Refuse(_)), "{frame:?}");
        }
        assert!(matches!(Phase::Binding.judge(&bind()), Verdict::Refuse(_)));
    }

    #[test]
    fn a_bound_branch_may_not_speak_as_a_master_or_bind_again() {
        let news = NodeNews { node: "a".into(), session: SessionId(1), whole: true, actions: Vec::new() };
        for phase in [Phase::Bound, Phase::Draining] {
            assert_eq!(phase.judge(&request()), Verdict::Take);
            assert!(matches!(phase.judge(&bind()), Verdict::Refuse(_)));
            assert!(matches!(phase.judge(&Frame::Online(news.clone())), Verdict::Refuse(_)));
        }
    }

    #[test]
    fn nothing_is_heard_when_closing() {
        assert_eq!(Phase::Closing.judge(&request()), Verdict::Ignore);
    }

    #[test]
    fn requests_are_read_past_the_judge_only_where_it_takes_them() {
        for phase in [Phase::Unbound, Phase::Binding, Phase::Bound, Phase::Draining, Phase::Closing] {
            assert_eq!(phase.is_calling(), phase.judge(&request()) == Verdict::Take, "{phase:?}");
        }
    }
}
