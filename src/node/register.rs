//! The node object: registered once, with a status that is updated, and a lease as heartbeat.

mod fitness;
mod registration;
mod report;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::report::report;
use super::failing::Attempts;
use super::pressure::Observed;
use super::routes::Reach;
use crate::client::events::Recorder;
use crate::client::follow::{Event, follow};

pub use self::fitness::Fitness;
pub(super) use self::registration::DECLARED;
pub use self::registration::{Registration, host_capacity, host_info};
pub(super) use self::report::REPORT;

/// How often the node's status is checked, and its lease renewed.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(7);
/// The first pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);
/// The duration of a lease, in seconds.
pub(super) const LEASE_SECONDS: i32 = 40;

/// Registers the node and updates its status and lease until `ends` is cancelled. The condition `NetworkUnavailable`
/// follows `reach`, once that has a value; addresses follow those of the registration at once.
pub async fn keep(
    client: kube::Client,
    registration: Registration,
    fitness: Fitness,
    observed: Arc<Observed>,
    reach: watch::Receiver<Option<Reach>>,
    recorder: Recorder,
    ends: CancellationToken,
) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let kept = async {
        // Requests are boxed, here and below: they are large, and most of the time there is none.
        let node = Box::pin(registered(&nodes, &registration)).await;
        // It changes when the node is deleted and registers again.
        let uid = Mutex::new(node.metadata.uid.clone());
        let lives = prove_life(&leases, &registration.name, &uid);
        let (sees, seen) = watch::channel(node.clone());
        let looks = see(nodes.clone(), &registration.name, sees);
        let about = (&registration, &fitness, &*observed, &recorder);
        let told = report(&nodes, node, about, (reach, seen), &uid);
        // None waits for another one: a host whose status is stuck still sends heartbeats.
        tokio::join!(lives, looks, told);
    };
    tokio::select! {
        () = kept => {}
        () = ends.cancelled() => {}
    }
}

/// Registers the node, retrying until it succeeds.
async fn registered(nodes: &Api<Node>, registration: &Registration) -> Node {
    let mut attempts = Attempts::new(format!("node {} cannot be registered", registration.name));
    let mut pause = Pause::default();
    loop {
        let node = register(nodes, registration).await;
        attempts.note(&node);
        match node {
            Ok(node) => return node,
            Err(_) => tokio::time::sleep(pause.longer()).await,
        }
    }
}

/// The pause between failed attempts.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Pause(AGAIN)
    }
}

impl Pause {
    /// The next pause: twice the last one, up to [`LONGEST`].
    fn longer(&mut self) -> Duration {
        let longer = (self.0 * 2).min(LONGEST);
        std::mem::replace(&mut self.0, longer)
    }
}

/// Renews the node's lease, forever.
async fn prove_life(leases: &Api<Lease>, name: &str, uid: &Mutex<Option<String>>) {
    let mut attempts = Attempts::new(format!("the lease of node {name} cannot be renewed"));
    let mut pause = Pause::default();
    loop {
        let owner = uid.lock().clone();
        let renewed = tokio::time::timeout(HEARTBEAT, Box::pin(renew(leases, owner, name))).await;
        let renewed = renewed.unwrap_or_else(|late| Err(kube::Error::Service(late.into())));
        attempts.note(&renewed);
        let wait = match renewed {
            Ok(()) => {
                pause = Pause::default();
                HEARTBEAT
            }
            Err(_) => pause.longer(),
        };
        tokio::time::sleep(wait).await;
    }
}

/// Publishes the node object as the API has it, forever.
async fn see(nodes: Api<Node>, name: &str, sees: watch::Sender<Node>) {
    let mut events = follow(nodes, &format!("metadata.name={name}"));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Listed(node) | Event::Applied(node)) => drop(sees.send_replace(node)),
            // A deleted node registers again.
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, name, "the watch of the node was interrupted; it resumes")
            }
        }
    }
}

async fn register(nodes: &Api<Node>, registration: &Registration) -> kube::Result<Node> {
    match nodes
        .create(&PostParams::default(), &registration.node())
        .await
    {
        Ok(node) => Ok(node),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let mut patch = serde_json::json!({"metadata": {"labels": registration.labels()}});
            if let Some(range) = &registration.pod_cidr {
                patch["spec"] = serde_json::json!({"podCIDR": range, "podCIDRs": [range]});
            }
            nodes
                .patch(
                    &registration.name,
                    &PatchParams::default(),
                    &Patch::Strategic(patch),
                )
                .await
        }
        Err(error) => Err(error),
    }
}

async fn renew(leases: &Api<Lease>, uid: Option<String>, name: &str) -> kube::Result<()> {
    let spec = LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let patch = serde_json::json!({"spec": spec});
    match leases
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("kube-node-lease".into()),
            owner_references: uid.map(|uid| {
                vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: name.to_owned(),
                    uid,
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    };
    leases
        .create(&PostParams::default(), &lease)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests;
