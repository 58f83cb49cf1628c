//! Validation of services: ValidateServiceCreate, ValidateServiceUpdate and ValidateServiceStatusUpdate.

use std::collections::HashSet;

use super::{
    HEADLESS, TOPOLOGY_HINTS, TOPOLOGY_MODE, families, is_external, is_named, needs_health_check,
};
use crate::meta::{At, Errors, addresses, names};
use crate::resources::groups::core::endpoints::endpoint_ip;
use crate::resources::groups::networking::ingresses::host_name;
use crate::schema::{Value, internal};
use crate::value;

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const BALANCED_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const AFFINITY_MAX: i64 = 86_400;

/// Validates a service, which replaces `old` if that is given.
pub(super) fn service(object: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    let spec = object.field("spec");
    let before = old.map(|old| old.value.at("spec"));
    if let Some(before) = before {
        addresses_stay(spec, before, errors);
        families_stay(spec, before, errors);
        balancer_class(spec, Some(before), errors);
        let port = spec.field("healthCheckNodePort");
        if needs_health_check(before)
            && needs_health_check(spec.value)
            && port.value != before.at("healthCheckNodePort")
        {
            errors.forbidden(port.path, "field is immutable");
        }
    }
    topology(object, errors);
    kind(spec, errors);
    ports(spec, errors);
    spec.field("selector").labels(errors);
    affinity(spec, errors);
    families::related(spec, before, errors);
    let had = before.map_or(&[][..], |before| before.list("externalIPs"));
    let had: HashSet<Option<&str>> = had.iter().map(Value::as_str).collect();
    for ip in spec.field("externalIPs").items() {
        let wrong = if had.contains(&ip.value.as_str()) {
            Vec::new()
        } else {
            addresses::ip_legacy(ip.str())
        };
        if wrong.is_empty() {
            endpoint_ip(ip, errors);
        }
        ip.invalid_each(wrong, errors);
    }
    spec.field("type").required_one_of(
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        errors,
    );
    node_ports(spec, errors);
    source_ranges(object, old, errors);
    let allocates = spec.field("allocateLoadBalancerNodePorts");
    if spec.value.str("type") != "LoadBalancer" {
        allocates.forbid(BALANCED_ONLY, errors);
    } else if allocates.is_absent() {
        errors.required(object.path.field("allocateLoadBalancerNodePorts"), "");
    }
    balancer_class(spec, None, errors);
    traffic(spec, errors);
}

fn topology(object: At<'_>, errors: &mut Errors) {
    let annotations = object.value.at("metadata").at("annotations");
    if let (Some(mode), Some(hints)) = (
        annotations.get(TOPOLOGY_MODE),
        annotations.get(TOPOLOGY_HINTS),
    ) && mode != hints
    {
        let path = object.path.field("metadata.annotations");
        errors.invalid(
            path.key(TOPOLOGY_MODE),
            mode,
            format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"),
        );
    }
}

/// Validates the fields that depend on the type.
fn kind(spec: At<'_>, errors: &mut Errors) {
    let headless = families::is_headless(spec.value);
    let ports = spec.field("ports");
    if ports.value.is_empty() && !headless && !is_named(spec.value) {
        errors.required(ports.path, "");
    }
    let ips = spec.field("clusterIPs");
    match spec.value.str("type") {
        kind @ ("LoadBalancer" | "NodePort") if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.invalid(ips.path.index(0), HEADLESS, why);
        }
        "ExternalName" => {
            const NOT_NAMED: &str = "may not be set for ExternalName services";
            ips.forbid_said(NOT_NAMED, errors);
            spec.field("ipFamilies").forbid_said(NOT_NAMED, errors);
            spec.field("ipFamilyPolicy").forbid(NOT_NAMED, errors);
            let name = spec.field("externalName");
            match name.str().strip_suffix('.').unwrap_or(name.str()) {
                "" => errors.required(name.path, ""),
                text => {
                    for wrong in names::dns1123_subdomain(text) {
                        errors.invalid(name.path, text, wrong);
                    }
                }
            }
        }
        _ => {}
    }
}

fn ports(spec: At<'_>, errors: &mut Errors) {
    let ports = spec.field("ports");
    let several = ports.list().len() > 1;
    let mut seen: HashSet<&str> = HashSet::new();
    for (port, raw) in ports.items().zip(ports.list()) {
        let name = port.field("name");
        if several {
            name.required_checked(names::dns1123_label, errors);
        } else {
            name.checked_if_said(names::dns1123_label, errors);
        }
        if !name.str().is_empty() && !seen.insert(raw.str("name")) {
            errors.duplicate(name.path, name.str());
        }
        port.field("port")
            .checked_number(names::port_number, errors);
        port.field("protocol")
            .required_one_of(&["SCTP", "TCP", "UDP"], errors);
        let target = port.field("targetPort");
        match target.int() {
            Some(_) => target.checked_number(names::port_number, errors),
            None => target.checked(names::port_name, errors),
        }
        port.field("appProtocol")
            .checked_if_there(names::qualified_name, errors);
    }
}

fn affinity(spec: At<'_>, errors: &mut Errors) {
    spec.field("sessionAffinity")
        .required_one_of(&["ClientIP", "None"], errors);
    let config = spec.field("sessionAffinityConfig");
    match spec.value.str("sessionAffinity") {
        "ClientIP" => {
            const WHY: &str = "when session affinity type is ClientIP";
            let client = config.field("clientIP");
            let seconds = client.field("timeoutSeconds");
            if let Some(missing) = [config, client, seconds].iter().find(|at| at.is_absent()) {
                errors.required(missing.path, WHY);
            } else if seconds.int().is_some_and(|n| n <= 0 || n > AFFINITY_MAX) {
                let why = format!("must be greater than 0 and less than {AFFINITY_MAX}");
                seconds.invalid(why, errors);
            }
        }
        "None" => config.forbid("must not be set when session affinity is None", errors),
        _ => {}
    }
}

fn node_ports(spec: At<'_>, errors: &mut Errors) {
    let ports = spec.field("ports");
    let given = |port: &At<'_>| port.value.int("nodePort") != 0;
    if spec.value.str("type") == "ClusterIP" {
        for port in ports.items().filter(given) {
            let node = port.path.field("nodePort");
            errors.forbidden(node, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen: HashSet<(&str, i64)> = HashSet::new();
    for (port, raw) in ports.items().zip(ports.list()) {
        let key = (raw.str("protocol"), raw.int("nodePort"));
        if key.1 == 0 {
            continue;
        }
        if !seen.insert(key) {
            errors.duplicate(port.path.field("nodePort"), key.1);
        }
    }
    let mut seen: HashSet<(&str, i64)> = HashSet::new();
    for (port, raw) in ports.items().zip(ports.list()) {
        let key = (raw.str("protocol"), raw.int("port"));
        if !seen.insert(key) {
            let same = value!({"protocol": (key.0), "port": (key.1)});
            let shown = internal::shown(&same, "core.ServicePort");
            errors.push(
                crate::meta::errors::Reason::Duplicate,
                port.path,
                format!("Duplicate value: {shown}"),
            );
        }
    }
}

fn source_ranges(object: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    let spec = object.field("spec");
    let balanced = spec.value.str("type") == "LoadBalancer";
    let ranges = spec.field("loadBalancerSourceRanges");
    if !ranges.value.is_empty() {
        // Upstream's path has a capital letter.
        let path = spec.path.field("LoadBalancerSourceRanges");
        if !balanced {
            errors.forbidden(path, BALANCED_ONLY);
        }
        let had: HashSet<&str> = old
            .map(|old| old.value.at("spec").list("loadBalancerSourceRanges"))
            .unwrap_or_default()
            .iter()
            .filter_map(|range| Some(range.as_str()?.trim()))
            .collect();
        for (i, range) in ranges.list().iter().enumerate() {
            let range = range.as_str().unwrap_or_default().trim();
            if !had.contains(range) {
                for wrong in addresses::cidr_legacy(range) {
                    errors.invalid(path.index(i), range, wrong);
                }
            }
        }
        return;
    }
    let annotation = |object: &Value| {
        let annotations = object.at("metadata").at("annotations");
        annotations.at(SOURCE_RANGES).as_str().map(str::to_owned)
    };
    let Some(text) = annotation(object.value) else {
        return;
    };
    let path = object.path.field("metadata.annotations");
    if !balanced {
        errors.forbidden(path.key(SOURCE_RANGES), BALANCED_ONLY);
    }
    if old.is_none_or(|old| annotation(old.value).unwrap_or_default() != text)
        && !text.trim().is_empty()
    {
        for range in text.trim().split(',').map(str::trim) {
            for wrong in addresses::cidr_legacy(range) {
                errors.invalid(path.key(SOURCE_RANGES), range, wrong);
            }
        }
    }
}

/// Validates the load balancer class, compared with the old one.
fn balancer_class(spec: At<'_>, before: Option<&Value>, errors: &mut Errors) {
    let class = spec.field("loadBalancerClass");
    let balanced = |spec: &Value| spec.str("type") == "LoadBalancer";
    if let Some(before) = before
        && balanced(before)
        && balanced(spec.value)
        && before.at("loadBalancerClass") != class.value
    {
        class.invalid_pointer("may not change once set", errors);
    }
    if balanced(spec.value) {
        class.checked_if_there(names::qualified_name, errors);
    } else {
        class.forbid(BALANCED_ONLY, errors);
    }
}

fn traffic(spec: At<'_>, errors: &mut Errors) {
    let outside = spec.field("externalTrafficPolicy");
    if is_external(spec.value) {
        outside.required_one_of(&["Cluster", "Local"], errors);
    } else if !outside.str().is_empty() {
        outside.invalid("may only be set for externally-accessible services", errors);
    }
    let port = spec.field("healthCheckNodePort");
    if needs_health_check(spec.value) {
        if port.required("", errors) && port.int() == Some(0) {
            errors.required(port.path, "");
        } else {
            port.checked_number(names::port_number, errors);
        }
    } else if port.int().unwrap_or(0) != 0 {
        port.invalid(
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            errors,
        );
    }
    let inside = spec.field("internalTrafficPolicy");
    let needed = matches!(
        spec.value.str("type"),
        "NodePort" | "LoadBalancer" | "ClusterIP"
    );
    if inside.is_absent() && needed {
        errors.required(inside.path, "");
    }
    inside.one_of_if_there(&["Cluster", "Local"], errors);
    spec.field("trafficDistribution")
        .one_of_if_there(&["PreferClose", "PreferSameZone", "PreferSameNode"], errors);
}

/// validateUpgradeDowngradeClusterIPs
fn addresses_stay(spec: At<'_>, before: &Value, errors: &mut Errors) {
    let headless = families::is_headless;
    if is_named(spec.value) || is_named(before) || headless(spec.value) && headless(before) {
        return;
    }
    let (ips, had) = (spec.field("clusterIPs"), before.list("clusterIPs"));
    let now = ips.list();
    let mut changed =
        |i: usize| errors.invalid(ips.path.index(i), ips.value, "may not change once set");
    if now.len() == had.len() {
        (0..had.len())
            .filter(|i| now[*i] != had[*i])
            .for_each(changed);
        return;
    }
    if let (Some(now), Some(had)) = (now.first(), had.first())
        && now != had
    {
        changed(0);
    }
    if now.len() < had.len() {
        if now.is_empty() {
            errors.invalid(
                ips.path.index(0),
                ips.value,
                "primary clusterIP can not be unset",
            );
        }
        single_stack_when_released(spec, now.len(), "clusterIP", errors);
    }
}

/// validateUpgradeDowngradeIPFamilies
fn families_stay(spec: At<'_>, before: &Value, errors: &mut Errors) {
    let (was, is) = (
        families::is_headless(before),
        families::is_headless(spec.value),
    );
    if is_named(spec.value) || is_named(before) || was != is || is {
        return;
    }
    let (families, had) = (spec.field("ipFamilies"), before.list("ipFamilies"));
    let now = families.list();
    let path = families.path.index(0);
    if now.len() == had.len() {
        for _ in now.iter().zip(had).filter(|(now, had)| now != had) {
            errors.invalid(path, families.value, "may not change once set");
        }
        return;
    }
    if now.len() < had.len() && spec.value.list("clusterIPs").is_empty() {
        errors.invalid(path, families.value, "primary ipFamily can not be unset");
    }
    if let (Some(now), Some(had)) = (now.first(), had.first())
        && now != had
    {
        errors.invalid(path, spec.value.at("clusterIPs"), "may not change once set");
    }
    if now.len() < had.len() {
        single_stack_when_released(spec, now.len(), "ipFamily", errors);
    }
}

fn single_stack_when_released(spec: At<'_>, left: usize, what: &str, errors: &mut Errors) {
    let policy = spec.field("ipFamilyPolicy");
    if left == 1 && policy.str() != "SingleStack" {
        let why = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        policy.invalid(why, errors);
    }
}

/// Validates a service's status.
pub(super) fn status(object: At<'_>, old: &Value, errors: &mut Errors) {
    let status = object.field("status");
    let balancer = status.field("loadBalancer");
    let points = balancer.field("ingress");
    if object.value.at("spec").str("type") != "LoadBalancer" {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        return points.forbid_said(why, errors);
    }
    let had = old.path(&["status", "loadBalancer"]).list("ingress");
    let had: HashSet<&str> = had.iter().map(|had| had.str("ip")).collect();
    for point in points.items() {
        let (ip, mode) = (point.field("ip"), point.field("ipMode"));
        if !had.contains(ip.str()) {
            ip.checked_if_said(addresses::ip_legacy, errors);
        }
        match (ip.str().is_empty(), mode.is_absent()) {
            (false, true) => errors.required(mode.path, "must be specified when `ip` is set"),
            (true, false) => {
                errors.forbidden(mode.path, "may not be specified when `ip` is not set")
            }
            _ => mode.one_of_if_there(&["Proxy", "VIP"], errors),
        }
        host_name(point.field("hostname"), errors);
    }
}
