//! The parts of descriptions that the registry has written, kept for the next who ask: many nodes ask for the same actions. Pure.

use super::catalogue::Part;
use super::route::Provider;
use super::table::Table;
use crate::hashed::HashMap;
use meshwork_wire::limits::DESCRIBED_KEPT_LEN_MAX;
use meshwork_wire::{ByteString, DescribedPart, Pattern};

/// The answer to a question for the next part.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Answer {
    /// The next actions, written; none at the end.
    Part(DescribedPart),
    /// No action was found up to this name: the question is to be asked again, behind it. So the registry takes other messages meanwhile.
    NoneUntil(ByteString),
}

impl From<Part> for Answer {
    fn from(part: Part) -> Self {
        match part {
            Part::Described(actions) => Answer::Part(DescribedPart::new(&actions)),
            Part::NoneUntil(last) => Answer::NoneUntil(last),
        }
    }
}

/// The parts that were written since the actions changed last.
#[derive(Default)]
pub(super) struct Described {
    /// The count of the changes that these are true at.
    changes: u64,
    parts: HashMap<(Pattern, ByteString), Answer>,
    /// How many bytes they take: at most [`DESCRIBED_KEPT_LEN_MAX`].
    len: usize,
}

/// About how many bytes a part takes beside its texts.
const ENTRY_LEN: usize = 256;

impl Described {
    /// The part of the actions that match a pattern and sort after a name.
    pub(super) fn answer<S: Provider>(
        &mut self,
        table: &Table<S>,
        pattern: Pattern,
        after: ByteString,
    ) -> Answer {
        if self.changes != table.changes() {
            *self = Self { changes: table.changes(), ..Self::default() };
        }
        let asked = (pattern, after);
        if let Some(answer) = self.parts.get(&asked) {
            return answer.clone();
        }
        let answer = Answer::from(table.describe(&asked.0, &asked.1, |_| true));
        let told = if let Answer::Part(part) = &answer { part.bytes().len() } else { 0 };
        let len = ENTRY_LEN + asked.0.as_str().len() + asked.1.len() + told;
        if len <= DESCRIBED_KEPT_LEN_MAX {
            if self.len + len > DESCRIBED_KEPT_LEN_MAX {
                (self.parts, self.len) = (HashMap::default(), 0);
            }
            self.len += len;
            self.parts.insert(asked, answer.clone());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::tests::Fake;
    use super::super::table::OnNameTaken;
    use super::*;
    use crate::master::in_all::InAll;
    use meshwork_wire::limits::{DESCRIBED_PART_MAX, OFFERED_LEN_MAX, SHAPE_LEN_MAX};
    use meshwork_wire::{Accepts, Offer, SessionId, Shape};

    fn offer(action: String) -> Offer {
        Offer { action: action.into(), accepts: Accepts::MessagePack, shape: None }
    }

    fn table(actions: usize) -> Table<Fake> {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        table
            .bind(
                SessionId(1),
                (&"a".into(), &ByteString::new()),
                Fake::new(1, "a"),
                OnNameTaken::Share,
                None,
            )
            .unwrap();
        table
            .offer(SessionId(1), (0..actions).map(|number| offer(format!("{number:06}"))).collect())
            .unwrap();
        table
    }

    fn ask(described: &mut Described, table: &Table<Fake>, after: &str) -> DescribedPart {
        match described.answer(table, Pattern::new("**").unwrap(), after.into()) {
            Answer::Part(part) => part,
            Answer::NoneUntil(last) => panic!("none until {last}"),
        }
    }

    /// 1,024 questions for all of 10,000 actions took 1.7 GB, each answer being written for itself.
    #[test]
    fn a_part_is_written_once_for_all_who_ask() {
        let (mut table, mut described) = (table(10_000), Described::default());
        let first = ask(&mut described, &table, "");
        assert_eq!(first.count(), DESCRIBED_PART_MAX);
        for _ in 0..1_024 {
            let again = ask(&mut described, &table, "");
            assert_eq!(again.bytes().as_ptr(), first.bytes().as_ptr());
        }
        table.offer(SessionId(1), vec![offer("0".to_owned())]).unwrap();
        let changed = ask(&mut described, &table, "");
        assert_eq!(changed.read().unwrap()[0].action, "0", "what has changed is told");
        table.leave(SessionId(1)).unwrap();
        assert_eq!(ask(&mut described, &table, "").count(), 0);
    }

    #[test]
    fn the_parts_that_are_kept_are_counted_in_bytes() {
        let (mut table, mut described) = (table(0), Described::default());
        let shape = Some(Shape { arguments: "x".repeat(SHAPE_LEN_MAX).into(), reply: ByteString::new() });
        let long = (0..10).map(|number| Offer { shape: shape.clone(), ..offer(number.to_string()) });
        table.offer(SessionId(1), long.collect()).unwrap();
        let len = ask(&mut described, &table, "").bytes().len();
        for number in 0..3 * DESCRIBED_KEPT_LEN_MAX / len {
            // Other questions, with the same answer.
            ask(&mut described, &table, &format!("/{number}"));
            let kept: usize = described
                .parts
                .values()
                .map(|answer| match answer {
                    Answer::Part(part) => part.bytes().len(),
                    Answer::NoneUntil(_) => 0,
                })
                .sum();
            assert!(kept <= described.len && described.len <= DESCRIBED_KEPT_LEN_MAX);
        }
    }
}
