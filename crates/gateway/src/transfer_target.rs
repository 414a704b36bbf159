//! Whom a call may be handed to: numbers and gateways of its own organization, so that nobody is relayed through us.

use std::sync::Arc;

use model::organization::may_call;
use model::{CarrierAddress, E164, MAX_EXTENSION, OrganizationId, OutboundConfig, TransferTarget, Trunk};
use signaling::{Hop, Replaces, Uri};

use crate::advertise::uri_host;
use crate::directory::Directory;

/// Longest user part taken, in bytes.
const MAX_USER: usize = 64;

/// Somebody to hand a call to.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// User part of its URI.
    pub(crate) user: String,
    /// The trunk that leads there, with its outbound_config; `None` when only the peer can call it.
    pub(crate) trunk: Option<(Arc<Trunk>, OutboundConfig)>,
    /// Its URI as the peer is told it.
    pub(crate) uri: String,
    /// The dialog at the target that our call is to replace.
    pub(crate) replaces: Option<Replaces>,
}

/// Why a target is refused: one sentence for the decision record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied(pub(crate) &'static str);

fn with_outbound(trunk: &Arc<Trunk>) -> Option<(Arc<Trunk>, OutboundConfig)> {
    Some((Arc::clone(trunk), trunk.outbound_config.clone()?))
}

/// The trunk of an organization whose carrier is at `host`, `first` before the others.
fn gateway(
    directory: &Directory,
    organization: OrganizationId,
    first: Option<&Arc<Trunk>>,
    host: &str,
    port: Option<u16>,
) -> Option<(Arc<Trunk>, OutboundConfig)> {
    let is_at = |address: &CarrierAddress, config: &OutboundConfig| {
        let default = if config.transport == model::Transport::Tls { 5061 } else { 5060 };
        address.host.eq_ignore_ascii_case(host) && address.port.unwrap_or(default) == port.unwrap_or(default)
    };
    let leads = |trunk: &&Arc<Trunk>| {
        trunk.outbound_config.as_ref().is_some_and(|config| {
            std::iter::once(&config.address).chain(&config.fallback_addresses).any(|a| is_at(a, config))
        })
    };
    let others = directory.trunks().filter(|trunk| trunk.organization_id == organization);
    first.into_iter().chain(others).find(leads).and_then(with_outbound)
}

/// Whom the API, a bot or an agent's config names. A number is called by the call's own trunk, or by the peer, where the
/// organization's allowed_destinations cover it.
pub(crate) fn asked(
    directory: &Directory,
    organization: OrganizationId,
    trunk: Option<&Arc<Trunk>>,
    peer: Hop,
    target: &TransferTarget,
) -> Result<Destination, Denied> {
    let entry = directory.organization(organization);
    let allowed = entry.and_then(|entry| entry.allowed_destinations.as_deref());
    if target.number().is_some_and(|number| !may_call(allowed, number.as_str())) {
        return Err(Denied("the number begins with none of the organization's allowed_destinations"));
    }
    let user = target.user();
    let trunk = match target {
        TransferTarget::Number(_) => trunk.and_then(with_outbound),
        TransferTarget::Uri { address, .. } => Some(
            gateway(directory, organization, trunk, &address.host, address.port)
                .ok_or(Denied("the host is the address of none of the organization's trunks"))?,
        ),
    };
    let host = match (target, &trunk) {
        (TransferTarget::Uri { address, .. }, _) => address.to_string(),
        (TransferTarget::Number(_), Some((_, config))) => config.address.to_string(),
        (TransferTarget::Number(_), None) => {
            format!("{}:{}", uri_host(&peer.remote.ip().to_canonical().to_string()), peer.remote.port())
        }
    };
    Ok(Destination { uri: format!("sip:{user}@{host}"), user, trunk, replaces: None })
}

/// Whom a Refer-To of the peer names. Only user and host of the URI count, and a Replaces in it (RFC 3891 3); every
/// other header and all parameters are dropped.
pub(crate) fn referred(
    directory: &Directory,
    organization: OrganizationId,
    trunk: Option<&Arc<Trunk>>,
    ours: &[String],
    target: &str,
) -> Result<Destination, Denied> {
    let uri = Uri::parse(target).ok_or(Denied("the Refer-To is no URI"))?;
    if !uri.scheme.eq_ignore_ascii_case("sip") {
        return Err(Denied("the Refer-To is no sip: URI"));
    }
    let user = uri.user_unescaped().unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-_.!~*#".contains(&b);
    if user.is_empty() || user.len() > MAX_USER || !user.bytes().all(allowed) {
        return Err(Denied("the Refer-To names no user that could be called"));
    }
    let host = uri.host.trim_matches(['[', ']']);
    let gateway = gateway(directory, organization, trunk, host, uri.port);
    let is_ours = ours.iter().any(|known| known.eq_ignore_ascii_case(host));
    if gateway.is_none() && !is_ours {
        return Err(Denied(
            "the Refer-To's host is neither ours nor the address of one of the organization's trunks",
        ));
    }
    let digits = user.bytes().filter(u8::is_ascii_digit).count();
    let numeric = user.bytes().all(|b| b.is_ascii_digit() || b"+-.*#".contains(&b));
    let (user, trunk) = if user.starts_with('+') || (numeric && digits > MAX_EXTENSION) {
        let number = E164::normalise(&user)
            .and_then(|number| directory.number(&number).cloned())
            .filter(|number| number.organization_id == organization)
            .ok_or(Denied("the Refer-To's number is none of the organization's"))?;
        let trunk = directory
            .trunk(number.trunk_id)
            .and_then(with_outbound)
            .ok_or(Denied("the trunk of the Refer-To's number has no outbound_config"))?;
        (number.phone_number.to_string(), trunk)
    } else {
        let trunk =
            gateway.ok_or(Denied("the Refer-To names no number, and no user of a trunk's carrier"))?;
        (user.into_owned(), trunk)
    };
    let replaces = uri.header("Replaces").and_then(|value| Replaces::parse(&value));
    let uri = format!("sip:{user}@{}", trunk.1.address);
    Ok(Destination { user, trunk: Some(trunk), uri, replaces })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::directory::{DirectoryChange, OrganizationEntry};
    use model::{MediaEncryption, PhoneNumber, Secret, Timestamp, TrunkId};

    fn trunk(organization: OrganizationId, address: &str) -> Arc<Trunk> {
        Arc::new(Trunk {
            id: TrunkId::new(),
            organization_id: organization,
            name: "t".to_owned(),
            managed_account_id: None,
            inbound_config: None,
            outbound_config: (!address.is_empty()).then(|| OutboundConfig {
                address: address.parse().unwrap(),
                auth_username: "u".to_owned(),
                auth_password: Secret::new("p".to_owned()),
                transport: model::Transport::Udp,
                media_encryption: MediaEncryption::Disable,
                register: false,
                fallback_addresses: Vec::new(),
                headers: Vec::new(),
                dtmf_tones: false,
            }),
            max_concurrent_calls: None,
            max_calls_per_second: None,
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
        })
    }

    struct Place {
        directory: Arc<Directory>,
        organization: OrganizationId,
        trunk: Arc<Trunk>,
    }

    fn place() -> Place {
        let (organization, other) = (OrganizationId::new(), OrganizationId::new());
        let ours = trunk(organization, "pbx.example:5070");
        let mute = trunk(organization, "");
        let theirs = trunk(other, "other.example");
        let number = |text: &str, trunk: &Trunk| {
            let number: E164 = text.parse().unwrap();
            let entry = PhoneNumber {
                phone_number: number.clone(),
                organization_id: trunk.organization_id,
                trunk_id: trunk.id,
                inbound_agent_version_id: None,
                outbound_agent_version_id: None,
                outbound_shareable: true,
                created_at: Timestamp::now(),
                updated_at: Timestamp::now(),
            };
            DirectoryChange::Number(number, Some(Arc::new(entry)))
        };
        let changes = vec![
            DirectoryChange::Trunk(ours.id, Some(Arc::clone(&ours))),
            DirectoryChange::Trunk(mute.id, Some(Arc::clone(&mute))),
            DirectoryChange::Trunk(theirs.id, Some(Arc::clone(&theirs))),
            number("+14155550101", &ours),
            number("+14155550102", &mute),
            number("+14155550103", &theirs),
        ];
        let directory = crate::directory::DirectoryHandle::new(changes).load();
        Place { directory, organization, trunk: ours }
    }

    #[test]
    fn hostile_targets_are_refused() {
        let Place { directory, organization, trunk } = place();
        let ours = ["node.example".to_owned(), "192.0.2.1".to_owned()];
        for target in [
            "",
            "sip:",
            "junk",
            "tel:+14155550101",
            "http://node.example/",
            "sips:+14155550101@node.example",
            "sip:127.0.0.1:5060",
            "sip:node.example",
            "sip:+19005550100@node.example",
            "sip:+19005550100@pbx.example:5070",
            "sip:19005550100@pbx.example:5070",
            "sip:0019005550100@pbx.example:5070",
            "sip:118118@pbx.example:5070",
            "sip:11-81-18@pbx.example:5070",
            "sip:+14155550101@evil.example",
            "sip:+14155550101@pbx.example",
            "sip:1001@evil.example",
            "sip:1001@node.example",
            "sip:1001@pbx.example:5070:5060",
            "sip:1001@other.example",
            "sip:+14155550102@node.example",
            "sip:+14155550103@node.example",
            "sip:+14155550103@other.example",
            "sip:a%0d%0aX:y@pbx.example:5070",
            "sip:a%40evil.example@pbx.example:5070",
            "sip:a;x=y@pbx.example:5070",
            "sip:%00@pbx.example:5070",
        ] {
            let got = referred(&directory, organization, Some(&trunk), &ours, target);
            assert!(got.is_err(), "{target}: {got:?}");
        }
        let nobody = OrganizationId::new();
        assert!(referred(&directory, nobody, None, &ours, "sip:1001@pbx.example:5070").is_err());
    }

    #[test]
    fn numbers_and_gateways_of_the_organization_are_called() {
        let Place { directory, organization, trunk } = place();
        let ours = ["node.example".to_owned()];
        for (target, uri) in [
            ("sip:+14155550101@node.example", "sip:+14155550101@pbx.example:5070"),
            ("sip:14155550101@NODE.example:5080;user=phone", "sip:+14155550101@pbx.example:5070"),
            ("sip:+14155550101@pbx.example:5070;maddr=evil.example", "sip:+14155550101@pbx.example:5070"),
            ("sip:1001@pbx.example:5070;transport=tcp?Route=evil.example", "sip:1001@pbx.example:5070"),
            ("sip:sales@PBX.example:5070", "sip:sales@pbx.example:5070"),
        ] {
            let got = referred(&directory, organization, Some(&trunk), &ours, target).unwrap();
            assert_eq!((got.uri.as_str(), got.replaces), (uri, None), "{target}");
        }
        let attended = "sip:1001@pbx.example:5070?Route=x&Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2";
        let got = referred(&directory, organization, Some(&trunk), &ours, attended).unwrap();
        assert_eq!(got.replaces.map(|r| r.to_string()).as_deref(), Some("a@b;to-tag=1;from-tag=2"));
    }

    #[test]
    fn a_bot_reaches_no_number_that_its_organization_may_not_call() {
        let organization = OrganizationId::new();
        let trunk = trunk(organization, "pbx.example:5070");
        let entry = OrganizationEntry {
            id: organization,
            sip_endpoint_allowed_addresses: None,
            allowed_destinations: Some(vec!["+1415".parse().unwrap()]),
            inbound_routing: None,
        };
        let changes = vec![
            DirectoryChange::Trunk(trunk.id, Some(Arc::clone(&trunk))),
            DirectoryChange::Organization(organization, Some(Arc::new(entry))),
        ];
        let directory = crate::directory::DirectoryHandle::new(changes).load();
        let remote = "198.51.100.1:5060".parse().unwrap();
        let peer = Hop { transport: signaling::Transport::Udp, remote, flow: 0 };
        let asked =
            |to: &str| asked(&directory, organization, Some(&trunk), peer, &to.parse().unwrap()).is_ok();
        assert!(asked("+14155550199") && asked("sip:1001@pbx.example:5070"));
        for dear in
            ["+19005550199", "sip:+19005550199@pbx.example:5070", "sip:0019005550199@pbx.example:5070"]
        {
            assert!(!asked(dear), "{dear}");
        }
    }

    #[test]
    fn the_api_reaches_any_number_and_the_organizations_gateways() {
        let Place { directory, organization, trunk } = place();
        let remote = "198.51.100.1:5060".parse().unwrap();
        let peer = Hop { transport: signaling::Transport::Udp, remote, flow: 0 };
        let asked = |trunk: Option<&Arc<Trunk>>, to: &str| {
            asked(&directory, organization, trunk, peer, &to.parse().unwrap())
                .map(|d| (d.uri, d.trunk.is_some()))
        };
        let number = |host: &str| format!("sip:+14155550199@{host}");
        assert_eq!(asked(Some(&trunk), "+14155550199"), Ok((number("pbx.example:5070"), true)));
        assert_eq!(asked(None, "+14155550199"), Ok((number("198.51.100.1:5060"), false)));
        assert_eq!(
            asked(None, "sip:1001@pbx.example:5070"),
            Ok(("sip:1001@pbx.example:5070".to_owned(), true))
        );
        assert!(asked(Some(&trunk), "sip:1001@evil.example").is_err());
        assert!(asked(Some(&trunk), "sip:1001@other.example").is_err());
    }
}
