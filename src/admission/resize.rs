//! Restrictions on resizing: claims whose class allows expansion, and pods within the resources of their node.
//! Follows k8s.io/kubernetes/plugin/pkg/admission/{storage/persistentvolume/resize,podresize}.

use super::{Attributes, Operation, Plugin};
use crate::meta::Status;
use crate::meta::amounts::{Amounts, Side};
use crate::meta::quantity::Quantity;
use crate::schema::Value;
use crate::value;

/// PersistentVolumeClaimResize: a claim may only grow if it is bound and its class allows expansion.
pub struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(old) = request.old.filter(|_| {
            request.operation == Operation::Update && request.is_of("", "persistentvolumeclaims")
        }) else {
            return Ok(());
        };
        let new = &request.object;
        let size = |claim: &Value| {
            let requests = claim.at("spec").at("resources").at("requests");
            Quantity::parse(requests.str("storage")).unwrap_or_default()
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.at("status").str("phase") != "Bound" {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = claim_class(new);
        let expands = !class.is_empty()
            && class == claim_class(old)
            && request
                .cluster
                .get("storage.k8s.io", "storageclasses", "", class)
                .is_some_and(|class| class.bool("allowVolumeExpansion"));
        if expands {
            return Ok(());
        }
        Err(request.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}

/// The class of a claim, from the deprecated annotation or the field; empty for none.
pub fn claim_class(claim: &Value) -> &str {
    let annotations = claim.at("metadata").at("annotations");
    match annotations
        .at("volume.beta.kubernetes.io/storage-class")
        .as_str()
    {
        Some(class) => class,
        None => claim.at("spec").str("storageClassName"),
    }
}

/// PodResizeValidator: a pod may not request more than the allocatable resources of its node.
pub struct PodResizeValidator;

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Update
            || !request.is_about("", "pods")
            || request.subresource != "resize"
        {
            return Ok(());
        }
        let generation = |pod: &Value| pod.at("metadata").int("generation");
        let node = request.object.at("spec").str("nodeName");
        if node.is_empty()
            || request
                .old
                .is_some_and(|old| generation(old) == generation(&request.object))
        {
            return Ok(());
        }
        let Some(found) = request.cluster.get("", "nodes", "", node) else {
            return Err(request.forbidden(&format!("node \"{node}\" not found")));
        };
        if let Some(system) = found
            .at("metadata")
            .at("labels")
            .get("kubernetes.io/os")
            .and_then(Value::as_str)
            .filter(|system| *system != "linux")
        {
            let why = format!(
                "pod resize is only supported on linux nodes, node \"{node}\" is \"{system}\""
            );
            return Err(with_cause(request.forbidden(&why), "UnsupportedPlatform"));
        }
        let spec = request.object.at("spec");
        let mut asked = Amounts::pod(spec, Side::Requests);
        asked.add(&Amounts::read(spec.at("overhead")));
        let allocatable = Amounts::read(found.at("status").at("allocatable"));
        let mut over = Vec::new();
        for (resource, in_milli) in [("cpu", true), ("memory", false)] {
            let (asked, has) = (asked.get(resource), allocatable.get(resource));
            if asked > has {
                let shown = |amount: Quantity| {
                    if in_milli {
                        amount.milli_value()
                    } else {
                        amount.value()
                    }
                };
                over.push(format!(
                    "{resource}, requested: {}, allocatable: {}",
                    shown(asked),
                    shown(has)
                ));
            }
        }
        if over.is_empty() {
            return Ok(());
        }
        let why = format!(
            "node didn't have enough allocatable resources: {}",
            over.join("; ")
        );
        Err(with_cause(request.forbidden(&why), "NodeCapacity"))
    }
}

fn with_cause(mut status: Status, reason: &str) -> Status {
    if let Some(details) = &mut status.details {
        details.set("causes", vec![value!({"reason": reason})]);
    }
    status
}
