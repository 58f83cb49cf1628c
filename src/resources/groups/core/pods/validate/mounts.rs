//! Volume mounts and block devices of containers.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Scope, volumes};
use crate::meta::{At, Errors};
use crate::schema::Value;

/// A list of mounts or devices: the names of their volumes, and their paths; the last of a name counts.
struct Taken<'a> {
    paths_by_name: HashMap<&'a str, &'a str>,
    paths: HashSet<&'a str>,
}

impl<'a> Taken<'a> {
    fn by(list: &'a [Value], key: &str) -> Self {
        let named = list.iter().map(|item| (item.str("name"), item.str(key)));
        let paths_by_name: HashMap<&str, &str> = named.collect();
        let paths = paths_by_name.values().copied().collect();
        Taken {
            paths_by_name,
            paths,
        }
    }

    fn names(&self, volume: &str) -> bool {
        self.paths_by_name.contains_key(volume)
    }

    fn has_path(&self, path: &str) -> bool {
        self.paths.contains(path)
    }
}

/// Validates volume mounts: ValidateVolumeMounts. Some errors have the list's path.
pub(super) fn mounts(container: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let list = container.field("volumeMounts");
    let devices = Taken::by(container.value.list("volumeDevices"), "devicePath");
    let mut taken = BTreeSet::new();
    for mount in list.items() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        name.required("", errors);
        if scope.volume(name.str()).is_none() {
            errors.not_found(name.path, name.str());
        }
        path.required("", errors);
        if !taken.insert(mount.value.str("mountPath")) {
            path.invalid_text("must be unique", errors);
        }
        if devices.names(name.str()) {
            name.invalid_text("must not already exist in volumeDevices", errors);
        }
        if devices.has_path(path.str()) {
            path.invalid_text("must not already exist as a path in volumeDevices", errors);
        }
        sub_paths(mount, list, errors);
        propagation(mount, container.value, list, errors);
        recursive_read_only(mount, list, errors);
    }
}

fn sub_paths(mount: At<'_>, list: At<'_>, errors: &mut Errors) {
    let (path, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
    let in_list = |name, value| At {
        value,
        path: list.path.field(name),
    };
    if !path.str().is_empty() {
        let at = in_list("subPath", path.value);
        volumes::relative_path(at, errors);
    }
    if !expression.str().is_empty() {
        if !path.str().is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive", errors);
        }
        let at = in_list("subPathExpr", expression.value);
        volumes::relative_path(at, errors);
    }
}

fn propagation(mount: At<'_>, container: &Value, list: At<'_>, errors: &mut Errors) {
    let at = At {
        value: mount.value.at("mountPropagation"),
        path: list.path.field("mountPropagation"),
    };
    at.one_of_if_there(&["Bidirectional", "HostToContainer", "None"], errors);
    if at.str() == "Bidirectional" && !container.at("securityContext").bool("privileged") {
        errors.forbidden(
            at.path,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn recursive_read_only(mount: At<'_>, list: At<'_>, errors: &mut Errors) {
    let at = At {
        value: mount.value.at("recursiveReadOnly"),
        path: list.path.field("recursiveReadOnly"),
    };
    at.one_of_if_there(&["Disabled", "Enabled", "IfPossible"], errors);
    if !matches!(at.str(), "Enabled" | "IfPossible") {
        return;
    }
    if !mount.value.bool("readOnly") {
        errors.forbidden(at.path, "may only be specified when readOnly is true");
    }
    let propagation = mount.value.at("mountPropagation").as_str();
    if propagation.is_some_and(|mode| mode != "None") {
        errors.forbidden(
            at.path,
            "may only be specified when mountPropagation is None or not specified",
        );
    }
}

/// Validates block devices: ValidateVolumeDevices.
pub(super) fn devices(container: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let list = container.field("volumeDevices");
    if list.list().is_empty() {
        return;
    }
    let mounts = Taken::by(container.value.list("volumeMounts"), "mountPath");
    let (mut taken, mut known) = (BTreeSet::new(), BTreeSet::new());
    for device in list.items() {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        name.required("", errors);
        if known.contains(name.str()) {
            name.invalid_text("must be unique", errors);
        }
        match scope.volume(name.str()) {
            None => errors.not_found(name.path, name.str()),
            Some(volume)
                if volume.get("persistentVolumeClaim").is_none()
                    && volume.get("ephemeral").is_none() =>
            {
                name.invalid_text(
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                    errors,
                );
            }
            Some(_) => {}
        }
        path.required("", errors);
        if taken.contains(path.str()) {
            path.invalid_text("must be unique", errors);
        }
        if path.str().split('/').any(|part| part == "..") {
            path.invalid_text("can not contain backsteps ('..')", errors);
        } else {
            taken.insert(device.value.str("devicePath"));
        }
        if mounts.names(name.str()) {
            name.invalid_text("must not already exist in volumeMounts", errors);
        }
        if mounts.has_path(path.str()) {
            path.invalid_text("must not already exist as a path in volumeMounts", errors);
        }
        if !name.str().is_empty() {
            known.insert(device.value.str("name"));
        }
    }
}
