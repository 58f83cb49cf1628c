//! Checks of what processes may do: capabilities, escalation, users.

use std::collections::BTreeSet;

use super::breach::{Breach, breach, quote};
use super::pod::Pod;
use crate::schema::Value;

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add disallowed capabilities, and those capabilities.
fn adding(pod: Pod<'_>, allowed: &[&str]) -> Option<String> {
    let mut bad = BTreeSet::new();
    let names = pod.named(|container| {
        let capabilities = container.at("securityContext").at("capabilities");
        let wrong: Vec<&str> = capabilities
            .list("add")
            .iter()
            .filter_map(Value::as_str)
            .filter(|capability| !allowed.contains(capability))
            .collect();
        bad.extend(wrong.iter().map(|capability| (*capability).to_owned()));
        !wrong.is_empty()
    })?;
    Some(format!(
        "{} must not include {} in securityContext.capabilities.add",
        names.containers(),
        quote(&bad)
    ))
}

pub(super) fn capabilities(pod: Pod<'_>) -> Option<Breach> {
    breach("non-default capabilities", adding(pod, &CAPABILITIES)?)
}

pub(super) fn restricted_capabilities(pod: Pod<'_>) -> Option<Breach> {
    let keeping = pod.named(|container| {
        let capabilities = container.at("securityContext").at("capabilities");
        let mut dropped = capabilities.list("drop").iter();
        !dropped.any(|capability| capability.as_str() == Some("ALL"))
    });
    let keeping = keeping.map(|names| {
        format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            names.containers()
        )
    });
    let details: Vec<String> = keeping
        .into_iter()
        .chain(adding(pod, &["NET_BIND_SERVICE"]))
        .collect();
    if details.is_empty() {
        return None;
    }
    breach("unrestricted capabilities", details.join("; "))
}

pub(super) fn privileged(pod: Pod<'_>) -> Option<Breach> {
    let names = pod.named(|container| container.at("securityContext").bool("privileged"))?;
    breach(
        "privileged",
        format!(
            "{} must not set securityContext.privileged=true",
            names.containers()
        ),
    )
}

pub(super) fn escalation(pod: Pod<'_>) -> Option<Breach> {
    let names = pod.named(|container| {
        let context = container.at("securityContext");
        context.at("allowPrivilegeEscalation").as_bool() != Some(false)
    })?;
    breach(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            names.containers()
        ),
    )
}

pub(super) fn non_root(pod: Pod<'_>) -> Option<Breach> {
    const REASON: &str = "runAsNonRoot != true";
    if let Some(setters) =
        pod.setters(|context| context.at("runAsNonRoot").as_bool() == Some(false))
    {
        return breach(
            REASON,
            format!("{setters} must not set securityContext.runAsNonRoot=false"),
        );
    }
    if pod.spec.at("securityContext").bool("runAsNonRoot") {
        return None;
    }
    let names = pod.named(|container| {
        container
            .at("securityContext")
            .get("runAsNonRoot")
            .is_none()
    })?;
    breach(
        REASON,
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            names.containers()
        ),
    )
}

pub(super) fn root_user(pod: Pod<'_>) -> Option<Breach> {
    let setters = pod.setters(|context| context.at("runAsUser").as_int() == Some(0))?;
    breach("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}
