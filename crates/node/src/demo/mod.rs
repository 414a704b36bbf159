//! `tandem demo`: the main job on loopback, without any set-up. A node as `serve` runs it, configured over its own
//! API; three calls really placed; audio proven by tones measured at the other end.

mod peer;

use std::net::SocketAddr;
use std::process::ExitCode;

use api::client::Client;
use media::detect;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::peer::{Account, Peer, Report};
use crate::node::{Node, open_store};
use crate::{Failure, answer, lock, settings};

/// The number the carrier calls.
const NUMBER: &str = "+14155550100";
/// Who calls it, and who is called.
const CALLER: &str = "+14155550199";
const ACCOUNT: &str = "tandem-demo";

/// How often and how long the end of a call is looked for over the API.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
const LOOKS: usize = 400;

/// How the demonstration is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Ends after the calls; status 1 when one of them or its audio was not right.
    #[arg(long)]
    once: bool,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Failure> {
    let directory = tempfile::tempdir().map_err(|e| Failure::new(format!("a temporary directory: {e}")))?;
    let settings = settings::of(&[
        format!("data_dir={}", directory.path().join("data").display()),
        "http.listen=127.0.0.1:0".to_owned(),
        "sip.udp=127.0.0.1:0".to_owned(),
        "sip.tcp=127.0.0.1:0".to_owned(),
        "media.address=127.0.0.1".to_owned(),
    ])?;
    progress("starting a node on loopback");
    let store = open_store(&settings).await?;
    let (organization, _) = store.create_organization("Demo").await?;
    let key = store.create_key(organization.id, "demo", model::Scope::ALL, None).await?;
    let lock = lock::take(&settings)?;
    let node = Node::start(settings, store, lock).await?;
    let base = format!("http://{}", node.http);
    let sip = *node.gateway.local_udp().first().ok_or_else(|| Failure::new("no SIP listener"))?;
    let client = Client::new(&base, key.token.clone()).map_err(|e| Failure::new(e.to_string()))?;
    let outcome = place_calls(&client, sip).await;
    let right = outcome.as_ref().is_ok_and(|calls| calls.iter().all(|call| call.right));
    match &outcome {
        Ok(calls) if options.json => {
            let place = json!({"api": base, "docs": format!("{base}/docs"), "sip": sip.to_string()});
            let calls: Vec<Value> = calls.iter().map(Call::to_json).collect();
            answer(json!({"ok": right, "node": place, "calls": calls}))?;
        }
        Ok(calls) => {
            calls.iter().try_for_each(Call::show)?;
            answer(if right {
                "\nAll three calls and their audio were right."
            } else {
                "\nSomething was not right; see above."
            })?;
        }
        Err(_) => {}
    }
    if !options.once && outcome.is_ok() {
        if !options.json {
            answer(format!(
                "\nThe node stays up until Ctrl-C:\n  API            {base}\n  documentation  {base}/docs\n  key            {}\n  SIP            {sip} (UDP and TCP)",
                key.token.expose()
            ))?;
        }
        let mut terminate =
            signal(SignalKind::terminate()).map_err(|e| Failure::new(format!("signals: {e}")))?;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    node.stop().await;
    outcome.map_err(Failure::new)?;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One call, judged.
struct Call {
    title: &'static str,
    right: bool,
    hz: f32,
    /// What happened, or why it did not.
    report: Result<Report, String>,
    /// Level of the tone that came back, in dB below a full-scale sine.
    level_db: f64,
    heard: bool,
    /// What the API says of the conversation in the end.
    status: Option<String>,
}

impl Call {
    /// Right is a call whose own tone came back and whose conversation is completed on record.
    fn judge(title: &'static str, report: Result<Report, String>, hz: f32, status: Option<String>) -> Self {
        let (samples, rate) = report.as_ref().map_or((&[][..], 1), |report| (&report.heard, report.rate));
        let (level_db, heard) = detect::listens(samples, rate, hz);
        let right = heard && status.as_deref() == Some("completed");
        Self { title, right, hz, report, level_db, heard, status }
    }

    fn show(&self) -> Result<(), Failure> {
        answer(format!("\n{}", self.title))?;
        match &self.report {
            Ok(report) => {
                for line in &report.ladder {
                    answer(format!("   {line}"))?;
                }
                answer(format!(
                    "   setup {:.1} ms · {} Hz {} at {:.1} dBFS · conversation {}",
                    report.setup_ms,
                    self.hz,
                    if self.heard { "came back" } else { "DID NOT COME BACK" },
                    self.level_db,
                    self.status.as_deref().unwrap_or("not on record")
                ))
            }
            Err(problem) => answer(format!("   FAILED: {problem}")),
        }
    }

    fn to_json(&self) -> Value {
        let report = self.report.as_ref().ok();
        json!({
            "title": self.title,
            "ok": self.right,
            "setup_ms": report.map(|r| r.setup_ms),
            "tone_hz": self.hz,
            "level_db": self.level_db,
            "tone_came_back": self.heard,
            "status": self.status,
            "problem": self.report.as_ref().err(),
            "ladder": report.map(|r| &r.ladder),
        })
    }
}

async fn place_calls(client: &Client, sip: SocketAddr) -> Result<Vec<Call>, String> {
    let carrier = Peer::new().await?;
    let account = Account { username: ACCOUNT, password: password()? };
    progress("making a trunk, a number and an agent over the API");
    let trunk = json!({
        "name": "Demo carrier",
        "inbound_config": {"allowed_addresses": ["127.0.0.1"]},
        "outbound_config": {"address": carrier.address()?.to_string(), "auth_username": account.username, "auth_password": account.password},
    });
    let trunk = post(client, "/core/trunks", Some(trunk)).await?;
    post(client, "/core/phone-numbers", Some(json!({"phone_number": NUMBER, "trunk_id": trunk["id"]})))
        .await?;
    let echo = agent(client, "Echo", json!({"runtime": {"type": "echo"}}), Some(NUMBER)).await?;
    let endpoint = post(client, &format!("/core/agents/{echo}/deploy-as-sip"), None).await?;
    let uri = endpoint["uri"].as_str().ok_or("deploy-as-sip answered no URI")?.to_owned();

    progress("1 of 3: the carrier calls the number");
    let report = Peer::new().await?.call(sip, &format!("sip:{NUMBER}@{sip}"), CALLER, 440.0).await;
    let status = newest(client).await;
    let first = Call::judge("1. A carrier calls the number; the echo agent answers", report, 440.0, status);

    progress("2 of 3: a phone calls the agent's SIP URI");
    let report = Peer::new().await?.call(sip, &uri, "phone", 620.0).await;
    let status = newest(client).await;
    let second = Call::judge("2. A phone calls the agent's SIP URI", report, 620.0, status);

    progress("3 of 3: an agent calls out and is challenged");
    let wanted = json!({"channel": "telephone", "user_id": CALLER, "agent_id": echo});
    let (report, placed) =
        tokio::join!(carrier.answer(&account, 880.0), post(client, "/core/conversations", Some(wanted)));
    placed?;
    let status = newest(client).await;
    let third =
        Call::judge("3. An agent calls out over the carrier, which asks for digest", report, 880.0, status);
    Ok(vec![first, second, third])
}

fn password() -> Result<String, String> {
    let mut bytes = [0_u8; 12];
    getrandom::fill(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// An agent with a published version, on a number when one is given.
async fn agent(client: &Client, name: &str, config: Value, number: Option<&str>) -> Result<String, String> {
    let agent = post(client, "/core/agents", Some(json!({"name": name}))).await?;
    let id = agent["id"].as_str().ok_or("the agent has no id")?.to_owned();
    post(client, &format!("/core/agents/{id}/versions"), Some(json!({"config": config}))).await?;
    let numbers: Vec<&str> = number.into_iter().collect();
    post(client, &format!("/core/agents/{id}/versions/1/publish"), Some(json!({"phone_numbers": numbers})))
        .await?;
    Ok(id)
}

async fn post(client: &Client, path: &str, body: Option<Value>) -> Result<Value, String> {
    client.post(path, body.as_ref()).await.map(|answer| answer.body).map_err(|e| format!("POST {path}: {e}"))
}

/// Status of the newest conversation once it is final; what it is then otherwise.
async fn newest(client: &Client) -> Option<String> {
    let mut status = None;
    for _ in 0..LOOKS {
        let list = client.get("/core/conversations", &[("limit", "1")]).await.ok()?.body;
        status = list[0]["status"].as_str().map(str::to_owned);
        if !matches!(status.as_deref(), Some("triggered" | "ringing" | "in_progress") | None) {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    status
}

#[allow(clippy::print_stderr, reason = "progress for a person")]
fn progress(line: &str) {
    eprintln!("demo: {line}");
}
