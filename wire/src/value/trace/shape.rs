//! [`TypeShape`], and the [`Signature`] that is made of some: what is left of a type when all is left out that its bytes do not depend on.
//!
//! The numbers are a promise between programs of different builds: a change of what is hashed here, or how, makes typed ends of
//! different versions speak by name.

use super::candidates::Leaf;
use super::place::{At, Form, Kind, ROOT};
use super::tree::Tree;
use crate::accepts::Signature;

/// The shape that a type asks of serde while it is read, as far as bytes depend on it: the kinds and widths of its values, the names
/// of fields and variants and their order, and where the type holds itself. The names of types and modules, newtypes, attributes such as `default`,
/// and whether a text is a `String` or a `Box<str>` are no part of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TypeShape {
    hash: u64,
    some_of_nothing: Option<String>,
}

impl TypeShape {
    pub(super) fn of(tree: &Tree) -> Self {
        let mut hasher = Hasher { tree, hash: Hash(0), some_of_nothing: None };
        hasher.place(ROOT);
        let Hasher { hash, some_of_nothing, .. } = hasher;
        Self { hash: hash.0, some_of_nothing: some_of_nothing.map(|at| tree.text(at)) }
    }

    /// The place, such as `.items[].note`, of a first `Option` of `Option` or of `()`: encodings that describe themselves write `Some` of
    /// nothing as `None`. Empty for the type itself.
    #[must_use]
    pub fn some_of_nothing(&self) -> Option<&str> {
        self.some_of_nothing.as_deref()
    }
}

impl Signature {
    /// The signature of these shapes, in this order.
    #[doc(hidden)]
    #[must_use]
    pub fn of(shapes: &[&TypeShape]) -> Self {
        let mut hash = Hash(0);
        hash.number(shapes.len());
        for shape in shapes {
            hash.word(shape.hash);
        }
        Self(hash.0)
    }

    /// The signature as a number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A hash of words that is the same on every machine, and in every version.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn word(&mut self, word: u64) {
        // The steps of splitmix64, which changes half of the bits for each bit of the word.
        let mut mixed = self.0.rotate_left(5) ^ word;
        mixed = mixed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.0 = mixed ^ (mixed >> 31);
    }

    fn number(&mut self, number: usize) {
        self.word(number as u64);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        for part in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.word(u64::from_le_bytes(word));
        }
    }
}

struct Hasher<'t> {
    tree: &'t Tree,
    hash: Hash,
    some_of_nothing: Option<At>,
}

impl Hasher<'_> {
    /// At most as deep as the tracer goes.
    fn place(&mut self, at: At) {
        let tree = self.tree;
        match tree.kind(at) {
            // Not a part of any shape that is handed out.
            Kind::Unknown => self.hash.word(0),
            Kind::Unread => self.hash.word(1),
            Kind::Function => self.hash.word(2),
            Kind::Leaf(leaf) => self.hash.word(16 + number_of(*leaf)),
            Kind::Option(part) => {
                let mut within = tree.kind(*part);
                if let Kind::Again(ancestor) = within {
                    within = tree.kind(*ancestor);
                }
                if matches!(within, Kind::Option(_) | Kind::Leaf(Leaf::Unit)) {
                    self.some_of_nothing.get_or_insert(at);
                }
                self.hash.word(3);
                self.place(*part);
            }
            Kind::List(part) => {
                self.hash.word(4);
                self.place(*part);
            }
            Kind::Map(key, value) => {
                self.hash.word(5);
                self.place(*key);
                self.place(*value);
            }
            Kind::Tuple(items) => {
                self.hash.word(6);
                self.hash.number(items.places.len());
                for item in &items.places {
                    self.place(*item);
                }
            }
            Kind::Struct(items, fields) => {
                self.hash.word(7);
                self.hash.number(items.places.len());
                let names = if fields.own.is_empty() { fields.names } else { &fields.own };
                for (name, item) in names.iter().zip(&items.places) {
                    self.hash.text(name);
                    self.place(*item);
                }
            }
            Kind::Enum(variants, names) => {
                self.hash.word(8);
                self.hash.number(variants.len());
                for (name, variant) in names.iter().zip(variants) {
                    self.hash.text(name);
                    self.hash.word(match variant.form {
                        Form::Unknown => 0,
                        Form::Unread => 1,
                        Form::Refused => 2,
                        Form::Unit => 3,
                        Form::Newtype => 4,
                        Form::Tuple => 5,
                        Form::Struct => 6,
                    });
                    if let Some(content) = variant.content {
                        self.place(content);
                    }
                }
            }
            Kind::Again(ancestor) => {
                self.hash.word(9);
                self.hash.number(tree.distance(at, *ancestor));
            }
        }
    }
}

/// The numbers are part of each signature.
fn number_of(leaf: Leaf) -> u64 {
    match leaf {
        Leaf::Unit => 0,
        Leaf::Bool => 1,
        Leaf::I8 => 2,
        Leaf::I16 => 3,
        Leaf::I32 => 4,
        Leaf::I64 => 5,
        Leaf::I128 => 6,
        Leaf::U8 => 7,
        Leaf::U16 => 8,
        Leaf::U32 => 9,
        Leaf::U64 => 10,
        Leaf::U128 => 11,
        Leaf::F32 => 12,
        Leaf::F64 => 13,
        Leaf::Char => 14,
        Leaf::Text => 15,
        Leaf::Bytes => 16,
    }
}
