use bytes::Bytes;

use super::super::{Challenge, answer};
use super::*;
use crate::message::Message;

const URI: &str = "sip:+14155550100@192.0.2.1";

fn account() -> Credentials {
    Credentials::new("carrier".to_owned(), "pa\"ss, word".to_owned())
}

fn scope(source: &str) -> Scope<'_> {
    Scope { source: source.parse().unwrap(), account: b"trunk" }
}

fn invite(uri: &str, branch: &str, authorization: &[&str]) -> Request {
    let lines: String = authorization.iter().map(|value| format!("Authorization: {value}\r\n")).collect();
    let text = format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch={branch}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <{URI}>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n{lines}Content-Length: 0\r\n\r\n"
    );
    match Message::parse(Bytes::from(text)) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

struct Bench {
    server: Authenticator,
    counts: NonceCounts,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        Self { server: Authenticator::new([7; 32], "tandem", now), counts: NonceCounts::default(), now }
    }

    fn challenges(&self, source: &str, number: u64) -> [Challenge; 2] {
        self.server.challenge(scope(source), false, number, self.now).map(|c| Challenge::parse(&c).unwrap())
    }

    fn judge(&mut self, source: &str, request: &Request) -> Verdict {
        self.server.check(request, scope(source), &account(), &mut self.counts, self.now)
    }
}

const CARRIER: &str = "198.51.100.10";

#[test]
fn hmac_has_the_values_of_rfc_4231() {
    // Test case 1, whose key of 20 bytes is padded with zeros as RFC 2104 does.
    let mut key = [0; 32];
    key[..20].fill(0x0b);
    assert_eq!(
        hex(&hmac_sha256(&key, &[b"Hi ", b"There"])),
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    );
}

#[test]
fn both_algorithms_are_offered_and_taken_the_stronger_first() {
    let mut bench = Bench::new();
    for (number, challenge) in bench.challenges(CARRIER, 1).into_iter().enumerate() {
        assert!(challenge.qop_auth && !challenge.stale && challenge.realm == "tandem");
        assert_eq!(challenge.algorithm, OFFERED[number]);
        let value = answer(&challenge, &account(), "INVITE", URI, u32::try_from(number).unwrap() + 1, "cn");
        assert_eq!(bench.judge(CARRIER, &invite(URI, "z9hG4bK1", &[&value])), Verdict::Accepted);
    }
    assert_eq!(bench.counts.len(), 1);
    let [stale, _] = bench.server.challenge(scope(CARRIER), true, 2, bench.now);
    assert!(Challenge::parse(&stale).unwrap().stale);
}

#[test]
fn the_response_is_that_of_the_rfcs() {
    // RFC 7616 3.9.1 and RFC 2617 3.5, judged from the server's side.
    for (algorithm, user, password, realm, nonce, cnonce, response) in [
        (
            Algorithm::Md5,
            "Mufasa",
            "Circle of Life",
            "http-auth@example.org",
            "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            "8ca523f5e9506fed4657c9700eebdbec",
        ),
        (
            Algorithm::Sha256,
            "Mufasa",
            "Circle of Life",
            "http-auth@example.org",
            "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        ),
        (
            Algorithm::Md5,
            "Mufasa",
            "Circle Of Life",
            "testrealm@host.com",
            "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            "0a4f113b",
            "6629fae49393a05397450978507c4ef1",
        ),
    ] {
        let line = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"/dir/index.html\", qop=auth, nc=00000001, cnonce=\"{cnonce}\", response=\"{response}\""
        );
        let given = Answer::parse(&line).unwrap();
        let account = Credentials::new(user.to_owned(), password.to_owned());
        assert_eq!(*algorithm.response(&account, realm, &given, "GET"), given.response);
    }
}

#[test]
fn a_nonce_is_good_for_its_source_its_account_and_a_minute() {
    let mut bench = Bench::new();
    let [challenge, _] = bench.challenges(CARRIER, 1);
    let value = answer(&challenge, &account(), "INVITE", URI, 1, "cn");
    let request = invite(URI, "z9hG4bK1", &[&value]);
    let stale = |staleness| Verdict::Stale(staleness);
    assert_eq!(bench.judge("203.0.113.66", &request), stale(Staleness::Foreign));
    let other = Scope { source: CARRIER.parse().unwrap(), account: b"other trunk" };
    let foreign = bench.server.check(&request, other, &account(), &mut bench.counts, bench.now);
    assert_eq!(foreign, stale(Staleness::Foreign));
    let restarted = Authenticator::new([8; 32], "tandem", bench.now);
    let foreign = restarted.check(&request, scope(CARRIER), &account(), &mut bench.counts, bench.now);
    assert_eq!(foreign, stale(Staleness::Foreign));
    assert!(bench.counts.is_empty());
    bench.now += NONCE_LIFE;
    assert_eq!(bench.judge(CARRIER, &request), stale(Staleness::Expired));
    bench.now -= Duration::from_millis(1);
    assert_eq!(bench.judge("::ffff:198.51.100.10", &request), Verdict::Accepted);
}

#[test]
fn a_count_is_taken_once_in_any_order_and_a_retransmission_is_no_replay() {
    let mut bench = Bench::new();
    let [challenge, _] = bench.challenges(CARRIER, 1);
    let use_count = |bench: &mut Bench, count, branch: &str| {
        let value = answer(&challenge, &account(), "INVITE", URI, count, "cn");
        bench.judge(CARRIER, &invite(URI, branch, &[&value]))
    };
    let replayed = Verdict::Stale(Staleness::Replayed);
    assert_eq!(use_count(&mut bench, 5, "z9hG4bKa"), Verdict::Accepted);
    assert_eq!(use_count(&mut bench, 5, "z9hG4bKa"), Verdict::Accepted);
    assert_eq!(use_count(&mut bench, 5, "z9hG4bKb"), replayed);
    assert_eq!(use_count(&mut bench, 3, "z9hG4bKc"), Verdict::Accepted);
    assert_eq!(use_count(&mut bench, 3, "z9hG4bKc"), replayed);
    assert_eq!(use_count(&mut bench, 0, "z9hG4bKd"), replayed);
    assert_eq!(use_count(&mut bench, 1_000, "z9hG4bKe"), Verdict::Accepted);
    assert_eq!(use_count(&mut bench, 4, "z9hG4bKf"), replayed);
    assert_eq!(use_count(&mut bench, u32::MAX, "z9hG4bKg"), Verdict::Accepted);
}

#[test]
fn whatever_is_wrong_is_refused() {
    let mut bench = Bench::new();
    let [challenge, md5] = bench.challenges(CARRIER, 1);
    let good = answer(&challenge, &account(), "INVITE", URI, 1, "cn");
    let wrong_password = Credentials::new("carrier".to_owned(), "guess".to_owned());
    let wrong_user = Credentials::new("other".to_owned(), "pa\"ss, word".to_owned());
    let legacy = Challenge { qop_auth: false, ..md5.clone() };
    let session = Challenge { algorithm: Algorithm::Sha256Sess, ..challenge.clone() };
    let cut = good.split_once("response=").unwrap();
    for value in [
        answer(&challenge, &wrong_password, "INVITE", URI, 1, "cn"),
        answer(&challenge, &wrong_user, "INVITE", URI, 1, "cn"),
        answer(&challenge, &account(), "INVITE", "sip:+19005550100@192.0.2.1", 1, "cn"),
        answer(&challenge, &account(), "BYE", URI, 1, "cn"),
        answer(&legacy, &account(), "INVITE", URI, 1, "cn"),
        answer(&session, &account(), "INVITE", URI, 1, "cn"),
        format!("{}response=\"\"", cut.0),
        format!("{}x=y", cut.0),
        good.replace("nc=00000001", "nc=1"),
        good.replace("nc=00000001", "nc=+0000001"),
        good.replace("algorithm=SHA-256", "algorithm=MD5"),
        good.replace("qop=auth", "qop=auth-int"),
    ] {
        let verdict = bench.judge(CARRIER, &invite(URI, "z9hG4bK1", &[&value]));
        assert!(matches!(verdict, Verdict::Wrong(_)), "{value}: {verdict:?}");
    }
    assert!(matches!(bench.judge(CARRIER, &invite(URI, "z9hG4bK1", &[&good, &good])), Verdict::Wrong(_)));
    // Another realm's, another scheme's and no credentials at all are none.
    let foreign = Challenge { realm: "asterisk".to_owned(), ..challenge.clone() };
    let foreign = answer(&foreign, &account(), "INVITE", URI, 1, "cn");
    let long = format!("{good}, x=\"{}\"", "a".repeat(3_000));
    for values in [
        &[][..],
        &[foreign.as_str()],
        &["Basic Y2Fycmllcjpw"],
        &["Digest"],
        &["Digest realm"],
        &["\u{1F600}"],
        &[&long],
    ] {
        assert_eq!(bench.judge(CARRIER, &invite(URI, "z9hG4bK1", values)), Verdict::Absent, "{values:?}");
    }
    for nonce in ["", "00", &"0".repeat(64), &"z".repeat(64), &"\u{e9}".repeat(32)] {
        let forged = Challenge { nonce: nonce.to_owned(), ..challenge.clone() };
        let value = answer(&forged, &account(), "INVITE", URI, 1, "cn");
        let verdict = bench.judge(CARRIER, &invite(URI, "z9hG4bK1", &[&value]));
        assert_eq!(verdict, Verdict::Stale(Staleness::Foreign), "{nonce}");
    }
    assert!(bench.counts.is_empty(), "nothing is kept of what was refused");
    // With another realm's beside it, ours is found; a proxy may add parameters to the URI.
    let request = invite(&format!("{URI};transport=udp"), "z9hG4bK1", &[&foreign, &good]);
    assert_eq!(bench.judge(CARRIER, &request), Verdict::Accepted);
}

#[test]
fn the_counts_are_bounded_and_forgotten() {
    let (mut counts, now) = (NonceCounts::default(), Instant::now());
    for number in 0..MAX_SPENT as u64 {
        assert!(counts.take(number, 1, [0; 8], now));
    }
    assert!(!counts.take(u64::MAX, 1, [0; 8], now));
    assert!(counts.take(7, 2, [0; 8], now), "who is known stays known");
    assert!(counts.take(u64::MAX, 1, [0; 8], now + NONCE_LIFE));
    assert_eq!(counts.len(), 1);
}
