//! A setting that cannot be used ends the start with one line and status 2.

use crate::support::Place;

#[test]
fn one_line_names_the_key_the_value_and_the_rule() {
    let place = Place::new();
    for (set, rule) in [
        ("sip.udp=127.0.0.1:99999", "must be"),
        ("sip.upd=127.0.0.1:0", "did you mean sip.udp?"),
        ("limits.max_calls=0", "must be"),
        ("media.ports=30000", "must be"),
        ("sip.tls=127.0.0.1:0", "needs sip.tls_cert"),
        ("bus.url=nats://127.0.0.1:4222", "not available in this release"),
        ("store.url=postgres://user:s3cr3t@db/x", "not available in this release"),
    ] {
        let line = place.refusal(&mut place.tandem(&["serve", "--set", set]), 2);
        let (key, value) = set.split_once('=').unwrap();
        assert!(line.contains(key) && line.contains(rule) && !line.contains("s3cr3t"), "{line}");
        assert!(line.contains(value) || value.contains("s3cr3t"), "{line}");
    }
}

#[test]
fn so_do_the_environment_and_the_file() {
    let place = Place::new();
    let line = place.refusal(place.tandem(&["serve"]).env("TANDEM_SIP__UPD", "x"), 2);
    assert!(line.contains("TANDEM_SIP__UPD = x") && line.contains("TANDEM_SIP__UDP"), "{line}");
    let line = place.refusal(place.tandem(&["org", "create", "x"]).env("TANDEM_HTTP__LISTEN", "nowhere"), 2);
    assert!(line.contains("http.listen = nowhere (from TANDEM_HTTP__LISTEN)"), "{line}");
    std::fs::write(place.0.path().join("tandem.toml"), "[sip]\nudp = [\"127.0.0.1:0\", \"here\"]\n").unwrap();
    let line = place.refusal(&mut place.tandem(&["serve"]), 2);
    assert!(line.contains("sip.udp = 127.0.0.1:0,here (in tandem.toml)"), "{line}");
    let line = place.refusal(&mut place.tandem(&["serve", "--config", "missing.toml"]), 2);
    assert!(line.contains("missing.toml"), "{line}");
}

#[test]
fn a_port_in_use_is_named() {
    let place = Place::new();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (http, sip) = (tcp.local_addr().unwrap().to_string(), udp.local_addr().unwrap().to_string());
    let taken_http = format!("http.listen={http}");
    let line = place.refusal(place.tandem(&["serve", "--set", &taken_http]).env("RUST_LOG", "off"), 2);
    assert!(line.contains(&format!("http.listen = {http}")) && line.contains("in use"), "{line}");
    let taken_sip = format!("sip.udp={sip}");
    let set = ["serve", "--set", "http.listen=127.0.0.1:0", "--set", "sip.tcp=none", "--set", &taken_sip];
    let line = place.refusal(place.tandem(&set).env("RUST_LOG", "off"), 2);
    assert!(line.contains(&format!("sip.udp = {sip}")) && line.contains("in use"), "{line}");
}
