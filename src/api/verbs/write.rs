//! Create, update and patch: one pipeline for all kinds, run again on every lost race.
//!
//! decode, default, reset what clients may not set, mutating admission, the kind's preparation, validation of
//! (new, old), validating admission, commit.

use ring::rand::SecureRandom as _;

use super::{Target, store_failure};
use crate::admission::{Attributes, Operation, Plugin};
use crate::api::query::{WriteOptions, parse_uint};
use crate::api::reply::{Reply, convert_from_storage, versioned};
use crate::meta::status::About;
use crate::meta::{At, Errors, Path, Status, time};
use crate::resources::{Cx, Generation, MetaOnStatus, record};
use crate::schema::{Object, Value, decode};
use crate::store::{Change, Entry, Expect, StoreError};
use std::sync::Arc;

/// How often a lost race is run again before the client is told.
const TRIES: usize = 20;

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
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// What became of an attempt to create an object.
enum Attempt {
    /// It is there.
    Made(Box<Reply>),
    /// The name is another object's.
    Taken(String),
    /// What goes along with it was changed meanwhile. The name.
    Lost(String),
}

/// Characters of generated names: no vowels, so that no words come out.
const SUFFIX: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Random bytes of the operating system.
fn random(bytes: &mut [u8]) {
    // The system's generator fails only where there is none; names and uids then stay unique by the store's check.
    let _ = ring::rand::SystemRandom::new().fill(bytes);
}

/// A new uid.
pub fn new_uid() -> String {
    let mut b = [0u8; 16];
    random(&mut b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A name made from a prefix: cut so that five characters fit behind it.
fn generated(prefix: &str) -> String {
    let mut bytes = [0u8; 5];
    random(&mut bytes);
    let mut end = prefix.len().min(58);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let suffix: String = bytes
        .iter()
        .map(|byte| char::from(SUFFIX[usize::from(*byte) % SUFFIX.len()]))
        .collect();
    format!("{}{suffix}", &prefix[..end])
}

impl Write<'_> {
    /// Makes an object of what the body said (in the request's version).
    ///
    /// # Errors
    /// 400, 403, 409, 422 as upstream.
    pub async fn create(&mut self, object: Value) -> Result<Reply, Status> {
        let target = self.target;
        let mut object = object;
        self.place(&mut object)?;
        let warned = self.warnings.len();
        let (mut names, mut races) = (0, 0);
        loop {
            self.warnings.truncate(warned);
            match self.try_create(object.clone()).await? {
                Attempt::Made(reply) => return Ok(*reply),
                // A generated name that was taken is made again, as upstream does.
                Attempt::Taken(_) if object.at("metadata").str("name").is_empty() && names < 8 => {
                    names += 1;
                }
                Attempt::Taken(name) => return Err(Status::already_exists(target.about(&name))),
                Attempt::Lost(_) if races < TRIES => races += 1,
                Attempt::Lost(name) => return Err(Status::modified(target.about(&name))),
            }
        }
    }

    /// What rules may know of this write.
    pub(super) fn cx(&self) -> Cx<'_> {
        Cx {
            dry_run: self.options.dry_run,
            ..self.target.cx()
        }
    }

    /// Puts the object into the request's namespace, or refuses another one.
    fn place(&self, object: &mut Value) -> Result<(), Status> {
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

    async fn try_create(&mut self, mut object: Value) -> Result<Attempt, Status> {
        let target = self.target;
        let (resource, version) = (&target.resource, target.version());
        let rules = &resource.rules;
        let asked_version = object.at("metadata").str("resourceVersion").to_owned();
        let meta = object.object_mut().object_mut("metadata");
        for key in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
            "resourceVersion",
        ] {
            meta.remove(key);
        }
        if rules.generation != Generation::None {
            meta.remove("generation");
        }
        (rules.defaults)(&mut object, &target.cx());
        let mut object = self.stored(object);
        let name = object.at("metadata").str("name").to_owned();
        object = self.mutate(Operation::Create, object, None, &name)?;
        let meta = object.object_mut().object_mut("metadata");
        meta.insert("uid", new_uid());
        meta.insert("creationTimestamp", time::print(target.now));
        if matches!(
            rules.generation,
            Generation::Spec | Generation::AllButStatus
        ) {
            meta.insert("generation", 1i64);
        }
        let prefix = meta
            .get("generateName")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if name.is_empty() && !prefix.is_empty() {
            meta.insert("name", generated(&prefix));
        }
        let along = (rules.effects)(Some(&mut object), None, &self.cx())?;
        if version.has_status() && !rules.status_at_creation {
            object.remove("status");
        }
        (rules.prepare_create)(&mut object, &self.cx());
        self.tidy(&mut object);
        let name = object.at("metadata").str("name").to_owned();
        let mut errors = Errors::default();
        let at = At::root(&object);
        crate::resources::metadata::validate(
            at.field("metadata"),
            resource.namespaced,
            rules.name,
            &mut errors,
        );
        (rules.validate)(at, None, &target.cx(), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(target.about_kind(&name), &errors));
        }
        self.warnings
            .extend((rules.warnings)(&object, None, &target.cx()));
        let (object, effects) = self.run_validation(Operation::Create, object, None, &name)?;
        if asked_version.parse::<u64>().is_ok_and(|rev| rev != 0) {
            return Err(Status::unclassified(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let key = resource.key(target.namespace(), &name);
        if self.options.dry_run {
            return Ok(match target.cluster.store.head(&key) {
                Some(_) => Attempt::Taken(name),
                None => Attempt::Made(Box::new(Reply::Object(201, self.shown(object)))),
            });
        }
        let ttl = rules.ttl.map(|_| target.cluster.settings.event_ttl);
        let mut changes = vec![Change {
            resource: resource.prefix.clone(),
            key: key.clone(),
            expect: Expect::Absent,
            put: Some(record::encode(resource, &object)),
            ttl,
        }];
        changes.extend(along);
        changes.extend(effects);
        match target.cluster.store.commit(changes).await {
            Ok(committed) => {
                let reply = Reply::Entry(201, committed.entries[0].clone());
                Ok(Attempt::Made(Box::new(reply)))
            }
            Err(StoreError::Conflict { key: lost, .. }) if lost == key => Ok(Attempt::Taken(name)),
            // Somebody else's change of what goes along with ours: decide again.
            Err(StoreError::Conflict { .. }) => Ok(Attempt::Lost(name)),
            Err(error) => Err(store_failure(&error)),
        }
    }

    /// Changes the named object into what `change` makes of it (both in the request's version).
    ///
    /// # Errors
    /// 404, 409, 422 as upstream, and what `change` refuses.
    pub async fn update(
        &mut self,
        code: u16,
        mut change: impl FnMut(&Value) -> Result<Value, Status>,
    ) -> Result<Reply, Status> {
        let target = self.target;
        let key = target.resource.key(target.namespace(), &target.info.name);
        let warned = self.warnings.len();
        for _ in 0..TRIES {
            self.warnings.truncate(warned);
            let Some(entry) = target.cluster.store.head(&key) else {
                return Err(Status::not_found(target.about(&target.info.name)));
            };
            let old = versioned(&entry, entry.rev, &target.resource, target.version());
            let new = change(&old)?;
            let conditional = !matches!(new.at("metadata").str("resourceVersion"), "" | "0");
            match self.try_update(code, &entry, new).await? {
                Some(reply) => return Ok(reply),
                None if conditional && code != 0 && self.said_version(&entry) => {
                    return Err(Status::modified(target.about(&target.info.name)));
                }
                None => {}
            }
        }
        Err(Status::modified(target.about(&target.info.name)))
    }

    /// Whether the object was changed since `entry` was read.
    fn said_version(&self, entry: &Entry) -> bool {
        self.target
            .cluster
            .store
            .head(&entry.key)
            .is_none_or(|now| now.rev != entry.rev)
    }

    /// A PUT: the body is the new object, or makes a missing one where the kind allows that.
    ///
    /// # Errors
    /// 400 for another name, 404, 409, 422.
    pub async fn put(&mut self, mut object: Value) -> Result<Reply, Status> {
        let target = self.target;
        let url_name = &target.info.name;
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
        self.place(&mut object)?;
        (target.resource.rules.defaults)(&mut object, &target.cx());
        let key = target.resource.key(target.namespace(), url_name);
        if target.info.subresource.is_empty()
            && target.resource.rules.create_on_update
            && target.cluster.store.head(&key).is_none()
        {
            let uid = object.at("metadata").str("uid").to_owned();
            if !uid.is_empty() {
                return Err(self.wrong_uid(&uid, ""));
            }
            object
                .object_mut()
                .object_mut("metadata")
                .remove("resourceVersion");
            return self.create(object).await;
        }
        self.update(200, move |_| Ok(object.clone())).await
    }

    fn wrong_uid(&self, asked: &str, found: &str) -> Status {
        let target = self.target;
        let key = target.resource.key(target.namespace(), &target.info.name);
        Status::conflict(
            target.about(&target.info.name),
            &format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
            ),
        )
    }

    /// One attempt; `None` is a lost race.
    async fn try_update(
        &mut self,
        code: u16,
        entry: &Arc<Entry>,
        new: Value,
    ) -> Result<Option<Reply>, Status> {
        let target = self.target;
        let (resource, rules) = (&target.resource, &target.resource.rules);
        let name = target.info.name.as_str();
        let old = crate::resources::cluster::object(entry);
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
        if rev == 0 && main && !rules.unconditional_update && !patching {
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
        let mut new = self.stored(new);
        self.carry_over(&mut new, &old);
        new = self.mutate(Operation::Update, new, Some(&old), name)?;
        let mut along = Vec::new();
        if main {
            along = (rules.effects)(Some(&mut new), Some(&old), &self.cx())?;
            (rules.prepare_update)(&mut new, &old, &target.cx());
        } else {
            (rules.prepare_status)(&mut new, &old, &target.cx());
        }
        self.raise_generation(&mut new, &old);
        self.tidy(&mut new);
        let mut errors = Errors::default();
        let (at, was) = (At::root(&new), At::root(&old));
        crate::resources::metadata::validate_update(
            at.field("metadata"),
            was.field("metadata"),
            &mut errors,
        );
        if main {
            (rules.validate)(at, Some(was), &target.cx(), &mut errors);
        } else {
            (rules.validate_status)(at, was, &target.cx(), &mut errors);
        }
        if !errors.is_empty() {
            return Err(Status::invalid(target.about_kind(name), &errors));
        }
        if main {
            self.warnings
                .extend((rules.warnings)(&new, Some(&old), &target.cx()));
        }
        let (new, effects) = self.run_validation(Operation::Update, new, Some(&old), name)?;
        let ends = super::delete::ends_by(&new);
        if same(&new, &old) && !ends {
            return Ok(Some(Reply::Entry(code, entry.clone())));
        }
        if self.options.dry_run {
            let mut shown = new;
            shown
                .object_mut()
                .object_mut("metadata")
                .insert("resourceVersion", entry.rev.to_string());
            return Ok(Some(Reply::Object(code, self.shown(shown))));
        }
        let put = (!ends).then(|| record::encode(resource, &new));
        let ttl = rules.ttl.map(|_| target.cluster.settings.event_ttl);
        let mut changes = vec![Change {
            resource: resource.prefix.clone(),
            key: entry.key.clone(),
            expect: Expect::Revision(entry.rev),
            put,
            ttl,
        }];
        if ends {
            along = (rules.effects)(None, Some(&old), &self.cx())?;
        }
        changes.extend(along);
        changes.extend(effects);
        match target.cluster.store.commit(changes).await {
            Ok(_) if ends => {
                let mut shown = new;
                shown
                    .object_mut()
                    .object_mut("metadata")
                    .insert("resourceVersion", entry.rev.to_string());
                Ok(Some(Reply::Object(code, self.shown(shown))))
            }
            Ok(committed) => Ok(Some(Reply::Entry(code, committed.entries[0].clone()))),
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
            match old_meta.get(key) {
                Some(value) => meta.insert(key, value.clone()),
                None => meta.remove(key),
            };
        }
        for key in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            if meta.get(key).is_none_or(Value::is_null)
                && let Some(value) = old_meta.get(key)
            {
                meta.insert(key, value.clone());
            }
        }
        if target.info.subresource.is_empty() {
            if target.version().has_status() {
                match old.get("status") {
                    Some(status) => new.set("status", status),
                    None => drop(new.remove("status")),
                }
            }
        } else if target.info.subresource == "status" {
            let status = new.remove("status");
            let said = new.remove("metadata").unwrap_or_default();
            *new = old.clone();
            match status {
                Some(status) => new.set("status", status),
                None => drop(new.remove("status")),
            }
            if target.resource.rules.meta_on_status == MetaOnStatus::Taken {
                new.set("metadata", said);
            }
        }
    }

    fn raise_generation(&self, new: &mut Value, old: &Value) {
        let raises = match self.target.resource.rules.generation {
            Generation::None | Generation::Own => return,
            Generation::Spec => new.at("spec") != old.at("spec"),
            Generation::AllButStatus => {
                let rest = |value: &Value| -> Object {
                    value
                        .as_object()
                        .into_iter()
                        .flat_map(|object| object.iter())
                        .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"))
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect()
                };
                rest(new) != rest(old)
            }
        };
        let generation = old.at("metadata").int("generation");
        if raises {
            new.object_mut()
                .object_mut("metadata")
                .insert("generation", generation + 1);
        }
    }

    fn stored(&self, object: Value) -> Value {
        let target = self.target;
        let mut object = match target.version().conversion {
            Some(conversion) => (conversion.to_storage)(object),
            None => object,
        };
        object.set(
            "apiVersion",
            target
                .resource
                .api_version(&target.resource.storage_version),
        );
        self.tidy(&mut object);
        object
    }

    fn shown(&self, object: Value) -> Value {
        convert_from_storage(object, &self.target.resource, self.target.version())
    }

    fn tidy(&self, object: &mut Value) {
        if let Some(storage) = self.target.resource.storage() {
            decode::tidy(object, &storage.schema);
        }
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
            subresource: &target.info.subresource,
            namespace: target.namespace(),
            name,
            object,
            old,
            options: self.options_object,
            dry_run: self.options.dry_run,
            now: target.now,
            warnings: Vec::new(),
            effects: Vec::new(),
        }
    }

    fn mutate(
        &mut self,
        operation: Operation,
        object: Value,
        old: Option<&Value>,
        name: &str,
    ) -> Result<Value, Status> {
        let mut attributes = self.attributes(operation, object, old, name);
        for plugin in self.plugins {
            plugin.mutate(&mut attributes)?;
        }
        let (object, warnings) = (attributes.object, attributes.warnings);
        self.warnings.extend(warnings);
        Ok(object)
    }

    /// Runs validating admission; answers the object and what goes into the same commit.
    pub(super) fn run_validation(
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

/// Whether two objects differ in nothing (resourceVersion aside).
fn same(new: &Value, old: &Value) -> bool {
    new == old
}

/// The refusal of a body that names no object.
pub fn nameless(about: About<'_>) -> Status {
    Status::bad_request(format!(
        "the name of the object ({} based on URL) was undeterminable: name must be provided",
        about.name
    ))
}
