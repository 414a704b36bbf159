//! The configuration as the data plane sees it: an immutable snapshot that is swapped whole, so that a call is
//! decided on one consistent state and never waits for a database.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use model::directory::{AgentEntry, DirectoryChange, OrganizationEntry, VersionEntry};
use model::{AgentId, AgentVersionId, E164, OrganizationId, PhoneNumber, Trunk, TrunkId};
use parking_lot::Mutex;
use rpds::HashTrieMapSync;
use tokio::sync::Notify;

/// One state of the configuration. Cloning shares everything.
#[derive(Clone, Default)]
pub struct Directory {
    organizations: HashTrieMapSync<OrganizationId, Arc<OrganizationEntry>>,
    trunks: HashTrieMapSync<TrunkId, Arc<Trunk>>,
    numbers: HashTrieMapSync<E164, Arc<PhoneNumber>>,
    agents: HashTrieMapSync<AgentId, Arc<AgentEntry>>,
    versions: HashTrieMapSync<AgentVersionId, Arc<VersionEntry>>,
    /// Versions by their agent and number.
    numbered: HashTrieMapSync<(AgentId, i64), AgentVersionId>,
    sources: Sources,
    doors: OnceLock<Doors>,
}

/// Sources that no trunk lists and that may call somebody all the same.
#[derive(Clone, Default)]
struct Doors {
    /// Everybody may.
    open: bool,
    ranges: Vec<IpNet>,
}

impl Directory {
    /// An organization.
    #[must_use]
    pub fn organization(&self, id: OrganizationId) -> Option<&Arc<OrganizationEntry>> {
        self.organizations.get(&id)
    }

    /// A trunk.
    #[must_use]
    pub fn trunk(&self, id: TrunkId) -> Option<&Arc<Trunk>> {
        self.trunks.get(&id)
    }

    /// All trunks.
    pub(crate) fn trunks(&self) -> impl Iterator<Item = &Arc<Trunk>> {
        self.trunks.values()
    }

    /// A number.
    #[must_use]
    pub fn number(&self, number: &E164) -> Option<&Arc<PhoneNumber>> {
        self.numbers.get(number)
    }

    /// An agent.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<&Arc<AgentEntry>> {
        self.agents.get(&id)
    }

    /// An agent's version.
    #[must_use]
    pub fn version(&self, id: AgentVersionId) -> Option<&Arc<VersionEntry>> {
        self.versions.get(&id)
    }

    /// An agent's version by its number.
    #[must_use]
    pub fn numbered_version(&self, agent: AgentId, number: i64) -> Option<&Arc<VersionEntry>> {
        self.version(*self.numbered.get(&(agent, number))?)
    }

    /// The trunks that keep a registration with their carrier.
    pub(crate) fn registering(&self) -> impl Iterator<Item = &Arc<Trunk>> {
        self.trunks.values().filter(|trunk| trunk.outbound_config.as_ref().is_some_and(|c| c.register))
    }

    /// Whether some trunk lists the source. A trunk without a list lists nobody.
    #[must_use]
    pub fn lists(&self, source: IpAddr) -> bool {
        self.sources.contains(source)
    }

    /// Whether a call from the source could reach anybody: a trunk lists it, or a number's trunk or a deployed agent's
    /// organization takes it without.
    #[must_use]
    pub fn serves(&self, source: IpAddr) -> bool {
        if self.lists(source) {
            return true;
        }
        let source = source.to_canonical();
        let doors = self.doors.get_or_init(|| self.doors());
        doors.open || doors.ranges.iter().any(|net| net.contains(&source))
    }

    /// Found when it is first asked for after a change.
    fn doors(&self) -> Doors {
        let takes_all = |trunk: &Arc<Trunk>| {
            trunk.inbound_config.as_ref().is_none_or(|config| config.allowed_addresses.is_none())
        };
        let mut doors = Doors {
            open: self.trunks.values().any(takes_all)
                && self.numbers.values().any(|number| self.trunk(number.trunk_id).is_some_and(takes_all)),
            ranges: Vec::new(),
        };
        let organizations: HashSet<_> = self
            .agents
            .values()
            .filter(|agent| agent.sip_deployed)
            .map(|agent| agent.organization_id)
            .collect();
        for organization in organizations {
            match self.organization(organization).and_then(|o| o.sip_endpoint_allowed_addresses.as_ref()) {
                None => doors.open = true,
                Some(ranges) => doors.ranges.extend(ranges.iter().map(model::AddressRange::net)),
            }
        }
        doors
    }

    fn apply(&mut self, change: DirectoryChange) {
        self.doors = OnceLock::new();
        match change {
            DirectoryChange::Organization(id, entry) => set(&mut self.organizations, id, entry),
            DirectoryChange::Number(number, entry) => set(&mut self.numbers, number, entry),
            DirectoryChange::Agent(id, entry) => set(&mut self.agents, id, entry),
            DirectoryChange::Version(id, entry) => {
                if let Some(old) = self.versions.get(&id) {
                    self.numbered.remove_mut(&(old.agent_id, old.version));
                }
                if let Some(new) = &entry {
                    self.numbered.insert_mut((new.agent_id, new.version), id);
                }
                set(&mut self.versions, id, entry);
            }
            DirectoryChange::Trunk(id, entry) => {
                for net in self.trunks.get(&id).into_iter().flat_map(|t| listed(t)) {
                    self.sources.remove(net);
                }
                for net in entry.iter().flat_map(|t| listed(t)) {
                    self.sources.insert(net);
                }
                set(&mut self.trunks, id, entry);
            }
        }
    }
}

fn set<K: std::hash::Hash + Eq, V>(map: &mut HashTrieMapSync<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert_mut(key, value);
        }
        None => {
            map.remove_mut(&key);
        }
    }
}

fn listed(trunk: &Trunk) -> impl Iterator<Item = IpNet> {
    let ranges = trunk.inbound_config.as_ref().and_then(|c| c.allowed_addresses.as_ref());
    ranges.into_iter().flatten().map(model::AddressRange::net)
}

/// The union of all trunks' lists: a hash look-up per prefix length in use.
#[derive(Clone, Default)]
struct Sources {
    /// How many list entries name each prefix.
    prefixes: HashTrieMapSync<IpNet, u32>,
    /// How many distinct prefixes there are of each length, IPv4 then IPv6.
    v4_lengths: HashTrieMapSync<u8, u32>,
    v6_lengths: HashTrieMapSync<u8, u32>,
}

impl Sources {
    fn lengths(&mut self, net: IpNet) -> &mut HashTrieMapSync<u8, u32> {
        match net {
            IpNet::V4(_) => &mut self.v4_lengths,
            IpNet::V6(_) => &mut self.v6_lengths,
        }
    }

    fn insert(&mut self, net: IpNet) {
        if add(&mut self.prefixes, net) == 1 {
            add(self.lengths(net), net.prefix_len());
        }
    }

    fn remove(&mut self, net: IpNet) {
        if subtract(&mut self.prefixes, net) == 0 {
            subtract(self.lengths(net), net.prefix_len());
        }
    }

    fn contains(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        let lengths = if source.is_ipv4() { &self.v4_lengths } else { &self.v6_lengths };
        lengths.keys().any(|&length| {
            IpNet::new(source, length).is_ok_and(|net| self.prefixes.contains_key(&net.trunc()))
        })
    }
}

fn add<K: std::hash::Hash + Eq>(map: &mut HashTrieMapSync<K, u32>, key: K) -> u32 {
    let count = map.get(&key).copied().unwrap_or(0) + 1;
    map.insert_mut(key, count);
    count
}

fn subtract<K: std::hash::Hash + Eq>(map: &mut HashTrieMapSync<K, u32>, key: K) -> u32 {
    let count = map.get(&key).copied().unwrap_or(0).saturating_sub(1);
    if count == 0 {
        map.remove_mut(&key);
    } else {
        map.insert_mut(key, count);
    }
    count
}

/// The place the current [`Directory`] stands in.
#[derive(Clone)]
pub struct DirectoryHandle {
    current: Arc<ArcSwap<Directory>>,
    writer: Arc<Mutex<()>>,
    changed: Arc<Notify>,
}

impl DirectoryHandle {
    pub(crate) fn new(initial: Vec<DirectoryChange>) -> Self {
        let handle = Self { current: Arc::default(), writer: Arc::default(), changed: Arc::default() };
        handle.reset(initial);
        handle
    }

    /// The state to decide the next call on.
    #[must_use]
    pub fn load(&self) -> Arc<Directory> {
        self.current.load_full()
    }

    /// Applies changes, all at once as seen by calls.
    pub fn apply(&self, changes: Vec<DirectoryChange>) {
        let _writer = self.writer.lock();
        let mut next = Directory::clone(&self.current.load());
        for change in changes {
            next.apply(change);
        }
        self.current.store(Arc::new(next));
        self.changed.notify_one();
    }

    /// Waits for a change since the last wait. For one listener.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Replaces everything.
    pub fn reset(&self, everything: Vec<DirectoryChange>) {
        let _writer = self.writer.lock();
        let mut next = Directory::default();
        for change in everything {
            next.apply(change);
        }
        self.current.store(Arc::new(next));
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{InboundConfig, OrganizationId, Timestamp};

    fn trunk(id: TrunkId, allowed: &[&str]) -> DirectoryChange {
        let allowed: Vec<String> = allowed.iter().map(|s| (*s).to_owned()).collect();
        let trunk = Trunk {
            id,
            organization_id: OrganizationId::new(),
            name: "t".to_owned(),
            managed_account_id: None,
            inbound_config: Some(InboundConfig {
                allowed_addresses: model::address::parse_address_ranges("allowed_addresses", &allowed)
                    .unwrap(),
                ..InboundConfig::default()
            }),
            outbound_config: None,
            max_concurrent_calls: None,
            max_calls_per_second: None,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        };
        DirectoryChange::Trunk(id, Some(Arc::new(trunk)))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_could_reach_nobody_is_not_served() {
        let (listed, open) = (TrunkId::new(), TrunkId::new());
        let directory = DirectoryHandle::new(vec![trunk(listed, &["10.0.0.0/8"]), trunk(open, &[])]);
        let serves = |source| directory.load().serves(ip(source));
        let number = |text: &str, trunk_id| {
            let number: E164 = text.parse().unwrap();
            let entry = PhoneNumber {
                phone_number: number.clone(),
                organization_id: OrganizationId::new(),
                trunk_id,
                inbound_agent_version_id: None,
                outbound_agent_version_id: None,
                outbound_shareable: false,
                created_at: Timestamp(0),
                updated_at: Timestamp(0),
            };
            DirectoryChange::Number(number, Some(Arc::new(entry)))
        };
        directory.apply(vec![number("+14155550100", listed)]);
        assert!(serves("10.0.0.1") && !serves("192.0.2.1"), "a trunk without numbers takes no call");
        directory.apply(vec![number("+14155550101", open)]);
        assert!(serves("192.0.2.1"));
        directory.apply(vec![DirectoryChange::Trunk(open, None)]);
        assert!(!serves("192.0.2.1"));
        let organization_id = OrganizationId::new();
        let allowed = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|s| (*s).to_owned()).collect();
            let allowed = model::address::parse_address_ranges("x", &list).unwrap();
            let entry = OrganizationEntry {
                id: organization_id,
                sip_endpoint_allowed_addresses: allowed,
                allowed_destinations: None,
                inbound_routing: None,
            };
            DirectoryChange::Organization(organization_id, Some(Arc::new(entry)))
        };
        let id = AgentId::new();
        let agent =
            AgentEntry { id, organization_id, active: true, sip_deployed: true, latest_published: None };
        directory.apply(vec![allowed(&["192.0.2.0/24"]), DirectoryChange::Agent(id, Some(Arc::new(agent)))]);
        assert!(serves("::ffff:192.0.2.9") && !serves("198.51.100.1"));
        directory.apply(vec![allowed(&[])]);
        assert!(serves("198.51.100.1"));
        directory.apply(vec![DirectoryChange::Agent(id, None)]);
        assert!(!serves("198.51.100.1"));
    }

    #[test]
    fn sources_follow_the_trunks_lists() {
        let (a, b) = (TrunkId::new(), TrunkId::new());
        let directory =
            DirectoryHandle::new(vec![trunk(a, &["10.0.0.0/8", "2001:db8::/32"]), trunk(b, &["10.0.0.0/8"])]);
        assert!(directory.load().lists(ip("10.1.2.3")));
        assert!(directory.load().lists(ip("::ffff:10.1.2.3")));
        assert!(directory.load().lists(ip("2001:db8::1")));
        assert!(!directory.load().lists(ip("11.0.0.1")));
        directory.apply(vec![DirectoryChange::Trunk(a, None)]);
        assert!(directory.load().lists(ip("10.1.2.3")));
        assert!(!directory.load().lists(ip("2001:db8::1")));
        directory.apply(vec![trunk(b, &[])]);
        assert!(!directory.load().lists(ip("10.1.2.3")));
    }
}
