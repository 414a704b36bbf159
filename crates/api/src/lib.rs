//! The control plane's HTTP surface: routes, wire types, credentials, the OpenAPI description and a typed client.
//! See `docs/api-design.md`.

mod admin;
pub mod auth;
pub mod client;
mod core;
mod docs;
pub mod error;
mod etag;
mod extract;
mod hang_up;
pub mod health;
mod idempotency;
mod listen;
mod pagination;
mod pcap;
mod rate_limit;
mod request_id;
mod router;
mod routes;
mod serve;
mod twiml;
mod wire;

pub use crate::core::organization::{MAX_DAILY_CALLS, destinations};
pub use crate::core::{event_json, key_json, organization_json, trunk_json};
pub use extract::{BODY_TIMEOUT, MAX_BODY};
pub use health::{Check, Health};
pub use router::{ApiState, metrics_router, openapi, router};
pub use serve::{HEAD_TIMEOUT, MAX_CONNECTIONS, serve};
