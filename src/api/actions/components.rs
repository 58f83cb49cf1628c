//! Component statuses, which are never stored: upstream queries its components at each request. The only component of
//! this server is its store, which upstream calls etcd-0. Follows k8s.io/kubernetes/pkg/registry/core/componentstatus.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use crate::api::negotiate::Shape;
use crate::api::reply::{self, Reply};
use crate::api::table::{self, Include};
use crate::api::verbs::list::ListOptions;
use crate::meta::Status;
use crate::meta::status::About;
use crate::schema::{Object, Value};
use crate::value;

const STORE: &str = "etcd-0";

/// Handles a GET of one or all.
pub(super) fn answer(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let target = call.target;
        let (status, message) = match target.cluster.store.health() {
            Ok(()) => ("True", "ok".to_owned()),
            Err(error) => ("False", error.to_string()),
        };
        let store = value!({
            "kind": "ComponentStatus",
            "apiVersion": "v1",
            "metadata": {"name": STORE},
            "conditions": [{"type": "Healthy", "status": status, "message": message}]
        });
        match target.info.path_name.as_str() {
            "" => {}
            STORE => return Ok(Reply::Object(200, store)),
            name => {
                return Err(Status::not_found(About {
                    group: "",
                    kind: "componentstatus",
                    name,
                }));
            }
        }
        let selection = ListOptions::read(target, false)?.selection;
        let mut items = vec![store];
        items.retain(|store| selection.matches_object(store));
        if let shape @ Shape::Table { beta } = call.accepted.shape {
            let include = Include::read(&target.query, shape)?;
            let version = target.version();
            let table = table::of(&items, &target.resource, version, beta, include, true);
            return Ok(Reply::Object(200, table));
        }
        match call.accepted.shape {
            Shape::Partial { .. } => {
                return Err(reply::is_a_list("*core.ComponentStatusList"));
            }
            Shape::PartialList { beta } => {
                let items = items
                    .iter()
                    .map(|store| reply::partial_of(&target.resource, store, beta));
                let list = reply::partial_list(Object::new(), items.collect(), beta);
                return Ok(Reply::Object(200, list));
            }
            _ => {}
        }
        for store in &mut items {
            for key in ["kind", "apiVersion"] {
                store.remove(key);
            }
        }
        let list = value!({
            "kind": "ComponentStatusList",
            "apiVersion": "v1",
            "metadata": {},
            "items": (Value::Array(items))
        });
        Ok(Reply::Other(200, list))
    }
    .boxed()
}
