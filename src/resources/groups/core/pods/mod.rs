//! Pods, pod templates and replication controllers, and the part shared with other workloads: the rules of a pod
//! spec. Follows k8s.io/kubernetes/pkg/registry/core/pod/strategy.go.

pub(in crate::resources::groups) mod cells;
pub(in crate::resources::groups) mod controllers;
pub(in crate::resources::groups) mod defaults;
pub(in crate::resources::groups) mod disabled;
mod image;
mod prepare;
mod qos;
pub(in crate::resources::groups) mod templates;
pub(in crate::resources::groups) mod validate;
pub(in crate::resources::groups) mod warnings;

#[cfg(test)]
mod tests;

use crate::meta::{addresses, names};
use crate::resources::{
    Deletion, Generation, Naming, Printing, Rules, Selectable, Selection, SelectorError,
    StatusRules, metadata,
};
use crate::schema::Value;
use crate::value;

/// The rules of pods.
pub(super) const PODS: Rules = Rules {
    defaults: |pod, _| defaults::pod(pod),
    prepare_create: prepare::create,
    prepare_update: prepare::update,
    status: StatusRules {
        prepare: prepare::subresource,
        validate: |pod, old, cx, errors| match cx.subresource {
            "ephemeralcontainers" => {
                metadata::again(pod, Some(old), cx, errors);
                validate::ephemeral_containers(pod, old, errors);
            }
            "resize" => {
                metadata::again(pod, Some(old), cx, errors);
                validate::resize(pod, old, errors);
            }
            _ => validate::status(pod, old, errors),
        },
        warnings: |pod| {
            let addresses = |list| addresses::listed_ip_warnings(pod, &["status", list], ".ip");
            ["podIPs", "hostIPs"]
                .into_iter()
                .flat_map(addresses)
                .collect()
        },
        ..StatusRules::DEFAULT
    },
    validate: |pod, old, cx, errors| {
        metadata::again(pod, old, cx, errors);
        match old {
            None => validate::create(pod, errors),
            Some(old) => validate::update(pod, old, errors),
        }
    },
    warnings: |pod, old, _| match old {
        None => on_creation(pod),
        // Updates come from controllers, not from people.
        Some(_) => Vec::new(),
    },
    printing: Printing {
        row_conditions: |pod| {
            let (reason, message) = match pod.at("status").str("phase") {
                "Succeeded" => ("Succeeded", "The pod has completed successfully."),
                "Failed" => ("Failed", "The pod failed."),
                _ => return Vec::new(),
            };
            vec![
                value!({"type": "Completed", "status": "True", "reason": reason, "message": message}),
            ]
        },
        cells: cells::pod,
        ..Printing::DEFAULT
    },
    early_warnings: |pod, _| prepare::app_armor_warnings(pod),
    deletion: Deletion {
        grace,
        returns_object: true,
        ..Deletion::DEFAULT
    },
    selection: Selection {
        fields: &[
            spec_field("spec.nodeName", |pod| text(pod, "nodeName")),
            // The old name of the field.
            spec_field("spec.host", |pod| text(pod, "nodeName")),
            spec_field("spec.restartPolicy", |pod| text(pod, "restartPolicy")),
            spec_field("spec.schedulerName", |pod| text(pod, "schedulerName")),
            spec_field("spec.serviceAccountName", |pod| {
                text(pod, "serviceAccountName")
            }),
            spec_field("spec.hostNetwork", |pod| {
                pod.at("spec").bool("hostNetwork").to_string()
            }),
            spec_field("status.phase", |pod| {
                pod.at("status").str("phase").to_owned()
            }),
            spec_field("status.podIP", |pod| {
                let addresses = pod.at("status").list("podIPs");
                addresses
                    .first()
                    .map_or_else(String::new, |address| address.str("ip").to_owned())
            }),
            // Upstream accepts this selector, but never sets the field.
            spec_field("status.podIPs", |_| String::new()),
            spec_field("status.nominatedNodeName", |pod| {
                pod.at("status").str("nominatedNodeName").to_owned()
            }),
        ],
        refusal: SelectorError::Own,
        trigger: Some("spec.nodeName"),
        ..Selection::DEFAULT
    },
    naming: Naming::validated_by(names::subdomain_name),
    generation: Generation::Own,
    internal: "core.Pod",
    ..Rules::DEFAULT
};

const fn spec_field(name: &'static str, value: fn(&Value) -> String) -> Selectable {
    Selectable { name, value }
}

fn text(pod: &Value, key: &str) -> String {
    pod.at("spec").str(key).to_owned()
}

fn on_creation(pod: &Value) -> Vec<String> {
    let mut told = Vec::new();
    let wrong = names::dns1123_label(pod.at("metadata").str("name"));
    if !wrong.is_empty() {
        told.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        ));
    }
    told.extend(warnings::pod(pod));
    told
}

/// The grace period of a deletion, in seconds: CheckGracefulDelete.
fn grace(pod: &Value, asked: Option<i64>) -> Option<i64> {
    let own = pod.at("spec").at("terminationGracePeriodSeconds").as_int();
    let ended = matches!(pod.at("status").str("phase"), "Failed" | "Succeeded");
    let seconds = asked.or(own).unwrap_or(0);
    Some(match seconds {
        _ if ended || pod.at("spec").str("nodeName").is_empty() => 0,
        n if n < 0 => 1,
        n => n,
    })
}
