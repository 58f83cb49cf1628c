//! Checks all nodes every few seconds. Follows monitorNodeHealth of k8s.io/kubernetes/pkg/controller/nodelifecycle.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

use super::health::{Health, hear, silenced};
use super::taints::{When, evicting};
use super::zones::{Turn, Zones};
use super::{WORKERS, mark_not_ready, swap_taints};
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found, text};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::Informer;
use crate::client::kinds::{Node, NodeLease};
use crate::controllers::pods::Pods;
use crate::meta::placement;

const PERIOD: Duration = Duration::from_secs(5);
/// Where nodes keep their leases.
const LEASES: &str = "kube-node-lease";
/// The label of nodes that are excluded when the state of a zone is computed.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

pub(super) struct Monitor<'a> {
    context: &'a Context,
    nodes: &'a Informer<Node>,
    leases: &'a Informer<NodeLease>,
    pods: &'a Pods,
    recorder: &'a Recorder,
    health: HashMap<String, Health>,
    known: HashMap<String, Arc<Node>>,
    /// Nodes some of whose pods could not be marked.
    retry: HashSet<String>,
    zones: Zones,
}

/// A node, its former status of `Ready`, and its current one; None if it is unknown.
struct Found {
    node: Arc<Node>,
    observed: String,
    current: Option<String>,
}

fn zone_of(node: &Node) -> String {
    placement::zone(node.labels()).into()
}

impl<'a> Monitor<'a> {
    pub(super) fn new(
        context: &'a Context,
        nodes: &'a Informer<Node>,
        leases: &'a Informer<NodeLease>,
        pods: &'a Pods,
        recorder: &'a Recorder,
    ) -> Monitor<'a> {
        Monitor {
            context,
            nodes,
            leases,
            pods,
            recorder,
            health: HashMap::new(),
            known: HashMap::new(),
            retry: HashSet::new(),
            zones: Zones::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (due, next) = self.zones.due(Instant::now());
            for name in due {
                self.evict_from(&name).await;
            }
            tokio::select! {
                _ = ticks.tick() => self.look().await,
                () = tokio::time::sleep(next.unwrap_or(PERIOD)) => {}
                () = self.context.ends.cancelled() => return,
            }
        }
    }

    /// Adds the NoExecute taint to a node whose turn it is.
    async fn evict_from(&mut self, name: &str) {
        let Some(node) = self.nodes.get("", name) else {
            return;
        };
        let client = &self.context.client;
        let swapped = swap_taints(client, &node, |node| {
            let ready = node.ready()?;
            evicting(node, &ready.status, Timestamp::now()).map(|(taints, _)| taints)
        });
        match swapped.await {
            Ok(true) => {}
            Ok(false) => self.zones.wait(&zone_of(&node), name, Instant::now()),
            Err(error) => {
                tracing::warn!(
                    node = name,
                    error = text(&error),
                    "cannot taint the node yet; retrying"
                );
                self.zones.wait(&zone_of(&node), name, Instant::now());
            }
        }
    }

    /// Checks all nodes once.
    async fn look(&mut self) {
        let nodes: Vec<Arc<Node>> = self.nodes.all().into_iter().map(|(_, node)| node).collect();
        self.greet(&nodes).await;
        let now = (Instant::now(), Timestamp::now());
        let (mut heard, mut silent) = (Vec::new(), Vec::new());
        for node in nodes {
            let name = node.name_any();
            let lease = self.leases.get(LEASES, &name);
            let (health, is_silent) = hear(self.health.get(&name), &node, lease.as_deref(), now);
            self.health.insert(name, health);
            let status = node.ready().map(|ready| ready.status.clone());
            let changes = if is_silent {
                silenced(&node, now.1)
            } else {
                Vec::new()
            };
            if changes.is_empty() {
                heard.push(Found {
                    node,
                    observed: status.clone().unwrap_or_else(|| "Unknown".to_owned()),
                    current: status,
                });
            } else {
                silent.push((node, lease, changes));
            }
        }
        let monitor = &*self;
        let silenced: Vec<Option<Found>> = stream::iter(silent)
            .map(|(node, lease, changes)| monitor.silence(node, lease, changes))
            .buffer_unordered(WORKERS)
            .collect()
            .await;
        heard.extend(silenced.into_iter().flatten());
        let mut zones: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        for found in &heard {
            if !found.node.labels().contains_key(EXCLUDED) {
                let is_ready = found.current.as_deref() == Some("True");
                zones
                    .entry(zone_of(&found.node))
                    .or_default()
                    .push(is_ready);
            }
        }
        for found in &heard {
            self.taint(found).await;
        }
        let monitor = &*self;
        let marks: Vec<_> = heard
            .iter()
            .map(|found| monitor.mark_pods(found).boxed())
            .collect();
        let marked: Vec<(String, bool)> = stream::iter(marks)
            .buffer_unordered(WORKERS)
            .collect()
            .await;
        for (name, is_done) in marked {
            if is_done {
                self.retry.remove(&name);
            } else {
                self.retry.insert(name);
            }
        }
        match self.zones.observe(&zones, Instant::now()) {
            Turn::None => {}
            Turn::Lost => {
                tracing::warn!("no node is ready: evictions are suspended");
                for found in &heard {
                    self.untaint(&found.node).await;
                }
            }
            Turn::Found => {
                let now = Instant::now();
                self.health
                    .values_mut()
                    .for_each(|health| health.since = now);
            }
        }
    }

    /// Records events about new and deleted nodes.
    async fn greet(&mut self, nodes: &[Arc<Node>]) {
        for node in nodes {
            let name = node.name_any();
            if self.known.insert(name.clone(), node.clone()).is_some() {
                continue;
            }
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.recorder
                .tell(&**node, Tone::Normal, "RegisteredNode", message);
            self.untaint(node).await;
        }
        if self.known.len() == nodes.len() {
            return;
        }
        let names: HashSet<String> = nodes.iter().map(|node| node.name_any()).collect();
        let recorder = self.recorder;
        self.known.retain(|name, node| {
            let stays = names.contains(name);
            if !stays {
                let message = format!("Node {name} event: Removing Node {name} from Controller");
                recorder.tell(&**node, Tone::Normal, "RemovingNode", message);
            }
            stays
        });
        self.health.retain(|name, _| names.contains(name));
        self.retry.retain(|name| names.contains(name));
    }

    /// Sets the conditions of a silent node to unknown. Returns None if it was not silent after all, or the write
    /// failed.
    async fn silence(
        &self,
        node: Arc<Node>,
        lease: Option<Arc<NodeLease>>,
        changes: Vec<v1::NodeCondition>,
    ) -> Option<Found> {
        let name = node.name_any();
        match self.write_silence(&node, lease.as_deref(), changes).await {
            Ok(true) => Some(Found {
                observed: node
                    .ready()
                    .map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone()),
                current: Some("Unknown".to_owned()),
                node,
            }),
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(
                    node = name,
                    error = text(&error),
                    "cannot set the conditions of the silent node yet; retrying"
                );
                None
            }
        }
    }

    async fn write_silence(
        &self,
        node: &Node,
        lease: Option<&NodeLease>,
        changes: Vec<v1::NodeCondition>,
    ) -> Result<bool, kube::Error> {
        let name = node.name_any();
        let leases: Api<Lease> = Api::namespaced(self.context.client.clone(), LEASES);
        // It may only be the cache that is behind.
        if let Some(live) = leases.get_metadata_opt(&name).await?
            && live.metadata.resource_version.as_ref()
                != lease.and_then(|lease| lease.metadata.resource_version.as_ref())
        {
            self.leases
                .reach(live.metadata.resource_version.as_deref())
                .await;
            return Ok(false);
        }
        let version = &node.metadata.resource_version;
        let patch =
            json!({"metadata": {"resourceVersion": version}, "status": {"conditions": changes}});
        let api: Api<v1::Node> = Api::all(self.context.client.clone());
        let params = PatchParams::default();
        match api
            .patch_status(&name, &params, &Patch::Strategic(patch))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Updates the NoExecute taints of a node.
    async fn taint(&mut self, found: &Found) {
        let Some(ready) = found.current.as_deref() else {
            return;
        };
        let (name, zone) = (found.node.name_any(), zone_of(&found.node));
        match evicting(&found.node, ready, Timestamp::now()) {
            Some((_, When::InTurn)) => self.zones.wait(&zone, &name, Instant::now()),
            Some((_, When::Now)) => self.retaint(&found.node, ready).await,
            None => {}
        }
        if ready == "True" {
            self.zones.forget(&zone, &name);
        }
    }

    /// Removes the NoExecute taints from a node.
    async fn untaint(&self, node: &Node) {
        self.retaint(node, "True").await;
    }

    async fn retaint(&self, node: &Node, ready: &str) {
        let client = &self.context.client;
        let wanted =
            |node: &Node| evicting(node, ready, Timestamp::now()).map(|(taints, _)| taints);
        if let Err(error) = swap_taints(client, node, wanted).await {
            let node = node.name_any();
            tracing::warn!(
                node,
                error = text(&error),
                "cannot update the node's taints; retrying"
            );
        }
    }

    /// Marks the pods of a node that has just become not ready. Returns whether that succeeded.
    async fn mark_pods(&self, found: &Found) -> (String, bool) {
        let name = found.node.name_any();
        let is_down = found
            .current
            .as_deref()
            .is_some_and(|current| current != "True");
        let has_changed = found.observed == "True";
        if !is_down || !(has_changed || self.retry.contains(&name)) {
            return (name, true);
        }
        if has_changed {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.recorder
                .tell(&*found.node, Tone::Normal, "NodeNotReady", message);
        }
        let mut is_done = true;
        for pod in self.pods.by_node.get(&name) {
            if let Err(error) = mark_not_ready(&self.context.client, self.recorder, &pod).await {
                let pod = pod.name_any();
                tracing::warn!(
                    node = name,
                    pod,
                    error = text(&error),
                    "cannot mark the pod as not ready yet; retrying"
                );
                is_done = false;
            }
        }
        (name, is_done)
    }
}
