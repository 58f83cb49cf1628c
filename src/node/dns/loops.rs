//! Detects name servers that forward back to this node, like a resolver on this host that was configured to use the
//! pods' name server: each query would circulate until it times out. Every server is asked once for a unique name; if
//! that query arrives here, the server is no longer used. CoreDNS's plugin `loop` does the same.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use parking_lot::Mutex;
use simple_dns::{Name, TYPE};

/// The query type of such queries, which clients do not use.
pub(super) const KIND: TYPE = TYPE::HINFO;

/// The known loops.
#[derive(Default)]
pub(super) struct Loops(Mutex<State>);

#[derive(Default)]
struct State {
    /// The unique names, and the server that was asked for each.
    asked: HashMap<String, IpAddr>,
    /// Servers whose name came back in this round.
    turned: HashSet<IpAddr>,
    /// Servers that must not be used.
    shunned: HashSet<IpAddr>,
}

impl Loops {
    /// Begins a round: assigns a name to each server. Servers with a known loop are not used meanwhile.
    pub(super) fn begin(&self, servers: &[IpAddr]) -> Vec<(IpAddr, String)> {
        let names = servers.iter().map(|server| (*server, unknown_name()));
        let names: Vec<(IpAddr, String)> = names.collect();
        let mut state = self.0.lock();
        state.turned.clear();
        state.asked = names
            .iter()
            .map(|(server, name)| (name.clone(), *server))
            .collect();
        names
    }

    /// Ends a round, after all servers were asked. Returns whether a loop was found.
    pub(super) fn end(&self) -> bool {
        let mut state = self.0.lock();
        for server in state.shunned.difference(&state.turned) {
            tracing::info!(%server, "a name server no longer forwards to this node: it is used again");
        }
        state.shunned = state.turned.clone();
        !state.shunned.is_empty()
    }

    /// Whether a name was assigned to a server; that server is not used from then on.
    pub(super) fn came_back(&self, name: &Name<'_>) -> bool {
        let mut state = self.0.lock();
        let Some(server) = state.asked.get(&name.to_string()).copied() else {
            return false;
        };
        state.turned.insert(server);
        if state.shunned.insert(server) {
            tracing::warn!(
                "the name server {server} in /etc/resolv.conf is not used, because it forwards to this node; configure it to use another server than that of the pods"
            );
        }
        true
    }

    /// Whether a server may be used.
    pub(super) fn may_ask(&self, server: IpAddr) -> bool {
        !self.0.lock().shunned.contains(&server)
    }
}

/// A random name that does not exist.
fn unknown_name() -> String {
    let mut bytes = [0; 16];
    crate::meta::names::random(&mut bytes);
    let [low, high] = [&bytes[..8], &bytes[8..]].map(|half| {
        let half = half.iter().map(|byte| format!("{byte:02x}"));
        half.collect::<String>()
    });
    format!("{low}.{high}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_in_turn_is_not_asked_until_he_stops() {
        let [a, b] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        let loops = Loops::default();
        let back = |name: &str| loops.came_back(&Name::new(name).expect("a name"));
        let first = loops.begin(&[a, b]);
        assert!(!back("example.org"));
        assert!(back(&first[1].1));
        assert!(loops.may_ask(a) && !loops.may_ask(b));
        assert!(loops.end());
        // It is not used while it is tested again.
        let second = loops.begin(&[a, b]);
        assert_ne!(first, second);
        assert!(!loops.may_ask(b));
        assert!(!back(&first[1].1), "one of another round");
        assert!(!loops.end());
        assert!(loops.may_ask(b));
    }
}
