//! Warnings about schemas.

use crate::resources::custom::definition::any;
use crate::schema::Value;

/// Warnings about unknown formats, and about sets that server-side apply cannot merge.
pub(in super::super) fn warnings(spec: &Value) -> (Vec<String>, Vec<String>) {
    let (mut formats, mut sets) = (Vec::new(), Vec::new());
    for version in spec.list("versions") {
        let schema = version.path(&["schema", "openAPIV3Schema"]);
        collect(schema, &mut formats, &mut sets);
    }
    sets.sort();
    sets.dedup();
    (formats, sets)
}

fn collect(schema: &Value, formats: &mut Vec<String>, sets: &mut Vec<String>) {
    let found = std::cell::RefCell::new((formats, sets));
    any(schema, &|schema| {
        let (formats, sets) = &mut *found.borrow_mut();
        let (format, kind) = (schema.str("format"), schema.str("type"));
        if !format.is_empty() {
            let types: &[&str] = if kind.is_empty() { &[] } else { &[kind] };
            if !crate::schema::check::formats::recognized(format, types) {
                formats.push(format!(
                    "unrecognized format {}",
                    crate::meta::errors::quoted(format)
                ));
            }
        }
        let items = schema.at("items").str("type");
        if schema.str("x-kubernetes-list-type") == "set" && matches!(items, "object" | "array") {
            sets.push(format!(
                "x-kubernetes-list-type: set for items of type \"{items}\" is not supported by server-side apply or CEL validation rules"
            ));
        }
        false
    });
}
