//! The server's half of digest authentication (RFC 7616, RFC 8760, RFC 3261 22): nonces that prove themselves, so that
//! nothing is kept of an INVITE until its credentials are right.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Algorithm, Credentials, quote, split_challenges, unquote};
use crate::message::{HeaderName, Request, Uri, param, split_outside};
use crate::stateless::hex;

/// How long a nonce is good for.
pub const NONCE_LIFE: Duration = Duration::from_secs(60);
/// What is offered, the one preferred first (RFC 8760 2.4).
const OFFERED: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];
/// Nonces whose counts are remembered; beyond it a right answer is told that its nonce is stale.
const MAX_SPENT: usize = 65_536;
/// Counts behind the highest that may still come.
const WINDOW: u32 = 64;
/// Longest Authorization value read, in bytes.
const MAX_CREDENTIALS: usize = 2_048;
/// Authorization values looked at.
const MAX_VALUES: usize = 8;
/// Bytes of a nonce's seal.
const SEAL: usize = 16;

/// What an INVITE's credentials are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Right, fresh, and not seen before.
    Accepted,
    /// There are none for our realm.
    Absent,
    /// The nonce is not one we would still take: too old, somebody else's, or its count was seen before. The answer is
    /// a challenge with `stale=true`, and says nothing of the password.
    Stale(Staleness),
    /// Wrong: the response, the user, the URI, the algorithm, or a form we did not ask for.
    Wrong(&'static str),
}

/// Why a nonce is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// It is not ours, or was given to another source or for another account.
    Foreign,
    /// Older than [`NONCE_LIFE`].
    Expired,
    /// Its nonce-count was seen before.
    Replayed,
}

/// Challenges for accounts and judges the answers. A nonce is its time and number under a seal over both, the source
/// and the account's name in `scope`.
pub struct Authenticator {
    key: [u8; 32],
    realm: String,
    begun: Instant,
}

/// Who is asking, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Transport source.
    pub source: IpAddr,
    /// What the account belongs to: a nonce for one is none for another.
    pub account: &'a [u8],
}

impl Authenticator {
    /// `key` is unpredictable, and `now` the time nonces count from.
    #[must_use]
    pub fn new(key: [u8; 32], realm: &str, now: Instant) -> Self {
        let realm = realm.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
        Self { key, realm, begun: now }
    }

    /// The WWW-Authenticate values of a 401, one for each algorithm. `number` must differ from challenge to challenge.
    #[must_use]
    pub fn challenge(&self, scope: Scope<'_>, stale: bool, number: u64, now: Instant) -> [String; 2] {
        let nonce = self.nonce(scope, self.age(now), number);
        let stale = if stale { ", stale=true" } else { "" };
        OFFERED.map(|algorithm| {
            format!(
                "Digest realm={}, nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}",
                quote(&self.realm),
                algorithm.as_str()
            )
        })
    }

    /// Judges a request's credentials for an account. Only right ones touch `counts`.
    pub fn check(
        &self,
        request: &Request,
        scope: Scope<'_>,
        account: &Credentials,
        counts: &mut NonceCounts,
        now: Instant,
    ) -> Verdict {
        let mut ours = request
            .headers(HeaderName::Authorization)
            .flat_map(split_challenges)
            .take(MAX_VALUES)
            .filter_map(Answer::parse)
            .filter(|answer| answer.realm == self.realm);
        let answer = match (ours.next(), ours.next()) {
            (None, _) => return Verdict::Absent,
            (Some(answer), None) => answer,
            (Some(_), Some(_)) => return Verdict::Wrong("two sets of credentials for one realm"),
        };
        // What is said of a nonce that is not taken does not depend on the password, so guesses at it need a fresh
        // nonce each, which only who receives at the source has.
        let number = match self.open(&answer.nonce, scope, now) {
            Ok(number) => number,
            Err(staleness) => return Verdict::Stale(staleness),
        };
        if !answer.qop_auth {
            return Verdict::Wrong("qop=auth was asked for");
        }
        let Some(algorithm) = answer.algorithm.filter(|a| OFFERED.contains(a)) else {
            return Verdict::Wrong("the algorithm is none that was offered");
        };
        let Some(count) = answer.count else { return Verdict::Wrong("nc is not 8 hexadecimal digits") };
        if !same_uri(&answer.uri, request.uri()) {
            return Verdict::Wrong("the digest's uri is not the Request-URI");
        }
        let expected = algorithm.response(account, &self.realm, &answer, request.method_token());
        let right = expected.as_bytes().ct_eq(answer.response.to_ascii_lowercase().as_bytes());
        let user = account.username.as_bytes().ct_eq(answer.username.as_bytes());
        if !bool::from(right & user) {
            return Verdict::Wrong("the response does not match the account");
        }
        if counts.take(number, count, fingerprint(request), now) {
            Verdict::Accepted
        } else {
            Verdict::Stale(Staleness::Replayed)
        }
    }

    /// Milliseconds since nonces count.
    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }

    fn nonce(&self, scope: Scope<'_>, time: u64, number: u64) -> String {
        let mut plain = [0; 16];
        plain[..8].copy_from_slice(&time.to_be_bytes());
        plain[8..].copy_from_slice(&number.to_be_bytes());
        format!("{}{}", hex(&plain), hex(&self.seal(scope, &plain)))
    }

    fn seal(&self, scope: Scope<'_>, plain: &[u8; 16]) -> [u8; SEAL] {
        let source = match scope.source.to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let whole = hmac_sha256(&self.key, &[plain, &source, scope.account]);
        let mut seal = [0; SEAL];
        seal.copy_from_slice(&whole[..SEAL]);
        seal
    }

    /// The number of a nonce of ours that is still good.
    fn open(&self, nonce: &str, scope: Scope<'_>, now: Instant) -> Result<u64, Staleness> {
        let bytes = unhex::<{ 16 + SEAL }>(nonce).ok_or(Staleness::Foreign)?;
        let mut plain = [0; 16];
        plain.copy_from_slice(&bytes[..16]);
        if !bool::from(self.seal(scope, &plain).ct_eq(&bytes[16..])) {
            return Err(Staleness::Foreign);
        }
        let (time, number) = plain.split_at(8);
        let value = |half: &[u8]| half.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let age = Duration::from_millis(self.age(now).saturating_sub(value(time)));
        if age >= NONCE_LIFE { Err(Staleness::Expired) } else { Ok(value(number)) }
    }
}

/// The counts seen of each nonce that was answered rightly (RFC 7616 3.4, nc).
#[derive(Debug, Default)]
pub struct NonceCounts {
    spent: BTreeMap<u64, Spent>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Spent {
    /// No nonce lives longer, so that its counts need not be remembered.
    until: Instant,
    highest: u32,
    /// Bit n stands for `highest - n`.
    seen: u64,
    /// The request that brought `highest`: its retransmission is no replay.
    latest: [u8; 8],
}

impl NonceCounts {
    /// Counts a use; `false` when it was seen before, is too far behind, or cannot be remembered.
    fn take(&mut self, number: u64, count: u32, request: [u8; 8], now: Instant) -> bool {
        if self.swept.is_none_or(|at| now.saturating_duration_since(at) >= NONCE_LIFE / 4) {
            self.spent.retain(|_, spent| spent.until > now);
            self.swept = Some(now);
        }
        if count == 0 {
            return false;
        }
        let full = self.spent.len() >= MAX_SPENT;
        let Some(spent) = self.spent.get_mut(&number) else {
            if full {
                return false;
            }
            let first = Spent { until: now + NONCE_LIFE, highest: count, seen: 1, latest: request };
            self.spent.insert(number, first);
            return true;
        };
        if let Some(ahead) = count.checked_sub(spent.highest).filter(|ahead| *ahead > 0) {
            spent.seen = if ahead < WINDOW { spent.seen << ahead | 1 } else { 1 };
            (spent.highest, spent.latest) = (count, request);
            return true;
        }
        let behind = spent.highest - count;
        if behind == 0 {
            return spent.latest == request;
        }
        let bit = if behind < WINDOW { 1 << behind } else { 0 };
        let fresh = bit != 0 && spent.seen & bit == 0;
        spent.seen |= bit;
        fresh
    }

    /// Nonces remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spent.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spent.is_empty()
    }
}

/// Credentials as they came.
struct Answer {
    username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    algorithm: Option<Algorithm>,
    qop_auth: bool,
    nc: String,
    count: Option<u32>,
    cnonce: String,
}

impl Answer {
    /// `None` when it is no digest at all; what is missing is empty, and then wrong.
    fn parse(value: &str) -> Option<Self> {
        if value.len() > MAX_CREDENTIALS {
            return None;
        }
        let (scheme, list) = value.trim().split_once([' ', '\t'])?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let get = |name: &str| split_outside(list, b',').find_map(|item| param(item.trim(), name));
        let text = |name: &str| get(name).map(unquote).unwrap_or_default();
        let nc = text("nc");
        let digits = nc.len() == 8 && nc.bytes().all(|b| b.is_ascii_hexdigit());
        Some(Self {
            username: text("username"),
            realm: text("realm"),
            nonce: text("nonce"),
            uri: text("uri"),
            response: text("response"),
            algorithm: get("algorithm").map_or(Some(Algorithm::Md5), Algorithm::parse),
            qop_auth: get("qop").is_some_and(|qop| qop.eq_ignore_ascii_case("auth")),
            count: digits.then(|| u32::from_str_radix(&nc, 16).ok()).flatten(),
            nc,
            cnonce: text("cnonce"),
        })
    }
}

impl Algorithm {
    fn response(
        self,
        account: &Credentials,
        realm: &str,
        answer: &Answer,
        method: &str,
    ) -> zeroize::Zeroizing<String> {
        let ha1 = self.hash(&[&account.username, realm, &account.password]);
        let ha2 = self.hash(&[method, &answer.uri]);
        self.hash(&[&ha1, &answer.nonce, &answer.nc, &answer.cnonce, "auth", &ha2])
    }
}

/// Whether the digest's uri names what the Request-URI does (RFC 3261 22.4): a proxy on the way may have added
/// parameters, not another user or host.
fn same_uri(digest: &str, request: &str) -> bool {
    if digest == request {
        return true;
    }
    match (Uri::parse(digest), Uri::parse(request)) {
        (Some(a), Some(b)) => {
            a.scheme.eq_ignore_ascii_case(b.scheme)
                && a.user_unescaped() == b.user_unescaped()
                && a.host.eq_ignore_ascii_case(b.host)
        }
        _ => false,
    }
}

/// Tells a retransmission from another request with the same credentials.
fn fingerprint(request: &Request) -> [u8; 8] {
    let branch = request.top_via();
    let branch = branch.as_ref().and_then(|via| via.branch()).unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [request.call_id(), branch] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hash.finalize()[..8]);
    short
}

/// RFC 2104 over SHA-256, for keys of at most one block.
fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(padded, key)| *padded ^= key);
        block
    };
    let mut inner = Sha256::new_with_prefix(pad(0x36));
    parts.iter().for_each(|part| inner.update(part));
    let outer = Sha256::new_with_prefix(pad(0x5c)).chain_update(inner.finalize());
    outer.finalize().into()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
