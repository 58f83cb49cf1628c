//! Create, update and patch: one pipeline for all kinds, run again on every lost race.
//!
//! decode, default, reset what clients may not set, mutating admission, the kind's preparation, validation of
//! (new, old), validating admission, commit.

use super::{Target, owners, settled, store_failure};
use crate::admission::{Attributes, Operation, Plugin};
use crate::api::custom;
use crate::api::query::{WriteOptions, parse_uint};
use crate::api::reply::Reply;
use crate::auth::Authorizer;
use crate::meta::errors::Reason;
use crate::meta::status::key_name;
use crate::meta::{At, Errors, Path, Status, names, time};
use crate::resources::{Cx, Generation, MetaOnStatus, cluster, forms, record};
use crate::schema::decode::Decoded;
use crate::schema::emptied::Emptied;
use crate::schema::semantic::same;
use crate::schema::{Object, Value, json};
use crate::store::{Change, Entry, Expect, Revision, StoreError};
use std::collections::HashSet;
use std::sync::Arc;

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

pub use names::new_uid;

/// What `judge` finds wrong with an object. If it finds something, it judges again with the empty values that the client
/// sent put back, because messages show them; they change the text only, never the outcome.
fn as_said(object: &Value, emptied: &[Emptied], judge: impl Fn(&Value) -> Errors) -> Errors {
    let errors = judge(object);
    if errors.is_empty() || emptied.is_empty() {
        return errors;
    }
    let mut said = object.clone();
    for field in emptied.iter().filter(|field| field.shown) {
        field.put(&mut said);
    }
    let told = judge(&said);
    let what = |errors: &Errors| -> Vec<(Reason, String)> {
        let each = errors.0.iter();
        each.map(|error| (error.reason, error.field.clone()))
            .collect()
    };
    if what(&told) == what(&errors) {
        told
    } else {
        errors
    }
}

impl Write<'_> {
    /// Makes an object of what the body said (in the request's version).
    ///
    /// # Errors
    /// 400, 403, 409, 422 as upstream.
    pub async fn create(&mut self, said: Decoded) -> Result<Reply, Status> {
        let target = self.target;
        let mut said = said;
        let object = &mut said.value;
        self.place(object)?;
        self.warnings.extend(once_each_owner(object, ""));
        let name = object.at("metadata").str("name").to_owned();
        if let Some(refusal) = custom::forbid_creation(target, &name) {
            return Err(refusal);
        }
        let warned = self.warnings.len();
        let (mut taken, mut races) = (0, 0);
        loop {
            self.warnings.truncate(warned);
            match self.try_create(said.clone(), false).await? {
                Attempt::Made(reply) => return Ok(*reply),
                // A generated name that was taken is made again, as upstream does.
                Attempt::Taken(_) if name.is_empty() && taken < 8 => {
                    taken += 1;
                }
                Attempt::Taken(name) => {
                    let prefix = said.value.at("metadata").str("generateName");
                    let about = target.about(&name);
                    let mut refusal = match prefix {
                        "" => Status::already_exists(about),
                        _ => Status::no_unique_name(about),
                    };
                    if target.is_ending(&name) {
                        refusal.message.insert_str(0, "object is being deleted: ");
                    }
                    return Err(refusal);
                }
                Attempt::Lost(_) if races < TRIES => races += 1,
                Attempt::Lost(name) => return Err(Status::modified(target.about(&name))),
            }
        }
    }

    /// What rules may know of this write.
    pub(super) fn cx(&self) -> Cx<'_> {
        Cx {
            dry_run: self.options.dry_run,
            authorizer: Some(self.authorizer),
            ..self.target.cx()
        }
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

    /// One attempt to make an object; `owned` where it says already who owns what.
    pub(super) async fn try_create(
        &mut self,
        said: impl Into<Decoded>,
        owned: bool,
    ) -> Result<Attempt, Status> {
        let Decoded {
            value: mut object,
            emptied,
            ..
        } = said.into();
        let target = self.target;
        let (resource, version) = (&target.resource, target.version());
        let rules = &resource.rules;
        let asked_version = object.at("metadata").str("resourceVersion").to_owned();
        let sent = object.at("metadata").clone();
        let meta = object.object_mut().object_mut("metadata");
        for key in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "resourceVersion",
        ] {
            meta.remove(key);
        }
        if !owned {
            meta.remove("managedFields");
        }
        if rules.generation != Generation::None {
            meta.remove("generation");
        }
        (rules.defaults)(&mut object, &target.cx());
        if !resource.is_custom() {
            crate::schema::decode::tidy_json(&mut object, &version.schema);
        }
        if !owned {
            owners::track(self, None, &mut object);
        }
        let mut object = self.stored(object);
        let name = object.at("metadata").str("name").to_owned();
        object = self.mutate(Operation::Create, object, None, &name).await?;
        let meta = object.object_mut().object_mut("metadata");
        meta.insert("uid", new_uid());
        meta.insert("creationTimestamp", time::print(target.now));
        if matches!(
            rules.generation,
            Generation::Spec | Generation::SpecAsSaid | Generation::AllButStatus
        ) {
            meta.insert("generation", 1i64);
        }
        let prefix = meta
            .get("generateName")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if name.is_empty() && !prefix.is_empty() {
            meta.insert("name", names::generated(&prefix));
        }
        let along = (rules.effects)(Some(&mut object), None, &self.cx())?;
        if version.has_status() && !rules.status_at_creation {
            object.remove("status");
        }
        self.warnings
            .extend((rules.early_warnings)(&object, &target.cx()));
        let cx = Cx {
            sent: &sent,
            ..self.cx()
        };
        (rules.prepare_create)(&mut object, &cx);
        self.tidy(&mut object);
        let name = object.at("metadata").str("name").to_owned();
        let errors = as_said(&object, &emptied, |object| {
            let mut errors = Errors::default();
            let at = At::root(object);
            let metadata = |errors: &mut Errors| {
                let meta = at.field("metadata");
                crate::resources::metadata::validate(meta, resource.namespaced, rules.name, errors);
                crate::resources::metadata::own_finalizers(meta, resource, errors);
            };
            if !rules.metadata_last {
                metadata(&mut errors);
            }
            (rules.validate)(at, None, &self.cx(), &mut errors);
            if rules.metadata_last && errors.is_empty() {
                metadata(&mut errors);
            }
            if errors.is_empty() {
                crate::resources::metadata::names_in_paths(at.field("metadata"), &mut errors);
            }
            if !rules.repeats_causes {
                errors.once();
            }
            errors
        });
        if !errors.is_empty() {
            return Err(Status::invalid(target.about_kind(&name), &errors));
        }
        self.warnings
            .extend((rules.warnings)(&object, None, &target.cx()));
        self.may_create()?;
        let (mut object, effects) = self.run_validation(Operation::Create, object, None, &name)?;
        forms::settle(&mut object, resource, version);
        forms::read_back(&mut object, version);
        let key = resource.key(target.namespace(), &name);
        if self.options.dry_run {
            // Only the store, to which a dry run does not come, takes offence at a version.
            if !asked_version.is_empty() {
                let meta = object.object_mut().object_mut("metadata");
                meta.insert_behind("uid", "resourceVersion", asked_version);
            }
            return Ok(match target.cluster.store.head(&key) {
                Some(_) => Attempt::Taken(name),
                None => Attempt::Made(Box::new(Reply::Object(201, self.shown(object)))),
            });
        }
        // What an apply makes is written as an update is, whatever version it says.
        let by_create = target.info.verb == "create";
        if by_create && asked_version.parse::<u64>().is_ok_and(|rev| rev != 0) {
            return Err(Status::unclassified(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let ttl = rules.ttl.map(|_| target.cluster.settings.event_ttl);
        let change = Change {
            resource: resource.prefix.clone(),
            key: key.clone(),
            expect: Expect::Absent,
            put: Some(record::encode(resource, &object)),
            ttl,
        };
        let along = along.into_iter().chain(effects).collect();
        match self.commit(change, along).await {
            Ok((_, made)) => Ok(Attempt::Made(Box::new(Reply::Entry(201, made)))),
            Err(StoreError::Conflict { key: lost, current }) if lost == key => {
                if let Some(current) = current {
                    settled(target, current.rev).await?;
                }
                Ok(Attempt::Taken(name))
            }
            // Somebody else's change of what goes along with ours: decide again.
            Err(StoreError::Conflict { .. }) => Ok(Attempt::Lost(name)),
            Err(error) => Err(store_failure(&error)),
        }
    }

    /// Who makes an object by an update or an apply must be allowed to create it, too.
    fn may_create(&self) -> Result<(), Status> {
        let target = self.target;
        if target.info.verb == "create" {
            return Ok(());
        }
        let attributes = crate::auth::Attributes {
            verb: "create",
            ..target.info.attributes(&target.query)
        };
        crate::auth::authorize::check(self.authorizer, &target.user, &attributes)
    }

    /// Changes the named object into what `change` makes of it (both in the request's version), and writes down who
    /// owns what then.
    ///
    /// # Errors
    /// 404, 409, 422 as upstream, and what `change` refuses.
    pub async fn update<D: Into<Decoded>>(
        &mut self,
        code: u16,
        mut change: impl FnMut(&Value) -> Result<D, Status>,
    ) -> Result<Reply, Status> {
        let mut twice = None;
        let reply = self
            .rewrite(code, |write, old| {
                let mut new: Decoded = change(&old)?.into();
                // Upstream looks at patched objects only once admission has changed them.
                let when = match write.target.info.verb.as_str() {
                    "patch" => " after mutating admission happens",
                    _ => "",
                };
                twice = once_each_owner(&mut new.value, when);
                owners::track(write, Some(old), &mut new.value);
                Ok(new)
            })
            .await;
        self.warnings.extend(twice);
        reply
    }

    /// Changes the named object into what `change` makes of it, owners and all.
    ///
    /// # Errors
    /// As [`Write::update`].
    pub(in crate::api) async fn rewrite<D: Into<Decoded>>(
        &mut self,
        code: u16,
        mut change: impl FnMut(&Self, Value) -> Result<D, Status>,
    ) -> Result<Reply, Status> {
        let target = self.target;
        key_name(&target.info.name)?;
        let key = target.resource.key(target.namespace(), &target.info.name);
        let warned = self.warnings.len();
        for _ in 0..TRIES {
            self.warnings.truncate(warned);
            let Some(entry) = target.cluster.store.head(&key) else {
                return Err(Status::not_found(target.about(&target.info.name)));
            };
            let old = forms::working(&entry, &target.resource, target.version());
            let new = change(self, self.shown(old.clone()))?.into();
            if let Some(reply) = self.try_update(code, &entry, old, new).await? {
                return Ok(reply);
            }
        }
        Err(Status::modified(target.about(&target.info.name)))
    }

    /// A PUT: the body is the new object, or makes a missing one where the kind allows that.
    ///
    /// # Errors
    /// 400 for another name, 404, 409, 422.
    pub async fn put(&mut self, mut said: Decoded) -> Result<Reply, Status> {
        let target = self.target;
        let object = &mut said.value;
        let url_name = &target.info.name;
        self.place(object)?;
        match object.at("metadata").str("name") {
            "" => {
                return Err(Status::bad_request(format!(
                    "the name of the object ({url_name} based on URL) was undeterminable: name must be provided"
                )));
            }
            name if name != url_name => {
                return Err(Status::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({url_name})"
                )));
            }
            _ => {}
        }
        (target.resource.rules.defaults)(object, &target.cx());
        key_name(url_name)?;
        let key = target.resource.key(target.namespace(), url_name);
        if target.info.subresource.is_empty()
            && target.resource.rules.create_on_update
            && target.cluster.store.head(&key).is_none()
        {
            let uid = object.at("metadata").str("uid").to_owned();
            if !uid.is_empty() {
                return Err(self.wrong_uid(&uid, ""));
            }
            // A version is no hindrance, but has to be one.
            let version = object.at("metadata").str("resourceVersion");
            if !version.is_empty() {
                parse_uint(version).map_err(Status::unclassified)?;
            }
            return self.create(said).await;
        }
        self.update(200, move |_| Ok(said.clone())).await
    }

    pub(in crate::api) fn wrong_uid(&self, asked: &str, found: &str) -> Status {
        // A dry run does not get as far as to the storage, which knows what is before all keys.
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        self.invalid_object(self.options.dry_run, &why)
    }

    /// The refusal of upstream's storage of an object that is not as it was to be.
    pub(in crate::api) fn invalid_object(&self, short_key: bool, why: &str) -> Status {
        let target = self.target;
        let key = target.resource.key(target.namespace(), &target.info.name);
        let key = match key.strip_prefix("/registry") {
            Some(rest) if short_key => rest,
            _ => &key,
        };
        Status::conflict(
            target.about(&target.info.name),
            &format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}"
            ),
        )
    }

    /// One attempt; `None` is a lost race.
    async fn try_update(
        &mut self,
        code: u16,
        entry: &Arc<Entry>,
        old: Value,
        said: Decoded,
    ) -> Result<Option<Reply>, Status> {
        let Decoded {
            value: new,
            emptied,
            ..
        } = said;
        let target = self.target;
        let (resource, rules) = (&target.resource, &target.resource.rules);
        let name = target.info.name.as_str();
        let said = new.at("metadata").str("resourceVersion").to_owned();
        let uid = new.at("metadata").str("uid").to_owned();
        let old_uid = old.at("metadata").str("uid").to_owned();
        let patching = target.info.verb == "patch";
        if !uid.is_empty() && uid != old_uid && !patching {
            return Err(self.wrong_uid(&uid, &old_uid));
        }
        let rev = if said.is_empty() {
            0
        } else {
            parse_uint(&said).map_err(Status::unclassified)?
        };
        let main = target.info.subresource.is_empty();
        if rev == 0 && !rules.unconditional_update {
            let mut errors = Errors::default();
            errors.invalid(
                Path::ROOT.field("metadata.resourceVersion"),
                0i64,
                "must be specified for an update",
            );
            return Err(Status::invalid(target.about(name), &errors));
        }
        if rev != 0 && rev != entry.rev {
            return Err(Status::modified(target.about(name)));
        }
        if resource.is_custom() && main {
            custom::check_type(&new, target)?;
        }
        // Admission sees what was sent, also of what this path does not change.
        let new = self.stored(new);
        let mut new = self
            .mutate(Operation::Update, new, Some(&old), name)
            .await?;
        self.carry_over(&mut new, &old);
        let owned = new.path(&["metadata", "managedFields"]).clone();
        let mut along = Vec::new();
        if main {
            along = (rules.effects)(Some(&mut new), Some(&old), &self.cx())?;
            (rules.prepare_update)(&mut new, &old, &target.cx());
        } else {
            (rules.prepare_status)(&mut new, &old, &self.cx());
        }
        owners::take(&mut new);
        owners::put(&mut new, owned);
        self.raise_generation(&mut new, &old, &emptied);
        self.tidy(&mut new);
        owners::keep_times(&mut new, &old);
        let errors = as_said(&new, &emptied, |new| {
            let mut errors = Errors::default();
            let (at, was) = (At::root(new), At::root(&old));
            crate::resources::metadata::validate_any_update(
                at.field("metadata"),
                was.field("metadata"),
                resource,
                &mut errors,
            );
            if main {
                (rules.validate)(at, Some(was), &self.cx(), &mut errors);
            } else {
                (rules.validate_status)(at, was, &self.cx(), &mut errors);
            }
            if !rules.repeats_causes {
                errors.once();
            }
            errors
        });
        if !errors.is_empty() {
            return Err(Status::invalid(target.about_kind(name), &errors));
        }
        if main {
            self.warnings
                .extend((rules.warnings)(&new, Some(&old), &target.cx()));
        } else if target.info.subresource == "status" {
            self.warnings.extend((rules.status_warnings)(&new));
        }
        let (mut new, effects) = self.run_validation(Operation::Update, new, Some(&old), name)?;
        forms::settle(&mut new, resource, target.version());
        let ends = super::delete::ends_by(&new, rules.marked_first);
        if new == old && !ends {
            settled(target, entry.rev).await?;
            return Ok(Some(Reply::Entry(code, entry.clone())));
        }
        if self.options.dry_run {
            let mut shown = new;
            cluster::set_revision(&mut shown, entry.rev);
            return Ok(Some(Reply::Object(code, self.shown(shown))));
        }
        let put = (!ends).then(|| record::encode(resource, &new));
        let ttl = rules.ttl.map(|_| target.cluster.settings.event_ttl);
        let change = Change {
            resource: resource.prefix.clone(),
            key: entry.key.clone(),
            expect: Expect::Revision(entry.rev),
            put,
            ttl,
        };
        if ends {
            along = (rules.effects)(None, Some(&old), &self.cx())?;
        }
        let along = along.into_iter().chain(effects).collect();
        match self.commit(change, along).await {
            Ok(_) if ends => {
                let mut shown = new;
                cluster::set_revision(&mut shown, entry.rev);
                Ok(Some(Reply::Object(code, self.shown(shown))))
            }
            Ok((_, written)) => Ok(Some(Reply::Entry(code, written))),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_failure(&error)),
        }
    }

    /// Resets what an update cannot change: system metadata, and status or everything but status.
    fn carry_over(&self, new: &mut Value, old: &Value) {
        let target = self.target;
        let old_meta = old.at("metadata");
        let meta = new.object_mut().object_mut("metadata");
        for key in [
            "creationTimestamp",
            "generation",
            "selfLink",
            "uid",
            "resourceVersion",
        ] {
            if key == "uid" && meta.get(key).is_some_and(|uid| !uid.is_empty()) {
                continue;
            }
            // What is written loses it, which a dry run does not come to.
            if key == "selfLink" && self.options.dry_run {
                continue;
            }
            match old_meta.get(key) {
                Some(value) => meta.insert(key, value.clone()),
                None => meta.remove(key),
            };
        }
        // When a deletion began is never changed, and how long it may take never unsaid.
        if let Some(value) = old_meta.get("deletionTimestamp") {
            meta.insert("deletionTimestamp", value.clone());
        }
        if meta
            .get("deletionGracePeriodSeconds")
            .is_none_or(Value::is_null)
            && let Some(value) = old_meta.get("deletionGracePeriodSeconds")
        {
            meta.insert("deletionGracePeriodSeconds", value.clone());
        }
        if target.info.subresource.is_empty() {
            if target.version().has_status() {
                match old.get("status") {
                    Some(status) => new.set("status", status),
                    None => drop(new.remove("status")),
                }
            }
        } else if target.info.subresource == "status" {
            let taken = matches!(target.resource.rules.meta_on_status, MetaOnStatus::Taken);
            status_only(new, old, taken);
        }
    }

    fn raise_generation(&self, new: &mut Value, old: &Value, emptied: &[Emptied]) {
        let schema = &self.target.version().schema;
        let changes = |field: &str| {
            let (new, old) = (new.at(field), old.at(field));
            match schema.field(field) {
                Some(schema) => !same(schema, new, old),
                None => new != old,
            }
        };
        let is_content = |field: &str| !matches!(field, "metadata" | "status");
        let rest_changes = || {
            let objects = [&*new, old].into_iter().filter_map(Value::as_object);
            let mut fields = objects.flat_map(Object::keys);
            fields.any(|field| is_content(field) && changes(field))
        };
        // An empty list or map, which what is stored never says.
        let says_empty = |of: &dyn Fn(&str) -> bool| {
            let mut said = emptied
                .iter()
                .filter(|field| field.member().is_some_and(of));
            self.target.info.subresource.is_empty() && said.any(|field| field.still_holds(new))
        };
        let raises = match self.target.resource.rules.generation {
            Generation::None | Generation::Own => return,
            Generation::Spec => changes("spec"),
            Generation::SpecAsSaid => changes("spec") || says_empty(&|member| member == "spec"),
            Generation::AllButStatus => rest_changes(),
            Generation::AllButStatusAsSaid => rest_changes() || says_empty(&is_content),
        };
        let generation = old.at("metadata").int("generation");
        if raises {
            new.object_mut()
                .object_mut("metadata")
                .insert("generation", generation + 1);
        }
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

/// Makes `new`, as a client sent it to a status subresource, the `old` object with the status that was sent; with the
/// metadata that was sent if that is `taken`, else only with its managedFields. Members that were sent unchanged are moved
/// from `new`, as copying them from `old` would be most of the work of such a write.
fn status_only(new: &mut Value, old: &Value, taken: bool) {
    let mut said = std::mem::take(new);
    let status = said.remove("status");
    let meta = said.remove("metadata").unwrap_or_default();
    let old = old.as_object().into_iter().flat_map(Object::iter);
    let mut whole: Object = old
        .filter(|(name, _)| status.is_some() || name.as_str() != "status")
        .map(|(name, old)| match said.get_mut(name) {
            Some(same) if same == old => (name.clone(), std::mem::take(same)),
            // These keep their places and get their values below.
            _ if name == "status" || (name == "metadata" && taken) => (name.clone(), Value::Null),
            _ => (name.clone(), old.clone()),
        })
        .collect();
    if let Some(status) = status {
        whole.insert("status", status);
    }
    if taken {
        whole.insert("metadata", meta);
        *new = Value::Object(whole);
    } else {
        *new = Value::Object(whole);
        owners::take(new);
        owners::put(new, meta.at("managedFields").clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_a_status_changes_that_and_who_owns_it() {
        let parsed = |text: &str| json::parse(text.as_bytes()).expect("an object").value;
        let old = r#"{"kind":"K","metadata":{"name":"a","managedFields":[1]},"spec":{"a":1},"status":{"b":1}}"#;
        let bare = r#"{"kind":"K","metadata":{"name":"a"},"spec":{"a":1}}"#;
        for (old, said, taken, becomes) in [
            (
                old,
                r#"{"spec":{"a":1},"metadata":{"name":"b","managedFields":[2]},"status":{"b":2}}"#,
                false,
                r#"{"kind":"K","metadata":{"name":"a","managedFields":[2]},"spec":{"a":1},"status":{"b":2}}"#,
            ),
            (
                old,
                r#"{"status":{"b":2},"spec":{"a":2},"more":1,"metadata":{"name":"b"}}"#,
                true,
                r#"{"kind":"K","metadata":{"name":"b"},"spec":{"a":1},"status":{"b":2}}"#,
            ),
            (old, r#"{"metadata":{}}"#, false, bare),
            (
                bare,
                r#"{"status":{"b":2}}"#,
                false,
                r#"{"kind":"K","metadata":{"name":"a"},"spec":{"a":1},"status":{"b":2}}"#,
            ),
        ] {
            let mut new = parsed(said);
            status_only(&mut new, &parsed(old), taken);
            assert_eq!(json::to_string(&new), becomes, "{said}");
        }
    }
}
