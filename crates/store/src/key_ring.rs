//! The node's keys, and the envelopes under which secrets rest: AES-256-GCM, a data key an organization, bound to the
//! row and column it stands in.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use model::Secret;
use zeroize::Zeroizing;

use crate::StoreError;

const KEY: usize = 32;

/// The node's keys: the first seals, all open.
#[derive(Clone)]
pub struct KeyRing {
    keys: Arc<Vec<Zeroizing<[u8; KEY]>>>,
}

impl KeyRing {
    /// Reads the key at `path`, or makes one (mode 0600) when there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, String> {
        if !path.exists() {
            create(path).map_err(|e| format!("{}: cannot be made: {e}", path.display()))?;
        }
        Self::from_files(&[path.to_owned()])
    }

    /// Reads keys; the first seals.
    pub fn from_files(paths: &[PathBuf]) -> Result<Self, String> {
        let mut keys = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
            let key = decode(text.trim())
                .ok_or_else(|| format!("{}: must hold 32 bytes as 64 hexadecimal digits", path.display()))?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err("no key file is named".to_owned());
        }
        Ok(Self { keys: Arc::new(keys) })
    }

    pub(crate) fn wrap(&self, data_key: &DataKey, organization: &str) -> Result<String, StoreError> {
        let first = self.keys.first().ok_or(StoreError::Secret("no key"))?;
        seal(first, &data_key.0[..], organization.as_bytes())
    }

    pub(crate) fn unwrap(&self, wrapped: &str, organization: &str) -> Result<DataKey, StoreError> {
        let opened = self.keys.iter().find_map(|key| open(key, wrapped, organization.as_bytes()).ok());
        let bytes = opened
            .ok_or(StoreError::Secret("the organization's key was sealed under another secrets.key_file"))?;
        let key: [u8; KEY] =
            bytes[..].try_into().map_err(|_| StoreError::Secret("a key has the wrong length"))?;
        Ok(DataKey(Zeroizing::new(key)))
    }
}

/// An organization's key.
pub(crate) struct DataKey(Zeroizing<[u8; KEY]>);

impl DataKey {
    pub(crate) fn new() -> Result<Self, StoreError> {
        let mut key = Zeroizing::new([0; KEY]);
        aws_lc_rs::rand::fill(&mut key[..]).map_err(|_| StoreError::Secret("no randomness"))?;
        Ok(Self(key))
    }

    pub(crate) fn seal(&self, secret: &Secret, place: &str) -> Result<String, StoreError> {
        seal(&self.0, secret.expose().as_bytes(), place.as_bytes())
    }

    pub(crate) fn open(&self, sealed: &str, place: &str) -> Result<Secret, StoreError> {
        let bytes = open(&self.0, sealed, place.as_bytes())?;
        let text = std::str::from_utf8(&bytes).map_err(|_| StoreError::Secret("it is not text"))?;
        Ok(Secret::new(text.to_owned()))
    }
}

fn seal(key: &[u8; KEY], plain: &[u8], place: &[u8]) -> Result<String, StoreError> {
    let failed = |_| StoreError::Secret("it cannot be sealed");
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(failed)?;
    let mut bytes = plain.to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::from(place), &mut bytes).map_err(failed)?;
    Ok(format!("v1:{}:{}", BASE64.encode(nonce.as_ref()), BASE64.encode(&bytes)))
}

fn open(key: &[u8; KEY], sealed: &str, place: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let broken = StoreError::Secret("it does not open under this key in this place");
    let mut parts = sealed.split(':');
    let (Some("v1"), Some(nonce), Some(text), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(broken);
    };
    let (Ok(nonce), Ok(bytes)) = (BASE64.decode(nonce), BASE64.decode(text)) else { return Err(broken) };
    let mut bytes = Zeroizing::new(bytes);
    let Ok(nonce) = Nonce::try_assume_unique_for_key(&nonce) else { return Err(broken) };
    let Ok(key) = RandomizedNonceKey::new(&AES_256_GCM, key) else { return Err(broken) };
    let Ok(plain) = key.open_in_place(nonce, Aad::from(place), &mut bytes) else { return Err(broken) };
    let length = plain.len();
    bytes.truncate(length);
    Ok(bytes)
}

fn decode(text: &str) -> Option<Zeroizing<[u8; KEY]>> {
    let mut key = Zeroizing::new([0; KEY]);
    if text.len() != KEY * 2 || !text.is_ascii() {
        return None;
    }
    for (slot, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

/// Writes a new key beside its place and links it there, so that two starts at once end with one key.
fn create(path: &Path) -> std::io::Result<()> {
    let mut key = Zeroizing::new([0_u8; KEY]);
    aws_lc_rs::rand::fill(&mut key[..]).map_err(|_| std::io::Error::other("no randomness"))?;
    let text: Zeroizing<String> =
        Zeroizing::new(key.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n");
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        KeyRing::load_or_create(&path).unwrap();
        let first = std::fs::read(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        KeyRing::load_or_create(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        std::fs::write(&path, "short").unwrap();
        assert!(KeyRing::load_or_create(&path).err().unwrap().contains("secret.key"));
    }

    #[test]
    fn a_secret_opens_only_in_its_place() {
        let key = DataKey::new().unwrap();
        let sealed = key.seal(&Secret::new("hunter2".to_owned()), "org|trunks|1|outbound_password").unwrap();
        assert!(!sealed.contains("hunter2"));
        assert_eq!(key.open(&sealed, "org|trunks|1|outbound_password").unwrap().expose(), "hunter2");
        assert!(key.open(&sealed, "org|trunks|2|outbound_password").is_err());
        assert!(DataKey::new().unwrap().open(&sealed, "org|trunks|1|outbound_password").is_err());
        assert!(key.open("v1:x", "p").is_err());
    }
}
