//! PodTemplates. Follows k8s.io/kubernetes/pkg/registry/core/podtemplate/strategy.go.

use super::validate::{self, Before};
use super::{cells, defaults, disabled, warnings};
use crate::meta::At;
use crate::resources::{Deletion, Generation, Printing, Rules};
use crate::schema::Value;

/// The rules of pod templates.
pub(in crate::resources::groups) const PODTEMPLATES: Rules = Rules {
    defaults: |object, _| defaults::template(object, "template"),
    prepare_create: |object, _| drop_disabled(object, &Value::Null),
    prepare_update: |object, old, _| drop_disabled(object, old.at("template")),
    validate: |object, old, _, errors| {
        let old = old.map_or(&Value::Null, |old| old.value.at("template"));
        validate::template(object.field("template"), Before::template(old), errors);
    },
    warnings: |object, old, _| {
        if old.is_some_and(|old| old.at("template") == object.at("template")) {
            return Vec::new();
        }
        warnings::template(At::root(object).field("template"))
    },
    printing: Printing::of(|object, _| {
        let template = object.at("template");
        let [names, images] = cells::containers(template.at("spec"));
        let labels = cells::labels(template.at("metadata").at("labels"));
        vec![
            object.at("metadata").str("name").into(),
            names,
            images,
            labels,
        ]
    }),
    generation: Generation::AllButStatus,
    deletion: Deletion::RETURNS_OBJECT,
    internal: "core.PodTemplate",
    ..Rules::DEFAULT
};

fn drop_disabled(object: &mut Value, old: &Value) {
    if let Some(template) = object.get_mut("template") {
        disabled::drop_disabled(template, old);
    }
}
