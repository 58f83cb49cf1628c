//! pod-garbage-collector-controller: deletes pods that nobody else will. Follows
//! k8s.io/kubernetes/pkg/controller/podgc.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::core::v1;
use kube::api::{Api, DeleteParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::pods::{Pods, disrupted, patch_status};
use crate::client::Context;
use crate::client::errors::is_not_found;
use crate::client::kinds::{Node, Pod};

/// How often to look for garbage.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be missing before its pods are deleted.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How many terminated pods are kept.
const KEPT: usize = 12_500;
/// The most deletions at the same time.
const AT_ONCE: usize = 16;
/// The taint of a node that was shut down for good.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Runs the controller.
pub async fn run(context: Context) {
    let pods = Pods::of(&context.informers).cache;
    let nodes = context.informers.of::<Node>();
    let mut missing = HashMap::new();
    let mut ticks = context.ticks(PERIOD).await;
    while ticks.next().await {
        let pods: Vec<Arc<Pod>> = pods.all().into_iter().map(|(_, pod)| pod).collect();
        let known: HashMap<String, Arc<Node>> = nodes
            .all()
            .into_iter()
            .map(|(key, node)| (key.name.to_string(), node))
            .collect();
        let suspects = suspects(&pods, &known, &mut missing, Instant::now());
        let mut gone = HashSet::new();
        for name in suspects {
            let api: Api<v1::Node> = Api::all(context.client.clone());
            match api.get_metadata_opt(&name).await {
                Ok(None) => {
                    gone.insert(name);
                }
                Ok(Some(_)) => {}
                Err(error) => {
                    tracing::warn!(node = name, %error, "cannot check whether the node is gone")
                }
            }
        }
        let doomed = doomed(&pods, &known, &gone, KEPT);
        let client = &context.client;
        stream::iter(doomed)
            .for_each_concurrent(AT_ONCE, |(pod, is_orphan)| async move {
                if let Err(error) = end(client, &pod, is_orphan).await {
                    tracing::warn!(pod = pod.name_any(), %error, "cannot delete the pod");
                }
            })
            .await;
    }
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.node_name.as_deref().unwrap_or_default()
}

/// Nodes of pods that have been missing for long enough; `missing` remembers since when.
fn suspects(
    pods: &[Arc<Pod>],
    nodes: &HashMap<String, Arc<Node>>,
    missing: &mut HashMap<String, Instant>,
    now: Instant,
) -> Vec<String> {
    let named: HashSet<&str> = pods
        .iter()
        .map(|pod| node_of(pod))
        .filter(|name| !name.is_empty() && !nodes.contains_key(*name))
        .collect();
    missing.retain(|name, _| named.contains(name.as_str()));
    for name in named {
        missing.entry(name.to_owned()).or_insert(now);
    }
    let long = missing
        .iter()
        .filter(|(_, since)| now.duration_since(**since) >= QUARANTINE);
    long.map(|(name, _)| name.clone()).collect()
}

/// The pods to delete, with `true` for those whose node is gone. In order: terminated pods beyond `kept`, evicted ones first
/// and then the oldest; terminating pods that have no node or one that is out of service; pods whose node is gone.
fn doomed(
    pods: &[Arc<Pod>],
    nodes: &HashMap<String, Arc<Node>>,
    gone: &HashSet<String>,
    kept: usize,
) -> Vec<(Arc<Pod>, bool)> {
    let has_ended = |pod: &Pod| !matches!(pod.phase(), "Pending" | "Running" | "Unknown");
    let mut ended: Vec<&Arc<Pod>> = pods.iter().filter(|pod| has_ended(pod)).collect();
    let surplus = ended.len().saturating_sub(kept);
    if surplus > 0 {
        ended.sort_by_cached_key(|pod| {
            let evicted =
                pod.phase() == "Failed" && pod.status.reason.as_deref() == Some("Evicted");
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!evicted, created, pod.name_any())
        });
    }
    ended.truncate(surplus);
    let mut taken: HashSet<Option<&str>> = ended
        .iter()
        .map(|pod| pod.metadata.uid.as_deref())
        .collect();
    let mut doomed: Vec<(Arc<Pod>, bool)> =
        ended.into_iter().map(|pod| (pod.clone(), false)).collect();
    for pod in pods {
        let is_orphan = gone.contains(node_of(pod));
        let ends_nowhere = pod.is_deleting()
            && match nodes.get(node_of(pod)) {
                Some(node) => is_out_of_service(node),
                None => node_of(pod).is_empty(),
            };
        if (is_orphan || ends_nowhere) && taken.insert(pod.metadata.uid.as_deref()) {
            doomed.push((pod.clone(), is_orphan));
        }
    }
    doomed
}

fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.taints.iter().flatten();
    !node.is_ready() && taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Marks a pod as failed and deletes it at once.
async fn end(client: &Client, pod: &Pod, is_orphan: bool) -> Result<(), kube::Error> {
    if !pod.is_terminal() {
        let mut status = serde_json::Map::new();
        status.insert("phase".to_owned(), json!("Failed"));
        status.insert(
            "observedGeneration".to_owned(),
            json!(pod.metadata.generation),
        );
        let patch = if is_orphan {
            let message = "PodGC: node no longer exists";
            disrupted(pod, "DeletionByPodGC", message, status)
        } else {
            Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
        };
        if let Some(patch) = patch
            && !patch_status(client, pod, &patch).await?
        {
            return Ok(());
        }
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<v1::Pod> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams::default().grace_period(0);
    match api.delete(&pod.name_any(), &params).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_nobody_else_ends_are_found() {
        // Name, node, phase, whether it is being deleted, reason, day of creation.
        let pods: Vec<Arc<Pod>> = [
            ("runs", "n", "Running", false, "", 1),
            ("ended-late", "n", "Succeeded", false, "", 3),
            ("ended-early", "n", "Failed", false, "", 2),
            ("evicted", "n", "Failed", false, "Evicted", 4),
            ("orphan", "gone", "Running", false, "", 1),
            ("ends", "n", "Running", true, "", 1),
            ("ends-off", "off", "Running", true, "", 1),
            ("ends-nowhere", "", "Pending", true, "", 1),
            ("ends-quarantined", "new", "Running", true, "", 1),
        ]
        .into_iter()
        .map(|(name, node, phase, ends, reason, day)| {
            let pod = json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z"),
                    "deletionTimestamp": ends.then_some("2026-01-09T00:00:00Z")},
                "spec": {"nodeName": node}, "status": {"phase": phase, "reason": reason}});
            Arc::new(serde_json::from_value(pod).unwrap())
        })
        .collect();
        let node = |ready: &str, taint: &str| -> Arc<Node> {
            let node = json!({"spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let nodes = HashMap::from([
            ("n".to_owned(), node("True", OUT_OF_SERVICE)),
            ("off".to_owned(), node("Unknown", OUT_OF_SERVICE)),
        ]);
        let names = |kept: usize, gone: &[&str]| -> String {
            let gone = gone.iter().map(|name| (*name).to_owned()).collect();
            let found = doomed(&pods, &nodes, &gone, kept).into_iter();
            let names: Vec<String> = found
                .map(|(pod, orphan)| pod.name_any() + if orphan { "!" } else { "" })
                .collect();
            names.join(" ")
        };
        assert_eq!(names(3, &[]), "ends-off ends-nowhere");
        assert_eq!(names(1, &[]), "evicted ended-early ends-off ends-nowhere");
        assert_eq!(names(3, &["gone"]), "orphan! ends-off ends-nowhere");

        let (mut missing, start) = (HashMap::new(), Instant::now());
        let mut look = |pods: &[Arc<Pod>], seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            let mut found = suspects(pods, &nodes, &mut missing, now);
            found.sort();
            found.join(" ")
        };
        assert_eq!(look(&pods[..5], 0), "");
        assert_eq!(look(&pods, 20), "");
        assert_eq!(look(&pods, 40), "gone");
        assert_eq!(look(&pods, 60), "gone new");
        assert_eq!(look(&pods[..4], 80), "");
        assert_eq!(look(&pods, 100), "");
    }
}
