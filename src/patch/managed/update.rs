//! Who owns what after a write, and what an apply makes of an object. Follows
//! sigs.k8s.io/structured-merge-diff/v6/merge and k8s.io/apimachinery/pkg/util/managedfields/internal.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::conflict::Conflict;
use super::element::{Element, same};
use super::entries::{Entry, Managed, Manager, Operation, seconds};
use super::merge::merge;
use super::set::Set;
use super::typing::Type;
use super::validate::validate;
use super::walk::{self, Changes};
use crate::schema::{Key, Schema, Value};

/// How many updaters an object keeps apart.
const MAX_UPDATERS: usize = 10;

/// The updater that the oldest are merged into.
const ANCIENT: &str = "ancient-changes";

/// The updater that owns what was there before the first apply.
const BEFORE: &str = "before-first-apply";

/// What nobody ever owns.
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

/// The versions of a kind: what their objects may be, and how one becomes another.
pub trait Versions {
    /// The schema of a version; `None` where it is not served.
    fn schema(&self, api_version: &str) -> Option<&Schema>;

    /// An object of one version in another; both are served.
    ///
    /// # Errors
    /// The object cannot be decoded.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Result<Value, String>;
}

/// Which fields of a write count.
#[derive(Clone, Debug, Default)]
pub enum Filter {
    /// All.
    #[default]
    All,
    /// All but these and what is below them: the write resets them.
    Except(Set),
    /// Only what lies on and below these.
    Only(Vec<Vec<Option<Element>>>),
}

impl Filter {
    fn keep(&self, set: Set) -> Set {
        match self {
            Filter::All => set,
            Filter::Except(_) | Filter::Only(_) if set.is_empty() => set,
            Filter::Except(reset) => set.recursive_difference(reset),
            Filter::Only(patterns) => set.only(patterns),
        }
    }
}

/// A write, seen by who owns what.
pub struct Writer<'a> {
    /// The versions of the kind.
    pub versions: &'a dyn Versions,
    /// The version in which the write speaks.
    pub api_version: &'a str,
    /// Its schema.
    pub schema: &'a Schema,
    /// Which fields of it count.
    pub filter: &'a Filter,
    /// The same for what it changes as other versions see it.
    pub filter_elsewhere: &'a Filter,
    /// The name of the writer.
    pub manager: &'a str,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// Now, as it is written.
    pub now: &'a str,
}

/// Why an apply is refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Others own what it would change.
    Conflicts(Vec<Conflict>),
    /// Something else, in upstream's words.
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

    /// Who owns what after a write that made `old` `new` (both of the writer's version, neither with managedFields).
    /// `created` is whether there was no object before: then its owners are known from the beginning; else an object
    /// without owners stays without.
    pub fn update(&self, old: &Value, new: &Value, managed: Managed, created: bool) -> Managed {
        if managed.entries.is_empty() && !created {
            return managed;
        }
        self.updated(old, new, managed, self.manager)
    }

    fn updated(&self, old: &Value, new: &Value, managed: Managed, name: &str) -> Managed {
        let mut managed = self.reconciled(managed);
        let changes = self.changes(old, new);
        self.yield_to(&mut managed, &changes, old, new, None);
        let set = changes.modified.union(&changes.added);
        let set = self.filter.keep(set).difference(&NOBODYS);
        if !set.is_empty() {
            let manager = self.by(name, Operation::Update);
            let set = match managed.take(&manager) {
                Some(before) => set.union(&before.set),
                None => set,
            };
            managed.put(Entry {
                manager,
                time: Some(self.now.into()),
                set,
            });
        }
        cap(&mut managed);
        managed
    }

    fn changes(&self, old: &Value, new: &Value) -> Changes {
        walk::compare(old, new, self.root()).filtered(|set| self.filter.keep(set))
    }

    /// Takes from everybody but `own` what changed, and drops who is left with nothing. What changed is found in
    /// each owner's version; owners in versions that are no longer served are dropped.
    fn yield_to(
        &self,
        managed: &mut Managed,
        changes: &Changes,
        old: &Value,
        new: &Value,
        own: Option<&Manager>,
    ) {
        let mut lost = self.overlaps(managed, changes, old, new, own);
        let mut at = 0;
        managed.entries.retain_mut(|entry| {
            let overlap = lost.get_mut(at).map(std::mem::take);
            at += 1;
            match overlap {
                Some(Overlap::Gone) => return false,
                Some(Overlap::Fields { taken, removed }) => {
                    if !taken.is_empty() {
                        entry.set = entry.set.difference(&taken);
                    }
                    if let Some(removed) = removed {
                        entry.set = entry.set.difference(&removed);
                    }
                }
                Some(Overlap::None) | None => {}
            }
            !entry.set.is_empty()
        });
    }

    /// For each entry, what of it a change concerns.
    fn overlaps(
        &self,
        managed: &Managed,
        changes: &Changes,
        old: &Value,
        new: &Value,
        own: Option<&Manager>,
    ) -> Vec<Overlap> {
        let mut elsewhere: BTreeMap<&str, Option<Changes>> = BTreeMap::new();
        managed
            .entries
            .iter()
            .map(|entry| {
                if own.is_some_and(|own| own.is(&entry.manager)) {
                    return Overlap::None;
                }
                let version = entry.manager.api_version.as_str();
                let changes = if version == self.api_version {
                    Some(changes)
                } else {
                    elsewhere
                        .entry(version)
                        .or_insert_with(|| self.changes_in(version, old, new))
                        .as_ref()
                };
                let Some(changes) = changes else {
                    return Overlap::Gone;
                };
                if changes.is_empty() {
                    return Overlap::None;
                }
                let taken = entry
                    .set
                    .intersection(&changes.modified)
                    .union(&entry.set.intersection(&changes.added));
                let removed = (!changes.removed.is_empty()).then(|| changes.removed.clone());
                Overlap::Fields { taken, removed }
            })
            .collect()
    }

    /// The changes in another version; none where that is not served.
    fn changes_in(&self, version: &str, old: &Value, new: &Value) -> Option<Changes> {
        let schema = self.versions.schema(version)?;
        let convert = |object| {
            self.versions
                .convert(object, self.api_version, version)
                .ok()
        };
        let (old, new) = (convert(old)?, convert(new)?);
        let changes = walk::compare(&old, &new, Type::root(schema));
        Some(changes.filtered(|set| self.filter_elsewhere.keep(set)))
    }

    /// The entries as the schemas are now.
    fn reconciled(&self, mut managed: Managed) -> Managed {
        managed.entries.retain_mut(|entry| {
            let Some(schema) = self.schema_of(&entry.manager.api_version) else {
                return false;
            };
            if let Some(set) = walk::reconciled(&entry.set, Type::root(schema)) {
                entry.set = set;
            }
            true
        });
        managed
    }

    fn schema_of(&self, api_version: &str) -> Option<&Schema> {
        if api_version == self.api_version {
            return Some(self.schema);
        }
        self.versions.schema(api_version)
    }

    /// What an apply makes of `live` (of the writer's version, without managedFields): the new object, not yet
    /// decoded or defaulted, or none where it is as it was; and who owns what then.
    ///
    /// # Errors
    /// Conflicts, where not `force`; an object that is not of the schema.
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        managed: Managed,
        force: bool,
    ) -> Result<(Option<Value>, Managed), Refusal> {
        let mut managed = self.reconciled(managed);
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
            merged = self.pruned(merged, &managed, &own, last)?;
        }
        let changes = self.changes(live, &merged);
        if !force {
            let conflicts = self.conflicts(&managed, &changes, live, &merged, &own);
            if !conflicts.is_empty() {
                return Err(Refusal::Conflicts(conflicts));
            }
        }
        self.yield_to(&mut managed, &changes, live, &merged, Some(&own));
        let changed = !same(live, &merged);
        if let Some(mut entry) = managed.take(&own) {
            entry.set = entry.set.difference(&NOBODYS);
            if changed {
                entry.time = Some(self.now.into());
            }
            if !entry.set.is_empty() {
                managed.put(entry);
            }
        }
        Ok((changed.then_some(merged), managed))
    }

    fn conflicts(
        &self,
        managed: &Managed,
        changes: &Changes,
        live: &Value,
        merged: &Value,
        own: &Manager,
    ) -> Vec<Conflict> {
        let overlaps = self.overlaps(managed, changes, live, merged, Some(own));
        managed
            .entries
            .iter()
            .zip(overlaps)
            .filter_map(|(entry, overlap)| match overlap {
                Overlap::Fields { taken, .. } if !taken.is_empty() => Some(Conflict {
                    manager: entry.manager.clone(),
                    fields: taken,
                }),
                _ => None,
            })
            .collect()
    }

    /// Owners of an object that had none: one that owns everything.
    ///
    /// # Errors
    /// The object is not of the schema.
    pub fn begin(&self, live: &Value, nothing: &Value) -> Result<Managed, String> {
        validate(live, self.root(), true)?;
        Ok(self.updated(nothing, live, Managed::default(), BEFORE))
    }

    /// The merged object without what its applier said last time, does not say now, and nobody else owns.
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
        // The usual case: everything said last time is said again.
        if version == self.api_version && own.is_some_and(|own| last.set.is_subset(&own.set)) {
            return Ok(merged);
        }
        let Some(schema) = self.schema_of(version) else {
            return Ok(merged);
        };
        let root = Type::root(schema);
        let merged = self.converted(merged, self.api_version, version)?;
        let last_set = walk::with_named(&last.set, Some(root));
        let pruned = walk::remove(&merged, &last_set, root);
        let (kept, at) = self.with_owned(&merged, pruned, version, managed)?;
        let kept = self.converted(kept, &at, version)?;
        // What was taken along without having been said last time comes back.
        let all = walk::with_named(&walk::fields_of(&merged, root), Some(root));
        let left = walk::with_named(&walk::fields_of(&kept, root), Some(root));
        let gone = all.difference(&left).intersection(&last_set);
        let pruned = walk::remove(&merged, &gone, root);
        self.converted(pruned, version, self.api_version)
    }

    fn converted(&self, object: Value, from: &str, to: &str) -> Result<Value, String> {
        if from == to {
            return Ok(object);
        }
        self.versions.convert(&object, from, to)
    }

    /// The pruned object with what somebody owns, version by version; and the version in which it is then.
    fn with_owned(
        &self,
        merged: &Value,
        pruned: Value,
        version: &str,
        managed: &Managed,
    ) -> Result<(Value, Key), String> {
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for entry in &managed.entries {
            let set = owned.entry(entry.manager.api_version.as_str()).or_default();
            *set = set.union(&entry.set);
        }
        let first = owned.remove_entry(version);
        let mut merged = merged.clone();
        let mut pruned = pruned;
        let mut at = version.to_owned();
        for (version, set) in first.into_iter().chain(owned) {
            let Some(schema) = self.schema_of(version) else {
                continue;
            };
            let root = Type::root(schema);
            merged = self.converted(merged, &at, version)?;
            pruned = self.converted(pruned, &at, version)?;
            at = version.to_owned();
            let named = |set: &Set| walk::with_named(set, Some(root));
            let all = named(&walk::fields_of(&merged, root));
            let keep = named(&walk::fields_of(&pruned, root)).union(&named(&set));
            pruned = walk::remove(&merged, &all.difference(&keep), root);
        }
        Ok((pruned, at.into()))
    }
}

/// What of an owner's fields a change concerns.
#[derive(Default)]
enum Overlap {
    /// Nothing.
    #[default]
    None,
    /// The owner's version is gone, and so is its entry.
    Gone,
    /// Fields that others take over, and fields that are no longer there.
    Fields { taken: Set, removed: Option<Set> },
}

/// Merges the oldest updaters of a version until there are not too many.
fn cap(managed: &mut Managed) {
    let mut updaters: Vec<Manager> = Vec::new();
    {
        let mut entries: Vec<&Entry> = managed
            .entries
            .iter()
            .filter(|entry| entry.manager.operation == Operation::Update)
            .collect();
        if entries.len() <= MAX_UPDATERS {
            return;
        }
        entries.sort_by(|a, b| {
            seconds(&a.time)
                .cmp(seconds(&b.time))
                .then_with(|| a.manager.identifier().cmp(&b.manager.identifier()))
        });
        updaters.extend(entries.into_iter().map(|entry| entry.manager.clone()));
    }
    let mut left = updaters.len();
    let mut first: BTreeMap<Key, Manager> = BTreeMap::new();
    for manager in updaters {
        if left <= MAX_UPDATERS {
            return;
        }
        let version = manager.api_version.clone();
        let Some(earlier) = first.get(&version) else {
            first.insert(version, manager);
            continue;
        };
        let bucket = Manager {
            name: ANCIENT.into(),
            operation: Operation::Update,
            api_version: version,
            subresource: Key::default(),
        };
        let Some(newer) = managed.take(&manager) else {
            continue;
        };
        let old = match managed.take(&bucket) {
            Some(entry) => Some(entry),
            None => managed.take(earlier),
        };
        let set = match old {
            Some(old) => newer.set.union(&old.set),
            None => newer.set,
        };
        managed.put(Entry {
            manager: bucket,
            time: newer.time,
            set,
        });
        left -= 1;
    }
}
