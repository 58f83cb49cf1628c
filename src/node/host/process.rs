//! A container as a process: image, command, environment, mounts, rights, limits.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod, PodSpec, VolumeMount};

use super::environment::expand;
use super::{Host, text, uid};
use crate::meta::quantity::Quantity;
use crate::node::machine::{
    ASKED_IMAGE, IMAGE, IMAGE_ID, RECURSIVE, SIZE, STOP_SIGNAL, Size, is_recursively_read_only,
};
use crate::node::supplies::Lack;
use crate::storage::beneath;
use crate::zone::{
    CAPABILITIES, Limits, Mount, ProcessId, ProcessSpec, Propagation, Rights, Root,
    USUAL_CAPABILITIES, ZoneNetwork, ZoneSpec,
};

/// Where programs are looked for if neither pod nor image says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The name of a process's root in the storage engine.
pub fn root_name(uid: &str, id: &ProcessId) -> String {
    format!("{uid}/{}-{}", id.name, id.generation)
}

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

fn rights(spec: &PodSpec, container: &Container, image_user: &str) -> Result<Rights, Lack> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let uid = id(own.run_as_user.or(pod.run_as_user));
    if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        let named = image_user.split(':').next().unwrap_or_default();
        let wrong = match (uid, named.parse::<u32>()) {
            (Some(0), _) => Some("container's runAsUser breaks non-root policy"),
            (Some(_), _) => None,
            (None, Ok(0)) => Some("container has runAsNonRoot and image will run as root"),
            (None, Ok(_)) => None,
            (None, Err(_)) if named.is_empty() => {
                Some("container has runAsNonRoot and image will run as root")
            }
            (None, Err(_)) => {
                let message = format!(
                    "container has runAsNonRoot and image has non-numeric user ({named}), cannot verify user is non-root"
                );
                return Err(Lack::new("CreateContainerConfigError", message));
            }
        };
        if let Some(message) = wrong {
            return Err(Lack::new("CreateContainerConfigError", message));
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

/// Limits of a container, with kubelet's rules for shares and scores.
pub(super) fn limits(pod: &Pod, container: &Container) -> Limits {
    let resources = container.resources.clone().unwrap_or_default();
    let quantity = |map: &Option<
        BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
                    name: &str| {
        map.as_ref()
            .and_then(|map| map.get(name))
            .and_then(|quantity| Quantity::parse(&quantity.0).ok())
    };
    let memory_limit = quantity(&resources.limits, "memory").map(|quantity| quantity.value());
    let memory = quantity(&resources.requests, "memory")
        .map(|quantity| quantity.value())
        .or(memory_limit);
    let class = pod
        .status
        .as_ref()
        .and_then(|status| status.qos_class.as_deref());
    let score = match class {
        Some("Guaranteed") => -997,
        Some("BestEffort") => 1000,
        _ => {
            let total = super::usage::memory().capacity.max(1);
            let share = i128::from(memory.unwrap_or(0)) * 1000 / i128::from(total);
            (1000 - share as i32).clamp(3, 999)
        }
    };
    let spec = pod.spec.clone().unwrap_or_default();
    Limits {
        oom_score: Some(score),
        ..Size::of(&spec, container).limits()
    }
}

/// The part of a volume that a mount shows, if it is not the whole. Follows `ExpandContainerVolumeMounts` and
/// `makeMounts`: what an expression names has to be there, and nothing leads out of the volume.
///
/// # Errors
/// Upstream's texts.
fn sub_path(
    mount: &VolumeMount,
    known: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let missing = RefCell::new(BTreeSet::new());
    let value = |name: &str| {
        let value = known(name).unwrap_or_default();
        if value.is_empty() {
            missing.borrow_mut().insert(name.to_owned());
        }
        Some(value)
    };
    let given = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    let path = match given(&mount.sub_path_expr) {
        Some(expression) => Some(expand(&expression, &value)),
        None => given(&mount.sub_path),
    };
    let missing: Vec<String> = missing.into_inner().into_iter().collect();
    if !missing.is_empty() {
        return Err(format!("missing value for {}", missing.join(", ")));
    }
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    if path.starts_with('/') {
        return Err(format!(
            "error SubPath `{path}` must not be an absolute path"
        ));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!(
            "unable to provision SubPath `{path}`: must not contain '..'"
        ));
    }
    Ok(Some(path))
}

impl Host {
    pub(super) async fn describe(
        &self,
        pod: &Pod,
        container: &Container,
        process: &ProcessId,
        zone: &ZoneSpec,
    ) -> Result<ProcessSpec, Lack> {
        let spec = pod.spec.clone().unwrap_or_default();
        let config_error = |message: String| Lack::new("CreateContainerConfigError", message);
        let create_error = |message: String| Lack::new("CreateContainerError", message);
        let image = self.image(text(container.image.as_ref()))?.ok_or_else(|| {
            create_error(format!(
                "image {:?} is gone",
                text(container.image.as_ref())
            ))
        })?;
        let given = self.environment(pod, container, zone).await?;
        let known = |name: &str| {
            given
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        let expanded = |list: &Option<Vec<String>>| -> Option<Vec<String>> {
            list.as_ref()
                .filter(|list| !list.is_empty())
                .map(|list| list.iter().map(|one| expand(one, &known)).collect())
        };
        let (entry, arguments) = match (expanded(&container.command), expanded(&container.args)) {
            (Some(command), arguments) => (command, arguments.unwrap_or_default()),
            (None, Some(arguments)) => (
                image.config.entrypoint.clone().unwrap_or_default(),
                arguments,
            ),
            (None, None) => (
                image.config.entrypoint.clone().unwrap_or_default(),
                image.config.cmd.clone().unwrap_or_default(),
            ),
        };
        let command: Vec<String> = entry.into_iter().chain(arguments).collect();
        if command.is_empty() {
            return Err(create_error("no command specified".to_owned()));
        }
        let mut environment: Vec<(String, String)> = vec![("PATH".into(), PATH.into())];
        let own = image.config.env.clone().unwrap_or_default();
        let own = own.iter().filter_map(|one| one.split_once('='));
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let hostname = vec![(
            "HOSTNAME".to_owned(),
            match zone.network {
                ZoneNetwork::Host => rustix::system::uname()
                    .nodename()
                    .to_string_lossy()
                    .into_owned(),
                ZoneNetwork::Own { .. } => zone.hostname.clone(),
            },
        )];
        let term = (container.tty == Some(true)).then(|| ("TERM".to_owned(), "xterm".to_owned()));
        for (name, value) in own.chain(hostname).chain(term).chain(given.clone()) {
            match environment.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => environment.push((name, value)),
            }
        }
        let directory = match container
            .working_dir
            .as_deref()
            .filter(|path| !path.is_empty())
        {
            Some(path) => path.to_owned(),
            None if image.config.working_dir.is_empty() => "/".to_owned(),
            None => image.config.working_dir.clone(),
        };
        let mut mounts = self
            .file_mounts(pod, container, process, zone)
            .map_err(|error| create_error(error.to_string()))?;
        let recursive = self.runtime.recursive_read_only();
        let mut own_mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let (source, below) = self
                .volume_path(pod, &mount.name)
                .await
                .map_err(|lack| config_error(lack.message))?;
            let inside = sub_path(mount, &known).map_err(config_error)?;
            let read_only =
                mount.read_only == Some(true) || self.always_read_only(&spec, &mount.name);
            own_mounts.push(Mount {
                source,
                below,
                inside: inside.map(PathBuf::from),
                target: PathBuf::from(&mount.mount_path),
                read_only,
                recursive_read_only: is_recursively_read_only(mount, recursive)
                    .map_err(config_error)?,
                propagation: match mount.mount_propagation.as_deref() {
                    Some("HostToContainer") => Propagation::HostToProcess,
                    Some("Bidirectional") => Propagation::Bidirectional,
                    _ => Propagation::Private,
                },
            });
        }
        // What a volume is mounted on is not covered by a file of ours.
        mounts.retain(|mount| !own_mounts.iter().any(|own| own.target == mount.target));
        own_mounts.sort_by_key(|mount| mount.target.components().count());
        mounts.splice(0..0, own_mounts);
        let rights = rights(&spec, container, &image.config.user)?;
        let root = self
            .storage
            .make_root(&root_name(uid(pod), process), &image.chains)
            .await
            .map_err(|error| create_error(error.to_string()))?;
        if let Root::Overlay { lower, .. } = &root
            && lower.is_empty()
        {
            return Err(create_error("the image has no layers".to_owned()));
        }
        let shown = image
            .names
            .first()
            .cloned()
            .unwrap_or_else(|| text(container.image.as_ref()).to_owned());
        let digest = image.label().to_owned();
        let size = Size::of(&pod.spec.clone().unwrap_or_default(), container);
        let stop = image.config.stop_signal.clone();
        let stop = stop.filter(|signal| !signal.is_empty());
        Ok(ProcessSpec {
            id: process.clone(),
            labels: [
                (
                    ASKED_IMAGE.to_owned(),
                    text(container.image.as_ref()).to_owned(),
                ),
                (IMAGE.to_owned(), shown),
                (IMAGE_ID.to_owned(), digest),
                (SIZE.to_owned(), size.label()),
            ]
            .into_iter()
            .chain(stop.map(|signal| (STOP_SIGNAL.to_owned(), signal)))
            .chain(recursive.then(|| (RECURSIVE.to_owned(), "true".to_owned())))
            .collect(),
            beside: spec
                .ephemeral_containers
                .iter()
                .flatten()
                .find(|ephemeral| ephemeral.name == container.name)
                .and_then(|ephemeral| ephemeral.target_container_name.clone())
                .filter(|target| !target.is_empty()),
            root,
            command,
            environment: environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            directory: directory.into(),
            mounts,
            rights,
            limits: limits(pod, container),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            log: self.logs.whole(
                text(pod.metadata.namespace.as_ref()),
                text(pod.metadata.name.as_ref()),
                uid(pod),
                process,
            ),
        })
    }

    /// `/etc/hosts` and the like, and where the termination message goes.
    fn file_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        process: &ProcessId,
        zone: &ZoneSpec,
    ) -> std::io::Result<Vec<Mount>> {
        let directory = self.pod_directory(uid(pod));
        let message = self.message_path(uid(pod), process);
        beneath::make_file(
            &self.writable(uid(pod)),
            &Self::message_name(process),
            0o666,
        )?;
        let mount = |source: PathBuf, target: &str| Mount {
            source,
            below: Vec::new(),
            inside: None,
            target: target.into(),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
        };
        let mut mounts = vec![
            mount(directory.join("etc/hosts"), "/etc/hosts"),
            mount(directory.join("etc/resolv.conf"), "/etc/resolv.conf"),
        ];
        if matches!(zone.network, ZoneNetwork::Own { .. }) {
            mounts.push(mount(directory.join("etc/hostname"), "/etc/hostname"));
        }
        let path = container
            .termination_message_path
            .as_deref()
            .filter(|path| !path.is_empty());
        mounts.push(mount(message, path.unwrap_or("/dev/termination-log")));
        Ok(mounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_volume_is_named_and_stays_inside() {
        let known = |name: &str| match name {
            "POD" => Some("web".to_owned()),
            "UP" => Some("..".to_owned()),
            "ROOT" => Some("/etc".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (path, expression, expected) in [
            ("", "", Ok(None)),
            ("a/b", "", Ok(Some("a/b"))),
            ("", "$(POD)/$$(POD)", Ok(Some("web/$(POD)"))),
            ("a..b", "", Ok(Some("a..b"))),
            ("", "$(NO)/$(EMPTY)", Err("missing value for EMPTY, NO")),
            (
                "",
                "$(UP)",
                Err("unable to provision SubPath `..`: must not contain '..'"),
            ),
            (
                "a/../b",
                "",
                Err("unable to provision SubPath `a/../b`: must not contain '..'"),
            ),
            (
                "",
                "$(ROOT)",
                Err("error SubPath `/etc` must not be an absolute path"),
            ),
        ] {
            let mount = VolumeMount {
                sub_path: Some(path.to_owned()),
                sub_path_expr: Some(expression.to_owned()),
                ..VolumeMount::default()
            };
            let expected = expected.map(|path| path.map(str::to_owned));
            let expected = expected.map_err(str::to_owned);
            assert_eq!(sub_path(&mount, &known), expected, "{path} {expression}");
        }
    }
}
