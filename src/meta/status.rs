//! `Status`: the API's answer if it is not an object. Follows
//! k8s.io/apimachinery/pkg/api/errors for reasons, codes and messages.

use indexmap::IndexSet;

use super::errors::{Errors, FieldError, quoted};
use super::names;
use crate::schema::{Object, Value};

/// An error, or a success without an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// `Success` or `Failure`.
    pub success: bool,
    /// The reason, one word; empty for none.
    pub reason: &'static str,
    /// A message for people.
    pub message: String,
    /// `details`; omitted if `None`.
    pub details: Option<Box<Value>>,
    /// `metadata.continue`: the token with which to continue an expired list.
    pub next: String,
}

/// The resource that an error is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The API group; empty for core.
    pub group: &'a str,
    /// The plural resource name, or the kind, whichever the message shows.
    pub kind: &'a str,
    /// The object's name; empty for none.
    pub name: &'a str,
}

impl About<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    fn details(&self) -> Object {
        let mut details = Object::new();
        for (key, text) in [
            ("name", self.name),
            ("group", self.group),
            ("kind", self.kind),
        ] {
            if !text.is_empty() {
                details.insert(key, text);
            }
        }
        details
    }
}

impl Status {
    /// A failure.
    pub fn failure(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Status {
            code,
            success: false,
            reason,
            message: message.into(),
            details: None,
            next: String::new(),
        }
    }

    /// Adds `metadata.continue`.
    pub fn continuing(mut self, token: String) -> Self {
        self.next = token;
        self
    }

    /// Adds details.
    pub fn with_details(mut self, details: impl Into<Value>) -> Self {
        self.details = Some(Box::new(details.into()));
        self
    }

    /// Adds `details.retryAfterSeconds`.
    pub fn retry_after(mut self, seconds: i64) -> Self {
        self.details
            .get_or_insert_with(|| Box::new(Object::new().into()))
            .set("retryAfterSeconds", seconds);
        self
    }

    /// 404 `RES "name" not found`.
    pub fn not_found(about: About<'_>) -> Self {
        Self::failure(
            404,
            "NotFound",
            format!("{} {} not found", about.qualified(), quoted(about.name)),
        )
        .with_details(about.details())
    }

    /// 409 `RES "name" already exists`.
    pub fn already_exists(about: About<'_>) -> Self {
        Self::failure(
            409,
            "AlreadyExists",
            format!(
                "{} {} already exists",
                about.qualified(),
                quoted(about.name)
            ),
        )
        .with_details(about.details())
    }

    /// 409 like [`Status::already_exists`], for an object with a generated name.
    pub fn no_unique_name(about: About<'_>) -> Self {
        let mut status = Self::already_exists(about);
        status.message += ", the server was not able to generate a unique name for the object";
        status.retry_after(1)
    }

    /// 409 `Operation cannot be fulfilled on RES "name": WHY`.
    pub fn conflict(about: About<'_>, why: &str) -> Self {
        Self::failure(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} {}: {why}",
                about.qualified(),
                quoted(about.name)
            ),
        )
        .with_details(about.details())
    }

    /// The conflict caused by a stale resourceVersion.
    pub fn modified(about: About<'_>) -> Self {
        Self::conflict(
            about,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 `RES "name" is forbidden: WHY`.
    pub fn forbidden(about: About<'_>, why: &str) -> Self {
        let subject = match (about.kind.is_empty(), about.name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", about.qualified()),
            (false, false) => format!(
                "{} {} is forbidden: {why}",
                about.qualified(),
                quoted(about.name)
            ),
        };
        Self::failure(403, "Forbidden", subject).with_details(about.details())
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 500 without a reason: upstream's answer for an unclassified error.
    pub fn unclassified(message: impl Into<String>) -> Self {
        Self::failure(500, "", message)
    }

    /// 500 `Internal error occurred: WHY`.
    pub fn internal(why: &str) -> Self {
        let cause: Object = [("message", Value::from(why))].into_iter().collect();
        let mut details = Object::new();
        details.insert("causes", vec![Value::Object(cause)]);
        Self::failure(
            500,
            "InternalError",
            format!("Internal error occurred: {why}"),
        )
        .with_details(details)
    }

    /// 404 for a path, version or resource that is not served.
    pub fn no_such_resource() -> Self {
        Self::failure(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
        .with_details(Object::new())
    }

    /// 405 for a path that does not serve the method.
    pub fn method_not_allowed() -> Self {
        Self::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with_details(Object::new())
    }

    /// 405 `VERB is not supported on resources of kind "RES"`.
    pub fn verb_not_supported(verb: &str, about: About<'_>) -> Self {
        Self::failure(
            405,
            "MethodNotAllowed",
            format!(
                "{verb} is not supported on resources of kind \"{}\"",
                about.qualified()
            ),
        )
        .with_details(about.details())
    }

    /// 422 `KIND "name" is invalid: CAUSES`. `about.kind` is the Kind, or the resource if upstream shows that.
    pub fn invalid(about: About<'_>, errors: &Errors) -> Self {
        let mut details = about.details();
        details.insert("causes", errors.0.iter().map(cause).collect::<Vec<_>>());
        Self::failure(
            422,
            "Invalid",
            format!(
                "{} {} is invalid: {}",
                about.qualified(),
                quoted(about.name),
                aggregate(&errors.0)
            ),
        )
        .with_details(details)
    }

    /// A success without an object, with code 200.
    pub fn success(details: Option<Value>) -> Self {
        Status {
            code: 200,
            success: true,
            reason: "",
            message: String::new(),
            details: details.map(Box::new),
            next: String::new(),
        }
    }

    /// The body: `{"kind": "Status", ...}` with upstream's order of members. `code` is omitted for 200.
    pub fn to_value(&self) -> Value {
        let mut body = Object::with_capacity(8);
        body.insert("kind", "Status");
        body.insert("apiVersion", "v1");
        let mut meta = Object::new();
        if !self.next.is_empty() {
            meta.insert("continue", self.next.as_str());
        }
        body.insert("metadata", meta);
        body.insert("status", if self.success { "Success" } else { "Failure" });
        for (key, text) in [("message", self.message.as_str()), ("reason", self.reason)] {
            if !text.is_empty() {
                body.insert(key, text);
            }
        }
        if let Some(details) = &self.details {
            body.insert("details", &**details);
        }
        if self.code != 200 {
            body.insert("code", i64::from(self.code));
        }
        Value::Object(body)
    }
}

fn cause(error: &FieldError) -> Value {
    let mut cause = Object::new();
    cause.insert("reason", error.reason.as_str());
    cause.insert("message", error.message.as_str());
    cause.insert(
        "field",
        if error.field.is_empty() {
            "<nil>"
        } else {
            &error.field
        },
    );
    Value::Object(cause)
}

/// Rejects names that cannot be part of a key. Follows k8s.io/apiserver/pkg/registry/generic/registry/store.go.
///
/// # Errors
/// 400, with the name if there is one.
pub fn key_name(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let wrong = names::path_segment(name);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "Name parameter invalid: {}: {}",
        quoted(name),
        wrong.join(";")
    )))
}

/// Joins errors like Go's aggregate: a single one bare, several in brackets, duplicate texts once.
pub fn aggregate(errors: &[impl std::fmt::Display]) -> String {
    let once: IndexSet<String> = errors.iter().map(ToString::to_string).collect();
    let texts: Vec<String> = once.into_iter().collect();
    match texts.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a million texts of the same length none is compared with all others.
    #[test]
    fn many_errors_are_joined_once_each() {
        let texts: Vec<String> = (0..200_000).map(|i| format!("{:06}", i / 2)).collect();
        let all = aggregate(&texts);
        assert!(all.starts_with("[000000, 000001, ") && all.ends_with(", 099999]"));
        assert_eq!(all.len(), 2 + 100_000 * 8 - 2);
        assert_eq!(aggregate(&["a", "a"]), "a");
        assert_eq!(aggregate(&["a", "b", "a"]), "[a, b]");
    }
}
