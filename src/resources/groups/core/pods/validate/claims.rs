//! Resource claims of pods, and volume claim templates.

use std::collections::BTreeSet;

use super::resources;
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
/// The annotation of mirror pods.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Validates a pod's resource claims: validatePodResourceClaims.
pub(super) fn pod_claims(list: At<'_>, meta: &Value, errors: &mut Errors) {
    let is_mirror = meta.at("annotations").get(MIRROR).is_some();
    let mut known = BTreeSet::new();
    for claim in list.items() {
        if is_mirror {
            errors.forbidden(
                crate::meta::Path::ROOT.key(""),
                "static pods do not support resource claims",
            );
            continue;
        }
        let name = claim.field("name");
        if name.required("", errors) {
            if known.insert(claim.value.str("name")) {
                name.checked(names::dns1123_label, errors);
            } else {
                errors.duplicate(name.path, name.str());
            }
        }
        let (own, template) = (
            claim.field("resourceClaimName"),
            claim.field("resourceClaimTemplateName"),
        );
        let wrong = match (own.is_absent(), template.is_absent()) {
            (false, false) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (true, true) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => "",
        };
        if !wrong.is_empty() {
            claim.invalid_dump("core.PodResourceClaim", wrong, errors);
        }
        own.checked_if_there(names::dns1123_subdomain, errors);
        template.checked_if_there(names::dns1123_subdomain, errors);
    }
}

/// Validates the template of an ephemeral volume's claim: ValidatePersistentVolumeClaimTemplate.
pub(super) fn claim_template(template: At<'_>, errors: &mut Errors) {
    if template.is_absent() {
        return errors.required(template.path, "");
    }
    labels_and_annotations(template.field("metadata"), errors);
    claim_spec(template.field("spec"), None, errors);
}

/// Validates a template's metadata, which may contain only labels and annotations: ValidateTemplateObjectMeta.
pub(in crate::resources::groups) fn labels_and_annotations(meta: At<'_>, errors: &mut Errors) {
    crate::resources::metadata::annotations(meta.field("annotations"), errors);
    meta.field("labels").labels(errors);
    // In the order of the Go struct.
    for field in [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ] {
        let shown = match field {
            "uid" => "uID",
            other => other,
        };
        // Go's nil is absent; an empty list is not, and neither is a pointer to 0.
        let set = |value: &Value| match field {
            "deletionGracePeriodSeconds" | "ownerReferences" | "finalizers" | "managedFields" => {
                !value.is_null()
            }
            _ => !value.is_empty(),
        };
        if meta.value.get(field).is_some_and(set) {
            errors.forbidden(meta.path.field(shown), "cannot be set");
        }
    }
}

/// Validates the spec of a PersistentVolumeClaim, which replaces `old`: ValidatePersistentVolumeClaimSpec.
pub(in crate::resources::groups) fn claim_spec(
    spec: At<'_>,
    old: Option<&Value>,
    errors: &mut Errors,
) {
    let modes = spec.field("accessModes");
    modes.required("at least 1 access mode is required", errors);
    let any_value = old.is_some_and(|old| At::root(old.at("selector")).is_bad_selector());
    spec.field("selector").label_selector(any_value, errors);
    access_modes(modes, errors);
    storage(spec, errors);
    spec.field("storageClassName")
        .checked_if_said(names::dns1123_subdomain, errors);
    spec.field("volumeMode")
        .one_of_if_there(&["Block", "Filesystem"], errors);
    data_sources(spec, old, errors);
    spec.field("volumeAttributesClassName")
        .checked_if_said(names::dns1123_subdomain, errors);
}

/// Validates the access modes of a volume or claim. That there are any is checked elsewhere.
pub(in crate::resources::groups::core) fn access_modes(modes: At<'_>, errors: &mut Errors) {
    let (mut alone, mut others) = (false, false);
    for mode in modes.list() {
        let mode = mode.as_str().unwrap_or_default();
        if !ACCESS_MODES.contains(&mode) {
            errors.not_supported(modes.path, mode, ACCESS_MODES);
        } else if mode == "ReadWriteOncePod" {
            alone = true;
        } else {
            others = true;
        }
    }
    if alone && others {
        errors.forbidden(
            modes.path,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

fn storage(spec: At<'_>, errors: &mut Errors) {
    let resources = spec.field("resources");
    let storage = At {
        value: resources.value.at("requests").at("storage"),
        path: resources.path.key("storage"),
    };
    match storage.quantity() {
        None => errors.required(storage.path, ""),
        Some(quantity) if quantity.sign() <= 0 => {
            storage.invalid("must be greater than zero", errors);
        }
        Some(_) => resources::quantity("storage", storage, errors),
    }
}

fn data_sources(spec: At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let any_group = old.is_some_and(|old| {
        ["dataSource", "dataSourceRef"]
            .iter()
            .any(|key| old.at(key).get("apiGroup").is_some())
    });
    let (source, reference) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    for at in [source, reference] {
        if !at.is_absent() {
            data_source(at, any_group, errors);
        }
    }
    if source.is_absent() || reference.is_absent() {
        return;
    }
    let wrong = if !reference.value.str("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|key| source.value.at(key) != reference.value.at(key))
    {
        "must match dataSourceRef"
    } else {
        return;
    };
    // Upstream shows a field.Path as the value, which prints as an empty struct.
    errors.invalid_shown(spec.path, "{}", wrong);
}

fn data_source(source: At<'_>, any_group: bool, errors: &mut Errors) {
    source.field("name").required("", errors);
    let kind = source.field("kind");
    kind.required("", errors);
    let group = source.field("apiGroup");
    if group.str().is_empty() && kind.str() != "PersistentVolumeClaim" {
        errors.invalid(
            source.path,
            kind.str(),
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        );
    }
    if !any_group {
        group.checked_if_said(names::dns1123_subdomain, errors);
    }
    source
        .field("namespace")
        .checked_if_said(names::dns1123_label, errors);
}
