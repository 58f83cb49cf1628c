//! Volume sources of persistent volumes, in upstream's order. Follows
//! k8s.io/kubernetes/pkg/apis/core/validation/validation.go.

use crate::meta::{At, Errors, names};
use crate::resources::groups::core::pods::validate::sources::{
    azure_disk, disk, driver_name, fibre_channel, flex, flocker, initiator, need, nfs, quobyte,
    storage_os,
};
use crate::resources::groups::core::pods::validate::volumes::{host_path, no_backsteps};

/// A source: its field, its field in errors if that differs, and its validation.
struct Source {
    field: &'static str,
    told: &'static str,
    check: fn(At<'_>, &str, &mut Errors),
}

const fn source(field: &'static str, check: fn(At<'_>, &str, &mut Errors)) -> Source {
    Source {
        field,
        told: field,
        check,
    }
}

const SOURCES: [Source; 22] = [
    source("hostPath", |at, _, errors| host_path(at, errors)),
    Source {
        field: "gcePersistentDisk",
        told: "persistentDisk",
        check: |at, _, errors| disk(at, "pdName", errors),
    },
    source("awsElasticBlockStore", |at, _, errors| {
        disk(at, "volumeID", errors);
    }),
    source("glusterfs", glusterfs),
    source("flocker", |at, _, errors| flocker(at, errors)),
    source("nfs", |at, _, errors| nfs(at, errors)),
    source("rbd", |at, _, errors| {
        need(at, &["monitors", "image"], errors)
    }),
    source("quobyte", |at, _, errors| quobyte(at, errors)),
    source("cephfs", |at, _, errors| need(at, &["monitors"], errors)),
    source("iscsi", iscsi),
    source("cinder", |at, _, errors| {
        need(at, &["volumeID"], errors);
        secret(at, errors);
    }),
    source("fc", |at, _, errors| fibre_channel(at, errors)),
    source("flexVolume", |at, _, errors| flex(at, errors)),
    source("azureFile", azure_file),
    source("vsphereVolume", |at, _, errors| {
        need(at, &["volumePath"], errors);
    }),
    source("photonPersistentDisk", |at, _, errors| {
        need(at, &["pdID"], errors);
    }),
    source("portworxVolume", |at, _, errors| {
        need(at, &["volumeID"], errors);
    }),
    source("azureDisk", |at, _, errors| azure_disk(at, errors)),
    source("scaleIO", |at, _, errors| {
        need(at, &["gateway", "system", "volumeName"], errors);
    }),
    source("local", |at, _, errors| {
        let path = at.field("path");
        if path.required("", errors) {
            no_backsteps(path, errors);
        }
    }),
    source("storageos", |at, _, errors| {
        storage_os(at, errors);
        let secret = at.field("secretRef");
        if !secret.is_absent() {
            need(secret, &["name", "namespace"], errors);
        }
    }),
    source("csi", csi),
];

/// Validates that a spec has one source, and the source. `name` is the volume's.
pub(super) fn sources(spec: At<'_>, name: &str, affinity: bool, errors: &mut Errors) {
    let mut found = 0;
    for Source { field, told, check } in &SOURCES {
        let at = spec.field(field);
        if at.is_absent() {
            continue;
        }
        // Only flexVolume may be combined with another source.
        if found > 0 && *field != "flexVolume" {
            let told = if *field == "cephfs" { "cephFS" } else { field };
            errors.forbidden(
                spec.path.field(told),
                "may not specify more than 1 volume type",
            );
            continue;
        }
        found += 1;
        let told = At {
            value: at.value,
            path: spec.path.field(told),
        };
        check(told, name, errors);
        if *field == "local" && !affinity {
            let affinity = spec.path.field("nodeAffinity");
            errors.required(affinity, "Local volume requires node affinity");
        }
    }
    if found == 0 {
        errors.required(spec.path, "must specify a volume type");
    }
}

/// Whether the field is a volume source.
pub(super) fn is_source(field: &str) -> bool {
    SOURCES.iter().any(|source| source.field == field)
}

/// Requires a reference to a secret with name and namespace.
fn secret(at: At<'_>, errors: &mut Errors) {
    let secret = at.field("secretRef");
    if !secret.is_absent() {
        need(secret, &["name", "namespace"], errors);
    }
}

fn glusterfs(at: At<'_>, _: &str, errors: &mut Errors) {
    need(at, &["endpoints", "path"], errors);
    let namespace = at.field("endpointsNamespace");
    if namespace.value.as_str() == Some("") {
        namespace.invalid(
            "if the endpointnamespace is set, it must be a valid namespace name",
            errors,
        );
    } else {
        namespace.checked_if_there(names::dns1123_label, errors);
    }
}

fn iscsi(at: At<'_>, volume: &str, errors: &mut Errors) {
    let (portal, iqn, own) = (
        at.field("targetPortal"),
        at.field("iqn"),
        at.field("initiatorName"),
    );
    portal.required("", errors);
    if !own.is_absent() && volume.len() + 1 + portal.str().len() > 64 {
        errors.invalid(at.path.field("targetportal"), portal.str(), "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.");
    }
    if iqn.required("", errors) && initiator(iqn.str()) != Some(true) {
        iqn.invalid("must be valid format", errors);
    }
    let lun = at.field("lun");
    lun.within(0, 255, &names::range_error(0, 255), errors);
    let secret = at.field("secretRef");
    let chap = at.value.bool("chapAuthDiscovery") || at.value.bool("chapAuthSession");
    if chap && secret.is_absent() {
        errors.required(secret.path, "");
    }
    if !secret.is_absent() {
        need(secret, &["name"], errors);
    }
    if !own.is_absent() && initiator(own.str()) != Some(true) {
        errors.invalid(
            at.path.field("initiatorname"),
            own.value,
            "must be valid format",
        );
    }
}

fn azure_file(at: At<'_>, _: &str, errors: &mut Errors) {
    need(at, &["secretName", "shareName"], errors);
    let namespace = at.field("secretNamespace");
    if !namespace.is_absent() {
        namespace.required("", errors);
    }
}

fn csi(at: At<'_>, _: &str, errors: &mut Errors) {
    driver_name(at.field("driver"), errors);
    need(at, &["volumeHandle"], errors);
    for name in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = at.field(name);
        if !secret.is_absent() {
            secret
                .field("name")
                .required_checked(names::dns1123_subdomain, errors);
            secret
                .field("namespace")
                .required_checked(names::dns1123_label, errors);
        }
    }
}
