//! What a session hears of a call over a bad line, in virtual time, for `bench/loss.py --virtual`:
//! `cargo run --release -p media --example hear -- in.wav out.wav 12,-,47,...` with each packet's delay in milliseconds,
//! `-` for a packet that is lost. `in.wav` is mono at 8 kHz; it is sent as µ-law in packets of 20 ms.

#![allow(clippy::print_stdout, reason = "a command line program")]

use std::error::Error;
use std::time::{Duration, Instant};

use media::codec::Codec;
use media::offer_answer::{Direction, Negotiated};
use media::rtp::Packet;
use media::session::{Agent, Outbox, Session, SessionConfig};

const FRAME: Duration = Duration::from_millis(20);
const PEER: &str = "198.51.100.10:4000";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, network] = &arguments[..] else { return Err("give in.wav out.wav and the delays".into()) };
    let mut reader = hound::WavReader::open(from)?;
    let spec = reader.spec();
    if (spec.channels, spec.sample_rate, spec.bits_per_sample) != (1, 8_000, 16) {
        return Err(format!("{from}: must be mono at 8 kHz with 16 bits a sample").into());
    }
    let samples = reader.samples::<i16>().collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let mut arrivals = Vec::new();
    let mut encoder = Codec::Pcmu.encoder();
    for (n, delay) in (0_u16..).zip(network.split(',')) {
        let frame = samples.get(usize::from(n) * 160..).unwrap_or_default();
        let mut frame = frame.iter().copied().take(160).collect::<Vec<_>>();
        frame.resize(160, 0);
        let mut payload = Vec::new();
        encoder.encode(&frame, &mut payload);
        if delay == "-" {
            continue;
        }
        let packet = Packet {
            marker: n == 0,
            payload_type: 0,
            sequence: n,
            timestamp: u32::from(n) * 160,
            ssrc: 7,
            payload: &[],
        };
        let bytes = [&packet.header()[..], &payload].concat();
        let delay = Duration::from_secs_f64(delay.parse::<f64>()? / 1_000.0);
        arrivals.push((start + FRAME * u32::from(n) + delay, bytes));
    }
    arrivals.sort_by_key(|(at, _)| *at);
    let heard = hear(start, &arrivals)?;
    let mut writer = hound::WavWriter::create(to, spec)?;
    for sample in heard {
        writer.write_sample(sample)?;
    }
    Ok(writer.finalize()?)
}

/// Runs the session from packet to packet and deadline to deadline.
fn hear(start: Instant, arrivals: &[(Instant, Vec<u8>)]) -> Result<Vec<i16>, Box<dyn Error>> {
    let negotiated = Negotiated {
        codec: Codec::Pcmu,
        payload_type: 0,
        receive_payload_type: 0,
        telephone_event: None,
        remote: PEER.parse()?,
        remote_rtcp: PEER.parse()?,
        rtcp_mux: false,
        direction: Direction::SendRecv,
        ptime_ms: 20,
        encryption: None,
    };
    let config = SessionConfig { tap: true, ..SessionConfig::new(negotiated, Agent::Silent, [1; 16]) };
    let mut session = Session::new(config, start);
    session.start(start);
    let (peer, mut out) = (PEER.parse()?, Outbox::default());
    let end = arrivals.last().map_or(start, |(at, _)| *at);
    let mut waiting = arrivals.iter().peekable();
    loop {
        let due = session.poll_timeout().filter(|due| *due <= end);
        match (waiting.peek(), due) {
            (Some((at, _)), due) if due.is_none_or(|due| *at <= due) => {
                if let Some((at, packet)) = waiting.next() {
                    session.handle_rtp(packet, peer, *at, &mut out);
                }
            }
            (_, Some(due)) => session.handle_timeout(due, &mut out),
            (_, None) => break,
        }
        out.clear();
    }
    Ok(session.take_captured().1)
}
