//! Services in the kernel: one table of nft(8) that leads their addresses to endpoints.
//!
//! ```text
//! prerouting, output ── dispatch ── @services ──── s/… chooses an endpoint
//!                                └─ @nodeports ─── x/… judges who comes from the world ── s/…, l/…
//! forward, input, output ─ refuse ─ @closed ────── reject or drop: no endpoint
//! ```
//! What a table is to hold is a value, [`Rules`], in a [`frame`] that is always the same; what nft(8) is told is the
//! difference of two. Follows k8s.io/kubernetes/pkg/proxy/nftables.

mod conntrack;
mod frame;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use self::conntrack::Fronts;
use self::rules::Rules;
use super::network::tool;
use super::tables::{self, Shown};
use crate::net::services::{ServicePort, ServiceRouter};

/// The table of an agent's services.
pub struct ServiceTable {
    name: String,
    /// The range of this node's pods.
    cidr: String,
    state: Arc<Mutex<State>>,
}

/// What the kernel was brought to.
#[derive(Default)]
struct State {
    /// What the table holds; none while that is not known.
    held: Option<Rules>,
    /// What flows were judged by last; none while some of them may be stale.
    judged: Option<Fronts>,
    /// It was said that flows cannot be judged.
    is_blind: bool,
}

impl ServiceTable {
    /// The table beside the network of a bridge.
    pub fn new(bridge: &str, cidr: &str) -> Self {
        ServiceTable {
            name: format!("{bridge}-services"),
            cidr: cidr.to_owned(),
            state: Arc::default(),
        }
    }
}

impl ServiceRouter for ServiceTable {
    fn route<'a>(&'a self, ports: &'a [ServicePort]) -> BoxFuture<'a, Result<(), String>> {
        let (rules, fronts) = (Rules::of(ports, &self.cidr), Fronts::of(ports));
        let (name, state) = (self.name.clone(), self.state.clone());
        let done = tokio::task::spawn_blocking(move || {
            let mut state = state.lock();
            carry_out(&name, rules, &mut state.held)?;
            state.judge(fronts);
            Ok(())
        });
        async move { done.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed()
    }
}

impl State {
    /// Ends flows that go where nobody is led to any more. What the kernel does not tell of them is no reason to lead
    /// nobody.
    fn judge(&mut self, fronts: Fronts) {
        if self.judged.as_ref() == Some(&fronts) {
            return;
        }
        match conntrack::forget_stale(&fronts) {
            Ok(count) => {
                tracing::debug!(count, "flows to endpoints that are gone were ended");
                self.judged = Some(fronts);
            }
            // Tried again with the next look.
            Err(error) if !self.is_blind => {
                self.is_blind = true;
                tracing::warn!(
                    %error,
                    "clients of UDP services may go on to ask endpoints that are gone: the kernel does not tell its flows; use one with CONFIG_NF_CT_NETLINK"
                );
            }
            Err(_) => {}
        }
    }
}

/// Brings a table from what it holds to what it is to hold; looks whether it does where that is the same.
fn carry_out(name: &str, rules: Rules, held: &mut Option<Rules>) -> Result<(), String> {
    let before = match held.take() {
        Some(before) if before != rules => {
            let script = rules.since(&before, name);
            if !script.is_empty() {
                tool("nft", &["-f", "-"], &script)?;
            }
            before
        }
        known => match tables::show(name)? {
            Some(text) if !frame::is_ours(&text) => {
                return Err(format!(
                    "there is a table ip {name} of nft(8) that reddwarf did not make; remove it, or choose another --etherstub-name"
                ));
            }
            Some(text) => {
                let shown = Shown::read(&text);
                if known.is_some() && holds(name, &shown, &rules)? {
                    *held = known;
                    return Ok(());
                }
                tell_taken(known.is_some());
                made_whole(name, shown, &rules)?
            }
            None => {
                tell_taken(known.is_some());
                made_anew(name, &rules)?
            }
        },
    };
    // A kernel may take a chain for used by the maps of the same transaction.
    let script = before.gone_in(&rules, name);
    if !script.is_empty() {
        tool("nft", &["-f", "-"], &script)?;
    }
    *held = Some(rules);
    Ok(())
}

fn tell_taken(was_there: bool) {
    if was_there {
        tracing::warn!("somebody took away rules of services; they are made again");
    }
}

/// Makes a table that is not there, or not as it has to be. In one transaction: at no moment is there no service.
fn made_anew(name: &str, rules: &Rules) -> Result<Rules, String> {
    let nothing = Rules::default();
    let script = frame::script(name, false) + &rules.since(&nothing, name);
    tool("nft", &["-f", "-"], &script)?;
    Ok(nothing)
}

/// Fills a table of which nobody knows what it holds: that of an earlier agent, or one that somebody changed. Clients
/// stay with their endpoints, which are in sets. Gives what of it may have to go.
fn made_whole(name: &str, shown: Shown, rules: &Rules) -> Result<Rules, String> {
    let before = remains(shown);
    let script = frame::script(name, true) + &rules.since(&before, name);
    match tool("nft", &["-f", "-"], &script) {
        Ok(_) => Ok(before),
        // Another version's frame, say.
        Err(_) => made_anew(name, rules),
    }
}

/// What a table still has once it leads nowhere: its sets, and chains without rules.
fn remains(shown: Shown) -> Rules {
    let fixed = frame::chains();
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

/// Whether a table has as much of everything as it has to.
fn holds(name: &str, shown: &Shown, rules: &Rules) -> Result<bool, String> {
    if !has_all(shown, rules) {
        return Ok(false);
    }
    let maps = frame::MAPS.map(|(map, _)| ("map", map)).into_iter();
    let sets = frame::SETS.map(|(set, _)| ("set", set));
    for (kind, map) in maps.chain(sets) {
        let expected = rules.elements.get(map).map_or(0, BTreeMap::len);
        if tables::count(name, kind, map)? != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a table has the chains and sets that it has to, and as many rules.
fn has_all(shown: &Shown, rules: &Rules) -> bool {
    let fixed = frame::chains();
    let fixed = fixed.iter().map(|chain| (chain.name, chain.rules.len()));
    let chains = rules.chains.iter();
    let chains = chains.map(|(name, rules)| (name.as_str(), rules.len()));
    let expected: BTreeMap<&str, usize> = fixed.chain(chains).collect();
    let found = shown.chains.iter();
    found
        .map(|(name, count)| (name.as_str(), *count))
        .eq(expected)
        && rules.sets.keys().all(|set| shown.sets.contains(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that holds `rules`, as it is shown.
    fn shown(rules: &Rules) -> Shown {
        let fixed = frame::chains().into_iter();
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
        assert!(has_all(&shown(&own), &own));
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
            assert!(!has_all(&broken, &own), "{what}");
        }
    }

    #[test]
    fn a_table_that_is_found_keeps_who_stays_where() {
        let earlier = rules(&["s/a", "s/gone"], &["a/a", "a/gone"]);
        let now = rules(&["s/a"], &["a/a", "a/new"]);
        let before = remains(shown(&earlier));
        assert_eq!(
            now.since(&before, "t"),
            "add set ip t a/new { type ipv4_addr; }\nadd chain ip t s/a\nflush chain ip t s/a\nadd rule ip t s/a drop\n"
        );
        assert_eq!(
            before.gone_in(&now, "t"),
            "flush chain ip t s/gone\ndelete chain ip t s/gone\ndelete set ip t a/gone\n"
        );
    }
}
