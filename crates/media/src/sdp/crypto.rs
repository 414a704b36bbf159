//! The `crypto` attribute (RFC 4568): the keys of a stream.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::Media;
use crate::srtp::{MAX_LIFETIME, MasterKey, Suite};

/// Lines of one stream looked at; more are passed over.
const MAX_LINES: usize = 32;
/// Shortest lifetime taken, in packets: 5.8 hours of 20 ms. We do not ask for a new key, so a shorter one could end
/// in the middle of a call.
const MIN_LIFETIME: u64 = 1 << 20;
/// Longest key in base64, in characters.
const MAX_BASE64: usize = 64;
/// Smallest window a `WSH` may ask for (RFC 4568 6.3.6).
const MIN_WINDOW_HINT: u32 = 64;

/// Peers leave the padding out, or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A usable line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Its number, to be repeated in the answer.
    pub tag: u32,
    /// Suite and key of the packets its sender sends.
    pub key: MasterKey,
    /// Packets the key may be used for.
    pub lifetime: u64,
}

impl Crypto {
    /// Reads an attribute's value. An error says in words why the line cannot be used; it holds nothing of the line.
    pub fn parse(value: &str) -> Result<Self, &'static str> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next().and_then(tag).ok_or("its tag is not 1 to 9 digits")?;
        let suite = words.next().and_then(Suite::by_name).ok_or("its suite is not one of ours")?;
        let (key, lifetime) = key(suite, words.next().ok_or("it has no key")?)?;
        match words.find(|parameter| !harmless(parameter)) {
            None => Ok(Self { tag, key, lifetime }),
            Some(_) => Err("it has a session parameter that is unknown or weakens the stream"),
        }
    }

    /// The line, with its end.
    #[must_use]
    pub fn line(tag: u32, key: &MasterKey) -> String {
        let base64 = Zeroizing::new(BASE64.encode(key.expose()));
        format!("a=crypto:{tag} {} inline:{}\r\n", key.suite().name(), *base64)
    }

    /// The usable lines of a stream in the sender's order of preference, and why the others are not. A tag that comes
    /// twice names nothing.
    #[must_use]
    pub fn usable(media: &Media<'_>) -> (Vec<Self>, Vec<String>) {
        let mut usable: Vec<Self> = Vec::new();
        let mut problems = Vec::new();
        let lines = media.attributes.iter().filter(|(name, _)| name.eq_ignore_ascii_case("crypto"));
        let mut twice = Vec::new();
        for (number, (_, value)) in lines.take(MAX_LINES).enumerate() {
            match Self::parse(value) {
                Ok(line) if usable.iter().any(|l| l.tag == line.tag) => twice.push(line.tag),
                Ok(line) => usable.push(line),
                Err(problem) => problems.push(format!("line {} is passed over: {problem}", number + 1)),
            }
        }
        for tag in twice {
            usable.retain(|line| line.tag != tag);
            problems.push(format!("tag {tag} comes more than once"));
        }
        (usable, problems)
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn tag(word: &str) -> Option<u32> {
    (digits(word) && word.len() <= 9).then(|| word.parse().ok())?
}

fn key(suite: Suite, word: &str) -> Result<(MasterKey, u64), &'static str> {
    if word.contains(';') {
        return Err("it has more than one key");
    }
    let inline = word
        .split_at_checked("inline:".len())
        .filter(|(method, _)| method.eq_ignore_ascii_case("inline:"))
        .ok_or("its key method is not inline")?;
    let mut parts = inline.1.split('|');
    let material = parts.next().unwrap_or_default();
    let lifetime = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => MAX_LIFETIME,
        (Some(lifetime), None, _) if !lifetime.contains(':') => self::lifetime(lifetime)?,
        // Packets would carry the index of the key between payload and tag.
        _ => return Err("it has an MKI"),
    };
    if material.len() > MAX_BASE64 {
        return Err("its key is not as long as the suite's");
    }
    let mut bytes = Zeroizing::new([0; MAX_BASE64]);
    let length = BASE64.decode_slice(material, &mut *bytes).map_err(|_| "its key is not base64")?;
    let key = bytes.get(..length).and_then(|bytes| MasterKey::new(suite, bytes));
    Ok((key.ok_or("its key is not as long as the suite's")?, lifetime))
}

/// `2^31` or `1048576`.
fn lifetime(text: &str) -> Result<u64, &'static str> {
    let number = |text: &str| digits(text).then(|| text.parse::<u64>().ok()).flatten();
    let packets = match text.strip_prefix("2^") {
        Some(exponent) => number(exponent).and_then(|e| 1u64.checked_shl(u32::try_from(e).ok()?)),
        None => number(text),
    };
    match packets.ok_or("its lifetime is not a number")? {
        packets if packets > MAX_LIFETIME => Err("its lifetime is over 2^48"),
        packets if packets < MIN_LIFETIME => Err("its lifetime is under 2^20, which a call may outlast"),
        packets => Ok(packets),
    }
}

/// Whether a session parameter changes nothing: a hint, or one that says itself that it may be ignored (RFC 4568
/// 6.3.7).
fn harmless(parameter: &str) -> bool {
    if let Some(hint) = parameter.strip_prefix("WSH=") {
        return digits(hint) && hint.parse::<u32>().is_ok_and(|n| n >= MIN_WINDOW_HINT);
    }
    parameter.strip_prefix('-').is_some_and(|name| !name.is_empty() && !name.starts_with("UN"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "WbTBosdVUZqEb6Htqhn+m3z7wUh4RJVR8nE15GbN";
    const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";

    fn problem(line: &str) -> &'static str {
        Crypto::parse(line).unwrap_err()
    }

    #[test]
    fn reads_what_it_writes() {
        for suite in Suite::ALL {
            let key = MasterKey::random(suite, |bytes| bytes.fill(0xfb));
            let line = Crypto::line(7, &key);
            let value = line.strip_prefix("a=crypto:").unwrap().trim_end();
            let read = Crypto::parse(value).unwrap();
            assert_eq!((read.tag, read.lifetime), (7, MAX_LIFETIME));
            assert!(read.key == key);
            assert!(Crypto::parse(value.trim_end_matches('=')).unwrap().key == key, "without padding");
        }
    }

    #[test]
    fn careless_lines_are_read() {
        for line in [
            format!("1 {SUITE} inline:{KEY}"),
            format!("999999999   {SUITE}\tinline:{KEY}"),
            format!("1 aes_cm_128_hmac_sha1_80 INLINE:{KEY}"),
            format!("1 {SUITE} inline:{KEY} WSH=128 -FOO=1"),
        ] {
            assert!(Crypto::parse(&line).is_ok(), "{line}");
        }
        for (text, packets) in [("2^20", 1 << 20), ("1900000", 1_900_000), ("2^48", 1 << 48)] {
            assert_eq!(Crypto::parse(&format!("1 {SUITE} inline:{KEY}|{text}")).unwrap().lifetime, packets);
        }
    }

    #[test]
    fn bad_lines_are_passed_over() {
        for line in [
            "",
            "1",
            &format!("{SUITE} inline:{KEY}"),
            &format!("FOO {SUITE} inline:{KEY}"),
            &format!("1000000000 {SUITE} inline:{KEY}"),
            &format!("-1 {SUITE} inline:{KEY}"),
            &format!("1 AES_SUPER_CRYPTO inline:{KEY}"),
            &format!("1 inline:{KEY}"),
            &format!("1 {SUITE}"),
            &format!("1 {SUITE} inline:"),
            &format!("1 {SUITE} inline:Ar/jYxzGz1lLcR"),
            &format!("1 {SUITE} inline:{KEY}AAAA"),
            &format!("1 {SUITE} inline:{}", "A".repeat(60_000)),
            &format!("1 {SUITE} {KEY}"),
            &format!("1 {SUITE} inline{KEY}"),
            &format!("1 {SUITE} inline:{}!", &KEY[1..]),
            &format!("1 {SUITE} inline:{KEY};inline:{KEY}"),
            &format!("1 AEAD_AES_256_GCM inline:{KEY}"),
        ] {
            problem(line);
        }
        for lifetime in [
            "",
            "0",
            "1",
            "2^",
            "2^19",
            "1048575",
            "2^49",
            "2^64",
            "2^99999999999",
            "281474976710657",
            "monkeys!",
        ] {
            assert!(
                problem(&format!("1 {SUITE} inline:{KEY}|{lifetime}")).contains("lifetime"),
                "{lifetime}"
            );
        }
        for mki in ["1:4", "2^32|1:4", "|1:4", "2^32|weasels!:4", "2^32|2", "2^32|1:4|1"] {
            assert!(problem(&format!("1 {SUITE} inline:{KEY}|{mki}")).contains("MKI"), "{mki}");
        }
        for parameter in [
            "UNENCRYPTED_SRTP",
            "UNENCRYPTED_SRTCP",
            "UNAUTHENTICATED_SRTP",
            "-UNAUTHENTICATED_SRTP",
            "KDR=1",
            "FEC_ORDER=FEC_SRTP",
            "FOO",
            "WSH=63",
            "WSH=",
            "-",
        ] {
            assert!(problem(&format!("1 {SUITE} inline:{KEY} {parameter}")).contains("session parameter"));
        }
    }
}
