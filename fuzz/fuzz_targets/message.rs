//! Any bytes as a datagram and as a stream: no panic, and what is answered can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/signaling/tests/any_bytes.rs"]
mod any_bytes;

fuzz_target!(|bytes: &[u8]| any_bytes::run(bytes));
