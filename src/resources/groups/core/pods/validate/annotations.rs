//! Annotations of pods with a meaning, and the fields that replaced them.

use std::collections::HashSet;

use super::{Before, CONTAINERS, claims, containers, scheduling, volumes};
use crate::meta::errors::quoted;
use crate::meta::{At, Errors};
use crate::schema::{Value, json};

const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
/// The cost of deleting a pod, relative to other pods of its owner.
pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// A pod's seccomp profile, before it became a field.
pub(in crate::resources::groups::core) const SECCOMP: &str =
    "seccomp.security.alpha.kubernetes.io/pod";
/// The prefix for a container's seccomp profile, followed by its name.
pub(in crate::resources::groups::core) const CONTAINER_SECCOMP: &str =
    "container.seccomp.security.alpha.kubernetes.io/";
/// The prefix for a container's AppArmor profile, followed by its name.
pub(in crate::resources::groups::core) const APP_ARMOR: &str =
    "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";

/// ValidatePodSpecificAnnotations
pub(super) fn of_pod(annotations: At<'_>, spec: &Value, before: Before<'_>, errors: &mut Errors) {
    if annotations.is_absent() {
        return;
    }
    let keyed = |key| At {
        value: annotations.value.at(key),
        path: annotations.path.key(key),
    };
    let mirror = keyed(claims::MIRROR);
    if !mirror.is_absent() && spec.str("nodeName").is_empty() {
        mirror.invalid(
            "must set spec.nodeName if mirror pod annotation is set",
            errors,
        );
    }
    if !annotations.value.str(TOLERATIONS).is_empty() {
        tolerations(annotations, before, errors);
    }
    if !super::before::deletion_cost(annotations.value) && !before.any_deletion_cost() {
        keyed(DELETION_COST).invalid("must be a 32bit integer", errors);
    }
    let seccomp = annotations.field(SECCOMP);
    if !seccomp.is_absent() {
        seccomp_profile(seccomp, errors);
    }
    for (key, _) in annotations.entries() {
        if key.starts_with(CONTAINER_SECCOMP) {
            seccomp_profile(annotations.field(key), errors);
        }
    }
    let known: HashSet<&str> = containers(spec)
        .map(|container| container.str("name"))
        .collect();
    for (key, profile) in annotations.entries() {
        let Some(name) = key.strip_prefix(APP_ARMOR) else {
            continue;
        };
        if !known.contains(name) {
            errors.invalid(profile.path, name, "container not found");
        }
        let text = profile.str();
        if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with(LOCALHOST) {
            profile.invalid(
                format!("invalid AppArmor profile name: {}", quoted(text)),
                errors,
            );
        }
    }
}

fn tolerations(annotations: At<'_>, before: Before<'_>, errors: &mut Errors) {
    let at = annotations.field(TOLERATIONS);
    match json::parse(at.str().as_bytes()) {
        Ok(parsed) => {
            let list = At {
                value: &parsed.value,
                path: at.path,
            };
            scheduling::tolerations(list, before, errors);
        }
        Err(wrong) => errors.invalid(annotations.path, TOLERATIONS, wrong.to_string()),
    }
}

fn seccomp_profile(profile: At<'_>, errors: &mut Errors) {
    let text = profile.str();
    if matches!(text, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    match text.strip_prefix(LOCALHOST) {
        Some(path) => {
            let path = Value::from(path);
            let at = At {
                value: &path,
                path: profile.path,
            };
            volumes::relative_path(at, errors);
        }
        None => profile.invalid("must be a valid seccomp profile", errors),
    }
}

/// Annotations must agree with the fields that replaced them: validateSeccompAnnotationsAndFields and
/// validateAppArmorAnnotationsAndFieldsMatchOnCreate.
pub(super) fn match_fields(meta: &Value, spec: At<'_>, errors: &mut Errors) {
    let annotations = meta.at("annotations");
    if annotations.is_null() {
        return;
    }
    let of_pod = spec.field("securityContext");
    if let Some(said) = annotations.get(SECCOMP) {
        same_profile(
            "seccomp",
            of_pod.field("seccompProfile"),
            None,
            said,
            errors,
        );
    }
    each(spec, annotations, CONTAINER_SECCOMP, |context, said| {
        same_profile(
            "seccomp",
            context.field("seccompProfile"),
            None,
            said,
            errors,
        );
    });
    if spec.value.at("os").str("name") == "windows" {
        return;
    }
    let fallback = of_pod.value.at("appArmorProfile");
    each(spec, annotations, APP_ARMOR, |context, said| {
        let own = context.field("appArmorProfile");
        same_profile("apparmor", own, Some(fallback), said, errors);
    });
}

/// Calls `judge` with the security context of each container that has an annotation, and the annotation's value.
fn each(spec: At<'_>, annotations: &Value, prefix: &str, mut judge: impl FnMut(At<'_>, &Value)) {
    for list in CONTAINERS {
        for container in spec.field(list).items() {
            let key = format!("{prefix}{}", container.value.str("name"));
            if let Some(said) = annotations.get(&key) {
                judge(container.field("securityContext"), said);
            }
        }
    }
}

fn same_profile(
    what: &str,
    profile: At<'_>,
    fallback: Option<&Value>,
    said: &Value,
    errors: &mut Errors,
) {
    let value = match profile.value {
        Value::Null => fallback.unwrap_or(&Value::Null),
        value => value,
    };
    let said = said.as_str().unwrap_or_default();
    let same_type = match value.str("type") {
        "Unconfined" => said == "unconfined",
        "RuntimeDefault" => {
            said == "runtime/default" || (what == "seccomp" && said == "docker/default")
        }
        "Localhost" => said.starts_with(LOCALHOST),
        _ => return,
    };
    if !same_type {
        errors.forbidden(
            profile.path.field("type"),
            format!("{what} type in annotation and field must match"),
        );
    } else if value.str("type") == "Localhost"
        && value.at("localhostProfile").as_str() != said.strip_prefix(LOCALHOST)
    {
        errors.forbidden(
            profile.path.field("localhostProfile"),
            format!("{what} profile in annotation and field must match"),
        );
    }
}

/// ValidatePodSpecificAnnotationUpdates
pub(super) fn updates(
    new: At<'_>,
    old: At<'_>,
    spec: &Value,
    before: Before<'_>,
    errors: &mut Errors,
) {
    for (key, was) in old.value.as_object().into_iter().flat_map(|o| o.iter()) {
        if new.value.at(key) == was {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(
                new.path.key(key),
                "may not remove or update AppArmor annotations",
            );
        }
        if key == claims::MIRROR {
            errors.forbidden(
                new.path.key(key),
                "may not remove or update mirror pod annotation",
            );
        }
    }
    for (key, added) in new.entries() {
        if old.value.get(key).is_some() {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(added.path, "may not add AppArmor annotations");
        }
        if key == claims::MIRROR {
            errors.forbidden(added.path, "may not add mirror pod annotation");
        }
    }
    of_pod(new, spec, before, errors);
}
