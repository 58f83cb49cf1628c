//! A test bench for rules: runs writes through the steps of the pipeline that call them.

use std::sync::Arc;

use super::Rules;
use crate::auth::User;
use crate::meta::{At, Errors};
use crate::resources::cluster::{Cluster, Settings};
use crate::resources::{Cx, Registry, Resource, metadata};
use crate::schema::{Value, decode, json};

/// A kind in an empty cluster.
pub(super) struct Trial {
    cluster: Cluster,
    user: User,
    resource: Arc<Resource>,
}

impl Trial {
    /// A trial of a resource.
    pub fn of(group: &str, plural: &str) -> Trial {
        Trial {
            cluster: Cluster::new(crate::store::memory(), Settings::default()),
            user: User::new("jane", &["devs"]),
            resource: Registry::builtin()
                .get(group, plural)
                .expect("a built-in resource")
                .clone(),
        }
    }

    fn rules(&self) -> &Rules {
        &self.resource.rules
    }

    fn cx<'a>(&'a self, subresource: &'a str) -> Cx<'a> {
        Cx {
            namespace: "default",
            version: &self.resource.storage_version,
            verb: "update",
            subresource,
            now: 1_000_000,
            dry_run: false,
            user: &self.user,
            authorizer: None,
            sent: &crate::resources::NOTHING,
            resource: &self.resource,
            cluster: &self.cluster,
        }
    }

    fn tidy(&self, object: &mut Value) {
        let storage = self.resource.storage().expect("a storage version");
        decode::tidy(object, &storage.schema);
    }

    /// The decoded body with its defaults.
    pub fn defaulted(&self, body: &str) -> Value {
        let parsed = json::parse(body.as_bytes()).expect("JSON").value;
        let storage = self.resource.storage().expect("a storage version");
        let decoded = decode::decode(parsed, &storage.schema, "v1.Object").expect("a typed body");
        let mut object = decoded.value;
        (self.rules().defaults)(&mut object, &self.cx(""));
        self.tidy(&mut object);
        object
    }

    /// The object created from a body, and its errors.
    pub fn create(&self, body: &str) -> (Value, Vec<String>) {
        let mut object = self.defaulted(body);
        object.remove("status");
        let meta = object.object_mut().object_mut("metadata");
        if self.resource.namespaced {
            meta.insert("namespace", "default");
        }
        meta.insert("uid", "UID");
        (self.rules().prepare_create)(&mut object, &self.cx(""));
        self.tidy(&mut object);
        let mut errors = Errors::default();
        let at = At::root(&object);
        metadata::validate(
            at.field("metadata"),
            self.resource.namespaced,
            self.rules().naming.validate,
            &mut errors,
        );
        (self.rules().validate)(at, None, &self.cx(""), &mut errors);
        let told = told(&errors);
        (object, told)
    }

    /// The errors about a body.
    pub fn refusals(&self, body: &str) -> Vec<String> {
        self.create(body).1
    }

    /// The object after `change` of `old`, and its errors.
    pub fn update(
        &self,
        subresource: &str,
        old: &Value,
        change: impl FnOnce(&mut Value),
    ) -> (Value, Vec<String>) {
        let mut new = old.clone();
        change(&mut new);
        (self.rules().defaults)(&mut new, &self.cx(subresource));
        let cx = self.cx(subresource);
        let mut errors = Errors::default();
        let carried = if subresource.is_empty() {
            "status"
        } else {
            "spec"
        };
        let has_status = self
            .resource
            .storage()
            .is_some_and(|version| version.has_status());
        if matches!(subresource, "" | "status") && has_status {
            new.set(carried, old.at(carried));
        }
        if subresource.is_empty() {
            (self.rules().prepare_update)(&mut new, old, &cx);
        } else {
            (self.rules().status.prepare)(&mut new, old, &cx);
        }
        self.tidy(&mut new);
        let (at, was) = (At::root(&new), At::root(old));
        metadata::validate_any_update(
            at.field("metadata"),
            was.field("metadata"),
            &self.resource,
            &mut errors,
        );
        if subresource.is_empty() {
            (self.rules().validate)(at, Some(was), &cx, &mut errors);
        } else {
            (self.rules().status.validate)(at, was, &cx, &mut errors);
        }
        let told = told(&errors);
        (new, told)
    }
}

fn told(errors: &Errors) -> Vec<String> {
    errors.0.iter().map(ToString::to_string).collect()
}
