//! Pulls images from registries: the distribution API (OCI distribution-spec 1.1) over HTTPS, or HTTP where configured.
//!
//! It has its own client on top of hyper: three kinds of requests, redirects, and one way to get a token. All content
//! is verified by its digest, so that only the name has to be trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Body, Incoming};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

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
    /// Uses HTTPS, with this host's certificate authorities; HTTP for the registries in `plain` (`HOST:PORT`).
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
                "this host has no certificate authorities, so no registry is trusted: install its package of them (ca-certificates), or set SSL_CERT_FILE"
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
        let known = self.engine.layers().await?;
        let chains = chains_of(&configuration)?;
        let _adding = self.adding().await?;
        let records = self.records.clone();
        let scratch = blocking(move || Scratch::new(&records)).await;
        let scratch = scratch.map_err(|error| wrong(error.to_string()))?;
        let is_here = |index: usize| {
            let chain: Option<&String> = chains.get(index);
            chain.is_some_and(|chain| has_layer(&known, chain))
        };
        let missing = manifest.layers.iter().enumerate();
        let missing: Vec<_> = missing.filter(|(index, _)| !is_here(*index)).collect();
        let fetched = async {
            let mut room = unpack::room(&scratch.0).map_err(|error| wrong(error.to_string()))?;
            fits(missing.iter().map(|(_, layer)| layer.size), room).map_err(wrong)?;
            for (index, layer) in missing {
                let path = format!("blobs/{}", layer.digest);
                let answer = pull.get(&path, "*/*").await.map_err(wrong)?;
                let to = scratch.0.join(index.to_string());
                let saved = save(answer, &to, layer.size, room).await;
                room -= saved.map_err(wrong)?;
            }
            let expected: Vec<Option<String>> = manifest
                .layers
                .iter()
                .map(|layer| Some(layer.digest.clone()))
                .collect();
            let from = scratch.0.clone();
            let source: LayerSource<'_> = Box::new(move |index: usize| {
                Ok(Box::new(std::fs::File::open(from.join(index.to_string()))?) as _)
            });
            let entry = Entry {
                name,
                manifest: Some(&top),
                access,
            };
            self.install(entry, &config.digest, &configuration, &expected, source)
                .await
        };
        let result = fetched.await;
        drop(scratch);
        let (own, image) = (self.clone(), result?);
        blocking(move || own.came_from_registry(image)).await
    }
}

/// A temporary directory for one pull. It is removed with it, also when the pull is cancelled: it may hold gigabytes.
struct Scratch(PathBuf);

impl Scratch {
    /// Creates one below `records`.
    fn new(records: &Path) -> std::io::Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = records.join(format!(".pull-{}-{number}", std::process::id()));
        crate::storage::remove_tree(&path)?;
        std::fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = crate::storage::remove_tree(&path) {
                let path = path.display();
                tracing::warn!(%path, %error, "cannot remove the temporary files of a pull; they stay until the agent restarts");
            }
        };
        // Deleting many or large files takes long: not on a thread of the runtime.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Checks whether layers of these sizes may be fetched onto a disk with this much free space.
fn fits(sizes: impl Iterator<Item = u64>, room: u64) -> Result<(), String> {
    match sizes.fold(0, u64::saturating_add) {
        whole if whole > room => Err(format!(
            "its layers have {} MiB, and there is room for {} MiB",
            whole >> 20,
            room >> 20
        )),
        _ => Ok(()),
    }
}

/// Writes a layer to a file; returns its size in bytes. Reads no more than the expected size, if known, and no more
/// than there is space for.
async fn save<B>(answer: Response<B>, path: &Path, expected: u64, room: u64) -> Result<u64, String>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let unexpected = |size: u64| {
        format!("unexpected commit size {size}, expected {expected}: failed precondition")
    };
    let mut file = tokio::fs::File::create(path).await.map_err(text)?;
    let mut body = answer.into_body();
    let mut size = 0;
    while let Some(frame) = tokio::time::timeout(SILENCE, body.frame())
        .await
        .map_err(|_| "i/o timeout".to_owned())?
    {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(bytes) = frame.into_data() {
            size += bytes.len() as u64;
            if expected > 0 && size > expected {
                return Err(unexpected(size));
            }
            if size > room {
                return Err(unpack::too_large(room).to_string());
            }
            file.write_all(&bytes).await.map_err(text)?;
        }
    }
    file.flush().await.map_err(text)?;
    match expected {
        0 => Ok(size),
        expected if expected == size => Ok(size),
        _ => Err(unexpected(size)),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_says_nothing_is_not_waited_for() {
        let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let silent = silent.expect("a listener");
        let at = silent.local_addr().expect("an address");
        let registries = Registries::new(Vec::new()).expect("TLS");
        // Connections are accepted and kept open.
        let listening = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = silent.accept().await {
                kept.push(stream);
            }
        });
        let uri = format!("https://{at}/v2/").parse().expect("a URI");
        let error = registries.send(&uri, "*/*", None).await;
        assert_eq!(
            error.expect_err("silence"),
            format!("Get \"https://{at}/v2/\": i/o timeout")
        );
        listening.abort();
    }

    #[tokio::test]
    async fn credentials_go_to_no_realm_that_is_less_protected_than_the_registry() {
        let reference = Reference::parse("registry.example/a:1").expect("a reference");
        const CHALLENGE: &str = "Bearer realm=\"http://127.0.0.1:1/token\",service=\"s\"";
        for (plain, expected) in [
            (
                Vec::new(),
                "http://127.0.0.1:1/token, which is not protected",
            ),
            // The registry is contacted, and nobody listens there.
            (vec!["registry.example".to_owned()], "dial tcp 127.0.0.1:1"),
        ] {
            let registries = Registries::new(plain).expect("TLS");
            let mut pull = Pull {
                registries: &registries,
                reference: &reference,
                credentials: None,
                authorization: None,
            };
            let challenge = HeaderValue::from_static(CHALLENGE);
            let headers = HeaderMap::from_iter([(header::WWW_AUTHENTICATE, challenge)]);
            let refused = pull.authorize(&headers).await;
            let error = refused.expect_err("no token");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn credentials_stay_with_the_registry_whoever_redirects_to_whom() {
        let listen = async || {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
            let listener = listener.expect("a listener");
            let at = listener.local_addr().expect("an address").to_string();
            (listener, at)
        };
        let ((registry, at), (other, elsewhere)) = (listen().await, listen().await);
        let (sees, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let (inside, outside) = (at.clone(), elsewhere.clone());
        // The registry redirects within itself and to a store, and the store within itself and back.
        let answer = move |host: &str, path: &str| match path {
            "/v2/a/blobs/b" => Some(format!("http://{inside}/moved")),
            "/moved" => Some(format!("http://{outside}/store")),
            "/store" => Some("/signed".to_owned()),
            "/signed" if host != inside => Some(format!("http://{inside}/back")),
            _ => None,
        };
        for listener in [registry, other] {
            let (sees, answer) = (sees.clone(), answer.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (sees, answer) = (sees.clone(), answer.clone());
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let host = request.headers()[header::HOST].to_str().unwrap_or_default();
                        let path = request.uri().path().to_owned();
                        let mut response = Response::new(Full::new(Bytes::from_static(b"blob")));
                        if let Some(to) = answer(host, &path) {
                            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
                            let to = HeaderValue::from_str(&to).expect("an address");
                            response.headers_mut().insert(header::LOCATION, to);
                        }
                        let authorized = request.headers().contains_key(header::AUTHORIZATION);
                        let _ = sees.send((path, authorized));
                        std::future::ready(Ok::<_, std::convert::Infallible>(response))
                    });
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let served =
                        hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                    tokio::spawn(served);
                }
            });
        }
        let registries = Registries::new(vec![at.clone()]).expect("TLS");
        let reference = Reference::parse(&format!("{at}/a:1")).expect("a reference");
        let mut pull = Pull {
            registries: &registries,
            reference: &reference,
            credentials: None,
            authorization: Some(HeaderValue::from_static("Bearer secret")),
        };
        let answer = pull.get("blobs/b", "*/*").await.expect("the blob");
        assert_eq!(answer.status(), StatusCode::OK);
        for expected in [
            ("/v2/a/blobs/b", true),
            ("/moved", true),
            ("/store", false),
            ("/signed", false),
            ("/back", false),
        ] {
            let (path, authorized) = seen.recv().await.expect("a request");
            assert_eq!((&*path, authorized), expected);
        }
    }

    #[tokio::test]
    async fn a_cancelled_pull_leaves_nothing() {
        let records = tempfile::tempdir().expect("a directory");
        let scratch = Scratch::new(records.path()).expect("made");
        let path = scratch.0.clone();
        std::fs::write(path.join("0"), "a layer").expect("written");
        drop(scratch);
        let gone = async {
            while path.exists() {
                tokio::task::yield_now().await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(60), gone).await;
        gone.expect("it is removed");
    }

    #[tokio::test]
    async fn a_layer_has_as_much_as_its_manifest_says_and_as_there_is_room_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("layer");
        for (expected, room, found) in [
            (4, 10, Ok(4)),
            (0, 10, Ok(4)),
            (0, 4, Ok(4)),
            (
                5,
                10,
                Err("unexpected commit size 4, expected 5: failed precondition".to_owned()),
            ),
            (
                3,
                10,
                Err("unexpected commit size 4, expected 3: failed precondition".to_owned()),
            ),
            (
                0,
                3,
                Err("it is larger than 0 MiB, which is the most that there is room for".to_owned()),
            ),
        ] {
            let answer = Response::new(Full::new(Bytes::from_static(b"1234")));
            let saved = save(answer, &path, expected, room).await;
            assert_eq!(saved, found, "{expected} {room}");
        }
        assert_eq!(fits([1 << 20, 1 << 20].into_iter(), 2 << 20), Ok(()));
        let refused = fits([u64::MAX, 3 << 20].into_iter(), 2 << 20);
        assert!(refused.expect_err("too much").ends_with("room for 2 MiB"));
    }
}
