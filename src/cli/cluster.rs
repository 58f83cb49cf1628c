//! The identities of the agent and its nodes, and their clients and caches of the cluster.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

use crate::auth::node::{NODES, PREFIX};
use crate::auth::{AUTHENTICATED, MASTERS, User};
use crate::client::Transport;
use crate::client::events::{Events, Recorder};
use crate::client::informer::{Informer, Informers};
use crate::controllers::manager::account_user;
use crate::node::ranges::Ranged;
use crate::node::services::Services;
use crate::node::volumes::DRIVER;

/// What a node gets from the cluster.
#[derive(Clone)]
pub(super) struct Cluster {
    /// A client as `system:node:NAME`.
    pub client: kube::Client,
    /// Records events about the node and its pods.
    pub recorder: Recorder,
    /// A client that may see all nodes.
    pub observer: kube::Client,
    /// Caches of services, endpoint slices and nodes. Each is watched only when it is first requested.
    informers: Informers,
    /// Where the API server in this process listens, if zones can be led to that address.
    pub api_server: Option<SocketAddrV4>,
}

impl Cluster {
    /// Services and their endpoints, from caches that all callers share.
    pub fn services(&self) -> Services {
        Services::of(&self.informers)
    }

    /// The cluster's nodes, for one run of a task, with which the subscriptions end.
    pub fn nodes_for(&self, run: &CancellationToken) -> Informer<Ranged> {
        self.informers.for_run(run.clone()).of()
    }

    /// Like [`Cluster::services`], for one run of a task, with which the subscriptions end.
    pub fn services_for(&self, run: &CancellationToken) -> Services {
        Services::of(&self.informers.for_run(run.clone()))
    }
}

/// Where clients come from.
pub(super) enum Clients {
    /// The API server in this process, and where it listens.
    InProcess(Transport, SocketAddr),
    /// An API server that the agent joined.
    Remote(kube::Client),
}

impl Clients {
    /// The client of a node.
    fn of(&self, node: &str) -> kube::Client {
        match self {
            Clients::InProcess(transport, _) => transport.client(
                User::new(&format!("{PREFIX}{node}"), &[NODES, AUTHENTICATED]),
                "kubelet",
            ),
            Clients::Remote(client) => client.clone(),
        }
    }

    /// A client that may see volumes and let go of those on its nodes; a node that joined has only its own.
    pub(super) fn for_volumes(&self) -> kube::Client {
        match self {
            Clients::InProcess(transport, _) => {
                transport.client(account_user("persistent-volume-binder"), "kubelet")
            }
            Clients::Remote(client) => client.clone(),
        }
    }

    /// A client that may see services, endpoint slices and all nodes; a node that joined has only its own.
    fn for_services(&self) -> kube::Client {
        match self {
            Clients::InProcess(transport, _) => transport.client(
                User::new("system:kube-proxy", &[AUTHENTICATED]),
                "kube-proxy",
            ),
            Clients::Remote(client) => client.clone(),
        }
    }

    /// What a node gets from the cluster, until `ends` is cancelled.
    pub(super) fn cluster(&self, node: &str, events: &Events, ends: &CancellationToken) -> Cluster {
        let client = self.of(node);
        let api_server = match self {
            Clients::InProcess(_, SocketAddr::V4(at)) => Some(match at.ip().is_unspecified() {
                true => SocketAddrV4::new(Ipv4Addr::LOCALHOST, at.port()),
                false => *at,
            }),
            _ => None,
        };
        Cluster {
            recorder: events.recorder(client.clone(), "kubelet").on(node),
            client,
            observer: self.for_services(),
            informers: Informers::new(self.for_services(), ends.clone()),
            api_server,
        }
    }

    /// Creates the default storage class, unless the cluster has a class of that name.
    pub(super) async fn make_class(&self) {
        let Clients::InProcess(transport, _) = self else {
            return;
        };
        let client = transport.client(
            User::new("system:admin", &[MASTERS, AUTHENTICATED]),
            "kubelet",
        );
        let classes: Api<StorageClass> = Api::all(client);
        match classes
            .create(&PostParams::default(), &default_class())
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(error) => {
                tracing::warn!(%error, "cannot create the storage class of this host's volumes")
            }
        }
    }
}

/// The storage class of this host's volumes.
fn default_class() -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some("reddwarf".to_owned()),
            annotations: Some(BTreeMap::from([(
                "storageclass.kubernetes.io/is-default-class".to_owned(),
                "true".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        provisioner: DRIVER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    }
}
