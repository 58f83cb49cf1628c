//! Admission: the built-in plugins, each a synchronous decision over the request and snapshots of other objects.

mod namespaces;

use crate::auth::User;
use crate::meta::Status;
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
    /// Opens a connection to it.
    Connect,
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
    /// The object to be written (null for deletions; the options for connects).
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
    /// Changes of other objects that go into the same commit (quota charges). Dropped on dry run and refusal.
    pub effects: Vec<Change>,
}

/// A built-in admission plugin.
pub trait Plugin: Send + Sync {
    /// Its name in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

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

/// The plugins that are on by default, in order.
pub fn default_plugins() -> Vec<Box<dyn Plugin>> {
    vec![Box::new(namespaces::NamespaceLifecycle)]
}
