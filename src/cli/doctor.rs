//! `reddwarf doctor`: checks whether this host can run pods as zones, and says what to do if it cannot. Changes
//! nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::host::{NetworkFlags, StorageFlags};
use super::illumos::{IllumosFlags, POOL};
use crate::illumos::{Command, Tool, Tools, parse};
use crate::storage::zfs;
use crate::zone::illumos::Brand;

/// Sessions of NAT below which a busy node runs out of them: all connections of all pods that leave their zones' network,
/// or go by a service, are in one table of the host.
const SESSIONS: u64 = 200_000;

/// The flags of `doctor`: those to start the agent with.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    illumos: IllumosFlags,
    #[command(flatten)]
    network: NetworkFlags,
    #[command(flatten)]
    storage: StorageFlags,
    /// The agent's data directory.
    #[arg(long, default_value = "/var/lib/reddwarf")]
    data_dir: PathBuf,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Good(String),
    /// Pods run, but something does not work.
    Warning(String),
    /// No pod runs.
    Bad(String),
}
use Finding::{Bad, Good, Warning};

/// Runs all checks and prints the results.
///
/// # Errors
/// Something is missing without which no pod runs.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let directory = std::env::temp_dir().join(format!("reddwarf-doctor-{}", std::process::id()));
    let tools = arguments
        .illumos
        .tools(&directory)
        .map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let mut findings = system(&arguments);
    findings.extend(runtime.block_on(examine(&arguments, tools.as_ref())));
    if !cfg!(target_os = "illumos") {
        let _ = std::fs::remove_dir_all(&directory);
    }
    let mut bad = 0;
    for finding in findings {
        match finding {
            Good(text) => super::say(&format!("ok       {text}")),
            Warning(text) => super::say(&format!("warning  {text}")),
            Bad(text) => {
                bad += 1;
                super::say(&format!("MISSING  {text}"));
            }
        }
    }
    match bad {
        0 => Ok(()),
        1 => Err("one thing is missing: no pod runs here before it is there".into()),
        bad => Err(format!(
            "{bad} things are missing: no pod runs here before they are there"
        )),
    }
}

/// Checks the operating system. With the tools of a fake host this has no bearing on pods.
fn system(arguments: &Arguments) -> Vec<Finding> {
    let fake = !arguments.illumos.tools_of_this_host();
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let (system, version) = (text(uname.sysname()), text(uname.version()));
    let own = format!("reddwarf {}", env!("CARGO_PKG_VERSION"));
    let mut findings = vec![match system.as_str() {
        "SunOS" if version.starts_with("joyent") => Bad(
            "SmartOS is not supported: /usr is read-only there, its lx zones are not installed from snapshots, and vmadm owns all zones".into(),
        ),
        "SunOS" if version.starts_with("omnios") => Good(format!("{own} on {system} {version}")),
        "SunOS" => Warning(format!(
            "{own} on {system} {version}: of what is installed from packages only OmniOS has the brand lx"
        )),
        _ if fake => Warning(format!(
            "{own} on {system}; the tools are those of a fake host"
        )),
        _ => Bad(format!("this is {system}: zones need illumos (OmniOS)")),
    }];
    if system == "SunOS" {
        let release = std::fs::read_to_string("/etc/release").unwrap_or_default();
        let line = release.lines().map(str::trim).find(|line| !line.is_empty());
        findings.extend(line.map(|line| Good(format!("/etc/release: {line}"))));
    }
    if !fake {
        findings.push(match rustix::process::geteuid().is_root() {
            true => Good("root".into()),
            false => Bad("not root: zoneadm and zonecfg want all privileges; run it as root in the global zone".into()),
        });
    }
    findings
}

/// Checks that run the host's tools.
struct Host<'a> {
    arguments: &'a Arguments,
    tools: &'a dyn Tools,
}

/// Runs all checks that need the host's tools.
async fn examine(arguments: &Arguments, tools: &dyn Tools) -> Vec<Finding> {
    let host = Host { arguments, tools };
    let mut findings = host.zones().await;
    for one in Brand::ALL {
        findings.extend(brand(arguments, one));
    }
    findings.push(host.scheduling().await);
    findings.extend(host.storage().await);
    findings.extend(host.data().await);
    findings.extend(host.links().await);
    findings.extend(host.routing().await);
    findings
}

impl Host<'_> {
    async fn ask(&self, tool: Tool, words: &[&str]) -> Result<String, String> {
        let command = Command::new(tool, words.iter().copied());
        match self.tools.run(&command).await {
            Ok(output) => Ok(output.stdout),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Checks the zone that this runs in, its privileges, and the zones that it has.
    async fn zones(&self) -> Vec<Finding> {
        let zone = self.ask(Tool::Zonename, &[]).await;
        let own = std::process::id().to_string();
        let privileges = self.ask(Tool::Ppriv, &["-S", &own]).await;
        vec![
            match zone.as_deref().map(str::trim) {
                Ok("global") => Good("this is the global zone".into()),
                Ok(other) => Bad(format!(
                    "this is the zone {other}: zones are made in the global zone only"
                )),
                Err(error) => Bad(error.to_owned()),
            },
            match privileges.map(|text| parse::privileges(&text, 'E').map(str::to_owned)) {
                Ok(Some(all)) if all == "all" => Good("all privileges".into()),
                Ok(Some(some)) => Bad(format!(
                    "the privileges are {some}, and zoneadm, zonecfg and zlogin want all: take limit_privileges out of the service, run it as root"
                )),
                Ok(None) => Warning("it cannot be told what privileges there are".into()),
                Err(error) => Warning(error),
            },
            match self.ask(Tool::Zoneadm, &["list", "-cp"]).await {
                Ok(text) => Good(format!(
                    "zoneadm lists zones: {} beside the global one",
                    parse::zones(&text).len()
                )),
                Err(error) => Bad(error),
            },
        ]
    }

    /// Checks how zones with shares of the CPU compete with all else.
    async fn scheduling(&self) -> Finding {
        let shown = self.ask(Tool::Dispadmin, &["-d"]).await;
        match shown.as_deref().map(|text| text.split_whitespace().next()) {
            Ok(Some("FSS")) => Good("the default scheduling class is FSS".into()),
            _ => Warning(
                "FSS is not the default scheduling class: pods with CPU requests are in it all the same, and compete with what is not by no rule; dispadmin -d FSS, then priocntl -s -c FSS -i all".into(),
            ),
        }
    }

    /// Checks that the agent's data outlive a change of the boot environment.
    async fn data(&self) -> Option<Finding> {
        let directory = self.arguments.data_dir.ancestors();
        let directory = directory.into_iter().find(|path| path.is_dir())?;
        let at = async |path: &std::path::Path| {
            let path = path.display().to_string();
            let listed = self
                .ask(Tool::Zfs, &["list", "-H", "-o", "name", &path])
                .await;
            listed.ok().map(|text| text.trim().to_owned())
        };
        let environment = at(std::path::Path::new("/")).await?;
        let dataset = at(directory).await?;
        Some(data(&self.arguments.data_dir, &dataset, &environment))
    }

    /// Checks the pool and the datasets of the flags.
    async fn storage(&self) -> Vec<Finding> {
        let config = self.arguments.storage.config(POOL);
        let config = match config.and_then(|config| zfs::names::check(&config).map(|()| config)) {
            Ok(config) => config,
            Err(error) => return vec![Bad(error.to_string())],
        };
        let datasets = [&config.pool, &config.zones, &config.images, &config.volumes];
        let pool = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
        let pools: BTreeSet<String> = datasets.into_iter().map(pool).collect();
        let mut findings = Vec::new();
        for pool in pools {
            let health = ["list", "-H", "-o", "health", &pool];
            findings.push(match self.ask(Tool::Zpool, &health).await {
                Ok(text) if text.trim() == "ONLINE" => Good(format!("the pool {pool} is ONLINE")),
                Ok(text) if text.trim() == "DEGRADED" => Warning(format!(
                    "the pool {pool} is DEGRADED: see `zpool status -x`"
                )),
                Ok(text) => Bad(format!(
                    "the pool {pool} is {}: see `zpool status -x`",
                    text.trim()
                )),
                Err(error) => Bad(format!("{error}; name another with --storage-pool")),
            });
        }
        for dataset in datasets {
            findings.extend(self.dataset(dataset).await);
        }
        findings
    }

    /// Checks a dataset of the flags; the agent creates one that does not exist.
    async fn dataset(&self, dataset: &str) -> Option<Finding> {
        let listed = self.tools.run(&zfs::names::list(dataset, false)).await;
        let row = match listed {
            Ok(output) => zfs::names::rows(&output.stdout).into_iter().next()?,
            Err(failure) if failure.not_found() && dataset.contains('/') => {
                return Some(Good(format!("the agent will make the dataset {dataset}")));
            }
            // Its pool was checked already.
            Err(failure) if failure.not_found() => return None,
            Err(failure) => return Some(Bad(failure.to_string())),
        };
        Some(match (row.mountpoint, row.mounted) {
            _ if row.zoned => Bad(format!(
                "the dataset {dataset} is a zone's own (zoned=on): name another"
            )),
            _ if row.readonly => Bad(format!(
                "the dataset {dataset} is read-only: zfs set readonly=off {dataset}"
            )),
            (None, _) if dataset.contains('/') => Bad(format!(
                "the dataset {dataset} has no mountpoint: zfs set mountpoint=/PATH {dataset}"
            )),
            (None, _) => Good(format!("the dataset {dataset} is there")),
            (Some(at), true) => Good(format!("the dataset {dataset} is at {}", at.display())),
            (Some(at), false) => Warning(format!(
                "the dataset {dataset} is not mounted at {}: the agent does that, if nothing is there",
                at.display()
            )),
        })
    }

    async fn links(&self) -> Vec<Finding> {
        let links = match self
            .ask(Tool::Dladm, &["show-link", "-p", "-o", "link,class"])
            .await
        {
            Ok(text) => parse::links(&text),
            Err(error) => return vec![Bad(error)],
        };
        let mut findings = vec![link(self.arguments, &links)];
        if self.arguments.network.physical_nic.is_none() {
            let route = self.ask(Tool::Route, &["-n", "get", "default"]).await;
            let out = route.ok().and_then(|text| parse::default_link(&text));
            findings.push(match out {
                Some(link) => Good(format!("the default route leads out by {link}")),
                None => Warning(
                    "there is no default route: pods reach this host only; name the link that leads out with --physical-nic".into(),
                ),
            });
        }
        findings
    }

    /// Checks how packets of pods get out of the host and in.
    async fn routing(&self) -> Vec<Finding> {
        if self.arguments.network.direct_nic {
            return Vec::new();
        }
        let forwarding = self.ask(Tool::Routeadm, &["-p", "ipv4-forwarding"]).await;
        let filter = ["-H", "-o", "state", "network/ipfilter"];
        let filter = self.ask(Tool::Svcs, &filter).await;
        let online = filter.as_deref().is_ok_and(|text| text.trim() == "online");
        let mut findings = vec![
            match forwarding {
                Ok(text) if parse::routing_on(&text) => Good("packets are forwarded".into()),
                Ok(_) => Good("packets are not forwarded yet: the agent turns it on (routeadm -e ipv4-forwarding)".into()),
                Err(error) => Warning(error),
            },
            match filter {
                Ok(_) if online => Good("ipfilter is online".into()),
                Ok(text) => Warning(format!(
                    "ipfilter is {}: pods have no way out and host ports do not work; svcadm enable network/ipfilter (with an empty /etc/ipf/ipf.conf it lets everything pass)",
                    text.trim()
                )),
                Err(error) => Warning(error),
            },
        ];
        if online {
            findings.push(match self.ask(Tool::Ipnat, &["-l"]).await {
                Ok(text) => Good(format!(
                    "ipnat answers: {} rules are in force",
                    parse::nat_rules(&text).len()
                )),
                Err(error) => Warning(error),
            });
            let room = self.ask(Tool::Ipf, &["-T", "ipf_nattable_max"]).await;
            findings.extend(
                room.ok()
                    .and_then(|text| parse::tunable(&text))
                    .map(sessions),
            );
        }
        findings
    }
}

/// Checks the size of the table of NAT.
fn sessions(room: u64) -> Finding {
    match room >= SESSIONS {
        true => Good(format!("the table of NAT holds {room} sessions")),
        false => Warning(format!(
            "the table of NAT holds {room} sessions of all pods together, and new connections are dropped when it is full: ipf -T ipf_nattable_max={SESSIONS}; for the next boots ipf_nattable_max={SESSIONS}; in /usr/kernel/drv/ipf.conf"
        )),
    }
}

/// Checks the dataset of the agent's data against that of `/`, the boot environment.
fn data(directory: &std::path::Path, dataset: &str, environment: &str) -> Finding {
    let rest = dataset.strip_prefix(environment);
    let at = directory.display();
    match rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        false => Good(format!(
            "{at} is in {dataset}, whichever environment is booted"
        )),
        true => Warning(format!(
            "{at} is in the boot environment ({environment}): after `pkg update` or `beadm activate` the agent would know what it knew when that was made; docs/illumos.md tells how to move it (--data-dir names another directory: config/data_dir of the service)"
        )),
    }
}

fn link(arguments: &Arguments, links: &[(String, String)]) -> Finding {
    let flags = &arguments.network;
    let class = |name: &str| {
        links
            .iter()
            .find(|(link, _)| link == name)
            .map(|(_, class)| class.as_str())
    };
    match &flags.physical_nic {
        Some(nic) if class(nic).is_none() => Bad(format!(
            "there is no link {nic} (dladm show-link); name another with --physical-nic"
        )),
        Some(nic) => Good(format!("the link {nic} is there")),
        None => match class(&flags.etherstub_name) {
            None | Some("etherstub") => Good(format!(
                "the etherstub {} is there or can be made",
                flags.etherstub_name
            )),
            Some(other) => Bad(format!(
                "the link {} is of class {other}; name another with --etherstub-name",
                flags.etherstub_name
            )),
        },
    }
}

/// Checks a brand. The default brand of pods must be installed.
fn brand(arguments: &Arguments, brand: Brand) -> Vec<Finding> {
    let (name, directory) = (brand.name(), arguments.illumos.brand_directory(brand));
    let there = |name: &str| directory.join(name).is_file();
    let usual = brand == arguments.illumos.brand();
    if !there("config.xml") {
        let package = match brand {
            Brand::Lx => "pkg install system/zones/brand/lx",
            Brand::Reddwarf => "hack/omnios-install",
        };
        let text = format!(
            "the brand {name} is not installed ({} is not there): {package}",
            directory.join("config.xml").display()
        );
        return vec![match usual {
            true => Bad(text),
            false => Good(format!("{text}; no pod needs it that does not name it")),
        }];
    }
    let mut findings = vec![Good(format!("the brand {name} is installed"))];
    let mut lacks = Vec::new();
    match brand {
        Brand::Lx => {
            let scripts = ["lx_boot_zone_busybox", "lx_boot_zone_alpine"];
            match scripts.into_iter().find(|name| there(name)) {
                Some(script) => findings.push(Good(format!(
                    "{script} is there, which our sandbox boots with"
                ))),
                None => lacks.push(format!(
                    "neither lx_boot_zone_busybox nor lx_boot_zone_alpine is in {}: lx_boot would refuse our sandbox",
                    directory.display()
                )),
            }
            match arguments.illumos.supervisor_path() {
                Ok(path) if path.is_file() => {
                    findings.push(Good(format!("{} supervises lx zones", path.display())));
                }
                Ok(path) => lacks.push(format!(
                    "{} is not there: build it with hack/omnios-build, or name it with --zone-init",
                    path.display()
                )),
                Err(error) => lacks.push(error.to_string()),
            }
        }
        Brand::Reddwarf => {
            let read = |name: &str| std::fs::read_to_string(directory.join(name));
            let has = |name: &str, word: &str| read(name).is_ok_and(|text| text.contains(word));
            for (fine, what) in [
                (there("brandctl"), "brandctl, which installs zones,"),
                (there("init"), "init, which supervises zones,"),
                (
                    has("config.xml", "<privilege "),
                    "the privileges of zones in config.xml",
                ),
                (
                    has("platform.xml", "<device "),
                    "the devices of zones in platform.xml",
                ),
                (
                    has("platform.xml", "<symlink source=\"console\""),
                    "the console of zones in platform.xml, where init complains,",
                ),
            ] {
                if !fine {
                    let at = directory.display();
                    lacks.push(format!(
                        "{what} is missing in {at}: run hack/omnios-install"
                    ));
                }
            }
        }
    }
    findings.extend(lacks.into_iter().map(|text| match usual {
        true => Bad(text),
        false => Warning(text),
    }));
    findings
}

#[cfg(test)]
mod tests;
