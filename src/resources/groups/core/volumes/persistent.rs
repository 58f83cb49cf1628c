//! Persistent volumes. Follows k8s.io/kubernetes/pkg/registry/core/persistentvolume/strategy.go,
//! pkg/apis/core/validation and pkg/volume/validation.

use super::{
    CLASS_ANNOTATION, MODES, basic_quantity, class, positive_quantity, shown_modes,
    source_defaults, sources, subdomain,
};
use crate::meta::{At, Errors, table, time};
use crate::resources::groups::core::nodes;
use crate::resources::groups::core::pods::defaults;
use crate::resources::groups::core::pods::validate::{access_modes, node_selector};
use crate::resources::{Deletion, Printing, Rules, StatusRules, metadata};
use crate::schema::{Object, Value, internal};
use crate::value;

const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// The rules of persistent volumes.
pub(in crate::resources::groups::core) const RULES: Rules = Rules {
    defaults: |object, _| {
        let status = object.object_mut().entry("status", || Object::new().into());
        defaults::text(status, "phase", "Pending");
        let spec = object.object_mut().entry("spec", || Object::new().into());
        defaults::text(spec, "persistentVolumeReclaimPolicy", "Retain");
        defaults::absent(spec, "volumeMode", "Filesystem");
        source_defaults(spec);
    },
    prepare_create: |object, cx| {
        let since = time::print(cx.now);
        object.set(
            "status",
            value!({"phase": "Pending", "lastPhaseTransitionTime": since}),
        );
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        volume(object, old, errors);
        if let Some(old) = old {
            update(object, old, errors);
        }
    },
    status: StatusRules {
        prepare: |new, old, cx| {
            const SINCE: &str = "lastPhaseTransitionTime";
            let (now, was) = (new.at("status"), old.at("status"));
            let said = now.get(SINCE);
            let since = if now.str("phase") == was.str("phase") {
                said.or(was.get(SINCE)).cloned()
            } else if said.is_none() || said == was.get(SINCE) {
                Some(time::print(cx.now).into())
            } else {
                said.cloned()
            };
            let status = new.object_mut().object_mut("status");
            match since {
                Some(since) => status.insert(SINCE, since),
                None => status.remove(SINCE),
            };
        },
        ..StatusRules::DEFAULT
    },
    warnings: |object, _, _| warnings(object),
    printing: Printing::of(cells),
    deletion: Deletion::RETURNS_OBJECT,
    internal: "core.PersistentVolume",
    ..Rules::DEFAULT
};

fn volume(object: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    let name = object.value.at("metadata").str("name");
    let lax = old.is_some_and(|old| {
        let terms = old.value.path(&["spec", "nodeAffinity", "required"]);
        nodes::has_bad_label_values(terms)
    });
    let spec = object.field("spec");
    access(spec, errors);
    let capacity = spec.field("capacity");
    capacity.required("", errors);
    let amounts = capacity.value.as_object().map_or(0, Object::len);
    if capacity.value.get("storage").is_none() || amounts > 1 {
        errors.not_supported(capacity.path, capacity.value, &["storage"]);
    }
    for (_, amount) in capacity.entries() {
        basic_quantity(amount, errors);
        positive_quantity(amount, errors);
    }
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if !policy.str().is_empty() {
        policy.one_of(&["Delete", "Recycle", "Retain"], errors);
    }
    let affinity = spec.field("nodeAffinity");
    if !affinity.is_absent() {
        let required = affinity.field("required");
        if required.is_absent() {
            errors.required(required.path, "must specify required node constraints");
        } else {
            node_selector(required, || lax, errors);
        }
    }
    sources::sources(spec, name, !affinity.is_absent(), errors);
    recycles_root(spec, errors);
    spec.field("storageClassName")
        .checked_if_said(subdomain, errors);
    spec.field("volumeMode").one_of_if_there(&MODES, errors);
    attributes_class(spec, errors);
    mount_options(object, errors);
}

/// Validates a volume spec that is inline in a VolumeAttachment.
pub(in crate::resources::groups) fn inline_spec(spec: At<'_>, errors: &mut Errors) {
    const HERE: &str = "in the context of inline volumes";
    let not_here = |field: &str, errors: &mut Errors| {
        let field = spec.field(field);
        field.forbid_said(&format!("may not be specified {HERE}"), errors);
    };
    let claim = spec.field("claimRef");
    claim.forbid(&format!("may not be specified {HERE}"), errors);
    not_here("capacity", errors);
    let csi = spec.field("csi");
    if csi.is_absent() {
        errors.required(csi.path, &format!("has to be specified {HERE}"));
    }
    access(spec, errors);
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if !matches!(policy.str(), "" | "Retain") {
        errors.forbidden(policy.path, format!("may only be Retain {HERE}"));
    }
    let affinity = spec.field("nodeAffinity");
    affinity.forbid(&format!("may not be specified {HERE}"), errors);
    sources::sources(spec, "", false, errors);
    recycles_root(spec, errors);
    not_here("storageClassName", errors);
    let mode = spec.field("volumeMode");
    if !mode.is_absent() && mode.str() != "Filesystem" {
        let why = format!("may not specify volumeMode other than Filesystem {HERE}");
        errors.forbidden(mode.path, why);
    }
}

fn access(spec: At<'_>, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    modes.required("", errors);
    access_modes(modes, errors);
}

fn recycles_root(spec: At<'_>, errors: &mut Errors) {
    let policy = spec.field("persistentVolumeReclaimPolicy");
    let path = spec.value.at("hostPath").str("path");
    let is_root = path.starts_with('/') && clean_is_root(path);
    if is_root && policy.str() == "Recycle" {
        errors.forbidden(
            policy.path,
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
}

/// Whether an absolute path is the root once `.` and `..` are resolved.
fn clean_is_root(path: &str) -> bool {
    let mut depth = 0usize;
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    depth == 0
}

fn attributes_class(spec: At<'_>, errors: &mut Errors) {
    let class = spec.field("volumeAttributesClassName");
    if class.is_absent() {
        return;
    }
    if class.required("an empty string is disallowed", errors) {
        class.checked(subdomain, errors);
    }
    let csi = spec.field("csi");
    if csi.is_absent() {
        errors.required(
            csi.path,
            "has to be specified when using volumeAttributesClassName",
        );
    }
}

fn mount_options(object: At<'_>, errors: &mut Errors) {
    const MOUNTED: [&str; 13] = [
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "photonPersistentDisk",
    ];
    let spec = object.value.at("spec");
    let meta = object.field("metadata");
    let annotations = meta.field("annotations");
    let option = annotations.field(MOUNT_OPTIONS);
    if !MOUNTED.iter().any(|kind| spec.get(kind).is_some()) {
        option.forbid("may not specify mount options for this volume type", errors);
    }
}

/// The volume sources in a spec.
fn made_of(spec: &Value) -> Value {
    let members = spec.as_object().into_iter().flat_map(Object::iter);
    Value::Object(
        members
            .filter(|(key, _)| sources::is_source(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    )
}

/// Whether the node affinity is unchanged, except for labels replaced by their current names.
fn same_nodes(before: &Value, now: &Value) -> bool {
    const LATER: [(&str, &str); 5] = [
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        (
            "failure-domain.beta.kubernetes.io/region",
            "topology.kubernetes.io/region",
        ),
        (
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
        ),
        (
            "beta.kubernetes.io/instance-type",
            "node.kubernetes.io/instance-type",
        ),
    ];
    let terms = |affinity: &Value| affinity.at("required").list("nodeSelectorTerms").to_vec();
    let (was, mut is) = (terms(before), terms(now));
    for (was, is) in was.iter().zip(&mut is) {
        let expressions = defaults::items(is, "matchExpressions");
        for (was, is) in was.list("matchExpressions").iter().zip(expressions) {
            let (from, to) = (was.str("key"), is.str("key"));
            // Upstream's map lookup returns an empty name for keys without a replacement, so these may change to an
            // empty key.
            let later = LATER.iter().find(|(beta, _)| *beta == from);
            if later.map_or("", |(_, name)| name) == to {
                is.set("key", was.at("key"));
            }
        }
    }
    was == is && before.at("required").is_null() == now.at("required").is_null()
}

fn update(object: At<'_>, old: At<'_>, errors: &mut Errors) {
    let (spec, before) = (object.field("spec"), old.value.at("spec"));
    let (mut now, was) = (made_of(spec.value), made_of(before));
    // The secret for expansion may be added later.
    if let (Some(csi), Some(before)) = (now.get_mut("csi"), was.get("csi"))
        && before.get("controllerExpandSecretRef").is_none()
    {
        csi.remove("controllerExpandSecretRef");
    }
    if now != was {
        let diff = internal::diff(&was, &now, "core.PersistentVolumeSource");
        errors.forbidden(
            spec.path.field("persistentvolumesource"),
            format!("spec.persistentvolumesource is immutable after creation\n{diff}"),
        );
    }
    let mode = spec.field("volumeMode");
    if mode.value != before.at("volumeMode") {
        let path = object.path.field("volumeMode");
        errors.invalid(path, mode.value, "field is immutable");
    }
    let affinity = spec.value.at("nodeAffinity");
    let bound = before.at("nodeAffinity");
    if !bound.is_null() && !same_nodes(bound, affinity) {
        let path = object.path.field("nodeAffinity");
        let shown = internal::shown(affinity, "*core.VolumeNodeAffinity");
        let why = "field is immutable, except for updating from beta label to GA";
        errors.invalid_shown(path, &shown, why);
    }
    let class = spec.field("volumeAttributesClassName");
    if class.is_absent() && before.get("volumeAttributesClassName").is_some() {
        errors.forbidden(class.path, "update from non-nil value to nil is forbidden");
    }
}

fn warnings(object: &Value) -> Vec<String> {
    const GONE: [(&str, &str, &str); 6] = [
        (
            "cephfs",
            "cephfs",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        (
            "scaleIO",
            "scaleIO",
            "deprecated in v1.16, non-functional in v1.22+",
        ),
        (
            "storageos",
            "storageOS",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "glusterfs",
            "glusterfs",
            "deprecated in v1.25, non-functional in v1.26+",
        ),
        (
            "rbd",
            "rbd",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
    ];
    let (spec, annotations) = (object.at("spec"), object.at("metadata").at("annotations"));
    let mut warnings = Vec::new();
    for (annotation, why) in [
        (
            CLASS_ANNOTATION,
            "deprecated since v1.8; use \"storageClassName\" attribute instead",
        ),
        (
            MOUNT_OPTIONS,
            "deprecated since v1.31; use \"mountOptions\" attribute instead",
        ),
    ] {
        if annotations.get(annotation).is_some() {
            warnings.push(format!("metadata.annotations[{annotation}]: {why}"));
        }
    }
    if spec.str("persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    let required = spec.at("nodeAffinity").at("required");
    for (i, term) in required.list("nodeSelectorTerms").iter().enumerate() {
        let path = format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}]");
        warnings.extend(nodes::term_warnings(term, &path));
    }
    for (field, told, why) in GONE {
        if spec.get(field).is_some() {
            warnings.push(format!("spec.{told}: {why}"));
        }
    }
    warnings
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let (meta, spec, status) = (
        object.at("metadata"),
        object.at("spec"),
        object.at("status"),
    );
    let claim = match spec.get("claimRef") {
        Some(claim) => format!("{}/{}", claim.str("namespace"), claim.str("name")),
        None => String::new(),
    };
    let phase = if meta.get("deletionTimestamp").is_some() {
        "Terminating"
    } else {
        status.str("phase")
    };
    let or_unset = |key: &str| Value::from(spec.at(key).as_str().unwrap_or("<unset>"));
    vec![
        meta.str("name").into(),
        (spec.at("capacity").at("storage").as_str().unwrap_or("0")).into(),
        shown_modes(spec.list("accessModes")).into(),
        spec.str("persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        class(object).into(),
        or_unset("volumeAttributesClassName"),
        status.str("reason").into(),
        table::age(object, now),
        or_unset("volumeMode"),
    ]
}
