//! SIP trunks: an organization's line to its carrier.

use std::fmt;
use std::str::FromStr;

use crate::invalid::no_control_characters;
use crate::{AddressRange, CarrierAddress, Invalid, OrganizationId, Secret, Timestamp, TrunkId};

/// A trunk. With a `managed_account_id` it is the operator's and read-only over the API; without one it is the
/// customer's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Trunk {
    /// Identifier.
    pub id: TrunkId,
    /// Owner.
    pub organization_id: OrganizationId,
    /// Name, 1–255 characters, trimmed.
    pub name: String,
    /// The operator's account, when the trunk is managed.
    pub managed_account_id: Option<String>,
    /// Rules for calls from the carrier; `None` means the defaults.
    pub inbound_config: Option<InboundConfig>,
    /// How to reach the carrier; `None` means no calls out.
    pub outbound_config: Option<OutboundConfig>,
    /// Calls at once, both directions together; `None` means the node's limit alone.
    pub max_concurrent_calls: Option<u32>,
    /// New calls a second, both directions together, in bursts of as many; `None` means no limit.
    pub max_calls_per_second: Option<u32>,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

impl Trunk {
    /// Whether the operator owns it.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.managed_account_id.is_some()
    }

    /// What is done about SRTP in calls from the carrier.
    #[must_use]
    pub fn inbound_media_encryption(&self) -> MediaEncryption {
        self.inbound_config.as_ref().map(|config| config.media_encryption).unwrap_or_default()
    }

    /// Whether `source` may send calls: only the transport source counts, never a header.
    #[must_use]
    pub fn admits(&self, source: std::net::IpAddr) -> bool {
        match self.inbound_config.as_ref().and_then(|c| c.allowed_addresses.as_ref()) {
            None => true,
            Some(ranges) => ranges.iter().any(|r| r.contains(source)),
        }
    }
}

/// Governs calls arriving from the carrier.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InboundConfig {
    /// Apply noise cancellation to the caller's audio.
    pub enable_noise_cancellation: bool,
    /// Media encryption policy.
    pub media_encryption: MediaEncryption,
    /// Source addresses permitted to send calls; `None` means any. Never `Some` of an empty list.
    pub allowed_addresses: Option<Vec<AddressRange>>,
    /// The account the carrier's INVITEs are challenged for; `None` means no challenge.
    pub auth: Option<InboundAuth>,
    /// Addresses that may send RTP besides the signalled ones; `None` means none.
    pub media_addresses: Option<Vec<AddressRange>>,
    /// Whether the carrier may transfer calls: by REFER, or by an INVITE that replaces one.
    pub allow_transfers: bool,
    /// Digits come and go as tones in the audio too.
    pub dtmf_tones: bool,
}

/// The account a carrier's INVITEs are challenged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundAuth {
    /// Digest user name.
    pub username: String,
    /// Digest password: write-only.
    pub password: Secret,
}

/// How to reach the carrier to place calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundConfig {
    /// Carrier SIP host or domain.
    pub address: CarrierAddress,
    /// Digest user name.
    pub auth_username: String,
    /// Digest password: write-only.
    pub auth_password: Secret,
    /// Transport protocol.
    pub transport: Transport,
    /// Media encryption policy.
    pub media_encryption: MediaEncryption,
    /// Whether a registration with the carrier is kept alive.
    pub register: bool,
    /// Further addresses of the carrier, tried in this order after `address`.
    pub fallback_addresses: Vec<CarrierAddress>,
    /// Headers added to each INVITE, in this order.
    pub headers: Vec<(String, String)>,
    /// Digits come and go as tones in the audio too.
    pub dtmf_tones: bool,
}

/// Further addresses of a carrier.
pub const MAX_FALLBACK_ADDRESSES: usize = 8;
/// Headers a trunk may add to an INVITE.
pub const MAX_HEADERS: usize = 16;
/// Longest name of such a header, in bytes.
pub const MAX_HEADER_NAME: usize = 64;
/// Longest value of such a header, in bytes.
pub const MAX_HEADER_VALUE: usize = 255;
/// Most calls at once, or new calls a second, that a trunk's limit may name.
pub const MAX_CALL_LIMIT: u32 = 1_000_000;

/// Headers that the SIP core writes itself: one more of them would break a message, or lie about the call.
const OWN_HEADERS: &[&str] = &[
    "accept",
    "allow",
    "allow-events",
    "authorization",
    "c",
    "call-id",
    "contact",
    "content-disposition",
    "content-encoding",
    "content-length",
    "content-type",
    "cseq",
    "d",
    "e",
    "event",
    "expires",
    "f",
    "from",
    "i",
    "k",
    "l",
    "m",
    "max-forwards",
    "min-se",
    "o",
    "p-asserted-identity",
    "proxy-authorization",
    "proxy-require",
    "r",
    "rack",
    "record-route",
    "refer-to",
    "referred-by",
    "replaces",
    "require",
    "route",
    "rseq",
    "session-expires",
    "b",
    "supported",
    "t",
    "to",
    "u",
    "user-agent",
    "v",
    "via",
    "x",
];

/// Checks a header that a trunk adds: its name is a token (RFC 3261 25.1) and none the SIP core writes itself, its
/// value is printable.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b);
    if name.is_empty() || name.len() > MAX_HEADER_NAME || !name.bytes().all(token) {
        return Err(format!(
            "must be a SIP header name: 1 to {MAX_HEADER_NAME} letters, digits or any of -.!%*_+`'~"
        ));
    }
    if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(
            "is a header that Tandem writes itself; use an X- header or one of the carrier's own".to_owned()
        );
    }
    if value.len() > MAX_HEADER_VALUE {
        return Err(format!("has a value longer than {MAX_HEADER_VALUE} bytes"));
    }
    if value.chars().any(char::is_control) {
        return Err("has a value with a control character; control characters are not allowed".to_owned());
    }
    Ok(())
}

/// Longest trunk name, in characters.
pub const MAX_NAME: usize = 255;
/// Longest digest user name or password, in bytes.
pub const MAX_CREDENTIAL: usize = 255;

/// Trims and checks a resource's `name`: 1–255 characters, no control characters.
pub fn parse_name(name: &str) -> Result<String, Invalid> {
    let name = name.trim();
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME {
        return Err(Invalid::field(
            "name",
            format!("has {length} characters after trimming; 1 to {MAX_NAME} are allowed"),
        ));
    }
    no_control_characters("name", name)?;
    Ok(name.to_owned())
}

/// Checks a digest user name or password: not empty, any printable character, no control character. The error never
/// repeats the value.
pub fn check_credential(field: &str, value: &str) -> Result<(), Invalid> {
    if value.is_empty() {
        return Err(Invalid::field(field, "must not be empty"));
    }
    if value.len() > MAX_CREDENTIAL {
        return Err(Invalid::field(field, format!("is longer than {MAX_CREDENTIAL} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(Invalid::field(field, "holds a control character; control characters are not allowed"));
    }
    Ok(())
}

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
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

wire_enum! {
    /// Media encryption policy.
    MediaEncryption {
        /// Plain RTP only.
        #[default]
        Disable = "SIP_MEDIA_ENCRYPT_DISABLE",
        /// SRTP where the other side can, plain otherwise.
        Allow = "SIP_MEDIA_ENCRYPT_ALLOW",
        /// SRTP only.
        Require = "SIP_MEDIA_ENCRYPT_REQUIRE",
    }
}

wire_enum! {
    /// Transport protocol towards the carrier.
    Transport {
        /// UDP.
        #[default]
        Udp = "SIP_TRANSPORT_UDP",
        /// TCP.
        Tcp = "SIP_TRANSPORT_TCP",
        /// TLS over TCP.
        Tls = "SIP_TRANSPORT_TLS",
    }
}
