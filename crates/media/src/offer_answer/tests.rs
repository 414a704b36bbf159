use super::*;

fn side() -> OfferAnswer {
    OfferAnswer::new(LocalMedia {
        address: "192.0.2.1".parse().unwrap(),
        port: 20_000,
        session_id: 7,
        ..LocalMedia::default()
    })
}

fn offer(media: &str) -> String {
    format!("v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n{media}")
}

fn answered(media: &str) -> (String, Negotiated) {
    let (answer, negotiated) = side().answer(offer(media).as_bytes()).unwrap();
    (String::from_utf8(answer).unwrap(), negotiated)
}

#[test]
fn a_carriers_offer_is_answered_in_its_order() {
    let (answer, negotiated) = answered(
        "m=audio 49170 RTP/AVP 18 8 0 96\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\na=ptime:30\r\nm=video 5000 RTP/AVP 31\r\n",
    );
    assert!(answer.contains("m=audio 20000 RTP/AVP 8 96\r\na=rtpmap:8 PCMA/8000\r\n"), "{answer}");
    assert!(answer.contains("m=video 0 RTP/AVP 31\r\n"));
    assert_eq!(
        (negotiated.codec, negotiated.ptime_ms, negotiated.remote.to_string().as_str()),
        (Codec::Pcma, 30, "198.51.100.10:49170")
    );
    assert_eq!(negotiated.telephone_event, Some(TelephoneEvent { send: 96, receive: 96, clock_rate: 8_000 }));
}

#[test]
fn hold_is_answered_as_the_rfc_asks() {
    for (theirs, ours) in [
        ("sendonly", Direction::RecvOnly),
        ("recvonly", Direction::SendOnly),
        ("inactive", Direction::Inactive),
    ] {
        let (answer, negotiated) = answered(&format!("m=audio 4000 RTP/AVP 0\r\na={theirs}\r\n"));
        assert_eq!(negotiated.direction, ours);
        assert!(answer.contains(&format!("a={}\r\n", ours.as_str())));
    }
    let (_, negotiated) = answered("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n");
    assert!(!negotiated.direction.sends());
}

#[test]
fn refusals_say_why() {
    let refused = |media: &str| side().answer(offer(media).as_bytes()).unwrap_err();
    assert_eq!(refused("m=audio 4000 RTP/SAVP 0\r\n"), OfferError::EncryptionDisabled);
    assert_eq!(
        refused("m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\n"),
        OfferError::UnsupportedProfile("UDP/TLS/RTP/SAVPF".to_owned())
    );
    assert_eq!(
        refused("m=audio 4000 RTP/AVP 18\r\n"),
        OfferError::NoCommonCodec { offered: vec!["18".to_owned()] }
    );
    assert_eq!(refused("m=audio 0 RTP/AVP 0\r\n"), OfferError::NoAudio);
    assert_eq!(
        refused("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 224.0.0.1\r\n"),
        OfferError::BadAddress("224.0.0.1".to_owned())
    );
    assert_eq!(
        refused("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 pbx.example\r\n"),
        OfferError::BadAddress("pbx.example".to_owned())
    );
    assert!(matches!(side().answer(b"hello"), Err(OfferError::Malformed(_))));
    assert_eq!(side().answer(&vec![b'a'; 70_000]).unwrap_err(), OfferError::TooLarge);
}

#[test]
fn addresses_that_must_not_be_sent_to() {
    let named = |address: &str| {
        let kind = if address.contains(':') { "IP6" } else { "IP4" };
        let text = format!("v=0\r\nc=IN {kind} {address}\r\nm=audio 4000 RTP/AVP 0\r\n");
        let local = if address.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
        let local = LocalMedia { address: local.parse().unwrap(), port: 4_000, ..LocalMedia::default() };
        OfferAnswer::new(local).answer(text.as_bytes())
    };
    for bad in [
        "224.0.0.1",
        "239.1.2.3/127",
        "255.255.255.255",
        "0.0.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "::",
        "ff02::1",
        "fe80::1",
        "2001:db8::1",
        "::ffff:192.0.2.9",
        "1.2.3",
        "host.example",
    ] {
        assert!(matches!(named(bad), Err(OfferError::BadAddress(_))), "{bad}");
    }
    for good in ["192.0.2.2", "10.0.0.1", "127.0.0.1", "2001:db8::2", "::1", "0.0.0.0"] {
        assert!(named(good).is_ok(), "{good}");
    }
    // Nobody is there: only hold says so.
    assert!(!named("0.0.0.0").unwrap().1.direction.sends());
    assert!(matches!(answered_v6("192.0.2.9"), Err(OfferError::BadAddress(_))));
    let (answer, negotiated) = answered_v6("2001:db8::9").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.contains("c=IN IP6 2001:db8::1\r\n") && answer.contains(" IN IP6 2001:db8::1\r\ns="),
        "{answer}"
    );
    assert_eq!(negotiated.remote.to_string(), "[2001:db8::9]:4000");
}

#[test]
fn what_is_forbidden_is_not_sent_to() {
    let answer = |forbidden: Forbidden, port: u16| {
        let local = LocalMedia { address: "192.0.2.1".parse().unwrap(), forbidden, ..LocalMedia::default() };
        let text = format!("v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio {port} RTP/AVP 0\r\n");
        OfferAnswer::new(local).answer(text.as_bytes()).map(|_| ())
    };
    let forbidden = Forbidden::by(|to| to == "192.0.2.1:20002".parse().unwrap());
    assert_eq!(answer(forbidden.clone(), 20_002), Err(OfferError::BadAddress("192.0.2.1".to_owned())));
    assert_eq!(answer(forbidden, 20_004), Ok(()));
    assert_eq!(answer(Forbidden::default(), 20_002), Ok(()));
}

fn answered_v6(address: &str) -> Result<(Vec<u8>, Negotiated), OfferError> {
    let kind = if address.contains(':') { "IP6" } else { "IP4" };
    let text = format!("v=0\r\nc=IN {kind} {address}\r\nm=audio 4000 RTP/AVP 0\r\n");
    assert_eq!(offered_address(text.as_bytes()), address.parse().ok());
    let local = LocalMedia { address: "2001:db8::1".parse().unwrap(), port: 20_000, ..LocalMedia::default() };
    OfferAnswer::new(local).answer(text.as_bytes())
}

#[test]
fn bombs_are_bounded() {
    let begun = std::time::Instant::now();
    let answered = |media: String| side().answer(offer(&media).as_bytes()).map(|(_, negotiated)| negotiated);
    let audio = "m=audio 4000 RTP/AVP 0\r\n";
    for bomb in [
        "m=audio 4000 RTP/AVP 0\r\n".repeat(10_000),
        audio.to_owned() + &"a=x\r\n".repeat(100_000),
        audio.to_owned() + &"a=x\r\n".repeat(1_025),
        audio.to_owned() + "a=fmtp:0 " + &"x".repeat(64 << 10),
        "m=video 9 RTP/AVP 31\r\n".repeat(64) + audio,
    ] {
        assert_eq!(answered(bomb).unwrap_err(), OfferError::TooLarge);
    }
    let many: String = (0..=255).rev().map(|n| format!(" {n}")).collect();
    let maps: String = (0..1_000).map(|n| format!("a=rtpmap:{} x/1\r\n", n % 300)).collect();
    for odd in [
        audio.to_owned() + "a=fmtp:0 " + &"x".repeat(60 << 10),
        format!("m=audio 4000 RTP/AVP{many} 8\r\n"),
        format!("m=audio 4000 RTP/AVP 0{many}\r\n"),
        "m=video 9 RTP/AVP 31\r\n".repeat(63) + audio,
        audio.to_owned() + &"b=AS:64\r\n".repeat(5_000),
    ] {
        let negotiated = answered(odd).unwrap();
        assert!(negotiated.ptime_ms == 20);
    }
    let _ = answered(format!("m=audio 4000 RTP/AVP{many}\r\n{maps}"));
    for (text, ptime_ms) in [("0", 10), ("1000000000", 60), ("1e9", 20), ("-1", 20), ("", 20), ("25", 20)] {
        assert_eq!(answered(format!("{audio}a=ptime:{text}\r\n")).unwrap().ptime_ms, ptime_ms, "{text}");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn our_offer_and_its_answer() {
    let mut ours = side();
    let mut theirs = OfferAnswer::new(LocalMedia {
        address: "198.51.100.10".parse().unwrap(),
        port: 4_000,
        ..LocalMedia::default()
    });
    let (answer, at_peer) = theirs.answer(&ours.offer()).unwrap();
    let at_us = ours.accept(&answer).unwrap();
    assert_eq!((at_us.codec, at_us.payload_type, at_us.remote.port()), (Codec::Opus, 107, 4_000));
    assert_eq!(at_us.telephone_event.map(|e| (e.send, e.clock_rate)), Some((110, 48_000)));
    assert_eq!(at_peer.remote.port(), 20_000);
}

#[test]
fn wideband_is_answered_with_its_names_and_clocks() {
    let (answer, negotiated) = answered(
        "m=audio 4000 RTP/AVP 111 9 0 101 102\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\na=ptime:30\r\n",
    );
    assert!(answer.contains("RTP/AVP 111 102\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\na=rtpmap:102 telephone-event/48000\r\n"), "{answer}");
    assert_eq!((negotiated.codec, negotiated.ptime_ms), (Codec::Opus, 20));
    let (answer, negotiated) = answered("m=audio 4000 RTP/AVP 9 0\r\na=maxptime:10\r\n");
    assert!(answer.contains("a=rtpmap:9 G722/8000\r\n"), "{answer}");
    assert_eq!((negotiated.codec, negotiated.ptime_ms), (Codec::G722, 10));
    let (_, negotiated) = answered("m=audio 4000 RTP/AVP 9\r\na=rtpmap:9 G722/8000/1\r\n");
    assert_eq!(negotiated.codec, Codec::G722);
}

#[test]
fn what_was_agreed_keeps_its_payload_type_in_our_next_offer() {
    let mut side = side();
    let peers = offer(
        "m=audio 4000 RTP/AVP 101 107\r\na=rtpmap:101 opus/48000/2\r\na=rtpmap:107 telephone-event/48000\r\n",
    );
    side.answer(peers.as_bytes()).unwrap();
    let text = String::from_utf8(side.offer()).unwrap();
    assert!(text.contains("RTP/AVP 101 9 0 8 96 107\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:96 telephone-event/8000\r\n") && text.len() < 600, "{text}");
}

#[test]
fn the_version_rises_only_when_something_changed() {
    let mut side = side();
    let plain = offer("m=audio 4000 RTP/AVP 0\r\n");
    let version = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().split(' ').nth(2).unwrap().to_owned();
    let first = version(side.answer(plain.as_bytes()).unwrap().0);
    assert_eq!(version(side.answer(plain.as_bytes()).unwrap().0), first);
    let held = offer("m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n");
    assert_ne!(version(side.answer(held.as_bytes()).unwrap().0), first);
}

#[test]
fn careless_descriptions_are_read() {
    let offer = b"v=0\no=- 1 1 IN IP4 1.2.3.4\nc=IN IP4 198.51.100.10\nm=audio 4000 RTP/AVP 0  \n";
    assert!(side().answer(offer).is_ok());
}
