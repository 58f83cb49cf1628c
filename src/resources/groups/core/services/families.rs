//! The IP families of a service, from the request and the cluster's configuration. Follows
//! ValidateServiceClusterIPsRelatedFields and initIPFamilyFields of k8s.io/kubernetes.

use super::{HEADLESS, is_named};
use crate::meta::{At, Errors, Path, addresses};
use crate::schema::Value;

const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// Whether a service is headless: isHeadlessService.
pub(super) fn is_headless(spec: &Value) -> bool {
    matches!(spec.list("clusterIPs"), [one] if one.as_str() == Some(HEADLESS))
}

/// Text items of a list.
pub(super) fn texts(spec: &Value, key: &str) -> Vec<String> {
    let items = spec.list(key).iter();
    items
        .map(|item| item.as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Sets a list of strings; removes it if empty.
pub(super) fn set_texts(spec: &mut Value, key: &str, texts: &[String]) {
    if texts.is_empty() {
        spec.remove(key);
    } else {
        spec.set(key, texts.iter().map(Value::from).collect::<Vec<_>>());
    }
}

fn is_v6(ip: &str) -> bool {
    addresses::parse_ip(ip).is_some_and(|ip| ip.is_ipv6())
}

/// The family of an address.
pub(super) fn family_of(ip: &str) -> &'static str {
    match addresses::parse_ip(ip) {
        Some(ip) if ip.is_ipv4() => "IPv4",
        Some(_) => "IPv6",
        None => "unknown",
    }
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// Validates that addresses and families agree; `before` is the old spec.
pub(super) fn related(spec: At<'_>, before: Option<&Value>, errors: &mut Errors) {
    if is_named(spec.value) {
        return;
    }
    let (one, ips) = (spec.value.str("clusterIP"), spec.field("clusterIPs"));
    let first = ips.list().first().and_then(Value::as_str);
    match (one.is_empty(), first) {
        (false, None) => errors.required(ips.path, ""),
        (false, Some(first)) if first != one => {
            ips.invalid("first value must match `clusterIP`", errors);
        }
        (true, Some(_)) => ips.invalid("must be empty when `clusterIP` is not specified", errors),
        _ => {}
    }
    let families = spec.field("ipFamilies");
    for (i, family) in families.items().enumerate() {
        family.one_of(&FAMILIES, errors);
        if families.list()[..i].contains(family.value) {
            errors.duplicate(family.path, family.value);
        }
    }
    spec.field("ipFamilyPolicy")
        .one_of_if_there(&POLICIES, errors);
    if addresses_are_sound(ips, before, errors) {
        agree(ips, spec, errors);
    }
}

fn addresses_are_sound(ips: At<'_>, before: Option<&Value>, errors: &mut Errors) -> bool {
    let mut sound = true;
    for (i, ip) in ips.items().enumerate() {
        if i == 0 && ip.str() == HEADLESS {
            if ips.list().len() > 1 {
                sound = false;
                ips.invalid("'None' must be the first and only value", errors);
            }
            continue;
        }
        if before.is_some_and(|before| before.list("clusterIPs").contains(ip.value)) {
            continue;
        }
        let wrong = addresses::ip_legacy(ip.str());
        sound &= wrong.is_empty();
        for wrong in wrong {
            errors.invalid(ip.path, ip.str(), wrong);
        }
    }
    if ips.list().len() > 2 {
        ips.invalid("may only hold up to 2 values", errors);
    }
    sound
}

fn agree(ips: At<'_>, spec: At<'_>, errors: &mut Errors) {
    let list = ips.list();
    let text = |ip: &Value| ip.as_str().unwrap_or_default().to_owned();
    if list.len() > 1 {
        let six = list.iter().filter(|ip| is_v6(&text(ip))).count();
        if six == 0 || six == list.len() {
            ips.invalid("may specify no more than one IP for each IP family", errors);
        }
    }
    if is_headless(spec.value) {
        return;
    }
    let families = spec.value.list("ipFamilies");
    for (i, (ip, family)) in ips.items().zip(families).enumerate() {
        let family = family.as_str().unwrap_or_default();
        if FAMILIES.contains(&family) && is_v6(ip.str()) != (family == "IPv6") {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            ip.invalid(why, errors);
        }
    }
}

/// Whether the addresses of a service with PreferDualStack are unchanged. An update does not adapt such a service to
/// the cluster's current families.
pub(super) fn stays_as_it_is(spec: &Value, before: &Value) -> bool {
    const PREFERS: &str = "PreferDualStack";
    let policy = |spec: &Value| spec.at("ipFamilyPolicy").as_str().map(str::to_owned);
    let typed = matches!(spec.str("type"), "ClusterIP" | "NodePort" | "LoadBalancer");
    typed
        && spec.str("type") == before.str("type")
        && policy(spec).as_deref() == Some(PREFERS)
        && policy(before).is_none_or(|policy| policy == PREFERS)
        && ["clusterIPs", "ipFamilies"]
            .iter()
            .all(|key| spec.at(key) == before.at(key))
}

/// Sets the family policy and the families. `configured` are the cluster's families, the default one first.
///
/// # Errors
/// The requested values contradict each other, or the cluster does not support them.
pub(super) fn fill_in(
    spec: &mut Value,
    before: Option<&Value>,
    configured: &[&'static str],
) -> Result<(), Errors> {
    if is_named(spec) || before.is_some_and(|before| stays_as_it_is(spec, before)) {
        return Ok(());
    }
    let selectorless = spec.str("clusterIP") == HEADLESS && spec.at("selector").is_empty();
    if spec.get("ipFamilyPolicy").is_none() {
        let had = before
            .and_then(|before| before.get("ipFamilyPolicy"))
            .cloned();
        let default = if selectorless {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        spec.set("ipFamilyPolicy", had.unwrap_or_else(|| default.into()));
    }
    let mut errors = Errors::default();
    let at = At {
        value: spec,
        path: Path::ROOT.field("spec"),
    };
    related(at, before, &mut errors);
    refused(errors)?;
    let mut errors = Errors::default();
    let policy = spec.str("ipFamilyPolicy").to_owned();
    let single = policy == "SingleStack";
    if let Some(before) = before {
        reduce(spec, before, single, &mut errors);
    }
    infer(spec, single, configured, &mut errors);
    refused(errors)?;
    if selectorless {
        let mut families = texts(spec, "ipFamilies");
        if families.is_empty() {
            families.extend(configured.first().map(|family| (*family).to_owned()));
        }
        if let [one] = &families[..]
            && !single
        {
            let second = other(one).to_owned();
            families.push(second);
        }
        set_texts(spec, "ipFamilies", &families);
        return Ok(());
    }
    meet(spec, &policy, configured)
}

fn refused(errors: Errors) -> Result<(), Errors> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// An update to SingleStack releases the second address and family; other updates may not remove them.
fn reduce(spec: &mut Value, before: &Value, single: bool, errors: &mut Errors) {
    for (key, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (mut now, had) = (texts(spec, key), texts(before, key));
        if single {
            if now == had && now.len() > 1 {
                now.truncate(1);
                set_texts(spec, key, &now);
            }
        } else if !now.is_empty() && now.len() < had.len() {
            policy_is_wrong(
                spec,
                format!("must be 'SingleStack' to release the secondary {what}"),
                errors,
            );
        }
    }
}

fn policy_is_wrong(spec: &Value, why: impl AsRef<str>, errors: &mut Errors) {
    let path = Path::ROOT.field("spec.ipFamilyPolicy");
    errors.invalid(path, spec.at("ipFamilyPolicy"), why);
}

/// Infers families from addresses.
fn infer(spec: &mut Value, single: bool, configured: &[&'static str], errors: &mut Errors) {
    for (key, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && spec.list(key).len() == 2 {
            let why = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            );
            policy_is_wrong(spec, why, errors);
        }
    }
    let ips = texts(spec, "clusterIPs");
    let mut families = texts(spec, "ipFamilies");
    for (i, ip) in ips.iter().enumerate() {
        if ip == HEADLESS {
            break;
        }
        if i < families.len() {
            continue;
        }
        let family = family_of(ip);
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let path = Path::ROOT.field("spec.clusterIPs");
            let why = format!("{family} is not configured on this cluster");
            errors.invalid(path.index(i), spec.at("clusterIPs"), why);
        }
    }
    set_texts(spec, "ipFamilies", &families);
}

/// Checks that the cluster supports the requested families, and adds missing ones.
fn meet(spec: &mut Value, policy: &str, configured: &[&'static str]) -> Result<(), Errors> {
    let mut errors = Errors::default();
    if policy == "RequireDualStack" && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        policy_is_wrong(spec, why, &mut errors);
    }
    let mut families = texts(spec, "ipFamilies");
    for (i, family) in families.iter().enumerate() {
        if !configured.contains(&family.as_str()) {
            let path = Path::ROOT.field("spec.ipFamilies");
            errors.invalid(path.index(i), family, "not configured on this cluster");
        }
    }
    refused(errors)?;
    if families.is_empty() {
        families.extend(configured.first().map(|family| (*family).to_owned()));
    }
    if let [one] = &families[..]
        && policy != "SingleStack"
        && configured.len() == 2
    {
        let second = other(one).to_owned();
        families.push(second);
    }
    set_texts(spec, "ipFamilies", &families);
    Ok(())
}
