//! Computes field ownership after a write, and the result of an apply. Follows
//! sigs.k8s.io/structured-merge-diff/v6/merge and k8s.io/apimachinery/pkg/util/managedfields/internal.

mod conflicts;
mod versions;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use self::conflicts::{conflicts, yield_to};
use super::cap::cap;
use super::conflict::Conflict;
use super::element::same;
use super::entries::{Entry, Managed, Manager, Operation};
use super::merge::merge;
use super::set::Set;
use super::typing::Type;
use super::validate::validate;
use super::walk::{self, Changes};
use crate::schema::{Key, Schema, Value};

pub use self::versions::{OneVersion, Versions};

/// The updater that owns everything that existed before the first apply.
const BEFORE: &str = "before-first-apply";

/// Fields that are never owned.
static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// Selects the fields of a write that are tracked.
#[derive(Clone, Debug, Default)]
pub enum Filter {
    /// All.
    #[default]
    All,
    /// All except these and everything below them, because the write resets them.
    Except(Set),
}

impl Filter {
    fn keep(&self, set: Set) -> Set {
        match self {
            Filter::All => set,
            Filter::Except(_) if set.is_empty() => set,
            Filter::Except(reset) => set.recursive_difference(reset),
        }
    }
}

/// A write, as far as field ownership is concerned.
pub struct Writer<'a> {
    /// The versions of the kind.
    pub versions: &'a dyn Versions,
    /// The version of the request.
    pub api_version: &'a str,
    /// Its schema.
    pub schema: &'a Schema,
    /// The fields that are tracked.
    pub filter: &'a Filter,
    /// The same for its changes as seen in other versions.
    pub filter_elsewhere: &'a Filter,
    /// The field manager's name.
    pub manager: &'a str,
    /// The subresource; empty for the object itself.
    pub subresource: &'a str,
    /// The current time, in API format.
    pub now: &'a str,
}

/// Why an apply is rejected.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Other managers own fields that it would change.
    Conflicts(Vec<Conflict>),
    /// Another error, in upstream's words.
    Other(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Refusal::Other(why)
    }
}

impl Writer<'_> {
    fn root(&self) -> Type<'_> {
        Type::root(self.schema)
    }

    fn by(&self, name: &str, operation: Operation) -> Manager {
        Manager {
            name: if name.is_empty() { "unknown" } else { name }.into(),
            operation,
            api_version: self.api_version.into(),
            subresource: self.subresource.into(),
        }
    }

    /// The managedFields after a write that changed `old` to `new` (both in the writer's version, neither with
    /// managedFields). `created` is true if there was no object before: ownership is then tracked from the start,
    /// while an existing object without managedFields remains without.
    ///
    /// # Errors
    /// An object that cannot be converted to another manager's version.
    pub fn update(
        &self,
        old: &Value,
        new: &Value,
        managed: Managed,
        created: bool,
    ) -> Result<Managed, String> {
        if managed.entries.is_empty() && !created {
            return Ok(managed);
        }
        self.updated(old, new, managed, self.manager)
    }

    fn updated(
        &self,
        old: &Value,
        new: &Value,
        managed: Managed,
        name: &str,
    ) -> Result<Managed, String> {
        let mut managed = self.reconciled(managed, old)?;
        let changes = self.changes(old, new);
        let lost = self.overlaps(&managed, &changes, old, new, None)?;
        yield_to(&mut managed, lost);
        let set = changes.modified.union(changes.added).difference(&NOBODYS);
        if !set.is_empty() {
            let manager = self.by(name, Operation::Update);
            let set = match managed.take(&manager) {
                Some(before) => set.union(before.set),
                None => set,
            };
            managed.put(Entry {
                manager,
                time: Some(self.now.into()),
                set,
            });
        }
        cap(&mut managed);
        Ok(managed)
    }

    fn changes(&self, old: &Value, new: &Value) -> Changes {
        walk::compare(old, new, self.root()).filtered(|set| self.filter.keep(set))
    }

    /// The changes in another version; `None` if it is not served.
    fn changes_in(
        &self,
        version: &str,
        old: &Value,
        new: &Value,
    ) -> Result<Option<Changes>, String> {
        let Some(schema) = self.versions.schema(version)? else {
            return Ok(None);
        };
        let there = |object: &Value, which: &str| {
            self.translated(object, self.api_version, version, schema)
                .map_err(|why| format!("failed to convert {which} object: {why}"))
        };
        let (old, new) = (there(old, "old")?, there(new, "new")?);
        let changes = walk::compare(&old, &new, Type::root(schema));
        Ok(Some(
            changes.filtered(|set| self.filter_elsewhere.keep(set)),
        ))
    }

    /// An object converted to another version, validated with its schema.
    fn translated(
        &self,
        object: &Value,
        from: &str,
        to: &str,
        schema: &Schema,
    ) -> Result<Value, String> {
        let object = self.versions.convert(object, from, to)?;
        validate(&object, Type::root(schema), false)?;
        Ok(object)
    }

    /// The entries adapted to the current schemas; drops those of versions that are no longer served.
    fn reconciled(&self, managed: Managed, live: &Value) -> Result<Managed, String> {
        let mut out = Managed::default();
        let mut judged: Vec<Key> = Vec::new();
        for mut entry in managed.entries {
            let version = &entry.manager.api_version;
            let Some(schema) = self.schema_of(version)? else {
                continue;
            };
            if *version != self.api_version && !judged.contains(version) {
                self.translated(live, self.api_version, version, schema)?;
                judged.push(version.clone());
            }
            if let Some(set) = walk::reconciled(&entry.set, Type::root(schema)) {
                entry.set = set;
            }
            out.entries.push(entry);
        }
        Ok(out)
    }

    fn schema_of(&self, api_version: &str) -> Result<Option<&Schema>, String> {
        if api_version == self.api_version {
            return Ok(Some(self.schema));
        }
        self.versions.schema(api_version)
    }

    /// The result of an apply to `live` (in the writer's version, without managedFields): the new object, not yet
    /// decoded or defaulted, or `None` if nothing changes; and its managedFields.
    ///
    /// # Errors
    /// Conflicts, unless `force`; an object that does not match the schema.
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        managed: Managed,
        force: bool,
    ) -> Result<(Option<Value>, Managed), Refusal> {
        let mut managed = self.reconciled(managed, live)?;
        let own = self.by(self.manager, Operation::Apply);
        let mut merged = merge(live, applied, self.root());
        let said = walk::fields_of(applied, self.root());
        let set = self.filter.keep(said);
        let last = managed.take(&own);
        managed.put(Entry {
            manager: own.clone(),
            time: last.as_ref().and_then(|last| last.time.clone()),
            set,
        });
        if let Some(last) = &last {
            merged = self
                .pruned(merged, &managed, &own, last)
                .map_err(|why| format!("failed to prune fields: {why}"))?;
        }
        let changes = self.changes(live, &merged);
        let lost = self.overlaps(&managed, &changes, live, &merged, Some(&own))?;
        if !force {
            let conflicts = conflicts(&managed, &lost);
            if !conflicts.is_empty() {
                return Err(Refusal::Conflicts(conflicts));
            }
        }
        yield_to(&mut managed, lost);
        let changed = !same(live, &merged);
        if let Some(mut entry) = managed.take(&own) {
            entry.set = std::mem::take(&mut entry.set).difference(&NOBODYS);
            if changed {
                entry.time = Some(self.now.into());
            }
            if !entry.set.is_empty() {
                managed.put(entry);
            }
        }
        Ok((changed.then_some(merged), managed))
    }

    /// The first entry for an object that had none: it owns everything.
    ///
    /// # Errors
    /// The object does not match the schema.
    pub fn begin(&self, live: &Value, nothing: &Value) -> Result<Managed, String> {
        validate(live, self.root(), true)?;
        self.updated(nothing, live, Managed::default(), BEFORE)
    }

    /// The merged object without fields that its applier applied last time, omits now, and nobody else owns.
    fn pruned(
        &self,
        merged: Value,
        managed: &Managed,
        own: &Manager,
        last: &Entry,
    ) -> Result<Value, String> {
        let version = last.manager.api_version.as_str();
        if last.set.is_empty() {
            return Ok(merged);
        }
        let own = managed.get(own);
        // The usual case: nothing applied last time is omitted.
        if version == self.api_version && own.is_some_and(|own| last.set.is_subset(&own.set)) {
            return Ok(merged);
        }
        let Some(schema) = self.schema_of(version)? else {
            return Ok(merged);
        };
        let root = Type::root(schema);
        let to_last = |what: &str, why: String| {
            format!("failed to convert {what} object to last applied version: {why}")
        };
        let merged = self
            .converted(merged, self.api_version, version)
            .map_err(|why| to_last("merged", why))?;
        let last_set = walk::with_named(&last.set, Some(root));
        let pruned = walk::remove(&merged, &last_set, root);
        let (kept, at) = self
            .with_owned(&merged, pruned, version, managed)
            .map_err(|why| format!("failed add back owned items: {why}"))?;
        let kept = self.converted(kept, &at, version).map_err(|why| {
            let why = to_last("pruned", why);
            format!("failed add back dangling items: {why}")
        })?;
        // Restore what was removed along with it but had not been applied last time.
        let all = walk::with_named(&walk::fields_of(&merged, root), Some(root));
        let left = walk::with_named(&walk::fields_of(&kept, root), Some(root));
        let gone = all.difference(&left).intersection(&last_set);
        let pruned = walk::remove(&merged, &gone, root);
        self.converted(pruned, version, self.api_version)
    }

    fn converted(&self, object: Value, from: &str, to: &str) -> Result<Value, String> {
        match self.schema_of(to)? {
            Some(schema) if from != to => self.translated(&object, from, to, schema),
            _ => Ok(object),
        }
    }

    /// The pruned object with all owned fields restored, version by version; and its version afterwards.
    fn with_owned(
        &self,
        merged: &Value,
        pruned: Value,
        version: &str,
        managed: &Managed,
    ) -> Result<(Value, Key), String> {
        let mut owned: BTreeMap<&str, Vec<Set>> = BTreeMap::new();
        for entry in &managed.entries {
            let sets = owned.entry(entry.manager.api_version.as_str());
            sets.or_default().push(entry.set.clone());
        }
        let first = owned.remove_entry(version);
        let mut merged = merged.clone();
        let mut pruned = pruned;
        let mut at = version.to_owned();
        for (version, sets) in first.into_iter().chain(owned) {
            let set = Set::union_of(sets);
            let Some(schema) = self.schema_of(version)? else {
                continue;
            };
            let root = Type::root(schema);
            let failed = |what: &str, why: String| {
                format!("failed to convert {what} object at version {version}: {why}")
            };
            merged = self
                .converted(merged, &at, version)
                .map_err(|why| failed("merged", why))?;
            pruned = self
                .converted(pruned, &at, version)
                .map_err(|why| failed("pruned", why))?;
            at = version.to_owned();
            let named = |set: &Set| walk::with_named(set, Some(root));
            let all = named(&walk::fields_of(&merged, root));
            let keep = named(&walk::fields_of(&pruned, root)).union(named(&set));
            pruned = walk::remove(&merged, &all.difference(&keep), root);
        }
        Ok((pruned, at.into()))
    }
}
