//! LimitRanger: default requests and limits of containers, and minima and maxima for pods, containers and claims.
//! Follows k8s.io/kubernetes/plugin/pkg/admission/limitranger.

use std::sync::Arc;

use super::{Attributes, Operation, Plugin};
use crate::meta::Status;
use crate::meta::amounts::{Amounts, Side};
use crate::meta::quantity::Quantity;
use crate::meta::status::aggregate;
use crate::schema::Value;

/// The plugin.
pub struct LimitRanger;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !concerns(request) || !request.is_about("", "pods") {
            return Ok(());
        }
        for range in ranges(request) {
            fill(&mut request.object, &range);
        }
        Ok(())
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if !concerns(request) {
            return Ok(());
        }
        for range in ranges(request) {
            let errors = if request.is_about("", "pods") {
                judge_pod(request.object.at("spec"), &range)
            } else {
                judge_claim(request.object.at("spec"), &range)
            };
            if !errors.is_empty() {
                return Err(request.forbidden(&aggregate(&errors)));
            }
        }
        Ok(())
    }
}

fn concerns(request: &Attributes<'_>) -> bool {
    let right = match request.operation {
        Operation::Create => {
            request.is_of("", "pods") || request.is_of("", "persistentvolumeclaims")
        }
        Operation::Update => {
            request.is_of("", "persistentvolumeclaims")
                || request.is_about("", "pods") && request.subresource == "resize"
        }
        _ => false,
    };
    right
        && request
            .old
            .is_none_or(|old| old.at("metadata").get("deletionTimestamp").is_none())
}

fn ranges(request: &Attributes<'_>) -> Vec<Arc<Value>> {
    request.cluster.list("", "limitranges", request.namespace)
}

/// Applies a LimitRange's defaults to the containers of a pod, and records that in an annotation.
fn fill(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (Amounts::default(), Amounts::default());
    for limit in limits_of(range, "Container") {
        requests
            .0
            .extend(Amounts::read(limit.at("defaultRequest")).0);
        limits.0.extend(Amounts::read(limit.at("default")).0);
    }
    let mut notes = Vec::new();
    let spec = pod.object_mut().object_mut("spec");
    for (list, kind) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container.str("name").to_owned();
            for (side, defaults) in [(Side::Requests, &requests), (Side::Limits, &limits)] {
                let said = Amounts::container(container, side);
                let missing: Vec<_> = defaults
                    .0
                    .iter()
                    .filter(|(resource, _)| !said.0.contains_key(*resource))
                    .collect();
                if missing.is_empty() {
                    continue;
                }
                let resources = container.object_mut().object_mut("resources");
                let filled = resources.object_mut(side.key());
                for (resource, amount) in &missing {
                    filled.insert((*resource).clone(), amount.to_string());
                }
                let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
                let what = if side == Side::Requests {
                    "request"
                } else {
                    "limit"
                };
                notes.push(format!("{} {what} for {kind} {name}", names.join(", ")));
            }
        }
    }
    if !notes.is_empty() {
        let meta = pod.object_mut().object_mut("metadata");
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        meta.object_mut("annotations").insert(ANNOTATION, note);
    }
}

fn limits_of<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let limits = range.at("spec").list("limits").iter();
    limits.filter(move |limit| limit.str("type") == kind)
}

fn judge_claim(spec: &Value, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let requests = Amounts::container(spec, Side::Requests);
    for limit in limits_of(range, "PersistentVolumeClaim") {
        for (resource, least) in &Amounts::read(limit.at("min")).0 {
            let asked = Asked::of(resource, &requests, &Amounts::default());
            errors.extend(asked.at_least(*least, "PersistentVolumeClaim"));
        }
        for (resource, most) in &Amounts::read(limit.at("max")).0 {
            let asked = Asked::of(resource, &requests, &Amounts::default());
            errors.extend(asked.claim_at_most(*most));
        }
    }
    errors
}

fn judge_pod(spec: &Value, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let mut judge = |limit: &Value, kind: &str, requests: Amounts, limits: Amounts| {
        for (resource, least) in &Amounts::read(limit.at("min")).0 {
            errors.extend(Asked::of(resource, &requests, &limits).at_least(*least, kind));
        }
        for (resource, most) in &Amounts::read(limit.at("max")).0 {
            errors.extend(Asked::of(resource, &requests, &limits).at_most(*most, kind));
        }
        for (resource, ratio) in &Amounts::read(limit.at("maxLimitRequestRatio")).0 {
            errors.extend(Asked::of(resource, &requests, &limits).ratio(*ratio, kind));
        }
    };
    for limit in range.at("spec").list("limits") {
        match limit.str("type") {
            "Container" => {
                let all = spec.list("containers").iter();
                for container in all.chain(spec.list("initContainers")) {
                    let side = |side| Amounts::container(container, side);
                    judge(limit, "Container", side(Side::Requests), side(Side::Limits));
                }
            }
            "Pod" => {
                let side = |side| Amounts::pod(spec, side);
                judge(limit, "Pod", side(Side::Requests), side(Side::Limits));
            }
            _ => {}
        }
    }
    errors
}

/// The request and limit of one resource.
struct Asked<'a> {
    resource: &'a str,
    request: Option<Quantity>,
    limit: Option<Quantity>,
}

impl<'a> Asked<'a> {
    fn of(resource: &'a str, requests: &Amounts, limits: &Amounts) -> Self {
        Asked {
            resource,
            request: requests.0.get(resource).copied(),
            limit: limits.0.get(resource).copied(),
        }
    }

    fn at_least(&self, least: Quantity, kind: &str) -> Option<String> {
        let rule = format!("minimum {} usage per {kind} is {least}", self.resource);
        match (self.request, self.limit) {
            (None, _) => Some(format!("{rule}.  No request is specified")),
            (Some(request), _) if request < least => {
                Some(format!("{rule}, but request is {request}"))
            }
            (_, Some(limit)) if limit < least => Some(format!("{rule}, but limit is {limit}")),
            _ => None,
        }
    }

    fn at_most(&self, most: Quantity, kind: &str) -> Option<String> {
        let rule = format!("maximum {} usage per {kind} is {most}", self.resource);
        match (self.request, self.limit) {
            (_, None) => Some(format!("{rule}.  No limit is specified")),
            (_, Some(limit)) if limit > most => Some(format!("{rule}, but limit is {limit}")),
            (Some(request), _) if request > most => {
                Some(format!("{rule}, but request is {request}"))
            }
            _ => None,
        }
    }

    fn claim_at_most(&self, most: Quantity) -> Option<String> {
        let rule = format!(
            "maximum {} usage per PersistentVolumeClaim is {most}",
            self.resource
        );
        match self.request {
            None => Some(format!("{rule}.  No request is specified")),
            Some(request) if request > most => Some(format!("{rule}, but request is {request}")),
            Some(_) => None,
        }
    }

    fn ratio(&self, most: Quantity, kind: &str) -> Option<String> {
        let rule = format!(
            "{} max limit to request ratio per {kind} is {most}",
            self.resource
        );
        let said = |amount: Option<Quantity>| amount.filter(|amount| amount.sign() != 0);
        let Some(request) = said(self.request) else {
            return Some(format!(
                "{rule}, but no request is specified or request is 0"
            ));
        };
        let Some(limit) = said(self.limit) else {
            return Some(format!("{rule}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.milli_value() as f64 / request.milli_value() as f64;
        (ratio * 1000.0 > most.milli_value() as f64)
            .then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    fn parsed(text: &str) -> Value {
        json::parse(text.as_bytes()).unwrap().value
    }

    fn range(limits: &str) -> Value {
        parsed(&format!(r#"{{"spec":{{"limits":[{limits}]}}}}"#))
    }

    #[test]
    fn containers_get_what_they_do_not_say_and_a_note_tells_so() {
        let range = range(
            r#"{"type":"Container","default":{"cpu":"200m","memory":"1Gi"},"defaultRequest":{"cpu":"100m"}},{"type":"Pod","default":{"cpu":"9"}}"#,
        );
        let mut pod = parsed(
            r#"{"spec":{"containers":[{"name":"c"},{"name":"d","resources":{"requests":{"cpu":"50m"},"limits":{"cpu":"0","memory":"1"}}}],"initContainers":[{"name":"i","resources":{"limits":{"cpu":"1"}}}]}}"#,
        );
        fill(&mut pod, &range);
        assert_eq!(
            pod.at("metadata").at("annotations").str(ANNOTATION),
            "LimitRanger plugin set: cpu request for container c; cpu, memory limit for container c; cpu request for init container i; memory limit for init container i"
        );
        assert_eq!(
            pod.at("spec").list("containers")[0].at("resources"),
            &parsed(r#"{"requests":{"cpu":"100m"},"limits":{"cpu":"200m","memory":"1Gi"}}"#)
        );
    }

    #[test]
    fn amounts_outside_a_range_are_told_as_upstream_words_them() {
        let pod = |resources: &str| {
            parsed(&format!(
                r#"{{"containers":[{{"name":"c","resources":{resources}}}]}}"#
            ))
        };
        for (limits, resources, wanted) in [
            (
                r#""max":{"cpu":"1"}"#,
                r#"{"limits":{"cpu":"2"}}"#,
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                r#""max":{"cpu":"1"}"#,
                r#"{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}"#,
                "maximum cpu usage per Container is 1, but request is 2",
            ),
            (
                r#""max":{"cpu":"1"}"#,
                "{}",
                "maximum cpu usage per Container is 1.  No limit is specified",
            ),
            (
                r#""min":{"cpu":"100m"}"#,
                "{}",
                "minimum cpu usage per Container is 100m.  No request is specified",
            ),
            (
                r#""min":{"cpu":"100m"}"#,
                r#"{"requests":{"cpu":"50m"}}"#,
                "minimum cpu usage per Container is 100m, but request is 50m",
            ),
            (
                r#""min":{"cpu":"100m"}"#,
                r#"{"requests":{"cpu":"100m"},"limits":{"cpu":"50m"}}"#,
                "minimum cpu usage per Container is 100m, but limit is 50m",
            ),
            (
                r#""maxLimitRequestRatio":{"cpu":"2"}"#,
                r#"{"requests":{"cpu":"100m"},"limits":{"cpu":"300m"}}"#,
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (
                r#""maxLimitRequestRatio":{"cpu":"2"}"#,
                r#"{"requests":{"cpu":"0"},"limits":{"cpu":"300m"}}"#,
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
            (
                r#""maxLimitRequestRatio":{"cpu":"2"}"#,
                r#"{"requests":{"cpu":"150m"},"limits":{"cpu":"300m"}}"#,
                "",
            ),
        ] {
            let range = range(&format!(r#"{{"type":"Container",{limits}}}"#));
            assert_eq!(judge_pod(&pod(resources), &range).join("; "), wanted);
        }
        let two = parsed(
            r#"{"containers":[{"resources":{"limits":{"cpu":"600m"}}},{"resources":{"limits":{"cpu":"600m"}}}]}"#,
        );
        let sums = range(r#"{"type":"Pod","max":{"cpu":"1"}}"#);
        assert_eq!(
            judge_pod(&two, &sums),
            ["maximum cpu usage per Pod is 1, but limit is 1200m"]
        );
        let claim = parsed(r#"{"resources":{"requests":{"storage":"10Gi"}}}"#);
        let storage = range(
            r#"{"type":"PersistentVolumeClaim","min":{"storage":"20Gi"},"max":{"storage":"5Gi"}}"#,
        );
        assert_eq!(
            judge_claim(&claim, &storage),
            [
                "minimum storage usage per PersistentVolumeClaim is 20Gi, but request is 10Gi",
                "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 10Gi"
            ]
        );
    }
}
