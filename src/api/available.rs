//! Maintains the condition Available of API services with a backing service. Requests are not forwarded to such
//! services, so none is ever available; the reason is the one that upstream would report. Follows
//! k8s.io/kube-aggregator/pkg/controllers/status/remote.

use std::sync::Arc;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::own_client::put;
use super::reconcile;
use super::server::Server;
use crate::meta::time;
use crate::schema::Value;
use crate::store::ResourcePrefix;

const GROUP: &str = "apiregistration.k8s.io";
/// The resources whose changes can affect the condition, by group and name.
const WAKE: [(&str, &str); 3] = [
    (GROUP, "apiservices"),
    ("", "services"),
    ("discovery.k8s.io", "endpointslices"),
];

/// The name of the task.
pub const TASK: &str = "availability of API services";

/// Maintains all conditions until `ends` is cancelled.
pub async fn keep(server: Arc<Server>, ends: CancellationToken) {
    let look = |server: Arc<Server>| async move {
        for api in elsewhere(&server) {
            ensure(&server, api).await;
        }
    };
    reconcile::keep(server, ends, causes, look).await;
}

/// The changes to wait for. As long as no API service refers to a service, changes of services do not matter.
fn causes(server: &Server) -> Vec<ResourcePrefix> {
    let causes = match elsewhere(server).is_empty() {
        true => &WAKE[..1],
        false => &WAKE,
    };
    let registry = server.cluster.registry();
    let prefix = |(group, plural): &(&str, &str)| Some(registry.get(group, plural)?.prefix.clone());
    causes.iter().filter_map(prefix).collect()
}

/// The API services that refer to a service, and whose group and version this server does not serve itself.
fn elsewhere(server: &Server) -> Vec<Arc<Value>> {
    let registry = server.cluster.registry();
    let own = |spec: &Value| {
        let group = registry.group(spec.str("group"));
        group.is_some_and(|group| {
            let mut versions = group.versions.iter();
            versions.any(|version| **version == *spec.str("version"))
        })
    };
    let mut apis = server.cluster.list(GROUP, "apiservices", "");
    apis.retain(|api| api.at("spec").get("service").is_some() && !own(api.at("spec")));
    apis
}

/// Updates the condition of an API service, if necessary.
async fn ensure(server: &Arc<Server>, mut api: Arc<Value>) {
    let cluster = &server.cluster;
    let reference = api.at("spec").at("service");
    let (namespace, name) = (reference.str("namespace"), reference.str("name"));
    let service = cluster.get("", "services", namespace, name);
    let slices = cluster.list("discovery.k8s.io", "endpointslices", namespace);
    let of = |slice: &Value| {
        let labels = slice.at("metadata").at("labels");
        labels.str("kubernetes.io/service-name") == name
    };
    let slices: Vec<&Value> = slices
        .iter()
        .map(|slice| &**slice)
        .filter(|&slice| of(slice))
        .collect();
    let (reason, message) = judge(reference, service.as_deref(), &slices);
    let said = api.at("status").list("conditions").iter();
    let before = said.clone().find(|one| one.str("type") == "Available");
    let same = |one: &Value| {
        (one.str("status"), one.str("reason"), one.str("message")) == ("False", reason, &*message)
    };
    if before.is_some_and(same) {
        return;
    }
    let since = before
        .filter(|before| before.str("status") == "False")
        .map_or_else(
            || time::print(time::now()).into(),
            |before| before.at("lastTransitionTime").clone(),
        );
    let condition = crate::value!({
        "type": "Available",
        "status": "False",
        "lastTransitionTime": since,
        "reason": reason,
        "message": message
    });
    let mut conditions: Vec<Value> = said.cloned().collect();
    match conditions
        .iter_mut()
        .find(|one| one.str("type") == "Available")
    {
        Some(before) => *before = condition,
        None => conditions.push(condition),
    }
    let path = format!(
        "/apis/{GROUP}/v1/apiservices/{}/status",
        api.at("metadata").str("name")
    );
    Arc::make_mut(&mut api).set("status", crate::value!({"conditions": conditions}));
    // A deleted one needs no condition, and a concurrent change triggers another look.
    let tolerate = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
    let failed = "an API service's status cannot be written";
    put(&path, &api).write(server, &tolerate, failed).await;
}

/// Why a service is not available: reason and message.
fn judge(reference: &Value, service: Option<&Value>, slices: &[&Value]) -> (&'static str, String) {
    let of = format!(
        "service/{} in {:?}",
        reference.str("name"),
        reference.str("namespace")
    );
    let Some(service) = service else {
        return ("ServiceNotFound", format!("{of} is not present"));
    };
    let spec = service.at("spec");
    if spec.str("type") == "ClusterIP" {
        let wanted = reference.int("port");
        let mut ports = spec.list("ports").iter();
        let Some(port) = ports.find(|port| port.int("port") == wanted) else {
            let why = format!("{of} is not listening on port {wanted}");
            return ("ServicePortError", why);
        };
        if slices.is_empty() {
            return (
                "EndpointsNotFound",
                format!("cannot find endpointslices for {of}"),
            );
        }
        let name = port.str("name");
        let ready = |slice: &&Value| {
            let mut ports = slice.list("ports").iter();
            let mut endpoints = slice.list("endpoints").iter();
            ports.any(|port| port.str("name") == name)
                && endpoints
                    .any(|endpoint| endpoint.at("conditions").at("ready").as_bool() != Some(false))
        };
        if !slices.iter().any(ready) {
            let why = format!("endpointslices for {of} have no addresses with port name {name:?}");
            return ("MissingEndpoints", why);
        }
    }
    (
        "FailedDiscoveryCheck",
        "requests are not passed on to other servers".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::value;

    #[test]
    fn what_keeps_a_service_from_being_asked_is_told() {
        let reference = value!({"name": "s", "namespace": "n", "port": 443});
        let service = |port: i64| value!({"spec": {"type": "ClusterIP", "ports": [{"port": port, "name": "p"}]}});
        let slice = |name: &str, ready: bool| {
            value!({
                "ports": [{"name": name}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]
            })
        };
        for (service, slices, reason) in [
            (None, vec![], "ServiceNotFound"),
            (Some(service(80)), vec![], "ServicePortError"),
            (Some(service(443)), vec![], "EndpointsNotFound"),
            (
                Some(service(443)),
                vec![slice("q", true)],
                "MissingEndpoints",
            ),
            (
                Some(service(443)),
                vec![slice("p", false)],
                "MissingEndpoints",
            ),
            (
                Some(service(443)),
                vec![slice("p", true)],
                "FailedDiscoveryCheck",
            ),
            (
                Some(value!({"spec": {"type": "ExternalName"}})),
                vec![],
                "FailedDiscoveryCheck",
            ),
        ] {
            let slices: Vec<_> = slices.iter().collect();
            assert_eq!(judge(&reference, service.as_ref(), &slices).0, reason);
        }
    }
}
