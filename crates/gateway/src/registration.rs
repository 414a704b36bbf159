//! The registrations that trunks keep with their carriers: a task each, from the trunk's `register` until it is taken
//! back, the trunk is removed, or the node leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use cluster::{Registration as Status, RegistrationState as State};
use model::{OutboundConfig, Timestamp, TrunkId};
use signaling::register::{self, Registered, Registrar, Registration};
use signaling::{Hop, Message, Transport, digest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::{CallInput, Key, MAILBOX};
use crate::edge::{Edge, random};
use crate::targets::Targets;

/// The wait after a failure, which doubles, and its longest (RFC 5626 4.5).
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The longest Retry-After that is obeyed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);
/// How often a NAT on the way is reminded of a UDP binding (RFC 5626 4.4).
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// How long a removal may take.
const REMOVAL: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Default)]
pub(crate) struct Registrations {
    tasks: TaskTracker,
    leaving: CancellationToken,
}

impl Registrations {
    /// Takes every binding back.
    pub(crate) fn end(&self) {
        self.leaving.cancel();
        self.tasks.close();
    }

    /// Waits until they are taken back.
    pub(crate) async fn ended(&self) {
        self.tasks.wait().await;
    }
}

/// Keeps the registrations that the directory asks for, until the node leaves.
pub(crate) async fn serve(edge: Arc<Edge>) {
    let mut kept: AHashMap<TrunkId, (OutboundConfig, CancellationToken)> = AHashMap::new();
    loop {
        let directory = edge.directory.load();
        let mut wanted: AHashMap<TrunkId, OutboundConfig> = directory
            .registering()
            .filter_map(|trunk| Some((trunk.id, trunk.outbound_config.clone()?)))
            .collect();
        kept.retain(|id, (config, end)| {
            let same = wanted.get(id) == Some(config);
            if same {
                wanted.remove(id);
            } else {
                end.cancel();
            }
            same
        });
        for (id, config) in wanted {
            let end = edge.registrations.leaving.child_token();
            kept.insert(id, (config.clone(), end.clone()));
            edge.registrations.tasks.spawn(keep(Arc::clone(&edge), id, config, end));
        }
        tokio::select! {
            () = edge.registrations.leaving.cancelled() => return,
            () = edge.directory.changed() => {}
        }
    }
}

/// A trunk's registration, and what the API is told of it.
struct Keeper {
    edge: Arc<Edge>,
    trunk: TrunkId,
    config: OutboundConfig,
    told: Status,
}

/// Why a binding is no more.
enum Over {
    /// It is to be taken back, which has been tried.
    Ended,
    /// It failed; the registrar may have said for how long.
    Failed(Option<Duration>),
}

async fn keep(edge: Arc<Edge>, trunk: TrunkId, config: OutboundConfig, end: CancellationToken) {
    let told = Status {
        state: State::Trying,
        since: Timestamp::now(),
        expires_at: None,
        detail: "The first REGISTER is under way.".to_owned(),
    };
    let stop = edge.stop.clone();
    let mut keeper = Keeper { edge, trunk, config, told };
    keeper.tell();
    let mut failures = 0;
    loop {
        let over = tokio::select! {
            over = keeper.bind(&end, &mut failures) => over,
            () = stop.cancelled() => Over::Ended,
        };
        let wait = match over {
            Over::Ended => break,
            Over::Failed(Some(wait)) => wait.min(LONGEST_RETRY_AFTER),
            Over::Failed(None) => backoff(failures),
        };
        failures += 1;
        tokio::select! {
            () = end.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    keeper.forget();
}

/// Half of it or more, so that what failed together does not come back together.
fn backoff(failures: u32) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT);
    let [share, ..] = random();
    longest / 2 + longest / 512 * u32::from(share)
}

impl Keeper {
    fn tell(&self) {
        self.edge.cluster.set_registration(self.trunk, Some(self.told.clone()));
    }

    /// Unless the trunk registers with other settings already.
    fn forget(&self) {
        let current = self.edge.directory.load().trunk(self.trunk).and_then(|t| t.outbound_config.clone());
        if !current.is_some_and(|config| config.register) {
            self.edge.cluster.set_registration(self.trunk, None);
        }
    }

    fn note(&mut self, state: State, expires: Option<Duration>, detail: String) {
        let now = Timestamp::now();
        if self.told.state != state {
            self.told.since = now;
        }
        let until =
            |wait: Duration| Timestamp(now.0.saturating_add(wait.as_micros().try_into().unwrap_or(i64::MAX)));
        self.told = Status { state, expires_at: expires.map(until), detail, since: self.told.since };
        if state == State::Failed {
            tracing::warn!(trunk = %self.trunk, detail = %self.told.detail, "registration failed");
        }
        self.tell();
    }

    /// Registers at the first target that answers, and stays registered there.
    async fn bind(&mut self, end: &CancellationToken, failures: &mut u32) -> Over {
        let mut targets = Targets::of(&self.config);
        let mut retry_after = None;
        while targets.has_more() {
            let edge = Arc::clone(&self.edge);
            let mut tried = Vec::new();
            let found = tokio::select! {
                () = end.cancelled() => return Over::Ended,
                found = targets.next(&edge, &mut tried) => found,
            };
            match found {
                Err(failure) => {
                    self.note(State::Failed, None, format!("{}. {}", failure.detail, failure.advice))
                }
                Ok(hop) => match self.at(hop, end, failures).await {
                    Over::Ended => return Over::Ended,
                    Over::Failed(wait) => retry_after = wait.or(retry_after),
                },
            }
            if end.is_cancelled() {
                return Over::Ended;
            }
        }
        Over::Failed(retry_after)
    }

    /// Registers at one target, and refreshes until that fails.
    async fn at(&mut self, hop: Hop, end: &CancellationToken, failures: &mut u32) -> Over {
        let edge = Arc::clone(&self.edge);
        let user = register::escaped(&self.config.auth_username);
        let registrar = Registrar {
            uri: format!("sip:{}", self.config.address),
            aor: format!("sip:{user}@{}", self.config.address),
            user: self.config.auth_username.clone(),
            credentials: digest::Credentials::new(
                self.config.auth_username.clone(),
                self.config.auth_password.expose().to_owned(),
            ),
        };
        let mut registration = Registration::new(registrar, hop, edge.identity(hop));
        let key = edge.calls.local_key(registration.call_id(), registration.local_tag());
        let (mailbox, mut inputs) = mpsc::channel(MAILBOX);
        edge.calls.add_dialog(key, mailbox.clone());
        let _listed = Listed { edge: Arc::clone(&edge), key };
        let _in_use = edge.transports.hold(hop, Some(mailbox));
        let mut removing = None;
        let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
        let mut refresh_at = None;
        registration.refresh(Instant::now());
        loop {
            while let Some(transmit) = registration.poll_transmit() {
                let sent = edge.send(transmit.hop, transmit.bytes);
                if sent.is_err() && hop.transport.is_reliable() {
                    registration.handle_transport_error();
                }
            }
            while let Some(event) = registration.poll_event() {
                match event {
                    Registered::Removed => return Over::Ended,
                    _ if removing.is_some() => return Over::Ended,
                    Registered::Bound { expires, refresh_in } => {
                        *failures = 0;
                        refresh_at = Some(Instant::now() + refresh_in);
                        let detail = format!("{} has the binding for {} s.", hop.remote, expires.as_secs());
                        self.note(State::Registered, Some(expires), detail);
                    }
                    failed => return self.failed(hop, failed),
                }
            }
            let due = [registration.poll_timeout(), refresh_at, removing].into_iter().flatten().min();
            let due = due.unwrap_or_else(|| Instant::now() + KEEP_ALIVE);
            tokio::select! {
                () = end.cancelled(), if removing.is_none() => {
                    refresh_at = None;
                    removing = Some(Instant::now() + REMOVAL);
                    registration.remove(Instant::now());
                }
                input = inputs.recv() => match input {
                    Some(CallInput::Sip(message)) => {
                        if let Message::Response(response) = &message.0 {
                            registration.handle_response(response, message.1, Instant::now());
                        }
                    }
                    // The carrier has lost its way to us: a new connection at once.
                    Some(CallInput::Closed(lost)) if lost == hop => {
                        let detail = format!("the connection to {} was closed.", hop.remote);
                        self.note(State::Failed, None, detail);
                        return Over::Failed(Some(Duration::from_secs(1)));
                    }
                    Some(_) => {}
                    None => return Over::Failed(None),
                },
                _ = keep_alive.tick(), if hop.transport == Transport::Udp => {
                    let _ = edge.transports.send(hop, Bytes::from_static(b"\r\n\r\n"));
                }
                () = tokio::time::sleep_until(due.into()) => {
                    let now = Instant::now();
                    if removing.is_some_and(|at| at <= now) {
                        return Over::Ended;
                    }
                    if refresh_at.take_if(|at| *at <= now).is_some() {
                        registration.refresh(now);
                    }
                    registration.handle_timeout(now);
                }
            }
        }
    }

    fn failed(&mut self, hop: Hop, event: Registered) -> Over {
        let to = hop.remote;
        let (detail, wait) = match event {
            Registered::Refused { status, phrase, retry_after } => {
                (format!("{to} refused REGISTER with {status} {phrase}."), retry_after)
            }
            Registered::Challenged => (
                format!("{to} refused the credentials: check the trunk's auth_username and auth_password."),
                // Wrong credentials stay wrong for a while, and a carrier may lock the account.
                Some(Duration::from_secs(60)),
            ),
            _ => (format!("{to} did not answer REGISTER."), None),
        };
        self.note(State::Failed, None, detail);
        Over::Failed(wait)
    }
}

/// A registration's place on the table of dialogs.
struct Listed {
    edge: Arc<Edge>,
    key: Key,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.edge.calls.remove_dialog(self.key);
    }
}
