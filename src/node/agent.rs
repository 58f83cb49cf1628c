//! The agent of one node: registers it, watches its pods, and runs a worker for each.

mod orphans;
mod pods;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use kube::api::Api;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::orphans::remove_orphans;
use super::allocations::Allocations;
use super::kubelet::configz::Settings;
use super::machine::{is_over, spec_of};
use super::pressure::{self, Observed, Thresholds};
use super::register::{self, DECLARED, Fitness, Registration};
use super::routes::Reach;
use super::supplies::Supplies;
use super::sysctls::Sysctls;
use super::worker::{self, Ended, Refusal, Shared, Wanted};
use crate::client::events::Recorder;
use crate::client::follow::{Event, follow};
use crate::meta::placement::needed_feature;
use crate::supervise::{Supervisor, Task};
use crate::zone::ZoneRuntime;

pub use self::pods::Pods;

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
        // Those of an agent that panicked. One that ends leaves them to its workers, whose last step may need them.
        shared.allocations.clear();
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

#[cfg(test)]
mod tests;
