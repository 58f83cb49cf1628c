//! This agent's rules of ipnat(5): those of the pods' network, of host ports, and of services. All changes go through
//! this module, because ipnat(8) records no owner: our rules are listed in a file, and each change compares all of them
//! with the active ones. The check of services every half minute does so, too, because a refresh of `network/ipfilter`
//! drops added rules. Rules of others stay: nothing is ever flushed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::services;
use crate::blocking::blocking;
use crate::illumos::{Failure, Tools, parse};
use crate::net::illumos::{
    NetworkConfig, add_rules, address_of, remove_rules, show_addresses, show_rules,
};
use crate::net::services::{ServicePort, ServiceRouter};
use crate::private::write_whole;
use crate::zone::ZoneName;

/// Sets rules of ipnat.
pub struct Rules {
    tools: Arc<dyn Tools>,
    network: NetworkConfig,
    /// The file that lists our rules, including those about to be added.
    notes: PathBuf,
    /// Ensures that only one change runs at a time.
    wanted: tokio::sync::Mutex<Wanted>,
}

/// All rules that should be active.
#[derive(Debug, Default)]
struct Wanted {
    /// Rules of host ports, by zone.
    zones: BTreeMap<ZoneName, Vec<String>>,
    /// Rules of services; None until services are known.
    services: Option<Vec<String>>,
}

/// Why not all rules are active.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// ipnat failed: ipfilter is off, or for another reason.
    #[error(transparent)]
    Tool(#[from] Failure),
    /// A rule was rejected; the others are active.
    #[error("ipnat did not take the rule {0:?}")]
    Refused(String),
    /// A rule cannot be removed.
    #[error("ipnat did not remove the rule {0:?}")]
    Stays(String),
    /// The list of our rules cannot be read or written.
    #[error("{0}")]
    Notes(String),
}

impl Rules {
    /// The rules of a network; the file `notes` lists our rules.
    pub fn new(tools: Arc<dyn Tools>, network: NetworkConfig, notes: &Path) -> Self {
        Rules {
            tools,
            network,
            notes: notes.to_owned(),
            wanted: tokio::sync::Mutex::default(),
        }
    }

    /// Adds the rules for zones that already run, and for the network.
    ///
    /// # Errors
    /// [`RuleError`]: it is retried with the services.
    pub async fn begin(&self, zones: BTreeMap<ZoneName, Vec<String>>) -> Result<(), RuleError> {
        let mut wanted = self.wanted.lock().await;
        wanted.zones = zones;
        self.make(&wanted, &[]).await
    }

    /// Adds the rules of a zone's host ports.
    ///
    /// # Errors
    /// [`RuleError`]: they are not active.
    pub async fn lead(&self, zone: &ZoneName, rules: &[String]) -> Result<(), RuleError> {
        if rules.is_empty() {
            return Ok(());
        }
        let mut wanted = self.wanted.lock().await;
        wanted.zones.insert(zone.clone(), rules.to_vec());
        match self.make(&wanted, &[]).await {
            // A rule of others, which is reported with the services.
            Err(RuleError::Refused(rule)) if !rules.contains(&rule) => Ok(()),
            Err(RuleError::Stays(_)) => Ok(()),
            other => other,
        }
    }

    /// Removes the rules of a zone's host ports. This also works while ipfilter is off: no rule is active then, and the
    /// rest is removed together with obsolete services.
    pub async fn forget(&self, zone: &ZoneName) {
        let mut wanted = self.wanted.lock().await;
        let Some(former) = wanted.zones.remove(zone) else {
            return;
        };
        if let Err(error) = self.make(&wanted, &former).await {
            tracing::warn!(%zone, %error, "cannot remove the host ports of a zone; they may lead to another pod that gets its address");
        }
    }

    /// Computes the changes from all active rules. There may be tens of thousands: they are not compared on a thread of
    /// the runtime.
    async fn compare(&self, wanted: &Arc<Comparison>) -> Result<Changes, RuleError> {
        let output = self.tools.run(&show_rules()).await?;
        let wanted = wanted.clone();
        let compared =
            blocking(move || Ok(wanted.changes(&parse::nat_rules(&output.stdout)))).await;
        compared.map_err(RuleError::Notes)
    }

    async fn noted(&self) -> Result<BTreeSet<String>, RuleError> {
        let notes = self.notes.clone();
        let read = move || match std::fs::read_to_string(&notes) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(format!("cannot read {}: {error}", notes.display())),
        };
        blocking(read).await.map_err(RuleError::Notes)
    }

    async fn note(&self, rules: &BTreeSet<String>) -> Result<(), RuleError> {
        let text: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
        let notes = self.notes.clone();
        let write = move || {
            write_whole(&notes, text.as_bytes())
                .map_err(|error| format!("cannot write {}: {error}", notes.display()))
        };
        blocking(write).await.map_err(RuleError::Notes)
    }

    /// The address of the external link, which may change.
    async fn outer(&self) -> Result<Option<Ipv4Addr>, RuleError> {
        let Some(link) = self.network.external() else {
            return Ok(None);
        };
        let shown = self.tools.run(&show_addresses()).await?;
        Ok(address_of(link, &shown.stdout))
    }

    /// Makes the active rules equal to the wanted ones; as long as services are unknown, only those in `former` and
    /// those of the network are removed.
    async fn make(&self, wanted: &Wanted, former: &[String]) -> Result<(), RuleError> {
        let ordered = self.network.rules(self.outer().await?);
        let zones = wanted.zones.values().flatten();
        let others = zones.chain(wanted.services.iter().flatten());
        let others: Vec<String> = others.cloned().collect();
        let (former, all) = (former.to_vec(), wanted.services.is_some());
        let noted = Arc::new(self.noted().await?);
        let known = noted.clone();
        let spelled = blocking(move || {
            let spelled = |rules: Vec<String>| rules.iter().map(|one| parse::rule(one)).collect();
            Ok(Comparison {
                ordered: spelled(ordered),
                others: spelled(others),
                former: spelled(former),
                all,
                noted: known,
            })
        });
        let wanted = Arc::new(spelled.await.map_err(RuleError::Notes)?);
        let first = self.compare(&wanted).await?;
        if !first.ours.is_subset(&noted) {
            // Listed before they are added, so that they are recognized after a crash.
            self.note(&noted.union(&first.ours).cloned().collect())
                .await?;
        }
        for command in [
            (!first.displaced.is_empty()).then(|| remove_rules(&first.displaced)),
            // New rules are added before old ones are removed: a service always leads somewhere.
            (!first.add.is_empty()).then(|| add_rules(&first.add)),
            (!first.remove.is_empty()).then(|| remove_rules(&first.remove)),
        ]
        .into_iter()
        .flatten()
        {
            self.tools.run(&command).await?;
        }
        if !first.is_empty() {
            // A rejected rule is only reported on standard error: ipnat exits with 0.
            let left = self.compare(&wanted).await?;
            if let Some(rule) = left.add.first() {
                return Err(RuleError::Refused(rule.clone()));
            }
            if let Some(rule) = left.remove.first() {
                return Err(RuleError::Stays(rule.clone()));
            }
        }
        if first.ours != *noted {
            self.note(&first.ours).await?;
        }
        Ok(())
    }
}

/// Implements services for zones, on a host with node ports at some addresses.
pub struct Router {
    /// The rules to change.
    pub rules: Arc<Rules>,
    /// The host's addresses, except the one on the zones' network.
    pub addresses: parking_lot::Mutex<Vec<Ipv4Addr>>,
}

impl ServiceRouter for Router {
    fn serve_at(&self, addresses: Vec<Ipv4Addr>) {
        *self.addresses.lock() = addresses;
    }

    fn route(&self, ports: Arc<[ServicePort]>) -> BoxFuture<'_, Result<Option<Duration>, String>> {
        async move {
            let rules = &self.rules;
            let NetworkConfig::Etherstub(network) = &rules.network else {
                // The router of that network is another machine.
                return Ok(None);
            };
            let addresses = self.addresses.lock().clone();
            let mut wanted = rules.wanted.lock().await;
            wanted.services = Some(services::rules(network, &addresses, &ports));
            let made = rules.make(&wanted, &[]).await;
            made.map(|()| None).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

/// Wanted rules in the notation of `ipnat -l`, and the rules known to be ours.
struct Comparison {
    ordered: Vec<String>,
    others: Vec<String>,
    /// Rules to remove even if services are unknown.
    former: Vec<String>,
    /// Services are known: all our rules that are not wanted are removed.
    all: bool,
    noted: Arc<BTreeSet<String>>,
}

impl Comparison {
    fn changes(&self, in_force: &[String]) -> Changes {
        // Only the network has rules that map, and its rules are always known. One for a former address of the host
        // would precede the one for today's.
        let is_networks = |rule: &String| rule.starts_with("map ");
        let stale = |rule: &String| self.all || is_networks(rule) || self.former.contains(rule);
        Changes::between(&self.ordered, &self.others, stale, &self.noted, in_force)
    }
}

/// The changes, each in order.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    /// Our rules that are after one that they should precede: they are removed, and added again.
    displaced: Vec<String>,
    add: Vec<String>,
    remove: Vec<String>,
    /// Our rules afterwards.
    ours: BTreeSet<String>,
}

impl Changes {
    /// The changes that make `ordered` and `others` active, the former in their order: if two rules match a packet, the
    /// one added first applies. Our active rules that are `stale` and not wanted are removed; all others are left
    /// alone. A wanted rule that somebody else added stays theirs.
    fn between(
        ordered: &[String],
        others: &[String],
        stale: impl Fn(&String) -> bool,
        noted: &BTreeSet<String>,
        in_force: &[String],
    ) -> Changes {
        let wanted = || ordered.iter().chain(others);
        let is_wanted: HashSet<&str> = wanted().map(String::as_str).collect();
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(in_force.len());
        for (place, rule) in in_force.iter().enumerate() {
            // Of duplicates the first one applies.
            places.entry(rule).or_insert(place);
        }
        let place = |rule: &String| places.get(rule.as_str()).copied();
        let mut displaced = Vec::new();
        // The place of the last rule that is in order; rules after a missing one are not.
        let mut last = Some(0);
        for rule in ordered {
            last = match (place(rule), last) {
                (Some(at), Some(before)) if before <= at => Some(at),
                (Some(_), _) if noted.contains(rule) => {
                    displaced.push(rule.clone());
                    None
                }
                // Rules of others are not moved.
                (Some(_), last) => last,
                (None, _) => None,
            };
        }
        let absent = |rule: &String| place(rule).is_none();
        let kept = |rule: &&String| !is_wanted.contains(rule.as_str()) && !stale(rule);
        Changes {
            add: wanted()
                .filter(|rule| absent(rule) || displaced.contains(rule))
                .cloned()
                .collect(),
            remove: noted
                .iter()
                .filter(|rule| !is_wanted.contains(rule.as_str()) && stale(rule) && !absent(rule))
                .cloned()
                .collect(),
            ours: wanted()
                .filter(|rule| noted.contains(*rule) || absent(rule))
                .chain(noted.iter().filter(kept))
                .cloned()
                .collect(),
            displaced,
        }
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<C: FromIterator<String>>(rules: &str) -> C {
        rules.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn only_what_is_ours_goes() {
        for (wanted, noted, in_force, remove, add, ours) in [
            ("a b", "", "x", "", "a b", "a b"),
            ("a b", "a b", "x a b", "", "", "a b"),
            ("b", "a b", "x a b", "a", "", "b"),
            // The service was refreshed: added rules are gone.
            ("a b", "a b", "x", "", "a b", "a b"),
            // Listed, but never added.
            ("", "a", "x", "", "", ""),
            // A rule of others that equals ours: it is theirs until they remove it.
            ("x", "", "x", "", "", ""),
            ("", "", "x", "", "", ""),
            ("x", "", "", "", "x", "x"),
        ] {
            let wanted: Vec<String> = set(wanted);
            let in_force: Vec<String> = set(in_force);
            let found = Changes::between(&[], &wanted, |_| true, &set(noted), &in_force);
            let expected = Changes {
                displaced: Vec::new(),
                remove: set(remove),
                add: set(add),
                ours: set(ours),
            };
            assert_eq!(
                found, expected,
                "{wanted:?} of {noted:?} beside {in_force:?}"
            );
        }
    }

    /// As many as in a large cluster: this would not finish if each rule were searched linearly.
    #[test]
    fn many_rules_are_compared() {
        let rules = |from: u32, to: u32| -> Vec<String> {
            let rule = |n| format!("rdr reddwarfgw0 10.96.0.7/32 port 80 -> 10.88.0.11 port {n}");
            (from..to).map(rule).collect()
        };
        let (wanted, in_force) = (rules(1, 60_001), rules(0, 60_000));
        let noted: BTreeSet<String> = in_force.iter().cloned().collect();
        let found = Changes::between(&[], &wanted, |_| true, &noted, &in_force);
        assert_eq!(found.remove, rules(0, 1));
        assert_eq!(found.add, rules(60_000, 60_001));
        assert_eq!(found.ours.len(), 60_000);
    }

    #[test]
    fn what_is_asked_in_order_stands_in_order() {
        for (in_force, noted, displaced, add) in [
            ("p q x", "p q", "", ""),
            ("x p y q", "p q", "", ""),
            ("", "p q", "", "p q"),
            ("p", "p q", "", "q"),
            // The second one alone would stay before the first forever.
            ("q", "p q", "q", "p q"),
            ("q p", "p q", "q", "q"),
            // A rule of others stays in place.
            ("q", "p", "", "p"),
        ] {
            let in_force: Vec<String> = set(in_force);
            let ordered: Vec<String> = set("p q");
            let found = Changes::between(&ordered, &[], |_| true, &set(noted), &in_force);
            let expected = (set::<Vec<_>>(displaced), set::<Vec<_>>(add));
            assert_eq!((found.displaced, found.add), expected, "{in_force:?}");
        }
    }

    #[test]
    fn rules_of_services_stay_until_services_are_known() {
        let in_force: Vec<String> = set("zone service");
        let noted: BTreeSet<String> = set("zone service");
        let gone = |rule: &String| rule == "zone";
        let found = Changes::between(&[], &[], gone, &noted, &in_force);
        assert_eq!(found.remove, ["zone"]);
        assert_eq!(found.ours, set("service"));
    }

    #[test]
    fn the_way_out_by_a_former_address_goes_before_services_are_known() {
        let by = |address: &str| format!("map e1000g0 10.88.0.0/24 -> {address}/32 portmap");
        let (former, today) = (by("192.0.2.4"), by("192.0.2.5"));
        let rest = "map e1000g0 10.88.0.0/24 -> 0.0.0.0/32".to_owned();
        let service = "rdr reddwarfgw0 10.96.0.7/32 port 80 -> 10.88.0.11 port 8080".to_owned();
        // Somebody else's network.
        let theirs = "map e1000g0 10.99.0.0/24 -> 192.0.2.4/32".to_owned();
        let in_force = [&theirs, &former, &rest, &service].map(String::clone);
        let wanted = Comparison {
            ordered: vec![today.clone(), rest.clone()],
            others: Vec::new(),
            former: Vec::new(),
            all: false,
            noted: Arc::new([&former, &rest, &service].map(String::clone).into()),
        };
        let expected = Changes {
            displaced: vec![rest.clone()],
            add: vec![today.clone(), rest.clone()],
            remove: vec![former],
            ours: [today, rest, service].into(),
        };
        assert_eq!(wanted.changes(&in_force), expected);
    }
}
