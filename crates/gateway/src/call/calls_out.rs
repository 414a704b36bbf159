//! A call out of the edge's own, for a bot's transfer or a `dial` agent: it is counted as one of the organization's today
//! before anybody is called.

use std::time::Instant;

use model::{E164, RuleResult, TransferMode};
use signaling::StatusCode;

use super::Call;
use super::transfer::Stage;
use crate::calls::CallInput;

/// Whether one of the organization's calls of the day is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Already,
    NotYet,
}

impl Call {
    /// Has the call counted as one of the organization's today. The answer comes as [`CallInput::Admitted`].
    pub(super) fn admit(&mut self, to: E164) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        transfer.stage = Stage::Admitting;
        self.second_legs += 1;
        let (cluster, mailbox, number) = (self.edge.cluster.clone(), self.mailbox.clone(), self.second_legs);
        let organization = self.conversation.organization_id;
        tokio::spawn(async move {
            let answer = cluster.admit_call_out(organization, to).await;
            // A call that is gone places none.
            let _ = mailbox.send(CallInput::Admitted(number, answer)).await;
        });
    }

    /// Whether the call out of this number may be placed.
    pub(super) fn on_admitted(&mut self, number: u32, answer: Result<(), String>, now: Instant) {
        let current = number == self.second_legs;
        let transfer = self.transfer.as_deref_mut();
        let Some(transfer) = transfer.filter(|t| current && t.stage == Stage::Admitting) else { return };
        match answer {
            Ok(()) => self.set_out(now),
            Err(sentence) => {
                let detail = sentence.trim_end_matches('.').to_owned();
                transfer.step("calls_out", RuleResult::Fail, detail);
                self.transfer_failed(StatusCode(403), now);
            }
        }
    }

    /// Asks the peer to call the target, or calls it.
    pub(super) fn set_out(&mut self, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        transfer.until = Some(now + transfer.timeout);
        if matches!(transfer.mode, TransferMode::Auto | TransferMode::Refer) {
            transfer.stage = Stage::Referring { accepted: false };
            self.send_refer(now);
        } else {
            self.bridge(now);
        }
    }
}
