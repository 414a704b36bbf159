//! Durable state: organizations, credentials, trunks, numbers, agents, calls. SQLite in one file; statements keep to
//! what PostgreSQL understands too.

mod agents;
mod changes;
mod conversations;
mod credentials;
mod error;
mod key_ring;
mod organizations;
mod page;
mod phone_numbers;
mod sqlite;
mod trunks;

pub use agents::{
    AgentFilter, AgentStatistics, AgentUpdate, NewAgent, Publish, PublishDirection, VersionFilter, VersionRef,
};
pub use conversations::{ConversationFilter, Record};
pub use credentials::{Credential, CredentialKind, NewKey, NewToken};
pub use error::StoreError;
pub use key_ring::KeyRing;
pub use page::Page;
pub use phone_numbers::{NewNumber, NumberFilter};
pub use sqlite::Store;
pub use trunks::{NewTrunk, TrunkFilter, TrunkUpdate};

/// Position in the change log.
pub type Seq = i64;
