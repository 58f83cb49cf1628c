//! APIServices: API groups and the servers behind them. Follows k8s.io/kube-aggregator/pkg/registry/apiservice and
//! pkg/apis/apiregistration.

use crate::meta::{At, Errors, conditions, names, table, time};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{MetaOnStatus, Naming, Printing, Rules, StatusRules, metadata};
use crate::schema::Value;
use crate::value;

/// The rules of API services.
pub(super) const API_SERVICES: Rules = Rules {
    defaults: |object, _| {
        let service = object
            .get_mut("spec")
            .and_then(|spec| spec.get_mut("service"));
        if let Some(service) = service {
            defaults::absent(service, "port", 443);
        }
    },
    prepare_create: |object, cx| {
        if object.at("spec").get("service").is_none() {
            let local = value!({
                "type": "Available",
                "status": "True",
                "lastTransitionTime": (time::print(cx.now)),
                "reason": "Local",
                "message": "Local APIServices are always available",
            });
            object.set("status", value!({ "conditions": [local] }));
        }
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        validate(object, errors);
    },
    status: StatusRules {
        validate: |object, _, _, errors| {
            let status = object.field("status");
            for condition in status.field("conditions").items() {
                condition
                    .field("status")
                    .one_of(&["True", "False", "Unknown"], errors);
            }
        },
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    printing: Printing::of(cells),
    naming: Naming::validated_by(|name, _| names::path_segment(name)),
    unconditional_update: false,
    internal: "apiregistration.APIService",
    ..Rules::DEFAULT
};

fn validate(object: At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let (group, version) = (spec.field("group"), spec.field("version"));
    name(object, errors);
    if group.str().is_empty() && version.str() != "v1" {
        errors.required(
            group.path,
            "only v1 may have an empty group and it better be legacy kube",
        );
    }
    group.checked_if_said(names::dns1123_subdomain, errors);
    version.checked(names::dns1035_label, errors);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let priority = spec.field(field);
        let number = priority.int().unwrap_or(0);
        if number <= 0 || number > most {
            errors.invalid(
                priority.path,
                number,
                format!("must be positive and less than {most}"),
            );
        }
    }
    let (bundle, service) = (spec.field("caBundle"), spec.field("service"));
    let insecure = spec.field("insecureSkipTLSVerify");
    if service.is_absent() {
        if !bundle.str().is_empty() {
            let shown = format!("{} bytes", base64_len(bundle.str()));
            errors.invalid(
                bundle.path,
                shown,
                "local APIServices may not have a caBundle",
            );
        }
        if insecure.bool() {
            insecure.invalid(
                "local APIServices may not have insecureSkipTLSVerify",
                errors,
            );
        }
        return;
    }
    service.field("namespace").required("", errors);
    service.field("name").required("", errors);
    let port = service.field("port");
    let wrong = names::port_number(port.int().unwrap_or(0));
    if !wrong.is_empty() {
        port.invalid(format!("port is not valid: {}", wrong.join(", ")), errors);
    }
    if insecure.bool() && !bundle.str().is_empty() {
        insecure.invalid("may not be true if caBundle is present", errors);
    }
}

/// The name consists of version and group.
fn name(object: At<'_>, errors: &mut Errors) {
    let (meta, spec) = (object.field("metadata"), object.value.at("spec"));
    let required = format!("{}.{}", spec.str("version"), spec.str("group"));
    for field in ["generateName", "name"] {
        let name = meta.field(field);
        let said = name.str();
        if !said.is_empty() && said != required && names::path_segment(said).is_empty() {
            name.invalid(
                format!(
                    "must be `spec.version+\".\"+spec.group`: {}",
                    crate::meta::errors::quoted(&required)
                ),
                errors,
            );
        }
    }
}

/// The decoded length of base64 text, in bytes.
fn base64_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|&b| b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let service = match object.at("spec").get("service") {
        Some(service) => format!("{}/{}", service.str("namespace"), service.str("name")),
        None => "Local".to_owned(),
    };
    let available = conditions::find(object.at("status").list("conditions"), "Available");
    let (status, reason) = (available.str("status"), available.str("reason"));
    let shown = match (available, status, reason) {
        (Value::Null, ..) => "Unknown".to_owned(),
        (_, "True", _) | (_, _, "") => status.to_owned(),
        _ => format!("{status} ({reason})"),
    };
    vec![
        object.at("metadata").str("name").into(),
        service.into(),
        shown.into(),
        table::age(object, now),
    ]
}
