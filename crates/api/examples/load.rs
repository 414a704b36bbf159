//! Sends GET requests at a steady rate and tells how long answers take, counted from when each request was due: a
//! server that stalls is not spared by a client that waits for it.
//!
//! `load ADDRESS KEY RATE SECONDS CONNECTIONS PATH…`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for the bench; a panic is how it fails")]

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("ADDRESS KEY RATE SECONDS CONNECTIONS PATH…");
    let (address, key) = (next(), next());
    let [rate, seconds, connections] = [next(), next(), next()].map(|n| n.parse::<u32>().unwrap());
    let paths: Vec<String> = arguments.collect();
    let begin = Instant::now() + Duration::from_millis(200);
    let gap = Duration::from_secs(1) / rate;
    let tasks: Vec<_> = (0..connections)
        .map(|own| {
            let (address, paths, key) = (address.clone(), paths.clone(), key.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(&address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut told = Vec::new();
                for n in (own..rate * seconds).step_by(connections as usize) {
                    let due = begin + gap * n;
                    sleep_until(due).await;
                    let at = n as usize % paths.len();
                    let request = format!(
                        "GET {} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\r\n",
                        paths[at]
                    );
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let status = answer(&mut stream).await;
                    told.push((at, status, due.elapsed()));
                }
                told
            })
        })
        .collect();
    let mut by_path: Vec<Vec<(u16, Duration)>> = vec![Vec::new(); paths.len()];
    for task in tasks {
        for (at, status, took) in task.await.unwrap() {
            by_path[at].push((status, took));
        }
    }
    for (path, mut answers) in paths.iter().zip(by_path) {
        answers.sort_by_key(|(_, took)| *took);
        let at = |share: f64| {
            let index = ((answers.len() - 1) as f64 * share).round();
            answers[index as usize].1.as_secs_f64() * 1e3
        };
        let mut statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        statuses.sort_unstable();
        statuses.dedup();
        println!(
            "{} answers {statuses:?}: p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, most {:.3} ms  {path}",
            answers.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
}

/// Reads one answer with a `Content-Length`, and returns its status.
async fn answer(stream: &mut TcpStream) -> u16 {
    let (mut read, mut bytes) = (0, vec![0; 16 * 1024]);
    loop {
        read += stream.read(&mut bytes[read..]).await.unwrap();
        let text = String::from_utf8_lossy(&bytes[..read]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return head.split(' ').nth(1).unwrap().parse().unwrap();
        }
    }
}
