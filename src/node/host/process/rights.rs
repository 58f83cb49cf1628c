//! The rights of a process.

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod};

use crate::node::machine::full_name;
use crate::node::supplies::Lack;
use crate::zone::{CAPABILITIES, Rights, USUAL_CAPABILITIES};

fn capabilities(of: Option<&Capabilities>) -> Vec<String> {
    let plain = |name: &String| {
        let upper = name.to_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    };
    let list =
        |names: Option<&Vec<String>>| names.into_iter().flatten().map(plain).collect::<Vec<_>>();
    let (add, drop) = match of {
        Some(of) => (list(of.add.as_ref()), list(of.drop.as_ref())),
        None => (Vec::new(), Vec::new()),
    };
    let all = |names: &[String]| names.iter().any(|name| name == "ALL");
    let mut result: Vec<String> = match (all(&drop), all(&add)) {
        (true, _) => Vec::new(),
        (false, true) => CAPABILITIES.iter().map(|name| (*name).to_owned()).collect(),
        (false, false) => USUAL_CAPABILITIES
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
    };
    result.retain(|name| !drop.contains(name));
    result.extend(add.into_iter().filter(|name| name != "ALL"));
    result.sort();
    result.dedup();
    result
}

fn id(value: Option<i64>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

pub(super) fn rights(of: &Pod, container: &Container, image_user: &str) -> Result<Rights, Lack> {
    let spec = of.spec.as_ref();
    let pod = spec.and_then(|spec| spec.security_context.clone());
    let pod = pod.unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let uid = id(own.run_as_user.or(pod.run_as_user));
    if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        let named = image_user.split(':').next().unwrap_or_default();
        let as_root = "container has runAsNonRoot and image will run as root".to_owned();
        let wrong = match (uid, named.parse::<u32>()) {
            (Some(0), _) => Some("container's runAsUser breaks non-root policy".to_owned()),
            (Some(_), _) => None,
            (None, Ok(0)) => Some(as_root),
            (None, Ok(_)) => None,
            (None, Err(_)) if named.is_empty() => Some(as_root),
            (None, Err(_)) => Some(format!(
                "container has runAsNonRoot and image has non-numeric user ({named}), cannot verify user is non-root"
            )),
        };
        if let Some(wrong) = wrong {
            let (pod, name) = (full_name(of), &container.name);
            return Err(Lack::new(
                "CreateContainerConfigError",
                format!("{wrong} (pod: {pod:?}, container: {name})"),
            ));
        }
    }
    let profile = own.seccomp_profile.or(pod.seccomp_profile);
    let kind = profile.as_ref().map(|profile| profile.type_.as_str());
    if kind == Some("Localhost") && own.privileged != Some(true) {
        let name = profile.and_then(|profile| profile.localhost_profile);
        let message = format!(
            "cannot load seccomp profile {:?}: profiles in files are not read; use RuntimeDefault",
            name.unwrap_or_default()
        );
        return Err(Lack::new("CreateContainerError", message));
    }
    let seccomp = kind == Some("RuntimeDefault");
    let mut groups: Vec<u32> = pod
        .supplemental_groups
        .iter()
        .flatten()
        .filter_map(|group| id(Some(*group)))
        .collect();
    groups.extend(id(pod.fs_group));
    Ok(Rights {
        uid,
        gid: id(own.run_as_group.or(pod.run_as_group)),
        user: image_user.to_owned(),
        groups,
        strict_groups: pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        capabilities: capabilities(own.capabilities.as_ref()),
        privileged: own.privileged == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_root: own.read_only_root_filesystem == Some(true),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        seccomp,
    })
}
