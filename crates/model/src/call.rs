//! Conversations: calls as the API shows them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    AgentId, AgentVersionId, ConversationId, E164, OrganizationId, RecordingFormat, Timestamp, TrunkId,
};

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value as it stands in the API.
            pub const VALUES: &'static [&'static str] = &[$($text),+];

            /// The value as it stands in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s {
                    $($text => Ok($name::$variant),)+
                    _ => Err(format!("must be one of {}", Self::VALUES.join(", "))),
                }
            }
        }
    };
}

text_enum! {
    /// Who began the call.
    Direction {
        /// The carrier or a caller of the agent's URI.
        Inbound = "inbound",
        /// The API.
        Outbound = "outbound",
    }
}

text_enum! {
    /// Where a call stands. `triggered` → `ringing` → `in_progress` → a final status, which never changes.
    ConversationStatus {
        /// Asked for, nothing heard yet.
        Triggered = "triggered",
        /// The other side rings.
        Ringing = "ringing",
        /// Answered.
        InProgress = "in_progress",
        /// Answered and ended by either side.
        Completed = "completed",
        /// Could not be made or broke down.
        Failed = "failed",
        /// Given up before answer.
        Cancelled = "cancelled",
        /// Handed to somebody else.
        Transferred = "transferred",
        /// Nobody answered.
        Unanswered = "unanswered",
    }
}

impl ConversationStatus {
    /// Whether the call is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Triggered | Self::Ringing | Self::InProgress)
    }
}

text_enum! {
    /// Who ended the call.
    EndedBy {
        /// The remote party of an inbound call.
        Caller = "caller",
        /// The agent.
        Agent = "agent",
        /// The carrier or callee of an outbound call.
        Carrier = "carrier",
        /// `POST …/end`.
        Api = "api",
        /// Tandem itself: a limit, a timeout, a fault, a drain.
        System = "system",
    }
}

/// What can be asked of a call's recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordStep {
    /// Begin one, in the format of the agent's config when none is named; or go on with one that is paused.
    Start(Option<RecordingFormat>),
    /// Leave what is said from now on out of it.
    Pause,
    /// Take it up again.
    Resume,
}

/// A call's recording: the caller left, the agent right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingDetails {
    /// File format.
    pub format: RecordingFormat,
    /// Samples a second.
    pub sample_rate: u32,
    /// Always 2.
    pub channels: u8,
    /// When it began.
    pub started_at: Timestamp,
    /// Its length in milliseconds, pauses left out; `None` while it lasts, and when the node died in it.
    pub duration_ms: Option<u64>,
    /// What was left out of it, in order.
    #[serde(default)]
    pub pauses: Vec<RecordingPause>,
    /// Pauses beyond those listed.
    #[serde(default)]
    pub more_pauses: u32,
}

/// A stretch of the call that was left out of its recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingPause {
    /// When it began.
    pub paused_at: Timestamp,
    /// When it ended; `None` while it lasts, and when the call ended in it.
    pub resumed_at: Option<Timestamp>,
    /// Where in the recording it was left out, in milliseconds.
    pub position_ms: u64,
}

/// Pauses listed with a recording.
const MAX_PAUSES: usize = 256;

impl RecordingDetails {
    /// A pause began at this place of the recording.
    pub fn paused(&mut self, position_ms: u64, at: Timestamp) {
        if self.pauses.len() < MAX_PAUSES {
            self.pauses.push(RecordingPause { paused_at: at, resumed_at: None, position_ms });
        } else {
            self.more_pauses = self.more_pauses.saturating_add(1);
        }
    }

    /// The pause is over.
    pub fn resumed(&mut self, at: Timestamp) {
        if let Some(pause) = self.pauses.last_mut().filter(|_| self.more_pauses == 0) {
            pause.resumed_at.get_or_insert(at);
        }
    }
}

/// Where a call's recording is, below the directory of all recordings.
#[must_use]
pub fn recording_path(
    dir: &std::path::Path,
    organization: OrganizationId,
    conversation: ConversationId,
    format: RecordingFormat,
) -> std::path::PathBuf {
    let extension = match format {
        RecordingFormat::Wav => "wav",
        RecordingFormat::Ogg => "ogg",
    };
    dir.join(organization.to_string()).join(format!("{conversation}.{extension}"))
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Identifier.
    pub id: ConversationId,
    /// Owner.
    pub organization_id: OrganizationId,
    /// Who began it.
    pub direction: Direction,
    /// Where it stands.
    pub status: ConversationStatus,
    /// The remote party as E.164, or as received when it is no number.
    pub user_id: String,
    /// The agent, unless the config was given inline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version_id: Option<AgentVersionId>,
    /// Our number: the dialled one inbound, the caller ID outbound. `None` for a call to an agent URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_number: Option<E164>,
    /// The trunk. `None` for a call to an agent URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk_id: Option<TrunkId>,
    /// The customer's context, handed to the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_context: Option<Value>,
    /// The customer's own data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Value>,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
    /// First 18x.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ringing_at: Option<Timestamp>,
    /// The 2xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// The end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
    /// Call-ID of the SIP dialog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip_call_id: Option<String>,
    /// The final SIP status of the INVITE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip_status: Option<u16>,
    /// Why it ended, in words or a short code such as `encryption_required`, `no_ack`, `media_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Codec name as in SDP, for example `PCMU`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// `none` or the SRTP suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_encryption: Option<String>,
    /// Mean opinion score of the worse direction (ITU-T G.107), 1 to 4.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos: Option<f64>,
    /// The recording, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingDetails>,
    /// When the beep of a voicemail box was heard last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voicemail_beep_at: Option<Timestamp>,
    /// What the operator should know of this call, for example which noise cancellation was applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What was said, where the runtime writes it down; in the order of its beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transcript: Vec<Turn>,
}

text_enum! {
    /// Who said something.
    Speaker {
        /// The remote party.
        User = "user",
        /// The agent.
        Agent = "agent",
    }
}

/// Something said on a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Who.
    #[serde(rename = "role")]
    pub speaker: Speaker,
    /// What.
    pub text: String,
    /// When it began.
    pub at: Timestamp,
    /// The other side spoke before all of it was heard.
    #[serde(default)]
    pub interrupted: bool,
}

impl Conversation {
    /// Whole seconds from answer to end; `None` before both.
    #[must_use]
    pub fn duration(&self) -> Option<i64> {
        Some(self.ended_at?.seconds_since(self.answered_at?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_listed_up_to_a_number_and_counted_from_there() {
        let mut details = RecordingDetails {
            format: RecordingFormat::Wav,
            sample_rate: 8_000,
            channels: 2,
            started_at: Timestamp(0),
            duration_ms: None,
            pauses: Vec::new(),
            more_pauses: 0,
        };
        for n in 0..MAX_PAUSES as i64 + 2 {
            details.paused(n as u64, Timestamp(2 * n));
            details.resumed(Timestamp(2 * n + 1));
        }
        assert_eq!((details.pauses.len(), details.more_pauses), (MAX_PAUSES, 2));
        let last =
            RecordingPause { paused_at: Timestamp(510), resumed_at: Some(Timestamp(511)), position_ms: 255 };
        assert_eq!(details.pauses.last(), Some(&last));
    }
}
