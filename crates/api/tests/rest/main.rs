//! The HTTP surface, driven in process over a real store and an edge that applies changes.

mod agents;
mod conventions;
mod conversations;
mod credentials;
mod description;
mod phone_numbers;
mod support;
mod transport;
mod trunks;
