//! Limits the rate of evictions from the nodes of a zone: slower if many of its nodes are not ready, because then it is
//! probably the network that fails. Follows handleDisruption of k8s.io/kubernetes/pkg/controller/nodelifecycle.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Nodes per second in a healthy zone.
const RATE: f64 = 0.1;
/// Nodes per second in a large zone with many unready nodes.
const SLOW_RATE: f64 = 0.01;
/// A zone with more nodes than this is large.
const LARGE: usize = 50;
/// The share of unready nodes that counts as many.
const MANY: f64 = 0.55;

/// The state of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not known yet.
    Initial,
    Normal,
    /// Many of its nodes are not ready.
    Partial,
    /// No node is ready.
    Full,
}

struct Zone {
    state: State,
    rate: f64,
    tokens: f64,
    counted: Instant,
    /// Nodes that wait for their taint, each once.
    waiting: VecDeque<String>,
}

/// A change of the state of all zones together.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// No change.
    None,
    /// No node of any zone is ready any more: nothing is evicted, because the state of nodes is unknown.
    Lost,
    /// Some are ready again: all nodes get a new grace period.
    Found,
}

/// All zones.
#[derive(Default)]
pub(super) struct Zones(BTreeMap<String, Zone>);

fn judge(ready: &[bool]) -> State {
    let down = ready.iter().filter(|ready| !**ready).count();
    if down > 0 && down == ready.len() {
        State::Full
    } else if down > 2 && down as f64 / ready.len() as f64 >= MANY {
        State::Partial
    } else {
        State::Normal
    }
}

impl Zone {
    fn new(now: Instant) -> Zone {
        Zone {
            state: State::Initial,
            rate: RATE,
            tokens: 1.0,
            counted: now,
            waiting: VecDeque::new(),
        }
    }

    fn enter(&mut self, state: State, nodes: usize) {
        self.state = state;
        self.limit(match state {
            State::Partial if nodes > LARGE => SLOW_RATE,
            State::Partial => 0.0,
            State::Initial | State::Normal | State::Full => RATE,
        });
    }

    /// Sets the rate; a zone that was stopped may continue at once.
    fn limit(&mut self, rate: f64) {
        if rate == 0.0 {
            self.tokens = 0.0;
        } else if self.rate == 0.0 {
            self.tokens = 1.0;
        }
        self.rate = rate;
    }

    fn count(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.counted).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.rate).min(1.0);
        self.counted = now;
    }
}

impl Zones {
    /// Updates the zones with the readiness of their nodes.
    pub(super) fn observe(&mut self, ready: &BTreeMap<String, Vec<bool>>, now: Instant) -> Turn {
        for zone in ready.keys() {
            self.0.entry(zone.clone()).or_insert_with(|| Zone::new(now));
        }
        self.0.retain(|zone, _| ready.contains_key(zone));
        let states: BTreeMap<&String, State> = ready
            .iter()
            .map(|(zone, ready)| (zone, judge(ready)))
            .collect();
        let all_full = states.values().all(|state| *state == State::Full);
        let all_were_full = self.0.values().all(|zone| zone.state == State::Full);
        if all_full && all_were_full {
            return Turn::None;
        }
        for (name, zone) in &mut self.0 {
            zone.count(now);
            let state = states[name];
            if all_full {
                zone.state = State::Full;
                zone.limit(0.0);
                zone.waiting.clear();
            } else if zone.state != state || all_were_full {
                zone.enter(state, ready[name].len());
            }
        }
        match (all_full, all_were_full) {
            (true, _) => Turn::Lost,
            (_, true) => Turn::Found,
            _ => Turn::None,
        }
    }

    /// Enqueues a node for its taint.
    pub(super) fn wait(&mut self, zone: &str, node: &str, now: Instant) {
        let zone = self
            .0
            .entry(zone.to_owned())
            .or_insert_with(|| Zone::new(now));
        if !zone.waiting.iter().any(|known| known == node) {
            zone.waiting.push_back(node.to_owned());
        }
    }

    /// Removes a node that no longer needs a taint.
    pub(super) fn forget(&mut self, zone: &str, node: &str) {
        if let Some(zone) = self.0.get_mut(zone) {
            zone.waiting.retain(|known| known != node);
        }
    }

    /// The nodes whose turn it is, and when the next one's comes, if any waits.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<String>, Option<Duration>) {
        let (mut due, mut next) = (Vec::new(), None);
        for zone in self.0.values_mut() {
            zone.count(now);
            while zone.tokens >= 1.0
                && let Some(node) = zone.waiting.pop_front()
            {
                zone.tokens -= 1.0;
                due.push(node);
            }
            if !zone.waiting.is_empty() && zone.rate > 0.0 {
                let left = Duration::from_secs_f64((1.0 - zone.tokens) / zone.rate);
                next = Some(next.map_or(left, |least: Duration| least.min(left)));
            }
        }
        (due, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_go_slower_the_more_nodes_are_down() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let zone = |up: usize, down: usize| [vec![true; up], vec![false; down]].concat();
        let of = |zones: &[(&str, Vec<bool>)]| -> BTreeMap<String, Vec<bool>> {
            let zones = zones.iter();
            zones
                .map(|(name, ready)| ((*name).to_owned(), ready.clone()))
                .collect()
        };
        assert_eq!(judge(&zone(1, 2)), State::Normal, "two are not many");
        assert_eq!(judge(&zone(2, 3)), State::Partial);
        assert_eq!(judge(&zone(3, 3)), State::Normal);
        assert_eq!(judge(&zone(0, 1)), State::Full);

        let mut zones = Zones::default();
        assert_eq!(zones.observe(&of(&[("a", zone(8, 3))]), at(0)), Turn::None);
        for node in ["x", "y", "x", "z"] {
            zones.wait("a", node, at(0));
        }
        let (first, next) = zones.due(at(0));
        assert_eq!(
            (first, next),
            (vec!["x".to_owned()], Some(Duration::from_secs(10)))
        );
        assert_eq!(zones.due(at(9)).0, [""; 0]);
        assert_eq!(zones.due(at(11)).0, ["y"]);
        zones.observe(&of(&[("a", zone(2, 9))]), at(22));
        assert_eq!(zones.due(at(500)), (vec![], None), "it stops at once");
        zones.wait("a", "w", at(500));
        assert_eq!(
            zones.due(at(5000)),
            (vec![], None),
            "a small zone that is down stops"
        );
        zones.observe(&of(&[("a", zone(20, 40))]), at(5000));
        assert_eq!(zones.due(at(5001)).0, [""; 0]);
        zones.forget("a", "w");
        zones.forget("a", "z");

        assert_eq!(
            zones.observe(&of(&[("a", zone(0, 9)), ("b", zone(1, 0))]), at(6000)),
            Turn::None
        );
        zones.wait("a", "v", at(6000));
        assert_eq!(zones.due(at(6020)).0, ["v"], "others are ready");
        assert_eq!(
            zones.observe(&of(&[("a", zone(0, 9)), ("b", zone(0, 1))]), at(6030)),
            Turn::Lost
        );
        zones.wait("a", "u", at(6030));
        assert_eq!(zones.due(at(9000)), (vec![], None));
        assert_eq!(
            zones.observe(&of(&[("a", zone(0, 9)), ("b", zone(0, 1))]), at(9000)),
            Turn::None
        );
        assert_eq!(
            zones.observe(&of(&[("a", zone(1, 8)), ("b", zone(0, 1))]), at(9001)),
            Turn::Found
        );
    }
}
