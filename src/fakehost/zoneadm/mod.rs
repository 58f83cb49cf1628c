//! zoneadm(8): the states of zones and their transitions.

mod check;
mod configured;
mod daemon;
mod hooks;
mod install;
mod ours;

#[cfg(test)]
mod tests;

pub use configured::Configured;
pub use daemon::zoneadmd;
pub use hooks::brand;
pub use ours::{BRAND as OURS, CONFIG, INIT, PLATFORM};

use super::Reply;
use super::exit;
use super::getopt::{Parsed, getopt};
use super::host::ZoneStatus;
use super::machine::Running;
use super::run::{Run, Step, Stop};
use super::store::{ConfigStore, IndexEntry, IndexState};
use super::xml::Element;
use super::zonecfg::{Flavour, valid_zone_name};

/// The subcommands with their usage; the long help is left out.
const COMMANDS: &[(&str, &str)] = &[
    ("help", "help"),
    ("boot", "boot [-- boot_arguments]"),
    ("halt", "halt"),
    ("ready", "ready"),
    ("shutdown", "shutdown [-r [-- boot_arguments]]"),
    ("reboot", "reboot [-- boot_arguments]"),
    ("list", "list [-cinpv]"),
    ("verify", "verify"),
    ("install", "install [brand-specific args]"),
    ("uninstall", "uninstall [-F] [brand-specific args]"),
    (
        "clone",
        "clone [-m method] [-s <ZFS snapshot>] [brand-specific args] zonename",
    ),
    ("move", "move zonepath"),
    ("detach", "detach [-n] [brand-specific args]"),
    ("attach", "attach [-F] [-n <path>] [brand-specific args]"),
    ("mark", "mark incomplete"),
];

/// Subcommands that the usage omits.
const PRIVATE: &[&str] = &["mount", "unmount", "sysboot"];

/// The state of a zone, in the kernel or in the index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not in the kernel.
    Index(IndexState),
    /// In the kernel.
    Kernel(ZoneStatus),
}

impl State {
    /// Its name in listings.
    pub fn word(self) -> &'static str {
        match self {
            State::Index(state) => state.word(),
            State::Kernel(status) => status.word(),
        }
    }
}

/// The zone of a command.
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its line in the index file.
    pub entry: IndexEntry,
    /// Its configuration as a document.
    pub document: Element,
    /// Its configuration.
    pub configured: Configured,
}

fn usage(run: &mut Run) -> Step<i32> {
    let text = usage_text();
    run.complain(&text);
    Ok(exit::USAGE)
}

fn usage_text() -> String {
    let commands: Vec<&str> = COMMANDS.iter().map(|(_, text)| *text).collect();
    format!(
        "usage:\tzoneadm help\n\tzoneadm [-z <zone>] [-u <uuid-match>] list\n\tzoneadm {{-z <zone>|-u <uuid-match>}} <subcommand>\n\nSubcommands:\n\n{}\n",
        commands.join("\n")
    )
}

fn sub_usage(run: &mut Run, command: &str) -> Step<i32> {
    let text = COMMANDS
        .iter()
        .find(|(name, _)| *name == command)
        .map_or("", |(_, text)| text);
    run.complain(&format!("usage:\t{text}"));
    Ok(exit::USAGE)
}

/// Ends with `zoneadm: zone 'NAME': TEXT`.
fn fail<T>(run: &mut Run, zone: &str, text: &str) -> Step<T> {
    run.end(exit::ERROR, &format!("zoneadm: zone '{zone}': {text}"))
}

/// `zoneadm args...`
pub fn zoneadm(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let parsed = match getopt(args, "?u:z:R:", &[]) {
        Ok(parsed) => parsed,
        Err(bad) => {
            run.complain(&format!("zoneadm: {bad}"));
            // An invalid option prints the help.
            run.say(&usage_text());
            return Ok(exit::USAGE);
        }
    };
    if parsed.has('?') {
        run.say(&usage_text());
        return Ok(exit::USAGE);
    }
    run.without(&parsed, "zoneadm", "R")?;
    let Some((command, args)) = parsed.rest.split_first() else {
        return usage(run);
    };
    let store = run.machine.configurations()?;
    // An unknown uuid is ignored.
    let by_uuid = match parsed.value('u') {
        Some(uuid) => store.index()?.into_iter().find(|e| e.uuid == uuid),
        None => None,
    };
    let zone = match by_uuid {
        Some(entry) => Some(entry.name),
        None => parsed.value('z').map(str::to_owned),
    };
    let mut known = None;
    if let Some(name) = zone.as_ref().filter(|name| *name != "global") {
        known = valid_zone_name(name).then(|| store.entry(name)).flatten();
        let Some(entry) = &known else {
            run.complain(&format!("zoneadm: {name}: No such zone configured"));
            return Ok(exit::ERROR);
        };
        let document = store.load(&entry.name).ok().flatten();
        let brand = document.map(|document| Configured::read(&document).brand);
        if brand.is_none() {
            return fail(run, name, "missing or invalid brand");
        }
    }
    if command == "help" {
        return help(run, args);
    }
    if !COMMANDS.iter().any(|(name, _)| name == command) && !PRIVATE.contains(&command.as_str()) {
        return match command.as_str() {
            "apply" => run.not_played(&format!("zoneadm {command}")),
            _ => usage(run),
        };
    }
    if command == "list" {
        return list(run, &store, zone.as_deref(), args);
    }
    if let [one] = args
        && one == "-?"
    {
        sub_usage(run, command)?;
        return Ok(exit::OK);
    }
    let Some(name) = zone else {
        if command == "install" {
            return sub_usage(run, command);
        }
        run.complain("zoneadm: no zone specified");
        return Ok(exit::ERROR);
    };
    if name == "global" {
        return fail(
            run,
            &name,
            &format!("{command} operation is invalid for the global zone."),
        );
    }
    let (Some(entry), Ok(Some(document))) = (known, store.load(&name)) else {
        return fail(run, &name, "missing or invalid brand");
    };
    if name.starts_with("SUNW") {
        return fail(
            run,
            &name,
            &format!("{command} operation is invalid for zones starting with SUNW."),
        );
    }
    let target = Target {
        configured: Configured::read(&document),
        name,
        entry,
        document,
    };
    match command.as_str() {
        "boot" | "halt" | "ready" | "reboot" | "shutdown" | "mount" | "unmount" => {
            transition(run, &target, command, args)
        }
        // A hook of the brand when the host boots; the implemented brands have none.
        "sysboot" => allowed(run, &target, command).map(|()| exit::OK),
        "verify" => verify(run, &target, args),
        "mark" => mark(run, &store, &target, args),
        "install" => install::install(run, &store, &target, args),
        "uninstall" => install::uninstall(run, &store, &target, args),
        "clone" => install::clone(run, &store, &target, args),
        "move" => install::relocate(run, &store, &target, args),
        "detach" => install::detach(run, &store, &target, args),
        _ => install::attach(run, &store, &target, args),
    }
}

/// `zoneadm help [SUBCOMMAND]...`: the usage of subcommands, without explanations.
fn help(run: &mut Run, args: &[String]) -> Step<i32> {
    if args.is_empty() {
        run.say(&usage_text());
        return Ok(exit::OK);
    }
    for word in args {
        if !COMMANDS.iter().any(|(name, _)| name == word) {
            return sub_usage(run, "help");
        }
        sub_usage(run, word)?;
    }
    Ok(exit::OK)
}

impl Run<'_> {
    /// The state of a zone with this line in the index.
    pub(super) fn state_of(&mut self, entry: &IndexEntry) -> State {
        match self.host().zones.get(&entry.name) {
            Some(zone) => State::Kernel(zone.status),
            None => State::Index(entry.state),
        }
    }

    /// Waits for a helper; killing this command meanwhile does not stop it.
    pub(super) fn wait_for(&mut self, other: Running) -> Step<Reply> {
        let killed = self.killed();
        self.away(|_| other.wait_unless(&killed))?
            .ok_or(Stop::Killed)
    }
}

/// Ends a command that is invalid in a zone's state (`sanity_check`). Everything else is decided by zoneadmd.
fn allowed(run: &mut Run, target: &Target, command: &str) -> Step {
    let state = run.state_of(&target.entry);
    let mut refuse = |text: String| fail(run, &target.name, &text);
    use IndexState::{Configured, Incomplete, Installed};
    match (command, state) {
        (
            "install" | "uninstall" | "clone" | "move" | "detach" | "attach" | "mark" | "sysboot",
            State::Kernel(_),
        ) => refuse(format!(
            "{command} operation is invalid for {} zones.",
            state.word()
        )),
        ("install" | "clone" | "attach", State::Index(Installed)) => {
            refuse("is already installed.".to_owned())
        }
        ("install" | "clone" | "attach" | "verify", State::Index(Incomplete)) => {
            refuse("zone is incomplete; uninstall required.".to_owned())
        }
        ("uninstall", State::Index(Configured)) => {
            refuse("is already in state 'configured'.".to_owned())
        }
        ("boot" | "ready" | "move" | "detach" | "mount", State::Index(Configured | Incomplete)) => {
            refuse(format!("must be installed before {command}."))
        }
        ("unmount", state) if state != State::Kernel(ZoneStatus::Mounted) => {
            refuse("must be mounted before unmount.".to_owned())
        }
        ("sysboot", State::Index(Configured | Incomplete)) => refuse(format!(
            "sysboot operation is invalid for {} zones.",
            state.word()
        )),
        ("reboot" | "shutdown", State::Index(_)) => refuse("not running".to_owned()),
        _ => Ok(()),
    }
}

/// The work of zoneadmd for zoneadm.
fn transition(run: &mut Run, target: &Target, command: &str, args: &[String]) -> Step<i32> {
    let known = match command {
        "shutdown" => "r",
        "boot" => "fs",
        "mount" => "f",
        _ => "",
    };
    let silent = matches!(command, "mount" | "unmount");
    let wrong = |run: &mut Run| match silent {
        true => Ok(exit::USAGE),
        false => sub_usage(run, command),
    };
    let parsed = match getopt(args, known, &[]) {
        Ok(parsed) => parsed,
        Err(bad) => {
            run.complain(&format!("{}: {bad}", args[0]));
            return wrong(run);
        }
    };
    if !parsed.rest.is_empty() && (silent || matches!(command, "halt" | "ready")) {
        return wrong(run);
    }
    run.without(&parsed, &format!("zoneadm {command}"), "f")?;
    allowed(run, target, command)?;
    if matches!(command, "boot" | "ready" | "mount" | "reboot")
        && !check::verify(run, target, command)?
    {
        return Ok(exit::ERROR);
    }
    run.point("verified")?;
    let mut commands = vec![command];
    if parsed.has('r') {
        // Shut down first, then booted.
        commands.push("boot");
    }
    for command in commands {
        let mut words = vec!["-z".to_owned(), target.name.clone(), command.to_owned()];
        if parsed.has('s') {
            words.push("-s".to_owned());
        }
        words.extend(parsed.rest.iter().cloned());
        let daemon = run.machine.helper("zoneadmd", &words, true)?;
        let reply = run.wait_for(daemon)?;
        run.err.push_str(&String::from_utf8_lossy(&reply.stderr));
        if reply.killed || reply.code != exit::OK {
            return match command {
                // These print nothing of their own.
                "halt" | "reboot" | "shutdown" => Ok(exit::ERROR),
                _ => fail(run, &target.name, "call to zoneadmd failed"),
            };
        }
    }
    Ok(exit::OK)
}

fn verify(run: &mut Run, target: &Target, args: &[String]) -> Step<i32> {
    if !args.is_empty() {
        return sub_usage(run, "verify");
    }
    allowed(run, target, "verify")?;
    Ok(match check::verify(run, target, "verify")? {
        true => exit::OK,
        false => exit::ERROR,
    })
}

fn mark(run: &mut Run, store: &ConfigStore, target: &Target, args: &[String]) -> Step<i32> {
    // Invalid options are not reported.
    let parsed = getopt(args, "F", &[]).ok();
    let state = parsed.and_then(|parsed| match (parsed.rest.as_slice(), parsed.has('F')) {
        ([word], _) if word == "incomplete" => Some(IndexState::Incomplete),
        ([word], true) if word == "configured" => Some(IndexState::Configured),
        ([word], true) if word == "installed" => Some(IndexState::Installed),
        _ => None,
    });
    let Some(state) = state else {
        return Ok(exit::USAGE);
    };
    allowed(run, target, "mark")?;
    let _lock = run.lock_file(&install::lock_name(&target.name))?;
    store.set_state(&target.name, state, None)?;
    Ok(exit::OK)
}

/// A line of a listing.
struct Line {
    id: Option<u64>,
    name: String,
    state: &'static str,
    path: String,
    uuid: String,
    brand: String,
    ip: &'static str,
    debug: Option<u64>,
}

fn line(run: &mut Run, store: &ConfigStore, entry: &IndexEntry) -> Line {
    let state = run.state_of(entry);
    let document = store.load(&entry.name).ok().flatten();
    let configured = document.as_ref().map(Configured::read);
    let host = run.host();
    let zone = host.zones.get(&entry.name);
    Line {
        id: zone.map(|z| z.id),
        name: entry.name.clone(),
        state: state.word(),
        path: zone.map_or(entry.path.clone(), |z| z.path.clone()),
        uuid: entry.uuid.clone(),
        brand: configured
            .as_ref()
            .map_or("???".to_owned(), |c| c.brand.clone()),
        ip: match configured.is_some_and(|c| c.exclusive) {
            true => "excl",
            false => "shared",
        },
        debug: host.debug_ids.get(&entry.name).copied(),
    }
}

fn list(run: &mut Run, store: &ConfigStore, zone: Option<&str>, args: &[String]) -> Step<i32> {
    let known = if zone.is_some() { "?pv" } else { "?cinpv" };
    let parsed = match getopt(args, known, &[]) {
        Ok(parsed) => parsed,
        Err(bad) => {
            // getopt(3C) takes the first word for the tool's name.
            run.complain(&format!("{}: {bad}", args[0]));
            return sub_usage(run, "list");
        }
    };
    if parsed.has('?') {
        sub_usage(run, "list")?;
        return Ok(exit::OK);
    }
    if parsed.has('p') && parsed.has('v') {
        let text = "list -p and -v are mutually exclusive.";
        if let Some(zone) = zone {
            return fail(run, zone, text);
        }
        run.complain(&format!("zoneadm: {text}"));
        return Ok(exit::ERROR);
    }
    // Words after the options only matter for a single zone.
    if zone.is_some() && !parsed.rest.is_empty() {
        return sub_usage(run, "list");
    }
    let global = Line {
        id: Some(0),
        name: "global".to_owned(),
        state: "running",
        path: "/".to_owned(),
        uuid: String::new(),
        brand: "ipkg".to_owned(),
        ip: "shared",
        debug: Some(0),
    };
    let mut lines = Vec::new();
    let index = store.index()?;
    match zone {
        Some("global") => lines.push(global),
        Some(name) => match index.iter().find(|e| e.name == name) {
            Some(entry) => lines.push(line(run, store, entry)),
            None => {
                run.complain(&format!("zoneadm: {name}: No such zone configured"));
                return Ok(exit::ERROR);
            }
        },
        None => {
            if !parsed.has('n') {
                lines.push(global);
            }
            let mut all: Vec<Line> = index.iter().map(|e| line(run, store, e)).collect();
            all.retain(|l| match l.state {
                "configured" | "incomplete" => parsed.has('c'),
                "installed" => parsed.has('c') || parsed.has('i'),
                // In the kernel.
                _ => true,
            });
            // Zones in the kernel come first.
            all.sort_by_key(|l| l.id.is_none());
            lines.extend(all);
        }
    }
    print(run, &lines, &parsed);
    Ok(exit::OK)
}

fn print(run: &mut Run, lines: &[Line], parsed: &Parsed) {
    let omnios = run.host().flavour == Flavour::Omnios;
    if parsed.has('v') {
        run.say(&format!(
            "{:>4} {:<16} {:<10} {:<30} {:<8} {:<6}",
            "ID", "NAME", "STATUS", "PATH", "BRAND", "IP"
        ));
    }
    for l in lines {
        let id = l.id.map_or("-".to_owned(), |id| id.to_string());
        let text = if parsed.has('v') {
            format!(
                "{id:>4} {:<16} {:<10} {:<30} {:<8} {:<6}",
                l.name, l.state, l.path, l.brand, l.ip
            )
        } else if parsed.has('p') {
            let debug = match omnios {
                true => format!(":{}", l.debug.map_or(String::new(), |d| d.to_string())),
                false => String::new(),
            };
            format!(
                "{id}:{}:{}:{}:{}:{}:{}{debug}",
                l.name,
                l.state,
                l.path.replace(':', "\\:"),
                l.uuid,
                l.brand,
                l.ip
            )
        } else {
            l.name.clone()
        };
        run.say(&text);
    }
}
