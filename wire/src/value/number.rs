//! Numbers that change their form on the way, without a change of their value: the texts of floats that JSON lacks, and integers that
//! are read as floats.

/// A float that JSON has no number for is this text.
pub(super) fn text_of(float: f64) -> Option<&'static str> {
    match float {
        float if float.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// The float that such a text stands for, where a float is expected.
pub(super) fn float_of(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// A float of 32 or 64 bits.
pub(super) trait Float: Copy + std::fmt::Display + std::str::FromStr {
    fn widened(self) -> f64;
}

impl Float for f32 {
    fn widened(self) -> f64 {
        f64::from(self)
    }
}

impl Float for f64 {
    fn widened(self) -> f64 {
        self
    }
}

/// The longest text of an integer that a float may hold, in digits: no float is longer.
const DIGITS_MAX: usize = 310;

/// The float that holds an integer with these digits, if there is one: its value is the integer, or the digits are the text by which
/// the float is known, as JavaScript writes `1e20 / 3`. The float next to any other integer is another number.
pub(super) fn float_of_integer<F: Float>(digits: &str) -> Option<F> {
    if digits.len() > DIGITS_MAX {
        return None;
    }
    let float: F = digits.parse().ok().filter(|float: &F| float.widened().is_finite())?;
    let holds = float.to_string() == digits || format!("{float:.0}") == digits;
    holds.then_some(float)
}

/// Why an integer is not read as a float.
pub(super) fn no_float_of_integer(digits: &str) -> String {
    format!("no float holds the integer {digits} exactly")
}

/// The float that a number with a fraction or an exponent is read as. The nearest float stands for it, but neither an infinity nor a
/// zero stands for a number that is too large or too small.
pub(super) fn float_of_decimal<F: Float>(number: &str) -> Result<F, String> {
    let beyond = || format!("{} is beyond the range of a float", shown(number));
    let float: F = number.parse().map_err(|_| beyond())?;
    let vanishes = || {
        let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
        mantissa.bytes().any(|digit| (b'1'..=b'9').contains(&digit))
    };
    let wide = float.widened();
    if !wide.is_finite() || (wide == 0.0 && vanishes()) { Err(beyond()) } else { Ok(float) }
}

/// The start of a number that may be of any length.
pub(super) fn shown(number: &str) -> String {
    const SHOWN_MAX: usize = 40;
    match number.get(..SHOWN_MAX) {
        Some(start) if number.len() > SHOWN_MAX => format!("{start}.. ({} characters)", number.len()),
        _ => number.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_read_as_a_float_that_holds_it_or_not_at_all() {
        for digits in ["0", "-1", "9007199254740992", "-9007199254740992", "18446744073709551616"] {
            assert_eq!(
                float_of_integer::<f64>(digits).map(|float| format!("{float:.0}")).as_deref(),
                Some(digits)
            );
        }
        // As JavaScript writes 1e20 / 3, whose value is 33333333333333331968.
        assert_eq!(float_of_integer::<f64>("33333333333333330000"), Some(1e20 / 3.0));
        for digits in ["9007199254740993", "-9007199254740993", "18446744073709551615", "16777217"] {
            assert_eq!(float_of_integer::<f32>(digits), None, "{digits}");
        }
        assert_eq!(float_of_integer::<f64>("9007199254740993"), None);
        assert_eq!(float_of_integer::<f64>(&"9".repeat(400)), None);
    }

    #[test]
    fn a_decimal_is_its_nearest_float_but_no_infinity_and_no_zero() {
        assert_eq!(float_of_decimal::<f64>("0.1"), Ok(0.1));
        assert_eq!(float_of_decimal::<f64>("-0.0").map(f64::to_bits), Ok((-0.0_f64).to_bits()));
        assert_eq!(float_of_decimal::<f64>("0e5"), Ok(0.0));
        assert_eq!(float_of_decimal::<f64>("5e-324"), Ok(f64::from_bits(1)));
        for beyond in ["1e400", "-1e400", "1e-400"] {
            assert!(float_of_decimal::<f64>(beyond).is_err(), "{beyond}");
        }
        assert!(float_of_decimal::<f32>("1e39").is_err() && float_of_decimal::<f32>("1e-60").is_err());
    }
}
