// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sizes and durations as people write them: `"1.5TiB"`, `"90s"`.
//!
//! The crates below keep plain numbers and say the unit in the name: `cache_bytes_max`,
//! `trash_secs`, `hello_timeout_ms`. The name is therefore all that is needed to read human text
//! for any of them, and no crate has to know how people write.

use bytesize::ByteSize;

/// What a setting counts, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `bytes`, also per second.
    Bytes,
    /// `secs`.
    Seconds,
    /// `millis` or `ms`.
    Millis,
}

/// Text that is no size or no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} is no {kind}; write {example}")]
pub struct UnitError {
    kind: &'static str,
    input: String,
    example: &'static str,
}

impl Unit {
    /// The unit of a setting, by its name without its section.
    pub fn of(name: &str) -> Option<Self> {
        name.split('_').find_map(|word| match word {
            "bytes" => Some(Self::Bytes),
            "secs" => Some(Self::Seconds),
            "millis" | "ms" => Some(Self::Millis),
            _ => None,
        })
    }

    /// Reads a number with or without a unit. A bare number counts what the name says.
    ///
    /// # Errors
    /// Says what to write instead.
    pub fn parse(self, text: &str) -> Result<u64, UnitError> {
        let number = match self {
            Self::Bytes => bytes(text),
            Self::Seconds => nanoseconds(text, 1_000_000_000),
            Self::Millis => nanoseconds(text, 1_000_000),
        };
        number.ok_or_else(|| self.error(text))
    }

    fn error(self, text: &str) -> UnitError {
        let (kind, example) = match self {
            Self::Bytes => ("size", "a number and a unit, such as \"500MiB\" or \"1.5TiB\""),
            Self::Seconds => ("time in whole seconds", "\"90s\", \"6h\" or \"30days\""),
            Self::Millis => ("time in whole milliseconds", "\"250ms\", \"90s\" or \"6h\""),
        };
        UnitError { kind, input: text.chars().take(40).collect(), example }
    }
}

fn bytes(text: &str) -> Option<u64> {
    let size = text.trim().parse::<ByteSize>().ok()?.as_u64();
    // The parser saturates: what does not fit a TOML integer is a slip of the pen, not a wish.
    (size < i64::MAX.unsigned_abs()).then_some(size)
}

/// A time in units of `unit_nanos`, of which it must be a whole number.
fn nanoseconds(text: &str, unit_nanos: u128) -> Option<u64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<u64>() {
        return (number < i64::MAX.unsigned_abs()).then_some(number);
    }
    let nanos = humantime::parse_duration(text).ok()?.as_nanos();
    if nanos % unit_nanos != 0 {
        return None;
    }
    u64::try_from(nanos / unit_nanos).ok().filter(|number| *number < i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::Unit;

    #[test]
    fn the_name_says_the_unit() {
        assert_eq!(Unit::of("capacity_bytes"), Some(Unit::Bytes));
        assert_eq!(Unit::of("bytes_per_sec"), Some(Unit::Bytes));
        assert_eq!(Unit::of("deadline_secs"), Some(Unit::Seconds));
        assert_eq!(Unit::of("batch_window_millis"), Some(Unit::Millis));
        assert_eq!(Unit::of("retry_after_ms"), Some(Unit::Millis));
        for name in ["requests_per_sec", "listen", "filter", "items_max"] {
            assert_eq!(Unit::of(name), None, "{name}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let size = |text| Unit::Bytes.parse(text).ok();
        assert_eq!(size("500MiB"), Some(500 << 20));
        assert_eq!(size("1.5 TiB"), Some(3 << 39));
        assert_eq!(size("2kB"), Some(2000));
        assert_eq!(size("0"), Some(0));
        for text in ["", "12XB", "-1GiB", "many", "99999999EiB"] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_are_read_in_the_unit_of_their_setting() {
        assert_eq!(Unit::Seconds.parse("90s"), Ok(90));
        assert_eq!(Unit::Seconds.parse("30days"), Ok(30 * 24 * 3600));
        assert_eq!(Unit::Seconds.parse("7"), Ok(7));
        assert_eq!(Unit::Millis.parse("1m"), Ok(60_000));
        assert!(Unit::Seconds.parse("1500ms").is_err(), "no whole seconds");
        let error = Unit::Seconds.parse("ninety").expect_err("no number");
        assert!(error.to_string().contains("\"90s\""), "{error}");
    }
}
