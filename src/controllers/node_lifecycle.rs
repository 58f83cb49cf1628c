//! node-lifecycle-controller, as far as it goes: taints of nodes follow their conditions, so that new pods stay away
//! from nodes that are not ready. Follows doNoScheduleTaintingPass of k8s.io/kubernetes/pkg/controller/nodelifecycle.
//!
//! Nodes that fall silent are not noticed here.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Context;
use super::errors::{is_conflict, is_not_found};
use super::kinds::Node;
use super::queue::{Next, Queue};

const WORKERS: usize = 8;
const EFFECT: &str = "NoSchedule";
/// The taint of nodes that were cordoned.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// A condition, its state, and the taint that goes with it.
const CONDITIONS: &[(&str, &str, &str)] = &[
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
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

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<CompactString>::new());
    let nodes = context.informers.of::<Node>();
    let adds = queue.clone();
    nodes.subscribe(move |change| {
        if let Some(node) = change.new
            && tainted(node, Timestamp::now()).is_some()
        {
            adds.add(change.key.name.clone());
        }
    });
    nodes.synced().await;
    let look = |name: CompactString| {
        let found = nodes.get("", &name);
        let client = context.client.clone();
        async move {
            let Some(node) = found else {
                return Ok(Next::Done);
            };
            let Some(taints) = tainted(&node, Timestamp::now()) else {
                return Ok(Next::Done);
            };
            // Whoever else writes taints meanwhile wins.
            let version = &node.metadata.resource_version;
            let patch =
                json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
            let api: Api<v1::Node> = Api::all(client);
            match api
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Err(error) if is_conflict(&error) => Ok(Next::Retry),
                Err(error) if !is_not_found(&error) => Err(error),
                _ => Ok(Next::Done),
            }
        }
    };
    queue.work(WORKERS, &context.ends, look).await;
}

/// The taints that a node is to have; none where it has them.
fn tainted(node: &Node, now: Timestamp) -> Option<Vec<v1::Taint>> {
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
        if !taints
            .iter()
            .any(|taint| taint.key == *key && taint.effect == EFFECT)
        {
            taints.push(v1::Taint {
                key: (*key).to_owned(),
                effect: EFFECT.to_owned(),
                time_added: Some(Time(now)),
                ..v1::Taint::default()
            });
        }
    }
    (taints != had).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;

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
