//! The endpoint slices of one manager: watching, finding and writing them.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};

use crate::client::Context;
use crate::client::errors::{FirstFailure, is_conflict, is_not_found, is_terminating, text};
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

    /// Writes changes, and waits until the cache shows them. `owner` is what the slices are about: `Service NAMESPACE/NAME`.
    ///
    /// # Errors
    /// The API rejects a change, except because the namespace is being deleted.
    pub(super) async fn carry_out(
        &self,
        namespace: &str,
        owner: &str,
        changes: Changes,
    ) -> Result<Next, Refused> {
        let refused = |attempt: &str, name: &str, cause| {
            let space = if name.is_empty() { "" } else { " " };
            Refused {
                what: format!("{attempt}{space}{name} EndpointSlice for {owner}"),
                cause: Box::new(cause),
            }
        };
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let mut versions = Versions::default();
        for slice in changes.create {
            match api.create(&params, &slice).await {
                Ok(made) => versions.add(made.resource_version()),
                Err(error) if is_terminating(&error) => return Ok(Next::Done),
                Err(error) => return Err(refused("create", "", error)),
            }
        }
        for slice in changes.update {
            let name = slice.name_any();
            let written = api.replace(&name, &params, &slice).await;
            let written = written.map_err(|error| refused("update", &name, error))?;
            versions.add(written.resource_version());
        }
        let mut failed = FirstFailure::default();
        for name in changes.delete {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => {
                    failed.note(Err::<(), _>(refused("delete", &name, error)));
                }
                _ => {}
            }
        }
        self.cache.reach(versions.newest().as_deref()).await;
        failed.or(Next::Done)
    }
}

/// A slice that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what}: {}", text(cause))]
pub(super) struct Refused {
    what: String,
    cause: Box<kube::Error>,
}

impl Refused {
    /// Retries without a word if only the slice changed meanwhile.
    pub(super) fn patiently(self) -> Result<Next, Refused> {
        match is_conflict(&self.cause) || is_not_found(&self.cause) {
            true => Ok(Next::Retry),
            false => Err(self),
        }
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use parking_lot::Mutex;

    use super::*;
    use crate::auth::User;
    use crate::client::Transport;

    #[tokio::test]
    async fn every_deletion_is_tried_and_the_first_failure_is_told_in_upstreams_words() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let transport = Transport::new(move |request, _| {
            noted.lock().push(request.uri().path().len());
            let answer = r#"{"kind":"Status","status":"Failure","message":"no","reason":"Forbidden","code":403}"#;
            let mut answer = http::Response::new(http_body_util::Full::from(answer).boxed_unsync());
            *answer.status_mut() = http::StatusCode::FORBIDDEN;
            async move { answer }
        });
        let slices = Slices {
            client: transport.client(User::new("test", &[]), "test"),
            cache: Informer::by_hand(),
            manager: "m",
        };
        let all = Changes {
            delete: vec!["a".to_owned(), "b".to_owned()],
            ..Changes::default()
        };
        let refused = slices.carry_out("n", "Service n/s", all).await.unwrap_err();
        let wanted = "failed to delete a EndpointSlice for Service n/s: no";
        assert_eq!(refused.to_string(), wanted);
        assert_eq!(asked.lock().len(), 2);
        let one = Changes {
            create: vec![EndpointSlice::default()],
            ..Changes::default()
        };
        let refused = slices.carry_out("n", "Service n/s", one).await.unwrap_err();
        let wanted = "failed to create EndpointSlice for Service n/s: no";
        assert_eq!(refused.to_string(), wanted);
    }
}
