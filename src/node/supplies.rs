//! What a pod machine needs from a host beside its zones: volumes, images, process descriptions, probes, hooks.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, ContainerImage, LifecycleHandler, Pod, Probe};

use super::pressure::PodDisk;
use super::worker::Refusal;
use crate::zone::{ProcessId, ProcessSpec, ZoneSpec, ZoneUsage};

/// Something a pod cannot have for now, as its status or an event tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Upstream's reason: `FailedMount`, `ErrImagePull`, `CreateContainerConfigError`, ...
    pub reason: &'static str,
    /// For people.
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
    /// For people.
    pub error: String,
    /// What its command said.
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

/// How a probe went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// Well, with something to be told of it.
    Warning(String),
    /// Not, with what it said.
    Failure(String),
    /// It could not be asked at all.
    Error(String),
}

/// What an image pull did, for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// The image was there.
    Present,
    /// It was fetched, with a message of how.
    Fetched(String),
}

/// Something that a host has so much of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// All of it.
    pub capacity: u64,
    /// What is left.
    pub available: u64,
}

impl Amount {
    /// What is in use.
    pub fn used(self) -> u64 {
        self.capacity.saturating_sub(self.available)
    }
}

/// What a host has and what of it is in use, at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUsage {
    /// When it was measured.
    pub at: jiff::Timestamp,
    /// Processor time since the boot, in nanoseconds.
    pub cpu: u64,
    /// Bytes of memory; what could be taken back is available.
    pub memory: Amount,
    /// Bytes where pods, images and logs are kept.
    pub disk: Amount,
    /// Files there.
    pub inodes: Amount,
    /// Processes and threads.
    pub pids: Amount,
}

/// The host's side of pods. One real, one for simulated nodes.
pub trait Supplies: Send + Sync + 'static {
    /// Why a pod that is new is not begun here at all, if so: it asks for what the host can never give it.
    fn refuses(&self, pod: &Pod) -> Option<Refusal>;

    /// Makes the directories and volumes of a pod and says what its zone is to be. May be repeated.
    fn prepare<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<ZoneSpec, Lack>>;

    /// Brings volumes up to date with what they are made of.
    fn refresh<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), Lack>>;

    /// Whether `fetch` would have to be asked; if not, the image is there and may be used as its policy says.
    fn present<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<bool, Lack>>;

    /// Fetches the image of a container.
    fn fetch<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Pulled, Lack>>;

    /// Describes a container's process; its root is made.
    fn process<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
    ) -> BoxFuture<'a, Result<ProcessSpec, Lack>>;

    /// The termination message that a process left.
    fn message<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        failed: bool,
    ) -> BoxFuture<'a, String>;

    /// Removes what was made for a process.
    fn forget<'a>(&'a self, uid: &'a str, id: &'a ProcessId) -> BoxFuture<'a, Result<(), Lack>>;

    /// Gives back what a halted zone needed: its address and the roots of its processes; what its volumes hold, too,
    /// if the pod is `over` and has no other zone. Logs stay.
    fn release<'a>(&'a self, uid: &'a str, over: bool) -> BoxFuture<'a, Result<(), Lack>>;

    /// Removes everything of a pod.
    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Lack>>;

    /// Uids of pods that something is kept for.
    fn keeps(&self) -> BoxFuture<'_, Result<Vec<String>, Lack>>;

    /// What the host has and uses; nothing where there is no real host.
    fn host(&self) -> BoxFuture<'_, Option<HostUsage>>;

    /// The images of the host as its node's status tells of them.
    fn images(&self) -> BoxFuture<'_, Vec<ContainerImage>>;

    /// What a pod uses, by what was measured of its zone.
    fn usage(&self, pod: &Pod, measured: ZoneUsage) -> ZoneUsage;

    /// Nanoseconds of processor time that was used by what ended, where there is no real host that counts it.
    fn spent(&self) -> u64;

    /// What a pod has on disk.
    fn on_disk<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, PodDisk>;

    /// Removes images that none of `pods` uses, if the disk is nearly full, or, if `all`, in any case.
    fn collect<'a>(&'a self, pods: &'a [Arc<Pod>], all: bool) -> BoxFuture<'a, Result<(), Lack>>;

    /// Asks a probe once.
    fn probe<'a>(
        &'a self,
        pod: &'a Pod,
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
