//! Requests that would have us pass them on. We are where calls end, and forward nothing to anybody: what names another
//! hop, or has been here before, is refused.

use std::net::{IpAddr, SocketAddr};

use signaling::{HeaderName, Hop, NameAddr, Request, Transport, Uri, Via};

use crate::advertise;
use crate::edge::Edge;
use crate::inbound::{Refused, bounded, refused};
use crate::settings::Advertise;

/// Why a request outside a dialog is refused though it may be ours to answer.
pub(crate) struct Relay {
    pub(crate) refused: Refused,
    /// What of the request says so.
    pub(crate) detail: String,
}

const NOT_RELAYING: Refused = refused(
    403,
    "not_relaying",
    "Nothing is forwarded here: have the peer send no Route but to this node, by an address it knows as its own (sip.advertise, sip.domains).",
);
const TOO_MANY_HOPS: Refused = refused(
    483,
    "too_many_hops",
    "The request names another hop and its Max-Forwards is used up: look for a loop between the peer and its proxies.",
);
const LOOP: Refused = refused(
    482,
    "loop_detected",
    "The request was sent by this node and came back: a carrier that is a mere proxy brings our own calls to us. Have it answer calls to our numbers as a B2BUA does, or do not place them over it.",
);

/// The status' reason phrase, where ours says more than the RFC's.
pub(crate) fn phrase(refused: &Refused) -> Option<&'static str> {
    (refused.reason == NOT_RELAYING.reason).then_some("Not relaying")
}

/// Whether a request would be passed on, or has been here before.
pub(crate) fn refuses(edge: &Edge, request: &Request, hop: Hop) -> Option<Relay> {
    let us = Us::on(edge, hop);
    let foreign = |route: &str| {
        NameAddr::parse(route)
            .is_some_and(|route| !us.is(&route.uri) && !is_asked(&route.uri, request, hop.transport))
    };
    if let Some(route) = request.list(HeaderName::Route).find(|route| foreign(route)) {
        let used_up =
            request.header(HeaderName::MaxForwards).is_some_and(|left| left.bytes().all(|b| b == b'0'));
        let refused = if used_up { TOO_MANY_HOPS } else { NOT_RELAYING };
        return Some(Relay { refused, detail: bounded(format!("the route {route} is not to this node")) });
    }
    // Who sends from another address and names ours on top is behind a NAT, in a network with the same addresses.
    let not_from_us = usize::from(!us.is_at(hop.remote.ip()));
    let ours = |via: &&str| Via::parse(via).is_some_and(|via| us.sent(&via));
    let via = request.list(HeaderName::Via).skip(not_from_us).find(ours)?;
    Some(Relay { refused: LOOP, detail: bounded(format!("the Via {via} is this node's")) })
}

/// Whether a route goes where the Request-URI does, whoever that is: a phone's way to its registrar.
fn is_asked(route: &Uri<'_>, request: &Request, by: Transport) -> bool {
    let port = |uri: &Uri<'_>| uri.port.unwrap_or(by.default_port());
    let goes_there =
        |asked: Uri<'_>| asked.host.eq_ignore_ascii_case(route.host) && port(&asked) == port(route);
    request.parsed_uri().is_some_and(goes_there)
}

/// What we are called on a hop.
struct Us<'a> {
    edge: &'a Edge,
    transport: Transport,
    advertised: Option<Advertise>,
    local: SocketAddr,
}

impl<'a> Us<'a> {
    fn on(edge: &'a Edge, hop: Hop) -> Self {
        let transport = hop.transport;
        let advertised = edge.settings.advertise.of(transport);
        Self { edge, transport, advertised, local: edge.local(hop) }
    }

    /// Whether a route names us; one without a port means ours. A listener for every address is reached at each of the
    /// machine's.
    fn is(&self, uri: &Uri<'_>) -> bool {
        let host = bare(uri.host);
        let settings = &self.edge.settings;
        let mut domains = settings.domains.iter().chain(&settings.domain);
        if domains.any(|domain| domain.eq_ignore_ascii_case(host)) {
            return true;
        }
        let suits = |ours: u16| uri.port.is_none_or(|named| named == ours);
        let advertised = self.advertised.as_ref().is_some_and(|advertised| {
            advertised.host.eq_ignore_ascii_case(host) && suits(advertised.port.unwrap_or(self.local.port()))
        });
        advertised
            || suits(self.local.port())
                && host.parse().is_ok_and(|ip: IpAddr| self.is_at(ip) || advertise::is_ours(ip))
    }

    /// Whether we have put a Via there.
    fn sent(&self, via: &Via<'_>) -> bool {
        let (host, local) = (bare(via.host), self.local.port());
        let port = via.port.unwrap_or(self.transport.default_port());
        match &self.advertised {
            Some(ours) => ours.host.eq_ignore_ascii_case(host) && port == ours.port.unwrap_or(local),
            None => port == local && host.parse().is_ok_and(|ip| self.is_at(ip)),
        }
    }

    fn is_at(&self, ip: IpAddr) -> bool {
        ip.to_canonical() == self.local.ip()
    }
}

fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}
