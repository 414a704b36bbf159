//! What a call would get, judged by the rules a real one is judged by.

use std::sync::Arc;

use cluster::{Simulate, Simulated};
use model::{RuleResult, Step, Timestamp};

use crate::edge::Edge;
use crate::inbound::{self, Answer, Asked, Refused, Route};
use crate::inbound_auth::Authenticated;
use crate::inbound_routing::{self, Chosen};
use crate::listener;

/// Judges a call that might come. A routing webhook is asked for real.
pub(crate) async fn judge(edge: &Arc<Edge>, call: Simulate) -> Simulated {
    let Simulate { organization, trunk_id, source, from, to } = call;
    let directory = edge.directory.load();
    let asked = Asked {
        // A caller dials an address of ours; sip.domains speaks of names.
        host: edge.settings.domains.first().cloned().unwrap_or_default(),
        dialled: to.clone(),
        to,
        from,
        source,
        at: Timestamp::now(),
        only: Some(organization),
    };
    let verdict = inbound::decide(&directory, &edge.settings, asked, &|_, _| Authenticated::Assumed);
    let mut steps = verdict.steps;
    let (outcome, by) = match verdict.outcome {
        Err(refused) => (Err(refused), None),
        Ok(route) => {
            let by = route.trunk.as_ref().map(|trunk| trunk.id);
            (settle(edge, route, &mut steps).await, by)
        }
    };
    if let Some(other) = by.filter(|by| *by != trunk_id) {
        let detail = format!("the number is on trunk {other}, not on {trunk_id}");
        steps.push(Step { rule: "trunk".into(), result: RuleResult::Skip, detail });
    }
    match outcome {
        Ok(chosen) => Simulated {
            accepted: true,
            status: 200,
            agent_id: Some(chosen.version.agent_id),
            agent_version_id: Some(chosen.version.id),
            reason: "accepted".to_owned(),
            steps,
            advice: "Nothing to change: the agent would be asked to take the call.".to_owned(),
        },
        Err(refused) => Simulated {
            accepted: false,
            status: if refused.silent { 0 } else { refused.status },
            agent_id: None,
            agent_version_id: None,
            reason: refused.reason.to_owned(),
            steps,
            advice: refused.advice.to_owned(),
        },
    }
}

async fn settle(edge: &Arc<Edge>, route: Route, steps: &mut Vec<Step>) -> Result<Chosen, Refused> {
    if let Err((refused, step, _)) = listener::would_place(edge, route.trunk.as_deref()) {
        steps.push(step);
        return Err(refused);
    }
    match route.answer {
        Answer::Agent(chosen) => Ok(*chosen),
        Answer::Webhook(pending) => {
            let output = inbound_routing::by_webhook(&edge.webhooks, &pending).await;
            let directory = edge.directory.load();
            inbound_routing::choose(&directory, &pending.routing, output, pending.slot, steps)
        }
    }
}
