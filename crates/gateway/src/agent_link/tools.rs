//! Function calls of a model, posted to the customer's webhook (Standard Webhooks).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{OpenaiRealtime, Secret};
use serde_json::{Value, json};

use super::CallFacts;
use crate::edge::Edge;

/// How long a function may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Where function calls go.
pub(super) struct Tools {
    url: String,
    secret: Secret,
    call: CallFacts,
}

impl Tools {
    pub(super) fn of(config: &OpenaiRealtime, call: &CallFacts) -> Option<Self> {
        let url = config.tools_url.clone()?;
        let secret = match (&config.tools_secret, &config.api_key) {
            (Some(secret), _) => secret.clone(),
            // The scheme signs with Base64's bytes, and an API key is none.
            (None, Some(key)) => Secret::new(format!("whsec_{}", STANDARD.encode(key.expose()))),
            (None, None) => return None,
        };
        Some(Self { url, secret, call: call.clone() })
    }

    /// Posts one call; the answer's body is what the model is told.
    pub(super) fn call(
        &self,
        edge: Arc<Edge>,
        id: String,
        name: String,
        arguments: String,
    ) -> impl Future<Output = Result<String, String>> + Send + 'static {
        let arguments = serde_json::from_str::<Value>(&arguments).unwrap_or(Value::String(arguments));
        let body = json!({
            "type": "tool_call", "conversation_id": self.call.conversation_id, "direction": self.call.direction,
            "from": self.call.from, "to": self.call.to, "call_id": id, "name": name, "arguments": arguments,
        });
        let (url, secret) = (self.url.clone(), self.secret.clone());
        async move {
            let answer = edge.webhooks.post(&url, &secret, body.to_string().into_bytes(), LIMIT).await?;
            String::from_utf8(answer).map_err(|_| "the webhook's answer is not text".to_owned())
        }
    }
}
