//! Admission: the built-in plugins, each a synchronous decision over the request and snapshots of other objects.

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

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Makes it.
    Create,
    /// Changes it.
    Update,
    /// Deletes it.
    Delete,
}

/// A request as plugins see it. Objects are in the storage version, in canonical form.
pub struct Attributes<'a> {
    /// Other objects and settings.
    pub cluster: &'a Cluster,
    /// Who asks.
    pub user: &'a User,
    /// What is done.
    pub operation: Operation,
    /// The resource.
    pub resource: &'a Resource,
    /// The subresource; empty for none.
    pub subresource: &'a str,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// The name in the request; empty where it is yet to be generated.
    pub name: &'a str,
    /// The name in the path; empty where an object is made in its collection.
    pub path_name: &'a str,
    /// The object to be written (null for deletions).
    pub object: Value,
    /// The object as it is stored (for updates and deletions).
    pub old: Option<&'a Value>,
    /// CreateOptions, UpdateOptions, DeleteOptions.
    pub options: &'a Value,
    /// Nothing will be written.
    pub dry_run: bool,
    /// Now, in seconds since 1970.
    pub now: i64,
    /// Texts for `Warning` headers, in order.
    pub warnings: Vec<String>,
    /// Changes of other objects that go along with the write (quota charges). Dropped on dry run and refusal.
    pub effects: Vec<Change>,
    /// Decides what users may do.
    pub authorizer: &'a dyn Authorizer,
}

impl Attributes<'_> {
    /// Whether the request is about a resource itself (not a subresource of it).
    pub fn is_of(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.is_about(group, plural)
    }

    /// Whether the request is about a resource or one of its subresources.
    pub fn is_about(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// The refusal of this request, as plugins word it: 403 `RES "name" is forbidden: WHY`.
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

    /// Something to wait for before [`Plugin::mutate`]: an object that somebody else is about to make.
    fn before<'a>(&'a self, _request: &'a Attributes<'_>) -> Option<BoxFuture<'a, ()>> {
        None
    }

    /// May change the object, or refuse.
    ///
    /// # Errors
    /// The refusal, as upstream words it.
    fn mutate(&self, _request: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse; runs after all mutation and after the kind's own validation.
    ///
    /// # Errors
    /// The refusal, as upstream words it.
    fn validate(&self, _request: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}
