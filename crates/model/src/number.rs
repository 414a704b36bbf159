//! Telephone numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{AgentVersionId, OrganizationId, Timestamp, TrunkId};

/// An E.164 number with its `+`: 2 to 15 digits, the first not 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct E164(String);

impl E164 {
    /// The number with its `+`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a dialled or displayed number as carriers send it: visual separators are dropped, `+`, `00` or nothing
    /// may precede the country code. `None` when it is not a number.
    #[must_use]
    pub fn normalise(text: &str) -> Option<Self> {
        // The telephone-subscriber part may carry parameters (RFC 3966 3).
        let text = text.split(';').next().unwrap_or(text).trim();
        let (plus, rest) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut digits = String::with_capacity(16);
        digits.push('+');
        for c in rest.chars() {
            match c {
                '0'..='9' if digits.len() < 20 => digits.push(c),
                '-' | '.' | '(' | ')' | ' ' => {}
                _ => return None,
            }
        }
        if !plus && digits.starts_with("+00") {
            digits.drain(1..3);
        }
        digits.parse().ok()
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for E164 {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('+').unwrap_or("");
        let well_formed = (2..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be an E.164 number: + and 2 to 15 digits, the first not 0, for example +14155550100"
                .to_owned())
        }
    }
}

impl<'de> Deserialize<'de> for E164 {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A number on a trunk. The two slots name an agent version, are independent, and are written by publish alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneNumber {
    /// The number, unique across the system.
    pub phone_number: E164,
    /// Owner.
    pub organization_id: OrganizationId,
    /// The trunk it arrives on and leaves by.
    pub trunk_id: TrunkId,
    /// Who answers.
    pub inbound_agent_version_id: Option<AgentVersionId>,
    /// Whose caller ID it is.
    pub outbound_agent_version_id: Option<AgentVersionId>,
    /// Whether other agents of the same organization may use it as caller ID.
    pub outbound_shareable: bool,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_what_carriers_send() {
        for text in ["+14155550100", "14155550100", "0014155550100", "+1 (415) 555-0100", "+14155550100;npdi"]
        {
            assert_eq!(
                E164::normalise(text).map(|n| n.to_string()).as_deref(),
                Some("+14155550100"),
                "{text}"
            );
        }
        for text in ["", "+", "alice", "+0123", "1234567890123456", "+1415555010a", "anonymous"] {
            assert_eq!(E164::normalise(text), None, "{text}");
        }
    }
}
