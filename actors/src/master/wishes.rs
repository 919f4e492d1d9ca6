//! What a call asks of its provider besides its action and the name of a node: the provider of a key, one with labels, or one session.

use super::forwarded::MASTER;
use super::registry::rendezvous::hash_of;
use meshwork_wire::{CallError, Code, Fate, Headers, Label, Labels, SessionId, check_key};

/// What a request asks of its provider. Most ask for nothing, and have none.
#[derive(Clone, Default, Debug)]
pub(crate) struct Wishes {
    /// The number of its key: requests of one key get one provider, as long as it is there.
    pub(crate) key: Option<u64>,
    /// The labels that the provider must have.
    pub(crate) labels: Vec<Label>,
    /// The session that must answer: several branches may have one name.
    pub(crate) session: Option<SessionId>,
}

/// Which provider a request may get.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sought<'a> {
    /// The name of the node; empty for any.
    pub(crate) node: &'a str,
    /// None if it asks for nothing.
    pub(crate) wishes: Option<&'a Wishes>,
    /// The sessions of the providers that did not run the request.
    pub(crate) tried: &'a [SessionId],
}

impl Wishes {
    /// What a request with these headers asks of its provider; none if it asks for nothing. Costs nothing if there are no headers.
    ///
    /// # Errors
    ///
    /// Not sent: when the headers are none that a node of this version writes.
    #[inline]
    pub(crate) fn of(headers: &Headers) -> Result<Option<Box<Self>>, CallError> {
        if headers.choose_provider() {
            Self::read(headers).map(|wishes| Some(Box::new(wishes)))
        } else {
            Ok(None)
        }
    }

    #[cold]
    fn read(headers: &Headers) -> Result<Self, CallError> {
        let mut wishes = Self::default();
        if let Some(key) = headers.get(Headers::KEY) {
            check_key(key)?;
            wishes.key = Some(hash_of(key.as_bytes()));
        }
        if let Some(labels) = headers.get(Headers::LABEL) {
            wishes.labels = Label::read_list(labels)?;
        }
        if let Some(session) = headers.get(Headers::SESSION) {
            let number = session.parse().map_err(|_| {
                CallError::new(
                    Code::BAD_NAME,
                    Fate::NotSent,
                    format!("{session:?} is no number of a session"),
                )
            })?;
            wishes.session = Some(SessionId(number));
        }
        Ok(wishes)
    }

    /// Whether the master, with these labels, may answer by an action of its own.
    pub(crate) fn fit_own(&self, own: Option<&Labels>) -> bool {
        let has_labels = self.labels.is_empty() || own.is_some_and(|own| own.has_all(&self.labels));
        has_labels && self.session.is_none_or(|session| session == MASTER)
    }
}

impl<'a> Sought<'a> {
    /// Whether any provider may answer.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.node.is_empty() && self.wishes.is_none() && self.tried.is_empty()
    }

    /// Any provider but those that were tried, of this node if it is not empty.
    #[cfg(test)]
    pub(crate) fn of(node: &'a str, tried: &'a [SessionId]) -> Self {
        Self { node, wishes: None, tried }
    }

    /// Whether no other provider may answer if the one that is asked for has no room.
    pub(crate) fn is_bound(&self) -> bool {
        self.wishes.is_some_and(|wishes| wishes.key.is_some() || wishes.session.is_some())
    }

    pub(crate) fn key(&self) -> Option<u64> {
        self.wishes.and_then(|wishes| wishes.key)
    }

    pub(crate) fn labels(&self) -> &'a [Label] {
        self.wishes.map_or(&[], |wishes| &wishes.labels)
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.wishes.and_then(|wishes| wishes.session)
    }

    /// Where the provider is looked for, for an error: ` at "node" with version=2`.
    pub(crate) fn place(&self) -> String {
        let mut place = if self.node.is_empty() { String::new() } else { format!(" at {:?}", self.node) };
        for (at, label) in self.labels().iter().enumerate() {
            place += if at == 0 { " with the label " } else { " and " };
            place += &label.to_string();
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> Headers {
        let mut headers = Headers::none();
        pairs.iter().for_each(|(name, value)| headers.insert_own(name, value).expect("it is a header"));
        headers
    }

    #[test]
    fn headers_that_choose_no_provider_are_no_wishes() {
        for none in [headers(&[]), headers(&[("tenant", "a"), (Headers::IDEMPOTENCY_KEY, "7")])] {
            assert!(Wishes::of(&none).expect("there are none").is_none());
        }
    }

    #[test]
    fn a_key_labels_and_a_session_are_read_from_the_headers() {
        let all = [(Headers::KEY, "ann"), (Headers::LABEL, "version=2,region=eu"), (Headers::SESSION, "7")];
        let wishes = Wishes::of(&headers(&all)).expect("they are right").expect("there are some");
        assert_eq!((wishes.key, wishes.session), (Some(hash_of(b"ann")), Some(SessionId(7))));
        assert_eq!(wishes.labels, Label::read_list("version=2,region=eu").unwrap());
    }

    #[test]
    fn headers_from_outside_that_are_no_wishes_are_refused_as_not_sent() {
        let long = "k".repeat(meshwork_wire::limits::KEY_LEN_MAX + 1);
        let many = ["a=1"; meshwork_wire::limits::LABELS_MAX + 1].join(",");
        for (name, value) in [
            (Headers::KEY, ""),
            (Headers::KEY, &*long),
            (Headers::LABEL, ""),
            (Headers::LABEL, "version"),
            (Headers::LABEL, &*many),
            (Headers::SESSION, "-1"),
            (Headers::SESSION, "99999999999999999999"),
        ] {
            let error = Wishes::of(&headers(&[(name, value)])).expect_err(value);
            assert_eq!((error.code(), error.fate()), (Code::BAD_NAME, Fate::NotSent), "{name}: {value}");
        }
    }
}
