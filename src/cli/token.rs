//! `reddwarf token create`: creates a token with which other hosts join, and prints the command line to use there.
//! Follows k8s.io/kubernetes/cmd/kubeadm/app/{cmd/token.go,phases/bootstraptoken,apis/bootstraptoken/v1}.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, ListParams, PostParams};
use kube::config::Kubeconfig;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::discover::{KEY, NAME, NAMESPACE};
use super::join;
use super::patient::patient;
use crate::auth::pki::key_hash;
use crate::auth::tokens::bootstrap::{self, PREFIX};
use crate::client::errors::{is_already_exists, is_not_found, text};
use crate::meta::{pem, time};
use crate::node::ranges::{self, Ranged};
use crate::schema::check::formats::go_duration;

/// The group of nodes' tokens, which kubeadm allows to request certificates that are approved automatically.
const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// The role of nodes that keep volumes, and its binding.
const KEEPERS: &str = "nodes-keep-their-volumes";

/// The arguments of `token`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Create a bootstrap token, and print the command line for joining with it. On first use, also create what joining
    /// requires: the permissions of tokens and nodes, and the ConfigMap kube-public/cluster-info.
    Create(Create),
}

#[derive(clap::Args)]
struct Create {
    /// The token (abcdef.0123456789abcdef); random by default.
    #[arg(value_parser = token)]
    token: Option<String>,
    /// The administrator's kubeconfig; by default the one in the data directory.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The data directory of the server.
    #[arg(long, default_value = "reddwarf-data")]
    data_dir: PathBuf,
    /// The token's lifetime (1h30m); 0 for no expiry.
    #[arg(long, value_parser = ttl, default_value = "24h")]
    ttl: i64,
    /// What the token may be used for.
    #[arg(long, value_delimiter = ',', value_parser = ["signing", "authentication"], default_values_t = ["signing".to_owned(), "authentication".to_owned()])]
    usages: Vec<String>,
    /// The groups of clients that authenticate with the token (system:bootstrappers:...).
    #[arg(long, value_delimiter = ',', value_parser = group, default_values_t = [GROUP.to_owned()])]
    groups: Vec<String>,
    /// A description of the token's purpose.
    #[arg(long)]
    description: Option<String>,
    /// The URL at which other hosts reach the API server. By default the one in the kubeconfig or, if that is a
    /// loopback address, the address of the service kubernetes' endpoint.
    #[arg(long, value_parser = join::server)]
    server: Option<http::Uri>,
}

fn token(text: &str) -> Result<String, String> {
    join::token(text)
}

/// Parses a duration into seconds.
fn ttl(text: &str) -> Result<i64, String> {
    go_duration(text)
        .map(|nanos| nanos / 1_000_000_000)
        .filter(|seconds| *seconds >= 0)
        .ok_or_else(|| "it is not a duration such as 24h".to_owned())
}

fn group(text: &str) -> Result<String, String> {
    match bootstrap::is_group(text) {
        true => Ok(text.to_owned()),
        false => Err("it does not begin with system:bootstrappers:, or has other characters than a-z, 0-9, : and - behind it".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// What failed, why, and what to do.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Command::Create(create) = arguments.command;
    super::serve::blocking(create.run()).map_err(|error| error.to_string())?
}

/// A random token: id and secret, of lower-case letters and digits.
fn random_token() -> String {
    const SIGNS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut signs = String::new();
    while signs.len() < 22 {
        let mut bytes = [0; 32];
        crate::meta::names::random(&mut bytes);
        // Rejecting the largest values makes every character equally likely.
        let fair = bytes.iter().filter(|byte| **byte < 252);
        let fair = fair.map(|byte| char::from(SIGNS[usize::from(byte % 36)]));
        signs.extend(fair.take(22 - signs.len()));
    }
    format!("{}.{}", &signs[..6], &signs[6..])
}

impl Create {
    /// The secret of a token created at `now`, like kubeadm's.
    fn secret(&self, id: &str, secret: &str, now: i64) -> Secret {
        let mut data = BTreeMap::from([
            ("token-id".to_owned(), id.to_owned()),
            ("token-secret".to_owned(), secret.to_owned()),
            ("auth-extra-groups".to_owned(), self.groups.join(",")),
        ]);
        if self.ttl > 0 {
            data.insert("expiration".to_owned(), time::print(now + self.ttl));
        }
        if let Some(description) = &self.description {
            data.insert("description".to_owned(), description.clone());
        }
        for usage in &self.usages {
            data.insert(format!("usage-bootstrap-{usage}"), "true".to_owned());
        }
        let data = data.into_iter();
        let data = data.map(|(key, value)| (key, ByteString(value.into_bytes())));
        let mut made = Secret {
            type_: Some(bootstrap::TYPE.to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        };
        made.metadata.name = Some(format!("{PREFIX}{id}"));
        made.metadata.namespace = Some("kube-system".to_owned());
        made
    }

    async fn run(self) -> Result<(), String> {
        let own = || self.data_dir.join("kubeconfig");
        let path = self.kubeconfig.clone().unwrap_or_else(own);
        let wrong = |cause: &dyn std::fmt::Display| {
            format!(
                "cannot use the kubeconfig {}: {}; run this on the host of the API server, or give --kubeconfig or --data-dir",
                path.display(),
                super::brief(cause)
            )
        };
        let file = Kubeconfig::read_from(&path).map_err(|error| wrong(&error))?;
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await;
        let config = config.map_err(|error| wrong(&error))?;
        let authorities = config.root_cert.clone().unwrap_or_default();
        if authorities.is_empty() {
            return Err(wrong(&"it names no certificate-authority"));
        }
        let client = patient(config.clone()).map_err(|error| wrong(&error))?;
        let failed = |error: kube::Error| match &error {
            kube::Error::Api(_) => text(&error),
            other => super::discover::chain(other),
        };
        let url = match &self.server {
            Some(url) => url.clone(),
            None => outside(&client, &config.cluster_url).await?,
        };
        prepare(&client, &url, &authorities).await.map_err(failed)?;
        let token = self.token.clone().unwrap_or_else(random_token);
        let (id, secret) = bootstrap::parts(&token).ok_or("it is no token")?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
        let made = self.secret(id, secret, time::now());
        match secrets.create(&PostParams::default(), &made).await {
            Err(error) if is_already_exists(&error) => {
                return Err(format!(
                    "there is a token {id} already; to have it made anew: kubectl delete secret -n kube-system {PREFIX}{id}"
                ));
            }
            made => made.map_err(failed)?,
        };
        let nodes: Api<Ranged> = Api::all(client);
        let nodes = nodes.list(&ListParams::default()).await.map_err(failed)?;
        let hashes = authorities
            .iter()
            .map(|one| key_hash(&CertificateDer::from(one.as_slice())))
            .collect::<Result<Vec<_>, _>>()?;
        super::say(&line(
            &url,
            &token,
            &hashes,
            ranges::free(&nodes.items).as_deref(),
        ));
        Ok(())
    }
}

/// The command line for the host that is to join.
fn line(url: &http::Uri, token: &str, hashes: &[String], range: Option<&str>) -> String {
    let url = join::named(url);
    let range = range.map_or_else(String::new, |range| format!(" --pod-cidr {range}"));
    format!(
        "reddwarf agent --server {url} --token {token} --ca-cert-hash {}{range}",
        hashes.join(",")
    )
}

/// The URL at which other hosts reach the API server that this one reaches at `known`.
async fn outside(client: &kube::Client, known: &http::Uri) -> Result<http::Uri, String> {
    let is_own = |host: &str| {
        let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        host == "localhost" || address.is_some_and(|address| address.is_loopback())
    };
    if !known.host().is_none_or(is_own) {
        return Ok(known.clone());
    }
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let told = slices.get("kubernetes").await;
    let found = told.ok().and_then(|slice| {
        let port = slice.ports?.first()?.port?;
        let address = slice.endpoints?.first()?.addresses.first()?.clone();
        let host = match address.contains(':') {
            true => format!("[{address}]"),
            false => address,
        };
        (!is_own(&host)).then(|| format!("https://{host}:{port}").parse().ok())?
    });
    found.ok_or_else(|| {
        "the API server listens on this host's own address only, so no other host can join: start it with --bind-address, or say by --server how others reach it".to_owned()
    })
}

/// Creates the objects that joining requires, unless that was done before: what an administrator has deleted since is
/// not created again. Keeps the CAs in `cluster-info` up to date.
async fn prepare(
    client: &kube::Client,
    url: &http::Uri,
    authorities: &[Vec<u8>],
) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let texts = authorities.iter().map(|one| pem::text("CERTIFICATE", one));
    let wanted = cluster_info(url, &texts.collect::<String>());
    let found = match maps.get(NAME).await {
        Ok(found) => Some(found),
        Err(error) if is_not_found(&error) => None,
        Err(error) => return Err(error),
    };
    let Some(mut found) = found else {
        rights(client).await?;
        // Created last, because its existence means that the other objects exist.
        let mut map = ConfigMap::default();
        map.metadata.name = Some(NAME.to_owned());
        map.data = Some(BTreeMap::from([(KEY.to_owned(), wanted)]));
        return match maps.create(&PostParams::default(), &map).await {
            Err(error) if is_already_exists(&error) => Ok(()),
            made => made.map(drop),
        };
    };
    let data = found.data.get_or_insert_default();
    if data.get(KEY).is_some_and(|told| tells(told, authorities)) {
        return Ok(());
    }
    data.insert(KEY.to_owned(), wanted);
    maps.replace(NAME, &PostParams::default(), &found).await?;
    Ok(())
}

/// Whether a kubeconfig contains these CAs.
fn tells(kubeconfig: &str, authorities: &[Vec<u8>]) -> bool {
    use base64::Engine as _;
    let Ok(config) = Kubeconfig::from_yaml(kubeconfig) else {
        return false;
    };
    let clusters = config
        .clusters
        .into_iter()
        .filter_map(|named| named.cluster);
    let told: Vec<Vec<u8>> = clusters
        .filter_map(|cluster| cluster.certificate_authority_data)
        .filter_map(|data| base64::engine::general_purpose::STANDARD.decode(data).ok())
        .flat_map(|bytes| pem::blocks(&String::from_utf8_lossy(&bytes)))
        .map(|block| block.bytes)
        .collect();
    authorities.iter().all(|one| told.contains(one))
}

/// A kubeconfig without users, for anonymous clients.
fn cluster_info(url: &http::Uri, authorities: &str) -> String {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(authorities);
    let url = join::named(url);
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {data}\n    server: {url}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n"
    )
}

/// The rights that kubeadm gives when it makes a cluster, by its names; that of nodes to see where services lead, which
/// kube-proxy has there; and that to let go of the volumes on them, which the provisioner of a CSI driver has there.
async fn rights(client: &kube::Client) -> kube::Result<()> {
    let group = |name: &str| json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}]);
    let reference = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    for (name, role, of) in [
        (
            "kubeadm:kubelet-bootstrap",
            "system:node-bootstrapper",
            GROUP,
        ),
        ("kubeadm:get-nodes", "kubeadm:get-nodes", GROUP),
        (
            "kubeadm:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            GROUP,
        ),
        (
            "kubeadm:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            "system:nodes",
        ),
        (
            "nodes-see-the-cluster",
            "system:node-proxier",
            "system:nodes",
        ),
        (KEEPERS, KEEPERS, "system:nodes"),
    ] {
        make::<ClusterRoleBinding>(
            Api::all(client.clone()),
            json!({"metadata": {"name": name}, "roleRef": reference("ClusterRole", role), "subjects": group(of)}),
        )
        .await?;
    }
    make::<ClusterRole>(
        Api::all(client.clone()),
        json!({"metadata": {"name": "kubeadm:get-nodes"}, "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]}),
    )
    .await?;
    // What the admission plugin NodeRestriction leaves of it is letting go of volumes on the node itself.
    make::<ClusterRole>(
        Api::all(client.clone()),
        json!({"metadata": {"name": KEEPERS}, "rules": [{"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "update"]}]}),
    )
    .await?;
    const READERS: &str = "kubeadm:bootstrap-signer-clusterinfo";
    make::<Role>(
        Api::namespaced(client.clone(), NAMESPACE),
        json!({"metadata": {"name": READERS}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get"]}]}),
    )
    .await?;
    let anonymous = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:anonymous"}]);
    make::<RoleBinding>(
        Api::namespaced(client.clone(), NAMESPACE),
        json!({"metadata": {"name": READERS}, "roleRef": reference("Role", READERS), "subjects": anonymous}),
    )
    .await
}

/// Creates an object unless it exists.
async fn make<K>(api: Api<K>, object: serde_json::Value) -> kube::Result<()>
where
    K: serde::Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &object).await {
        Err(error) if is_already_exists(&error) => Ok(()),
        made => made.map(drop),
    }
}

#[cfg(test)]
mod tests;
