//! The places of a type, as far as the tracer knows them, and every decision of the tracer: which value it makes up at a place, which
//! part it explores next, and what it learns from a refusal. The type is read in `reader.rs`.
//!
//! Each run reads the type once, from its root. At a place with a part that is not known, the run makes up a value with that part, such as
//! a variant; elsewhere it makes up an empty value or zero. A value that the type refuses is not made up there again: another one is, or
//! another combination where a struct refuses several together. Where a type holds itself, the least value that was taken so far
//! stands in; as long as there is none, the run fails, and the next one chooses another part.

use super::candidates::{LIST_CHOICES, Leaf, MAP_CHOICES, list_len, map_len};
use super::combination::Combination;
use super::refused::{Obstacle, Refused};
use crate::limits::{TRACE_DEPTH_MAX, TRACE_STEPS_MAX};

/// The index of a place.
pub(super) type At = usize;

/// How many runs in a row may bring nothing new before the rest counts as hidden.
const IDLE_RUNS_MAX: usize = 256;

pub(super) const ROOT: At = 0;

#[derive(Default)]
pub(super) struct Tree {
    places: Vec<Place>,
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
    decisions: Vec<Decision>,
    failure: Option<Failure>,
    /// The last refusal in the words of the type.
    pub(super) refusal: String,
    stopped: Option<(At, Obstacle)>,
    /// How often something was learnt.
    learnt: usize,
    learnt_before: usize,
    idle_runs: usize,
    steps: usize,
    /// The place that was entered last.
    pub(super) last: At,
}

struct Place {
    parent: At,
    step: Step,
    kind: Kind,
    /// The visitor by which a place knows that it holds itself; none has a state.
    visitor: Option<Known>,
    /// Whether the shape of the place and of all within is known.
    done: bool,
    /// The height of the least value that was taken, and what was chosen at this place for it.
    least: Option<(usize, usize)>,
    /// All variants before this one are known.
    known: usize,
    /// Where the choices of an enum begin, once it is known.
    first: Option<usize>,
    /// The choices that a leaf refused, one bit each.
    refused: u64,
    /// The number of the combination of choices within the place; the earlier ones were refused.
    combination: usize,
    /// Whether all combinations were refused.
    exhausted: bool,
    /// The number of the next combination, if there is one.
    next_combination: Option<usize>,
    /// By choice, how many runs brought nothing new.
    idle: Vec<u16>,
    /// By class of choices, whether the samples need it no more.
    shown: Vec<bool>,
    /// How many classes are not shown here and within.
    unshown: usize,
    /// Whether the samples never come here.
    sealed: bool,
}

/// A type is known again by the name of its visitor and by the length of its values: two types may have one name, but one of them
/// that holds the other in itself is longer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) visitor: &'static str,
    pub(super) len: usize,
}

#[derive(Clone, Copy)]
enum Step {
    Root,
    Some,
    Element,
    Key,
    Value,
    Item(usize),
    Field(&'static str),
    Variant(&'static str),
}

pub(super) enum Kind {
    Unknown,
    /// A value that the type took without a look at it.
    Unread,
    Leaf(Leaf),
    Function,
    Option(At),
    List(At),
    Map(At, At),
    Tuple(Items),
    Struct(Items, Fields),
    Enum(Vec<Variant>, &'static [&'static str]),
    /// The place is one of its own ancestors.
    Again(At),
}

/// The elements of a tuple or the fields of a struct.
pub(super) struct Items {
    len_max: usize,
    pub(super) places: Vec<At>,
    /// Whether the type is known to read no more of them.
    settled: bool,
}

/// The names of the fields: more than there are fields, if a field has aliases.
pub(super) struct Fields {
    pub(super) names: &'static [&'static str],
    /// The names without the aliases; empty until they are known.
    pub(super) own: Vec<&'static str>,
    /// Where the names of the field begin that is looked at, its own name if it has told it, and the next name.
    begin: usize,
    current: Option<&'static str>,
    next: usize,
    known: bool,
}

pub(super) struct Variant {
    pub(super) form: Form,
    /// The place of the content.
    pub(super) content: Option<At>,
}

/// The content that a type reads for a variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Unknown,
    /// The variant was taken, and its content not looked at.
    Unread,
    /// The variant has a number, and is always refused.
    Refused,
    Unit,
    Newtype,
    Tuple,
    Struct,
}

/// What a type asks for at a place.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    Leaf(Leaf),
    Function,
    Option,
    List,
    Map,
    Tuple(usize),
    Struct(&'static [&'static str]),
    Enum(&'static [&'static str]),
}

struct Decision {
    at: At,
    choice: usize,
    why: Because,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Because {
    /// It leads to a part that is not known, or past it.
    Explored,
    /// The samples need it.
    Shown,
    Usual,
    /// It stands in the least value of a place that is one of its own ancestors.
    Least,
}

#[derive(Clone, Copy)]
enum Failure {
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
        self.places.push(Place {
            parent,
            step,
            kind: Kind::Unknown,
            visitor: None,
            done: false,
            least: None,
            known: 0,
            first: None,
            refused: 0,
            combination: 0,
            exhausted: false,
            next_combination: Some(1),
            idle: Vec::new(),
            shown: Vec::new(),
            unshown: 0,
            sealed: false,
        });
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
            self.refusal.truncate(crate::error::cut_len(&self.refusal));
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

impl Place {
    fn idle(&self, choice: usize) -> u16 {
        self.idle.get(choice).copied().unwrap_or(0)
    }
}

impl Kind {
    fn is(&self, asked: Asked) -> bool {
        match (self, asked) {
            (Kind::Leaf(leaf), Asked::Leaf(asked)) => *leaf == asked,
            (Kind::Function, Asked::Function)
            | (Kind::Option(_), Asked::Option)
            | (Kind::List(_), Asked::List)
            | (Kind::Map(..), Asked::Map) => true,
            (Kind::Tuple(items), Asked::Tuple(len)) => items.len_max == len,
            (Kind::Struct(_, fields), Asked::Struct(names)) => fields.names == names,
            (Kind::Enum(_, names), Asked::Enum(asked)) => *names == asked,
            _ => false,
        }
    }

    /// How many choices there are at the place.
    fn choices(&self) -> usize {
        match self {
            Kind::Leaf(leaf) => leaf.values(),
            Kind::Option(_) => 2,
            Kind::List(_) => LIST_CHOICES,
            Kind::Map(..) => MAP_CHOICES,
            // Without a name, the tracer asks whether there is a variant after all.
            Kind::Enum(variants, _) => variants.len().max(1),
            _ => 1,
        }
    }

    /// The class of a choice: the samples show one choice of each class.
    fn class(&self, choice: usize) -> usize {
        match self {
            Kind::Leaf(_) | Kind::List(_) | Kind::Map(..) => usize::from(choice > 0),
            _ => choice,
        }
    }

    fn classes(&self) -> usize {
        match self {
            Kind::Leaf(Leaf::Unit) => 0,
            Kind::Leaf(_) | Kind::Option(_) | Kind::List(_) | Kind::Map(..) => 2,
            Kind::Enum(variants, _) => variants.len(),
            _ => 0,
        }
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

    fn is_open(&self, at: At, choice: usize) -> bool {
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

    /// Whether a choice of the class may still be taken.
    fn has_open(&self, at: At, class: usize) -> bool {
        let kind = &self.places[at].kind;
        match kind {
            Kind::Enum(..) => self.is_open(at, class),
            _ => (0..kind.choices()).any(|choice| kind.class(choice) == class && self.is_open(at, choice)),
        }
    }

    /// Whether the samples lack something.
    pub(super) fn lacks_samples(&self) -> bool {
        self.places[ROOT].unshown > 0
    }

    /// Notes that a sample shows the class, or that none can.
    fn show(&mut self, at: At, class: usize) {
        if !std::mem::replace(&mut self.places[at].shown[class], true) {
            self.count(at, |unshown| *unshown -= 1);
        }
    }

    /// Notes which classes of choices no sample can show.
    fn show_impossible(&mut self, at: At) {
        for class in 0..self.places[at].shown.len() {
            if !self.has_open(at, class) {
                self.show(at, class);
            }
        }
    }

    fn count(&mut self, mut at: At, count: impl Fn(&mut usize)) {
        while !self.places[at].sealed {
            count(&mut self.places[at].unshown);
            if at == ROOT {
                break;
            }
            at = self.places[at].parent;
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
