//! Requests a certificate from the API and waits for it. Follows k8s.io/client-go/util/certificate/csr.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};

use super::plan::{self, Answer};
use super::store::{Store, StoreError};
use crate::auth::pki::{Pair, PkiError, Wanted};
use crate::client::errors::{is_already_exists, is_not_found, text};

/// Why a request led to no certificate. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The API refuses, or does not answer.
    #[error("the {what} cannot be requested: {}", text(cause))]
    Api {
        /// Which certificate.
        what: &'static str,
        /// The API's answer.
        #[source]
        cause: kube::Error,
    },
    /// The request was denied.
    #[error(
        "the request {name} for the {what} was denied ({why}); to ask again: kubectl delete csr {name}"
    )]
    Denied {
        /// The request.
        name: String,
        /// Which certificate.
        what: &'static str,
        /// Reason and message.
        why: String,
    },
    /// The signer refuses to sign it.
    #[error(
        "the signer did not sign the request {name} for the {what} ({why}); to ask again: kubectl delete csr {name}"
    )]
    Failed {
        /// The request.
        name: String,
        /// Which certificate.
        what: &'static str,
        /// Reason and message.
        why: String,
    },
    /// Somebody deleted the request, or put another in its place.
    #[error("the request {name} for the {what} was deleted before a certificate was issued")]
    Deleted {
        /// The request.
        name: String,
        /// Which certificate.
        what: &'static str,
    },
    /// There is another request with the same name.
    #[error(
        "the request {name} is not this node's ({why}); check it, then: kubectl delete csr {name}"
    )]
    Taken {
        /// The request.
        name: String,
        /// How it differs.
        why: String,
    },
    /// A key or file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The request cannot be encoded.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// After how long a warning about an unanswered request is logged.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before a failed watch is repeated.
const PAUSE: Duration = Duration::from_secs(1);

/// Requests a certificate, waits until it is issued, and stores it in `store`. Continues with this node's previous
/// request if that has not been answered yet.
///
/// Waits without limit; logs a warning after a while.
///
/// # Errors
/// [`AskError`]. Another call continues where this one stopped.
pub async fn ask(client: &kube::Client, store: &Store, wanted: &Wanted) -> Result<Pair, AskError> {
    let purpose = store.purpose();
    let key = store.asking_key()?;
    let name = key.request_name(wanted, &purpose.usages());
    let request = CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(key.request(wanted)?.into_bytes()),
            signer_name: purpose.signer().to_owned(),
            usages: Some(purpose.usages().map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let requests = Requests {
        api: Api::all(client.clone()),
        what: purpose.what(),
        name: &name,
    };
    let made = match requests.api.create(&PostParams::default(), &request).await {
        Ok(made) => made,
        Err(error) if is_already_exists(&error) => {
            let found = requests.get().await?;
            if let Err(why) = plan::compatible(&found, purpose, wanted) {
                return Err(AskError::Taken { name, why });
            }
            found
        }
        Err(cause) => return Err(requests.api_error(cause)),
    };
    let certificate = requests.issued(made).await?;
    Ok(store.keep(&certificate, &key, crate::meta::time::now())?)
}

/// This node's request.
struct Requests<'a> {
    api: Api<CertificateSigningRequest>,
    what: &'static str,
    name: &'a str,
}

impl Requests<'_> {
    fn api_error(&self, cause: kube::Error) -> AskError {
        AskError::Api {
            what: self.what,
            cause,
        }
    }

    fn deleted(&self) -> AskError {
        AskError::Deleted {
            name: self.name.to_owned(),
            what: self.what,
        }
    }

    async fn get(&self) -> Result<CertificateSigningRequest, AskError> {
        self.api.get(self.name).await.map_err(|error| {
            if is_not_found(&error) {
                return self.deleted();
            }
            self.api_error(error)
        })
    }

    /// The certificate in a request; `None` if it has not been answered yet.
    fn look(&self, request: &CertificateSigningRequest) -> Result<Option<String>, AskError> {
        let (name, what) = (self.name.to_owned(), self.what);
        match plan::answer(request) {
            Answer::Pending | Answer::Approved => Ok(None),
            Answer::Issued(certificate) => Ok(Some(certificate)),
            Answer::Denied(why) => Err(AskError::Denied { name, what, why }),
            Answer::Failed(why) => Err(AskError::Failed { name, what, why }),
        }
    }

    /// Waits for the certificate, and logs a warning if that takes long.
    async fn issued(&self, made: CertificateSigningRequest) -> Result<String, AskError> {
        let waiting = self.wait(made);
        tokio::pin!(waiting);
        tokio::select! {
            answered = &mut waiting => return answered,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        tracing::warn!(
            "the {} is not issued yet; unless requests are approved automatically: kubectl certificate approve {}",
            self.what,
            self.name
        );
        waiting.await
    }

    async fn wait(&self, made: CertificateSigningRequest) -> Result<String, AskError> {
        let own = made.uid();
        let mut seen = made;
        loop {
            if seen.uid() != own {
                return Err(self.deleted());
            }
            if let Some(certificate) = self.look(&seen)? {
                return Ok(certificate);
            }
            let fields = WatchParams::default().fields(&format!("metadata.name={}", self.name));
            let version = seen.resource_version().unwrap_or_default();
            if let Ok(events) = self.api.watch(&fields, &version).await {
                let mut events = events.boxed();
                while let Some(Ok(event)) = events.next().await {
                    match event {
                        WatchEvent::Added(changed) | WatchEvent::Modified(changed) => {
                            if changed.uid() == own
                                && let Some(certificate) = self.look(&changed)?
                            {
                                return Ok(certificate);
                            }
                        }
                        WatchEvent::Deleted(_) => return Err(self.deleted()),
                        WatchEvent::Bookmark(_) => {}
                        WatchEvent::Error(_) => break,
                    }
                }
            }
            // The watch ended or failed: read the request to catch up.
            tokio::time::sleep(PAUSE).await;
            seen = match self.get().await {
                Ok(now) => now,
                // Connection failures pass, answers of the API do not.
                Err(AskError::Api { cause, .. }) if !matches!(cause, kube::Error::Api(_)) => {
                    tracing::debug!(%cause, "the request for a certificate cannot be read");
                    continue;
                }
                Err(error) => return Err(error),
            };
        }
    }
}
