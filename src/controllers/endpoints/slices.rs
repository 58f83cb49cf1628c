//! endpointslice-controller: maintains the endpoint slices of services.

mod plan;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use self::plan::plan;
use self::wanted::{families, wanted};
use super::managed::{Changes, Refused, Slices};
use super::{Service, Triggers, printed, selected, wake};
use crate::client::Context;
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Informer, Key};
use crate::client::kinds::Node;
use crate::client::queue::{Delays, Next, Queue};
use crate::controllers::pods::Pods;

pub(super) use self::plan::says_same;
pub(super) use self::wanted::{Ports, ports_key};

const WORKERS: usize = 5;
/// How long failed services are delayed.
const DELAYS: Delays = Delays {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(1000),
};
/// The most endpoints in one slice.
const MOST: usize = 100;
const MANAGER: &str = "endpointslice-controller.k8s.io";

struct Controller {
    context: Context,
    services: Informer<Service>,
    slices: Slices,
    nodes: Informer<Node>,
    pods: Pods,
    recorder: Recorder,
    triggers: Triggers,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<Key>::with_delays(DELAYS));
    let controller = Controller {
        services: context.informers.of::<Service>(),
        slices: Slices::of(&context, MANAGER),
        nodes: context.informers.of::<Node>(),
        pods: Pods::of(&context.informers),
        recorder: context.recorder("endpoint-slice-controller"),
        triggers: Triggers::default(),
        context,
    };
    wake(&queue, &controller.services, &controller.pods);
    controller.slices.follow(&queue);
    let look = |key: Key| controller.sync(key);
    controller.context.work(&queue, WORKERS, look).await;
}

/// Why slices have to be looked at again.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("skipping pods on nodes that are not known: {0}")]
    Nodes(String),
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<Next, Unfinished> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            self.triggers.forget(&key);
            return Ok(Next::Done);
        };
        if service.is_foreign() {
            return Ok(Next::Done);
        }
        let pods = selected(&self.pods, &service);
        let mut slices = self.slices.list(&key);
        slices.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        let trigger = self.triggers.earliest(&key, &service, &pods).map(printed);
        let families = families(&service);
        let mut changes = Changes::default();
        let mut lost = Vec::new();
        for slice in &slices {
            if !families.contains(&slice.address_type.as_str()) {
                changes.delete.push(slice.name_any());
            }
        }
        for family in families {
            let own: Vec<EndpointSlice> = slices
                .iter()
                .filter(|slice| slice.address_type == family)
                .map(|slice| (**slice).clone())
                .collect();
            let wanted = wanted(&service, &pods, &self.nodes, family, &mut lost);
            changes.add(plan(&service, own, wanted, family));
        }
        if service.metadata.deletion_timestamp.is_some() {
            changes.create.clear();
        }
        changes.stamp(trigger.as_deref());
        let owner = format!("Service {}/{}", key.namespace, key.name);
        let written = self.slices.carry_out(&key.namespace, &owner, changes).await;
        if let Err(refused) = &written {
            let message = format!("Error updating Endpoint Slices for {owner}: {refused}");
            self.recorder.tell(
                &*service,
                Tone::Warning,
                "FailedToUpdateEndpointSlices",
                message,
            );
        }
        let next = written.or_else(Refused::patiently)?;
        if lost.is_empty() {
            Ok(next)
        } else {
            lost.dedup();
            Err(Unfinished::Nodes(lost.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests;
