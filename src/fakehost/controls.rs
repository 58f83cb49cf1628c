//! prctl(1) for zones (cmd/prctl/prctl.c).

use super::exit;
use super::getopt::getopt;
use super::host::ZoneStatus;
use super::run::{Run, Step};
use super::zfs;

const USAGE: &str = "usage:
    Report resource control values and actions:
\tprctl [-P] [-t [basic | privileged | system]
\t[-n name] [-i process | task | project | zone] id ...";

/// The resource controls of a zone (os/zone.c).
const CONTROLS: &[&str] = &[
    "zone.cpu-cap",
    "zone.cpu-shares",
    "zone.max-lofi",
    "zone.max-locked-memory",
    "zone.max-lwps",
    "zone.max-msg-ids",
    "zone.max-physical-memory",
    "zone.max-processes",
    "zone.max-sem-ids",
    "zone.max-shm-ids",
    "zone.max-shm-memory",
    "zone.max-swap",
    "zone.zfs-io-priority",
];
/// Controls that never deny (`RCTL_GLOBAL_DENY_NEVER`, zone.c).
const DENY_NEVER: &[&str] = &["zone.cpu-shares", "zone.max-physical-memory"];

/// `prctl [-n NAME] [-t KIND] [-v VALUE] [-r|-s|-x] [-P] -i zone ZONE`
pub fn prctl(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let wrong = |run: &mut Run, why: &str| {
        run.complain(&format!("prctl: {why}"));
        run.complain(USAGE);
        Ok(exit::USAGE)
    };
    let parsed = match getopt(args, "sPp:Fd:e:i:n:rt:v:x", &[]) {
        Ok(parsed) => parsed,
        Err(bad) => {
            run.complain(&format!("prctl: {bad}"));
            return wrong(run, "unknown option");
        }
    };
    if parsed.rest.is_empty() {
        return wrong(run, "no arguments specified");
    }
    if parsed.rest.len() > 1 {
        return run.not_played("prctl of several zones");
    }
    run.without(&parsed, "prctl", "pFd")?;
    let value = parsed.value('v').map(str::to_owned);
    let kinds = ['s', 'r', 'x'].into_iter().filter(|kind| parsed.has(*kind));
    let mut kinds: Vec<char> = kinds.collect();
    if kinds.is_empty() && value.is_some() && !parsed.has('e') {
        // A value without an action is set.
        kinds.push('s');
    }
    let control = parsed.value('n').map(str::to_owned);
    let why = match (kinds.as_slice(), &control, &value) {
        ([_, ..], None, _) => Some("-n is required with -s, -r, -x, -e, or -d".to_owned()),
        ([_, _, ..], ..) => Some("options -s, -r, and -x are exclusive".to_owned()),
        ([kind @ ('r' | 's')], _, None) => {
            Some(format!("option -{kind} requires use of option -v"))
        }
        ([_], ..) if parsed.has('P') => {
            Some("-P not valid when manipulating resource control values".to_owned())
        }
        ([_], Some(control), _) if !CONTROLS.contains(&control.as_str()) => Some(format!(
            "failed to get resource control for {control}: Invalid argument"
        )),
        _ => None,
    };
    if let Some(why) = why {
        return wrong(run, &why);
    }
    let number = value.as_deref().map(zfs::number);
    let number = match number.transpose() {
        Ok(number) => number.unwrap_or(0),
        Err(_) => {
            return wrong(
                run,
                &format!("invalid -v value {}", value.unwrap_or_default()),
            );
        }
    };
    if !matches!(parsed.value('i'), Some("zone" | "zoneid")) {
        return run.not_played("prctl of anything but a zone");
    }
    let privileged = match parsed.value('t') {
        None | Some("basic") => false,
        Some("privileged" | "priv") => true,
        Some("system") if !kinds.is_empty() => return wrong(run, "cannot modify system values"),
        Some("system") => return run.not_played("prctl of the system's values"),
        Some(other) => return wrong(run, &format!("unknown privilege {other}")),
    };
    let denies = parsed.value('e').is_some_and(|action| action == "deny");
    if denies
        && control
            .as_deref()
            .is_some_and(|one| DENY_NEVER.contains(&one))
    {
        return wrong(
            run,
            "unable to enable deny on rctl with global flag 'no-deny'",
        );
    }
    if kinds == ['s'] && !privileged {
        return wrong(
            run,
            "-p pid required when setting or replacing task or project rctl",
        );
    }
    let wanted = &parsed.rest[0];
    let found = run
        .host()
        .zones
        .iter_mut()
        .find(|(name, z)| *name == wanted || z.id.to_string() == *wanted);
    let Some((name, zone)) = found else {
        run.complain(&format!("prctl: {wanted}: unknown zone"));
        return Ok(exit::ERROR);
    };
    if zone.status != ZoneStatus::Running {
        let text =
            format!("prctl: {wanted}: No controllable process found in task, project, or zone.");
        run.complain(&text);
        return Ok(exit::ERROR);
    }
    let pid = zone
        .init
        .as_ref()
        .map_or(1000 + zone.id, |(pid, _)| u64::from(*pid));
    // An error about the target process is reported after its name.
    let failed = |run: &mut Run, why: &str| {
        run.complain(&format!("{pid}:\tinit\nprctl: {why}"));
        Ok(exit::ERROR)
    };
    let control_of = control.clone().unwrap_or_default();
    let now = zone.rctls.get(&control_of).cloned();
    // Only privileged values are stored here: the system's values, which every control has, cannot be changed.
    match (kinds.as_slice(), now) {
        (['x'], None) => return failed(run, "no matching resource control found for deletion"),
        (['x'], Some(_)) => {
            zone.rctls.remove(&control_of);
            return Ok(exit::OK);
        }
        (['s'], Some(now)) if now == number.to_string() => {
            return failed(run, "resource control already exists");
        }
        (['r'], None) if privileged => {
            return failed(run, "no matching resource control to replace");
        }
        (['r'], None) => return failed(run, "cannot modify system values"),
        (['r' | 's'], _) => {
            zone.rctls.insert(control_of, number.to_string());
            return Ok(exit::OK);
        }
        _ => {}
    }
    let (id, name) = (zone.id, name.clone());
    if !parsed.has('P') {
        return run.not_played("the table of prctl");
    }
    let lines: Vec<String> = zone
        .rctls
        .iter()
        .filter(|(c, _)| control.as_ref().is_none_or(|w| w == *c))
        .map(|(c, v)| {
            let action = if DENY_NEVER.contains(&c.as_str()) {
                "none"
            } else {
                "deny"
            };
            format!("{c} privileged {v} - {action} -")
        })
        .collect();
    run.say(&format!("zone: {id}: {name}"));
    lines.iter().for_each(|line| run.say(line));
    Ok(exit::OK)
}
