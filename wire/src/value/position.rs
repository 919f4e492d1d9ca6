//! Whether a type asks for values by their position alone, so that a record of arguments may be read as the list of its values: tuples,
//! and single values. A struct asks by names, so a record is never read as one of other names.

use serde::de::{Deserializer, Error, Visitor, value};
use serde::{Deserialize, forward_to_deserialize_any};

/// Whether a type takes this many values in their order, and no names.
pub(crate) fn takes_in_order<'de, T: Deserialize<'de>>(count: usize) -> bool {
    let mut takes = false;
    // It reads nothing: the first question says what the type is.
    let _ = T::deserialize(Asked { count, takes: &mut takes });
    takes
}

/// Notes what it is asked for, and refuses it.
struct Asked<'a> {
    count: usize,
    takes: &'a mut bool,
}

impl Asked<'_> {
    fn refuse<T>(self, takes: bool) -> Result<T, value::Error> {
        *self.takes = takes;
        Err(value::Error::custom("nothing is read"))
    }
}

macro_rules! single {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
            let takes = self.count == 1;
            self.refuse(takes)
        }
    )*};
}

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = value::Error;

    /// A type that asks for names, for anything at all, or for a list, has been given the record as it is.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        self.refuse(false)
    }

    single! {
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_option deserialize_seq
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, _: V) -> Result<V::Value, value::Error> {
        let takes = self.count == len;
        self.refuse(takes)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        let takes = self.count == 0;
        self.refuse(takes)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        unit_struct tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Deserialize)]
    struct Pair {
        _a: i64,
        _b: i64,
    }

    #[derive(Deserialize)]
    struct Wrapped<T>(T);

    #[test]
    fn what_asks_for_names_takes_no_record_of_others() {
        assert!(takes_in_order::<(i64, String)>(2) && !takes_in_order::<(i64, String)>(3));
        assert!(
            takes_in_order::<i64>(1) && takes_in_order::<Wrapped<Vec<u8>>>(1) && !takes_in_order::<i64>(2)
        );
        assert!(takes_in_order::<()>(0) && !takes_in_order::<()>(1));
        assert!(
            !takes_in_order::<Pair>(2) && !takes_in_order::<Wrapped<Pair>>(2) && !takes_in_order::<Pair>(1)
        );
        assert!(!takes_in_order::<BTreeMap<String, i64>>(2) && !takes_in_order::<serde_json::Value>(1));
    }
}
