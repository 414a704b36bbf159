//! Wall-clock instants as the API shows them: RFC 3339 UTC with microseconds and `Z`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The present, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// Whole seconds from `earlier` to `self`; 0 when the clock stepped backwards in between.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> i64 {
        (self.0.saturating_sub(earlier.0) / 1_000_000).max(0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse::<jiff::Timestamp>().map(|t| Self(t.as_microsecond())).map_err(|_| {
            "must be an RFC 3339 date-time with an offset, for example 2026-01-31T12:00:00Z".to_owned()
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_six_decimals_and_z() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp(1_700_000_000_000_001).to_string(), "2023-11-14T22:13:20.000001Z");
    }

    #[test]
    fn reads_what_it_writes_and_other_offsets() {
        let t = Timestamp(1_700_000_000_123_456);
        assert_eq!(t.to_string().parse(), Ok(t));
        assert_eq!("2023-11-14T23:13:20.123456+01:00".parse(), Ok(t));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
