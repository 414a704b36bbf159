//! The HTTP surface, driven in process over a real store and an edge that applies changes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod agents;
mod conventions;
mod conversations;
mod credentials;
mod description;
mod events;
mod idempotency;
mod inbound_routing;
mod keys;
mod limits;
mod phone_numbers;
mod preconditions;
mod support;
mod transport;
mod trunks;
mod webhooks;
