//! A client of this API, as the commands of `cli` use it.

use std::time::Duration;

use model::{OrganizationId, Secret};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

/// How long a connection, and each part of an answer, may take.
const TIMEOUT: Duration = Duration::from_secs(40);

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
    /// The address is no `http://` or `https://` URL.
    #[error("{0} is not an http:// or https:// address")]
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
        let sound = reqwest::Url::parse(&base)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !sound {
            return Err(ClientError::Address(base));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
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

    /// A stream of server-sent events.
    pub async fn events(&self, path: &str) -> Result<Events, ClientError> {
        let request = self.request(Method::GET, path).header("accept", "text/event-stream");
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        if !response.status().is_success() {
            let status = response.status();
            let body = self.body(response).await?;
            return Err(self.refused(status, body));
        }
        Ok(Events { client: self.clone(), response, read: Vec::new() })
    }

    /// A file, handed to `sink` piece by piece. Returns its length.
    pub async fn download<E: From<ClientError>>(
        &self,
        path: &str,
        accept: &str,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let request = self.request(Method::GET, path).header("accept", accept);
        let mut response = request.send().await.map_err(|error| self.unreachable(error))?;
        if !response.status().is_success() {
            let status = response.status();
            let body = self.body(response).await?;
            return Err(self.refused(status, body).into());
        }
        let mut length = 0;
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            length += chunk.len() as u64;
            sink(&chunk)?;
        }
        Ok(length)
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
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let next_cursor =
            response.headers().get("x-next-cursor").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = self.body(response).await?;
        if status.is_success() {
            let body = body.ok_or_else(|| ClientError::Foreign(self.base.clone()))?;
            return Ok(Answer { body, next_cursor });
        }
        Err(self.refused(status, body))
    }

    /// The body as JSON: `None` when it is none, `Null` when it is empty.
    async fn body(&self, mut response: Response) -> Result<Option<Value>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(ClientError::Foreign(self.base.clone()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body = if bytes.is_empty() { Some(Value::Null) } else { serde_json::from_slice(&bytes).ok() };
        Ok(body)
    }

    fn refused(&self, status: StatusCode, body: Option<Value>) -> ClientError {
        let body = body.unwrap_or(Value::Null);
        let detail = match body.get("detail").and_then(Value::as_str) {
            Some(detail) => detail.to_owned(),
            None => format!("{} answered {status}.", self.base),
        };
        let errors = body.get("errors").cloned().unwrap_or(Value::Null);
        ClientError::Refused { status: status.as_u16(), detail, errors }
    }

    fn unreachable(&self, error: reqwest::Error) -> ClientError {
        // The outermost message only names the URL; the innermost says what happened.
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        ClientError::Unreachable { base: self.base.clone(), cause: cause.to_string() }
    }
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its data; `Null` when it is no JSON.
    pub data: Value,
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct Events {
    client: Client,
    response: Response,
    read: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(end) = self.read.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.read.drain(..end + 2).collect();
                if let Some(event) = event(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(event));
                }
            }
            if self.read.len() > MAX_ANSWER {
                return Err(ClientError::Foreign(self.client.base.clone()));
            }
            match self.response.chunk().await.map_err(|error| self.client.unreachable(error))? {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// A block of lines; `None` for a comment that only keeps the stream open.
fn event(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let values = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let values: Vec<&str> = values.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect();
        (!values.is_empty()).then(|| values.join("\n"))
    };
    let name = field("event")?;
    let data = field("data").and_then(|data| serde_json::from_str(&data).ok()).unwrap_or(Value::Null);
    Some(Event { name, data })
}

fn with_body(request: RequestBuilder, body: Option<&Value>) -> RequestBuilder {
    match body {
        Some(body) => request.json(body),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_and_a_comment_passed_over() {
        assert_eq!(event(":\n\n"), None);
        let read = event("event: conversation.updated\nid: 1\ndata: {\"a\":1}\n\n").unwrap();
        assert_eq!((read.name.as_str(), &read.data["a"]), ("conversation.updated", &Value::from(1)));
    }
}
