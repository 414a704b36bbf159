//! `tandem serve`.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::node::{Node, open_store};
use crate::settings::Settings;

pub(crate) async fn run(settings: Settings) -> Result<ExitCode, Failure> {
    raise_open_files();
    let listen = |kind| signal(kind).map_err(|e| Failure::new(format!("signals: {e}")));
    let (mut terminate, mut interrupt, mut hang_up) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    let store = open_store(&settings).await?;
    if store.is_empty().await? {
        first_start(&store).await?;
    }
    let node = Node::start(settings, store).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                node.gateway.reload();
                tracing::info!("reloaded: local addresses are detected anew; settings take effect at the next start");
            }
        }
    }
    tracing::info!(
        calls = node.gateway.status().active_calls,
        "draining: no new calls; a second signal ends at once"
    );
    tokio::select! {
        () = node.gateway.drain() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// An empty store gets an organization and a key, which is printed once.
#[allow(clippy::print_stdout, reason = "the key is the answer of a first start")]
async fn first_start(store: &store::Store) -> Result<(), Failure> {
    let (organization, _) = store.create_organization("Default").await?;
    let key = store.create_key(organization.id, "first", model::Scope::ALL, None).await?;
    println!("organization {}", organization.id);
    println!("{}", key.token.expose());
    Ok(())
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
