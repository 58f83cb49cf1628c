//! A test bench for plugins: one write, one plugin, and a cluster with a few objects.

use std::sync::Arc;

use super::{Attributes, Operation, Plugin};
use crate::auth::User;
use crate::auth::authorize::Authorizers;
use crate::resources::cluster::{Cluster, Settings};
use crate::resources::{Registry, record};
use crate::schema::{Value, json};
use crate::store::{Change, Expect, memory};

/// A cluster with a namespace.
pub(super) struct Trial {
    cluster: Cluster,
}

fn parsed(text: &str) -> Value {
    json::parse(text.as_bytes()).expect("JSON").value
}

impl Trial {
    /// A cluster whose namespace `default` is this object.
    pub fn new(namespace: &str) -> Trial {
        let cluster = Cluster::new(memory(), Settings::default());
        let trial = Trial { cluster };
        trial.put("", "namespaces", "", "default", namespace);
        trial
    }

    /// Adds an object to the cluster.
    pub fn put(&self, group: &str, plural: &str, namespace: &str, name: &str, object: &str) {
        let resource = Registry::builtin().get(group, plural).expect("a resource");
        let change = Change {
            resource: resource.prefix.clone(),
            key: resource.key(namespace, name),
            expect: Expect::Absent,
            put: Some(record::encode(resource, &parsed(object))),
            ttl: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let commit = self.cluster.store.commit(vec![change]);
        runtime.block_on(commit).expect("a commit");
    }

    /// The spec of a core object after both steps of a plugin, or the error message. An empty `old` makes it a
    /// creation.
    pub fn spec(&self, plugin: &dyn Plugin, plural: &str, old: &str, new: &str) -> String {
        self.spec_by(&User::new("jane", &[]), plugin, plural, old, new)
    }

    /// Like [`Trial::spec`], for a write of this user.
    pub fn spec_by(
        &self,
        user: &User,
        plugin: &dyn Plugin,
        plural: &str,
        old: &str,
        new: &str,
    ) -> String {
        let resource: Arc<_> = Registry::builtin()
            .get("", plural)
            .expect("a resource")
            .clone();
        let old = (!old.is_empty()).then(|| parsed(old));
        let object = parsed(new);
        let name = object.at("metadata").str("name").to_owned();
        let nobody = Authorizers::new(self.cluster.store.clone(), Vec::new());
        let mut request = Attributes {
            cluster: &self.cluster,
            user,
            operation: if old.is_some() {
                Operation::Update
            } else {
                Operation::Create
            },
            resource: &resource,
            subresource: "",
            namespace: "default",
            name: &name,
            path_name: "",
            object,
            old: old.as_ref(),
            options: &Value::Null,
            dry_run: false,
            now: 1_000_000,
            warnings: Vec::new(),
            effects: Vec::new(),
            authorizer: &nobody,
        };
        let result = plugin
            .mutate(&mut request)
            .and_then(|()| plugin.validate(&mut request));
        match result {
            Ok(()) => {
                let mut out = String::new();
                json::write(request.object.at("spec"), &mut out);
                out
            }
            Err(status) => status.message,
        }
    }
}
