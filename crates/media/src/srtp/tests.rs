use super::*;

const RTP: &str =
    "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573";
const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
const QUID_PRO_QUO: [u8; 12] = *b"Quid pro quo";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn pseudo_random(bytes: &mut [u8]) {
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = (n * 37 + 11) as u8;
    }
}

fn key(suite: Suite) -> MasterKey {
    MasterKey::random(suite, pseudo_random)
}

fn pair(suite: Suite) -> (Sender, Receiver) {
    (Sender::new(&key(suite)), Receiver::new(&key(suite), MAX_LIFETIME))
}

fn packet(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 0, 0, 0, 0, 0, 0, 1];
    bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend((0..160u32).map(|n| (n ^ u32::from(sequence)) as u8));
    bytes
}

fn protected(sender: &mut Sender, packet: &[u8]) -> Vec<u8> {
    // What another packet left in front stays as it is.
    let mut buffer = b"before".to_vec();
    buffer.extend_from_slice(packet);
    sender.protect(&mut buffer, 6).unwrap();
    assert_eq!(&buffer[..6], b"before");
    buffer.split_off(6)
}

fn opened(receiver: &mut Receiver, packet: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut plain = b"left over".to_vec();
    receiver.unprotect(packet, &mut plain).map(|()| plain)
}

/// RFC 7714 16.1, 16.2 (RTP), 17.1, 17.2 (RTCP with index 0x5d4).
#[test]
fn rfc_7714_vectors() {
    let key: Vec<u8> = (0..32).collect();
    for (suite, key, srtp, srtcp) in [
        (
            Suite::AeadAes128Gcm,
            &key[..16],
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        ),
        (
            Suite::AeadAes256Gcm,
            &key[..],
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        ),
    ] {
        let keys = || SessionKeys::of_gcm(suite, key, QUID_PRO_QUO);
        let mut sender = Sender { keys: keys(), streams: Streams::default(), next_rtcp_index: 0x5d4 };
        let mut receiver = Receiver { keys: keys(), streams: Streams::default(), left: 9 };
        assert_eq!(protected(&mut sender, &hex(RTP)), hex(srtp));
        assert_eq!(opened(&mut receiver, &hex(srtp)), Ok(hex(RTP)));
        let mut buffer = hex(RTCP);
        sender.protect_rtcp(&mut buffer, 0).unwrap();
        assert_eq!(buffer, hex(srtcp));
        let mut plain = Vec::new();
        receiver.unprotect_rtcp(&buffer, &mut plain).unwrap();
        assert_eq!(plain, hex(RTCP));
    }
}

/// RFC 3711 B.2: the first blocks of the keystream, and the last of 65,282.
#[test]
fn rfc_3711_b2_keystream() {
    let salt: [u8; 14] = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd").try_into().unwrap();
    let keys = SessionKeys::of_cm(Suite::AesCm128HmacSha1_80, &hex("2b7e151628aed2a6abf7158809cf4f3c"), salt);
    let mut stream = vec![0; 1_044_512];
    keys.seal_rtp(&[], &mut stream, 0, 0).unwrap();
    assert_eq!(
        stream[..48],
        hex(
            "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab41e95b3bb0a2e8dd477901e4fca894c0"
        )
    );
    assert_eq!(
        stream[1_044_512 - 48..],
        hex(
            "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae6a2cc3787889374fbeb4c81b17ba6c44"
        )
    );
}

/// RFC 3711 B.3 gives master and session keys: a packet protected with either must be the same.
#[test]
fn rfc_3711_b3_key_derivation() {
    let suite = Suite::AesCm128HmacSha1_80;
    let material = hex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6");
    let master = MasterKey::new(suite, &material).unwrap();
    let derived = SessionKeys::derive(&master);
    let salt = hex("30cbbc08863d8c85d49db34a9ae1").try_into().unwrap();
    let given = SessionKeys::of_cm(suite, &hex("c61e7a93744f39ee10734afe3ff7a087"), salt);
    let (mut by_derived, mut by_given) = (vec![7; 160], vec![7; 160]);
    let tag = derived.seal_rtp(&hex(RTP)[..12], &mut by_derived, 9, 5).unwrap();
    given.seal_rtp(&hex(RTP)[..12], &mut by_given, 9, 5).unwrap();
    assert_eq!(by_derived, by_given);
    let authentication = aws_lc_rs::hmac::Key::new(
        aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        &hex("cebe321f6ff7716b6fd4ab49af256a156d38baa4"),
    );
    let mut signed = hex(RTP)[..12].to_vec();
    signed.extend_from_slice(&by_given);
    signed.extend_from_slice(&[0; 4]);
    assert_eq!(aws_lc_rs::hmac::sign(&authentication, &signed).as_ref()[..16], tag);
}

/// The packets of libsrtp's own self-test, with master keys.
#[test]
fn libsrtp_vectors() {
    let suite = Suite::AesCm128HmacSha1_80;
    let master =
        MasterKey::new(suite, &hex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6")).unwrap();
    let mut sender = Sender::new(&master);
    let plain = hex("800f1234decafbadcafebabeabababababababababababababababab");
    let srtp = hex("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb");
    assert_eq!(protected(&mut sender, &plain), srtp);
}

#[test]
fn every_suite_goes_both_ways_and_shows_nothing_of_the_payload() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = pair(suite);
        let plain = packet(9, 7);
        let srtp = protected(&mut sender, &plain);
        assert_eq!(srtp.len(), plain.len() + suite.rtp_tag());
        assert!(!srtp.windows(8).any(|w| plain[12..].windows(8).any(|p| p == w)));
        assert_eq!(opened(&mut receiver, &srtp), Ok(plain));
        // Two CSRCs and an extension of 8 words are header, and stay as they are.
        let mut plain = packet(10, 7);
        plain[0] = 0x92;
        plain[22..24].copy_from_slice(&8u16.to_be_bytes());
        let srtp = protected(&mut sender, &plain);
        assert_eq!(srtp[..56], plain[..56]);
        assert_ne!(srtp[56..64], plain[56..64]);
        assert_eq!(opened(&mut receiver, &srtp), Ok(plain));
        let mut rtcp = hex(RTCP);
        sender.protect_rtcp(&mut rtcp, 0).unwrap();
        let mut back = Vec::new();
        receiver.unprotect_rtcp(&rtcp, &mut back).unwrap();
        assert_eq!(back, hex(RTCP));
        assert_eq!(receiver.unprotect_rtcp(&rtcp, &mut back), Err(Refused::Replayed));
        // The E flag taken away: whether or not the tag fits, clear RTCP is nothing we agreed on.
        let word = if suite.rtcp_tag() == 16 { rtcp.len() - 4 } else { rtcp.len() - 14 };
        rtcp[word] &= 0x7f;
        assert_eq!(receiver.unprotect_rtcp(&rtcp, &mut back), Err(Refused::Unauthenticated));
    }
}

#[test]
fn forged_truncated_replayed_and_plain_packets_are_refused() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = pair(suite);
        let srtp = protected(&mut sender, &packet(1, 7));
        assert!(opened(&mut receiver, &packet(1, 7)).is_err());
        for at in [1, 4, 8, 20, srtp.len() - 1] {
            let mut forged = srtp.clone();
            forged[at] ^= 1;
            assert_eq!(opened(&mut receiver, &forged), Err(Refused::Unauthenticated), "{suite:?} {at}");
        }
        for length in 0..srtp.len() {
            assert!(opened(&mut receiver, &srtp[..length]).is_err());
        }
        let other = MasterKey::new(suite, &[9; MAX_MATERIAL][..suite.material_length()]).unwrap();
        let wrong = protected(&mut Sender::new(&other), &packet(1, 7));
        assert_eq!(opened(&mut receiver, &wrong), Err(Refused::Unauthenticated));
        // None of that has left a trace.
        assert_eq!(opened(&mut receiver, &srtp), Ok(packet(1, 7)));
        assert_eq!(opened(&mut receiver, &srtp), Err(Refused::Replayed));
    }
}

#[test]
fn packets_out_of_order_are_taken_once_within_the_window() {
    let (mut sender, mut receiver) = pair(Suite::AeadAes256Gcm);
    let sent: Vec<_> =
        (0..300).map(|n| protected(&mut sender, &packet(65_400u16.wrapping_add(n), 7))).collect();
    assert!(opened(&mut receiver, &sent[200]).is_ok());
    for n in (73..200).rev() {
        assert!(opened(&mut receiver, &sent[n]).is_ok(), "{n}");
    }
    for (n, srtp) in sent[..201].iter().enumerate() {
        assert_eq!(opened(&mut receiver, srtp), Err(Refused::Replayed), "{n}");
    }
}

#[test]
fn the_rollover_counter_follows_wraps_from_the_first_packet_on() {
    for suite in [Suite::AeadAes128Gcm, Suite::AesCm128HmacSha1_32] {
        let (mut sender, mut receiver) = pair(suite);
        for n in 0..140_000u32 {
            let sequence = 65_530u16.wrapping_add(n as u16);
            let plain = packet(sequence, 7);
            let srtp = protected(&mut sender, &plain);
            // Most are lost; the counter keeps up as long as one in 32,768 comes.
            if n % 9_973 == 0 || n < 20 {
                assert_eq!(opened(&mut receiver, &srtp), Ok(plain), "{n}");
            }
        }
    }
}

#[test]
fn a_stream_that_wrapped_before_its_first_packet_came_is_taken() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = pair(suite);
        for sequence in [65_534, 65_535, 0, 1] {
            protected(&mut sender, &packet(sequence, 7));
        }
        for sequence in 2..10 {
            let srtp = protected(&mut sender, &packet(sequence, 7));
            assert_eq!(opened(&mut receiver, &srtp), Ok(packet(sequence, 7)));
        }
    }
}

#[test]
fn each_ssrc_has_its_own_counter() {
    let (mut sender, mut receiver) = pair(Suite::AesCm128HmacSha1_80);
    for (sequence, ssrc) in
        [(65_535, 1), (20_000, 2), (0, 1), (20_001, 2), (65_534, 3), (1, 1), (65_535, 3), (0, 3)]
    {
        let plain = packet(sequence, ssrc);
        let srtp = protected(&mut sender, &plain);
        assert_eq!(opened(&mut receiver, &srtp), Ok(plain), "{sequence} of {ssrc}");
    }
}

#[test]
fn an_index_is_never_used_twice() {
    let (mut sender, _) = pair(Suite::AeadAes128Gcm);
    protected(&mut sender, &packet(5, 7));
    let mut again = packet(5, 7);
    again[20] ^= 1;
    let before = again.clone();
    assert_eq!(sender.protect(&mut again, 0), Err(Refused::Replayed));
    assert_eq!(again, before);
}

#[test]
fn a_key_is_dropped_at_the_end_of_its_lifetime() {
    let suite = Suite::AesCm128HmacSha1_32;
    let mut sender = Sender::new(&key(suite));
    let mut receiver = Receiver::new(&key(suite), 3);
    for n in 0..3 {
        assert!(opened(&mut receiver, &protected(&mut sender, &packet(n, 7))).is_ok());
    }
    assert_eq!(opened(&mut receiver, &protected(&mut sender, &packet(3, 7))), Err(Refused::Expired));
}

#[test]
fn a_key_that_stays_keeps_its_context_and_a_new_one_resets_it() {
    let suite = Suite::AeadAes256Gcm;
    let other = MasterKey::new(suite, &[9; 44]).unwrap();
    let keys = Keys { send: key(suite), receive: key(suite), lifetime: MAX_LIFETIME };
    let mut contexts = Contexts::new(keys.clone());
    let mut sender = Sender::new(&key(suite));
    let first = protected(&mut sender, &packet(65_535, 7));
    assert!(opened(&mut contexts.receiver, &first).is_ok());
    contexts.update(keys.clone());
    let wrapped = protected(&mut sender, &packet(0, 7));
    assert!(opened(&mut contexts.receiver, &wrapped).is_ok());
    assert_eq!(opened(&mut contexts.receiver, &first), Err(Refused::Replayed));
    contexts.update(Keys { receive: other.clone(), ..keys });
    assert_eq!(opened(&mut contexts.receiver, &first), Err(Refused::Unauthenticated));
    let anew = protected(&mut Sender::new(&other), &packet(1, 7));
    assert!(opened(&mut contexts.receiver, &anew).is_ok());
}

#[test]
fn keys_are_shown_to_nobody() {
    let keys = Keys { send: key(Suite::AeadAes256Gcm), receive: key(Suite::AeadAes256Gcm), lifetime: 1 };
    assert_eq!(format!("{keys:?}"), "Keys { send: MasterKey, receive: MasterKey, lifetime: 1 }");
    assert!(MasterKey::new(Suite::AeadAes256Gcm, &[0; 43]).is_none());
    assert!(MasterKey::new(Suite::AesCm128HmacSha1_80, &[0; 31]).is_none());
}

/// Whatever comes is refused or taken, and never a panic.
#[test]
fn mutated_packets_are_only_refused() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = pair(suite);
        let (mut plain, mut rtcp) = (Vec::new(), hex(RTCP));
        sender.protect_rtcp(&mut rtcp, 0).unwrap();
        let srtp = protected(&mut sender, &packet(7, 7));
        for _ in 0..5_000 {
            let mut bytes = if next() % 2 == 0 { srtp.clone() } else { rtcp.clone() };
            for _ in 0..next() % 4 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.truncate(next() % (bytes.len() + 1));
            let _ = receiver.unprotect(&bytes, &mut plain);
            let _ = receiver.unprotect_rtcp(&bytes, &mut plain);
            let _ = sender.protect(&mut bytes.clone(), 0);
            let _ = sender.protect_rtcp(&mut bytes, 0);
        }
    }
}
