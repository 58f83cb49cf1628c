//! resourcequota-controller: recounts the usage of quotas when a quota changes or something it counts goes away.
//! Follows k8s.io/kubernetes/pkg/controller/resourcequota.
//!
//! Admission charges new objects; this handles what admission does not see. Only resources that some quota counts are
//! watched.

mod pods;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, PostParams};
use kube::discovery::ApiResource;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::quota::usage::Evaluator;
use crate::client::Context;
use crate::client::discovery::{self, Bare, Served};
use crate::client::errors::{FirstFailure, is_conflict, is_not_found, is_unsupported};
use crate::client::follow::{self, Told, Watches, record};
use crate::client::informer::{Change, Informer, Key};
use crate::client::kinds::CustomResourceDefinition;
use crate::client::queue::{Next, Queue};
use crate::meta::amounts::Amounts;
use crate::schema::{Value, json};

const WORKERS: usize = 5;
/// How long changes of counted objects are collected before a recount.
const SETTLE: Duration = Duration::from_millis(100);
/// And at least this many times the duration of the last count.
const SETTLE_COSTS: u32 = 5;
/// How long changes are collected that usually make no difference.
const SETTLE_UPDATES: Duration = Duration::from_secs(1);
/// The pause before a failed discovery is retried.
const AGAIN: Duration = Duration::from_secs(5);
/// How often everything is counted even if nothing changed: a pod on a lost node stops counting when its grace period is
/// over, and no event says so. Upstream's ResyncPeriod.
const COUNT_ALL: Duration = Duration::from_secs(5 * 60);

crate::slim!(
    /// A quota.
    Quota of v1::ResourceQuota {
        /// Its spec.
        spec: v1::ResourceQuotaSpec,
        /// Its status.
        status: v1::ResourceQuotaStatus,
    }
);

impl Quota {
    fn names(&self) -> impl Iterator<Item = &str> {
        let hard = self.spec.hard.iter().flatten();
        hard.map(|(name, _)| name.as_str())
    }

    /// Whether usage was not counted since the limits changed.
    fn is_uncounted(&self) -> bool {
        let used = self.status.used.as_ref();
        self.spec.hard != self.status.hard
            || self
                .names()
                .any(|name| used.is_none_or(|used| !used.contains_key(name)))
    }
}

/// Whether a change of a quota is of limits or scopes, or leaves it uncounted.
fn is_to_be_counted(change: &Change<'_, Quota>) -> bool {
    change.alters(|quota| &quota.spec) || change.new.is_some_and(|new| new.is_uncounted())
}

/// Runs the controller.
pub async fn run(context: Context) {
    let quotas = Arc::new(Quotas {
        cache: context.informers.of::<Quota>(),
        queue: Queue::new(),
        costs: Mutex::default(),
    });
    let changed = Arc::new(Notify::new());
    let (adds, wakes) = (Arc::downgrade(&quotas), changed.clone());
    quotas.cache.subscribe(move |change| {
        let names = |quota: Option<&Arc<Quota>>| -> Vec<String> {
            quota
                .iter()
                .flat_map(|quota| quota.names())
                .map(str::to_owned)
                .collect()
        };
        if names(change.old) != names(change.new) {
            wakes.notify_one();
        }
        if is_to_be_counted(&change)
            && let Some(quotas) = adds.upgrade()
        {
            quotas.queue.add(change.key.clone());
        }
    });
    let definitions = context.informers.of::<CustomResourceDefinition>();
    let wakes = changed.clone();
    definitions.subscribe(move |_| wakes.notify_one());
    context.synced().await;
    let look = |key: Key| {
        let (client, quotas) = (&context.client, &quotas);
        async move { quotas.look(client, &key).await }
    };
    let work = context.work(&quotas.queue, WORKERS, look);
    let all = count_all(&quotas, &context.ends);
    tokio::join!(work, watch(&context, &quotas, &changed), all);
}

/// Enqueues all quotas periodically, until `ends` is cancelled.
async fn count_all(quotas: &Quotas, ends: &CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(COUNT_ALL) => {}
            () = ends.cancelled() => return,
        }
        for (key, _) in quotas.cache.all() {
            quotas.queue.add(key);
        }
    }
}

/// Counts the usage of one quota. What cannot be counted keeps its old amount, if any.
async fn count(
    client: &kube::Client,
    quotas: &Informer<Quota>,
    key: &Key,
) -> Result<Next, kube::Error> {
    let Some(quota) = quotas.get(&key.namespace, &key.name) else {
        return Ok(Next::Done);
    };
    let (spec, had) = (&quota.spec, &quota.status);
    let hard = spec.hard.clone().unwrap_or_default();
    let scoped = scopes(spec);
    let mut used = had.used.clone().unwrap_or_default();
    used.retain(|name, _| hard.contains_key(name));
    let now = crate::meta::time::now();
    let mut served = None;
    let mut failed = FirstFailure::default();
    for evaluator in Evaluator::for_names(hard.keys().map(String::as_str)) {
        let names = evaluator.names(hard.keys().map(String::as_str));
        let listed = list(client, &evaluator, &key.namespace, &mut served).await;
        let Some(items) = failed.note(listed).flatten() else {
            continue;
        };
        let mut sum = Amounts::default();
        let counted = items
            .iter()
            .filter(|item| evaluator.in_scopes(&scoped, item));
        for item in counted {
            sum.add(&evaluator.usage(item, now));
        }
        for name in names {
            used.insert(name.to_owned(), Quantity(sum.get(name).to_string()));
        }
    }
    let status = v1::ResourceQuotaStatus {
        hard: Some(hard),
        used: Some(used),
    };
    if same(&status, had) {
        return failed.or(Next::Done);
    }
    let api: Api<v1::ResourceQuota> = Api::namespaced(client.clone(), &key.namespace);
    let new = v1::ResourceQuota {
        metadata: quota.metadata.clone(),
        spec: Some(spec.clone()),
        status: Some(status),
    };
    let written = api
        .replace_status(&key.name, &PostParams::default(), &new)
        .await;
    let next = match written {
        Ok(written) => {
            quotas
                .reach(written.metadata.resource_version.as_deref())
                .await;
            Next::Done
        }
        Err(error) if is_not_found(&error) => return Ok(Next::Done),
        Err(error) if is_conflict(&error) => Next::Retry,
        Err(error) => return Err(error),
    };
    failed.or(next)
}

/// Whether two statuses have equal quantities.
fn same(a: &v1::ResourceQuotaStatus, b: &v1::ResourceQuotaStatus) -> bool {
    let amounts = |list: &Option<BTreeMap<String, Quantity>>| {
        list.as_ref().map(|list| {
            let amounts = list.iter().map(|(name, amount)| {
                let amount = crate::meta::quantity::Quantity::parse(&amount.0);
                (name.clone(), amount.ok())
            });
            amounts.collect::<BTreeMap<_, _>>()
        })
    };
    a.hard == b.hard && amounts(&a.used) == amounts(&b.used)
}

/// A quota object that only has scopes.
fn scopes(spec: &v1::ResourceQuotaSpec) -> Value {
    let only = v1::ResourceQuota {
        spec: Some(v1::ResourceQuotaSpec {
            hard: None,
            ..spec.clone()
        }),
        ..v1::ResourceQuota::default()
    };
    let text = serde_json::to_vec(&only).unwrap_or_default();
    json::parse(&text)
        .map(|parsed| parsed.value)
        .unwrap_or_default()
}

/// The objects of a resource in a namespace; None if it is not served.
async fn list(
    client: &kube::Client,
    evaluator: &Evaluator,
    namespace: &str,
    served: &mut Option<Vec<Served>>,
) -> Result<Option<Vec<Value>>, kube::Error> {
    let (group, plural) = (&*evaluator.group, &*evaluator.plural);
    let path = if group.is_empty() {
        format!("/api/v1/namespaces/{namespace}/{plural}")
    } else {
        if served.is_none() {
            *served = Some(discovery::resources(client).await?);
        }
        let known = find(served.as_deref().unwrap_or_default(), evaluator);
        let Some(known) = known.filter(|known| known.namespaced) else {
            return Ok(None);
        };
        let version = &known.resource.api_version;
        format!("/apis/{version}/namespaces/{namespace}/{plural}")
    };
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    match client.request_text(request).await {
        Ok(text) => {
            let mut list = json::parse(text.as_bytes())
                .map(|parsed| parsed.value)
                .unwrap_or_default();
            Ok(match list.remove("items") {
                Some(Value::Array(items)) => Some(items),
                _ => Some(Vec::new()),
            })
        }
        Err(error) if is_unsupported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The quotas, and the queue of those to count.
struct Quotas {
    cache: Informer<Quota>,
    queue: Queue<Key>,
    /// The duration of the last count of each.
    costs: Mutex<HashMap<Key, Duration>>,
}

impl Quotas {
    /// Enqueues, after a delay, those of the quotas that count a resource.
    fn add(&self, quotas: Vec<(Key, Arc<Quota>)>, evaluator: &Evaluator, delay: Duration) {
        for (key, quota) in quotas {
            if !evaluator.names(quota.names()).is_empty() {
                let delay = self.settled(&key, delay);
                self.queue.add_after(key, delay);
            }
        }
    }

    /// How long changes are collected: longer if a count takes longer, so that many deletions one after the other do
    /// not cause constant counting.
    fn settled(&self, key: &Key, least: Duration) -> Duration {
        let cost = self.costs.lock().get(key).copied().unwrap_or_default();
        least.max(cost * SETTLE_COSTS)
    }

    async fn look(&self, client: &kube::Client, key: &Key) -> Result<Next, kube::Error> {
        let begun = Instant::now();
        let next = count(client, &self.cache, key).await;
        match self.cache.get(&key.namespace, &key.name) {
            Some(_) => self.costs.lock().insert(key.clone(), begun.elapsed()),
            None => self.costs.lock().remove(key),
        };
        next
    }
}

/// Watches every resource that some quota counts, including those defined later.
async fn watch(context: &Context, quotas: &Arc<Quotas>, changed: &Notify) {
    let mut tasks = Watches::default();
    let mut watched: HashMap<ApiResource, CancellationToken> = HashMap::new();
    let mut pods_watched = false;
    loop {
        let all = quotas.cache.all();
        let names = all.iter().flat_map(|(_, quota)| quota.names());
        let (of_pods, others): (Vec<_>, Vec<_>) = Evaluator::for_names(names)
            .into_iter()
            .partition(|evaluator| evaluator.group.is_empty() && evaluator.plural == "pods");
        if let Some(evaluator) = of_pods.into_iter().next().filter(|_| !pods_watched) {
            pods_watched = true;
            pods::watch(&context.informers.of(), quotas, evaluator);
        }
        let served = match others.is_empty() {
            true => Ok(Vec::new()),
            false => discovery::resources(&context.client).await,
        };
        let failed = served.is_err();
        match served {
            Ok(served) => {
                let wanted: Vec<(&Served, Evaluator)> = others
                    .into_iter()
                    .filter_map(|evaluator| Some((find(&served, &evaluator)?, evaluator)))
                    .filter(|(served, _)| served.can(&["list", "watch"]))
                    .collect();
                watched.retain(|resource, ends| {
                    let keep = wanted
                        .iter()
                        .any(|(served, _)| served.resource == *resource);
                    if !keep {
                        ends.cancel();
                    }
                    keep
                });
                for (served, evaluator) in wanted {
                    if watched.contains_key(&served.resource) {
                        continue;
                    }
                    let ends = context.ends.child_token();
                    watched.insert(served.resource.clone(), ends.clone());
                    let (client, served) = (context.client.clone(), served.clone());
                    let quotas = quotas.clone();
                    tasks.spawn(async move {
                        tokio::select! {
                            () = follow(&client, &served, &evaluator, &quotas) => {}
                            () = ends.cancelled() => {}
                        }
                    });
                }
            }
            Err(error) => tracing::warn!(%error, "discovery failed for quotas; retrying"),
        }
        let wait = async {
            if failed {
                tokio::time::sleep(AGAIN).await;
            } else {
                changed.notified().await;
                tokio::time::sleep(SETTLE).await;
            }
        };
        tokio::select! {
            () = wait => {}
            never = tasks.broken() => match never {},
            () = context.ends.cancelled() => break,
        }
    }
}

/// The counted resource, if it is served.
fn find<'a>(served: &'a [Served], evaluator: &Evaluator) -> Option<&'a Served> {
    served.iter().find(|served| {
        served.resource.group == evaluator.group && served.resource.plural == evaluator.plural
    })
}

/// Enqueues quotas when objects of a resource are deleted, and for some resources also when they change.
async fn follow(client: &kube::Client, served: &Served, evaluator: &Evaluator, quotas: &Quotas) {
    let events = follow::follow(served.api(client, ""), "");
    let change = evaluator.group.is_empty()
        && ["services", "persistentvolumeclaims"].contains(&evaluator.plural.as_str());
    let add = |object: Bare, delay| {
        let namespace = object.metadata.namespace.unwrap_or_default();
        quotas.add(quotas.cache.list(&namespace), evaluator, delay);
    };
    record(
        &served.resource.kind,
        events,
        |_| (),
        |told| match told {
            Told::There(object) if change => add(object, SETTLE_UPDATES),
            Told::Gone(object) => add(object, SETTLE),
            // Deletions during the interruption were not reported.
            Told::Only(_) => quotas.add(quotas.cache.all(), evaluator, SETTLE),
            Told::There(_) | Told::UpTo(_) => {}
        },
    )
    .await;
}

#[cfg(test)]
mod tests;
