//! How the control plane and the data plane reach each other: configuration changes one way, call commands the
//! other, presence of the SIP edge. In process on one node; the same calls travel over a bus on several.

mod calls;
mod calls_out;
mod config;
mod listening;
mod presence;
mod registrations;

use std::sync::Arc;

pub use calls::{
    CallCommand, CallError, CallInbox, Originate, Probed, Simulate, Simulated, TlsSession, Transfer,
    TransferTo,
};
pub use calls_out::{CallOut, CallsOut};
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
    calls_out: tokio::sync::mpsc::Sender<CallOut>,
    presence: presence::Presence,
    registrations: registrations::Registrations,
}

impl Cluster {
    /// A cluster of one node, and the three ends that its node serves: the feed of configuration changes, the inbox of
    /// call commands, and the questions of calls out.
    #[must_use]
    pub fn in_process() -> (Self, ConfigFeed, CallInbox, CallsOut) {
        let (config, feed) = config::Config::new();
        let (calls, inbox) = calls::Calls::new();
        let (calls_out, questions) = calls_out::channel();
        let presence = presence::Presence::new();
        (
            Self {
                inner: Arc::new(Inner {
                    config,
                    calls,
                    calls_out,
                    presence,
                    registrations: registrations::Registrations::default(),
                }),
            },
            feed,
            inbox,
            questions,
        )
    }
}
