//! Digest authentication (RFC 3261 22, RFC 7616, RFC 8760). Here the client's half: MD5 and SHA-256, with and without
//! `-sess`, `qop=auth` or none.

mod server;

pub use server::{Authenticator, NONCE_LIFE, NonceCounts, Scope, Staleness, Verdict};

use md5::Md5;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::message::{find_outside, param, split_outside};
use crate::stateless::hex;

/// A carrier's account. Nothing shows the password; memory is cleared on drop.
#[derive(Clone)]
pub struct Credentials {
    username: String,
    password: Zeroizing<String>,
}

impl Credentials {
    /// Takes an account into custody.
    #[must_use]
    pub fn new(username: String, password: String) -> Self {
        Self { username, password: Zeroizing::new(password) }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// Hash of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Algorithm {
    Md5,
    Md5Sess,
    Sha256,
    Sha256Sess,
}

impl Algorithm {
    fn parse(name: &str) -> Option<Self> {
        [Self::Md5, Self::Md5Sess, Self::Sha256, Self::Sha256Sess]
            .into_iter()
            .find(|a| a.as_str().eq_ignore_ascii_case(name))
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
        }
    }

    fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess)
    }

    fn hash(self, parts: &[&str]) -> Zeroizing<String> {
        let text = Zeroizing::new(parts.join(":"));
        Zeroizing::new(match self {
            Self::Md5 | Self::Md5Sess => hex(&Md5::digest(text.as_bytes())),
            Self::Sha256 | Self::Sha256Sess => hex(&Sha256::digest(text.as_bytes())),
        })
    }
}

/// A challenge we can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Protection domain.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// Hash.
    pub algorithm: Algorithm,
    /// Whether `qop=auth` is offered; otherwise the RFC 2069 form is used.
    pub qop_auth: bool,
    /// Returned as it came.
    pub opaque: Option<String>,
    /// The nonce was too old, the credentials were right.
    pub stale: bool,
}

/// Longest challenge read, in bytes.
const MAX_CHALLENGE: usize = 2_048;

impl Challenge {
    /// The challenge to answer of several header values: the strongest hash we know (RFC 8760 2.4 leaves the order to
    /// us when the server offers both).
    pub fn best<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        values.take(8).filter_map(Self::parse).max_by_key(|c| c.algorithm)
    }

    /// Reads one header value. `None` when it is not a digest challenge we can answer, such as `qop="auth-int"` alone.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        if value.len() > MAX_CHALLENGE {
            return None;
        }
        let (scheme, list) = value.trim().split_once([' ', '\t'])?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        // A parameter list like a URI's, but for its separator.
        let get = |name: &str| split_outside(list, b',').find_map(|item| param(item.trim(), name));
        let qop = get("qop");
        let qop_auth = qop.is_some_and(|q| q.split(',').any(|q| q.trim().eq_ignore_ascii_case("auth")));
        if qop.is_some() && !qop_auth {
            return None;
        }
        Some(Self {
            realm: unquote(get("realm")?),
            nonce: unquote(get("nonce")?),
            algorithm: get("algorithm").map_or(Some(Algorithm::Md5), Algorithm::parse)?,
            qop_auth,
            opaque: get("opaque").map(unquote),
            stale: get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
        })
    }
}

/// Resolves quoted-pairs.
fn unquote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The Authorization or Proxy-Authorization value that answers a challenge for a request. `nonce_count` counts the
/// requests sent with this nonce from 1; `cnonce` must not be foreseeable.
#[must_use]
pub fn answer(
    challenge: &Challenge,
    credentials: &Credentials,
    method: &str,
    uri: &str,
    nonce_count: u32,
    cnonce: &str,
) -> String {
    let algorithm = challenge.algorithm;
    let mut ha1 = algorithm.hash(&[&credentials.username, &challenge.realm, &credentials.password]);
    if algorithm.is_session() {
        ha1 = algorithm.hash(&[&ha1, &challenge.nonce, cnonce]);
    }
    let ha2 = algorithm.hash(&[method, uri]);
    let count = format!("{nonce_count:08x}");
    let response = if challenge.qop_auth {
        algorithm.hash(&[&ha1, &challenge.nonce, &count, cnonce, "auth", &ha2])
    } else {
        algorithm.hash(&[&ha1, &challenge.nonce, &ha2])
    };
    let mut value = format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{}\", algorithm={}",
        quote(&credentials.username),
        quote(&challenge.realm),
        quote(&challenge.nonce),
        quote(uri),
        *response,
        algorithm.as_str(),
    );
    if challenge.qop_auth {
        value.push_str(&format!(", qop=auth, nc={count}, cnonce={}", quote(cnonce)));
    } else if algorithm.is_session() {
        value.push_str(&format!(", cnonce={}", quote(cnonce)));
    }
    if let Some(opaque) = &challenge.opaque {
        value.push_str(&format!(", opaque={}", quote(opaque)));
    }
    value
}

/// Splits a header line that may hold several challenges into one string each: a new one begins where a scheme does.
pub fn split_challenges(line: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let mut at = 0;
    while let Some(comma) = line.get(at..).and_then(|rest| find_outside(rest, b',')) {
        at += comma + 1;
        let item = line.get(at..).unwrap_or_default().trim_start();
        if item.get(..7).is_some_and(|s| s.eq_ignore_ascii_case("Digest ")) {
            starts.push(at);
        }
    }
    starts.push(line.len());
    starts.windows(2).filter_map(|w| line.get(w[0]..w[1])).map(|c| c.trim().trim_end_matches(',')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(value: &str) -> &str {
        value.split("response=\"").nth(1).unwrap().split('"').next().unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_7616() {
        let line = |algorithm: &str| {
            format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        };
        let credentials = Credentials::new("Mufasa".to_owned(), "Circle of Life".to_owned());
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let answer = |algorithm| {
            let challenge = Challenge::parse(&line(algorithm)).unwrap();
            answer(&challenge, &credentials, "GET", "/dir/index.html", 1, cnonce)
        };
        assert_eq!(response(&answer("MD5")), "8ca523f5e9506fed4657c9700eebdbec");
        assert_eq!(
            response(&answer("SHA-256")),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
        assert!(answer("MD5").contains("nc=00000001, cnonce="));
    }

    #[test]
    fn the_vector_of_rfc_2617_and_the_form_without_qop() {
        let credentials = Credentials::new("Mufasa".to_owned(), "Circle Of Life".to_owned());
        let challenge = Challenge::parse("Digest realm=\"testrealm@host.com\", qop=\"auth\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"x\"").unwrap();
        let value = answer(&challenge, &credentials, "GET", "/dir/index.html", 1, "0a4f113b");
        assert_eq!(response(&value), "6629fae49393a05397450978507c4ef1");
        let plain = Challenge { qop_auth: false, ..challenge };
        let value = answer(&plain, &credentials, "GET", "/dir/index.html", 1, "0a4f113b");
        assert_eq!(response(&value), "670fd8c2df070c60b045671b8b24ff02");
        assert!(!value.contains("qop") && !value.contains("cnonce"));
    }

    #[test]
    fn the_strongest_of_several_and_none_we_cannot_answer() {
        let line = "Digest realm=\"a, b\", nonce=\"1\", algorithm=MD5, Digest realm=\"a\", nonce=\"2\", algorithm=SHA-256, qop=\"auth\"";
        let best = Challenge::best(split_challenges(line).into_iter()).unwrap();
        assert_eq!((best.algorithm, best.nonce.as_str()), (Algorithm::Sha256, "2"));
        for bad in [
            "Basic realm=\"x\"",
            "Digest realm=\"x\", nonce=\"1\", qop=\"auth-int\"",
            "Digest realm=\"x\", nonce=\"1\", algorithm=X",
            "Digest nonce=\"1\"",
            "",
        ] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
        assert!(Challenge::parse("Digest realm=\"r\",nonce=\"n\",stale=TRUE").unwrap().stale);
    }

    #[test]
    fn quotes_in_names_stay_inside_their_string() {
        let challenge = Challenge::parse("Digest realm=\"r\\\"q\", nonce=\"n\"").unwrap();
        assert_eq!(challenge.realm, "r\"q");
        let value = answer(
            &challenge,
            &Credentials::new("a\"b".to_owned(), "p".to_owned()),
            "INVITE",
            "sip:x",
            1,
            "c",
        );
        assert!(value.contains("username=\"a\\\"b\", realm=\"r\\\"q\""));
    }
}
