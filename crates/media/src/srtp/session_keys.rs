//! Session keys (RFC 3711 4.3) and what is done with them: AES in counter mode with HMAC-SHA1 (RFC 3711 4), AES-GCM
//! (RFC 7714).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::{MasterKey, RTCP_HEADER, Refused, Suite};

/// Labels of the key derivation; those of RTCP lie three above.
const LABEL_ENCRYPTION: u8 = 0;
const LABEL_AUTHENTICATION: u8 = 1;
const LABEL_SALT: u8 = 2;
const RTCP_LABELS: u8 = 3;

/// Length of the longest tag.
const MAX_TAG: usize = 16;
/// HMAC-SHA1 key.
const AUTHENTICATION_KEY: usize = 20;
const CM_SALT: usize = 14;
const GCM_SALT: usize = 12;
const BLOCK: usize = 16;

/// A tag; the suite says how much of it is sent.
pub(super) type Tag = [u8; MAX_TAG];

/// The session keys of one direction.
pub(super) struct SessionKeys {
    suite: Suite,
    rtp: Transform,
    rtcp: Transform,
}

enum Transform {
    Gcm { key: LessSafeKey, salt: Zeroizing<[u8; GCM_SALT]> },
    Cm(Box<CounterMode>),
}

struct CounterMode {
    key: EncryptingKey,
    salt: Zeroizing<[u8; CM_SALT]>,
    authentication: hmac::Key,
}

impl SessionKeys {
    pub(super) fn derive(master: &MasterKey) -> Self {
        let transform = |labels| {
            // The primitives refuse only a key of another length than the suite's, which `MasterKey` does not hold.
            #[allow(clippy::expect_used)]
            Transform::derive(master, labels).expect("the key is as long as its suite asks")
        };
        Self { suite: master.suite(), rtp: transform(0), rtcp: transform(RTCP_LABELS) }
    }

    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    /// Whether the tag comes before the SRTCP index (RFC 7714 9.2) or after it (RFC 3711 3.4).
    pub(super) fn is_aead(&self) -> bool {
        matches!(self.rtp, Transform::Gcm { .. })
    }

    pub(super) fn seal_rtp(
        &self,
        header: &[u8],
        payload: &mut [u8],
        ssrc: u32,
        index: u64,
    ) -> Result<Tag, Refused> {
        self.rtp.seal(header, payload, &[], ssrc, index, &counter(index))
    }

    /// Opens header and payload, `header` bytes of the first, into `plain`.
    pub(super) fn open_rtp(
        &self,
        body: &[u8],
        tag: &[u8],
        header: usize,
        ssrc: u32,
        index: u64,
        plain: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        self.rtp.open(body, tag, header, &[], ssrc, index, &counter(index), plain)
    }

    pub(super) fn seal_rtcp(
        &self,
        header: &[u8],
        payload: &mut [u8],
        ssrc: u32,
        index: u32,
        word: [u8; 4],
    ) -> Result<Tag, Refused> {
        self.rtcp.seal(header, payload, &word, ssrc, index.into(), &word)
    }

    pub(super) fn open_rtcp(
        &self,
        body: &[u8],
        tag: &[u8],
        ssrc: u32,
        index: u32,
        word: [u8; 4],
        plain: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        self.rtcp.open(body, tag, RTCP_HEADER, &word, ssrc, index.into(), &word, plain)
    }
}

/// The rollover counter of an index, as it is authenticated.
fn counter(index: u64) -> [u8; 4] {
    let [_, _, a, b, c, d, _, _] = index.to_be_bytes();
    [a, b, c, d]
}

impl Transform {
    fn derive(master: &MasterKey, labels: u8) -> Result<Self, Unspecified> {
        let suite = master.suite();
        let (key, salt) = master.expose().split_at(suite.key_length());
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let generator = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key)?)?;
        let derive = |label: u8, out: &mut [u8]| -> Result<(), Unspecified> {
            let mut iv = [0; BLOCK];
            iv[..salt.len()].copy_from_slice(salt);
            iv[7] ^= labels + label;
            out.fill(0);
            apply(&generator, iv, out)
        };
        let mut session = Zeroizing::new([0; 32]);
        let session = &mut session[..key.len()];
        derive(LABEL_ENCRYPTION, session)?;
        match suite {
            Suite::AeadAes256Gcm | Suite::AeadAes128Gcm => {
                let mut salt = Zeroizing::new([0; GCM_SALT]);
                derive(LABEL_SALT, &mut *salt)?;
                Self::gcm(session, salt)
            }
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => {
                let mut salt = Zeroizing::new([0; CM_SALT]);
                derive(LABEL_SALT, &mut *salt)?;
                let mut authentication = Zeroizing::new([0; AUTHENTICATION_KEY]);
                derive(LABEL_AUTHENTICATION, &mut *authentication)?;
                Self::cm(session, salt, &*authentication)
            }
        }
    }

    fn gcm(key: &[u8], salt: Zeroizing<[u8; GCM_SALT]>) -> Result<Self, Unspecified> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        Ok(Self::Gcm { key: LessSafeKey::new(UnboundKey::new(algorithm, key)?), salt })
    }

    fn cm(key: &[u8], salt: Zeroizing<[u8; CM_SALT]>, authentication: &[u8]) -> Result<Self, Unspecified> {
        Ok(Self::Cm(Box::new(CounterMode {
            key: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key)?)?,
            salt,
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication),
        })))
    }

    /// Encrypts `payload`. `suffix` follows the header in what GCM authenticates, `last` the packet in what HMAC does.
    fn seal(
        &self,
        header: &[u8],
        payload: &mut [u8],
        suffix: &[u8],
        ssrc: u32,
        index: u64,
        last: &[u8],
    ) -> Result<Tag, Refused> {
        let mut out = [0; MAX_TAG];
        match self {
            Self::Gcm { key, salt } => {
                let (aad, length) = associated(header, suffix);
                let aad = if suffix.is_empty() { header } else { &aad[..length] };
                let tag = key
                    .seal_in_place_separate_tag(gcm_nonce(salt, ssrc, index), Aad::from(aad), payload)
                    .map_err(|_| Refused::Malformed)?;
                out.copy_from_slice(tag.as_ref());
            }
            Self::Cm(cm) => {
                let CounterMode { key, salt, authentication } = &**cm;
                apply(key, cm_iv(salt, ssrc, index), payload).map_err(|_| Refused::Malformed)?;
                let mut context = hmac::Context::with_key(authentication);
                context.update(header);
                context.update(payload);
                context.update(last);
                out.copy_from_slice(&context.sign().as_ref()[..MAX_TAG]);
            }
        }
        Ok(out)
    }

    /// The reverse of [`Transform::seal`]; `plain` holds header and payload afterwards.
    #[allow(clippy::too_many_arguments)]
    fn open(
        &self,
        body: &[u8],
        tag: &[u8],
        header: usize,
        suffix: &[u8],
        ssrc: u32,
        index: u64,
        last: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        plain.clear();
        // In range: both callers have compared the header's length with the packet's.
        let (header, payload) = body.split_at(header);
        match self {
            Self::Gcm { key, salt } => {
                let (aad, length) = associated(header, suffix);
                let aad = if suffix.is_empty() { header } else { &aad[..length] };
                plain.extend_from_slice(body);
                key.open_separate_gather(
                    gcm_nonce(salt, ssrc, index),
                    Aad::from(aad),
                    payload,
                    tag,
                    &mut plain[header.len()..],
                )
                .map_err(|_| Refused::Unauthenticated)
            }
            Self::Cm(cm) => {
                let CounterMode { key, salt, authentication } = &**cm;
                let mut context = hmac::Context::with_key(authentication);
                context.update(body);
                context.update(last);
                let expected = context.sign();
                verify_slices_are_equal(&expected.as_ref()[..tag.len()], tag)
                    .map_err(|_| Refused::Unauthenticated)?;
                plain.extend_from_slice(body);
                apply(key, cm_iv(salt, ssrc, index), &mut plain[header.len()..])
                    .map_err(|_| Refused::Malformed)
            }
        }
    }
}

/// Header and SRTCP word in one piece (RFC 7714 9.2), and how long they are. With RTP the header stands alone.
fn associated(header: &[u8], suffix: &[u8]) -> ([u8; RTCP_HEADER + 4], usize) {
    let mut aad = [0; RTCP_HEADER + 4];
    let length = header.len() + suffix.len();
    if !suffix.is_empty() && length <= aad.len() {
        aad[..header.len()].copy_from_slice(header);
        aad[header.len()..length].copy_from_slice(suffix);
    }
    (aad, length.min(RTCP_HEADER + 4))
}

fn apply(key: &EncryptingKey, iv: [u8; BLOCK], data: &mut [u8]) -> Result<(), Unspecified> {
    key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(iv))).map(|_| ())
}

/// RFC 3711 4.1.1.
fn cm_iv(salt: &[u8; CM_SALT], ssrc: u32, index: u64) -> [u8; BLOCK] {
    let mut iv = [0; BLOCK];
    iv[..CM_SALT].copy_from_slice(salt);
    for (byte, with) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
        *byte ^= with;
    }
    for (byte, with) in iv[8..14].iter_mut().zip(index.to_be_bytes().into_iter().skip(2)) {
        *byte ^= with;
    }
    iv
}

/// RFC 7714 8.1 and 9.1: an SRTCP index fills the same last six bytes as a packet index.
fn gcm_nonce(salt: &[u8; GCM_SALT], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = *salt;
    for (byte, with) in nonce[2..6].iter_mut().zip(ssrc.to_be_bytes()) {
        *byte ^= with;
    }
    for (byte, with) in nonce[6..12].iter_mut().zip(index.to_be_bytes().into_iter().skip(2)) {
        *byte ^= with;
    }
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
impl SessionKeys {
    /// RFC 7714 states its vectors in session keys.
    pub(super) fn of_gcm(suite: Suite, key: &[u8], salt: [u8; GCM_SALT]) -> Self {
        let transform = || Transform::gcm(key, Zeroizing::new(salt)).unwrap();
        Self { suite, rtp: transform(), rtcp: transform() }
    }

    /// RFC 3711 B.2 does too.
    pub(super) fn of_cm(suite: Suite, key: &[u8], salt: [u8; CM_SALT]) -> Self {
        let transform = || Transform::cm(key, Zeroizing::new(salt), &[0; AUTHENTICATION_KEY]).unwrap();
        Self { suite, rtp: transform(), rtcp: transform() }
    }
}
