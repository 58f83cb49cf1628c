//! Services. Follows k8s.io/kubernetes/pkg/registry/core/service, pkg/apis/core/validation and pkg/api/service.

mod addresses;
mod allocate;
mod families;
mod ports;
mod validate;

#[cfg(test)]
mod tests;

use crate::meta::{addresses as ips, names, table};
use crate::resources::cluster::Cluster;
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::groups::networking::ingresses::balancers;
use crate::resources::{
    Deletion, Naming, Printing, Rules, Selectable, Selection, SelectorError, StatusRules,
};
use crate::schema::{Object, Value};
use crate::store::Change;

/// `spec.clusterIP` of a headless service.
const HEADLESS: &str = "None";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// The rules of services.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    effects: allocate::effects,
    prepare_create: |object, _| no_policy_of_names(object),
    prepare_update: |new, old, _| {
        drop_what_goes_with_the_type(new, old);
        no_policy_of_names(new);
    },
    validate: |object, old, _, errors| validate::service(object, old, errors),
    status: StatusRules {
        validate: |object, old, _, errors| validate::status(object, old.value, errors),
        warnings: |object| {
            ips::listed_ip_warnings(object, &["status", "loadBalancer", "ingress"], "")
        },
        ..StatusRules::DEFAULT
    },
    warnings: |object, _, _| warnings(object),
    printing: Printing::of(self::cells),
    selection: Selection {
        fields: &[
            Selectable {
                name: "spec.clusterIP",
                value: |object| object.at("spec").str("clusterIP").to_owned(),
            },
            Selectable {
                name: "spec.type",
                value: |object| object.at("spec").str("type").to_owned(),
            },
        ],
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    naming: Naming::validated_by(names::label_name),
    create_on_update: true,
    deletion: Deletion::RETURNS_OBJECT,
    internal: "core.Service",
    ..Rules::DEFAULT
};

/// Changes, each to be committed separately, that repair the allocated addresses and node ports.
pub(in crate::resources) fn repairs(cluster: &Cluster) -> Vec<Change> {
    let mut changes = addresses::repairs(cluster);
    changes.extend(ports::repair(cluster));
    changes
}

fn set_defaults(object: &mut Value) {
    let spec = object.object_mut().entry("spec", || Object::new().into());
    defaults::text(spec, "sessionAffinity", "None");
    match spec.str("sessionAffinity") {
        "None" => drop(spec.remove("sessionAffinityConfig")),
        "ClientIP" => {
            let client = spec.at("sessionAffinityConfig").at("clientIP");
            if client.get("timeoutSeconds").is_none() {
                let config = crate::value!({"clientIP": {"timeoutSeconds": 10800}});
                spec.set("sessionAffinityConfig", config);
            }
        }
        _ => {}
    }
    defaults::text(spec, "type", "ClusterIP");
    for port in defaults::items(spec, "ports") {
        defaults::text(port, "protocol", "TCP");
        let target = port.at("targetPort");
        if target.is_null() || target.as_int() == Some(0) || target.as_str() == Some("") {
            let own = port.int("port");
            port.set("targetPort", own);
        }
    }
    if is_external(spec) {
        defaults::text(spec, "externalTrafficPolicy", "Cluster");
    }
    let balanced = spec.str("type") == "LoadBalancer";
    if matches!(spec.str("type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
        defaults::absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if balanced {
        defaults::absent(spec, "allocateLoadBalancerNodePorts", true);
        let balancer = object
            .get_mut("status")
            .and_then(|status| status.get_mut("loadBalancer"));
        if let Some(balancer) = balancer {
            for point in defaults::items(balancer, "ingress") {
                if !point.str("ip").is_empty() {
                    defaults::absent(point, "ipMode", "VIP");
                }
            }
        }
    }
}

/// Whether the service is accessible from outside of the cluster: ExternallyAccessible.
fn is_external(spec: &Value) -> bool {
    match spec.str("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

/// NeedsHealthCheck
fn needs_health_check(spec: &Value) -> bool {
    spec.str("type") == "LoadBalancer" && spec.str("externalTrafficPolicy") == "Local"
}

fn is_named(spec: &Value) -> bool {
    spec.str("type") == "ExternalName"
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(spec.str("type"), "NodePort" | "LoadBalancer")
}

/// The node ports of a spec, in the order of its ports.
fn node_ports(spec: &Value) -> impl Iterator<Item = i64> {
    let ports = spec.list("ports").iter();
    ports
        .map(|port| port.int("nodePort"))
        .filter(|port| *port != 0)
}

/// Removes fields that a new type does not use, unless the client changed them in the same request:
/// dropTypeDependentFields.
fn drop_what_goes_with_the_type(new: &mut Value, old: &Value) {
    let before = old.at("spec");
    let Some(spec) = new.get_mut("spec") else {
        return;
    };
    let same = |spec: &Value, key: &str| spec.at(key) == before.at(key);
    let mut gone: Vec<&str> = Vec::new();
    if !is_named(before) && is_named(spec) {
        if same(spec, "clusterIP") && same(spec, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(
            ["ipFamilies", "ipFamilyPolicy"]
                .iter()
                .filter(|key| same(spec, key)),
        );
    }
    let balanced = |spec: &Value| spec.str("type") == "LoadBalancer";
    if needs_health_check(before) && !needs_health_check(spec) && same(spec, "healthCheckNodePort")
    {
        gone.push("healthCheckNodePort");
    }
    if balanced(before) && !balanced(spec) {
        const BALANCED: [&str; 2] = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];
        gone.extend(BALANCED.iter().filter(|key| same(spec, key)));
    }
    if is_external(before) && !is_external(spec) && same(spec, "externalTrafficPolicy") {
        gone.push("externalTrafficPolicy");
    }
    let had: Vec<i64> = node_ports(before).collect();
    let frees_ports = has_node_ports(before)
        && !has_node_ports(spec)
        && node_ports(spec).all(|port| had.contains(&port));
    for key in gone {
        spec.remove(key);
    }
    if frees_ports {
        for port in defaults::items(spec, "ports") {
            port.remove("nodePort");
        }
    }
    if !balanced(spec)
        && let Some(status) = new.get_mut("status")
    {
        status.set("loadBalancer", Object::new());
    }
}

/// Removes the internal traffic policy of an ExternalName service. Upstream stores a valid one, but never shows it:
/// defaultOnReadInternalTrafficPolicy.
fn no_policy_of_names(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec")
        && is_named(spec)
        && matches!(spec.str("internalTrafficPolicy"), "Cluster" | "Local")
    {
        spec.remove("internalTrafficPolicy");
    }
}

fn warnings(object: &Value) -> Vec<String> {
    let spec = object.at("spec");
    let mut warnings = Vec::new();
    let annotations = object.at("metadata").at("annotations");
    if annotations.get(TOPOLOGY_HINTS).is_some() {
        warnings.push(format!(
            "annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"
        ));
    }
    let address =
        |path: String, ip: &str| ips::ip_warning(ip).map(|told| format!("{path}: {told}"));
    let each = |field: &str| -> Vec<String> {
        let items = spec.list(field).iter().enumerate();
        items
            .filter_map(|(i, ip)| address(format!("spec.{field}[{i}]"), ip.as_str()?))
            .collect()
    };
    if !matches!(spec.str("clusterIP"), "" | HEADLESS) {
        warnings.extend(each("clusterIPs"));
    }
    let outside = !spec.list("externalIPs").is_empty();
    let headless = spec.str("type") == "ClusterIP" && spec.str("clusterIP") == HEADLESS;
    if headless {
        for (told, applies) in [
            ("loadBalancerIP", !spec.str("loadBalancerIP").is_empty()),
            ("externalIPs", outside),
            ("SessionAffinity", spec.str("sessionAffinity") != "None"),
        ] {
            if applies {
                warnings.push(format!("spec.{told} is ignored for headless services"));
            }
        }
    }
    warnings.extend(each("externalIPs"));
    if outside && !headless && !is_named(spec) {
        warnings.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                .to_owned(),
        );
    }
    let balancer = spec.str("loadBalancerIP");
    if !balancer.is_empty() {
        warnings.extend(address("spec.loadBalancerIP".to_owned(), balancer));
    }
    for (i, range) in spec.list("loadBalancerSourceRanges").iter().enumerate() {
        let told = ips::cidr_warnings(range.as_str().unwrap_or_default());
        let path = format!("spec.loadBalancerSourceRanges[{i}]");
        warnings.extend(told.iter().map(|told| format!("{path}: {told}")));
    }
    if is_named(spec) && outside {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_named(spec) && !spec.str("externalName").is_empty() {
        warnings
            .push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.str("trafficDistribution") == "PreferClose" {
        warnings.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
                .to_owned(),
        );
    }
    warnings
}

/// The strings of a list, joined by commas.
fn joined(list: &[Value]) -> String {
    let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    texts.join(",")
}

fn external(object: &Value) -> String {
    let spec = object.at("spec");
    let own = joined(spec.list("externalIPs"));
    let or = |text: String, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text
        }
    };
    match spec.str("type") {
        "ClusterIP" | "NodePort" => or(own, "<none>"),
        "LoadBalancer" => {
            let all = [balancers(object.at("status")), own];
            let all: Vec<String> = all.into_iter().filter(|text| !text.is_empty()).collect();
            or(all.join(","), "<pending>")
        }
        "ExternalName" => spec.str("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let spec = object.at("spec");
    let ports: Vec<String> = spec
        .list("ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (port.int("port"), port.str("protocol"));
            match port.int("nodePort") {
                node if node > 0 => format!("{number}:{node}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    let ports = if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    };
    let address = spec.list("clusterIPs").first().and_then(Value::as_str);
    vec![
        object.at("metadata").str("name").into(),
        spec.str("type").into(),
        address.unwrap_or("<none>").into(),
        external(object).into(),
        ports.into(),
        table::age(object, now),
        cells::labels(spec.at("selector")),
    ]
}
