//! Pod specs as a whole, and pod templates: ValidatePodSpec and ValidatePodTemplateSpec.

use std::collections::BTreeSet;

use super::{
    Before, Scope, affinity, annotations, claims, containers, dns, env, resources, scheduling,
    security, systems, volumes, windows,
};
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const MAX_DEADLINE: i64 = i32::MAX as i64;

/// Validates a pod spec; `meta` is the pod's metadata, null in templates.
pub(super) fn spec(spec: At<'_>, meta: &Value, before: Before<'_>, errors: &mut Errors) {
    spec.field("terminationGracePeriodSeconds")
        .required("", errors);
    let listed = spec.field("volumes");
    let mut scope = Scope {
        spec: spec.value,
        before,
        volumes: std::collections::BTreeMap::new(),
        claims: spec
            .value
            .list("resourceClaims")
            .iter()
            .map(|claim| claim.str("name"))
            .filter(|name| !name.is_empty())
            .collect::<BTreeSet<_>>(),
    };
    scope.volumes = volumes::volumes(listed, meta, before, errors);
    claims::pod_claims(spec.field("resourceClaims"), meta, errors);
    containers::containers(spec.field("containers"), &scope, errors);
    containers::init_containers(spec.field("initContainers"), &scope, errors);
    containers::ephemeral_containers(spec.field("ephemeralContainers"), &scope, errors);
    resources::pod_resources(spec, &scope, errors);
    host_ports(spec, before, errors);
    spec.field("restartPolicy")
        .required_one_of(&["Always", "OnFailure", "Never"], errors);
    spec.field("dnsPolicy").required_one_of(
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        errors,
    );
    spec.field("nodeSelector").labels(errors);
    security::pod_context(spec.field("securityContext"), spec.value, before, errors);
    shared_processes(spec, errors);
    affinity::affinity(spec.field("affinity"), before, errors);
    dns::config(spec, errors);
    for gate in spec.field("readinessGates").items() {
        gate.field("conditionType")
            .checked(names::qualified_name, errors);
    }
    scheduling::gates(spec.field("schedulingGates"), errors);
    affinity::spread(spec.field("topologySpreadConstraints"), before, errors);
    windows::host_processes(spec, errors);
    systems::users(spec, before, errors);
    dns::hostname_override(spec, errors);
    accounts(spec, errors);
    spec.field("nodeName")
        .checked_if_said(names::dns1123_subdomain, errors);
    spec.field("activeDeadlineSeconds").within(
        1,
        MAX_DEADLINE,
        &names::range_error(1, MAX_DEADLINE),
        errors,
    );
    for label in ["hostname", "subdomain"] {
        spec.field(label)
            .checked_if_said(names::dns1123_label, errors);
    }
    scheduling::tolerations(spec.field("tolerations"), before, errors);
    dns::host_aliases(spec.field("hostAliases"), errors);
    spec.field("priorityClassName")
        .checked_if_said(names::dns1123_subdomain, errors);
    spec.field("runtimeClassName")
        .checked_if_there(names::dns1123_subdomain, errors);
    let preemption = spec.field("preemptionPolicy");
    if !preemption.is_absent() {
        preemption.required_one_of(&["PreemptLowerPriority", "Never"], errors);
    }
    let overhead = spec.field("overhead");
    if !overhead.is_absent() {
        resources::overhead(overhead, &scope, errors);
    }
    systems::system(spec, errors);
    env::file_volumes(spec, errors);
}

/// validatePodHostNetworkDeps: with the host network, host ports must equal container ports, or be absent in a
/// template.
fn host_ports(spec: At<'_>, before: Before<'_>, errors: &mut Errors) {
    if !spec.value.bool("hostNetwork") {
        return;
    }
    for container in spec.field("containers").items() {
        for port in container.field("ports").items() {
            let own = port.value.int("containerPort");
            let host = port.value.int("hostPort");
            if (before.pod || host != 0) && host != own {
                errors.invalid(
                    port.path.field("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

fn shared_processes(spec: At<'_>, errors: &mut Errors) {
    let shared = spec.field("shareProcessNamespace");
    if shared.bool() && spec.value.bool("hostPID") {
        shared.invalid(
            "ShareProcessNamespace and HostPID cannot both be enabled",
            errors,
        );
    }
}

fn accounts(spec: At<'_>, errors: &mut Errors) {
    let account = spec.field("serviceAccountName");
    account.checked_if_said(names::dns1123_subdomain, errors);
    let twin = spec.value.str("serviceAccount");
    if twin != account.str() {
        errors.invalid(
            spec.path.field("deprecatedServiceAccount"),
            twin,
            format!(
                "must be the same as serviceAccountName: {}",
                crate::meta::errors::quoted(account.str())
            ),
        );
    }
}

/// Validates a pod template: ValidatePodTemplateSpec.
pub(in crate::resources::groups) fn template(
    template: At<'_>,
    before: Before<'_>,
    errors: &mut Errors,
) {
    template_metadata(template, before, errors);
    let pod = template.field("spec");
    spec(pod, &Value::Null, before, errors);
    annotations::match_fields(template.value.at("metadata"), pod, errors);
    let ephemeral = pod.field("ephemeralContainers");
    ephemeral.forbid_said("ephemeral containers not allowed in pod template", errors);
}

/// The part of [`template`] for labels and annotations.
pub(in crate::resources::groups) fn template_metadata(
    template: At<'_>,
    before: Before<'_>,
    errors: &mut Errors,
) {
    let meta = template.field("metadata");
    let labels = meta.value.at("labels");
    At {
        value: labels,
        path: template.path.field("labels"),
    }
    .labels(errors);
    let noted = At {
        value: meta.value.at("annotations"),
        path: template.path.field("annotations"),
    };
    crate::resources::metadata::annotations(noted, errors);
    annotations::of_pod(noted, template.value.at("spec"), before, errors);
}
