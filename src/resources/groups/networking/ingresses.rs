//! Ingresses. Follows k8s.io/kubernetes/pkg/registry/networking/ingress/strategy.go and pkg/apis/networking/validation.

use std::collections::HashSet;

use std::collections::BTreeSet;

use crate::meta::{At, Errors, addresses, names, table};
use crate::resources::{Generation, Printing, Rules, StatusRules, metadata};
use crate::schema::Value;

const CLASS: &str = "kubernetes.io/ingress.class";
/// How many hosts a row shows.
const HOSTS: usize = 3;

/// The rules of ingresses.
pub(super) const RULES: Rules = Rules {
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let spec = object.field("spec");
        self::spec(spec, old.map(|old| old.value.at("spec")), errors);
        let annotation = object.value.at("metadata").at("annotations").at(CLASS);
        let class = spec.value.at("ingressClassName");
        if old.is_none() && !annotation.is_null() && !class.is_null() && annotation != class {
            errors.invalid(
                object.path.field("annotations").field(CLASS),
                annotation,
                "must match `ingressClassName` when both are specified",
            );
        }
    },
    status: StatusRules {
        validate: |object, old, _, errors| {
            let status = object.field("status");
            let balancer = status.field("loadBalancer");
            let ingress = balancer.field("ingress");
            let had = old.value.path(&["status", "loadBalancer"]).list("ingress");
            let had: HashSet<&str> = had.iter().map(|had| had.str("ip")).collect();
            for point in ingress.items() {
                let ip = point.field("ip");
                if !had.contains(ip.str()) {
                    ip.checked_if_said(addresses::ip_legacy, errors);
                }
                host_name(point.field("hostname"), errors);
            }
        },
        warnings: |object| {
            addresses::listed_ip_warnings(object, &["status", "loadBalancer", "ingress"], "")
        },
        ..StatusRules::DEFAULT
    },
    warnings: |object, old, _| {
        let annotations = object.at("metadata").at("annotations");
        let class = object.at("spec").get("ingressClassName");
        if old.is_none() && annotations.get(CLASS).is_some() && class.is_none() {
            vec![format!(
                "annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"
            )]
        } else {
            Vec::new()
        }
    },
    printing: Printing::of(cells),
    generation: Generation::Spec,
    internal: "networking.Ingress",
    ..Rules::DEFAULT
};

/// Validates a load balancer's host name.
pub(in crate::resources::groups) fn host_name(host: At<'_>, errors: &mut Errors) {
    host.checked_if_said(names::dns1123_subdomain, errors);
    if addresses::parse_ip(host.str()).is_some() {
        host.invalid("must be a DNS name, not an IP address", errors);
    }
}

fn spec(spec: At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let (rules, backend) = (spec.field("rules"), spec.field("defaultBackend"));
    if rules.list().is_empty() && backend.is_absent() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(spec.path, rules.value.clone(), why);
    }
    if !backend.is_absent() {
        self::backend(backend, errors);
    }
    let wildcards = old.is_some_and(had_bad_wildcard);
    for rule in rules.items() {
        let host = rule.field("host");
        if addresses::parse_ip(host.str()).is_some() {
            host.invalid("must be a DNS name, not an IP address", errors);
        }
        let wild = host.str().contains('*');
        host.checked_if_said(hosts(wild), errors);
        if !wild || !wildcards {
            paths(rule, errors);
        }
    }
    let secrets = old.is_some_and(|old| {
        let mut tls = old.list("tls").iter();
        tls.any(|tls| {
            let name = tls.str("secretName");
            !name.is_empty() && !names::subdomain_name(name, false).is_empty()
        })
    });
    for tls in spec.field("tls").items() {
        for host in tls.field("hosts").items() {
            host.checked(hosts(host.str().contains('*')), errors);
        }
        if !secrets {
            tls.field("secretName")
                .checked_if_said(|name| names::subdomain_name(name, false), errors);
        }
    }
    spec.field("ingressClassName")
        .checked_if_there(|name| names::subdomain_name(name, false), errors);
}

fn hosts(wild: bool) -> fn(&str) -> Vec<String> {
    if wild {
        names::wildcard_dns1123_subdomain
    } else {
        names::dns1123_subdomain
    }
}

/// Whether the old object had invalid paths in a rule with a wildcard host. For the names of services upstream uses an
/// older, stricter check here.
fn had_bad_wildcard(spec: &Value) -> bool {
    let named_anew = |rule: &Value| {
        let paths = rule.at("http").list("paths").iter();
        let mut services = paths.filter_map(|path| path.at("backend").get("service"));
        services.any(|service| !names::dns1035_label(service.str("name")).is_empty())
    };
    let wild = |rule: &&Value| rule.str("host").contains('*');
    spec.list("rules").iter().filter(wild).any(|rule| {
        let mut errors = Errors::default();
        paths(At::root(rule), &mut errors);
        !errors.is_empty() || named_anew(rule)
    })
}

fn paths(rule: At<'_>, errors: &mut Errors) {
    let http = rule.field("http");
    if http.is_absent() {
        return;
    }
    let paths = http.field("paths");
    paths.required("", errors);
    paths.items().for_each(|at| path(at, errors));
}

fn path(at: At<'_>, errors: &mut Errors) {
    let (kind, path) = (at.field("pathType"), at.field("path"));
    let text = path.str();
    match kind.value.as_str() {
        None => return errors.required(kind.path, "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !text.starts_with('/') {
                path.invalid_text("must be an absolute path", errors);
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(part) {
                    path.invalid(format!("must not contain '{part}'"), errors);
                }
            }
            for end in ["/..", "/."] {
                if text.ends_with(end) {
                    path.invalid(format!("cannot end with '{end}'"), errors);
                }
            }
        }
        Some("ImplementationSpecific") => {
            if !text.is_empty() && !text.starts_with('/') {
                path.invalid("must be an absolute path", errors);
            }
        }
        Some(_) => kind.one_of(&["Exact", "ImplementationSpecific", "Prefix"], errors),
    }
    backend(at.field("backend"), errors);
}

fn backend(at: At<'_>, errors: &mut Errors) {
    let (resource, service) = (at.field("resource"), at.field("service"));
    match (resource.is_absent(), service.is_absent()) {
        (true, true) => errors.invalid(at.path, "", "resource or service backend is required"),
        (false, false) => {
            errors.invalid(at.path, "", "cannot set both resource and service backends");
        }
        (false, true) => {
            resource
                .field("apiGroup")
                .checked_if_there(names::dns1123_subdomain, errors);
            for field in ["kind", "name"] {
                resource
                    .field(field)
                    .required_checked(names::path_segment, errors);
            }
        }
        (true, false) => {
            service
                .field("name")
                .required_checked(|name| names::label_name(name, false), errors);
            let port = service.field("port");
            let (name, number) = (port.field("name"), port.field("number"));
            match (name.str().is_empty(), number.int().unwrap_or(0) == 0) {
                (false, false) => {
                    errors.invalid(at.path, "", "cannot set both port name & port number");
                }
                (false, true) => name.checked(names::port_name, errors),
                (true, false) => number.checked_number(names::port_number, errors),
                (true, true) => errors.required(at.path, "port name or number is required"),
            }
        }
    }
}

/// The addresses of a load balancer as shown in rows, sorted.
pub(in crate::resources::groups) fn balancers(status: &Value) -> String {
    let points: BTreeSet<&str> = status
        .at("loadBalancer")
        .list("ingress")
        .iter()
        .map(|point| match point.str("ip") {
            "" => point.str("hostname"),
            ip => ip,
        })
        .filter(|text| !text.is_empty())
        .collect();
    points.into_iter().collect::<Vec<_>>().join(",")
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let spec = object.at("spec");
    let rules = spec.list("rules");
    let shown: Vec<&str> = rules
        .iter()
        .map(|rule| rule.str("host"))
        .filter(|host| !host.is_empty())
        .take(HOSTS)
        .collect();
    // After three hosts upstream counts rules instead.
    let seen_at = rules
        .iter()
        .scan(0, |seen, rule| {
            let before = *seen;
            *seen += usize::from(!rule.str("host").is_empty());
            Some(before)
        })
        .any(|before| before >= HOSTS);
    let hosts = match (shown.is_empty(), seen_at) {
        (true, _) => "*".to_owned(),
        (false, false) => shown.join(","),
        (false, true) => format!("{} + {} more...", shown.join(","), rules.len() - HOSTS),
    };
    let ports = if spec.list("tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        object.at("metadata").str("name").into(),
        (spec.at("ingressClassName").as_str().unwrap_or("<none>")).into(),
        hosts.into(),
        balancers(object.at("status")).into(),
        ports.into(),
        table::age(object, now),
    ]
}
