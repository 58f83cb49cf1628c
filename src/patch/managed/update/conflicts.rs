//! Conflicts with other managers.

use std::collections::BTreeMap;

use super::super::conflict::Conflict;
use super::super::entries::{Managed, Manager};
use super::super::set::Set;
use super::super::walk::Changes;
use super::Writer;
use crate::schema::Value;

impl Writer<'_> {
    /// For each entry, its fields affected by a change. Changes are computed in each manager's version; skips `own`.
    pub(super) fn overlaps(
        &self,
        managed: &Managed,
        changes: &Changes,
        old: &Value,
        new: &Value,
        own: Option<&Manager>,
    ) -> Result<Vec<Overlap>, String> {
        let mut elsewhere: BTreeMap<&str, Option<Changes>> = BTreeMap::new();
        let mut out = Vec::with_capacity(managed.entries.len());
        for entry in &managed.entries {
            if own.is_some_and(|own| own.is(&entry.manager)) {
                out.push(Overlap::None);
                continue;
            }
            let version = entry.manager.api_version.as_str();
            let changes = if version == self.api_version {
                Some(changes)
            } else {
                if !elsewhere.contains_key(version) {
                    elsewhere.insert(version, self.changes_in(version, old, new)?);
                }
                elsewhere.get(version).and_then(Option::as_ref)
            };
            out.push(match changes {
                None => Overlap::Gone,
                Some(changes) if changes.is_empty() => Overlap::None,
                Some(changes) => Overlap::Fields {
                    taken: entry
                        .set
                        .intersection(&changes.modified)
                        .union(entry.set.intersection(&changes.added)),
                    removed: (!changes.removed.is_empty()).then(|| changes.removed.clone()),
                },
            });
        }
        Ok(out)
    }
}

/// The effect of a change on a manager's fields.
#[derive(Default)]
pub(super) enum Overlap {
    /// Nothing.
    #[default]
    None,
    /// The manager's version is no longer served, and its entry is dropped.
    Gone,
    /// Fields that others take over, and fields that no longer exist.
    Fields { taken: Set, removed: Option<Set> },
}

/// Removes lost fields from all entries, and drops empty entries.
pub(super) fn yield_to(managed: &mut Managed, lost: Vec<Overlap>) {
    let mut lost = lost.into_iter();
    managed.entries.retain_mut(|entry| {
        match lost.next().unwrap_or_default() {
            Overlap::Gone => return false,
            Overlap::Fields { taken, removed } => {
                if !taken.is_empty() {
                    entry.set = std::mem::take(&mut entry.set).difference(&taken);
                }
                if let Some(removed) = removed {
                    entry.set = std::mem::take(&mut entry.set).difference(&removed);
                }
            }
            Overlap::None => {}
        }
        !entry.set.is_empty()
    });
}

/// The conflicts: which manager would lose which fields.
pub(super) fn conflicts(managed: &Managed, lost: &[Overlap]) -> Vec<Conflict> {
    managed
        .entries
        .iter()
        .zip(lost)
        .filter_map(|(entry, overlap)| match overlap {
            Overlap::Fields { taken, .. } if !taken.is_empty() => Some(Conflict {
                manager: entry.manager.clone(),
                fields: taken.clone(),
            }),
            _ => None,
        })
        .collect()
}
