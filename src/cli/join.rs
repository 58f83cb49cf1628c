//! Joining the API server of another host: by a kubeconfig, or by credentials that are only good for asking for those of a
//! node. Follows k8s.io/kubernetes/cmd/kubelet/app/server.go (buildKubeletClientConfig) and
//! pkg/kubelet/certificate/bootstrap.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ArgAction;
use kube::config::Kubeconfig;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::agent::SERVERS;
use super::discover::{self, DiscoverError, chain};
use super::patient::patient;
use crate::auth::kubeconfig::{self, Cluster};
use crate::auth::pki::{Pair, Serving, Wanted};
use crate::auth::tokens::bootstrap;
use crate::client::Changing;
use crate::client::errors::reason;
use crate::meta::{pem, time};
use crate::node::addresses::Addresses;
use crate::node::certificates::ask::{self, AskError};
use crate::node::certificates::store::{Store, StoreError};
use crate::node::certificates::upkeep::{self, Holder};
use crate::node::certificates::{self, Purpose};
use crate::node::kubelet::configz::JoinedBy;
use crate::private;
use crate::supervise::Task;

/// The flags of who joins; names and meanings are kubelet's where it has them, else kubeadm's.
#[derive(clap::Args)]
#[group(id = "joins", multiple = true)]
pub(super) struct JoinFlags {
    /// Join the API server of this kubeconfig instead of running one. With --bootstrap-kubeconfig or --server: where the
    /// kubeconfig of this node is written (kubelet.conf in the data directory unless given).
    #[arg(long, conflicts_with_all = SERVERS)]
    pub kubeconfig: Option<PathBuf>,
    /// Join by this kubeconfig, whose user may ask for the certificate of a node. It is used only as long as the one of
    /// --kubeconfig is not there, cannot be used, or has a certificate that is valid no longer.
    #[arg(long, conflicts_with_all = SERVERS)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Join this API server (https://HOST:PORT) by a token; `reddwarf token create` on its host prints the line to type.
    /// Used only as long as --bootstrap-kubeconfig would be.
    #[arg(long, conflicts_with_all = SERVERS, conflicts_with = "bootstrap_kubeconfig", value_parser = server, requires_all = ["join_token", "ca_cert_hash"])]
    pub server: Option<http::Uri>,
    /// The token to join by. Everybody on this host sees the command line; --token-file keeps it from them.
    #[arg(long, group = "join_token", requires = "server", value_parser = token)]
    pub token: Option<String>,
    /// The file with the token to join by, read whenever it is needed.
    #[arg(long, group = "join_token", requires = "server")]
    pub token_file: Option<PathBuf>,
    /// The hash of the key of the API server's authority; several, if it is one of them.
    #[arg(long, requires = "server", value_delimiter = ',', value_parser = discover::hash)]
    pub ca_cert_hash: Vec<String>,
    /// Whether the client certificate of a node that joined is renewed before it ends.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rotate_certificates: bool,
    /// Whether a node that joined asks the cluster's signer for the certificate that it serves with. Somebody has to approve
    /// that (kubectl certificate approve); until then only the node itself vouches for it.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rotate_server_certificates: bool,
}

impl JoinFlags {
    /// Whether another API server is joined.
    pub(super) fn joins(&self) -> bool {
        self.kubeconfig.is_some() || self.bootstraps()
    }

    fn bootstraps(&self) -> bool {
        self.bootstrap_kubeconfig.is_some() || self.server.is_some()
    }
}

/// The URL of an API server; HOST:PORT is one, too, as of kubeadm.
pub(super) fn server(text: &str) -> Result<http::Uri, String> {
    let whole = match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    };
    let url: http::Uri = whole.parse().map_err(|_| "it is no URL")?;
    match (url.scheme_str(), url.host(), url.path()) {
        (Some("https"), Some(host), "" | "/") if !host.is_empty() => Ok(url),
        _ => Err("it is not https://HOST:PORT".to_owned()),
    }
}

/// A bootstrap token.
pub(super) fn token(text: &str) -> Result<String, String> {
    match bootstrap::parts(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("it is not of the form abcdef.0123456789abcdef".to_owned()),
    }
}

/// Why an API server cannot be joined. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A kubeconfig.
    #[error("cannot use the kubeconfig {}: {cause}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The node's credentials are too old, and there are none to ask for others.
    #[error(
        "the client certificate of {} was valid until {until}: run `reddwarf token create` on the host of the API server, and start the agent with the line that it prints",
        path.display()
    )]
    Ended {
        /// The kubeconfig.
        path: PathBuf,
        /// Until when, as text.
        until: String,
    },
    /// The file with the token.
    #[error("cannot use the token file {}: {cause}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The command line names neither of them.
    #[error("there is nothing to join by: give --bootstrap-kubeconfig, or --server and --token")]
    Nothing,
    /// What joins has many nodes.
    #[error(
        "a certificate is of one node: leave --simulated-nodes away, or join by a --kubeconfig of somebody who may be all of them"
    )]
    Many,
    /// Who the API server is.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The token.
    #[error(
        "the API server {url} does not take the token or certificate that this node was given to join by: it has expired, or was deleted; run `reddwarf token create` on its host and type the line that it prints"
    )]
    Refused {
        /// Its URL.
        url: String,
    },
    /// The certificate.
    #[error("{}", told(.0))]
    Ask(#[from] AskError),
    /// Where certificates are kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn told(error: &AskError) -> String {
    match error {
        AskError::Api { what, cause } if !matches!(cause, kube::Error::Api(_)) => {
            format!("the {what} cannot be asked for: {}", chain(cause))
        }
        other => other.to_string(),
    }
}

/// What a kubeconfig is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// There is no such file.
    Missing,
    /// It cannot be used: why.
    Useless(String),
    /// It has no client certificate, but is one.
    Other,
    /// Its client certificate is valid, or was until then, in seconds since 1970.
    Certificate(i64),
}

/// What is done where there is such a kubeconfig at `now`.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// It is used.
    Use,
    /// Other credentials are used to ask for new ones.
    Bootstrap,
    /// Neither can be done.
    Fail,
}

/// Upstream's rule: what is there counts as long as it is a valid certificate's, and what could replace it is not looked at.
fn way(standing: &Standing, can_bootstrap: bool, now: i64) -> Way {
    match (standing, can_bootstrap) {
        (Standing::Certificate(until), _) if now <= *until => Way::Use,
        (Standing::Other, false) => Way::Use,
        (_, true) => Way::Bootstrap,
        (_, false) => Way::Fail,
    }
}

/// A kubeconfig as it was read.
struct Read {
    config: kube::Config,
    /// The client certificate in it, or in the file that it names.
    pair: Option<Pair>,
}

/// An API server that was joined.
pub(super) struct Joined {
    /// The way to it, with the credentials of the moment.
    pub client: kube::Client,
    /// Its authorities.
    pub authority: Vec<Vec<u8>>,
    /// The kubeconfig of the node.
    pub kubeconfig: PathBuf,
    /// The directory of certificates.
    directory: PathBuf,
    node: Option<String>,
    rotates_serving: bool,
    renewal: Option<Arc<Renewal>>,
}

/// What joins.
pub(super) struct Joining<'a> {
    /// The flags.
    pub flags: &'a JoinFlags,
    /// The agent's directory.
    pub data: &'a Path,
    /// The nodes that it runs.
    pub names: &'a [String],
}

/// Reads a kubeconfig, and the certificate that it names.
async fn read(path: &Path) -> Result<Read, Standing> {
    let useless = |error: &dyn std::fmt::Display| Standing::Useless(super::brief(error));
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
    // Secrets are shown by being written.
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

/// What a kubeconfig holds, or the file that it names.
fn text_of(data: Option<&str>, path: Option<&str>) -> Result<String, String> {
    if let Some(data) = data {
        let bytes = STANDARD.decode(data).map_err(|error| error.to_string())?;
        return String::from_utf8(bytes).map_err(|error| error.to_string());
    }
    let path = path.ok_or("one of certificate and key is missing")?;
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn standing(read: &Result<Read, Standing>) -> Standing {
    match read {
        Err(standing) => standing.clone(),
        Ok(Read { pair: None, .. }) => Standing::Other,
        Ok(Read {
            pair: Some(pair), ..
        }) => Standing::Certificate(pair.not_after),
    }
}

impl Joining<'_> {
    /// Joins: by the kubeconfig, or by asking for the certificate that goes into it.
    ///
    /// # Errors
    /// [`JoinError`]
    pub(super) async fn join(&self) -> Result<Joined, JoinError> {
        let (flags, now) = (self.flags, time::now());
        let own = || self.data.join("kubelet.conf");
        let path = flags.kubeconfig.clone().unwrap_or_else(own);
        let wrong = |cause: String| JoinError::Kubeconfig {
            path: path.clone(),
            cause,
        };
        let found = read(&path).await;
        let standing = standing(&found);
        let bootstrap = match way(&standing, flags.bootstraps(), now) {
            Way::Use => {
                if flags.bootstraps() {
                    let path = path.display();
                    tracing::info!("{path} is used, and nothing else to join by is looked at");
                }
                None
            }
            Way::Bootstrap => {
                if let Standing::Useless(why) = &standing {
                    tracing::warn!("{} is made anew: {why}", path.display());
                }
                Some(self.bootstrap(&path).await?)
            }
            Way::Fail => {
                return Err(match standing {
                    Standing::Certificate(until) => JoinError::Ended {
                        until: time::print(until),
                        path,
                    },
                    Standing::Useless(cause) => wrong(cause),
                    _ => wrong("there is no such file".to_owned()),
                });
            }
        };
        let found = match bootstrap {
            None => found,
            Some(_) => read(&path).await,
        };
        let Ok(Read { config, pair }) = found else {
            return Err(wrong("it cannot be read again".to_owned()));
        };
        self.joined(path, config, pair, bootstrap)
    }

    /// What there is once there is a kubeconfig.
    fn joined(
        &self,
        kubeconfig: PathBuf,
        config: kube::Config,
        pair: Option<Pair>,
        bootstrap: Option<kube::Config>,
    ) -> Result<Joined, JoinError> {
        let wrong = |cause: kube::Error| JoinError::Kubeconfig {
            path: kubeconfig.clone(),
            cause: cause.to_string(),
        };
        let authority = config.root_cert.clone().unwrap_or_default();
        let directory = self.data.join("pki");
        let node = match self.names {
            [node] => Some(node.clone()),
            _ => None,
        };
        // Credentials that are not this node's are somebody else's to renew.
        let own = node.as_ref().zip(pair).filter(|(node, pair)| {
            self.flags.rotate_certificates && pair.subject == certificates::subject(node)
        });
        let Some((name, given)) = own else {
            return Ok(Joined {
                client: patient(config).map_err(wrong)?,
                rotates_serving: self.flags.rotate_server_certificates,
                authority,
                kubeconfig,
                directory,
                node,
                renewal: None,
            });
        };
        let store = Store::open(&directory, Purpose::Client)?;
        let kept = kept(&store, &authority, &certificates::client(name.as_str()))?;
        // The one that was renewed last; an operator may have given a newer one since.
        let kept = kept.filter(|kept| kept.not_after >= given.not_after);
        let way = match &kept {
            Some(_) => by_file(&config, &store),
            None => config.clone(),
        };
        let changing = Changing::new(patient(way).map_err(wrong)?);
        let asking = bootstrap.map(patient).transpose().map_err(wrong)?;
        Ok(Joined {
            client: changing.client(),
            rotates_serving: self.flags.rotate_server_certificates,
            authority,
            kubeconfig,
            directory,
            renewal: Some(Arc::new(Renewal {
                wanted: certificates::client(name.as_str()),
                held: Mutex::new(kept.or(Some(given))),
                config,
                store,
                changing,
                bootstrap: asking,
            })),
            node,
        })
    }

    /// Asks for the node's certificate, and writes the kubeconfig that names it. Returns the way by which was asked.
    async fn bootstrap(&self, path: &Path) -> Result<kube::Config, JoinError> {
        let [node] = self.names else {
            return Err(JoinError::Many);
        };
        let config = self.asking().await?;
        let store = Store::open(&self.data.join("pki"), Purpose::Client)?;
        let wanted = certificates::client(node);
        let authority = config.root_cert.clone().unwrap_or_default();
        // The agent may have been killed between the certificate and the kubeconfig.
        if kept(&store, &authority, &wanted)?.is_none() {
            let failed = |cause: kube::Error| JoinError::Kubeconfig {
                path: path.to_owned(),
                cause: cause.to_string(),
            };
            let client = patient(config.clone()).map_err(failed)?;
            let url = named(&config.cluster_url);
            answers(&client, &url).await?;
            tracing::info!("asking {url} for the certificate of node {node}");
            match ask::ask(&client, &store, &wanted).await {
                Err(AskError::Api { cause, .. }) if reason(&cause) == "Unauthorized" => {
                    return Err(JoinError::Refused { url });
                }
                asked => asked?,
            };
        }
        write(path, &config, &store.path()).map_err(|cause| JoinError::Kubeconfig {
            path: path.to_owned(),
            cause: format!("it cannot be written: {cause}"),
        })?;
        Ok(config)
    }

    /// The way by which a certificate is asked for.
    async fn asking(&self) -> Result<kube::Config, JoinError> {
        let flags = self.flags;
        if let Some(path) = &flags.bootstrap_kubeconfig {
            let wrong = |cause: String| JoinError::Kubeconfig {
                path: path.clone(),
                cause,
            };
            return match read(path).await {
                Ok(read) => Ok(read.config),
                Err(Standing::Useless(why)) => Err(wrong(why)),
                Err(_) => Err(wrong("there is no such file".to_owned())),
            };
        }
        let token = match &flags.token_file {
            Some(path) => Some(read_token(path)?),
            None => flags.token.clone(),
        };
        let Some((url, token)) = flags.server.as_ref().zip(token) else {
            return Err(JoinError::Nothing);
        };
        let believed = discover::authorities(url, &flags.ca_cert_hash).await?;
        let mut config = kube::Config::new(url.clone());
        config.root_cert = Some(
            pem::blocks(&believed)
                .into_iter()
                .map(|block| block.bytes)
                .collect(),
        );
        config.auth_info.token = Some(token.into());
        Ok(config)
    }
}

/// The token in a file, which may end with an empty line.
fn read_token(path: &Path) -> Result<String, JoinError> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    let read = text.and_then(|text| token(text.trim()));
    read.map_err(|cause| JoinError::TokenFile {
        path: path.to_owned(),
        cause,
    })
}

/// The certificate that a store has, if it is good for what is wanted here and now.
fn kept(store: &Store, authority: &[Vec<u8>], wanted: &Wanted) -> Result<Option<Pair>, StoreError> {
    let authority: Vec<CertificateDer<'_>> = authority
        .iter()
        .map(|one| CertificateDer::from(one.as_slice()))
        .collect();
    let kept = store.current()?.filter(|pair| {
        pair.subject == wanted.subject && pair.not_after >= time::now() && pair.is_of(&authority)
    });
    Ok(kept)
}

/// A way whose credentials are those of a store.
fn by_file(config: &kube::Config, store: &Store) -> kube::Config {
    let mut config = config.clone();
    let path = store.path().display().to_string();
    config.auth_info = kube::config::AuthInfo {
        client_certificate: Some(path.clone()),
        client_key: Some(path),
        ..kube::config::AuthInfo::default()
    };
    config
}

/// Writes the kubeconfig that names the file with the node's certificate and key.
fn write(path: &Path, config: &kube::Config, identity: &Path) -> std::io::Result<()> {
    let authorities: Option<String> = config.root_cert.as_ref().map(|all| {
        let texts = all.iter().map(|one| pem::text("CERTIFICATE", one));
        texts.collect()
    });
    let proxy = config.proxy_url.as_ref().map(ToString::to_string);
    let cluster = Cluster {
        url: &named(&config.cluster_url),
        authorities: authorities.as_deref(),
        insecure: config.accept_invalid_certs,
        server_name: config.tls_server_name.as_deref(),
        proxy: proxy.as_deref(),
    };
    let identity = std::path::absolute(identity)?;
    let text = kubeconfig::with_file(&cluster, &identity.display().to_string());
    private::write_whole(path, text.as_bytes())
}

/// How long an API server that does not answer is asked again, as upstream does.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(2);

/// A URL as it is typed.
pub(super) fn named(url: &http::Uri) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

/// Waits until the API server answers anything.
async fn answers(client: &kube::Client, url: &str) -> Result<(), JoinError> {
    let begun = std::time::Instant::now();
    loop {
        let request = http::Request::get("/healthz").body(Vec::new());
        let asked = match request {
            Ok(request) => client.request_text(request).await,
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        match asked {
            Ok(_) | Err(kube::Error::Api(_)) => return Ok(()),
            Err(error) if begun.elapsed() < PATIENCE => {
                tracing::info!("waiting for the API server {url}: {}", chain(&error));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                let why = chain(&error);
                let url = url.to_owned();
                return Err(DiscoverError::Silent { url, why }.into());
            }
        }
    }
}

/// Keeps the client certificate of a node renewed.
struct Renewal {
    store: Store,
    wanted: Wanted,
    held: Mutex<Option<Pair>>,
    /// The way to the API server, without the node's own credentials.
    config: kube::Config,
    changing: Changing,
    /// Who may ask where the node's own certificate has ended.
    bootstrap: Option<kube::Client>,
}

impl Holder for Renewal {
    fn take(&self, pair: &Pair) {
        *self.held.lock() = Some(pair.clone());
        match patient(by_file(&self.config, &self.store)) {
            Ok(client) => self.changing.replace(client),
            Err(error) => tracing::error!(%error, "the renewed client certificate is not used"),
        }
    }

    fn lost(&self) {
        *self.held.lock() = None;
        tracing::error!(
            "the client certificate of this node has ended: the API server does not know it any more; unless another one is issued soon, run `reddwarf token create` on its host and start the agent with the line that it prints"
        );
    }

    fn client(&self, held: Option<&Pair>) -> kube::Client {
        match (&self.bootstrap, held) {
            (Some(bootstrap), None) => bootstrap.clone(),
            _ => self.changing.client(),
        }
    }
}

/// Shows the certificate that the cluster's signer issued for a node.
struct Shown {
    store: Store,
    authority: Vec<Vec<u8>>,
    serving: Arc<Serving>,
    /// The name and addresses of the node.
    names: Mutex<Vec<String>>,
    client: kube::Client,
}

impl Shown {
    /// Keeps the certificate renewed, and asks for another one when the node has other addresses, until `ends` is cancelled.
    async fn keep(&self, node: &str, mut addresses: Addresses, ends: CancellationToken) {
        loop {
            let now = addresses.all();
            let names = [node.to_owned()].into_iter().chain(now.iter().cloned());
            *self.names.lock() = names.collect();
            let wanted = certificates::serving(node, &now);
            let kept = async {
                match wanted {
                    Some(wanted) => self.renew(&wanted, ends.clone()).await,
                    // Upstream asks for none without an address.
                    None => ends.cancelled().await,
                }
            };
            tokio::select! {
                () = kept => return,
                // A request that is waited for is abandoned: it is for the wrong addresses.
                () = addresses.changed() => {}
            }
        }
    }

    async fn renew(&self, wanted: &Wanted, ends: CancellationToken) {
        let held = kept(&self.store, &self.authority, wanted).unwrap_or_else(|error| {
            tracing::warn!(%error, "the serving certificate that was kept is not used");
            None
        });
        if held.is_none() {
            self.lost();
        }
        upkeep::keep(&self.store, wanted, held, self, ends).await;
    }
}

impl Holder for Shown {
    fn take(&self, pair: &Pair) {
        self.serving.show(pair);
    }

    fn lost(&self) {
        if let Err(error) = self.serving.show_self_signed(&self.names.lock()) {
            tracing::error!(%error, "the node serves with a certificate that has ended");
        }
    }

    fn client(&self, _: Option<&Pair>) -> kube::Client {
        self.client.clone()
    }
}

impl Joined {
    /// What is done about the node's certificates.
    pub(super) fn certificates(&self) -> JoinedBy {
        JoinedBy {
            rotates_client: self.renewal.is_some(),
            rotates_serving: self.rotates_serving,
            client_ca: None,
        }
    }

    /// The node that serves under these addresses, as they change, shows `serving`: what its signer issued, if that is still
    /// good, and what will be issued. Returns the tasks that keep certificates renewed.
    ///
    /// # Errors
    /// [`JoinError::Store`]
    pub(super) fn tasks(
        &self,
        serving: Option<(Arc<Serving>, Addresses)>,
    ) -> Result<Vec<Task>, JoinError> {
        let mut tasks = Vec::new();
        if let Some(renewal) = self.renewal.clone() {
            tasks.push(Task::new("client certificate of the node", move |ends| {
                let renewal = renewal.clone();
                async move {
                    let held = renewal.held.lock().clone();
                    upkeep::keep(&renewal.store, &renewal.wanted, held, &*renewal, ends).await;
                }
            }));
        }
        let node = self.node.clone().filter(|_| self.rotates_serving);
        if let Some(((serving, addresses), node)) = serving.zip(node) {
            let shown = Arc::new(Shown {
                store: Store::open(&self.directory, Purpose::Serving)?,
                authority: self.authority.clone(),
                serving,
                names: Mutex::default(),
                client: self.client.clone(),
            });
            // Before the first client comes.
            if let Some(wanted) = certificates::serving(&node, &addresses.all())
                && let Some(pair) = kept(&shown.store, &self.authority, &wanted)?
            {
                shown.take(&pair);
            }
            tasks.push(Task::new("serving certificate of the node", move |ends| {
                let (shown, node, addresses) = (shown.clone(), node.clone(), addresses.clone());
                async move { shown.keep(&node, addresses, ends).await }
            }));
        }
        Ok(tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_counts_as_long_as_it_is_good() {
        use Standing::*;
        for (standing, can_bootstrap, expected) in [
            (Missing, true, Way::Bootstrap),
            (Missing, false, Way::Fail),
            (Useless("a".to_owned()), true, Way::Bootstrap),
            (Useless("a".to_owned()), false, Way::Fail),
            (Other, true, Way::Bootstrap),
            (Other, false, Way::Use),
            (Certificate(100), true, Way::Use),
            (Certificate(100), false, Way::Use),
            (Certificate(99), true, Way::Bootstrap),
            (Certificate(99), false, Way::Fail),
        ] {
            let told = way(&standing, can_bootstrap, 100);
            assert_eq!(told, expected, "{standing:?} {can_bootstrap}");
        }
    }

    #[test]
    fn servers_are_named_by_url_or_as_kubeadm_names_them() {
        for (text, expected) in [
            ("https://192.0.2.1:6443", Some("https://192.0.2.1:6443/")),
            ("192.0.2.1:6443", Some("https://192.0.2.1:6443/")),
            ("https://[fd00::1]:6443/", Some("https://[fd00::1]:6443/")),
            ("http://192.0.2.1:6443", None),
            ("https://192.0.2.1/a", None),
            ("", None),
        ] {
            let told = server(text).ok().map(|url| url.to_string());
            assert_eq!(told.as_deref(), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_written_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = crate::auth::pki::Pki::open(dir.path(), [""; 0]).expect("keys");
        let issued = pki
            .issue_client("system:node:n", "system:nodes", time::now(), 1)
            .expect("issued");
        let identity = dir.path().join("a \"b\".pem");
        let text = format!("{}{}", issued.certificate, issued.key);
        std::fs::write(&identity, text).expect("written");
        let mut config = kube::Config::new("https://192.0.2.1:6443".parse().expect("a URL"));
        let roots = pem::blocks(pki.ca_pem())
            .into_iter()
            .map(|block| block.bytes);
        config.root_cert = Some(roots.collect());
        config.tls_server_name = Some("n.example".to_owned());
        let path = dir.path().join("kubelet.conf");
        assert_eq!(read(&path).await.map(|_| ()), Err(Standing::Missing));
        write(&path, &config, &identity).expect("written");
        let again = read(&path)
            .await
            .unwrap_or_else(|wrong| panic!("{wrong:?}"));
        assert_eq!(again.config.cluster_url, config.cluster_url);
        assert_eq!(again.config.root_cert, config.root_cert);
        assert_eq!(again.config.tls_server_name, config.tls_server_name);
        let pair = again.pair.expect("a certificate");
        assert_eq!(pair.subject, certificates::subject("n"));
        let authority = config.root_cert.unwrap_or_default();
        let authority: Vec<_> = authority.into_iter().map(CertificateDer::from).collect();
        assert!(pair.is_of(&authority) && !pair.is_of(&[]));

        std::fs::write(&identity, "").expect("written");
        assert!(
            matches!(read(&path).await, Err(Standing::Useless(_))),
            "an empty file"
        );
        std::fs::write(&path, "").expect("written");
        assert!(
            matches!(read(&path).await, Err(Standing::Useless(_))),
            "an empty kubeconfig"
        );
    }
}
