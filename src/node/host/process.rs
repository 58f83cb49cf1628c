//! Describes a container as a process: image, command, environment, mounts, security, limits.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Capabilities, Container, Pod, ResourceRequirements, VolumeMount};

use super::environment::expand;
use super::{Host, text, uid};
use crate::meta::quantity::Quantity;
use crate::node::machine::{
    ASKED_IMAGE, IMAGE, IMAGE_ID, RECURSIVE, SIZE, STOP_SIGNAL, Size, full_name,
    is_recursively_read_only,
};
use crate::node::supplies::Lack;
use crate::zone::{
    CAPABILITIES, Limits, Mount, ProcessId, ProcessSpec, Propagation, Rights, Root,
    USUAL_CAPABILITIES, ZoneNetwork, ZoneSpec,
};

/// The lowest priority of critical pods.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;
/// The default PATH, if neither pod nor image sets one.
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

fn rights(of: &Pod, container: &Container, image_user: &str) -> Result<Rights, Lack> {
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

/// A memory request in bytes; defaults to the limit.
fn memory_request(of: Option<&ResourceRequirements>) -> Option<i64> {
    let listed = |map: &Option<
        BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >| { Quantity::parse(&map.as_ref()?.get("memory")?.0).ok() };
    let (requests, limits) = (listed(&of?.requests), listed(&of?.limits));
    requests.or(limits).map(|memory| memory.value())
}

/// The OOM score adjustment of a container on a host with this much memory. Follows `GetContainerOOMScoreAdjust`
/// (pkg/kubelet/qos).
fn oom_score(pod: &Pod, container: &Container, capacity: u64) -> i32 {
    const LEAST: i32 = -997;
    const MOST: i32 = 1000;
    let spec = pod.spec.clone().unwrap_or_default();
    let is_critical = spec
        .priority
        .is_some_and(|priority| priority >= SYSTEM_CRITICAL);
    if is_critical && spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return LEAST;
    }
    let status = pod.status.as_ref();
    match status.and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => return LEAST,
        Some("BestEffort") => return MOST,
        _ => {}
    }
    let of = |one: &Container| memory_request(one.resources.as_ref()).unwrap_or(0);
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let is_sidecar = |one: &Container| one.restart_policy.as_deref() == Some("Always");
    let (mut beside, mut most) = (0, 0);
    for init in inits {
        most = most.max(beside + of(init));
        if is_sidecar(init) {
            beside += of(init);
        }
    }
    let most = most.max(beside + spec.containers.iter().map(of).sum::<i64>());
    // Pod-level requests beyond those of its containers are shared equally among them.
    let count = (inits.len() + spec.containers.len()).max(1) as i64;
    let whole = memory_request(spec.resources.as_ref());
    let share = whole.map_or(0, |whole| (whole - most).max(0) / count);
    let score = |memory: i64| {
        let whole = i128::from(capacity.max(1));
        i128::from(MOST) - i128::from(MOST) * i128::from(memory + share) / whole
    };
    let mut result = score(of(container));
    if inits
        .iter()
        .any(|one| one.name == container.name && is_sidecar(one))
    {
        // A sidecar is not killed before the containers that it serves.
        let least = spec.containers.iter().map(of).min().unwrap_or(0);
        result = result.min(score(least));
    }
    result.clamp(i128::from(MOST + LEAST), i128::from(MOST - 1)) as i32
}

/// Limits of a container, with kubelet's rules for shares and scores.
pub(super) fn limits(pod: &Pod, container: &Container) -> Limits {
    let spec = pod.spec.clone().unwrap_or_default();
    let capacity = super::usage::memory().capacity;
    Limits {
        oom_score: Some(oom_score(pod, container, capacity)),
        ..Size::of(&spec, container).limits()
    }
}

/// The part of a volume that a mount shows, if not the whole. Follows `ExpandContainerVolumeMounts` and `makeMounts`:
/// variables in an expression must exist, and the path must not lead out of the volume.
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
        let image = self.image(text(container.image.as_ref())).await?;
        let image = image.ok_or_else(|| {
            create_error(format!(
                "image {:?} is gone",
                text(container.image.as_ref())
            ))
        })?;
        self.uses.note(&image, Timestamp::now());
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
        let written = self.write_own_files(pod, zone, process).await;
        written.map_err(|error| create_error(error.to_string()))?;
        let mut mounts = self.file_mounts(pod, container, process, zone);
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
        // A volume mounted at such a path takes precedence over our file.
        mounts.retain(|mount| !own_mounts.iter().any(|own| own.target == mount.target));
        own_mounts.sort_by_key(|mount| mount.target.components().count());
        mounts.splice(0..0, own_mounts);
        let rights = rights(pod, container, &image.config.user)?;
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

    /// Mounts of `/etc/hosts` and the like, and of the termination message.
    fn file_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        process: &ProcessId,
        zone: &ZoneSpec,
    ) -> Vec<Mount> {
        let directory = self.pod_directory(uid(pod));
        let message = self.message_path(uid(pod), process);
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
        mounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_be_root_is_told_why() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": {"runAsNonRoot": true}, "containers": []},
        }))
        .expect("a pod");
        let container = |uid: Option<i64>| -> Container {
            let context = serde_json::json!({"runAsUser": uid});
            let container = serde_json::json!({"name": "c", "securityContext": context});
            serde_json::from_value(container).expect("a container")
        };
        let of = r#" (pod: "p_n(u)", container: c)"#;
        for (uid, image, expected) in [
            (Some(7), "", None),
            (None, "7:7", None),
            (
                Some(0),
                "7",
                Some("container's runAsUser breaks non-root policy"),
            ),
            (
                None,
                "",
                Some("container has runAsNonRoot and image will run as root"),
            ),
            (
                None,
                "0",
                Some("container has runAsNonRoot and image will run as root"),
            ),
            (
                None,
                "me",
                Some(
                    "container has runAsNonRoot and image has non-numeric user (me), cannot verify user is non-root",
                ),
            ),
        ] {
            let refused = rights(&pod, &container(uid), image).err();
            let expected = expected.map(|text| format!("{text}{of}"));
            assert_eq!(
                refused.map(|lack| lack.message),
                expected,
                "{uid:?} {image}"
            );
        }
    }

    #[test]
    fn the_kernel_ends_first_who_asks_for_least() {
        let container = |name: &str, memory: &str, policy: Option<&str>| {
            let resources = match memory {
                "" => serde_json::json!({}),
                memory => serde_json::json!({"requests": {"memory": memory}}),
            };
            serde_json::json!({"name": name, "resources": resources, "restartPolicy": policy})
        };
        let plain = [container("c", "100", None), container("d", "", None)];
        let none: [serde_json::Value; 0] = [];
        let sidecar = [container("s", "", Some("Always")), container("i", "", None)];
        let node = serde_json::json!({"priority": 2_000_001_000, "priorityClassName": "system-node-critical"});
        let cluster = serde_json::json!({"priority": 2_000_000_000, "priorityClassName": "system-cluster-critical"});
        let whole = serde_json::json!({"resources": {"requests": {"memory": "400"}}});
        let other = serde_json::json!({});
        let big = [container("c", "999", None), container("d", "300", None)];
        for (class, more, inits, containers, name, expected) in [
            ("Guaranteed", &other, &none[..], &plain, "c", -997),
            ("BestEffort", &other, &none[..], &plain, "c", 1000),
            ("BestEffort", &node, &none[..], &plain, "c", -997),
            ("Burstable", &cluster, &none[..], &plain, "c", 900),
            ("Burstable", &other, &none[..], &plain, "c", 900),
            ("Burstable", &other, &none[..], &plain, "d", 999),
            ("Burstable", &other, &none[..], &big, "c", 3),
            ("Burstable", &other, &sidecar[..], &big, "s", 700),
            ("Burstable", &other, &sidecar[..], &big, "i", 999),
            ("Burstable", &whole, &none[..], &plain, "c", 750),
            ("Burstable", &whole, &none[..], &plain, "d", 850),
            ("Burstable", &whole, &sidecar[..], &plain, "s", 925),
        ] {
            let mut spec = more.clone();
            spec["initContainers"] = inits.to_vec().into();
            spec["containers"] = containers.to_vec().into();
            let pod = serde_json::json!({"spec": spec, "status": {"qosClass": class}});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let spec = pod.spec.as_ref().expect("one");
            let mut all = spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten());
            let one = all.find(|one| one.name == name).expect("one");
            assert_eq!(
                oom_score(&pod, one, 1000),
                expected,
                "{class} {more} {name}"
            );
        }
    }

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
