//! Plugins that set defaults on creation: classes, tolerations, taints, finalizers, labels.
//! Follows k8s.io/kubernetes/plugin/pkg/admission (nodetaint, defaulttolerationseconds, storage/storageclass/setdefault,
//! storage/storageobjectinuseprotection, network/defaultingressclass, podtopologylabels).

use std::sync::Arc;

use super::{Attributes, Operation, Plugin};
use crate::meta::Status;
use crate::resources::metadata::{DEFAULT_STORAGE_CLASS, newest_marked};
use crate::schema::Value;
use crate::value;

/// TaintNodesByCondition: a new node is tainted until it is ready.
pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_of("", "nodes") {
            return Ok(());
        }
        let spec = request.object.object_mut().object_mut("spec");
        let taints = spec.array_mut("taints");
        let (key, effect) = ("node.kubernetes.io/not-ready", "NoSchedule");
        if !taints
            .iter()
            .any(|taint| taint.str("key") == key && taint.str("effect") == effect)
        {
            taints.push(value!({"key": key, "effect": effect}));
        }
        Ok(())
    }
}

/// DefaultTolerationSeconds: a pod tolerates an unreachable or not ready node for a limited time.
pub struct DefaultTolerationSeconds {
    /// `--default-not-ready-toleration-seconds`
    pub not_ready: i64,
    /// `--default-unreachable-toleration-seconds`
    pub unreachable: i64,
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !matches!(request.operation, Operation::Create | Operation::Update)
            || !request.is_of("", "pods")
        {
            return Ok(());
        }
        let spec = request.object.object_mut().object_mut("spec");
        let tolerations = spec.array_mut("tolerations");
        let wanted: Vec<Value> = [
            ("node.kubernetes.io/not-ready", self.not_ready),
            ("node.kubernetes.io/unreachable", self.unreachable),
        ]
        .into_iter()
        .filter(|(key, _)| {
            !tolerations.iter().any(|toleration| {
                ["", *key].contains(&toleration.str("key"))
                    && ["", "NoExecute"].contains(&toleration.str("effect"))
            })
        })
        .map(|(key, seconds)| {
            value!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds})
        })
        .collect();
        tolerations.extend(wanted);
        Ok(())
    }
}

/// The name of the class annotated as the default.
fn default_class(classes: &[Arc<Value>], annotations: &[&str]) -> Option<String> {
    let at = newest_marked(classes, annotations)?;
    Some(classes[at].at("metadata").str("name").to_owned())
}

/// DefaultStorageClass: a claim without a class gets the default one.
pub struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_of("", "persistentvolumeclaims") {
            return Ok(());
        }
        let annotations = request.object.at("metadata").at("annotations");
        if request.object.at("spec").get("storageClassName").is_some()
            || annotations
                .get("volume.beta.kubernetes.io/storage-class")
                .is_some()
        {
            return Ok(());
        }
        let classes = request.cluster.list("storage.k8s.io", "storageclasses", "");
        if let Some(name) = default_class(&classes, &DEFAULT_STORAGE_CLASS) {
            let spec = request.object.object_mut().object_mut("spec");
            spec.insert("storageClassName", name);
        }
        Ok(())
    }
}

/// DefaultIngressClass: an ingress without a class gets the default one.
pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create
            || !request.is_of("networking.k8s.io", "ingresses")
        {
            return Ok(());
        }
        let annotations = request.object.at("metadata").at("annotations");
        if request.object.at("spec").get("ingressClassName").is_some()
            || annotations.get("kubernetes.io/ingress.class").is_some()
        {
            return Ok(());
        }
        let classes = request
            .cluster
            .list("networking.k8s.io", "ingressclasses", "");
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(name) = default_class(&classes, &marks) {
            let spec = request.object.object_mut().object_mut("spec");
            spec.insert("ingressClassName", name);
        }
        Ok(())
    }
}

/// StorageObjectInUseProtection: adds finalizers that keep volumes and claims from being deleted while in use.
pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.subresource.is_empty() {
            return Ok(());
        }
        let finalizer = match (&*request.resource.group, &*request.resource.plural) {
            ("", "persistentvolumes") => "kubernetes.io/pv-protection",
            ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
            ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
            _ => return Ok(()),
        };
        let meta = request.object.object_mut().object_mut("metadata");
        let finalizers = meta.array_mut("finalizers");
        if !finalizers
            .iter()
            .any(|known| known.as_str() == Some(finalizer))
        {
            finalizers.push(finalizer.into());
        }
        Ok(())
    }
}

/// PodTopologyLabels: a pod gets the zone and region labels of its node.
pub struct PodTopologyLabels;

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_about("", "pods") {
            return Ok(());
        }
        let object = &request.object;
        let node = match request.subresource {
            "" => object.at("spec").str("nodeName"),
            "binding" if object.at("target").str("kind") == "Node" => {
                object.at("target").str("name")
            }
            _ => return Ok(()),
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(node) = request.cluster.get("", "nodes", "", node) else {
            return Ok(());
        };
        let labels = node.at("metadata").at("labels");
        for label in [
            "topology.kubernetes.io/zone",
            "topology.kubernetes.io/region",
        ] {
            if let Some(value) = labels.get(label) {
                let meta = request.object.object_mut().object_mut("metadata");
                meta.object_mut("labels").insert(label, value);
            }
        }
        Ok(())
    }
}
