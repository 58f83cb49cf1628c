use crate::resources::groups::trial::Trial;
use crate::schema::Value;

fn job(spec: &str) -> Value {
    let body = format!(
        r#"{{"metadata":{{"name":"w"}},"spec":{{{spec}"template":{{"metadata":{{"labels":{{"app":"x"}}}},"spec":{{"restartPolicy":"Never","containers":[{{"name":"c","image":"i:1"}}]}}}}}}}}"#
    );
    Trial::of("batch", "jobs").defaulted(&body)
}

#[test]
fn a_minimal_job_gets_every_default_and_its_templates_labels() {
    let job = job("");
    let spec = job.at("spec");
    assert_eq!((spec.int("completions"), spec.int("parallelism")), (1, 1));
    assert_eq!(spec.int("backoffLimit"), 6);
    assert_eq!(spec.str("completionMode"), "NonIndexed");
    assert_eq!(spec.str("podReplacementPolicy"), "TerminatingOrFailed");
    assert_eq!(spec.at("suspend").as_bool(), Some(false));
    assert_eq!(spec.at("manualSelector").as_bool(), Some(false));
    assert_eq!(job.path(&["metadata", "labels", "app"]).as_str(), Some("x"));
}

#[test]
fn what_is_said_decides_what_is_added() {
    let one = job(r#""parallelism":3,"#);
    assert!(one.at("spec").get("completions").is_none());
    let two = job(r#""completions":3,"backoffLimitPerIndex":1,"completionMode":"Indexed","#);
    assert_eq!(two.at("spec").int("parallelism"), 1);
    assert_eq!(two.at("spec").int("backoffLimit"), i64::from(i32::MAX));
    let three = job(
        r#""podFailurePolicy":{"rules":[{"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget"}]}]},"#,
    );
    let spec = three.at("spec");
    assert_eq!(spec.str("podReplacementPolicy"), "Failed");
    let rule = &spec.at("podFailurePolicy").list("rules")[0];
    assert_eq!(rule.list("onPodConditions")[0].str("status"), "True");
}

#[test]
fn a_cron_jobs_template_gets_no_job_defaults() {
    let made = Trial::of("batch", "cronjobs").defaulted(
        r#"{"metadata":{"name":"w"},"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i:1"}]}}}}}}"#,
    );
    let spec = made.at("spec");
    assert_eq!(spec.str("concurrencyPolicy"), "Allow");
    assert_eq!(
        (
            spec.int("successfulJobsHistoryLimit"),
            spec.int("failedJobsHistoryLimit")
        ),
        (3, 1)
    );
    let job = spec.path(&["jobTemplate", "spec"]);
    assert!(job.get("completions").is_none() && job.get("backoffLimit").is_none());
    let pod = job.path(&["template", "spec"]);
    assert_eq!(pod.str("dnsPolicy"), "ClusterFirst");
}
