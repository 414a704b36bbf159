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
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
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
