//! Files that every container of a pod sees: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`; and the locations of
//! logs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Host, text, uid};
use crate::blocking::blocking;
use crate::client::events::Tone;
use crate::node::describe;
use crate::node::machine::full_name;
use crate::zone::{ProcessId, ZoneNetwork, ZoneSpec};

/// The longest termination message, in bytes.
const MESSAGE: u64 = 4096;
/// How many lines and bytes of a log are used instead of a message (`FallbackToLogsOnError`).
const FALLBACK: (usize, usize) = (80, 2048);
/// How many bytes of a log are read for that: supervisors write lines in parts of 16 KiB.
const LOG: u64 = 64 << 10;

/// Where logs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logs {
    /// All of them in this directory, as kubelet lays them out below `/var/log/pods`.
    Together(PathBuf),
    /// Those of a pod in its home, below this directory: its zone writes them.
    Homes(PathBuf),
}

impl Logs {
    /// The directory above a pod's logs that no process in the pod can change, and the path of a process's log below
    /// it.
    pub fn path(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        id: &ProcessId,
    ) -> (PathBuf, PathBuf) {
        let file = Path::new(&id.name).join(format!("{}.log", id.generation));
        match self {
            Logs::Together(all) => (
                all.clone(),
                Path::new(&format!("{namespace}_{name}_{uid}")).join(file),
            ),
            Logs::Homes(homes) => (homes.join(uid).join("rw"), Path::new("log").join(file)),
        }
    }
    /// The log of a process.
    pub fn whole(&self, namespace: &str, name: &str, uid: &str, id: &ProcessId) -> PathBuf {
        let (above, below) = self.path(namespace, name, uid, id);
        above.join(below)
    }
}

impl Host {
    /// Writes the pod's files except for `hosts`, which each container gets anew.
    pub(super) async fn write_files(&self, pod: &Pod, zone: &ZoneSpec) -> io::Result<()> {
        let own = read("/etc/resolv.conf").await?;
        let resolv = resolv(pod, &own, &self.cluster_dns, &self.cluster_domain);
        for (reason, message) in resolv.warnings {
            self.recorder.tell(pod, Tone::Warning, reason, message);
        }
        let etc = self.pod_directory(uid(pod)).join("etc");
        let hostname = format!("{}\n", zone.hostname);
        blocking(move || {
            std::fs::create_dir_all(&etc)?;
            std::fs::write(etc.join("resolv.conf"), resolv.text)?;
            std::fs::write(etc.join("hostname"), hostname)
        })
        .await
    }

    /// Creates the files that belong to one process: `hosts`, regardless of what an earlier process wrote to it, and
    /// its termination message.
    pub(super) async fn write_own_files(
        &self,
        pod: &Pod,
        zone: &ZoneSpec,
        id: &ProcessId,
    ) -> io::Result<()> {
        let of_host = match &zone.network {
            ZoneNetwork::Host => read("/etc/hosts").await?,
            ZoneNetwork::Own { .. } => String::new(),
        };
        let text = self.hosts(pod, zone, &of_host);
        let hosts = self.pod_directory(uid(pod)).join("etc/hosts");
        let (above, message) = (self.writable(uid(pod)), Self::message_name(id));
        blocking(move || {
            std::fs::write(hosts, text)?;
            crate::storage::beneath::make_file(&above, &message, 0o666)
        })
        .await
    }

    /// The text of a pod's `/etc/hosts`; `own` is that of the host.
    fn hosts(&self, pod: &Pod, zone: &ZoneSpec, own: &str) -> String {
        let spec = pod.spec.clone().unwrap_or_default();
        let mut hosts = match &zone.network {
            ZoneNetwork::Host => {
                format!("# Kubernetes-managed hosts file (host network).\n{own}")
            }
            ZoneNetwork::Own { address, .. } => {
                let mut hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n".to_owned();
                let name = describe::hostname(pod);
                let _ = match describe::host_domain(pod, &self.cluster_domain) {
                    Some(domain) => writeln!(hosts, "{address}\t{name}.{domain}\t{name}"),
                    None => writeln!(hosts, "{address}\t{name}"),
                };
                hosts
            }
        };
        let aliases: Vec<_> = spec.host_aliases.into_iter().flatten().collect();
        if !aliases.is_empty() {
            hosts.push_str("\n# Entries added by HostAliases.\n");
            for alias in aliases {
                let names = alias.hostnames.unwrap_or_default().join("\t");
                let _ = writeln!(hosts, "{}\t{names}", alias.ip);
            }
        }
        hosts
    }

    /// The path of a process's termination message.
    pub(super) fn message_path(&self, uid: &str, id: &ProcessId) -> PathBuf {
        self.writable(uid).join(Self::message_name(id))
    }

    /// The same, relative to the pod's writable directory.
    pub(super) fn message_name(id: &ProcessId) -> PathBuf {
        Path::new("messages").join(format!("{}-{}", id.name, id.generation))
    }

    pub(super) async fn termination_message(
        &self,
        pod: &Pod,
        container: &Container,
        id: &ProcessId,
        failed: bool,
    ) -> String {
        let (above, below) = (self.writable(uid(pod)), Self::message_name(id));
        let left = said_at_the_end(above, below, MESSAGE).await;
        let left = String::from_utf8_lossy(&left).into_owned();
        let fallback =
            container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if !left.is_empty() || !failed || !fallback {
            return left;
        }
        let (above, below) = self.logs.path(
            text(pod.metadata.namespace.as_ref()),
            text(pod.metadata.name.as_ref()),
            uid(pod),
            id,
        );
        let log = said_at_the_end(above, below, LOG).await;
        String::from_utf8_lossy(&said_last(&log)).into_owned()
    }
}

/// The largest number of servers in a `resolv.conf`.
const SERVERS: usize = 3;
/// The largest number of search domains in a `resolv.conf`.
const SEARCHES: usize = 32;
/// The largest number of characters of one search domain, and of all of them.
const SEARCH: (usize, usize) = (253, 2048);

/// The text of a `resolv.conf`, and the events to record about it: reasons and messages.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resolv {
    text: String,
    warnings: Vec<(&'static str, String)>,
}

/// Removes search domains beyond the limits. Returns whether there were any.
fn cut_searches(searches: &mut Vec<String>) -> bool {
    let before = searches.len();
    searches.truncate(SEARCHES);
    searches.retain(|search| search.len() <= SEARCH.0);
    while searches.join(" ").len() > SEARCH.1 {
        searches.pop();
    }
    searches.len() != before
}

/// The `resolv.conf` of a pod, given the host's `own` one: with the name servers `cluster_dns`, if there are any.
fn resolv(pod: &Pod, own: &str, cluster_dns: &[IpAddr], domain: &str) -> Resolv {
    let mut warnings = Vec::new();
    let spec = pod.spec.clone().unwrap_or_default();
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec.host_network == Some(true);
    let cluster = match policy {
        "ClusterFirst" => !host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    if policy != "None" {
        for line in own.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => servers.extend(words.next()),
                Some("search") => {
                    let names = words.filter(|name| name != ".");
                    searches = names
                        .map(|name| name.strip_suffix('.').unwrap_or(&name).to_owned())
                        .collect();
                }
                Some("options") => options.extend(words),
                _ => {}
            }
        }
        if cluster && !cluster_dns.is_empty() {
            servers = cluster_dns.iter().map(IpAddr::to_string).collect();
            let namespace = text(pod.metadata.namespace.as_ref());
            let mut own = vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.to_owned(),
            ];
            own.append(&mut searches);
            searches = own;
            options = vec!["ndots:5".to_owned()];
        } else if cluster {
            let message = format!(
                "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.",
                full_name(pod)
            );
            warnings.push(("MissingClusterDNS", message));
        }
    }
    if let Some(config) = spec.dns_config {
        servers.extend(config.nameservers.unwrap_or_default());
        searches.extend(config.searches.unwrap_or_default());
        for option in config.options.unwrap_or_default() {
            let name = option.name.unwrap_or_default();
            let whole = match option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            options.retain(|other| other.split(':').next() != Some(&name));
            options.push(whole);
        }
    }
    for list in [&mut servers, &mut searches] {
        let mut seen = BTreeSet::new();
        list.retain(|one: &String| seen.insert(one.clone()));
    }
    if servers.len() > SERVERS {
        servers.truncate(SERVERS);
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            servers.join(" ")
        );
        warnings.push(("DNSConfigForming", message));
    }
    if cut_searches(&mut searches) {
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            searches.join(" ")
        );
        warnings.push(("DNSConfigForming", message));
    }
    let mut whole = String::new();
    if !searches.is_empty() {
        let _ = writeln!(whole, "search {}", searches.join(" "));
    }
    for server in servers {
        let _ = writeln!(whole, "nameserver {server}");
    }
    if !options.is_empty() {
        let _ = writeln!(whole, "options {}", options.join(" "));
    }
    Resolv {
        text: whole,
        warnings,
    }
}

/// The end of a log, without what supervisors add. An unterminated line stays unterminated.
fn said_last(log: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    let mut lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    let more = lines.len().saturating_sub(FALLBACK.0);
    for line in lines.split_off(more) {
        let mut parts = line.splitn(4, |byte| *byte == b' ').skip(2);
        if let (Some(tag), Some(content)) = (parts.next(), parts.next()) {
            said.extend_from_slice(match tag {
                b"F" => content,
                _ => content.strip_suffix(b"\n").unwrap_or(content),
            });
        }
    }
    let more = said.len().saturating_sub(FALLBACK.1);
    said.split_off(more)
}

/// A file of the host as text; empty if it does not exist.
async fn read(path: &'static str) -> io::Result<String> {
    blocking(move || Ok(std::fs::read_to_string(path).unwrap_or_default())).await
}

/// The last `most` bytes of a regular file below a directory; containers may have changed both.
fn tail(above: &Path, below: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = crate::storage::beneath::open_plain(above, below)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// Like [`tail`]. An unreadable message counts as none: a container need not leave one.
async fn said_at_the_end(above: PathBuf, below: PathBuf, most: u64) -> Vec<u8> {
    let read = blocking(move || tail(&above, &below, most)).await;
    read.unwrap_or_default()
}

#[cfg(test)]
mod tests;
