//! Access reviews: their validation, and the attributes that they ask about. Follows k8s.io/kubernetes
//! pkg/apis/authorization/validation and pkg/registry/authorization/util.

use super::{Attributes, User};
use crate::meta::selector::{Selector, parse_fields};
use crate::meta::{At, Errors};
use crate::schema::{Object, Value};

const ONE_KIND: &str =
    "exactly one of nonResourceAttributes or resourceAttributes must be specified";

/// The kinds of access reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SubjectAccessReview.
    Any,
    /// LocalSubjectAccessReview.
    Local,
    /// SelfSubjectAccessReview.
    Own,
}

/// Validates an access review in canonical form.
pub fn validate(kind: Kind, review: At<'_>) -> Errors {
    let mut errors = Errors::default();
    let spec = review.field("spec");
    let (resource, other) = (
        spec.field("resourceAttributes"),
        spec.field("nonResourceAttributes"),
    );
    if resource.is_absent() == other.is_absent() {
        errors.invalid(spec.path, internal(other.value), ONE_KIND);
    }
    if kind != Kind::Own
        && spec.field("user").str().is_empty()
        && spec.value.list("groups").is_empty()
    {
        errors.invalid(
            spec.field("user").path,
            "",
            "at least one of user or group must be specified",
        );
    }
    if !resource.is_absent() {
        selector(
            resource.field("fieldSelector"),
            |requirement, errors| {
                let key = requirement.field("key");
                key.required("must be specified", errors);
                requirement.requirement_operator(true, errors);
            },
            &mut errors,
        );
        selector(
            resource.field("labelSelector"),
            |requirement, errors| {
                requirement.label_requirement(false, true, errors);
            },
            &mut errors,
        );
    }
    let meta = review.field("metadata");
    let allowed: &[&str] = match kind {
        Kind::Local => &["managedFields", "namespace"],
        _ => &["managedFields"],
    };
    if review
        .value
        .entries("metadata")
        .any(|(key, value)| !value.is_empty() && !allowed.contains(&key.as_str()))
    {
        errors.invalid(
            meta.path,
            meta.value,
            match kind {
                Kind::Local => "must be empty except for namespace",
                _ => "must be empty",
            },
        );
    }
    if kind == Kind::Local {
        let namespace = resource.field("namespace");
        if !resource.is_absent() && namespace.str() != meta.value.str("namespace") {
            errors.invalid(
                namespace.path,
                namespace.str(),
                "must match metadata.namespace",
            );
        }
        if !other.is_absent() {
            errors.invalid(
                other.path,
                internal(other.value),
                "disallowed on this kind of request",
            );
        }
    }
    errors
}

/// Non-resource attributes as printed by upstream's internal type.
fn internal(attributes: &Value) -> Value {
    if attributes.is_null() {
        return Value::Null;
    }
    crate::value!({"Path": (attributes.str("path")), "Verb": (attributes.str("verb"))})
}

fn selector(selector: At<'_>, requirement: impl Fn(&At<'_>, &mut Errors), errors: &mut Errors) {
    if selector.is_absent() {
        return;
    }
    let raw = selector.field("rawSelector");
    let requirements = selector.field("requirements");
    match (raw.str().is_empty(), requirements.list().is_empty()) {
        (false, false) => errors.invalid(
            raw.path,
            raw.str(),
            "may not specified at the same time as requirements",
        ),
        (true, true) => errors.required(
            requirements.path,
            &format!(
                "when {} is specified, requirements or rawSelector is required",
                selector.path
            ),
        ),
        _ => {}
    }
    for item in requirements.items() {
        requirement(&item, errors);
    }
}

/// The user of a review, from its spec.
pub fn subject(spec: &Value) -> User {
    let texts = |list: &[Value]| {
        list.iter()
            .filter_map(Value::as_str)
            .map(Into::into)
            .collect()
    };
    let mut user = User {
        name: spec.str("user").into(),
        uid: spec.str("uid").into(),
        groups: texts(spec.list("groups")),
        ..User::default()
    };
    for (key, values) in spec.entries("extra") {
        user.set_extra(key, texts(values.as_array().unwrap_or(&[])));
    }
    user
}

/// A selector of a review as text, as far as it is valid, and the errors about the rest.
struct Selected {
    text: String,
    complaint: Option<&'static str>,
}

impl Selected {
    fn of(
        selector: &Value,
        is_good: impl Fn(&str) -> bool,
        one: impl Fn(&Value) -> Option<String>,
    ) -> Selected {
        let raw = selector.str("rawSelector");
        let (mut terms, mut bad) = (Vec::new(), 0);
        if !raw.is_empty() {
            match is_good(raw) {
                true => terms.push(raw.to_owned()),
                false => bad += 1,
            }
        }
        for requirement in selector.list("requirements") {
            match one(requirement) {
                Some(term) => terms.push(term),
                None => bad += 1,
            }
        }
        Selected {
            complaint: match (bad, terms.is_empty()) {
                (0, _) => None,
                (_, true) => Some("ignored due to parse error"),
                (_, false) => Some("partially ignored due to parse error"),
            },
            text: terms.join(","),
        }
    }
}

fn field_requirement(requirement: &Value) -> Option<String> {
    let [value] = requirement.list("values") else {
        return None;
    };
    let sign = match requirement.str("operator") {
        "In" => "=",
        "NotIn" => "!=",
        _ => return None,
    };
    // In a key, too: it would otherwise be read as several terms.
    let (key, value) = (requirement.str("key"), value.as_str().unwrap_or_default());
    Some(format!("{}{sign}{}", escaped(key), escaped(value)))
}

/// A key or a value as it stands in the text of a field selector.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | ',' | '=') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn label_requirement(requirement: &Value) -> Option<String> {
    let values: Vec<&str> = requirement
        .list("values")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let (key, values) = (requirement.str("key"), values.join(","));
    let text = match requirement.str("operator") {
        "In" => format!("{key} in ({values})"),
        "NotIn" => format!("{key} notin ({values})"),
        "Exists" => key.to_owned(),
        "DoesNotExist" => format!("!{key}"),
        _ => return None,
    };
    Selector::parse(&text).is_ok().then_some(text)
}

/// Calls `decide` with the attributes in a review's spec; returns its result, and errors about invalid selectors
/// (empty for none).
pub fn ask<T>(spec: &Value, decide: impl FnOnce(&Attributes<'_>) -> T) -> (T, String) {
    let Some(wanted) = spec.get("resourceAttributes") else {
        let wanted = spec.at("nonResourceAttributes");
        let answer = decide(&Attributes {
            verb: wanted.str("verb"),
            path: Some(wanted.str("path")),
            ..Attributes::default()
        });
        return (answer, String::new());
    };
    let fields = Selected::of(
        wanted.at("fieldSelector"),
        |raw| parse_fields(raw).is_ok(),
        field_requirement,
    );
    let labels = Selected::of(
        wanted.at("labelSelector"),
        |raw| Selector::parse(raw).is_ok(),
        label_requirement,
    );
    let answer = decide(&Attributes {
        verb: wanted.str("verb"),
        namespace: wanted.str("namespace"),
        group: wanted.str("group"),
        version: match wanted.str("version") {
            "" => "*",
            version => version,
        },
        resource: wanted.str("resource"),
        subresource: wanted.str("subresource"),
        name: wanted.str("name"),
        path: None,
        field_selector: &fields.text,
        label_selector: &labels.text,
    });
    let complaints: Vec<String> = [("fieldSelector", fields), ("labelSelector", labels)]
        .into_iter()
        .filter_map(|(name, selected)| {
            let complaint = selected.complaint?;
            Some(format!("spec.resourceAttributes.{name} {complaint}"))
        })
        .collect();
    (answer, complaints.join("; "))
}

/// A user in the form of a UserInfo.
pub fn user_info(user: &User) -> Value {
    let mut info = Object::new();
    for (key, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            info.insert(key, text);
        }
    }
    let texts = |texts: &[compact_str::CompactString]| -> Vec<Value> {
        texts.iter().map(Value::from).collect()
    };
    if !user.groups.is_empty() {
        info.insert("groups", texts(&user.groups));
    }
    if !user.extra.is_empty() {
        let extra: Object = user
            .extra
            .iter()
            .map(|(key, values)| (key.clone(), Value::Array(texts(values))))
            .collect();
        info.insert("extra", extra);
    }
    Value::Object(info)
}

#[cfg(test)]
mod tests;
