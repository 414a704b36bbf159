//! A trunk's two configurations as they stand in JSON.

use model::trunk::{MAX_FALLBACK_ADDRESSES, MAX_HEADERS, check_credential, check_header};
use model::{
    AddressRange, InboundAuth, InboundConfig, Invalid, MediaEncryption, OutboundConfig, Secret, Transport,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::REQUIRED;
use crate::wire::{MediaEncryptionText, Strict, Text, TransportText};

/// Governs calls arriving from the carrier.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InboundConfigIn)]
pub(super) struct InboundConfigIn {
    /// Apply noise cancellation to inbound audio.
    #[serde(default)]
    #[schema(default = false)]
    enable_noise_cancellation: bool,
    /// Media encryption policy; `SIP_MEDIA_ENCRYPT_DISABLE` when left out.
    #[serde(default = "disabled")]
    #[schema(required = false)]
    media_encryption: MediaEncryptionText,
    /// Source addresses or CIDR prefixes permitted to send calls. Empty strings are stripped; an empty list becomes
    /// null, which means no restriction.
    #[serde(default)]
    #[schema(max_items = 256)]
    allowed_addresses: Option<Vec<String>>,
    /// The carrier's INVITEs are challenged for this account (digest). Together with `auth_password`, or neither.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 255)]
    auth_username: Option<String>,
    /// Never in an answer.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 255, write_only)]
    auth_password: Option<String>,
    /// Addresses or CIDR prefixes that may send RTP besides the signalled ones, and are sent it though they never speak:
    /// other addresses than the signalling's get five seconds of it before something must come from there. An empty
    /// list becomes null.
    #[serde(default)]
    #[schema(max_items = 256)]
    media_addresses: Option<Vec<String>>,
    /// Let the carrier transfer calls, by REFER to a number of the organization or to somebody at the address of one
    /// of its trunks, or by an INVITE that replaces a call (RFC 3891).
    #[serde(default)]
    #[schema(default = false)]
    allow_transfers: bool,
    /// Digits come and go as tones in the audio as well: tones are listened for beside telephone-events and SIP INFO,
    /// and sent where the other side takes no telephone-events.
    #[serde(default)]
    #[schema(default = false)]
    dtmf_tones: bool,
}

/// How to reach the carrier to place calls.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OutboundConfigIn)]
pub(super) struct OutboundConfigIn {
    /// Carrier SIP host or domain, with an optional port.
    #[schema(value_type = String, required = true, min_length = 1, example = "sip.carrier.example:5060")]
    address: Option<String>,
    /// SIP auth username: any printable characters.
    #[schema(value_type = String, required = true, min_length = 1, max_length = 255)]
    auth_username: Option<String>,
    /// SIP auth password: any printable characters. Never in an answer.
    #[schema(value_type = String, required = true, min_length = 1, max_length = 255, write_only)]
    auth_password: Option<String>,
    /// Transport protocol; `SIP_TRANSPORT_UDP` when left out.
    #[serde(default = "udp")]
    #[schema(required = false)]
    transport: TransportText,
    /// Media encryption policy; `SIP_MEDIA_ENCRYPT_DISABLE` when left out.
    #[serde(default = "disabled")]
    #[schema(required = false)]
    media_encryption: MediaEncryptionText,
    /// Keep a registration with the carrier alive.
    #[serde(default)]
    #[schema(default = false)]
    register: bool,
    /// Further addresses of the carrier, tried in this order after `address`.
    #[serde(default)]
    #[schema(max_items = 8)]
    fallback_addresses: Option<Vec<String>>,
    /// Headers added to each INVITE: name to value.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    headers: Option<Map<String, Value>>,
    /// Digits come and go as tones in the audio as well: tones are listened for beside telephone-events and SIP INFO,
    /// and sent where the other side takes no telephone-events.
    #[serde(default)]
    #[schema(default = false)]
    dtmf_tones: bool,
}

fn disabled() -> MediaEncryptionText {
    Text(MediaEncryption::default())
}

fn udp() -> TransportText {
    Text(Transport::default())
}

/// A value that is there and not empty.
fn given(field: &str, value: Option<String>) -> Result<String, Invalid> {
    let value = value.ok_or_else(|| Invalid::field(field, REQUIRED))?;
    if value.is_empty() { Err(Invalid::field(field, "must not be empty")) } else { Ok(value) }
}

fn credential(field: &str, value: Option<String>) -> Result<String, Invalid> {
    let value = given(field, value)?;
    check_credential(field, &value)?;
    Ok(value)
}

/// Takes each part, or all their faults.
macro_rules! all {
    ($($part:ident),+) => {
        match ($($part),+) {
            ($(Ok($part)),+) => ($($part),+),
            ($($part),+) => return Err([$($part.err()),+].into_iter().flatten().collect()),
        }
    };
}

fn ranges(field: &str, list: Option<Vec<String>>) -> Result<Option<Vec<AddressRange>>, Invalid> {
    model::address::parse_address_ranges(field, &list.unwrap_or_default())
}

impl TryFrom<Strict<InboundConfigIn>> for InboundConfig {
    type Error = Vec<Invalid>;

    fn try_from(Strict(config): Strict<InboundConfigIn>) -> Result<Self, Vec<Invalid>> {
        let allowed = ranges("allowed_addresses", config.allowed_addresses);
        let media = ranges("media_addresses", config.media_addresses);
        let auth = match (config.auth_username, config.auth_password) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Invalid::field("auth_username", "is required with auth_password")),
            (Some(_), None) => Err(Invalid::field("auth_password", "is required with auth_username")),
            (username, password) => credential("auth_username", username).and_then(|username| {
                let password = Secret::new(credential("auth_password", password)?);
                Ok(Some(InboundAuth { username, password }))
            }),
        };
        let (allowed_addresses, media_addresses, auth) = all!(allowed, media, auth);
        Ok(Self {
            enable_noise_cancellation: config.enable_noise_cancellation,
            media_encryption: config.media_encryption.0,
            allowed_addresses,
            auth,
            media_addresses,
            allow_transfers: config.allow_transfers,
            dtmf_tones: config.dtmf_tones,
        })
    }
}

impl TryFrom<Strict<OutboundConfigIn>> for OutboundConfig {
    type Error = Vec<Invalid>;

    fn try_from(Strict(config): Strict<OutboundConfigIn>) -> Result<Self, Vec<Invalid>> {
        let address = given("address", config.address)
            .and_then(|text| text.parse().map_err(|rule: String| Invalid::field("address", rule)));
        let username = credential("auth_username", config.auth_username);
        let password = credential("auth_password", config.auth_password);
        let fallbacks = fallbacks(config.fallback_addresses.unwrap_or_default());
        let headers = headers(config.headers.unwrap_or_default());
        let (address, auth_username, password, fallback_addresses, headers) =
            all!(address, username, password, fallbacks, headers);
        Ok(Self {
            address,
            auth_username,
            auth_password: Secret::new(password),
            transport: config.transport.0,
            media_encryption: config.media_encryption.0,
            register: config.register,
            fallback_addresses,
            headers,
            dtmf_tones: config.dtmf_tones,
        })
    }
}

fn fallbacks(list: Vec<String>) -> Result<Vec<model::CarrierAddress>, Invalid> {
    let field = "fallback_addresses";
    if list.len() > MAX_FALLBACK_ADDRESSES {
        let rule = format!("has {} entries; at most {MAX_FALLBACK_ADDRESSES} are allowed", list.len());
        return Err(Invalid::field(field, rule));
    }
    let parse = |(at, text): (usize, String)| {
        text.parse().map_err(|rule: String| Invalid::field(at.to_string(), rule).within(field))
    };
    list.into_iter().enumerate().map(parse).collect()
}

fn headers(map: Map<String, Value>) -> Result<Vec<(String, String)>, Invalid> {
    let field = "headers";
    if map.len() > MAX_HEADERS {
        let rule = format!("has {} entries; at most {MAX_HEADERS} are allowed", map.len());
        return Err(Invalid::field(field, rule));
    }
    let read = |(name, value): (String, Value)| {
        // The name is what is at fault most often, and may hold anything; it is shown escaped.
        let at = |rule: String| Invalid::field(name.escape_debug().to_string(), rule).within(field);
        let Value::String(value) = value else { return Err(at("must be a string".to_owned())) };
        check_header(&name, &value).map_err(at)?;
        Ok((name, value))
    };
    map.into_iter().map(read).collect()
}

/// Governs calls arriving from the carrier. Passwords are never shown.
#[derive(Serialize, ToSchema)]
#[schema(as = InboundConfig)]
pub(super) struct InboundConfigOut {
    /// Apply noise cancellation to inbound audio.
    enable_noise_cancellation: bool,
    /// Media encryption policy.
    media_encryption: MediaEncryptionText,
    /// Sources permitted to send calls; null means any.
    #[schema(required)]
    allowed_addresses: Option<Vec<String>>,
    /// The account the carrier's INVITEs are challenged for; left out when they are not challenged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    auth_username: Option<String>,
    /// Addresses that may send RTP besides the signalled ones; left out when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    media_addresses: Option<Vec<String>>,
    /// Whether the carrier may transfer calls; left out when not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    allow_transfers: bool,
    /// Whether digits come and go as tones too; left out when not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    dtmf_tones: bool,
}

/// How to reach the carrier to place calls. The password is never shown.
#[derive(Serialize, ToSchema)]
#[schema(as = OutboundConfig)]
pub(super) struct OutboundConfigOut {
    /// Carrier SIP host or domain, with an optional port.
    address: String,
    /// SIP auth username.
    auth_username: String,
    /// Transport protocol.
    transport: TransportText,
    /// Media encryption policy.
    media_encryption: MediaEncryptionText,
    /// Whether a registration is kept alive; left out when not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    register: bool,
    /// Further addresses of the carrier, in the order they are tried; left out when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    fallback_addresses: Vec<String>,
    /// Headers added to each INVITE; left out when there are none.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(required = false, value_type = std::collections::HashMap<String, String>)]
    headers: Map<String, Value>,
    /// Whether digits come and go as tones too; left out when not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    dtmf_tones: bool,
}

impl From<InboundConfig> for InboundConfigOut {
    fn from(config: InboundConfig) -> Self {
        let texts = |list: Vec<AddressRange>| list.iter().map(ToString::to_string).collect();
        Self {
            enable_noise_cancellation: config.enable_noise_cancellation,
            media_encryption: Text(config.media_encryption),
            allowed_addresses: config.allowed_addresses.map(texts),
            auth_username: config.auth.map(|auth| auth.username),
            media_addresses: config.media_addresses.map(texts),
            allow_transfers: config.allow_transfers,
            dtmf_tones: config.dtmf_tones,
        }
    }
}

impl From<OutboundConfig> for OutboundConfigOut {
    fn from(config: OutboundConfig) -> Self {
        Self {
            address: config.address.to_string(),
            auth_username: config.auth_username,
            transport: Text(config.transport),
            media_encryption: Text(config.media_encryption),
            register: config.register,
            fallback_addresses: config.fallback_addresses.iter().map(ToString::to_string).collect(),
            headers: config.headers.into_iter().map(|(name, value)| (name, Value::String(value))).collect(),
            dtmf_tones: config.dtmf_tones,
        }
    }
}
