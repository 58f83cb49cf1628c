//! Joining the API server of another host: with a kubeconfig, or by requesting a node's client certificate with
//! bootstrap credentials. Follows k8s.io/kubernetes/cmd/kubelet/app/server.go (buildKubeletClientConfig) and
//! pkg/kubelet/certificate/bootstrap.

mod error;
mod renewal;
mod standing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ArgAction;
use parking_lot::Mutex;

use self::renewal::{Renewal, Shown, by_file, kept};
use self::standing::{Read, Standing, Way, read, standing, way};
use super::agent::SERVERS;
use super::discover::{self, DiscoverError, chain};
use super::patient::patient;
use crate::auth::kubeconfig::{self, Cluster};
use crate::auth::pki::{Pair, Serving};
use crate::auth::tokens::bootstrap;
use crate::client::Changing;
use crate::client::errors::reason;
use crate::meta::{pem, time};
use crate::node::addresses::Addresses;
use crate::node::certificates::ask::{self, AskError};
use crate::node::certificates::store::Store;
use crate::node::certificates::upkeep::{self, Holder as _};
use crate::node::certificates::{self, Purpose};
use crate::node::kubelet::configz::JoinedBy;
use crate::private;
use crate::supervise::Task;

pub use self::error::JoinError;

/// The flags for joining; named as in the kubelet, or else as in kubeadm.
#[derive(clap::Args)]
#[group(id = "joins", multiple = true)]
pub(super) struct JoinFlags {
    /// Use the API server of this kubeconfig instead of running one. With --bootstrap-kubeconfig or --server: where to
    /// write the node's kubeconfig (default: kubelet.conf in the data directory).
    #[arg(long, conflicts_with_all = SERVERS)]
    pub kubeconfig: Option<PathBuf>,
    /// Request the node's client certificate with this kubeconfig. Used only if the file given by --kubeconfig does not
    /// exist, is unusable, or has an expired certificate.
    #[arg(long, conflicts_with_all = SERVERS)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Join the API server at https://HOST:PORT with a token; `reddwarf token create` on its host prints the command
    /// line. Used under the same conditions as --bootstrap-kubeconfig.
    #[arg(long, conflicts_with_all = SERVERS, conflicts_with = "bootstrap_kubeconfig", value_parser = server, requires_all = ["join_token", "ca_cert_hash"])]
    pub server: Option<http::Uri>,
    /// The token to join by. Everybody on this host sees the command line; --token-file keeps it from them.
    #[arg(long, group = "join_token", requires = "server", value_parser = token)]
    pub token: Option<String>,
    /// The file with the token to join by, read whenever it is needed.
    #[arg(long, group = "join_token", requires = "server")]
    pub token_file: Option<PathBuf>,
    /// The hash of the public key of the API server's CA (sha256:...); if several are given, one has to match.
    #[arg(long, requires = "server", value_delimiter = ',', value_parser = discover::hash)]
    pub ca_cert_hash: Vec<String>,
    /// Whether to renew the client certificate of a node that joined before it expires.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rotate_certificates: bool,
    /// Whether a node that joined requests its serving certificate from the cluster's signer. Requests have to be
    /// approved (kubectl certificate approve); until then the node's certificate is self-signed.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rotate_server_certificates: bool,
}

impl JoinFlags {
    /// Whether to join another API server.
    pub(super) fn joins(&self) -> bool {
        self.kubeconfig.is_some() || self.bootstraps()
    }

    fn bootstraps(&self) -> bool {
        self.bootstrap_kubeconfig.is_some() || self.server.is_some()
    }
}

/// Parses the URL of an API server; HOST:PORT is accepted as in kubeadm.
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

/// Checks the form of a bootstrap token.
pub(super) fn token(text: &str) -> Result<String, String> {
    match bootstrap::parts(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("it is not of the form abcdef.0123456789abcdef".to_owned()),
    }
}

/// The connection to an API server that was joined.
pub(super) struct Joined {
    /// Uses the node's current credentials.
    pub client: kube::Client,
    /// The server's CAs.
    pub authority: Vec<Vec<u8>>,
    /// The path of the node's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The directory of the node's certificates.
    directory: PathBuf,
    node: Option<String>,
    rotates_serving: bool,
    renewal: Option<Arc<Renewal>>,
}

/// The parameters of joining.
pub(super) struct Joining<'a> {
    /// The flags.
    pub flags: &'a JoinFlags,
    /// The agent's data directory.
    pub data: &'a Path,
    /// The names of its nodes.
    pub names: &'a [String],
}

impl Joining<'_> {
    /// Joins with the kubeconfig, or by requesting the certificate for it.
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
                    tracing::info!("using {path}, and ignoring other credentials to join with");
                }
                None
            }
            Way::Bootstrap => {
                if let Standing::Useless(why) = &standing {
                    tracing::warn!("creating {} again: {why}", path.display());
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

    /// The connection that a kubeconfig gives.
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
        // Only the node's own credentials are renewed here.
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
        // Use the last renewed certificate, unless the operator has provided a newer one since.
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

    /// Requests the node's certificate and writes the kubeconfig that refers to it. Returns the configuration that was
    /// used for the request.
    async fn bootstrap(&self, path: &Path) -> Result<kube::Config, JoinError> {
        let [node] = self.names else {
            return Err(JoinError::Many);
        };
        let config = self.asking().await?;
        let store = Store::open(&self.data.join("pki"), Purpose::Client)?;
        let wanted = certificates::client(node);
        let authority = config.root_cert.clone().unwrap_or_default();
        // The agent may have been killed after storing the certificate and before writing the kubeconfig.
        if kept(&store, &authority, &wanted)?.is_none() {
            let failed = |cause: kube::Error| JoinError::Kubeconfig {
                path: path.to_owned(),
                cause: cause.to_string(),
            };
            let client = patient(config.clone()).map_err(failed)?;
            let url = named(&config.cluster_url);
            answers(&client, &url).await?;
            tracing::info!("requesting the certificate of node {node} from {url}");
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

    /// The configuration for requesting a certificate.
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

/// Writes a kubeconfig that refers to the file `identity` with the node's certificate and key.
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

/// How long to wait for an API server that does not answer; as upstream.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(2);

/// A URL as users write it.
pub(super) fn named(url: &http::Uri) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

/// Waits until the API server gives any answer.
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
mod tests;
