//! The extensions of MessagePack that have a meaning here: dates, and integers of more than 64 bits. Both are as msgpackr, the codec of
//! node-mesh, writes and reads them.

use serde::de::{Error, Visitor};

/// The name of the newtype that rmp-serde takes for an extension.
pub(super) const EXTENSION: &str = "_ExtStruct";

/// The name of the newtype that a [`Value`](super::Value) asks for an extension by where a codec calls itself readable for people: the
/// newtype has a text, and MessagePack writes the extension instead.
pub(super) const READABLE_EXTENSION: &str = "$meshwork::Extension";

/// The name of the newtype that a [`Value`](super::Value) is read by: such a reader takes extensions as they are, other readers take
/// dates as text and integers as integers.
pub(super) const VALUE: &str = "$meshwork::Value";

/// The kind of a timestamp: <https://github.com/msgpack/msgpack/blob/master/spec.md#timestamp-extension-type>.
pub(super) const TIMESTAMP: i8 = -1;

/// The kind of an integer of any size, "B": its bytes in two's complement, the highest first.
pub(crate) const INTEGER: i8 = 0x42;

/// The kind and the bytes of `undefined`, which is nil to all but programs of Node.js.
pub(super) const UNDEFINED: (i8, &[u8]) = (0, &[0]);

/// An integer that some type of Rust holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Integer {
    Unsigned(u128),
    /// Less than zero.
    Negative(i128),
}

impl Integer {
    pub(super) fn signed(value: i128) -> Self {
        u128::try_from(value).map_or(Self::Negative(value), Self::Unsigned)
    }

    /// The integer with these bytes, if 128 bits hold it.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (first, _) = bytes.split_first()?;
        let fill = if first & 0x80 == 0 { 0 } else { 0xFF };
        let mut rest = bytes;
        while let [byte, less @ ..] = rest
            && *byte == fill
            && rest.len() > 16
        {
            rest = less;
        }
        if rest.len() > 16 {
            return None;
        }
        let mut whole = [fill; 16];
        whole[16 - rest.len()..].copy_from_slice(rest);
        match fill {
            0 => Some(Self::Unsigned(u128::from_be_bytes(whole))),
            _ => Some(i128::from_be_bytes(whole)).filter(|value| *value < 0).map(Self::Negative),
        }
    }

    /// The fewest bytes that hold the integer, in `room`.
    pub(super) fn bytes(self, room: &mut [u8; 17]) -> &[u8] {
        let (fill, whole) = match self {
            Self::Unsigned(value) => (0, value.to_be_bytes()),
            Self::Negative(value) => (0xFF, value.to_be_bytes()),
        };
        room[0] = fill;
        room[1..].copy_from_slice(&whole);
        let mut from = 0;
        while from < 16 && room[from] == fill && (room[from + 1] ^ fill) & 0x80 == 0 {
            from += 1;
        }
        &room[from..]
    }
}

/// Hands an integer over as 64 bits where these hold it, as every type expects it.
pub(super) fn visit_integer<'de, V: Visitor<'de>, E: Error>(
    integer: Integer,
    visitor: V,
) -> Result<V::Value, E> {
    match integer {
        Integer::Unsigned(value) => match u64::try_from(value) {
            Ok(value) => visitor.visit_u64(value),
            Err(_) => visitor.visit_u128(value),
        },
        Integer::Negative(value) => match i64::try_from(value) {
            Ok(value) => visitor.visit_i64(value),
            Err(_) => visitor.visit_i128(value),
        },
    }
}

/// The text of a timestamp of 32, 64 or 96 bits, as `JSON.stringify` writes a date; a moment between two milliseconds has all its digits.
/// None for other lengths, such as an invalid date of Node.js has.
pub(super) fn date(bytes: &[u8]) -> Option<String> {
    let (seconds, nanoseconds) = match *bytes {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            (i64::try_from(both & 0x3_FFFF_FFFF).ok()?, u32::try_from(both >> 34).ok()?)
        }
        [a, b, c, d, ref seconds @ ..] => {
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes([a, b, c, d]))
        }
        _ => return None,
    };
    if nanoseconds >= 1_000_000_000 {
        return None;
    }
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let year = if (0..=9999).contains(&year) {
        format!("{year:04}")
    } else {
        // As ISO 8601 writes a year of more than four digits.
        format!("{}{:06}", if year < 0 { '-' } else { '+' }, year.unsigned_abs())
    };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let mut fraction = format!("{nanoseconds:09}");
    while fraction.len() > 3 && fraction.ends_with('0') {
        fraction.pop();
    }
    Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction}Z"))
}

/// Year, month and day of a number of days since 1970-01-01: years that begin in March, in eras of 400 years, which all have the same
/// number of days.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    // The days before 1970 that an era begins.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codec_knows_extensions_by_this_name() {
        assert_eq!(EXTENSION, rmp_serde::MSGPACK_EXT_STRUCT_NAME);
    }

    #[test]
    fn an_integer_is_its_bytes() {
        let mut integers =
            vec![Integer::Unsigned(0), Integer::Unsigned(u128::MAX), Integer::Negative(i128::MIN)];
        for shift in 0..128 {
            integers.extend([1_u128 << shift, (1 << shift) - 1].map(Integer::Unsigned));
            integers.extend(
                [-(1_i128 << shift.min(126)), -(1_i128 << shift.min(126)) - 1].map(Integer::Negative),
            );
        }
        for integer in integers {
            let mut room = [0; 17];
            let bytes = integer.bytes(&mut room);
            assert_eq!(Integer::of_bytes(bytes), Some(integer), "{bytes:?}");
            let longer =
                [&[if matches!(integer, Integer::Negative(_)) { 0xFF } else { 0 }; 5][..], bytes].concat();
            assert_eq!(Integer::of_bytes(&longer), Some(integer), "{longer:?}");
        }
        assert_eq!(Integer::of_bytes(&[]), None);
        assert_eq!(Integer::of_bytes(&[1; 17]), None);
        assert_eq!(Integer::of_bytes(&[[0xFF].as_slice(), &[0; 16]].concat()), None);
        // As msgpackr writes 2n ** 64n and -(2n ** 64n).
        assert_eq!(Integer::Unsigned(1 << 64).bytes(&mut [0; 17]), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Integer::Negative(-(1 << 64)).bytes(&mut [0; 17]), [0xFF, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_moment_is_written_as_javascript_writes_a_date() {
        let long = |seconds: i64, nanoseconds: u32| {
            date(&[&nanoseconds.to_be_bytes()[..], &seconds.to_be_bytes()].concat())
        };
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
            (8_640_000_000_000_000, "+275760-09-13T00:00:00.000Z"),
            (-8_640_000_000_000_000, "-271821-04-20T00:00:00.000Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
        ] {
            let nanoseconds = u32::try_from(i64::rem_euclid(milliseconds, 1000)).unwrap() * 1_000_000;
            assert_eq!(long(milliseconds.div_euclid(1000), nanoseconds).as_deref(), Some(text));
        }
        assert_eq!(long(0, 1).as_deref(), Some("1970-01-01T00:00:00.000000001Z"));
        assert_eq!(long(0, 120_500_000).as_deref(), Some("1970-01-01T00:00:00.1205Z"));
        assert_eq!(long(0, 1_000_000_000), None);
        assert!(long(i64::MAX, 0).is_some() && long(i64::MIN, 0).is_some());
    }
}
