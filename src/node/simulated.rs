//! The host of simulated nodes: images are always present, volumes never needed, probes succeed.
//!
//! The pod's annotation `reddwarf.io/simulate` sets what containers do: `exit CODE after MILLISECONDS`, `stubborn`, or
//! both; see [`crate::zone::simulated`]. Without it init containers, and all containers of pods without restarts, end
//! with 0, and others run.
//!
//! [`USAGE_CPU`] and [`USAGE_MEMORY`], or kwok's equivalent annotations, set the usage of containers, and may be
//! changed while they run.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, ContainerImage, LifecycleHandler, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::describe;
use super::machine::{
    ASKED_IMAGE, IMAGE, IMAGE_ID, Kind, POD_NAME, POD_NAMESPACE, POD_UID, SIZE, Size, containers,
    spec_of,
};
use super::pressure::PodDisk;
use super::supplies::{HookFailure, HostUsage, Lack, Outcome, Pulled, Supplies};
use super::worker::Refusal;
use super::zone_name;
use crate::meta::quantity::Quantity;
use crate::net::Ipam;
use crate::zone::simulated::BEHAVIOUR;
use crate::zone::{ProcessId, ProcessSpec, Rights, Root, Usage, ZoneNetwork, ZoneSpec, ZoneUsage};

/// The annotation of a pod with what its containers do.
pub const SIMULATE: &str = "reddwarf.io/simulate";

/// The annotation of a pod with the CPU usage of each of its containers: a quantity, by default `1m`.
pub const USAGE_CPU: &str = "reddwarf.io/usage-cpu";
/// The annotation of a pod with the memory usage of each of its containers: a quantity, by default `1Mi`.
pub const USAGE_MEMORY: &str = "reddwarf.io/usage-memory";
/// kwok's names of these.
const USAGE_OF_KWOK: [&str; 2] = ["kwok.x-k8s.io/usage-cpu", "kwok.x-k8s.io/usage-memory"];

/// In nanoseconds: how long something had run at the last measurement, and its CPU time by then.
type Spent = (u64, u64);

/// A simulated host.
pub struct SimulatedSupplies {
    ipam: Ipam,
    spent: Mutex<AllSpent>,
}

/// CPU time.
#[derive(Default)]
struct AllSpent {
    /// CPU time of containers at their last measurement, by pod uid.
    pods: HashMap<String, BTreeMap<ProcessId, Spent>>,
    /// CPU time of ended pods, in nanoseconds.
    ended: u64,
}

impl SimulatedSupplies {
    /// A host whose pods get addresses from `ipam`.
    pub fn new(ipam: Ipam) -> Self {
        SimulatedSupplies {
            ipam,
            spent: Mutex::default(),
        }
    }
}

/// The usage in a pod's annotations: millicores and bytes. Malformed values are ignored.
fn told_usage(pod: &Pod) -> (u64, u64) {
    let annotations = pod.metadata.annotations.as_ref();
    let told = |own: &str, kwok: &str| {
        let text = annotations.and_then(|all| all.get(own).or_else(|| all.get(kwok)))?;
        Quantity::parse(text).ok()
    };
    let cpu = told(USAGE_CPU, USAGE_OF_KWOK[0]).map_or(1, |cpu| cpu.milli_value());
    let memory = told(USAGE_MEMORY, USAGE_OF_KWOK[1]).map_or(1 << 20, |memory| memory.value());
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    (positive(cpu), positive(memory))
}

/// The CPU time in nanoseconds after running for `lived` nanoseconds, with a usage of `millis` millicores since
/// `before`.
fn spend((before, spent): Spent, millis: u64, lived: u64) -> u64 {
    let passed = lived.saturating_sub(before) / 1000;
    spent.saturating_add(passed.saturating_mul(millis))
}

impl Supplies for SimulatedSupplies {
    fn refuses(&self, _: &Pod) -> Option<Refusal> {
        None
    }

    fn certificates(&self, _: &Pod) -> Option<watch::Receiver<()>> {
        None
    }

    fn prepare<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<ZoneSpec, Lack>> {
        async move {
            let metadata = &pod.metadata;
            let uid = metadata.uid.as_deref().unwrap_or_default();
            let host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
            let network = match host {
                true => ZoneNetwork::Host,
                false => {
                    let lease = self
                        .ipam
                        .allocate(uid)
                        .map_err(|error| Lack::new("FailedCreatePodSandBox", error.to_string()))?;
                    ZoneNetwork::Own {
                        address: IpAddr::V4(lease.address),
                        prefix: lease.prefix,
                        gateway: IpAddr::V4(lease.gateway),
                        mac: lease.mac,
                        link: lease.link,
                        ports: Vec::new(),
                        bandwidth: None,
                    }
                }
            };
            Ok(ZoneSpec {
                labels: BTreeMap::from([
                    (POD_UID.into(), uid.into()),
                    (POD_NAME.into(), metadata.name.clone().unwrap_or_default()),
                    (
                        POD_NAMESPACE.into(),
                        metadata.namespace.clone().unwrap_or_default(),
                    ),
                ]),
                hostname: metadata.name.clone().unwrap_or_default(),
                limits: describe::limits(pod),
                ..ZoneSpec::new(zone_name(uid), network)
            })
        }
        .boxed()
    }

    fn refresh<'a>(&'a self, _: &'a Pod) -> BoxFuture<'a, Result<(), Lack>> {
        async { Ok(()) }.boxed()
    }

    fn present<'a>(&'a self, _: &'a Pod, _: &'a Container) -> BoxFuture<'a, Result<bool, Lack>> {
        async { Ok(true) }.boxed()
    }

    fn fetch<'a>(&'a self, _: &'a Pod, _: &'a Container) -> BoxFuture<'a, Result<Pulled, Lack>> {
        async { Ok(Pulled::Present) }.boxed()
    }

    fn process<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        _: &'a ZoneSpec,
    ) -> BoxFuture<'a, Result<ProcessSpec, Lack>> {
        async move {
            let spec = spec_of(pod);
            let kind = containers(spec)
                .iter()
                .find(|(_, one)| one.name == container.name)
                .map_or(Kind::Regular, |(kind, _)| *kind);
            let told = pod
                .metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(SIMULATE).cloned());
            let ends = kind == Kind::Init
                || (kind == Kind::Regular && spec.restart_policy.as_deref() != Some("Always"));
            let behaviour = match (kind, told) {
                (Kind::Regular, Some(told)) => told,
                _ if ends => "exit 0".to_owned(),
                _ => String::new(),
            };
            let image = container.image.clone().unwrap_or_default();
            let size = Size::of(spec, container);
            Ok(ProcessSpec {
                id: id.clone(),
                labels: BTreeMap::from([
                    (BEHAVIOUR.to_owned(), behaviour),
                    (IMAGE_ID.to_owned(), image.clone()),
                    (ASKED_IMAGE.to_owned(), image.clone()),
                    (IMAGE.to_owned(), image),
                    (SIZE.to_owned(), size.label()),
                ]),
                beside: None,
                root: Root::Directory("/".into()),
                command: vec![container.name.clone()],
                environment: Vec::new(),
                directory: "/".into(),
                mounts: Vec::new(),
                rights: Rights::default(),
                limits: size.limits(),
                stdin: false,
                stdin_once: false,
                tty: false,
                log: "/dev/null".into(),
            })
        }
        .boxed()
    }

    fn message<'a>(
        &'a self,
        _: &'a Pod,
        _: &'a Container,
        _: &'a ProcessId,
        _: bool,
    ) -> BoxFuture<'a, String> {
        async { String::new() }.boxed()
    }

    fn forget<'a>(&'a self, _: &'a str, _: &'a ProcessId) -> BoxFuture<'a, Result<(), Lack>> {
        async { Ok(()) }.boxed()
    }

    fn host(&self) -> BoxFuture<'_, Option<HostUsage>> {
        // There is no host whose memory or disk could run out.
        async { None }.boxed()
    }

    fn images(&self) -> BoxFuture<'_, Vec<ContainerImage>> {
        // Images count as present, but do not exist.
        async { Vec::new() }.boxed()
    }

    fn on_disk<'a>(&'a self, _: &'a Pod) -> BoxFuture<'a, PodDisk> {
        // Simulated containers write nothing.
        async { PodDisk::default() }.boxed()
    }

    fn collect<'a>(&'a self, _: &'a [Arc<Pod>], _: bool) -> BoxFuture<'a, Result<(), Lack>> {
        async { Ok(()) }.boxed()
    }

    fn usage(&self, pod: &Pod, mut measured: ZoneUsage) -> ZoneUsage {
        let (millis, memory) = told_usage(pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut spent = self.spent.lock();
        let AllSpent { pods, ended } = &mut *spent;
        let spent = pods.entry(uid).or_default();
        spent.retain(|id, (_, used)| {
            let runs = measured.processes.contains_key(id);
            *ended += if runs { 0 } else { *used };
            runs
        });
        measured.total = Usage::default();
        for (id, usage) in &mut measured.processes {
            // Before the first measurement the same usage is assumed.
            let before = spent.entry(id.clone()).or_default();
            *before = (usage.cpu, spend(*before, millis, usage.cpu));
            *usage = Usage {
                cpu: before.1,
                memory,
                working_set: memory,
                pids: 1,
            };
            measured.total.cpu += usage.cpu;
            measured.total.memory += memory;
            measured.total.working_set += memory;
            measured.total.pids += 1;
        }
        measured
    }

    fn spent(&self) -> u64 {
        self.spent.lock().ended
    }

    fn release<'a>(&'a self, uid: &'a str, _: bool) -> BoxFuture<'a, Result<(), Lack>> {
        async move {
            let mut spent = self.spent.lock();
            let gone = spent.pods.remove(uid).unwrap_or_default();
            spent.ended += gone.values().map(|(_, used)| used).sum::<u64>();
            drop(spent);
            self.ipam
                .release(uid)
                .map_err(|error| Lack::new("FailedKillPod", error.to_string()))
        }
        .boxed()
    }

    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Lack>> {
        self.release(uid, true)
    }

    fn keeps(&self) -> BoxFuture<'_, Result<Vec<String>, Lack>> {
        // All simulated nodes share the pool: an unknown pod may belong to another node.
        async { Ok(Vec::new()) }.boxed()
    }

    fn probe<'a>(
        &'a self,
        _: &'a Container,
        _: &'a ProcessId,
        _: &'a ZoneSpec,
        _: &'a Probe,
    ) -> BoxFuture<'a, Outcome> {
        async { Outcome::Success }.boxed()
    }

    fn hook<'a>(
        &'a self,
        _: &'a Pod,
        _: &'a Container,
        _: &'a ProcessId,
        _: &'a ZoneSpec,
        _: &'a LifecycleHandler,
    ) -> BoxFuture<'a, Result<(), HookFailure>> {
        async { Ok(()) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_use_what_their_pod_says() {
        let pod = |annotations: &[(&str, &str)]| {
            let mut pod = Pod::default();
            let named = |(key, value): &(&str, &str)| ((*key).into(), (*value).into());
            pod.metadata.annotations = Some(annotations.iter().map(named).collect());
            pod
        };
        for (annotations, cpu, memory) in [
            (&[][..], 1, 1 << 20),
            (
                &[(USAGE_CPU, "1500m"), (USAGE_MEMORY, "2Gi")],
                1500,
                2 << 30,
            ),
            (&[(USAGE_OF_KWOK[0], "2")], 2000, 1 << 20),
            (
                &[(USAGE_CPU, "250m"), (USAGE_OF_KWOK[0], "2")],
                250,
                1 << 20,
            ),
            (&[(USAGE_CPU, "much"), (USAGE_MEMORY, "-1")], 1, 0),
        ] {
            assert_eq!(
                told_usage(&pod(annotations)),
                (cpu, memory),
                "{annotations:?}"
            );
        }
    }

    #[test]
    fn time_is_spent_at_the_rate_of_the_moment() {
        let supplies = SimulatedSupplies::new(Ipam::in_memory("10.0.0.0/24").expect("a pool"));
        let id = ProcessId {
            name: "c".into(),
            generation: 0,
        };
        let mut pod = Pod::default();
        // The CPU time of a simulated container after this many seconds.
        let mut look = |cpu: &str, lived: u64| {
            let annotations = [(USAGE_CPU.to_owned(), cpu.to_owned())];
            pod.metadata.annotations = Some(annotations.into());
            let whole = Usage {
                cpu: lived * 1_000_000_000,
                ..Usage::default()
            };
            let measured = ZoneUsage {
                at: jiff::Timestamp::UNIX_EPOCH,
                total: whole.clone(),
                processes: [(id.clone(), whole)].into(),
                network: (0, 0),
            };
            let usage = supplies.usage(&pod, measured);
            assert_eq!(usage.total, usage.processes[&id]);
            usage.total.cpu
        };
        // Before the first measurement usage counts from the start.
        assert_eq!(look("2", 3), 6_000_000_000);
        assert_eq!(look("2", 13), 26_000_000_000);
        assert_eq!(look("500m", 17), 28_000_000_000);
        assert_eq!(look("500m", 17), 28_000_000_000);
        // The total CPU time of a node does not decrease when a pod ends.
        assert_eq!(supplies.spent(), 0);
        let released = supplies.release("", true).now_or_never();
        assert_eq!(released, Some(Ok(())));
        assert_eq!(supplies.spent(), 28_000_000_000);
    }
}
