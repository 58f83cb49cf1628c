//! What is to be done for a pod: a function of what is wanted (the pod), what is (its zone), what this agent
//! remembers, and the clock. Nothing here does anything, waits or asks; a worker carries the actions out and asks
//! again. Nothing depends on having seen an event: the same answer comes after a restart of the agent.
//!
//! The rules are those of upstream's kubelet (`pkg/kubelet/kuberuntime`, `kubelet_pods.go`, `status/generate.go`).

mod allocation;
mod backoff;
mod decide;
mod mounts;
mod resize;
mod status;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, Probe};

use crate::zone::{Change, ProcessId, Signal, ZoneUsage};

pub use allocation::{Given, Pending, summary};
pub use backoff::{Backoff, later};
pub use decide::{RESIZE_AGAIN, decide};
pub use mounts::{RECURSIVE, is_recursively_read_only};
pub use resize::{SIZE, Size};
pub use status::{RESIZES, is_over, time as status_time};

/// The label of a zone that holds the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The label of a zone that holds the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The label of a zone that holds the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The label of a process that holds the name of its image.
pub const IMAGE: &str = "image";
/// The label of a process that holds the digest of its image.
pub const IMAGE_ID: &str = "image-id";

/// The label of a process that holds the name of its image as its container asked for it.
pub const ASKED_IMAGE: &str = "asked-image";

/// The label of a process that holds the signal that its image wants to be asked to end by, if it wants one.
pub const STOP_SIGNAL: &str = "stop-signal";

/// How a container of a pod is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Runs to its end before the next one.
    Init,
    /// An init container that goes on beside the others (`restartPolicy: Always`).
    Sidecar,
    /// An ordinary one.
    Regular,
    /// Added later for debugging; never restarted.
    Ephemeral,
}

/// A container of a pod, with its kind.
pub type Listed<'a> = (Kind, Cow<'a, Container>);

/// The containers of a pod in the order in which they start.
pub fn containers(spec: &PodSpec) -> Vec<Listed<'_>> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let kind = match container.restart_policy.as_deref() {
            Some("Always") => Kind::Sidecar,
            _ => Kind::Init,
        };
        (kind, Cow::Borrowed(container))
    });
    let regular = spec
        .containers
        .iter()
        .map(|container| (Kind::Regular, Cow::Borrowed(container)));
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|container| (Kind::Ephemeral, Cow::Owned(from_ephemeral(container))));
    init.chain(regular).chain(ephemeral).collect()
}

/// What a pod is to be; nothing where it does not say.
pub fn spec_of(pod: &Pod) -> &PodSpec {
    static NOTHING: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&NOTHING)
}

fn from_ephemeral(of: &k8s_openapi::api::core::v1::EphemeralContainer) -> Container {
    let of = of.clone();
    Container {
        args: of.args,
        command: of.command,
        env: of.env,
        env_from: of.env_from,
        image: of.image,
        image_pull_policy: of.image_pull_policy,
        name: of.name,
        resources: of.resources,
        security_context: of.security_context,
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        termination_message_path: of.termination_message_path,
        termination_message_policy: of.termination_message_policy,
        tty: of.tty,
        volume_mounts: of.volume_mounts,
        working_dir: of.working_dir,
        ..Container::default()
    }
}

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Others wait until it succeeds once.
    Startup,
    /// Its failure restarts the container.
    Liveness,
    /// Its failure takes the pod out of services.
    Readiness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [ProbeKind; 3] = [
        ProbeKind::Startup,
        ProbeKind::Liveness,
        ProbeKind::Readiness,
    ];
    /// The probe of this kind that a container has.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }
    /// As events spell it.
    pub fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// A container and the image that it asks for.
pub type ImageOf = (String, String);

/// The image that a container asks for.
pub fn image_of(container: &Container) -> ImageOf {
    let image = container.image.clone().unwrap_or_default();
    (container.name.clone(), image)
}

/// Where the image of a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageState {
    /// Being fetched.
    Pulling,
    /// Usable.
    Ready,
    /// Not to be had now; asked again at `again`.
    Failed {
        /// [`ERR_IMAGE_PULL`], `ErrImageNeverPull`, `InvalidImageName`, ...
        reason: String,
        /// For people.
        message: String,
        /// Until when a failed pull is told as that; then, that the next one is waited for.
        told: Timestamp,
        /// When to ask again.
        again: Timestamp,
    },
}

/// A pull failed.
pub const ERR_IMAGE_PULL: &str = "ErrImagePull";

/// Why a container cannot be started for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// `CreateContainerConfigError`, `CreateContainerError`, ...
    pub reason: String,
    /// For people.
    pub message: String,
    /// When to try again.
    pub again: Timestamp,
}

/// A hook that runs beside the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// Under way.
    Running,
    /// Over.
    Done,
    /// Over, and not as it should: why, for people.
    Failed(String),
}

/// A container that is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Since when.
    pub begun: Timestamp,
    /// How long it may take, in seconds.
    pub grace: i64,
    /// Its preStop hook, once it was begun.
    pub hook: Option<Hook>,
    /// When it was asked to end.
    pub asked: Option<Timestamp>,
    /// Whether it was ended by force.
    pub killed: bool,
}

/// A resize that is carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The generation of the pod that asked for it.
    pub generation: Option<i64>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// What is remembered of a pod's resizes.
#[derive(Debug, Clone, Default)]
pub struct Resize {
    /// What the pod asks for and is not given; what an event says of that.
    pub pending: Option<(Pending, String)>,
    /// The generation whose resources it was given just now.
    pub accepted: Option<i64>,
    /// What is being carried out.
    pub progress: Option<Progress>,
    /// The last change failed, and is tried again then.
    pub failed: Option<(String, Timestamp)>,
    /// What is used, measured for a change that depends on it.
    pub measured: Option<Result<ZoneUsage, String>>,
}

/// What the agent remembers of a pod. All of it can be lost: what matters is in the pod's status and its zone.
///
/// What was decided is not yet done: marks of what was done (a signal was sent, a wait begins) are set by
/// [`did`](Self::did), so that a step that fails is decided again.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The status as it was reported last; at first what the API server holds.
    pub last: PodStatus,
    /// Restarts of containers that ended.
    pub backoffs: BTreeMap<String, Backoff>,
    /// The waits that follow starts which were decided.
    pub starting: BTreeMap<ProcessId, Backoff>,
    /// Images of containers.
    pub images: BTreeMap<ImageOf, ImageState>,
    /// Containers that cannot be started.
    pub blocked: BTreeMap<String, Blocked>,
    /// postStart hooks.
    pub hooks: BTreeMap<ProcessId, Hook>,
    /// Containers that are being ended.
    pub stops: BTreeMap<ProcessId, Stop>,
    /// The newest results of probes.
    pub probes: BTreeMap<(ProcessId, ProbeKind), bool>,
    /// Termination messages of processes that ended.
    pub messages: BTreeMap<ProcessId, String>,
    /// The zone could not be made; tried again then.
    pub zone_again: Option<Timestamp>,
    /// A zone of this pod was running.
    pub had_zone: bool,
    /// The pod is to fail, with a reason and message: its deadline passed, or the node needs the room.
    pub fail: Option<(String, String)>,
    /// How long its containers have to end then, in seconds, where that is not for the pod to say.
    pub grace: Option<i64>,
    /// Why the node needs the room that the pod takes.
    pub disrupted: Option<String>,
    /// Where the pod asks, or asked, for other resources than it has.
    pub resize: Resize,
    /// Processes that are ended to be started anew, whatever their end is like.
    pub restarting: BTreeSet<ProcessId>,
    /// Nothing is kept of a zone that the pod had: its address, roots and volumes were given back.
    pub released: bool,
    /// Since when the pod is being ended.
    pub ending: Option<Timestamp>,
    /// This host's addresses.
    pub host_ips: Vec<String>,
    /// When processes ended, by the clock as it is now.
    pub ends: BTreeMap<ProcessId, Timestamp>,
}

impl Memory {
    /// An action was carried out at `now`.
    pub fn did(&mut self, action: &Action, now: Timestamp) {
        match action {
            Action::Prepare => self.released = false,
            Action::Release { over: true } => self.released = true,
            Action::Start(id) => {
                if let Some(wait) = self.starting.remove(id) {
                    self.backoffs.insert(id.name.clone(), wait);
                }
                // Asked of the registry again next time, as its pull policy says.
                self.images.retain(|(name, _), _| *name != id.name);
            }
            Action::PreStop(id, _) => {
                if let Some(stop) = self.stops.get_mut(id) {
                    stop.hook = Some(Hook::Running);
                }
            }
            Action::Signal(id, signal) => {
                if let Some(stop) = self.stops.get_mut(id) {
                    stop.asked.get_or_insert(now);
                    stop.killed |= *signal == Signal::KILL;
                }
            }
            _ => {}
        }
    }

    /// Whether the probe of a kind has succeeded for a process of `container`; true if the container has no such probe.
    pub fn passes(&self, id: &ProcessId, kind: ProbeKind, container: &Container) -> bool {
        kind.of(container).is_none() || self.probes.get(&(id.clone(), kind)) == Some(&true)
    }

    /// The clock was set, and is `by` further than time has passed: what waits goes on to wait as long as it would have.
    pub fn shift(&mut self, by: SignedDuration) {
        let stops = self.stops.values_mut();
        let stops = stops.flat_map(|stop| [Some(&mut stop.begun), stop.asked.as_mut()]);
        let failed = self.images.values_mut().flat_map(|image| match image {
            ImageState::Failed { told, again, .. } => [Some(told), Some(again)],
            _ => [None, None],
        });
        let failed_resize = self.resize.failed.as_mut().map(|(_, again)| again);
        let times = [
            self.zone_again.as_mut(),
            self.ending.as_mut(),
            failed_resize,
        ]
        .into_iter()
        .chain(stops)
        .flatten()
        .chain(self.blocked.values_mut().map(|blocked| &mut blocked.again))
        .chain(failed.flatten())
        .chain(self.ends.values_mut());
        for at in times {
            *at = later(*at, by);
        }
        for backoff in self.backoffs.values_mut() {
            backoff.shift(by);
        }
    }
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make volumes, take an address, make and boot the zone.
    Prepare,
    /// Fetch the image of a container.
    Pull(String),
    /// Start a container.
    Start(ProcessId),
    /// Run the preStop hook of a container, which may take so many seconds.
    PreStop(ProcessId, i64),
    /// Send a signal to a container.
    Signal(ProcessId, Signal),
    /// Forget a generation that is no longer shown.
    Forget(ProcessId),
    /// Measure what the zone uses: [`Resize::measured`].
    Measure,
    /// Change limits of the zone or of a container.
    Resize(Change),
    /// End the zone and remove it.
    Halt,
    /// Give back what a zone needed that is gone: its address and roots; volumes, too, if the pod is over. Logs stay.
    Release {
        /// The pod has no other zone.
        over: bool,
    },
    /// Remove everything that was made for the pod, then the pod.
    Remove,
    /// Say something about the pod, or a container of it.
    Event {
        /// A warning, not a normal event.
        warning: bool,
        /// Upstream's reason.
        reason: &'static str,
        /// The container.
        container: Option<String>,
        /// For people.
        message: String,
    },
}

/// What to do now, what to report, and when to ask again at the latest.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// The pod's status.
    pub status: PodStatus,
    /// When something is due by the clock alone.
    pub wake: Option<Timestamp>,
}

/// A pod as upstream writes it: `NAME_NAMESPACE(UID)`.
pub fn full_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let [name, namespace, uid] = [&metadata.name, &metadata.namespace, &metadata.uid]
        .map(|text| text.as_deref().unwrap_or_default());
    format!("{name}_{namespace}({uid})")
}

/// The id under which the API knows a container's process: 64 hexadecimal digits, as of other runtimes.
pub fn container_id(pod: &Pod, process: &ProcessId) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{uid}/{process}").as_bytes());
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("reddwarf://{hex}")
}
