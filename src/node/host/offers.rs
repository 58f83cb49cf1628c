//! Isolation and devices that pods may ask for and this host does not support: user namespaces, AppArmor, devices. Such
//! a pod gets an event and does not run without them: nobody should rely on isolation that is missing.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::node::machine::{containers, spec_of};
use crate::node::supplies::Lack;
use crate::node::worker::Refusal;

/// Whether a pod requires AppArmor. Follows `isRequired` (pkg/security/apparmor/helpers.go).
fn wants_apparmor(pod: &Pod) -> bool {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let spec = spec_of(pod);
    let own = spec.security_context.as_ref();
    let own = own.and_then(|context| context.app_armor_profile.as_ref());
    let all = containers(spec);
    let each = all.iter().filter_map(|(_, container)| {
        let context = container.security_context.as_ref()?;
        context.app_armor_profile.as_ref()
    });
    let annotations = pod.metadata.annotations.iter().flatten();
    let mut annotated = annotations.filter(|(name, _)| name.starts_with(ANNOTATION));
    own.into_iter()
        .chain(each)
        .any(|profile| profile.type_ != "Unconfined")
        || annotated.any(|(_, profile)| profile != "unconfined")
}

/// The operating system of this node, for pods.
const SYSTEM: &str = "linux";

/// Why a pod is refused that is for another operating system. Follows `rejectPodAdmissionBasedOnOSSelector` and
/// `rejectPodAdmissionBasedOnOSField` of pkg/kubelet/lifecycle/predicate.go.
fn is_for_another_system(pod: &Pod) -> Option<Refusal> {
    let labels = pod.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|label| label != SYSTEM) {
        return Some(Refusal {
            reason: "PodOSSelectorNodeLabelDoesNotMatch",
            message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
                .into(),
        });
    }
    let system = spec_of(pod).os.as_ref();
    system
        .filter(|system| system.name != SYSTEM)
        .map(|_| Refusal {
            reason: "PodOSNotSupported",
            message: "Failed to admit pod as the OS field doesn't match node OS".into(),
        })
}

/// Why a pod is refused on a host of this kind. Follows pkg/security/apparmor/validate.go, for a host that never
/// enforces profiles.
pub(super) fn refuses(pod: &Pod) -> Option<Refusal> {
    if let Some(refusal) = is_for_another_system(pod) {
        return Some(refusal);
    }
    wants_apparmor(pod).then(|| Refusal {
        reason: "AppArmor",
        message: "Cannot enforce AppArmor: zones of this host are not confined by it".into(),
    })
}

/// The raw block volume that a container wants as a device.
fn device(spec: &PodSpec) -> Option<&str> {
    let init = spec.init_containers.iter().flatten();
    let all = spec.containers.iter().chain(init);
    let mut devices = all.flat_map(|container| container.volume_devices.iter().flatten());
    devices.next().map(|device| device.name.as_str())
}

/// Why a pod with the runtime class handler `handler` has to wait. Follows `GetOrCreateUserNamespaceMappings`
/// (pkg/kubelet/userns), and `PrepareResources` (pkg/kubelet/cm/dra) without registered drivers.
pub(super) fn lacks(pod: &Pod, handler: Option<&str>) -> Option<Lack> {
    let spec = spec_of(pod);
    if let Some(name) = device(spec) {
        return Some(Lack::new(
            "FailedMapVolume",
            format!(
                "MapVolume.SetUp failed for volume {name:?} : this node does not offer raw block volumes"
            ),
        ));
    }
    let extended = pod.status.as_ref();
    let extended = extended.and_then(|status| status.extended_resource_claim_status.as_ref());
    let mut claims = spec.resource_claims.iter().flatten();
    if claims.next().is_some() || extended.is_some() {
        return Some(Lack::new(
            "FailedPrepareDynamicResources",
            "Failed to prepare dynamic resources: prepare dynamic resources: no DRA driver is registered, this node has none",
        ));
    }
    if spec.host_users == Some(false) {
        let who = match handler {
            None => "runtime".to_owned(),
            Some(handler) => format!("RuntimeClass handler {handler:?}"),
        };
        return Some(Lack::new(
            "FailedCreatePodSandBox",
            format!(
                "Failed to create pod sandbox: can't set `spec.hostUsers: false`, {who} does not support user namespaces"
            ),
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value, annotations: Value) -> Pod {
        let pod = json!({"metadata": {"annotations": annotations}, "spec": spec});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn profiles_that_nobody_enforces_are_refused() {
        let profile = |kind: &str| json!({"appArmorProfile": {"type": kind}});
        let beta = "container.apparmor.security.beta.kubernetes.io/c";
        for (spec, annotations, refused) in [
            (json!({"containers": [{"name": "c"}]}), json!({}), false),
            (
                json!({"containers": [{"name": "c"}], "securityContext": profile("RuntimeDefault")}),
                json!({}),
                true,
            ),
            (
                json!({"containers": [{"name": "c"}], "securityContext": profile("Unconfined")}),
                json!({}),
                false,
            ),
            (
                json!({"containers": [{"name": "c", "securityContext": profile("Localhost")}]}),
                json!({}),
                true,
            ),
            (
                json!({"containers": [{"name": "c"}], "ephemeralContainers": [{"name": "d", "securityContext": profile("Localhost")}]}),
                json!({}),
                true,
            ),
            (
                json!({"containers": [{"name": "c"}]}),
                json!({beta: "runtime/default"}),
                true,
            ),
            (
                json!({"containers": [{"name": "c"}]}),
                json!({beta: "unconfined"}),
                false,
            ),
        ] {
            let of = pod(spec.clone(), annotations.clone());
            assert_eq!(refuses(&of).is_some(), refused, "{spec} {annotations}");
        }
    }

    #[test]
    fn pods_for_another_system_are_refused() {
        for (label, os, expected) in [
            (Value::Null, Value::Null, None),
            (json!("linux"), json!({"name": "linux"}), None),
            (
                json!("windows"),
                Value::Null,
                Some("PodOSSelectorNodeLabelDoesNotMatch"),
            ),
            (
                Value::Null,
                json!({"name": "windows"}),
                Some("PodOSNotSupported"),
            ),
        ] {
            let pod = json!({"metadata": {"labels": {"kubernetes.io/os": label}},
                "spec": {"containers": [{"name": "c"}], "os": os}});
            let pod = match label.is_null() {
                true => json!({"metadata": {}, "spec": pod["spec"]}),
                false => pod,
            };
            let pod = serde_json::from_value(pod).expect("a pod");
            let refused = refuses(&pod).map(|refused| refused.reason);
            assert_eq!(refused, expected, "{label} {os}");
        }
    }

    #[test]
    fn a_pod_does_not_run_without_what_no_zone_has() {
        let userns = "Failed to create pod sandbox: can't set `spec.hostUsers: false`";
        for (spec, handler, expected) in [
            (json!({"containers": [{"name": "c"}]}), None, None),
            (
                json!({"containers": [{"name": "c"}], "hostUsers": true}),
                None,
                None,
            ),
            (
                json!({"containers": [{"name": "c"}], "hostUsers": false}),
                None,
                Some(format!(
                    "{userns}, runtime does not support user namespaces"
                )),
            ),
            (
                json!({"containers": [{"name": "c"}], "hostUsers": false}),
                Some("lx"),
                Some(format!(
                    "{userns}, RuntimeClass handler \"lx\" does not support user namespaces"
                )),
            ),
            (
                json!({"containers": [{"name": "c"}], "resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}]}),
                None,
                Some("Failed to prepare dynamic resources: prepare dynamic resources: no DRA driver is registered, this node has none".to_owned()),
            ),
            (
                json!({"containers": [{"name": "c", "volumeDevices": [{"name": "raw", "devicePath": "/dev/x"}]}],
                    "volumes": [{"name": "raw", "persistentVolumeClaim": {"claimName": "r"}}]}),
                None,
                Some("MapVolume.SetUp failed for volume \"raw\" : this node does not offer raw block volumes".to_owned()),
            ),
        ] {
            let of = pod(spec.clone(), json!({}));
            let lack = lacks(&of, handler).map(|lack| lack.message);
            assert_eq!(lack, expected, "{spec}");
        }
    }
}
