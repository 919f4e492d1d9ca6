//! The deserializer that the tracer gives to a type. It notes what the type asks for in the [`Tree`], and delivers what the tree decides.
//!
//! The code here is compiled once more for each type that is traced, so it is thin: whatever does not name a visitor stands in `tree.rs`.

use super::candidates::{self, Leaf};
use super::place::{Asked, At, Form, Known, ROOT};
use super::refused::{Obstacle, Refused};
use super::tree::{Entered, Tree};
use crate::function::PLACEHOLDER;
use serde::de::value::{SeqDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::any::type_name;
use std::cell::{Cell, RefCell, RefMut};

/// Reads a type once.
pub(super) fn read<T: DeserializeOwned>(tree: &RefCell<Tree>) -> Result<T, Refused> {
    tree.borrow_mut().begin();
    let root = Reader { tree, at: ROOT };
    let read = T::deserialize(root);
    if let Err(refused) = &read {
        tree.borrow_mut().refuse(ROOT, 0, refused);
    }
    read
}

/// Reads one place.
#[derive(Clone, Copy)]
struct Reader<'t> {
    tree: &'t RefCell<Tree>,
    at: At,
}

impl<'t> Reader<'t> {
    fn tree(&self) -> RefMut<'t, Tree> {
        self.tree.borrow_mut()
    }

    fn within(self, at: At) -> Self {
        Self { at, ..self }
    }

    fn enter(self, asked: Asked, visitor: Option<Known>) -> Result<Entered, Refused> {
        self.tree().enter(self.at, asked, visitor)
    }

    fn leave<T>(self, entered: Entered, read: &Result<T, Refused>) {
        self.tree().leave(entered, read.as_ref().err());
    }

    fn leaf<T>(self, leaf: Leaf, visit: impl FnOnce(usize) -> Result<T, Refused>) -> Result<T, Refused> {
        let entered = self.enter(Asked::Leaf(leaf), None)?;
        let read = visit(entered.choice);
        self.leave(entered, &read);
        read
    }

    /// Reads the element, entry or content at this place by a seed of the type. What the type around a value refuses is made up
    /// otherwise in that value.
    fn by_seed<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        let decisions = self.before();
        let read = seed.deserialize(self);
        self.after(decisions, &read);
        read
    }

    fn before(self) -> usize {
        let mut tree = self.tree();
        if tree.runs_away() {
            drop(tree);
            // The type goes on whatever error it gets. This panic is caught by the tracer, and does not reach the hook.
            std::panic::resume_unwind(Box::new("it goes on after every error"));
        }
        tree.decisions()
    }

    fn after<T>(self, decisions: usize, read: &Result<T, Refused>) {
        if let Err(refused) = read {
            self.tree().refuse(self.at, decisions, refused);
        }
    }

    fn items<'de, V: Visitor<'de>>(self, asked: Asked, visitor: V) -> Result<V::Value, Refused> {
        let entered = self.enter(asked, known(&visitor))?;
        let reader = self.within(entered.at);
        let aliases = self.tree().aliases(entered.at);
        let read = match aliases {
            Ok(None) => {
                let asked = Cell::new(0);
                let len = self.tree().len(&entered);
                let read = visitor.visit_seq(Items { reader, len, asked: &asked });
                self.tree().asked_items(entered.at, asked.get(), read.is_ok());
                read
            }
            Ok(Some((names, field))) => {
                let aliases = Aliases { reader, names, field: self.within(field), given: 0 };
                let read = visitor.visit_map(aliases);
                if let Err(Refused { duplicate: Some(own), .. }) = &read {
                    self.tree().alias(entered.at, Some(own));
                }
                read
            }
            Err(refused) => Err(refused),
        };
        self.leave(entered, &read);
        read
    }
}

/// By what a visitor is known again. A visitor with a state may read differently each time.
fn known<'de, V: Visitor<'de>>(_: &V) -> Option<Known> {
    (size_of::<V>() == 0).then(|| Known { visitor: type_name::<V>(), len: size_of::<V::Value>() })
}

macro_rules! deserialize_leaves {
    ($($method:ident $leaf:ident $visit:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.leaf(Leaf::$leaf, |choice| $visit(visitor, choice))
        }
    )*};
}

macro_rules! stop {
    ($($method:ident($($arg:ident: $type:ty),*) $why:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* _: V) -> Result<V::Value, Refused> {
            Err(self.tree().stop(self.at, Obstacle::$why))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Refused;

    /// As bincode.
    fn is_human_readable(&self) -> bool {
        false
    }

    deserialize_leaves! {
        deserialize_bool Bool |visitor: V, choice| visitor.visit_bool(candidates::bool_of(choice));
        deserialize_i8 I8 candidates::visit_i8;
        deserialize_i16 I16 candidates::visit_i16;
        deserialize_i32 I32 candidates::visit_i32;
        deserialize_i64 I64 candidates::visit_i64;
        deserialize_i128 I128 candidates::visit_i128;
        deserialize_u8 U8 candidates::visit_u8;
        deserialize_u16 U16 candidates::visit_u16;
        deserialize_u32 U32 candidates::visit_u32;
        deserialize_u64 U64 candidates::visit_u64;
        deserialize_u128 U128 candidates::visit_u128;
        deserialize_f32 F32 candidates::visit_f32;
        deserialize_f64 F64 candidates::visit_f64;
        deserialize_char Char |visitor: V, choice| visitor.visit_char(candidates::char_of(choice));
        deserialize_str Text |visitor: V, choice| visitor.visit_borrowed_str(candidates::text_of(choice));
        deserialize_string Text |visitor: V, choice| visitor.visit_borrowed_str(candidates::text_of(choice));
        deserialize_bytes Bytes |visitor: V, choice| visitor.visit_borrowed_bytes(candidates::bytes_of(choice));
        deserialize_byte_buf Bytes |visitor: V, choice| visitor.visit_byte_buf(candidates::bytes_of(choice).to_vec());
        deserialize_unit Unit |visitor: V, _| visitor.visit_unit();
    }

    stop! {
        deserialize_any() AsksForAny;
        deserialize_identifier() AsksForName;
        deserialize_ignored_any() Skips;
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.tree().deeper(self.at)?;
        let decisions = self.before();
        let read = visitor.visit_newtype_struct(self);
        self.after(decisions, &read);
        self.tree().back();
        read
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let entered = self.enter(Asked::Option, known(&visitor))?;
        let read = if entered.choice == 0 {
            visitor.visit_none()
        } else {
            let part = self.within(self.tree().part(entered.at));
            let decisions = part.before();
            let read = visitor.visit_some(part);
            part.after(decisions, &read);
            read
        };
        if read.is_ok() && entered.choice > 0 {
            self.tree().unread(entered.at);
        }
        self.leave(entered, &read);
        read
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let entered = self.enter(Asked::List, known(&visitor))?;
        let (at, left) = (entered.at, self.tree().len(&entered));
        let read = visitor.visit_seq(Elements { reader: self.within(at), left });
        if read.is_ok() && left > 0 {
            self.tree().unread(at);
        }
        self.leave(entered, &read);
        read
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let entered = self.enter(Asked::Map, known(&visitor))?;
        let (at, left) = (entered.at, self.tree().len(&entered));
        let read = visitor.visit_map(Elements { reader: self.within(at), left });
        if read.is_ok() && left > 0 {
            self.tree().unread(at);
        }
        self.leave(entered, &read);
        read
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.items(Asked::Tuple(len), visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.items(Asked::Tuple(len), visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        if name != PLACEHOLDER {
            return self.items(Asked::Struct(fields), visitor);
        }
        // A function is what stands in the payload for it, and a kind of its own: it is handed out beside the payload.
        let entered = self.enter(Asked::Function, known(&visitor))?;
        let read = visitor.visit_seq(SeqDeserializer::new([0_u32].into_iter()));
        self.leave(entered, &read);
        read
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let entered = self.enter(Asked::Enum(variants), known(&visitor))?;
        let (at, choice) = (entered.at, entered.choice);
        let number = Cell::new(Number::Unread);
        let read = visitor.visit_enum(Choice { reader: self.within(at), choice, number: &number });
        let mut tree = self.tree();
        let without_names = variants.is_empty();
        match number.get() {
            // A type without variants has no value.
            Number::Refused if without_names => {}
            Number::Refused => drop(tree.stop(at, Obstacle::Variants)),
            _ if without_names => drop(tree.stop(at, Obstacle::Variants)),
            Number::Unread | Number::Taken => tree.without_content(at, choice, read.is_ok()),
            Number::ReadOn => {}
        }
        drop(tree);
        self.leave(entered, &read);
        read
    }
}

/// The elements of a list, or the entries of a map.
struct Elements<'t> {
    reader: Reader<'t>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let part = self.reader.tree().part(self.reader.at);
        self.reader.within(part).by_seed(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        let value = self.reader.tree().value(self.reader.at);
        self.reader.within(value).by_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The elements of a tuple, or the fields of a struct in their order.
struct Items<'t> {
    reader: Reader<'t>,
    len: usize,
    asked: &'t Cell<usize>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let index = self.asked.get();
        if index >= self.len {
            return Ok(None);
        }
        self.asked.set(index + 1);
        let item = self.reader.tree().item(self.reader.at, index)?;
        self.reader.within(item).by_seed(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len - self.asked.get())
    }
}

/// Two names for a struct, of which the second may be an alias of the first.
struct Aliases<'t> {
    reader: Reader<'t>,
    names: [&'static str; 2],
    field: Reader<'t>,
    given: usize,
}

impl<'de> MapAccess<'de> for Aliases<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(name) = self.names.get(self.given) else { return Ok(None) };
        self.given += 1;
        let name: serde::de::value::StrDeserializer<'_, Refused> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        if self.given < self.names.len() {
            return self.field.by_seed(seed);
        }
        // The second name is not that of the first field.
        let mut tree = self.reader.tree();
        tree.alias(self.reader.at, None);
        Err(tree.no_value())
    }
}

/// A variant of an enum, by its number.
struct Choice<'t> {
    reader: Reader<'t>,
    choice: usize,
    number: &'t Cell<Number>,
}

/// How far a type has read a variant.
#[derive(Clone, Copy)]
enum Number {
    Unread,
    Refused,
    Taken,
    /// The type has asked for the content.
    ReadOn,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refused> {
        let number = u32::try_from(self.choice).unwrap_or(u32::MAX);
        let number: U32Deserializer<Refused> = number.into_deserializer();
        match seed.deserialize(number) {
            Ok(number) => {
                self.number.set(Number::Taken);
                Ok((number, self))
            }
            Err(refused) => {
                self.number.set(Number::Refused);
                Err(refused)
            }
        }
    }
}

impl<'t> Choice<'t> {
    fn content(&self, form: Form) -> Result<Reader<'t>, Refused> {
        self.number.set(Number::ReadOn);
        let content = self.reader.tree().content(self.reader.at, self.choice, form)?;
        Ok(self.reader.within(content))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        self.content(Form::Unit).map(drop)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        self.content(Form::Newtype)?.by_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.content(Form::Tuple)?.items(Asked::Tuple(len), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.content(Form::Struct)?.items(Asked::Struct(fields), visitor)
    }
}
