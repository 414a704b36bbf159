//! The records of RFC 3263, their order, and what is kept of them.

use std::future::Future;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use hickory_resolver::proto::rr::RData;
use parking_lot::Mutex;
use signaling::Transport;

use super::RESOLVE_WITH_KEPT;

/// How long an answer is served after the name servers have stopped answering.
const KEEP: Duration = Duration::from_secs(3_600);
/// Names kept; forgotten all at once when full.
const MAX_KEPT: usize = 4_096;

/// A service of a domain (RFC 3403, RFC 3263 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Naptr {
    pub(super) order: u16,
    pub(super) preference: u16,
    pub(super) service: String,
    pub(super) replacement: String,
}

/// A host of a service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) host: String,
    pub(super) port: u16,
}

/// A record that leads to SRV: flag `s`.
pub(super) fn naptr(data: &RData) -> Option<Naptr> {
    let RData::NAPTR(record) = data else { return None };
    record.flags.eq_ignore_ascii_case(b"s").then(|| Naptr {
        order: record.order,
        preference: record.preference,
        service: String::from_utf8_lossy(&record.services).to_ascii_uppercase(),
        replacement: record.replacement.to_ascii(),
    })
}

pub(super) fn srv(data: &RData) -> Option<Srv> {
    let RData::SRV(record) = data else { return None };
    Some(Srv {
        priority: record.priority,
        weight: record.weight,
        host: record.target.to_ascii(),
        port: record.port,
    })
}

/// The services of a transport, the preferred first.
pub(super) fn of_transport(mut records: Vec<Naptr>, transport: Transport) -> Vec<String> {
    let wanted = match transport {
        Transport::Udp => "SIP+D2U",
        Transport::Tcp => "SIP+D2T",
        Transport::Tls => "SIPS+D2T",
    };
    records.retain(|record| record.service == wanted);
    records.sort_by_key(|record| (record.order, record.preference));
    records.into_iter().map(|record| record.replacement).collect()
}

/// By priority, and within one at random by weight (RFC 2782). `random` gives a number below its argument.
pub(super) fn order(mut records: Vec<Srv>, mut random: impl FnMut(u32) -> u32) -> Vec<Srv> {
    // Those of weight 0 stand first, which leaves them a small chance.
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let equals = records.iter().take_while(|record| record.priority == priority);
        let total: u32 = equals.clone().map(|record| u32::from(record.weight)).sum();
        let drawn = random(total.saturating_add(1));
        let mut sum = 0;
        let at = equals.clone().position(|record| {
            sum += u32::from(record.weight);
            sum >= drawn
        });
        ordered.push(records.remove(at.unwrap_or(0)));
    }
    ordered
}

/// Answers by name: the fresh one, or the kept one when there is none to be had.
pub(super) struct Kept<T>(Mutex<AHashMap<String, (Vec<T>, Instant)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    pub(super) async fn ask(
        &self,
        name: &str,
        query: impl Future<Output = Result<Vec<T>, String>>,
    ) -> Result<Vec<T>, String> {
        let kept =
            self.0.lock().get(name).filter(|(_, at)| at.elapsed() < KEEP).map(|(found, _)| found.clone());
        let answer = match &kept {
            None => query.await,
            Some(_) => tokio::time::timeout(RESOLVE_WITH_KEPT, query)
                .await
                .unwrap_or_else(|_| Err("no name server answers".to_owned())),
        };
        match (answer, kept) {
            (Ok(found), _) => {
                // That there is none is an answer, too.
                let mut table = self.0.lock();
                if table.len() >= MAX_KEPT {
                    table.clear();
                }
                table.insert(name.to_owned(), (found.clone(), Instant::now()));
                Ok(found)
            }
            (Err(_), Some(kept)) => Ok(kept),
            (Err(problem), None) => Err(format!("{name} does not resolve: {problem}")),
        }
    }
}
