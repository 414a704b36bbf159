//! What the SIP edge offers to the world right now.

use tokio::sync::watch;

use crate::Cluster;

/// How an agent's SIP URI is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipPresence {
    /// Host part: domain or address, an IPv6 literal in brackets.
    pub host: String,
    /// Port, when the listener is not on the scheme's default.
    pub port: Option<u16>,
    /// `;transport=` value, where the listeners ask for one (no UDP listener).
    pub transport: Option<&'static str>,
    /// Whether the URI is `sips:`.
    pub sips: bool,
}

impl SipPresence {
    /// The dialable URI of `user`.
    #[must_use]
    pub fn uri(&self, user: &str) -> String {
        let scheme = if self.sips { "sips" } else { "sip" };
        let port = self.port.map(|p| format!(":{p}")).unwrap_or_default();
        let transport = self.transport.map(|t| format!(";transport={t}")).unwrap_or_default();
        format!("{scheme}:{user}@{}{port}{transport}", self.host)
    }
}

pub(crate) struct Presence(watch::Sender<Option<SipPresence>>);

impl Presence {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Cluster {
    /// What the SIP listeners offer; `None` while none is up.
    #[must_use]
    pub fn sip_presence(&self) -> Option<SipPresence> {
        self.inner.presence.0.borrow().clone()
    }

    /// Announces the SIP listeners, or that none is up.
    pub fn set_sip_presence(&self, presence: Option<SipPresence>) {
        self.inner.presence.0.send_replace(presence);
    }
}
