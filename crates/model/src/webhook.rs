//! Webhooks: where an organization wants to hear of its calls, and what became of each telling.

use crate::{ConversationStatus, DeliveryId, Invalid, OrganizationId, Timestamp, WebhookId};

/// An endpoint that is told of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Identifier.
    pub id: WebhookId,
    /// Owner.
    pub organization_id: OrganizationId,
    /// Where the POST goes.
    pub url: String,
    /// Which events; `None` means all.
    pub events: Option<Vec<WebhookEvent>>,
    /// Whether it is told at all.
    pub enabled: bool,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

macro_rules! events {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// What an endpoint can be told of.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum WebhookEvent { $($variant),+ }

        impl WebhookEvent {
            /// Every event as it stands in the API.
            pub const VALUES: &'static [&'static str] = &[$($text),+];

            /// The event as it stands in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::str::FromStr for WebhookEvent {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", Self::VALUES.join(", "))),
                }
            }
        }
    };
}

events! {
    Triggered = "conversation.triggered",
    Ringing = "conversation.ringing",
    InProgress = "conversation.in_progress",
    Completed = "conversation.completed",
    Failed = "conversation.failed",
    Cancelled = "conversation.cancelled",
    Transferred = "conversation.transferred",
    Unanswered = "conversation.unanswered",
    Refused = "call.refused",
    Test = "webhook.test",
}

impl From<ConversationStatus> for WebhookEvent {
    fn from(status: ConversationStatus) -> Self {
        match status {
            ConversationStatus::Triggered => Self::Triggered,
            ConversationStatus::Ringing => Self::Ringing,
            ConversationStatus::InProgress => Self::InProgress,
            ConversationStatus::Completed => Self::Completed,
            ConversationStatus::Failed => Self::Failed,
            ConversationStatus::Cancelled => Self::Cancelled,
            ConversationStatus::Transferred => Self::Transferred,
            ConversationStatus::Unanswered => Self::Unanswered,
        }
    }
}

/// Longest URL, in bytes.
pub const MAX_URL: usize = 2_048;

/// Whether a URL is one that a POST can go to. Its host is judged when it is resolved.
pub fn check_url(url: &str) -> Result<(), String> {
    let rule = "must be an http:// or https:// URL with a host, without user, password or fragment";
    if url.len() > MAX_URL {
        return Err(format!("is longer than {MAX_URL} bytes"));
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(rule.to_owned());
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).ok_or(rule)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') || authority.contains('@') || url.contains('#') {
        return Err(rule.to_owned());
    }
    Ok(())
}

/// What became of a telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is tried, or tried again at its time.
    Pending,
    /// The endpoint took it (2xx).
    Delivered,
    /// It was given up.
    Dead,
}

impl DeliveryState {
    /// Every state as it stands in the API.
    pub const VALUES: &'static [&'static str] = &["pending", "delivered", "dead"];

    /// The state as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl std::str::FromStr for DeliveryState {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "pending" => Ok(Self::Pending),
            "delivered" => Ok(Self::Delivered),
            "dead" => Ok(Self::Dead),
            _ => Err(format!("must be one of {}", Self::VALUES.join(", "))),
        }
    }
}

/// One telling of one event to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Identifier; the `webhook-id` of every attempt.
    pub id: DeliveryId,
    /// The endpoint.
    pub webhook_id: WebhookId,
    /// What it tells of.
    pub event: WebhookEvent,
    /// Where it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is next tried; `None` unless it is pending.
    pub due_at: Option<Timestamp>,
    /// HTTP status of the last attempt.
    pub http_status: Option<u16>,
    /// What went wrong at the last attempt.
    pub error: Option<String>,
    /// When the event happened.
    pub created_at: Timestamp,
    /// Last attempt.
    pub updated_at: Timestamp,
}

/// Beginning of a webhook secret (Standard Webhooks).
pub const SECRET_PREFIX: &str = "whsec_";

/// Bytes of a webhook secret (Standard Webhooks).
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Most entries of a list of events.
pub const MAX_EVENTS: usize = 32;

/// The fault of a list of events that names none, or too many.
pub fn check_events(events: &[WebhookEvent]) -> Result<(), Invalid> {
    if events.is_empty() {
        return Err(Invalid::field("events", "must name at least one event, or be null for all"));
    }
    if events.len() > MAX_EVENTS {
        let rule = format!("has {} entries; at most {MAX_EVENTS} are allowed", events.len());
        return Err(Invalid::field("events", rule));
    }
    Ok(())
}
