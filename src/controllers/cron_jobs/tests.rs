//! Table tests of a cron job's decisions.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::jiff::tz::TimeZone;
use kube::ResourceExt as _;

use super::plan::{Facts, Plan, plan};

fn cron(spec: &str, status: &str) -> CronJob {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"c","namespace":"n","uid":"cron","creationTimestamp":"2026-01-01T00:00:30Z"}},"status":{{{status}}},
        "spec":{{"schedule":"*/10 * * * *","jobTemplate":{{"metadata":{{"labels":{{"a":"b"}}}}}}{spec}}}}}"#
    ))
    .unwrap()
}

/// A job that started and ended at these minutes.
fn job(name: &str, end: &str, start: u32, minute: u32) -> Arc<Job> {
    let conditions = match end {
        "" => String::new(),
        end => format!(r#"{{"type":"{end}","status":"True"}}"#),
    };
    let text = format!(
        r#"{{"metadata":{{"name":"{name}","uid":"{name}"}},"status":{{"conditions":[{conditions}],
        "startTime":"2026-01-01T00:{start:02}:00Z","completionTime":"2026-01-01T00:{minute:02}:00Z"}}}}"#
    );
    Arc::new(serde_json::from_str(&text).unwrap())
}

fn decide(cron: &CronJob, jobs: &[Arc<Job>], missing: &str, now: &str) -> Plan {
    plan(&Facts {
        cron,
        jobs,
        missing: &missing
            .split_whitespace()
            .map(str::to_owned)
            .collect::<HashSet<_>>(),
        local: &TimeZone::UTC,
        now: format!("2026-01-01T{now}Z").parse().unwrap(),
    })
}

#[test]
fn a_cron_job_makes_one_job_for_the_latest_moment_that_is_due() {
    const ACTIVE: &str = r#""active":[{"name":"x","namespace":"n","uid":"x"}]"#;
    let last = |at: &str| format!(r#""lastScheduleTime":"2026-01-01T{at}Z""#);
    for (spec, status, now, made, again, events) in [
        ("", String::new(), "00:05:00", None, Some(300_100), ""),
        (
            "",
            String::new(),
            "00:10:00",
            Some("c-29453770"),
            Some(600_100),
            "",
        ),
        ("", last("00:10:00"), "00:10:05", None, Some(595_100), ""),
        // Of several missed times only the latest is used.
        (
            "",
            last("00:10:00"),
            "00:45:00",
            Some("c-29453800"),
            Some(300_100),
            "",
        ),
        (
            "",
            last("00:10:00"),
            "23:45:00",
            Some("c-29455180"),
            Some(300_100),
            "TooManyMissedTimes",
        ),
        (
            r#","startingDeadlineSeconds":60"#,
            last("00:10:00"),
            "23:45:00",
            None,
            Some(300_100),
            "",
        ),
        (
            r#","startingDeadlineSeconds":600"#,
            last("00:10:00"),
            "23:45:00",
            Some("c-29455180"),
            Some(300_100),
            "",
        ),
        (
            r#","suspend":true"#,
            String::new(),
            "00:10:00",
            None,
            None,
            "",
        ),
        (
            r#","timeZone":"Nowhere/X""#,
            String::new(),
            "00:10:00",
            None,
            None,
            "UnknownTimeZone",
        ),
        (
            r#","concurrencyPolicy":"Forbid""#,
            ACTIVE.to_owned(),
            "00:10:00",
            None,
            Some(600_100),
            "JobAlreadyActive",
        ),
        (
            r#","concurrencyPolicy":"Replace""#,
            ACTIVE.to_owned(),
            "00:10:00",
            Some("c-29453770"),
            Some(600_100),
            "",
        ),
        (
            r#","concurrencyPolicy":"Allow""#,
            ACTIVE.to_owned(),
            "00:10:00",
            Some("c-29453770"),
            Some(600_100),
            "",
        ),
    ] {
        let plan = decide(&cron(spec, &status), &[], "", now);
        let case = format!("{spec} {status} {now}");
        let name = plan.create.as_ref().map(|(job, _)| job.name_any());
        assert_eq!(name.as_deref(), made, "{case}");
        assert_eq!(plan.again, again, "{case}");
        let told: Vec<&str> = plan.events.iter().map(|(_, reason, _)| *reason).collect();
        assert_eq!(told.join(" "), events, "{case}");
        assert_eq!(!plan.replace.is_empty(), spec.contains("Replace"), "{case}");
    }
}

#[test]
fn a_job_says_which_moment_it_is_for() {
    let plan = decide(
        &cron(r#","timeZone":"Asia/Kolkata""#, ""),
        &[],
        "",
        "00:10:00",
    );
    let (job, _) = plan.create.unwrap();
    let when = &job.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(when, "2026-01-01T05:40:00+05:30");
    assert_eq!(job.labels()["a"], "b");
    assert_eq!(job.owner_references()[0].uid, "cron");
}

#[test]
fn jobs_that_ended_are_noted_and_forgotten_in_time() {
    let limits = r#","successfulJobsHistoryLimit":1,"failedJobsHistoryLimit":0"#;
    let active =
        r#""active":[{"name":"b","uid":"b"},{"name":"gone","uid":"gone"},{"name":"e","uid":"e"}]"#;
    let jobs = [
        job("a", "Complete", 1, 2),
        job("b", "Complete", 3, 4),
        job("d", "Failed", 5, 6),
        job("e", "", 7, 7),
        job("f", "", 8, 8),
    ];
    let plan = decide(&cron(limits, active), &jobs, "gone", "00:09:00");
    let forgotten: Vec<String> = plan.forget.iter().map(|job| job.name_any()).collect();
    assert_eq!(forgotten, ["a", "d"]);
    let told: Vec<&str> = plan
        .events
        .iter()
        .map(|(_, _, message)| message.as_str())
        .collect();
    assert_eq!(
        told,
        [
            "Saw completed job: b, condition: Complete",
            "Saw a job that the controller did not create or forgot: f",
            "Active job went missing: gone",
        ]
    );
    let left = plan.status.active.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].name.as_deref(), Some("e"));
    let successful = plan.status.last_successful_time.unwrap().0;
    assert_eq!(successful.to_string(), "2026-01-01T00:04:00Z");
}
