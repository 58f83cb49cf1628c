//! Services in the kernel: one table of nft(8) that leads their addresses to endpoints.
//!
//! ```text
//! prerouting, output ── dispatch ── @services ──── s/… chooses an endpoint
//!                                └─ @nodeports ─── x/… handles external clients ── s/…, l/…
//! forward, input, output ─ refuse ─ @closed ────── reject or drop: no endpoint
//! ```
//! The desired content of a table is a value, [`Rules`], inside a fixed [`frame`]; nft(8) gets the difference of two
//! such values. Follows k8s.io/kubernetes/pkg/proxy/nftables.

pub(super) mod conntrack;
mod frame;
mod rules;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use self::conntrack::Fronts;
pub use self::frame::Site;
use self::rules::Rules;
use super::tables::{self, Ruleset, Shown};
use crate::blocking::blocking;
use crate::meta::addresses::Network;
use crate::net::services::{ServicePort, ServiceRouter};

/// How long unreferenced chains and sets are kept: for the kernel they are in use for a while.
const REST: Duration = Duration::from_secs(1);

/// The table of an agent's services. Clones share the same table.
#[derive(Clone)]
pub struct ServiceTable {
    state: Arc<Mutex<State>>,
    /// The addresses of the node from the next change of services on.
    addresses: Arc<Mutex<Vec<Ipv4Addr>>>,
}

/// The state of the kernel's table.
struct State {
    name: String,
    site: Site,
    /// The ranges of all pods in the cluster.
    pods: Arc<[Network]>,
    ruleset: Arc<Ruleset>,
    /// The content of the table; None if unknown.
    held: Option<Rules>,
    /// The count of foreign rule changes when the table was last verified.
    seen: Option<u64>,
    /// Unreferenced chains and sets of the table, by kind and name, and since when they are.
    rest: BTreeMap<(&'static str, String), Instant>,
    /// The services by which flows were last checked; None if there may be stale flows.
    judged: Option<Fronts>,
    /// Whether the failure to read flows was logged.
    is_blind: bool,
}

impl ServiceTable {
    /// The table for the network of a bridge, in a cluster with pod addresses in `pods`.
    pub(super) fn new(
        bridge: &str,
        site: Site,
        pods: Arc<[Network]>,
        ruleset: Arc<Ruleset>,
    ) -> Self {
        let addresses = Arc::new(Mutex::new(site.addresses.clone()));
        let state = State {
            name: format!("{bridge}-services"),
            site,
            pods,
            ruleset,
            held: None,
            seen: None,
            rest: BTreeMap::new(),
            judged: None,
            is_blind: false,
        };
        ServiceTable {
            state: Arc::new(Mutex::new(state)),
            addresses,
        }
    }

    /// Sets the ranges of all pods in the cluster, at once if the table exists.
    ///
    /// # Errors
    /// The error of nft(8); the ranges are set with the next change of services then.
    pub(super) fn admit(&self, pods: &Arc<[Network]>) -> Result<(), String> {
        let mut state = self.state.lock();
        if state.pods == *pods {
            return Ok(());
        }
        state.pods = pods.clone();
        match state.held.clone() {
            Some(mut rules) => {
                rules.admit(pods);
                state.carry_out(rules)
            }
            None => Ok(()),
        }
    }
}

impl ServiceRouter for ServiceTable {
    fn serve_at(&self, addresses: Vec<Ipv4Addr>) {
        *self.addresses.lock() = addresses;
    }

    fn route(&self, ports: Arc<[ServicePort]>) -> BoxFuture<'_, Result<Option<Duration>, String>> {
        let (state, addresses) = (self.state.clone(), self.addresses.lock().clone());
        blocking(move || {
            let mut state = state.lock();
            state.move_to(addresses);
            let rules = Rules::of(&ports, &state.pods);
            state.carry_out(rules)?;
            state.judge(Fronts::of(&ports));
            state.tidy(Instant::now());
            Ok::<_, String>((!state.rest.is_empty()).then_some(REST))
        })
        .boxed()
    }
}

impl State {
    /// Changes the addresses at which node ports are served: the table is then made anew around what it holds.
    fn move_to(&mut self, addresses: Vec<Ipv4Addr>) {
        if self.site.addresses != addresses {
            self.site.addresses = addresses;
            self.held = None;
        }
    }

    /// Deletes flows to endpoints that are no longer used. A failure to read flows does not prevent other changes.
    fn judge(&mut self, fronts: Fronts) {
        if self.judged.as_ref() == Some(&fronts) {
            return;
        }
        match conntrack::forget_stale(&fronts) {
            Ok(count) => {
                tracing::debug!(count, "deleted flows to removed endpoints");
                self.judged = Some(fronts);
            }
            // Retried with the next check.
            Err(error) if !self.is_blind => {
                self.is_blind = true;
                tracing::warn!(
                    %error,
                    "clients of UDP services may keep using removed endpoints, because the kernel does not report its flows; use one with CONFIG_NF_CT_NETLINK"
                );
            }
            Err(_) => {}
        }
    }

    /// Updates the table from its current to the desired content; if they are equal, verifies it if somebody changed
    /// rules.
    fn carry_out(&mut self, rules: Rules) -> Result<(), String> {
        let foreign = self.ruleset.foreign();
        match self.held.take() {
            Some(before) if before != rules => {
                let script = rules.since(&before, &self.name);
                if !script.is_empty() {
                    self.ruleset.change(&script)?;
                }
                self.leave(&before, &rules);
            }
            Some(held) if self.seen == Some(foreign) => {
                self.held = Some(held);
                return Ok(());
            }
            known => {
                let name = &self.name;
                let shown = match tables::show("ip", name)? {
                    Some(text) if !tables::is_ours(&text) => {
                        return Err(format!(
                            "there is a table ip {name} of nft(8) that reddwarf did not make; remove it, or choose another --etherstub-name"
                        ));
                    }
                    Some(text) => Some(Shown::read(&text)),
                    None => None,
                };
                let is_whole = match &shown {
                    Some(shown) if known.is_some() => holds(name, shown, &rules, &self.site)?,
                    _ => false,
                };
                if !is_whole {
                    if known.is_some() {
                        tracing::warn!(
                            "rules of services were removed by somebody else; adding them again"
                        );
                    }
                    let before = self.make(shown, &rules)?;
                    self.rest.clear();
                    self.leave(&before, &rules);
                    // Flows that began meanwhile bypassed the rules.
                    self.judged = None;
                }
                self.seen = Some(foreign);
            }
        }
        self.held = Some(rules);
        Ok(())
    }

    /// Records what in `before` is no longer referenced.
    fn leave(&mut self, before: &Rules, rules: &Rules) {
        let now = Instant::now();
        for (kind, gone) in before.gone_in(rules) {
            self.rest.insert((kind, gone.to_owned()), now);
        }
        let is_used = |kind: &str, name: &str| match kind {
            "chain" => rules.chains.contains_key(name),
            _ => rules.sets.contains_key(name),
        };
        self.rest.retain(|(kind, name), _| !is_used(kind, name));
    }

    /// Removes what has been unreferenced for a while. Failures are retried, and harmless meanwhile.
    fn tidy(&mut self, now: Instant) {
        let is_due = |since: &Instant| now.duration_since(*since) >= REST;
        let mut script = String::new();
        // Chains come first, because they use the sets.
        for ((kind, gone), _) in self.rest.iter().filter(|(_, since)| is_due(since)) {
            let _ = writeln!(script, "delete {kind} ip {} {gone}", self.name);
        }
        if script.is_empty() {
            return;
        }
        match self.ruleset.change(&script) {
            Ok(()) => self.rest.retain(|_, since| !is_due(since)),
            Err(error) => {
                tracing::debug!(error, "cannot remove unused chains yet");
                self.rest
                    .values_mut()
                    .filter(|since| is_due(since))
                    .for_each(|since| *since = now);
            }
        }
    }

    /// Creates a missing or incomplete table in one transaction, so that services work at every moment. A table with
    /// unknown content (of an earlier agent, or changed by somebody) is filled; clients stay with their endpoints,
    /// which are in sets. Returns what may have to be removed from it.
    fn make(&self, shown: Option<Shown>, rules: &Rules) -> Result<Rules, String> {
        let (name, site) = (&self.name, &self.site);
        if let Some(shown) = shown {
            let before = remains(shown, site);
            let script = frame::script(name, true, site) + &rules.since(&before, name);
            // The fixed part of another version may be incompatible.
            if self.ruleset.change(&script).is_ok() {
                return Ok(before);
            }
        }
        let nothing = Rules::default();
        let script = frame::script(name, false, site) + &rules.since(&nothing, name);
        self.ruleset.change(&script)?;
        Ok(nothing)
    }
}

/// The remaining content of a table that leads nowhere: its sets, and empty chains.
fn remains(shown: Shown, site: &Site) -> Rules {
    let fixed = frame::chains(site);
    let is_fixed = |name: &str| fixed.iter().any(|chain| chain.name == name);
    let sets = shown.sets.into_iter();
    let chains = shown.chains.into_keys();
    Rules {
        sets: sets
            .filter(|set| frame::SETS.iter().all(|(own, _)| own != set))
            .map(|set| (set, String::new()))
            .collect(),
        chains: chains
            .filter(|chain| !is_fixed(chain))
            .map(|chain| (chain, Vec::new()))
            .collect(),
        elements: BTreeMap::new(),
    }
}

/// Whether a table has the right number of everything.
fn holds(name: &str, shown: &Shown, rules: &Rules, site: &Site) -> Result<bool, String> {
    if !has_all(shown, rules, site) {
        return Ok(false);
    }
    let maps = frame::MAPS.map(|(map, _)| ("map", map)).into_iter();
    let sets = frame::SETS.map(|(set, _)| ("set", set));
    for (kind, map) in maps.chain(sets) {
        let expected = rules.elements.get(map).map_or(0, BTreeMap::len);
        if tables::count(["ip", name], kind, map)? != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a table has the chains and sets that it should have, and the number of rules. There may be unreferenced
/// ones, too.
fn has_all(shown: &Shown, rules: &Rules, site: &Site) -> bool {
    let fixed = frame::chains(site);
    let fixed = fixed.iter().map(|chain| (chain.name, chain.rules.len()));
    let chains = rules.chains.iter();
    let chains = chains.map(|(name, rules)| (name.as_str(), rules.len()));
    let mut expected = fixed.chain(chains);
    expected.all(|(name, count)| shown.chains.get(name) == Some(&count))
        && rules.sets.keys().all(|set| shown.sets.contains(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site {
            gateway: [10, 244, 0, 1].into(),
            addresses: vec![[192, 0, 2, 1].into()],
            services: None,
        }
    }

    /// A table with the content `rules`, as nft(8) shows it.
    fn shown(rules: &Rules) -> Shown {
        let fixed = frame::chains(&site()).into_iter();
        let fixed = fixed.map(|chain| (chain.name.to_owned(), chain.rules.len()));
        let chains = rules.chains.iter();
        let chains = chains.map(|(name, rules)| (name.clone(), rules.len()));
        let own = frame::SETS.map(|(set, _)| set.to_owned());
        Shown {
            chains: fixed.chain(chains).collect(),
            sets: rules.sets.keys().cloned().chain(own).collect(),
        }
    }

    fn rules(chains: &[&str], sets: &[&str]) -> Rules {
        let chains = chains.iter();
        let sets = sets.iter();
        Rules {
            chains: chains
                .map(|name| ((*name).to_owned(), vec!["drop".to_owned()]))
                .collect(),
            sets: sets
                .map(|name| ((*name).to_owned(), "type ipv4_addr;".to_owned()))
                .collect(),
            elements: BTreeMap::new(),
        }
    }

    #[test]
    fn what_somebody_took_away_is_seen() {
        let own = rules(&["s/a", "e/a"], &["a/a"]);
        assert!(has_all(&shown(&own), &own, &site()));
        for (what, broken) in [
            ("a chain", {
                let mut broken = shown(&own);
                broken.chains.remove("s/a");
                broken
            }),
            ("the rules of a chain", {
                let mut broken = shown(&own);
                broken.chains.insert("dispatch".to_owned(), 0);
                broken
            }),
            ("a set", {
                let mut broken = shown(&own);
                broken.sets.remove("a/a");
                broken
            }),
            ("everything", Shown::default()),
        ] {
            assert!(!has_all(&broken, &own, &site()), "{what}");
        }
    }

    #[test]
    fn a_table_that_is_found_keeps_who_stays_where() {
        let earlier = rules(&["s/a", "s/gone"], &["a/a", "a/gone"]);
        let now = rules(&["s/a"], &["a/a", "a/new"]);
        let before = remains(shown(&earlier), &site());
        assert_eq!(
            now.since(&before, "t"),
            "add set ip t a/new { type ipv4_addr; }\nadd chain ip t s/a\nflush chain ip t s/a\nadd rule ip t s/a drop\nflush chain ip t s/gone\n"
        );
        let gone: Vec<_> = before.gone_in(&now).collect();
        assert_eq!(gone, [("chain", "s/gone"), ("set", "a/gone")]);
    }
}
