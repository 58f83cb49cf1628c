//! Resource requests and limits of containers and pods.

use std::collections::{BTreeSet, HashMap};

use super::Scope;
use crate::meta::amounts::{Amounts, Side, is_pod_level};
use crate::meta::quantity::Quantity;
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";
/// Resources that Kubernetes itself knows, quotas' among them.
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
/// Those of [`STANDARD`] that are counted.
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

/// What a list of resources may name: the kind of its owner.
type NameCheck = fn(&str, At<'_>, &mut Errors);

/// Pages of memory of a size of their own.
pub(super) fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// A resource of Kubernetes itself: one without a domain, or with its own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource of a vendor.
pub(in crate::resources::groups) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with(REQUESTS)
        && names::qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}

/// May be requested below its limit.
pub(in crate::resources::groups::core) fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Whether a resource may be limited by a quota under this plain name.
pub(in crate::resources::groups::core) fn is_standard_quota(name: &str) -> bool {
    (STANDARD.contains(&name) && name != "storage") || is_huge_page_or_quota(name)
}

/// Huge pages, or what a quota calls them.
fn is_huge_page_or_quota(name: &str) -> bool {
    is_huge_page(name.strip_prefix(REQUESTS).unwrap_or(name))
}

/// A qualified name, which without a domain is a standard resource: validateResourceName. Answers whether it is.
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

/// A resource that a container may ask for; the refusal is at `at`: ValidateContainerResourceName.
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

/// An amount of a resource: ValidateResourceQuantityValue.
pub(in crate::resources::groups) fn quantity(name: &str, at: At<'_>, errors: &mut Errors) {
    let Some(amount) = at.quantity() else { return };
    if amount.sign() < 0 {
        at.invalid("must be greater than or equal to 0", errors);
    }
    if amount.is_fractional() && (COUNTED.contains(&name) || is_extended(name)) {
        at.invalid("must be an integer", errors);
    }
}

/// Whether an amount is a whole number of the pages that its name tells the size of.
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

/// What a container asks for: ValidateContainerResourceRequirements.
pub(super) fn container_resources(resources: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    if !resources.value.is_empty() {
        requirements(resources, container_resource_name, scope, errors);
    }
}

/// The overhead of a pod, validated as limits of a container.
pub(super) fn overhead(overhead: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let limits = overhead.field("limits");
    let list = At {
        value: overhead.value,
        path: limits.path,
    };
    let found = amounts(list, container_resource_name, scope, errors, |_, _, _| {});
    huge_pages_alone(found, overhead, errors);
}

/// Which kinds of resources a list holds.
#[derive(Clone, Copy, Default)]
struct Found {
    compute: bool,
    huge: bool,
}

/// Validates a list of amounts; `more` is asked about each of them too.
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

/// A container's claims are the pod's: validateResourceClaimNames.
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

/// What the pod as a whole asks for: validatePodResources.
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
