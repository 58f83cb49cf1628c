//! ttl-controller: sets how long nodes may cache secrets and config maps, depending on the number of nodes. Follows
//! k8s.io/kubernetes/pkg/controller/ttl.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::client::Context;
use crate::client::errors::is_not_found;
use crate::client::kinds::Node;
use crate::client::queue::{Next, Queue};

const WORKERS: usize = 5;
const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// The lowest and highest number of nodes for a TTL in seconds. The ranges overlap, so that one node more or less does
/// not change the TTL of all nodes.
const STEPS: &[(usize, usize, u32)] = &[
    (0, 100, 0),
    (90, 500, 15),
    (450, 1000, 30),
    (900, 2000, 60),
    (1800, usize::MAX, 300),
];

/// The number of nodes, and the current step.
#[derive(Default)]
struct Size {
    nodes: usize,
    step: usize,
}

impl Size {
    fn grow(&mut self) {
        self.nodes += 1;
        self.step += usize::from(self.nodes > STEPS[self.step].1);
    }

    fn shrink(&mut self) {
        self.nodes = self.nodes.saturating_sub(1);
        self.step -= usize::from(self.nodes < STEPS[self.step].0);
    }

    fn told(&self) -> String {
        STEPS[self.step].2.to_string()
    }
}

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<CompactString>::new());
    let size = Arc::new(Mutex::new(Size::default()));
    let nodes = context.informers.of::<Node>();
    let counted = size.clone();
    nodes.enqueue(&queue, move |change| {
        let mut size = counted.lock();
        match (change.old, change.new) {
            (None, _) => size.grow(),
            (_, None) => size.shrink(),
            _ => {}
        }
        // Nodes change now and then: each is updated at its next change.
        let is_told = change.new?.annotations().get(ANNOTATION) == Some(&size.told());
        (!is_told).then(|| change.key.name.clone())
    });
    let look = |name: CompactString| {
        let found = nodes.get("", &name);
        let told = size.lock().told();
        let client = context.client.clone();
        async move {
            if found.is_none_or(|node| node.annotations().get(ANNOTATION) == Some(&told)) {
                return Ok(Next::Done);
            }
            let api: Api<v1::Node> = Api::all(client);
            let patch = json!({"metadata": {"annotations": {ANNOTATION: told}}});
            match api
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Err(error) if !is_not_found(&error) => Err(error),
                _ => Ok(Next::Done),
            }
        }
    };
    context.work(&queue, WORKERS, look).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_changes_late_in_both_directions() {
        let mut size = Size::default();
        let mut go = |to: usize| {
            while size.nodes < to {
                size.grow();
            }
            while size.nodes > to {
                size.shrink();
            }
            size.told()
        };
        for (nodes, told) in [
            (100, "0"),
            (101, "15"),
            (90, "15"),
            (89, "0"),
            (501, "30"),
            (3000, "300"),
            (1800, "300"),
            (1799, "60"),
            (0, "0"),
        ] {
            assert_eq!(go(nodes), told, "{nodes}");
        }
    }
}
