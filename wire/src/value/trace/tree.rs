//! The places of a type, as far as the tracer knows them, and each decision while the type is read: which value is made up at a place, and
//! which part is explored. What a run has taught when it is over is in `lessons.rs`; the type is read in `reader.rs`.
//!
//! Each run reads the type once, from its root. At a place with a part that is not known, the run makes up a value with that part, such as
//! a variant; elsewhere it makes up an empty value or zero. A value that the type refuses is not made up there again: another one is, or
//! another combination where a struct refuses several together. Where a type holds itself, the least value that was taken so far
//! stands in; as long as there is none, the run fails, and the next one chooses another part.

use super::candidates::{list_len, map_len};
use super::combination::Combination;
use super::place::{Asked, At, Fields, Form, Items, Kind, Known, Place, ROOT, Step, Variant};
use super::refused::{Obstacle, Refused};
use crate::limits::{TRACE_DEPTH_MAX, TRACE_STEPS_MAX};

#[derive(Default)]
pub(super) struct Tree {
    pub(super) places: Vec<Place>,
    /// Whether the shape is known and samples are made.
    pub(super) sampling: bool,
    /// How many levels the run is in.
    levels: usize,
    /// Within how many places the run is that hold their own ancestors. There, the least value is made up.
    least: usize,
    /// The combination of choices that is being tried.
    combination: Combination,
    /// The height of the highest value that was made within the current place.
    height: usize,
    pub(super) decisions: Vec<Decision>,
    pub(super) failure: Option<Failure>,
    /// The last refusal in the words of the type.
    pub(super) refusal: String,
    stopped: Option<(At, Obstacle)>,
    /// How often something was learnt.
    pub(super) learnt: usize,
    pub(super) learnt_before: usize,
    pub(super) idle_runs: usize,
    steps: usize,
    /// The place that was entered last.
    pub(super) last: At,
}

pub(super) struct Decision {
    pub(super) at: At,
    pub(super) choice: usize,
    pub(super) why: Because,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    /// It leads to a part that is not known, or past it.
    Explored,
    /// The samples need it.
    Shown,
    Usual,
    /// It stands in the least value of a place that is one of its own ancestors.
    Least,
}

#[derive(Clone, Copy)]
pub(super) enum Failure {
    /// The place refused what was made up within; its decisions begin at this one.
    Refused(At, usize),
    /// No value is known for a place that needs one.
    NoValue,
}

/// A place that is being read.
pub(super) struct Entered {
    /// The place itself, also if it is one of its own ancestors.
    pub(super) at: At,
    /// The number of the value, the count, the part or the variant that is made up.
    pub(super) choice: usize,
    decisions: usize,
    height: usize,
    /// The combination of the place around, if this place has one of its own.
    combination_around: Option<Combination>,
    again: bool,
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree = Self::default();
        tree.add(ROOT, Step::Root);
        tree
    }

    fn add(&mut self, parent: At, step: Step) -> At {
        self.places.push(Place::new(parent, step));
        self.places.len() - 1
    }

    pub(super) fn kind(&self, at: At) -> &Kind {
        &self.places[at].kind
    }

    pub(super) fn is_done(&self, at: At) -> bool {
        self.places[at].done
    }

    /// How many levels `at` is below `ancestor`.
    pub(super) fn distance(&self, mut at: At, ancestor: At) -> usize {
        let mut distance = 0;
        while at != ancestor && at != ROOT {
            at = self.places[at].parent;
            distance += 1;
        }
        distance
    }

    /// The place, in words.
    pub(super) fn text(&self, mut at: At) -> String {
        let mut steps = Vec::new();
        while at != ROOT {
            steps.push(self.places[at].step);
            at = self.places[at].parent;
        }
        let mut text = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Root | Step::Some => {}
                Step::Element => text.push_str("[]"),
                Step::Key => text.push_str("[key]"),
                Step::Value => text.push_str("[value]"),
                Step::Item(index) => text.push_str(&format!(".{index}")),
                Step::Field(name) => text.push_str(&format!(".{name}")),
                Step::Variant(name) => text.push_str(&format!("::{name}")),
            }
        }
        text
    }

    /// Begins a run.
    pub(super) fn begin(&mut self) {
        self.levels = 0;
        self.least = 0;
        self.combination = Combination::default();
        self.height = 0;
        self.decisions.clear();
        self.failure = None;
        self.learnt_before = self.learnt;
    }

    /// What ended the trace, and where.
    pub(super) fn stopped(&mut self) -> Option<(At, Obstacle)> {
        self.stopped.take()
    }

    /// Ends the whole trace.
    #[cold]
    pub(super) fn stop(&mut self, at: At, why: Obstacle) -> Refused {
        self.stopped.get_or_insert((at, why));
        Refused::default()
    }

    /// Whether a run goes on and on, so that only a panic can end it.
    pub(super) fn runs_away(&mut self) -> bool {
        self.steps += 1;
        self.steps > 3 * TRACE_STEPS_MAX
    }

    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// Goes one level deeper.
    pub(super) fn deeper(&mut self, at: At) -> Result<(), Refused> {
        self.last = at;
        self.steps += 1;
        if self.stopped.is_some() {
            return Err(Refused::default());
        }
        if self.levels >= TRACE_DEPTH_MAX {
            if self.least > 0 {
                return Err(self.no_value());
            }
            return Err(self.stop(at, Obstacle::TooDeep));
        }
        if self.steps > TRACE_STEPS_MAX {
            return Err(self.stop(ROOT, Obstacle::TooLarge));
        }
        self.levels += 1;
        Ok(())
    }

    /// Comes back from [`Tree::deeper`].
    pub(super) fn back(&mut self) {
        self.levels -= 1;
    }

    /// Begins to read a place, for which the type asks with this visitor.
    pub(super) fn enter(&mut self, at: At, asked: Asked, visitor: Option<Known>) -> Result<Entered, Refused> {
        self.deeper(at)?;
        let entered = self.enter_deeper(at, asked, visitor);
        if entered.is_err() {
            self.back();
        }
        entered
    }

    fn enter_deeper(&mut self, mut at: At, asked: Asked, visitor: Option<Known>) -> Result<Entered, Refused> {
        if matches!(self.places[at].kind, Kind::Unknown) {
            self.learnt += 1;
            match self.ancestor_like(at, asked, visitor) {
                Some(ancestor) => {
                    self.places[at].kind = Kind::Again(ancestor);
                    self.places[at].done = true;
                }
                None => self.learn(at, asked, visitor),
            }
        }
        let again = if let Kind::Again(ancestor) = self.places[at].kind {
            at = ancestor;
            true
        } else {
            false
        };
        if !self.places[at].kind.is(asked) {
            return Err(self.stop(at, Obstacle::Varies));
        }
        if self.places[at].exhausted && self.places[at].done {
            return Err(self.no_value());
        }
        let own = self.places[at].combination;
        let combination_around =
            (own > 0).then(|| std::mem::replace(&mut self.combination, Combination::new(own)));
        self.least += usize::from(again);
        let decisions = self.decisions.len();
        match self.choose(at) {
            Some(choice) => {
                let height = std::mem::take(&mut self.height);
                Ok(Entered { at, choice, decisions, height, combination_around, again })
            }
            None => {
                self.least -= usize::from(again);
                if let Some(around) = combination_around {
                    self.combination = around;
                }
                Err(self.no_value())
            }
        }
    }

    /// An ancestor that is read by the same visitor in the same way: the type holds itself. A visitor with a state may read differently
    /// each time.
    fn ancestor_like(&self, at: At, asked: Asked, visitor: Option<Known>) -> Option<At> {
        if visitor.is_none() || matches!(asked, Asked::Leaf(_) | Asked::Function) {
            return None;
        }
        let mut at = at;
        while at != ROOT {
            at = self.places[at].parent;
            let place = &self.places[at];
            if place.visitor == visitor && place.kind.is(asked) {
                return Some(at);
            }
        }
        None
    }

    fn learn(&mut self, at: At, asked: Asked, visitor: Option<Known>) {
        let items = |len_max| Items { len_max, places: Vec::new(), settled: len_max == 0 };
        let kind = match asked {
            Asked::Leaf(leaf) => Kind::Leaf(leaf),
            Asked::Function => Kind::Function,
            Asked::Option => Kind::Option(self.add(at, Step::Some)),
            Asked::List => Kind::List(self.add(at, Step::Element)),
            Asked::Map => {
                let key = self.add(at, Step::Key);
                Kind::Map(key, self.add(at, Step::Value))
            }
            Asked::Tuple(len) => Kind::Tuple(items(len)),
            Asked::Struct(names) => {
                let fields =
                    Fields { names, own: Vec::new(), begin: 0, current: None, next: 1, known: false };
                Kind::Struct(items(names.len()), fields)
            }
            Asked::Enum(names) => {
                let unknown = |_: &_| Variant { form: Form::Unknown, content: None };
                Kind::Enum(names.iter().map(unknown).collect(), names)
            }
        };
        let place = &mut self.places[at];
        place.kind = kind;
        place.visitor = visitor;
        self.settle(at);
    }

    /// Ends to read a place.
    pub(super) fn leave(&mut self, entered: Entered, refused: Option<&Refused>) {
        let Entered { at, choice, decisions, height, combination_around, again } = entered;
        if let Some(refused) = refused {
            self.refuse(at, decisions, refused);
        }
        self.back();
        self.least -= usize::from(again);
        if let Some(around) = combination_around {
            self.places[at].next_combination = self.combination.next();
            self.combination = around;
        }
        let own = self.height + 1;
        self.height = height;
        if refused.is_none() {
            let place = &mut self.places[at];
            if place.least.is_none_or(|(least, _)| own < least) {
                place.least = Some((own, choice));
            }
            self.height = height.max(own);
        }
        if !self.places[at].done {
            self.settle(at);
        }
    }

    /// Notes that a place refused what was made up within it, unless a place within refused it before.
    pub(super) fn refuse(&mut self, at: At, decisions: usize, refused: &Refused) {
        if self.failure.is_none() {
            self.failure = Some(Failure::Refused(at, decisions));
            self.refusal.clone_from(&refused.reason);
            self.refusal.truncate(crate::error::cut_at(&self.refusal, crate::limits::REASON_LEN_MAX));
        }
    }

    /// The number of the next decision.
    pub(super) fn decisions(&self) -> usize {
        self.decisions.len()
    }

    pub(super) fn no_value(&mut self) -> Refused {
        self.failure.get_or_insert(Failure::NoValue);
        Refused::default()
    }

    /// Looks whether all within a place is known.
    fn settle(&mut self, at: At) {
        let done = match &self.places[at].kind {
            Kind::Unknown => false,
            Kind::Unread | Kind::Leaf(_) | Kind::Function | Kind::Again(_) => true,
            Kind::Option(within) | Kind::List(within) => self.is_done(*within),
            Kind::Map(key, value) => self.is_done(*key) && self.is_done(*value),
            Kind::Tuple(items) => self.is_settled(items),
            Kind::Struct(items, fields) => {
                self.is_settled(items) && (fields.names.len() == items.places.len() || fields.known)
            }
            Kind::Enum(variants, _) => {
                let more =
                    variants[self.places[at].known..].iter().take_while(|variant| self.is_known(variant));
                let known = self.places[at].known + more.count();
                let done = known == variants.len();
                self.places[at].known = known;
                done
            }
        };
        if done {
            self.learnt += 1;
            self.places[at].done = true;
        }
    }

    fn is_settled(&self, items: &Items) -> bool {
        items.settled && items.places.iter().all(|at| self.is_done(*at))
    }

    fn is_known(&self, variant: &Variant) -> bool {
        variant.form != Form::Unknown && variant.content.is_none_or(|at| self.is_done(at))
    }
}

/// Choices.
impl Tree {
    fn choose(&mut self, at: At) -> Option<usize> {
        let kind = &self.places[at].kind;
        let choices = kind.choices();
        if choices == 1 && !matches!(kind, Kind::Enum(..)) {
            return Some(0);
        }
        let (choice, why) = if self.least > 0 {
            self.usual(at)?
        } else if self.sampling {
            // The decisions behind take their choices of the combination, whatever is chosen here.
            let usual = self.usual(at);
            self.unshown(at, usual.map_or(0, |(choice, _)| choice)).or(usual)?
        } else {
            match self.unexplored(at) {
                Some(choice) => (choice, Because::Explored),
                None => self.usual(at)?,
            }
        };
        if why == Because::Shown {
            let class = self.places[at].kind.class(choice);
            self.show(at, class);
        }
        self.decisions.push(Decision { at, choice, why });
        Some(choice)
    }

    pub(super) fn is_open(&self, at: At, choice: usize) -> bool {
        let place = &self.places[at];
        match &place.kind {
            Kind::Leaf(_) => place.refused & (1 << choice) == 0,
            Kind::Enum(variants, _) => {
                variants.get(choice).is_none_or(|variant| variant.form != Form::Refused)
            }
            _ => true,
        }
    }

    /// A choice that leads to a value; or, where a place refuses combinations of choices, the choice that the next combination has here.
    fn usual(&mut self, at: At) -> Option<(usize, Because)> {
        let place = &self.places[at];
        let choices = place.kind.choices();
        let is_open = |choice: &usize| self.is_open(at, *choice);
        let open = (0..choices).filter(is_open).count();
        let (first, why) = match (&place.kind, place.least) {
            // The place is needed for a value of its own, and none is known.
            (Kind::Enum(..), None) if self.least > 0 => return None,
            (Kind::Enum(..), None) => {
                ((0..choices).filter(is_open).min_by_key(|choice| place.idle(*choice))?, Because::Explored)
            }
            (Kind::Enum(..), Some((_, choice))) if self.least > 0 => (choice, Because::Least),
            // The first choice stays what it is, or the number of the combination would stand for another one.
            (Kind::Enum(..), Some((_, choice))) => (place.first.unwrap_or(choice), Because::Usual),
            _ => (0, if self.least > 0 { Because::Least } else { Because::Usual }),
        };
        let mut combination = self.combination;
        let skip = combination.choice(open)?;
        let choice = (0..choices).map(|choice| (first + choice) % choices).filter(is_open).nth(skip)?;
        self.combination = combination;
        let place = &self.places[at];
        if place.done && place.least.is_some() {
            self.places[at].first.get_or_insert(first);
        }
        Some((choice, why))
    }

    /// The choice that leads to a part that is not known; or past it, if runs through that part brought nothing new.
    fn unexplored(&self, at: At) -> Option<usize> {
        let place = &self.places[at];
        if place.done {
            return None;
        }
        let known = place.least.map(|(_, choice)| choice);
        match &place.kind {
            Kind::Leaf(_) => None,
            Kind::Enum(variants, _) => {
                let unknown =
                    || (place.known..variants.len()).filter(|choice| !self.is_known(&variants[*choice]));
                let next = unknown().find(|choice| place.idle(*choice) == 0);
                next.or_else(|| unknown().chain(known).min_by_key(|choice| place.idle(*choice)))
            }
            _ => [1, 0].into_iter().min_by_key(|choice| place.idle(*choice)),
        }
    }

    /// The choice that the samples lack, or that leads to a part that they lack.
    fn unshown(&self, at: At, usual: usize) -> Option<(usize, Because)> {
        let place = &self.places[at];
        if place.unshown == 0 || place.sealed {
            return None;
        }
        let because = |lacks| if lacks { Because::Shown } else { Because::Usual };
        let lacks = |choice: usize| !place.shown[place.kind.class(choice)];
        let within = |at: At| self.places[at].unshown > 0 && !self.places[at].sealed;
        match &place.kind {
            Kind::Leaf(leaf) => (0..leaf.values())
                .find(|choice| lacks(*choice) && self.is_open(at, *choice))
                .map(|choice| (choice, Because::Shown)),
            Kind::Option(part) => match (lacks(0), lacks(1)) {
                (true, _) => Some((0, Because::Shown)),
                (false, true) => Some((1, Because::Shown)),
                (false, false) => within(*part).then_some((1, Because::Usual)),
            },
            Kind::List(_) | Kind::Map(..) => match (lacks(0), lacks(1)) {
                (true, _) => Some((0, Because::Shown)),
                (false, lacks) => {
                    let within = match &place.kind {
                        Kind::Map(key, value) => within(*key) || within(*value),
                        _ => within(self.part(at)),
                    };
                    // A type that takes a list of three only was found to do so. Two entries of a map could have one key.
                    let some = match &place.kind {
                        _ if usual > 0 => usual,
                        Kind::Map(..) => 1,
                        _ => 2,
                    };
                    (lacks || within).then_some((some, because(lacks)))
                }
            },
            Kind::Enum(variants, _) => variants.iter().enumerate().find_map(|(choice, variant)| {
                let lacks = lacks(choice);
                (lacks || variant.content.is_some_and(within)).then_some((choice, because(lacks)))
            }),
            _ => None,
        }
    }
}

/// Parts of places, while the type reads them.
impl Tree {
    /// How many elements or entries are made up.
    pub(super) fn len(&self, entered: &Entered) -> usize {
        match &self.places[entered.at].kind {
            Kind::List(_) => list_len(entered.choice).unwrap_or(0),
            Kind::Map(..) => map_len(entered.choice).unwrap_or(0),
            Kind::Tuple(items) | Kind::Struct(items, _) => items.len_max,
            _ => 0,
        }
    }

    /// The place of an element, an entry's key or a `Some`'s value.
    pub(super) fn part(&self, at: At) -> At {
        match self.places[at].kind {
            Kind::Option(part) | Kind::List(part) | Kind::Map(part, _) => part,
            _ => at,
        }
    }

    /// The place of an entry's value.
    pub(super) fn value(&self, at: At) -> At {
        if let Kind::Map(_, value) = self.places[at].kind { value } else { at }
    }

    /// The place of an element of a tuple, or of a field; none if there are too many.
    pub(super) fn item(&mut self, at: At, index: usize) -> Result<At, Refused> {
        let (items, name) = match &self.places[at].kind {
            Kind::Tuple(items) => (items, None),
            Kind::Struct(items, fields) => (items, fields.names.get(index)),
            _ => return Err(self.stop(at, Obstacle::Varies)),
        };
        if let Some(part) = items.places.get(index) {
            return Ok(*part);
        }
        if items.settled {
            return Err(self.stop(at, Obstacle::Varies));
        }
        let part = self.add(at, name.map_or(Step::Item(index), |name| Step::Field(name)));
        if let Kind::Tuple(items) | Kind::Struct(items, _) = &mut self.places[at].kind {
            items.places.push(part);
        }
        Ok(part)
    }

    /// Notes how many elements of a tuple, or fields, were asked for in a run that went through or was refused.
    pub(super) fn asked_items(&mut self, at: At, asked: usize, taken: bool) {
        let (Kind::Tuple(items) | Kind::Struct(items, _)) = &mut self.places[at].kind else { return };
        if taken && !items.settled || items.places.len() == items.len_max {
            items.settled = true;
        }
        if taken && asked != items.places.len() {
            self.stop(at, Obstacle::Varies);
        }
    }

    /// Notes that a type took a list, a map or an option without a look at what is in it.
    pub(super) fn unread(&mut self, at: At) {
        let parts = match self.places[at].kind {
            Kind::Option(part) | Kind::List(part) => [Some(part), None],
            Kind::Map(key, value) => [Some(key), Some(value)],
            _ => return,
        };
        for part in parts.into_iter().flatten() {
            let part = &mut self.places[part];
            if matches!(part.kind, Kind::Unknown) {
                part.kind = Kind::Unread;
                part.done = true;
                self.learnt += 1;
            }
        }
    }

    /// The place of the content of a variant of this form.
    pub(super) fn content(&mut self, at: At, choice: usize, form: Form) -> Result<At, Refused> {
        let Kind::Enum(variants, names) = &self.places[at].kind else {
            return Err(self.stop(at, Obstacle::Varies));
        };
        let (known, content, name) = match (variants.get(choice), names.get(choice)) {
            (Some(variant), Some(name)) => (variant.form, variant.content, *name),
            _ => return Err(self.stop(at, Obstacle::Variants)),
        };
        if known == form {
            return Ok(content.unwrap_or(at));
        }
        if known != Form::Unknown {
            return Err(self.stop(at, Obstacle::Varies));
        }
        self.learnt += 1;
        let has_content = matches!(form, Form::Newtype | Form::Tuple | Form::Struct);
        let content = has_content.then(|| self.add(at, Step::Variant(name)));
        if let Kind::Enum(variants, _) = &mut self.places[at].kind {
            variants[choice] = Variant { form, content };
        }
        Ok(content.unwrap_or(at))
    }

    /// Notes that a variant was taken or refused before its content was asked for.
    pub(super) fn without_content(&mut self, at: At, choice: usize, taken: bool) {
        if let Kind::Enum(variants, _) = &mut self.places[at].kind
            && let Some(variant) = variants.get_mut(choice)
            && variant.form == Form::Unknown
        {
            variant.form = if taken { Form::Unread } else { Form::Refused };
            self.learnt += 1;
        }
    }
}

/// The fields' own names, where some have aliases.
impl Tree {
    /// For a struct with more names than fields: two names, and the place of the field with the first one. If the second is an alias
    /// of the first, the type says that one field was given twice, and tells the field's own name.
    pub(super) fn aliases(&mut self, at: At) -> Result<Option<([&'static str; 2], At)>, Refused> {
        let place = &self.places[at];
        let Kind::Struct(items, fields) = &place.kind else { return Ok(None) };
        if place.done || self.least > 0 || items.places.len() == items.len_max || !self.is_settled(items) {
            return Ok(None);
        }
        let names = (fields.names.get(fields.begin), fields.names.get(fields.next));
        match (items.places.get(fields.own.len()), names) {
            (Some(field), (Some(first), Some(second))) => Ok(Some(([first, second], *field))),
            _ => Err(self.stop(at, Obstacle::Fields)),
        }
    }

    /// Notes that the second of the two names is an alias of the field with this name, or of no field before.
    pub(super) fn alias(&mut self, at: At, of: Option<&'static str>) {
        self.learnt += 1;
        let Kind::Struct(items, fields) = &mut self.places[at].kind else { return };
        match of {
            Some(own) => fields.current = Some(own),
            None => {
                fields.own.push(fields.current.take().unwrap_or(fields.names[fields.begin]));
                fields.begin = fields.next;
            }
        }
        fields.next += 1;
        if fields.next == fields.names.len() {
            fields.own.push(fields.current.take().unwrap_or(fields.names[fields.begin]));
            fields.known = fields.own.len() == items.places.len();
            if !fields.known {
                self.stop(at, Obstacle::Fields);
            }
        }
    }
}

/// What the samples show.
impl Tree {
    /// Whether a choice of the class may still be taken.
    pub(super) fn has_open(&self, at: At, class: usize) -> bool {
        let kind = &self.places[at].kind;
        match kind {
            Kind::Enum(..) => self.is_open(at, class),
            _ => (0..kind.choices()).any(|choice| kind.class(choice) == class && self.is_open(at, choice)),
        }
    }

    /// Notes that a sample shows the class, or that none can.
    pub(super) fn show(&mut self, at: At, class: usize) {
        if !std::mem::replace(&mut self.places[at].shown[class], true) {
            self.count(at, |unshown| *unshown -= 1);
        }
    }

    pub(super) fn count(&mut self, mut at: At, count: impl Fn(&mut usize)) {
        while !self.places[at].sealed {
            count(&mut self.places[at].unshown);
            if at == ROOT {
                break;
            }
            at = self.places[at].parent;
        }
    }
}
