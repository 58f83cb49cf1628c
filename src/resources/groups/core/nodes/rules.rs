//! Nodes. Follows k8s.io/kubernetes/pkg/registry/core/node/strategy.go and pkg/apis/core/validation.

use std::collections::HashSet;

use std::collections::BTreeSet;

use crate::meta::errors::Path;
use crate::meta::{At, Errors, addresses, names, table};
use crate::resources::groups::core::pods::{defaults, validate};
use crate::resources::{
    Printing, Rules, Selectable, Selection, SelectorError, StatusRules, metadata,
};
use crate::schema::{Value, internal, json};

/// The rules of nodes.
pub(in crate::resources::groups::core) const RULES: Rules = Rules {
    defaults: |object, _| {
        if let Some(status) = object.get_mut("status") {
            for list in ["capacity", "allocatable"] {
                if let Some(list) = status.get_mut(list) {
                    defaults::round_up(list);
                }
            }
            if let Some(capacity) = status.get("capacity").cloned() {
                defaults::absent(status, "allocatable", capacity);
            }
        }
        if let Some(spec) = object.get_mut("spec") {
            pod_ranges(spec);
        }
    },
    prepare_create: |object, _| {
        drop_from(object, "spec", &["configSource", "podPreemptionPolicy"]);
        drop_from(object, "status", &["config"]);
    },
    prepare_update: |new, old, _| {
        for field in ["configSource", "podPreemptionPolicy"] {
            if old.at("spec").get(field).is_none() {
                drop_from(new, "spec", &[field]);
            }
        }
    },
    validate: |node, old, cx, errors| {
        metadata::again(node, old, cx, errors);
        self::node(node, errors);
        if let Some(old) = old {
            update(node, old.value, errors);
        }
    },
    status: StatusRules {
        prepare: |new, old, _| {
            if old.at("status").get("config").is_none() {
                drop_from(new, "status", &["config"]);
            }
        },
        validate: |node, old, _, errors| update(node, old.value, errors),
        kept_at_creation: true,
        ..StatusRules::DEFAULT
    },
    warnings: |node, _, _| {
        let spec = node.at("spec");
        let mut warnings = Vec::new();
        if spec.get("configSource").is_some() {
            warnings.push("spec.configSource: the feature is removed".to_owned());
        }
        if !spec.str("externalID").is_empty() {
            warnings.push(
                "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
            );
        }
        for (i, range) in spec.list("podCIDRs").iter().enumerate() {
            let told = addresses::cidr_warnings(range.as_str().unwrap_or_default());
            warnings.extend(
                told.iter()
                    .map(|told| format!("spec.podCIDRs[{i}]: {told}")),
            );
        }
        warnings
    },
    printing: Printing::of(cells),
    selection: Selection {
        fields: &[Selectable {
            name: "spec.unschedulable",
            value: |node| node.at("spec").bool("unschedulable").to_string(),
        }],
        by_namespace: false,
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    internal: "core.Node",
    ..Rules::DEFAULT
};

fn drop_from(object: &mut Value, owner: &str, fields: &[&str]) {
    if let Some(owner) = object.get_mut(owner) {
        for field in fields {
            owner.remove(field);
        }
    }
}

/// Makes podCIDR and the first of podCIDRs agree; podCIDR has precedence.
fn pod_ranges(spec: &mut Value) {
    let one = spec.str("podCIDR").to_owned();
    let first = spec
        .list("podCIDRs")
        .first()
        .and_then(Value::as_str)
        .map(str::to_owned);
    match first {
        Some(first) if one.is_empty() => spec.set("podCIDR", first),
        Some(first) if first == one => {}
        _ if one.is_empty() => {}
        _ => spec.set("podCIDRs", vec![Value::from(one)]),
    }
}

fn node(node: At<'_>, errors: &mut Errors) {
    let spec = node.field("spec");
    annotations(node.field("metadata").field("annotations"), errors);
    taints(
        node.path.field("metadata.taints"),
        spec.value.at("taints"),
        errors,
    );
    amounts(node, errors);
    let swap = node
        .value
        .path(&["status", "nodeInfo", "swap"])
        .at("capacity");
    if swap.as_int().is_some_and(|capacity| capacity <= 0) {
        let path = node.path.field("metadata.nodeSwapStatus.capacity");
        errors.invalid(path, swap, "must be greater than zero");
    }
    features(node, errors);
    let ranges = spec.field("podCIDRs");
    for range in ranges.items() {
        range.checked(addresses::cidr_legacy, errors);
    }
    if ranges.list().len() > 1 {
        let versions: Result<Vec<bool>, String> = ranges
            .items()
            .enumerate()
            .map(|(i, range)| match addresses::parse_cidr(range.str()) {
                Some((address, _)) => Ok(address.is_ipv4()),
                None => Err(format!(
                    "invalid CIDR[{i}]: <nil> (invalid CIDR address: {})",
                    range.str()
                )),
            })
            .collect();
        if let Err(wrong) = &versions {
            let told =
                format!("invalid PodCIDRs. failed to check with dual stack with error:{wrong}");
            errors.internal(ranges.path, &told);
        }
        let both = versions.is_ok_and(|v| v.contains(&true) && v.contains(&false));
        if !both || ranges.list().len() > 2 {
            ranges.invalid(
                "may specify no more than one CIDR for each IP family",
                errors,
            );
        }
    }
}

/// Validates the two annotations that preceded fields: ValidateNodeSpecificAnnotations.
fn annotations(annotations: At<'_>, errors: &mut Errors) {
    const TAINTS: &str = "scheduler.alpha.kubernetes.io/taints";
    const AVOIDED: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";
    let (said, avoided) = (annotations.field(TAINTS), annotations.field(AVOIDED));
    if !said.str().is_empty() {
        match json::parse(said.str().as_bytes()) {
            Ok(parsed) => taints(said.path, &parsed.value, errors),
            Err(error) => errors.invalid(annotations.path, TAINTS, error.to_string()),
        }
    }
    if avoided.str().is_empty() {
        return;
    }
    let parsed = match json::parse(avoided.str().as_bytes()) {
        Ok(parsed) => parsed.value,
        Err(error) => {
            return errors.invalid(
                annotations.path.field("AvoidPods"),
                AVOIDED,
                error.to_string(),
            );
        }
    };
    let entries = At {
        value: parsed.at("preferAvoidPods"),
        path: avoided.path,
    };
    for entry in entries.items() {
        let signature = entry.path.field("PodSignature");
        let controller = entry.value.at("podSignature").at("podController");
        if controller.is_null() {
            errors.required(signature, "");
        } else if !controller.bool("controller") {
            let path = signature.field("PodController.Controller");
            errors.invalid(path, false, "must point to a controller");
        }
    }
}

/// Validates taints; upstream reports their errors under metadata.
fn taints(path: Path<'_>, taints: &Value, errors: &mut Errors) {
    let taints = At {
        value: taints,
        path,
    };
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for taint in taints.items() {
        let (key, value) = (taint.field("key"), taint.field("value"));
        key.checked(names::qualified_name, errors);
        let wrong = names::label_value(value.str());
        if !wrong.is_empty() {
            value.invalid_text(wrong.join(";"), errors);
        }
        let effect = taint.field("effect");
        effect.required_one_of(validate::EFFECTS, errors);
        if !seen.insert((effect.str().to_owned(), key.str().to_owned())) {
            let shown = internal::shown(taint.value, "core.Taint");
            errors.push(
                crate::meta::errors::Reason::Duplicate,
                taint.path,
                format!("Duplicate value: {shown}: taints must be unique by key and effect pair"),
            );
        }
    }
}

fn amounts(node: At<'_>, errors: &mut Errors) {
    let status = node.field("status");
    for list in ["capacity", "allocatable"] {
        let list = status.field(list);
        for (name, amount) in list.entries() {
            let amount = At {
                value: amount.value,
                path: list.path.field(name),
            };
            validate::quantity(name, amount, errors);
        }
    }
}

fn features(node: At<'_>, errors: &mut Errors) {
    let status = node.field("status");
    let features = status.field("declaredFeatures");
    let list = features.list();
    for (i, feature) in features.items().enumerate() {
        let name = feature.str();
        let quoted = crate::meta::errors::quoted(name);
        if name.len() > 253 {
            feature.invalid(
                format!("invalid feature name {quoted}: must be no more than 253 characters"),
                errors,
            );
        } else if !is_feature(name) {
            feature.invalid(format!("invalid feature name {quoted}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"), errors);
        }
        let Some(next) = list.get(i + 1).and_then(Value::as_str) else {
            continue;
        };
        let path = features.path.index(i + 1);
        match name.cmp(next) {
            std::cmp::Ordering::Equal => errors.duplicate(path, next),
            std::cmp::Ordering::Greater => {
                errors.invalid(path, next, "list must be sorted alphabetically");
            }
            std::cmp::Ordering::Less => {}
        }
    }
}

/// `MyFeature/mySubFeature`
fn is_feature(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.split('/').all(|segment| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric())
        })
}

fn update(node: At<'_>, old: &Value, errors: &mut Errors) {
    annotations(node.field("metadata").field("annotations"), errors);
    amounts(node, errors);
    features(node, errors);
    let (spec, before) = (node.field("spec"), old.at("spec"));
    let status = node.field("status");
    let mut seen: HashSet<String> = HashSet::new();
    let addresses = status.field("addresses");
    for (address, raw) in addresses.items().zip(addresses.list()) {
        if !seen.insert(json::to_string(raw)) {
            address.duplicate_dump("core.NodeAddress", errors);
        }
    }
    let (ranges, had) = (spec.field("podCIDRs"), before.list("podCIDRs"));
    if !had.is_empty() {
        const WHY: &str = "node updates may not change podCIDR except from \"\" to valid";
        if had.len() == ranges.list().len() {
            for _ in had
                .iter()
                .zip(ranges.list())
                .filter(|(had, now)| had != now)
            {
                errors.forbidden(ranges.path, WHY);
            }
        } else {
            errors.forbidden(ranges.path, WHY);
        }
    }
    let (id, had) = (spec.field("providerID"), before.str("providerID"));
    if !had.is_empty() && id.str() != had {
        let done = if id.str().is_empty() {
            "cleared"
        } else {
            "modified"
        };
        let why = format!("field cannot be {done} once set");
        errors.invalid(id.path, Value::Null, why);
    }
    taints(
        node.path.field("metadata.taints"),
        spec.value.at("taints"),
        errors,
    );
    let external = spec.field("externalID");
    if external.str() != before.str("externalID") {
        errors.forbidden(external.path, "may not be updated");
    }
}

fn cells(node: &Value, now: i64) -> Vec<Value> {
    let (meta, status) = (node.at("metadata"), node.at("status"));
    let ready = status
        .list("conditions")
        .iter()
        .rfind(|condition| condition.str("type") == "Ready");
    let mut states = vec![match ready {
        Some(ready) if ready.str("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node.at("spec").bool("unschedulable") {
        states.push("SchedulingDisabled");
    }
    let roles: BTreeSet<&str> = meta
        .entries("labels")
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    let roles = roles.into_iter().collect::<Vec<_>>().join(",");
    let or = |text: &str, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text.to_owned()
        }
    };
    let address = |kind: &str| {
        let mut addresses = status.list("addresses").iter();
        addresses
            .find(|address| address.str("type") == kind)
            .map_or("<none>", |address| address.str("address"))
    };
    let info = status.at("nodeInfo");
    let mut kernel = or(info.str("kernelVersion"), "<unknown>");
    let architecture = info.str("architecture");
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        meta.str("name").into(),
        states.join(",").into(),
        or(&roles, "<none>").into(),
        table::age(node, now),
        info.str("kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or(info.str("osImage"), "<unknown>").into(),
        kernel.into(),
        or(info.str("containerRuntimeVersion"), "<unknown>").into(),
    ]
}
