//! A map from callback ids, made for ids that rise and live for a short while. An entry stands in the slot of the last digits of its id,
//! so it is found without a hash, and neighbours in time are neighbours in memory. An entry whose slot is taken, by an entry that has
//! waited for long or by an attack, goes into an ordinary map beside the slots.

use crate::hashed::HashMap;
use meshwork_wire::CallbackId;

/// Entries by their ids.
pub(crate) struct Slots<W> {
    slots: Vec<Option<(CallbackId, W)>>,
    /// How many slots are taken.
    taken: usize,
    /// The entries whose slot was taken. Made when there is one: two tables of each idle link have none.
    others: Option<Box<HashMap<CallbackId, W>>>,
}

const SLOTS_MIN: usize = 16;

/// A table of more slots than this is given back when all its slots are free.
const SLOTS_IDLE_MAX: usize = 4096;

impl<W> Slots<W> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), taken: 0, others: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.taken + self.others.as_ref().map_or(0, |others| others.len())
    }

    /// Puts an entry in; gives back the entry that had its id already.
    pub(crate) fn insert(&mut self, id: CallbackId, entry: W) -> Option<W> {
        if let Some(other) = self.others.as_mut().and_then(|others| others.get_mut(&id)) {
            return Some(std::mem::replace(other, entry));
        }
        // Half of the slots stay free. Their number grows with the entries and not with the collisions, which an attacker can choose.
        if self.taken * 2 >= self.slots.len() {
            self.grow();
        }
        let index = self.index(id);
        match &mut self.slots[index] {
            slot @ None => {
                *slot = Some((id, entry));
                self.taken += 1;
                None
            }
            Some((taken, before)) if *taken == id => Some(std::mem::replace(before, entry)),
            Some(_) => self.others.get_or_insert_default().insert(id, entry),
        }
    }

    pub(crate) fn remove(&mut self, id: CallbackId) -> Option<W> {
        self.remove_if(id, |_| true)
    }

    /// Takes out the entry of this id if `is` holds for it.
    pub(crate) fn remove_if(&mut self, id: CallbackId, is: impl FnOnce(&W) -> bool) -> Option<W> {
        let index = self.index(id);
        if let Some(slot) = self.slots.get_mut(index)
            && let Some((_, entry)) = slot.as_ref().filter(|(taken, _)| *taken == id)
        {
            if !is(entry) {
                return None;
            }
            self.taken -= 1;
            let (_, entry) = slot.take()?;
            if self.taken == 0 && self.slots.len() > SLOTS_IDLE_MAX {
                self.slots = Vec::new();
            }
            return Some(entry);
        }
        let others = self.others.as_mut()?;
        if others.get(&id).is_some_and(is) { others.remove(&id) } else { None }
    }

    pub(crate) fn get(&self, id: CallbackId) -> Option<&W> {
        match self.slots.get(self.index(id)) {
            Some(Some((taken, entry))) if *taken == id => Some(entry),
            _ => self.others.as_ref()?.get(&id),
        }
    }

    pub(crate) fn get_mut(&mut self, id: CallbackId) -> Option<&mut W> {
        let index = self.index(id);
        match self.slots.get_mut(index) {
            Some(Some((taken, entry))) if *taken == id => Some(entry),
            _ => self.others.as_mut()?.get_mut(&id),
        }
    }

    pub(crate) fn contains(&self, id: CallbackId) -> bool {
        self.get(id).is_some()
    }

    /// The ids of all entries, in no order.
    #[cfg(test)]
    pub(crate) fn ids(&self) -> impl Iterator<Item = CallbackId> {
        self.slots
            .iter()
            .flatten()
            .map(|(id, _)| *id)
            .chain(self.others.iter().flat_map(|others| others.keys().copied()))
    }

    /// Takes out the entries for which `gone` holds.
    pub(crate) fn take_if(&mut self, mut gone: impl FnMut(&W) -> bool) -> Vec<(CallbackId, W)> {
        let mut taken = Vec::new();
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|(_, entry)| gone(entry)) {
                taken.extend(slot.take());
            }
        }
        self.taken -= taken.len();
        if let Some(others) = &mut self.others {
            taken.extend(others.extract_if(|_, entry| gone(entry)));
        }
        taken
    }

    /// Takes all entries out.
    pub(crate) fn take_all(&mut self) -> Vec<(CallbackId, W)> {
        let mut all: Vec<_> = std::mem::take(&mut self.slots).into_iter().flatten().collect();
        self.taken = 0;
        all.extend(self.others.take().into_iter().flat_map(|others| *others));
        all
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(SLOTS_MIN);
        let all = self.take_all();
        self.slots.resize_with(len, || None);
        for (id, entry) in all {
            let index = self.index(id);
            match &mut self.slots[index] {
                slot @ None => {
                    *slot = Some((id, entry));
                    self.taken += 1;
                }
                Some(_) => {
                    self.others.get_or_insert_default().insert(id, entry);
                }
            }
        }
    }

    /// The slot of an id: its last digits. With no slots at all it is past their end.
    fn index(&self, id: CallbackId) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the last digits are what is wanted")]
        let digits = id.0 as usize;
        digits & self.slots.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap as Plain;

    #[test]
    fn ids_that_all_want_one_slot_are_kept_and_make_no_room_for_themselves() {
        let mut slots = Slots::new();
        for number in 0..1_000 {
            assert_eq!(slots.insert(CallbackId(number << 32), number), None);
        }
        assert_eq!((slots.len(), slots.slots.len()), (1_000, SLOTS_MIN));
        for number in 0..1_000 {
            assert_eq!(slots.remove(CallbackId(number << 32)), Some(number));
        }
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn a_burst_gives_its_room_back() {
        let mut slots = Slots::new();
        for number in 0..65_536 {
            slots.insert(CallbackId(number), ());
        }
        for number in 0..65_536 {
            assert_eq!(slots.remove(CallbackId(number)), Some(()));
        }
        assert_eq!((slots.len(), slots.slots.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn slots_are_a_map(steps in proptest::collection::vec((0..6_u8, 0..40_u64, 0..4_u64), 0..200)) {
            let (mut slots, mut plain) = (Slots::new(), Plain::new());
            for (number, (step, low, high)) in steps.into_iter().enumerate() {
                // Many ids want one slot.
                let id = CallbackId(low + (high << 40));
                match step {
                    0..3 => prop_assert_eq!(slots.insert(id, number), plain.insert(id, number)),
                    3 => prop_assert_eq!(slots.remove(id), plain.remove(&id)),
                    4 => prop_assert_eq!(slots.get(id), plain.get(&id)),
                    _ => {
                        let even = slots.take_if(|number| number % 2 == 0).len();
                        let before = plain.len();
                        plain.retain(|_, number| *number % 2 == 1);
                        prop_assert_eq!(even, before - plain.len());
                    }
                }
                prop_assert_eq!(slots.len(), plain.len());
                prop_assert_eq!(slots.ids().collect::<std::collections::HashSet<_>>(), plain.keys().copied().collect());
            }
            prop_assert_eq!(slots.take_all().into_iter().collect::<Plain<_, _>>(), plain);
        }
    }
}
