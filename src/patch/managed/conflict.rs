//! The error for an apply that would change fields of other managers. Follows
//! k8s.io/apimachinery/pkg/util/managedfields/internal/conflict.go.

use super::entries::Manager;
use super::set::Set;
use crate::meta::Status;
use crate::schema::{Object, Value};

/// The fields that one manager would lose.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The field manager.
    pub manager: Manager,
    /// Its fields that the apply would change.
    pub fields: Set,
}

/// 409 that names every manager and field.
pub fn refusal(mut conflicts: Vec<Conflict>) -> Status {
    conflicts.sort_by_cached_key(|conflict| conflict.manager.identifier());
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    let mut single = String::new();
    for conflict in &conflicts {
        let shown = conflict.manager.shown();
        lines.push(format!("conflicts with {shown}:"));
        for path in conflict.fields.paths() {
            let mut cause = Object::new();
            cause.insert("reason", "FieldManagerConflict");
            cause.insert("message", format!("conflict with {shown}"));
            cause.insert("field", path.as_str());
            causes.push(Value::Object(cause));
            single = format!("conflict with {shown}: {path}");
            lines.push(format!("- {path}"));
        }
    }
    let message = match causes.len() {
        1 => format!("Apply failed with 1 conflict: {single}"),
        n => format!("Apply failed with {n} conflicts: {}", lines.join("\n")),
    };
    let mut details = Object::new();
    details.insert("causes", causes);
    Status::failure(409, "Conflict", message).with_details(details)
}
