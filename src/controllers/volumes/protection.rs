//! Protects volumes, claims and attributes classes in use from deletion: persistentvolumeclaim-protection-,
//! persistentvolume-protection- and volumeattributesclass-protection-controller. Follows
//! k8s.io/kubernetes/pkg/controller/volume/{pvc,pv,vac}protection.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::OnceCell;

use super::plan::{self, is_made_for};
use crate::client::Context;
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::{Claim, Pod};
use crate::client::queue::{Next, Queue};
use crate::controllers::pods::{Pods, claims_of};
use crate::controllers::workload::{queue_of, written};

const UNUSED: &str = "Unused";

impl Cached for VolumeAttributesClass {}

/// The object with the finalizer added if it is missing, or removed if it is being deleted and not `used`. `None` if
/// nothing has to change.
fn protected<K: kube::Resource + Clone>(object: &K, finalizer: &str, used: bool) -> Option<K> {
    let ends = object.meta().deletion_timestamp.is_some();
    let held = object.finalizers().iter().any(|held| held == finalizer);
    let mut new = object.clone();
    match (ends, held) {
        (false, false) => new.finalizers_mut().push(finalizer.to_owned()),
        (true, true) if !used => new.finalizers_mut().retain(|held| held != finalizer),
        _ => return None,
    }
    Some(new)
}

/// Runs persistentvolume-protection-controller.
pub async fn volumes(context: Context) {
    let volumes: Informer<PersistentVolume> = context.informers.of();
    let queue = queue_of(&volumes);
    let is_used = |volume: &PersistentVolume| plan::phase(volume) == "Bound";
    protect(
        &context,
        &volumes,
        &queue,
        "kubernetes.io/pv-protection",
        is_used,
    )
    .await;
}

/// Runs volumeattributesclass-protection-controller.
pub async fn attributes(context: Context) {
    let classes: Informer<VolumeAttributesClass> = context.informers.of();
    let volumes: Informer<PersistentVolume> = context.informers.of();
    let claims: Informer<Claim> = context.informers.of();
    let queue = queue_of(&classes);
    volumes.enqueue(&queue, |change| {
        let name = volume_attributes(change.old?)?;
        Some(Key::new("", name))
    });
    claims.enqueue(&queue, |change| -> Vec<Key> {
        let names = change.old.into_iter().flat_map(|old| claim_attributes(old));
        names.map(|name| Key::new("", name)).collect()
    });
    let is_used = |class: &VolumeAttributesClass| {
        let name = class.name_any();
        let volumes = volumes.all();
        let mut by_volumes = volumes
            .iter()
            .filter_map(|(_, volume)| volume_attributes(volume));
        let claims = claims.all();
        let mut by_claims = claims.iter().flat_map(|(_, claim)| claim_attributes(claim));
        by_volumes.any(|used| used == name) || by_claims.any(|used| used == name)
    };
    protect(
        &context,
        &classes,
        &queue,
        "kubernetes.io/vac-protection",
        is_used,
    )
    .await;
}

fn volume_attributes(volume: &PersistentVolume) -> Option<&str> {
    volume
        .spec
        .as_ref()?
        .volume_attributes_class_name
        .as_deref()
}

fn claim_attributes(claim: &Claim) -> impl Iterator<Item = &str> {
    let (spec, status) = (&claim.spec, &claim.status);
    let modified = status.modify_volume_status.as_ref();
    [
        spec.volume_attributes_class_name.as_deref(),
        status.current_volume_attributes_class_name.as_deref(),
        modified.and_then(|modified| modified.target_volume_attributes_class_name.as_deref()),
    ]
    .into_iter()
    .flatten()
}

/// Adds a finalizer to objects of a kind, and removes it from deleted objects that nobody uses.
async fn protect<K>(
    context: &Context,
    cache: &Informer<K>,
    queue: &Queue<Key>,
    finalizer: &str,
    is_used: impl Fn(&K) -> bool + Sync,
) where
    K: Cached + Serialize + kube::Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let api: Api<K> = Api::all(context.client.clone());
    let look = |key: Key| {
        let found = cache.get("", &key.name);
        let new = found.and_then(|found| protected(&*found, finalizer, is_used(&found)));
        let api = &api;
        async move {
            match new {
                None => Ok(Next::Done),
                Some(new) => written(api.replace(&key.name, &PostParams::default(), &new).await),
            }
        }
    };
    context.work(queue, 1, look).await;
}

/// Claims to look at. Those of a namespace are handled together, so that its pods are read once for all of them.
#[derive(Default)]
struct Waiting {
    claims: Mutex<HashMap<CompactString, BTreeSet<CompactString>>>,
    namespaces: Queue<CompactString>,
}

impl Waiting {
    fn add(&self, namespace: &CompactString, name: &str) {
        self.put(namespace, name.into());
        self.namespaces.add(namespace.clone());
    }

    fn put(&self, namespace: &CompactString, name: CompactString) {
        let mut claims = self.claims.lock();
        claims.entry(namespace.clone()).or_default().insert(name);
    }

    fn take(&self, namespace: &CompactString) -> BTreeSet<CompactString> {
        self.claims.lock().remove(namespace).unwrap_or_default()
    }
}

/// The pods of a namespace as read from the API, by the claims that they use.
type Live = HashMap<String, Vec<Arc<Pod>>>;

struct Claims {
    client: kube::Client,
    cache: Informer<Claim>,
    pods: Pods,
    waiting: Waiting,
}

/// Runs persistentvolumeclaim-protection-controller.
pub async fn claims(context: Context) {
    let claims = Arc::new(Claims {
        client: context.client.clone(),
        cache: context.informers.of(),
        pods: Pods::of(&context.informers),
        waiting: Waiting::default(),
    });
    claims.listen();
    let look = |namespace: CompactString| claims.look(namespace);
    let namespaces = &claims.waiting.namespaces;
    context.work(namespaces, 1, look).await;
}

impl Claims {
    /// Adds each claim that changes, and the claims of each pod that begins or ceases to use them.
    fn listen(self: &Arc<Self>) {
        let adds = Arc::downgrade(self);
        self.cache.subscribe(move |change| {
            if let Some(claims) = adds.upgrade() {
                claims.waiting.add(&change.key.namespace, &change.key.name);
            }
        });
        let adds = Arc::downgrade(self);
        self.pods.cache.subscribe(move |change| {
            let Some(claims) = adds.upgrade().filter(|_| change.alters(User::of)) else {
                return;
            };
            for pod in change.old.into_iter().chain(change.new) {
                for (name, _) in claims_of(pod) {
                    claims.waiting.add(&change.key.namespace, &name);
                }
            }
        });
    }

    /// Looks at the waiting claims of a namespace.
    async fn look(&self, namespace: CompactString) -> Result<Next, Infallible> {
        let live = OnceCell::new();
        let mut next = Next::Done;
        for name in self.waiting.take(&namespace) {
            match self.look_at(&Key::new(&namespace, &name), &live).await {
                Ok(Next::Done) => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%namespace, %name, %error, "cannot update a claim; retrying");
                }
            }
            self.waiting.put(&namespace, name);
            next = Next::Retry;
        }
        Ok(next)
    }

    async fn look_at(&self, key: &Key, live: &OnceCell<Live>) -> Result<Next, kube::Error> {
        const FINALIZER: &str = "kubernetes.io/pvc-protection";
        let Some(claim) = self.cache.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let users = self.pods.users(key);
        let params = PostParams::default();
        let ends = claim.metadata.deletion_timestamp.is_some();
        if !ends {
            let used = users.iter().any(|pod| refers(pod, &claim));
            if let Some(new) = unused(&claim, used, Timestamp::now()) {
                return written(api.replace_status(&key.name, &params, &new).await);
            }
        }
        let used = users.iter().any(|pod| holds(pod, &claim));
        let Some(new) = protected(&*claim, FINALIZER, used) else {
            return Ok(Next::Done);
        };
        if ends {
            // The cache may be behind, and a deletion cannot be undone.
            let live = live.get_or_try_init(|| self.live(&key.namespace)).await?;
            let mut users = live.get(key.name.as_str()).into_iter().flatten();
            if users.any(|pod| holds(pod, &claim)) {
                return Ok(Next::Done);
            }
        }
        written(api.replace(&key.name, &params, &plan::full(&new)).await)
    }

    async fn live(&self, namespace: &str) -> Result<Live, kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut live = Live::new();
        for pod in api.list(&ListParams::default()).await?.items {
            let pod = Arc::new(pod);
            for (claim, _) in claims_of(&pod) {
                live.entry(claim).or_default().push(pod.clone());
            }
        }
        Ok(live)
    }
}

/// What decides whether a pod uses its claims; the claims of a pod never change.
#[derive(PartialEq)]
struct User<'a> {
    uid: Option<&'a str>,
    placed: bool,
    terminal: bool,
    /// Its node is done with it, or was not asked. It may wait for its claims to be deleted, so they cannot wait for it.
    shut_down: bool,
}

impl User<'_> {
    fn of(pod: &Pod) -> User<'_> {
        let node = pod.spec.node_name.as_deref();
        User {
            uid: pod.metadata.uid.as_deref(),
            placed: node.is_some_and(|node| !node.is_empty()),
            terminal: pod.is_terminal(),
            shut_down: pod.is_deleting() && pod.metadata.deletion_grace_period_seconds == Some(0),
        }
    }
}

/// Whether a pod prevents the deletion of a claim: it is scheduled and uses it, or the claim was created for it.
fn holds(pod: &Pod, claim: &Claim) -> bool {
    let user = User::of(pod);
    user.placed && uses(pod, claim, !user.shut_down)
}

/// Whether a pod that has not terminated uses a claim.
fn refers(pod: &Pod, claim: &Claim) -> bool {
    !User::of(pod).terminal && uses(pod, claim, true)
}

/// Whether a pod names a claim, or, if `made` counts, has an ephemeral volume that it was created for.
fn uses(pod: &Pod, claim: &Claim, made: bool) -> bool {
    claims_of(pod).any(|(name, ephemeral)| {
        claim.metadata.name.as_ref() == Some(&name)
            && (!ephemeral || (made && is_made_for(&claim.metadata, pod)))
    })
}

/// The claim with the condition that shows whether it is unused; None if it has it, or is not bound.
fn unused(claim: &Claim, used: bool, now: Timestamp) -> Option<PersistentVolumeClaim> {
    if claim.status.phase.as_deref() != Some("Bound") {
        return None;
    }
    let (status, reason, message) = if used {
        (
            "False",
            "PodUsingPVC",
            "A pod is currently referencing this PVC",
        )
    } else {
        (
            "True",
            "NoPodsUsingPVC",
            "No pods are currently referencing this PVC",
        )
    };
    let mut new = plan::full(claim);
    let conditions = new
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let condition = PersistentVolumeClaimCondition {
        type_: UNUSED.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        last_probe_time: None,
    };
    match conditions.iter_mut().find(|known| known.type_ == UNUSED) {
        Some(known) if known.status == status => return None,
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    Some(new)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::auth;
    use crate::client::Transport;

    fn claim(rest: &str) -> Claim {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"p-v","namespace":"n","ownerReferences":[{{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u","controller":true}}]{rest}}},"status":{{"phase":"Bound"}}}}"#
        ))
        .unwrap()
    }

    #[tokio::test]
    async fn the_pods_of_a_namespace_are_read_once_for_all_claims_that_wait() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let transport = Transport::new(move |request, _| {
            let path = request.uri().path().to_owned();
            noted.lock().push(format!("{} {path}", request.method()));
            // One pod of namespace `a` uses the claim `late`, and no watch has shown it yet.
            let pods = r#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"p"},"spec":{"nodeName":"n","volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"late"}}]}}]}"#;
            let claim = r#"{"metadata":{"name":"c"}}"#;
            let answer = if path.ends_with("/pods") { pods } else { claim };
            async move { http::Response::new(http_body_util::Full::from(answer).boxed_unsync()) }
        });
        let claims = Claims {
            client: transport.client(auth::User::new("test", &[]), "test"),
            cache: Informer::by_hand(),
            pods: Pods::in_cache(Informer::by_hand()),
            waiting: Waiting::default(),
        };
        for (namespace, name) in [("a", "late"), ("a", "one"), ("a", "two"), ("b", "one")] {
            let text = format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}","finalizers":["kubernetes.io/pvc-protection"],"deletionTimestamp":"2026-01-01T00:00:00Z"}}}}"#
            );
            claims
                .cache
                .put(serde_json::from_str(&text).expect("a claim"));
            claims.waiting.add(&namespace.into(), name);
        }
        for _ in 0..2 {
            let looked = claims.look("a".into()).await.expect("it never fails");
            assert_eq!(looked, Next::Done);
        }
        let path = |name: &str| format!("PUT /api/v1/namespaces/a/persistentvolumeclaims/{name}");
        let wanted = [
            "GET /api/v1/namespaces/a/pods".to_owned(),
            path("one"),
            path("two"),
        ];
        assert_eq!(*asked.lock(), wanted);
        assert_eq!(claims.waiting.take(&"b".into()).len(), 1);
    }

    #[tokio::test]
    async fn claims_are_looked_at_when_their_pod_is_shut_down() {
        let transport = Transport::new(|_, _| std::future::pending());
        let claims = Arc::new(Claims {
            client: transport.client(auth::User::new("test", &[]), "test"),
            cache: Informer::by_hand(),
            pods: Pods::in_cache(Informer::by_hand()),
            waiting: Waiting::default(),
        });
        claims.listen();
        let pod = |version: u32, meta: &str, phase: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u","resourceVersion":"{version}"{meta}}},"spec":{{"nodeName":"n","volumes":[{{"name":"v","ephemeral":{{}}}}]}},"status":{{"phase":"{phase}"}}}}"#
            );
            serde_json::from_str::<Pod>(&text).expect("a pod")
        };
        let ends = |grace: u32| {
            format!(
                r#","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":{grace}"#
            )
        };
        let mut version = 0;
        let mut wakes = |meta: &str, phase: &str| {
            version += 1;
            claims.pods.cache.put(pod(version, meta, phase));
            !claims.waiting.take(&"n".into()).is_empty()
        };
        assert!(wakes("", "Running"), "new");
        assert!(
            !wakes(r#","labels":{"a":"b"}"#, "Running"),
            "of no interest"
        );
        assert!(!wakes(&ends(30), "Running"), "still held");
        assert!(wakes(&ends(30), "Succeeded"));
        assert!(wakes(&ends(0), "Succeeded"), "its node is done with it");
    }

    #[test]
    fn finalizers_come_and_go() {
        let ends = r#","deletionTimestamp":"2026-01-01T00:00:00Z""#;
        let held = r#","finalizers":["f"]"#;
        let after = |rest: &str, used: bool| {
            protected(&claim(rest), "f", used).map(|new| new.finalizers().len())
        };
        assert_eq!(after("", false), Some(1));
        assert_eq!(after(held, false), None);
        assert_eq!(after(ends, false), None, "too late");
        assert_eq!(after(&format!("{ends}{held}"), false), Some(0));
        assert_eq!(after(&format!("{ends}{held}"), true), None);
    }

    #[test]
    fn claims_are_used_by_pods() {
        let pod = |meta: &str, spec: &str, volume: &str, phase: &str| -> Pod {
            serde_json::from_str(&format!(
                r#"{{"metadata":{{"name":"p","uid":"u"{meta}}},"spec":{{"volumes":[{{"name":"v",{volume}}}]{spec}}},"status":{{"phase":"{phase}"}}}}"#
            ))
            .unwrap()
        };
        let placed = r#","nodeName":"n""#;
        let named = r#""persistentVolumeClaim":{"claimName":"p-v"}"#;
        let made = r#""ephemeral":{}"#;
        let shut = r#","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":0"#;
        for (pod, held, referred) in [
            (pod("", placed, named, "Running"), true, true),
            (pod("", placed, named, "Succeeded"), true, false),
            (pod("", "", named, "Pending"), false, true),
            (pod("", placed, made, "Running"), true, true),
            (pod(shut, placed, made, "Running"), false, true),
            (pod(shut, placed, named, "Running"), true, true),
            (pod("", placed, r#""emptyDir":{}"#, "Running"), false, false),
        ] {
            let found = (holds(&pod, &claim("")), refers(&pod, &claim("")));
            assert_eq!(found, (held, referred), "{pod:?}");
        }
        let mut other = pod("", placed, made, "Running");
        other.metadata.uid = Some("other".to_owned());
        assert!(!holds(&other, &claim("")));

        let now = Timestamp::UNIX_EPOCH;
        let said = unused(&claim(""), true, now).unwrap();
        let text = serde_json::to_string(&said).unwrap();
        let again: Claim = serde_json::from_str(&text).unwrap();
        assert_eq!(unused(&again, true, now), None);
        let condition = &unused(&again, false, now)
            .unwrap()
            .status
            .unwrap()
            .conditions
            .unwrap()[0];
        assert_eq!(
            (&*condition.status, condition.reason.as_deref()),
            ("True", Some("NoPodsUsingPVC"))
        );
    }
}
