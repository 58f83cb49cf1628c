//! Name servers that this node is to ask and that ask it in turn: a resolver on this host, say, that somebody told to ask the
//! name server of the pods. Each question would go round until everybody's time is over. So every server is asked once for
//! a name that nobody has; the one by which that comes back is asked no more. CoreDNS's plugin `loop` does the same.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use parking_lot::Mutex;
use simple_dns::{Name, TYPE};

/// What such questions ask for: nobody else does.
pub(super) const KIND: TYPE = TYPE::HINFO;

/// What is known of servers that ask in turn.
#[derive(Default)]
pub(super) struct Loops(Mutex<State>);

#[derive(Default)]
struct State {
    /// The names that were asked for, and of whom.
    asked: HashMap<String, IpAddr>,
    /// Who asked for one of them.
    turned: HashSet<IpAddr>,
    /// Who is not to be asked.
    shunned: HashSet<IpAddr>,
}

impl Loops {
    /// Begins a round: gives each server a name to be asked for. Who was found before is not asked meanwhile.
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

    /// Ends a round, when all were asked. Tells whether anybody was found.
    pub(super) fn end(&self) -> bool {
        let mut state = self.0.lock();
        for server in state.shunned.difference(&state.turned) {
            tracing::info!(%server, "a name server asks this node no more: it is asked again");
        }
        state.shunned = state.turned.clone();
        !state.shunned.is_empty()
    }

    /// Whether a name is one that somebody was asked for; he is asked no more then.
    pub(super) fn came_back(&self, name: &Name<'_>) -> bool {
        let mut state = self.0.lock();
        let Some(server) = state.asked.get(&name.to_string()).copied() else {
            return false;
        };
        state.turned.insert(server);
        if state.shunned.insert(server) {
            tracing::warn!(
                "names of the world are not asked of {server}, which /etc/resolv.conf names: it asks this node in turn; let it ask another server than that of the pods"
            );
        }
        true
    }

    /// Whether a server is to be asked.
    pub(super) fn may_ask(&self, server: IpAddr) -> bool {
        !self.0.lock().shunned.contains(&server)
    }
}

/// A name that nobody has and nobody guesses.
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
        // It is not asked while it is tried again.
        let second = loops.begin(&[a, b]);
        assert_ne!(first, second);
        assert!(!loops.may_ask(b));
        assert!(!back(&first[1].1), "one of another round");
        assert!(!loops.end());
        assert!(loops.may_ask(b));
    }
}
