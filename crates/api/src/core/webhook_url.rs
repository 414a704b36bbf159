//! What webhooks of every kind have in common: the URL's host and the secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::webhook::{SECRET_BYTES, SECRET_PREFIX};
use model::{Invalid, Secret};

use crate::ApiState;
use crate::error::ApiError;

/// Refuses a URL whose host is written as an address that tenants may not name; a name is judged when it is resolved.
pub(super) fn check_target(state: &ApiState, url: &str) -> Result<(), Invalid> {
    let fault = |rule: String| Invalid::field("url", rule);
    let parsed = reqwest::Url::parse(url).map_err(|_| fault("must be a URL".to_owned()))?;
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse() {
        Ok(address) => state.private_targets.check(address).map_err(|refused| fault(refused.to_string())),
        Err(_) => Ok(()),
    }
}

/// Refuses a secret that is none of Standard Webhooks'.
pub(super) fn check_secret(secret: &Secret) -> Result<(), Invalid> {
    let key = secret.expose().strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
    if key.is_some_and(|key| SECRET_BYTES.contains(&key.len())) {
        return Ok(());
    }
    Err(Invalid::field("secret", "must be whsec_ and Base64 of 24 to 64 bytes"))
}

/// A new secret.
pub(super) fn new_secret() -> Result<Secret, ApiError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| ApiError::Internal)?;
    Ok(Secret::new(format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes))))
}
