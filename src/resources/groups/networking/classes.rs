//! Ingress classes. Follows k8s.io/kubernetes/pkg/registry/networking/ingressclass/strategy.go and
//! pkg/apis/networking/validation.

use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Generation, Printing, Rules, metadata};

/// The maximum length of a controller's name, in bytes.
const CONTROLLER_MAX: usize = 250;

/// The rules of ingress classes.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        let parameters = object
            .get_mut("spec")
            .and_then(|spec| spec.get_mut("parameters"))
            .filter(|parameters| !parameters.is_null());
        if let Some(parameters) = parameters {
            defaults::absent(parameters, "scope", "Cluster");
        }
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let spec = object.field("spec");
        let controller = spec.field("controller");
        if let Some(old) = old {
            let before = old.value.at("spec").str("controller");
            if controller.str() != before {
                controller.invalid_text("field is immutable", errors);
            }
        }
        if controller.str().len() > CONTROLLER_MAX {
            errors.too_long(controller.path, CONTROLLER_MAX);
        }
        prefixed_path(controller, errors);
        let parameters = spec.field("parameters");
        if !parameters.is_absent() {
            self::parameters(parameters, errors);
        }
    },
    printing: Printing::of(|object, now| {
        let spec = object.at("spec");
        let mut name = object.at("metadata").str("name").to_owned();
        let annotations = object.at("metadata").at("annotations");
        if annotations.str("ingressclass.kubernetes.io/is-default-class") == "true" {
            name.push_str(" (default)");
        }
        let parameters = match spec.get("parameters") {
            None => "<none>".to_owned(),
            Some(parameters) => {
                let kind = match parameters.at("apiGroup").as_str() {
                    Some(group) => format!("{}.{group}", parameters.str("kind")),
                    None => parameters.str("kind").to_owned(),
                };
                format!("{kind}/{}", parameters.str("name"))
            }
        };
        vec![
            name.into(),
            spec.str("controller").into(),
            parameters.into(),
            table::age(object, now),
        ]
    }),
    generation: Generation::Spec,
    internal: "networking.IngressClass",
    ..Rules::DEFAULT
};

/// IsDomainPrefixedPath
fn prefixed_path(path: At<'_>, errors: &mut Errors) {
    if !path.required("", errors) {
        return;
    }
    match path.str().split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            for wrong in names::dns1123_subdomain(host) {
                errors.invalid(path.path, host, wrong);
            }
            for wrong in names::http_path(rest) {
                errors.invalid(path.path, rest, wrong);
            }
        }
        _ => path.invalid(
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
            errors,
        ),
    }
}

fn parameters(at: At<'_>, errors: &mut Errors) {
    at.field("apiGroup")
        .checked_if_there(names::dns1123_subdomain, errors);
    for field in ["kind", "name"] {
        at.field(field).checked_if_said(names::path_segment, errors);
    }
    let (scope, namespace) = (at.field("scope"), at.field("namespace"));
    match scope.value.as_str() {
        None => errors.required(scope.path, ""),
        Some("Namespace") if namespace.is_absent() => {
            errors.required(namespace.path, "`parameters.scope` is set to 'Namespace'")
        }
        Some("Namespace") => namespace.checked(names::dns1123_label, errors),
        Some("Cluster") => namespace.forbid("`parameters.scope` is set to 'Cluster'", errors),
        Some(_) => scope.one_of(&["Cluster", "Namespace"], errors),
    }
    // Upstream reports declarative validation last.
    for field in ["kind", "name"] {
        at.field(field).required("", errors);
    }
}
