//! The common interface of replica sets and replication controllers.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;

use crate::client::informer::Cached;

/// A kind that keeps a number of pods.
pub trait Replicas: Cached + Serialize {
    /// The component name in events.
    const COMPONENT: &'static str;

    /// The desired number of pods.
    fn wanted(&self) -> i32;
    /// How many seconds a pod must be ready to count as available.
    fn min_ready_seconds(&self) -> i32;
    /// Selects its pods.
    fn selector(&self) -> LabelSelector;
    /// The template of its pods.
    fn template(&self) -> Option<&v1::PodTemplateSpec>;
    /// Its status.
    fn status(&self) -> ReplicaSetStatus;
    /// A copy with another status.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
    /// Whether the status has the number of terminating pods.
    const COUNTS_TERMINATING: bool;
}

impl Cached for ReplicaSet {}

impl Replicas for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;

    fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn selector(&self) -> LabelSelector {
        self.spec.selector.clone()
    }

    fn template(&self) -> Option<&v1::PodTemplateSpec> {
        self.spec.template.as_ref()
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        ReplicaSet {
            status: Some(status),
            ..self.clone()
        }
    }
}

impl Cached for v1::ReplicationController {}

impl Replicas for v1::ReplicationController {
    const COMPONENT: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;

    fn wanted(&self) -> i32 {
        self.spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        let spec = self.spec.as_ref();
        spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: self.spec.as_ref().and_then(|spec| spec.selector.clone()),
            match_expressions: None,
        }
    }

    fn template(&self) -> Option<&v1::PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.map(|conditions| {
            let each = conditions.into_iter().map(|condition| ReplicaSetCondition {
                last_transition_time: condition.last_transition_time,
                message: condition.message,
                reason: condition.reason,
                status: Some(condition.status),
                type_: Some(condition.type_),
            });
            each.collect()
        });
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            terminating_replicas: None,
            conditions,
        }
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let conditions = status.conditions.map(|conditions| {
            let each = conditions
                .into_iter()
                .map(|condition| v1::ReplicationControllerCondition {
                    last_transition_time: condition.last_transition_time,
                    message: condition.message,
                    reason: condition.reason,
                    status: condition.status.unwrap_or_default(),
                    type_: condition.type_.unwrap_or_default(),
                });
            each.collect()
        });
        v1::ReplicationController {
            status: Some(v1::ReplicationControllerStatus {
                replicas: status.replicas,
                fully_labeled_replicas: status.fully_labeled_replicas,
                ready_replicas: status.ready_replicas,
                available_replicas: status.available_replicas,
                observed_generation: status.observed_generation,
                conditions,
            }),
            ..self.clone()
        }
    }
}
