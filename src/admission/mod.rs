//! Admission: the built-in plugins. Each is a synchronous decision over the request and snapshots of other objects.

mod certificates;
mod chain;
mod defaults;
mod extras;
pub mod grants;
mod limit_ranges;
mod namespaces;
mod node_certificates;
mod node_restriction;
mod owner_references;
mod pod_security;
mod priority;
pub mod quota;
mod resize;
mod runtime_class;
mod service_accounts;
pub mod tolerations;
#[cfg(test)]
mod trial;

pub use chain::{ChainError, PLUGINS, Settings, chain};

use futures::future::BoxFuture;

use crate::auth::{Authorizer, User};
use crate::meta::Status;
use crate::meta::status::About;
use crate::resources::Resource;
use crate::resources::cluster::Cluster;
use crate::schema::Value;
use crate::store::Change;

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Creates the object.
    Create,
    /// Updates the object.
    Update,
    /// Deletes the object.
    Delete,
}

/// A request as seen by plugins. Objects are in the storage version and in canonical form.
pub struct Attributes<'a> {
    /// Other objects and settings.
    pub cluster: &'a Cluster,
    /// The user who makes the request.
    pub user: &'a User,
    /// The operation.
    pub operation: Operation,
    /// The resource.
    pub resource: &'a Resource,
    /// The subresource; empty if the request is about the object itself.
    pub subresource: &'a str,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// The name in the request; empty if it is yet to be generated.
    pub name: &'a str,
    /// The name in the path; empty for a create request.
    pub path_name: &'a str,
    /// The object to write (null for deletions).
    pub object: Value,
    /// The stored object (for updates and deletions).
    pub old: Option<&'a Value>,
    /// CreateOptions, UpdateOptions, DeleteOptions.
    pub options: &'a Value,
    /// The request is a dry run: nothing will be written.
    pub dry_run: bool,
    /// Now, in seconds since 1970.
    pub now: i64,
    /// Texts for `Warning` headers, in order.
    pub warnings: Vec<String>,
    /// Writes to other objects in the same commit (quota usage). Dropped if the request is a dry run or rejected.
    pub effects: Vec<Change>,
    /// Authorizes other actions of the user.
    pub authorizer: &'a dyn Authorizer,
}

impl Attributes<'_> {
    /// Whether the request is for this resource itself, not for a subresource.
    pub fn is_of(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.is_about(group, plural)
    }

    /// Whether the request is for this resource or one of its subresources.
    pub fn is_about(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// Rejects the request as plugins do: 403 `RES "name" is forbidden: WHY`.
    pub fn forbidden(&self, why: &str) -> Status {
        let meta = self.object.at("metadata");
        let names = [self.name, meta.str("name"), meta.str("generateName")];
        let name = names.into_iter().find(|name| !name.is_empty());
        let about = About {
            group: &self.resource.group,
            kind: &self.resource.plural,
            name: name.unwrap_or("Unknown"),
        };
        Status::forbidden(about, why)
    }
}

/// A built-in admission plugin.
pub trait Plugin: Send + Sync {
    /// Its name in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Something to await before [`Plugin::mutate`]: an object that another client is about to create.
    fn before<'a>(&'a self, _request: &'a Attributes<'_>) -> Option<BoxFuture<'a, ()>> {
        None
    }

    /// May change the object, or reject the request.
    ///
    /// # Errors
    /// The error, in upstream's words.
    fn mutate(&self, _request: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// May reject the request; runs after all mutation and after the kind's own validation.
    ///
    /// # Errors
    /// The error, in upstream's words.
    fn validate(&self, _request: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}
