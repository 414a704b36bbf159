//! Handing a call to somebody else.

use std::fmt;
use std::str::FromStr;

use crate::{CarrierAddress, E164};

/// Digits of an extension at most; more are a number of the public network.
pub const MAX_EXTENSION: usize = 5;
/// Longest user part of a target's URI, in bytes.
const MAX_USER: usize = 64;

/// How long the target of a transfer may take to answer, in seconds.
pub const TRANSFER_SECONDS: std::ops::RangeInclusive<u32> = 5..=120;

/// Who is to get the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferTarget {
    /// A telephone number.
    Number(E164),
    /// Somebody at a PBX or carrier, by SIP URI.
    Uri {
        /// User part.
        user: String,
        /// Host and port.
        address: CarrierAddress,
    },
}

impl TransferTarget {
    /// The telephone number it stands for; an extension is none.
    #[must_use]
    pub fn number(&self) -> Option<E164> {
        match self {
            Self::Number(number) => Some(number.clone()),
            Self::Uri { user, .. } => {
                let digits = user.bytes().filter(u8::is_ascii_digit).count();
                E164::normalise(user).filter(|_| user.starts_with('+') || digits > MAX_EXTENSION)
            }
        }
    }

    /// The user part of a URI that calls it.
    #[must_use]
    pub fn user(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Uri { user, .. } => user.clone(),
        }
    }
}

impl fmt::Display for TransferTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Uri { user, address } => write!(f, "sip:{user}@{address}"),
        }
    }
}

impl FromStr for TransferTarget {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = || {
            "must be an E.164 number (+14155550100) or a SIP URI of user and host (sip:1001@pbx.example), without parameters or headers"
                .to_owned()
        };
        if text.starts_with('+') {
            return text.parse().map(Self::Number).map_err(|_| rule());
        }
        let rest = text.strip_prefix("sip:").ok_or_else(rule)?;
        let (user, host) = rest.split_once('@').ok_or_else(rule)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-_.!~*#".contains(&b);
        if user.is_empty() || user.len() > MAX_USER || !user.bytes().all(allowed) {
            return Err(rule());
        }
        let address = host.parse().map_err(|_| rule())?;
        Ok(Self::Uri { user: user.to_owned(), address })
    }
}

/// How a call is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransferMode {
    /// REFER; a second call bridged to the first when the carrier does not take it or cannot do it.
    #[default]
    Auto,
    /// REFER alone.
    Refer,
    /// A second call, bridged to the first.
    Bridge,
    /// A second call, on which the agent speaks with the target while the caller hears music; then bridged.
    Warm,
    /// A second call, which joins the caller and the agent.
    Conference,
}

impl TransferMode {
    /// Every value as it stands in the API.
    pub const VALUES: &'static [&'static str] = &["auto", "refer", "bridge", "warm", "conference"];

    /// Whether the agent stays with the target once that has answered.
    #[must_use]
    pub fn keeps_agent(self) -> bool {
        matches!(self, Self::Warm | Self::Conference)
    }

    /// The value as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Refer => "refer",
            Self::Bridge => "bridge",
            Self::Warm => "warm",
            Self::Conference => "conference",
        }
    }
}

impl FromStr for TransferMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "refer" => Ok(Self::Refer),
            "bridge" => Ok(Self::Bridge),
            "warm" => Ok(Self::Warm),
            "conference" => Ok(Self::Conference),
            _ => Err(format!("must be one of {}", Self::VALUES.join(", "))),
        }
    }
}

/// What becomes of a transfer whose target speaks with the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferStep {
    /// The agent leaves, the caller and the target speak with each other.
    Complete,
    /// The target is hung up on, the caller is back with the agent.
    Cancel,
    /// All three speak with each other.
    Conference,
}

impl TransferStep {
    /// Every value as it stands in the API.
    pub const VALUES: &'static [&'static str] = &["complete", "cancel", "conference"];

    /// The value as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cancel => "cancel",
            Self::Conference => "conference",
        }
    }
}

impl FromStr for TransferStep {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "complete" => Ok(Self::Complete),
            "cancel" => Ok(Self::Cancel),
            "conference" => Ok(Self::Conference),
            _ => Err(format!("must be one of {}", Self::VALUES.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_numbers_or_plain_uris() {
        for text in
            ["+14155550100", "sip:1001@pbx.example", "sip:sales@203.0.113.7:5080", "sip:a@[2001:db8::1]"]
        {
            assert_eq!(text.parse::<TransferTarget>().map(|t| t.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "14155550100",
            "+",
            "sip:pbx.example",
            "sip:@pbx.example",
            "sips:a@pbx.example",
            "tel:+14155550100",
            "http://a@b",
            "sip:a@pbx.example;transport=tcp",
            "sip:a@pbx.example?Route=x",
            "sip:a b@pbx.example",
            "sip:a>@pbx.example",
            "sip:a@pbx.example\r\nX: y",
            "sip:a:b@pbx.example",
        ] {
            assert!(text.parse::<TransferTarget>().is_err(), "{text}");
        }
    }
}
