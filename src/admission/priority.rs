//! Priority: resolves priority classes to numbers, and allows only one default class.
//! Follows k8s.io/kubernetes/plugin/pkg/admission/priority.

use std::sync::Arc;

use super::{Attributes, Operation, Plugin};
use crate::meta::Status;
use crate::schema::Value;

/// The plugin.
pub struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !request.is_of("", "pods") {
            return Ok(());
        }
        match request.operation {
            Operation::Create => establish(request),
            Operation::Update => {
                let old = request.old.map_or(&Value::Null, |old| old.at("spec"));
                let spec = request.object.object_mut().object_mut("spec");
                for key in ["priority", "preemptionPolicy"] {
                    if let Some(value) = old.get(key) {
                        spec.set_default(key, value);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !matches!(request.operation, Operation::Create | Operation::Update)
            || !request.is_of("scheduling.k8s.io", "priorityclasses")
            || !request.object.bool("globalDefault")
        {
            return Ok(());
        }
        let Some(default) = default_class(request) else {
            return Ok(());
        };
        let name = default.at("metadata").str("name");
        if request.operation == Operation::Update
            && name == request.object.at("metadata").str("name")
        {
            return Ok(());
        }
        let why = format!(
            "PriorityClass {name} is already marked as default. Only one default can exist"
        );
        Err(request.forbidden(&why))
    }
}

/// The default class for pods without one: of several the one with the lowest value.
fn default_class(request: &Attributes<'_>) -> Option<Arc<Value>> {
    request
        .cluster
        .list("scheduling.k8s.io", "priorityclasses", "")
        .into_iter()
        .filter(|class| class.bool("globalDefault"))
        .min_by_key(|class| class.int("value"))
}

/// Sets the priority and preemption policy of a new pod.
fn establish(request: &mut Attributes<'_>) -> Result<(), Status> {
    let spec = request.object.at("spec");
    let asked = spec.str("priorityClassName");
    let class = if asked.is_empty() {
        default_class(request)
    } else {
        let class = request
            .cluster
            .get("scheduling.k8s.io", "priorityclasses", "", asked);
        if class.is_none() {
            let why = format!("no PriorityClass with name {asked} was found");
            return Err(request.forbidden(&why));
        }
        class
    };
    let (name, priority, policy) = match &class {
        Some(class) => (
            class.at("metadata").str("name").to_owned(),
            class.int("value"),
            class.at("preemptionPolicy").as_str(),
        ),
        None => (String::new(), 0, Some("PreemptLowerPriority")),
    };
    if let Some(said) = spec
        .at("priority")
        .as_int()
        .filter(|said| *said != priority)
    {
        let why = format!(
            "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        );
        return Err(request.forbidden(&why));
    }
    if let (Some(said), Some(policy)) = (spec.at("preemptionPolicy").as_str(), policy)
        && said != policy
    {
        let why = format!(
            "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(request.forbidden(&why));
    }
    let spec = request.object.object_mut().object_mut("spec");
    if !name.is_empty() {
        spec.insert("priorityClassName", name);
    }
    spec.insert("priority", priority);
    if let Some(policy) = policy {
        spec.insert("preemptionPolicy", policy);
    }
    Ok(())
}
