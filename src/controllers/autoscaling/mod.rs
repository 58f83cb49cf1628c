//! horizontal-pod-autoscaler-controller: scales workloads to keep the usage of their pods at the target. Follows
//! k8s.io/kubernetes/pkg/controller/podautoscaler.
//!
//! Resource metrics come from `metrics.k8s.io`. Custom and external metrics are provided by aggregated API servers; as
//! these are not supported, such metrics fail like upstream's without such a server.

mod limits;
mod measure;
mod metrics;
mod sources;
mod status;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
    MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::PostParams;
use parking_lot::Mutex;

use self::limits::{Asked, History};
use self::sources::Measured;
use self::status::{ABLE, ACTIVE, LIMITED, ZERO, holds, set};
use super::pods::Pods;
use super::workload::write_status;
use crate::client::Context;
use crate::client::discovery::{self, Served};
use crate::client::errors::{is_conflict, text};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::queue::{Next, Queue};
use crate::meta::selector::Selector;

const WORKERS: usize = 5;
/// How often each autoscaler is synced.
const PERIOD: Duration = Duration::from_secs(15);
/// How long the result of discovery is cached.
const DISCOVERY: Duration = Duration::from_secs(30);
/// How often a scale is written that others change at the same time.
const ATTEMPTS: usize = 5;

impl Cached for HorizontalPodAutoscaler {}

struct Controller {
    context: Context,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Pods,
    recorder: Recorder,
    known: Mutex<BTreeMap<Key, Known>>,
    served: tokio::sync::Mutex<Option<(Instant, Arc<Vec<Served>>)>>,
}

/// The state of an autoscaler.
#[derive(Default)]
struct Known {
    history: History,
    /// The selector at the last sync.
    selector: Option<Selector>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Controller {
        autoscalers: context.informers.of::<HorizontalPodAutoscaler>(),
        pods: Pods::of(&context.informers),
        recorder: context.recorder("horizontal-pod-autoscaler"),
        known: Mutex::default(),
        served: tokio::sync::Mutex::default(),
        context,
    };
    let queue = Arc::new(Queue::new());
    controller.autoscalers.enqueue(&queue, |change| {
        let generation = |object: Option<&Arc<HorizontalPodAutoscaler>>| {
            object.map(|object| (object.uid(), object.metadata.generation))
        };
        // Its status is of no matter: it is looked at again in its time.
        (generation(change.old) != generation(change.new)).then(|| change.key.clone())
    });
    let look = |key: Key| controller.sync(key);
    controller.context.work(&queue, WORKERS, look).await;
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<Next, String> {
        let Some(autoscaler) = self.autoscalers.get(&key.namespace, &key.name) else {
            self.known.lock().remove(&key);
            return Ok(Next::Done);
        };
        let mut status = autoscaler.status.clone().unwrap_or_default();
        let done = self.reconcile(&key, &autoscaler, &mut status).await;
        if autoscaler.status.as_ref() != Some(&status)
            && let Err(error) = self.write(&autoscaler, status).await
        {
            let why = text(&error);
            self.warn(&autoscaler, "FailedUpdateStatus", why.clone());
            tracing::warn!(autoscaler = %key.name, error = why, "cannot update the status of an autoscaler");
        }
        if let Err(error) = done {
            tracing::debug!(namespace = %key.namespace, autoscaler = %key.name, error, "an autoscaler did not scale");
        }
        Ok(Next::After(PERIOD))
    }

    async fn write(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        status: HorizontalPodAutoscalerStatus,
    ) -> Result<(), kube::Error> {
        let (client, cache) = (&self.context.client, &self.autoscalers);
        let with = |object: &HorizontalPodAutoscaler| HorizontalPodAutoscaler {
            status: Some(status.clone()),
            ..object.clone()
        };
        write_status(client, cache, autoscaler, with).await
    }

    fn warn(&self, about: &HorizontalPodAutoscaler, reason: &str, message: String) {
        self.recorder.tell(about, Tone::Warning, reason, message);
    }

    async fn reconcile(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> Result<(), String> {
        let spec = &autoscaler.spec;
        let (served, scale) = match self.scale(&key.namespace, spec).await {
            Ok(found) => found,
            Err(why) => {
                self.warn(autoscaler, "FailedGetScale", why.clone());
                let message = format!(
                    "the HPA controller was unable to get the target's current scale: {why}"
                );
                set(status, ABLE, false, "FailedGetScale", message);
                return Err(why);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        set(status, ABLE, true, "SucceededGetScale", message.to_owned());
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas);
        let current = current.unwrap_or(0);
        let min = spec.min_replicas.unwrap_or(1);
        self.history(key, |history| history.begin(current, Instant::now()));
        let of_objects = of_objects(spec);
        let emptied = holds(status, ZERO);
        let mut outcome = Ok(());
        let mut list = Vec::new();
        let (desired, why) = if current == 0 && !(emptied && (min != 0 || of_objects)) {
            let message = "scaling is disabled since the replica count of the target is zero";
            set(status, ACTIVE, false, "ScalingDisabled", message.to_owned());
            (0, String::new())
        } else if current != 0 && current > spec.max_replicas {
            let why = "Current number of replicas above Spec.MaxReplicas";
            (spec.max_replicas, why.to_owned())
        } else if current != 0 && current < min {
            let why = "Current number of replicas below Spec.MinReplicas";
            (min, why.to_owned())
        } else {
            let measured = self
                .measure(key, autoscaler, &scale, status, &mut list)
                .await;
            let measured = match measured {
                Ok((measured, failed)) => {
                    outcome = failed.map_or(Ok(()), Err);
                    measured
                }
                Err(error) => {
                    note(status, autoscaler, current, list);
                    self.warn(autoscaler, "FailedComputeMetricsReplicas", error.clone());
                    return Err(error);
                }
            };
            self.settle(key, spec, current, measured, emptied, status)
        };

        let rescale = desired != current;
        if rescale {
            let namespace = &key.namespace;
            if let Err(error) = self.rescale(&served, namespace, scale, desired).await {
                let error = text(&error);
                let message = format!("New size: {desired}; reason: {why}; error: {error}");
                self.warn(autoscaler, "FailedRescale", message);
                let message =
                    format!("the HPA controller was unable to update the target scale: {error}");
                set(status, ABLE, false, "FailedUpdateScale", message);
                note(status, autoscaler, current, list);
                return Err(error);
            }
            let message =
                format!("the HPA controller was able to update the target scale to {desired}");
            set(status, ABLE, true, "SucceededRescale", message);
            let message = format!("New size: {desired}; reason: {why}");
            self.recorder
                .tell(autoscaler, Tone::Normal, "SuccessfulRescale", message);
            if spec.behavior.is_some() {
                self.history(key, |history| {
                    history.scaled(current, desired, Instant::now())
                });
            }
            if current > 0 && desired == 0 && min == 0 && of_objects {
                let message = "the HPA controller scaled the workload to zero";
                set(status, ZERO, true, "ScaledToZero", message.to_owned());
            } else {
                let message = "the HPA controller did not scale the workload to zero";
                set(status, ZERO, false, "NotScaledToZero", message.to_owned());
            }
            status.last_scale_time = Some(Time(Timestamp::now()));
        }
        status.desired_replicas = desired;
        note(status, autoscaler, current, list);
        outcome
    }

    fn history<T>(&self, key: &Key, with: impl FnOnce(&mut History) -> T) -> T {
        let mut known = self.known.lock();
        with(&mut known.entry(key.clone()).or_default().history)
    }

    /// The resource that an autoscaler scales, and its scale.
    async fn scale(
        &self,
        namespace: &str,
        spec: &HorizontalPodAutoscalerSpec,
    ) -> Result<(Served, Scale), String> {
        let target = &spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or_default();
        let group = match version.split('/').collect::<Vec<_>>()[..] {
            [_] => "",
            [group, _] => group,
            _ => return Err(format!("unexpected GroupVersion string: {version}")),
        };
        let all = self.served().await.map_err(|error| text(&error))?;
        let fitting = all
            .iter()
            .filter(|served| served.resource.group == group && served.resource.kind == target.kind);
        let mut first = None;
        for served in fitting {
            let api = served.api(&self.context.client, namespace);
            match api.get_scale(&target.name).await {
                Ok(scale) => return Ok((served.clone(), scale)),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        Err(match first {
            Some(error) => text(&error),
            None => format!("no matches for kind {:?} in group {group:?}", target.kind),
        })
    }

    /// The resources that the API serves, cached for a while.
    async fn served(&self) -> Result<Arc<Vec<Served>>, kube::Error> {
        let mut known = self.served.lock().await;
        if let Some((at, served)) = known.as_ref()
            && at.elapsed() < DISCOVERY
        {
            return Ok(served.clone());
        }
        let served = Arc::new(discovery::all(&self.context.client).await?);
        *known = Some((Instant::now(), served.clone()));
        Ok(served)
    }

    /// Writes a scale; after a conflict, writes it again onto the new version.
    async fn rescale(
        &self,
        served: &Served,
        namespace: &str,
        mut scale: Scale,
        desired: i32,
    ) -> Result<(), kube::Error> {
        let api = served.api(&self.context.client, namespace);
        let name = scale.name_any();
        let mut left = ATTEMPTS;
        loop {
            scale.spec.get_or_insert_default().replicas = Some(desired);
            left -= 1;
            match api
                .replace_scale(&name, &PostParams::default(), &scale)
                .await
            {
                Err(error) if is_conflict(&error) && left > 0 => {
                    scale = api.get_scale(&name).await?;
                }
                other => return other.map(|_| ()),
            }
        }
    }

    /// Limits the number of replicas that metrics ask for. Returns it and the reason for the limit.
    fn settle(
        &self,
        key: &Key,
        spec: &HorizontalPodAutoscalerSpec,
        current: i32,
        measured: Measured,
        emptied: bool,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> (i32, String) {
        let (wanted, min) = (measured.replicas.max(0), spec.min_replicas.unwrap_or(1));
        let mut why = match wanted.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{} above target", measured.by),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let asked = Asked {
            current,
            desired: wanted,
            min,
            max: spec.max_replicas,
        };
        let behavior = spec.behavior.as_ref();
        let verdict = self.history(key, |history| {
            history.judge(asked, behavior, Instant::now())
        });
        let (reason, message) = verdict.able;
        set(status, ABLE, true, reason, message.to_owned());
        let (reason, message) = verdict.limited;
        set(
            status,
            LIMITED,
            verdict.is_limited,
            reason,
            message.to_owned(),
        );
        let mut desired = verdict.replicas;
        if current == 0 && emptied && desired < min {
            desired = min;
            if why.is_empty() {
                "Current number of replicas below Spec.MinReplicas".clone_into(&mut why);
            }
        }
        (desired, why)
    }
}

/// Notes what the autoscaler saw: the number of replicas, and the metrics that could be read.
fn note(
    status: &mut HorizontalPodAutoscalerStatus,
    autoscaler: &HorizontalPodAutoscaler,
    current: i32,
    list: Vec<MetricStatus>,
) {
    status.current_replicas = Some(current);
    status.current_metrics = (!list.is_empty()).then_some(list);
    status.observed_generation = autoscaler.metadata.generation;
}

/// Whether an autoscaler has a metric that needs no pods.
fn of_objects(spec: &HorizontalPodAutoscalerSpec) -> bool {
    let mut metrics = spec.metrics.iter().flatten();
    metrics.any(|metric| matches!(metric.type_.as_str(), "Object" | "External"))
}
