//! Supplies of simulated nodes: images are always there, volumes never needed, probes succeed.
//!
//! What containers do can be told by the pod's annotation `reddwarf.io/simulate`: `exit CODE after MILLISECONDS`,
//! `stubborn`, or both; see [`crate::zone::simulated`]. Without it init containers, and all containers of pods that
//! are not to be restarted, end with 0, and others run.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe};

use super::machine::{IMAGE, IMAGE_ID, Kind, POD_NAME, POD_NAMESPACE, POD_UID, containers};
use super::supplies::{Lack, Outcome, Pulled, Supplies};
use super::zone_name;
use crate::net::Ipam;
use crate::zone::simulated::BEHAVIOUR;
use crate::zone::{Limits, ProcessId, ProcessSpec, Rights, Root, ZoneNetwork, ZoneSpec};

/// The annotation of a pod that tells what its containers do.
pub const SIMULATE: &str = "reddwarf.io/simulate";

/// Supplies without a host.
pub struct SimulatedSupplies {
    /// Where pods get addresses.
    pub ipam: Ipam,
}

impl Supplies for SimulatedSupplies {
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
                    }
                }
            };
            Ok(ZoneSpec {
                name: zone_name(uid),
                labels: BTreeMap::from([
                    (POD_UID.into(), uid.into()),
                    (POD_NAME.into(), metadata.name.clone().unwrap_or_default()),
                    (
                        POD_NAMESPACE.into(),
                        metadata.namespace.clone().unwrap_or_default(),
                    ),
                ]),
                hostname: metadata.name.clone().unwrap_or_default(),
                network,
                host_processes: false,
                host_ipc: false,
                shared_processes: false,
                sysctls: BTreeMap::new(),
                memory_directories: BTreeMap::new(),
                limits: Limits::default(),
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
            let spec = pod.spec.clone().unwrap_or_default();
            let kind = containers(&spec)
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
            Ok(ProcessSpec {
                id: id.clone(),
                labels: BTreeMap::from([
                    (BEHAVIOUR.to_owned(), behaviour),
                    (IMAGE_ID.to_owned(), image.clone()),
                    (IMAGE.to_owned(), image),
                ]),
                root: Root::Directory("/".into()),
                command: vec![container.name.clone()],
                environment: Vec::new(),
                directory: "/".into(),
                mounts: Vec::new(),
                rights: Rights::default(),
                limits: Limits::default(),
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

    fn release<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Lack>> {
        async move {
            self.ipam
                .release(uid)
                .map_err(|error| Lack::new("FailedKillPod", error.to_string()))
        }
        .boxed()
    }

    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Lack>> {
        self.release(uid)
    }

    fn keeps(&self) -> BoxFuture<'_, Result<Vec<String>, Lack>> {
        // The pool is shared by all simulated nodes: what one does not know may be another's.
        async { Ok(Vec::new()) }.boxed()
    }

    fn probe<'a>(
        &'a self,
        _: &'a Pod,
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
    ) -> BoxFuture<'a, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}
