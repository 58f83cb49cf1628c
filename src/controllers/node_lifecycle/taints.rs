//! The taints that nodes get from their conditions. Follows doNoScheduleTaintingPass and doNoExecuteTaintingPass of
//! k8s.io/kubernetes/pkg/controller/nodelifecycle.

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::client::kinds::Node;

const EFFECT: &str = "NoSchedule";
const EVICTS: &str = "NoExecute";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The taint of cordoned nodes.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// A condition, its status, and the corresponding taint.
const CONDITIONS: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The NoSchedule taints that a node should have; None if it has them.
pub(super) fn tainted(node: &Node, now: Timestamp) -> Option<Vec<v1::Taint>> {
    let holds = |kind: &str, status: &str| {
        let mut conditions = node.status.conditions.iter();
        conditions.any(|condition| condition.type_ == kind && condition.status == status)
    };
    let conditions = CONDITIONS
        .iter()
        .filter(|(kind, status, _)| holds(kind, status));
    let mut wanted: Vec<&str> = conditions.map(|(_, _, key)| *key).collect();
    if node.spec.unschedulable == Some(true) {
        wanted.push(UNSCHEDULABLE);
    }
    let is_ours = |taint: &v1::Taint| {
        taint.effect == EFFECT
            && (taint.key == UNSCHEDULABLE
                || CONDITIONS.iter().any(|(_, _, key)| *key == taint.key))
    };
    let had = node.spec.taints.as_deref().unwrap_or_default();
    let is_wanted = |taint: &v1::Taint| wanted.contains(&taint.key.as_str());
    let mut taints: Vec<v1::Taint> = had
        .iter()
        .filter(|taint| !is_ours(taint) || is_wanted(taint))
        .cloned()
        .collect();
    for key in &wanted {
        if !has(&taints, key, EFFECT) {
            taints.push(new(key, EFFECT, now));
        }
    }
    (taints != had).then_some(taints)
}

fn has(taints: &[v1::Taint], key: &str, effect: &str) -> bool {
    taints
        .iter()
        .any(|taint| taint.key == key && taint.effect == effect)
}

fn new(key: &str, effect: &str, now: Timestamp) -> v1::Taint {
    v1::Taint {
        key: key.to_owned(),
        effect: effect.to_owned(),
        time_added: Some(Time(now)),
        ..v1::Taint::default()
    }
}

/// When to write the NoExecute taints.
#[derive(Debug, PartialEq)]
pub(super) enum When {
    /// At once, because no additional pod is evicted by it.
    Now,
    /// When the rate limit of the node's zone allows it.
    InTurn,
}

/// The NoExecute taints that a node should have for this status of `Ready`; None if it has them.
pub(super) fn evicting(node: &Node, ready: &str, now: Timestamp) -> Option<(Vec<v1::Taint>, When)> {
    let wanted = match ready {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    };
    let had = node.spec.taints.as_deref().unwrap_or_default();
    let is_other = |taint: &v1::Taint| {
        taint.effect == EVICTS
            && matches!(taint.key.as_str(), NOT_READY | UNREACHABLE)
            && Some(taint.key.as_str()) != wanted
    };
    let mut taints: Vec<v1::Taint> = had
        .iter()
        .filter(|taint| !is_other(taint))
        .cloned()
        .collect();
    let swaps = taints.len() < had.len();
    if let Some(wanted) = wanted.filter(|wanted| !has(had, wanted, EVICTS)) {
        taints.push(new(wanted, EVICTS, now));
        return Some((taints, if swaps { When::Now } else { When::InTurn }));
    }
    swaps.then_some((taints, When::Now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_go_from_nodes_that_are_not_ready() {
        for (ready, had, wanted) in [
            ("True", "", None),
            ("True", "unreachable not-ready", Some(("", When::Now))),
            ("False", "", Some(("not-ready", When::InTurn))),
            ("False", "not-ready", None),
            ("False", "unreachable", Some(("not-ready", When::Now))),
            ("Unknown", "not-ready", Some(("unreachable", When::Now))),
            (
                "Unknown",
                "not-ready unreachable",
                Some(("unreachable", When::Now)),
            ),
        ] {
            let taints: Vec<_> = had
                .split_whitespace()
                .map(|key| {
                    new(
                        &format!("node.kubernetes.io/{key}"),
                        EVICTS,
                        Timestamp::UNIX_EPOCH,
                    )
                })
                .collect();
            let node: Node = serde_json::from_value(json!({"spec": {"taints": taints}})).unwrap();
            let found = evicting(&node, ready, Timestamp::UNIX_EPOCH).map(|(taints, when)| {
                let keys: Vec<&str> = taints
                    .iter()
                    .map(|taint| taint.key.trim_start_matches("node.kubernetes.io/"))
                    .collect();
                (keys.join(" "), when)
            });
            let wanted = wanted.map(|(keys, when)| (keys.to_owned(), when));
            assert_eq!(found, wanted, "{ready} {had}");
        }
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let taints = |conditions: &[(&str, &str)], unschedulable: bool, had: &[(&str, &str)]| {
            let conditions: Vec<_> = conditions
                .iter()
                .map(|(kind, status)| json!({"type": kind, "status": status}))
                .collect();
            let had: Vec<_> = had
                .iter()
                .map(|(key, effect)| json!({"key": key, "effect": effect}))
                .collect();
            let node: Node = serde_json::from_value(json!({
                "spec": {"unschedulable": unschedulable, "taints": had},
                "status": {"conditions": conditions},
            }))
            .unwrap();
            tainted(&node, Timestamp::UNIX_EPOCH).map(|taints| {
                let keys: Vec<String> = taints
                    .into_iter()
                    .map(|taint| taint.key.replace("node.kubernetes.io/", ""))
                    .collect();
                keys.join(" ")
            })
        };
        let not_ready = ("node.kubernetes.io/not-ready", "NoSchedule");
        let own = ("own", "NoSchedule");
        let (ready, silent) = (("Ready", "True"), ("Ready", "Unknown"));
        for (conditions, cordoned, had, wanted) in [
            (&[ready][..], false, &[not_ready, own][..], Some("own")),
            (&[], false, &[not_ready], Some("")),
            (&[silent], false, &[not_ready], Some("unreachable")),
            (&[("Ready", "False")], false, &[not_ready], None),
            (
                &[ready, ("DiskPressure", "True")],
                true,
                &[own],
                Some("own disk-pressure unschedulable"),
            ),
            (
                &[ready],
                false,
                &[("node.kubernetes.io/not-ready", "NoExecute")],
                None,
            ),
        ] {
            let got = taints(conditions, cordoned, had);
            assert_eq!(got.as_deref(), wanted, "{conditions:?} {cordoned} {had:?}");
        }
    }
}
