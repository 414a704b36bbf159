//! Against a name server of our own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use signaling::Transport;
use tokio::net::UdpSocket;

use super::records::{Srv, order};
use super::{Names, bound};

/// A zone on a UDP socket.
struct NameServer {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

impl NameServer {
    async fn start(zone: Vec<(&'static str, RData)>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, silent) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let is_silent = Arc::clone(&silent);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(asked) = Message::from_vec(&buffer[..length]) else { continue };
                if is_silent.load(Ordering::Relaxed) {
                    continue;
                }
                let query = asked.queries[0].clone();
                let of_name = || zone.iter().filter(|(n, _)| name(n) == *query.name());
                let found = of_name().filter(|(_, data)| data.record_type() == query.query_type());
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                answer.metadata.message_type = MessageType::Response;
                // TTL 0: nothing is served from the resolver's own cache.
                answer.add_answers(found.map(|(n, data)| Record::from_rdata(name(n), 0, data.clone())));
                if of_name().next().is_none() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                answer.add_query(query);
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self { address, silent }
    }

    fn names(&self) -> Names {
        let mut udp = ConnectionConfig::udp();
        udp.port = self.address.port();
        let server = NameServerConfig::new(self.address.ip(), true, vec![udp]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        bound(builder.options_mut());
        Names::new(builder.build().unwrap())
    }
}

fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(203, 0, 113, last)))
}

fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 1, port, name(target)))
}

fn naptr(order: u16, service: &str, replacement: &str) -> RData {
    let bytes = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
    RData::NAPTR(NAPTR::new(order, 10, bytes("s"), bytes(service), bytes(""), name(replacement)))
}

fn texts(found: &[SocketAddr]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn numeric_hosts_and_written_ports_ask_for_no_service() {
    let server = NameServer::start(vec![
        ("_sip._udp.a.example", srv(1, 9, "b.example")),
        ("a.example", a(1)),
        ("a.example", RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
    ])
    .await;
    let names = server.names();
    let resolve = async |host, port, transport| texts(&names.resolve(host, port, transport).await.unwrap());
    assert_eq!(resolve("203.0.113.9", None, Transport::Tls).await, ["203.0.113.9:5061"]);
    assert_eq!(resolve("[2001:db8::9]", Some(7), Transport::Udp).await, ["[2001:db8::9]:7"]);
    let both = resolve("a.example", Some(5080), Transport::Udp).await;
    assert!(both.contains(&"203.0.113.1:5080".to_owned()) && both.contains(&"[2001:db8::1]:5080".to_owned()));
    server.silent.store(true, Ordering::Relaxed);
    assert_eq!(resolve("::ffff:203.0.113.9", None, Transport::Tcp).await, ["203.0.113.9:5060"]);
}

#[tokio::test]
async fn services_by_naptr_and_by_name_in_the_order_of_their_priorities() {
    let server = NameServer::start(vec![
        ("a.example", naptr(20, "SIP+D2U", "_sip._udp.second.example")),
        ("a.example", naptr(10, "SIP+D2U", "_sip._udp.first.example")),
        ("a.example", naptr(1, "SIPS+D2T", "_sips._tcp.a.example")),
        ("_sip._udp.first.example", srv(20, 5062, "y.example")),
        ("_sip._udp.first.example", srv(10, 5061, "x.example")),
        ("_sips._tcp.a.example", srv(1, 5071, "y.example")),
        ("_sip._tcp.a.example", srv(1, 5072, "y.example")),
        ("x.example", a(1)),
        ("x.example", a(2)),
        ("y.example", a(3)),
        ("plain.example", a(4)),
    ])
    .await;
    let names = server.names();
    let resolve = async |host, transport| texts(&names.resolve(host, None, transport).await.unwrap());
    let mut udp = resolve("a.example", Transport::Udp).await;
    udp[..2].sort();
    assert_eq!(udp, ["203.0.113.1:5061", "203.0.113.2:5061", "203.0.113.3:5062"]);
    assert_eq!(resolve("a.example", Transport::Tls).await, ["203.0.113.3:5071"]);
    // No NAPTR for TCP: the service's own name.
    assert_eq!(resolve("a.example", Transport::Tcp).await, ["203.0.113.3:5072"]);
    assert_eq!(resolve("plain.example", Transport::Udp).await, ["203.0.113.4:5060"]);
    let none = names.resolve("nobody.example", None, Transport::Udp).await.unwrap_err();
    assert!(none.contains("nobody.example"), "{none}");
}

#[tokio::test]
async fn what_was_known_is_served_when_no_name_server_answers() {
    let server =
        NameServer::start(vec![("_sip._udp.a.example", srv(1, 5070, "x.example")), ("x.example", a(1))])
            .await;
    let names = server.names();
    let known = names.resolve("a.example", None, Transport::Udp).await.unwrap();
    server.silent.store(true, Ordering::Relaxed);
    let begun = std::time::Instant::now();
    assert_eq!(names.resolve("a.example", None, Transport::Udp).await.unwrap(), known);
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    let unknown = names.resolve("b.example", Some(5060), Transport::Udp).await.unwrap_err();
    assert!(unknown.contains("b.example does not resolve"), "{unknown}");
}

#[test]
fn weights_share_and_priorities_do_not() {
    let record = |priority, weight, host: &str| Srv { priority, weight, host: host.to_owned(), port: 1 };
    let records =
        vec![record(2, 1, "last"), record(1, 1, "light"), record(1, 3, "heavy"), record(1, 0, "zero")];
    let hosts = |drawn: u32| -> Vec<String> {
        order(records.clone(), |below| drawn.min(below - 1)).into_iter().map(|r| r.host).collect()
    };
    assert_eq!(hosts(0), ["zero", "light", "heavy", "last"]);
    assert_eq!(hosts(1), ["light", "heavy", "zero", "last"]);
    assert_eq!(hosts(4), ["heavy", "light", "zero", "last"]);
    let mut state = 1_u32;
    let firsts = (0..4_000).filter(|_| {
        let ordered = order(records.clone(), |below| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        });
        ordered[0].host == "heavy"
    });
    // Three shares of four, and a little for the one without weight.
    let firsts = firsts.count();
    assert!((2_200..3_200).contains(&firsts), "{firsts}");
}
