//! Fields of disabled features: dropped, unless the old object had them. Follows dropDisabledFields of
//! k8s.io/kubernetes/pkg/api/pod/util.go.

use super::validate::CONTAINERS;
use crate::schema::{Object, Value};

/// The paths of a feature's fields in a pod spec. `*` stands for every item, `C` for every container of any type.
type Feature = &'static [&'static str];

/// Features of v1.37 that are disabled by default.
const OFF: &[Feature] = &[
    // EmptyDirVolumeMode
    &["volumes.*.emptyDir.mode"],
    // VolumeBindMountOptions
    &["C.volumeMounts.*.bindMountOptions"],
    // GRPCContainerProbeTLS
    &[
        "C.livenessProbe.grpc.mode",
        "C.readinessProbe.grpc.mode",
        "C.startupProbe.grpc.mode",
    ],
    // H2CContainerProbe
    &[
        "C.livenessProbe.httpGet.protocol",
        "C.readinessProbe.httpGet.protocol",
        "C.startupProbe.httpGet.protocol",
        "C.lifecycle.postStart.httpGet.protocol",
        "C.lifecycle.preStop.httpGet.protocol",
    ],
    // ContainerStopSignals
    &[STOP_SIGNAL],
    // AtomicWriteVolumeUserFields
    &[
        "volumes.*.secret.defaultUser",
        "volumes.*.secret.items.*.user",
        "volumes.*.configMap.defaultUser",
        "volumes.*.configMap.items.*.user",
        "volumes.*.downwardAPI.defaultUser",
        "volumes.*.downwardAPI.items.*.user",
        "volumes.*.projected.defaultUser",
        "volumes.*.projected.sources.*.secret.items.*.user",
        "volumes.*.projected.sources.*.configMap.items.*.user",
        "volumes.*.projected.sources.*.downwardAPI.items.*.user",
        "volumes.*.projected.sources.*.serviceAccountToken.user",
        "volumes.*.projected.sources.*.clusterTrustBundle.user",
        "volumes.*.projected.sources.*.podCertificate.user",
    ],
    // GenericWorkload
    &["schedulingGroup"],
    // EvictionRequestAPI
    &["evictionResponders"],
];
const STOP_SIGNAL: &str = "C.lifecycle.stopSignal";

/// Disabled features' fields in the status of a pod.
const OFF_IN_STATUS: &[Feature] = &[
    // DRANodeAllocatableResources
    &["nodeAllocatableResourceClaimStatuses"],
    // CSIVolumeHealth
    &["volumeHealth"],
    // ImageVolumeWithDigest
    &[
        "containerStatuses.*.volumeMounts.*.volumeStatus",
        "initContainerStatuses.*.volumeMounts.*.volumeStatus",
        "ephemeralContainerStatuses.*.volumeMounts.*.volumeStatus",
    ],
];

/// Annotations for init containers of earlier versions.
const ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// Drops the fields from a pod or template that replaces `old` (null if there is none).
pub(in crate::resources::groups) fn drop_disabled(pod: &mut Value, old: &Value) {
    if let Some(spec) = pod.get_mut("spec") {
        sweep(spec, old.at("spec"), OFF);
    }
    if let Some(Value::Object(meta)) = pod.get_mut("metadata") {
        drop_old_annotations(meta);
    }
}

/// Drops the annotations for init containers of earlier versions from the metadata of a pod.
pub(in crate::resources) fn drop_old_annotations(meta: &mut Object) {
    if let Some(annotations) = meta.get_mut("annotations") {
        for key in ANNOTATIONS {
            annotations.remove(key);
        }
    }
}

/// Drops the fields from the status of a pod.
pub(super) fn drop_from_status(status: &mut Value, old: &Value) {
    sweep(status, old, OFF_IN_STATUS);
}

fn sweep(value: &mut Value, old: &Value, features: &[Feature]) {
    for feature in features {
        let present = |value: &Value| feature.iter().any(|path| has(value, path));
        if !present(value) || present(old) {
            continue;
        }
        if feature.contains(&STOP_SIGNAL) {
            drop_signals(value);
        }
        for path in *feature {
            drop_path(value, path);
        }
    }
}

fn has(value: &Value, path: &str) -> bool {
    let (step, rest) = match path.split_once('.') {
        Some((step, rest)) => (step, rest),
        None => return value.get(path).is_some(),
    };
    match step {
        "*" => value.as_array().unwrap_or(&[]).iter().any(|v| has(v, rest)),
        "C" => CONTAINERS
            .iter()
            .flat_map(|list| value.list(list))
            .any(|container| has(container, rest)),
        step => value.get(step).is_some_and(|value| has(value, rest)),
    }
}

fn drop_path(value: &mut Value, path: &str) {
    let Some((step, rest)) = path.split_once('.') else {
        value.remove(path);
        return;
    };
    let mut each = |value: &mut Value| {
        let items = value.as_array_mut().into_iter().flatten();
        items.for_each(|value| drop_path(value, rest));
    };
    match step {
        "*" => each(value),
        "C" => CONTAINERS
            .iter()
            .for_each(|list| value.get_mut(list).into_iter().for_each(&mut each)),
        step => value
            .get_mut(step)
            .into_iter()
            .for_each(|value| drop_path(value, rest)),
    }
}

/// Drops stop signals; a container that had no other hook has none then.
fn drop_signals(spec: &mut Value) {
    for list in CONTAINERS {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(hooks) = container.get_mut("lifecycle") else {
                continue;
            };
            if hooks.remove("stopSignal").is_some() && hooks.is_empty() {
                container.remove("lifecycle");
            }
        }
    }
}
