//! Device requests of a claim: the `devices` of a ResourceClaimSpec. Follows validateDeviceClaim of
//! k8s.io/kubernetes/pkg/apis/resource/validation.

use super::checks;
use crate::meta::{At, Errors, names};
use crate::resources::groups::core::pods::defaults;
use crate::schema::Value;

const REQUESTS: usize = 32;
const ALTERNATIVES: usize = 8;
const MODES: [&str; 2] = ["All", "ExactCount"];
const NO_REQUEST: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
const ONE_KIND: &str = "exactly one of `exactly` or `firstAvailable` is required";

/// Calls `change` with each request for a class: `exactly`, and the items of `firstAvailable`.
fn each(devices: &mut Value, mut change: impl FnMut(&mut Value)) {
    for request in defaults::items(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            change(exactly);
        }
        defaults::items(request, "firstAvailable").for_each(&mut change);
    }
}

/// Sets the defaults of modes, counts and operators.
pub(super) fn set_defaults(devices: &mut Value) {
    each(devices, |request| {
        defaults::text(request, "allocationMode", "ExactCount");
        if request.str("allocationMode") == "ExactCount" {
            defaults::number(request, "count", 1);
        }
        for toleration in defaults::items(request, "tolerations") {
            defaults::text(toleration, "operator", "Equal");
        }
    });
}

/// Drops fields of features that are disabled by default.
pub(super) fn drop_disabled(devices: &mut Value) {
    each(devices, |request| {
        request.remove("derivedAttributes");
    });
}

/// Validates a reference to a request in the claim with these `devices`.
pub(super) fn reference(name: At<'_>, devices: &Value, errors: &mut Errors) {
    let parts: Vec<&str> = name.str().split('/').collect();
    if parts.len() <= 2 {
        for part in &parts {
            for wrong in names::dns1123_label(part) {
                errors.invalid(name.path, *part, wrong);
            }
        }
    }
    // Of several requests with this name, upstream uses the last.
    let mut requests = devices.list("requests").iter();
    let found = requests.rfind(|request| request.str("name") == parts[0]);
    let known = match parts[..] {
        [_] => found.is_some(),
        [_, sub] => found.is_some_and(|request| {
            let mut subs = request.list("firstAvailable").iter();
            subs.any(|request| request.str("name") == sub)
        }),
        _ => false,
    };
    if !known {
        name.invalid(NO_REQUEST, errors);
    }
}

/// Validates references to requests in a claim.
pub(super) fn references(list: At<'_>, devices: &Value, errors: &mut Errors) {
    if list.list().len() <= REQUESTS {
        list.items()
            .for_each(|name| reference(name, devices, errors));
    }
}

/// Declarative validation of references to requests.
pub(super) fn declared_references(list: At<'_>, errors: &mut Errors) {
    if checks::few(list, REQUESTS, errors) {
        checks::unique_texts(list, errors);
    }
}

/// Validates the `devices` of a claim.
pub(super) fn validate(devices: At<'_>, errors: &mut Errors) {
    let requests = devices.field("requests");
    if requests.list().len() <= REQUESTS {
        requests
            .items()
            .for_each(|request| self::request(request, errors));
    }
    let constraints = devices.field("constraints");
    if constraints.list().len() <= 32 {
        for constraint in constraints.items() {
            references(constraint.field("requests"), devices.value, errors);
            if constraint.field("matchAttribute").is_absent()
                && constraint.field("distinctAttribute").is_absent()
            {
                let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
                errors.required(constraint.path, why);
            }
        }
    }
    let config = devices.field("config");
    if config.list().len() <= 32 {
        for config in config.items() {
            references(config.field("requests"), devices.value, errors);
            checks::configuration(config, errors);
        }
    }
}

fn request(request: At<'_>, errors: &mut Errors) {
    request.field("name").checked(names::dns1123_label, errors);
    let (exactly, first) = (request.field("exactly"), request.field("firstAvailable"));
    match (exactly.is_absent(), first.list().is_empty()) {
        (true, true) => errors.required(request.path, ONE_KIND),
        (false, false) => errors.invalid(
            request.path,
            Value::Null,
            format!("{ONE_KIND}, but multiple fields are set"),
        ),
        (false, true) => {
            exactly
                .field("deviceClassName")
                .required_checked(names::dns1123_subdomain, errors);
            wanted(exactly, errors);
        }
        (true, false) if first.list().len() <= ALTERNATIVES => {
            for request in first.items() {
                request.field("name").checked(names::dns1123_label, errors);
                wanted(request, errors);
            }
        }
        (true, false) => {}
    }
}

/// Validates what `exactly` and the items of `firstAvailable` have in common.
fn wanted(request: At<'_>, errors: &mut Errors) {
    checks::selectors(request.field("selectors"), errors);
    let count = request.field("count");
    let number = count.int().unwrap_or(0);
    match request.value.str("allocationMode") {
        "All" if number != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.invalid(count.path, number, why);
        }
        "ExactCount" if number <= 0 => {
            errors.invalid(count.path, number, "must be greater than zero");
        }
        _ => {}
    }
    checks::tolerations(request.field("tolerations"), errors);
}

/// Declarative validation of the `devices` of a claim.
pub(super) fn declared(devices: At<'_>, errors: &mut Errors) {
    let requests = devices.field("requests");
    if checks::few(requests, REQUESTS, errors) {
        checks::unique(requests, |request| request.str("name"), errors);
        for request in requests.items() {
            declared_wanted(request.field("exactly"), errors);
            let first = request.field("firstAvailable");
            if checks::few(first, ALTERNATIVES, errors) {
                checks::unique(first, |request| request.str("name"), errors);
                for request in first.items() {
                    checks::declared_name(
                        request.field("deviceClassName"),
                        names::long_name,
                        errors,
                    );
                    declared_wanted(request, errors);
                }
            }
        }
    }
    let constraints = devices.field("constraints");
    if checks::few(constraints, 32, errors) {
        for constraint in constraints.items() {
            declared_references(constraint.field("requests"), errors);
            checks::declared_full_name(constraint.field("matchAttribute"), errors);
            checks::declared_full_name(constraint.field("distinctAttribute"), errors);
        }
    }
    let config = devices.field("config");
    if checks::few(config, 32, errors) {
        for config in config.items() {
            declared_references(config.field("requests"), errors);
            checks::declared_configuration(config, errors);
        }
    }
}

fn declared_wanted(request: At<'_>, errors: &mut Errors) {
    checks::few(request.field("selectors"), 32, errors);
    let mode = request.field("allocationMode");
    if !mode.str().is_empty() {
        mode.one_of(&MODES, errors);
    }
    checks::declared_tolerations(request.field("tolerations"), errors);
}
