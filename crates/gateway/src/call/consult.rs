//! While the target of a transfer is on the line and the agent has not left: it briefs the target, the caller hears
//! music (a warm transfer), or all three hear each other (a conference). The agent, or the API for it, then hands the
//! caller over or takes them back.

use std::sync::Arc;
use std::time::Instant;

use cluster::CallError;
use media::conference;
use media::session::{Agent, Player};
use model::{Conversation, RuleResult, TransferMode, TransferStep};
use signaling::StatusCode;

use super::Call;
use super::transfer::Stage;
use crate::agent_link::{ToAgent, Together};
use crate::sip_status::OurReason;

impl Call {
    /// The caller waits.
    pub(super) fn play_music(&self) {
        if let Some(leg) = &self.leg {
            leg.set_agent(Agent::Play(self.music.clone().unwrap_or_else(Player::music)));
        }
    }

    /// The target has answered.
    pub(super) fn target_answered(&mut self) {
        let Some(transfer) = self.transfer.as_deref_mut().filter(|t| t.stage == Stage::Dialling) else {
            return;
        };
        // An agent that has left meanwhile briefs nobody.
        if !transfer.mode.keeps_agent() || self.agent_left.is_some() {
            return self.join();
        }
        transfer.until = None;
        transfer.step("second_leg", RuleResult::Pass, format!("{} answered", transfer.to));
        if transfer.mode == TransferMode::Conference {
            transfer.stage = Stage::Conference;
            if let (Some(leg), Some(near)) = (&self.leg, transfer.near.take()) {
                leg.set_agent(Agent::Linked(near));
            }
            self.tell_together(Together::Conference);
        } else {
            transfer.stage = Stage::Briefing;
            self.tell_together(Together::Briefing);
        }
    }

    fn tell_together(&mut self, with: Together) {
        let Some(transfer) = &self.transfer else { return };
        let (to, id) = (transfer.to.clone(), self.asked_transfer.clone().flatten());
        self.note(match with {
            Together::Briefing => format!("transfer: {to} answered and speaks with the agent"),
            Together::Conference => format!("transfer: {to}, the caller and the agent speak with each other"),
        });
        self.tell_agent(ToAgent::Together { id, to, with });
    }

    /// Whether a step may be taken now.
    pub(super) fn may_step(&self, step: TransferStep) -> Result<(), CallError> {
        let transfer = self.transfer.as_deref().filter(|t| t.mode.keeps_agent());
        let possible = transfer.is_some_and(|transfer| match step {
            TransferStep::Complete => transfer.consults(),
            TransferStep::Conference => transfer.stage == Stage::Briefing,
            TransferStep::Cancel => {
                transfer.consults() || matches!(transfer.stage, Stage::Admitting | Stage::Dialling)
            }
        });
        if possible { Ok(()) } else { Err(CallError::NoTarget) }
    }

    /// The agent, or the API for it, has made up its mind.
    pub(super) fn transfer_step(
        &mut self,
        step: TransferStep,
        now: Instant,
    ) -> Result<Conversation, CallError> {
        self.may_step(step)?;
        match step {
            TransferStep::Complete => self.join(),
            TransferStep::Cancel => {
                if let Some(transfer) = self.transfer.as_deref_mut() {
                    transfer.step("cancel", RuleResult::Fail, "it was cancelled".to_owned());
                }
                self.transfer_failed(StatusCode(487), now);
            }
            TransferStep::Conference => self.confer(),
        }
        Ok(self.conversation.clone())
    }

    /// From a briefing to a conference.
    fn confer(&mut self) {
        let (Some(transfer), Some(link), Some(leg)) = (self.transfer.as_deref_mut(), &self.link, &self.leg)
        else {
            return;
        };
        let (caller, guest) = conference::places(Arc::clone(&link.audio));
        transfer.plug(guest);
        leg.set_agent(Agent::Linked(caller));
        transfer.stage = Stage::Conference;
        self.tell_together(Together::Conference);
    }

    /// The target hung up while the agent was there.
    pub(super) fn target_left(&mut self, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        if transfer.stage == Stage::Briefing {
            transfer.step("briefing", RuleResult::Fail, "the target hung up".to_owned());
            return self.transfer_failed(StatusCode(603), now);
        }
        let detail = format!("{} left the conference", transfer.to);
        transfer.step("conference", RuleResult::Pass, detail.clone());
        self.decide_transfer(StatusCode(200), "conference_over", "Nothing is to be changed.");
        self.note(format!("transfer: {detail}"));
        self.tell_transfer(Ok(Some(detail)));
        self.back_to_agent(now);
    }

    /// The transfer is over and the caller the agent's again, if that is still there.
    pub(super) fn back_to_agent(&mut self, now: Instant) {
        let Some(transfer) = self.transfer.take() else { return };
        if transfer.mode.keeps_agent()
            && let (Some(leg), Some(link)) = (&self.leg, &self.link)
        {
            leg.set_agent(Agent::Linked(Arc::clone(&link.audio) as _));
        }
        match self.agent_left.take() {
            None => {}
            Some(Ok(())) => self.end(OurReason::Agent, now),
            Some(Err(why)) => self.agent_gone(&why, now),
        }
    }
}
