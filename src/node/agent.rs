//! The agent of one node: registers it, watches its pods, and runs a worker for each.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use kube::api::Api;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::allocations::Allocations;
use super::kubelet::configz::Settings;
use super::machine::{POD_UID, is_over, spec_of};
use super::pressure::{self, Observed, Thresholds};
use super::register::{self, DECLARED, Fitness, Registration};
use super::routes::Reach;
use super::supplies::Supplies;
use super::sysctls::Sysctls;
use super::worker::{self, Ended, Handle, Refusal, Shared, Told, Wanted};
use super::zone_name;
use crate::client::events::Recorder;
use crate::client::follow::{Event, follow};
use crate::meta::placement::needed_feature;
use crate::supervise::{Supervisor, Task};
use crate::zone::{ZoneName, ZoneRuntime};

crate::slim!(
    /// A pod as its node reads it from the API.
    Lean of Pod {
        /// Its spec.
        spec: Option<PodSpec>,
        /// Its status.
        status: Option<PodStatus>,
    }
);

/// The parts of an agent.
pub struct Setup {
    /// A client as `system:node:NAME`.
    pub client: kube::Client,
    /// Records events about the node and its pods.
    pub recorder: Recorder,
    /// The node object to register.
    pub registration: Registration,
    /// The runtime of its zones.
    pub runtime: Arc<dyn ZoneRuntime>,
    /// The host's side of pods.
    pub supplies: Arc<dyn Supplies>,
    /// Where logs are kept, if anywhere.
    pub logs: Option<super::host::Logs>,
    /// When pods are evicted.
    pub thresholds: Thresholds,
    /// The sysctls that pods may set.
    pub sysctls: Sysctls,
    /// What the node's own API tells of its configuration.
    pub settings: Settings,
    /// Whether pods of other nodes can be reached; no value if nobody maintains routes.
    pub reach: watch::Receiver<Option<Reach>>,
    /// Further tasks that run as long as the agent.
    pub beside: Vec<Task>,
}

/// The pods of an agent, for its own API. Clones share the same pods.
#[derive(Clone, Default)]
pub struct Pods {
    map: Arc<Mutex<HashMap<String, Handle>>>,
    listed: Arc<AtomicBool>,
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
fn newest<T>(
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

/// Runs an agent until `ends` is cancelled; pods keep running.
pub async fn run(setup: Setup, pods: Pods, ends: CancellationToken) {
    let node = setup.registration.name.clone();
    let shared = Arc::new(Shared {
        client: setup.client.clone(),
        runtime: setup.runtime.clone(),
        supplies: setup.supplies.clone(),
        recorder: setup.recorder.clone(),
        addresses: setup.registration.addresses.clone(),
        observed: Arc::new(Observed::default()),
        allocations: Allocations::new(&setup.registration.allocatable),
    });
    let tasks = Supervisor::new(ends);
    let named = |what: &str| format!("{what} of node {node}");
    let about = (shared.clone(), node.clone(), pods.clone(), setup.thresholds);
    tasks.keep(named("eviction"), move |ends| {
        let (shared, node, pods, thresholds) = about.clone();
        pressure::keep(shared, node, pods, thresholds, ends)
    });
    let (client, recorder, observed) = (setup.client, setup.recorder, shared.observed.clone());
    let fitness = Fitness::Asked(setup.runtime.clone(), setup.supplies);
    let (registration, reach) = (setup.registration, setup.reach);
    tasks.keep(named("status and lease"), move |ends| {
        let (client, recorder) = (client.clone(), recorder.clone());
        let (registration, fitness) = (registration.clone(), fitness.clone());
        register::keep(
            client,
            registration,
            fitness,
            observed.clone(),
            reach.clone(),
            recorder,
            ends,
        )
    });
    setup
        .beside
        .into_iter()
        .for_each(|task| tasks.keep_task(task));
    let (runtime, woken) = (setup.runtime, pods.clone());
    tasks.keep(named("changes of zones"), move |ends| {
        wake(runtime.clone(), woken.clone(), ends)
    });
    let sysctls = setup.sysctls;
    tasks.keep(named("pods"), move |ends| {
        let mut agent = Agent {
            shared: shared.clone(),
            pods: pods.clone(),
            sysctls: sysctls.clone(),
            known: Vec::new(),
            workers: JoinSet::new(),
            removing: JoinSet::new(),
        };
        let node = node.clone();
        async move { agent.watch(&node, ends).await }
    });
    tasks.ended().await;
}

/// Wakes the workers of zones in which something changed.
async fn wake(runtime: Arc<dyn ZoneRuntime>, pods: Pods, ends: CancellationToken) {
    let mut changes = runtime.changes();
    loop {
        let changed = tokio::select! {
            // Cancel-safe: a change that was not taken stays in the channel.
            changed = changes.recv() => changed,
            () = ends.cancelled() => return,
        };
        match changed {
            Ok(zone) => {
                let uid = zone.as_str().strip_prefix("rd-").unwrap_or_default();
                if let Some(handle) = pods.map.lock().get(uid) {
                    handle.changed.notify_one();
                }
            }
            Err(RecvError::Lagged(_)) => {
                for handle in pods.map.lock().values() {
                    handle.changed.notify_one();
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Whether a pod has neither terminated nor is being ended.
fn goes_on(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !pod.status.as_ref().is_some_and(is_over)
}

/// Why a pod is refused because it needs a feature that this node does not declare.
fn needs_more(pod: &Pod) -> Option<Refusal> {
    let spec = spec_of(pod);
    let containers = spec.init_containers.iter().flatten();
    let containers = containers.chain(&spec.containers);
    let rules = containers.flat_map(|one| one.restart_policy_rules.iter().flatten());
    let feature = needed_feature(rules.map(|rule| rule.action.as_str()))
        .filter(|feature| !DECLARED.contains(feature))?;
    Some(Refusal {
        reason: "PodFeatureUnsupported",
        message: format!("Pod requires node features that are not available: {feature}"),
    })
}

struct Agent {
    shared: Arc<Shared>,
    pods: Pods,
    sysctls: Sysctls,
    /// Uids in the current list.
    known: Vec<String>,
    /// The workers of pods: they stop with the agent, so that they do not run beside those of the next one.
    workers: JoinSet<()>,
    /// The task that removes what is left of pods that were deleted while no agent ran. It ends with the agent.
    removing: JoinSet<()>,
}

/// Pods keep running, whether the agent ends or panics. After a panic the next agent has to find them as after a start.
impl Drop for Agent {
    fn drop(&mut self) {
        self.pods.listed.store(false, Ordering::Release);
        self.pods.map.lock().clear();
    }
}

impl Agent {
    async fn watch(&mut self, node: &str, ends: CancellationToken) {
        let api: Api<Lean> = Api::all(self.shared.client.clone());
        let mut events = follow(api, &format!("spec.nodeName={node}"));
        let (ended, mut over) = mpsc::channel(64);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(event, &ended),
                    Some(Err(error)) => {
                        match error.is_usual() {
                            true => tracing::debug!(%error, node, "the watch of pods was interrupted; it resumes"),
                            false => tracing::warn!(%error, node, "the watch of pods was interrupted; it resumes"),
                        }
                    }
                    None => return,
                },
                end = over.recv() => match end {
                    Some(Ended::Removed(uid)) => {
                        self.pods.map.lock().remove(&uid);
                        self.shared.allocations.remove(&uid);
                    }
                    Some(Ended::Broke(uid)) => self.replace(uid, &ended),
                    None => {}
                },
                Some(_) = self.workers.join_next() => {}
                () = ends.cancelled() => {
                    // Workers see their channels close, and end after their current step; zones keep running.
                    self.workers.detach_all();
                    return;
                }
            }
        }
    }

    fn take(&mut self, event: Event<Lean>, ended: &mpsc::Sender<Ended>) {
        match event {
            Event::Listing => self.known.clear(),
            Event::Listed(pod) => {
                self.known
                    .push(pod.metadata.uid.clone().unwrap_or_default());
                self.apply(pod, false, ended);
            }
            Event::Complete(_) => {
                let known = std::mem::take(&mut self.known);
                self.pods.map.lock().retain(|uid, handle| {
                    if !known.contains(uid) {
                        handle.wanted.send_modify(|wanted| wanted.gone = true);
                        self.shared.allocations.remove(uid);
                    }
                    true
                });
                self.shared.allocations.listed();
                if !self.pods.listed.swap(true, Ordering::AcqRel) {
                    let known = known.into_iter().collect();
                    let (shared, pods) = (self.shared.clone(), self.pods.clone());
                    self.removing.spawn(remove_orphans(shared, pods, known));
                }
            }
            Event::Applied(pod) => self.apply(pod, false, ended),
            Event::Deleted(pod) => self.apply(pod, true, ended),
            Event::UpTo(_) => {}
        }
    }

    fn apply(&mut self, mut pod: Lean, gone: bool, ended: &mpsc::Sender<Ended>) {
        if let Some(status) = &mut pod.status {
            // It is kept for as long as the pod does not change, and has space for four statuses if there is one.
            let init = status.init_container_statuses.iter_mut();
            let all = init.chain(&mut status.container_statuses);
            all.for_each(Vec::shrink_to_fit);
        }
        let pod = Arc::new(Pod {
            metadata: pod.metadata,
            spec: pod.spec,
            status: pod.status,
        });
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut map = self.pods.map.lock();
        match map.get(&uid) {
            Some(handle) => {
                handle.wanted.send_replace(Wanted { pod, gone });
                if gone {
                    // The next pods already got its room.
                    self.shared.allocations.remove(&uid);
                }
            }
            None if gone => {}
            None => {
                let fresh = pod
                    .status
                    .as_ref()
                    .is_none_or(|status| status.start_time.is_none());
                let conditions = self.shared.observed.conditions();
                // Pods that were here before keep their resources. Forbidden sysctls are refused for them as well,
                // because these are set again with each new zone.
                let refused = pressure::refuses(&conditions, &pod)
                    .filter(|_| fresh)
                    .map(|message| Refusal {
                        reason: "Evicted",
                        message,
                    })
                    .or_else(|| self.sysctls.refuses(&pod).filter(|_| goes_on(&pod)))
                    .or_else(|| self.shared.supplies.refuses(&pod).filter(|_| fresh))
                    .or_else(|| needs_more(&pod).filter(|_| fresh))
                    .or_else(|| self.shared.allocations.refuses(&pod).filter(|_| fresh));
                let handle = worker::start(
                    self.shared.clone(),
                    pod,
                    ended.clone(),
                    refused,
                    &mut self.workers,
                );
                map.insert(uid, handle);
            }
        }
    }

    /// Starts a new worker for a pod, which continues from the pod's current state.
    fn replace(&mut self, uid: String, ended: &mpsc::Sender<Ended>) {
        let mut map = self.pods.map.lock();
        let Some(broken) = map.get(&uid) else {
            return;
        };
        let wanted = broken.wanted.borrow().clone();
        let handle = worker::start(
            self.shared.clone(),
            wanted.pod.clone(),
            ended.clone(),
            broken.refused.clone(),
            &mut self.workers,
        );
        if wanted.gone {
            self.shared.allocations.remove(&uid);
            handle.wanted.send_replace(wanted);
        }
        map.insert(uid, handle);
    }
}

/// The pause after a failed removal.
const AGAIN: Duration = Duration::from_secs(10);

/// Removes what is left on the host of pods that the API no longer has, and retries failures until nothing is left.
async fn remove_orphans(shared: Arc<Shared>, pods: Pods, known: HashSet<String>) {
    loop {
        let mut failed = false;
        let mut note = |what: &str, error: String| {
            tracing::warn!(error, "{what}; retrying");
            failed = true;
        };
        let mut gone: BTreeSet<String> = BTreeSet::new();
        match shared.runtime.list().await {
            Ok(zones) => gone.extend(
                zones
                    .into_iter()
                    .filter_map(|zone| zone.spec.labels.get(POD_UID).cloned()),
            ),
            Err(error) => note("zones cannot be listed", error.to_string()),
        }
        match shared.supplies.keeps().await {
            Ok(uids) => gone.extend(uids),
            Err(lack) => note("what is kept of pods cannot be listed", lack.message),
        }
        // Pods that arrived meanwhile belong to their workers.
        {
            let here = pods.map.lock();
            gone.retain(|uid| !known.contains(uid) && !here.contains_key(uid));
        }
        for uid in gone {
            tracing::info!(
                uid,
                "removing what is left of a pod that was deleted while no agent ran"
            );
            if let Err(error) = remove_orphan(&shared, &uid).await {
                note("what is left of a pod cannot be removed", error);
            }
        }
        if !failed {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn remove_orphan(shared: &Shared, uid: &str) -> Result<(), String> {
    let zone: ZoneName = zone_name(uid);
    let (runtime, supplies) = (&shared.runtime, &shared.supplies);
    let text = |error: crate::zone::ZoneError| error.to_string();
    runtime.halt(&zone).await.map_err(text)?;
    runtime.delete(&zone).await.map_err(text)?;
    let released = supplies.release(uid, true).await;
    released.map_err(|lack| lack.message)?;
    supplies.remove(uid).await.map_err(|lack| lack.message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_need_what_is_not_declared_are_refused() {
        let pod = |list: &str, action: &str| -> Pod {
            let rules = json!([{"action": action, "exitCodes": {"operator": "In", "values": [1]}}]);
            let mut spec = json!({"containers": [{"name": "c"}]});
            spec[list] =
                json!([{"name": "r", "restartPolicy": "Never", "restartPolicyRules": rules}]);
            serde_json::from_value(json!({"spec": spec})).expect("a pod")
        };
        let all = "Pod requires node features that are not available: RestartAllContainersOnContainerExits";
        for (list, action, expected) in [
            ("containers", "Restart", None),
            ("containers", "RestartAllContainers", Some(all)),
            ("initContainers", "RestartAllContainers", Some(all)),
        ] {
            let refused = needs_more(&pod(list, action)).map(|refused| refused.message);
            assert_eq!(refused.as_deref(), expected, "{list} {action}");
        }
    }

    #[test]
    fn of_two_pods_with_a_name_the_newest_is_meant() {
        let pod = |uid: &str, minute: u32| -> (Arc<Pod>, u32) {
            let at = format!("2026-01-01T00:{minute:02}:00Z");
            let metadata =
                json!({"namespace": "n", "name": "web-0", "uid": uid, "creationTimestamp": at});
            let pod = serde_json::from_value(json!({"metadata": metadata})).expect("a pod");
            (Arc::new(pod), minute)
        };
        for order in [["a", "b"], ["b", "a"]] {
            let all = || {
                order
                    .map(|uid| pod(uid, if uid == "a" { 1 } else { 2 }))
                    .into()
            };
            for (uid, expected) in [(None, Some(2)), (Some("a"), Some(1)), (Some("c"), None)] {
                let found = newest(all(), "n", "web-0", uid);
                assert_eq!(found.map(|(_, minute)| minute), expected, "{uid:?}");
            }
            assert!(newest(all(), "n", "web-1", None).is_none());
        }
    }

    #[test]
    fn nobody_knows_which_pods_are_active_before_all_are_told_of() {
        let pods = Pods::default();
        assert_eq!(pods.active(), None);
        pods.listed.store(true, Ordering::Release);
        assert_eq!(pods.active(), Some(Vec::new()));
    }
}
