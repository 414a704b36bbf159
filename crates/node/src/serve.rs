//! `tandem serve`.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::node::{Node, open_store};
use crate::settings::{Flags, Settings};
use crate::{Failure, answer, lock, settings};

pub(crate) async fn run(settings: Settings, flags: &Flags) -> Result<ExitCode, Failure> {
    raise_open_files();
    let (mut terminate, mut interrupt, mut hang_up) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    let store = open_store(&settings).await?;
    let lock = lock::take(&settings)?;
    let first = store.is_empty().await?;
    let node = Node::start(settings.clone(), store, lock).await?;
    // Only now: a start that fails must not use up the one time the key is shown.
    if first {
        first_start(&node.store).await?;
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => reload(&node, &settings, flags),
        }
    }
    let calls = node.gateway.status().active_calls;
    tracing::info!(calls, "draining: no new calls; a second signal ends at once");
    tokio::select! {
        () = node.gateway.drain() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    node.stop().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|e| Failure::new(format!("signals: {e}")))
}

/// SIGHUP: what can change in a running node does, the rest is named.
fn reload(node: &Node, settings: &Settings, flags: &Flags) {
    node.gateway.reload();
    match settings::load(flags) {
        Err(bad) => tracing::error!("reload: {}; the node goes on as it is", bad.0),
        Ok(new) => {
            let changed = settings.sources.changed(&new.sources);
            if changed.is_empty() {
                tracing::info!("reload: this machine's addresses are detected anew; no setting has changed");
            } else {
                let changed = changed.join(", ");
                tracing::warn!(%changed, "reload: this machine's addresses are detected anew; these settings take effect at the next start");
            }
        }
    }
}

/// An empty store gets an organization and a key, which is printed once.
async fn first_start(store: &store::Store) -> Result<(), Failure> {
    let (organization, _) = store.create_organization("Default").await?;
    let key = store.create_key(organization.id, "first", model::Scope::ALL, None).await?;
    answer(format!("organization {}", organization.id))?;
    answer(key.token.expose())
}

/// Calls need descriptors: the soft limit goes up to the hard one.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
