//! What the node says of itself: readiness and metrics.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use api::{Check, Health};
use gateway::Gateway;
use store::Store;

pub(crate) struct NodeHealth {
    store: Store,
    gateway: Arc<Gateway>,
}

impl NodeHealth {
    pub(crate) fn new(store: Store, gateway: Arc<Gateway>) -> Self {
        Self { store, gateway }
    }
}

impl Health for NodeHealth {
    fn checks(&self) -> Pin<Box<dyn Future<Output = Vec<Check>> + Send + '_>> {
        Box::pin(async {
            let store = self.store.ping().await;
            let status = self.gateway.status();
            let listeners: Vec<String> = self
                .gateway
                .local_udp()
                .iter()
                .chain(&self.gateway.local_tcp())
                .map(ToString::to_string)
                .collect();
            vec![
                Check {
                    name: "store",
                    ok: store.is_ok(),
                    detail: store.err().map_or_else(|| "open".to_owned(), |e| e.to_string()),
                },
                Check {
                    name: "sip_listeners",
                    ok: !listeners.is_empty() && !status.draining,
                    detail: if status.draining { "draining".to_owned() } else { listeners.join(", ") },
                },
                Check {
                    name: "rtp_ports",
                    ok: status.rtp_ports_free > 0,
                    detail: format!("{} of {} free", status.rtp_ports_free, status.rtp_ports_total),
                },
            ]
        })
    }

    fn metrics(&self) -> String {
        use prometheus_client::encoding::text::encode;
        use prometheus_client::metrics::counter::ConstCounter;
        use prometheus_client::metrics::gauge::ConstGauge;
        use prometheus_client::registry::Registry;

        let status = self.gateway.status();
        let mut registry = Registry::default();
        registry.register(
            "tandem_calls_active",
            "Calls that have not ended",
            ConstGauge::new(i64::from(status.active_calls)),
        );
        registry.register(
            "tandem_rtp_ports_free",
            "RTP ports that no call holds",
            ConstGauge::new(i64::from(status.rtp_ports_free)),
        );
        registry.register(
            "tandem_sip_connections",
            "Open TCP connections",
            ConstGauge::new(i64::from(status.connections)),
        );
        registry.register(
            "tandem_records_lost",
            "Records lost because the queue was full",
            ConstCounter::new(status.records_lost),
        );
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        let mut text = text.trim_end_matches("# EOF\n").to_owned();
        let mut described = "";
        for (name, labels, value) in &status.counters {
            let family = name.trim_end_matches("_total");
            if family != described {
                text.push_str(&format!("# TYPE tandem_{family} counter\n"));
                described = family;
            }
            let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            text.push_str(&format!("tandem_{family}_total{labels} {value}\n"));
        }
        text.push_str("# EOF\n");
        text
    }
}
