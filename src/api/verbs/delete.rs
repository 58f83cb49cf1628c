//! DELETE of one object and of a collection: preconditions, finalizers, propagation.

mod options;

use std::sync::Arc;

use self::options::{FOREGROUND, ORPHAN, UNREAD, UNSAFE, refused};
use super::write::Write;
use super::{settled, store_failure};
use crate::admission::Operation;
use crate::api::reply::{List, Reply};
use crate::auth::Decision;
use crate::meta::{Errors, Path, Status, time};
use crate::resources::{Dependents, forms, record};
use crate::schema::{Object, Value};
use crate::store::{Change, Entry, Expect, StoreError};

pub use self::options::DeleteOptions;

/// Whether writing this object completes its deletion: it is being deleted and has no finalizers left. `marked_first`
/// kinds also have finalizers in their spec.
pub fn ends_by(object: &Value, marked_first: bool) -> bool {
    let meta = object.at("metadata");
    meta.get("deletionTimestamp").is_some()
        && meta.list("finalizers").is_empty()
        && (!marked_first || object.at("spec").list("finalizers").is_empty())
        && meta
            .at("deletionGracePeriodSeconds")
            .as_int()
            .is_none_or(|grace| grace == 0)
}

/// The new grace period and end of an object that is being deleted with a grace period of `before` seconds, if `asked`
/// is shorter. Follows BeforeDelete of k8s.io/apiserver/pkg/registry/rest/delete.go.
fn sooner(object: &Value, before: i64, asked: i64, now: i64) -> Option<(i64, i64)> {
    let asked = if asked < 0 { 1 } else { asked };
    if asked >= before {
        return None;
    }
    let ends = time::parse(object.at("metadata").str("deletionTimestamp")).unwrap_or(now);
    let at = ends - before + asked;
    Some(match at < now {
        // The shorter grace period is over already.
        true => (asked.min(1), now),
        false => (asked, at),
    })
}

/// The finalizers of an object after its deletion with a propagation policy.
fn finalizers(old: &Value, options: &DeleteOptions, dependents: Dependents) -> Vec<Value> {
    let had = old.at("metadata").list("finalizers");
    let has = |name: &str| had.iter().any(|finalizer| finalizer.as_str() == Some(name));
    let (orphan, foreground) = match (options.orphan, options.propagation.as_deref()) {
        _ if dependents == Dependents::Unsupported => (false, false),
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        (None, None) if has(ORPHAN) || has(FOREGROUND) => (has(ORPHAN), has(FOREGROUND)),
        (None, None) => (dependents == Dependents::Orphaned, false),
    };
    let mut out: Vec<Value> = had
        .iter()
        .filter(|finalizer| !matches!(finalizer.as_str(), Some(ORPHAN | FOREGROUND)))
        .cloned()
        .collect();
    if orphan {
        out.push(ORPHAN.into());
    }
    if foreground {
        out.push(FOREGROUND.into());
    }
    out
}

impl Write<'_> {
    /// Deletes the named object.
    ///
    /// # Errors
    /// 404, 409 for preconditions, and the errors of admission.
    pub async fn delete(&mut self, options: &DeleteOptions) -> Result<Reply, Status> {
        let target = self.target;
        let name = target.info.name.clone();
        let key = target.resource.key(target.namespace(), &name);
        if options.unreadable {
            self.may_delete_unread()?;
        }
        if let Some(why) = (target.resource.rules.deletion.kept)(&name) {
            return Err(Status::forbidden(target.about(&name), why));
        }
        loop {
            let Some(entry) = target.cluster.store.head(&key) else {
                return Err(Status::not_found(target.about(&name)));
            };
            if options.unreadable {
                let why =
                    "unsafe deletion is not allowed because the object is decodable from storage";
                return Err(self.invalid_object(false, why));
            }
            if let Some(done) = self.try_delete(&entry, &name, options).await? {
                return Ok(self.answer(done, &name, options));
            }
        }
    }

    /// Deleting an object that cannot be decoded requires another permission.
    fn may_delete_unread(&self) -> Result<(), Status> {
        let target = self.target;
        let attributes = crate::auth::Attributes {
            verb: UNSAFE,
            ..target.info.attributes(&target.query)
        };
        let why = match self.authorizer.authorize(&target.user, &attributes) {
            Decision::Allow(_) => return Ok(()),
            Decision::NoOpinion(why) | Decision::Deny(why) => why,
        };
        let why = format!("not permitted to do \"{UNSAFE}\", reason: {why}");
        Err(Status::forbidden(target.about(&target.info.name), &why))
    }

    fn answer(&self, done: Deleted, name: &str, options: &DeleteOptions) -> Reply {
        let target = self.target;
        match done {
            // With `orphanDependents: false` the status code says that dependents are not deleted yet.
            Deleted::Stays(object) if options.orphan == Some(false) => Reply::Object(202, object),
            Deleted::Stays(object) => Reply::Object(200, object),
            Deleted::Gone(object) if target.resource.rules.deletion.returns_object => {
                Reply::Object(200, object)
            }
            Deleted::Gone(object) => {
                let mut details = Object::new();
                details.insert("name", name);
                if !target.resource.group.is_empty() {
                    details.insert("group", &target.resource.group);
                }
                details.insert("kind", &target.resource.plural);
                details.insert("uid", object.at("metadata").str("uid"));
                Reply::Status(Status::success(Some(details.into())))
            }
        }
    }

    /// One attempt; `None` after a conflict.
    async fn try_delete(
        &mut self,
        entry: &Arc<Entry>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<Deleted>, Status> {
        let target = self.target;
        let (resource, rules) = (&target.resource, &target.resource.rules);
        let old = forms::working(entry, resource, target.version());
        options.check(target, entry, old.at("metadata").str("uid"))?;
        self.mutate(Operation::Delete, Value::Null, Some(&old), name)
            .await?;
        let deleting = old.at("metadata").get("deletionTimestamp").is_some();
        let grace = (rules.deletion.grace)(&old, options.grace);
        // An object that is only marked at first is not deleted before its `spec.finalizers` are gone.
        if rules.deletion.marked_first && deleting && !old.at("spec").list("finalizers").is_empty()
        {
            settled(target, entry.rev).await?;
            let shown = forms::versioned(entry, entry.rev, resource, target.version());
            return Ok(Some(Deleted::Stays(shown)));
        }
        let before = old.at("metadata").at("deletionGracePeriodSeconds").as_int();
        // An object without remaining grace period only waits for its finalizers, which a deletion may still change.
        let before = before.filter(|before| deleting && grace.is_some() && *before != 0);
        // For an object that is being deleted already, only the grace period can be shortened.
        let sooner = before.and_then(|before| sooner(&old, before, options.grace?, target.now));
        if before.is_some() && sooner.is_none() {
            settled(target, entry.rev).await?;
            let shown = forms::versioned(entry, entry.rev, resource, target.version());
            return Ok(Some(Deleted::Stays(shown)));
        }
        let (_, effects) = self.run_validation(Operation::Delete, Value::Null, Some(&old), name)?;
        let finalizers = finalizers(&old, options, rules.deletion.dependents);
        let mut new = old.clone();
        let meta = new.object_mut().object_mut("metadata");
        if finalizers.is_empty() {
            meta.remove("finalizers");
        } else {
            meta.insert("finalizers", finalizers);
        }
        if !deleting {
            let held = grace.unwrap_or(0);
            meta.insert("deletionTimestamp", time::print(target.now + held));
            meta.insert("deletionGracePeriodSeconds", held);
            if let Some(generation) = meta
                .get("generation")
                .and_then(Value::as_int)
                .filter(|generation| *generation > 0)
            {
                meta.insert("generation", generation + 1);
            }
        } else if let Some((held, at)) = sooner {
            meta.insert("deletionGracePeriodSeconds", held);
            meta.insert("deletionTimestamp", time::print(at));
        } else if grace.is_none() {
            // What was marked otherwise than here, as definitions are, has no time left from now on.
            meta.insert("deletionGracePeriodSeconds", 0i64);
        }
        (rules.deletion.prepare)(&mut new, &target.cx());
        forms::tidy(&mut new, resource);
        let ends = ends_by(&new, rules.deletion.marked_first)
            && (deleting || !rules.deletion.marked_first);
        if options.dry_run || self.options.dry_run {
            let shown = if ends && grace.is_none() { old } else { new };
            let shown = forms::from_working(shown, resource, target.version());
            return Ok(Some(if ends {
                Deleted::Gone(shown)
            } else {
                Deleted::Stays(shown)
            }));
        }
        if !ends && new == old {
            settled(target, entry.rev).await?;
            return Ok(Some(Deleted::Stays(forms::versioned(
                entry,
                entry.rev,
                resource,
                target.version(),
            ))));
        }
        let change = |rev, put| Change {
            resource: resource.prefix.clone(),
            key: entry.key.clone(),
            expect: Expect::Revision(rev),
            put,
            ttl: None,
        };
        let mut rev = entry.rev;
        if ends && grace.is_some() && new != old {
            // An object with a grace period is marked before it is removed, so that watches show the grace period.
            let mark = change(rev, Some(record::encode(resource, &new)));
            match self.commit(mark, Vec::new()).await {
                Ok((marked, _)) => rev = marked,
                Err(StoreError::Conflict { .. }) => return Ok(None),
                Err(error) => return Err(store_failure(&error)),
            }
        }
        let change = change(rev, (!ends).then(|| record::encode(resource, &new)));
        let mut along = effects;
        if ends {
            along.extend((rules.effects)(None, Some(&old), &self.cx())?);
        }
        let marked = rev != entry.rev;
        let done = match self.commit(change, along).await {
            // Somebody who saw the mark removed it first, as a node does: it is gone, as requested.
            Err(StoreError::Conflict { current: None, .. }) if marked => Ok(rev),
            other => other.map(|(rev, _)| rev),
        };
        match done {
            Ok(rev) => {
                let mut shown = if ends && grace.is_none() { old } else { new };
                crate::resources::cluster::set_revision(&mut shown, rev);
                let shown = forms::from_working(shown, resource, target.version());
                Ok(Some(if ends {
                    Deleted::Gone(shown)
                } else {
                    Deleted::Stays(shown)
                }))
            }
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_failure(&error)),
        }
    }

    /// Deletes every selected object, one by one in key order, and returns the list of them.
    ///
    /// # Errors
    /// Those of lists, and of the deletion of each object.
    pub async fn delete_collection(&mut self, options: &DeleteOptions) -> Result<Reply, Status> {
        if options.unreadable {
            let mut errors = Errors::default();
            let why = "is not allowed with DELETECOLLECTION, try again after removing the option";
            errors.invalid(Path::ROOT.field(UNREAD), true, why);
            return Err(refused(&errors));
        }
        let Reply::List(page) = super::list::to_delete(self.target).await? else {
            return Err(Status::internal("a list answered something else"));
        };
        for entry in &page.entries {
            let name = self.target.resource.split_key(&entry.key).1.to_owned();
            self.target.check_key(&name)?;
            loop {
                let Some(current) = self.target.cluster.store.head(&entry.key) else {
                    break;
                };
                if self.try_delete(&current, &name, options).await?.is_some() {
                    break;
                }
            }
        }
        Ok(Reply::List(List {
            remaining: page.remaining,
            ..page
        }))
    }
}

/// The result of a deletion.
enum Deleted {
    /// It is gone; this was its last state.
    Gone(Value),
    /// It has finalizers or a grace period: it is only marked.
    Stays(Value),
}
