//! Money: a whole number of minor units (cents) and its decimal form on the wire. It owns the one grammar and the one
//! arithmetic every crate uses; it refuses floats, rounding and overflow. Which amounts an operation accepts is a rule
//! of accounts, not of money.

use std::fmt;

/// Minor units in one unit: two decimals.
const MINOR_PER_UNIT: u64 = 100;

/// Digits before the point that a request may carry: 16 and two decimals stay within `i64` with room to add.
const REQUEST_DIGITS: usize = 16;

/// Digits before the point that a balance may have: `i64::MAX` minor units has 17.
const SIGNED_DIGITS: usize = 17;

/// An amount, balance or difference in minor units (cents).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i64);

/// Why a text is not money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoneyError {
    /// The text does not follow the grammar.
    Malformed,
    /// The text follows the grammar, but the value does not fit 64 bits of minor units.
    OutOfRange,
}

impl fmt::Display for MoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => {
                "not a decimal amount: give up to 16 digits and at most two decimals, such as 10, 7.5 or 10.00"
            }
            Self::OutOfRange => "amount out of range: the largest balance is 92233720368547758.07",
        })
    }
}

impl std::error::Error for MoneyError {}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The given number of minor units (cents).
    pub const fn from_minor(minor: i64) -> Self {
        Self(minor)
    }

    /// The value in minor units (cents).
    pub const fn minor(self) -> i64 {
        self.0
    }

    /// Reads an amount as requests carry it: `(0|[1-9][0-9]{0,15})(\.[0-9]{1,2})?`.
    ///
    /// # Errors
    /// [`MoneyError::Malformed`] for anything else: signs, exponents, blanks, three decimals, 17 digits.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let minor = magnitude(text, REQUEST_DIGITS).ok_or(MoneyError::Malformed)?;
        i64::try_from(minor).map(Self).map_err(|_| MoneyError::OutOfRange)
    }

    /// Reads a balance or a difference as answers carry it: the grammar of [`Money::parse`] with an optional `-` and
    /// up to 17 digits, so that every value [`Money`] can display is read back.
    ///
    /// # Errors
    /// [`MoneyError::Malformed`] when the text breaks the grammar, [`MoneyError::OutOfRange`] when the value does not
    /// fit.
    pub fn parse_signed(text: &str) -> Result<Self, MoneyError> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let minor = magnitude(digits, SIGNED_DIGITS).ok_or(MoneyError::Malformed)?;
        let signed = if negative { 0_i64.checked_sub_unsigned(minor) } else { 0_i64.checked_add_unsigned(minor) };
        signed.map(Self).ok_or(MoneyError::OutOfRange)
    }

    /// The sum, or `None` when it does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(minor) => Some(Self(minor)),
            None => None,
        }
    }

    /// The difference, or `None` when it does not fit.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(minor) => Some(Self(minor)),
            None => None,
        }
    }

    /// The opposite, or `None` when it does not fit.
    pub const fn checked_neg(self) -> Option<Self> {
        match self.0.checked_neg() {
            Some(minor) => Some(Self(minor)),
            None => None,
        }
    }
}

/// Always two decimals: `10.00`, `-0.05`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        // `pad` keeps width and alignment working in tables.
        f.pad(&format!("{sign}{}.{:02}", magnitude / MINOR_PER_UNIT, magnitude % MINOR_PER_UNIT))
    }
}

/// The minor units of an unsigned decimal with 1 to `max_digits` (at most 17) digits before the point.
fn magnitude(text: &str, max_digits: usize) -> Option<u64> {
    let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let leading_zero = units.len() > 1 && units.starts_with('0');
    if leading_zero || units.len() > max_digits || decimals.len() > 2 {
        return None;
    }
    let tenths_only = decimals.len() == 1;
    Some(digits(units)? * MINOR_PER_UNIT + digits(decimals)? * if tenths_only { 10 } else { 1 })
}

/// The value of a text of ASCII digits alone; `str::parse` would take a leading `+`.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_wire_grammar() {
        for (text, minor) in [
            ("0", 0),
            ("0.0", 0),
            ("0.01", 1),
            ("7.5", 750),
            ("10", 1_000),
            ("10.00", 1_000),
            ("9999999999999999.99", 999_999_999_999_999_999),
        ] {
            assert_eq!(Money::parse(text), Ok(Money(minor)), "{text:?}");
            assert_eq!(Money::parse_signed(text), Ok(Money(minor)), "{text:?}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "-0",
            "--1",
            "01",
            "00",
            "1.001",
            "1.+1",
            "1.-1",
            "1.2.3",
            "NaN",
            "inf",
            "1e9",
            "1 ",
            " 1",
            "1,00",
            "0x1",
            "١",
            "１",
            "10000000000000000",
            "999999999999999999999999999999",
        ] {
            assert_eq!(Money::parse(text), Err(MoneyError::Malformed), "{text:?}");
        }
        for text in ["", "-", "--1", "-01", "+1", "-1.001", "-NaN", "- 1", "100000000000000000"] {
            assert_eq!(Money::parse_signed(text), Err(MoneyError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn reads_signed_values_to_the_limits_of_i64() {
        for (text, expected) in [
            ("-10.00", Ok(Money(-1_000))),
            ("-0.05", Ok(Money(-5))),
            ("92233720368547758.07", Ok(Money(i64::MAX))),
            ("-92233720368547758.08", Ok(Money(i64::MIN))),
            ("92233720368547758.08", Err(MoneyError::OutOfRange)),
            ("-92233720368547758.09", Err(MoneyError::OutOfRange)),
            ("99999999999999999.99", Err(MoneyError::OutOfRange)),
        ] {
            assert_eq!(Money::parse_signed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn arithmetic_stops_at_the_limits() {
        let (min, max, cent) = (Money(i64::MIN), Money(i64::MAX), Money(1));
        assert_eq!(max.checked_add(cent), None);
        assert_eq!(min.checked_sub(cent), None);
        assert_eq!(min.checked_neg(), None);
        assert_eq!(Money(5).checked_sub(Money(7)), Some(Money(-2)));
        assert_eq!(Money(-2).checked_neg().and_then(|two| two.checked_add(cent)), Some(Money(3)));
    }

    #[test]
    fn displays_two_decimals_and_obeys_width() {
        assert_eq!(Money(-5).to_string(), "-0.05");
        assert_eq!(Money(1_000).to_string(), "10.00");
        assert_eq!(Money(i64::MIN).to_string(), "-92233720368547758.08");
        assert_eq!(format!("{:>8}", Money(1_000)), "   10.00");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (Money::parse(&text), Money::parse_signed(&text));
        }

        /// Texts near the grammar, where a slip would hide; the accepted ones are exactly those of the grammar.
        #[test]
        fn accepts_exactly_the_grammar(text in "[-+0-9.e ]{0,22}") {
            let (units, decimals) = text.split_once('.').map_or((text.as_str(), None), |(u, d)| (u, Some(d)));
            let all_digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
            let in_grammar = (units == "0" || (1..=16).contains(&units.len()) && all_digits(units) && !units.starts_with('0'))
                && decimals.is_none_or(|d| (1..=2).contains(&d.len()) && all_digits(d));
            prop_assert_eq!(Money::parse(&text).is_ok(), in_grammar);
        }

        #[test]
        fn what_is_displayed_is_read_back(minor in any::<i64>()) {
            let money = Money::from_minor(minor);
            prop_assert_eq!(Money::parse_signed(&money.to_string()), Ok(money));
            if (0..=999_999_999_999_999_999).contains(&minor) {
                prop_assert_eq!(Money::parse(&money.to_string()), Ok(money));
            }
        }
    }
}
