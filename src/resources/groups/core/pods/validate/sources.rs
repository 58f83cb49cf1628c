//! Network and cloud volumes: validations shared by pods and PersistentVolumes.

use std::sync::LazyLock;

use regex::Regex;

use crate::meta::{At, Errors, names};

const HOST_PORT: &str = "must be a host:port pair or multiple pairs separated by commas";

/// Requires some fields.
pub(in crate::resources::groups::core) fn need(
    source: At<'_>,
    fields: &[&str],
    errors: &mut Errors,
) {
    for field in fields {
        source.field(field).required("", errors);
    }
}

/// A reference to a secret must have a name.
pub(in crate::resources::groups::core) fn secret_name(reference: At<'_>, errors: &mut Errors) {
    if !reference.is_absent() {
        reference.field("name").required("", errors);
    }
}

/// A cloud disk, named by the field `name`.
pub(in crate::resources::groups::core) fn disk(disk: At<'_>, name: &str, errors: &mut Errors) {
    disk.field(name).required("", errors);
    disk.field("partition")
        .within(0, 255, &names::range_error(1, 255), errors);
}

/// NFS.
pub(in crate::resources::groups::core) fn nfs(nfs: At<'_>, errors: &mut Errors) {
    need(nfs, &["server", "path"], errors);
    let path = nfs.field("path");
    if !path.str().starts_with('/') {
        path.invalid_text("must be an absolute path", errors);
    }
}

static INITIATORS: LazyLock<[(&str, Option<Regex>); 3]> = LazyLock::new(|| {
    [
        (
            "iqn",
            r"iqn\.[0-9]{4}-[0-9]{2}\.([[:alnum:].-]+)(:[^,;*&$|\t\n\x0c\r ]+)$",
        ),
        ("eui", "^eui.[[:alnum:]]{16}$"),
        ("naa", "^naa.[[:alnum:]]{32}$"),
    ]
    .map(|(prefix, regex)| (prefix, Regex::new(regex).ok()))
});

/// The known prefix of a name, and whether the rest is valid for it.
pub(in crate::resources::groups::core) fn initiator(name: &str) -> Option<bool> {
    INITIATORS
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|(_, regex)| regex.as_ref().is_none_or(|regex| regex.is_match(name)))
}

/// iSCSI in a pod.
pub(in crate::resources::groups::core) fn iscsi(iscsi: At<'_>, errors: &mut Errors) {
    const PREFIX: &str = "must be valid format starting with iqn, eui, or naa";
    const FORM: &str = "must be valid format";
    iscsi.field("targetPortal").required("", errors);
    let iqn = iscsi.field("iqn");
    if iqn.required("", errors) {
        match initiator(iqn.str()) {
            None => iqn.invalid(PREFIX, errors),
            Some(false) => iqn.invalid(FORM, errors),
            Some(true) => {}
        }
    }
    iscsi
        .field("lun")
        .within(0, 255, &names::range_error(0, 255), errors);
    let authenticates = ["chapAuthDiscovery", "chapAuthSession"]
        .iter()
        .any(|flag| iscsi.value.bool(flag));
    let secret = iscsi.field("secretRef");
    if authenticates && secret.is_absent() {
        errors.required(secret.path, "");
    }
    let name = iscsi.field("initiatorName");
    let wrong = match name.value.as_str().map(initiator) {
        None | Some(Some(true)) => return,
        Some(None) => PREFIX,
        Some(Some(false)) => FORM,
    };
    errors.invalid(iscsi.path.field("initiatorname"), name.str(), wrong);
}

/// Fibre Channel.
pub(in crate::resources::groups::core) fn fibre_channel(fc: At<'_>, errors: &mut Errors) {
    let (targets, ids) = (fc.field("targetWWNs"), fc.field("wwids"));
    let lun = fc.field("lun");
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
    if targets.list().is_empty() {
        return;
    }
    if lun.is_absent() {
        errors.required(lun.path, "lun is required if targetWWNs is specified");
    }
    lun.within(0, 255, &names::range_error(0, 255), errors);
}

/// Quobyte. Upstream reports a tenant that is too long as `Required value`.
pub(in crate::resources::groups::core) fn quobyte(quobyte: At<'_>, errors: &mut Errors) {
    let registry = quobyte.field("registry");
    let tenant = quobyte.field("tenant");
    if registry.required(HOST_PORT, errors) {
        if tenant.str().len() >= 65 {
            errors.required(
                tenant.path,
                "must be a UUID and may not exceed a length of 64 characters",
            );
        } else {
            for pair in registry.str().split(',') {
                if !is_host_port(pair) {
                    registry.invalid(HOST_PORT, errors);
                }
            }
        }
    }
    quobyte.field("volume").required("", errors);
}

/// Whether Go's net.SplitHostPort accepts the text.
fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|inside| !inside.contains(['[', ']']) && !port.contains(['[', ']'])),
        None => !host.contains([':', '[', ']']) && !port.contains(['[', ']']),
    }
}

/// Flocker.
pub(in crate::resources::groups::core) fn flocker(flocker: At<'_>, errors: &mut Errors) {
    let name = flocker.field("datasetName");
    let uuid = flocker.value.str("datasetUUID");
    match (name.str().is_empty(), uuid.is_empty()) {
        (true, true) => errors.required(
            flocker.path,
            "one of datasetName and datasetUUID is required",
        ),
        (false, false) => errors.invalid(
            flocker.path,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ),
        _ => {}
    }
    if name.str().contains('/') {
        name.invalid("must not contain '/'", errors);
    }
}

/// FlexVolume: options in Kubernetes' own namespace are rejected.
pub(in crate::resources::groups::core) fn flex(flex: At<'_>, errors: &mut Errors) {
    flex.field("driver").required("", errors);
    for (key, option) in flex.field("options").entries() {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            errors.invalid(
                option.path,
                key,
                "kubernetes.io and k8s.io namespaces are reserved",
            );
        }
    }
}

/// An Azure disk.
pub(in crate::resources::groups::core) fn azure_disk(disk: At<'_>, errors: &mut Errors) {
    need(disk, &["diskName", "diskURI"], errors);
    disk.field("cachingMode")
        .one_of_if_there(&["None", "ReadOnly", "ReadWrite"], errors);
    let kind = disk.field("kind");
    kind.one_of_if_there(&["Dedicated", "Managed", "Shared"], errors);
    let uri = disk.field("diskURI");
    let (prefix, form) = match kind.str() {
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        ),
    };
    if !kind.is_absent() && !uri.str().starts_with(prefix) {
        errors.not_supported(uri.path, uri.str(), &[form]);
    }
}

/// StorageOS, except its secret.
pub(in crate::resources::groups::core) fn storage_os(volume: At<'_>, errors: &mut Errors) {
    volume
        .field("volumeName")
        .required_checked(names::dns1123_label, errors);
    volume
        .field("volumeNamespace")
        .checked_if_said(names::dns1123_label, errors);
}

/// The name of a CSI driver: ValidateCSIDriverName.
pub(in crate::resources::groups) fn driver_name(name: At<'_>, errors: &mut Errors) {
    if !name.required("", errors) {
        return;
    }
    if name.str().len() > 63 {
        errors.too_long(name.path, 63);
    }
    for wrong in names::dns1123_subdomain(&name.str().to_lowercase()) {
        errors.invalid(name.path, name.str(), wrong);
    }
}
