//! The resize subresource, which may only change CPU and memory. Follows ValidatePodResize.

use super::is_sidecar;
use super::pod::{is_mirror, only, whole_of};
use crate::meta::{At, Errors};
use crate::resources::groups::core::pods::qos;
use crate::schema::Value;
use crate::schema::semantic::same_as;

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// Validates a resize of `old` to `new`.
pub(in crate::resources::groups::core) fn resize(new: At<'_>, old: At<'_>, errors: &mut Errors) {
    if is_mirror(old.value) {
        return only(errors, "static pods cannot be resized");
    }
    let was = old.value.at("spec");
    if was.at("os").str("name") == "windows" {
        return only(errors, "windows pods cannot be resized");
    }
    whole_of(new, old, errors);
    let spec = new.field("spec");
    let class = match old.value.at("status").str("qosClass") {
        "" => qos::class(was),
        class => class,
    };
    if class != qos::class(spec.value) {
        errors.invalid(
            spec.path,
            new.value.at("status").str("qosClass"),
            "Pod QOS Class may not change as a result of resizing",
        );
    }
    if !node_resizes(old.value) {
        errors.forbidden(spec.path, "Pod running on node without support for resize");
    }
    let refused = errors.0.len();
    let mut allowed = spec.value.clone();
    if has_own(was) || has_own(spec.value) {
        pod_level(spec, was, &mut allowed, errors);
    }
    if !same_order(spec, was, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (container, was) in spec.field(list).items().zip(was.list(list)) {
            let resources = container.field("resources");
            for (field, what) in [
                ("requests", "resource requests"),
                ("limits", "resource limits"),
            ] {
                removed(resources, was.at("resources"), field, what, errors);
            }
        }
    }
    regular(spec, was, &mut allowed, errors);
    initial(spec, was, &mut allowed, errors);
    let volumes = spec.field("volumes");
    if !same_as("[]core.Volume", volumes.value, was.at("volumes")) {
        errors.forbidden(
            volumes.path,
            "volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled",
        );
    }
    if refused == 0 && errors.is_empty() && !same_as("core.PodSpec", &allowed, was) {
        errors.forbidden(spec.path, "only cpu and memory resources are mutable");
    }
}

/// Whether the node supports resizing: it reports the resources of running containers.
fn node_resizes(pod: &Value) -> bool {
    let statuses = pod.at("status").list("containerStatuses");
    statuses
        .iter()
        .find(|status| status.at("state").get("running").is_some())
        .is_none_or(|status| status.get("resources").is_some())
}

fn has_own(spec: &Value) -> bool {
    let own = spec.at("resources");
    !own.at("requests").is_empty() || !own.at("limits").is_empty()
}

/// validatePodLevelResourcesResize
fn pod_level(spec: At<'_>, was: &Value, allowed: &mut Value, errors: &mut Errors) {
    let own = spec.field("resources");
    let had = was.at("resources");
    if !had.is_null() {
        if own.is_absent() {
            return errors.forbidden(own.path, "pod-level resources cannot be removed");
        }
        for (field, what) in [
            ("requests", "pod-level resource requests"),
            ("limits", "pod-level resource limits"),
        ] {
            removed(own, had, field, what, errors);
        }
    }
    if let Some(own) = allowed.get_mut("resources") {
        take_back(own, had);
        let nothing = ["requests", "limits", "claims"]
            .iter()
            .all(|list| own.at(list).is_empty());
        if had.is_null() && nothing {
            allowed.remove("resources");
        }
    }
    if !same_as("core.ResourceRequirements", allowed.at("resources"), had) {
        errors.forbidden(
            spec.path,
            "only cpu and memory resources are mutable at pod-level",
        );
    }
}

fn removed(now: At<'_>, was: &Value, field: &str, what: &str, errors: &mut Errors) {
    let list = now.field(field);
    if was
        .entries(field)
        .any(|(name, _)| list.value.get(name).is_none())
    {
        errors.forbidden(list.path, format!("{what} cannot be removed"));
    }
}

/// Restores the old amounts of CPU and memory.
fn take_back(resources: &mut Value, was: &Value) {
    for list in ["requests", "limits"] {
        let amounts = resources.object_mut().object_mut(list);
        for name in COMPUTE {
            amounts.remove(name);
            if let Some(amount) = was.at(list).get(name) {
                amounts.insert(name, amount);
            }
        }
        if amounts.is_empty() {
            resources.remove(list);
        }
    }
}

/// validatePodResizeContainerOrdering
fn same_order(spec: At<'_>, was: &Value, errors: &mut Errors) -> bool {
    let refused = errors.0.len();
    for list in ["containers", "initContainers"] {
        let at = spec.field(list);
        if at.list().len() != was.list(list).len() {
            errors.forbidden(
                at.path,
                format!("{list} may not be added or removed on resize"),
            );
            continue;
        }
        for (container, was) in at.items().zip(was.list(list)) {
            if container.value.str("name") != was.str("name") {
                errors.forbidden(
                    container.path.field("name"),
                    format!("{list} may not be renamed or reordered on resize"),
                );
            }
        }
    }
    errors.0.len() == refused
}

fn list_mut<'v>(spec: &'v mut Value, list: &str) -> &'v mut [Value] {
    spec.get_mut(list)
        .and_then(Value::as_array_mut)
        .map_or(&mut [], Vec::as_mut_slice)
}

fn regular(spec: At<'_>, was: &Value, allowed: &mut Value, errors: &mut Errors) {
    let now = list_mut(allowed, "containers");
    for (container, was) in now.iter_mut().zip(was.list("containers")) {
        if let Some(resources) = container.get_mut("resources") {
            take_back(resources, was.at("resources"));
        }
        if !same_as("core.Container", container, was) {
            errors.forbidden(spec.path, "only cpu and memory resources are mutable");
        }
    }
}

fn initial(spec: At<'_>, was: &Value, allowed: &mut Value, errors: &mut Errors) {
    let list = spec.field("initContainers");
    let now = list_mut(allowed, "initContainers");
    for (i, (container, was)) in now.iter_mut().zip(was.list("initContainers")).enumerate() {
        let changed = !same_as("core.Container", container, was);
        if let Some(resources) = container.get_mut("resources") {
            take_back(resources, was.at("resources"));
        }
        if !same_as("core.Container", container, was) {
            errors.forbidden(
                list.path.index(i),
                "only cpu and memory resources for init or sidecar containers are mutable",
            );
        }
        if !changed || is_sidecar(container) {
            continue;
        }
        for policy in container.list("resizePolicy") {
            if policy.str("restartPolicy") == "RestartContainer" {
                errors.forbidden(
                    list.path.index(i),
                    "non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
                );
            }
        }
    }
}
