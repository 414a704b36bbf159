//! Calls out that the edge places by itself, for a bot's transfer or a `dial` agent: whether the organization may place
//! one more is asked of the control plane, which counts it.

use std::time::Duration;

use model::{E164, OrganizationId};
use tokio::sync::{mpsc, oneshot};

use crate::Cluster;

/// Questions that may wait.
const WAITING: usize = 1_024;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks to place one call out. The answer is a sentence when it may not be placed.
#[derive(Debug)]
pub struct CallOut {
    /// Whose call.
    pub organization: OrganizationId,
    /// Whom it is to.
    pub to: E164,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// The control plane's end of the questions.
pub struct CallsOut(mpsc::Receiver<CallOut>);

impl CallsOut {
    /// The next question; `None` when nobody is left to ask.
    pub async fn recv(&mut self) -> Option<CallOut> {
        self.0.recv().await
    }
}

pub(crate) fn channel() -> (mpsc::Sender<CallOut>, CallsOut) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, CallsOut(receiver))
}

impl Cluster {
    /// Takes one of the organization's calls of the day for a call to this number.
    ///
    /// # Errors
    /// Why it may not be placed, in one sentence.
    pub async fn admit_call_out(&self, organization: OrganizationId, to: E164) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let asked = CallOut { organization, to, reply };
        let not_known = || "Whether the organization may place this call could not be asked.".to_owned();
        self.inner.calls_out.try_send(asked).map_err(|_| not_known())?;
        match tokio::time::timeout(LIMIT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(not_known()),
        }
    }
}
