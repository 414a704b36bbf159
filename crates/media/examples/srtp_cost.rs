//! What a 20 ms packet of G.711 costs to protect and to open, in microseconds of the best of many rounds:
//! `cargo run --release -p media --example srtp_cost`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use media::srtp::{MAX_LIFETIME, MasterKey, Receiver, Sender, Suite};

const ROUNDS: u16 = 500;
const PACKETS: u16 = 100;

fn main() {
    for suite in Suite::ALL {
        let key = MasterKey::random(suite, |bytes| bytes.fill(7));
        let mut sender = Sender::new(&key);
        let mut receiver = Receiver::new(&key, MAX_LIFETIME);
        let mut packets = vec![Vec::with_capacity(256); usize::from(PACKETS)];
        let mut plain = Vec::with_capacity(256);
        let (mut protecting, mut opening) = (Duration::MAX, Duration::MAX);
        for round in 0..ROUNDS {
            for (packet, n) in packets.iter_mut().zip(0..) {
                packet.clear();
                packet.resize(172, 7);
                packet[0] = 0x80;
                packet[2..4].copy_from_slice(&(round * PACKETS + n).to_be_bytes());
            }
            let begun = Instant::now();
            for packet in &mut packets {
                sender.protect(packet, 0).unwrap();
            }
            protecting = protecting.min(begun.elapsed());
            let begun = Instant::now();
            for packet in &packets {
                receiver.unprotect(packet, &mut plain).unwrap();
            }
            opening = opening.min(begun.elapsed());
        }
        let each = |total: Duration| total.as_secs_f64() * 1e6 / f64::from(PACKETS);
        println!("{:24} protect {:.3} µs, open {:.3} µs", suite.name(), each(protecting), each(opening));
    }
}
