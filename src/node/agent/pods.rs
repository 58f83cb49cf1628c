//! The pods of a node, for the servers beside the agent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;

use super::super::machine::is_over;
use super::super::worker::{Handle, Told};

/// The pods of an agent, for its own API. Clones share the same pods.
#[derive(Clone, Default)]
pub struct Pods {
    pub(super) map: Arc<Mutex<HashMap<String, Handle>>>,
    pub(super) listed: Arc<AtomicBool>,
}

impl Pods {
    /// Every pod with its last computed status.
    pub fn list(&self) -> Vec<(Arc<Pod>, Option<Arc<PodStatus>>)> {
        let map = self.map.lock();
        map.values()
            .map(|handle| {
                let pod = handle.wanted.borrow().pod.clone();
                (pod, handle.status.borrow().clone())
            })
            .collect()
    }
    /// Those that have not terminated; None until the API has listed all pods.
    pub fn active(&self) -> Option<Vec<Arc<Pod>>> {
        if !self.listed.load(Ordering::Acquire) {
            return None;
        }
        let over = |status: Option<&PodStatus>| status.is_some_and(is_over);
        let all = self.list().into_iter();
        let active =
            all.filter(|(pod, status)| !over(status.as_deref()) && !over(pod.status.as_ref()));
        Some(active.map(|(pod, _)| pod).collect())
    }
    /// Evicts a pod, for a reason of the node (`disrupts`) or of the pod itself.
    pub fn evict(&self, pod: &Pod, message: String, disrupts: bool) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(handle) = self.map.lock().get(uid) {
            // If the worker's queue is full, it gets this with the next check.
            let _ = handle
                .told
                .try_send(Box::new(Told::Evicted { message, disrupts }));
        }
    }
    /// Those that the API has. Others are being ended, and other pods may have their names.
    pub fn known(&self) -> Vec<(Arc<Pod>, Option<Arc<PodStatus>>)> {
        let map = self.map.lock();
        let known = map.values().filter(|handle| !handle.wanted.borrow().gone);
        known
            .map(|handle| {
                let pod = handle.wanted.borrow().pod.clone();
                (pod, handle.status.borrow().clone())
            })
            .collect()
    }
    /// A pod by name; by its uid, too, if that is given.
    pub fn find(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
    ) -> Option<(Arc<Pod>, Option<Arc<PodStatus>>)> {
        newest(self.known(), namespace, name, uid)
    }
}

/// The newest pod of a name, of those with this uid if one is given.
pub(super) fn newest<T>(
    pods: Vec<(Arc<Pod>, T)>,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Option<(Arc<Pod>, T)> {
    let of_name = pods.into_iter().filter(|(pod, _)| {
        let metadata = &pod.metadata;
        metadata.namespace.as_deref() == Some(namespace)
            && metadata.name.as_deref() == Some(name)
            && uid.is_none_or(|uid| metadata.uid.as_deref() == Some(uid))
    });
    of_name.max_by_key(|(pod, _)| pod.metadata.creation_timestamp.clone())
}
