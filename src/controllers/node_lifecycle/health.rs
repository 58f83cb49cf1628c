//! Whether a node is still sending heartbeats. Follows tryUpdateNodeHealth of
//! k8s.io/kubernetes/pkg/controller/nodelifecycle.

use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::client::kinds::{Node, NodeLease};

/// How long a node may be silent.
const GRACE: Duration = Duration::from_secs(50);
/// How long a new node may be silent that has never sent a heartbeat.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// Conditions that only the node itself knows.
const OWN: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The last sign of life of a node. Only this process's clock counts: those of nodes may be wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Health {
    /// When the last change was seen.
    pub since: Instant,
    /// The time of the last heartbeat, if it ever had a condition `Ready`.
    heartbeat: Option<Option<Time>>,
    renewed: Option<MicroTime>,
}

/// The updated state of a node, and whether it has been silent for too long.
pub(super) fn hear(
    before: Option<&Health>,
    node: &Node,
    lease: Option<&NodeLease>,
    (now, wall): (Instant, Timestamp),
) -> (Health, bool) {
    let heartbeat = node.ready().map(|ready| ready.last_heartbeat_time.clone());
    let grace = match heartbeat {
        Some(_) => GRACE,
        None => STARTUP_GRACE,
    };
    let mut health = match before {
        Some(before) => before.clone(),
        None => Health {
            since: match heartbeat {
                Some(_) => now,
                None => now.checked_sub(age(node, wall)).unwrap_or(now),
            },
            heartbeat: heartbeat.clone(),
            renewed: None,
        },
    };
    if health.heartbeat != heartbeat {
        (health.since, health.heartbeat) = (now, heartbeat);
    }
    let renewed = lease.map(|lease| lease.spec.renew_time.clone().unwrap_or_else(long_ago));
    if let Some(renewed) = renewed
        && health
            .renewed
            .as_ref()
            .is_none_or(|before| before.0 < renewed.0)
    {
        (health.since, health.renewed) = (now, Some(renewed));
    }
    let silent = now.duration_since(health.since) > grace;
    (health, silent)
}

fn long_ago() -> MicroTime {
    MicroTime(Timestamp::UNIX_EPOCH)
}

fn age(node: &Node, wall: Timestamp) -> Duration {
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let millis = created.map_or(0, |created| {
        wall.as_millisecond() - created.as_millisecond()
    });
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The changed conditions of a node that has been silent for too long; None if they are set already.
pub(super) fn silenced(node: &Node, now: Timestamp) -> Vec<v1::NodeCondition> {
    if node.ready().is_some_and(|ready| ready.status == "Unknown") {
        return Vec::new();
    }
    let unknown = |kind: &&str| {
        let had = node
            .status
            .conditions
            .iter()
            .find(|had| had.type_ == **kind);
        let (reason, message, heartbeat) = match had {
            Some(had) if had.status == "Unknown" => return None,
            Some(had) => (
                "NodeStatusUnknown",
                "Kubelet stopped posting node status.",
                had.last_heartbeat_time.clone(),
            ),
            None => (
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
                node.metadata.creation_timestamp.clone(),
            ),
        };
        Some(v1::NodeCondition {
            type_: (*kind).to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: heartbeat,
            last_transition_time: Some(Time(now)),
        })
    };
    OWN.iter().filter_map(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(heartbeat: Option<u32>, status: &str) -> Node {
        let conditions: Vec<_> = heartbeat
            .into_iter()
            .map(|second| json!({"type": "Ready", "status": status, "lastHeartbeatTime": format!("2026-01-01T00:00:{second:02}Z")}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn a_node_is_silent_when_neither_status_nor_lease_come() {
        let lease = |second: u32| -> NodeLease {
            let time = format!("2026-01-01T00:00:{second:02}.000000Z");
            serde_json::from_value(json!({"spec": {"renewTime": time}})).unwrap()
        };
        let (start, wall): (Instant, Timestamp) = (
            Instant::now() + Duration::from_secs(1000),
            "2026-01-01T00:00:20Z".parse().unwrap(),
        );
        // At each look: the time, the heartbeat and the lease, and whether it is silent.
        for (case, looks) in [
            (
                "never heard of",
                &[
                    (0, None, None, false),
                    (40, None, None, false),
                    (41, None, None, true),
                ][..],
            ),
            (
                "heartbeats",
                &[
                    (0, Some(1), None, false),
                    (50, Some(1), None, false),
                    (51, Some(1), None, true),
                    (52, Some(9), None, false),
                ],
            ),
            (
                "leases",
                &[
                    (0, Some(1), Some(1), false),
                    (45, Some(1), Some(2), false),
                    (95, Some(1), Some(2), false),
                    (96, Some(1), Some(2), true),
                ],
            ),
            (
                "a clock that goes back",
                &[
                    (0, Some(9), None, false),
                    (30, Some(3), None, false),
                    (80, Some(3), None, false),
                ],
            ),
            (
                "a first word",
                &[
                    (0, None, None, false),
                    (30, Some(1), None, false),
                    (80, Some(1), None, false),
                    (81, Some(1), None, true),
                ],
            ),
        ] {
            let mut health = None;
            for (at, heartbeat, renewed, silent) in looks {
                let now = start + Duration::from_secs(*at);
                let (node, lease) = (node(*heartbeat, "True"), renewed.map(lease));
                let (after, found) = hear(health.as_ref(), &node, lease.as_ref(), (now, wall));
                assert_eq!(found, *silent, "{case} at {at}");
                health = Some(after);
            }
        }
    }

    #[test]
    fn what_only_the_node_knows_becomes_unknown() {
        let kinds = |node: &Node| -> Vec<(String, String)> {
            let changed = silenced(node, Timestamp::UNIX_EPOCH).into_iter();
            changed
                .map(|one| (one.type_, one.reason.unwrap()))
                .collect()
        };
        let found = kinds(&node(Some(1), "True"));
        assert_eq!(
            found[0],
            ("Ready".to_owned(), "NodeStatusUnknown".to_owned())
        );
        assert_eq!(
            found[3],
            (
                "PIDPressure".to_owned(),
                "NodeStatusNeverUpdated".to_owned()
            )
        );
        assert_eq!(kinds(&node(None, "")).len(), 4);
        assert_eq!(kinds(&node(Some(1), "Unknown")), []);
    }
}
