//! Last values in a run: who publishes and forgets them, and that all nodes agree in the end on what was published last.

use crate::journal::{self, Life};
use crate::programs::{Living, lock};
use meshwork::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The last value of each topic that a handler has heard: the life of its publisher, and its number.
pub(crate) type Values = BTreeMap<String, (Life, u64)>;

/// The topics of the values, of which the nodes choose some.
pub(crate) const TOPICS: &str = "last/*";

/// Hears values.
pub(crate) fn ear(values: &Arc<Mutex<Values>>) -> impl Fn(Event<(Life, u64)>) + Clone + Send + Sync + use<> {
    let values = Arc::clone(values);
    move |event: Event<(Life, u64)>| {
        lock(&values).insert(event.topic.to_string(), event.value);
    }
}

impl Living {
    /// Publishes a last value, or forgets one.
    pub(crate) async fn keep_last(&mut self, topic: &'static str, forgets: bool) {
        self.kept_last += 1;
        let (life, number) = (self.life, self.kept_last);
        let node = self.node.clone();
        let keeping = async move {
            match forgets {
                true => node.forget_last(topic).await,
                false => node.publish_last(topic, &(life, number)).await,
            }
        };
        // One that is given up has any fate.
        let kept = tokio::time::timeout(Duration::from_millis(300), keeping).await;
        journal::note(format_args!("life {life} keeps {topic} {number}, forgets {forgets}: {kept:?}"));
    }
}

/// The last values of a topic to which only one host publishes: the number of the last one that a master said to keep, and that of the last one
/// that the node published in this life.
#[derive(Clone, Copy, Default)]
pub(crate) struct Own {
    kept: u64,
    published: u64,
}

impl Living {
    /// Publishes a last value of a topic that is this host's alone.
    pub(crate) async fn keep_own_last(&mut self) {
        self.own_last.published += 1;
        let (life, number) = (self.life, self.own_last.published);
        let (node, topic) = (self.node.clone(), format!("last/of-{}", self.host));
        let keeping = async move { node.publish_last(topic, &(life, number)).await };
        let kept = tokio::time::timeout(Duration::from_millis(300), keeping).await;
        journal::note(format_args!("life {life} keeps its own {number}: {kept:?}"));
        if let Ok(Ok(())) = kept {
            self.own_last.kept = number;
        }
    }
}

/// Whether the last value of a host is the one that it published last, though masters and links have gone since.
pub(crate) fn judge_own(host: &str, life: Life, own: Own, kept: &Values) -> Option<String> {
    let there = kept.get(&format!("last/of-{host}"));
    let is_right = own.kept == 0
        || there.is_some_and(|(by, number)| *by == life && (own.kept..=own.published).contains(number));
    let Own { kept: least, published: most } = own;
    (!is_right)
        .then(|| format!("the last value of {host} is {there:?}, and not {least} to {most} of life {life}"))
}

/// The last values that a handler hears that comes now.
pub(crate) async fn fresh(node: &Node) -> Result<Values, CallError> {
    let values = Arc::default();
    // The values come before the answer.
    let subscription = node.subscribe(TOPICS, ear(&values)).await?;
    drop(subscription);
    let values = lock(&values).clone();
    Ok(values)
}

/// What a node does not agree on with its master: what a handler hears that comes, and what one has heard that was there before.
pub(crate) fn judge(host: &str, fresh: &Values, heard: &Values, kept: &Values) -> Vec<String> {
    let mut wrong = Vec::new();
    if fresh != kept {
        wrong.push(format!("{host}: a handler that comes hears {fresh:?}, and not {kept:?}"));
    }
    // Who has heard a value that was forgotten since is not told.
    for (topic, value) in kept {
        if heard.get(topic) != Some(value) {
            wrong.push(format!(
                "{host}: the last of {topic} that was heard is {:?}, and not {value:?}",
                heard.get(topic)
            ));
        }
    }
    wrong
}
