//! A place of a type, and all that the tracer knows of it.

use super::candidates::{LIST_CHOICES, Leaf, MAP_CHOICES};

/// The index of a place.
pub(super) type At = usize;

pub(super) const ROOT: At = 0;

/// A place of a type: the type itself, a field, an element, the content of a variant.
pub(super) struct Place {
    pub(super) parent: At,
    pub(super) step: Step,
    pub(super) kind: Kind,
    /// The visitor by which a place knows that it holds itself; none has a state.
    pub(super) visitor: Option<Known>,
    /// Whether the shape of the place and of all within is known.
    pub(super) done: bool,
    /// The height of the least value that was taken, and what was chosen at this place for it.
    pub(super) least: Option<(usize, usize)>,
    /// All variants before this one are known.
    pub(super) known: usize,
    /// Where the choices of an enum begin, once it is known.
    pub(super) first: Option<usize>,
    /// The choices that a leaf refused, one bit each.
    pub(super) refused: u64,
    /// The number of the combination of choices within the place; the earlier ones were refused.
    pub(super) combination: usize,
    /// Whether all combinations were refused.
    pub(super) exhausted: bool,
    /// The number of the next combination, if there is one.
    pub(super) next_combination: Option<usize>,
    /// By choice, how many runs brought nothing new.
    pub(super) idle: Vec<u16>,
    /// By class of choices, whether the samples need it no more.
    pub(super) shown: Vec<bool>,
    /// How many classes are not shown here and within.
    pub(super) unshown: usize,
    /// Whether the samples never come here.
    pub(super) sealed: bool,
}

/// A type is known again by the name of its visitor and by the length of its values: two types may have one name, but one of them
/// that holds the other in itself is longer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) visitor: &'static str,
    pub(super) len: usize,
}

#[derive(Clone, Copy)]
pub(super) enum Step {
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
    pub(super) len_max: usize,
    pub(super) places: Vec<At>,
    /// Whether the type is known to read no more of them.
    pub(super) settled: bool,
}

/// The names of the fields: more than there are fields, if a field has aliases.
pub(super) struct Fields {
    pub(super) names: &'static [&'static str],
    /// The names without the aliases; empty until they are known.
    pub(super) own: Vec<&'static str>,
    /// Where the names of the field begin that is looked at, its own name if it has told it, and the next name.
    pub(super) begin: usize,
    pub(super) current: Option<&'static str>,
    pub(super) next: usize,
    pub(super) known: bool,
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

impl Place {
    pub(super) fn new(parent: At, step: Step) -> Self {
        Self {
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
        }
    }

    pub(super) fn idle(&self, choice: usize) -> u16 {
        self.idle.get(choice).copied().unwrap_or(0)
    }
}

impl Kind {
    pub(super) fn is(&self, asked: Asked) -> bool {
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
    pub(super) fn choices(&self) -> usize {
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
    pub(super) fn class(&self, choice: usize) -> usize {
        match self {
            Kind::Leaf(_) | Kind::List(_) | Kind::Map(..) => usize::from(choice > 0),
            _ => choice,
        }
    }

    pub(super) fn classes(&self) -> usize {
        match self {
            Kind::Leaf(Leaf::Unit) => 0,
            Kind::Leaf(_) | Kind::Option(_) | Kind::List(_) | Kind::Map(..) => 2,
            Kind::Enum(variants, _) => variants.len(),
            _ => 0,
        }
    }
}
