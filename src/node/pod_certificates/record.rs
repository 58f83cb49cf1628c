//! The state of one source's certificate and the decision what to do next. Pure; follows `handleProjection`
//! (pkg/kubelet/podcertificate/podcertificatemanager.go).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::PodCertificateRequest;

use crate::meta::pem;
use crate::node::machine::later;

/// The error before the first certificate is issued.
pub(super) const NOT_YET: &str = "credential bundle is not issued yet";
/// How long after its renewal time a certificate is overdue.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);

/// A key and its certificate chain.
#[derive(PartialEq, Eq)]
pub struct Pair {
    /// PKCS#8, PEM.
    pub key: String,
    /// PEM: the certificate, followed by intermediate CAs.
    pub chain: String,
}

/// An issued certificate.
pub(super) struct Issued {
    pair: Arc<Pair>,
    renewed_at: Timestamp,
    not_after: Timestamp,
    is_told_overdue: bool,
    is_told_expired: bool,
}

/// A request that has been created.
pub(super) struct Asked {
    /// Its key.
    pub key: String,
    /// Its name, in the pod's namespace.
    pub name: String,
    /// When it counts as deleted if the watch has not shown it.
    pub abandoned_at: Timestamp,
}

/// The certificate of one source.
#[derive(Default)]
pub(super) struct Record {
    /// The current certificate.
    pub issued: Option<Issued>,
    /// The pending request for the first or next certificate.
    pub asked: Option<Asked>,
    /// Why there will never be one.
    pub refused: Option<String>,
}

/// An event to record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// The event's reason.
    pub reason: &'static str,
    /// The event's message.
    pub message: String,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Request a certificate.
    Ask,
    /// Wait until the request changes or until this time.
    Wait(Option<Timestamp>),
}

impl Record {
    /// The key and certificate chain, or why there is none.
    pub fn given(&self) -> Result<Arc<Pair>, String> {
        match (&self.refused, &self.issued) {
            (Some(why), _) => Err(why.clone()),
            (None, Some(issued)) => Ok(issued.pair.clone()),
            (None, None) => Err(NOT_YET.into()),
        }
    }

    /// Applies the observed state of the request, and returns what to do next and the events to record. A new
    /// certificate is renewed `jitter` after the time that its signer asks for.
    pub fn step(
        &mut self,
        seen: Option<&PodCertificateRequest>,
        now: Timestamp,
        jitter: SignedDuration,
    ) -> (Step, Vec<Notice>) {
        let mut notices = Vec::new();
        if self.refused.is_some() {
            return (Step::Wait(None), notices);
        }
        if let Some(asked) = &self.asked {
            match seen.map(|request| end(request, &asked.key, jitter)) {
                Some(End::Issued(issued)) => (self.issued, self.asked) = (Some(issued), None),
                Some(End::Refused(why, notice)) => {
                    (self.refused, self.asked) = (Some(why), None);
                    return (Step::Wait(None), vec![notice]);
                }
                Some(End::Pending) => {}
                None if now > asked.abandoned_at => self.asked = None,
                None => {}
            }
        }
        let mut wake = None;
        if let Some(issued) = &mut self.issued {
            if now < issued.renewed_at {
                return (Step::Wait(Some(issued.renewed_at)), notices);
            }
            wake = issued.tell(now, &mut notices);
        }
        let Some(asked) = &self.asked else {
            return (Step::Ask, notices);
        };
        let abandoned = seen
            .is_none()
            .then(|| later(asked.abandoned_at, SignedDuration::from_secs(1)));
        (Step::Wait(wake.into_iter().chain(abandoned).min()), notices)
    }
}

impl Issued {
    /// Adds notices about a late renewal, each once. Returns when the next one may be due.
    fn tell(&mut self, now: Timestamp, notices: &mut Vec<Notice>) -> Option<Timestamp> {
        let overdue = later(self.renewed_at, OVERDUE);
        let all = [
            (
                overdue,
                &mut self.is_told_overdue,
                "CertificateOverdueForRefresh",
                "PodCertificate refresh overdue",
            ),
            (
                self.not_after,
                &mut self.is_told_expired,
                "CertificateExpired",
                "PodCertificate expired",
            ),
        ];
        let mut next = None;
        for (at, is_told, reason, message) in all {
            if *is_told {
                continue;
            }
            if now >= at {
                *is_told = true;
                let message = message.to_owned();
                notices.push(Notice { reason, message });
            } else {
                next = Some(next.map_or(at, |next: Timestamp| next.min(at)));
            }
        }
        next
    }
}

/// The result of a request.
enum End {
    Pending,
    Issued(Issued),
    Refused(String, Notice),
}

fn end(request: &PodCertificateRequest, key: &str, jitter: SignedDuration) -> End {
    let Some(status) = &request.status else {
        return End::Pending;
    };
    let shown = || {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &request.metadata;
        format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
    };
    for condition in status.conditions.iter().flatten() {
        // Upstream's events contain the message's format string instead of the reason; this is the intended message.
        let (reason, ended, was) = match condition.type_.as_str() {
            "Denied" => ("Denied", "denied", "was denied"),
            "Failed" => ("Failed", "failed", "failed"),
            "Issued" => {
                let at = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                    time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
                };
                let chain = status.certificate_chain.as_deref().unwrap_or_default();
                return End::Issued(Issued {
                    pair: Arc::new(Pair {
                        key: key.to_owned(),
                        chain: clean(chain),
                    }),
                    renewed_at: later(at(&status.begin_refresh_at), jitter),
                    not_after: at(&status.not_after),
                    is_told_overdue: false,
                    is_told_expired: false,
                });
            }
            _ => continue,
        };
        let why = format!("reason={:?}", condition.reason);
        let what = format!("message={:?}", condition.message);
        return End::Refused(
            format!("PodCertificateRequest was permanently {ended}: {why} {what}"),
            Notice {
                reason,
                message: format!("PodCertificateRequest {} {was}, {why}, {what}", shown()),
            },
        );
    }
    End::Pending
}

/// A chain without any text before or between its certificates.
fn clean(chain: &str) -> String {
    let blocks = pem::blocks(chain).into_iter();
    blocks
        .map(|block| pem::text("CERTIFICATE", &block.bytes))
        .collect()
}

#[cfg(test)]
mod tests;
