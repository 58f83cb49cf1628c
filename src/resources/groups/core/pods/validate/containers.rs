//! Containers, init containers and ephemeral containers.

use std::collections::BTreeSet;

use super::{Scope, env, is_sidecar, mounts, probes, resources, security};
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const NO_SIDECAR: &str = "may not be set for init containers without restartPolicy=Always";

/// Validates containers: validateContainers.
pub(super) fn containers(list: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    if !list.required("", errors) {
        return;
    }
    let mut known = BTreeSet::new();
    for container in list.items() {
        common(container, scope, errors);
        let name = container.field("name");
        if !known.insert(container.value.str("name")) {
            errors.duplicate(name.path, name.str());
        }
        hooks_and_probes(container, scope, errors);
        restarts(container, errors);
    }
    host_ports(list, list.list(), 0, errors);
}

/// Validates init containers: validateInitContainers.
pub(super) fn init_containers(list: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let mut known = taken(scope.spec, &["containers"]);
    for (i, container) in list.items().enumerate() {
        common(container, scope, errors);
        if container.field("restartPolicy").is_absent() {
            rules_need_a_policy(container, errors);
        } else {
            restarts(container, errors);
        }
        let name = container.field("name");
        if known.contains(name.str()) {
            errors.duplicate(name.path, name.str());
        } else if !name.str().is_empty() {
            known.insert(container.value.str("name"));
        }
        // Init containers run one after another, so they may use the same host ports. Upstream checks lists of one
        // item, so the index in paths is 0.
        host_ports(list, &list.list()[i..=i], 0, errors);
        let sidecar = is_sidecar(container.value);
        if sidecar {
            hooks_and_probes(container, scope, errors);
        } else {
            for field in [
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ] {
                container.field(field).forbid(NO_SIDECAR, errors);
            }
            restarts_on_resize(container, scope, errors);
        }
    }
}

fn restarts_on_resize(container: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    for policy in container.field("resizePolicy").items() {
        let restart = policy.field("restartPolicy");
        if restart.str() == "RestartContainer" && !scope.before.restarts_init_on_resize() {
            restart.invalid(
                "must not be set to 'RestartContainer' for non-sidecar initContainers",
                errors,
            );
        }
    }
}

/// Validates ephemeral containers: validateEphemeralContainers.
pub(super) fn ephemeral_containers(list: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    const NOT_HERE: &str = "cannot be set for an Ephemeral Container";
    let others = taken(scope.spec, &["containers", "initContainers"]);
    let mut known = others.clone();
    for container in list.items() {
        common(container, scope, errors);
        only_for_pods(container, errors);
        let name = container.field("name");
        if !known.insert(container.value.str("name")) {
            errors.duplicate(name.path, name.str());
        }
        let target = container.field("targetContainerName");
        if !target.str().is_empty() && !others.contains(target.str()) {
            errors.not_found(target.path, target.str());
        }
        // In the order of the Go struct.
        for field in [
            "ports",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            let at = container.field(field);
            match field {
                "resources" => at.forbid_said(NOT_HERE, errors),
                _ => at.forbid(NOT_HERE, errors),
            }
        }
        for mount in container.field("volumeMounts").items() {
            mount.field("subPath").forbid_said(NOT_HERE, errors);
            mount.field("subPathExpr").forbid_said(NOT_HERE, errors);
        }
    }
}

/// The names of the containers in some lists of a spec.
fn taken<'a>(spec: &'a Value, lists: &[&str]) -> BTreeSet<&'a str> {
    lists
        .iter()
        .flat_map(|list| spec.list(list))
        .map(|container| container.str("name"))
        .collect()
}

/// validateContainerCommon
fn common(container: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    container
        .field("name")
        .required_checked(names::dns1123_label, errors);
    container.field("image").required("", errors);
    container
        .field("terminationMessagePolicy")
        .required_one_of(&["File", "FallbackToLogsOnError"], errors);
    ports(container.field("ports"), errors);
    env::env(container.field("env"), errors);
    env::env_from(container.field("envFrom"), errors);
    mounts::mounts(container, scope, errors);
    mounts::devices(container, scope, errors);
    pull_policy(container.field("imagePullPolicy"), errors);
    resources::container_resources(container.field("resources"), scope, errors);
    resize_policy(container.field("resizePolicy"), scope, errors);
    security::context(container.field("securityContext"), scope, errors);
}

/// Rules for containers of pods that do not apply to templates: validateContainerOnlyForPod.
pub(super) fn only_for_pods(container: At<'_>, errors: &mut Errors) {
    let image = container.field("image");
    if image.str().trim().len() != image.str().len() {
        image.invalid("must not have leading or trailing whitespace", errors);
    }
}

/// `Always`, `IfNotPresent` or `Never`.
pub(super) fn pull_policy(policy: At<'_>, errors: &mut Errors) {
    policy.required_one_of(&["Always", "IfNotPresent", "Never"], errors);
}

fn ports(list: At<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for port in list.items() {
        let name = port.field("name");
        if !name.str().is_empty() {
            let wrong = names::port_name(name.str());
            if wrong.is_empty() && !known.insert(port.value.str("name")) {
                errors.duplicate(name.path, name.str());
            }
            name.invalid_each(wrong, errors);
        }
        let own = port.field("containerPort");
        if own.int().unwrap_or(0) == 0 {
            errors.required(own.path, "");
        } else {
            own.checked_number(names::port_number, errors);
        }
        let host = port.field("hostPort");
        if host.int().unwrap_or(0) != 0 {
            host.checked_number(names::port_number, errors);
        }
        port.field("protocol")
            .required_one_of(&["SCTP", "TCP", "UDP"], errors);
    }
}

/// Rejects duplicate host ports: AccumulateUniqueHostPorts. Indexes in paths start at `first`.
fn host_ports(list: At<'_>, containers: &[Value], first: usize, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let item = list.path.index(first + i);
        let ports = item.field("ports");
        for (j, port) in container.list("ports").iter().enumerate() {
            let host = port.int("hostPort");
            if host == 0 {
                continue;
            }
            let taken = format!("{}/{}/{host}", port.str("protocol"), port.str("hostIP"));
            if known.contains(&taken) {
                errors.duplicate(ports.index(j).field("hostPort"), taken);
            } else {
                known.insert(taken);
            }
        }
    }
}

fn hooks_and_probes(container: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    probes::lifecycle(container.field("lifecycle"), scope, errors);
    probes::liveness(container.field("livenessProbe"), scope, errors);
    probes::readiness(container.field("readinessProbe"), scope, errors);
    probes::liveness(container.field("startupProbe"), scope, errors);
}

fn resize_policy(list: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for policy in list.items() {
        let resource = policy.value.str("resourceName");
        if !known.insert(resource) {
            errors.duplicate(policy.path, resource);
        }
        // Upstream reports the list's path, not the item's.
        let restart = policy.value.str("restartPolicy");
        for (text, supported) in [
            (resource, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            if text.is_empty() {
                errors.required(list.path, "");
            } else if !supported.contains(&text) {
                errors.not_supported(list.path, text, &supported);
            }
        }
        if scope.spec.str("restartPolicy") == "Never" && restart != "NotRequired" {
            errors.invalid(
                list.path,
                restart,
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            );
        }
    }
}

fn rules_need_a_policy(container: At<'_>, errors: &mut Errors) {
    if !container.value.list("restartPolicyRules").is_empty() {
        errors.required(
            container.path.field("restartPolicy"),
            "must specify restartPolicy when restart rules are used",
        );
    }
}

/// validateContainerRestartPolicy
fn restarts(container: At<'_>, errors: &mut Errors) {
    let rules = container.field("restartPolicyRules");
    let policy = container.field("restartPolicy");
    if policy.is_absent() {
        rules_need_a_policy(container, errors);
    } else {
        policy.one_of(&["Always", "Never", "OnFailure"], errors);
    }
    if rules.list().len() > MAX_RULES {
        errors.too_many(rules.path, rules.list().len(), MAX_RULES);
    }
    for rule in rules.items() {
        rule.field("action")
            .one_of(&["Restart", "RestartAllContainers"], errors);
        let codes = rule.field("exitCodes");
        if codes.is_absent() {
            errors.required(codes.path, "must be specified");
            continue;
        }
        codes.field("operator").one_of(&["In", "NotIn"], errors);
        let values = codes.field("values");
        if values.list().len() > MAX_EXIT_CODES {
            errors.too_many(values.path, values.list().len(), MAX_EXIT_CODES);
        }
    }
}
