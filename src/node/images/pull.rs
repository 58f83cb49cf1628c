//! Pulls images from registries: the distribution API (OCI distribution-spec 1.1) over HTTPS, or HTTP where configured.
//!
//! It has its own client on top of hyper: three kinds of requests, redirects, and one way to get a token. All content
//! is verified by its digest, so that only the name has to be trusted.

mod scratch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub(super) use self::scratch::{SCRATCH, Scratch, is_in_use};
use self::scratch::{fits, save};
use super::load::{Entry, LayerSource, Manifest, chains_of, choose};
use super::{Access, Credentials, Image, ImageError, Images, Reference, has_layer, unpack};
use crate::blocking::blocking;
use crate::dial::ask;

/// The Accept header for manifests.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// The largest manifest or configuration, in bytes.
const SMALL: usize = 8 << 20;
/// How long a registry may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How many redirects are followed.
const REDIRECTS: usize = 5;

/// Connects to registries. Clones share the configuration.
#[derive(Clone)]
pub struct Registries {
    tls: tokio_rustls::TlsConnector,
    plain: Vec<String>,
}

impl Registries {
    /// Uses HTTPS, with this host's CA certificates; HTTP for the registries in `plain` (`HOST:PORT`).
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(plain: Vec<String>) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (trusted, _) = roots.add_parsable_certificates(found.certs);
        if trusted == 0 {
            tracing::warn!(
                errors = ?found.errors,
                "this host has no CA certificates, so no registry is trusted: install its package ca-certificates, or set SSL_CERT_FILE"
            );
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Registries {
            tls: tokio_rustls::TlsConnector::from(Arc::new(config)),
            plain,
        })
    }

    /// Sends a request and returns the head of the response, with a timeout.
    async fn send(
        &self,
        uri: &Uri,
        accept: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, String> {
        let asked = self.ask(uri, accept, authorization);
        let asked = tokio::time::timeout(SILENCE, asked).await;
        asked.unwrap_or_else(|_| Err(format!("Get \"{uri}\": i/o timeout")))
    }

    async fn ask(
        &self,
        uri: &Uri,
        accept: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("Get \"{uri}\": {error}");
        let host = uri.host().ok_or_else(|| wrong(&"it names no host"))?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let address = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((address, port))
            .await
            .map_err(|error| wrong(&format!("dial tcp {host}:{port}: {error}")))?;
        let stream: Box<dyn Both> = match https {
            true => {
                let name = rustls::pki_types::ServerName::try_from(address.to_owned())
                    .map_err(|error| wrong(&error))?;
                Box::new(
                    self.tls
                        .connect(name, stream)
                        .await
                        .map_err(|error| wrong(&error))?,
                )
            }
            false => Box::new(stream),
        };
        let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(
                header::HOST,
                uri.authority().map_or(host, |authority| authority.as_str()),
            )
            .header(
                header::USER_AGENT,
                concat!("reddwarf/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT, accept);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| wrong(&error))?;
        ask(stream, request).await.map_err(|error| wrong(&error))
    }
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// One pull: where from, and the credentials for it.
struct Pull<'a> {
    registries: &'a Registries,
    reference: &'a Reference,
    credentials: Option<&'a Credentials>,
    authorization: Option<HeaderValue>,
}

impl Pull<'_> {
    /// Whether the registry uses plain HTTP.
    fn is_plain(&self) -> bool {
        self.registries.plain.contains(&self.reference.registry)
    }

    fn base(&self) -> String {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let host = match self.reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        format!("{scheme}://{host}")
    }

    async fn get(&mut self, path: &str, accept: &str) -> Result<Response<Incoming>, String> {
        let first = format!("{}/v2/{}/{path}", self.base(), self.reference.repository);
        let mut uri: Uri = first.parse().map_err(|error| format!("{first}: {error}"))?;
        let registry = uri.clone();
        // Whether the request never left the registry: only then it has credentials.
        let mut own = true;
        let mut asked = false;
        for _ in 0..REDIRECTS {
            let authorization = self.authorization.as_ref().filter(|_| own);
            let answer = self.registries.send(&uri, accept, authorization).await?;
            match answer.status() {
                StatusCode::OK => return Ok(answer),
                StatusCode::UNAUTHORIZED if own && !asked => {
                    asked = true;
                    self.authorize(answer.headers()).await?;
                }
                status if status.is_redirection() => {
                    let to = answer
                        .headers()
                        .get(header::LOCATION)
                        .and_then(|location| location.to_str().ok())
                        .ok_or_else(|| format!("{uri} redirects to nowhere"))?;
                    uri = redirected(&uri, to)?;
                    own = own && uri.authority() == registry.authority();
                }
                StatusCode::NOT_FOUND => return Err(format!("{}: not found", self.reference)),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err("pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed".into());
                }
                status => {
                    return Err(format!(
                        "unexpected status from GET request to {uri}: {status}"
                    ));
                }
            }
        }
        Err(format!("{first}: too many redirects"))
    }

    /// Satisfies a registry's challenge: with a token from its token server, or a password.
    async fn authorize(&mut self, asked: &HeaderMap) -> Result<(), String> {
        let challenge = asked
            .get(header::WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let basic = self.credentials.map(|own| {
            format!(
                "Basic {}",
                STANDARD.encode(format!("{}:{}", own.user, own.password))
            )
        });
        let value = |text: String| HeaderValue::from_str(&text).map_err(|error| error.to_string());
        let Some(parameters) = challenge.strip_prefix("Bearer ") else {
            self.authorization = match basic {
                Some(basic) => Some(value(basic)?),
                None => {
                    return Err(
                        "the registry asks for a user: give the pod an imagePullSecret".into(),
                    );
                }
            };
            return Ok(());
        };
        let parameter = |name: &str| {
            let start = parameters.find(&format!("{name}=\""))? + name.len() + 2;
            let end = parameters[start..].find('"')?;
            Some(parameters[start..start + end].to_owned())
        };
        let realm = parameter("realm").ok_or("the registry asks for a token of nobody")?;
        let scope = parameter("scope")
            .unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository));
        let service = parameter("service").unwrap_or_default();
        let joint = if realm.contains('?') { '&' } else { '?' };
        let whole = format!("{realm}{joint}service={service}&scope={scope}").replace(' ', "%20");
        let uri: Uri = whole.parse().map_err(|error| format!("{whole}: {error}"))?;
        // The password is sent there, and the token comes from there.
        if !self.is_plain() && uri.scheme_str() != Some("https") {
            return Err(format!(
                "the registry asks for a token of {realm}, which is not protected"
            ));
        }
        let basic = basic.map(value).transpose()?;
        let answer = self
            .registries
            .send(&uri, "application/json", basic.as_ref())
            .await?;
        if answer.status() != StatusCode::OK {
            return Err(format!(
                "failed to authorize: failed to fetch token: unexpected status: {}",
                answer.status()
            ));
        }
        let text = small(answer).await?;
        let parsed: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let token = ["token", "access_token"]
            .into_iter()
            .find_map(|name| parsed[name].as_str());
        let token = token.ok_or("failed to authorize: the answer has no token")?;
        self.authorization = Some(value(format!("Bearer {token}"))?);
        Ok(())
    }

    /// A small blob, verified by its digest.
    async fn verified(
        &mut self,
        path: &str,
        accept: &str,
        digest: Option<&str>,
    ) -> Result<(Vec<u8>, String), String> {
        let text = small(self.get(path, accept).await?).await?;
        let found = unpack::digest(&text);
        match digest {
            Some(digest) if digest != found => Err(format!(
                "failed to verify {digest}: the content has digest {found}"
            )),
            _ => Ok((text, found)),
        }
    }
}

/// Where a redirect of `uri` leads.
fn redirected(uri: &Uri, to: &str) -> Result<Uri, String> {
    let whole = match to.starts_with('/') {
        true => format!(
            "{}://{}{to}",
            uri.scheme_str().unwrap_or("https"),
            uri.authority().map_or("", |authority| authority.as_str())
        ),
        false => to.to_owned(),
    };
    let next: Uri = whole.parse().map_err(|error| format!("{whole}: {error}"))?;
    if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
        return Err(format!("{uri} redirects to {next}, which is not protected"));
    }
    Ok(next)
}

async fn small(answer: Response<Incoming>) -> Result<Vec<u8>, String> {
    let body = Limited::new(answer.into_body(), SMALL);
    let collected = tokio::time::timeout(SILENCE, body.collect())
        .await
        .map_err(|_| "i/o timeout".to_owned())?;
    Ok(collected
        .map_err(|error| error.to_string())?
        .to_bytes()
        .to_vec())
}

impl Images {
    /// Pulls an image and records it under its name, usable by those whom `access` admits.
    ///
    /// # Errors
    /// [`ImageError::Registry`] with the registry's message, or with what is wrong with its content.
    pub async fn pull(
        &self,
        registries: &Registries,
        name: &str,
        credentials: Option<&Credentials>,
        access: Option<Access>,
    ) -> Result<Image, ImageError> {
        let reference = Reference::parse(name)?;
        // A concurrent pull of the same image then finds its layers here.
        let _alone = self.alone(&reference.to_string()).await;
        let mut pull = Pull {
            registries,
            reference: &reference,
            credentials,
            authorization: None,
        };
        let wrong = ImageError::Registry;
        let version = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.clone(),
            (None, tag) => tag.clone().unwrap_or_default(),
        };
        let path = format!("manifests/{version}");
        let (mut text, top) = pull
            .verified(&path, MANIFESTS, reference.digest.as_deref())
            .await
            .map_err(wrong)?;
        let parse = |text: &[u8]| {
            serde_json::from_slice::<Manifest>(text)
                .map_err(|error| wrong(format!("the manifest: {error}")))
        };
        let mut manifest = parse(&text)?;
        if manifest.config.is_none() {
            let chosen = choose(&manifest.manifests)
                .ok_or_else(|| wrong("no match for platform in manifest: not found".into()))?;
            let path = format!("manifests/{}", chosen.digest);
            let digest = chosen.digest.clone();
            (text, _) = pull
                .verified(&path, MANIFESTS, Some(&digest))
                .await
                .map_err(wrong)?;
            manifest = parse(&text)?;
        }
        let config = manifest
            .config
            .ok_or_else(|| wrong("the manifest has no configuration".into()))?;
        let path = format!("blobs/{}", config.digest);
        let (configuration, _) = pull
            .verified(&path, "*/*", Some(&config.digest))
            .await
            .map_err(wrong)?;
        let chains = chains_of(&configuration)?;
        let records = self.records.clone();
        let scratch = blocking(move || Scratch::new(&records)).await;
        let scratch = scratch.map_err(|error| wrong(error.to_string()))?;
        let expected: Vec<Option<String>> = manifest
            .layers
            .iter()
            .map(|layer| Some(layer.digest.clone()))
            .collect();
        let fetched = async {
            let mut room = unpack::room(&scratch.path).map_err(|error| wrong(error.to_string()))?;
            let mut fetched = BTreeSet::new();
            let mut failure = None;
            loop {
                let known = self.engine.layers().await?;
                let is_here = |index: usize| {
                    let chain: Option<&String> = chains.get(index);
                    chain.is_some_and(|chain| has_layer(&known, chain))
                };
                let missing = manifest.layers.iter().enumerate();
                let missing: Vec<_> = missing
                    .filter(|(index, _)| !is_here(*index) && !fetched.contains(index))
                    .collect();
                // While this was fetched, others may have removed a layer that was here: only then it is tried again.
                if missing.is_empty()
                    && let Some(error) = failure
                {
                    return Err(error);
                }
                fits(missing.iter().map(|(_, layer)| layer.size), room).map_err(wrong)?;
                for (index, layer) in missing {
                    let path = format!("blobs/{}", layer.digest);
                    let answer = pull.get(&path, "*/*").await.map_err(wrong)?;
                    let to = scratch.path.join(index.to_string());
                    let saved = save(answer, &to, layer.size, room).await;
                    room -= saved.map_err(wrong)?;
                    fetched.insert(index);
                }
                let from = scratch.path.clone();
                let source: LayerSource<'_> = Box::new(move |index: usize| {
                    Ok(Box::new(std::fs::File::open(from.join(index.to_string()))?) as _)
                });
                let entry = Entry {
                    name,
                    manifest: Some(&top),
                    access: access.clone(),
                };
                let image = self.install(entry, &config.digest, &configuration, &expected, source);
                match image.await {
                    Err(error) => failure = Some(error),
                    done => return done,
                }
            }
        };
        let result = fetched.await;
        drop(scratch);
        let (own, image) = (self.clone(), result?);
        blocking(move || own.came_from_registry(image)).await
    }
}

#[cfg(test)]
mod tests;
