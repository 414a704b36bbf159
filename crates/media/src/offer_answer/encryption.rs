//! The encryption policy: which streams are carried as SRTP, and with which keys (RFC 4568, RFC 8643).

use super::OfferError;
use crate::sdp::crypto::Crypto;
use crate::sdp::{Media, Profile};
use crate::srtp::{Keys, MasterKey, Suite};

/// What is done about SRTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// Plain RTP alone.
    #[default]
    Disable,
    /// Either, and SRTP where the peer can.
    Allow(Srtp),
    /// SRTP alone.
    Require(Srtp),
}

/// How SRTP is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Srtp {
    /// Suites in our offers, in order of preference. All of ours are taken in offers of others.
    pub suites: &'static [Suite],
    /// Fills keys with unpredictable bytes.
    pub random: Random,
}

/// Where unpredictable bytes come from.
#[derive(Debug, Clone, Copy)]
pub struct Random(pub fn(&mut [u8]));

impl PartialEq for Random {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for Random {}

impl Encryption {
    fn srtp(&self) -> Option<&Srtp> {
        match self {
            Self::Disable => None,
            Self::Allow(srtp) | Self::Require(srtp) => Some(srtp),
        }
    }
}

/// Our key of a line we send, by its tag.
pub(super) type Offered = Vec<(u32, MasterKey)>;

/// The first line of an offered stream that is to be used; `None` when the stream is plain RTP.
pub(super) fn of_offer(
    policy: &Encryption,
    media: &Media<'_>,
    profile: Profile,
) -> Result<Option<Crypto>, OfferError> {
    if *policy == Encryption::Disable {
        return if profile.is_secure() { Err(OfferError::EncryptionDisabled) } else { Ok(None) };
    }
    let (usable, problems) = Crypto::usable(media);
    match (usable.into_iter().next(), policy) {
        (Some(line), _) => Ok(Some(line)),
        (None, _) if profile.is_secure() => Err(OfferError::NoUsableCrypto(problems)),
        (None, Encryption::Require(_)) => Err(OfferError::EncryptionRequired(problems)),
        (None, _) => Ok(None),
    }
}

/// The line of an answered stream that takes one of ours up; `None` when the stream is plain RTP.
pub(super) fn of_answer(
    policy: &Encryption,
    offered: &Offered,
    media: &Media<'_>,
    profile: Profile,
) -> Result<Option<Keys>, OfferError> {
    if offered.is_empty() {
        // We offered plain RTP: an answer cannot make more of it.
        return if profile.is_secure() { Err(OfferError::EncryptionDisabled) } else { Ok(None) };
    }
    let (usable, problems) = Crypto::usable(media);
    let keys = usable.into_iter().find_map(|line| {
        let (_, send) =
            offered.iter().find(|(tag, key)| *tag == line.tag && key.suite() == line.key.suite())?;
        Some(Keys { send: send.clone(), receive: line.key, lifetime: line.lifetime })
    });
    match (keys, policy) {
        (Some(keys), _) => Ok(Some(keys)),
        (None, Encryption::Require(_)) => Err(OfferError::EncryptionRequired(problems)),
        (None, _) if profile.is_secure() => Err(OfferError::NoUsableCrypto(problems)),
        (None, _) => Ok(None),
    }
}

/// The keys of a stream we answer. While the peer keeps its key we keep ours; to a new one we give a new one, since
/// what is behind it may be another device that knows nothing of our rollover counter.
pub(super) fn answered(policy: &Encryption, line: Crypto, before: Option<&Keys>) -> Option<Keys> {
    let srtp = policy.srtp()?;
    let send = match before {
        Some(keys) if keys.receive == line.key => keys.send.clone(),
        _ => MasterKey::random(line.key.suite(), srtp.random.0),
    };
    Some(Keys { send, receive: line.key, lifetime: line.lifetime })
}

/// The lines of a first offer: a key for each suite.
pub(super) fn fresh(policy: &Encryption) -> Offered {
    let Some(srtp) = policy.srtp() else { return Vec::new() };
    (1..).zip(srtp.suites).map(|(tag, suite)| (tag, MasterKey::random(*suite, srtp.random.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{LocalMedia, OfferAnswer};
    use super::*;

    const KEY: &str = "WbTBosdVUZqEb6Htqhn+m3z7wUh4RJVR8nE15GbN";
    const OTHER: &str = "Ar/jYxzGz1lLcROAnVi8IFGB2VJlynqKBhjaVvgb";
    const CM_80: &str = "AES_CM_128_HMAC_SHA1_80";

    /// Different bytes each time, as a generator gives.
    fn random(bytes: &mut [u8]) {
        use std::sync::atomic::{AtomicU8, Ordering};
        static NEXT: AtomicU8 = AtomicU8::new(1);
        bytes.fill(NEXT.fetch_add(1, Ordering::Relaxed));
    }

    const SRTP: Srtp = Srtp { suites: &Suite::ALL, random: Random(random) };
    const POLICIES: [Encryption; 3] =
        [Encryption::Disable, Encryption::Allow(SRTP), Encryption::Require(SRTP)];

    fn side(encryption: Encryption, last: u8) -> OfferAnswer {
        OfferAnswer::new(LocalMedia {
            address: std::net::Ipv4Addr::new(192, 0, 2, last).into(),
            port: 20_000,
            encryption,
            ..LocalMedia::default()
        })
    }

    fn sdp(profile: &str, lines: &str) -> Vec<u8> {
        format!("v=0\r\nc=IN IP4 198.51.100.10\r\nm=audio 4000 {profile} 0\r\n{lines}").into_bytes()
    }

    fn line(tag: u32, key: &str) -> String {
        format!("a=crypto:{tag} {CM_80} inline:{key}\r\n")
    }

    /// What is agreed under each policy: `plain`, `srtp`, or the error's name.
    fn outcomes(profile: &str, lines: &str) -> [&'static str; 3] {
        POLICIES.map(|policy| match side(policy, 1).answer(&sdp(profile, lines)) {
            Ok((answer, negotiated)) => {
                let answer = String::from_utf8(answer).unwrap();
                assert!(answer.contains(&format!("m=audio 20000 {profile} 0\r\n")), "{answer}");
                assert_eq!(answer.contains("a=crypto:"), negotiated.encryption.is_some(), "{answer}");
                if negotiated.encryption.is_some() { "srtp" } else { "plain" }
            }
            Err(OfferError::EncryptionDisabled) => "disabled",
            Err(OfferError::EncryptionRequired(_)) => "required",
            Err(OfferError::NoUsableCrypto(_)) => "unusable",
            Err(error) => panic!("{error}"),
        })
    }

    #[test]
    fn the_matrix_of_offers_to_us() {
        let good = line(1, KEY);
        let unknown = "a=crypto:1 AES_SUPER_CRYPTO inline:WbTBosdV\r\n";
        for (avp, savp) in [("RTP/AVP", "RTP/SAVP"), ("RTP/AVPF", "RTP/SAVPF")] {
            assert_eq!(outcomes(avp, ""), ["plain", "plain", "required"]);
            assert_eq!(outcomes(avp, &good), ["plain", "srtp", "srtp"]);
            assert_eq!(outcomes(avp, unknown), ["plain", "plain", "required"]);
            assert_eq!(outcomes(savp, &good), ["disabled", "srtp", "srtp"]);
            assert_eq!(outcomes(savp, unknown), ["disabled", "unusable", "unusable"]);
            assert_eq!(outcomes(savp, ""), ["disabled", "unusable", "unusable"]);
            let weak = good.replace("\r\n", " UNENCRYPTED_SRTP\r\n");
            assert_eq!(outcomes(savp, &weak), ["disabled", "unusable", "unusable"]);
            let ambiguous = format!("{}{}", line(1, KEY), line(1, OTHER));
            assert_eq!(outcomes(savp, &ambiguous), ["disabled", "unusable", "unusable"]);
        }
    }

    #[test]
    fn the_answer_repeats_tag_and_suite_of_the_first_usable_line() {
        let lines = format!(
            "a=crypto:1 F8_128_HMAC_SHA1_80 inline:{KEY}\r\na=crypto:2 {CM_80} inline:{KEY} UNAUTHENTICATED_SRTP\r\n{}a=crypto:9 AES_CM_128_HMAC_SHA1_32 inline:{OTHER}\r\n",
            line(77, KEY).replace(KEY, &format!("{KEY}|2^31")),
        );
        let (answer, negotiated) = side(POLICIES[2], 1).answer(&sdp("RTP/SAVPF", &lines)).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains(&format!("a=crypto:77 {CM_80} inline:")), "{answer}");
        assert_eq!(answer.matches("a=crypto").count(), 1);
        assert!(!answer.contains(KEY), "the key of the answer is ours");
        let keys = negotiated.encryption.unwrap();
        assert_eq!((keys.suite(), keys.lifetime), (Suite::AesCm128HmacSha1_80, 1 << 31));
        assert!(keys.send != keys.receive);
    }

    #[test]
    fn two_lines_for_one_stream_are_the_old_way_to_offer_both() {
        let offer = format!(
            "v=0\r\nc=IN IP4 198.51.100.10\r\nm=audio 4000 RTP/SAVP 0\r\n{}m=audio 4000 RTP/AVP 0\r\n",
            line(1, KEY)
        );
        for (policy, secure) in POLICIES.into_iter().zip([false, true, true]) {
            let (answer, negotiated) = side(policy, 1).answer(offer.as_bytes()).unwrap();
            let answer = String::from_utf8(answer).unwrap();
            assert_eq!(negotiated.encryption.is_some(), secure);
            assert_eq!(answer.contains("m=audio 20000 RTP/SAVP 0\r\n"), secure, "{answer}");
            assert_eq!(answer.contains("m=audio 0 RTP/AVP 0\r\n"), secure, "{answer}");
        }
    }

    #[test]
    fn what_we_offer() {
        let offered = |policy, how: fn(&mut OfferAnswer) -> Vec<u8>| {
            let text = String::from_utf8(how(&mut side(policy, 1))).unwrap();
            let profile = text.split(' ').find(|word| word.starts_with("RTP/")).unwrap().to_owned();
            (profile, text.matches("a=crypto:").count())
        };
        let plain = ("RTP/AVP".to_owned(), 0);
        for (policy, first, in_response) in [
            (POLICIES[0], plain.clone(), plain.clone()),
            (POLICIES[1], ("RTP/SAVP".to_owned(), 4), ("RTP/AVP".to_owned(), 4)),
            (POLICIES[2], ("RTP/SAVP".to_owned(), 4), ("RTP/SAVP".to_owned(), 4)),
        ] {
            assert_eq!(offered(policy, OfferAnswer::offer), first);
            assert_eq!(offered(policy, OfferAnswer::offer_in_response), in_response);
        }
        assert_eq!(offered(POLICIES[1], OfferAnswer::offer_in_clear), plain);
    }

    #[test]
    fn answers_to_us() {
        let answered = |policy, profile: &str, lines: &str| {
            let mut side = side(policy, 1);
            let _ = side.offer();
            match side.accept(&sdp(profile, lines)) {
                Ok(negotiated) if negotiated.encryption.is_some() => "srtp",
                Ok(_) => "plain",
                Err(OfferError::EncryptionDisabled) => "disabled",
                Err(OfferError::EncryptionRequired(_)) => "required",
                Err(OfferError::NoUsableCrypto(_)) => "unusable",
                Err(error) => panic!("{error}"),
            }
        };
        let [disable, allow, require] = POLICIES;
        // Tag 3 is our AES_CM_128_HMAC_SHA1_80.
        let good = line(3, KEY);
        for (policy, profile, lines, outcome) in [
            (disable, "RTP/AVP", &*good, "plain"),
            (disable, "RTP/SAVP", &good, "disabled"),
            (allow, "RTP/SAVP", &good, "srtp"),
            (allow, "RTP/SAVPF", &good, "srtp"),
            (allow, "RTP/AVP", &good, "srtp"),
            (allow, "RTP/AVP", "", "plain"),
            (allow, "RTP/SAVP", "", "unusable"),
            (require, "RTP/SAVP", &good, "srtp"),
            (require, "RTP/AVP", &good, "srtp"),
            (require, "RTP/AVP", "", "required"),
            (require, "RTP/SAVP", "", "required"),
            // A tag that was not offered, and one of another suite.
            (allow, "RTP/SAVP", &line(5, KEY), "unusable"),
            (require, "RTP/SAVP", &line(4, KEY), "required"),
        ] {
            assert_eq!(answered(policy, profile, lines), outcome, "{policy:?} {profile} {lines}");
        }
    }

    #[test]
    fn both_sides_hold_the_same_keys() {
        for policy in [POLICIES[1], POLICIES[2]] {
            let (mut us, mut them) = (side(policy, 1), side(policy, 2));
            let (answer, at_them) = them.answer(&us.offer()).unwrap();
            let at_us = us.accept(&answer).unwrap();
            let (at_us, at_them) = (at_us.encryption.unwrap(), at_them.encryption.unwrap());
            assert!(at_us.send == at_them.receive && at_us.receive == at_them.send);
            assert_eq!(at_us.suite(), Suite::AeadAes256Gcm);
            // Offers inside the dialog repeat what is agreed, in both directions.
            let (again, _) = them.answer(&us.offer()).unwrap();
            assert!(us.accept(&again).unwrap().encryption.unwrap() == at_us);
            let (again, _) = us.answer(&them.offer()).unwrap();
            assert!(them.accept(&again).unwrap().encryption.unwrap() == at_them);
        }
    }

    #[test]
    fn a_new_key_is_answered_with_a_new_key() {
        let mut side = side(POLICIES[1], 1);
        let mut keys = |lines: &str| side.answer(&sdp("RTP/SAVP", lines)).unwrap().1.encryption.unwrap();
        let first = keys(&line(1, KEY));
        assert!(keys(&line(1, KEY)) == first);
        let second = keys(&line(1, OTHER));
        assert!(second.send != first.send && second.receive != first.receive);
        assert!(
            keys("a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:Ar/jYxzGz1lLcROAnVi8IFGB2VJlynqKBhjaVvgb\r\n")
                .send
                != second.send
        );
    }

    /// Whatever is offered or answered is agreed on or refused, and never a panic.
    #[test]
    fn mutated_descriptions_are_only_refused() {
        let mut random = 0x2545_f491_4f6c_dd1du64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize
        };
        let good = sdp("RTP/SAVP", &format!("{}a=ptime:20\r\n{}", line(3, KEY), line(2, OTHER)));
        let words: [&[u8]; 8] = [
            b"a=crypto:",
            b"inline:",
            b"|2^",
            b"m=audio 0 RTP/SAVPF ",
            b"\r\n",
            b" ",
            b"999999999999",
            b"\xff",
        ];
        for _ in 0..5_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + next() % 4 {
                let at = next() % bytes.len();
                match next() % 3 {
                    0 => bytes[at] = next() as u8,
                    1 => drop(bytes.splice(at..at, words[next() % words.len()].iter().copied())),
                    _ => drop(bytes.drain(at..(at + next() % 20).min(bytes.len()))),
                }
            }
            let policy = POLICIES[next() % 3];
            let mut side = side(policy, 1);
            let _ = side.answer(&bytes);
            let _ = side.offer();
            let _ = side.accept(&bytes);
        }
    }
}
