//! Cron jobs. Follows k8s.io/kubernetes/pkg/registry/batch/cronjob/strategy.go and pkg/apis/batch.

use super::jobs;
use crate::meta::table;
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::{Generation, Rules};
use crate::schema::{Object, Value};

/// The rules of cron jobs.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    cells,
    generation: Generation::Spec,
    internal: "batch.CronJob",
    ..Rules::DEFAULT
};

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
