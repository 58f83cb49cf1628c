//! Pod templates, the kind. Follows k8s.io/kubernetes/pkg/registry/core/podtemplate/strategy.go.

use super::{cells, defaults};
use crate::resources::{Deletion, Generation, Rules};

/// The rules of pod templates.
pub(in crate::resources::groups) const PODTEMPLATES: Rules = Rules {
    defaults: |object, _| defaults::template(object, "template"),
    cells: |object, _| {
        let template = object.at("template");
        let [names, images] = cells::containers(template.at("spec"));
        let labels = cells::labels(template.at("metadata").at("labels"));
        vec![
            object.at("metadata").str("name").into(),
            names,
            images,
            labels,
        ]
    },
    generation: Generation::AllButStatus,
    deletion: Deletion::Object,
    internal: "core.PodTemplate",
    ..Rules::DEFAULT
};
