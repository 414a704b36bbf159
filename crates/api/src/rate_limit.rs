//! A token bucket for each credential.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::HashMap;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use store::Credential;
use tokio::time::Instant;
use uuid::Uuid;

/// Buckets kept; full ones are forgotten beyond it.
const MAX_BUCKETS: usize = 10_000;

/// Grants each credential a number of requests a second, in bursts of as many.
pub(crate) struct RateLimiter {
    per_second: f64,
    buckets: Mutex<HashMap<Uuid, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl RateLimiter {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self { per_second: f64::from(per_second.get()), buckets: Mutex::new(HashMap::default()) }
    }

    /// Takes one token of the credential's, when there is one.
    pub(crate) fn admit(&self, credential: &Credential) -> Quota {
        self.take(credential.id().0, Instant::now())
    }

    fn take(&self, id: Uuid, now: Instant) -> Quota {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&id) {
            // A bucket untouched for a second is full again, so nothing is lost with it.
            buckets.retain(|_, bucket| now.duration_since(bucket.at) < Duration::from_secs(1));
        }
        let bucket = buckets.entry(id).or_insert(Bucket { tokens: self.per_second, at: now });
        let refill = now.duration_since(bucket.at).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + refill).min(self.per_second);
        bucket.at = now;
        let wait = if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            None
        } else {
            Some(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second))
        };
        let full = (self.per_second - bucket.tokens) / self.per_second;
        Quota { limit: self.per_second, remaining: bucket.tokens.floor(), full: full.ceil(), wait }
    }
}

/// What a credential has left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    limit: f64,
    remaining: f64,
    /// Seconds until the bucket is full again.
    full: f64,
    /// How long to wait for the next token; `None` when one was granted.
    pub(crate) wait: Option<Duration>,
}

/// Where the caller's extractor leaves the quota for the answer's headers.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<OnceLock<Quota>>);

impl Told {
    pub(crate) fn set(&self, quota: Quota) {
        // One request has one caller; a second look at it would tell the same.
        let _ = self.0.set(quota);
    }
}

/// The middleware: `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` on every answer to a credential.
pub(crate) async fn announce(mut request: Request, next: Next) -> Response {
    let told = Told::default();
    request.extensions_mut().insert(told.clone());
    let mut response = next.run(request).await;
    if let Some(quota) = told.0.get() {
        for (name, value) in [
            ("ratelimit-limit", quota.limit),
            ("ratelimit-remaining", quota.remaining),
            ("ratelimit-reset", quota.full),
        ] {
            if let Ok(value) = HeaderValue::try_from(format!("{value:.0}")) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_refills_and_is_its_owners_alone() {
        let limiter = RateLimiter::new(NonZeroU32::new(2).unwrap());
        let (mine, other) = (Uuid::now_v7(), Uuid::now_v7());
        let start = Instant::now();
        assert!(limiter.take(mine, start).wait.is_none());
        assert!(limiter.take(mine, start).wait.is_none());
        let Some(wait) = limiter.take(mine, start).wait else { panic!("the bucket has no end") };
        assert!(wait <= Duration::from_millis(500));
        assert!(limiter.take(other, start).wait.is_none());
        assert!(limiter.take(mine, start + wait).wait.is_none());
    }
}
