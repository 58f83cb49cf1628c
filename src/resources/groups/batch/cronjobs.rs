//! Cron jobs. Follows k8s.io/kubernetes/pkg/registry/batch/cronjob/strategy.go and pkg/apis/batch.

use super::{jobs, validate};
use crate::meta::table;
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::groups::workloads;
use crate::resources::{Cx, Generation, Printing, Rules};
use crate::schema::{Object, Value};

/// The rules of cron jobs.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    prepare_create: |object, _| drop_disabled(object, &Value::Null),
    prepare_update: |object, old, _| drop_disabled(object, old),
    validate: |object, old, _, errors| validate::schedule(object, old, errors),
    warnings: told,
    printing: Printing::of(cells),
    generation: Generation::Spec,
    internal: "batch.CronJob",
    ..Rules::DEFAULT
};

/// The path of the pod template.
const TEMPLATE: &[&str] = &["spec", "jobTemplate", "spec", "template"];

fn drop_disabled(object: &mut Value, old: &Value) {
    const JOB: [&str; 2] = ["jobTemplate", "spec"];
    let spec = object.object_mut().object_mut("spec");
    let job = spec.object_mut(JOB[0]).object_mut(JOB[1]);
    jobs::drop_scheduling(job, old.at("spec").path(&JOB));
    workloads::drop_disabled(object, old, TEMPLATE);
}

fn told(object: &Value, old: Option<&Value>, _: &Cx<'_>) -> Vec<String> {
    let mut told = workloads::warnings(object, old, TEMPLATE);
    let spec = object.at("spec");
    let job = spec.path(&["jobTemplate", "spec"]);
    jobs::warn_of_indexes(job, "spec.jobTemplate.spec", object, old, &mut told);
    if old.is_some() && spec.str("schedule").contains("TZ") {
        told.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
    }
    told
}

fn set_defaults(object: &mut Value) {
    let spec = object.object_mut().entry("spec", || Object::new().into());
    defaults::text(spec, "concurrencyPolicy", "Allow");
    defaults::absent(spec, "suspend", false);
    defaults::absent(spec, "successfulJobsHistoryLimit", 3);
    defaults::absent(spec, "failedJobsHistoryLimit", 1);
    let template = spec.object_mut().object_mut("jobTemplate");
    jobs::nested_defaults(template.entry("spec", || Object::new().into()));
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let job = spec.at("jobTemplate").at("spec");
    let last = match status.get("lastScheduleTime") {
        Some(time) => table::since(time, now),
        None => "<none>".into(),
    };
    let suspended = match spec.at("suspend").as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let [names, images] = cells::containers(job.at("template").at("spec"));
    vec![
        object.at("metadata").str("name").into(),
        spec.str("schedule").into(),
        spec.at("timeZone").as_str().unwrap_or("<none>").into(),
        suspended.into(),
        Value::Int(i64::try_from(status.list("active").len()).unwrap_or(i64::MAX)),
        last,
        table::age(object, now),
        names,
        images,
        cells::selector(job.at("selector")),
    ]
}
