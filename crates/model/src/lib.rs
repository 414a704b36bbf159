//! Domain types and rules of Tandem: what a trunk, a number, an agent and a call are, and what values they
//! may take. No SQL, no HTTP, no SIP messages: those crates translate to and from these types.

pub mod address;
pub mod agent;
pub mod call;
pub mod decision;
pub mod directory;
pub mod id;
pub mod inbound_routing;
pub mod invalid;
pub mod number;
pub mod organization;
pub mod quality;
pub mod runtime;
pub mod secret;
pub mod target;
pub mod time;
mod trace;
mod transfer;
pub mod trunk;
pub mod webhook;

pub use address::{AddressRange, CarrierAddress};
pub use agent::{
    Agent, AgentConfig, AgentVersion, Play, Recording, RecordingFormat, Runtime, Sound, Tone,
    VoicemailDetection,
};
pub use call::{
    Conversation, ConversationStatus, Direction, EndedBy, RecordStep, RecordingDetails, RecordingPause,
    recording_path,
};
pub use decision::{DecisionRecord, RuleResult, Step};
pub use id::{
    AgentId, AgentVersionId, ConversationId, DecisionId, DeliveryId, KeyId, OrganizationId, TrunkId, UserId,
    WebhookId,
};
pub use invalid::Invalid;
pub use number::{E164, PhoneNumber};
pub use organization::{DestinationPrefix, Organization, Scope};
pub use quality::{CallQuality, OneWayAudio, SecondQuality, StreamQuality};
pub use runtime::{Audiosocket, Dial, MediaStream, OpenaiRealtime, TandemLink};
pub use secret::Secret;
pub use target::{PrivateTargets, TargetRefused};
pub use time::Timestamp;
pub use trace::{PackedTrace, Trace, TraceMessage, TraceMessageView, TraceView};
pub use transfer::{MAX_EXTENSION, TRANSFER_SECONDS, TransferMode, TransferStep, TransferTarget};
pub use trunk::{InboundAuth, InboundConfig, MediaEncryption, OutboundConfig, Transport, Trunk};
pub use webhook::{Delivery, DeliveryState, Webhook, WebhookEvent};
