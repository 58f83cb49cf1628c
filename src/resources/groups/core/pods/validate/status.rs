//! Updates of a pod's status. Follows ValidatePodStatusUpdate.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Before, annotations, containers};
use crate::meta::quantity::Quantity;
use crate::meta::{At, Errors, addresses, names};
use crate::schema::Value;

const NEGATIVE: &str = "must be a non-negative integer";
const MESSAGE_MAX: usize = 256;
/// Lists of container statuses and the corresponding lists of containers.
const STATUSES: [(&str, &str); 2] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
];
const EPHEMERAL: &str = "ephemeralContainerStatuses";

/// Validates an update of a pod's status.
pub(in crate::resources::groups::core) fn status(new: At<'_>, old: At<'_>, errors: &mut Errors) {
    let before = Before {
        pod: true,
        old: Some(old.value),
    };
    let spec = new.value.at("spec");
    let (meta, was) = (new.field("metadata"), old.field("metadata"));
    annotations::updates(
        meta.field("annotations"),
        was.field("annotations"),
        spec,
        before,
        errors,
    );
    let status = new.field("status");
    let was = old.value.at("status");
    conditions(status.field("conditions"), errors);
    nominated(status.field("nominatedNodeName"), old.value, errors);
    not_negative(status.field("observedGeneration"), errors);
    let class = status.field("qosClass");
    if class.str() != was.str("qosClass") {
        class.invalid_text("field is immutable", errors);
    }
    let all_restart = containers(spec).any(|container| {
        container
            .list("restartPolicyRules")
            .iter()
            .any(|rule| rule.str("action") == "RestartAllContainers")
    });
    for (list, of) in STATUSES {
        if !all_restart {
            restarts(status.field(list), was.list(list), errors, |name, code| {
                spec.list(of)
                    .iter()
                    .find(|container| container.str("name") == name)
                    .is_some_and(|container| may_restart(container, spec, code))
            });
        }
    }
    restarts(
        status.field(EPHEMERAL),
        was.list(EPHEMERAL),
        errors,
        |_, _| false,
    );
    claims(status.field("resourceClaimStatuses"), spec, errors);
    extended(status.field("extendedResourceClaimStatus"), spec, errors);
    pod_ips(status, was, errors);
    host_ips(status, was, errors);
    for list in ["containerStatuses", "initContainerStatuses", EPHEMERAL] {
        users(status.field(list), spec, errors);
    }
    for (list, of) in STATUSES {
        allocated(status.field(list), spec.list(of), status.value, errors);
    }
    for status in status.field(EPHEMERAL).items() {
        status
            .field("allocatedResourcesStatus")
            .forbid_said("must not be specified in container status", errors);
    }
}

fn not_negative(number: At<'_>, errors: &mut Errors) {
    if number.int().is_some_and(|n| n < 0) {
        number.invalid(NEGATIVE, errors);
    }
}

fn conditions(list: At<'_>, errors: &mut Errors) {
    for condition in list.items() {
        not_negative(condition.field("observedGeneration"), errors);
        let kind = condition.value.str("type");
        if matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            continue;
        }
        for wrong in names::qualified_name(kind) {
            errors.invalid(condition.path.field("Type"), kind, wrong);
        }
    }
}

fn nominated(node: At<'_>, old: &Value, errors: &mut Errors) {
    if node.str() == old.at("status").str("nominatedNodeName") || node.str().is_empty() {
        return;
    }
    node.checked(names::dns1123_subdomain, errors);
    if !old.at("spec").str("nodeName").is_empty() {
        errors.forbidden(
            node.path,
            "may not be set on pods that are already bound to a node",
        );
    }
}

/// A terminated container must stay so, unless `may` (given its name and exit code) allows a restart. Indexes in paths
/// are those of the old list.
fn restarts(list: At<'_>, old: &[Value], errors: &mut Errors, may: impl Fn(&str, i64) -> bool) {
    for (i, was) in old.iter().enumerate() {
        let Some(ended) = was.at("state").get("terminated") else {
            continue;
        };
        let name = was.str("name");
        let runs =
            |now: &&Value| now.str("name") == name && now.at("state").get("terminated").is_none();
        if list.list().iter().find(runs).is_some() && !may(name, ended.int("exitCode")) {
            errors.forbidden(
                list.path.index(i).field("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

/// Whether a container that exited with `code` is restarted: ContainerShouldRestart.
fn may_restart(container: &Value, spec: &Value, code: i64) -> bool {
    let fails = |policy: &str| match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    };
    let Some(own) = container.at("restartPolicy").as_str() else {
        return fails(spec.str("restartPolicy"));
    };
    let matches = |rule: &Value| {
        let codes = rule.at("exitCodes");
        let among = codes
            .list("values")
            .iter()
            .any(|v| v.as_int() == Some(code));
        match codes.str("operator") {
            "In" => among,
            "NotIn" => !among,
            _ => false,
        }
    };
    let rule = container
        .list("restartPolicyRules")
        .iter()
        .find(|rule| matches(rule));
    match rule.map(|rule| rule.str("action")) {
        Some("Restart" | "RestartAllContainers") => true,
        _ => match own {
            "Always" | "OnFailure" | "Never" => fails(own),
            _ => fails(spec.str("restartPolicy")),
        },
    }
}

fn claims(list: At<'_>, spec: &Value, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for status in list.items() {
        let name = status.field("name");
        let claims = spec.list("resourceClaims");
        if !claims.iter().any(|claim| claim.str("name") == name.str()) {
            name.invalid_text(
                "must match the name of an entry in `spec.resourceClaims`",
                errors,
            );
        }
        if !known.insert(status.value.str("name")) {
            errors.duplicate(name.path, name.str());
        }
        status
            .field("resourceClaimName")
            .checked_if_there(names::dns1123_subdomain, errors);
    }
}

fn extended(status: At<'_>, spec: &Value, errors: &mut Errors) {
    if status.is_absent() {
        return;
    }
    let mappings = status.field("requestMappings");
    mappings.required("at least one request mapping is required", errors);
    let mut known = BTreeSet::new();
    for mapping in mappings.items() {
        let parts =
            ["containerName", "resourceName", "requestName"].map(|key| mapping.value.str(key));
        let [container, resource, request] = parts;
        // A regular container takes precedence over an init container of the same name.
        let of = ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec.list(list))
            .find(|c| c.str("name") == container);
        match of {
            None => mapping.field("containerName").invalid_text(
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
                errors,
            ),
            Some(of) if of.path(&["resources", "requests"]).get(resource).is_none() => {
                mapping.field("resourceName").invalid_text(
                    "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests",
                    errors,
                );
            }
            Some(_) => {}
        }
        for wrong in names::dns1123_label(request) {
            errors.invalid(status.path.field("requestName"), request, wrong);
        }
        if !known.insert(parts) {
            for (key, value) in ["containerName", "resourceName", "requestName"]
                .iter()
                .zip(parts)
            {
                errors.duplicate(mapping.path.field(key), value);
            }
        }
    }
    status
        .field("resourceClaimName")
        .required_checked(names::dns1123_subdomain, errors);
}

fn ips(list: &Value, key: &str) -> Vec<String> {
    list.list(key)
        .iter()
        .map(|ip| ip.str("ip").to_owned())
        .collect()
}

/// Validates new addresses; existing ones may be invalid.
fn sound(list: At<'_>, known: &[String], errors: &mut Errors) {
    for address in list.items() {
        let ip = address.value.str("ip");
        if !known.iter().any(|known| known == ip) {
            for wrong in addresses::ip_legacy(ip) {
                errors.invalid(address.path, ip, wrong);
            }
        }
    }
}

/// At most one address per family.
fn families(list: At<'_>, go_type: &str, errors: &mut Errors) {
    let all = list.list();
    if all.len() < 2 {
        return;
    }
    let parsed: Vec<Option<IpAddr>> = all
        .iter()
        .map(|ip| addresses::parse_ip(ip.str("ip")))
        .collect();
    if let Some(at) = parsed.iter().position(Option::is_none) {
        errors.internal(
            list.path,
            &format!(
                "failed to check for dual stack with error:invalid IP[{at}]: {}",
                all[at].str("ip")
            ),
        );
    }
    let four = parsed.iter().flatten().any(IpAddr::is_ipv4);
    let six = parsed.iter().flatten().any(IpAddr::is_ipv6);
    if !(four && six) || all.len() > 2 || parsed.contains(&None) {
        list.invalid_dump(
            go_type,
            "may specify no more than one IP for each IP family",
            errors,
        );
    }
}

fn pod_ips(status: At<'_>, was: &Value, errors: &mut Errors) {
    let list = status.field("podIPs");
    sound(list, &ips(was, "podIPs"), errors);
    families(list, "[]core.PodIP", errors);
    let ip = status.value.str("podIP");
    match list.list().first() {
        None if ip.is_empty() => {}
        Some(first) if !ip.is_empty() => {
            if first.str("ip") != ip {
                errors.invalid(
                    list.path.index(0).field("ip"),
                    first.str("ip"),
                    "must be equal to `podIP`",
                );
            }
        }
        _ => list.invalid_dump(
            "[]core.PodIP",
            "podIP and podIPs must either both be set or both be unset",
            errors,
        ),
    }
}

fn host_ips(status: At<'_>, was: &Value, errors: &mut Errors) {
    let list = status.field("hostIPs");
    let Some(first) = list.list().first() else {
        return;
    };
    if status.value.str("hostIP") != first.str("ip") {
        errors.invalid(
            list.path.index(0).field("ip"),
            first.str("ip"),
            "must be equal to `hostIP`",
        );
    }
    sound(list, &ips(was, "hostIPs"), errors);
    families(list, "[]core.HostIP", errors);
}

fn users(list: At<'_>, spec: &Value, errors: &mut Errors) {
    let windows = spec.at("os").str("name") == "windows";
    for status in list.items() {
        let user = status.field("user");
        let linux = user.field("linux");
        if linux.is_absent() {
            continue;
        }
        if windows {
            errors.forbidden(linux.path, "cannot be set for a windows pod");
            continue;
        }
        let top = i64::from(u32::MAX);
        linux
            .field("uid")
            .within(0, top, &names::range_error(0, top), errors);
        linux.field("gid").checked_number(names::group_id, errors);
        for group in linux.field("supplementalGroups").items() {
            group.checked_number(names::group_id, errors);
        }
    }
}

/// validateContainerStatusAllocatedResourcesStatus
fn allocated(list: At<'_>, containers: &[Value], status: &Value, errors: &mut Errors) {
    for container in list.items() {
        let name = container.value.str("name");
        let of = containers.iter().find(|c| c.str("name") == name);
        for resource in container.field("allocatedResourcesStatus").items() {
            let name = resource.field("name");
            if let Some(of) = of {
                let wrong = unallocated(name.str(), of, status);
                if !wrong.is_empty() {
                    name.invalid_text(wrong, errors);
                }
            }
            let mut known = BTreeSet::new();
            for item in resource.field("resources").items() {
                item.field("health")
                    .one_of(&["Healthy", "Unhealthy", "Unknown"], errors);
                let message = item.field("message");
                if !message.is_absent() {
                    message.required("must be non-empty if specified", errors);
                    if message.str().len() > MESSAGE_MAX {
                        errors.too_long(message.path, MESSAGE_MAX);
                    }
                }
                let id = item.field("resourceID");
                if !known.insert(item.value.str("resourceID")) {
                    errors.duplicate(id.path, id.str());
                }
            }
        }
    }
}

/// Why a container does not have a resource; empty if it has it.
fn unallocated(name: &str, container: &Value, status: &Value) -> &'static str {
    let resources = container.at("resources");
    let Some(claim) = name.strip_prefix("claim:") else {
        return match resources.at("requests").get(name) {
            Some(_) => "",
            None => "must match one of the container's resource requests",
        };
    };
    let own = resources.list("claims").iter().any(|c| {
        let (name, request) = (c.str("name"), c.str("request"));
        match request {
            "" => claim == name,
            request => claim.split_once('/') == Some((name, request)),
        }
    });
    let extended = status.at("extendedResourceClaimStatus");
    let mapped = claim.split_once('/').is_some_and(|(name, request)| {
        !request.is_empty()
            && name == extended.str("resourceClaimName")
            && extended.list("requestMappings").iter().any(|mapping| {
                let amount = resources.at("requests").at(mapping.str("resourceName"));
                mapping.str("containerName") == container.str("name")
                    && mapping.str("requestName") == request
                    && amount
                        .as_str()
                        .and_then(|text| Quantity::parse(text).ok())
                        .is_some_and(|amount| amount.sign() != 0)
            })
    });
    match own || mapped {
        true => "",
        false => {
            "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty"
        }
    }
}
