//! Stateful sets. Follows k8s.io/kubernetes/pkg/registry/apps/statefulset/strategy.go and pkg/apis/apps.

use indexmap::IndexSet;

use crate::meta::errors::{Reason, shown};
use crate::meta::{At, Errors};
use crate::meta::{names, table};
use crate::resources::groups::core::pods::validate::{self, Before};
use crate::resources::groups::core::pods::{cells, defaults, warnings};
use crate::resources::groups::workloads::{self, TEMPLATE};
use crate::resources::{Cx, Generation, Naming, Printing, Rules, StatusRules};
use crate::schema::{Object, Value};
use crate::value;

/// The rules of stateful sets.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    nothing: super::NO_REPLICAS,
    printing: Printing::of(|object, now| {
        let (spec, status) = (object.at("spec"), object.at("status"));
        let ready = format!("{}/{}", status.int("readyReplicas"), spec.int("replicas"));
        let [names, images] = cells::containers(spec.at("template").at("spec"));
        vec![
            object.at("metadata").str("name").into(),
            ready.into(),
            table::age(object, now),
            names,
            images,
        ]
    }),
    prepare_create: |object, _| workloads::drop_disabled(object, &Value::Null, TEMPLATE),
    prepare_update: |object, old, _| workloads::drop_disabled(object, old, TEMPLATE),
    validate,
    status: StatusRules::validated_by(|object, old, _, errors| {
        let status = object.field("status");
        self::status(status, errors);
        workloads::collisions(status, old.value.at("status"), errors);
    }),
    warnings: told,
    naming: Naming::validated_by(names::label_name),
    generation: Generation::Spec,
    internal: "apps.StatefulSet",
    ..Rules::DEFAULT
};

fn told(object: &Value, old: Option<&Value>, _: &Cx<'_>) -> Vec<String> {
    let mut told = workloads::template_warnings(object, old, TEMPLATE);
    let claims = At::root(object);
    let spec = claims.field("spec");
    for claim in spec.field("volumeClaimTemplates").items() {
        // Upstream uses different paths for creations and updates, and both are wrong.
        let at = match old {
            None => claim.path,
            Some(_) => claim.path.field("Spec"),
        };
        told.extend(warnings::claim_spec(At {
            value: claim.value.at("spec"),
            path: at,
        }));
    }
    if spec.value.int("revisionHistoryLimit") < 0 {
        told.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
    told
}

fn validate(object: At<'_>, old: Option<At<'_>>, _: &Cx<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let before = workloads::before(old);
    let Some(old) = old else {
        return self::spec(spec, &Checks::default(), before, errors);
    };
    let was = old.field("spec");
    let mut checks = Checks {
        of_update: true,
        lax_template: false,
    };
    let refused = errors.0.len();
    self::spec(spec, &checks, before, errors);
    if errors.0.len() > refused {
        // If the old object violates today's rules as well, the template is not validated.
        let mut today = Errors::default();
        self::spec(was, &checks, before, &mut today);
        if !today.is_empty() {
            checks.lax_template = true;
            errors.truncate(refused);
            self::spec(spec, &checks, before, errors);
        }
    }
    for (field, go_type) in [
        ("selector", ""),
        ("volumeClaimTemplates", "[]core.PersistentVolumeClaim"),
        ("serviceName", ""),
        ("podManagementPolicy", ""),
    ] {
        workloads::immutable(spec.field(field), was.value.at(field), go_type, errors);
    }
}

/// What is exempt from validation.
#[derive(Clone, Copy, Default)]
struct Checks {
    /// Immutable fields, on updates.
    of_update: bool,
    /// The pod spec of the template.
    lax_template: bool,
}

/// ValidateStatefulSetSpec
fn spec(spec: At<'_>, checks: &Checks, before: Before<'_>, errors: &mut Errors) {
    let policy = spec.field("podManagementPolicy");
    if policy.required("", errors) && !matches!(policy.str(), "OrderedReady" | "Parallel") {
        policy.invalid("must be 'OrderedReady' or 'Parallel'", errors);
    }
    strategy(spec.field("updateStrategy"), errors);
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    if !retention.is_absent() {
        for when in ["whenDeleted", "whenScaled"] {
            retention.field(when).one_of(&["Retain", "Delete"], errors);
        }
    }
    if !checks.of_update {
        for claim in spec.field("volumeClaimTemplates").items() {
            validate::claim_spec(claim.field("spec"), None, errors);
        }
    }
    workloads::counts(spec, &["replicas", "minReadySeconds"], errors);
    let start = At {
        value: spec.value.at("ordinals").at("start"),
        path: spec.path.field("ordinals.start"),
    };
    start.non_negative(errors);
    let service = spec.field("serviceName");
    if !checks.of_update {
        service.checked_if_said(names::dns1123_label, errors);
    }
    workloads::selector(spec, "statefulset", errors);
    if workloads::matches(spec, errors) {
        template(spec, checks, before, errors);
    } else {
        let selector = spec.field("selector");
        errors.push(
            Reason::Invalid,
            selector.path,
            format!("Invalid value: {}", shown(selector.value)),
        );
    }
    let template = spec.field("template");
    workloads::runs_forever(template.field("spec"), "StatefulSet", errors);
}

fn strategy(strategy: At<'_>, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.value.str("type") {
        "" => errors.required(strategy.path, ""),
        "OnDelete" if rolling.is_absent() => {}
        "OnDelete" => rolling.invalid_dump(
            "apps.RollingUpdateStatefulSetStrategy",
            "only allowed for updateStrategy 'RollingUpdate'",
            errors,
        ),
        "RollingUpdate" => {
            rolling.field("partition").non_negative(errors);
            let unavailable = rolling.field("maxUnavailable");
            if unavailable.is_absent() {
                return;
            }
            unavailable.int_or_percent(errors);
            if workloads::number(unavailable.value) == 0 {
                unavailable.invalid("cannot be 0", errors);
            }
            unavailable.at_most_all(errors);
        }
        _ => strategy.invalid_dump(
            "apps.StatefulSetUpdateStrategy",
            "must be 'RollingUpdate' or 'OnDelete'",
            errors,
        ),
    }
}

/// Validates the template as pods will have it: with volumes for the claims, and without hostname and subdomain.
fn template(spec: At<'_>, checks: &Checks, before: Before<'_>, errors: &mut Errors) {
    let mut made = spec.value.at("template").clone();
    let claims = spec.value.list("volumeClaimTemplates");
    if let Some(pod) = made.get_mut("spec") {
        pod.remove("subdomain");
        pod.remove("hostname");
        if !claims.is_empty() {
            // Claims with the same name share one volume.
            let names = claims.iter().map(|claim| claim.at("metadata").str("name"));
            let names: IndexSet<&str> = names.collect();
            let own = pod.list("volumes").to_vec();
            let volumes: Vec<Value> = names
                .iter()
                .map(|name| value!({"name": (*name), "persistentVolumeClaim": {"claimName": (*name)}}))
                .chain(own.into_iter().filter(|v| !names.contains(v.str("name"))))
                .collect();
            pod.set("volumes", volumes);
        }
    }
    let at = At {
        value: &made,
        path: spec.path.field("template"),
    };
    if !checks.lax_template {
        validate::template(at, before, errors);
    }
    // Upstream looks at labels and annotations a second time.
    validate::template_metadata(at, before, errors);
}

fn status(status: At<'_>, errors: &mut Errors) {
    workloads::counts(
        status,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        errors,
    );
    for count in [
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
    ] {
        workloads::at_most(status, &[(count, "replicas", "status.replicas")], errors);
    }
    workloads::at_most(
        status,
        &[("availableReplicas", "readyReplicas", "status.readyReplicas")],
        errors,
    );
}

fn set_defaults(object: &mut Value) {
    let spec = object.object_mut().entry("spec", || Object::new().into());
    defaults::text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = spec
        .object_mut()
        .entry("updateStrategy", || Object::new().into());
    if strategy.str("type").is_empty() {
        strategy.set("type", "RollingUpdate");
        defaults::absent(strategy, "rollingUpdate", Object::new());
    }
    if strategy.str("type") == "RollingUpdate"
        && let Some(rolling) = strategy
            .as_object_mut()
            .and_then(|strategy| strategy.get_mut("rollingUpdate"))
            .filter(|rolling| !rolling.is_null())
    {
        defaults::absent(rolling, "partition", 0);
        defaults::absent(rolling, "maxUnavailable", 1);
    }
    let retention = spec
        .object_mut()
        .entry("persistentVolumeClaimRetentionPolicy", || {
            Object::new().into()
        });
    defaults::text(retention, "whenDeleted", "Retain");
    defaults::text(retention, "whenScaled", "Retain");
    defaults::absent(spec, "replicas", 1);
    defaults::absent(spec, "revisionHistoryLimit", 10);
    defaults::template(spec, "template");
    for claim in defaults::items(spec, "volumeClaimTemplates") {
        // The result of upstream's conversion to the internal type and back.
        claim.set("kind", "PersistentVolumeClaim");
        claim.set("apiVersion", "v1");
        let status = claim.object_mut().entry("status", || Object::new().into());
        defaults::text(status, "phase", "Pending");
        for list in ["capacity", "allocatedResources"] {
            if let Some(list) = status.get_mut(list) {
                defaults::round_up(list);
            }
        }
        let spec = claim.object_mut().entry("spec", || Object::new().into());
        defaults::claim_spec(spec);
    }
}
