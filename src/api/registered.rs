//! Registers the versions that definitions of custom resources serve as API services. Follows
//! k8s.io/kubernetes/pkg/controlplane/controller/crdregistration and k8s.io/kube-aggregator/pkg/controllers/autoregister.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::own_client::{delete, post, put};
use super::reconcile;
use super::server::Server;
use crate::resources::custom::definition::PREFIX;
use crate::resources::registry::{served, service_name};
use crate::schema::{Key, Object, Value};
use crate::store::ResourcePrefix;
use crate::value;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
const COLLECTION: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// Says who maintains an API service.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// What the label says of those of definitions: they are kept as they should be at any time.
const ALWAYS: &str = "true";
/// Groups of definitions come behind those that are built in.
const GROUP_PRIORITY: i64 = 1000;
/// All versions of definitions have the same priority, so that they are ordered by their names.
const VERSION_PRIORITY: i64 = 100;

/// The name of the task.
pub const TASK: &str = "API services of definitions";

/// Maintains them until `ends` is cancelled.
pub async fn keep(server: Arc<Server>, ends: CancellationToken) {
    let look = |server: Arc<Server>| async move {
        let definitions = server.cluster.definitions();
        let registered = server.cluster.list(GROUP, PLURAL, "");
        let definitions = definitions.objects.values();
        for step in steps(
            definitions.map(|one| &**one),
            registered.iter().map(|one| &**one),
        ) {
            step.take(&server).await;
        }
    };
    reconcile::keep(server, ends, causes, look).await;
}

fn causes(server: &Server) -> Vec<ResourcePrefix> {
    let services = server.cluster.resource(GROUP, PLURAL);
    let services = services.map(|services| services.prefix.clone());
    std::iter::once(PREFIX.into()).chain(services).collect()
}

/// A write that is to be done.
#[derive(Debug, PartialEq)]
enum Step {
    Create(Value),
    Update(Value),
    Delete { name: String, uid: String },
}

impl Step {
    async fn take(self, server: &Arc<Server>) {
        // Whoever was faster wakes this task again.
        let tolerate = [StatusCode::CONFLICT, StatusCode::NOT_FOUND];
        let failed = "the API service of a definition cannot be kept";
        let path = |name: &str| format!("{COLLECTION}/{name}");
        match self {
            Step::Create(service) => {
                let ask = post(COLLECTION, &service);
                ask.write(server, &tolerate, failed).await
            }
            Step::Update(service) => {
                let path = path(service.at("metadata").str("name"));
                put(&path, &service).write(server, &tolerate, failed).await
            }
            Step::Delete { name, uid } => {
                let (path, options) = (path(&name), value!({"preconditions": {"uid": uid}}));
                let ask = delete(&path).with(&options);
                ask.write(server, &tolerate, failed).await
            }
        };
    }
}

/// What is to be done so that the API services of definitions are those that are wanted. Others are left alone, even if
/// they have the name of a wanted one.
fn steps<'a>(
    definitions: impl Iterator<Item = &'a Value>,
    registered: impl Iterator<Item = &'a Value>,
) -> Vec<Step> {
    let versions = definitions.flat_map(served);
    let mut wanted: BTreeMap<String, Value> = versions
        .map(|(group, version)| {
            let spec = value!({
                "group": group,
                "version": version,
                "groupPriorityMinimum": GROUP_PRIORITY,
                "versionPriority": VERSION_PRIORITY
            });
            (service_name(group, version), spec)
        })
        .collect();
    let mut steps = Vec::new();
    for service in registered {
        let meta = service.at("metadata");
        let wanted = wanted.remove(meta.str("name"));
        if meta.at("labels").str(MANAGED) != ALWAYS {
            continue;
        }
        match wanted {
            None => steps.push(Step::Delete {
                name: meta.str("name").to_owned(),
                uid: meta.str("uid").to_owned(),
            }),
            Some(spec) if *service.at("spec") == spec => {}
            Some(spec) => {
                let mut service = service.clone();
                service.set("spec", spec);
                steps.push(Step::Update(service));
            }
        }
    }
    let missing = wanted.into_iter().map(|(name, spec)| {
        Step::Create(value!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": name, "labels": (labels(ALWAYS))},
            "spec": spec
        }))
    });
    steps.extend(missing);
    steps
}

fn labels(managed: &str) -> Value {
    [(Key::from(MANAGED), Value::from(managed))]
        .into_iter()
        .collect::<Object>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_definitions_serve_is_registered_and_nothing_else() {
        let definition = |group: &str, versions: &[(&str, bool)]| {
            let versions = versions.iter();
            let versions =
                versions.map(|(name, served)| value!({"name": (*name), "served": (*served)}));
            value!({"spec": {"group": group, "versions": (versions.collect::<Vec<_>>())}})
        };
        let service = |name: &str, managed: &str, spec: Value| {
            value!({
                "metadata": {"name": name, "uid": "u", "labels": (labels(managed))},
                "spec": spec
            })
        };
        let wanted = |group: &str, version: &str| {
            value!({
                "group": group,
                "version": version,
                "groupPriorityMinimum": 1000,
                "versionPriority": 100
            })
        };
        let changed = value!({"group": "a.b", "version": "v1"});
        let definitions = [
            definition("a.b", &[("v1", true), ("v2", true), ("v3", false)]),
            definition("a.b", &[("v2", true)]),
            definition("c.d", &[("v1", true), ("v2", true), ("v4", true)]),
        ];
        let registered = [
            service("v1.a.b", ALWAYS, changed.clone()),
            service("v3.a.b", ALWAYS, wanted("a.b", "v3")),
            service("v1.c.d", "", changed.clone()),
            service("v2.c.d", "onstart", changed),
            service("v4.c.d", ALWAYS, wanted("c.d", "v4")),
            service("v1.e.f", "", Value::Null),
        ];
        let made = value!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v2.a.b", "labels": (labels(ALWAYS))},
            "spec": (wanted("a.b", "v2"))
        });
        assert_eq!(
            steps(definitions.iter(), registered.iter()),
            [
                Step::Update(service("v1.a.b", ALWAYS, wanted("a.b", "v1"))),
                Step::Delete {
                    name: "v3.a.b".to_owned(),
                    uid: "u".to_owned()
                },
                Step::Create(made),
            ]
        );
    }
}
