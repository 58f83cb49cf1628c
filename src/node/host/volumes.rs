//! Volumes: created before the zone, and updated while it runs.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
    PodSpec, Volume,
};
use rustix::fs::{Gid, Mode};

use super::claims::{bound_to, is_of};
use super::content::write;
use super::nested::mount_points;
use super::{Host, text, uid};
use crate::blocking::blocking;
use crate::meta::quantity::Quantity;
use crate::node::describe::{self, fs_group};
use crate::node::machine::spec_of;
use crate::node::supplies::Lack;
use crate::node::volumes::{DRIVER, grow};
use crate::storage::{Ownership, beneath};
use crate::zone::Root;
use crate::zone::illumos::Brand;

fn lack(message: impl Into<String>) -> Lack {
    Lack::new("FailedMount", message)
}

fn unattached(error: String) -> Lack {
    lack(format!("Unable to attach or mount volumes: {error}"))
}

/// The name and size of a volume of reddwarf's own driver.
fn own(spec: &PersistentVolumeSpec) -> Option<(&str, Option<u64>)> {
    let of = spec.csi.as_ref().filter(|of| of.driver == DRIVER)?;
    let capacity = spec.capacity.as_ref();
    let quota = capacity
        .and_then(|capacity| Quantity::parse(&capacity.get("storage")?.0).ok())
        .map(|quota| quota.value().max(0) as u64);
    Some((&of.volume_handle, quota))
}

/// The volume of a claim.
struct Claimed {
    /// The persistent volume's name.
    name: String,
    path: PathBuf,
    /// It is a hostPath, whose owner is not changed.
    is_the_hosts: bool,
}

/// The owner that the pod's claimed volumes must have.
fn ownership(pod: &Pod) -> Option<Ownership> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    Some(Ownership {
        group: fs_group(pod)?,
        by_root: context.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
    })
}

impl Host {
    /// Like [`host_path`], for a path that may not answer.
    async fn look_at_host_path(&self, of: &HostPathVolumeSource) -> Result<(), String> {
        let own = of.clone();
        self.paths.at(&of.path, true, move || host_path(&own)).await
    }

    /// The directory of a volume: volumes from the API are in the read-only part.
    pub(super) fn volume_directory(&self, pod: &Pod, volume: &Volume) -> PathBuf {
        let above = match volume.empty_dir {
            Some(_) => self.writable(uid(pod)),
            None => self.pod_directory(uid(pod)),
        };
        above.join("volumes").join(&volume.name)
    }

    /// The paths of the volumes that the pod claims, and the datasets among them that are delegated to its zone, which
    /// will have this brand.
    pub(super) async fn claims(
        &self,
        pod: &Pod,
        brand: &str,
    ) -> Result<(Vec<PathBuf>, Vec<String>), Lack> {
        let delegated = describe::delegated(pod).map_err(lack)?;
        if !delegated.is_empty() && brand != Brand::Reddwarf.name() {
            // Before anything of the volume is changed.
            return Err(lack(format!(
                "the annotation {} is for zones of the brand reddwarf, and this pod's is of the brand {brand}",
                describe::DELEGATED
            )));
        }
        let (mut paths, mut datasets) = (Vec::new(), Vec::new());
        for volume in pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .filter(|volume| describe::is_claim(volume))
        {
            match delegated.contains(&volume.name.as_str()) {
                true => datasets.push(self.delegated(pod, volume).await?),
                false => paths.push(self.owned(pod, volume).await?),
            }
        }
        // Two volumes of a pod may use the same claim.
        datasets.sort();
        datasets.dedup();
        Ok((paths, datasets))
    }

    /// Creates missing volumes of the pod and writes content from the API. A failed one does not keep others from being
    /// updated; the first error is returned.
    pub(super) async fn write_volumes(&self, pod: &Pod, first: bool) -> Result<(), Lack> {
        let mut written = Ok(());
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        for volume in volumes.into_iter().flatten() {
            let one = self.write_volume(pod, volume, first).await;
            written = written.and(one.map_err(|error| {
                lack(format!(
                    "MountVolume.SetUp failed for volume {:?} : {error}",
                    volume.name
                ))
            }));
        }
        written
    }

    async fn write_volume(&self, pod: &Pod, volume: &Volume, first: bool) -> Result<(), String> {
        let directory = self.volume_directory(pod, volume);
        let group = fs_group(pod);
        let told = |error: io::Error| error.to_string();
        if volume.empty_dir.is_some() {
            if !first {
                return Ok(());
            }
            let (above, name) = (self.writable(uid(pod)), volume.name.clone());
            let made = blocking(move || empty(&directory, &above, &name, group)).await;
            return made.map_err(told);
        }
        if let Some(of) = &volume.host_path {
            return match first {
                true => self.look_at_host_path(of).await,
                false => Ok(()),
            };
        }
        if volume.image.is_some() || describe::is_claim(volume) {
            // Image volumes are set up with the containers that mount them, claims when they are requested.
            return Ok(());
        }
        let Some(files) = self.content(pod, volume).await? else {
            return Err("this node does not offer volumes of this kind".into());
        };
        let mounts = mount_points(spec_of(pod), &volume.name);
        let written = blocking(move || match first || directory.exists() {
            true => write(&directory, &files, &mounts, group),
            // The pod ended meanwhile: nothing of it is created again.
            false => Ok(()),
        });
        written.await.map_err(told)
    }

    /// The volume of a claim, with its name, after the pod was found to be one that may have it.
    async fn persistent(
        &self,
        pod: &Pod,
        volume: &Volume,
    ) -> Result<(String, PersistentVolumeSpec), Lack> {
        let claim = match &volume.persistent_volume_claim {
            Some(of) => of.claim_name.clone(),
            None => format!("{}-{}", text(pod.metadata.name.as_ref()), volume.name),
        };
        let wrong = unattached;
        let found = self
            .object::<PersistentVolumeClaim>(pod, &claim)
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let found =
            found.ok_or_else(|| wrong(format!("persistentvolumeclaim {claim:?} not found")))?;
        let owner = volume.ephemeral.as_ref().map(|_| pod);
        let name = bound_to(&found, owner).map_err(wrong)?.to_owned();
        let persistent = self
            .cluster_object::<PersistentVolume>(pod, &name)
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let missing = || wrong(format!("persistentvolume {name:?} not found"));
        let persistent = persistent.ok_or_else(missing)?;
        is_of(&persistent, &found).map_err(wrong)?;
        let spec = persistent.spec.clone().unwrap_or_default();
        self.reaches(pod, &name, &spec).await.map_err(lack)?;
        // No pod has to wait for more room than it had before.
        if let Err(error) = grow(&self.client, Some(&*self.storage), &found, &persistent).await {
            tracing::warn!(volume = name, %error, "cannot expand a persistent volume");
        }
        Ok((name, spec))
    }

    /// The dataset of a claim that is delegated to the pod's zone.
    async fn delegated(&self, pod: &Pod, volume: &Volume) -> Result<String, Lack> {
        let (name, spec) = self.persistent(pod, volume).await?;
        let Some((handle, quota)) = own(&spec) else {
            return Err(unattached(format!(
                "{name} is no volume of the driver {DRIVER}, and only those are delegated"
            )));
        };
        let dataset = self.storage.delegate_volume(handle, quota).await;
        let dataset = dataset.map_err(|error| unattached(error.to_string()))?;
        let alone = self.use_alone(pod, &name, &spec, &dataset).await;
        alone.map_err(lack)?;
        self.claims
            .keep(uid(pod), &volume.name, PathBuf::from(&dataset));
        Ok(dataset)
    }

    /// The path of a claimed volume on this host, after its group was set to the pod's fsGroup, if any.
    async fn owned(&self, pod: &Pod, volume: &Volume) -> Result<PathBuf, Lack> {
        let claimed = self.claimed(pod, volume).await?;
        let claim = volume.persistent_volume_claim.as_ref();
        let is_read_only = claim.is_some_and(|claim| claim.read_only == Some(true));
        let Some(ownership) = ownership(pod).filter(|_| !claimed.is_the_hosts && !is_read_only)
        else {
            return Ok(claimed.path);
        };
        let path = claimed.path.clone();
        let give = move || ownership.give(&path).map_err(|error| error.to_string());
        let path = claimed.path.to_string_lossy();
        let given = self.paths.at(&path, false, give).await;
        given.map_err(|error| {
            lack(format!(
                "MountVolume.SetUp failed for volume {:?} : applyFSGroup failed for vol {}: {error}",
                volume.name, claimed.name
            ))
        })?;
        Ok(claimed.path)
    }

    /// The volume of a claim on this host.
    async fn claimed(&self, pod: &Pod, volume: &Volume) -> Result<Claimed, Lack> {
        let (name, spec) = self.persistent(pod, volume).await?;
        let claimed = self.found(name, &spec).await?;
        let path = claimed.path.to_string_lossy();
        let alone = self.use_alone(pod, &claimed.name, &spec, &path).await;
        alone.map_err(lack)?;
        self.claims
            .keep(uid(pod), &volume.name, claimed.path.clone());
        Ok(claimed)
    }

    /// A persistent volume on this host, made if it is one of reddwarf's own.
    async fn found(&self, name: String, spec: &PersistentVolumeSpec) -> Result<Claimed, Lack> {
        let wrong = unattached;
        if let Some(of) = &spec.host_path {
            self.look_at_host_path(of).await.map_err(wrong)?;
            return Ok(Claimed {
                name,
                path: PathBuf::from(&of.path),
                is_the_hosts: true,
            });
        }
        if let Some(of) = &spec.local {
            return Ok(Claimed {
                name,
                path: PathBuf::from(&of.path),
                is_the_hosts: false,
            });
        }
        if let Some((handle, quota)) = own(spec) {
            let made = self.storage.make_volume(handle, quota, None).await;
            return Ok(Claimed {
                name,
                path: made.map_err(|error| wrong(error.to_string()))?.path,
                is_the_hosts: false,
            });
        }
        Err(wrong(format!(
            "this node does not offer volumes of the kind of {name}"
        )))
    }

    /// Whether containers may never write to a volume.
    pub(super) fn always_read_only(&self, spec: &PodSpec, name: &str) -> bool {
        spec.volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == name)
            .is_some_and(|volume| {
                volume.image.is_some()
                    || volume.config_map.is_some()
                    || volume.secret.is_some()
                    || volume.projected.is_some()
                    || volume.downward_api.is_some()
                    || volume
                        .persistent_volume_claim
                        .as_ref()
                        .is_some_and(|claim| claim.read_only == Some(true))
            })
    }

    /// The path of a volume on this host, and the subpath that is shown.
    pub(super) async fn volume_path(
        &self,
        pod: &Pod,
        name: &str,
    ) -> Result<(PathBuf, Vec<PathBuf>), Lack> {
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let volume = volumes
            .into_iter()
            .find(|volume| volume.name == name)
            .ok_or_else(|| lack(format!("volume {name:?} is not one of the pod's")))?;
        if let Some(of) = &volume.host_path {
            return Ok((PathBuf::from(&of.path), Vec::new()));
        }
        if let Some(of) = &volume.image {
            return self
                .image_volume(pod, name, text(of.reference.as_ref()))
                .await;
        }
        if describe::is_claim(volume) {
            if let Some(path) = self.claims.path(uid(pod), name) {
                return Ok((path, Vec::new()));
            }
            let delegated = describe::delegated(pod).map_err(lack)?;
            let path = match delegated.contains(&name) {
                true => PathBuf::from(self.delegated(pod, volume).await?),
                false => self.claimed(pod, volume).await?.path,
            };
            return Ok((path, Vec::new()));
        }
        Ok((self.volume_directory(pod, volume), Vec::new()))
    }

    /// The files of an image, as a root that belongs to no process of the pod: they stay as long as the pod.
    async fn image_volume(
        &self,
        pod: &Pod,
        volume: &str,
        image: &str,
    ) -> Result<(PathBuf, Vec<PathBuf>), Lack> {
        let found = self.image(image).await;
        let found = found.map_err(|error| lack(error.message))?;
        let found = found.ok_or_else(|| lack(format!("image {image:?} is gone")))?;
        // Container names cannot contain dots.
        let name = format!("{}/image.{volume}", uid(pod));
        let root = self.storage.make_root(&name, &found.chains).await;
        match root.map_err(|error| lack(error.to_string()))? {
            Root::Directory(path) => Ok((path, Vec::new())),
            Root::Overlay { lower, .. } => match lower.split_first() {
                Some((top, below)) => Ok((top.clone(), below.to_vec())),
                None => Err(lack(format!("image {image:?} has no layers"))),
            },
        }
    }
}

/// Creates an emptyDir below the pod's writable directory, unless it exists.
fn empty(directory: &Path, above: &Path, name: &str, group: Option<u32>) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    // Containers of the pod may have put links there.
    let made = beneath::make_directory(above, &Path::new("volumes").join(name), 0o777)?;
    if let Some(group) = group {
        rustix::fs::fchown(&made, None, Some(Gid::from_raw(group)))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o2777))?;
    }
    Ok(())
}

/// Checks a path of the host, or creates it if its type allows that.
fn host_path(of: &HostPathVolumeSource) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt as _;
    let path = Path::new(&of.path);
    let found = std::fs::metadata(path);
    let is = |matches: fn(&std::fs::FileType) -> bool, what: &str| match &found {
        Ok(found) if matches(&found.file_type()) => Ok(()),
        _ => Err(format!(
            "hostPath type check failed: {} is not {what}",
            of.path
        )),
    };
    let text = |error: io::Error| format!("{}: {error}", of.path);
    match of.type_.as_deref().unwrap_or_default() {
        "" => match found {
            Ok(_) => Ok(()),
            Err(_) => std::fs::create_dir_all(path).map_err(text),
        },
        "DirectoryOrCreate" => match found {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(format!(
                "hostPath type check failed: {} is not a directory",
                of.path
            )),
            Err(_) => std::fs::create_dir_all(path).map_err(text),
        },
        "FileOrCreate" => match found {
            Ok(found) if found.is_file() => Ok(()),
            Ok(_) => Err(format!(
                "hostPath type check failed: {} is not a file",
                of.path
            )),
            Err(_) => std::fs::write(path, "").map_err(text),
        },
        "Directory" => is(std::fs::FileType::is_dir, "a directory"),
        "File" => is(std::fs::FileType::is_file, "a file"),
        "Socket" => is(|kind| kind.is_socket(), "a socket file"),
        "CharDevice" => is(|kind| kind.is_char_device(), "a character device"),
        "BlockDevice" => is(|kind| kind.is_block_device(), "a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}
