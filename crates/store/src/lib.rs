//! Durable state: organizations, credentials, trunks, numbers, agents, calls. SQLite in one file; statements keep to
//! what PostgreSQL understands too.

mod agent_secrets;
mod agent_versions;
mod agents;
mod calls_out;
mod changes;
mod conversations;
mod credentials;
mod deliveries;
mod error;
mod idempotency;
mod inbound_routing;
mod key_ring;
mod organizations;
mod page;
mod phone_numbers;
mod precondition;
mod probes;
mod sqlite;
mod traces;
mod trunks;
mod webhooks;

pub use agent_versions::{Publish, PublishDirection, VersionFilter, VersionRef};
pub use agents::{AgentFilter, AgentStatistics, AgentUpdate, NewAgent};
pub use conversations::{ConversationFilter, Record};
pub use credentials::{Credential, CredentialKind, KeyInfo, NewKey, NewToken};
pub use deliveries::{Attempted, Due, Fact};
pub use error::StoreError;
pub use idempotency::Idempotency;
pub use inbound_routing::NewRouting;
pub use key_ring::KeyRing;
pub use organizations::OrganizationUpdate;
pub use page::Page;
pub use phone_numbers::{NewNumber, NumberFilter};
pub use precondition::Precondition;
pub use probes::Probe;
pub use sqlite::Store;
pub use trunks::{NewTrunk, TrunkFilter, TrunkUpdate};
pub use webhooks::{NewWebhook, WebhookUpdate};

/// Position in the change log.
pub type Seq = i64;
