//! Inbound routing: who answers an organization's numbers, by its own rules or by its webhook.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AgentId, Invalid, OrganizationId, Secret, Timestamp, TrunkId};

/// Most rules of one definition.
pub const MAX_RULES: usize = 500;
/// Bounds of the time a decision may take, in milliseconds.
pub const TIMEOUT_MS: std::ops::RangeInclusive<u32> = 100..=30_000;
/// The time a decision may take when nothing else is said, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u32 = 5_000;

/// An organization's routing.
#[derive(Debug, Clone, PartialEq)]
pub struct InboundRouting {
    /// Owner.
    pub organization_id: OrganizationId,
    /// Whether it decides; otherwise the number's slot does.
    pub enabled: bool,
    /// How it decides.
    pub workflow: Workflow,
    /// What the webhook's requests are signed with; `None` for rules, and where it stays sealed.
    pub webhook_secret: Option<Secret>,
    /// Who answers when the decision fails or is late.
    pub fallback_agent_id: Option<AgentId>,
    /// How long the decision may take, in milliseconds.
    pub timeout_ms: u32,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// How a routing decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Workflow {
    /// The first rule that matches gives the output; none gives an empty one.
    Rules {
        /// In order.
        rules: Vec<Rule>,
    },
    /// A signed POST whose answer is the output.
    Webhook {
        /// `https://` or `http://`.
        url: String,
    },
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it applies; every condition given must hold.
    #[serde(default, rename = "match")]
    pub condition: Condition,
    /// What then.
    #[serde(default)]
    pub output: Output,
}

/// When a rule applies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Beginning of the caller's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_prefix: Option<String>,
    /// Beginning of the dialled number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called_prefix: Option<String>,
    /// The trunk the call came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk_id: Option<TrunkId>,
    /// Days of the week in the time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekdays: Option<Vec<Weekday>>,
    /// Hours of the day in the time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// IANA name; UTC when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A span of the day, `HH:MM` each; `from` belongs to it, `to` does not. One that ends before it begins goes over
/// midnight, and then counts by the day it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// Beginning.
    pub from: String,
    /// End; `24:00` is midnight.
    pub to: String,
}

/// What a decision says. Every field may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Refuse the call with 603.
    #[serde(default)]
    pub reject: bool,
    /// Who answers; the number's slot when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// A version of that agent; the latest published when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Handed to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_context: Option<Map<String, Value>>,
    /// Kept with the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Map<String, Value>>,
}

impl Output {
    /// Reads what a webhook answered. Fields that are not ours are the webhook's own business.
    pub fn from_webhook(answer: &[u8]) -> Result<Self, String> {
        if answer.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let mut fields: Map<String, Value> =
            serde_json::from_slice(answer).map_err(|_| "the answer is not a JSON object".to_owned())?;
        fields.retain(|name, value| OUTPUT_FIELDS.contains(&name.as_str()) && !value.is_null());
        let output: Self = serde_json::from_value(Value::Object(fields))
            .map_err(|e| format!("the answer cannot be used: {e}"))?;
        output.check().map_err(|e| format!("the answer cannot be used: {e}"))?;
        Ok(output)
    }
}

/// The fields of [`Output`].
const OUTPUT_FIELDS: [&str; 5] = ["reject", "agent_id", "version", "initial_context", "custom_metadata"];

/// What a decision is made from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Input {
    /// Caller as E.164, or as received when it is no number.
    pub caller_number: String,
    /// The dialled number as E.164.
    pub called_number: String,
    /// The trunk the call came by.
    pub trunk_id: TrunkId,
    /// Whose number it is.
    pub organization_id: OrganizationId,
    /// When the call came.
    pub timestamp: Timestamp,
}

/// The first rule that matches, and its place; `None` when none does.
#[must_use]
pub fn first_match<'a>(rules: &'a [Rule], input: &Input) -> Option<(usize, &'a Output)> {
    let at = rules.iter().position(|rule| rule.condition.holds(input))?;
    rules.get(at).map(|rule| (at, &rule.output))
}

impl Condition {
    fn holds(&self, input: &Input) -> bool {
        let begins = |prefix: &Option<String>, number: &str| {
            prefix.as_ref().is_none_or(|prefix| number.starts_with(prefix.as_str()))
        };
        begins(&self.caller_prefix, &input.caller_number)
            && begins(&self.called_prefix, &input.called_number)
            && self.trunk_id.is_none_or(|trunk| trunk == input.trunk_id)
            && self.time_holds(input.timestamp)
    }

    fn time_holds(&self, at: Timestamp) -> bool {
        if self.weekdays.is_none() && self.hours.is_none() {
            return true;
        }
        // The zone was checked when the rule was written; one that a later release no longer knows never matches.
        let Some(zone) = zone(self.time_zone.as_deref().unwrap_or("UTC")) else { return false };
        let Ok(instant) = jiff::Timestamp::from_microsecond(at.0) else { return false };
        let local = jiff::ZonedDateTime::new(instant, zone);
        let today = match local.weekday() {
            jiff::civil::Weekday::Monday => Weekday::Mon,
            jiff::civil::Weekday::Tuesday => Weekday::Tue,
            jiff::civil::Weekday::Wednesday => Weekday::Wed,
            jiff::civil::Weekday::Thursday => Weekday::Thu,
            jiff::civil::Weekday::Friday => Weekday::Fri,
            jiff::civil::Weekday::Saturday => Weekday::Sat,
            jiff::civil::Weekday::Sunday => Weekday::Sun,
        };
        let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
        self.weekdays.as_ref().is_none_or(|days| days.contains(&today))
            && self.hours.as_ref().is_none_or(|hours| hours.contain(minute))
    }

    fn check(&self) -> Result<(), Invalid> {
        for (field, prefix) in
            [("caller_prefix", &self.caller_prefix), ("called_prefix", &self.called_prefix)]
        {
            if let Some(prefix) = prefix {
                prefix
                    .parse::<crate::organization::DestinationPrefix>()
                    .map_err(|rule| Invalid::field(field, rule))?;
            }
        }
        if self.weekdays.as_ref().is_some_and(|days| days.is_empty() || days.len() > 7) {
            return Err(Invalid::field("weekdays", "must name 1 to 7 days"));
        }
        if let Some(hours) = &self.hours {
            hours.check().map_err(|e| e.within("hours"))?;
        }
        match &self.time_zone {
            Some(name) if zone(name).is_none() => {
                Err(Invalid::field("time_zone", "must be an IANA time zone, for example Europe/Berlin"))
            }
            _ => Ok(()),
        }
    }
}

fn zone(name: &str) -> Option<jiff::tz::TimeZone> {
    jiff::tz::TimeZone::get(name).ok()
}

/// Minutes since midnight of `HH:MM`.
fn minutes(text: &str) -> Option<i32> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= 24 * 60).then_some(hours * 60 + minutes)
}

impl Hours {
    fn contain(&self, minute: i32) -> bool {
        let (Some(from), Some(to)) = (minutes(&self.from), minutes(&self.to)) else { return false };
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }

    fn check(&self) -> Result<(), Invalid> {
        for (field, text) in [("from", &self.from), ("to", &self.to)] {
            if minutes(text).is_none() {
                return Err(Invalid::field(field, "must be a time of day as HH:MM, for example 09:00"));
            }
        }
        if self.from == self.to {
            return Err(Invalid::field("to", "must differ from from"));
        }
        Ok(())
    }
}

impl Workflow {
    /// Checks every value; paths are relative to the definition.
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Rules { rules } => {
                if rules.len() > MAX_RULES {
                    return Err(Invalid::field("rules", format!("must have at most {MAX_RULES} entries")));
                }
                for (at, rule) in rules.iter().enumerate() {
                    let within = |e: Invalid| e.within(at.to_string()).within("rules");
                    rule.condition.check().map_err(|e| within(e.within("match")))?;
                    rule.output.check().map_err(|e| within(e.within("output")))?;
                }
                Ok(())
            }
            Self::Webhook { url } => {
                crate::webhook::check_url(url).map_err(|rule| Invalid::field("url", rule))
            }
        }
    }
}

impl Output {
    fn check(&self) -> Result<(), Invalid> {
        if self.version.is_some_and(|version| version < 1) {
            return Err(Invalid::field("version", "must be 1 or more"));
        }
        if self.version.is_some() && self.agent_id.is_none() {
            return Err(Invalid::field("version", "needs agent_id"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(caller: &str, at: &str) -> Input {
        Input {
            caller_number: caller.to_owned(),
            called_number: "+14155550100".to_owned(),
            trunk_id: TrunkId::new(),
            organization_id: OrganizationId::new(),
            timestamp: at.parse().unwrap(),
        }
    }

    fn rule(condition: &str) -> Rule {
        serde_json::from_str(&format!(r#"{{"match":{condition},"output":{{"reject":true}}}}"#)).unwrap()
    }

    fn holds(condition: &str, caller: &str, at: &str) -> bool {
        let rules = [rule(condition)];
        Workflow::Rules { rules: rules.to_vec() }.check().unwrap();
        first_match(&rules, &input(caller, at)).is_some()
    }

    const MONDAY_NOON: &str = "2026-11-23T12:00:00Z";

    #[test]
    fn every_condition_given_must_hold() {
        assert!(holds("{}", "anonymous", MONDAY_NOON));
        assert!(holds(r#"{"caller_prefix":"+49"}"#, "+4930123", MONDAY_NOON));
        assert!(!holds(r#"{"caller_prefix":"+49"}"#, "+4330123", MONDAY_NOON));
        assert!(!holds(r#"{"caller_prefix":"+49","called_prefix":"+44"}"#, "+4930123", MONDAY_NOON));
        assert!(!holds(r#"{"trunk_id":"01960000-0000-7000-8000-000000000000"}"#, "+1", MONDAY_NOON));
    }

    #[test]
    fn hours_and_days_are_those_of_the_zone() {
        let open =
            r#"{"weekdays":["mon"],"hours":{"from":"09:00","to":"17:00"},"time_zone":"Europe/Berlin"}"#;
        assert!(holds(open, "+1", "2026-11-23T08:00:00Z"));
        assert!(!holds(open, "+1", "2026-11-23T07:59:59Z"));
        assert!(holds(open, "+1", "2026-11-23T15:59:59Z"));
        assert!(!holds(open, "+1", "2026-11-23T16:00:00Z"));
        // Summer time: the same wall-clock hour is another UTC hour.
        assert!(holds(open, "+1", "2026-07-20T07:30:00Z"));
        let night = r#"{"hours":{"from":"22:00","to":"06:00"}}"#;
        assert!(holds(night, "+1", "2026-11-23T23:00:00Z") && holds(night, "+1", "2026-11-23T05:59:00Z"));
        assert!(!holds(night, "+1", MONDAY_NOON));
    }

    #[test]
    fn wrong_definitions_are_named() {
        let wrong = |condition: &str, path: &str| {
            let error = Workflow::Rules { rules: vec![rule(condition)] }.check().unwrap_err();
            assert_eq!(error.path.join("."), format!("rules.0.match.{path}"));
        };
        wrong(r#"{"caller_prefix":"49"}"#, "caller_prefix");
        wrong(r#"{"time_zone":"Mars/Olympus"}"#, "time_zone");
        wrong(r#"{"hours":{"from":"9","to":"17:00"}}"#, "hours.from");
        wrong(r#"{"weekdays":[]}"#, "weekdays");
        for url in ["ftp://x", "http://", "http://u@h/", "https://h/#f", "https://h /"] {
            assert!(Workflow::Webhook { url: url.to_owned() }.check().is_err(), "{url}");
        }
        assert!(Workflow::Webhook { url: "http://127.0.0.1:9/x?y".to_owned() }.check().is_ok());
    }
}
