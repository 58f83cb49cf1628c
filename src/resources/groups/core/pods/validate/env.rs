//! Environment variables of containers, and references to fields and resources of the pod.

use super::volumes;
use crate::meta::{At, Errors, names};

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Field paths that are valid anywhere.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["limits.hugepages-", "requests.hugepages-"];
const SCALES: &[&str] = &[
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// The name of a variable's source and its validation.
type Source = (&'static str, fn(At<'_>, &mut Errors));

/// Validates environment variables: ValidateEnv.
pub(super) fn env(list: At<'_>, errors: &mut Errors) {
    for variable in list.items() {
        variable
            .field("name")
            .required_checked(names::relaxed_env_name, errors);
        let source = variable.field("valueFrom");
        if !source.is_absent() {
            value_from(source, variable.value.str("value"), errors);
        }
    }
}

fn value_from(source: At<'_>, value: &str, errors: &mut Errors) {
    const SOURCES: [Source; 5] = [
        ("fieldRef", |at, errors| field_ref(at, FIELDS, errors)),
        ("resourceFieldRef", |at, errors| {
            resource_ref(at, false, errors);
        }),
        ("configMapKeyRef", key_ref),
        ("secretKeyRef", key_ref),
        ("fileKeyRef", file_ref),
    ];
    let mut said = 0;
    for (name, check) in SOURCES {
        let at = source.field(name);
        if !at.is_absent() {
            said += 1;
            check(at, errors);
        }
    }
    let wrong = match said {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !value.is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid(source.path, "", wrong);
}

/// Splits `metadata.labels['x']` into path and subscript.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (path, key) = path.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, key))
}

/// Validates a reference to a field of the pod; `supported` is sorted: validateObjectFieldSelector.
pub(super) fn field_ref(reference: At<'_>, supported: &[&str], errors: &mut Errors) {
    let field = reference.field("fieldPath");
    let version = reference.field("apiVersion");
    if !version.required("", errors) || !field.required("", errors) {
        return;
    }
    if version.str() != "v1" {
        let wrong = format!(
            "error converting fieldPath: unsupported pod version: {}",
            version.str()
        );
        return field.invalid(wrong, errors);
    }
    match (subscript(field.str()), field.str()) {
        (Some((path @ ("metadata.annotations" | "metadata.labels"), key)), _) => {
            let key = match path {
                "metadata.annotations" => key.to_lowercase(),
                _ => key.to_owned(),
            };
            for wrong in names::qualified_name(&key) {
                errors.invalid(reference.path, key.as_str(), wrong);
            }
        }
        (Some(_), text) => field.invalid(
            format!("error converting fieldPath: field label does not support subscript: {text}"),
            errors,
        ),
        (None, text) => {
            // The old name of the field.
            let name = match text {
                "spec.host" => "spec.nodeName",
                text => text,
            };
            if !FIELDS.contains(&name) && !KNOWN_FIELDS.contains(&name) {
                let wrong =
                    format!("error converting fieldPath: field label not supported: {text}");
                field.invalid(wrong, errors);
            } else if !supported.contains(&name) {
                errors.not_supported(field.path, name, supported);
            }
        }
    }
}

/// Validates a reference to a container's resources, which in a volume must name the container:
/// validateContainerResourceFieldSelector.
pub(super) fn resource_ref(reference: At<'_>, in_volume: bool, errors: &mut Errors) {
    let container = reference.field("containerName");
    let resource = reference.field("resource");
    let name = resource.str();
    let huge = HUGE_PAGES.iter().any(|prefix| name.starts_with(prefix));
    if in_volume && container.str().is_empty() {
        errors.required(container.path, "");
    } else if name.is_empty() {
        errors.required(resource.path, "");
    } else if !RESOURCES.contains(&name) && !huge {
        errors.not_supported(resource.path, name, RESOURCES);
    }
    let divisor = reference.field("divisor");
    if divisor.quantity().is_none_or(|q| q.sign() == 0) {
        return;
    }
    let (scales, of): (&[&str], _) = match name {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "cpu"),
        "limits.memory" | "requests.memory" => (SCALES, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (SCALES, "local ephemeral storage")
        }
        _ if huge => (SCALES, "hugepages"),
        _ => return,
    };
    if !scales.contains(&divisor.str()) {
        let values = match of {
            "cpu" => "1m and 1".to_owned(),
            _ => scales.join(", "),
        };
        errors.invalid(
            divisor.path,
            name,
            format!("only divisor's values {values} are supported with the {of} resource"),
        );
    }
}

fn key_ref(reference: At<'_>, errors: &mut Errors) {
    reference
        .field("name")
        .checked(names::dns1123_subdomain, errors);
    reference
        .field("key")
        .required_checked(names::config_map_key, errors);
}

fn file_ref(reference: At<'_>, errors: &mut Errors) {
    reference
        .field("key")
        .required_checked(names::relaxed_env_name, errors);
    reference
        .field("volumeName")
        .required_checked(names::dns1123_label, errors);
    let path = reference.field("path");
    if path.required("", errors) {
        volumes::no_backsteps(path, errors);
    }
}

/// Validates `envFrom`: ValidateEnvFrom. Some errors have the list's path.
pub(super) fn env_from(list: At<'_>, errors: &mut Errors) {
    for item in list.items() {
        item.field("prefix")
            .checked_if_said(names::relaxed_env_name, errors);
        let mut said = 0;
        for source in ["configMapRef", "secretRef"] {
            let source = item.field(source);
            if !source.is_absent() {
                said += 1;
                source
                    .field("name")
                    .required_checked(|name| names::subdomain_name(name, true), errors);
            }
        }
        match said {
            0 => errors.invalid(
                list.path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            1 => {}
            _ => errors.invalid(
                list.path,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

/// The volumes of file references must be emptyDir volumes: validateFileKeyRefVolumes.
pub(super) fn file_volumes(spec: At<'_>, errors: &mut Errors) {
    for list in super::CONTAINERS {
        for container in spec.field(list).items() {
            for variable in container.field("env").items() {
                if variable.value.path(&["valueFrom", "fileKeyRef"]).is_null() {
                    continue;
                }
                let source = variable.field("valueFrom");
                let reference = source.field("fileKeyRef");
                let name = reference.field("volumeName");
                // Of several volumes with this name, upstream uses the last.
                let volumes = spec.value.list("volumes");
                match volumes.iter().rfind(|v| v.str("name") == name.str()) {
                    None => errors.not_found(name.path, name.str()),
                    Some(volume) if volume.get("emptyDir").is_none() => {
                        name.invalid_text("referenced volume must be of type emptyDir", errors);
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
