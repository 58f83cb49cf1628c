//! A real host's side of pods: directories, volumes, images, process descriptions, probes and hooks.
//!
//! ```text
//! DATA/pods/UID/volumes/NAME      what is mounted into containers     DATA/pods/UID/etc   hosts, resolv.conf
//! DATA/pods/UID/messages/C-GEN    termination messages                LOGS/NS_POD_UID/CONTAINER/GEN.log
//! ```

mod environment;
mod files;
mod probe;
mod process;
pub mod usage;
mod volumes;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe};

use super::images::{Credentials, Image, ImageError, Images, Reference, Registries, credentials};
use super::machine::{POD_NAME, POD_NAMESPACE, POD_UID, containers};
use super::supplies::{HostUsage, Lack, Outcome, Pulled, Supplies};
use super::zone_name;
use crate::net::Ipam;
use crate::storage::StorageEngine;
use crate::zone::{HostPort, Limits, ProcessId, ProcessSpec, ZoneNetwork, ZoneRuntime, ZoneSpec};

pub use files::log_path;

/// A real host.
pub struct Host {
    /// The API, as this node.
    pub client: kube::Client,
    /// Where everything about pods is kept.
    pub data: PathBuf,
    /// Where logs are kept.
    pub logs: PathBuf,
    /// Addresses of pods.
    pub ipam: Ipam,
    /// Images, roots, persistent volumes.
    pub storage: Arc<dyn StorageEngine>,
    /// Images by name.
    pub images: Images,
    /// Where images are pulled from.
    pub registries: Registries,
    /// The runtime, for probes and hooks.
    pub runtime: Arc<dyn ZoneRuntime>,
    /// This host's addresses.
    pub host_ips: Vec<String>,
    /// The address of the cluster's name server, if there is one.
    pub cluster_dns: Option<String>,
    /// `cluster.local`
    pub cluster_domain: String,
}

pub(super) fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

pub(super) fn uid(pod: &Pod) -> &str {
    text(pod.metadata.uid.as_ref())
}

impl Host {
    fn pod_directory(&self, uid: &str) -> PathBuf {
        self.data.join("pods").join(uid)
    }

    fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Lack {
        let what = what.to_string();
        move |error| Lack::new("FailedMount", format!("{what}: {error}"))
    }

    fn zone_spec(&self, pod: &Pod) -> Result<ZoneSpec, Lack> {
        let metadata = &pod.metadata;
        let spec = pod.spec.clone().unwrap_or_default();
        let uid = uid(pod);
        let host_network = spec.host_network == Some(true);
        let network = match host_network {
            true => ZoneNetwork::Host,
            false => {
                let lease = self.ipam.allocate(uid).map_err(|error| {
                    Lack::new(
                        "FailedCreatePodSandBox",
                        format!("Failed to create pod sandbox: {error}"),
                    )
                })?;
                let ports = containers(&spec)
                    .iter()
                    .flat_map(|(_, container)| container.ports.clone().unwrap_or_default())
                    .filter_map(|port| {
                        let host = u16::try_from(port.host_port?)
                            .ok()
                            .filter(|port| *port > 0)?;
                        Some(HostPort {
                            protocol: port.protocol.unwrap_or_else(|| "TCP".into()),
                            host_address: port.host_ip.and_then(|ip| ip.parse().ok()),
                            host,
                            zone: u16::try_from(port.container_port).ok()?,
                        })
                    })
                    .collect();
                ZoneNetwork::Own {
                    address: IpAddr::V4(lease.address),
                    prefix: lease.prefix,
                    gateway: IpAddr::V4(lease.gateway),
                    mac: lease.mac,
                    link: lease.link,
                    ports,
                }
            }
        };
        let memory = volumes::in_memory(&spec)
            .into_iter()
            .map(|(name, size)| (self.pod_directory(uid).join("volumes").join(name), size))
            .collect();
        let sysctls = spec
            .security_context
            .iter()
            .flat_map(|context| context.sysctls.iter().flatten())
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect();
        Ok(ZoneSpec {
            name: zone_name(uid),
            labels: BTreeMap::from([
                (POD_UID.into(), uid.into()),
                (POD_NAME.into(), text(metadata.name.as_ref()).into()),
                (
                    POD_NAMESPACE.into(),
                    text(metadata.namespace.as_ref()).into(),
                ),
            ]),
            hostname: files::hostname(pod),
            network,
            host_processes: spec.host_pid == Some(true),
            host_ipc: spec.host_ipc == Some(true),
            shared_processes: spec.share_process_namespace == Some(true),
            sysctls,
            memory_directories: memory,
            limits: Limits::default(),
        })
    }

    /// Credentials of the pod's imagePullSecrets; secrets that are not there give none.
    async fn pull_secrets(&self, pod: &Pod) -> BTreeMap<String, Credentials> {
        use k8s_openapi::api::core::v1::Secret;
        let namespace = text(pod.metadata.namespace.as_ref());
        let api: kube::Api<Secret> = kube::Api::namespaced(self.client.clone(), namespace);
        let mut all = BTreeMap::new();
        let named = pod
            .spec
            .iter()
            .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        for reference in named {
            if let Ok(Some(secret)) = api.get_opt(&reference.name).await {
                let data = secret.data.unwrap_or_default();
                for key in [".dockerconfigjson", ".dockercfg"] {
                    if let Some(text) = data.get(key) {
                        all.extend(credentials(&text.0));
                    }
                }
            }
        }
        all
    }

    /// The image of a container that is here.
    fn image(&self, container: &Container) -> Result<Option<Image>, Lack> {
        let name = text(container.image.as_ref());
        self.images.find(name).map_err(|error| match error {
            ImageError::Name { .. } => Lack::new(
                "InvalidImageName",
                format!("Failed to apply default image tag {name:?}: {error}"),
            ),
            other => Lack::new(
                "ImageInspectError",
                format!("Failed to inspect image {name:?}: {other}"),
            ),
        })
    }
}

impl Supplies for Host {
    fn prepare<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<ZoneSpec, Lack>> {
        async move {
            let directory = self.pod_directory(uid(pod));
            for name in ["volumes", "etc", "messages"] {
                let path = directory.join(name);
                std::fs::create_dir_all(&path).map_err(Self::failed(path.display()))?;
            }
            self.write_volumes(pod, true).await?;
            let spec = self.zone_spec(pod)?;
            self.write_files(pod, &spec)
                .map_err(Self::failed("the pod's files"))?;
            Ok(spec)
        }
        .boxed()
    }

    fn refresh<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), Lack>> {
        self.write_volumes(pod, false).boxed()
    }

    fn present<'a>(
        &'a self,
        _: &'a Pod,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<bool, Lack>> {
        async move {
            let here = self.image(container)?;
            let name = text(container.image.as_ref());
            match container.image_pull_policy.as_deref() {
                Some("Never") if here.is_none() => Err(Lack::new(
                    "ErrImageNeverPull",
                    format!("Container image {name:?} is not present with pull policy of Never"),
                )),
                // An image that was loaded by hand is of no registry: it is used, whatever the policy says.
                Some("Always") => Ok(here.is_some_and(|image| !image.pulled)),
                _ => Ok(here.is_some()),
            }
        }
        .boxed()
    }

    fn fetch<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Pulled, Lack>> {
        async move {
            let name = text(container.image.as_ref());
            let whole = Reference::parse(name).map_or_else(|_| name.to_owned(), |whole| whole.to_string());
            let secrets = self.pull_secrets(pod).await;
            let begun = std::time::Instant::now();
            match self.images.pull(&self.registries, name, &secrets).await {
                Ok(image) => {
                    let took = format!("{}ms", begun.elapsed().as_millis());
                    Ok(Pulled::Fetched(format!(
                        "Successfully pulled image {name:?} in {took} ({took} including waiting). Image size: {} bytes.",
                        image.size
                    )))
                }
                Err(error) => Err(Lack::new(
                    "ErrImagePull",
                    format!("failed to pull and unpack image {whole:?}: {error}"),
                )),
            }
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
        async move { self.termination_message(pod, container, id, failed) }.boxed()
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

    fn release<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Lack>> {
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
            self.ipam
                .release(uid)
                .map_err(|error| wrong(error.to_string()))
        }
        .boxed()
    }

    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Lack>> {
        async move {
            self.release(uid).await?;
            let (directory, logs, own) = (
                self.pod_directory(uid),
                self.logs.clone(),
                format!("_{uid}"),
            );
            let removed = tokio::task::spawn_blocking(move || {
                crate::storage::remove_tree(&directory)?;
                for entry in std::fs::read_dir(&logs).into_iter().flatten().flatten() {
                    if entry.file_name().to_string_lossy().ends_with(&own) {
                        crate::storage::remove_tree(&entry.path())?;
                    }
                }
                Ok::<_, io::Error>(())
            });
            match removed.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Lack::new("FailedKillPod", error.to_string())),
                Err(error) => Err(Lack::new("FailedKillPod", error.to_string())),
            }
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
            let entries = std::fs::read_dir(self.data.join("pods"));
            uids.extend(
                entries
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned()),
            );
            uids.sort();
            uids.dedup();
            Ok(uids)
        }
        .boxed()
    }

    fn host(&self) -> Option<HostUsage> {
        Some(usage::measure(&self.data))
    }

    fn probe<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
        probe: &'a Probe,
    ) -> BoxFuture<'a, Outcome> {
        self.ask(pod, container, id, zone, probe).boxed()
    }

    fn hook<'a>(
        &'a self,
        _: &'a Pod,
        container: &'a Container,
        id: &'a ProcessId,
        zone: &'a ZoneSpec,
        hook: &'a LifecycleHandler,
    ) -> BoxFuture<'a, Result<(), String>> {
        self.run_hook(container, id, zone, hook).boxed()
    }
}
