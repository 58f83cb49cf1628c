//! Fields of pods that the server sets or resets. Follows the strategies in
//! k8s.io/kubernetes/pkg/registry/core/pod/strategy.go.

use std::collections::{HashMap, VecDeque};

use super::disabled::{drop_disabled, drop_from_status};
use super::qos;
use super::validate::{APP_ARMOR, CONTAINERS, app_armor, overcommits};
use crate::meta::amounts::{Amounts, Side, is_pod_level};
use crate::meta::{At, Errors, time};
use crate::resources::Cx;
use crate::schema::Value;
use crate::schema::semantic::same_as;
use crate::value;

/// Prepares a pod for creation.
pub(super) fn create(pod: &mut Value, cx: &Cx<'_>) {
    pod.object_mut()
        .object_mut("metadata")
        .insert("generation", 1);
    drop_disabled(pod, &Value::Null);
    let mut status = value!({"phase": "Pending"});
    if !pod.at("spec").list("schedulingGates").is_empty() {
        let gated = value!({
            "type": "PodScheduled",
            "status": "False",
            "lastTransitionTime": (time::print(cx.now)),
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        });
        status.set("conditions", vec![gated]);
    }
    merge_label_keys(pod);
    sync_app_armor(pod);
    pod_level(pod);
    status.set("qosClass", qos::class(pod.at("spec")));
    pod.set("status", status);
}

/// Prepares a pod for an update of `old`.
pub(super) fn update(pod: &mut Value, old: &Value, _: &Cx<'_>) {
    keep_pod_level(pod, old);
    drop_disabled(pod, old);
    raise_generation(pod, old);
}

/// Prepares a pod for an update through one of the subresources.
pub(super) fn subresource(pod: &mut Value, old: &Value, cx: &Cx<'_>) {
    match cx.subresource {
        "ephemeralcontainers" => {
            let list = pod.at("spec").at("ephemeralContainers").clone();
            take_over(pod, old, &["spec", "status"]);
            keep_meta(pod, old);
            pod.object_mut()
                .object_mut("spec")
                .insert("ephemeralContainers", list);
            drop_disabled(pod, old);
            raise_generation(pod, old);
        }
        "resize" => {
            resize(pod, old);
            drop_disabled(pod, old);
            raise_generation(pod, old);
        }
        _ => status(pod, old),
    }
}

fn raise_generation(pod: &mut Value, old: &Value) {
    if !same_as("core.PodSpec", pod.at("spec"), old.at("spec")) {
        let generation = old.at("metadata").int("generation");
        pod.object_mut()
            .object_mut("metadata")
            .insert("generation", generation + 1);
    }
}

/// Copies fields from `old`, including their absence.
fn take_over(value: &mut Value, old: &Value, fields: &[&str]) {
    for field in fields {
        match old.get(field) {
            Some(was) => value.set(field, was),
            None => drop(value.remove(field)),
        }
    }
}

/// ResetObjectMetaForStatus
fn keep_meta(pod: &mut Value, old: &Value) {
    let meta = pod.object_mut().entry("metadata", || value!({}));
    take_over(
        meta,
        old.at("metadata"),
        &[
            "deletionTimestamp",
            "generation",
            "selfLink",
            "labels",
            "annotations",
            "finalizers",
            "ownerReferences",
        ],
    );
}

fn status(pod: &mut Value, old: &Value) {
    let meta = pod.object_mut().entry("metadata", || value!({}));
    take_over(
        meta,
        old.at("metadata"),
        &["deletionTimestamp", "ownerReferences"],
    );
    let was = old.at("status");
    let status = pod.object_mut().entry("status", || value!({}));
    if status.str("qosClass").is_empty() {
        take_over(status, was, &["qosClass"]);
    }
    for field in [
        "resourceClaimStatuses",
        "extendedResourceClaimStatus",
        "nodeAllocatableResourceClaimStatuses",
    ] {
        if status.get(field).is_none() {
            take_over(status, was, &[field]);
        }
    }
    keep_observed(status, was);
    drop_from_status(status, was);
}

/// Keeps observed generations that are not set: preserveOldObservedGeneration. Conditions of the same type are matched
/// in order.
fn keep_observed(status: &mut Value, was: &Value) {
    const FIELD: &str = "observedGeneration";
    if status.int(FIELD) == 0 {
        take_over(status, was, &[FIELD]);
    }
    let mut before: HashMap<&str, VecDeque<&Value>> = HashMap::new();
    for condition in was.list("conditions") {
        before
            .entry(condition.str("type"))
            .or_default()
            .push_back(condition);
    }
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let had = before
            .get_mut(condition.str("type"))
            .and_then(VecDeque::pop_front);
        if condition.int(FIELD) == 0
            && let Some(had) = had
        {
            take_over(condition, had, &[FIELD]);
        }
    }
}

/// dropNonResizeUpdates. If the lists do not match, they are left for validation to reject.
fn resize(pod: &mut Value, old: &Value) {
    let was = old.at("spec");
    let spec = pod.at("spec");
    let lists = ["containers", "initContainers"];
    if lists
        .iter()
        .all(|list| spec.list(list).len() == was.list(list).len())
    {
        let mut new = was.clone();
        take_over(&mut new, spec, &["resources"]);
        for list in lists {
            let (now, had) = (spec.list(list), was.list(list));
            let matches = now
                .iter()
                .zip(had)
                .all(|(a, b)| a.str("name") == b.str("name"));
            if !matches {
                take_over(&mut new, spec, &[list]);
                continue;
            }
            let containers = new.get_mut(list).and_then(Value::as_array_mut);
            for (container, now) in containers.into_iter().flatten().zip(now) {
                take_over(container, now, &["resources", "resizePolicy"]);
            }
        }
        pod.set("spec", new);
        take_over(pod, old, &["status"]);
        keep_meta(pod, old);
    }
    keep_pod_level(pod, old);
    pod_level(pod);
}

/// Keeps resources at pod level if a client does not know them.
fn keep_pod_level(pod: &mut Value, old: &Value) {
    if pod.at("spec").get("resources").is_none()
        && let Some(had) = old.at("spec").get("resources")
    {
        pod.object_mut().object_mut("spec").insert("resources", had);
    }
}

/// Completes the pod's own resources from those of its containers: DefaultPodLevelResources.
fn pod_level(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    let said = |list: &str| !spec.at("resources").at(list).is_empty();
    if !said("requests") && !said("limits") {
        return;
    }
    let requests = Amounts::containers(spec, Side::Requests).0;
    let limits = Amounts::containers(spec, Side::Limits).0;
    let mut own = spec.at("resources").clone();
    for (name, amount) in &limits {
        let huge = is_pod_level(name) && !overcommits(name);
        if huge && own.at("requests").get(name).is_none() {
            let list = own.object_mut().object_mut("limits");
            list.set_default(name, amount.to_string());
        }
    }
    let list = own.object_mut().object_mut("requests");
    for (name, amount) in &requests {
        if is_pod_level(name) && overcommits(name) {
            list.set_default(name, amount.to_string());
        }
    }
    for (name, limit) in own
        .at("limits")
        .clone()
        .as_object()
        .into_iter()
        .flat_map(|o| o.iter())
    {
        if is_pod_level(name) {
            let list = own.object_mut().object_mut("requests");
            list.set_default(name, limit);
        }
    }
    // Add a limit if every container has one, but not below the request.
    let all_limited = |name: &str| {
        CONTAINERS
            .iter()
            .flat_map(|list| spec.list(list))
            .all(|container| container.path(&["resources", "limits"]).get(name).is_some())
    };
    for (name, request) in own
        .at("requests")
        .clone()
        .as_object()
        .into_iter()
        .flat_map(|o| o.iter())
    {
        let Some(sum) = limits.get(name.as_str()) else {
            continue;
        };
        if !is_pod_level(name) || own.at("limits").get(name).is_some() || !all_limited(name) {
            continue;
        }
        let request = request
            .as_str()
            .and_then(|text| crate::meta::quantity::Quantity::parse(text).ok());
        let most = request.map_or(*sum, |request| request.max(*sum));
        let list = own.object_mut().object_mut("limits");
        list.insert(name.clone(), most.to_string());
    }
    spec.set("resources", own);
}

/// Adds expressions for the label keys to their selectors, with the pod's own values.
fn merge_label_keys(pod: &mut Value) {
    let labels = pod.at("metadata").at("labels").clone();
    if labels.is_empty() {
        return;
    }
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.get_mut("affinity").and_then(|a| a.get_mut(kind));
        let Some(affinity) = affinity else { continue };
        for list in [
            "preferredDuringSchedulingIgnoredDuringExecution",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ] {
            let terms = affinity.get_mut(list).and_then(Value::as_array_mut);
            for term in terms.into_iter().flatten() {
                match term.get_mut("podAffinityTerm") {
                    Some(term) => merge_into(term, &labels),
                    None => merge_into(term, &labels),
                }
            }
        }
    }
    let constraints = spec
        .get_mut("topologySpreadConstraints")
        .and_then(Value::as_array_mut);
    for constraint in constraints.into_iter().flatten() {
        merge_into(constraint, &labels);
    }
}

fn merge_into(owner: &mut Value, labels: &Value) {
    let mut added = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in owner.list(list).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                added.push(value!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if let Some(selector) = owner
        .get_mut("labelSelector")
        .and_then(Value::as_object_mut)
        .filter(|_| !added.is_empty())
    {
        selector.array_mut("matchExpressions").extend(added);
    }
}

/// The AppArmor profile in an annotation, if it is valid.
pub(super) fn annotated_profile(annotation: &str) -> Option<Value> {
    let profile = match annotation {
        "unconfined" => value!({"type": "Unconfined"}),
        "runtime/default" => value!({"type": "RuntimeDefault"}),
        other => {
            let path = other.strip_prefix("localhost/").filter(|p| !p.is_empty())?;
            value!({"type": "Localhost", "localhostProfile": path})
        }
    };
    Some(profile)
}

/// The containers that have an annotation for an AppArmor profile and no profile: the annotation's key, and the profile
/// for the field (`None` if the annotation is invalid).
fn annotated(pod: &Value, container: &Value) -> Option<(String, Option<Value>)> {
    let key = format!("{APP_ARMOR}{}", container.str("name"));
    let annotation = pod.at("metadata").at("annotations").get(&key)?;
    if !container
        .path(&["securityContext", "appArmorProfile"])
        .is_null()
    {
        return None;
    }
    let profile = annotated_profile(annotation.as_str().unwrap_or_default()).filter(|profile| {
        let mut errors = Errors::default();
        app_armor(At::root(profile), &mut errors);
        errors.is_empty()
    });
    Some((key, profile))
}

fn is_windows(pod: &Value) -> bool {
    pod.at("spec").at("os").str("name") == "windows"
}

/// applyAppArmorVersionSkew
fn sync_app_armor(pod: &mut Value) {
    if is_windows(pod) || pod.at("metadata").at("annotations").is_null() {
        return;
    }
    let of_pod = pod
        .path(&["spec", "securityContext", "appArmorProfile"])
        .clone();
    for list in CONTAINERS {
        for i in 0..pod.at("spec").list(list).len() {
            let container = &pod.at("spec").list(list)[i];
            let Some((_, Some(profile))) = annotated(pod, container) else {
                continue;
            };
            if profile == of_pod {
                continue;
            }
            let containers = pod
                .get_mut("spec")
                .and_then(|spec| spec.get_mut(list))
                .and_then(Value::as_array_mut);
            if let Some(container) = containers.and_then(|list| list.get_mut(i)) {
                container
                    .object_mut()
                    .object_mut("securityContext")
                    .insert("appArmorProfile", profile);
            }
        }
    }
}

/// Warnings about AppArmor annotations of a new pod: those that become fields, and those that are invalid.
pub(super) fn app_armor_warnings(pod: &Value) -> Vec<String> {
    if is_windows(pod) || pod.at("metadata").at("annotations").is_null() {
        return Vec::new();
    }
    let of_pod = pod.path(&["spec", "securityContext", "appArmorProfile"]);
    super::validate::containers(pod.at("spec"))
        .filter_map(|container| annotated(pod, container))
        .filter(|(_, profile)| profile.as_ref() != Some(of_pod))
        .map(|(key, _)| {
            format!(
                "metadata.annotations[{key}]: {}",
                super::warnings::OLD_APP_ARMOR
            )
        })
        .collect()
}
