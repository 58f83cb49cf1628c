//! Endpoint slices. Follows k8s.io/kubernetes/pkg/registry/discovery/endpointslice/strategy.go and
//! pkg/apis/discovery/validation.

use std::collections::BTreeSet;

use crate::meta::checks::Check;
use crate::meta::{At, Errors, addresses, names, table};
use crate::resources::groups::core::endpoints::{endpoint_ip, ip_warnings};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Generation, Printing, Rules, metadata};
use crate::schema::Value;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const ENDPOINTS: usize = 1000;
const ADDRESSES: usize = 100;
const PORTS: usize = 20_000;
const HINTS: usize = 8;
/// How many ports or endpoints a row shows.
const SHOWN: usize = 3;

/// The rules of endpoint slices.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        for port in defaults::items(object, "ports") {
            defaults::absent(port, "name", "");
            defaults::absent(port, "protocol", "TCP");
        }
    },
    prepare_create: |object, _| {
        drop_topology(object);
        set_generation(object, 1);
    },
    prepare_update: |new, old, _| {
        let labels = |object: &Value| object.at("metadata").at("labels").clone();
        let contents = |object: &Value| {
            let mut object = object.clone();
            object.remove("metadata");
            object
        };
        if contents(new) != contents(old) || labels(new) != labels(old) {
            set_generation(new, old.at("metadata").int("generation") + 1);
        }
        if new.at("endpoints") != old.at("endpoints") {
            drop_topology(new);
        }
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        slice(object, old.map(|old| old.value), errors);
    },
    warnings: |object, old, _| {
        let mut warnings = Vec::new();
        if old.is_none() && object.str("addressType") == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        let manager = object.at("metadata").at("labels").str(MANAGED_BY);
        if manager != "endpointslice-controller.k8s.io"
            && manager != "endpointslicemirroring-controller.k8s.io"
        {
            for (i, endpoint) in object.list("endpoints").iter().enumerate() {
                let path = format!("endpoints[{i}].addresses");
                ip_warnings(&path, "", endpoint.list("addresses"), &mut warnings);
            }
        }
        warnings
    },
    printing: Printing::of(|object, now| {
        let ports = object.list("ports").iter().map(|port| {
            match (port.at("port").as_int(), port.at("name").as_str()) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.to_owned(),
                (None, None) => "*".to_owned(),
            }
        });
        let endpoints = object.list("endpoints").iter();
        let endpoints = endpoints
            .flat_map(|endpoint| endpoint.list("addresses"))
            .map(|address| address.as_str().unwrap_or_default().to_owned());
        vec![
            object.at("metadata").str("name").into(),
            object.str("addressType").into(),
            few(ports.collect()).into(),
            few(endpoints.collect()).into(),
            table::age(object, now),
        ]
    }),
    generation: Generation::Own,
    internal: "discovery.EndpointSlice",
    ..Rules::DEFAULT
};

fn set_generation(object: &mut Value, generation: i64) {
    let meta = object.object_mut().object_mut("metadata");
    meta.insert("generation", generation);
}

/// Drops the old topology field, which clients may not write.
fn drop_topology(object: &mut Value) {
    for endpoint in defaults::items(object, "endpoints") {
        endpoint.remove("deprecatedTopology");
    }
}

/// `a,b,c + 2 more...`, `<unset>` for none.
fn few(items: Vec<String>) -> String {
    match items.len() {
        n if n <= SHOWN && items.iter().all(String::is_empty) => "<unset>".to_owned(),
        n if n <= SHOWN => items.join(","),
        n => format!("{} + {} more...", items[..SHOWN].join(","), n - SHOWN),
    }
}

fn slice(object: At<'_>, old: Option<&Value>, errors: &mut Errors) {
    ports(object.field("ports"), errors);
    let (kind, list) = (object.field("addressType"), object.field("endpoints"));
    let changed = old.is_none_or(|old| old.at("endpoints") != list.value);
    if changed {
        endpoints(list, kind.str(), errors);
    }
    // Upstream reports declarative validation last.
    let type_changed = old.is_none_or(|old| old.at("addressType") != kind.value);
    if type_changed {
        kind.required_one_of(&TYPES, errors);
        if old.is_some() {
            errors.invalid(kind.path, Value::Null, "field is immutable");
        }
    }
    if changed && list.list().len() <= ENDPOINTS {
        for endpoint in list.items() {
            let addresses = endpoint.field("addresses");
            let count = addresses.list().len();
            addresses.required("", errors);
            if count > ADDRESSES {
                errors.too_many(addresses.path, count, ADDRESSES);
            }
        }
    }
}

fn ports(ports: At<'_>, errors: &mut Errors) {
    let count = ports.list().len();
    if count > PORTS {
        return errors.too_many(ports.path, count, PORTS);
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        name.checked_if_said(names::dns1123_label, errors);
        if !seen.insert(name.str().to_owned()) {
            errors.duplicate(name.path, name.str());
        }
        port.field("protocol").one_of(&PROTOCOLS, errors);
        port.field("appProtocol")
            .checked_if_there(names::qualified_name, errors);
    }
}

fn endpoints(list: At<'_>, kind: &str, errors: &mut Errors) {
    let count = list.list().len();
    if count > ENDPOINTS {
        return errors.too_many(list.path, count, ENDPOINTS);
    }
    for endpoint in list.items() {
        let addresses = endpoint.field("addresses");
        for address in addresses.items() {
            self::address(address, addresses, kind, errors);
        }
        endpoint
            .field("nodeName")
            .checked_if_there(|name| names::subdomain_name(name, false), errors);
        let topology = endpoint.field("deprecatedTopology");
        topology.labels(errors);
        endpoint
            .field("hostname")
            .checked_if_there(names::dns1123_label, errors);
        hints(endpoint.field("hints"), errors);
    }
}

fn address(address: At<'_>, all: At<'_>, kind: &str, errors: &mut Errors) {
    let wrong = match kind {
        "IPv4" => addresses::ip_legacy(address.str()),
        "IPv6" => addresses::ip(address.str()),
        "FQDN" => return domain(address, errors),
        _ => return,
    };
    if !wrong.is_empty() {
        return address.invalid_each(wrong, errors);
    }
    let is_v4 = addresses::parse_ip(address.str()).is_some_and(|ip| ip.is_ipv4());
    if is_v4 != (kind == "IPv4") {
        let why = format!("must be an {kind} address");
        errors.invalid(all.path, address.value, why);
    }
    endpoint_ip(address, errors);
}

/// IsFullyQualifiedDomainName
fn domain(name: At<'_>, errors: &mut Errors) {
    if !name.required("", errors) {
        return;
    }
    let text = name.str().strip_suffix('.').unwrap_or(name.str());
    let wrong = names::dns1123_subdomain(text);
    if !wrong.is_empty() {
        return errors.invalid(name.path, text, wrong.join(","));
    }
    if !text.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        return errors.invalid(name.path, text, why);
    }
    for label in text.split('.') {
        let wrong = names::dns1123_label(label);
        if !wrong.is_empty() {
            return errors.invalid(name.path, label, wrong.join(","));
        }
    }
}

fn hints(hints: At<'_>, errors: &mut Errors) {
    let checks: [(&str, Check); 2] = [
        ("forZones", names::label_value),
        ("forNodes", |name| names::subdomain_name(name, false)),
    ];
    for (list, check) in checks {
        let list = hints.field(list);
        let count = list.list().len();
        if count > HINTS {
            return errors.too_many(list.path, count, HINTS);
        }
        let mut seen = BTreeSet::new();
        for hint in list.items() {
            let name = hint.field("name");
            if !seen.insert(name.str().to_owned()) {
                errors.duplicate(name.path, name.str());
            }
            name.checked(check, errors);
        }
    }
}
