//! The verbs, each over one target and one pipeline for all kinds.

pub mod apply;
pub mod delete;
pub mod get;
pub mod list;
pub mod owners;
pub mod patch;
pub mod watch;
pub mod write;

use std::sync::Arc;

use super::info::Info;
use super::query::Query;
use crate::auth::User;
use crate::meta::Status;
use crate::meta::status::About;
use crate::resources::cluster::Cluster;
use crate::resources::{Cx, Resource, Version};
use crate::store::{Revision, StoreError};

/// What a verb acts on.
#[derive(Clone)]
pub struct Target {
    /// The store, the registry, the settings.
    pub cluster: Arc<Cluster>,
    /// The resource.
    pub resource: Arc<Resource>,
    /// Which of its versions the request speaks.
    pub version: usize,
    /// The request.
    pub info: Arc<Info>,
    /// Its query.
    pub query: Arc<Query>,
    /// Who asks.
    pub user: Arc<User>,
    /// Now, in seconds since 1970.
    pub now: i64,
}

impl Target {
    /// The version that the request speaks.
    pub fn version(&self) -> &Version {
        &self.resource.versions[self.version]
    }

    /// Whether what is asked for can only be made, never read: reviews, bindings, evictions, tokens.
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

    /// Whether the object of a name is there and being deleted.
    pub fn is_ending(&self, name: &str) -> bool {
        let key = self.resource.key(self.namespace(), name);
        self.cluster.store.head(&key).is_some_and(|entry| {
            let object = crate::resources::cluster::stored(&entry);
            object.at("metadata").get("deletionTimestamp").is_some()
        })
    }

    /// What rules may know.
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

    /// The resource and a name, for refusals that name the resource.
    pub fn about<'a>(&'a self, name: &'a str) -> About<'a> {
        About {
            group: &self.resource.group,
            kind: &self.resource.plural,
            name,
        }
    }

    /// The kind and a name, for refusals that name the kind.
    pub fn about_kind<'a>(&'a self, name: &'a str) -> About<'a> {
        About {
            group: self.resource.kind_group(),
            kind: &self.resource.kind,
            name,
        }
    }
}

/// A failure of the store that is no answer to the request.
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

/// Waits till what is told of the change `rev` can no longer be lost: what a write found may be another's that is only
/// about to be written.
///
/// # Errors
/// It was not written after all.
pub async fn settled(target: &Target, rev: Revision) -> Result<(), Status> {
    let settled = target.cluster.store.settled(rev).await;
    settled.map_err(|error| store_failure(&error))
}

/// A resourceVersion that has not happened yet: upstream waits three seconds, then says so.
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
