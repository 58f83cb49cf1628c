//! resourcequota-controller: recounts the usage of quotas when a quota changes or something it counts goes away.
//! Follows k8s.io/kubernetes/pkg/controller/resourcequota.
//!
//! Admission charges new objects; this handles what admission does not see. Only resources that some quota counts are
//! watched.

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
use crate::client::errors::{is_conflict, is_not_found, is_unsupported};
use crate::client::follow::{self, Told, Watches, record};
use crate::client::informer::{Informer, Key};
use crate::client::kinds::{CustomResourceDefinition, Pod};
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
        let same = |old: &Quota, new: &Quota| old.spec.hard == new.spec.hard && !new.is_uncounted();
        let both = change.old.zip(change.new);
        if !both.is_some_and(|(old, new)| same(old, new))
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

/// Counts the usage of one quota.
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
    for evaluator in Evaluator::for_names(hard.keys().map(String::as_str)) {
        let names = evaluator.names(hard.keys().map(String::as_str));
        let Some(items) = list(client, &evaluator, &key.namespace, &mut served).await? else {
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
        return Ok(Next::Done);
    }
    let api: Api<v1::ResourceQuota> = Api::namespaced(client.clone(), &key.namespace);
    let new = v1::ResourceQuota {
        metadata: quota.metadata.clone(),
        spec: Some(spec.clone()),
        status: Some(status),
    };
    match api
        .replace_status(&key.name, &PostParams::default(), &new)
        .await
    {
        Ok(written) => {
            quotas
                .reach(written.metadata.resource_version.as_deref())
                .await;
            Ok(Next::Done)
        }
        Err(error) if is_not_found(&error) => Ok(Next::Done),
        Err(error) if is_conflict(&error) => Ok(Next::Retry),
        Err(error) => Err(error),
    }
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
        let (pods, others): (Vec<_>, Vec<_>) = Evaluator::for_names(names)
            .into_iter()
            .partition(|evaluator| evaluator.group.is_empty() && evaluator.plural == "pods");
        if let Some(evaluator) = pods.into_iter().next().filter(|_| !pods_watched) {
            pods_watched = true;
            watch_pods(context, quotas, evaluator);
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

/// Watches pods, which count until they have terminated.
fn watch_pods(context: &Context, quotas: &Arc<Quotas>, evaluator: Evaluator) {
    let quotas = Arc::downgrade(quotas);
    context.informers.of::<Pod>().subscribe(move |change| {
        let ended = |pod: &Arc<Pod>| matches!(pod.phase(), "Succeeded" | "Failed");
        let frees = match (change.old, change.new) {
            (Some(_), None) => true,
            (Some(old), Some(new)) => ended(new) && !ended(old),
            _ => false,
        };
        if frees && let Some(quotas) = quotas.upgrade() {
            let own = quotas.cache.list(&change.key.namespace);
            quotas.add(own, &evaluator, SETTLE);
        }
    });
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
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::auth::User;
    use crate::client::Transport;
    use crate::client::informer::Informers;

    fn quotas(ends: &CancellationToken) -> Quotas {
        let transport = Transport::new(|_, _| std::future::pending());
        let client = transport.client(User::new("test", &[]), "test");
        Quotas {
            cache: Informers::new(client, ends.clone()).of::<Quota>(),
            queue: Queue::new(),
            costs: Mutex::default(),
        }
    }

    fn quota(name: &str, limits: &str) -> (Key, Arc<Quota>) {
        let text = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"hard":{{{limits}}}}}}}"#);
        let quota = serde_json::from_str(&text).expect("a quota");
        (Key::new("n", name), Arc::new(quota))
    }

    #[tokio::test(start_paused = true)]
    async fn quotas_that_count_a_resource_are_counted_the_later_the_more_that_costs() {
        let ends = CancellationToken::new();
        let quotas = quotas(&ends);
        let pods = Evaluator::for_names(["pods"]);
        let all = vec![
            quota("cheap", r#""pods":"1""#),
            quota("dear", r#""pods":"1""#),
            quota("other", r#""services":"1""#),
        ];
        let second = Duration::from_secs(1);
        quotas.costs.lock().insert(Key::new("n", "dear"), second);
        let begun = Instant::now();
        quotas.add(all, &pods[0], SETTLE);
        let mut counted = Vec::new();
        for _ in 0..2 {
            let key = quotas.queue.next().await;
            quotas.queue.done(&key);
            counted.push((key.name.to_string(), begun.elapsed()));
        }
        assert_eq!(
            counted,
            [
                ("cheap".to_owned(), SETTLE),
                ("dear".to_owned(), second * SETTLE_COSTS)
            ]
        );
        tokio::time::advance(COUNT_ALL).await;
        assert!(quotas.queue.next().now_or_never().is_none());
    }
}
