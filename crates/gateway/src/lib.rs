//! The data plane: SIP listeners, RTP ports, admission and one task per call, driven by the [`Directory`] snapshot.
//! It knows no database and no HTTP; `cluster` brings commands, [`Record`]s leave by a queue.

mod directory;
mod record;
mod settings;

use std::net::SocketAddr;

use cluster::{CallInbox, Cluster};
use model::directory::DirectoryChange;
use tokio::sync::mpsc;

pub use directory::{Directory, DirectoryHandle};
pub use record::Record;
pub use settings::{Advertise, MediaSettings, RateLimit, Settings, UnknownSources};

/// Why a gateway did not start: one line for a person.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {value}: {problem}")]
pub struct StartError {
    /// The setting.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
}

/// How a gateway is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayStatus {
    /// Calls that have not ended.
    pub active_calls: u32,
    /// RTP ports free and in all.
    pub rtp_ports_free: u32,
    /// RTP ports in all.
    pub rtp_ports_total: u32,
    /// Counters: name, labels, value. Label sets are closed.
    pub counters: Vec<(&'static str, Vec<(&'static str, &'static str)>, u64)>,
    /// Whether new calls are refused because the node is leaving.
    pub draining: bool,
}

/// A running gateway.
pub struct Gateway {
    directory: DirectoryHandle,
}

impl Gateway {
    /// Binds every listener and starts to serve. The directory is complete before the first packet is read.
    pub async fn start(
        settings: Settings,
        directory: Vec<DirectoryChange>,
        cluster: Cluster,
        inbox: CallInbox,
        records: mpsc::Sender<Record>,
    ) -> Result<Self, StartError> {
        let _ = (settings, cluster, inbox, record::Records::new(records));
        Ok(Self { directory: DirectoryHandle::new(directory) })
    }

    /// Where configuration changes go.
    #[must_use]
    pub fn directory(&self) -> DirectoryHandle {
        self.directory.clone()
    }

    /// Addresses of the UDP listeners, with the ports they got.
    #[must_use]
    pub fn local_udp(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// Addresses of the TCP listeners, with the ports they got.
    #[must_use]
    pub fn local_tcp(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// How it is doing now.
    #[must_use]
    pub fn status(&self) -> GatewayStatus {
        GatewayStatus { active_calls: 0, rtp_ports_free: 0, rtp_ports_total: 0, counters: Vec::new(), draining: false }
    }

    /// Takes no new calls, and returns when none is live or the drain timeout has passed.
    pub async fn drain(&self) {}

    /// Ends every live call with BYE and closes.
    pub async fn stop(self) {}
}
