//! Decides what a cron job does next, from its spec, its jobs and the time. Follows
//! k8s.io/kubernetes/pkg/controller/cronjob (cronjob_controllerv2, utils).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use kube::ResourceExt as _;

use crate::client::events::Tone;
use crate::client::owners::controller_reference;
use crate::controllers::jobs::end_of;
use crate::meta::cron::{self, Schedule};

/// How many milliseconds after the scheduled time to look, because clocks are not exact.
const LATE: i64 = 100;
/// The number of missed times that causes a warning.
const MANY: i64 = 100;
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The input of a decision.
pub(super) struct Facts<'a> {
    pub cron: &'a CronJob,
    /// The jobs that it created.
    pub jobs: &'a [Arc<Job>],
    /// Jobs that its status lists as active but that no longer exist, by uid.
    pub missing: &'a HashSet<String>,
    /// The time zone of schedules without one.
    pub local: &'a TimeZone,
    pub now: Timestamp,
}

/// What to do, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Finished jobs beyond the history limits, to delete.
    pub forget: Vec<Arc<Job>>,
    /// Events to record.
    pub events: Vec<(Tone, &'static str, String)>,
    /// Active jobs to delete because the next one replaces them.
    pub replace: Vec<ObjectReference>,
    /// The job to create, and its scheduled time.
    pub create: Option<(Job, Timestamp)>,
    /// The status before that job is created.
    pub status: CronJobStatus,
    /// In how many milliseconds to look again.
    pub again: Option<i64>,
}

/// How a finished job ended: `Complete` or `Failed`.
fn end(job: &Job) -> Option<&str> {
    end_of(job).map(|end| end.type_.as_str())
}

/// Decides.
pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let mut plan = Plan {
        status: facts.cron.status.clone().unwrap_or_default(),
        ..Plan::default()
    };
    plan.forget_old(facts);
    plan.look_at_jobs(facts);
    if facts.cron.metadata.deletion_timestamp.is_none() {
        plan.look_at_the_clock(facts);
    }
    plan
}

impl Plan {
    fn forget_old(&mut self, facts: &Facts<'_>) {
        let spec = &facts.cron.spec;
        for (kind, limit) in [
            ("Complete", spec.successful_jobs_history_limit),
            ("Failed", spec.failed_jobs_history_limit),
        ] {
            let Some(limit) = limit else { continue };
            let mut ended: Vec<&Arc<Job>> = facts
                .jobs
                .iter()
                .filter(|job| end(job) == Some(kind))
                .collect();
            ended.sort_by_cached_key(|job| {
                let start = job
                    .status
                    .as_ref()
                    .and_then(|status| status.start_time.as_ref());
                let start = start.map(|time| time.0);
                (start.is_none(), start, job.name_any())
            });
            let surplus = ended
                .len()
                .saturating_sub(usize::try_from(limit).unwrap_or(0));
            self.forget.extend(ended.into_iter().take(surplus).cloned());
        }
    }

    fn tell(&mut self, tone: Tone, reason: &'static str, message: String) {
        self.events.push((tone, reason, message));
    }

    /// Removes ended and missing jobs from the active ones.
    fn look_at_jobs(&mut self, facts: &Facts<'_>) {
        let mut active = self.status.active.take().unwrap_or_default();
        for job in facts.jobs {
            let listed = active
                .iter()
                .position(|known| known.uid == job.metadata.uid);
            let forgotten = self.forget.iter().any(|other| Arc::ptr_eq(other, job));
            match (end(job), listed) {
                (None, None) => {
                    let message = format!(
                        "Saw a job that the controller did not create or forgot: {}",
                        job.name_any()
                    );
                    self.tell(Tone::Warning, "UnexpectedJob", message);
                }
                (Some(end), Some(at)) => {
                    active.remove(at);
                    if !forgotten {
                        let message =
                            format!("Saw completed job: {}, condition: {end}", job.name_any());
                        self.tell(Tone::Normal, "SawCompletedJob", message);
                    }
                }
                _ => {}
            }
            if end(job) == Some("Complete") {
                let done = job
                    .status
                    .as_ref()
                    .and_then(|status| status.completion_time.clone());
                let known = self.status.last_successful_time.as_ref();
                if done.as_ref().map(|time| time.0) > known.map(|time| time.0) {
                    self.status.last_successful_time = done;
                }
            }
        }
        active.retain(|known| {
            let gone = known
                .uid
                .as_ref()
                .is_some_and(|uid| facts.missing.contains(uid));
            if gone {
                let name = known.name.clone().unwrap_or_default();
                let message = format!("Active job went missing: {name}");
                self.events.push((Tone::Normal, "MissingJob", message));
            }
            !gone
        });
        self.status.active = (!active.is_empty()).then_some(active);
    }

    fn look_at_the_clock(&mut self, facts: &Facts<'_>) {
        let (cron, now) = (facts.cron, facts.now);
        let spec = &cron.spec;
        let zone = match &spec.time_zone {
            None => facts.local.clone(),
            Some(name) => match cron::time_zone(name) {
                Ok(zone) => zone,
                Err(why) => {
                    let message = format!("invalid timeZone: {name:?}: {why}");
                    return self.tell(Tone::Warning, "UnknownTimeZone", message);
                }
            },
        };
        if spec.suspend == Some(true) {
            return;
        }
        let schedule = match cron::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => {
                let message = format!("unparseable schedule: {:?} : {why}", spec.schedule);
                return self.tell(Tone::Warning, "UnparseableSchedule", message);
            }
        };
        let clock = Clock {
            cron,
            schedule: &schedule,
            zone: &zone,
            now,
        };
        self.again = clock.wait();
        let due = clock.due(true);
        if due.missed > MANY && due.latest.is_some() {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(Tone::Warning, "TooManyMissedTimes", message.to_owned());
        }
        let Some(at) = due.latest else { return };
        let deadline = spec.starting_deadline_seconds;
        if deadline.is_some_and(|seconds| at.as_second().saturating_add(seconds) < now.as_second())
        {
            let when = at
                .to_zoned(TimeZone::UTC)
                .strftime("%a, %d %b %Y %H:%M:%S %z");
            let message = format!("Missed scheduled time to start a job: {when}");
            return self.tell(Tone::Warning, "MissSchedule", message);
        }
        let name = format!("{}-{}", cron.name_any(), at.as_second().div_euclid(60));
        let active = self.status.active.clone().unwrap_or_default();
        let last = self.status.last_schedule_time.as_ref().map(|time| time.0);
        if active
            .iter()
            .any(|known| known.name.as_ref() == Some(&name))
            || last == Some(at)
        {
            return;
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.tell(Tone::Normal, "JobAlreadyActive", message.to_owned());
            }
            Some("Replace") => self.replace = active,
            _ => {}
        }
        self.create = Some((make_job(cron, name, at, &zone), at));
    }
}

/// The job for a scheduled time.
fn make_job(cron: &CronJob, name: String, at: Timestamp, zone: &TimeZone) -> Job {
    let template = &cron.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations: BTreeMap<String, String> = meta.annotations.unwrap_or_default();
    let there = at.to_zoned(zone.clone());
    let when = match there.offset().seconds() {
        0 => there.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => there.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    annotations.insert(SCHEDULED.to_owned(), when);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Computes which scheduled times are due.
struct Clock<'a> {
    cron: &'a CronJob,
    schedule: &'a Schedule,
    zone: &'a TimeZone,
    now: Timestamp,
}

/// The scheduled times since the last job.
struct Due {
    /// The time after which they count.
    since: Timestamp,
    /// The latest of them.
    latest: Option<Timestamp>,
    /// About how many there were.
    missed: i64,
}

impl Clock<'_> {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, self.zone)
    }

    /// The due times; with `deadline` only those that may still be started.
    fn due(&self, deadline: bool) -> Due {
        let (cron, now) = (self.cron, self.now);
        let time = |time: Option<&Time>| time.map(|time| time.0);
        let status = cron.status.as_ref();
        let last = time(status.and_then(|status| status.last_schedule_time.as_ref()));
        let created = time(cron.metadata.creation_timestamp.as_ref());
        let mut since = last.or(created).unwrap_or(now);
        if let Some(seconds) = cron.spec.starting_deadline_seconds.filter(|_| deadline)
            && let Some(earliest) = now.as_second().checked_sub(seconds)
            && let Ok(earliest) = Timestamp::from_second(earliest)
        {
            since = since.max(earliest);
        }
        let none = Due {
            since,
            latest: None,
            missed: 0,
        };
        let Some(first) = self.next(since).filter(|first| *first <= now) else {
            return none;
        };
        let one = Due {
            latest: Some(first),
            missed: 0,
            ..none
        };
        let Some(second) = self.next(first).filter(|second| *second <= now) else {
            return one;
        };
        // If the start is long ago, the number of times is estimated from the interval.
        let step = (second.as_second() - first.as_second()).max(1);
        let missed = (now.as_second() - first.as_second()) / step + 1;
        let near = first.as_second() + (missed - 2) * step;
        let mut latest = None;
        let mut at = Timestamp::from_second(near).ok();
        while let Some(next) = at.and_then(|at| self.next(at)).filter(|next| *next <= now) {
            latest = Some(next);
            at = Some(next);
        }
        Due {
            since,
            latest,
            missed,
        }
    }

    /// In how many milliseconds the next scheduled time is.
    fn wait(&self) -> Option<i64> {
        let due = self.due(false);
        let from = match due.latest {
            Some(latest) => latest,
            None if due.missed == 0 => due.since,
            None => self.now,
        };
        let next = self.next(from)?;
        Some((next.as_millisecond() + LATE - self.now.as_millisecond()).max(0))
    }
}
