//! Wall-clock instants as the API shows them: RFC 3339 UTC with microseconds and `Z`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
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
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_i64(self.0) }
    }
}

/// Reads what no person reads: the number, or the text of earlier releases.
struct Packed;

impl Visitor<'_> for Packed {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("microseconds since the Unix epoch, or an RFC 3339 date-time")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Timestamp, E> {
        Ok(Timestamp(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Timestamp, E> {
        i64::try_from(number).map(Timestamp).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Timestamp, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return d.deserialize_any(Packed);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(Error::custom)
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
    fn what_no_person_reads_is_a_number_and_was_a_text() {
        let time = Timestamp(1_700_000_000_123_456);
        let packed = rmp_serde::to_vec(&time).unwrap();
        assert_eq!(packed.len(), 9);
        let earlier = rmp_serde::to_vec("2023-11-14T22:13:20.123456Z").unwrap();
        for bytes in [packed, earlier] {
            assert_eq!(rmp_serde::from_slice::<Timestamp>(&bytes).unwrap(), time);
        }
        let before = Timestamp(-1);
        assert_eq!(rmp_serde::from_slice::<Timestamp>(&rmp_serde::to_vec(&before).unwrap()).unwrap(), before);
        assert!(rmp_serde::from_slice::<Timestamp>(&rmp_serde::to_vec(&u64::MAX).unwrap()).is_err());
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2023-11-14T22:13:20.123456Z\"");
        assert!(serde_json::from_str::<Timestamp>("1700000000123456").is_err());
    }

    #[test]
    fn reads_what_it_writes_and_other_offsets() {
        let t = Timestamp(1_700_000_000_123_456);
        assert_eq!(t.to_string().parse(), Ok(t));
        assert_eq!("2023-11-14T23:13:20.123456+01:00".parse(), Ok(t));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
