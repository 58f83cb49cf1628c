//! The rules of all custom resources. Follows k8s.io/apiextensions-apiserver/pkg/registry/customresource.

use super::{Served, embedded};
use crate::meta::errors::{Path, Reason, quoted};
use crate::meta::{At, Errors, names};
use crate::resources::{
    Cx, Generation, MetaOnStatus, Rules, Selection, SelectorError, StatusRules, metadata,
};
use crate::schema::check::{lists, validate as checked};
use crate::schema::{Object, Value};

/// The behavior of all custom resources.
pub const RULES: Rules = Rules {
    prepare_create: |object, _| {
        object
            .object_mut()
            .object_mut("metadata")
            .insert("generation", 1i64);
    },
    prepare_update,
    validate,
    status: StatusRules {
        validate: validate_status,
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    warnings,
    selection: Selection {
        by_namespace: false,
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    repeats_causes: true,
    generation: Generation::Own,
    unconditional_update: false,
    ..Rules::DEFAULT
};

/// The validation for the version of a request.
fn served<'a>(cx: &'a Cx<'_>) -> Option<&'a Served> {
    cx.resource.version(cx.version)?.custom.as_deref()
}

/// Increments generation if anything except metadata changes.
fn prepare_update(new: &mut Value, old: &Value, _: &Cx<'_>) {
    let rest = |value: &Value| -> Object {
        value
            .as_object()
            .into_iter()
            .flat_map(Object::iter)
            .filter(|(key, _)| key.as_str() != "metadata")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    if rest(new) != rest(old) {
        let generation = old.at("metadata").int("generation");
        new.object_mut()
            .object_mut("metadata")
            .insert("generation", generation + 1);
    }
}

fn validate(new: At<'_>, old: Option<At<'_>>, cx: &Cx<'_>, errors: &mut Errors) {
    let Some(served) = served(cx) else { return };
    let before = old.map(|old| old.value);
    judge_metadata(new, old, errors);
    checked(&served.check, new.value, before, Path::ROOT, errors);
    if let Some(scale) = &served.scale {
        scale.validate_spec(new.value, errors);
        scale.validate_status(new.value, errors);
    }
    if served.embeds
        && let Some(version) = cx.resource.version(cx.version)
    {
        embedded::validate(new, &version.schema, errors);
    }
    lists_once(served, new.value, before, errors);
    expressions(served, errors);
}

fn validate_status(new: At<'_>, old: At<'_>, cx: &Cx<'_>, errors: &mut Errors) {
    let Some(served) = served(cx) else { return };
    judge_metadata(new, Some(old), errors);
    let status = new
        .value
        .as_object()
        .and_then(|members| members.get("status"));
    if let (Some(status), Some(check)) = (status, served.check.fields.get("status")) {
        // One that is not there counts as null, as which it may stay.
        let before = old.value.at("status");
        let path = Path::ROOT.field("status");
        checked(check, status, Some(before), path, errors);
    }
    if let Some(scale) = &served.scale {
        scale.validate_status(new.value, errors);
    }
    lists_once(served, new.value, Some(old.value), errors);
    expressions(served, errors);
}

/// Validates metadata of an update a second time, like upstream: the same causes appear twice.
fn judge_metadata(new: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    if let Some(old) = old {
        metadata::validate_update(new.field("metadata"), old.field("metadata"), errors);
    }
}

/// Rejects duplicates in sets and list maps, unless the old object had duplicates too.
fn lists_once(served: &Served, new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let mut found = Errors::default();
    lists::validate(&served.check, new, Path::ROOT, &mut found);
    if found.is_empty() {
        return;
    }
    let mut before = Errors::default();
    if let Some(old) = old {
        lists::validate(&served.check, old, Path::ROOT, &mut before);
    }
    if before.is_empty() {
        errors.append(found);
    }
}

/// Evaluates CEL rules, but only if everything else is valid.
fn expressions(served: &Served, errors: &mut Errors) {
    let blocking = errors.0.iter().any(|error| {
        matches!(
            error.reason,
            Reason::NotSupported
                | Reason::Required
                | Reason::TooLong
                | Reason::TooMany
                | Reason::TypeInvalid
        )
    });
    if served.expressions && blocking {
        errors.invalid(
            Path::ROOT,
            Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        );
    }
}

/// Warns about new finalizers whose names may conflict with others.
fn warnings(new: &Value, old: Option<&Value>, _: &Cx<'_>) -> Vec<String> {
    let finalizers = |object: &Value| -> std::collections::BTreeSet<String> {
        object
            .at("metadata")
            .list("finalizers")
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    };
    let before = old.map(finalizers).unwrap_or_default();
    let mut told = Vec::new();
    for name in finalizers(new).difference(&before) {
        let tell = |why: &str| format!("metadata.finalizers: {}: {why}", quoted(name));
        told.extend(names::qualified_name(name).iter().map(|why| tell(why)));
        let standard = matches!(
            name.as_str(),
            "orphan" | "foregroundDeletion" | "kubernetes"
        );
        if !name.contains('/') && !standard {
            let path = if name.contains('.') {
                " including a path (/)"
            } else {
                ""
            };
            told.push(tell(&format!(
                "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            )));
        }
    }
    told
}
