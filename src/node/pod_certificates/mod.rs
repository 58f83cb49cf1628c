//! Certificates of pods: for each `podCertificate` source of a projected volume the node generates a key, requests a
//! certificate with a PodCertificateRequest, and renews it in time. Follows pkg/kubelet/podcertificate.
//!
//! ```text
//!  worker --track--> task per source --creates--> request --signer--> status
//!     ^                 |        ^                                      |
//!     '---- changed ----'        '------- requests seen <--- watch -----'
//! ```
//! Nothing is kept across restarts of the agent: every source then gets a new key and request, as upstream.

mod keys;
mod record;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, PodCertificateProjection, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::record::Pair;
use self::record::{Asked, Record, Step};
use super::machine::{later, spec_of};
use crate::blocking::blocking;
use crate::client::events::{Recorder, Tone};
use crate::client::follow::{Event, follow};
use crate::meta::names;

/// How long after its creation, plus jitter, a request that the watch has not shown counts as deleted.
const ABANDONED: SignedDuration = SignedDuration::from_mins(10);
/// The most jitter that is added to deadlines, so that the sources of many pods are not renewed all at once.
const JITTER: SignedDuration = SignedDuration::from_mins(5);
/// The longest pause after a request could not be created.
const LONGEST: Duration = Duration::from_secs(60);

/// The requests of the node, by namespace and name.
type Requests = HashMap<(String, String), Arc<PodCertificateRequest>>;

/// A source of a projected volume: the volume's name, and which of its sources.
type Key = (String, usize);

/// The sources of a pod, and the tasks that maintain them; the tasks end when this is dropped.
struct Tracked {
    sources: HashMap<Key, Arc<Mutex<Record>>>,
    changed: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

/// The certificates of the pods of a node. Clones share their state.
#[derive(Clone)]
pub struct Certificates {
    asker: Asker,
    pods: Arc<Mutex<HashMap<String, Tracked>>>,
    /// Whether a pod ever wanted a certificate.
    wanted: watch::Sender<bool>,
}

/// Requests certificates.
#[derive(Clone)]
struct Asker {
    client: kube::Client,
    node: String,
    recorder: Recorder,
    seen: watch::Sender<Requests>,
}

impl Certificates {
    /// The certificates of the pods of `node`; `client` authenticates as the node. [`Certificates::keep`] has to run.
    pub fn new(client: kube::Client, node: String, recorder: Recorder) -> Self {
        Certificates {
            asker: Asker {
                client,
                node,
                recorder,
                seen: watch::channel(Requests::new()).0,
            },
            pods: Arc::default(),
            wanted: watch::channel(false).0,
        }
    }

    /// Maintains the certificates of a pod until [`Certificates::forget`]. The receiver is marked changed whenever one
    /// of them is replaced or lost. `None` if the pod has no such source.
    pub fn track(&self, pod: &Pod) -> Option<watch::Receiver<()>> {
        let wanted = sources(pod);
        if wanted.is_empty() {
            return None;
        }
        let mut pods = self.pods.lock();
        let tracked = pods.entry(uid(pod)).or_insert_with(|| {
            let (changed, mut tasks) = (watch::channel(()).0, JoinSet::new());
            let pod = Arc::new(pod.clone());
            let sources = wanted.into_iter().map(|(key, source)| {
                let record = Arc::new(Mutex::new(Record::default()));
                let (asker, pod) = (self.asker.clone(), pod.clone());
                tasks.spawn(asker.look_after(pod, source, record.clone(), changed.clone()));
                (key, record)
            });
            Tracked {
                sources: sources.collect(),
                changed: changed.clone(),
                _tasks: tasks,
            }
        });
        self.wanted
            .send_if_modified(|wanted| !std::mem::replace(wanted, true));
        Some(tracked.changed.subscribe())
    }

    /// Drops the keys and certificates of a pod.
    pub fn forget(&self, uid: &str) {
        self.pods.lock().remove(uid);
    }

    /// The key and the certificate chain of a source.
    ///
    /// # Errors
    /// Why there is none (yet), for the pod's event.
    pub fn of(&self, pod: &Pod, volume: &str, source: usize) -> Result<Arc<Pair>, String> {
        let pods = self.pods.lock();
        let tracked = pods.get(&uid(pod));
        match tracked.and_then(|tracked| tracked.sources.get(&(volume.to_owned(), source))) {
            Some(record) => record.lock().given(),
            None => Err(record::NOT_YET.into()),
        }
    }

    /// Watches the requests of the node from the first pod that wants a certificate until `ends` is cancelled.
    pub async fn keep(self, ends: CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        tokio::select! {
            _ = wanted.wait_for(|wanted| *wanted) => {}
            () = ends.cancelled() => return,
        }
        let api: Api<PodCertificateRequest> = Api::all(self.asker.client.clone());
        let mut events = follow(api, &format!("spec.nodeName={}", self.asker.node));
        let mut listed = Requests::new();
        loop {
            let event = tokio::select! {
                // Cancel-safe: an event that was not taken stays in the stream.
                event = events.next() => event,
                () = ends.cancelled() => return,
            };
            match event {
                Some(Ok(Event::Listing)) => listed.clear(),
                Some(Ok(Event::Listed(request))) => {
                    listed.insert(name(&request), Arc::new(request));
                }
                Some(Ok(Event::Complete(_))) => {
                    self.asker.seen.send_replace(std::mem::take(&mut listed));
                }
                Some(Ok(Event::Applied(request))) => self.asker.seen.send_modify(|seen| {
                    seen.insert(name(&request), Arc::new(request));
                }),
                Some(Ok(Event::Deleted(request))) => self.asker.seen.send_modify(|seen| {
                    seen.remove(&name(&request));
                }),
                Some(Ok(Event::UpTo(_))) => {}
                Some(Err(error)) if error.is_usual() => {
                    tracing::debug!(%error, "the watch of pod certificate requests was interrupted; it resumes");
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the watch of pod certificate requests was interrupted; it resumes");
                }
                None => return,
            }
        }
    }
}

impl Asker {
    /// Maintains one source until its task is dropped.
    async fn look_after(
        self,
        pod: Arc<Pod>,
        source: PodCertificateProjection,
        record: Arc<Mutex<Record>>,
        changed: watch::Sender<()>,
    ) {
        let mut seen = self.seen.subscribe();
        let mut failures = 0;
        loop {
            let (step, notices, is_new) = {
                let requests = seen.borrow_and_update();
                let mut record = record.lock();
                let before = record.given();
                let request = record.asked.as_ref().and_then(|asked| {
                    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                    requests.get(&(namespace, asked.name.clone()))
                });
                let (step, notices) = record.step(
                    request.map(|request| &**request),
                    Timestamp::now(),
                    jitter(),
                );
                (step, notices, record.given() != before)
            };
            for notice in notices {
                self.recorder
                    .tell(&*pod, Tone::Warning, notice.reason, notice.message);
            }
            if is_new {
                changed.send_replace(());
            }
            let until = match step {
                Step::Ask => match self.ask(&pod, &source).await {
                    Ok(asked) => {
                        failures = 0;
                        record.lock().asked = Some(asked);
                        continue;
                    }
                    Err(NotAsked::Never(why)) => {
                        let signer = &source.signer_name;
                        let message = format!("no certificate is requested of {signer}: {why}");
                        self.recorder.tell(&*pod, Tone::Warning, "Failed", message);
                        record.lock().refused = Some(why);
                        changed.send_replace(());
                        continue;
                    }
                    Err(NotAsked::Now(error)) => {
                        tracing::warn!(
                            pod = uid(&pod),
                            error,
                            "cannot request a pod's certificate; retrying"
                        );
                        failures += 1;
                        tokio::time::sleep(wait_after(failures)).await;
                        continue;
                    }
                },
                Step::Wait(until) => until,
            };
            let moment = async {
                match until {
                    Some(at) => {
                        let wait = at.duration_since(Timestamp::now());
                        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Cancel-safe: a change stays marked until it is taken.
                told = seen.changed() => if told.is_err() { return },
                () = moment => {}
            }
        }
    }

    /// Generates a key and creates a request for its certificate.
    async fn ask(&self, pod: &Pod, source: &PodCertificateProjection) -> Result<Asked, NotAsked> {
        let failed = |what: &'static str| {
            move |error: kube::Error| NotAsked::Now(format!("while {what}: {error}"))
        };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let account = spec_of(pod).service_account_name.clone();
        let account = account.unwrap_or_default();
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &namespace);
        let found = accounts.get(&account).await;
        let found = found.map_err(failed("fetching service account"))?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.get(&self.node).await;
        let node = node.map_err(failed("getting node object"))?;
        let kind = source.key_type.clone();
        let made = blocking(move || keys::make(&kind)).await;
        let made =
            made.map_err(|error| NotAsked::Never(format!("while generating keypair: {error}")))?;
        let (name, uid) = (pod.metadata.name.clone().unwrap_or_default(), uid(pod));
        let request = PodCertificateRequest {
            metadata: ObjectMeta {
                namespace: Some(namespace.clone()),
                generate_name: Some("req-".into()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Pod".into(),
                    name: name.clone(),
                    uid: uid.clone(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: PodCertificateRequestSpec {
                signer_name: source.signer_name.clone(),
                pod_name: name,
                pod_uid: uid,
                service_account_name: account,
                service_account_uid: found.metadata.uid.unwrap_or_default(),
                node_name: self.node.clone(),
                node_uid: node.metadata.uid.unwrap_or_default(),
                max_expiration_seconds: source.max_expiration_seconds,
                stub_pkc_s10_request: ByteString(made.request),
                unverified_user_annotations: source.user_annotations.clone(),
            },
            status: None,
        };
        let requests: Api<PodCertificateRequest> = Api::namespaced(self.client.clone(), &namespace);
        let created = requests.create(&PostParams::default(), &request).await;
        let created = created
            .map_err(failed("creating PodCertificateRequest"))?
            .metadata;
        let at = created
            .creation_timestamp
            .map_or_else(Timestamp::now, |at| at.0);
        Ok(Asked {
            key: made.pem,
            name: created.name.unwrap_or_default(),
            abandoned_at: later(later(at, ABANDONED), jitter()),
        })
    }
}

/// Why no request was created.
enum NotAsked {
    /// A failure that may pass.
    Now(String),
    /// A permanent failure.
    Never(String),
}

/// The `podCertificate` sources of a pod's volumes.
fn sources(pod: &Pod) -> Vec<(Key, PodCertificateProjection)> {
    let volumes = spec_of(pod).volumes.iter().flatten();
    let projected = volumes.filter_map(|volume| {
        let sources = volume.projected.as_ref()?.sources.as_ref()?;
        Some((&volume.name, sources))
    });
    projected
        .flat_map(|(name, sources)| {
            let sources = sources.iter().enumerate();
            sources.filter_map(|(index, source)| {
                Some(((name.clone(), index), source.pod_certificate.clone()?))
            })
        })
        .collect()
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn name(request: &PodCertificateRequest) -> (String, String) {
    let metadata = &request.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// The pause after so many failures in a row.
fn wait_after(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(LONGEST)
}

/// A random time up to [`JITTER`].
fn jitter() -> SignedDuration {
    JITTER.mul_f64(names::chance())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_known_by_their_volume_and_their_place_in_it() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{},"spec":{"containers":[],"volumes":[
                {"name":"empty","emptyDir":{}},
                {"name":"v","projected":{"sources":[
                    {"configMap":{"name":"m"}},
                    {"podCertificate":{"signerName":"a.b/c","keyType":"ED25519","keyPath":"k"}}]}}]}}"#,
        )
        .expect("a pod");
        let found = sources(&pod);
        let keys: Vec<_> = found.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, [("v".to_owned(), 1)]);
        assert_eq!(found[0].1.signer_name, "a.b/c");
        assert!(sources(&Pod::default()).is_empty());
    }

    #[test]
    fn moments_are_moved_by_less_than_five_minutes() {
        for _ in 0..100 {
            let moved = jitter();
            assert!(moved >= SignedDuration::ZERO && moved < JITTER, "{moved}");
        }
    }

    #[test]
    fn asking_that_fails_waits_ever_longer() {
        let waits = [1, 2, 5, 6, 100].map(|failures| wait_after(failures).as_secs());
        assert_eq!(waits, [2, 4, 32, 60, 60]);
    }
}
