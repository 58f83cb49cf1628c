//! Probes and lifecycle hooks of containers, and their handlers.

use super::Scope;
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const PROBE: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

/// Validates a liveness or startup probe.
pub(super) fn liveness(probe: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    if probe.is_absent() {
        return;
    }
    self::probe(probe, scope, errors);
    let successes = probe.value.int("successThreshold");
    if successes != 1 {
        errors.invalid(probe.path.field("successThreshold"), successes, "must be 1");
    }
}

/// Validates a readiness probe.
pub(super) fn readiness(probe: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    if probe.is_absent() {
        return;
    }
    self::probe(probe, scope, errors);
    let grace = probe.field("terminationGracePeriodSeconds");
    if !grace.is_absent() {
        grace.invalid("must not be set for readinessProbes", errors);
    }
}

fn probe(probe: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    handler(probe, PROBE, scope, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        probe.field(field).non_negative(errors);
    }
    let grace = probe.field("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid("must be greater than 0", errors);
    }
}

/// Validates lifecycle hooks: validateLifecycle. Stop signals, a disabled feature, have been dropped.
pub(super) fn lifecycle(lifecycle: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.field(hook);
        if !hook.is_absent() {
            handler(hook, HOOK, scope, errors);
        }
    }
}

/// Requires exactly one of `kinds`: validateHandler. Validates only the first one.
fn handler(owner: At<'_>, kinds: &[&str], scope: &Scope<'_>, errors: &mut Errors) {
    let mut said = false;
    for kind in kinds {
        let at = owner.field(kind);
        if at.is_absent() {
            continue;
        }
        if said {
            errors.forbidden(at.path, "may not specify more than 1 handler type");
            continue;
        }
        said = true;
        match *kind {
            "exec" => {
                at.field("command").required("", errors);
            }
            "httpGet" => http_get(at, errors),
            "tcpSocket" => port(at.field("port"), errors),
            "grpc" => at.field("port").checked_number(names::port_number, errors),
            _ => sleep(at, scope, errors),
        }
    }
    if !said {
        errors.required(owner.path, "must specify a handler type");
    }
}

fn http_get(get: At<'_>, errors: &mut Errors) {
    get.field("path").required("", errors);
    port(get.field("port"), errors);
    get.field("scheme").one_of(&["HTTP", "HTTPS"], errors);
    for header in get.value.list("httpHeaders") {
        for wrong in names::http_header(header.str("name")) {
            errors.invalid(get.path.field("httpHeaders"), header.str("name"), wrong);
        }
    }
}

/// Validates a port number or name: ValidatePortNumOrName.
fn port(port: At<'_>, errors: &mut Errors) {
    match port.value {
        Value::String(name) => port.invalid_each(names::port_name(name), errors),
        _ => {
            for wrong in names::port_number(port.int().unwrap_or(0)) {
                errors.invalid(port.path, port.int().unwrap_or(0), wrong);
            }
        }
    }
}

fn sleep(sleep: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let seconds = sleep.value.int("seconds");
    // A missing grace period is reported elsewhere.
    if let Some(grace) = scope.grace()
        && !(0..=grace).contains(&seconds)
    {
        errors.invalid(
            sleep.path,
            seconds,
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
        );
    }
}
