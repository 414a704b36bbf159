//! Our REFER (RFC 3515), followed to its end.

use std::time::{Duration, Instant};

use model::{RuleResult, TransferMode};
use signaling::{Referral, StatusCode};

use super::Call;
use super::transfer::Stage;
use crate::sip_status::OurReason;

/// How long a peer that took a REFER and reports nothing may take to hang up.
const UNFOLLOWED: Duration = Duration::from_secs(5);

/// Whether a target that gave this answer has been asked: it is not called twice.
fn was_asked(status: StatusCode) -> bool {
    matches!(status.0, 404 | 408 | 480 | 486 | 487 | 600 | 603 | 604)
}

impl Call {
    pub(super) fn send_refer(&mut self, now: Instant) {
        let Some(transfer) = &self.transfer else { return };
        let uri = transfer.destination.uri.clone();
        if !self.session.refer(&uri, now) {
            self.on_referral(Referral::Refused(StatusCode(491)), now);
        }
    }

    /// How our REFER fares.
    pub(super) fn on_referral(&mut self, referral: Referral, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        let Stage::Referring { accepted } = &mut transfer.stage else { return };
        match referral {
            Referral::Accepted { followed: true } | Referral::Progress(_) => *accepted = true,
            Referral::Accepted { followed: false } => {
                transfer.step("refer", RuleResult::Pass, "taken, without reports".to_owned());
                transfer.stage = Stage::Referred;
                transfer.until = Some(now + UNFOLLOWED);
                transfer.replaced();
            }
            Referral::Done(Some(status)) if status.is_success() => {
                transfer.step("refer", RuleResult::Pass, format!("the target answered {status}"));
                transfer.stage = Stage::Referred;
                transfer.until = None;
                transfer.replaced();
                self.end(OurReason::Transfer, now);
            }
            Referral::Refused(status) => {
                let detail = format!("the other side answered {status}");
                transfer.step("refer", RuleResult::Fail, detail);
                self.refer_failed(status, false, now);
            }
            Referral::Done(status) => {
                let status = status.unwrap_or(StatusCode(480));
                transfer.step("refer", RuleResult::Fail, format!("the target answered {status}"));
                self.refer_failed(status, was_asked(status), now);
            }
        }
    }

    /// A second call is the other way, unless the target has been asked already.
    pub(super) fn refer_failed(&mut self, status: StatusCode, asked: bool, now: Instant) {
        if self.may_join() {
            return self.join_partner(now);
        }
        let bridges = self
            .transfer
            .as_ref()
            .is_some_and(|t| t.mode == TransferMode::Auto && t.destination.trunk.is_some());
        if bridges && !asked {
            self.bridge(now);
        } else {
            self.transfer_failed(status, now);
        }
    }
}
