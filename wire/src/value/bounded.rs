//! Bounds on the work that bytes from outside may cause while they become a user's type. A plain codec recurses as deep as the bytes
//! claim, delivers as many elements that take no bytes as the bytes claim, and clears as much memory for a text as the bytes claim.
//! [`Bounded`] stands between codec and type, at every depth, and stops all three early. The length of the bytes is bounded by the
//! caller.

use crate::copy::copy_of;
use crate::value::extension::VALUE;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::SeqDeserializer,
};
use std::{cell::Cell, fmt, marker::PhantomData};

/// The bounds of one value that is being read, and what is left of them. Each value needs bounds of its own.
pub(crate) struct Bounds {
    depth_max: usize,
    depth_left: Cell<usize>,
    elements_max: usize,
    elements_left: Cell<usize>,
}

/// The seed `inner`, through a [`Bounded`] deserializer.
pub(crate) struct BoundedSeed<'b, S> {
    inner: S,
    bounds: &'b Bounds,
}

/// A deserializer that gives every visitor which may recurse or loop a deserializer of this type, with these bounds.
pub(crate) struct Bounded<'b, D> {
    inner: D,
    bounds: &'b Bounds,
}

impl Bounds {
    /// Allows `depth_max` sequences, tuples, maps, structs, newtypes, enums and `Some`s within each other, and `elements_max`
    /// elements and map entries in all sequences and maps together. The elements of tuples and structs are not counted: how
    /// many there are is up to the type. An honest value whose elements take a byte or more has no more of them than bytes.
    #[inline]
    pub(crate) fn new(depth_max: usize, elements_max: usize) -> Self {
        Self {
            depth_max,
            depth_left: Cell::new(depth_max),
            elements_max,
            elements_left: Cell::new(elements_max),
        }
    }

    /// Runs `visit` one level deeper.
    #[inline]
    fn inside<R, E: Error>(&self, visit: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        let Some(left) = self.depth_left.get().checked_sub(1) else { return Err(self.too_deep()) };
        self.depth_left.set(left);
        let visited = visit();
        self.depth_left.set(left + 1);
        visited
    }

    /// Takes `elements` from the elements that are left.
    #[inline]
    fn pay<E: Error>(&self, elements: usize) -> Result<(), E> {
        let Some(left) = self.elements_left.get().checked_sub(elements) else { return Err(self.too_many()) };
        self.elements_left.set(left);
        Ok(())
    }

    #[cold]
    fn too_deep<E: Error>(&self) -> E {
        E::custom(format_args!("nested deeper than {} levels", self.depth_max))
    }

    #[cold]
    fn too_many<E: Error>(&self) -> E {
        E::custom(format_args!("more than {} elements", self.elements_max))
    }
}

impl<'b, V> BoundedSeed<'b, PhantomData<V>> {
    /// Reads a `V`.
    #[inline]
    pub(crate) fn new(bounds: &'b Bounds) -> Self {
        Self::within(bounds, PhantomData)
    }
}

impl<'b, S> BoundedSeed<'b, S> {
    /// Reads the value of `inner`.
    #[inline]
    fn within(bounds: &'b Bounds, inner: S) -> Self {
        Self { inner, bounds }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for BoundedSeed<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Bounded { inner: deserializer, bounds: self.bounds })
    }
}

/// The visitors are wrapped: they may be given elements or values to visit, and are told of what they visit.
macro_rules! deserialize_bounded {
    ($($method:ident($($arg:ident: $type:ty),*) $length:ident;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($arg,)* BoundedVisitor::of(visitor, Length::$length, self.bounds))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    // A self-describing codec may deliver a byte string as a sequence.
    deserialize_bounded! {
        deserialize_bool() InBytes;
        deserialize_i8() InBytes;
        deserialize_i16() InBytes;
        deserialize_i32() InBytes;
        deserialize_i64() InBytes;
        deserialize_i128() InBytes;
        deserialize_u8() InBytes;
        deserialize_u16() InBytes;
        deserialize_u32() InBytes;
        deserialize_u64() InBytes;
        deserialize_u128() InBytes;
        deserialize_f32() InBytes;
        deserialize_f64() InBytes;
        deserialize_char() InBytes;
        deserialize_str() InBytes;
        deserialize_unit() InBytes;
        deserialize_unit_struct(name: &'static str) InBytes;
        deserialize_identifier() InBytes;
        deserialize_any() InBytes;
        deserialize_bytes() InBytes;
        deserialize_option() InBytes;
        deserialize_seq() List;
        deserialize_tuple(len: usize) OfType;
        deserialize_tuple_struct(name: &'static str, len: usize) OfType;
        deserialize_map() InBytes;
        deserialize_ignored_any() InBytes;
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = BoundedVisitor::of(visitor, Length::OfType, self.bounds);
        self.inner.deserialize_struct(name, fields, visitor)
    }

    /// The name by which a `Value` is asked for is no level of its own.
    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let length = if name == VALUE { Length::Named } else { Length::InBytes };
        self.inner.deserialize_newtype_struct(name, BoundedVisitor::of(visitor, length, self.bounds))
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = BoundedVisitor::of(visitor, Length::InBytes, self.bounds);
        self.inner.deserialize_enum(name, variants, visitor)
    }

    /// Asks for borrowed text: for an owned text, a codec may clear as many bytes as are claimed before it looks how many there
    /// are. A visitor of owned text must take borrowed text too.
    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_str(visitor)
    }

    /// Asks for borrowed bytes, for the reason of `deserialize_string`, and copies them.
    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = BoundedVisitor::of(visitor, Length::Owned, self.bounds);
        self.inner.deserialize_bytes(visitor)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Where the number of elements of a sequence or a map comes from.
#[derive(Clone, Copy)]
enum Length {
    /// From the bytes: each element counts against the bounds.
    InBytes,
    /// From the bytes, for a type that asks for a list and takes a byte string as one.
    List,
    /// From the bytes, for a type that asks for a byte string that it owns.
    Owned,
    /// From the type, as in a tuple.
    OfType,
    /// There is none: the value within has one.
    Named,
}

struct BoundedVisitor<'b, V> {
    inner: V,
    length: Length,
    bounds: &'b Bounds,
}

impl<'b, V> BoundedVisitor<'b, V> {
    #[inline]
    fn of(inner: V, length: Length, bounds: &'b Bounds) -> Self {
        Self { inner, length, bounds }
    }

    #[cold]
    fn visit_list<'de, E: Error>(self, bytes: &[u8]) -> Result<V::Value, E>
    where
        V: Visitor<'de>,
    {
        self.bounds.pay(bytes.len())?;
        let mut numbers = SeqDeserializer::new(bytes.iter().copied());
        let value = self.inner.visit_seq(&mut numbers)?;
        // A tuple takes only as many as it has.
        numbers.end()?;
        Ok(value)
    }
}

macro_rules! visit_flat {
    ($($method:ident: $value:ty),* $(,)?) => {$(
        #[inline]
        fn $method<E: Error>(self, value: $value) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for BoundedVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit_flat! {
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
    }

    #[inline]
    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<V::Value, E> {
        match self.length {
            Length::List => self.visit_list(bytes),
            Length::Owned => self.inner.visit_byte_buf(copy_of(bytes)),
            _ => self.inner.visit_bytes(bytes),
        }
    }

    #[inline]
    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<V::Value, E> {
        match self.length {
            Length::List => self.visit_list(bytes),
            Length::Owned => self.inner.visit_byte_buf(copy_of(bytes)),
            _ => self.inner.visit_borrowed_bytes(bytes),
        }
    }

    #[inline]
    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<V::Value, E> {
        if let Length::List = self.length {
            self.visit_list(&bytes)
        } else {
            self.inner.visit_byte_buf(bytes)
        }
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let Self { inner, bounds, .. } = self;
        bounds.inside(|| inner.visit_some(Bounded { inner: deserializer, bounds }))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let Self { inner, bounds, length, .. } = self;
        if let Length::Named = length {
            return inner.visit_newtype_struct(Bounded { inner: deserializer, bounds });
        }
        bounds.inside(|| inner.visit_newtype_struct(Bounded { inner: deserializer, bounds }))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        let Self { inner, length, bounds, .. } = self;
        let paid = length.pay(seq.size_hint(), bounds)?;
        bounds.inside(|| inner.visit_seq(BoundedElements { inner: seq, paid, bounds }))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let Self { inner, length, bounds, .. } = self;
        let paid = length.pay(map.size_hint(), bounds)?;
        bounds.inside(|| inner.visit_map(BoundedElements { inner: map, paid, bounds }))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        // The body of an enum counts as its level: an enum whose body is a tuple is one level, not two.
        let Self { inner, bounds, .. } = self;
        inner.visit_enum(BoundedEnum { inner: access, bounds })
    }
}

impl Length {
    /// Takes the claimed number of elements from the bounds, and returns how many were paid for. A false claim fails before a
    /// visitor makes room for its elements, and the room for all nested claims together is bounded too.
    #[inline]
    fn pay<E: Error>(self, claimed: Option<usize>, bounds: &Bounds) -> Result<usize, E> {
        match self {
            Length::InBytes | Length::List | Length::Owned | Length::Named => {
                let claimed = claimed.unwrap_or(0);
                bounds.pay(claimed)?;
                Ok(claimed)
            }
            Length::OfType => Ok(usize::MAX),
        }
    }
}

/// The elements of a sequence, or the entries of a map.
struct BoundedElements<'b, A> {
    inner: A,
    /// How many more elements are paid for. Elements beyond the claim are paid for as they come.
    paid: usize,
    bounds: &'b Bounds,
}

impl<A> BoundedElements<'_, A> {
    #[inline]
    fn pay_one<E: Error>(&mut self) -> Result<(), E> {
        match self.paid.checked_sub(1) {
            Some(paid) => self.paid = paid,
            None => self.bounds.pay(1)?,
        }
        Ok(())
    }

    #[inline]
    fn cap(&self, hint: Option<usize>) -> Option<usize> {
        hint.map(|hint| hint.min(self.paid.saturating_add(self.bounds.elements_left.get())))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for BoundedElements<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let element = self.inner.next_element_seed(BoundedSeed::within(self.bounds, seed))?;
        if element.is_some() {
            self.pay_one()?;
        }
        Ok(element)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.cap(self.inner.size_hint())
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for BoundedElements<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let key = self.inner.next_key_seed(BoundedSeed::within(self.bounds, seed))?;
        if key.is_some() {
            self.pay_one()?;
        }
        Ok(key)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(BoundedSeed::within(self.bounds, seed))
    }

    #[inline]
    fn next_entry_seed<K: DeserializeSeed<'de>, S: DeserializeSeed<'de>>(
        &mut self,
        key: K,
        value: S,
    ) -> Result<Option<(K::Value, S::Value)>, A::Error> {
        let (key, value) = (BoundedSeed::within(self.bounds, key), BoundedSeed::within(self.bounds, value));
        let entry = self.inner.next_entry_seed(key, value)?;
        if entry.is_some() {
            self.pay_one()?;
        }
        Ok(entry)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.cap(self.inner.size_hint())
    }
}

struct BoundedEnum<'b, A> {
    inner: A,
    bounds: &'b Bounds,
}

impl<'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for BoundedEnum<'b, A> {
    type Error = A::Error;
    type Variant = BoundedVariant<'b, A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let Self { inner, bounds } = self;
        let (name, variant) = bounds.inside(|| inner.variant_seed(BoundedSeed::within(bounds, seed)))?;
        Ok((name, BoundedVariant { inner: variant, bounds }))
    }
}

struct BoundedVariant<'b, A> {
    inner: A,
    bounds: &'b Bounds,
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for BoundedVariant<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let Self { inner, bounds } = self;
        bounds.inside(|| inner.newtype_variant_seed(BoundedSeed::within(bounds, seed)))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, BoundedVisitor::of(visitor, Length::OfType, self.bounds))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, BoundedVisitor::of(visitor, Length::OfType, self.bounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{
        Deserialize,
        de::{
            IgnoredAny,
            value::{MapDeserializer, SeqDeserializer},
        },
    };
    use std::collections::BTreeMap;

    type Refusal = serde::de::value::Error;

    /// Numbers without a claimed count.
    fn unannounced(len: u32) -> impl Deserializer<'static, Error = Refusal> {
        SeqDeserializer::new((0..len).filter(|_| true))
    }

    fn refusal<T>(read: Result<T, Refusal>) -> String {
        read.err().expect("it is refused").to_string()
    }

    #[test]
    fn elements_that_nobody_announced_are_paid_for_as_they_come() {
        let bounds = Bounds::new(1, 10);
        let seed = BoundedSeed::<PhantomData<Vec<u32>>>::new(&bounds);
        assert_eq!(refusal(seed.deserialize(unannounced(11))), "more than 10 elements");

        let bounds = Bounds::new(1, 10);
        let seed = BoundedSeed::<PhantomData<Vec<u32>>>::new(&bounds);
        assert_eq!(seed.deserialize(unannounced(10)), Ok((0..10).collect()));
    }

    #[test]
    fn elements_of_one_value_share_one_bound() {
        let bounds = Bounds::new(1, 10);
        let read = |len| BoundedSeed::<PhantomData<Vec<u32>>>::new(&bounds).deserialize(unannounced(len));
        assert!(read(6).is_ok());
        assert_eq!(refusal(read(6)), "more than 10 elements");
    }

    #[test]
    fn an_entry_of_a_map_is_one_element() {
        let read = |len: u32| {
            let bounds = Bounds::new(1, 10);
            let map = MapDeserializer::<_, Refusal>::new((0..len).map(|key| (key, key)));
            BoundedSeed::<PhantomData<BTreeMap<u32, u32>>>::new(&bounds).deserialize(map)
        };
        assert_eq!(read(10).map(|map| map.len()), Ok(10));
        assert_eq!(refusal(read(11)), "more than 10 elements");
    }

    #[test]
    fn elements_of_a_tuple_are_not_counted() {
        let bounds = Bounds::new(1, 0);
        let seed = BoundedSeed::<PhantomData<(u32, u32, u32)>>::new(&bounds);
        assert_eq!(seed.deserialize(unannounced(3)), Ok((0, 1, 2)));
    }

    #[test]
    fn values_that_nobody_wants_are_counted_too() {
        let bounds = Bounds::new(1, 10);
        let seed = BoundedSeed::<PhantomData<IgnoredAny>>::new(&bounds);
        assert_eq!(refusal(seed.deserialize(unannounced(11))), "more than 10 elements");
    }

    #[test]
    fn a_claim_beyond_what_is_left_is_refused_before_the_visitor_sees_it() {
        #[derive(Debug)]
        struct Never;
        impl<'de> Deserialize<'de> for Never {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_seq(Never)
            }
        }
        impl<'de> Visitor<'de> for Never {
            type Value = Never;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nothing")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Never, A::Error> {
                panic!("the claim was believed")
            }
        }
        let bounds = Bounds::new(1, 10);
        let claimed = SeqDeserializer::<_, Refusal>::new(0..11_u32);
        let read = BoundedSeed::<PhantomData<Never>>::new(&bounds).deserialize(claimed);
        assert_eq!(refusal(read), "more than 10 elements");
    }

    #[test]
    fn a_hint_is_never_more_than_what_is_left() {
        struct Boast;
        impl<'de> SeqAccess<'de> for Boast {
            type Error = Refusal;
            fn next_element_seed<S: DeserializeSeed<'de>>(
                &mut self,
                _: S,
            ) -> Result<Option<S::Value>, Refusal> {
                Ok(None)
            }
            fn size_hint(&self) -> Option<usize> {
                Some(usize::MAX)
            }
        }
        let bounds = Bounds::new(1, 10);
        assert_eq!(
            SeqAccess::size_hint(&BoundedElements { inner: Boast, paid: 3, bounds: &bounds }),
            Some(13)
        );
    }

    #[test]
    fn a_level_is_given_back_when_it_is_left_and_when_it_fails() {
        let bounds = Bounds::new(2, 0);
        let nested = || bounds.inside(|| bounds.inside(|| Ok::<_, Refusal>(())));
        let failed = || bounds.inside(|| Err::<(), _>(Refusal::custom("no")));
        assert_eq!(nested(), Ok(()));
        assert_eq!(refusal(failed()), "no");
        assert_eq!(nested(), Ok(()));
        assert_eq!(refusal(bounds.inside(nested)), "nested deeper than 2 levels");
        assert_eq!(bounds.depth_left.get(), 2);
    }
}
