//! A node: store, gateway and API wired together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use gateway::Gateway;
use store::{KeyRing, Store};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lock::NodeLock;
use crate::settings::Settings;
use crate::{Failure, calls_out, directory_feed, health, records, retention, threads, webhooks};

/// How long the edge may take for its last messages once every call has been told to end.
const LAST_MESSAGES: Duration = Duration::from_secs(10);
/// Facts that may wait for the store.
const RECORD_QUEUE: usize = 65_536;

/// The threads of signalling and of agents' links, apart from the API's: a heavy question there makes no caller wait.
struct EdgeThreads(Option<Runtime>);

impl EdgeThreads {
    fn start() -> Result<Self, Failure> {
        let runtime = threads::runtime("edge");
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| Failure::new(format!("the threads of signalling do not start: {error}")))
    }

    /// Runs on these threads, and so does what it spawns.
    async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        let runtime = self.0.as_ref().ok_or_else(|| Failure::new("the runtime is gone".to_owned()))?;
        runtime.spawn(task).await.map_err(|error| Failure::new(error.to_string()))
    }
}

impl Drop for EdgeThreads {
    fn drop(&mut self) {
        // Nobody may wait for threads where a node is let go of.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) http: SocketAddr,
    stop_http: CancellationToken,
    http_tasks: Vec<JoinHandle<()>>,
    feed: JoinHandle<()>,
    writer: JoinHandle<()>,
    calls_out: JoinHandle<()>,
    webhooks: JoinHandle<()>,
    retention: JoinHandle<()>,
    edge_threads: EdgeThreads,
    /// Let go of last.
    _lock: NodeLock,
}

/// Opens the store of the settings, making the data directory and the key.
pub(crate) async fn open_store(settings: &Settings) -> Result<Store, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let directory = &settings.data_dir;
    if !directory.exists() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|e| Failure::usage(format!("data_dir = {}: cannot be made: {e}", directory.display())))?;
    }
    let keys = match settings.key_files.as_slice() {
        [one] => KeyRing::load_or_create(one),
        several => KeyRing::from_files(several),
    };
    let keys = keys.map_err(|e| Failure::usage(format!("secrets.key_file = {e}")))?;
    Store::open(&settings.store_url, keys)
        .await
        .map_err(|e| Failure::usage(format!("store.url = {}: {e}", settings.store_url)))
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let problem = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use; stop what holds it, or choose another (0 picks a free one)".to_owned()
            }
            std::io::ErrorKind::AddrNotAvailable => "the address is not one of this machine's".to_owned(),
            _ => format!("the address cannot be bound: {error}"),
        };
        Failure::usage(format!("{key} = {address}: {problem}"))
    })
}

impl Node {
    /// Starts everything. The lock stands for the store: no other node works on it.
    pub(crate) async fn start(settings: Settings, store: Store, lock: NodeLock) -> Result<Self, Failure> {
        let http = bind("http.listen", settings.http_listen).await?;
        let metrics = match settings.metrics_listen {
            Some(address) => Some(bind("http.metrics_listen", address).await?),
            None => None,
        };
        let orphans = store.close_orphans().await?;
        if orphans > 0 {
            tracing::warn!(orphans, "calls that a crash left open were closed as failed");
        }
        store.release_idempotent().await?;
        let (sequence, directory) = store.directory().await?;
        let (cluster, feed, inbox, questions) = Cluster::in_process();
        feed.applied(sequence);
        let (sender, queue) = mpsc::channel(RECORD_QUEUE);
        let node_name = settings.gateway.node_name.clone();
        let private_targets = settings.gateway.private_targets.clone();
        let recordings_dir = settings.gateway.media.recordings_dir.clone();
        let edge_threads = EdgeThreads::start()?;
        let gateway = Gateway::start(settings.gateway, directory, cluster.clone(), inbox, sender);
        let gateway = edge_threads.run(gateway).await?;
        let gateway = Arc::new(gateway.map_err(|e| Failure::usage(e.to_string()))?);
        let feed = tokio::spawn(directory_feed::run(store.clone(), feed, gateway.directory(), sequence));
        let writer = tokio::spawn(records::run(store.clone(), cluster.clone(), queue));
        let calls_out = tokio::spawn(calls_out::run(store.clone(), questions));
        let webhooks =
            tokio::spawn(webhooks::run(store.clone(), gateway::Webhooks::new(private_targets.clone())));
        let retention =
            tokio::spawn(retention::run(store.clone(), recordings_dir.clone(), settings.retention));
        let health = Arc::new(health::NodeHealth::new(store.clone(), Arc::clone(&gateway)));
        let state = api::ApiState::new(
            store.clone(),
            cluster,
            node_name,
            env!("CARGO_PKG_VERSION").to_owned(),
            health,
        )
        .with_rate_limit(settings.rate_limit)
        .with_recordings(recordings_dir)
        .with_private_targets(private_targets)
        .with_required_allow_list(settings.require_allow_list)
        .with_metrics_elsewhere(metrics.is_some());
        let http_address = http.local_addr().map_err(|e| Failure::new(e.to_string()))?;
        let stop_http = CancellationToken::new();
        let metrics = metrics.map(|listener| (listener, api::metrics_router(state.clone())));
        let http_tasks =
            std::iter::once((http, api::router(state))).chain(metrics).map(|(listener, router)| {
                tokio::spawn(api::serve(listener, router, stop_http.clone().cancelled_owned()))
            });
        let http_tasks = http_tasks.collect();
        tracing::info!("listening kind=http addr={http_address}");
        for address in gateway.local_udp() {
            tracing::info!("listening kind=sip/udp addr={address}");
        }
        for address in gateway.local_audiosocket() {
            tracing::info!("listening kind=audiosocket addr={address}");
        }
        for address in gateway.local_tls() {
            tracing::info!("listening kind=sip/tls addr={address}");
        }
        for address in gateway.local_tcp() {
            tracing::info!("listening kind=sip/tcp addr={address}");
        }
        Ok(Self {
            store,
            gateway,
            http: http_address,
            stop_http,
            http_tasks,
            feed,
            writer,
            calls_out,
            webhooks,
            retention,
            edge_threads,
            _lock: lock,
        })
    }

    /// Ends every call with BYE, writes what is still to be written, and closes.
    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
        self.stop_http.cancel();
        for task in self.http_tasks {
            let _ = task.await;
        }
        self.feed.abort();
        let _ = self.feed.await;
        // The gateway holds the queue's sender: with its last reference gone, the writer drains it and ends.
        // Its threads have a moment for the last messages; what holds on to a record longer is a call without an end.
        drop(self.gateway);
        let mut writer = self.writer;
        let told = tokio::time::timeout(LAST_MESSAGES, &mut writer).await;
        drop(self.edge_threads);
        if told.is_err() {
            tracing::error!(
                "calls that did not end in time have no final record; the next start closes them"
            );
            if tokio::time::timeout(records::LAST_FLUSH, writer).await.is_err() {
                tracing::error!("calls that could not be written down in time are lost");
            }
        }
        // What was under way is told again by the next node: its lease runs out.
        self.calls_out.abort();
        self.retention.abort();
        self.webhooks.abort();
        let _ = self.webhooks.await;
        self.store.close().await;
    }
}
