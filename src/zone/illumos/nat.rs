//! The rules of ipnat(5) that are this agent's: those of the pods' network, ports of the host that lead to zones, and
//! services. They have one owner, for ipnat(8) tells none: which are ours is noted in a file, and each change compares
//! all of them with what is in force. So does the look at services every half minute, since a refresh of
//! `network/ipfilter` forgets what was added. Those of others stay: nothing is ever flushed.

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
use crate::net::illumos::{NetworkConfig, add_rules, remove_rules, show_rules};
use crate::net::services::{ServicePort, ServiceRouter};
use crate::private::write_whole;
use crate::zone::ZoneName;

/// Leads packets by rules of ipnat.
pub struct Rules {
    tools: Arc<dyn Tools>,
    network: NetworkConfig,
    /// The rules that are ours or are about to be.
    notes: PathBuf,
    /// One change at a time.
    wanted: tokio::sync::Mutex<Wanted>,
}

/// All that is to be in force.
#[derive(Debug, Default)]
struct Wanted {
    /// Ports of the host that lead to zones.
    zones: BTreeMap<ZoneName, Vec<String>>,
    /// Rules of services; nothing until it is known which there are.
    services: Option<Vec<String>>,
}

/// Why not all is in force.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// ipnat does not answer: ipfilter is off, or another reason.
    #[error(transparent)]
    Tool(#[from] Failure),
    /// A rule is refused; the others are in force.
    #[error("ipnat did not take the rule {0:?}")]
    Refused(String),
    /// A rule does not go.
    #[error("ipnat did not remove the rule {0:?}")]
    Stays(String),
    /// Which rules are ours cannot be read or noted.
    #[error("{0}")]
    Notes(String),
}

impl Rules {
    /// The rules of a network; which are its own is noted in the file `notes`.
    pub fn new(tools: Arc<dyn Tools>, network: NetworkConfig, notes: &Path) -> Self {
        Rules {
            tools,
            network,
            notes: notes.to_owned(),
            wanted: tokio::sync::Mutex::default(),
        }
    }

    /// Puts in force what there is to be for zones that run already, and for the network.
    ///
    /// # Errors
    /// [`RuleError`]: it is tried again with the services.
    pub async fn begin(&self, zones: BTreeMap<ZoneName, Vec<String>>) -> Result<(), RuleError> {
        let mut wanted = self.wanted.lock().await;
        wanted.zones = zones;
        self.make(&wanted, &[]).await
    }

    /// Leads ports of the host to a zone.
    ///
    /// # Errors
    /// [`RuleError`]: they do not lead there yet.
    pub async fn lead(&self, zone: &ZoneName, rules: &[String]) -> Result<(), RuleError> {
        if rules.is_empty() {
            return Ok(());
        }
        let mut wanted = self.wanted.lock().await;
        wanted.zones.insert(zone.clone(), rules.to_vec());
        match self.make(&wanted, &[]).await {
            // Another's, which is told when services are looked at.
            Err(RuleError::Refused(rule)) if !rules.contains(&rule) => Ok(()),
            Err(RuleError::Stays(_)) => Ok(()),
            other => other,
        }
    }

    /// Leads ports of the host to a zone no more. A zone goes also where ipfilter is off: then nothing is led, and what
    /// is left is removed with what is no service any more.
    pub async fn forget(&self, zone: &ZoneName) {
        let mut wanted = self.wanted.lock().await;
        let Some(former) = wanted.zones.remove(zone) else {
            return;
        };
        if let Err(error) = self.make(&wanted, &former).await {
            tracing::warn!(%zone, %error, "ports of the host may lead still where the zone was: its address may be another pod's now");
        }
    }

    /// What is to be done, of all that is in force. There may be tens of thousands of rules: they are not compared on a
    /// thread that others wait for.
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

    /// Makes what is wanted all that is ours; while services are not known, of what is not wanted only `former` goes.
    async fn make(&self, wanted: &Wanted, former: &[String]) -> Result<(), RuleError> {
        let ordered = self.network.rules();
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
            // Before they are there: what a crash leaves is known to be ours.
            self.note(&noted.union(&first.ours).cloned().collect())
                .await?;
        }
        for command in [
            (!first.displaced.is_empty()).then(|| remove_rules(&first.displaced)),
            // New ones come before old ones go: there is no time at which a service leads nowhere.
            (!first.add.is_empty()).then(|| add_rules(&first.add)),
            (!first.remove.is_empty()).then(|| remove_rules(&first.remove)),
        ]
        .into_iter()
        .flatten()
        {
            self.tools.run(&command).await?;
        }
        if !first.is_empty() {
            // A rule that is refused is told on standard error alone: ipnat ends with 0.
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

/// Leads services to zones, on a host whose ports are asked at some addresses.
pub struct Router {
    /// The rules that it puts in force.
    pub rules: Arc<Rules>,
    /// The host's addresses, besides that on the zones' network.
    pub addresses: Vec<Ipv4Addr>,
}

impl ServiceRouter for Router {
    fn route(&self, ports: Arc<[ServicePort]>) -> BoxFuture<'_, Result<Option<Duration>, String>> {
        async move {
            let rules = &self.rules;
            let NetworkConfig::Etherstub(network) = &rules.network else {
                // The router there is another machine.
                return Ok(None);
            };
            let mut wanted = rules.wanted.lock().await;
            wanted.services = Some(services::rules(network, &self.addresses, &ports));
            let made = rules.make(&wanted, &[]).await;
            made.map(|()| None).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

/// What is to be in force, as `ipnat -l` spells it, and what is known to be ours.
struct Comparison {
    ordered: Vec<String>,
    others: Vec<String>,
    /// What goes even while services are not known.
    former: Vec<String>,
    /// Services are known: whatever of ours is not wanted goes.
    all: bool,
    noted: Arc<BTreeSet<String>>,
}

impl Comparison {
    fn changes(&self, in_force: &[String]) -> Changes {
        let stale = |rule: &String| self.all || self.former.contains(rule);
        Changes::between(&self.ordered, &self.others, stale, &self.noted, in_force)
    }
}

/// What is to be done, each in order.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    /// Ours that stand behind one that they belong before: they go first, and are added again.
    displaced: Vec<String>,
    add: Vec<String>,
    remove: Vec<String>,
    /// What is ours then.
    ours: BTreeSet<String>,
}

impl Changes {
    /// What makes `ordered` and `others` the rules in force, the first ones in their order: of two rules that take a packet
    /// the one that was added first is asked. Those that are ours, in force, not wanted and `stale` go; all others are
    /// left alone. One that is wanted and in force without our doing stays somebody else's.
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
            // Where one stands twice, the first is asked.
            places.entry(rule).or_insert(place);
        }
        let place = |rule: &String| places.get(rule.as_str()).copied();
        let mut displaced = Vec::new();
        // Where the last one is that stands right; nothing behind one that is not there does.
        let mut last = Some(0);
        for rule in ordered {
            last = match (place(rule), last) {
                (Some(at), Some(before)) if before <= at => Some(at),
                (Some(_), _) if noted.contains(rule) => {
                    displaced.push(rule.clone());
                    None
                }
                // Somebody else's are not moved.
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
            // The service was refreshed: what was added by hand is gone.
            ("a b", "a b", "x", "", "a b", "a b"),
            // Noted, and never made.
            ("", "a", "x", "", "", ""),
            // Somebody else's that is the same as ours: theirs until they remove it.
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

    /// As many as a large cluster has: it would not end if each were sought among all.
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
            // The second one alone would stay before the first for ever.
            ("q", "p q", "q", "p q"),
            ("q p", "p q", "q", "q"),
            // Somebody else's stays where it is.
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
}
