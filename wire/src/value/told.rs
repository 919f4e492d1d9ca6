//! [`Told`]: a serializer that notes what a value tells its codec. It stands between a value and every codec: for bincode it sums up what is
//! told, and for encodings that describe themselves it refuses what they would change in silence.

use super::nothing::is_nothing;
use super::sum::{Sum, event, event::Kind};
use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::cell::RefCell;
use std::fmt::Display;

/// What is done with the events of a value.
pub(crate) trait Teller {
    /// What a struct is known by while its fields are written.
    type Struct: Copy;

    /// Takes the beginning of a struct that is written.
    fn begin(&self) -> Self::Struct;

    /// Takes the name of a field that is written.
    fn field(&self, of: Self::Struct, name: &'static str);

    /// Takes the names of the fields of a struct that is asked for, with their aliases.
    fn fields(&self, names: &'static [&'static str]);

    /// Takes an event.
    fn tell(&self, event: impl FnOnce() -> u64);

    /// Takes a field that the value leaves out.
    ///
    /// # Errors
    ///
    /// When the encoding has no form for that.
    fn skip<E: Error>(&self, field: &'static str) -> Result<(), E>;

    /// Takes a `Some` of this value.
    ///
    /// # Errors
    ///
    /// When the encoding would make a `None` of it.
    fn some<T: Serialize + ?Sized, E: Error>(&self, value: &T) -> Result<(), E>;
}

/// Bincode: all events are summed up.
impl Teller for Sum {
    type Struct = ();

    #[inline(always)]
    fn begin(&self) {}

    #[inline(always)]
    fn field(&self, (): (), _: &'static str) {}

    #[inline(always)]
    fn fields(&self, _: &'static [&'static str]) {}

    #[inline(always)]
    fn tell(&self, event: impl FnOnce() -> u64) {
        Sum::tell(self, event());
    }

    #[cold]
    fn skip<E: Error>(&self, field: &'static str) -> Result<(), E> {
        Err(E::custom(format_args!(
            "the field `{field}` is left out, and bincode has no names to tell which one is"
        )))
    }

    #[inline(always)]
    fn some<T: Serialize + ?Sized, E: Error>(&self, _: &T) -> Result<(), E> {
        Ok(())
    }
}

/// An encoding that describes itself: nothing is summed up.
pub(crate) struct Described {
    /// Whether the encoding writes unit structs as it writes `None`.
    unit_structs_are_nothing: bool,
}

impl Described {
    pub(crate) const MESSAGE_PACK: Self = Self { unit_structs_are_nothing: false };
    pub(crate) const JSON: Self = Self { unit_structs_are_nothing: true };
}

impl Teller for Described {
    type Struct = ();

    #[inline(always)]
    fn begin(&self) {}

    #[inline(always)]
    fn field(&self, (): (), _: &'static str) {}

    #[inline(always)]
    fn fields(&self, _: &'static [&'static str]) {}

    #[inline(always)]
    fn tell(&self, _: impl FnOnce() -> u64) {}

    #[inline(always)]
    fn skip<E: Error>(&self, _: &'static str) -> Result<(), E> {
        Ok(())
    }

    #[inline]
    fn some<T: Serialize + ?Sized, E: Error>(&self, value: &T) -> Result<(), E> {
        if is_nothing(value, self.unit_structs_are_nothing) {
            return Err(E::custom(
                "a `Some` that holds nothing (`Some(None)`, `Some(())`) would be read as `None`: take an enum of your own \
                 instead, or a typed action, whose ends write bincode",
            ));
        }
        Ok(())
    }
}

/// Bincode, for a sample: the events are summed up, and the names of all fields are kept. Bincode does not write names, so two derives that
/// have the same fields under each other's names, or in another order, come to the same sum.
#[derive(Default)]
pub(super) struct Named {
    sum: Sum,
    /// The names of the fields of each struct, in the order in which the structs begin.
    structs: RefCell<Vec<Vec<&'static str>>>,
}

impl Named {
    /// Whether a value that was read has the names that were written.
    pub(super) fn agree(&self, read: &Named) -> Result<(), String> {
        if self.sum.bytes() != read.sum.bytes() {
            return Err(
                "another number of fields, or other kinds of values, are read than were written".to_owned()
            );
        }
        let (written, read) = (self.structs.borrow(), read.structs.borrow());
        let other = written.iter().zip(&*read).find(|(written, names)| {
            // Aliases stand among the names.
            let mut names = names.iter();
            !written.iter().all(|name| names.any(|other| other == name))
        });
        match other {
            Some((written, read)) => {
                Err(format!("the fields {written:?} are written, and {read:?} are read"))
            }
            None => Ok(()),
        }
    }
}

impl Teller for Named {
    type Struct = usize;

    fn begin(&self) -> usize {
        let mut structs = self.structs.borrow_mut();
        structs.push(Vec::new());
        structs.len() - 1
    }

    fn field(&self, of: usize, name: &'static str) {
        self.structs.borrow_mut()[of].push(name);
    }

    fn fields(&self, names: &'static [&'static str]) {
        self.structs.borrow_mut().push(names.to_vec());
    }

    fn tell(&self, event: impl FnOnce() -> u64) {
        self.sum.tell(event());
    }

    fn skip<E: Error>(&self, field: &'static str) -> Result<(), E> {
        self.sum.skip(field)
    }

    fn some<T: Serialize + ?Sized, E: Error>(&self, _: &T) -> Result<(), E> {
        Ok(())
    }
}

/// A serializer, and what is done with the events of the value.
pub(super) struct Told<'a, S, T> {
    inner: S,
    teller: &'a T,
}

/// A value that is written through a [`Told`] serializer.
pub(super) struct ToldValue<'a, V: ?Sized, T> {
    pub(super) value: &'a V,
    pub(super) teller: &'a T,
}

impl<V: Serialize + ?Sized, T: Teller> Serialize for ToldValue<'_, V, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Told { inner: serializer, teller: self.teller })
    }
}

/// The elements of a compound value, counted.
pub(super) struct Elements<'a, S, T> {
    inner: S,
    teller: &'a T,
    count: usize,
}

impl<'a, S, T> Elements<'a, S, T> {
    #[inline]
    fn of(inner: S, teller: &'a T) -> Self {
        Self { inner, teller, count: 0 }
    }

    #[inline]
    fn element<'v, V: ?Sized>(&mut self, value: &'v V) -> ToldValue<'v, V, T>
    where
        'a: 'v,
    {
        self.count += 1;
        ToldValue { value, teller: self.teller }
    }
}

/// The fields of a struct, counted.
pub(super) struct Fields<'a, S, T: Teller> {
    elements: Elements<'a, S, T>,
    of: T::Struct,
}

impl<'a, S, T: Teller> Fields<'a, S, T> {
    #[inline]
    fn of(inner: S, teller: &'a T, of: T::Struct) -> Self {
        Self { elements: Elements::of(inner, teller), of }
    }
}

macro_rules! told_flat {
    ($($method:ident: $type:ty => $event:ident;)*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.teller.tell(|| event::$event);
            self.inner.$method(value)
        }
    )*};
}

impl<'a, S: Serializer, T: Teller> Serializer for Told<'a, S, T> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Elements<'a, S::SerializeSeq, T>;
    type SerializeTuple = Elements<'a, S::SerializeTuple, T>;
    type SerializeTupleStruct = Elements<'a, S::SerializeTupleStruct, T>;
    type SerializeTupleVariant = Elements<'a, S::SerializeTupleVariant, T>;
    type SerializeMap = Elements<'a, S::SerializeMap, T>;
    type SerializeStruct = Fields<'a, S::SerializeStruct, T>;
    type SerializeStructVariant = Fields<'a, S::SerializeStructVariant, T>;

    told_flat! {
        serialize_bool: bool => BOOL;
        serialize_i8: i8 => I8;
        serialize_i16: i16 => INT;
        serialize_i32: i32 => INT;
        serialize_i64: i64 => INT;
        serialize_i128: i128 => INT;
        serialize_u8: u8 => U8;
        serialize_u16: u16 => UINT;
        serialize_u32: u32 => UINT;
        serialize_u64: u64 => UINT;
        serialize_u128: u128 => UINT;
        serialize_f32: f32 => F32;
        serialize_f64: f64 => F64;
        serialize_char: char => CHAR;
        serialize_str: &str => BYTES;
        serialize_bytes: &[u8] => BYTES;
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.teller.tell(|| event::NONE);
        self.inner.serialize_none()
    }

    #[inline]
    fn serialize_some<V: Serialize + ?Sized>(self, value: &V) -> Result<S::Ok, S::Error> {
        let Self { inner, teller } = self;
        teller.some(value)?;
        teller.tell(|| event::SOME);
        inner.serialize_some(&ToldValue { value, teller })
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    #[inline]
    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_struct(name)
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.teller.tell(|| event::variant(variant, Kind::Unit));
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_struct<V: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &V,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &ToldValue { value, teller: self.teller })
    }

    #[inline]
    fn serialize_newtype_variant<V: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &V,
    ) -> Result<S::Ok, S::Error> {
        self.teller.tell(|| event::variant(variant, Kind::Newtype));
        let value = ToldValue { value, teller: self.teller };
        self.inner.serialize_newtype_variant(name, index, variant, &value)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Ok(Elements::of(self.inner.serialize_seq(len)?, self.teller))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Ok(Elements::of(self.inner.serialize_tuple(len)?, self.teller))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(Elements::of(self.inner.serialize_tuple_struct(name, len)?, self.teller))
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.teller.tell(|| event::variant(variant, Kind::Tuple));
        Ok(Elements::of(self.inner.serialize_tuple_variant(name, index, variant, len)?, self.teller))
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        Ok(Elements::of(self.inner.serialize_map(len)?, self.teller))
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        let of = self.teller.begin();
        Ok(Fields::of(self.inner.serialize_struct(name, len)?, self.teller, of))
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.teller.tell(|| event::variant(variant, Kind::Struct));
        let of = self.teller.begin();
        Ok(Fields::of(self.inner.serialize_struct_variant(name, index, variant, len)?, self.teller, of))
    }

    #[inline]
    fn collect_str<V: Display + ?Sized>(self, value: &V) -> Result<S::Ok, S::Error> {
        self.teller.tell(|| event::BYTES);
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! told_elements {
    ($($compound:ident $method:ident $end:ident;)*) => {$(
        impl<S: $compound, T: Teller> $compound for Elements<'_, S, T> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn $method<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), S::Error> {
                let value = self.element(value);
                self.inner.$method(&value)
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.teller.tell(|| event::$end(self.count));
                self.inner.end()
            }
        }
    )*};
}

told_elements! {
    SerializeSeq serialize_element list;
    SerializeTuple serialize_element record;
    SerializeTupleStruct serialize_field record;
    SerializeTupleVariant serialize_field record;
}

macro_rules! told_fields {
    ($($compound:ident;)*) => {$(
        impl<S: $compound, T: Teller> $compound for Fields<'_, S, T> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn serialize_field<V: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &V,
            ) -> Result<(), S::Error> {
                let Self { elements, of } = self;
                elements.teller.field(*of, name);
                let value = elements.element(value);
                elements.inner.serialize_field(name, &value)
            }

            #[inline]
            fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                self.elements.teller.skip(name)?;
                self.elements.inner.skip_field(name)
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                let Elements { inner, teller, count } = self.elements;
                teller.tell(|| event::record(count));
                inner.end()
            }
        }
    )*};
}

told_fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<S: SerializeMap, T: Teller> SerializeMap for Elements<'_, S, T> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), S::Error> {
        let key = self.element(key);
        self.inner.serialize_key(&key)
    }

    #[inline]
    fn serialize_value<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), S::Error> {
        self.inner.serialize_value(&ToldValue { value, teller: self.teller })
    }

    #[inline]
    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), S::Error> {
        let key = self.element(key);
        self.inner.serialize_entry(&key, &ToldValue { value, teller: self.teller })
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.teller.tell(|| event::map(self.count));
        self.inner.end()
    }
}
