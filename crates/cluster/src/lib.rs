//! How the control plane and the data plane reach each other: configuration changes one way, call commands the
//! other, presence of the SIP edge. In process on one node; the same calls travel over a bus on several.

mod calls;
mod config;
mod listening;
mod presence;
mod registrations;

use std::sync::Arc;

pub use calls::{
    CallCommand, CallError, CallInbox, Originate, Probed, Simulate, Simulated, TlsSession, Transfer,
    TransferTo,
};
pub use config::{ConfigFeed, NotApplied};
pub use listening::{Listening, LiveAudio};
pub use presence::SipPresence;
pub use registrations::{Registration, RegistrationState};

/// The handle both halves hold. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    config: config::Config,
    calls: calls::Calls,
    presence: presence::Presence,
    registrations: registrations::Registrations,
}

impl Cluster {
    /// A cluster of one node, and the two ends that its node serves: the feed of configuration changes and the
    /// inbox of call commands.
    #[must_use]
    pub fn in_process() -> (Self, ConfigFeed, CallInbox) {
        let (config, feed) = config::Config::new();
        let (calls, inbox) = calls::Calls::new();
        let presence = presence::Presence::new();
        (
            Self {
                inner: Arc::new(Inner {
                    config,
                    calls,
                    presence,
                    registrations: registrations::Registrations::default(),
                }),
            },
            feed,
            inbox,
        )
    }
}
