//! A client of this API, as the commands of `cli` use it.

use std::time::Duration;

use model::{OrganizationId, Secret};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// One credential at one address.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Secret,
    organization: Option<OrganizationId>,
}

/// An answer that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The body; `Null` when there is none.
    pub body: Value,
    /// Cursor of the next page, when the answer is a list that goes on.
    pub next_cursor: Option<String>,
}

/// Why there is no answer, or not a good one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is no `http://` URL.
    #[error("{0} is not an http:// address")]
    Address(String),
    /// Nobody answered.
    #[error("no answer from {base}: {cause}")]
    Unreachable {
        /// Who was asked.
        base: String,
        /// What went wrong, without the request's contents.
        cause: String,
    },
    /// An answer that says no.
    #[error("{detail}")]
    Refused {
        /// The status.
        status: u16,
        /// The sentence of the answer.
        detail: String,
        /// The fields at fault, when the status is 422.
        errors: Value,
    },
    /// An answer that is not this API's.
    #[error("the answer from {0} is not of this API")]
    Foreign(String),
}

impl ClientError {
    /// The status of an answer that says no.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        if let Self::Refused { status, .. } = self { Some(*status) } else { None }
    }
}

impl Client {
    /// A client for `base`, for example `http://127.0.0.1:8080`.
    pub fn new(base: &str, key: Secret) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let sound = reqwest::Url::parse(&base).is_ok_and(|url| url.scheme() == "http" && url.has_host());
        if !sound {
            return Err(ClientError::Address(base));
        }
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::Unreachable { base: base.clone(), cause: error.to_string() })?;
        Ok(Self { http, base, key, organization: None })
    }

    /// Names the organization, which a personal access token needs.
    #[must_use]
    pub fn in_organization(mut self, organization: OrganizationId) -> Self {
        self.organization = Some(organization);
        self
    }

    /// `GET`. Values of `query` are encoded here.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, ClientError> {
        self.send(self.request(Method::GET, path).query(query)).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        self.send(with_body(self.request(Method::POST, path), body)).await
    }

    /// `PUT`.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// `PATCH`.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Answer, ClientError> {
        self.send(self.request(Method::DELETE, path)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request =
            self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.key.expose());
        match self.organization {
            Some(organization) => request.header("X-Anyreach-Org", organization.to_string()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let unreachable = |error: reqwest::Error| {
            // The outermost message only names the URL; the innermost says what happened.
            let error = error.without_url();
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            ClientError::Unreachable { base: self.base.clone(), cause: cause.to_string() }
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let next_cursor =
            response.headers().get("x-next-cursor").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(ClientError::Foreign(self.base.clone()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body = if bytes.is_empty() { Some(Value::Null) } else { serde_json::from_slice(&bytes).ok() };
        if status.is_success() {
            let body = body.ok_or_else(|| ClientError::Foreign(self.base.clone()))?;
            return Ok(Answer { body, next_cursor });
        }
        let body = body.unwrap_or(Value::Null);
        let detail = match body.get("detail").and_then(Value::as_str) {
            Some(detail) => detail.to_owned(),
            None => format!("{} answered {status}.", self.base),
        };
        let errors = body.get("errors").cloned().unwrap_or(Value::Null);
        Err(ClientError::Refused { status: status.as_u16(), detail, errors })
    }
}

fn with_body(request: RequestBuilder, body: Option<&Value>) -> RequestBuilder {
    match body {
        Some(body) => request.json(body),
        None => request,
    }
}
