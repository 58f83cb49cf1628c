//! What a persistent volume can be made of: one check a source, in upstream's order. Follows
//! k8s.io/kubernetes/pkg/apis/core/validation/validation.go.

use std::sync::LazyLock;

use regex::Regex;

use super::csi_driver_name;
use crate::meta::{At, Errors, names};

/// A source: its field, the field its errors are told under where that is another one, its check.
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
    source("hostPath", host_path),
    Source {
        field: "gcePersistentDisk",
        told: "persistentDisk",
        check: |at, _, errors| disk(at, "pdName", errors),
    },
    source("awsElasticBlockStore", |at, _, errors| {
        disk(at, "volumeID", errors);
    }),
    source("glusterfs", glusterfs),
    source("flocker", flocker),
    source("nfs", nfs),
    source("rbd", |at, _, errors| {
        needs(at, &["monitors", "image"], errors)
    }),
    source("quobyte", quobyte),
    source("cephfs", |at, _, errors| needs(at, &["monitors"], errors)),
    source("iscsi", iscsi),
    source("cinder", |at, _, errors| {
        needs(at, &["volumeID"], errors);
        secret(at, errors);
    }),
    source("fc", fibre_channel),
    source("flexVolume", flex),
    source("azureFile", azure_file),
    source("vsphereVolume", |at, _, errors| {
        needs(at, &["volumePath"], errors);
    }),
    source("photonPersistentDisk", |at, _, errors| {
        needs(at, &["pdID"], errors);
    }),
    source("portworxVolume", |at, _, errors| {
        needs(at, &["volumeID"], errors);
    }),
    source("azureDisk", azure_disk),
    source("scaleIO", |at, _, errors| {
        needs(at, &["gateway", "system", "volumeName"], errors);
    }),
    source("local", |at, _, errors| {
        let path = at.field("path");
        if path.required("", errors) {
            no_backsteps(path, errors);
        }
    }),
    source("storageos", storage_os),
    source("csi", csi),
];

/// Judges that there is one source in a spec, and what it says. `name` is the volume's.
pub(super) fn sources(spec: At<'_>, name: &str, affinity: bool, errors: &mut Errors) {
    let mut found = 0;
    for Source { field, told, check } in &SOURCES {
        let at = spec.field(field);
        if at.is_absent() {
            continue;
        }
        // Only flexVolume may stand beside others.
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

/// The fields of a spec that are sources.
pub(super) fn is_source(field: &str) -> bool {
    SOURCES.iter().any(|source| source.field == field)
}

fn needs(at: At<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        at.field(field).required("", errors);
    }
}

/// A secret in a namespace, only whose presence is asked for.
fn secret(at: At<'_>, errors: &mut Errors) {
    let secret = at.field("secretRef");
    if !secret.is_absent() {
        needs(secret, &["name", "namespace"], errors);
    }
}

pub(in crate::resources::groups::core) fn no_backsteps(path: At<'_>, errors: &mut Errors) {
    if path.str().split('/').any(|step| step == "..") {
        path.invalid("must not contain '..'", errors);
    }
}

fn host_path(at: At<'_>, _: &str, errors: &mut Errors) {
    const TYPES: [&str; 8] = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let path = at.field("path");
    if path.required("", errors) {
        no_backsteps(path, errors);
        at.field("type").one_of_if_there(&TYPES, errors);
    }
}

fn disk(at: At<'_>, id: &str, errors: &mut Errors) {
    at.field(id).required("", errors);
    at.field("partition")
        .within(0, 255, &names::range_error(1, 255), errors);
}

fn glusterfs(at: At<'_>, _: &str, errors: &mut Errors) {
    needs(at, &["endpoints", "path"], errors);
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

fn flocker(at: At<'_>, _: &str, errors: &mut Errors) {
    let (name, uuid) = (at.field("datasetName"), at.field("datasetUUID"));
    match (name.str(), uuid.str()) {
        ("", "") => errors.required(at.path, "one of datasetName and datasetUUID is required"),
        ("", _) | (_, "") => {}
        _ => errors.invalid(
            at.path,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ),
    }
    if name.str().contains('/') {
        name.invalid("must not contain '/'", errors);
    }
}

fn nfs(at: At<'_>, _: &str, errors: &mut Errors) {
    needs(at, &["server", "path"], errors);
    let path = at.field("path");
    if !path.str().starts_with('/') {
        path.invalid_text("must be an absolute path", errors);
    }
}

fn quobyte(at: At<'_>, _: &str, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (at.field("registry"), at.field("tenant"));
    if registry.required(PAIRS, errors) {
        if tenant.str().len() >= 65 {
            errors.required(
                tenant.path,
                "must be a UUID and may not exceed a length of 64 characters",
            );
        } else {
            let pairs = registry.str().split(',').filter(|pair| !is_host_port(pair));
            pairs.for_each(|_| registry.invalid(PAIRS, errors));
        }
    }
    at.field("volume").required("", errors);
}

/// Go's net.SplitHostPort takes it.
fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => match rest.strip_suffix(']') {
            Some(inner) => inner,
            None => return false,
        },
        None if host.contains(':') => return false,
        None => host,
    };
    !host.contains(['[', ']']) && !port.contains(['[', ']'])
}

static IQN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"iqn\.[0-9]{4}-[0-9]{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").ok());

/// Whether an initiator's name has the form that its first letters promise; none for other letters.
fn initiator(name: &str) -> Option<bool> {
    let fixed = |prefix: &str, length: usize| {
        // Upstream's expressions take any character where the dot stands.
        let mut rest = name.chars().skip(prefix.len());
        let any = rest.next().is_some_and(|c| c != '\n');
        let rest: Vec<char> = rest.collect();
        any && rest.len() == length && rest.iter().all(char::is_ascii_alphanumeric)
    };
    match name.get(..3) {
        Some("iqn") => Some(IQN.as_ref().is_some_and(|iqn| iqn.is_match(name))),
        Some("eui") => Some(fixed("eui", 16)),
        Some("naa") => Some(fixed("naa", 32)),
        _ => None,
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
        needs(secret, &["name"], errors);
    }
    if !own.is_absent() && initiator(own.str()) != Some(true) {
        errors.invalid(
            at.path.field("initiatorname"),
            own.value,
            "must be valid format",
        );
    }
}

fn fibre_channel(at: At<'_>, _: &str, errors: &mut Errors) {
    let (targets, ids) = (at.field("targetWWNs"), at.field("wwids"));
    match (targets.list().is_empty(), ids.list().is_empty()) {
        (true, true) => errors.required(
            targets.path,
            "must specify either targetWWNs or wwids, but not both",
        ),
        (false, false) => targets.invalid(
            "targetWWNs and wwids can not be specified simultaneously",
            errors,
        ),
        _ => {}
    }
    if !targets.list().is_empty() {
        let lun = at.field("lun");
        if lun.is_absent() {
            errors.required(lun.path, "lun is required if targetWWNs is specified");
        }
        lun.within(0, 255, &names::range_error(0, 255), errors);
    }
}

fn flex(at: At<'_>, _: &str, errors: &mut Errors) {
    needs(at, &["driver"], errors);
    for (key, option) in at.field("options").entries() {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let dotted = format!(".{}", namespace.to_lowercase());
        if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
            errors.invalid(
                option.path,
                key,
                "kubernetes.io and k8s.io namespaces are reserved",
            );
        }
    }
}

fn azure_file(at: At<'_>, _: &str, errors: &mut Errors) {
    needs(at, &["secretName", "shareName"], errors);
    let namespace = at.field("secretNamespace");
    if !namespace.is_absent() {
        namespace.required("", errors);
    }
}

fn azure_disk(at: At<'_>, _: &str, errors: &mut Errors) {
    needs(at, &["diskName", "diskURI"], errors);
    at.field("cachingMode")
        .one_of_if_there(&["None", "ReadOnly", "ReadWrite"], errors);
    let (kind, uri) = (at.field("kind"), at.field("diskURI"));
    kind.one_of_if_there(&["Dedicated", "Managed", "Shared"], errors);
    if kind.is_absent() {
        return;
    }
    let (prefix, form) = if kind.str() == "Managed" {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        )
    };
    if !uri.str().starts_with(prefix) {
        errors.not_supported(uri.path, uri.str(), &[form]);
    }
}

fn storage_os(at: At<'_>, _: &str, errors: &mut Errors) {
    at.field("volumeName")
        .required_checked(names::dns1123_label, errors);
    at.field("volumeNamespace")
        .checked_if_said(names::dns1123_label, errors);
    secret(at, errors);
}

fn csi(at: At<'_>, _: &str, errors: &mut Errors) {
    csi_driver_name(at.field("driver"), errors);
    needs(at, &["volumeHandle"], errors);
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
