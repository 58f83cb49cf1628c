//! Describes a container as a process: image, command, environment, mounts, security, limits.

mod memory;
mod rights;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use self::rights::rights;
use super::environment::expand;
use super::{Host, text, uid};
use crate::node::machine::{
    ASKED_IMAGE, IMAGE, IMAGE_ID, RECURSIVE, SIZE, STOP_SIGNAL, Size, is_recursively_read_only,
};
use crate::node::supplies::Lack;
use crate::zone::{Mount, ProcessId, ProcessSpec, Propagation, Root, ZoneNetwork, ZoneSpec};

pub(super) use self::memory::limits;

/// The lowest priority of critical pods.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;
/// The default PATH, if neither pod nor image sets one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The name of a process's root in the storage engine.
pub fn root_name(uid: &str, id: &ProcessId) -> String {
    format!("{uid}/{}-{}", id.name, id.generation)
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
mod tests;
