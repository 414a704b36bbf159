//! A router over a store in a temporary directory, and an edge that does what it is told.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use api::{ApiState, Check, Health};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use cluster::{CallCommand, CallError, CallInbox, Cluster, ConfigFeed, SipPresence};
use http_body_util::BodyExt;
use model::{Conversation, ConversationId, ConversationStatus, EndedBy, OrganizationId, Scope, Timestamp};
use serde_json::{Value, json};
use store::{KeyRing, Record, Store};
use tower::ServiceExt;

/// Stands in every carrier password of these tests, and must stand in no answer.
pub(crate) const CANARY: &str = "c4n4ry-p4ssw0rd";

pub(crate) struct TestApi {
    pub(crate) router: Router,
    pub(crate) store: Store,
    pub(crate) cluster: Cluster,
    pub(crate) edge: Arc<Mutex<Edge>>,
    pub(crate) organization: OrganizationId,
    /// A key of the organization with every scope.
    pub(crate) key: String,
    /// The edge's end of the configuration, when nothing was to be applied.
    pub(crate) feed: Option<ConfigFeed>,
    directory: tempfile::TempDir,
}

/// What the edge does with commands, and what it has seen.
#[derive(Default)]
pub(crate) struct Edge {
    pub(crate) refuse: Option<CallError>,
    pub(crate) live: HashMap<ConversationId, Conversation>,
    pub(crate) placed: Vec<(Conversation, model::AgentConfig)>,
    pub(crate) transferred: Vec<cluster::Transfer>,
    pub(crate) recorded: Vec<model::RecordStep>,
}

struct Healthy;

impl Health for Healthy {
    fn checks(&self) -> Pin<Box<dyn Future<Output = Vec<Check>> + Send + '_>> {
        Box::pin(async { vec![Check { name: "store", ok: true, detail: "open".to_owned() }] })
    }
    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    pub(crate) fn detail(&self) -> &str {
        self.body["detail"].as_str().expect("an error has a detail")
    }

    /// Asserts a 422 whose detail and first error name the field.
    #[track_caller]
    pub(crate) fn names(self, field: &str) -> Self {
        let reply = self.expect(422);
        assert!(reply.detail().starts_with(field), "{:?} does not start with {field}", reply.detail());
        let loc: Vec<&str> =
            reply.body["errors"][0]["loc"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(loc[1..].join("."), field);
        assert!(reply.body["errors"][0]["msg"].is_string() && reply.body["errors"][0]["type"].is_string());
        reply
    }

    pub(crate) fn id(&self) -> String {
        self.body["id"].as_str().expect("a resource has an id").to_owned()
    }
}

pub(crate) fn presence() -> SipPresence {
    SipPresence { host: "sip.example.net".to_owned(), port: None, transport: None, sips: false }
}

impl TestApi {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Setup)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyRing::load_or_create(&directory.path().join("secret.key")).unwrap();
        let url = format!("sqlite:{}", directory.path().join("tandem.db").display());
        let store = Store::open(&url, keys).await.unwrap();
        let (organization, _) = store.create_organization("Acme").await.unwrap();
        let key = store.create_key(organization.id, "all", Scope::ALL, None).await.unwrap();
        let (cluster, feed, inbox, _) = Cluster::in_process();
        cluster.set_sip_presence(Some(presence()));
        let edge = Arc::new(Mutex::new(Edge::default()));
        let mut setup =
            Setup { apply: true, rate: None, targets: model::PrivateTargets::Allow, allow_list: false };
        change(&mut setup);
        let feed = if setup.apply {
            tokio::spawn(apply(store.clone(), feed));
            None
        } else {
            Some(feed)
        };
        tokio::spawn(obey(store.clone(), Arc::clone(&edge), inbox));
        let state =
            ApiState::new(store.clone(), cluster.clone(), "n1".into(), "0.1.0".into(), Arc::new(Healthy));
        let state = state.with_rate_limit(setup.rate).with_private_targets(setup.targets);
        let state = state.with_required_allow_list(setup.allow_list);
        let router = api::router(state);
        let key = key.token.expose().to_owned();
        Self { router, store, cluster, edge, organization: organization.id, key, feed, directory }
    }

    pub(crate) async fn key(&self, scopes: &[Scope]) -> String {
        let made = self.store.create_key(self.organization, "some", scopes, None).await.unwrap();
        made.token.expose().to_owned()
    }

    /// A second organization and a key of its own with every scope.
    pub(crate) async fn other_organization(&self) -> (OrganizationId, String) {
        let (other, _) = self.store.create_organization("Other").await.unwrap();
        let key = self.store.create_key(other.id, "all", Scope::ALL, None).await.unwrap();
        (other.id, key.token.expose().to_owned())
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        // A stream of events has no end to wait for.
        let endless = parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let bytes = if endless { bytes::Bytes::new() } else { body.collect().await.unwrap().to_bytes() };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains(CANARY), "the password is in an answer: {text}");
        assert!(!format!("{:?}", parts.headers).contains(CANARY));
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        };
        Reply { status: parts.status, headers: parts.headers, body, text }
    }

    pub(crate) async fn as_key(&self, key: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        let request = match body {
            Some(body) => {
                request.header("content-type", "application/json").body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        };
        self.raw(request.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.as_key(&self.key, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.as_key(&self.key, Method::POST, path, Some(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.as_key(&self.key, Method::PUT, path, Some(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.as_key(&self.key, Method::PATCH, path, Some(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.as_key(&self.key, Method::DELETE, path, None).await
    }

    pub(crate) async fn trunk(&self, name: &str) -> String {
        let body = json!({"name": name, "outbound_config": outbound()});
        self.post("/core/trunks", body).await.expect(200).id()
    }

    /// A trunk of the operator's.
    pub(crate) async fn managed_trunk(&self) -> String {
        let new = store::NewTrunk {
            name: "managed".to_owned(),
            managed_account_id: Some("AC1".to_owned()),
            inbound_config: None,
            outbound_config: None,
            max_concurrent_calls: None,
            max_calls_per_second: None,
        };
        let (trunk, _) = self.store.create_trunk(self.organization, new).await.unwrap();
        trunk.id.to_string()
    }

    pub(crate) async fn number(&self, number: &str, trunk: &str) {
        self.post("/core/phone-numbers", json!({"phone_number": number, "trunk_id": trunk}))
            .await
            .expect(200);
    }

    /// An agent with version 1, published.
    pub(crate) async fn published_agent(&self, name: &str) -> String {
        let agent = self.post("/core/agents", json!({"name": name})).await.expect(200).id();
        self.post(&format!("/core/agents/{agent}/versions"), json!({"config": echo()})).await.expect(200);
        self.as_key(&self.key, Method::POST, &format!("/core/agents/{agent}/versions/1/publish"), None)
            .await
            .expect(200);
        agent
    }

    /// Every byte on disk.
    pub(crate) fn files(&self) -> Vec<u8> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        entries.flat_map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
    }
}

pub(crate) struct Setup {
    pub(crate) apply: bool,
    pub(crate) rate: Option<std::num::NonZeroU32>,
    pub(crate) targets: model::PrivateTargets,
    pub(crate) allow_list: bool,
}

pub(crate) fn outbound() -> Value {
    json!({"address": "sip.carrier.example:5080", "auth_username": "user", "auth_password": CANARY})
}

pub(crate) fn echo() -> Value {
    json!({"runtime": {"type": "echo"}})
}

async fn apply(store: Store, mut feed: ConfigFeed) {
    let mut applied = 0;
    while feed.newer_than(applied).await {
        let (sequence, _) = store.changes_after(applied, 1_000).await.unwrap();
        applied = sequence;
        feed.applied(applied);
    }
}

async fn obey(store: Store, edge: Arc<Mutex<Edge>>, mut inbox: CallInbox) {
    while let Some(command) = inbox.recv().await {
        match command {
            CallCommand::Originate(call, reply) => {
                let answer = {
                    let mut edge = edge.lock().unwrap();
                    match edge.refuse {
                        Some(error) => Err(error),
                        None => {
                            edge.live.insert(call.conversation.id, call.conversation.clone());
                            edge.placed.push((call.conversation, (*call.config).clone()));
                            Ok(())
                        }
                    }
                };
                let _ = reply.send(answer);
            }
            CallCommand::End(id, reply) => {
                let live = edge.lock().unwrap().live.remove(&id);
                let answer = match live {
                    None => Err(CallError::NotLive),
                    Some(mut call) => {
                        call.status = ConversationStatus::Cancelled;
                        call.ended_at = Some(Timestamp::now());
                        call.ended_by = Some(EndedBy::Api);
                        store.write_records(&[Record::Conversation(call.clone())]).await.unwrap();
                        Ok(call)
                    }
                };
                let _ = reply.send(answer);
            }
            CallCommand::Quality(_, reply) => {
                let _ = reply.send(Err(CallError::NotAnswered));
            }
            CallCommand::Listen(_, reply) => {
                let _ = reply.send(Err(CallError::NotLive));
            }
            CallCommand::Record(id, step, reply) => {
                let mut edge = edge.lock().unwrap();
                let answer = match (edge.refuse, edge.live.get(&id).cloned()) {
                    (Some(error), _) => Err(error),
                    (None, call) => call.ok_or(CallError::NotLive),
                };
                edge.recorded.push(step);
                let _ = reply.send(answer);
            }
            CallCommand::Digits(id, _, reply) => {
                let call = edge.lock().unwrap().live.get(&id).cloned();
                let _ = reply.send(call.ok_or(CallError::NotLive));
            }
            CallCommand::TransferStep(id, _, reply) | CallCommand::Play(id, _, reply) => {
                let edge = edge.lock().unwrap();
                let answer = match (edge.refuse, edge.live.get(&id).cloned()) {
                    (Some(error), _) => Err(error),
                    (None, call) => call.ok_or(CallError::NotLive),
                };
                let _ = reply.send(answer);
            }
            CallCommand::Transfer(id, asked, reply) => {
                let mut edge = edge.lock().unwrap();
                let answer = match (edge.refuse, edge.live.get(&id).cloned()) {
                    (Some(error), _) => Err(error),
                    (None, None) => Err(CallError::NotLive),
                    (None, Some(call)) => Ok(call),
                };
                edge.transferred.push(*asked);
                let _ = reply.send(answer);
            }
            CallCommand::EndByAgent(organization, id, secret, reply) => {
                let mut edge = edge.lock().unwrap();
                let own = edge.live.get(&id).is_some_and(|call| call.organization_id == organization);
                let known = secret.is_none_or(|secret| secret.expose() == "the-bots");
                let answer = match (own, known) {
                    (false, _) => Err(CallError::NotLive),
                    (true, false) => Err(CallError::Denied),
                    (true, true) => edge.live.remove(&id).ok_or(CallError::NotLive),
                };
                let _ = reply.send(answer);
            }
            CallCommand::TransferByAgent(.., reply) => {
                let _ = reply.send(Err(CallError::Transferring));
            }
            CallCommand::Simulate(call, reply) => {
                let detail = format!("{} {} {}", call.source, call.from, call.to);
                let step = model::Step { rule: "number".into(), result: model::RuleResult::Fail, detail };
                let _ = reply.send(Ok(cluster::Simulated {
                    accepted: false,
                    status: 404,
                    agent_id: None,
                    agent_version_id: None,
                    reason: "number_not_on_file".to_owned(),
                    steps: vec![step],
                    advice: "Add the number.".to_owned(),
                }));
            }
            CallCommand::Trace(_, reply) => {
                let _ = reply.send(Err(CallError::NotLive));
            }
            CallCommand::Probe(_, reply) => {
                let _ = reply.send(Ok(cluster::Probed { detail: "silent".to_owned(), ..Default::default() }));
            }
        }
    }
}
