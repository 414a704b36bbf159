//! Any bytes as a session description, offered and answered, and as packets of a call: no panic, and what is answered is
//! a description.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/media/tests/any_bytes.rs"]
mod any_bytes;

fuzz_target!(|bytes: &[u8]| any_bytes::run(bytes));
