//! Dialogs (RFC 3261 12): who is at the other end, over which route, and which request comes next.

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
            local: format!("{to};tag={local_tag}").into(),
            remote: from.into(),
            remote_tag: invite.from_tag().unwrap_or_default().into(),
            target: invite.contact().map_or_else(fallback, |c| c.uri.text).into(),
            routes: record_routes(invite).collect(),
            local_cseq: 0,
            remote_cseq: Some(invite.cseq().number),
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
            remote: response.header(HeaderName::To).unwrap_or_default().into(),
            remote_tag: response.to_tag().unwrap_or_default().into(),
            target: response.contact().map_or(target, |c| c.uri.text).into(),
            routes,
            local_cseq,
            remote_cseq: None,
            hop,
        }
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

fn record_routes(head: &Head) -> impl Iterator<Item = Box<str>> {
    head.list(HeaderName::RecordRoute).take(MAX_ROUTES).map(Into::into)
}

/// Where a request for `uri` goes when the dialog runs over `dialog`: the address the URI names, when it names one
/// of the same transport; else where the peer's messages come from. A stream's connection is used on.
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

    #[test]
    fn the_next_hop_is_what_the_uri_names_when_it_can_be_used() {
        let udp = Hop { transport: Transport::Udp, remote: "203.0.113.9:4000".parse().unwrap(), flow: 3 };
        let at = |uri: &str| next_hop(uri, udp).remote.to_string();
        assert_eq!(at("sip:a@198.51.100.1"), "198.51.100.1:5060");
        assert_eq!(at("sip:a@[2001:db8::1]:5070;transport=UDP"), "[2001:db8::1]:5070");
        for elsewhere in
            ["sip:pbx.example", "sip:198.51.100.1;transport=tcp", "sips:198.51.100.1", "tel:+1", "junk"]
        {
            assert_eq!(at(elsewhere), "203.0.113.9:4000", "{elsewhere}");
        }
        let tcp = Hop { transport: Transport::Tcp, ..udp };
        assert_eq!(next_hop("sip:a@198.51.100.1", tcp), tcp);
    }
}
