//! What a run teaches the tracer: which values are refused, which part to try next, and what a sample shows.

use super::place::{At, Kind, ROOT};
use super::tree::{Because, Decision, Failure, Tree};

/// How many runs in a row may bring nothing new before the rest counts as hidden.
const IDLE_RUNS_MAX: usize = 256;

/// What a run teaches.
impl Tree {
    /// Ends a run in which the type was explored. Says whether another one may bring more.
    pub(super) fn learn_from_run(&mut self, taken: bool) -> bool {
        if !taken && let Some(Failure::Refused(at, from)) = self.failure {
            self.refuse_choices(at, from);
        }
        if self.learnt > self.learnt_before {
            self.idle_runs = 0;
            return true;
        }
        self.idle_runs += 1;
        for Decision { at, choice, why } in &self.decisions {
            if *why == Because::Explored {
                let idle = &mut self.places[*at].idle;
                if idle.len() <= *choice {
                    idle.resize(choice + 1, 0);
                }
                idle[*choice] += 1;
            }
        }
        self.idle_runs <= IDLE_RUNS_MAX
    }

    /// Makes up something else in a place that refused what was made up by the decisions from `from` on.
    fn refuse_choices(&mut self, at: At, from: usize) {
        let choice = self.decisions.iter().skip(from).rfind(|decision| decision.at == at);
        let choice = choice.map_or(0, |decision| decision.choice);
        let place = &mut self.places[at];
        if place.exhausted {
            return;
        }
        match &place.kind {
            Kind::Leaf(leaf) => {
                let refused = place.refused | 1 << choice;
                if refused == place.refused {
                    return;
                }
                place.refused = refused;
                place.exhausted = refused.count_ones() as usize >= leaf.values();
            }
            Kind::Again(_) | Kind::Unknown | Kind::Unread => return,
            // While a part is not known, each run tries another part.
            _ if !place.done => return,
            _ => match place.next_combination {
                Some(next) => place.combination = next,
                None => place.exhausted = true,
            },
        }
        self.learnt += 1;
    }

    /// The first place that is not known, in the order of the type; or the place before, if that refuses all values.
    pub(super) fn hidden(&self) -> At {
        let mut at = ROOT;
        loop {
            let place = &self.places[at];
            let hidden = |at: &&At| !self.is_done(**at);
            let next = match &place.kind {
                Kind::Option(part) | Kind::List(part) => Some(*part),
                Kind::Map(key, value) => [key, value].into_iter().find(hidden).copied(),
                Kind::Tuple(items) | Kind::Struct(items, _) => items.places.iter().find(hidden).copied(),
                Kind::Enum(variants, _) => {
                    variants.iter().filter_map(|variant| variant.content.as_ref()).find(hidden).copied()
                }
                _ => None,
            };
            match (next, &place.kind) {
                (Some(next), _) => at = next,
                (None, Kind::Tuple(items) | Kind::Struct(items, _)) => {
                    return items.places.last().copied().unwrap_or(at);
                }
                (None, _) => return at,
            }
        }
    }
}

/// Samples.
impl Tree {
    /// Begins to make samples. The shape is known.
    pub(super) fn begin_sampling(&mut self) {
        self.sampling = true;
        // A place stands behind the places around it.
        for at in (0..self.places.len()).rev() {
            let classes = self.places[at].kind.classes();
            let shown: Vec<_> = (0..classes).map(|class| !self.has_open(at, class)).collect();
            let place = &mut self.places[at];
            place.unshown += shown.iter().filter(|shown| !**shown).count();
            place.shown = shown;
            let (parent, unshown) = (place.parent, place.unshown);
            if at != ROOT {
                self.places[parent].unshown += unshown;
            }
        }
    }

    /// Whether the samples lack something.
    pub(super) fn lacks_samples(&self) -> bool {
        self.places[ROOT].unshown > 0
    }

    /// Notes which classes of choices no sample can show.
    fn show_impossible(&mut self, at: At) {
        for class in 0..self.places[at].shown.len() {
            if !self.has_open(at, class) {
                self.show(at, class);
            }
        }
    }

    /// Ends a run that made a sample. Says whether it shows something new.
    pub(super) fn sampled(&mut self) -> bool {
        let decisions = std::mem::take(&mut self.decisions);
        let mut new = false;
        for Decision { at, choice, why } in &decisions {
            new |= *why == Because::Shown;
            if *why == Because::Least || self.places[*at].shown.is_empty() {
                continue;
            }
            let class = self.places[*at].kind.class(*choice);
            new |= !self.places[*at].shown[class];
            self.show(*at, class);
        }
        new
    }

    /// Ends a run whose sample the type refused. Says whether another one may be taken.
    pub(super) fn not_sampled(&mut self) -> bool {
        let mut decisions = std::mem::take(&mut self.decisions);
        let shown = |decision: &&Decision| decision.why == Because::Shown;
        for Decision { at, choice, .. } in decisions.iter().filter(shown) {
            let class = self.places[*at].kind.class(*choice);
            self.places[*at].shown[class] = false;
            self.count(*at, |unshown| *unshown += 1);
        }
        let from = match self.failure {
            Some(Failure::Refused(at, from)) => {
                // Another value of a leaf that refuses one may do.
                if matches!(self.places[at].kind, Kind::Leaf(_)) {
                    let learnt = self.learnt;
                    self.decisions = decisions;
                    self.refuse_choices(at, from);
                    self.show_impossible(at);
                    if self.learnt > learnt {
                        return true;
                    }
                    decisions = std::mem::take(&mut self.decisions);
                }
                from.min(decisions.len())
            }
            _ => 0,
        };
        let unfit = decisions[from..].iter().rfind(shown).or_else(|| decisions.iter().rfind(shown));
        let Some(&Decision { at, choice, .. }) = unfit else { return false };
        let place = &self.places[at];
        let class = place.kind.class(choice);
        let parts = match &place.kind {
            Kind::Option(part) | Kind::List(part) if class == 1 => [Some(*part), None],
            Kind::Map(key, value) if class == 1 => [Some(*key), Some(*value)],
            Kind::Enum(variants, _) => [variants[choice].content, None],
            _ => [None, None],
        };
        self.show(at, class);
        for part in parts.into_iter().flatten().filter(|part| !self.places[*part].sealed).collect::<Vec<_>>()
        {
            let unshown = std::mem::take(&mut self.places[part].unshown);
            self.places[part].sealed = true;
            let around = self.places[part].parent;
            self.count(around, |left| *left -= unshown);
        }
        true
    }
}
