//! A token bucket for each credential.

use std::num::NonZeroU32;
use std::time::Duration;

use ahash::HashMap;
use parking_lot::Mutex;
use store::{Credential, CredentialKind};
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::ApiError;

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

    /// Takes one token of the credential's, or says how long to wait for it.
    pub(crate) fn admit(&self, credential: &Credential) -> Result<(), ApiError> {
        let id = match &credential.kind {
            CredentialKind::Key { id, .. } | CredentialKind::Token { id, .. } => id.0,
        };
        self.take(id, Instant::now())
    }

    fn take(&self, id: Uuid, now: Instant) -> Result<(), ApiError> {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&id) {
            // A bucket untouched for a second is full again, so nothing is lost with it.
            buckets.retain(|_, bucket| now.duration_since(bucket.at) < Duration::from_secs(1));
        }
        let bucket = buckets.entry(id).or_insert(Bucket { tokens: self.per_second, at: now });
        let refill = now.duration_since(bucket.at).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + refill).min(self.per_second);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            Ok(())
        } else {
            Err(ApiError::RateLimited(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_refills_and_is_its_owners_alone() {
        let limiter = RateLimiter::new(NonZeroU32::new(2).unwrap());
        let (mine, other) = (Uuid::now_v7(), Uuid::now_v7());
        let start = Instant::now();
        assert!(limiter.take(mine, start).is_ok());
        assert!(limiter.take(mine, start).is_ok());
        let Err(ApiError::RateLimited(wait)) = limiter.take(mine, start) else {
            panic!("the bucket has no end")
        };
        assert!(wait <= Duration::from_millis(500));
        assert!(limiter.take(other, start).is_ok());
        assert!(limiter.take(mine, start + wait).is_ok());
    }
}
