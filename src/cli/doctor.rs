//! `reddwarf doctor`: whether this host can run pods as zones, and what to do where it cannot. Changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::illumos::IllumosFlags;
use super::zone::NetworkFlags;
use crate::illumos::{Command, Tool, Tools, parse};
use crate::storage::{StoragePoolConfig, zfs};
use crate::zone::illumos::Brand;

/// What `doctor` takes.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    illumos: IllumosFlags,
    #[command(flatten)]
    network: NetworkFlags,
    /// The pool or dataset for images, zones and volumes.
    #[arg(long, default_value = "rpool/reddwarf")]
    storage_pool: String,
    /// The agent's data directory.
    #[arg(long, default_value = "/var/lib/reddwarf")]
    data_dir: PathBuf,
    /// Where brands are.
    #[arg(long, default_value = "/usr/lib/brand", hide = true)]
    brands: PathBuf,
}

/// How one thing stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Good(String),
    /// Pods run, but something does not work.
    Warning(String),
    /// No pod runs.
    Bad(String),
}
use Finding::{Bad, Good, Warning};

/// Looks at everything and says what it finds.
///
/// # Errors
/// Something without which no pod runs.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let directory = std::env::temp_dir().join(format!("reddwarf-doctor-{}", std::process::id()));
    let tools = arguments
        .illumos
        .tools(&directory)
        .map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let mut findings = system(&arguments);
    findings.extend(runtime.block_on(examine(&arguments, tools)));
    if !cfg!(target_os = "illumos") {
        let _ = std::fs::remove_dir_all(&directory);
    }
    let mut bad = 0;
    for finding in findings {
        match finding {
            Good(text) => println!("ok       {text}"),
            Warning(text) => println!("warning  {text}"),
            Bad(text) => {
                bad += 1;
                println!("MISSING  {text}");
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

fn system(arguments: &Arguments) -> Vec<Finding> {
    let fake = !arguments.illumos.tools_of_this_host();
    let uname = rustix::system::uname();
    let (system, version) = (
        uname.sysname().to_string_lossy().into_owned(),
        uname.version().to_string_lossy().into_owned(),
    );
    let mut findings = vec![match (system.as_str(), version.starts_with("joyent")) {
        ("SunOS", false) => Good(format!("{system} {version}")),
        ("SunOS", true) => Bad(
            "SmartOS is not supported: /usr is read-only there, its lx zones are not installed from snapshots, and vmadm owns all zones".into(),
        ),
        _ if fake => Warning(format!("this is {system}; the tools are those of a fake host")),
        _ => Bad(format!("this is {system}: zones need illumos (OmniOS)")),
    }];
    if !fake {
        findings.push(match rustix::process::geteuid().is_root() {
            true => Good("root".into()),
            false => Bad("not root: zoneadm and zonecfg want all privileges; run it as root in the global zone".into()),
        });
    }
    findings
}

async fn examine(arguments: &Arguments, tools: Arc<dyn Tools>) -> Vec<Finding> {
    let ask = async |tool: Tool, words: &[&str]| {
        let command = Command::new(tool, words.iter().copied());
        let answer = tools.run(&command).await;
        answer
            .map(|output| output.stdout)
            .map_err(|failure| failure.to_string())
    };
    let mut findings = Vec::new();
    findings.push(match ask(Tool::Zoneadm, &["list", "-cp"]).await {
        Ok(text) => {
            let count = parse::zones(&text).len();
            Good(format!(
                "zoneadm lists zones: {count} beside the global one"
            ))
        }
        Err(error) => Bad(error),
    });
    findings.extend(brand(arguments));
    let pool = arguments.storage_pool.split('/').next().unwrap_or_default();
    findings.push(
        match ask(Tool::Zpool, &["list", "-H", "-o", "health", pool]).await {
            Ok(text) if matches!(text.trim(), "ONLINE" | "DEGRADED") => {
                Good(format!("the pool {pool} is {}", text.trim()))
            }
            Ok(text) => Bad(format!(
                "the pool {pool} is {}: see `zpool status -x`",
                text.trim()
            )),
            Err(error) => Bad(format!("{error}; name another with --storage-pool")),
        },
    );
    match StoragePoolConfig::derive(&arguments.storage_pool, None, None, None) {
        Ok(config) => match zfs::names::check(&config) {
            Ok(()) => {}
            Err(error) => findings.push(Bad(error.to_string())),
        },
        Err(error) => findings.push(Bad(error.to_string())),
    }
    findings.push(
        match ask(Tool::Dladm, &["show-link", "-p", "-o", "link,class"]).await {
            Ok(text) => link(arguments, &parse::links(&text)),
            Err(error) => Bad(error),
        },
    );
    findings.push(match ask(Tool::Routeadm, &["-p", "ipv4-forwarding"]).await {
        Ok(text) if parse::routing_on(&text) => Good("packets are forwarded".into()),
        Ok(_) => Good("packets are not forwarded yet: the agent turns it on (routeadm -e ipv4-forwarding)".into()),
        Err(error) => Warning(error),
    });
    findings.push(match ask(Tool::Svcs, &["-H", "-o", "state", "network/ipfilter"]).await {
        Ok(text) if text.trim() == "online" => Good("ipfilter is online".into()),
        Ok(text) => Warning(format!(
            "ipfilter is {}: pods have no way out and host ports do not work; svcadm enable network/ipfilter (with an empty /etc/ipf/ipf.conf it lets everything pass)",
            text.trim()
        )),
        Err(error) => Warning(error),
    });
    findings
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

fn brand(arguments: &Arguments) -> Vec<Finding> {
    let brand = arguments.illumos.brand();
    let directory = arguments.brands.join(brand.name());
    let there = |name: &str| directory.join(name).is_file();
    if !there("config.xml") {
        let package = match brand {
            Brand::Lx => "pkg install system/zones/brand/lx",
            Brand::Reddwarf => "hack/omnios-install",
        };
        return vec![Bad(format!(
            "the brand {} is not installed ({} is not there): {package}",
            brand.name(),
            directory.join("config.xml").display()
        ))];
    }
    let mut findings = vec![Good(format!("the brand {} is installed", brand.name()))];
    if brand == Brand::Lx {
        let script = ["lx_boot_zone_busybox", "lx_boot_zone_alpine"]
            .into_iter()
            .find(|name| there(name));
        findings.push(match script {
            Some(script) => Good(format!("{script} is there, which our sandbox boots with")),
            None => Bad(format!(
                "neither lx_boot_zone_busybox nor lx_boot_zone_alpine is in {}: lx_boot would refuse our sandbox",
                directory.display()
            )),
        });
        findings.push(match arguments.illumos.supervisor_path() {
            Ok(path) if Path::new(&path).is_file() => {
                Good(format!("{} supervises zones", path.display()))
            }
            Ok(path) => Bad(format!(
                "{} is not there: build it with hack/omnios-build, or name it with --zone-init",
                path.display()
            )),
            Err(error) => Bad(error.to_string()),
        });
    }
    findings
}
