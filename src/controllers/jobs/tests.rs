//! Table tests of a job's decisions.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::facts::{FAILURES, Facts, IGNORED, INDEX, TRACKED};
use super::make_pod;
use super::plan::{Act, Done, Place, plan};
use crate::client::kinds::Pod;

const NOW: &str = "2026-01-01T00:10:00Z";

/// A job called `j` with these JSON fields merged into its spec and status.
fn job(spec: &str, status: &str) -> Job {
    let mut job = json!({
        "metadata": {"name": "j", "namespace": "n", "uid": "job"},
        "spec": {"parallelism": 2, "completions": 3, "backoffLimit": 6, "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]},
        }},
    });
    job["status"] = serde_json::from_str(&format!("{{{status}}}")).unwrap();
    let more: serde_json::Map<String, Value> =
        serde_json::from_str(&format!("{{{spec}}}")).unwrap();
    job["spec"].as_object_mut().unwrap().extend(more);
    serde_json::from_value(job).unwrap()
}

/// Pods: `name phase [index=I] [failures=N] [ready] [ends] [free] [at=SECOND]`, separated by commas.
fn pods(text: &str) -> Vec<Arc<Pod>> {
    let pod = |text: &str| -> Arc<Pod> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap();
        let phase = words.next().unwrap();
        let (mut annotations, mut conditions) = (Vec::new(), Vec::new());
        let (mut finalizers, mut ends) = (format!("\"{TRACKED}\""), "");
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("index", index) => annotations.push(format!(r#""{INDEX}":"{index}""#)),
                ("failures", count) => annotations.push(format!(r#""{FAILURES}":"{count}""#)),
                ("at", second) => conditions.push(format!(
                    r#"{{"type":"Ready","status":"False","lastTransitionTime":"2026-01-01T00:09:{second}Z"}}"#
                )),
                ("ready", _) => conditions.push(r#"{"type":"Ready","status":"True"}"#.to_owned()),
                ("disrupted", _) => {
                    conditions.push(r#"{"type":"DisruptionTarget","status":"True"}"#.to_owned());
                }
                ("ends", _) => ends = r#","deletionTimestamp":"2026-01-01T00:09:59Z""#,
                ("free", _) => finalizers.clear(),
                other => panic!("{other:?}"),
            }
        }
        let text = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{name}","creationTimestamp":"2026-01-01T00:00:00Z","finalizers":[{finalizers}],"annotations":{{{}}}{ends}}},
            "status":{{"phase":"{phase}","conditions":[{}]}}}}"#,
            annotations.join(","),
            conditions.join(",")
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    };
    text.split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(pod)
        .collect()
}

/// What is done with pods, when to look again, and the statuses before and after finalizers are removed.
fn step(job: &Job, pods: &[Arc<Pod>]) -> (String, Option<i64>, JobStatus, JobStatus) {
    let (backoff, none) = (Backoff::default(), HashSet::new());
    let facts = Facts {
        job,
        spec: job.spec.as_ref().unwrap(),
        pods,
        counted: &none,
        backoff: &backoff,
        now: NOW.parse().unwrap(),
    };
    let mut plan = plan(&facts);
    let names = |pods: &[Arc<Pod>]| {
        let mut names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        names.sort();
        names.join(" ")
    };
    let (words, count, ready) = match &plan.act {
        Act::Nothing => (String::new(), 0, 0),
        Act::End(pods) => (format!("end {}", names(pods)), pods.len(), ready(pods)),
        Act::Remove(pods) => (format!("remove {}", names(pods)), pods.len(), ready(pods)),
        Act::Create(places) => {
            let places = places
                .iter()
                .map(|place| match (place.index, &place.after) {
                    (None, _) => "any".to_owned(),
                    (Some(index), None) => index.to_string(),
                    (Some(index), Some(pod)) => format!("{index}<{}", pod.name_any()),
                });
            let places: Vec<String> = places.collect();
            (format!("create {}", places.join(" ")), places.len(), 0)
        }
    };
    plan.carried_out(Done {
        pods: count,
        ready,
        whole: true,
    });
    let again = plan.again;
    let tracked = plan.track();
    let before = tracked.status.clone();
    let released = tracked.release.iter();
    let released = released
        .filter_map(|pod| pod.metadata.uid.clone())
        .collect();
    let (after, _) = tracked.settle(&released);
    (words.trim().to_owned(), again, before, after)
}

fn ready(pods: &[Arc<Pod>]) -> usize {
    pods.iter().filter(|pod| pod.is_ready()).count()
}

/// Active, ready, terminating, succeeded, failed, uncounted, and the true conditions.
fn says(status: &JobStatus) -> String {
    let counts = [
        status.active,
        status.ready,
        status.terminating,
        status.succeeded,
        status.failed,
    ];
    let counts: Vec<String> = counts.map(|count| count.unwrap_or(0).to_string()).to_vec();
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let open = uncounted
        .succeeded
        .into_iter()
        .chain(uncounted.failed)
        .flatten();
    let open: Vec<String> = open.collect();
    let conditions = status.conditions.iter().flatten();
    let conditions = conditions.filter(|condition| condition.status == "True");
    let conditions: Vec<String> = conditions
        .map(|condition| {
            format!(
                "{}:{}",
                condition.type_,
                condition.reason.as_deref().unwrap()
            )
        })
        .collect();
    let said = format!(
        "{} {} {}",
        counts.join("/"),
        open.join("+"),
        conditions.join(" ")
    );
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_job_makes_and_counts_its_pods() {
    for (spec, status, had, act, before, after) in [
        ("", "", "", "create any any", "2/0/0/0/0", "2/0/0/0/0"),
        (
            "",
            r#""succeeded":2"#,
            "",
            "create any",
            "1/0/0/2/0",
            "1/0/0/2/0",
        ),
        (
            "",
            "",
            "a Running ready, b Pending",
            "",
            "2/1/0/0/0",
            "2/1/0/0/0",
        ),
        (
            "",
            "",
            "a Succeeded, b Running",
            "create any",
            "2/0/0/0/0 a",
            "2/0/0/1/0",
        ),
        (
            "",
            "",
            "a Running, b Pending, c Running ready",
            "remove b",
            "2/1/1/0/0",
            "2/1/1/0/0",
        ),
        (
            "",
            r#""succeeded":2"#,
            "a Succeeded",
            "",
            "0/0/0/2/0 a SuccessCriteriaMet:CompletionsReached",
            "0/0/0/3/0 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
        ),
        (
            "",
            r#""succeeded":1"#,
            "a Succeeded free, b Running",
            "create any",
            "2/0/0/1/0",
            "2/0/0/1/0",
        ),
        (
            r#""completions":null"#,
            "",
            "a Succeeded, b Running",
            "",
            "1/0/0/0/0 a",
            "1/0/0/1/0",
        ),
        (
            r#""completions":null"#,
            r#""succeeded":1"#,
            "",
            "",
            "0/0/0/1/0 SuccessCriteriaMet:CompletionsReached",
            "0/0/0/1/0 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
        ),
        // A recent failure delays the next pod, an older one does not.
        (
            "",
            "",
            "a Failed at=55, b Running",
            "",
            "1/0/0/0/0 a",
            "1/0/0/0/1",
        ),
        (
            "",
            "",
            "a Failed at=45, b Running",
            "create any",
            "2/0/0/0/0 a",
            "2/0/0/0/1",
        ),
        (
            r#""backoffLimit":0"#,
            "",
            "a Failed, b Running ready",
            "end b",
            "0/0/1/0/0 a+b FailureTarget:BackoffLimitExceeded",
            "0/0/1/0/2 FailureTarget:BackoffLimitExceeded",
        ),
        (
            "",
            r#""failed":2,"conditions":[{"type":"FailureTarget","status":"True","reason":"R"}]"#,
            "b Failed free",
            "end",
            "0/0/0/0/2 FailureTarget:R",
            "0/0/0/0/2 FailureTarget:R Failed:R",
        ),
        (
            r#""activeDeadlineSeconds":60"#,
            r#""startTime":"2026-01-01T00:09:00Z""#,
            "",
            "end",
            "0/0/0/0/0 FailureTarget:DeadlineExceeded",
            "0/0/0/0/0 FailureTarget:DeadlineExceeded Failed:DeadlineExceeded",
        ),
        (
            r#""suspend":true"#,
            "",
            "a Running ready, b Pending",
            "remove a b",
            "0/0/2/0/0 Suspended:JobSuspended",
            "0/0/2/0/0 Suspended:JobSuspended",
        ),
        // Pods that are being deleted count as failed, unless only failed ones are replaced.
        (
            "",
            "",
            "a Running ends at=10",
            "create any any",
            "2/0/1/0/0 a",
            "2/0/1/0/1",
        ),
        (
            r#""podReplacementPolicy":"Failed""#,
            "",
            "a Running ends",
            "create any",
            "1/0/1/0/0",
            "1/0/1/0/0",
        ),
        (
            r#""podFailurePolicy":{"rules":[{"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget","status":"True"}]}]},"backoffLimit":0"#,
            "",
            "a Failed disrupted at=10, b Running",
            "create any",
            "2/0/0/0/0",
            "2/0/0/0/0",
        ),
    ] {
        let job = job(spec, status);
        let (words, _, first, last) = step(&job, &pods(had));
        let case = format!("{spec} {status} {had}");
        assert_eq!(words, act, "{case}");
        assert_eq!(
            (says(&first).as_str(), says(&last).as_str()),
            (before, after),
            "{case}"
        );
    }
}

#[test]
fn a_job_with_indexes_has_one_pod_for_each() {
    const INDEXED: &str = r#""completionMode":"Indexed","parallelism":3,"completions":4"#;
    const EACH: &str = r#""completionMode":"Indexed","parallelism":3,"completions":4,"backoffLimit":99,"backoffLimitPerIndex":1"#;
    for (spec, status, had, act, after, indexes) in [
        (INDEXED, "", "", "create 0 1 2", "3/0/0/0/0", ("", None)),
        (
            INDEXED,
            r#""completedIndexes":"0,2","succeeded":2"#,
            "a Running index=1",
            "create 3",
            "2/0/0/2/0",
            ("0,2", None),
        ),
        (
            INDEXED,
            r#""completedIndexes":"1""#,
            "a Succeeded index=0, b Succeeded index=2, c Running index=3",
            "",
            "1/0/0/3/0",
            ("0-2", None),
        ),
        (
            INDEXED,
            "",
            "a Running index=1 ready, b Pending index=1, c Running index=7, d Running, e Running index=0",
            "remove b c d",
            "2/1/3/0/0",
            ("", None),
        ),
        (
            EACH,
            "",
            "a Failed index=0 failures=0 at=10",
            "create 0<a 1 2",
            "3/0/0/0/0",
            ("", Some("")),
        ),
        (
            EACH,
            "",
            "a Failed index=0 failures=0 at=55",
            "create 1 2",
            "2/0/0/0/0",
            ("", Some("")),
        ),
        (
            EACH,
            "",
            "a Failed index=0 failures=1 at=55, b Running index=1",
            "create 2 3",
            "3/0/0/0/1",
            ("", Some("0")),
        ),
        (
            EACH,
            r#""failedIndexes":"0","completedIndexes":"1-2","failed":2"#,
            "a Succeeded index=3",
            "end",
            "0/0/0/3/2 FailureTarget:FailedIndexes Failed:FailedIndexes",
            ("1-3", Some("0")),
        ),
        (
            r#""completionMode":"Indexed","parallelism":3,"completions":4,"successPolicy":{"rules":[{"succeededIndexes":"2"}]}"#,
            "",
            "a Succeeded index=2, b Running index=0",
            "end b",
            "0/0/1/1/0 SuccessCriteriaMet:SuccessPolicy",
            ("2", None),
        ),
    ] {
        let (words, _, _, last) = step(&job(spec, status), &pods(had));
        let case = format!("{spec} {status} {had}");
        assert_eq!(words, act, "{case}");
        assert_eq!(says(&last), after, "{case}");
        assert_eq!(last.completed_indexes.as_deref(), Some(indexes.0), "{case}");
        assert_eq!(last.failed_indexes.as_deref(), indexes.1, "{case}");
    }
}

#[test]
fn a_job_looks_again_when_something_is_due() {
    for (spec, status, had, again) in [
        ("", "", "a Failed at=55, b Running", Some(5_000)),
        (
            r#""activeDeadlineSeconds":90"#,
            r#""startTime":"2026-01-01T00:09:00Z""#,
            "",
            Some(30_000),
        ),
        (
            r#""activeDeadlineSeconds":63"#,
            r#""startTime":"2026-01-01T00:09:00Z""#,
            "a Failed at=55, b Running",
            Some(3_000),
        ),
        ("", "", "a Running, b Running", None),
    ] {
        let (_, found, _, _) = step(&job(spec, status), &pods(had));
        assert_eq!(found, again, "{spec} {had}");
    }
    let resumed = job(
        "",
        r#""startTime":"2026-01-01T00:00:00Z","conditions":[{"type":"Suspended","status":"True","reason":"JobSuspended"}]"#,
    );
    let (_, _, status, _) = step(&resumed, &[]);
    let condition = &status.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_deref()),
        ("False", Some("JobResumed"))
    );
    let now: Timestamp = NOW.parse().unwrap();
    assert_eq!(status.start_time.map(|time| time.0), Some(now));
}

#[test]
fn a_pod_knows_its_index_and_how_often_it_failed() {
    let mut job = job(r#""completionMode":"Indexed","backoffLimitPerIndex":3"#, "");
    job.metadata.name = Some("j".repeat(63));
    let spec = job.spec.as_ref().unwrap();
    let failed = pods("a Failed index=12 failures=2");
    let place = Place {
        index: Some(12),
        after: failed.first().cloned(),
    };
    let pod = make_pod(&job, spec, &place);
    assert_eq!(
        pod.metadata.generate_name,
        Some(format!("{}-12-", "j".repeat(54)))
    );
    assert_eq!(
        (
            pod.labels()[INDEX].as_str(),
            pod.annotations()[INDEX].as_str()
        ),
        ("12", "12")
    );
    assert_eq!(pod.annotations()[FAILURES], "3");
    assert_eq!(pod.annotations().get(IGNORED), None);
    assert_eq!(pod.finalizers(), [TRACKED]);
    let spec = pod.spec.unwrap();
    assert_eq!(spec.hostname, Some(format!("{}-12", "j".repeat(63))));
    assert_eq!(
        spec.containers[0].env.as_ref().unwrap()[0].name,
        "JOB_COMPLETION_INDEX"
    );
}
