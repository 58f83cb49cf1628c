//! The rules of built-in kinds: one module per group, one file per kind (or for a few related ones).

use super::Rules;
use super::registry::Conversion;

mod admissionregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod core;
mod discovery;
mod extensions;
mod flowcontrol;
#[cfg(test)]
mod many;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;
#[cfg(test)]
mod trial;
mod webhooks;
mod workloads;

pub(super) use core::pods::disabled::drop_old_annotations;

pub(super) use core::services;

/// The rules of a built-in resource.
pub(super) fn rules(group: &str, plural: &str) -> Rules {
    match group {
        "" => core::rules(plural),
        "apps" => apps::rules(plural),
        "autoscaling" => autoscaling::rules(plural),
        "batch" => batch::rules(plural),
        "certificates.k8s.io" => certificates::rules(plural),
        "admissionregistration.k8s.io" => admissionregistration::rules(plural),
        "coordination.k8s.io"
        | "storagemigration.k8s.io"
        | "apiextensions.k8s.io"
        | "apiregistration.k8s.io" => extensions::rules(group, plural),
        "discovery.k8s.io" => discovery::rules(plural),
        "events.k8s.io" => core::events::EVENTS,
        "flowcontrol.apiserver.k8s.io" => flowcontrol::rules(plural),
        "networking.k8s.io" => networking::rules(plural),
        "node.k8s.io" => node::rules(plural),
        "policy" => policy::rules(plural),
        "rbac.authorization.k8s.io" => rbac::rules(plural),
        "resource.k8s.io" => resource::rules(plural),
        "scheduling.k8s.io" => scheduling::rules(plural),
        "storage.k8s.io" => storage::rules(plural),
        _ => Rules::DEFAULT,
    }
}

/// The conversion of a version that is not the storage version.
pub(super) fn conversion(group: &str, plural: &str, version: &str) -> Option<Conversion> {
    match (group, plural, version) {
        ("autoscaling", "horizontalpodautoscalers", "v1") => autoscaling::v1_conversion(),
        ("events.k8s.io", "events", _) => Some(core::events::conversion()),
        _ => None,
    }
}

/// The apiVersion and type of stored objects, if they belong to another group.
pub(super) fn stored_as(group: &str, plural: &str) -> Option<(&'static str, &'static str)> {
    match (group, plural) {
        ("events.k8s.io", "events") => Some(("v1", "io.k8s.api.core.v1.Event")),
        _ => None,
    }
}
