//! Changes objects: by PUT, patch or apply, through the object itself or a subresource.

use std::sync::Arc;

use super::{
    TRIES, Write, as_said, invalid_object, once_each_owner, owners, settled, store_failure,
};
use crate::admission::Operation;
use crate::api::custom;
use crate::api::reply::Reply;
use crate::api::verbs::delete;
use crate::meta::strconv::parse_uint;
use crate::meta::{At, Errors, Path, Status};
use crate::resources::{cluster, forms, metadata};
use crate::schema::Value;
use crate::schema::decode::Decoded;
use crate::store::{Entry, Expect, StoreError};

impl Write<'_> {
    /// Changes the named object to the result of `change` (both in the request's version), and updates its
    /// managedFields.
    ///
    /// # Errors
    /// 404, 409, 422 as upstream, and the errors of `change`.
    pub async fn update<D: Into<Decoded>>(
        &mut self,
        code: u16,
        mut change: impl FnMut(&Value) -> Result<D, Status>,
    ) -> Result<Reply, Status> {
        let mut twice = None;
        let known = self.warnings.len();
        let reply = self
            .rewrite(code, |write, old| {
                let mut new: Decoded = change(&old)?.into();
                // Upstream looks at patched objects only after admission.
                let when = match write.target.info.verb.as_str() {
                    "patch" => " after mutating admission happens",
                    _ => "",
                };
                twice = once_each_owner(&mut new.value, when);
                owners::track(write, Some(old), &mut new.value);
                Ok(new)
            })
            .await;
        // It precedes those of the kind.
        self.warnings.splice(known..known, twice);
        reply
    }

    /// Changes the named object to the result of `change`, including its managedFields.
    ///
    /// # Errors
    /// As [`Write::update`].
    pub(in crate::api) async fn rewrite<D: Into<Decoded>>(
        &mut self,
        code: u16,
        mut change: impl FnMut(&Self, Value) -> Result<D, Status>,
    ) -> Result<Reply, Status> {
        let target = self.target;
        target.check_key(&target.info.name)?;
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

    /// A PUT: the body replaces the object, or creates it if the kind allows that.
    ///
    /// # Errors
    /// 400 for another name, 404, 409, 422.
    pub async fn put(&mut self, mut said: Decoded) -> Result<Reply, Status> {
        let target = self.target;
        let object = &mut said.value;
        let url_name = &target.info.name;
        self.convert(object)?;
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
        target.check_key(url_name)?;
        let may_create =
            target.info.subresource.is_empty() && target.resource.rules.create_on_update;
        if may_create {
            return self.create_or_update(said).await;
        }
        self.update(200, move |_| Ok(said.clone())).await
    }

    /// Updates the object, or creates it if there is none; decides again if another client created or deleted it
    /// meanwhile.
    async fn create_or_update(&mut self, said: Decoded) -> Result<Reply, Status> {
        let target = self.target;
        let key = target.resource.key(target.namespace(), &target.info.name);
        let is_there = || target.cluster.store.head(&key).is_some();
        let mut tries = TRIES;
        loop {
            let (found, warned) = (is_there(), self.warnings.len());
            let result = if found {
                self.update(200, |_| Ok(said.clone())).await
            } else {
                let meta = said.value.at("metadata");
                let (uid, version) = (meta.str("uid"), meta.str("resourceVersion"));
                if !uid.is_empty() {
                    return Err(self.wrong_uid(uid, ""));
                }
                // A resourceVersion does not prevent it, but must be valid.
                if !version.is_empty() {
                    parse_uint(version).map_err(Status::unclassified)?;
                }
                self.create(said.clone()).await
            };
            tries -= 1;
            match result {
                Err(status)
                    if matches!(status.reason, "AlreadyExists" | "NotFound")
                        && is_there() != found
                        && tries > 0 =>
                {
                    self.warnings.truncate(warned);
                }
                result => return result,
            }
        }
    }

    pub(in crate::api) fn wrong_uid(&self, asked: &str, found: &str) -> Status {
        // A dry run does not reach the storage, which adds the prefix of all keys.
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        self.invalid_object(self.options.dry_run, &why)
    }

    /// The error of upstream's storage for an object that fails a precondition.
    pub(in crate::api) fn invalid_object(&self, short_key: bool, why: &str) -> Status {
        let target = self.target;
        let key = target.resource.key(target.namespace(), &target.info.name);
        invalid_object(target.about(&target.info.name), &key, short_key, why)
    }

    /// One attempt; `None` after a conflict.
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
        self.is_of_this_object(&new, &old, entry)?;
        let main = target.info.subresource.is_empty();
        if resource.is_custom() && main {
            custom::check_type(&new, target)?;
        }
        // Admission sees the sent object, including fields that this path does not change.
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
            (rules.status.prepare)(&mut new, &old, &self.cx());
        }
        owners::take(&mut new);
        owners::put(&mut new, owned);
        self.raise_generation(&mut new, &old, &emptied);
        self.tidy(&mut new);
        owners::keep_times(&mut new, &old);
        let errors = as_said(&new, &emptied, |new| self.judge_update(new, &old));
        if !errors.is_empty() {
            return Err(Status::invalid(target.about_kind(name), &errors));
        }
        if main {
            self.warnings
                .extend((rules.warnings)(&new, Some(&old), &target.cx()));
        } else if target.info.subresource == "status" {
            self.warnings.extend((rules.status.warnings)(&new));
        }
        let (mut new, effects) = self.run_validation(Operation::Update, new, Some(&old), name)?;
        forms::settle(&mut new, resource, target.version());
        let ends = delete::ends_by(&new, rules.deletion.marked_first);
        let version = target.version();
        if new == old && !ends && forms::is_stored_so(&new, resource, version, entry) {
            settled(target, entry.rev).await?;
            return Ok(Some(Reply::Entry(code, entry.clone())));
        }
        if self.options.dry_run {
            let mut shown = forms::unwritten(new, resource, version);
            cluster::set_revision(&mut shown, entry.rev);
            return Ok(Some(Reply::Object(code, self.shown(shown))));
        }
        let expect = Expect::Revision(entry.rev);
        let change = self.change(entry.key.clone(), expect, (!ends).then_some(&new));
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

    /// Rejects an object with another uid, or with another resourceVersion.
    fn is_of_this_object(&self, new: &Value, old: &Value, entry: &Entry) -> Result<(), Status> {
        let target = self.target;
        let name = target.info.name.as_str();
        let (meta, old_uid) = (new.at("metadata"), old.at("metadata").str("uid"));
        let (uid, version) = (meta.str("uid"), meta.str("resourceVersion"));
        let patching = target.info.verb == "patch";
        if !uid.is_empty() && uid != old_uid && !patching {
            return Err(self.wrong_uid(uid, old_uid));
        }
        let rev = match version {
            "" => 0,
            _ => parse_uint(version).map_err(Status::unclassified)?,
        };
        if rev == 0 && !target.resource.rules.unconditional_update {
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
        Ok(())
    }

    /// Validates an object that replaces `old`.
    fn judge_update(&self, new: &Value, old: &Value) -> Errors {
        let (target, rules) = (self.target, &self.target.resource.rules);
        let mut errors = Errors::default();
        let (at, was) = (At::root(new), At::root(old));
        metadata::validate_any_update(
            at.field("metadata"),
            was.field("metadata"),
            &target.resource,
            &mut errors,
        );
        if target.info.subresource.is_empty() {
            (rules.validate)(at, Some(was), &self.cx(), &mut errors);
        } else {
            (rules.status.validate)(at, was, &self.cx(), &mut errors);
        }
        if !rules.repeats_causes {
            errors.once();
        }
        errors
    }
}
