//! What a pod needs from its host besides zones: volumes, images, process descriptions, probes, hooks.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, ContainerImage, LifecycleHandler, Pod, Probe};
use tokio::sync::watch;

use super::pressure::PodDisk;
use super::worker::Refusal;
use crate::zone::{ProcessId, ProcessSpec, ZoneSpec, ZoneUsage};

/// Something that a pod cannot have now, as reported in its status or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Upstream's reason: `FailedMount`, `ErrImagePull`, `CreateContainerConfigError`, ...
    pub reason: &'static str,
    /// A human-readable message.
    pub message: String,
}

impl Lack {
    /// A lack.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Lack {
            reason,
            message: message.into(),
        }
    }
}

/// Why a hook failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookFailure {
    /// A human-readable error.
    pub error: String,
    /// The output of its command.
    pub output: String,
}

impl From<String> for HookFailure {
    fn from(error: String) -> Self {
        HookFailure {
            error,
            output: String::new(),
        }
    }
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Success,
    /// It succeeded, with a warning.
    Warning(String),
    /// It failed, with its output.
    Failure(String),
    /// It could not be run.
    Error(String),
}

/// The result of an image pull, for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// The image was present.
    Present,
    /// It was pulled, with a message.
    Fetched(String),
}

/// A resource of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// The total.
    pub capacity: u64,
    /// The free part.
    pub available: u64,
}

impl Amount {
    /// The used part.
    pub fn used(self) -> u64 {
        self.capacity.saturating_sub(self.available)
    }
}

/// Resources and usage of a host at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUsage {
    /// When it was measured.
    pub at: jiff::Timestamp,
    /// CPU time since the boot, in nanoseconds.
    pub cpu: u64,
    /// Memory in bytes; reclaimable memory counts as available.
    pub memory: Amount,
    /// Bytes of the file system with pods, images and logs.
    pub disk: Amount,
    /// Its inodes.
    pub inodes: Amount,
    /// Processes and threads.
    pub pids: Amount,
}

/// The host's side of pods, with a real and a simulated implementation.
pub trait Supplies: Send + Sync + 'static {
    /// Why a new pod is refused, if it is: it needs something that the host can never provide.
    fn refuses(&self, pod: &Pod) -> Option<Refusal>;

    /// Starts maintaining the certificates of a pod, until the pod is over or removed. The receiver is marked changed
    /// whenever the pod's volumes must be updated with new ones. `None` if the pod has no certificates.
    fn certificates(&self, pod: &Pod) -> Option<watch::Receiver<()>>;

    /// Creates the directories and volumes of a pod and returns the specification of its zone. May be repeated.
    fn prepare<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<ZoneSpec, Lack>>;

    /// Updates volumes whose content comes from the API.
    fn refresh<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), Lack>>;

    /// Whether the image is present and may be used by its policy, so that `fetch` is not needed.
    fn present<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<bool, Lack>>;

    /// Pulls the image of a container.
    fn fetch<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Pulled, Lack>>;

    /// Describes a container's process, and creates its root.
    fn process<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
    ) -> BoxFuture<'a, Result<ProcessSpec, Lack>>;

    /// The termination message of a process.
    fn message<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        failed: bool,
    ) -> BoxFuture<'a, String>;

    /// Removes everything that was created for a process.
    fn forget<'a>(&'a self, uid: &'a str, id: &'a ProcessId) -> BoxFuture<'a, Result<(), Lack>>;

    /// Releases what a halted zone needed: its address and the roots of its processes; also the content of its volumes
    /// if the pod is `over` and gets no other zone. Logs stay.
    fn release<'a>(&'a self, uid: &'a str, over: bool) -> BoxFuture<'a, Result<(), Lack>>;

    /// Removes everything of a pod.
    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Lack>>;

    /// Uids of pods of which something remains.
    fn keeps(&self) -> BoxFuture<'_, Result<Vec<String>, Lack>>;

    /// Resources and usage of the host; None for a simulated one.
    fn host(&self) -> BoxFuture<'_, Option<HostUsage>>;

    /// The images of the host, for its node's status.
    fn images(&self) -> BoxFuture<'_, Vec<ContainerImage>>;

    /// The usage of a pod, given the measurement of its zone.
    fn usage(&self, pod: &Pod, measured: ZoneUsage) -> ZoneUsage;

    /// The CPU time of ended pods in nanoseconds, if no real host counts it.
    fn spent(&self) -> u64;

    /// The disk usage of a pod.
    fn on_disk<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, PodDisk>;

    /// Removes images that none of `pods` uses: all of them if `all`, otherwise if the disk is nearly full.
    fn collect<'a>(&'a self, pods: &'a [Arc<Pod>], all: bool) -> BoxFuture<'a, Result<(), Lack>>;

    /// Runs a probe once.
    fn probe<'a>(
        &'a self,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
        probe: &'a Probe,
    ) -> BoxFuture<'a, Outcome>;

    /// Runs a hook to its end.
    fn hook<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
        hook: &'a LifecycleHandler,
    ) -> BoxFuture<'a, Result<(), HookFailure>>;
}
