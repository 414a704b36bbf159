//! `tandem demo`: the main job on loopback, without any set-up. A node as `serve` runs it, configured over its own
//! API; three calls really placed; audio proven by tones measured at the other end.

mod peer;

use std::net::SocketAddr;
use std::process::ExitCode;

use api::client::Client;
use media::detect;
use media::player::RATE;
use serde_json::{Value, json};

use self::peer::{Account, Peer, Report};
use crate::Failure;
use crate::node::{Node, open_store};
use crate::settings;

/// The number the carrier calls.
const NUMBER: &str = "+14155550100";
/// Who calls it, and who is called.
const CALLER: &str = "+14155550199";
const ACCOUNT: &str = "tandem-demo";
/// What the calling-out agent says.
const AGENT_HZ: f32 = 520.0;

/// How often and how long the end of a call is looked for over the API.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
const LOOKS: usize = 60;

pub(crate) async fn run(once: bool) -> Result<ExitCode, Failure> {
    let directory = tempfile::tempdir().map_err(|e| Failure::new(format!("a temporary directory: {e}")))?;
    let flags = [
        format!("data_dir={}", directory.path().join("data").display()),
        "http.listen=127.0.0.1:0".to_owned(),
        "sip.udp=127.0.0.1:0".to_owned(),
        "sip.tcp=127.0.0.1:0".to_owned(),
        "media.address=127.0.0.1".to_owned(),
    ];
    progress("starting a node on loopback");
    let settings = settings::load(None, &flags).map_err(|bad| Failure::usage(bad.0))?;
    let store = open_store(&settings).await?;
    let (organization, _) = store.create_organization("Demo").await?;
    let key = store.create_key(organization.id, "demo", model::Scope::ALL, None).await?;
    let node = Node::start(settings, store).await?;
    let base = format!("http://{}", node.http);
    let sip = *node.gateway.local_udp().first().ok_or_else(|| Failure::new("no SIP listener"))?;
    let client = Client::new(&base, key.token.clone()).map_err(|e| Failure::new(e.to_string()))?;
    let calls = place_calls(&client, sip).await.map_err(Failure::new)?;
    let mut right = true;
    for call in &calls {
        right &= call.right;
        show(call);
    }
    say(if right {
        "All three calls and their audio were right."
    } else {
        "Something was not right; see above."
    });
    if !once {
        say(&format!(
            "\nThe node stays up until Ctrl-C:\n  API            {base}\n  documentation  {base}/docs\n  key            {}\n  SIP            {sip} (UDP and TCP)",
            key.token.expose()
        ));
        let _ = tokio::signal::ctrl_c().await;
    }
    node.stop().await;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One call as shown to a person.
struct Call {
    title: &'static str,
    right: bool,
    lines: Vec<String>,
}

fn judge(title: &'static str, report: Result<Report, String>, hz: f32, status: Option<String>) -> Call {
    match report {
        Ok(report) => {
            let level = detect::level_db(&report.heard, RATE, hz);
            let heard = detect::hears(&report.heard, RATE, hz);
            let completed = status.as_deref() == Some("completed");
            let verdict = if heard { "heard" } else { "NOT HEARD" };
            let mut lines = report.ladder;
            lines.push(format!(
                "setup {:.1} ms · {hz} Hz {verdict} at {level:.1} dBFS · conversation {}",
                report.setup_ms,
                status.as_deref().unwrap_or("not on record")
            ));
            Call { title, right: heard && completed, lines }
        }
        Err(problem) => Call { title, right: false, lines: vec![format!("FAILED: {problem}")] },
    }
}

async fn place_calls(client: &Client, sip: SocketAddr) -> Result<Vec<Call>, String> {
    let carrier = Peer::new().await?;
    let account = Account { username: ACCOUNT, password: password()? };
    progress("making a trunk, a number and two agents over the API");
    let trunk = json!({
        "name": "Demo carrier",
        "inbound_config": {"allowed_addresses": ["127.0.0.1"]},
        "outbound_config": {"address": carrier.address()?.to_string(), "auth_username": account.username, "auth_password": account.password},
    });
    let trunk = post(client, "/core/trunks", Some(trunk)).await?;
    post(client, "/core/phone-numbers", Some(json!({"phone_number": NUMBER, "trunk_id": trunk["id"]})))
        .await?;
    let echo = agent(client, "Echo", json!({"runtime": {"type": "echo"}}), Some(NUMBER)).await?;
    let tone = json!({"runtime": {"type": "play", "tones": [{"hz": AGENT_HZ, "ms": 1000}], "repeat": true}});
    let speaker = agent(client, "Speaker", tone, None).await?;
    let endpoint = post(client, &format!("/core/agents/{echo}/deploy-as-sip"), None).await?;
    let uri = endpoint["uri"].as_str().ok_or("deploy-as-sip answered no URI")?.to_owned();

    progress("1 of 3: the carrier calls the number");
    let report = Peer::new().await?.call(sip, &format!("sip:{NUMBER}@{sip}"), CALLER, 440.0).await;
    let status = newest(client).await;
    let first = judge("1. A carrier calls the number; the echo agent answers", report, 440.0, status);

    progress("2 of 3: a phone calls the agent's SIP URI");
    let report = Peer::new().await?.call(sip, &uri, "phone", 620.0).await;
    let status = newest(client).await;
    let second = judge("2. A phone calls the agent's SIP URI", report, 620.0, status);

    progress("3 of 3: an agent calls out and is challenged");
    let wanted = json!({"channel": "telephone", "user_id": CALLER, "agent_id": speaker});
    let (report, placed) =
        tokio::join!(carrier.answer(&account, 880.0), post(client, "/core/conversations", Some(wanted)));
    placed?;
    let status = newest(client).await;
    let third =
        judge("3. An agent calls out over the carrier, which asks for digest", report, AGENT_HZ, status);
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

fn show(call: &Call) {
    say(&format!("\n{}", call.title));
    for line in &call.lines {
        say(&format!("   {line}"));
    }
}

#[allow(clippy::print_stdout, reason = "what the demonstration shows")]
fn say(line: &str) {
    println!("{line}");
}

#[allow(clippy::print_stderr, reason = "progress for a person")]
fn progress(line: &str) {
    eprintln!("demo: {line}");
}
