//! The resources under `/core`.

mod agent_config;
mod agent_versions;
mod agents;
mod conversation_start;
mod conversations;
mod decisions;
mod deploy_as_sip;
mod organization;
mod phone_numbers;
mod publish;
mod trunk_health;
mod trunks;

use axum::http::{HeaderName, header};

use crate::pagination::{CursorText, LimitText};
use crate::routes::Routes;
use crate::wire::{ContainmentText, CountText, FlagText};

/// Every guarded operation.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .parameter::<CursorText>()
        .parameter::<LimitText>()
        .parameter::<ContainmentText>()
        .parameter::<CountText>()
        .parameter::<FlagText>()
        .merge(trunks::routes())
        .merge(trunk_health::routes())
        .merge(decisions::routes())
        .merge(phone_numbers::routes())
        .merge(agents::routes())
        .merge(agent_versions::routes())
        .merge(publish::routes())
        .merge(deploy_as_sip::routes())
        .merge(agent_config::routes())
        .merge(conversation_start::routes())
        .merge(conversations::routes())
        .merge(organization::routes())
}

/// `Location` of a resource that was made.
fn location(path: String) -> [(HeaderName, String); 1] {
    [(header::LOCATION, path)]
}
