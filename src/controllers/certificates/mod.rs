//! certificatesigningrequest-signing-controller, -approving-controller and -cleaner-controller, and the cleaner of pod
//! certificate requests. Follows k8s.io/kubernetes/pkg/controller/certificates.

mod bundles;
mod plan;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, PodCertificateRequest,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

pub use self::bundles::run as trust_bundles;
use super::workload::written;
use crate::auth::pki::Request;
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found};
use crate::client::informer::{Cached, Informer};
use crate::client::queue::{Delays, Next, Queue};

const WORKERS: usize = 5;
/// How long failed requests are delayed.
const DELAYS: Delays = Delays {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(1000),
};
/// How often to look for old signing requests.
const SWEEP: Duration = Duration::from_secs(60 * 60);
/// How often to look for old pod certificate requests.
const SWEEP_PODS: Duration = Duration::from_secs(5 * 60);
/// The age at which pod certificate requests are deleted, in seconds.
const MOST_POD_SECONDS: i64 = 15 * 60;

impl Cached for CertificateSigningRequest {}

crate::slim!(
    /// The existence of a pod certificate request.
    PodRequest of PodCertificateRequest {}
);

/// Why a request has to be looked at again.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("{}", crate::client::errors::text(.0))]
    Api(#[from] kube::Error),
    #[error("unable to parse csr {name:?}: {why}")]
    Unreadable { name: String, why: String },
    #[error("error auto signing csr: {0}")]
    Unsigned(#[from] crate::auth::pki::PkiError),
    #[error("error auto signing csr: {0}")]
    Refused(String),
}

/// Calls `look` for every request without a certificate, and again whenever it changes.
async fn each<F, E>(context: &Context, look: impl Fn(Arc<CertificateSigningRequest>) -> F + Sync)
where
    F: Future<Output = Result<Next, E>>,
    E: Display,
{
    let queue = Arc::new(Queue::<CompactString>::with_delays(DELAYS));
    let requests: Informer<CertificateSigningRequest> = context.informers.of();
    requests.enqueue(&queue, |change| Some(change.key.name.clone()));
    let look = |name: CompactString| {
        let request = requests
            .get("", &name)
            .filter(|request| !plan::is_issued(request));
        let looked = request.map(&look);
        async move {
            match looked {
                Some(looked) => looked.await,
                None => Ok(Next::Done),
            }
        }
    };
    context.work(&queue, WORKERS, look).await;
}

fn parsed(request: &CertificateSigningRequest) -> Result<Request, Unfinished> {
    let text = String::from_utf8_lossy(&request.spec.request.0);
    Request::parse(&text).map_err(|why| Unfinished::Unreadable {
        name: request.name_any(),
        why,
    })
}

/// Runs the signing controller.
pub async fn signing(context: Context) {
    let Some(pki) = context.settings.pki.clone() else {
        tracing::info!("certificate signing requests are not signed: there is no CA");
        return context.ends.cancelled().await;
    };
    let longest = context.settings.signing_seconds;
    let api: Api<CertificateSigningRequest> = Api::all(context.client.clone());
    let sign = |request: Arc<CertificateSigningRequest>| {
        let (api, pki) = (&api, &pki);
        async move {
            if !plan::is_to_be_signed(&request) {
                return Ok(Next::Done);
            }
            let asked = parsed(&request)?;
            let mut signed = (*request).clone();
            let status = signed.status.get_or_insert_default();
            match plan::check(&request.spec, &asked) {
                None => return Ok(Next::Done),
                Some(Err(why)) => status
                    .conditions
                    .get_or_insert_default()
                    .push(plan::condition("Failed", "SignerValidationFailure", why)),
                Some(Ok(())) => {
                    let now = crate::meta::time::now();
                    let terms = plan::terms(&request.spec, longest, now, pki.expires())
                        .map_err(Unfinished::Refused)?;
                    let certificate = pki.certify(&asked, &terms)?;
                    status.certificate = Some(ByteString(certificate.into_bytes()));
                }
            }
            let name = request.name_any();
            let signed = api
                .replace_status(&name, &PostParams::default(), &signed)
                .await;
            written(signed).map_err(Unfinished::from)
        }
    };
    each(&context, sign).await;
}

/// Runs the approving controller.
pub async fn approving(context: Context) {
    let api: Api<CertificateSigningRequest> = Api::all(context.client.clone());
    let reviews: Api<SubjectAccessReview> = Api::all(context.client.clone());
    let approve = |request: Arc<CertificateSigningRequest>| {
        let (api, reviews) = (&api, &reviews);
        async move {
            if plan::is_judged(&request) {
                return Ok(Next::Done);
            }
            let mut tried = false;
            for (right, message) in plan::approvals(&request, &parsed(&request)?) {
                tried = true;
                let asked = reviews
                    .create(&PostParams::default(), &review(&request, right))
                    .await?;
                if !asked.status.is_some_and(|status| status.allowed) {
                    continue;
                }
                let mut approved = (*request).clone();
                let status = approved.status.get_or_insert_default();
                status
                    .conditions
                    .get_or_insert_default()
                    .push(plan::condition(
                        "Approved",
                        "AutoApproved",
                        message.to_owned(),
                    ));
                let name = request.name_any();
                let approved = api
                    .replace_subresource("approval", &name, &PostParams::default(), &approved)
                    .await;
                return written(approved).map_err(Unfinished::from);
            }
            // A requester without the right may get it later.
            Ok(if tried { Next::Retry } else { Next::Done })
        }
    };
    each(&context, approve).await;
}

/// A review of whether the requester has the right to automatic approval.
fn review(request: &CertificateSigningRequest, right: &str) -> SubjectAccessReview {
    let spec = &request.spec;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                version: Some("*".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                subresource: Some(right.to_owned()),
                verb: Some("create".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// Runs the cleaner.
pub async fn cleaning(context: Context) {
    let requests: Informer<CertificateSigningRequest> = context.informers.of();
    let api: Api<CertificateSigningRequest> = Api::all(context.client.clone());
    sweep(&context, SWEEP, requests, |_| api.clone(), plan::is_old).await;
}

/// Runs the cleaner of pods' requests.
pub async fn cleaning_pods(context: Context) {
    let requests: Informer<PodRequest> = context.informers.of();
    let api = |namespace: &str| {
        Api::<PodCertificateRequest>::namespaced(context.client.clone(), namespace)
    };
    sweep(&context, SWEEP_PODS, requests, api, |request, now| {
        let made = request.metadata.creation_timestamp.as_ref();
        made.is_some_and(|made| now.as_second() - made.0.as_second() >= MOST_POD_SECONDS)
    })
    .await;
}

/// Deletes old requests periodically.
async fn sweep<P: Cached, K>(
    context: &Context,
    period: Duration,
    cache: Informer<P>,
    api: impl Fn(&str) -> Api<K>,
    is_old: impl Fn(&P, Timestamp) -> bool,
) where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut ticks = context.ticks(period).await;
    while ticks.next().await {
        let now = Timestamp::now();
        let all = cache.all();
        for (key, object) in all.iter().filter(|(_, object)| is_old(object, now)) {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: object.uid(),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match api(&key.namespace).delete(&key.name, &params).await {
                Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
                    tracing::warn!(name = %key.name, %error, "an old certificate signing request cannot be deleted");
                }
                _ => {}
            }
        }
    }
}
