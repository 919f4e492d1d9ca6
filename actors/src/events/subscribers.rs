//! The handlers of one node, by pattern: which of them get an event that reached the node.

use super::event::{Deliver, Event, EventRef, HandlerCounts, SubscriberId, Untaken, hand_over};
use super::trie::Trie;
use crate::hashed::HashMap;
use futures::future::join_all;
use meshwork_wire::{ByteString, Pattern, SubscriptionKey};
use std::cell::Cell;
use std::sync::Arc;

/// The handlers of one node.
pub(crate) struct Subscribers {
    trie: Trie<Subscription>,
    handlers: HashMap<SubscriberId, (SubscriptionKey, Arc<dyn Deliver>)>,
    /// How many handlers share a key: the master is told of the first and of the last.
    keys: HashMap<SubscriptionKey, usize>,
    /// The topic of the run of events that is being delivered, and the handlers that get it.
    run_topic: Option<ByteString>,
    /// The publisher of the run.
    run_publisher: ByteString,
    run_handlers: Vec<Arc<dyn Deliver>>,
    /// Counts up: chooses the handler of a group that gets the next event.
    next_in_group: Cell<usize>,
    /// Whether an event met a handler whose actor has stopped.
    met_stopped: Cell<bool>,
    untaken: Untaken,
    /// The counts of former handlers.
    of_former: HandlerCounts,
}

/// The events that the handlers of a node did not take or not handle, so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct EventCounts {
    pub(crate) dropped: u64,
    pub(crate) superseded: u64,
    pub(crate) undecodable: u64,
    pub(crate) failed: u64,
}

/// One handler under one pattern.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Subscription {
    id: SubscriberId,
    group: Option<ByteString>,
}

impl Subscribers {
    pub(crate) fn new() -> Self {
        Self {
            trie: Trie::new(),
            handlers: HashMap::default(),
            keys: HashMap::default(),
            run_topic: None,
            run_publisher: ByteString::new(),
            run_handlers: Vec::new(),
            next_in_group: Cell::new(0),
            met_stopped: Cell::new(false),
            untaken: Untaken::default(),
            of_former: HandlerCounts::default(),
        }
    }

    /// Adds a handler; `true` if it is the first handler of its key.
    pub(crate) fn insert(
        &mut self,
        id: SubscriberId,
        key: SubscriptionKey,
        handler: Arc<dyn Deliver>,
    ) -> bool {
        self.end_run();
        self.trie.insert(&key.pattern, Subscription { id, group: key.group.clone() });
        let count = self.keys.entry(key.clone()).or_default();
        *count += 1;
        let first = *count == 1;
        self.handlers.insert(id, (key, handler));
        first
    }

    /// Takes a handler out; gives its key if it was the last handler of the key.
    pub(crate) fn remove(&mut self, id: SubscriberId) -> Option<SubscriptionKey> {
        self.end_run();
        let (key, handler) = self.handlers.remove(&id)?;
        self.of_former += handler.counts();
        self.trie.remove(&key.pattern, &Subscription { id, group: key.group.clone() });
        let count = self.keys.get_mut(&key)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.keys.remove(&key);
        Some(key)
    }

    /// The keys of all handlers, which the master must know.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SubscriptionKey> {
        self.keys.keys()
    }

    /// Hands an event to every matching handler that is in no group.
    pub(crate) fn deliver(&mut self, event: &Event) {
        self.deliver_next(event.into());
        self.end_run();
    }

    /// Hands the last value of a topic to the handler of this number, or to every matching handler that is in no group.
    pub(crate) fn deliver_last(&mut self, handler: Option<u64>, event: &Event) {
        let Some(id) = handler.map(SubscriberId) else {
            self.deliver_next(EventRef { is_last_value: true, ..event.into() });
            return self.end_run();
        };
        let (topic, publisher) = (ByteString::from(&*event.topic), ByteString::from(&*event.publisher));
        let event = EventRef { topic: &topic, publisher: &publisher, is_last_value: true, ..event.into() };
        // It may have gone meanwhile.
        if let Some((_, handler)) = self.handlers.get(&id)
            && !hand_over(&**handler, event, &self.untaken)
        {
            self.met_stopped.set(true);
        }
    }

    /// Hands one of several events to every matching handler that is in no group. The handlers of the topic are kept until
    /// [`Subscribers::end_run`], since the next event has this topic more often than not.
    pub(crate) fn deliver_next(&mut self, event: EventRef<'_>) {
        if self.run_topic.as_ref() != Some(event.topic) {
            self.find(event.topic);
        }
        if self.run_publisher != *event.publisher {
            self.run_publisher = ByteString::from(&**event.publisher);
        }
        self.deliver_in_run(event);
    }

    /// Hands an event whose topic and publisher are those of the last event to the handlers of that topic. The handlers get the names without the
    /// buffer that they were read from, which a handler that keeps its events would keep.
    #[inline]
    pub(crate) fn deliver_in_run(&self, event: EventRef<'_>) {
        let topic = self.run_topic.as_ref().unwrap_or(event.topic);
        let event = EventRef { topic, publisher: &self.run_publisher, ..event };
        for handler in &self.run_handlers {
            if !hand_over(&**handler, event, &self.untaken) {
                self.met_stopped.set(true);
            }
        }
    }

    /// Forgets the topic of the run and its handlers.
    pub(crate) fn end_run(&mut self) {
        self.run_topic = None;
        self.run_handlers.clear();
    }

    /// Finds the handlers of a topic that are in no group.
    fn find(&mut self, topic: &ByteString) {
        self.run_topic = Some(ByteString::from(&**topic));
        let (handlers, found) = (&self.handlers, &mut self.run_handlers);
        found.clear();
        let mut before = None;
        self.trie.for_each_match(topic, &mut |member| {
            if member.group.is_none() && before != Some(member.id) {
                before = Some(member.id);
                found.extend(handlers.get(&member.id).map(|(_, handler)| Arc::clone(handler)));
            }
        });
    }

    /// Hands an event to one of the handlers of a group; `false` if the actors of all of them have stopped, or there is none.
    pub(crate) fn deliver_to_group(&self, group: &ByteString, event: &Event) -> bool {
        let mut members = Vec::new();
        self.trie.for_each_match(&event.topic, &mut |member| {
            if member.group.as_ref() == Some(group) {
                members.push(member.id);
            }
        });
        if members.is_empty() {
            return false;
        }
        let first = self.next_in_group.get().wrapping_add(1);
        self.next_in_group.set(first);
        let (topic, publisher) = (ByteString::from(&*event.topic), ByteString::from(&*event.publisher));
        let event = EventRef { topic: &topic, publisher: &publisher, ..event.into() };
        let members = (0..members.len()).map(|step| members[first.wrapping_add(step) % members.len()]);
        for (_, handler) in members.filter_map(|id| self.handlers.get(&id)) {
            // One that has stopped is passed over.
            if handler.is_running() != Some(false) && hand_over(&**handler, event, &self.untaken) {
                return true;
            }
            self.met_stopped.set(true);
        }
        false
    }

    /// Whether an event has met a handler whose actor has stopped, since this was last asked.
    pub(crate) fn met_stopped(&self) -> bool {
        self.met_stopped.take()
    }

    /// The handlers whose actors have stopped, with their patterns.
    pub(crate) fn stopped(&self) -> Vec<(SubscriberId, Pattern)> {
        let stopped = self.handlers.iter().filter(|(_, (_, handler))| handler.is_running() == Some(false));
        stopped.map(|(id, (key, _))| (*id, key.pattern.clone())).collect()
    }

    /// Whether an actor handles events.
    pub(crate) fn need_actors(&self) -> bool {
        self.handlers.values().any(|(_, handler)| handler.is_running().is_some())
    }

    /// How many handlers there are.
    pub(crate) fn len(&self) -> usize {
        self.handlers.len()
    }

    /// How many events handlers did not take or not handle.
    pub(crate) fn counts(&self) -> EventCounts {
        let mut of_handlers = self.of_former;
        self.handlers.values().for_each(|(_, handler)| of_handlers += handler.counts());
        EventCounts {
            dropped: self.untaken.dropped(),
            superseded: self.untaken.superseded(),
            undecodable: self.untaken.undecodable() + of_handlers.undecodable,
            failed: of_handlers.failed,
        }
    }

    /// Waits until the handlers have handled the events that they took, as far as they can tell.
    pub(crate) fn idle(&self) -> impl Future<Output = ()> + use<> {
        let busy: Vec<_> = self.handlers.values().filter_map(|(_, handler)| handler.idle()).collect();
        async move {
            join_all(busy).await;
        }
    }
}

impl std::ops::Add for EventCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            dropped: self.dropped + other.dropped,
            superseded: self.superseded + other.superseded,
            undecodable: self.undecodable + other.undecodable,
            failed: self.failed + other.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::Dropped;
    use meshwork_wire::{Headers, Pattern, Payload};
    use std::sync::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Deliver for Heard {
        fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped> {
            self.0.lock().unwrap().push(event.topic.to_string());
            Ok(())
        }
    }

    fn key(pattern: &str, group: Option<&str>) -> SubscriptionKey {
        SubscriptionKey { pattern: Pattern::new(pattern).unwrap(), group: group.map(ByteString::from) }
    }

    fn event(topic: &str) -> Event {
        let (publisher, headers, payload) = ("p".into(), Headers::none(), Payload::default());
        Event { topic: topic.into(), publisher, headers, payload }
    }

    #[test]
    fn the_master_is_told_of_the_first_handler_of_a_key_and_of_the_last() {
        let mut subscribers = Subscribers::new();
        let heard = Arc::new(Heard::default());
        assert!(subscribers.insert(SubscriberId(1), key("a/*", None), heard.clone()));
        assert!(!subscribers.insert(SubscriberId(2), key("a/*", None), heard.clone()));
        assert!(subscribers.insert(SubscriberId(3), key("a/*", Some("g")), heard.clone()));
        subscribers.deliver(&event("a/b"));
        assert_eq!(heard.0.lock().unwrap().len(), 2, "each handler once, groups apart");
        assert_eq!(subscribers.remove(SubscriberId(1)), None);
        assert_eq!(subscribers.remove(SubscriberId(2)), Some(key("a/*", None)));
        assert_eq!(subscribers.remove(SubscriberId(2)), None);
        assert_eq!(subscribers.keys().count(), 1);
    }

    #[test]
    fn events_of_one_topic_after_another_go_where_each_belongs() {
        let mut subscribers = Subscribers::new();
        let (a, all, late) =
            (Arc::new(Heard::default()), Arc::new(Heard::default()), Arc::new(Heard::default()));
        subscribers.insert(SubscriberId(1), key("a", None), a.clone());
        subscribers.insert(SubscriberId(2), key("**", None), all.clone());
        for topic in ["a", "a", "b", "b", "a"] {
            subscribers.deliver_next((&event(topic)).into());
        }
        subscribers.insert(SubscriberId(3), key("a", None), late.clone());
        subscribers.deliver_next((&event("a")).into());
        subscribers.remove(SubscriberId(1));
        subscribers.deliver_next((&event("a")).into());
        let heard = |by: &Heard| by.0.lock().unwrap().concat();
        assert_eq!((&*heard(&a), &*heard(&all), &*heard(&late)), ("aaaa", "aabbaaa", "aa"));
        let weak = Arc::downgrade(&all);
        subscribers.remove(SubscriberId(2));
        drop(all);
        assert!(weak.upgrade().is_none(), "nothing keeps a handler that was taken out");
    }

    #[test]
    fn a_group_gets_an_event_once_and_its_members_alternate() {
        let mut subscribers = Subscribers::new();
        let (one, two) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
        subscribers.insert(SubscriberId(1), key("a", Some("g")), one.clone());
        subscribers.insert(SubscriberId(2), key("a", Some("g")), two.clone());
        for _ in 0..10 {
            subscribers.deliver_to_group(&"g".into(), &event("a"));
        }
        subscribers.deliver_to_group(&"other".into(), &event("a"));
        assert_eq!((one.0.lock().unwrap().len(), two.0.lock().unwrap().len()), (5, 5));
    }
}
