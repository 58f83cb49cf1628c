//! Create, update and patch: one pipeline for all kinds, run again on every lost race.
//!
//! decode, default, reset what clients may not set, mutating admission, the kind's preparation, validation of
//! (new, old), validating admission, commit. `create` and `update` say what each does at a stage; what is the same for both
//! is here.

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

/// How often a lost race is run again before the client is told.
pub(super) const TRIES: usize = 100;

/// What a write needs besides its target.
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
    /// The subresource that admission is told of, where it is not the target's: a scale is written as the object itself.
    pub asked: Option<&'static str>,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// What became of an attempt to create an object.
pub(super) enum Attempt {
    /// It is there.
    Made(Box<Reply>),
    /// The name is another object's.
    Taken(String),
    /// Another writer changed a key that is written in the same commit, such as a quota. The object's name.
    Lost(String),
}

/// What `judge` finds wrong with an object. Where the client sent empty values, it judges again with them put back: what
/// it forbids then are lists and maps that may not even be said, and messages show them. Of all else they change the text
/// only, never the outcome.
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

/// What an error says, but for its text.
fn what(error: &FieldError) -> (Reason, &str) {
    (error.reason, &error.field)
}

/// The refusal of upstream's storage of an object that is not as it was to be; a dry run tells a short key.
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
    /// What rules may know of this write.
    pub(super) fn cx(&self) -> Cx<'_> {
        Cx {
            dry_run: self.options.dry_run,
            authorizer: Some(self.authorizer),
            ..self.target.cx()
        }
    }

    /// What upstream's internal type makes of a body, or the refusal of one that it cannot hold.
    fn convert(&self, object: &mut Value) -> Result<(), Status> {
        let target = self.target;
        let expected = Expected::of(&target.resource, &target.version().name);
        (target.resource.rules.convert)(object).map_err(|cause| expected.cannot_hold(&cause))
    }

    /// Puts the object into the request's namespace, or refuses another one.
    pub(in crate::api) fn place(&self, object: &mut Value) -> Result<(), Status> {
        let target = self.target;
        let meta = object.object_mut().object_mut("metadata");
        if target.resource.namespaced {
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

    /// The change that puts `object` at `key`, or deletes what is there.
    fn change(&self, key: Arc<str>, expect: Expect, object: Option<&Value>) -> Change {
        let resource = &self.target.resource;
        let ttl = resource.rules.ttl;
        Change {
            resource: resource.prefix.clone(),
            key,
            expect,
            put: object.map(|object| record::encode(resource, object)),
            ttl: ttl.map(|_| self.target.cluster.settings.event_ttl),
        }
    }

    /// Commits a change with what goes along with it, which comes before it as upstream writes it. Answers the
    /// revision of the change, and the entry it wrote or deleted.
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

    /// Runs validating admission; answers the object and what goes into the same commit.
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

/// Drops owners that are told twice; returns a warning of them, which says when they were seen.
fn once_each_owner(object: &mut Value, when: &str) -> Option<String> {
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
