//! Dialogs (RFC 3261 12): who is at the other end, over which route, and which request comes next.

use std::borrow::Cow;
use std::net::SocketAddr;

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
        let hop = next_hop(first.map_or(&self.target, |route| route.uri.text), self.hop);
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

/// Where a request for `uri` goes when the dialog runs over `dialog`: the address the URI names, when it names one
/// of the same transport; else where the peer's messages come from. A stream's connection is used on. A name, or
/// another transport, wants a resolver or a new connection, which only the caller has.
pub(crate) fn next_hop(uri: &str, dialog: Hop) -> Hop {
    let Some(uri) = Uri::parse(uri) else { return dialog };
    if dialog.transport.is_reliable() {
        return dialog;
    }
    let other = uri.param("transport").is_some_and(|t| !t.eq_ignore_ascii_case("udp"))
        || uri.scheme.eq_ignore_ascii_case("sips");
    match uri.host.trim_matches(['[', ']']).parse() {
        Ok(ip) if !other => {
            let port = uri.port.unwrap_or(Transport::Udp.default_port());
            Hop { remote: SocketAddr::new(ip, port), ..dialog }
        }
        _ => dialog,
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
        let at = |uri: &str| next_hop(uri, hop()).remote.to_string();
        assert_eq!(at("sip:a@198.51.100.1"), "198.51.100.1:5060");
        assert_eq!(at("sip:a@[2001:db8::1]:5070;transport=UDP"), "[2001:db8::1]:5070");
        assert_eq!(next_hop("sip:198.51.100.1", hop()).flow, 3);
        for elsewhere in
            ["sip:pbx.example", "sip:198.51.100.1;transport=tcp", "sips:198.51.100.1", "tel:+1", "junk"]
        {
            assert_eq!(at(elsewhere), UDP, "{elsewhere}");
        }
        let tcp = Hop { transport: Transport::Tcp, ..hop() };
        assert_eq!(next_hop("sip:a@198.51.100.1", tcp), tcp);
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
