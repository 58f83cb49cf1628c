//! Resource requests and limits of containers and pods.

use std::collections::{BTreeSet, HashMap};

use super::Scope;
use crate::meta::amounts::{Amounts, Side, is_pod_level};
use crate::meta::quantity::Quantity;
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";
/// Kubernetes' own resources, including those of quotas.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Those of [`STANDARD`] with integer quantities.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Validates the name of a resource; depends on the owner of the list.
type NameCheck = fn(&str, At<'_>, &mut Errors);

/// Whether the resource is huge pages of some size.
pub(super) fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether the resource is Kubernetes' own: without a domain, or with a kubernetes.io domain.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the resource is an extended resource.
pub(in crate::resources::groups) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with(REQUESTS)
        && names::qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}

/// Whether a request may be lower than the limit.
pub(in crate::resources::groups::core) fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Whether a resource may be limited by a quota under this name, without a prefix.
pub(in crate::resources::groups::core) fn is_standard_quota(name: &str) -> bool {
    (STANDARD.contains(&name) && name != "storage") || is_huge_page_or_quota(name)
}

/// Huge pages, or their name in a quota.
fn is_huge_page_or_quota(name: &str) -> bool {
    is_huge_page(name.strip_prefix(REQUESTS).unwrap_or(name))
}

/// Validates a qualified name; without a domain it must be a standard resource: validateResourceName. Returns whether
/// it is valid.
pub(in crate::resources::groups::core) fn resource_name(
    name: &str,
    at: At<'_>,
    errors: &mut Errors,
) -> bool {
    let wrong = names::qualified_name(name);
    let ok = wrong.is_empty();
    for wrong in wrong {
        errors.invalid(at.path, name, wrong);
    }
    let standard = STANDARD.contains(&name) || is_huge_page_or_quota(name);
    if ok && !name.contains('/') && !standard {
        errors.invalid(
            at.path,
            name,
            "must be a standard resource type or fully qualified",
        );
        return false;
    }
    ok
}

/// Validates a resource of a container; errors are at `at`: ValidateContainerResourceName.
pub(in crate::resources::groups) fn container_resource_name(
    name: &str,
    at: At<'_>,
    errors: &mut Errors,
) {
    resource_name(name, at, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            errors.invalid(at.path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(
            at.path,
            name,
            "doesn't follow extended resource name standard",
        );
    }
}

fn pod_resource_name(name: &str, at: At<'_>, errors: &mut Errors) {
    if resource_name(name, at, errors) && !is_pod_level(name) {
        errors.not_supported(at.path, name, &["cpu", HUGE_PAGES, "memory"]);
    }
}

/// Validates an amount of a resource: ValidateResourceQuantityValue.
pub(in crate::resources::groups) fn quantity(name: &str, at: At<'_>, errors: &mut Errors) {
    let Some(amount) = at.quantity() else { return };
    if amount.sign() < 0 {
        at.invalid("must be greater than or equal to 0", errors);
    }
    if amount.is_fractional() && (COUNTED.contains(&name) || is_extended(name)) {
        at.invalid("must be an integer", errors);
    }
}

/// Whether an amount is a whole number of huge pages of the size in the name.
pub(super) fn whole_pages(name: &str, amount: &Value) -> bool {
    let size = name
        .strip_prefix(HUGE_PAGES)
        .and_then(|size| Quantity::parse(size).ok());
    let amount = amount.as_str().and_then(|text| Quantity::parse(text).ok());
    let (Some(size), Some(amount)) = (size, amount) else {
        return false;
    };
    size.value() > 0 && !size.is_fractional() && amount.value() % size.value() == 0
}

/// Validates a container's resources: ValidateContainerResourceRequirements.
pub(super) fn container_resources(resources: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    if !resources.value.is_empty() {
        requirements(resources, container_resource_name, scope, errors);
    }
}

/// Validates the overhead of a pod, like the limits of a container.
pub(super) fn overhead(overhead: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let limits = overhead.field("limits");
    let list = At {
        value: overhead.value,
        path: limits.path,
    };
    let found = amounts(list, container_resource_name, scope, errors, |_, _, _| {});
    huge_pages_alone(found, overhead, errors);
}

/// Which types of resources a list contains.
#[derive(Clone, Copy, Default)]
struct Found {
    compute: bool,
    huge: bool,
}

/// Validates a list of amounts; `more` adds a validation of each.
fn amounts(
    list: At<'_>,
    check: NameCheck,
    scope: &Scope<'_>,
    errors: &mut Errors,
    more: impl Fn(&str, At<'_>, &mut Errors),
) -> Found {
    let mut found = Found::default();
    for (name, at) in list.entries() {
        check(name, at, errors);
        quantity(name, at, errors);
        more(name, at, errors);
        if is_huge_page(name) {
            found.huge = true;
            if !whole_pages(name, at.value) && !scope.before.broken_pages() {
                at.invalid(
                    format!("{} is not positive integer multiple of {name}", at.str()),
                    errors,
                );
            }
        }
        found.compute |= matches!(name, "cpu" | "memory");
    }
    found
}

fn huge_pages_alone(found: Found, owner: At<'_>, errors: &mut Errors) {
    if found.huge && !found.compute {
        errors.forbidden(owner.path, "HugePages require cpu or memory");
    }
}

fn requirements(resources: At<'_>, check: NameCheck, scope: &Scope<'_>, errors: &mut Errors) {
    let (limits, requests) = (resources.field("limits"), resources.field("requests"));
    let limited = amounts(limits, check, scope, errors, |_, _, _| {});
    let requested = amounts(requests, check, scope, errors, |name, at, errors| {
        let limit = limits.value.at(name);
        let most = limit.as_str().and_then(|text| Quantity::parse(text).ok());
        match (at.quantity(), most) {
            (Some(amount), Some(most)) if amount != most && !overcommits(name) => errors.invalid(
                requests.path,
                at.str(),
                format!(
                    "must be equal to {name} limit of {}",
                    limit.as_str().unwrap_or_default()
                ),
            ),
            (Some(amount), Some(most)) if amount > most => errors.invalid(
                requests.path,
                at.str(),
                format!(
                    "must be less than or equal to {name} limit of {}",
                    limit.as_str().unwrap_or_default()
                ),
            ),
            (_, None) if !overcommits(name) => errors.required(
                limits.path,
                "Limit must be set for non overcommitable resources",
            ),
            _ => {}
        }
    });
    let found = Found {
        compute: limited.compute || requested.compute,
        huge: limited.huge || requested.huge,
    };
    huge_pages_alone(found, resources, errors);
    claims(resources.field("claims"), scope, errors);
}

/// A container's claims must be claims of the pod: validateResourceClaimNames.
fn claims(list: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let mut known: BTreeSet<String> = BTreeSet::new();
    // How many requests of each claim were named.
    let mut parts: HashMap<&str, usize> = HashMap::new();
    let all: Vec<&str> = scope.claims.iter().copied().collect();
    let of_pod = match all.as_slice() {
        [] => " which is empty".to_owned(),
        all => format!(": {}", all.join(", ")),
    };
    for claim in list.items() {
        let (name, request) = (claim.value.str("name"), claim.value.str("request"));
        if name.is_empty() {
            errors.required(claim.path, "");
            continue;
        }
        if known.contains(name) {
            errors.duplicate(claim.path, name);
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                claim.field("request").checked(names::dns1123_label, errors);
                key = format!("{name}/{request}");
            }
            if known.contains(&key) {
                errors.duplicate(claim.path, key.as_str());
            } else if request.is_empty() {
                for _ in 0..parts.get(name).copied().unwrap_or_default() {
                    errors.duplicate(claim.path, name);
                }
            }
            // The key of a claim is its name up to the first slash.
            let owner = name.split_once('/').map_or(name, |(owner, _)| owner);
            let is_part = key.contains('/');
            if known.insert(key) && is_part {
                *parts.entry(owner).or_default() += 1;
            }
        }
        if !scope.claims.contains(name) && !errors.is_full() {
            errors.push(
                crate::meta::errors::Reason::NotFound,
                claim.path,
                format!(
                    "Not found: {}: must be one of the names in pod.spec.resourceClaims{of_pod}",
                    crate::meta::errors::quoted(name)
                ),
            );
        }
    }
}

/// Validates the resources at pod level: validatePodResources.
pub(super) fn pod_resources(spec: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let resources = spec.field("resources");
    if resources.is_absent() {
        return;
    }
    if spec.value.at("os").str("name") == "windows" {
        return errors.forbidden(resources.path, "may not be set for a windows pod");
    }
    resources
        .field("claims")
        .forbid("claims may not be set for Resources at pod-level", errors);
    requirements(resources, pod_resource_name, scope, errors);
    consistent(spec.value, resources, errors);
}

/// validatePodResourceConsistency
fn consistent(spec: &Value, resources: At<'_>, errors: &mut Errors) {
    for side in [Side::Requests, Side::Limits] {
        let of = side.key();
        let whole = resources.field(of);
        for (name, sum) in Amounts::containers(spec, side).0 {
            if side == Side::Limits && !is_huge_page(&name) {
                continue;
            }
            let Some(said) = whole.value.get(&name) else {
                continue;
            };
            let at = At {
                value: said,
                path: whole.path.key(&name),
            };
            if at.quantity().is_some_and(|most| sum > most) {
                at.invalid(
                    format!("must be greater than or equal to aggregate container {of} of {sum}"),
                    errors,
                );
            }
        }
    }
    let containers = resources.path.field("containers");
    for (i, container) in spec.list("containers").iter().enumerate() {
        for (name, limit) in container.at("resources").entries("limits") {
            let most = resources.value.at("limits").at(name);
            let parse = |value: &Value| Quantity::parse(value.as_str()?).ok();
            if let (Some(own), Some(whole)) = (parse(limit), parse(most))
                && own > whole
            {
                errors.invalid(
                    containers.index(i).key(name).field("limits"),
                    limit,
                    format!(
                        "must be less than or equal to pod limits of {}",
                        most.as_str().unwrap_or_default()
                    ),
                );
            }
        }
    }
}
