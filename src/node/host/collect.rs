//! What pods have on disk, and the removal of images that nobody uses. Follows pkg/kubelet/images/image_gc_manager.go.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::{Host, process, text, uid, usage};
use crate::node::images::Image;
use crate::node::machine::containers;
use crate::node::pressure::PodDisk;
use crate::node::supplies::{Amount, Lack};
use crate::node::zone_name;
use crate::storage::tree_size;

/// Images are removed when the disk is fuller than this, in hundredths,
const HIGH: u64 = 85;
/// until it is no fuller than this.
const LOW: u64 = 80;
/// Images that came later than so long ago stay.
const MINIMUM_AGE: SignedDuration = SignedDuration::from_secs(120);

/// How many bytes are to be freed.
fn excess(disk: Amount) -> u64 {
    let available = disk.available.min(disk.capacity);
    let full = 100 - (available * 100).checked_div(disk.capacity).unwrap_or(100);
    match full >= HIGH {
        true => (disk.capacity * (100 - LOW) / 100).saturating_sub(available),
        false => 0,
    }
}

/// Images that may go, the oldest first. What was loaded by hand stays: no registry would give it again.
fn unused<'i>(images: &'i [Image], used: &BTreeSet<String>, now: Timestamp) -> Vec<&'i Image> {
    let free = |image: &&Image| {
        image.pulled && !used.contains(&image.id) && now.duration_since(image.loaded) >= MINIMUM_AGE
    };
    let mut free: Vec<&Image> = images.iter().filter(free).collect();
    free.sort_by_key(|image| image.loaded);
    free
}

impl Host {
    /// What a pod has on disk.
    pub(super) async fn disk_of(&self, pod: &Pod) -> PodDisk {
        let spec = pod.spec.clone().unwrap_or_default();
        let mut disk = PodDisk::default();
        let zone = self.runtime.get(&zone_name(uid(pod))).await.ok().flatten();
        for process in zone.into_iter().flat_map(|zone| zone.processes) {
            let root = process::root_name(uid(pod), &process.id);
            let written = self.storage.root_usage(&root).await.unwrap_or(0);
            let log = self.logs.whole(
                text(pod.metadata.namespace.as_ref()),
                text(pod.metadata.name.as_ref()),
                uid(pod),
                &process.id,
            );
            let logged = log.metadata().map_or(0, |found| found.len());
            *disk.containers.entry(process.id.name).or_default() += written + logged;
        }
        for volume in spec.volumes.into_iter().flatten() {
            let on_disk = |empty: &k8s_openapi::api::core::v1::EmptyDirVolumeSource| {
                empty.medium.as_deref() != Some("Memory")
            };
            if volume.empty_dir.as_ref().is_some_and(on_disk) {
                let path = self
                    .pod_directory(uid(pod))
                    .join("volumes")
                    .join(&volume.name);
                let size = tokio::task::spawn_blocking(move || tree_size(&path)).await;
                disk.volumes.insert(volume.name, size.unwrap_or(0));
            }
        }
        disk
    }

    /// Removes images, if the disk is nearly full or, if `all`, every one that nobody uses.
    pub(super) async fn collect_images(&self, pods: &[Arc<Pod>], all: bool) -> Result<(), Lack> {
        let wrong = |error: String| Lack::new("ImageGCFailed", error);
        let (disk, _) = usage::disk(&self.data);
        let wanted = if all { u64::MAX } else { excess(disk) };
        if wanted == 0 {
            return Ok(());
        }
        let images = self
            .images
            .list()
            .map_err(|error| wrong(error.to_string()))?;
        let mut used = BTreeSet::new();
        for spec in pods.iter().filter_map(|pod| pod.spec.as_ref()) {
            for (_, container) in containers(spec) {
                used.extend(self.image(&container).ok().flatten().map(|image| image.id));
            }
        }
        let before = disk.available;
        let mut freed = 0;
        for image in unused(&images, &used, Timestamp::now()) {
            if freed >= wanted {
                return Ok(());
            }
            tracing::info!(image = image.id, "an image that nobody uses makes room");
            let removed = self.images.remove(&image.id).await;
            removed.map_err(|error| wrong(error.to_string()))?;
            freed = usage::disk(&self.data).0.available.saturating_sub(before);
        }
        if all || freed >= wanted {
            return Ok(());
        }
        let full = 100 - (before * 100).checked_div(disk.capacity).unwrap_or(100);
        Err(Lack::new(
            "FreeDiskSpaceFailed",
            format!(
                "Insufficient free disk space on the node's image filesystem ({full}% of {} used). Failed to free sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
                shown(disk.capacity)
            ),
        ))
    }
}

/// A size as upstream tells it: `9.8 GiB`.
fn shown(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
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
    }
}
