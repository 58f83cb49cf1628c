//! Pure functions that compute the number of replicas from the usage of pods and its target. Follows
//! k8s.io/kubernetes/pkg/controller/podautoscaler/replica_calculator.go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::jiff::Timestamp;

use crate::client::kinds::Pod;
use crate::meta::quantity::Quantity;

/// How long after its start the CPU usage of a pod is ignored unless it is ready.
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that became unready this soon after its start was never ready.
const INITIAL_READINESS: Duration = Duration::from_secs(30);
/// How far a ratio may differ from 1 before the autoscaler acts.
const TOLERANCE: f64 = 0.1;

/// The measured usage of a pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// In thousandths.
    pub value: i64,
    /// The end of the window.
    pub at: Timestamp,
    /// The window over which it was measured.
    pub window: Duration,
}

/// Samples by pod name.
pub type Samples = BTreeMap<String, Sample>;

/// Which ratios of usage and target are close enough to 1.
#[derive(Clone, Copy, Debug)]
pub struct Tolerances {
    /// How far below 1.
    pub down: f64,
    /// How far above 1.
    pub up: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Tolerances {
            down: TOLERANCE,
            up: TOLERANCE,
        }
    }
}

impl Tolerances {
    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The target usage of pods.
#[derive(Debug)]
pub enum Goal {
    /// A percentage of their requests, which are given by pod, in thousandths.
    Utilization(i32, BTreeMap<String, i64>),
    /// An average per pod, in thousandths.
    Average(i64),
}

/// The current usage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// Relative to the target.
    ratio: f64,
    /// In percent of requests; None if the target is not a percentage.
    pub utilization: Option<i32>,
    /// The average per pod, in thousandths.
    pub average: i64,
}

impl Goal {
    fn used(&self, samples: &Samples) -> Result<Used, String> {
        match self {
            Goal::Average(goal) => {
                let total: i64 = samples.values().map(|sample| sample.value).sum();
                let average = total / i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
                Ok(Used {
                    ratio: average as f64 / *goal as f64,
                    utilization: None,
                    average,
                })
            }
            Goal::Utilization(goal, requests) => {
                let known = samples
                    .iter()
                    .filter_map(|(pod, sample)| Some((sample.value, *requests.get(pod)?)));
                let (count, used, requested) =
                    known.fold((0, 0, 0), |(count, used, requested), (value, request)| {
                        (count + 1, used + value, requested + request)
                    });
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
                Ok(Used {
                    ratio: f64::from(utilization) / f64::from(*goal),
                    utilization: Some(utilization),
                    average: used / count,
                })
            }
        }
    }

    /// The assumed usage of a pod without a sample when scaling down.
    fn full(&self, pod: &str) -> i64 {
        match self {
            Goal::Average(goal) => *goal,
            Goal::Utilization(goal, requests) => {
                let request = requests.get(pod).copied().unwrap_or(0);
                request * i64::from((*goal).max(100)) / 100
            }
        }
    }
}

/// Pods, grouped by what their samples show.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted<'p> {
    ready: usize,
    unready: Vec<&'p str>,
    missing: Vec<&'p str>,
    ignored: Vec<&'p str>,
}

fn sort<'p>(pods: &'p [Arc<Pod>], samples: &Samples, is_cpu: bool, now: Timestamp) -> Sorted<'p> {
    let mut sorted = Sorted::default();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let place = if pod.is_deleting() || pod.phase() == "Failed" {
            &mut sorted.ignored
        } else if pod.phase() == "Pending" {
            &mut sorted.unready
        } else {
            match samples.get(name) {
                None => &mut sorted.missing,
                Some(sample) if is_cpu && !tells(pod, sample, now) => &mut sorted.unready,
                Some(_) => {
                    sorted.ready += 1;
                    continue;
                }
            }
        };
        place.push(name);
    }
    sorted
}

/// Whether a pod's measured CPU usage is representative.
fn tells(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let mut conditions = pod.status.conditions.iter();
    let ready = conditions.find(|condition| condition.type_ == "Ready");
    let (Some(ready), Some(start)) = (ready, pod.status.start_time.as_ref()) else {
        return false;
    };
    let changed = ready
        .last_transition_time
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let is_unready = ready.status == "False";
    let after =
        |time: Timestamp, length: Duration| time.checked_add(length).unwrap_or(Timestamp::MAX);
    if after(start.0, CPU_INITIALIZATION) > now {
        !is_unready && sample.at >= after(changed, sample.window)
    } else {
        !(is_unready && after(start.0, INITIAL_READINESS) > changed)
    }
}

/// The number of replicas, of currently `current`, with which pods would have the target usage; and the current usage.
///
/// # Errors
/// Why it cannot be computed, in upstream's words.
pub fn replicas(
    current: i32,
    goal: &Goal,
    mut samples: Samples,
    pods: &[Arc<Pod>],
    is_cpu: bool,
    tolerances: Tolerances,
    now: Timestamp,
) -> Result<(i32, Used), String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let sorted = sort(pods, &samples, is_cpu, now);
    for name in sorted.ignored.iter().chain(&sorted.unready) {
        samples.remove(*name);
    }
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let used = goal.used(&samples)?;
    let grows = used.ratio > 1.0;
    let counts_unready = grows && !sorted.unready.is_empty();
    if !counts_unready && sorted.missing.is_empty() {
        let wanted = match tolerances.holds(used.ratio) {
            true => current,
            false => whole(used.ratio * sorted.ready as f64),
        };
        return Ok((wanted, used));
    }
    // Missing samples are assumed to be such that the change is smaller.
    let mut assume = |pod: &str, value: i64| {
        let sample = Sample {
            value,
            at: now,
            window: Duration::ZERO,
        };
        samples.insert(pod.to_owned(), sample);
    };
    if used.ratio != 1.0 {
        for pod in &sorted.missing {
            assume(pod, if grows { 0 } else { goal.full(pod) });
        }
    }
    if counts_unready {
        for pod in &sorted.unready {
            assume(pod, 0);
        }
    }
    let ratio = goal.used(&samples)?.ratio;
    let turns = (used.ratio < 1.0 && ratio > 1.0) || (grows && ratio < 1.0);
    if tolerances.holds(ratio) || turns {
        return Ok((current, used));
    }
    let wanted = whole(ratio * samples.len() as f64);
    let turns = (ratio < 1.0 && wanted > current) || (ratio > 1.0 && wanted < current);
    Ok((if turns { current } else { wanted }, used))
}

/// Rounds up and saturates.
fn whole(number: f64) -> i32 {
    number.ceil() as i32
}

/// The request of each pod for a resource, in thousandths, or that of one of its containers.
///
/// # Errors
/// A pod requests nothing of it: upstream's words.
pub fn requests(
    pods: &[Arc<Pod>],
    container: Option<&str>,
    resource: &str,
) -> Result<BTreeMap<String, i64>, String> {
    let of = |pod: &Arc<Pod>| {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let request = request(pod, &name, container, resource)?;
        Ok((name, request))
    };
    pods.iter().map(of).collect()
}

fn request(pod: &Pod, name: &str, container: Option<&str>, resource: &str) -> Result<i64, String> {
    let of_pod = pod.spec.resources.as_deref();
    if container.is_none()
        && let Some(resources) = of_pod
        && resources
            .requests
            .as_ref()
            .is_some_and(|all| !all.is_empty())
        && let Some(request) = requested(Some(resources), resource)
    {
        return Ok(request);
    }
    let restarted = pod
        .spec
        .init_containers
        .iter()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut total = 0;
    let mut found = false;
    for one in pod.spec.containers.iter().chain(restarted) {
        if container.is_some_and(|container| container != one.name) {
            continue;
        }
        found = true;
        total += requested(one.resources.as_ref(), resource).ok_or_else(|| {
            format!(
                "missing request for {resource} in container {} of Pod {name}",
                one.name
            )
        })?;
    }
    match container {
        Some(container) if !found => Err(format!("container {container} not found in Pod {name}")),
        _ => Ok(total),
    }
}

fn requested(resources: Option<&ResourceRequirements>, resource: &str) -> Option<i64> {
    let request = resources?.requests.as_ref()?.get(resource)?;
    Some(Quantity::parse(&request.0).ok()?.milli_value())
}

#[cfg(test)]
mod tests;
