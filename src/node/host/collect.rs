//! Disk usage of pods, and removal of unused images. Follows pkg/kubelet/images/image_gc_manager.go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::{Host, process, text, uid, usage};
use crate::blocking::blocking;
use crate::node::describe;
use crate::node::images::{Image, ImageError};
use crate::node::machine::{IMAGE_ID, containers};
use crate::node::pressure::PodDisk;
use crate::node::supplies::{Amount, Lack};
use crate::node::zone_name;
use crate::storage::{StorageError, tree_size};
use crate::zone::{ProcessId, Zone};

/// Images are removed if the disk is fuller than this, in percent.
pub(in crate::node) const HIGH: u64 = 85;
/// They are removed until the disk is no fuller than this, in percent.
pub(in crate::node) const LOW: u64 = 80;
/// Images that arrived more recently than this stay.
pub(in crate::node) const MINIMUM_AGE: SignedDuration = SignedDuration::from_secs(120);

/// How many bytes to free.
fn excess(disk: Amount) -> u64 {
    let available = disk.available.min(disk.capacity);
    let full = 100 - (available * 100).checked_div(disk.capacity).unwrap_or(100);
    match full >= HIGH {
        true => (disk.capacity * (100 - LOW) / 100).saturating_sub(available),
        false => 0,
    }
}

/// When images were last used, by id. An image that was not used since the agent started counts as used when it arrived.
#[derive(Default)]
pub struct Uses(Mutex<BTreeMap<String, Timestamp>>);

impl Uses {
    /// Records that a container is about to run an image.
    pub(super) fn note(&self, image: &Image, now: Timestamp) {
        self.0.lock().insert(image.id.clone(), now);
    }
}

/// Images that may be removed, the one first whose last use is the longest ago: those that no container of `zones` runs
/// or last ran, and that no pod in `pods` will run. Manually loaded images stay: no registry could provide them again.
/// The others count as used now.
fn unused<'i>(
    images: &'i [Image],
    pods: &[Arc<Pod>],
    zones: &[Zone],
    uses: &Uses,
    now: Timestamp,
) -> Vec<&'i Image> {
    let processes = zones.iter().flat_map(|zone| &zone.processes);
    let labels: BTreeSet<&String> = processes
        .filter_map(|process| process.labels.get(IMAGE_ID))
        .collect();
    let mut named = BTreeSet::new();
    for pod in pods {
        for (_, container) in pod.spec.iter().flat_map(containers) {
            for (name, _) in describe::images(pod, &container) {
                // An invalid name belongs to no image.
                let found = Image::named(images, name);
                named.extend(found.ok().flatten().map(|image| &image.id));
            }
        }
    }
    let is_used = |image: &Image| {
        named.contains(&image.id) || labels.iter().any(|label| image.has_label(label))
    };
    let mut uses = uses.0.lock();
    uses.retain(|id, _| images.iter().any(|image| image.id == *id));
    let mut free = Vec::new();
    for image in images {
        if is_used(image) {
            uses.insert(image.id.clone(), now);
        } else if image.pulled && now.duration_since(image.loaded) >= MINIMUM_AGE {
            free.push(image);
        }
    }
    let used = |image: &Image| uses.get(&image.id).copied().unwrap_or(image.loaded);
    free.sort_by_key(|image| (used(image), image.loaded));
    free
}

impl Host {
    /// The disk usage of a pod.
    pub(super) async fn disk_of(&self, pod: &Pod) -> PodDisk {
        let spec = pod.spec.clone().unwrap_or_default();
        let mut disk = PodDisk::default();
        let zone = self.runtime.get(&zone_name(uid(pod))).await.ok().flatten();
        for process in zone.into_iter().flat_map(|zone| zone.processes) {
            let root = process::root_name(uid(pod), &process.id);
            let written = self.storage.root_usage(&root).await.unwrap_or(0);
            *disk.containers.entry(process.id.name).or_default() += written;
        }
        for (name, written) in &mut disk.containers {
            // The directory for all generations, including what was moved aside.
            let any = ProcessId {
                name: name.clone(),
                generation: 0,
            };
            let log = self.logs.whole(
                text(pod.metadata.namespace.as_ref()),
                text(pod.metadata.name.as_ref()),
                uid(pod),
                &any,
            );
            let all = log.parent().map(Path::to_owned).unwrap_or_default();
            let logged = blocking(move || Ok::<_, String>(tree_size(&all))).await;
            *written += logged.unwrap_or(0);
        }
        let own = [
            self.pod_directory(uid(pod)).join("etc"),
            self.writable(uid(pod)).join("messages"),
        ];
        let files =
            blocking(move || Ok::<_, String>(own.map(|path| tree_size(&path)).iter().sum()));
        disk.files = files.await.unwrap_or(0);
        for volume in spec.volumes.into_iter().flatten() {
            let on_disk = |empty: &k8s_openapi::api::core::v1::EmptyDirVolumeSource| {
                empty.medium.as_deref() != Some("Memory")
            };
            if volume.empty_dir.as_ref().is_some_and(on_disk) {
                let path = self.volume_directory(pod, &volume);
                let size = blocking(move || Ok::<_, String>(tree_size(&path))).await;
                disk.volumes.insert(volume.name, size.unwrap_or(0));
            }
        }
        disk
    }

    /// The size of the disk in bytes; zero if it cannot be determined.
    async fn disk(&self) -> Amount {
        let data = self.data.clone();
        let disk = blocking(move || Ok::<_, String>(usage::disk(&data).0)).await;
        disk.unwrap_or_default()
    }

    /// Removes unused images: all of them if `all`, otherwise if the disk is nearly full.
    pub(super) async fn collect_images(&self, pods: &[Arc<Pod>], all: bool) -> Result<(), Lack> {
        let wrong = |error: String| Lack::new("ImageGCFailed", error);
        let disk = self.disk().await;
        let wanted = if all { u64::MAX } else { excess(disk) };
        let images = self.images.clone();
        let images = blocking(move || images.list()).await;
        let images = images.map_err(|error| wrong(error.to_string()))?;
        let zones = self.runtime.list().await;
        let zones = zones.map_err(|error| wrong(error.to_string()))?;
        let free = unused(&images, pods, &zones, &self.uses, Timestamp::now());
        if wanted == 0 {
            return Ok(());
        }
        // Added up, not measured: others write meanwhile, and some file systems free space later.
        let mut freed: u64 = 0;
        let mut failures = Vec::new();
        for image in free {
            if freed >= wanted {
                break;
            }
            tracing::info!(
                image = image.id,
                "removing an unused image to free disk space"
            );
            match self.images.remove(&image.id).await {
                // Others may be removed all the same. Storage knows that a container uses an image even while its zone
                // is unreachable.
                Ok(_) => freed = freed.saturating_add(image.size),
                Err(ImageError::Storage(StorageError::Refused { .. })) => {}
                // The next look will free the space, if it is still lacking then.
                Err(ImageError::Adding) => return Ok(()),
                Err(error) => failures.push(error.to_string()),
            }
        }
        if !failures.is_empty() {
            return Err(wrong(failures.join("; ")));
        }
        if all || freed >= wanted {
            return Ok(());
        }
        let full = 100
            - (disk.available * 100)
                .checked_div(disk.capacity)
                .unwrap_or(100);
        Err(Lack::new(
            "FreeDiskSpaceFailed",
            format!(
                "Insufficient free disk space on the node's image filesystem ({full}% of {} used). Failed to free sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
                shown(disk.capacity)
            ),
        ))
    }
}

/// A size in upstream's notation: `9.8 GiB`.
fn shown(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return format!("{size:.1} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::images::RunConfig;
    use crate::zone::{Ending, Process, ZoneNetwork, ZoneState};

    #[test]
    fn a_disk_is_emptied_from_85_to_80_hundredths() {
        for (available, free) in [(100, 0), (16, 0), (15, 5), (1, 19), (0, 20)] {
            let disk = Amount {
                capacity: 100,
                available,
            };
            assert_eq!(excess(disk), free, "{available}");
        }
        assert_eq!(excess(Amount::default()), 0);
        assert_eq!(shown(10 << 30), "10.0 GiB");
        assert_eq!(shown(1000), "1000 B");
    }

    #[test]
    fn images_that_somebody_needs_stay() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let image = |name: &str, names: &[&str], loaded, pulled| Image {
            id: format!("sha256:{name}"),
            names: names
                .iter()
                .map(|name| format!("docker.io/library/{name}"))
                .collect(),
            digests: vec![format!(
                "docker.io/library/{name}@sha256:{}",
                "0".repeat(64)
            )],
            config: RunConfig::default(),
            chains: Vec::new(),
            size: 1,
            loaded: at(loaded),
            pulled,
            access: None,
        };
        let images = [
            image("free", &["free:1"], 20, true),
            image("older", &["older:1"], 10, true),
            image("young", &["young:1"], 81, true),
            image("loaded", &["loaded:1"], 10, false),
            image("starts", &["starts:1"], 10, true),
            image("ended", &[], 10, true),
        ];
        // One pod will run an image, and has an invalid image name; the container of another one ended, and will be
        // started again after its image lost its name.
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "containers": [{"name": "c", "image": "starts:1"}, {"name": "d", "image": "NONE::"}]}}))
        .expect("a pod");
        let mut zone = Zone {
            spec: describe::zone_spec(&pod, ZoneNetwork::Host, Path::new("/"), Vec::new()),
            state: ZoneState::Running,
            boot: None,
            created: at(0),
            processes: Vec::new(),
        };
        zone.processes.push(Process {
            id: ProcessId {
                name: "c".into(),
                generation: 0,
            },
            labels: [(IMAGE_ID.to_owned(), images[5].label().to_owned())].into(),
            started: at(11),
            ended: Some(Ending {
                code: 1,
                signal: 0,
                out_of_memory: false,
                at: at(12),
                error: None,
            }),
            identity: None,
        });
        let uses = Uses::default();
        let free = |pods: &[Arc<Pod>], zones: &[Zone]| -> Vec<String> {
            let free = unused(&images, pods, zones, &uses, at(200));
            free.iter().map(|image| image.id.clone()).collect()
        };
        assert_eq!(
            free(&[Arc::new(pod)], &[zone]),
            ["sha256:older", "sha256:free"]
        );
        // What was just used is removed last, although it arrived first.
        assert_eq!(
            free(&[], &[]),
            [
                "sha256:older",
                "sha256:free",
                "sha256:starts",
                "sha256:ended"
            ]
        );
        uses.note(&images[1], at(300));
        assert_eq!(free(&[], &[]).last(), Some(&"sha256:older".to_owned()));
    }
}
