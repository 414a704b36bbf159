//! Asterisk's AudioSocket: frames of a kind, a length in two bytes and a payload on a TCP stream. As client it is a
//! dialect of `agent_link`; as server (`server.rs`, `call.rs`) an Asterisk reaches our agents by it.

mod call;
mod frames;
pub(crate) mod server;

pub(crate) use frames::{Frames, Unread, frame, keep_alive, kind_of};

/// The call is over; without payload.
pub(crate) const HANG_UP: u8 = 0x00;
/// The first frame of whoever connects: 16 bytes.
pub(crate) const CALL_ID: u8 = 0x01;
/// One digit, in ASCII.
pub(crate) const DIGIT: u8 = 0x03;
/// Something went wrong; a code, or nothing.
pub(crate) const ERROR: u8 = 0xff;
