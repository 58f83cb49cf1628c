//! Endpoints, the older form of endpoint slices. Follows k8s.io/kubernetes/pkg/registry/core/endpoint/strategy.go and
//! pkg/apis/core/validation.

use std::net::IpAddr;

use crate::meta::{At, Errors, addresses, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Printing, Rules, metadata};
use crate::schema::Value;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// How many addresses a row shows.
const SHOWN: usize = 3;

/// The rules of endpoints.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        for subset in defaults::items(object, "subsets") {
            for port in defaults::items(subset, "ports") {
                defaults::text(port, "protocol", "TCP");
            }
        }
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let subsets = object.field("subsets");
        // Unchanged subsets are not validated: older servers may have accepted them.
        if old.is_none_or(|old| old.value.at("subsets") != subsets.value) {
            subsets.items().for_each(|at| subset(at, errors));
        }
    },
    warnings: |object, _, _| {
        let mut warnings = Vec::new();
        let labels = object.at("metadata").at("labels");
        if labels.str(MANAGED_BY) != "endpoint-controller" {
            for (i, subset) in object.list("subsets").iter().enumerate() {
                for list in ["addresses", "notReadyAddresses"] {
                    let path = format!("subsets[{i}].{list}");
                    ip_warnings(&path, "ip", subset.list(list), &mut warnings);
                }
            }
        }
        warnings
    },
    printing: Printing::of(|object, now| {
        vec![
            object.at("metadata").str("name").into(),
            shown(object.list("subsets")).into(),
            table::age(object, now),
        ]
    }),
    create_on_update: true,
    internal: "core.Endpoints",
    ..Rules::DEFAULT
};

/// Warnings about addresses at `path`: in the member `field` of each item, or the items themselves if `field` is empty.
pub(in crate::resources::groups) fn ip_warnings(
    path: &str,
    field: &str,
    items: &[Value],
    warnings: &mut Vec<String>,
) {
    for (i, item) in items.iter().enumerate() {
        let (ip, dot) = match field {
            "" => (item.as_str().unwrap_or_default(), ""),
            field => (item.str(field), "."),
        };
        if let Some(told) = addresses::ip_warning(ip) {
            warnings.push(format!("{path}[{i}]{dot}{field}: {told}"));
        }
    }
}

/// Validates the address of an endpoint: ValidateEndpointIP.
pub(in crate::resources::groups) fn endpoint_ip(at: At<'_>, errors: &mut Errors) {
    let text = at.str();
    let Some(ip) = addresses::parse_ip(text) else {
        return errors.invalid(at.path, text, "must be a valid IP address");
    };
    if ip.is_unspecified() {
        let why = format!("may not be unspecified ({text})");
        errors.invalid(at.path, text, why);
    }
    if ip.is_loopback() {
        let why = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        errors.invalid(at.path, text, why);
    }
    let (unicast, multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (
            ip.is_unicast_link_local(),
            ip.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    if unicast {
        let why = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        errors.invalid(at.path, text, why);
    }
    if multicast {
        let why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errors.invalid(at.path, text, why);
    }
}

fn subset(subset: At<'_>, errors: &mut Errors) {
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|list| subset.value.list(list).is_empty()) {
        errors.required(
            subset.path,
            "must specify `addresses` or `notReadyAddresses`",
        );
    }
    for list in lists {
        for address in subset.field(list).items() {
            let ip = address.field("ip");
            for wrong in addresses::ip_legacy(ip.str()) {
                errors.invalid(ip.path, ip.str(), wrong);
            }
            address
                .field("hostname")
                .checked_if_said(names::dns1123_label, errors);
            address
                .field("nodeName")
                .checked_if_there(|name| names::subdomain_name(name, false), errors);
            endpoint_ip(ip, errors);
        }
    }
    let ports = subset.field("ports");
    for port in ports.items() {
        let name = port.field("name");
        if ports.list().len() > 1 {
            name.required_checked(names::dns1123_label, errors);
        } else {
            name.checked_if_said(names::dns1123_label, errors);
        }
        let number = port.field("port");
        number.checked_number(names::port_number, errors);
        port.field("protocol").required_one_of(&PROTOCOLS, errors);
        port.field("appProtocol")
            .checked_if_there(names::qualified_name, errors);
    }
}

/// `10.0.0.1:80,10.0.0.2:80 + 3 more...`
fn shown(subsets: &[Value]) -> String {
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    // Only those that are shown are written: their number is the product of two lengths.
    let (mut all, mut count) = (Vec::new(), 0usize);
    for subset in subsets {
        let addresses = subset.list("addresses");
        let ips = |left: usize| addresses.iter().map(|address| address.str("ip")).take(left);
        if subset.list("ports").is_empty() {
            count = count.saturating_add(addresses.len());
            all.extend(ips(SHOWN - all.len()).map(str::to_owned));
        }
        for port in subset.list("ports") {
            let port = port.int("port");
            count = count.saturating_add(addresses.len());
            all.extend(ips(SHOWN - all.len()).map(|ip| {
                if ip.contains(':') {
                    format!("[{ip}]:{port}")
                } else {
                    format!("{ip}:{port}")
                }
            }));
        }
    }
    match count - all.len() {
        0 => all.join(","),
        more => format!("{} + {more} more...", all.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_addresses_three_are_written() {
        let subset = |addresses: usize, ports: i64| {
            let mut subset = Value::Object(crate::schema::Object::new());
            let address = |i| crate::value!({"ip": (format!("10.0.0.{i}"))});
            let port = |i: i64| crate::value!({"port": (i)});
            subset.set("addresses", (0..addresses).map(address).collect::<Vec<_>>());
            subset.set("ports", (1..=ports).map(port).collect::<Vec<_>>());
            subset
        };
        for (subsets, text) in [
            (vec![], "<none>"),
            (vec![subset(2, 0)], "10.0.0.0,10.0.0.1"),
            (
                vec![subset(1, 2), subset(1, 1)],
                "10.0.0.0:1,10.0.0.0:2,10.0.0.0:1",
            ),
            (
                vec![subset(2, 2)],
                "10.0.0.0:1,10.0.0.1:1,10.0.0.0:2 + 1 more...",
            ),
            (
                vec![subset(60_000, 60_000)],
                "10.0.0.0:1,10.0.0.1:1,10.0.0.2:1 + 3599999997 more...",
            ),
        ] {
            assert_eq!(shown(&subsets), text);
        }
    }
}
