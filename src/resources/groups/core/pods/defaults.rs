//! Defaults of pods and of the pod specs in templates. Follows k8s.io/kubernetes/pkg/apis/core/v1/defaults.go.

use super::image::default_pull_policy;
use crate::meta::quantity::Quantity;
use crate::schema::{Object, Value};
use crate::value;

/// The three lists of containers of a pod spec.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// The probes of a container.
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// SetObjectDefaults for a Pod.
pub(super) fn pod(pod: &mut Value) {
    if let Some(spec) = pod.get_mut("spec") {
        pod_only(spec);
    }
    self::spec(pod.object_mut().object_mut("spec"));
    if let Some(status) = pod.get_mut("status") {
        self::status(status);
    }
}

/// Sets the defaults of the pod template in the field `key`.
pub(in crate::resources::groups) fn template(owner: &mut Value, key: &str) {
    spec(owner.object_mut().object_mut(key).object_mut("spec"));
}

/// SetDefaults_Pod: defaults of pods that do not apply to templates.
fn pod_only(spec: &mut Value) {
    if spec
        .at("terminationGracePeriodSeconds")
        .as_int()
        .is_some_and(|seconds| seconds < 0)
    {
        spec.set("terminationGracePeriodSeconds", 1);
    }
    let host_network = spec.bool("hostNetwork");
    for key in ["containers", "initContainers"] {
        for container in items(spec, key) {
            if let Some(resources) = container.get_mut("resources") {
                requests_from_limits(resources);
            }
            for port in items(container, "ports").filter(|_| host_network) {
                let own = port.int("containerPort");
                number(port, "hostPort", own);
            }
        }
    }
    absent(spec, "enableServiceLinks", true);
}

fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = resources.object_mut().object_mut("requests");
    for (name, limit) in limits {
        if !requests.contains(&name) {
            requests.insert(name, limit);
        }
    }
}

/// SetDefaults_PodSpec, and the defaults of everything in a pod spec.
fn spec(spec: &mut Object) {
    let account = ["serviceAccountName", "serviceAccount"]
        .iter()
        .filter_map(|key| spec.get(key)?.as_str())
        .find(|name| !name.is_empty())
        .map(Value::from);
    if let Some(account) = account {
        spec.insert("serviceAccountName", &account);
        spec.insert("serviceAccount", account);
    }
    let mut whole = Value::Object(std::mem::take(spec));
    text(&mut whole, "dnsPolicy", "ClusterFirst");
    text(&mut whole, "restartPolicy", "Always");
    absent(&mut whole, "securityContext", Object::new());
    absent(&mut whole, "terminationGracePeriodSeconds", 30);
    text(&mut whole, "schedulerName", "default-scheduler");
    items(&mut whole, "volumes").for_each(volume);
    for key in CONTAINERS {
        items(&mut whole, key).for_each(container);
    }
    if let Some(overhead) = whole.get_mut("overhead") {
        round_up(overhead);
    }
    resources(&mut whole, "resources");
    *spec = std::mem::take(whole.object_mut());
}

fn volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |o| {
        o.iter()
            .filter(|(k, v)| *k != "name" && !v.is_null())
            .count()
    });
    if sources == 0 {
        volume.set("emptyDir", Object::new());
    }
    let Some(sources) = volume.as_object_mut() else {
        return;
    };
    for (kind, source) in sources.iter_mut() {
        match kind.as_str() {
            "image" => {
                pull_policy(source, "pullPolicy", "reference");
            }
            "hostPath" => absent(source, "type", ""),
            "secret" | "configMap" => absent(source, "defaultMode", 0o644),
            "downwardAPI" => {
                absent(source, "defaultMode", 0o644);
                field_refs(source);
            }
            "projected" => projected(source),
            "ephemeral" => {
                if let Some(template) = source.get_mut("volumeClaimTemplate") {
                    let spec = template.object_mut().entry("spec", || Object::new().into());
                    claim_spec(spec);
                }
            }
            _ => shared_source(kind, source),
        }
    }
}

/// Defaults of volume sources common to pods and PersistentVolumes, by the name of the source.
pub(in crate::resources::groups) fn shared_source(kind: &str, source: &mut Value) {
    match kind {
        "iscsi" => text(source, "iscsiInterface", "default"),
        "rbd" => {
            text(source, "pool", "rbd");
            text(source, "user", "admin");
            text(source, "keyring", "/etc/ceph/keyring");
        }
        "azureDisk" => {
            absent(source, "cachingMode", "ReadWrite");
            absent(source, "fsType", "ext4");
            absent(source, "readOnly", false);
            absent(source, "kind", "Shared");
        }
        "scaleIO" => {
            text(source, "storageMode", "ThinProvisioned");
            text(source, "fsType", "xfs");
        }
        _ => {}
    }
}

/// SetDefaults_PersistentVolumeClaimSpec.
pub(in crate::resources::groups) fn claim_spec(spec: &mut Value) {
    absent(spec, "volumeMode", "Filesystem");
    resources(spec, "resources");
}

fn projected(source: &mut Value) {
    absent(source, "defaultMode", 0o644);
    for source in items(source, "sources") {
        if let Some(downward) = source.get_mut("downwardAPI") {
            field_refs(downward);
        }
        if let Some(token) = source.get_mut("serviceAccountToken") {
            absent(token, "expirationSeconds", 3600);
        }
    }
}

fn field_refs(downward: &mut Value) {
    for item in items(downward, "items") {
        field_ref(item);
    }
}

fn field_ref(owner: &mut Value) {
    if let Some(reference) = owner.get_mut("fieldRef") {
        text(reference, "apiVersion", "v1");
    }
}

/// Sets the pull policy if absent.
fn pull_policy(owner: &mut Value, key: &str, image: &str) {
    if owner.str(key).is_empty() {
        owner.set(key, default_pull_policy(owner.str(image)));
    }
}

fn container(container: &mut Value) {
    pull_policy(container, "imagePullPolicy", "image");
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        text(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        let Some(source) = variable.get_mut("valueFrom") else {
            continue;
        };
        field_ref(source);
        if let Some(file) = source.get_mut("fileKeyRef") {
            absent(file, "optional", false);
        }
    }
    resources(container, "resources");
    for probe in PROBES {
        if let Some(probe) = container.get_mut(probe) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get_mut(hook) {
                http_get(hook);
            }
        }
    }
}

fn probe(probe: &mut Value) {
    number(probe, "timeoutSeconds", 1);
    number(probe, "periodSeconds", 10);
    number(probe, "successThreshold", 1);
    number(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc") {
        absent(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        text(get, "path", "/");
        text(get, "scheme", "HTTP");
    }
}

/// SetDefaults_PodStatus, and the rounding of its quantities.
fn status(status: &mut Value) {
    let ip = status.str("podIP").to_owned();
    let first = status
        .list("podIPs")
        .first()
        .map(|ip| ip.str("ip").to_owned());
    match first {
        None if !ip.is_empty() => status.set("podIPs", value!([{ "ip": ip }])),
        Some(first) if ip.is_empty() => status.set("podIP", first),
        Some(first) if first != ip => status.set("podIPs", value!([{ "ip": ip }])),
        _ => {}
    }
    for key in [
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
    ] {
        for container in items(status, key) {
            if let Some(allocated) = container.get_mut("allocatedResources") {
                round_up(allocated);
            }
            resources(container, "resources");
        }
    }
    if let Some(allocated) = status.get_mut("allocatedResources") {
        round_up(allocated);
    }
    resources(status, "resources");
}

fn resources(owner: &mut Value, key: &str) {
    let Some(resources) = owner.get_mut(key) else {
        return;
    };
    for key in ["limits", "requests"] {
        if let Some(list) = resources.get_mut(key) {
            round_up(list);
        }
    }
}

/// SetDefaults_ResourceList: rounds quantities up to milli-units. Others keep their format.
pub(in crate::resources::groups) fn round_up(list: &mut Value) {
    for (_, quantity) in list.as_object_mut().into_iter().flat_map(Object::iter_mut) {
        let rounded = quantity
            .as_str()
            .and_then(|text| Quantity::parse(text).ok()?.rounded_to_milli());
        if let Some(rounded) = rounded {
            *quantity = rounded.to_string().into();
        }
    }
}

/// The items of a list, mutable.
pub(in crate::resources::groups) fn items<'a>(
    owner: &'a mut Value,
    key: &str,
) -> impl Iterator<Item = &'a mut Value> {
    owner
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Sets text if it is absent or empty.
pub(in crate::resources::groups) fn text(owner: &mut Value, key: &str, default: &str) {
    if owner.str(key).is_empty() {
        owner.set(key, default);
    }
}

/// Sets a number if it is absent or zero.
pub(in crate::resources::groups) fn number(owner: &mut Value, key: &str, default: i64) {
    if owner.int(key) == 0 {
        owner.set(key, default);
    }
}

/// Sets a member if it is absent.
pub(in crate::resources::groups) fn absent(
    owner: &mut Value,
    key: &str,
    default: impl Into<Value>,
) {
    owner.object_mut().set_default(key, default);
}
