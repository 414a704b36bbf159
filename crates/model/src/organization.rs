//! Organizations and what a credential may do in them.

use std::fmt;
use std::str::FromStr;

use crate::{AddressRange, OrganizationId, Timestamp};

/// The owner of trunks, numbers, agents and calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Organization {
    /// Identifier.
    pub id: OrganizationId,
    /// Name, 1–255 characters.
    pub name: String,
    /// Who may call the organization's agent URIs; `None` means anyone.
    pub sip_endpoint_allowed_addresses: Option<Vec<AddressRange>>,
    /// Where its agents may call; `None` means anywhere. Never `Some` of an empty list.
    pub allowed_destinations: Option<Vec<DestinationPrefix>>,
    /// Calls out it may place in a day (UTC); `None` means no limit.
    pub daily_call_limit: Option<u32>,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// The beginning of E.164 numbers: `+` and 1 to 15 digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationPrefix(String);

impl DestinationPrefix {
    /// Whether a number begins with it.
    #[must_use]
    pub fn covers(&self, number: &str) -> bool {
        number.starts_with(&self.0)
    }

    /// The prefix with its `+`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a number, with its `+`, may be called; no list allows any.
#[must_use]
pub fn may_call(allowed: Option<&[DestinationPrefix]>, number: &str) -> bool {
    allowed.is_none_or(|list| list.iter().any(|prefix| prefix.covers(number)))
}

impl FromStr for DestinationPrefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('+').unwrap_or("");
        let well_formed = (1..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be + and 1 to 15 digits, the first not 0, for example +1 or +4420".to_owned())
        }
    }
}

impl fmt::Display for DestinationPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! scopes {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// One permission of a credential.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Scope { $($variant),+ }

        impl Scope {
            /// Every scope there is.
            pub const ALL: &'static [Scope] = &[$(Scope::$variant),+];

            /// The scope as it stands in the API, for example `trunks:manage`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Scope::$variant => $text),+ }
            }
        }

        impl FromStr for Scope {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s {
                    $($text => Ok(Scope::$variant),)+
                    _ => Err(format!("unknown scope; one of {}", [$($text),+].join(", "))),
                }
            }
        }
    };
}

scopes! {
    TrunksRead = "trunks:read",
    TrunksManage = "trunks:manage",
    PhoneNumbersRead = "phone_numbers:read",
    PhoneNumbersManage = "phone_numbers:manage",
    AgentsRead = "agents:read",
    AgentsManage = "agents:manage",
    ConversationsRead = "conversations:read",
    ConversationsReadSensitive = "conversations:read_sensitive",
    ConversationsManage = "conversations:manage",
    ManagedAccountsManage = "managed_accounts:manage",
    CampaignsRead = "campaigns:read",
    CampaignsManage = "campaigns:manage",
    OrganizationsManage = "organizations:manage",
}

impl Scope {
    /// Whether a holder of `self` may do what `needed` allows. `manage` satisfies the matching `read`.
    #[must_use]
    pub fn satisfies(self, needed: Scope) -> bool {
        self == needed
            || matches!(
                (self, needed),
                (Scope::TrunksManage, Scope::TrunksRead)
                    | (Scope::PhoneNumbersManage, Scope::PhoneNumbersRead)
                    | (Scope::AgentsManage, Scope::AgentsRead)
                    | (Scope::ConversationsManage, Scope::ConversationsRead)
                    | (Scope::CampaignsManage, Scope::CampaignsRead)
            )
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
