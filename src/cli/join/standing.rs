//! What a kubeconfig is good for, and what is done accordingly.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::Kubeconfig;

use crate::auth::pki::Pair;

/// The state of a kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is no such file.
    Missing,
    /// It cannot be used: why.
    Useless(String),
    /// It is usable, and has no client certificate.
    Other,
    /// It has a client certificate that expires at this time, in seconds since 1970.
    Certificate(i64),
}

/// How to get credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Use the kubeconfig.
    Use,
    /// Request a certificate with the bootstrap credentials.
    Bootstrap,
    /// There are none.
    Fail,
}

/// Upstream's rule: a kubeconfig with a valid client certificate is used, and bootstrap credentials are ignored.
pub(super) fn way(standing: &Standing, can_bootstrap: bool, now: i64) -> Way {
    match (standing, can_bootstrap) {
        (Standing::Certificate(until), _) if now <= *until => Way::Use,
        (Standing::Other, false) => Way::Use,
        (_, true) => Way::Bootstrap,
        (_, false) => Way::Fail,
    }
}

/// A kubeconfig that has been read.
pub(super) struct Read {
    pub(super) config: kube::Config,
    /// Its client certificate, from the kubeconfig or the file that it names.
    pub(super) pair: Option<Pair>,
}

/// Reads a kubeconfig and its client certificate.
pub(super) async fn read(path: &Path) -> Result<Read, Standing> {
    let useless = |error: &dyn std::fmt::Display| Standing::Useless(super::super::brief(error));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Standing::Missing);
        }
        Err(error) => return Err(useless(&error)),
        Ok(_) => {}
    }
    let file = Kubeconfig::read_from(path).map_err(|error| useless(&error))?;
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await;
    let config = config.map_err(|error| useless(&error))?;
    let who = &config.auth_info;
    let has = who.client_certificate.is_some() || who.client_certificate_data.is_some();
    if !has {
        return Ok(Read { config, pair: None });
    }
    // Secret fields can be read only by serializing them.
    let who = serde_json::to_value(who).map_err(|error| useless(&error))?;
    let text = |name: &str| {
        let of = |key: &str| who.get(key).and_then(serde_json::Value::as_str);
        text_of(of(&format!("{name}-data")), of(name))
    };
    let certificate = text("client-certificate");
    let pair = certificate.and_then(|certificate| Pair::read(&certificate, &text("client-key")?));
    match pair {
        Ok(pair) => Ok(Read {
            config,
            pair: Some(pair),
        }),
        Err(why) => Err(Standing::Useless(format!("its client certificate: {why}"))),
    }
}

/// The text given inline or in a file.
fn text_of(data: Option<&str>, path: Option<&str>) -> Result<String, String> {
    if let Some(data) = data {
        let bytes = STANDARD.decode(data).map_err(|error| error.to_string())?;
        return String::from_utf8(bytes).map_err(|error| error.to_string());
    }
    let path = path.ok_or("one of certificate and key is missing")?;
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

pub(super) fn standing(read: &Result<Read, Standing>) -> Standing {
    match read {
        Err(standing) => standing.clone(),
        Ok(Read { pair: None, .. }) => Standing::Other,
        Ok(Read {
            pair: Some(pair), ..
        }) => Standing::Certificate(pair.not_after),
    }
}
