//! IPAddresses and ServiceCIDRs. Follows
//! k8s.io/kubernetes/pkg/registry/networking/{ipaddress,servicecidr}/strategy.go and pkg/apis/networking/validation.

use crate::meta::{At, Errors, addresses, names, table};
use crate::resources::{MetaOnStatus, Naming, Printing, Rules, StatusRules, metadata};
use crate::schema::{Value, internal};

/// The rules of IP addresses.
pub(super) const ADDRESSES: Rules = Rules {
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let spec = object.field("spec");
        let parent = spec.field("parentRef");
        reference(parent, errors);
        // Upstream reports declarative validation last.
        if parent.is_absent() {
            errors.required(parent.path, "");
        } else {
            for field in ["resource", "name"] {
                parent.field(field).required("", errors);
            }
        }
        if let Some(old) = old {
            parent.frozen(old.value.at("spec").at("parentRef"), "", errors);
        }
    },
    printing: Printing::of(|object, now| {
        let parent = match object.at("spec").get("parentRef") {
            None => "<none>".to_owned(),
            Some(parent) => {
                let mut text = parent.str("resource").to_owned();
                for (between, part) in [('.', "group"), ('/', "namespace")] {
                    if !parent.str(part).is_empty() {
                        text = format!("{text}{between}{}", parent.str(part));
                    }
                    text = if part == "group" {
                        text.to_lowercase()
                    } else {
                        text
                    };
                }
                format!("{text}/{}", parent.str("name"))
            }
        };
        vec![
            object.at("metadata").str("name").into(),
            parent.into(),
            table::age(object, now),
        ]
    }),
    naming: Naming {
        // Nothing can be appended to an address, so generateName is used as it is.
        generate: str::to_owned,
        validate: |name, _| addresses::ip(name),
    },
    internal: "networking.IPAddress",
    ..Rules::DEFAULT
};

fn reference(parent: At<'_>, errors: &mut Errors) {
    parent
        .field("group")
        .checked_if_said(names::dns1123_subdomain, errors);
    for field in ["resource", "name", "namespace"] {
        parent
            .field(field)
            .checked_if_said(names::path_segment, errors);
    }
}

/// The rules of service CIDRs.
pub(super) const RANGES: Rules = Rules {
    validate: |object, old, _, errors| {
        let spec = object.field("spec");
        match old {
            None => ranges(spec, errors),
            Some(old) => update(spec, old.value.at("spec"), errors),
        }
    },
    printing: Printing::of(|object, now| {
        let ranges = object.at("spec").list("cidrs").iter();
        let ranges: Vec<&str> = ranges.filter_map(Value::as_str).collect();
        vec![
            object.at("metadata").str("name").into(),
            ranges.join(",").into(),
            table::age(object, now),
        ]
    }),
    status: StatusRules {
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    internal: "networking.ServiceCIDR",
    ..Rules::DEFAULT
};

fn ranges(spec: At<'_>, errors: &mut Errors) {
    let list = spec.field("cidrs");
    if !list.required("at least one CIDR required", errors) {
        return;
    }
    if list.list().len() > 2 {
        let shown = internal::shown(spec.value, "networking.ServiceCIDRSpec");
        return errors.invalid_shown(list.path, &shown, "may only hold up to 2 values");
    }
    for range in list.items() {
        range.checked(addresses::cidr, errors);
    }
    let versions: Vec<Option<bool>> = list
        .list()
        .iter()
        .map(|range| Some(addresses::parse_cidr(range.as_str()?)?.0.is_ipv4()))
        .collect();
    if let [Some(one), Some(other)] = versions[..]
        && one == other
    {
        list.invalid("may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64", errors);
    }
}

/// Only a second range may be added.
fn update(spec: At<'_>, old: &Value, errors: &mut Errors) {
    let (list, old) = (spec.field("cidrs"), old.list("cidrs"));
    let same = |item: At<'_>, was: &Value, errors: &mut Errors| item.immutable(was, errors);
    match (old.len(), list.list().len()) {
        (was, now) if was == now => {
            list.items()
                .zip(old)
                .for_each(|(item, was)| same(item, was, errors));
        }
        (1, 2) => {
            list.items()
                .zip(old)
                .for_each(|(item, was)| same(item, was, errors));
            ranges(spec, errors);
        }
        _ => list.invalid("field is immutable", errors),
    }
}
