//! Network policies. Follows k8s.io/kubernetes/pkg/registry/networking/networkpolicy/strategy.go and
//! pkg/apis/networking/validation.

use std::collections::HashSet;

use crate::meta::{At, Errors, addresses, names, table};
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::{Generation, Printing, Rules};
use crate::schema::Value;
use crate::value;

/// The directions: the field with rules, and the field of a rule with peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// The rules of network policies.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        let Some(spec) = object.get_mut("spec").filter(|spec| !spec.is_null()) else {
            return object.set(
                "spec",
                value!({"podSelector": {}, "policyTypes": ["Ingress"]}),
            );
        };
        for (direction, _) in DIRECTIONS {
            for rule in defaults::items(spec, direction) {
                for port in defaults::items(rule, "ports") {
                    defaults::absent(port, "protocol", "TCP");
                }
            }
        }
        if spec.list("policyTypes").is_empty() {
            let egress = !spec.list("egress").is_empty();
            let types = if egress {
                value!(["Ingress", "Egress"])
            } else {
                value!(["Ingress"])
            };
            spec.set("policyTypes", types);
        }
    },
    validate: |object, old, _, errors| {
        let old = old.map(|old| old.value.at("spec"));
        spec(object.field("spec"), old, errors);
    },
    warnings: |object, _, _| {
        let mut warnings = Vec::new();
        for (path, block) in blocks(object.at("spec")) {
            let mut warn = |path: String, range: &Value| {
                let told = addresses::cidr_warnings(range.as_str().unwrap_or_default());
                warnings.extend(told.iter().map(|told| format!("{path}: {told}")));
            };
            warn(format!("{path}.cidr"), block.at("cidr"));
            for (i, except) in block.list("except").iter().enumerate() {
                warn(format!("{path}.except[{i}]"), except);
            }
        }
        warnings
    },
    printing: Printing::of(|object, now| {
        vec![
            object.at("metadata").str("name").into(),
            cells::selector(object.at("spec").at("podSelector")),
            table::age(object, now),
        ]
    }),
    generation: Generation::SpecAsSaid,
    internal: "networking.NetworkPolicy",
    ..Rules::DEFAULT
};

/// The IP blocks in a spec, and their paths.
fn blocks(spec: &Value) -> Vec<(String, &Value)> {
    let mut blocks = Vec::new();
    for (direction, peers) in DIRECTIONS {
        for (i, rule) in spec.list(direction).iter().enumerate() {
            for (j, peer) in rule.list(peers).iter().enumerate() {
                if let Some(block) = peer.get("ipBlock") {
                    blocks.push((format!("spec.{direction}[{i}].{peers}[{j}].ipBlock"), block));
                }
            }
        }
    }
    blocks
}

fn spec(spec: At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let selector = spec.field("podSelector");
    let lax = old.is_some_and(|old| At::root(old.at("podSelector")).is_bad_selector());
    selector.label_selector(lax, errors);
    let mut had: HashSet<&str> = HashSet::new();
    for (_, block) in old.map(blocks).unwrap_or_default() {
        had.insert(block.str("cidr"));
        had.extend(block.list("except").iter().filter_map(Value::as_str));
    }
    for (direction, peers) in DIRECTIONS {
        for rule in spec.field(direction).items() {
            rule.field("ports").items().for_each(|at| port(at, errors));
            for at in rule.field(peers).items() {
                peer(at, lax, &had, errors);
            }
        }
    }
    let types = spec.field("policyTypes");
    if types.list().len() > 2 {
        types.invalid("may not specify more than two policyTypes", errors);
    } else {
        for kind in types.items() {
            kind.one_of(&["Ingress", "Egress"], errors);
        }
    }
    // Upstream reports declarative validation last.
    for (direction, peers) in DIRECTIONS {
        for rule in spec.field(direction).items() {
            for peer in rule.field(peers).items() {
                let block = peer.field("ipBlock");
                if !block.is_absent() {
                    block.field("cidr").required("", errors);
                }
            }
        }
    }
}

fn port(port: At<'_>, errors: &mut Errors) {
    port.field("protocol")
        .one_of_if_there(&["TCP", "UDP", "SCTP"], errors);
    let (number, end) = (port.field("port"), port.field("endPort"));
    match (number.int(), number.is_absent()) {
        (Some(first), _) => {
            number.checked_number(names::port_number, errors);
            if end.int().is_some_and(|last| last < first) {
                end.invalid("must be greater than or equal to `port`", errors);
            }
            end.checked_number(names::port_number, errors);
        }
        (None, true) if !end.is_absent() => {
            end.invalid("may not be specified when `port` is not specified", errors);
        }
        (None, true) => {}
        (None, false) => {
            if !end.is_absent() {
                end.invalid("may not be specified when `port` is non-numeric", errors);
            }
            number.checked(names::port_name, errors);
        }
    }
}

fn peer(peer: At<'_>, lax: bool, had: &HashSet<&str>, errors: &mut Errors) {
    let mut said = 0;
    for selector in ["podSelector", "namespaceSelector"] {
        let selector = peer.field(selector);
        said += usize::from(!selector.is_absent());
        selector.label_selector(lax, errors);
    }
    let block = peer.field("ipBlock");
    if block.is_absent() {
        if said == 0 {
            errors.required(peer.path, "must specify a peer");
        }
        return;
    }
    self::block(block, had, errors);
    if said > 0 {
        errors.forbidden(peer.path, "may not specify both ipBlock and another peer");
    }
}

fn block(block: At<'_>, had: &HashSet<&str>, errors: &mut Errors) {
    let range = |at: At<'_>, errors: &mut Errors| {
        if !had.contains(at.str()) {
            at.checked(addresses::cidr_legacy, errors);
        }
    };
    let whole = block.field("cidr");
    if whole.str().is_empty() {
        return;
    }
    range(whole, errors);
    let Some((_, network)) = addresses::parse_cidr(whole.str()) else {
        return;
    };
    for except in block.field("except").items() {
        range(except, errors);
        let Some((_, part)) = addresses::parse_cidr(except.str()) else {
            continue;
        };
        if !network.contains(part.address) || network.prefix >= part.prefix {
            except.invalid("must be a strict subset of `cidr`", errors);
        }
    }
}
