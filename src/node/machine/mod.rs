//! Decides what to do for a pod: a pure function of the desired state (the pod), the actual state (its zone), what this
//! agent remembers, and the clock. Nothing here acts, waits or asks; a worker carries the actions out and decides
//! again. Nothing depends on having seen an event: the decision is the same after a restart of the agent.
//!
//! The rules are those of upstream's kubelet (`pkg/kubelet/kuberuntime`, `kubelet_pods.go`, `status/generate.go`).

mod allocation;
mod backoff;
mod decide;
mod mounts;
mod resize;
mod status;

mod memory;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, Probe};

use crate::zone::{Change, ProcessId, Signal, ZoneUsage};

pub use self::memory::Memory;
pub use allocation::{Given, Pending, summary};
pub use backoff::{Backoff, MAXIMUM, later};
pub use decide::{RESIZE_AGAIN, decide};
pub use mounts::{RECURSIVE, is_recursively_read_only};
pub use resize::{SIZE, Size};
pub use status::{RESIZES, condition, is_over, is_own, time as status_time};

/// The label of a zone with the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The label of a zone with the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The label of a zone with the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The label of a process with the name of its image.
pub const IMAGE: &str = "image";
/// The label of a process with the digest of its image.
pub const IMAGE_ID: &str = "image-id";

/// The label of a process with the image name in its container's spec.
pub const ASKED_IMAGE: &str = "asked-image";

/// The label of a process with its image's stop signal, if that has one.
pub const STOP_SIGNAL: &str = "stop-signal";

/// The kind of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Runs to its end before the next one.
    Init,
    /// An init container that keeps running beside the others (`restartPolicy: Always`).
    Sidecar,
    /// An ordinary container.
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

/// The container of a pod with a name.
pub fn named<'p>(pod: &'p Pod, name: &str) -> Option<Cow<'p, Container>> {
    let mut all = containers(pod.spec.as_ref()?).into_iter();
    all.find(|(_, container)| container.name == name)
        .map(|(_, container)| container)
}

/// The spec of a pod; an empty one if it has none.
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

/// The kind of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Other probes wait until it succeeds once.
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
    /// The probe of this kind in a container.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }
    /// Its name in events.
    pub fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// A container and its image name.
pub type ImageOf = (String, String);

/// The image name of a container.
pub fn image_of(container: &Container) -> ImageOf {
    let image = container.image.clone().unwrap_or_default();
    (container.name.clone(), image)
}

/// The state of a container's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageState {
    /// Being pulled.
    Pulling,
    /// Usable.
    Ready,
    /// Not available; tried again at `again`.
    Failed {
        /// [`ERR_IMAGE_PULL`], `ErrImageNeverPull`, `InvalidImageName`, ...
        reason: String,
        /// A human-readable message.
        message: String,
        /// Until when the failure is reported; after that, the back-off.
        told: Timestamp,
        /// When to try again.
        again: Timestamp,
    },
}

/// A pull failed.
pub const ERR_IMAGE_PULL: &str = "ErrImagePull";

/// Why a container cannot be started now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// `CreateContainerConfigError`, `CreateContainerError`, ...
    pub reason: String,
    /// A human-readable message.
    pub message: String,
    /// When to try again.
    pub again: Timestamp,
}

/// Why a container is ended to be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Its definition changed: it starts again at once.
    Changed,
    /// It failed a probe: it starts again after its back-off.
    Failed,
}

/// A hook that runs beside the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// In progress.
    Running,
    /// It succeeded.
    Done,
    /// It failed, with a human-readable reason.
    Failed(String),
}

/// A container that is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// When that began.
    pub begun: Timestamp,
    /// Its grace period, in seconds.
    pub grace: i64,
    /// Its preStop hook, once started.
    pub hook: Option<Hook>,
    /// When the stop signal was sent.
    pub asked: Option<Timestamp>,
    /// Whether KILL was sent.
    pub killed: bool,
}

/// A resize in progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The generation of the pod that requested it.
    pub generation: Option<i64>,
    /// The last error.
    pub error: Option<String>,
}

/// What is remembered of a pod's resizes.
#[derive(Debug, Clone, Default)]
pub struct Resize {
    /// The resize that is not granted, with the message of its event.
    pub pending: Option<(Pending, String)>,
    /// The generation whose resources were just allocated.
    pub accepted: Option<i64>,
    /// The resize in progress.
    pub progress: Option<Progress>,
    /// The last change failed with this error, and is tried again at this time.
    pub failed: Option<(String, Timestamp)>,
    /// The measured usage, for a change that depends on it.
    pub measured: Option<Result<ZoneUsage, String>>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Set up volumes and address, create and boot the zone.
    Prepare,
    /// Pull the image of a container.
    Pull(String),
    /// Start a container.
    Start(ProcessId),
    /// Run the preStop hook of a container, with this timeout in seconds.
    PreStop(ProcessId, i64),
    /// Send a signal to a container.
    Signal(ProcessId, Signal),
    /// Remove a generation that is no longer shown.
    Forget(ProcessId),
    /// Measure the zone's usage: [`Resize::measured`].
    Measure,
    /// Change limits of the zone or of a container.
    Resize(Change),
    /// Halt the zone and remove it.
    Halt,
    /// Release what a removed zone needed: its address and roots; volumes, too, if the pod is over. Logs stay.
    Release {
        /// Whether the pod gets no further zone.
        over: bool,
    },
    /// Remove everything that was created for the pod, then the pod in the API.
    Remove,
    /// Record an event about the pod, or a container of it.
    Event {
        /// Whether it is a warning.
        warning: bool,
        /// Upstream's reason.
        reason: &'static str,
        /// The container.
        container: Option<String>,
        /// A human-readable message.
        message: String,
    },
}

/// What to do now, what to report, and when to decide again at the latest.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// The pod's status: [`Memory::last`] itself if nothing changed.
    pub status: Arc<PodStatus>,
    /// When something is due by time alone.
    pub wake: Option<Timestamp>,
}

/// A pod in upstream's notation: `NAME_NAMESPACE(UID)`.
pub fn full_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let [name, namespace, uid] = [&metadata.name, &metadata.namespace, &metadata.uid]
        .map(|text| text.as_deref().unwrap_or_default());
    format!("{name}_{namespace}({uid})")
}

/// The container ID in the API: 64 hexadecimal digits, like those of other runtimes.
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
