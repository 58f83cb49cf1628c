//! Creation and update of pods.

use std::collections::{HashMap, HashSet};

use super::{Before, annotations, containers, scheduling, spec};
use crate::meta::errors::quoted;
use crate::meta::{At, Errors, Path};
use crate::schema::semantic::same_as;
use crate::schema::{Value, internal};

const DEADLINE_MAX: i64 = i32::MAX as i64;
const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn before(old: Option<At<'_>>) -> Before<'_> {
    Before {
        pod: true,
        old: old.map(|old| old.value),
    }
}

/// The rest of validatePodMetadataAndSpec; the pipeline has validated the metadata.
fn whole(pod: At<'_>, before: Before<'_>, errors: &mut Errors) {
    let meta = pod.field("metadata");
    let spec = pod.field("spec");
    annotations::of_pod(meta.field("annotations"), spec.value, before, errors);
    self::spec::spec(spec, meta.value, before, errors);
    if spec.value.str("serviceAccountName").is_empty() {
        for volume in spec.field("volumes").items() {
            let projected = volume.field("projected");
            for source in projected.field("sources").items() {
                source.field("serviceAccountToken").forbid(
                    "must not be specified when serviceAccountName is not set",
                    errors,
                );
            }
        }
    }
    spec.field("terminationGracePeriodSeconds")
        .non_negative(errors);
    for list in ["containers", "initContainers"] {
        for container in spec.field(list).items() {
            containers::only_for_pods(container, errors);
        }
    }
}

/// The same for a pod that replaces `old`.
pub(super) fn whole_of(new: At<'_>, old: At<'_>, errors: &mut Errors) {
    whole(new, before(Some(old)), errors);
}

/// ValidatePodCreate
pub(in crate::resources::groups::core) fn create(pod: At<'_>, errors: &mut Errors) {
    whole(pod, before(None), errors);
    let spec = pod.field("spec");
    spec.field("ephemeralContainers")
        .forbid_said("cannot be set on create", errors);
    if !spec.value.list("schedulingGates").is_empty() {
        spec.field("nodeName").forbid_said(
            "cannot be set until all schedulingGates have been cleared",
            errors,
        );
    }
    annotations::match_fields(pod.value.at("metadata"), spec, errors);
}

/// ValidatePodUpdate
pub(in crate::resources::groups::core) fn update(new: At<'_>, old: At<'_>, errors: &mut Errors) {
    whole(new, before(Some(old)), errors);
    annotation_updates(new, old, errors);
    let (spec, was) = (new.field("spec"), old.value.at("spec"));
    for list in ["containers", "initContainers"] {
        if !container_updates(spec.field(list), was.list(list), errors) {
            return;
        }
    }
    if !deadline(spec.field("activeDeadlineSeconds"), was, errors) {
        return;
    }
    more_tolerations(spec.field("tolerations"), was, old, errors);
    fewer_gates(spec.field("schedulingGates"), was, errors);
    if same_as("core.PodSpec", spec.value, was) {
        return;
    }
    let mut allowed = spec.value.clone();
    allow(&mut allowed, spec, was, errors);
    if !same_as("core.PodSpec", &allowed, was) {
        let diff = internal::diff(was, &allowed, "core.PodSpec");
        errors.forbidden(spec.path, format!("{UPDATABLE}\n{diff}"));
    }
}

fn annotation_updates(new: At<'_>, old: At<'_>, errors: &mut Errors) {
    let (meta, was) = (new.field("metadata"), old.field("metadata"));
    annotations::updates(
        meta.field("annotations"),
        was.field("annotations"),
        new.value.at("spec"),
        before(Some(old)),
        errors,
    );
}

/// ValidateContainerUpdates. Returns whether the lists can be compared.
fn container_updates(list: At<'_>, old: &[Value], errors: &mut Errors) -> bool {
    if list.list().len() != old.len() {
        errors.forbidden(list.path, "pod updates may not add or remove containers");
        return false;
    }
    for container in list.items() {
        container.field("image").required("", errors);
        containers::only_for_pods(container, errors);
    }
    true
}

/// A deadline may be set and shortened. Returns whether upstream continues with the validation.
fn deadline(deadline: At<'_>, old: &Value, errors: &mut Errors) -> bool {
    let was = old.at("activeDeadlineSeconds").as_int();
    match (deadline.int(), was) {
        (Some(now), _) if !(0..=DEADLINE_MAX).contains(&now) => {
            deadline.invalid(crate::meta::names::range_error(0, DEADLINE_MAX), errors);
            false
        }
        (Some(now), Some(was)) if was < now => {
            deadline.invalid("must be less than or equal to previous value", errors);
            false
        }
        (None, Some(_)) => {
            deadline.invalid(
                "must not update from a positive integer to nil value",
                errors,
            );
            true
        }
        _ => true,
    }
}

/// validateOnlyAddedTolerations
fn more_tolerations(list: At<'_>, spec: &Value, old: At<'_>, errors: &mut Errors) {
    fn parts(toleration: &Value) -> [&str; 4] {
        ["key", "operator", "value", "effect"].map(|field| toleration.str(field))
    }
    let now: HashSet<[&str; 4]> = list.list().iter().map(parts).collect();
    let mut was = spec.list("tolerations").iter();
    if was.all(|was| now.contains(&parts(was))) {
        scheduling::tolerations(list, before(Some(old)), errors);
    } else {
        errors.forbidden(
            list.path,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

/// validateOnlyDeletedSchedulingGates
fn fewer_gates(list: At<'_>, old: &Value, errors: &mut Errors) {
    let had = old.list("schedulingGates").iter();
    let had: HashSet<&str> = had.map(|gate| gate.str("name")).collect();
    let gates = list.list().iter().enumerate();
    let last: HashMap<&str, usize> = gates.map(|(at, gate)| (gate.str("name"), at)).collect();
    for (at, gate) in list.items().enumerate() {
        let name = gate.field("name");
        // Reported once, for the last occurrence.
        if !had.contains(name.str()) && last.get(name.str()) == Some(&at) {
            errors.forbidden(
                name.path,
                format!(
                    "only deletion is allowed, but found new scheduling gate '{}'",
                    name.str()
                ),
            );
        }
    }
}

/// Restores the mutable fields in `allowed` to their old values, and reports invalid changes of them.
fn allow(allowed: &mut Value, spec: At<'_>, old: &Value, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        let was = old.list(list);
        let now = allowed.get_mut(list).and_then(Value::as_array_mut);
        for (container, was) in now.into_iter().flatten().zip(was) {
            container.set("image", was.at("image"));
        }
    }
    let mut take_back = |field: &str| restore(allowed, old, field);
    take_back("activeDeadlineSeconds");
    take_back("schedulingGates");
    take_back("tolerations");
    let grace = "terminationGracePeriodSeconds";
    if old.int(grace) < 0 && spec.value.int(grace) == 1 {
        take_back(grace);
    }
    if old.list("schedulingGates").is_empty() {
        return;
    }
    // The node affinity of a pod with scheduling gates may become stricter.
    let selector = spec.field("nodeSelector");
    let lost = old
        .entries("nodeSelector")
        .any(|(key, value)| selector.value.at(key) != value);
    if lost {
        selector.invalid(
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            errors,
        );
    }
    take_back("nodeSelector");
    let affinity = spec.field("affinity");
    let was = old.at("affinity").at("nodeAffinity");
    let nodes = affinity.field("nodeAffinity");
    if same_as("core.NodeAffinity", nodes.value, was) {
        return;
    }
    narrower(nodes, was, errors);
    let only_nodes = affinity.value.get("podAffinity").is_none()
        && affinity.value.get("podAntiAffinity").is_none();
    if old.at("affinity").is_null() && only_nodes {
        allowed.remove("affinity");
    } else {
        let affinity = allowed.object_mut().object_mut("affinity");
        match was {
            Value::Null => drop(affinity.remove("nodeAffinity")),
            was => drop(affinity.insert("nodeAffinity", was)),
        }
    }
}

fn restore(allowed: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(was) => allowed.set(field, was),
        None => drop(allowed.remove(field)),
    }
}

/// validateNodeAffinityMutation
fn narrower(nodes: At<'_>, old: &Value, errors: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let required = nodes.field(REQUIRED);
    let terms = required.field("nodeSelectorTerms");
    let had = old.at(REQUIRED).list("nodeSelectorTerms");
    if had.is_empty() {
        return;
    }
    if had.len() != terms.list().len() {
        return terms.invalid_dump(
            "[]core.NodeSelectorTerm",
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
            errors,
        );
    }
    for (term, had) in terms.items().zip(had) {
        let empty = ["matchExpressions", "matchFields"]
            .iter()
            .all(|list| had.list(list).is_empty());
        let grown = ["matchExpressions", "matchFields"].iter().all(|list| {
            let (now, had) = (term.value.list(list), had.list(list));
            (empty && now.is_empty()) || (!empty && now.starts_with(had))
        });
        if !grown {
            term.invalid_dump(
                "core.NodeSelectorTerm",
                "only additions are allowed (no mutations or deletions)",
                errors,
            );
        }
    }
}

/// ValidatePodEphemeralContainersUpdate
pub(in crate::resources::groups::core) fn ephemeral_containers(
    new: At<'_>,
    old: At<'_>,
    errors: &mut Errors,
) {
    if is_mirror(old.value) {
        return only(errors, "static pods do not support ephemeral containers");
    }
    whole(new, before(Some(old)), errors);
    annotation_updates(new, old, errors);
    let spec = new.field("spec");
    let list = spec.field("ephemeralContainers");
    for was in old.value.at("spec").list("ephemeralContainers") {
        let name = was.str("name");
        match list.list().iter().rfind(|c| c.str("name") == name) {
            None => errors.forbidden(
                list.path,
                format!(
                    "existing ephemeral containers {} may not be removed\n",
                    quoted(name)
                ),
            ),
            Some(now) if !same_as("core.EphemeralContainer", now, was) => {
                let diff = internal::diff(was, now, "core.EphemeralContainer");
                errors.forbidden(
                    list.path,
                    format!(
                        "existing ephemeral containers {} may not be changed\n{diff}",
                        quoted(name)
                    ),
                );
            }
            Some(_) => {}
        }
    }
}

/// Whether a pod is a mirror pod.
pub(super) fn is_mirror(pod: &Value) -> bool {
    let annotations = pod.at("metadata").at("annotations");
    annotations.get(super::claims::MIRROR).is_some()
}

/// Replaces all errors by one error for the whole pod.
pub(super) fn only(errors: &mut Errors, detail: &str) {
    *errors = Errors::default();
    errors.forbidden(Path::ROOT.key(""), detail);
}
