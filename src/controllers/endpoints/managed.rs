//! The endpoint slices of one manager: watching, finding and writing them.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};

use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found, is_terminating};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::queue::{Next, Queue};
use crate::controllers::pods::Versions;

/// The label that names the service of a slice.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names the manager of a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

impl Cached for EndpointSlice {}

/// The slices of one manager.
pub(super) struct Slices {
    client: Client,
    cache: Informer<EndpointSlice>,
    manager: &'static str,
}

/// The service of a slice that is managed by `manager`.
fn service_of<'a>(slice: &'a EndpointSlice, manager: &str) -> Option<&'a String> {
    let labels = slice.labels();
    labels.get(MANAGED_BY).filter(|by| *by == manager)?;
    labels.get(SERVICE_NAME)
}

impl Slices {
    /// The slices that are managed by `manager`.
    pub(super) fn of(context: &Context, manager: &'static str) -> Slices {
        Slices {
            client: context.client.clone(),
            cache: context.informers.of(),
            manager,
        }
    }

    /// Puts the services of slices that change into the queue.
    pub(super) fn follow(&self, queue: &Arc<Queue<Key>>) {
        let manager = self.manager;
        self.cache.enqueue(queue, move |change| {
            let service = |slice: Option<&Arc<EndpointSlice>>| {
                let service = service_of(slice?, manager)?;
                Some(Key::new(&change.key.namespace, service))
            };
            service(change.old).into_iter().chain(service(change.new))
        });
    }

    /// The slices of a service, ordered by name.
    pub(super) fn list(&self, service: &Key) -> Vec<Arc<EndpointSlice>> {
        let all = self.cache.list(&service.namespace).into_iter();
        all.map(|(_, slice)| slice)
            .filter(|slice| {
                service_of(slice, self.manager).is_some_and(|name| service.name == *name)
            })
            .collect()
    }

    /// Writes changes, and waits until the cache shows them.
    ///
    /// # Errors
    /// The API rejects a change, except because the namespace is being deleted, or a slice changed meanwhile.
    pub(super) async fn carry_out(
        &self,
        namespace: &str,
        changes: Changes,
    ) -> Result<Next, kube::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let mut versions = Versions::default();
        for slice in changes.create {
            match api.create(&params, &slice).await {
                Ok(made) => versions.add(made.resource_version()),
                Err(error) if is_terminating(&error) => return Ok(Next::Done),
                Err(error) => return Err(error),
            }
        }
        for slice in changes.update {
            match api.replace(&slice.name_any(), &params, &slice).await {
                Ok(written) => versions.add(written.resource_version()),
                Err(error) if is_conflict(&error) || is_not_found(&error) => {
                    return Ok(Next::Retry);
                }
                Err(error) => return Err(error),
            }
        }
        for name in changes.delete {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        self.cache.reach(versions.newest().as_deref()).await;
        Ok(Next::Done)
    }
}

/// The slices to write.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<String>,
}

/// A new slice that replaces an old one under its name.
pub(super) fn in_place_of(mut new: EndpointSlice, old: &EndpointSlice) -> EndpointSlice {
    new.metadata.generate_name = None;
    new.metadata.name.clone_from(&old.metadata.name);
    new.metadata
        .resource_version
        .clone_from(&old.metadata.resource_version);
    new
}
