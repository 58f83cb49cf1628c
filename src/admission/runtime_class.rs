//! RuntimeClass: copies the overhead and scheduling constraints of a RuntimeClass to its pods.
//! Follows k8s.io/kubernetes/plugin/pkg/admission/runtimeclass.

use std::sync::Arc;

use super::tolerations::merged;
use super::{Attributes, Operation, Plugin};
use crate::meta::quantity::Quantity;
use crate::meta::{Status, names};
use crate::schema::{Object, Value};

/// The plugin.
pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(class) = class(request)? else {
            return Ok(());
        };
        let spec = request.object.at("spec");
        if let Some(overhead) = class.get("overhead") {
            let fixed = overhead.at("podFixed");
            let said = spec.at("overhead");
            if !said.is_empty() && !same_amounts(said, fixed) {
                return Err(request.forbidden(MISMATCH));
            }
            let fixed = fixed.clone();
            set_spec(request, "overhead", fixed);
        }
        let Some(scheduling) = class.get("scheduling") else {
            return Ok(());
        };
        let spec = request.object.at("spec");
        let mut selector: Object = spec
            .at("nodeSelector")
            .as_object()
            .cloned()
            .unwrap_or_default();
        for (key, value) in scheduling.entries("nodeSelector") {
            let (wanted, said) = (value.as_str().unwrap_or_default(), selector.get(key));
            if let Some(said) = said.and_then(Value::as_str).filter(|said| *said != wanted) {
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {said}"
                );
                return Err(request.forbidden(&why));
            }
            selector.insert(key.clone(), value);
        }
        let tolerations = merged(spec.list("tolerations"), scheduling.list("tolerations"));
        set_spec(request, "nodeSelector", selector.into());
        set_spec(request, "tolerations", tolerations.into());
        Ok(())
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !concerns(request) {
            return Ok(());
        }
        let class = class(request)?;
        let said = request.object.at("spec").at("overhead");
        match class.as_ref().and_then(|class| class.get("overhead")) {
            Some(overhead) if !same_amounts(said, overhead.at("podFixed")) => {
                Err(request.forbidden(MISMATCH))
            }
            None if !said.is_null() => Err(request.forbidden(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )),
            _ => Ok(()),
        }
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn concerns(request: &Attributes<'_>) -> bool {
    request.operation == Operation::Create && request.is_of("", "pods")
}

/// The RuntimeClass of the new pod; `None` if it names none.
fn class(request: &Attributes<'_>) -> Result<Option<Arc<Value>>, Status> {
    let name = request.object.at("spec").at("runtimeClassName");
    let Some(name) = name.as_str().filter(|_| concerns(request)) else {
        return Ok(None);
    };
    match request
        .cluster
        .get("node.k8s.io", "runtimeclasses", "", name)
    {
        Some(class) => Ok(Some(class)),
        // Upstream queries its own server for an unknown class.
        None => Err(match names::not_asked_for(name) {
            Some(why) => Status::unclassified(why),
            None => {
                let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
                request.forbidden(&why)
            }
        }),
    }
}

fn set_spec(request: &mut Attributes<'_>, key: &str, value: Value) {
    let spec = request.object.object_mut().object_mut("spec");
    if value.is_empty() {
        spec.remove(key);
    } else {
        spec.insert(key, value);
    }
}

/// Whether two resource lists contain equal amounts.
fn same_amounts(a: &Value, b: &Value) -> bool {
    let amounts = |list: &Value| -> Vec<(String, Option<Quantity>)> {
        let mut out: Vec<_> = list
            .as_object()
            .into_iter()
            .flat_map(|list| list.iter())
            .map(|(name, amount)| {
                let amount = Quantity::parse(amount.as_str().unwrap_or_default()).ok();
                (name.to_string(), amount)
            })
            .collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    };
    amounts(a) == amounts(b)
}
