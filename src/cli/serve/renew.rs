//! Renews a server's own certificates while it runs: its serving certificate, the administrator's, and the client
//! certificate that it shows to nodes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::prepare::{towards_nodes, unusable};
use crate::auth::kubeconfig;
use crate::auth::pki::{Issued, Pki, PkiError};
use crate::blocking::blocking;

/// The name of the task.
pub(super) const TASK: &str = "certificates of the server";
/// How often certificates are checked. They are renewed sixty days before they expire.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Shows a client certificate to nodes from now on.
type Identify = dyn Fn(&Issued) -> Result<(), String> + Send + Sync;

/// The certificates of a server, and everything that uses them.
pub(super) struct Renewal {
    /// Keys and certificates.
    pub pki: Arc<Pki>,
    /// The path of the administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The server's URL in it.
    pub url: String,
    /// How the server identifies itself to nodes.
    pub identify: Box<Identify>,
    /// The time, in seconds since 1970.
    pub clock: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl Renewal {
    /// Renews certificates until `ends` is cancelled.
    pub(super) async fn keep(self: Arc<Self>, ends: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = ends.cancelled() => return,
            }
            let renewal = self.clone();
            let look = move || renewal.look().map_err(|error| error.to_string());
            if let Err(error) = blocking(look).await {
                tracing::error!(
                    error,
                    "cannot renew the server's certificates; retrying in an hour"
                );
            }
        }
    }

    fn look(&self) -> Result<(), PkiError> {
        let now = (self.clock)();
        if self.pki.renew(now)? {
            kubeconfig::write_admin(&self.kubeconfig, &self.url, &self.pki)?;
            let path = self.kubeconfig.display();
            tracing::info!("the server's certificates were renewed, and {path} was written again");
        }
        // It is only in memory, so it is simply issued anew each time.
        (self.identify)(&towards_nodes(&self.pki, now)?).map_err(unusable)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use tokio::sync::mpsc;
    use tokio::time::{Instant, advance};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;
    use crate::meta::time;

    const DAY: i64 = 24 * 60 * 60;

    /// What a certificate says: since when and until when it is valid, and of which names.
    fn read(pem: &str) -> (i64, i64, String) {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
        let names = certificate.subject_alternative_name().expect("valid");
        let names = names.map(|names| format!("{:?}", names.value.general_names));
        let validity = certificate.validity();
        (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
            names.unwrap_or_default(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_runs_for_long_has_valid_certificates() {
        let dir = tempfile::tempdir().expect("a directory");
        let (begun, first) = (Instant::now(), time::now());
        let clock = move || first + i64::try_from(begun.elapsed().as_secs()).unwrap_or(0);
        let pki = Arc::new(Pki::open(dir.path(), ["api.example.com"]).expect("keys"));
        let (kubeconfig, served) = (
            dir.path().join("kubeconfig"),
            dir.path().join("pki/apiserver.crt"),
        );
        let (shown, mut shows) = mpsc::unbounded_channel();
        let renewal = Renewal {
            pki: pki.clone(),
            kubeconfig: kubeconfig.clone(),
            url: "https://127.0.0.1:6443".into(),
            identify: Box::new(move |issued: &Issued| {
                shown
                    .send(issued.certificate.clone())
                    .map_err(|error| error.to_string())
            }),
            clock: Box::new(clock),
        };
        kubeconfig::write_admin(&kubeconfig, &renewal.url, &pki).expect("written");
        let files = || {
            let read = |path: &PathBuf| std::fs::read_to_string(path).expect("a file");
            (read(&served), read(&kubeconfig))
        };
        let at_first = files();
        let ends = CancellationToken::new();
        let kept = tokio::spawn(Arc::new(renewal).keep(ends.clone()));
        // The clock goes on by itself while all wait: an hour.
        let (since, until, _) = read(&shows.recv().await.expect("an identity"));
        assert!(
            (since, until) > (first, first + 365 * DAY),
            "since an hour later"
        );
        assert_eq!(files(), at_first, "nothing expires soon");
        for year in 1..=3 {
            advance(Duration::from_secs(310 * 24 * 60 * 60)).await;
            let before = files();
            let identity = shows.recv().await.expect("an identity");
            let (after, now) = (files(), clock());
            assert_ne!(before.0, after.0, "the serving certificate, time {year}");
            assert_ne!(before.1, after.1, "the administrator's, time {year}");
            let of_admin = pki.admin();
            for pem in [&identity, &after.0, &of_admin.certificate] {
                let (since, until, _) = read(pem);
                assert!(since <= now && until > now + 300 * DAY, "time {year}");
            }
            let names = read(&after.0).2;
            assert!(names.contains("api.example.com"), "{names}");
        }
        ends.cancel();
        kept.await.expect("ended");
    }
}
