//! Sends GET requests at a steady rate and tells how long answers take, counted from when each request was due: a
//! server that stalls is not spared by a client that waits for it.
//!
//! `load ADDRESS KEY RATE SECONDS CONNECTIONS PATH…`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for the bench; a panic is how it fails")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// One thread a connection: the system wakes a sleeper within tens of microseconds, where an asynchronous runtime's
/// timer rounds up to the next millisecond and would measure itself.
fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("ADDRESS KEY RATE SECONDS CONNECTIONS PATH…");
    let (address, key) = (next(), next());
    let [rate, seconds, connections] = [next(), next(), next()].map(|n| n.parse::<u32>().unwrap());
    let paths: Vec<String> = arguments.collect();
    let begin = Instant::now() + Duration::from_millis(200);
    let gap = Duration::from_secs(1) / rate;
    let mut by_path: Vec<Vec<(u16, Duration)>> = vec![Vec::new(); paths.len()];
    let told: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|own| {
                let (address, paths, key) = (&address, &paths, &key);
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let mut told = Vec::new();
                    for n in (own..rate * seconds).step_by(connections as usize) {
                        let due = begin + gap * n;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        let at = n as usize % paths.len();
                        let request = format!(
                            "GET {} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\r\n",
                            paths[at]
                        );
                        stream.write_all(request.as_bytes()).unwrap();
                        let status = answer(&mut stream);
                        told.push((at, status, due.elapsed()));
                    }
                    told
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for (at, status, took) in told {
        by_path[at].push((status, took));
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
fn answer(stream: &mut TcpStream) -> u16 {
    let (mut read, mut bytes) = (0, vec![0; 16 * 1024]);
    loop {
        read += stream.read(&mut bytes[read..]).unwrap();
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
