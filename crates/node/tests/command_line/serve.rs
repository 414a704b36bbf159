//! `tandem serve`: the first start, readiness, one node a database, what a kill leaves behind, the drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::Place;

#[tokio::test]
async fn the_first_start_prints_a_key_once_and_the_second_none() {
    let place = Place::new();
    let mut serving = place.serve(&[]);
    assert!(serving.answered().starts_with("organization "));
    let key = serving.answered();
    assert!(key.starts_with("ak_"), "{key}");
    let client = serving.client(&key);
    assert_eq!(client.get("/core/trunks", &[]).await.unwrap().body, json!([]));
    let ready = client.get("/readyz", &[]).await.unwrap().body;
    assert_eq!(ready["ready"], true, "{ready}");
    serving.signal("-TERM");
    assert_eq!(serving.wait().code(), Some(0));
    assert!(serving.says_no_more());
    assert!(!serving.log.contains(&key), "the key is in the log");

    let mut again = place.serve(&["--set", "http.metrics_listen=127.0.0.1:0"]);
    assert!(again.client(&key).get("/core/trunks", &[]).await.is_ok());
    let started = std::time::Instant::now();
    again.signal("-INT");
    assert_eq!(again.wait().code(), Some(0));
    assert!(started.elapsed().as_secs() < 5, "an idle node ends at once");
    assert!(again.says_no_more());
}

#[tokio::test]
async fn a_second_node_on_the_same_database_does_not_start() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let (_, key) = (serving.answered(), serving.answered());
    let set = [
        "serve",
        "--set",
        "http.listen=127.0.0.1:0",
        "--set",
        "sip.udp=127.0.0.1:0",
        "--set",
        "sip.tcp=none",
    ];
    let line = place.refusal(&mut place.tandem(&set), 2);
    assert!(line.contains("store.url = ") && line.contains("another node runs on it"), "{line}");
    assert!(serving.client(&key).get("/core/trunks", &[]).await.is_ok());
}

#[tokio::test]
async fn a_hang_up_names_what_needs_a_restart_and_ends_nothing() {
    let place = Place::new();
    let mut serving = place.serve(&[]);
    let (_, key) = (serving.answered(), serving.answered());
    std::fs::write(place.0.path().join("tandem.toml"), "[limits]\nmax_calls = 7\n").unwrap();
    serving.signal("-HUP");
    serving.logged("limits.max_calls");
    std::fs::write(place.0.path().join("tandem.toml"), "[limits]\nmax_calls = -7\n").unwrap();
    serving.signal("-HUP");
    serving.logged("the node goes on as it is");
    assert!(serving.client(&key).get("/core/trunks", &[]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kill_while_trunks_are_written_loses_nothing_that_was_acknowledged() {
    const WRITERS: usize = 4;
    const BEFORE_THE_KILL: usize = 40;
    let place = Place::new();
    let mut serving = place.serve(&[]);
    let (_, key) = (serving.answered(), serving.answered());
    let (acknowledged, mut written) = tokio::sync::mpsc::unbounded_channel();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (client, stop, acknowledged) = (serving.client(&key), Arc::clone(&stop), acknowledged.clone());
        writers.push(tokio::spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                let body = json!({"name": format!("{writer}-{count}")});
                let Ok(answer) = client.post("/core/trunks", Some(&body)).await else { return };
                let _ = acknowledged.send((answer.body["id"].clone(), answer.body["name"].clone()));
            }
        }));
    }
    drop(acknowledged);
    let mut ledger = Vec::new();
    while ledger.len() < BEFORE_THE_KILL {
        ledger.push(written.recv().await.expect("writers go on until the kill"));
    }
    serving.signal("-KILL");
    serving.wait();
    stop.store(true, Ordering::Relaxed);
    while let Some(entry) = written.recv().await {
        ledger.push(entry);
    }
    for writer in writers {
        writer.await.unwrap();
    }

    let started = std::time::Instant::now();
    let serving = place.serve(&[]);
    assert!(started.elapsed().as_secs() < 2, "it serves again within 2 s");
    let client = serving.client(&key);
    for (id, name) in ledger {
        let id = id.as_str().unwrap();
        let trunk: Value = client.get(&format!("/core/trunks/{id}"), &[]).await.unwrap().body;
        assert_eq!(trunk["name"], name);
    }
}

#[test]
fn the_demonstration_is_right() {
    let place = Place::new();
    // Neither file nor environment reach it.
    std::fs::write(place.0.path().join("tandem.toml"), "nonsense").unwrap();
    let output =
        place.tandem(&["demo", "--once", "--json"]).env("TANDEM_SIP__UDP", "nowhere").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    let calls = report["calls"].as_array().unwrap();
    assert_eq!(calls.len(), 3);
    for call in calls {
        assert_eq!(call["status"], "completed");
        assert!(call["level_db"].as_f64().unwrap() > -15.0, "{call}");
    }
    let third: Vec<&str> = calls[2]["ladder"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        third.starts_with(&["< INVITE", "> 407 Proxy Authentication Required", "< ACK", "< INVITE"]),
        "{third:?}"
    );
}
