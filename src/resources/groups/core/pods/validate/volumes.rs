//! Volumes of pods, except network and cloud volumes, which are in `sources`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Before, claims, containers, env, projected, sources};
use crate::meta::errors::quoted;
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const ONE_TYPE: &str = "may not specify more than 1 volume type";
const FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const HOST_PATHS: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// A type of volume: its field, upstream's names for the field in errors about a second source and about an invalid
/// one, and its validation.
type Source = (
    &'static str,
    &'static str,
    &'static str,
    fn(At<'_>, Before<'_>, &mut Errors),
);

/// In upstream's order.
const SOURCES: &[Source] = &[
    ("emptyDir", "", "", |at, _, errors| empty_dir(at, errors)),
    ("hostPath", "", "", |at, _, errors| host_path(at, errors)),
    ("gitRepo", "", "", |at, _, errors| git(at, errors)),
    (
        "gcePersistentDisk",
        "",
        "persistentDisk",
        |at, _, errors| {
            sources::disk(at, "pdName", errors);
        },
    ),
    ("awsElasticBlockStore", "", "", |at, _, errors| {
        sources::disk(at, "volumeID", errors);
    }),
    ("secret", "", "", |at, _, errors| {
        files(at, "secretName", errors);
    }),
    ("nfs", "", "", |at, _, errors| sources::nfs(at, errors)),
    ("iscsi", "", "", |at, _, errors| sources::iscsi(at, errors)),
    ("glusterfs", "", "", |at, _, errors| {
        sources::need(at, &["endpoints", "path"], errors);
    }),
    ("flocker", "", "", |at, _, errors| {
        sources::flocker(at, errors);
    }),
    ("persistentVolumeClaim", "", "", |at, _, errors| {
        sources::need(at, &["claimName"], errors);
    }),
    ("rbd", "", "", |at, _, errors| {
        sources::need(at, &["monitors", "image"], errors);
    }),
    ("cinder", "", "", |at, _, errors| {
        sources::need(at, &["volumeID"], errors);
        sources::secret_name(at.field("secretRef"), errors);
    }),
    ("cephfs", "cephFS", "", |at, _, errors| {
        sources::need(at, &["monitors"], errors);
    }),
    ("quobyte", "", "", |at, _, errors| {
        sources::quobyte(at, errors);
    }),
    ("downwardAPI", "downwarAPI", "", |at, _, errors| {
        mode(at.field("defaultMode"), errors);
        for file in at.value.list("items") {
            // Upstream omits the item's index.
            let file = At {
                value: file,
                path: at.path,
            };
            downward_file(file, errors);
        }
    }),
    ("fc", "", "", |at, _, errors| {
        sources::fibre_channel(at, errors);
    }),
    ("flexVolume", "", "", |at, _, errors| {
        sources::flex(at, errors);
    }),
    ("configMap", "", "", |at, _, errors| {
        files(at, "name", errors);
    }),
    ("azureFile", "", "", |at, _, errors| {
        sources::need(at, &["secretName", "shareName"], errors);
    }),
    ("vsphereVolume", "", "", |at, _, errors| {
        sources::need(at, &["volumePath"], errors);
    }),
    ("photonPersistentDisk", "", "", |at, _, errors| {
        sources::need(at, &["pdID"], errors);
    }),
    ("portworxVolume", "", "", |at, _, errors| {
        sources::need(at, &["volumeID"], errors);
    }),
    ("azureDisk", "", "", |at, _, errors| {
        sources::azure_disk(at, errors);
    }),
    ("storageos", "", "", |at, _, errors| {
        sources::storage_os(at, errors);
        sources::secret_name(at.field("secretRef"), errors);
    }),
    ("projected", "", "", projected::projected),
    ("scaleIO", "", "", |at, _, errors| {
        sources::need(at, &["gateway", "system", "volumeName"], errors);
    }),
    ("csi", "", "", |at, _, errors| csi(at, errors)),
    ("ephemeral", "", "", |at, _, errors| {
        claims::claim_template(at.field("volumeClaimTemplate"), errors);
    }),
    ("image", "", "", image),
];

/// Validates a pod's volumes (`meta` is null in templates): ValidateVolumes. Returns the valid ones, which may be
/// mounted.
pub(super) fn volumes<'v>(
    list: At<'v>,
    meta: &Value,
    before: Before<'_>,
    errors: &mut Errors,
) -> BTreeMap<&'v str, &'v Value> {
    let pod = meta.str("name");
    // The names of the claims that will be created for the pod's ephemeral volumes.
    let made: BTreeSet<String> = list
        .list()
        .iter()
        .filter(|volume| !pod.is_empty() && volume.get("ephemeral").is_some())
        .map(|volume| format!("{pod}-{}", volume.str("name")))
        .collect();
    let mut sound: BTreeMap<&str, &Value> = BTreeMap::new();
    for (i, value) in list.list().iter().enumerate() {
        let volume = At {
            value,
            path: list.path.index(i),
        };
        let refused = errors.0.len();
        source(volume, pod, before, errors);
        let name = value.str("name");
        let at = volume.field("name");
        at.required_checked(names::dns1123_label, errors);
        if sound.contains_key(name) {
            errors.duplicate(at.path, name);
        }
        if errors.0.len() == refused {
            sound.insert(name, value);
        }
        let claim = volume.field("persistentVolumeClaim");
        let claim = claim.field("claimName");
        if made.contains(claim.str()) {
            claim.invalid(
                "must not reference a PVC that gets created for an ephemeral volume",
                errors,
            );
        }
    }
    sound
}

fn source(volume: At<'_>, pod: &str, before: Before<'_>, errors: &mut Errors) {
    let name = volume.value.str("name");
    let mut said = 0;
    for (field, second, wrong, check) in SOURCES {
        let at = volume.field(field);
        if at.is_absent() {
            continue;
        }
        let or = |other: &'static str| if other.is_empty() { *field } else { other };
        if said > 0 {
            errors.forbidden(volume.path.field(or(second)), ONE_TYPE);
        } else {
            said += 1;
            let at = At {
                value: at.value,
                path: volume.path.field(or(wrong)),
            };
            check(at, before, errors);
            if *field == "ephemeral" && !pod.is_empty() && !name.is_empty() {
                let claim = format!("{pod}-{name}");
                for wrong in names::dns1123_subdomain(&claim) {
                    let wrong = format!("PVC name {}: {wrong}", quoted(&claim));
                    errors.invalid(volume.path.field("name"), name, wrong);
                }
            }
        }
        if *field == "iscsi"
            && at.value.get("initiatorName").is_some()
            && name.len() + 1 + at.value.str("targetPortal").len() > 64
        {
            errors.invalid(
                volume.path.field("name"),
                name,
                "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.",
            );
        }
    }
    if said == 0 {
        errors.required(volume.path, "must specify a volume type");
    }
}

fn empty_dir(dir: At<'_>, errors: &mut Errors) {
    let limit = dir.field("sizeLimit");
    if limit.quantity().is_some_and(|q| q.sign() < 0) {
        errors.forbidden(
            limit.path,
            "SizeLimit field must be a valid resource quantity",
        );
    }
}

pub(in crate::resources::groups::core) fn host_path(host: At<'_>, errors: &mut Errors) {
    let path = host.field("path");
    if path.required("", errors) {
        no_backsteps(path, errors);
        host.field("type").one_of_if_there(HOST_PATHS, errors);
    }
}

fn git(repository: At<'_>, errors: &mut Errors) {
    repository.field("repository").required("", errors);
    relative_path(repository.field("directory"), errors);
}

/// Validates the files of a secret or config map; `name` is the field with its name.
fn files(source: At<'_>, name: &str, errors: &mut Errors) {
    source.field(name).required("", errors);
    mode(source.field("defaultMode"), errors);
    source
        .field("items")
        .items()
        .for_each(|item| key_to_path(item, errors));
}

/// Validates a key and its file: validateKeyToPath.
pub(super) fn key_to_path(item: At<'_>, errors: &mut Errors) {
    item.field("key").required("", errors);
    let path = item.field("path");
    path.required("", errors);
    local_path(path, errors);
    mode(item.field("mode"), errors);
}

/// Validates file permissions.
pub(super) fn mode(mode: At<'_>, errors: &mut Errors) {
    mode.within(0, 0o777, FILE_MODE, errors);
}

/// Validates a file with a field of the pod: validateDownwardAPIVolumeFile.
pub(super) fn downward_file(file: At<'_>, errors: &mut Errors) {
    let path = file.field("path");
    path.required("", errors);
    local_path(path, errors);
    let (field, resource) = (file.field("fieldRef"), file.field("resourceFieldRef"));
    match (field.is_absent(), resource.is_absent()) {
        (true, true) => errors.required(
            file.path,
            "one of fieldRef and resourceFieldRef is required",
        ),
        (true, false) => env::resource_ref(resource, true, errors),
        (false, alone) => {
            env::field_ref(field, FIELDS, errors);
            if !alone {
                errors.invalid(
                    file.path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
    }
    mode(file.field("mode"), errors);
}

fn csi(csi: At<'_>, errors: &mut Errors) {
    sources::driver_name(csi.field("driver"), errors);
    let secret = csi.field("nodePublishSecretRef");
    if secret.is_absent() {
        return;
    }
    let name = secret.field("name");
    if name.required("", errors) {
        for wrong in names::dns1123_subdomain(name.str()) {
            errors.invalid(csi.path.field("name"), name.str(), wrong);
        }
    }
}

fn image(image: At<'_>, before: Before<'_>, errors: &mut Errors) {
    let reference = image.field("reference");
    if reference.str().is_empty() && !before.empty_image() {
        errors.required(reference.path, "");
    }
    containers::pull_policy(image.field("pullPolicy"), errors);
}

/// Rejects `..` in a path: validatePathNoBacksteps.
pub(in crate::resources::groups::core) fn no_backsteps(path: At<'_>, errors: &mut Errors) {
    if path.str().split('/').any(|part| part == "..") {
        path.invalid("must not contain '..'", errors);
    }
}

/// Requires a relative path without `..`: validateLocalDescendingPath.
pub(super) fn relative_path(path: At<'_>, errors: &mut Errors) {
    if path.str().starts_with('/') {
        path.invalid("must be a relative path", errors);
    }
    no_backsteps(path, errors);
}

/// Validates a file's path within a volume: ValidateLocalNonReservedPath.
pub(super) fn local_path(path: At<'_>, errors: &mut Errors) {
    relative_path(path, errors);
    let text = path.str();
    if text.starts_with("..") && !text.starts_with("../") {
        path.invalid("must not start with '..'", errors);
    }
}
