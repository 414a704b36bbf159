//! What the data plane must know of the configuration, and how changes reach it.

use crate::inbound_routing::InboundRouting;
use crate::{
    AddressRange, AgentConfig, AgentId, AgentVersionId, DestinationPrefix, E164, OrganizationId, PhoneNumber,
    Trunk, TrunkId,
};
use std::sync::Arc;

/// An organization as the data plane sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct OrganizationEntry {
    /// Identifier.
    pub id: OrganizationId,
    /// Who may call its agent URIs; `None` means anyone.
    pub sip_endpoint_allowed_addresses: Option<Vec<AddressRange>>,
    /// Where its agents may call; `None` means anywhere.
    pub allowed_destinations: Option<Vec<DestinationPrefix>>,
    /// Who answers its numbers, when it has a routing.
    pub inbound_routing: Option<InboundRouting>,
}

/// An agent as the data plane sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentEntry {
    /// Identifier.
    pub id: AgentId,
    /// Owner.
    pub organization_id: OrganizationId,
    /// An inactive agent answers no call.
    pub active: bool,
    /// Whether its SIP URI is answered.
    pub sip_deployed: bool,
    /// The version published last, which answers its SIP URI.
    pub latest_published: Option<AgentVersionId>,
}

/// A version as the data plane sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionEntry {
    /// Identifier.
    pub id: AgentVersionId,
    /// The agent.
    pub agent_id: AgentId,
    /// Counts from 1.
    pub version: i64,
    /// What it does; its calls share it.
    pub config: Arc<AgentConfig>,
}

/// One change of the configuration: the new value, or `None` when the thing is gone.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum DirectoryChange {
    Organization(OrganizationId, Option<Arc<OrganizationEntry>>),
    Trunk(TrunkId, Option<Arc<Trunk>>),
    Number(E164, Option<Arc<PhoneNumber>>),
    Agent(AgentId, Option<Arc<AgentEntry>>),
    Version(AgentVersionId, Option<Arc<VersionEntry>>),
}
