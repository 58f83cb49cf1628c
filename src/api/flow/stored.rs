//! Applies stored flow schemas and priority levels whenever they change, and maintains the status condition `Dangling` of
//! flow schemas: whether their priority level is missing. Upstream's servers do the same. Follows
//! k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::api::own_client::apply;
use crate::api::reconcile;
use crate::api::server::Server;
use crate::meta::errors::quoted;
use crate::meta::time;
use crate::schema::Value;
use crate::value;

const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";

/// The name of the task.
pub const TASK: &str = "flow schemas and priority levels";
/// How often concurrency limits are adjusted to demand.
const ADJUST: Duration = Duration::from_secs(10);

/// Checks all flow schemas whenever one of them or a priority level changes, and adjusts concurrency limits
/// periodically, until `ends` is cancelled.
pub async fn keep(server: Arc<Server>, ends: CancellationToken) {
    let causes = |server: &Server| {
        let registry = server.cluster.registry();
        let prefix = |plural| Some(registry.get(GROUP, plural)?.prefix.clone());
        [SCHEMAS, LEVELS].into_iter().filter_map(prefix).collect()
    };
    let look = |server: Arc<Server>| async move { ensure(&server).await };
    let flow = server.flow.clone();
    let adjusts = async move {
        loop {
            tokio::time::sleep(ADJUST).await;
            flow.adjust();
        }
    };
    tokio::select! {
        () = reconcile::keep(server, ends, causes, look) => {}
        () = adjusts => {}
    }
}

/// Applies the stored objects, and updates the condition of every flow schema.
pub async fn ensure(server: &Arc<Server>) {
    let schemas = server.cluster.list(GROUP, SCHEMAS, "");
    let levels = server.cluster.list(GROUP, LEVELS, "");
    server.flow.digest(&levels, &schemas);
    for schema in schemas {
        let level = schema
            .at("spec")
            .at("priorityLevelConfiguration")
            .str("name");
        let found = server.cluster.get(GROUP, LEVELS, "", level).is_some();
        let Some(condition) = missing(&schema, found) else {
            continue;
        };
        let name = schema.at("metadata").str("name");
        let status = value!({
            "apiVersion": (format!("{GROUP}/v1")),
            "kind": "FlowSchema",
            "metadata": {"name": name},
            "status": {"conditions": [condition]}
        });
        let path = format!("/apis/{GROUP}/v1/{SCHEMAS}/{name}/status");
        // A deleted one needs no condition, and a concurrent change triggers another look.
        let tolerate = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
        let failed = "the condition of a flow schema cannot be written";
        let applied = apply(&path, &status).managed_by(MANAGER);
        applied.write(server, &tolerate, failed).await;
    }
}

/// The condition to set on a flow schema, given whether its priority level exists; `None` if it is already set.
fn missing(schema: &Value, found: bool) -> Option<Value> {
    const TYPE: &str = "Dangling";
    let level = schema
        .at("spec")
        .at("priorityLevelConfiguration")
        .str("name");
    let (status, reason, what) = match found {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {} {what}",
        quoted(level)
    );
    let told = schema.at("status").list("conditions").iter().any(|had| {
        let said = [had.str("type"), had.str("status"), had.str("reason")];
        said == [TYPE, status, reason] && had.str("message") == message
    });
    (!told).then(|| {
        value!({
            "type": TYPE,
            "status": status,
            "lastTransitionTime": (time::print(time::now())),
            "reason": reason,
            "message": message
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_told_once_whether_its_level_is_there() {
        let mut schema =
            value!({"spec": {"priorityLevelConfiguration": {"name": "exempt"}}, "status": {}});
        let dangling = missing(&schema, false).unwrap();
        assert_eq!(
            (dangling.str("status"), dangling.str("reason")),
            ("True", "NotFound")
        );
        let found = missing(&schema, true).unwrap();
        assert_eq!(
            found.str("message"),
            "This FlowSchema references the PriorityLevelConfiguration object named \"exempt\" and it exists"
        );
        schema.set("status", value!({"conditions": [found]}));
        assert_eq!(missing(&schema, true), None);
        assert!(missing(&schema, false).is_some());
    }
}
