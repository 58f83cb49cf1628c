//! Create, update and patch: one pipeline for all kinds, repeated after every conflict.
//!
//! Decode, apply defaults, reset what clients may not set, mutating admission, the kind's preparation, validation of
//! (new, old), validating admission, commit. `create` and `update` contain what differs at each stage; the common parts
//! are here.

mod carried;
mod create;
mod update;

use std::collections::HashSet;
use std::sync::Arc;

use super::{Target, owners, settled, store_failure};
use crate::admission::{Attributes, Operation, Plugin};
use crate::api::query::WriteOptions;
use crate::api::read::Expected;
use crate::api::reply::Reply;
use crate::auth::Authorizer;
use crate::meta::errors::Reason;
use crate::meta::status::About;
use crate::meta::{Errors, FieldError, Status};
use crate::resources::{Cx, forms, record};
use crate::schema::emptied::{Emptied, Empty};
use crate::schema::{Value, json};
use crate::store::{Change, Entry, Expect, Revision, StoreError};

/// How often a write is repeated after conflicts before the client gets the error.
pub(super) const TRIES: usize = 100;

/// The input of a write besides its target.
pub struct Write<'a> {
    /// The target.
    pub target: &'a Target,
    /// Options of the query.
    pub options: &'a WriteOptions,
    /// Admission plugins, in order.
    pub plugins: &'a [Box<dyn Plugin>],
    /// The options object, for admission.
    pub options_object: &'a Value,
    /// Decides what users may do, for admission.
    pub authorizer: &'a dyn Authorizer,
    /// The subresource for admission, if it is not the target's: a scale is written as the object itself.
    pub asked: Option<&'static str>,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// The result of an attempt to create an object.
pub(super) enum Attempt {
    /// It was created.
    Made(Box<Reply>),
    /// The name is taken.
    Taken(String),
    /// Another writer changed a key that is written in the same commit, such as a quota. The object's name.
    Lost(String),
}

/// The errors that `judge` finds in an object. If there are any and the client sent empty lists or maps, it is run
/// again with these put back, because error messages show them and some may not even be empty. Apart from that only the
/// text may differ, never the outcome.
fn as_said(object: &Value, emptied: &[Emptied], judge: impl Fn(&Value) -> Errors) -> Errors {
    let errors = judge(object);
    let lists = || emptied.iter().filter(|field| field.what != Empty::Struct);
    if emptied.is_empty() || (errors.is_empty() && lists().next().is_none()) {
        return errors;
    }
    let mut said = object.clone();
    for field in emptied.iter().filter(|field| field.shown) {
        field.put(&mut said);
    }
    let told = judge(&said);
    let known: HashSet<_> = errors.0.iter().map(what).collect();
    let empty: HashSet<String> = lists().map(Emptied::field).collect();
    let (kept, more): (Vec<_>, Vec<_>) = told
        .0
        .iter()
        .partition(|error| known.contains(&what(error)));
    let only_said = more
        .iter()
        .all(|error| error.reason == Reason::Forbidden && empty.contains(&error.field));
    if only_said && kept.into_iter().map(what).eq(errors.0.iter().map(what)) {
        told
    } else {
        errors
    }
}

/// The reason and field of an error, without its text.
fn what(error: &FieldError) -> (Reason, &str) {
    (error.reason, &error.field)
}

/// The error of upstream's storage for an object that fails a precondition; for a dry run with a shorter key.
pub(in crate::api) fn invalid_object(
    about: About<'_>,
    key: &str,
    short_key: bool,
    why: &str,
) -> Status {
    let key = match key.strip_prefix("/registry") {
        Some(rest) if short_key => rest,
        _ => key,
    };
    Status::conflict(
        about,
        &format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}"
        ),
    )
}

impl Write<'_> {
    /// The context of this write for rules.
    pub(super) fn cx(&self) -> Cx<'_> {
        Cx {
            dry_run: self.options.dry_run,
            authorizer: Some(self.authorizer),
            ..self.target.cx()
        }
    }

    /// Converts a body as upstream does to its internal type, or rejects what that cannot hold.
    fn convert(&self, object: &mut Value) -> Result<(), Status> {
        let target = self.target;
        let expected = Expected::of(&target.resource, &target.version().name);
        (target.resource.rules.convert)(object).map_err(|cause| expected.cannot_hold(&cause))
    }

    /// Sets the object's namespace to the request's, or rejects a different one.
    pub(in crate::api) fn place(&self, object: &mut Value) -> Result<(), Status> {
        let target = self.target;
        let meta = object.object_mut().object_mut("metadata");
        if target.resource.namespaced && !target.info.namespace.is_empty() {
            match meta
                .get("namespace")
                .and_then(Value::as_str)
                .unwrap_or_default()
            {
                "" => {
                    meta.insert("namespace", target.info.namespace.as_str());
                }
                said if said == target.info.namespace => {}
                _ => {
                    return Err(Status::bad_request(
                        "the namespace of the provided object does not match the namespace sent on the request",
                    ));
                }
            }
        } else {
            meta.remove("namespace");
        }
        Ok(())
    }

    fn stored(&self, object: Value) -> Value {
        forms::to_working(object, &self.target.resource, self.target.version())
    }

    fn shown(&self, object: Value) -> Value {
        forms::from_working(object, &self.target.resource, self.target.version())
    }

    fn tidy(&self, object: &mut Value) {
        forms::tidy(object, &self.target.resource);
    }

    fn attributes<'b>(
        &'b self,
        operation: Operation,
        object: Value,
        old: Option<&'b Value>,
        name: &'b str,
    ) -> Attributes<'b> {
        let target = self.target;
        Attributes {
            cluster: &target.cluster,
            user: &target.user,
            operation,
            resource: &target.resource,
            subresource: self.asked.unwrap_or(&target.info.subresource),
            namespace: target.namespace(),
            name,
            path_name: &target.info.path_name,
            object,
            old,
            options: self.options_object,
            dry_run: self.options.dry_run,
            now: target.now,
            warnings: Vec::new(),
            effects: Vec::new(),
            authorizer: self.authorizer,
        }
    }

    pub(in crate::api) async fn mutate(
        &mut self,
        operation: Operation,
        object: Value,
        old: Option<&Value>,
        name: &str,
    ) -> Result<Value, Status> {
        let mut attributes = self.attributes(operation, object, old, name);
        for plugin in self.plugins {
            if let Some(wait) = plugin.before(&attributes) {
                wait.await;
            }
            plugin.mutate(&mut attributes)?;
        }
        let (object, warnings) = (attributes.object, attributes.warnings);
        self.warnings.extend(warnings);
        Ok(object)
    }

    /// The change that writes `object` at `key`, or deletes it.
    fn change(&self, key: Arc<str>, expect: Expect, object: Option<&Value>) -> Change {
        let resource = &self.target.resource;
        let ttl = resource.rules.ttl;
        Change {
            resource: resource.prefix.clone(),
            key,
            expect,
            put: object.map(|object| match expect {
                Expect::Absent => record::encode_new(resource, object),
                Expect::Revision(_) => record::encode(resource, object),
            }),
            ttl: ttl.map(|_| self.target.cluster.settings.event_ttl),
        }
    }

    /// Commits a change together with accompanying ones, which come before it as in upstream's separate writes. Returns
    /// the revision of the change, and the entry that it wrote or deleted.
    pub(super) async fn commit(
        &self,
        change: Change,
        mut along: Vec<Change>,
    ) -> Result<(Revision, Arc<Entry>), StoreError> {
        along.push(change);
        let mut committed = self.target.cluster.store.commit(along).await?;
        match committed.entries.pop() {
            Some(entry) => Ok((committed.rev, entry)),
            None => Err(StoreError::Closed),
        }
    }

    /// Runs validating admission; returns the object and further changes for the same commit.
    pub(in crate::api) fn run_validation(
        &mut self,
        operation: Operation,
        object: Value,
        old: Option<&Value>,
        name: &str,
    ) -> Result<(Value, Vec<Change>), Status> {
        let mut attributes = self.attributes(operation, object, old, name);
        for plugin in self.plugins {
            plugin.validate(&mut attributes)?;
        }
        let (object, warnings, effects) =
            (attributes.object, attributes.warnings, attributes.effects);
        self.warnings.extend(warnings);
        Ok((object, effects))
    }
}

/// Removes duplicate owner references; returns a warning about them, which says when they were noticed.
pub(in crate::api) fn once_each_owner(object: &mut Value, when: &str) -> Option<String> {
    let owners = object.at("metadata").list("ownerReferences");
    let mut known = HashSet::new();
    let twice = (0..owners.len()).filter(|at| !known.insert(json::to_string(&owners[*at])));
    let twice: Vec<usize> = twice.collect();
    if twice.is_empty() {
        return None;
    }
    let uids: Vec<&str> = twice.iter().map(|at| owners[*at].str("uid")).collect();
    let warning = format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        uids.join(", ")
    );
    let once = (0..owners.len()).filter(|at| twice.binary_search(at).is_err());
    let once: Vec<Value> = once.map(|at| owners[at].clone()).collect();
    let meta = object.object_mut().object_mut("metadata");
    meta.insert("ownerReferences", once);
    Some(warning)
}
