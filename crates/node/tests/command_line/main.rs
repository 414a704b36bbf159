//! The binary from outside: what it prints, with which status it ends, and what survives it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, in its helpers too")]

mod admin;
mod client;
mod serve;
mod settings;
mod support;
