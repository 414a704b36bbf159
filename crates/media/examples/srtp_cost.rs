//! What a 20 ms packet of G.711 costs to protect and to open, in microseconds: `cargo run --release -p media --example
//! srtp_cost`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use media::srtp::{MAX_LIFETIME, MasterKey, Receiver, Sender, Suite};

const PACKETS: u32 = 200_000;

fn main() {
    for suite in Suite::ALL {
        let key = MasterKey::random(suite, |bytes| bytes.fill(7));
        let mut sender = Sender::new(&key);
        let mut receiver = Receiver::new(&key, MAX_LIFETIME);
        let mut packet = vec![0; 172];
        packet[0] = 0x80;
        let (mut srtp, mut plain) = (Vec::with_capacity(256), Vec::with_capacity(256));
        let (mut protecting, mut opening) = (0, 0);
        for n in 0..PACKETS {
            packet[2..4].copy_from_slice(&n.to_be_bytes()[2..]);
            srtp.clear();
            srtp.extend_from_slice(&packet);
            let begun = Instant::now();
            sender.protect(&mut srtp, 0).unwrap();
            let between = Instant::now();
            receiver.unprotect(&srtp, &mut plain).unwrap();
            protecting += (between - begun).as_nanos();
            opening += between.elapsed().as_nanos();
        }
        let each = |total: u128| total as f64 / f64::from(PACKETS) / 1_000.0;
        println!("{:24} protect {:.3} µs, open {:.3} µs", suite.name(), each(protecting), each(opening));
    }
}
