//! The verbs: each is one function over a target, with one pipeline for all kinds.

pub mod apply;
pub mod delete;
pub mod get;
pub mod list;
pub mod owners;
pub mod patch;
pub mod watch;
pub mod write;

use std::sync::Arc;

use super::query::Query;
use super::request_info::Info;
use crate::auth::User;
use crate::meta::Status;
use crate::meta::status::{About, key_name};
use crate::resources::cluster::Cluster;
use crate::resources::{Cx, Resource, Version};
use crate::store::{Revision, StoreError};

/// The target of a verb.
#[derive(Clone)]
pub struct Target {
    /// The store, the registry, the settings.
    pub cluster: Arc<Cluster>,
    /// The resource.
    pub resource: Arc<Resource>,
    /// The index of the request's version.
    pub version: usize,
    /// The request.
    pub info: Arc<Info>,
    /// Its query.
    pub query: Arc<Query>,
    /// The user.
    pub user: Arc<User>,
    /// Now, in seconds since 1970.
    pub now: i64,
}

impl Target {
    /// The request's version.
    pub fn version(&self) -> &Version {
        &self.resource.versions[self.version]
    }

    /// Whether the resource can only be created, never read: reviews, bindings, evictions, tokens.
    pub fn is_only_made(&self) -> bool {
        let version = self.version();
        let verbs = match &*self.info.subresource {
            "" => Some(&version.verbs),
            name => version.subresource(name).map(|served| &served.verbs),
        };
        verbs.is_some_and(|verbs| verbs.iter().all(|verb| verb == "create"))
    }

    /// The namespace for keys: empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        if self.resource.namespaced {
            &self.info.namespace
        } else {
            ""
        }
    }

    /// Checks whether the request may name an object so: it has a namespace if it needs one, and the name is valid.
    /// Follows NamespaceKeyFunc of k8s.io/apiserver/pkg/registry/generic/registry/store.go.
    ///
    /// # Errors
    /// 400, which says what is missing or wrong.
    pub fn check_key(&self, name: &str) -> Result<(), Status> {
        if self.resource.namespaced && self.info.namespace.is_empty() {
            return Err(Status::bad_request("Namespace parameter required."));
        }
        key_name(name)
    }

    /// Whether the object with this name exists and is being deleted.
    pub fn is_ending(&self, name: &str) -> bool {
        let key = self.resource.key(self.namespace(), name);
        self.cluster.store.head(&key).is_some_and(|entry| {
            let object = crate::resources::cluster::stored(&entry);
            object.at("metadata").get("deletionTimestamp").is_some()
        })
    }

    /// The context for rules.
    pub fn cx(&self) -> Cx<'_> {
        Cx {
            namespace: self.namespace(),
            version: &self.version().name,
            verb: &self.info.verb,
            subresource: &self.info.subresource,
            now: self.now,
            dry_run: false,
            user: &self.user,
            authorizer: None,
            sent: &crate::resources::NOTHING,
            resource: &self.resource,
            cluster: &self.cluster,
        }
    }

    /// The resource and a name, for errors that name the resource.
    pub fn about<'a>(&'a self, name: &'a str) -> About<'a> {
        About {
            group: &self.resource.group,
            kind: &self.resource.plural,
            name,
        }
    }

    /// The kind and a name, for errors that name the kind.
    pub fn about_kind<'a>(&'a self, name: &'a str) -> About<'a> {
        About {
            group: self.resource.kind_group(),
            kind: &self.resource.kind,
            name,
        }
    }
}

/// The error for an unexpected failure of the store.
pub fn store_failure(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => Status::failure(
            410,
            "Expired",
            "The resourceVersion for the provided list is too old.",
        ),
        StoreError::Closed => {
            Status::failure(503, "ServiceUnavailable", "the server is shutting down")
                .with_details(crate::schema::Object::new())
                .retry_after(1)
        }
        other => Status::internal(&other.to_string()),
    }
}

/// Waits until the change `rev` is durable: a write may have found another write that is not on disk yet.
///
/// # Errors
/// It could not be written.
pub async fn settled(target: &Target, rev: Revision) -> Result<(), Status> {
    let settled = target.cluster.store.settled(rev).await;
    settled.map_err(|error| store_failure(&error))
}

/// The error for a future resourceVersion: upstream waits three seconds first.
pub fn too_large(asked: u64, current: u64) -> Status {
    let cause = crate::value!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    Status::failure(
        504,
        "Timeout",
        format!("Timeout: Too large resource version: {asked}, current: {current}"),
    )
    .with_details(crate::value!({"causes": [cause]}))
    .retry_after(1)
}
