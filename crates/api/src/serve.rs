//! Serves a router on a listener, with limits on what a peer may hold open.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// How long a peer may take over a request's head; an idle connection is closed after as long.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections served at once; more wait in the listener's queue.
pub const MAX_CONNECTIONS: usize = 1_024;

/// Largest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// How long requests in progress may go on after `shutdown`.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Pause after the system refused a connection (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1.1 until `shutdown` is done, then lets requests in progress finish.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send) {
    // Connections hold a receiver each: the last one is gone when nobody is served any more.
    let (stop, stopped) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(connection);
            let mut ended = tokio::select! {
                ended = &mut connection => Some(ended),
                _ = stopped.wait_for(|stop| *stop) => None,
            };
            if ended.is_none() {
                connection.as_mut().graceful_shutdown();
                ended = Some(connection.await);
            }
            if let Some(Err(error)) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    drop(stopped);
    stop.send_replace(true);
    if tokio::time::timeout(DRAIN_LIMIT, stop.closed()).await.is_err() {
        tracing::warn!("requests were still in progress at the end of the drain");
    }
}
