//! ComponentStatuses: the health of parts of the control plane, computed at each request. Follows
//! k8s.io/kubernetes/pkg/registry/core/componentstatus.

use crate::resources::{Printing, Rules};
use crate::schema::Value;

/// The rules of component statuses.
pub(super) const RULES: Rules = Rules {
    printing: Printing::of(|object, _| {
        let conditions = object.list("conditions").iter();
        let healthy = conditions
            .into_iter()
            .find(|condition| condition.str("type") == "Healthy");
        let (status, condition) = match healthy {
            Some(condition) if condition.str("status") == "True" => ("Healthy", condition),
            Some(condition) => ("Unhealthy", condition),
            None => ("Unknown", &Value::Null),
        };
        vec![
            object.at("metadata").str("name").into(),
            status.into(),
            condition.str("message").into(),
            condition.str("error").into(),
        ]
    }),
    internal: "core.ComponentStatus",
    ..Rules::DEFAULT
};
