//! taint-eviction-controller: deletes pods from nodes with NoExecute taints that they do not, or no longer, tolerate.
//! Follows k8s.io/kubernetes/pkg/controller/tainteviction.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::pods::{Pods, disrupted, patch_status};
use crate::client::Context;
use crate::client::errors::is_not_found;
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Informer, Key};
use crate::client::kinds::{self, Node, Pod};
use crate::client::queue::{Next, Queue};

const WORKERS: usize = 8;
const REASON: &str = "TaintManagerEviction";
/// A hundred years, in seconds: clocks cannot add arbitrary values of a toleration.
const LONGEST: u64 = 100 * 366 * 86_400;

/// Pods to delete, and when.
type Due = HashMap<Key, (Instant, Arc<Pod>)>;

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Pods,
    recorder: Recorder,
    /// Pods to delete, and when.
    due: Arc<Mutex<Due>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Controller {
        nodes: context.informers.of::<Node>(),
        pods: Pods::of(&context.informers),
        due: Arc::default(),
        recorder: context.recorder("taint-eviction-controller"),
        context,
    };
    let queue = Arc::new(Queue::<Key>::new());
    let (nodes, due) = (controller.nodes.clone(), controller.due.clone());
    controller.pods.cache.enqueue(&queue, move |change| {
        let is_other = change.alters(|pod| {
            let spec = &pod.spec;
            (&pod.metadata.uid, &spec.node_name, &spec.tolerations)
        });
        if !is_other {
            return None;
        }
        let node = change.new.and_then(|pod| pod.spec.node_name.as_deref());
        let node = node.and_then(|node| nodes.get("", node));
        let is_tainted = node.is_some_and(|node| !evicting(&node).is_empty());
        let is_due = is_tainted || due.lock().contains_key(change.key);
        is_due.then(|| change.key.clone())
    });
    let by_node = controller.pods.by_node.clone();
    controller.nodes.enqueue(&queue, move |change| {
        let taints = |node: Option<&Arc<Node>>| node.map(|node| evicting(node)).unwrap_or_default();
        let differs = change.new.is_some() && taints(change.old) != taints(change.new);
        let pods = differs.then(|| by_node.keys(&change.key.name));
        pods.unwrap_or_default()
    });
    let look = |key: Key| controller.look(key);
    controller.context.work(&queue, WORKERS, look).await;
}

/// The NoExecute taints of a node.
fn evicting(node: &Node) -> Vec<v1::Taint> {
    let taints = node.spec.taints.iter().flatten();
    taints
        .filter(|taint| taint.effect == "NoExecute")
        .cloned()
        .collect()
}

/// The decision about a pod on a node.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It stays, as far as is known.
    Stays,
    /// It is deleted after this many seconds; 0 for at once.
    Goes(u64),
}

/// The decision about a pod with these tolerations under these taints. For each taint the first matching toleration
/// counts, and of all of them the shortest time.
fn fate(taints: &[v1::Taint], tolerations: &[v1::Toleration]) -> Fate {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let Some(read) = kinds::taint(taint) else {
            return Fate::Goes(0);
        };
        let bearing = tolerations
            .iter()
            .find(|toleration| kinds::toleration(toleration).bears(&read));
        let Some(bearing) = bearing else {
            return Fate::Goes(0);
        };
        if let Some(seconds) = bearing.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |least| least.min(seconds)));
        }
    }
    match shortest {
        None => Fate::Stays,
        Some(seconds) => Fate::Goes(u64::try_from(seconds).unwrap_or(0).min(LONGEST)),
    }
}

impl Controller {
    async fn look(&self, key: Key) -> Result<Next, kube::Error> {
        let mut due = self.due.lock().get(&key).cloned();
        let Some(pod) = self.pods.cache.get(&key.namespace, &key.name) else {
            self.cancel(&key);
            return Ok(Next::Done);
        };
        // An earlier pod of this name does not count.
        if due
            .take_if(|(_, known)| known.metadata.uid != pod.metadata.uid)
            .is_some()
        {
            self.cancel(&key);
        }
        let node = pod.spec.node_name.as_deref().unwrap_or_default();
        // Nothing new is known of a deleted node.
        let fate = self.nodes.get("", node).map(|node| {
            let taints = evicting(&node);
            fate(&taints, &pod.spec.tolerations)
        });
        let now = Instant::now();
        match (fate, due) {
            (Some(Fate::Goes(0)), due) => {
                if due.is_some_and(|(due, _)| due > now) {
                    self.cancel(&key);
                }
                self.evict(&key, &pod).await
            }
            (Some(Fate::Stays), _) => {
                self.cancel(&key);
                Ok(Next::Done)
            }
            // A deadline that has passed stands, whatever the pod tolerates now.
            (_, Some((due, _))) if due <= now => self.evict(&key, &pod).await,
            (_, Some((due, _))) => Ok(Next::After(due - now)),
            (None, None) => Ok(Next::Done),
            (Some(Fate::Goes(seconds)), None) => {
                let after = Duration::from_secs(seconds);
                self.due.lock().insert(key, (now + after, pod));
                Ok(Next::After(after))
            }
        }
    }

    /// Cancels the deletion of a pod.
    fn cancel(&self, key: &Key) {
        let cancelled = self.due.lock().remove(key);
        if let Some((_, pod)) = cancelled {
            let message = format!("Cancelling deletion of Pod {}/{}", key.namespace, key.name);
            self.recorder.tell(&*pod, Tone::Normal, REASON, message);
        }
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<Next, kube::Error> {
        if pod.is_deleting() {
            self.due.lock().remove(key);
            return Ok(Next::Done);
        }
        let message = format!("Marking for deletion Pod {}/{}", key.namespace, key.name);
        self.recorder.tell(pod, Tone::Normal, REASON, message);
        let why = "Taint manager: deleting due to NoExecute taint";
        let patch = disrupted(pod, "DeletionByTaintManager", why, serde_json::Map::new());
        if let Some(patch) = patch
            && !patch_status(&self.context.client, pod, &patch).await?
        {
            // It is gone, or was replaced by another pod, which must not be deleted.
            return Ok(Next::Retry);
        }
        let api: Api<v1::Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        match api.delete(&pod.name_any(), &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => return Err(error),
            _ => {}
        }
        self.due.lock().remove(key);
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_go_when_the_first_toleration_that_bears_a_taint_ends() {
        let taint = |key: &str| -> v1::Taint {
            serde_json::from_value(json!({"key": key, "value": "v", "effect": "NoExecute"}))
                .unwrap()
        };
        let bears = |key: &str, seconds: Option<i64>| -> v1::Toleration {
            serde_json::from_value(
                json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds}),
            )
            .unwrap()
        };
        let (a, b) = (taint("a"), taint("b"));
        for (taints, tolerations, wanted) in [
            (&[][..], vec![], Fate::Stays),
            (std::slice::from_ref(&a), vec![], Fate::Goes(0)),
            (
                std::slice::from_ref(&a),
                vec![bears("b", None)],
                Fate::Goes(0),
            ),
            (
                std::slice::from_ref(&a),
                vec![bears("a", None)],
                Fate::Stays,
            ),
            (
                std::slice::from_ref(&a),
                vec![bears("a", Some(9))],
                Fate::Goes(9),
            ),
            (
                std::slice::from_ref(&a),
                vec![bears("a", Some(-1))],
                Fate::Goes(0),
            ),
            (
                std::slice::from_ref(&a),
                vec![bears("a", None), bears("a", Some(9))],
                Fate::Stays,
            ),
            (
                &[a.clone(), b.clone()],
                vec![bears("a", Some(9))],
                Fate::Goes(0),
            ),
            (
                &[a.clone(), b.clone()],
                vec![bears("a", Some(9)), bears("b", None)],
                Fate::Goes(9),
            ),
            (
                std::slice::from_ref(&a),
                vec![bears("a", Some(i64::MAX))],
                Fate::Goes(LONGEST),
            ),
            (
                &[a.clone(), b],
                vec![bears("a", Some(9)), bears("b", Some(3))],
                Fate::Goes(3),
            ),
        ] {
            assert_eq!(
                fate(taints, &tolerations),
                wanted,
                "{taints:?} {tolerations:?}"
            );
        }
    }
}
