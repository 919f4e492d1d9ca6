//! Values that the tracer makes up, and in which order: first zero or empty, then ordinary values, then texts of the forms that
//! validated types ask for.

use super::refused::Refused;
use serde::de::Visitor;

/// A value that has no places within it. All kinds of text are one kind, and so are all kinds of byte strings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaf {
    Unit,
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Text,
    Bytes,
}

/// The first eight fit every width, and months, percents and the like. Then, for 16 bits and more, years, ports and codes; the last
/// one is for signed numbers only.
const NUMBERS: [i16; 18] =
    [0, 1, 2, 12, 100, 3, 10, 50, 2000, 200, 300, 400, 404, 500, 1000, 8080, 10_000, -1];
const CHARS: [char; 5] = ['\0', 'a', 'A', '1', ' '];

/// At most 64, since a word notes which of them a place refuses.
const TEXTS: [&str; 60] = [
    "",
    "a",
    "1",
    "0",
    "A",
    "abc",
    "2024-02-03T04:05:06Z",
    "2024-02-03",
    "2024-02-03T04:05:06",
    "04:05:06",
    "2024-02-03T04:05:06+00:00",
    "2024-02-03T04:05:06+00:00[UTC]",
    "2024-02-03T04:05:06+00:00[+00:00]",
    "2024-02-03 04:05:06 UTC",
    "PT1S",
    "1s",
    "UTC",
    "+00:00",
    "2024",
    "2024-02",
    "January",
    "Monday",
    "12:00",
    "127.0.0.1",
    "::1",
    "127.0.0.1:80",
    "[::1]:80",
    "127.0.0.0/8",
    "localhost:80",
    "02:00:00:00:00:01",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "67e55044-10b1-426f-9247-bb680e5fe0c8",
    "https://example.com/",
    "example.com",
    "someone@example.com",
    "/a",
    "1.0.0",
    "^1.0",
    "1.5",
    "12",
    "123456",
    "true",
    "en",
    "en-US",
    "DE",
    "USD",
    "GET",
    "text/plain",
    "#00ff00",
    "00",
    "AAAA",
    "{}",
    "[]",
    "* * * * * *",
    "+12025550123",
    "0123456789abcdef",
    "0123456789abcdef01234567",
    "0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef01234567",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];

/// The lengths of digests, keys and addresses are among these.
const BYTES_LENS: [usize; 12] = [0, 1, 4, 8, 12, 16, 20, 24, 32, 33, 48, 64];
/// No byte is zero, which strings of C refuse.
const BYTES: [u8; 64] = [1; 64];

/// How many elements a list may have, and how many entries a map.
const LIST_LENS: [usize; 12] = [0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 32, 64];
const MAP_LENS: [usize; 3] = [0, 1, 2];

impl Leaf {
    /// How many values there are.
    pub(super) fn values(self) -> usize {
        match self {
            Leaf::Unit => 1,
            Leaf::Bool => 2,
            Leaf::I8 | Leaf::U8 => 8,
            Leaf::U16 | Leaf::U32 | Leaf::U64 | Leaf::U128 => NUMBERS.len() - 1,
            Leaf::I16 | Leaf::I32 | Leaf::I64 | Leaf::I128 | Leaf::F32 | Leaf::F64 => NUMBERS.len(),
            Leaf::Char => CHARS.len(),
            Leaf::Text => TEXTS.len(),
            Leaf::Bytes => BYTES_LENS.len(),
        }
    }
}

/// How many elements a list has that is made up as number `choice`; `None` if there is no such number.
pub(super) fn list_len(choice: usize) -> Option<usize> {
    LIST_LENS.get(choice).copied()
}

/// The same for a map and its entries.
pub(super) fn map_len(choice: usize) -> Option<usize> {
    MAP_LENS.get(choice).copied()
}

pub(super) const LIST_CHOICES: usize = LIST_LENS.len();
pub(super) const MAP_CHOICES: usize = MAP_LENS.len();

macro_rules! visit_numbers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        pub(super) fn $method<'de, V: Visitor<'de>>(visitor: V, choice: usize) -> Result<V::Value, Refused> {
            visitor.$visit(NUMBERS[choice] as $type)
        }
    )*};
}

visit_numbers! {
    visit_i8 visit_i8 i8;
    visit_i16 visit_i16 i16;
    visit_i32 visit_i32 i32;
    visit_i64 visit_i64 i64;
    visit_i128 visit_i128 i128;
    visit_u8 visit_u8 u8;
    visit_u16 visit_u16 u16;
    visit_u32 visit_u32 u32;
    visit_u64 visit_u64 u64;
    visit_u128 visit_u128 u128;
    visit_f32 visit_f32 f32;
    visit_f64 visit_f64 f64;
}

pub(super) fn bool_of(choice: usize) -> bool {
    choice != 0
}

pub(super) fn char_of(choice: usize) -> char {
    CHARS[choice]
}

pub(super) fn text_of(choice: usize) -> &'static str {
    TEXTS[choice]
}

pub(super) fn bytes_of(choice: usize) -> &'static [u8] {
    &BYTES[..BYTES_LENS[choice]]
}
