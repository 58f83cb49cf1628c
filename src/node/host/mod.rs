//! The parts of pods on a real host: directories, volumes, images, process descriptions, probes and hooks.
//!
//! ```text
//! DATA/pods/UID/volumes/NAME      what is mounted into containers     DATA/pods/UID/etc   hosts, resolv.conf
//! DATA/pods/UID/messages/C-GEN    termination messages                LOGS/NS_POD_UID/CONTAINER/GEN.log
//! ```

mod anchors;
mod claims;
mod collect;
mod content;
mod environment;
mod files;
mod health;
mod http;
mod images;
mod nested;
mod objects;
mod offers;
mod paths;
mod probe;
mod process;
pub mod usage;
mod volumes;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    Container, ContainerImage, LifecycleHandler, Pod, PodSpec, Probe,
};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::watch;

use super::addresses::Addresses;
use super::describe;
use super::images::{Images, Registries};
use super::machine::spec_of;
use super::pod_certificates::Certificates;
use super::pressure::PodDisk;
use super::services::Service;
use super::supplies::{HookFailure, HostUsage, Lack, Outcome, Pulled, Supplies};
use super::worker::Refusal;
use super::zone_name;
use crate::blocking::blocking;
use crate::client::events::Recorder;
use crate::client::informer::Informer;
use crate::meta::placement::BRANDS;
use crate::meta::quantity::Quantity;
use crate::net::Ipam;
use crate::storage::{StorageEngine, beneath, names};
use crate::zone::{ProcessId, ProcessSpec, ZoneNetwork, ZoneRuntime, ZoneSpec, ZoneUsage};

pub use claims::Claims;
pub use collect::Uses;
pub(in crate::node) use collect::{HIGH, LOW, MINIMUM_AGE};
pub use files::Logs;
pub(in crate::node) use images::TOLD;
pub use objects::Objects;
pub use paths::Paths;

/// A real host.
pub struct Host {
    /// A client as this node.
    pub client: kube::Client,
    /// The directory for everything about pods.
    pub data: PathBuf,
    /// The homes of pods, if writable and read-only files are kept apart.
    pub homes: Option<PathBuf>,
    /// Where logs are kept.
    pub logs: Logs,
    /// Addresses of pods.
    pub ipam: Ipam,
    /// Images, roots, persistent volumes.
    pub storage: Arc<dyn StorageEngine>,
    /// Images by name.
    pub images: Images,
    /// Connects to registries.
    pub registries: Registries,
    /// The runtime, for probes and hooks.
    pub runtime: Arc<dyn ZoneRuntime>,
    /// This host's addresses.
    pub addresses: Addresses,
    /// The addresses of the cluster's name servers; empty if there are none.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`
    pub cluster_domain: String,
    /// The cluster's services.
    pub services: Informer<Service>,
    /// What all pods together may use of this host.
    pub allocatable: BTreeMap<String, String>,
    /// Records events about pods.
    pub recorder: Recorder,
    /// The objects that pods use, as last seen.
    pub objects: Objects,
    /// The volumes that only one pod may use.
    pub claims: Claims,
    /// Paths of the host that are being looked at.
    pub paths: Paths,
    /// When images were last used.
    pub uses: Uses,
    /// The certificates of pods.
    pub certificates: Certificates,
}

pub(super) fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

/// Formats an error about a path.
fn at(path: &Path) -> impl FnOnce(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

pub(super) fn uid(pod: &Pod) -> &str {
    text(pod.metadata.uid.as_ref())
}

impl Host {
    /// The files from the agent: containers can only read them.
    fn pod_directory(&self, uid: &str) -> PathBuf {
        self.data.join("pods").join(uid)
    }

    /// The files that a pod's containers write outside their roots.
    fn writable(&self, uid: &str) -> PathBuf {
        match &self.homes {
            Some(homes) => homes.join(uid).join("rw"),
            None => self.pod_directory(uid),
        }
    }

    /// The specification of a pod's zone; `handler` is that of its runtime class.
    async fn zone_spec(&self, pod: &Pod, handler: Option<String>) -> Result<ZoneSpec, Lack> {
        let spec = pod.spec.clone().unwrap_or_default();
        let uid = uid(pod);
        let handler = handler.filter(|handler| BRANDS.contains(&handler.as_str()));
        let brand = describe::brand(pod).map(str::to_owned).or(handler);
        let made = brand.as_deref().unwrap_or(self.runtime.brand());
        // An address is allocated once everything else is there.
        let (claims, datasets) = self.claims(pod, made).await?;
        let network = match spec.host_network == Some(true) {
            true => ZoneNetwork::Host,
            false => {
                let (ipam, owner) = (self.ipam.clone(), uid.to_owned());
                let lease = blocking(move || {
                    let lease = ipam.allocate(&owner);
                    lease.map_err(|error| error.to_string())
                });
                let lease = lease.await.map_err(|error| {
                    let message = format!("Failed to create pod sandbox: {error}");
                    Lack::new("FailedCreatePodSandBox", message)
                })?;
                describe::network(pod, lease)
            }
        };
        let mut shares = describe::host_paths(&spec);
        shares.extend(claims);
        let volumes = self.writable(uid).join("volumes");
        let mut zone = describe::zone_spec(pod, network, &volumes, shares);
        if matches!(zone.network, ZoneNetwork::Own { .. }) {
            let name = describe::kernel_name(pod, &self.cluster_domain);
            zone.hostname = name.map_err(|error| {
                let message = format!("Failed to create pod sandbox: {error}");
                Lack::new("FailedCreatePodSandBox", message)
            })?;
        }
        zone.brand = brand;
        zone.datasets = datasets;
        zone.limits = describe::limits(pod);
        // Follows `calculateEmptyDirMemorySize` (pkg/volume/emptydir).
        let node = self.allocatable.get("memory");
        let node = node.and_then(|text| Quantity::parse(text).ok());
        let node = node.and_then(|most| u64::try_from(most.value()).ok());
        for size in zone.memory_directories.values_mut() {
            *size = [*size, zone.limits.memory, node]
                .into_iter()
                .flatten()
                .min();
        }
        Ok(zone)
    }

    /// The handler of the pod's runtime class, if it has one. Follows `LookupRuntimeHandler`
    /// (pkg/kubelet/runtimeclass/runtimeclass_manager.go).
    async fn handler(&self, spec: &PodSpec) -> Result<Option<String>, Lack> {
        let name = spec.runtime_class_name.as_deref();
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let classes: kube::Api<RuntimeClass> = kube::Api::all(self.client.clone());
        let failed = |error: String| {
            let message = format!("Failed to create pod sandbox: {error}");
            Lack::new("FailedCreatePodSandBox", message)
        };
        match classes.get_opt(name).await {
            Ok(Some(class)) => Ok(Some(class.handler)),
            Ok(None) => Err(failed(format!(
                "runtimeclass.node.k8s.io {name:?} not found"
            ))),
            Err(error) => Err(failed(format!(
                "failed to lookup RuntimeClass {name}: {error}"
            ))),
        }
    }
}

impl Supplies for Host {
    fn refuses(&self, pod: &Pod) -> Option<Refusal> {
        offers::refuses(pod)
    }

    fn certificates(&self, pod: &Pod) -> Option<watch::Receiver<()>> {
        self.certificates.track(pod)
    }

    fn prepare<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<ZoneSpec, Lack>> {
        async move {
            let handler = self.handler(spec_of(pod)).await?;
            if let Some(lack) = offers::lacks(pod, handler.as_deref()) {
                return Err(lack);
            }
            if self.homes.is_some() {
                let room = describe::storage(pod);
                let made = self.storage.make_home(uid(pod), room).await;
                made.map_err(|error| Lack::new("FailedMount", error.to_string()))?;
            }
            let (own, writable) = (self.pod_directory(uid(pod)), self.writable(uid(pod)));
            let made = blocking(move || {
                for path in [own.join("volumes"), own.join("etc")] {
                    std::fs::create_dir_all(&path).map_err(at(&path))?;
                }
                for name in ["volumes", "messages"] {
                    let made = beneath::make_directory(&writable, Path::new(name), 0o755);
                    made.map_err(at(&writable.join(name)))?;
                }
                Ok(())
            });
            made.await
                .map_err(|error: String| Lack::new("FailedMount", error))?;
            self.write_volumes(pod, true).await?;
            let spec = self.zone_spec(pod, handler).await?;
            let written = self.write_files(pod, &spec).await;
            written
                .map_err(|error| Lack::new("FailedMount", format!("the pod's files: {error}")))?;
            Ok(spec)
        }
        .boxed()
    }

    fn refresh<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), Lack>> {
        self.write_volumes(pod, false).boxed()
    }

    fn present<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<bool, Lack>> {
        async move {
            for (name, policy) in describe::images(pod, container) {
                if !self.is_present(pod, name, policy).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        .boxed()
    }

    fn fetch<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Pulled, Lack>> {
        async move {
            let mut done = Pulled::Present;
            for (name, policy) in describe::images(pod, container) {
                if !self.is_present(pod, name, policy).await? {
                    done = self.pull(pod, name).await?;
                }
            }
            Ok(done)
        }
        .boxed()
    }

    fn process<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
    ) -> BoxFuture<'a, Result<ProcessSpec, Lack>> {
        self.describe(pod, container, id, zone).boxed()
    }

    fn message<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        failed: bool,
    ) -> BoxFuture<'a, String> {
        self.termination_message(pod, container, id, failed).boxed()
    }

    fn forget<'a>(&'a self, uid: &'a str, id: &'a ProcessId) -> BoxFuture<'a, Result<(), Lack>> {
        async move {
            let root = process::root_name(uid, id);
            self.storage
                .remove_root(&root)
                .await
                .map_err(|error| Lack::new("FailedKillPod", error.to_string()))
        }
        .boxed()
    }

    fn release<'a>(&'a self, uid: &'a str, over: bool) -> BoxFuture<'a, Result<(), Lack>> {
        async move {
            let wrong = |error: String| Lack::new("FailedKillPod", error);
            let own = format!("{uid}/");
            for root in self
                .storage
                .roots()
                .await
                .map_err(|error| wrong(error.to_string()))?
            {
                if root.starts_with(&own) {
                    self.storage
                        .remove_root(&root)
                        .await
                        .map_err(|error| wrong(error.to_string()))?;
                }
            }
            let (ipam, owner) = (self.ipam.clone(), uid.to_owned());
            let released = blocking(move || {
                let released = ipam.release(&owner);
                released.map_err(|error| error.to_string())
            });
            released.await.map_err(wrong)?;
            self.claims.release(uid);
            if !over {
                return Ok(());
            }
            self.certificates.forget(uid);
            let volumes = [self.pod_directory(uid), self.writable(uid)];
            let removed = blocking(move || {
                let mut volumes = volumes.iter().map(|above| above.join("volumes"));
                volumes.try_for_each(|volumes| crate::storage::remove_tree(&volumes))
            });
            let removed: Result<(), io::Error> = removed.await;
            removed.map_err(|error| wrong(error.to_string()))
        }
        .boxed()
    }

    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Lack>> {
        async move {
            self.objects.forget(uid);
            self.certificates.forget(uid);
            self.release(uid, false).await?;
            if self.homes.is_some() {
                let removed = self.storage.remove_home(uid).await;
                removed.map_err(|error| Lack::new("FailedKillPod", error.to_string()))?;
            }
            let (directory, own) = (self.pod_directory(uid), format!("_{uid}"));
            let logs = match &self.logs {
                Logs::Together(logs) => Some(logs.clone()),
                Logs::Homes(_) => None,
            };
            let removed = blocking(move || {
                if let Some(logs) = logs {
                    for name in names(&logs)?.iter().filter(|name| name.ends_with(&own)) {
                        crate::storage::remove_tree(&logs.join(name))?;
                    }
                }
                // Last: an agent that is killed before finds by this that there is more.
                crate::storage::remove_tree(&directory)
            });
            let removed = removed.await;
            removed.map_err(|error| Lack::new("FailedKillPod", error.to_string()))
        }
        .boxed()
    }

    fn keeps(&self) -> BoxFuture<'_, Result<Vec<String>, Lack>> {
        async move {
            let mut uids = self.ipam.owners();
            let roots = self
                .storage
                .roots()
                .await
                .map_err(|error| Lack::new("FailedKillPod", error.to_string()))?;
            uids.extend(
                roots
                    .iter()
                    .filter_map(|root| Some(root.split_once('/')?.0.to_owned())),
            );
            let homes = self.storage.homes().await;
            uids.extend(homes.map_err(|error| Lack::new("FailedKillPod", error.to_string()))?);
            let pods = self.data.join("pods");
            let listed = blocking(move || {
                names(&pods).map_err(|error| format!("cannot list {}: {error}", pods.display()))
            });
            let listed = listed.await;
            uids.extend(listed.map_err(|error| Lack::new("FailedKillPod", error))?);
            uids.sort();
            uids.dedup();
            Ok(uids)
        }
        .boxed()
    }

    fn on_disk<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, PodDisk> {
        self.disk_of(pod).boxed()
    }

    fn collect<'a>(&'a self, pods: &'a [Arc<Pod>], all: bool) -> BoxFuture<'a, Result<(), Lack>> {
        self.collect_images(pods, all).boxed()
    }

    fn images(&self) -> BoxFuture<'_, Vec<ContainerImage>> {
        let images = self.images.clone();
        async move {
            match blocking(move || images.list()).await {
                Ok(list) => images::told(list),
                Err(error) => {
                    tracing::warn!(%error, "cannot list images; the node's status has none");
                    Vec::new()
                }
            }
        }
        .boxed()
    }

    fn usage(&self, _: &Pod, measured: ZoneUsage) -> ZoneUsage {
        measured
    }

    fn spent(&self) -> u64 {
        // The host itself counts it.
        0
    }

    fn host(&self) -> BoxFuture<'_, Option<HostUsage>> {
        let data = self.data.clone();
        async move {
            let measured = blocking(move || Ok::<_, String>(usage::measure(&data))).await;
            measured.ok()
        }
        .boxed()
    }

    fn probe<'a>(
        &'a self,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
        probe: &'a Probe,
    ) -> BoxFuture<'a, Outcome> {
        self.ask(container, id, zone, probe).boxed()
    }

    fn hook<'a>(
        &'a self,
        _: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
        hook: &'a LifecycleHandler,
    ) -> BoxFuture<'a, Result<(), HookFailure>> {
        self.run_hook(container, id, zone, hook).boxed()
    }
}
