//! Events: one object in two formats, core's and that of `events.k8s.io`. Follows
//! k8s.io/kubernetes/pkg/registry/core/event/strategy.go and pkg/apis/core/validation/events.go.

mod cells;
mod forms;

use crate::meta::{At, Errors, names};
use crate::resources::{
    Deletion, Dependents, Naming, Printing, Rules, Selectable, Selection, SelectorError,
};
use crate::schema::{Value, internal};

pub(in crate::resources::groups) use forms::conversion;

const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// The rules of core's events.
pub(super) const CORE: Rules = Rules {
    validate: |event, _, _, errors| common(event, "reportingComponent", errors),
    printing: Printing::of(cells::event),
    selection: Selection {
        fields: &FIELDS,
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    naming: Naming {
        // In core, names of events have never been validated.
        validate: |name, prefix| {
            if prefix {
                names::path_segment_prefix(name)
            } else {
                names::path_segment(name)
            }
        },
        ..Naming::DEFAULT
    },
    metadata_last: true,
    create_on_update: true,
    deletion: Deletion {
        dependents: Dependents::Unsupported,
        ..Deletion::DEFAULT
    },
    ttl: Some(3600),
    internal: "core.Event",
    ..Rules::DEFAULT
};

/// The rules of the events of `events.k8s.io`.
pub(in crate::resources::groups) const EVENTS: Rules = Rules {
    validate: |event, old, _, errors| {
        common(event, "reportingController", errors);
        match old {
            None => creation(event, errors),
            Some(old) => update(event, old.value, errors),
        }
    },
    selection: Selection {
        names: &[
            ("reason", "reason"),
            ("regarding.kind", "involvedObject.kind"),
            ("regarding.namespace", "involvedObject.namespace"),
            ("regarding.name", "involvedObject.name"),
            ("regarding.uid", "involvedObject.uid"),
            ("regarding.apiVersion", "involvedObject.apiVersion"),
            (
                "regarding.resourceVersion",
                "involvedObject.resourceVersion",
            ),
            ("regarding.fieldPath", "involvedObject.fieldPath"),
            ("reportingController", "reportingComponent"),
            ("type", "type"),
        ],
        ..CORE.selection
    },
    naming: Naming::validated_by(names::subdomain_name),
    metadata_last: false,
    ..CORE
};

macro_rules! involved {
    ($field:literal) => {
        Selectable {
            name: concat!("involvedObject.", $field),
            value: |event| event.at("involvedObject").str($field).to_owned(),
        }
    };
}

const FIELDS: [Selectable; 11] = [
    involved!("kind"),
    involved!("namespace"),
    involved!("name"),
    involved!("uid"),
    involved!("apiVersion"),
    involved!("resourceVersion"),
    involved!("fieldPath"),
    Selectable {
        name: "reason",
        value: |event| event.str("reason").to_owned(),
    },
    Selectable {
        name: "reportingComponent",
        value: |event| event.str("reportingComponent").to_owned(),
    },
    Selectable {
        name: "source",
        value: |event| match event.at("source").str("component") {
            "" => event.str("reportingComponent").to_owned(),
            component => component.to_owned(),
        },
    },
    Selectable {
        name: "type",
        value: |event| event.str("type").to_owned(),
    },
];

/// Validates what both formats have in common.
fn common(event: At<'_>, reporter: &str, errors: &mut Errors) {
    let namespace = event.value.at("metadata").str("namespace");
    let involved = event.field("involvedObject");
    let about = involved.field("namespace");
    let new_form = event.value.get("eventTime").is_some();
    let matches = match (new_form, about.str()) {
        (false, "") => matches!(namespace, "" | "default"),
        (false, about) => about == namespace,
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (true, _) => true,
    };
    if !matches {
        about.invalid_text("does not match event.namespace", errors);
    }
    if !new_form {
        return;
    }
    let reporter = At {
        value: event.value.at("reportingComponent"),
        path: event.path.field(reporter),
    };
    reporter.required("", errors);
    reporter.checked(names::qualified_name, errors);
    for field in ["reportingInstance", "action", "reason"] {
        let field = event.field(field);
        field.required("", errors);
        at_most(field, TEXT_MAX, errors);
    }
    at_most(event.field("message"), NOTE_MAX, errors);
}

fn at_most(text: At<'_>, most: usize, errors: &mut Errors) {
    if text.str().len() > most {
        let why = format!("can have at most {most} characters");
        errors.invalid(text.path, "", why);
    }
}

fn series(event: At<'_>, errors: &mut Errors) {
    let series = event.field("series");
    if series.is_absent() {
        return;
    }
    let count = series.field("count");
    if count.int().unwrap_or(0) < 2 {
        errors.invalid(count.path, "", "should be at least 2");
    }
    series.field("lastObservedTime").required("", errors);
}

fn creation(event: At<'_>, errors: &mut Errors) {
    series(event, errors);
    event.field("eventTime").required("", errors);
    let kind = event.field("type");
    if !matches!(kind.str(), "Normal" | "Warning") {
        let why = format!("has invalid value: {}", kind.str());
        errors.invalid(kind.path, "", why);
    }
    for field in ["firstTimestamp", "lastTimestamp", "count"] {
        let field = event.field(field);
        if !field.value.is_empty() {
            errors.invalid(field.path, "", "needs to be unset");
        }
    }
    let source = event.field("source");
    if ["component", "host"]
        .iter()
        .any(|key| !source.value.str(key).is_empty())
    {
        errors.invalid(source.path, "", "needs to be unset");
    }
}

fn update(event: At<'_>, old: &Value, errors: &mut Errors) {
    if event.value.at("series") != old.at("series") {
        series(event, errors);
    }
    // The stored field, its name in errors, and its internal type if that is a struct.
    const FIELDS: [(&str, &str, &str); 13] = [
        ("involvedObject", "involvedObject", "core.ObjectReference"),
        ("reason", "reason", ""),
        ("message", "message", ""),
        ("source", "source", "core.EventSource"),
        ("firstTimestamp", "firstTimestamp", ""),
        ("lastTimestamp", "lastTimestamp", ""),
        ("count", "count", ""),
        ("type", "type", ""),
        ("eventTime", "eventTime", ""),
        ("action", "action", ""),
        ("related", "related", "core.ObjectReference"),
        ("reportingComponent", "reportingController", ""),
        ("reportingInstance", "reportingInstance", ""),
    ];
    for (field, told, go_type) in FIELDS {
        let (now, was) = (event.value.at(field), old.at(field));
        if now == was {
            continue;
        }
        let shown = match (go_type, now) {
            ("", Value::Null) if field == "count" => "0".to_owned(),
            ("", Value::Null)
                if !matches!(field, "firstTimestamp" | "lastTimestamp" | "eventTime") =>
            {
                "\"\"".to_owned()
            }
            ("", now) => crate::meta::errors::shown(now),
            (_, Value::Null) => "null".to_owned(),
            (go_type, now) => internal::shown(now, go_type),
        };
        errors.invalid_shown(event.path.field(told), &shown, "field is immutable");
    }
}
