//! The Replaces header (RFC 3891): an INVITE that takes the place of a dialog.

use std::fmt;

use super::scan::param;

/// Longest value read, in bytes.
const MAX_REPLACES: usize = 512;

/// Which dialog is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaces {
    /// Its Call-ID.
    pub call_id: String,
    /// The tag of the side that gets the INVITE.
    pub to_tag: String,
    /// The tag of its peer.
    pub from_tag: String,
    /// Only while the dialog is early.
    pub early_only: bool,
}

impl Replaces {
    /// Reads a header value. `None` when it breaks the grammar: both tags stand in it exactly once.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let whole = value.len() <= MAX_REPLACES && !value.contains([',', '\r', '\n', '\0', '"', '<', '>']);
        if !whole {
            return None;
        }
        let (call_id, params) = value.split_once(';')?;
        let once = |name: &str| {
            let named = |p: &&str| p.split('=').next().is_some_and(|n| n.trim().eq_ignore_ascii_case(name));
            params.split(';').filter(named).count() == 1
        };
        let tag = |name: &str| param(params, name).filter(|tag| once(name) && !tag.is_empty());
        let call_id = call_id.trim();
        if call_id.is_empty() || call_id.contains([' ', '\t']) {
            return None;
        }
        Some(Self {
            call_id: call_id.to_owned(),
            to_tag: tag("to-tag")?.to_owned(),
            from_tag: tag("from-tag")?.to_owned(),
            early_only: param(params, "early-only").is_some(),
        })
    }
}

impl fmt::Display for Replaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};to-tag={};from-tag={}", self.call_id, self.to_tag, self.from_tag)?;
        if self.early_only { f.write_str(";early-only") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_written() {
        let text = "425928@bobster.example.org;to-tag=7743;from-tag=6472;early-only";
        let read = Replaces::parse(text).unwrap();
        assert_eq!((read.to_tag.as_str(), read.early_only), ("7743", true));
        assert_eq!(read.to_string(), text);
        assert!(Replaces::parse("a ;from-tag=x; to-tag=y").is_some_and(|r| r.from_tag == "x"));
    }

    #[test]
    fn broken_ones_are_not() {
        for text in [
            "",
            "a",
            "a;to-tag=x",
            "a;from-tag=x",
            ";to-tag=x;from-tag=y",
            "a;to-tag=;from-tag=y",
            "a;to-tag=x;from-tag=y;to-tag=z",
            "a;to-tag=x;from-tag=y, b;to-tag=x;from-tag=y",
            "a b;to-tag=x;from-tag=y",
        ] {
            assert_eq!(Replaces::parse(text), None, "{text}");
        }
    }
}
