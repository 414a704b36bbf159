//! Signed POSTs to customers' URLs (Standard Webhooks), which reach no address that `net.private_targets` refuses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{PrivateTargets, Secret, Timestamp};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response, Url, redirect};

use crate::edge::USER_AGENT;

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Longest a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);
/// Idle connections kept to a host.
const MAX_IDLE: usize = 8;
/// Beginning of a secret as it is written.
const SECRET_PREFIX: &str = "whsec_";

/// The client of all webhooks.
pub struct Webhooks {
    client: Result<Client, String>,
    targets: PrivateTargets,
}

impl Webhooks {
    /// A client that reaches no address these targets refuse.
    #[must_use]
    pub fn new(targets: PrivateTargets) -> Self {
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(MAX_IDLE)
            .dns_resolver(Arc::new(Guarded(targets.clone())))
            .build()
            .map_err(|error| format!("the HTTP client cannot be made: {}", chain(&error)));
        Self { client, targets }
    }

    /// Sends a body and returns the answer's. The error says what went wrong, in words, and holds nothing of the
    /// secret or the body.
    pub(crate) async fn post(
        &self,
        url: &str,
        secret: &Secret,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, String> {
        let exchange = async {
            let id = format!("msg_{}", uuid::Uuid::now_v7().simple());
            let response = self.send(url, std::slice::from_ref(secret), &id, body).await?;
            if !response.status().is_success() {
                return Err(format!("the webhook answered {}", response.status().as_u16()));
            }
            read(response).await
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(late(limit)))
    }

    /// Tells of an event under its own id, and returns the status of the answer. It is signed with each secret, so that
    /// a receiver that knows one of them takes it.
    pub async fn deliver(
        &self,
        url: &str,
        secrets: &[Secret],
        id: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<u16, String> {
        let exchange = async { Ok(self.send(url, secrets, id, body).await?.status().as_u16()) };
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(late(limit)))
    }

    async fn send(&self, url: &str, secrets: &[Secret], id: &str, body: Vec<u8>) -> Result<Response, String> {
        let client = self.client.as_ref().map_err(String::clone)?;
        let url = Url::parse(url).map_err(|error| format!("the webhook's URL cannot be read: {error}"))?;
        // A name goes through the resolver below; an address does not.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if let Ok(address) = host.parse::<IpAddr>() {
            self.targets
                .check(address)
                .map_err(|refused| format!("the webhook's address {address} {refused}"))?;
        }
        let timestamp = Timestamp::now().0.div_euclid(1_000_000);
        let signatures: Result<Vec<String>, String> =
            secrets.iter().map(|secret| sign(secret, id, timestamp, &body)).collect();
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures?.join(" "))
            .body(body);
        request.send().await.map_err(|error| format!("the webhook cannot be reached: {}", chain(&error)))
    }
}

fn late(limit: Duration) -> String {
    format!("the webhook did not answer within {} ms", limit.as_millis())
}

async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| format!("the webhook's answer broke off: {}", chain(&error)))?
    {
        if answer.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("the webhook's answer is larger than {MAX_ANSWER} bytes"));
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

/// The signature of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.
fn sign(secret: &Secret, id: &str, timestamp: i64, body: &[u8]) -> Result<String, String> {
    let key = secret.expose();
    let key = STANDARD
        .decode(key.strip_prefix(SECRET_PREFIX).unwrap_or(key))
        .map_err(|_| "the webhook's secret is not Base64".to_owned())?;
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
    Ok(format!("v1,{}", STANDARD.encode(tag.as_ref())))
}

/// An error with its causes, without the URL, which may hold a customer's token.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    causes.pop().unwrap_or_else(|| "the request failed".to_owned())
}

/// Resolves names, and lets through the addresses that a tenant may have us connect to.
struct Guarded(PrivateTargets);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in found {
                match targets.check(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(error) => refused = Some(format!("{} {error}", address.ip())),
                }
            }
            match (allowed.is_empty(), refused) {
                (true, Some(refused)) => Err(refused.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        // The specification's own example.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let body = br#"{"test": 2432232314}"#;
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed.as_deref(), Ok("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[tokio::test]
    async fn private_addresses_are_not_reached_where_they_are_denied() {
        let webhooks = Webhooks::new(PrivateTargets::Deny);
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        for url in
            ["http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/", "http://169.254.169.254/"]
        {
            let error = webhooks.post(url, &secret, Vec::new(), Duration::from_secs(5)).await.unwrap_err();
            assert!(error.contains("not allow") || error.contains("never allowed"), "{url}: {error}");
        }
    }
}
