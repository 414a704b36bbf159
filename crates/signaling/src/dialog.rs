//! Dialogs (RFC 3261 12): who is at the other end, over which route, and which request comes next.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::hop::{Hop, Transport};
use crate::message::{Head, HeaderName, NameAddr, Request, RequestBuilder, Response, Uri};

/// Proxies in a route set that are remembered.
const MAX_ROUTES: usize = 16;

#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    pub(crate) call_id: Box<str>,
    /// From of our requests, with our tag.
    pub(crate) local: Box<str>,
    /// To of our requests, with the peer's tag.
    pub(crate) remote: Box<str>,
    pub(crate) remote_tag: Box<str>,
    /// The peer's Contact.
    pub(crate) target: Box<str>,
    pub(crate) routes: Vec<Box<str>>,
    pub(crate) local_cseq: u32,
    pub(crate) remote_cseq: Option<u32>,
    /// Of the last reliable provisional response that was taken (RFC 3262 4).
    pub(crate) last_rseq: Option<u32>,
    /// Where the peer's messages come from.
    pub(crate) hop: Hop,
}

impl Dialog {
    /// The dialog an INVITE makes at the UAS (RFC 3261 12.1.1).
    pub(crate) fn from_request(invite: &Request, local_tag: &str, hop: Hop) -> Self {
        let to = invite.header(HeaderName::To).unwrap_or_default();
        let from = invite.header(HeaderName::From).unwrap_or_default();
        let fallback = || invite.from().map_or("", |f| f.uri.text);
        Self {
            call_id: invite.call_id().into(),
            local: format!("{};tag={local_tag}", clean(to)).into(),
            remote: clean(from).into(),
            remote_tag: invite.from_tag().unwrap_or_default().into(),
            target: invite.contact().map_or_else(fallback, |c| c.uri.text).into(),
            routes: record_routes(invite).collect(),
            local_cseq: 0,
            remote_cseq: Some(invite.cseq().number),
            last_rseq: None,
            hop,
        }
    }

    /// The dialog a response makes at the UAC (RFC 3261 12.1.2): its Record-Route set, backwards.
    pub(crate) fn from_response(
        response: &Response,
        local: &str,
        local_cseq: u32,
        target: &str,
        hop: Hop,
    ) -> Self {
        let mut routes: Vec<Box<str>> = record_routes(response).collect();
        routes.reverse();
        Self {
            call_id: response.call_id().into(),
            local: local.into(),
            remote: clean(response.header(HeaderName::To).unwrap_or_default()).into(),
            remote_tag: response.to_tag().unwrap_or_default().into(),
            target: response.contact().map_or(target, |c| c.uri.text).into(),
            routes,
            local_cseq,
            remote_cseq: None,
            last_rseq: None,
            hop,
        }
    }

    /// Whether a request inside a dialog is of this one; the To tag is the session's and compared there. A From
    /// without tag is an RFC 2543 peer's (RFC 3261 12.2.2).
    pub(crate) fn is_with(&self, from_tag: Option<&str>) -> bool {
        *self.remote_tag == *from_tag.unwrap_or_default()
    }

    /// Whether route or target is at an address; a name may be at any.
    pub(crate) fn names(&self, address: IpAddr) -> bool {
        let routes = self.routes.iter().filter_map(|route| NameAddr::parse(route)).map(|route| route.uri);
        routes.chain(Uri::parse(&self.target)).any(|uri| {
            match uri.host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(host) => host.to_canonical() == address,
                Err(_) => !uri.host.is_empty(),
            }
        })
    }

    /// A target refresh (RFC 3261 12.2.1.2, 12.2.2).
    pub(crate) fn refresh(&mut self, head: &Head) {
        if let Some(contact) = head.contact() {
            self.target = contact.uri.text.into();
        }
    }

    /// Takes a request's sequence number; `false` when it is out of order (RFC 3261 12.2.2).
    pub(crate) fn take_cseq(&mut self, number: u32) -> bool {
        let in_order = self.remote_cseq.is_none_or(|last| number > last);
        if in_order {
            self.remote_cseq = Some(number);
        }
        in_order
    }

    /// Begins a request inside the dialog (RFC 3261 12.2.1.1), and tells where it goes and its Request-URI.
    pub(crate) fn request(
        &self,
        method: &str,
        cseq: u32,
        via: &str,
        branch: &str,
    ) -> (RequestBuilder, Hop, String) {
        let first = self.routes.first().and_then(|r| NameAddr::parse(r));
        let strict = first.is_some_and(|route| route.uri.param("lr").is_none());
        let uri: &str = match first {
            Some(route) if strict => route.uri.text,
            _ => &self.target,
        };
        let hop = match first {
            // Only the Request-URI tells where a strict router is, and only by an address.
            Some(route) if strict => next_hop(route.uri.text, self.hop, true).unwrap_or(self.hop),
            Some(route) => next_hop(route.uri.text, self.hop, true).unwrap_or_else(|hop| hop),
            None => next_hop(&self.target, self.hop, false).unwrap_or_else(|hop| hop),
        };
        let mut builder = RequestBuilder::new(method, uri)
            .header(
                HeaderName::Via,
                format_args!("SIP/2.0/{} {via};branch={branch};rport", hop.transport.as_via()),
            )
            .header(HeaderName::MaxForwards, 70);
        for route in self.routes.iter().skip(usize::from(strict)) {
            builder = builder.header(HeaderName::Route, route);
        }
        if strict {
            builder = builder.header(HeaderName::Route, format_args!("<{}>", self.target));
        }
        let builder = builder
            .header(HeaderName::From, &self.local)
            .header(HeaderName::To, &self.remote)
            .header(HeaderName::CallId, &self.call_id)
            .header(HeaderName::CSeq, format_args!("{cseq} {method}"));
        (builder, hop, uri.to_owned())
    }
}

/// A peer's value as our builders take it: a NUL may stand in it as a quoted-pair, which stays a pair.
pub(crate) fn clean(value: &str) -> Cow<'_, str> {
    if value.contains(['\r', '\n', '\0']) {
        Cow::Owned(value.replace(['\r', '\n', '\0'], " "))
    } else {
        Cow::Borrowed(value)
    }
}

fn record_routes(head: &Head) -> impl Iterator<Item = Box<str>> {
    head.list(HeaderName::RecordRoute).take(MAX_ROUTES).map(|route| clean(route).into())
}

/// Where a request for `uri` goes when the dialog runs over `dialog`. `Err` is a hop by URI: another transport, a host
/// name, or another connection, which want a resolver that only the caller has. `routed` is a proxy's URI, which stands
/// for itself; a peer's own Contact is passed over where its messages tell better: over a stream its connection is
/// used on (RFC 5923), and a private address behind a public one is a NAT's inside.
pub(crate) fn next_hop(uri: &str, dialog: Hop, routed: bool) -> Result<Hop, Hop> {
    let Some(uri) = Uri::parse(uri).filter(Uri::is_sip) else { return Ok(dialog) };
    let transport = match uri.param("transport") {
        _ if uri.scheme.eq_ignore_ascii_case("sips") => Transport::Tls,
        None => dialog.transport,
        Some(name) if name.eq_ignore_ascii_case("udp") => Transport::Udp,
        // `;transport=tcp` over TLS is TLS with an old name (RFC 3261 26.2.2).
        Some(name) if name.eq_ignore_ascii_case("tcp") && dialog.transport == Transport::Tls => {
            Transport::Tls
        }
        Some(name) if name.eq_ignore_ascii_case("tcp") => Transport::Tcp,
        Some(name) if name.eq_ignore_ascii_case("tls") => Transport::Tls,
        Some(_) => return Ok(dialog),
    };
    let same = transport == dialog.transport;
    let found = |remote| Hop { transport, remote, flow: Hop::BY_URI };
    let Ok(ip) = uri.host.trim_matches(['[', ']']).parse::<IpAddr>() else {
        let kept = same && transport.is_reliable() && !routed;
        return if kept { Ok(dialog) } else { Err(found(dialog.remote)) };
    };
    let ip = ip.to_canonical();
    let remote = SocketAddr::new(ip, uri.port.unwrap_or(transport.default_port()));
    let here = ip == dialog.remote.ip().to_canonical();
    let inside = !routed && is_private(ip) && !is_private(dialog.remote.ip().to_canonical());
    if same && (inside || (transport.is_reliable() && (here || !routed))) {
        return Ok(dialog);
    }
    if same && remote.is_ipv4() == dialog.remote.is_ipv4() && !transport.is_reliable() {
        return Ok(Hop { remote, ..dialog });
    }
    Err(found(remote))
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    const UDP: &str = "203.0.113.9:4000";

    fn hop() -> Hop {
        Hop { transport: Transport::Udp, remote: UDP.parse().unwrap(), flow: 3 }
    }

    #[test]
    fn the_next_hop_is_what_the_uri_names_when_it_can_be_used() {
        let at = |uri: &str| next_hop(uri, hop(), false).map(|hop| hop.remote.to_string()).unwrap();
        assert_eq!(at("sip:a@198.51.100.1"), "198.51.100.1:5060");
        assert_eq!(next_hop("sip:198.51.100.1", hop(), false).unwrap().flow, 3);
        // A NAT's inside, and what cannot be reached at all.
        for here in ["sip:a@192.168.1.7:5062", "tel:+1", "sip:198.51.100.1;transport=ws", "junk"] {
            assert_eq!(at(here), UDP, "{here}");
        }
        assert_eq!(
            next_hop("sip:192.168.1.7;lr", hop(), true).unwrap().remote.to_string(),
            "192.168.1.7:5060"
        );
        let tcp = Hop { transport: Transport::Tcp, ..hop() };
        for uri in
            ["sip:a@198.51.100.1", "sip:a@pbx.example;transport=tcp", "sip:a@203.0.113.9;transport=TCP"]
        {
            assert_eq!(next_hop(uri, tcp, false), Ok(tcp), "{uri}");
        }
        assert_eq!(next_hop("sip:203.0.113.9;transport=tcp;lr", tcp, true), Ok(tcp));
    }

    #[test]
    fn another_transport_connection_or_name_is_the_callers_to_find() {
        let by_uri = |uri: &str, dialog, routed| {
            let hop = next_hop(uri, dialog, routed).unwrap_err();
            assert_eq!(hop.flow, Hop::BY_URI);
            (hop.transport, hop.remote.to_string())
        };
        let tcp = Hop { transport: Transport::Tcp, ..hop() };
        assert_eq!(by_uri("sip:pbx.example", hop(), false), (Transport::Udp, UDP.to_owned()));
        assert_eq!(
            by_uri("sip:[2001:db8::1]:5070", hop(), false),
            (Transport::Udp, "[2001:db8::1]:5070".to_owned())
        );
        let routed = by_uri("sip:198.51.100.1;transport=tcp;lr", hop(), true);
        assert_eq!(routed, (Transport::Tcp, "198.51.100.1:5060".to_owned()));
        assert_eq!(by_uri("sips:198.51.100.1", tcp, false), (Transport::Tls, "198.51.100.1:5061".to_owned()));
        assert_eq!(
            by_uri("sip:198.51.100.1;lr", tcp, true),
            (Transport::Tcp, "198.51.100.1:5060".to_owned())
        );
        assert_eq!(by_uri("sip:a@198.51.100.1;transport=udp", tcp, false).0, Transport::Udp);
    }

    #[test]
    fn a_message_tells_its_way() {
        let way = |text: &str| {
            let way = crate::hop::Way::of(&bytes::Bytes::from(text.replace('\n', "\r\n"))).unwrap();
            (way.host.into_string(), way.port)
        };
        let rest = "Via: SIP/2.0/TCP h.example:5070;branch=z9hG4bK1;received=192.0.2.7\nFrom: <sip:a@h>;tag=f\nTo: <sip:b@h>;tag=t\nCall-ID: c\nCSeq: 1 BYE\nContent-Length: 0\n\n";
        let to = way(&format!("BYE sip:a@[2001:db8::1]:5062 SIP/2.0\nMax-Forwards: 1\n{rest}"));
        assert_eq!(to, ("2001:db8::1".to_owned(), Some(5062)));
        let routed =
            format!("BYE sip:a@h SIP/2.0\nMax-Forwards: 1\nRoute: <sip:p.example;lr>, <sip:q;lr>\n{rest}");
        assert_eq!(way(&routed), ("p.example".to_owned(), None));
        assert_eq!(way(&format!("SIP/2.0 200 OK\n{rest}")), ("192.0.2.7".to_owned(), Some(5070)));
    }

    fn message(text: &str) -> Message {
        Message::parse(bytes::Bytes::from(text.replace('\n', "\r\n"))).unwrap()
    }

    fn sent(dialog: &Dialog) -> (String, Hop) {
        let (builder, hop, _) = dialog.request("BYE", 2, "192.0.2.1:5060", "z9hG4bKx");
        (String::from_utf8(builder.build().to_vec()).unwrap(), hop)
    }

    const INVITE: &str = "INVITE sip:us@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nRecord-Route: <sip:198.51.100.1;lr>, <sip:198.51.100.2;lr>\nFrom: \"a\\\0b\" <sip:a@h>;tag=f\nTo: <sip:us@192.0.2.1>\nCall-ID: c\nCSeq: 7 INVITE\nContact: <sip:a@198.51.100.9:5070>\n\n";
    const OK: &str = "SIP/2.0 200 OK\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nRecord-Route: <sip:198.51.100.1;lr>\nRecord-Route: <sip:198.51.100.2;lr>\nFrom: <sip:us@h>;tag=f\nTo: <sip:a@h>;tag=t\nCall-ID: c\nCSeq: 7 INVITE\nContact: <sip:a@198.51.100.9:5070>\n\n";

    fn called() -> Dialog {
        let Message::Request(invite) = message(INVITE) else { panic!() };
        Dialog::from_request(&invite, "l", hop())
    }

    #[test]
    fn a_uas_keeps_the_route_set_and_a_uac_turns_it_round() {
        let (bye, to) = sent(&called());
        assert!(bye.starts_with("BYE sip:a@198.51.100.9:5070 SIP/2.0\r\n"), "{bye}");
        assert!(bye.contains("Route: <sip:198.51.100.1;lr>\r\nRoute: <sip:198.51.100.2;lr>\r\n"), "{bye}");
        assert_eq!(to.remote.to_string(), "198.51.100.1:5060");
        let Message::Response(ok) = message(OK) else { panic!() };
        let (bye, to) = sent(&Dialog::from_response(&ok, "<sip:us@h>;tag=f", 7, "sip:a@h", hop()));
        assert!(bye.contains("Route: <sip:198.51.100.2;lr>\r\nRoute: <sip:198.51.100.1;lr>\r\n"), "{bye}");
        assert_eq!(to.remote.to_string(), "198.51.100.2:5060");
    }

    #[test]
    fn a_strict_router_gets_itself_in_the_request_line() {
        let mut dialog = called();
        dialog.routes[0] = "<sip:198.51.100.1>".into();
        let (bye, to) = sent(&dialog);
        assert!(bye.starts_with("BYE sip:198.51.100.1 SIP/2.0\r\n"), "{bye}");
        assert!(
            bye.contains("Route: <sip:198.51.100.2;lr>\r\nRoute: <sip:a@198.51.100.9:5070>\r\n"),
            "{bye}"
        );
        assert_eq!(to.remote.to_string(), "198.51.100.1:5060");
    }

    #[test]
    fn control_characters_of_a_peer_do_not_come_back() {
        let (bye, _) = sent(&called());
        assert!(bye.contains("To: \"a\\ b\" <sip:a@h>;tag=f\r\n"), "{bye}");
    }

    #[test]
    fn sequence_numbers_only_grow() {
        let mut dialog = called();
        assert!(!dialog.take_cseq(6) && !dialog.take_cseq(7));
        assert!(dialog.take_cseq(9) && !dialog.take_cseq(8) && dialog.take_cseq(10));
    }
}
