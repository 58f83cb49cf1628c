//! The tools by name.

use std::io;
use std::path::Path;

use super::host::{Host, ZoneStatus};
use super::run::{Run, Step};
use super::store::ConfigStore;
use super::xml::Element;
use super::{
    Disk, control, controls, dladm, ipadm, nat, smf, statistics, zfs, zlogin, zoneadm, zonecfg,
};

/// A tool: a function of its arguments and standard input that returns its exit status.
pub type Tool = fn(&mut Run, &[String], &[u8]) -> Step<i32>;

/// Every tool that can be called by name. `ctl` is not a tool of illumos: it causes events on the host.
pub const TOOLS: &[(&str, Tool)] = &[
    ("ctl", control::control),
    ("dispadmin", statistics::dispadmin),
    ("dladm", dladm::dladm),
    ("ipadm", ipadm::ipadm),
    ("ipf", nat::ipf),
    ("ipnat", nat::ipnat),
    ("kstat", statistics::kstat),
    ("pagesize", statistics::pagesize),
    ("ppriv", statistics::ppriv),
    ("prctl", controls::prctl),
    ("psrinfo", statistics::psrinfo),
    ("route", ipadm::route),
    ("routeadm", ipadm::routeadm),
    ("svcadm", smf::svcadm),
    ("svccfg", smf::svccfg),
    ("svcprop", smf::svcprop),
    ("svcs", smf::svcs),
    ("zfs", zfs::zfs),
    ("zlogin", zlogin::zlogin),
    ("zoneadm", zoneadm::zoneadm),
    ("zonecfg", zonecfg),
    ("zonename", statistics::zonename),
    ("zpool", zfs::zpool),
];

/// Helpers of tools, which run as separate processes.
const HELPERS: &[(&str, Tool)] = &[("brand", zoneadm::brand), ("zoneadmd", zoneadm::zoneadmd)];

/// The tool or helper with a name.
pub fn find(name: &str) -> Option<Tool> {
    TOOLS
        .iter()
        .chain(HELPERS)
        .find(|(tool, _)| *tool == name)
        .map(|(_, function)| *function)
}

/// Whether a tool reads standard input with this command line.
pub fn reads_stdin(tool: &str, args: &[String]) -> bool {
    let has = |word: &str| args.iter().any(|arg| arg == word);
    match tool {
        "zonecfg" => args.len() == 2 || (has("-f") && has("-")),
        "ipnat" | "ipf" => has("-"),
        "zlogin" => !has("-n"),
        _ => false,
    }
}

/// The host as seen by zonecfg.
struct Seen<'a> {
    host: &'a Host,
    disk: &'a Disk,
}

/// Whether a brand is installed.
pub fn has_brand(disk: &Disk, brand: &str) -> bool {
    !brand.is_empty() && disk.exists(&format!("/usr/lib/brand/{brand}/config.xml"))
}

impl zonecfg::Host for Seen<'_> {
    fn kernel_state(&self, zone: &str) -> Option<&'static str> {
        self.host
            .zones
            .get(zone)
            .map(|z| ZoneStatus::word(z.status))
    }

    fn has_brand(&self, brand: &str) -> bool {
        has_brand(self.disk, brand)
    }

    /// The checks of the brand `lx` (`lx_support verify`), if it is installed with them.
    fn verify_brand(&self, document: &Element) -> Result<(), String> {
        let checks = self.disk.real("/usr/lib/brand/lx/config.xml");
        if document.attr_or_empty("brand") != "lx"
            || !std::fs::read_to_string(checks).is_ok_and(|text| text.contains("<verify_cfg>/"))
        {
            return Ok(());
        }
        if document.attr_or_empty("ip-type") != "exclusive" {
            return Err("lx zones require an exclusive IP stack.".to_owned());
        }
        if !document.attr_or_empty("hostid").is_empty() {
            return Err("lx zones do not support hostid emulation.".to_owned());
        }
        for attr in document.named("attr") {
            let version = attr.attr_or_empty("value");
            if attr.attr("name") != Some("kernel-version") {
                continue;
            }
            let major: Option<u32> = version.split('.').next().and_then(|m| m.parse().ok());
            if major.is_none_or(|major| major < 2) {
                return Err(format!("invalid value for kernel-version: {version}"));
            }
        }
        Ok(())
    }

    /// Only for a brand whose config.xml has lists of privileges.
    fn verify_privileges(&self, document: &Element) -> Result<(), String> {
        let brand = document.attr_or_empty("brand");
        let config = self
            .disk
            .real(&format!("/usr/lib/brand/{brand}/config.xml"));
        if !std::fs::read_to_string(config).is_ok_and(|text| text.contains("<privilege ")) {
            return Ok(());
        }
        zoneadm::Configured::read(document)
            .check_privileges()
            .map_err(|wrong| wrong.name().to_owned())
    }

    fn alternate(&self, root: &Path) -> ConfigStore {
        ConfigStore::at(&self.disk.real(&root.to_string_lossy()))
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = path.to_string_lossy();
        let inside = self.disk.real(&text);
        let real = if inside.exists() {
            inside.as_path()
        } else {
            path
        };
        if !std::fs::metadata(real)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        std::fs::read(real)
    }

    fn write_file(&self, path: &Path, text: &str) -> io::Result<()> {
        let inside = self.disk.real(&path.to_string_lossy());
        let has_parent = inside.parent().is_some_and(Path::exists);
        std::fs::write(if has_parent { &inside } else { path }, text)
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.disk.real(&path.to_string_lossy()).is_dir()
    }
}

fn zonecfg(run: &mut Run, args: &[String], stdin: &[u8]) -> Step<i32> {
    let store = run.machine.configurations()?;
    let (host, disk) = run.view();
    let flavour = host.flavour;
    let reply = zonecfg::run(&Seen { host, disk }, &store, flavour, args, stdin);
    debug_ids(host, &store)?;
    run.out.push_str(&String::from_utf8_lossy(&reply.stdout));
    run.err.push_str(&String::from_utf8_lossy(&reply.stderr));
    Ok(reply.code)
}

/// Every configured zone has a debug id, which OmniOS shows.
fn debug_ids(host: &mut Host, store: &ConfigStore) -> Step {
    let names: Vec<String> = store.index()?.into_iter().map(|e| e.name).collect();
    host.debug_ids.retain(|name, _| names.contains(name));
    for name in names {
        if !host.debug_ids.contains_key(&name) {
            let number = host.number();
            host.debug_ids.insert(name, number);
        }
    }
    Ok(())
}
