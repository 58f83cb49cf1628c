//! Fields that an update keeps from the stored object, whatever the client sent.

use super::{Write, owners};
use crate::resources::{Generation, MetaOnStatus};
use crate::schema::emptied::Emptied;
use crate::schema::semantic::same;
use crate::schema::{Object, Value};

impl Write<'_> {
    /// Resets what an update cannot change: system metadata, and either status or everything except status.
    pub(super) fn carry_over(&self, new: &mut Value, old: &Value) {
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
            // Writing removes it, which a dry run does not reach.
            if key == "selfLink" && self.options.dry_run {
                continue;
            }
            match old_meta.get(key) {
                Some(value) => meta.insert(key, value.clone()),
                None => meta.remove(key),
            };
        }
        // The start of a deletion never changes, and its grace period cannot be removed.
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
            let taken = matches!(target.resource.rules.status.metadata, MetaOnStatus::Taken);
            status_only(new, old, taken);
        }
    }

    /// Increments the generation if the fields that it covers have changed.
    pub(super) fn raise_generation(&self, new: &mut Value, old: &Value, emptied: &[Emptied]) {
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
        // An empty list or map, which stored objects never contain.
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
}

/// Turns `new`, as sent to a status subresource, into the `old` object with the new status; with the new metadata if
/// that is `taken`, otherwise only with its managedFields. Unchanged members are moved from `new`, because copying them
/// from `old` would be most of the cost of such a write.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

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
