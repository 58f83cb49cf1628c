//! Creates objects.

use super::{Attempt, TRIES, Write, as_said, once_each_owner, owners, settled, store_failure};
use crate::admission::Operation;
use crate::api::custom;
use crate::api::reply::Reply;
use crate::meta::{At, Errors, Status, names, time};
use crate::resources::{Cx, Generation, forms, metadata};
use crate::schema::Value;
use crate::schema::decode::{self, Decoded};
use crate::store::{Change, Expect, StoreError};

impl Write<'_> {
    /// Creates an object from a body (in the request's version).
    ///
    /// # Errors
    /// 400, 403, 409, 422 as upstream.
    pub async fn create(&mut self, said: Decoded) -> Result<Reply, Status> {
        let target = self.target;
        let mut said = said;
        let object = &mut said.value;
        self.convert(object)?;
        self.place(object)?;
        self.warnings.extend(once_each_owner(object, ""));
        let name = object.at("metadata").str("name").to_owned();
        if let Some(refusal) = custom::forbid_creation(target, &name) {
            return Err(refusal);
        }
        if target.resource.is_custom() {
            custom::check_type(object, target)?;
        }
        let warned = self.warnings.len();
        let (mut taken, mut races) = (0, 0);
        loop {
            self.warnings.truncate(warned);
            match self.try_create(said.clone(), None).await? {
                Attempt::Made(reply) => return Ok(*reply),
                // If a generated name is taken, another one is generated, as upstream does.
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

    /// One attempt to create an object. `applied` is the metadata in the body of an apply, whose object is defaulted and
    /// has managedFields already.
    pub(in crate::api::verbs) async fn try_create(
        &mut self,
        said: impl Into<Decoded>,
        applied: Option<Value>,
    ) -> Result<Attempt, Status> {
        let owned = applied.is_some();
        let Decoded {
            value: mut object,
            emptied,
            ..
        } = said.into();
        let target = self.target;
        let (resource, version) = (&target.resource, target.version());
        let rules = &resource.rules;
        let asked_version = object.at("metadata").str("resourceVersion").to_owned();
        let sent = applied.unwrap_or_else(|| object.at("metadata").clone());
        self.forget_what_is_not_said(&mut object, owned);
        (rules.defaults)(&mut object, &target.cx());
        if !resource.is_custom() {
            decode::tidy_json(&mut object, &version.schema);
        }
        if !owned {
            owners::track(self, None, &mut object);
        }
        let mut object = self.stored(object);
        let name = object.at("metadata").str("name").to_owned();
        object = self.mutate(Operation::Create, object, None, &name).await?;
        self.identify(&mut object, &name);
        let along = (rules.effects)(Some(&mut object), None, &self.cx())?;
        if version.has_status() && !rules.status.kept_at_creation {
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
        let errors = as_said(&object, &emptied, |object| self.judge_new(object));
        if !errors.is_empty() {
            return Err(Status::invalid(target.about_kind(&name), &errors));
        }
        self.warnings
            .extend((rules.warnings)(&object, None, &target.cx()));
        self.may_create()?;
        let (mut object, effects) = self.run_validation(Operation::Create, object, None, &name)?;
        forms::settle(&mut object, resource, version);
        forms::read_back(&mut object, version);
        if self.options.dry_run {
            // Only the storage, which a dry run does not reach, rejects a resourceVersion.
            if !asked_version.is_empty() {
                let meta = object.object_mut().object_mut("metadata");
                meta.insert_behind("uid", "resourceVersion", asked_version);
            }
            let key = resource.key(target.namespace(), &name);
            return Ok(match target.cluster.store.head(&key) {
                Some(_) => Attempt::Taken(name),
                None => {
                    let object = forms::unwritten(object, resource, version);
                    Attempt::Made(Box::new(Reply::Object(201, self.shown(object))))
                }
            });
        }
        // The result of an apply is stored like an update, whatever its resourceVersion.
        let by_create = target.info.verb == "create";
        if by_create && asked_version.parse::<u64>().is_ok_and(|rev| rev != 0) {
            return Err(Status::unclassified(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let along = along.into_iter().chain(effects).collect();
        self.commit_new(name, &object, along).await
    }

    /// Removes fields that clients may not set on a new object; `owned` if its managedFields are kept.
    fn forget_what_is_not_said(&self, object: &mut Value, owned: bool) {
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
        let generation = self.target.resource.rules.generation;
        if !matches!(generation, Generation::None | Generation::Own) {
            meta.remove("generation");
        }
    }

    /// Sets the uid, creation time and generation of a new object, and a name if only a prefix is given.
    fn identify(&self, object: &mut Value, name: &str) {
        let target = self.target;
        let meta = object.object_mut().object_mut("metadata");
        meta.insert("uid", names::new_uid());
        meta.insert("creationTimestamp", time::print(target.now));
        let rules = &target.resource.rules;
        if !matches!(rules.generation, Generation::None | Generation::Own) {
            meta.insert("generation", 1i64);
        }
        let prefix = meta
            .get("generateName")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if name.is_empty() && !prefix.is_empty() {
            meta.insert("name", (rules.naming.generate)(&prefix));
        }
    }

    /// Validates a new object.
    fn judge_new(&self, object: &Value) -> Errors {
        let (resource, rules) = (&self.target.resource, &self.target.resource.rules);
        let mut errors = Errors::default();
        let at = At::root(object);
        let judge_metadata = |errors: &mut Errors| {
            let meta = at.field("metadata");
            metadata::validate(meta, resource.namespaced, rules.naming.validate, errors);
            metadata::own_finalizers(meta, resource, errors);
        };
        if !rules.metadata_last {
            judge_metadata(&mut errors);
        }
        (rules.validate)(at, None, &self.cx(), &mut errors);
        if rules.metadata_last && errors.is_empty() {
            judge_metadata(&mut errors);
        }
        if errors.is_empty() {
            metadata::names_in_paths(at.field("metadata"), &mut errors);
        }
        if !rules.repeats_causes {
            errors.once();
        }
        errors
    }

    /// Commits a new object together with accompanying changes.
    async fn commit_new(
        &self,
        name: String,
        object: &Value,
        along: Vec<Change>,
    ) -> Result<Attempt, Status> {
        let target = self.target;
        let key = target.resource.key(target.namespace(), &name);
        let change = self.change(key.clone(), Expect::Absent, Some(object));
        match self.commit(change, along).await {
            Ok((_, made)) => Ok(Attempt::Made(Box::new(Reply::Entry(201, made)))),
            Err(StoreError::Conflict { key: lost, current }) if lost == key => {
                if let Some(current) = current {
                    settled(target, current.rev).await?;
                }
                Ok(Attempt::Taken(name))
            }
            // A key written in the same commit (e.g. a quota) was changed by another writer: retry.
            Err(StoreError::Conflict { .. }) => Ok(Attempt::Lost(name)),
            Err(error) => Err(store_failure(&error)),
        }
    }

    /// Creating an object by an update or an apply also requires the verb `create`.
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
}
