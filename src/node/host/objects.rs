//! Caches the objects that pods of this node use: while the API server is unreachable, containers can still be started
//! again, as with kubelet's caches of config maps and secrets.

use std::any::{Any, TypeId};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::Resource;
use kube::api::Api;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::{Host, text, uid};
use crate::client::errors::is_refused;

/// How long to wait for the API server if the object is cached.
const PATIENCE: Duration = Duration::from_secs(1);

/// Kind, namespace and name.
type Key = (TypeId, String, String);

/// An object, and the pods that use it.
struct Known {
    value: Arc<dyn Any + Send + Sync>,
    uids: BTreeSet<String>,
}

/// Cached objects. They are dropped with the last pod that used them.
#[derive(Default)]
pub struct Objects(Mutex<HashMap<Key, Known>>);

impl Objects {
    /// The current object, or the cached one if the API server does not respond.
    async fn get<K>(
        &self,
        api: Api<K>,
        (namespace, name): (&str, &str),
        uid: &str,
    ) -> kube::Result<Option<Arc<K>>>
    where
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let key: Key = (TypeId::of::<K>(), namespace.to_owned(), name.to_owned());
        let known = {
            let all = self.0.lock();
            let known = all.get(&key).map(|known| known.value.clone());
            known.and_then(|value| value.downcast::<K>().ok())
        };
        let asked = api.get_opt(name);
        let value = match known {
            None => asked.await?.map(Arc::new),
            Some(known) => match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(found)) => found.map(Arc::new),
                Ok(Err(error)) if is_refused(&error) => return Err(error),
                Ok(Err(_)) | Err(_) => Some(known),
            },
        };
        let mut all = self.0.lock();
        let Some(value) = value else {
            all.remove(&key);
            return Ok(None);
        };
        let known = all.entry(key).or_insert_with(|| Known {
            value: value.clone(),
            uids: BTreeSet::new(),
        });
        known.value = value.clone();
        known.uids.insert(uid.to_owned());
        Ok(Some(value))
    }

    /// Drops objects that only this pod used.
    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().retain(|_, known| {
            known.uids.remove(uid);
            !known.uids.is_empty()
        });
    }
}

impl Host {
    /// An object of the pod's namespace.
    pub(super) async fn object<K>(&self, pod: &Pod, name: &str) -> kube::Result<Option<Arc<K>>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let namespace = text(pod.metadata.namespace.as_ref());
        let api = Api::namespaced(self.client.clone(), namespace);
        self.objects.get(api, (namespace, name), uid(pod)).await
    }

    /// A cluster-scoped object that the pod uses.
    pub(super) async fn cluster_object<K>(
        &self,
        pod: &Pod,
        name: &str,
    ) -> kube::Result<Option<Arc<K>>>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let api = Api::all(self.client.clone());
        self.objects.get(api, ("", name), uid(pod)).await
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::Body;

    use super::*;

    /// A client of an API server that returns this response, or none.
    fn client(answer: Option<(u16, &'static str)>) -> kube::Client {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            match answer {
                None => std::future::pending().await,
                Some((code, text)) => {
                    let body = Body::from(text.as_bytes().to_vec());
                    let response = Response::builder().status(code).body(body);
                    response.map_err(|error| Box::new(error) as tower::BoxError)
                }
            }
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_used_where_the_api_server_is_away() {
        let map = r#"{"metadata": {"name": "m"}, "data": {"k": "v"}}"#;
        let status = |code, reason| match (code, reason) {
            (404, _) => {
                r#"{"kind": "Status", "code": 404, "reason": "NotFound", "message": "gone"}"#
            }
            (401, _) => {
                r#"{"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "who"}"#
            }
            (403, _) => {
                r#"{"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"}"#
            }
            _ => {
                r#"{"kind": "Status", "code": 503, "reason": "ServiceUnavailable", "message": "later"}"#
            }
        };
        let objects = Objects::default();
        let ask = async |answer: Option<(u16, &'static str)>| {
            let api: Api<ConfigMap> = Api::namespaced(client(answer), "n");
            let found = objects.get(api, ("n", "m"), "uid").await;
            found.map(|found| found.and_then(|map| map.data.clone()?.remove("k")))
        };
        let (found, away) = (Some("v".to_owned()), Some((503, status(503, ""))));
        assert!(ask(away).await.is_err(), "nothing is known");
        for (answer, expected) in [
            (Some((200, map)), Ok(&found)),
            (away, Ok(&found)),
            (None, Ok(&found)),
            (Some((401, status(401, ""))), Ok(&found)),
            (Some((403, status(403, ""))), Err(())),
            (None, Ok(&found)),
            (Some((404, status(404, ""))), Ok(&None)),
            (away, Err(())),
        ] {
            let got = ask(answer).await;
            assert_eq!(got.as_ref().map_err(|_| ()), expected, "{answer:?}");
        }
        ask(Some((200, map))).await.expect("found");
        objects.forget("other");
        assert_eq!(ask(None).await.expect("known"), found);
        objects.forget("uid");
        assert!(objects.0.lock().is_empty());
    }
}
