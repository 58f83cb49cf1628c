//! Plugins that are off by default. Follows k8s.io/kubernetes/plugin/pkg/admission (admit, deny,
//! alwayspullimages, antiaffinity, extendedresourcetoleration, network/denyserviceexternalips, podnodeselector,
//! podtolerationrestriction).

use std::collections::BTreeSet;

use super::quota::usage::is_best_effort;
use super::{Attributes, Operation, Plugin, tolerations};
use crate::meta::amounts::{Amounts, Side};
use crate::meta::status::aggregate;
use crate::meta::{At, Errors, Status, names};
use crate::schema::{Object, Value, json};
use crate::value;

fn writes(request: &Attributes<'_>, group: &str, plural: &str) -> bool {
    matches!(request.operation, Operation::Create | Operation::Update)
        && request.is_of(group, plural)
}

/// AlwaysAdmit: does nothing.
pub struct AlwaysAdmit;

impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }
}

/// AlwaysDeny: rejects everything.
pub struct AlwaysDeny;

impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        Err(request.forbidden("admission control is denying all modifications"))
    }
}

/// DenyServiceExternalIPs: rejects new external IPs of services.
pub struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !writes(request, "", "services") {
            return Ok(());
        }
        let had = request
            .old
            .map_or(&[][..], |old| old.at("spec").list("externalIPs"));
        let mut wanted = request.object.at("spec").list("externalIPs").iter();
        if wanted.all(|address| had.contains(address)) {
            return Ok(());
        }
        Err(request.forbidden("Use of external IPs is denied by admission control"))
    }
}

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// AlwaysPullImages: images are always pulled, so that pods cannot use cached images without pull permission.
pub struct AlwaysPullImages;

impl AlwaysPullImages {
    /// Whether the request adds an image to a pod.
    fn concerns(request: &Attributes<'_>) -> bool {
        let images = |pod: &Value| -> BTreeSet<String> {
            CONTAINERS
                .iter()
                .flat_map(|list| pod.at("spec").list(list))
                .map(|container| container.str("image").to_owned())
                .collect()
        };
        writes(request, "", "pods")
            && request
                .old
                .is_none_or(|old| !images(&request.object).is_subset(&images(old)))
    }
}

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !Self::concerns(request) {
            return Ok(());
        }
        let spec = request.object.object_mut().object_mut("spec");
        for list in CONTAINERS {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                container.set("imagePullPolicy", "Always");
            }
        }
        let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
        for volume in volumes.into_iter().flatten() {
            if let Some(image) = volume.get_mut("image").filter(|image| !image.is_null()) {
                image.set("pullPolicy", "Always");
            }
        }
        Ok(())
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !Self::concerns(request) {
            return Ok(());
        }
        let mut errors = Errors::default();
        let pod = At::root(&request.object);
        let spec = pod.field("spec");
        for list in CONTAINERS {
            for container in spec.field(list).items() {
                container
                    .field("imagePullPolicy")
                    .one_of(&["Always"], &mut errors);
            }
        }
        for volume in spec.field("volumes").items() {
            let image = volume.field("image");
            if !image.is_absent() {
                image.field("pullPolicy").one_of(&["Always"], &mut errors);
            }
        }
        let each: Vec<String> = errors
            .0
            .iter()
            .map(|error| request.forbidden(&error.to_string()).message)
            .collect();
        if each.is_empty() {
            return Ok(());
        }
        Err(Status::unclassified(aggregate(&each)))
    }
}

/// LimitPodHardAntiAffinityTopology: required anti-affinity may only use the hostname as topology key.
pub struct LimitPodHardAntiAffinityTopology;

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        const HOST: &str = "kubernetes.io/hostname";
        if !writes(request, "", "pods") {
            return Ok(());
        }
        let affinity = request
            .object
            .at("spec")
            .at("affinity")
            .at("podAntiAffinity");
        let mut keys = affinity
            .list("requiredDuringSchedulingIgnoredDuringExecution")
            .iter()
            .map(|term| term.str("topologyKey"));
        match keys.find(|key| *key != HOST) {
            None => Ok(()),
            Some(key) => Err(request.forbidden(&format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
            ))),
        }
    }
}

/// ExtendedResourceToleration: pods that request extended resources tolerate the taints of nodes dedicated to them.
pub struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !writes(request, "", "pods") {
            return Ok(());
        }
        let spec = request.object.object_mut().object_mut("spec");
        let mut wanted = BTreeSet::new();
        for list in ["containers", "initContainers"] {
            let containers = spec.get(list).and_then(Value::as_array);
            for container in containers.into_iter().flatten() {
                let asked = Amounts::container(container, Side::Requests);
                wanted.extend(asked.0.into_keys().filter(|name| is_extended(name)));
            }
        }
        for name in wanted {
            let toleration =
                value!({"key": (name.as_str()), "operator": "Exists", "effect": "NoSchedule"});
            let known = spec.array_mut("tolerations");
            let alike = |one: &Value| {
                ["key", "operator", "effect", "value"]
                    .iter()
                    .all(|member| one.str(member) == toleration.str(member))
            };
            match known.iter_mut().find(|one| alike(one)) {
                Some(one) => *one = toleration,
                None => known.push(toleration),
            }
        }
        Ok(())
    }
}

/// Whether a resource is an extended resource.
fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn namespace_annotation(request: &Attributes<'_>, key: &str) -> Option<String> {
    let namespace = request
        .cluster
        .get("", "namespaces", "", request.namespace)?;
    let annotations = namespace.at("metadata").at("annotations");
    annotations.at(key).as_str().map(str::to_owned)
}

/// PodNodeSelector: restricts the pods of a namespace to its nodes.
pub struct PodNodeSelector;

impl PodNodeSelector {
    /// The node selector of the request's namespace.
    fn selector(request: &Attributes<'_>) -> Result<Object, Status> {
        let key = "scheduler.alpha.kubernetes.io/node-selector";
        let text = namespace_annotation(request, key).unwrap_or_default();
        let mut out = Object::new();
        for pair in text.split(',').filter(|_| !text.is_empty()) {
            let Some((key, value)) = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
            else {
                return Err(Status::unclassified(format!("invalid selector: {pair}")));
            };
            out.insert(key.trim(), value.trim());
        }
        Ok(out)
    }

    fn conflicts(request: &Attributes<'_>, selector: &Object) -> Result<(), Status> {
        let said = request.object.at("spec").at("nodeSelector");
        if selector
            .iter()
            .any(|(key, value)| said.get(key).is_some_and(|said| said != value))
        {
            return Err(request.forbidden(
                "pod node label selector conflicts with its namespace node label selector",
            ));
        }
        Ok(())
    }
}

impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_of("", "pods") {
            return Ok(());
        }
        let selector = Self::selector(request)?;
        Self::conflicts(request, &selector)?;
        if !selector.is_empty() {
            let spec = request.object.object_mut().object_mut("spec");
            let own = spec.object_mut("nodeSelector");
            for (key, value) in selector {
                own.insert(key, value);
            }
        }
        Ok(())
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_of("", "pods") {
            return Ok(());
        }
        Self::conflicts(request, &Self::selector(request)?)
    }
}

/// PodTolerationRestriction: adds a namespace's tolerations to its pods, and rejects those that it does not allow.
pub struct PodTolerationRestriction;

impl PodTolerationRestriction {
    fn annotation(request: &Attributes<'_>, key: &str) -> Result<Vec<Value>, Status> {
        let text = namespace_annotation(request, key).unwrap_or_default();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        match json::parse(text.as_bytes()).map(|parsed| parsed.value) {
            Ok(Value::Array(list)) => Ok(list),
            Ok(other) => Err(Status::unclassified(format!(
                "json: cannot unmarshal {} into Go value of type []v1.Toleration",
                other.type_name()
            ))),
            Err(error) => Err(Status::unclassified(error.to_string())),
        }
    }
}

impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !writes(request, "", "pods") {
            return Ok(());
        }
        let mut extra = if request.operation == Operation::Create {
            Self::annotation(request, "scheduler.alpha.kubernetes.io/defaultTolerations")?
        } else {
            Vec::new()
        };
        if !is_best_effort(&request.object) {
            extra.push(value!({
                "key": "node.kubernetes.io/memory-pressure",
                "operator": "Exists",
                "effect": "NoSchedule"
            }));
        }
        if !extra.is_empty() {
            let spec = request.object.object_mut().object_mut("spec");
            let merged = tolerations::merged(spec.array_mut("tolerations"), &extra);
            spec.insert("tolerations", merged);
        }
        self.validate(request)
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !writes(request, "", "pods") {
            return Ok(());
        }
        let allowed = Self::annotation(
            request,
            "scheduler.alpha.kubernetes.io/tolerationsWhitelist",
        )?;
        if tolerations::allowed(request.object.at("spec").list("tolerations"), &allowed) {
            return Ok(());
        }
        Err(Status::unclassified(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist",
        ))
    }
}

#[cfg(test)]
mod tests;
