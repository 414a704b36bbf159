//! Identifiers: UUIDs, each kind a type of its own so that one cannot stand for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new UUIDv7: ordered by creation time.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(s).map(Self)
            }
        }
    };
}

id!(/// An organization: the owner of everything else.
    OrganizationId);
id!(/// A SIP trunk.
    TrunkId);
id!(/// An agent.
    AgentId);
id!(/// One version of an agent.
    AgentVersionId);
id!(/// A conversation: one call.
    ConversationId);
id!(/// An organization's API key (the public half of `ak_<id>.<secret>`).
    KeyId);
id!(/// A person with a personal access token.
    UserId);
id!(/// A decision record.
    DecisionId);
id!(/// An endpoint that is told of events.
    WebhookId);
id!(/// One telling of an event to an endpoint.
    DeliveryId);
