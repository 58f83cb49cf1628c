//! node-lifecycle-controller: taints nodes that are not ready or silent, and marks or evicts their pods. Follows
//! k8s.io/kubernetes/pkg/controller/nodelifecycle.

mod health;
mod monitor;
mod taints;
mod zones;

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use futures::join;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use self::monitor::Monitor;
use super::pods::{Pods, patch_status};
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::Key;
use crate::client::kinds::{Node, NodeLease, Pod};
use crate::client::queue::{Next, Queue};

const WORKERS: usize = 8;
const POD_WORKERS: usize = 4;
/// How many conflicts there may be before a node's taints are tried again later.
const TRIES: usize = 5;
/// Labels, and their older names that have the same value.
const LABELS: &[(&str, &str)] = &[
    ("kubernetes.io/os", "beta.kubernetes.io/os"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
];

/// Runs the controller.
pub async fn run(context: Context) {
    let recorder = context.recorder("node-controller");
    let nodes = context.informers.of::<Node>();
    let leases = context.informers.of::<NodeLease>();
    let pods = Pods::of(&context.informers);

    let changed = Arc::new(Queue::<CompactString>::new());
    nodes.enqueue(&changed, |change| {
        let node = change.new?;
        let is_other =
            taints::tainted(node, Timestamp::now()).is_some() || !older_labels(node).is_empty();
        is_other.then(|| change.key.name.clone())
    });
    let placed = Arc::new(Queue::<Key>::new());
    let known = nodes.clone();
    pods.cache.enqueue(&placed, move |change| {
        let came = change.alters(|pod| (&pod.metadata.uid, &pod.spec.node_name));
        let node = change.new?.spec.node_name.as_deref()?;
        let node = known.get("", node).filter(|node| came && is_down(node));
        node.map(|_| change.key.clone())
    });

    let follow = |name: CompactString| {
        let found = nodes.get("", &name);
        let client = &context.client;
        async move {
            let Some(node) = found else {
                return Ok(Next::Done);
            };
            let labels = older_labels(&node);
            if !labels.is_empty() {
                let patch = json!({"metadata": {"labels": labels}});
                let api: Api<v1::Node> = Api::all(client.clone());
                let params = PatchParams::default();
                match api.patch(&name, &params, &Patch::Merge(patch)).await {
                    Err(error) if !is_not_found(&error) => return Err(error),
                    _ => {}
                }
            }
            let wanted = |node: &Node| taints::tainted(node, Timestamp::now());
            match swap_taints(client, &node, wanted).await? {
                true => Ok(Next::Done),
                false => Ok(Next::Retry),
            }
        }
    };
    let mark = |key: Key| {
        let pod = pods.cache.get(&key.namespace, &key.name);
        let node = pod
            .as_ref()
            .and_then(|pod| nodes.get("", pod.spec.node_name.as_deref().unwrap_or_default()));
        let (client, recorder) = (&context.client, &recorder);
        async move {
            if let (Some(pod), Some(node)) = (pod, node)
                && is_down(&node)
            {
                mark_not_ready(client, recorder, &pod).await?;
            }
            Ok::<_, kube::Error>(Next::Done)
        }
    };
    context.synced().await;
    let monitor = Monitor::new(&context, &nodes, &leases, &pods, &recorder);
    join!(
        context.work(&changed, WORKERS, follow),
        context.work(&placed, POD_WORKERS, mark),
        monitor.run(),
    );
}

/// Whether a node is not ready, or has become silent.
fn is_down(node: &Node) -> bool {
    node.ready().is_some_and(|ready| ready.status != "True")
}

/// The older labels of a node that are missing or differ.
fn older_labels(node: &Node) -> BTreeMap<&'static str, String> {
    let labels = node.labels();
    let pairs = LABELS.iter().filter_map(|(label, older)| {
        let value = labels.get(*label)?;
        (labels.get(*older) != Some(value)).then(|| (*older, value.clone()))
    });
    pairs.collect()
}

/// Changes the taints of a node to those that `wanted` returns, if it returns any. Returns false if too many conflicts
/// prevented it.
async fn swap_taints(
    client: &Client,
    node: &Node,
    wanted: impl Fn(&Node) -> Option<Vec<v1::Taint>>,
) -> Result<bool, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let name = node.name_any();
    let mut fresh = None;
    for _ in 0..TRIES {
        let node = fresh.as_ref().unwrap_or(node);
        let Some(taints) = wanted(node) else {
            return Ok(true);
        };
        // Concurrent changes of the taints win.
        let version = &node.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
        match api
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => return Ok(true),
            Err(error) if is_not_found(&error) => return Ok(true),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
        match api.get_opt(&name).await? {
            Some(found) => fresh = Some(found),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Marks a pod as not ready because its node is not.
async fn mark_not_ready(
    client: &Client,
    recorder: &Recorder,
    pod: &Pod,
) -> Result<(), kube::Error> {
    if matches!(pod.condition("Ready"), "" | "False") {
        return Ok(());
    }
    let condition =
        json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now())});
    let patch =
        json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
    if patch_status(client, pod, &patch).await? {
        recorder.tell(pod, Tone::Warning, "NodeNotReady", "Node is not ready");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_labels_follow() {
        let older = |labels: serde_json::Value| {
            let node = serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap();
            let older: Vec<String> = older_labels(&node)
                .into_iter()
                .map(|(label, value)| format!("{label}={value}"))
                .collect();
            older.join(" ")
        };
        assert_eq!(older(json!({})), "");
        assert_eq!(
            older(
                json!({"kubernetes.io/os": "a", "kubernetes.io/arch": "b", "beta.kubernetes.io/arch": "c"})
            ),
            "beta.kubernetes.io/arch=b beta.kubernetes.io/os=a"
        );
        let same = json!({"kubernetes.io/os": "a", "beta.kubernetes.io/os": "a", "beta.kubernetes.io/arch": "x"});
        assert_eq!(older(same), "");
    }
}
