//! kstat(8) of zones, links and the host; prctl(1) of zones; what small tools tell of a host.

use super::exit;
use super::getopt::getopt;
use super::host::{Host, LinkClass};
use super::run::{Run, Step, now};
use super::zfs;
use super::zonecfg::Flavour;

/// The longest name of a kstat in bytes.
const LONGEST: usize = 30;
/// What stands for no limit.
const NO_LIMIT: &str = "18446744073709551615";

/// A statistic: module, instance, name, statistic, class, value.
type Statistic = (String, u64, String, String, &'static str, String);

fn statistics(host: &Host) -> Vec<Statistic> {
    let mut all = Vec::new();
    let mut add = |module: &str,
                   instance: u64,
                   name: &str,
                   class: &'static str,
                   values: &[(&str, String)]| {
        let cut: String = name.chars().take(LONGEST).collect();
        for (statistic, value) in values {
            all.push((
                module.to_owned(),
                instance,
                cut.clone(),
                (*statistic).to_owned(),
                class,
                value.clone(),
            ));
        }
    };
    let zero = || "0".to_owned();
    let global = [
        ("boot_time", zero()),
        ("init_pid", "1".to_owned()),
        ("nsec_sys", zero()),
        ("nsec_user", zero()),
        ("nsec_waitrq", zero()),
        ("zonename", "global".to_owned()),
    ];
    add("zones", 0, "global", "zone_misc", &global);
    for (name, zone) in &host.zones {
        let text = |s: &str| s.to_owned();
        let number = |n: u64| n.to_string();
        add(
            "zones",
            zone.id,
            name,
            "zone_misc",
            &[
                ("avenrun_15min", text("0")),
                ("avenrun_1min", text("0")),
                ("avenrun_5min", text("0")),
                ("boot_time", number(zone.booted)),
                ("forkfail_cap", text("0")),
                (
                    "init_pid",
                    number(
                        zone.init
                            .as_ref()
                            .map_or(1000 + zone.id, |i| u64::from(i.0)),
                    ),
                ),
                ("nsec_sys", number(zone.cpu.1)),
                ("nsec_user", number(zone.cpu.0)),
                ("nsec_waitrq", text("0")),
                ("zonename", name.clone()),
            ],
        );
        let rctl = |name: &str| zone.rctls.get(name).cloned();
        let id = zone.id;
        if let Some(cap) = rctl("zone.cpu-cap") {
            let caps = format!("cpucaps_zone_{id}");
            let values = [
                ("above_sec", text("0")),
                ("below_sec", text("0")),
                ("maxusage", text("0")),
                ("nwait", text("0")),
                ("usage", text("0")),
                ("value", cap),
                ("zonename", name.clone()),
            ];
            add("caps", id, &caps, "zone_caps", &values);
        }
        let limits = [
            ("swapresv", "zone.max-swap", zone.memory.1),
            ("lockedmem", "zone.max-locked-memory", 0),
            ("nprocs", "zone.max-processes", 1),
            ("physicalmem", "zone.max-physical-memory", zone.memory.0),
        ];
        for (kind, control, usage) in limits {
            if kind == "physicalmem" && host.flavour == Flavour::Gate {
                continue;
            }
            let values = [
                ("usage", number(usage)),
                ("value", rctl(control).unwrap_or_else(|| text(NO_LIMIT))),
                ("zonename", name.clone()),
            ];
            add(
                "caps",
                id,
                &format!("{kind}_zone_{id}"),
                "zone_caps",
                &values,
            );
        }
        let mut memory = vec![
            ("anon_alloc_fail", text("0")),
            ("anonpgin", text("0")),
            ("execpgin", text("0")),
            ("fspgin", text("0")),
            ("pgpgin", text("0")),
            ("zonename", name.clone()),
        ];
        if host.flavour == Flavour::Omnios {
            memory.extend([
                ("nover", text("0")),
                ("pagedout", text("0")),
                (
                    "physcap",
                    rctl("zone.max-physical-memory").unwrap_or_else(|| text(NO_LIMIT)),
                ),
                ("rss", number(zone.memory.0)),
                ("swap", number(zone.memory.1)),
                (
                    "swapcap",
                    rctl("zone.max-swap").unwrap_or_else(|| text(NO_LIMIT)),
                ),
            ]);
            let io = ["nread", "nwritten", "reads", "writes"].map(|s| (s, text("0")));
            add("zone_vfs", id, name, "zone_vfs", &io);
        }
        add("memory_cap", id, name, "zone_memory_cap", &memory);
    }
    let nics = host
        .links
        .iter()
        .filter(|(_, l)| l.active && l.class != LinkClass::Etherstub);
    for (name, _) in nics {
        let values = [
            "ierrors",
            "ipackets64",
            "obytes64",
            "oerrors",
            "opackets64",
            "rbytes64",
        ]
        .map(|s| (s, "0".to_owned()));
        add("link", 0, name, "net", &values);
    }
    let pages = [
        ("freemem", "1048576"),
        ("physmem", "2097152"),
        ("pagesfree", "1048576"),
        ("pagestotal", "2097152"),
    ];
    add(
        "unix",
        0,
        "system_pages",
        "pages",
        &pages.map(|(s, v)| (s, v.to_owned())),
    );
    for cpu in 0..4 {
        let values =
            ["cpu_nsec_idle", "cpu_nsec_kernel", "cpu_nsec_user"].map(|s| (s, "0".to_owned()));
        add("cpu", cpu, "sys", "misc", &values);
        add(
            "cpu_info",
            cpu,
            &format!("cpu_info{cpu}"),
            "misc",
            &[("state", "on-line".to_owned())],
        );
    }
    all.sort();
    all
}

/// Whether a name is meant: nothing and `*` mean every one, `*` and `?` any characters.
fn matches(pattern: &str, name: &str) -> bool {
    fn glob(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(b'*'), _) => {
                glob(&pattern[1..], name) || (!name.is_empty() && glob(pattern, &name[1..]))
            }
            (Some(b'?'), Some(_)) => glob(&pattern[1..], &name[1..]),
            (Some(p), Some(n)) if p == n => glob(&pattern[1..], &name[1..]),
            _ => false,
        }
    }
    pattern.is_empty() || glob(pattern.as_bytes(), name.as_bytes())
}

/// `kstat -p [-c CLASS] [-m M] [-i I] [-n N] [-s S] [M:I:N:S]...`
pub fn kstat(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "Cqjlpc:m:i:n:s:T:", &[]) else {
        run.complain("Usage:\nkstat [ -Cjlpq ] [ -T d|u ] [ -c class ]");
        return Ok(exit::USAGE);
    };
    if !parsed.has('p') {
        run.complain("fakehost: kstat is played only with -p");
        return Ok(exit::NOT_PLAYED);
    }
    let option = |letter| parsed.value(letter).unwrap_or("").to_owned();
    let mut patterns: Vec<[String; 4]> = parsed
        .rest
        .iter()
        .map(|word| {
            let mut parts = word.splitn(4, ':').map(str::to_owned);
            std::array::from_fn(|_| parts.next().unwrap_or_default())
        })
        .collect();
    if patterns.is_empty() {
        patterns.push([option('m'), option('i'), option('n'), option('s')]);
    }
    let class = option('c');
    let mut found = false;
    for (module, instance, name, statistic, of, value) in statistics(run.host()) {
        let cells = [&module, &instance.to_string(), &name, &statistic];
        let meant = matches(&class, of)
            && patterns
                .iter()
                .any(|p| p.iter().zip(cells).all(|(p, cell)| matches(p, cell)));
        if meant {
            found = true;
            run.say(&format!("{module}:{instance}:{name}:{statistic}\t{value}"));
        }
    }
    Ok(if found { exit::OK } else { exit::ERROR })
}

/// Controls that never deny (`RCTL_GLOBAL_DENY_NEVER`, zone.c).
const DENY_NEVER: &[&str] = &["zone.cpu-shares", "zone.max-physical-memory"];

/// `prctl [-n NAME] [-t KIND] [-v VALUE] [-r|-s|-x] [-P] -i zone ZONE`
pub fn prctl(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let usage = "usage:\tprctl [-n name] [-t type] [-v value] [-e action] [-d action] [-rxs] [-i idtype] id ...";
    let parsed = match getopt(args, "n:t:v:e:d:rxsPi:p:", &[]) {
        Ok(parsed) if parsed.rest.len() == 1 => parsed,
        _ => {
            run.complain(usage);
            return Ok(exit::USAGE);
        }
    };
    if parsed.value('i') != Some("zone") {
        run.complain("fakehost: prctl is played only with -i zone");
        return Ok(exit::NOT_PLAYED);
    }
    let wanted = &parsed.rest[0];
    let host = run.host();
    let found = host
        .zones
        .iter_mut()
        .find(|(name, z)| *name == wanted || z.id.to_string() == *wanted);
    let Some((name, zone)) = found else {
        run.complain(&format!(
            "prctl: {wanted}: No controllable process found in task, project, or zone."
        ));
        return Ok(exit::ERROR);
    };
    let control = parsed.value('n').map(str::to_owned);
    if let Some(control) = control.as_ref().filter(|c| !c.starts_with("zone.")) {
        let text = format!("prctl: unknown resource control {control}");
        run.complain(&text);
        return Ok(exit::ERROR);
    }
    if parsed.has('x') || parsed.has('r') || parsed.has('s') {
        let Some(control) = control else {
            run.complain(usage);
            return Ok(exit::USAGE);
        };
        if parsed.has('x') {
            zone.rctls.remove(&control);
            return Ok(exit::OK);
        }
        let value = parsed.value('v').unwrap_or("");
        let Ok(number) = zfs::number(value) else {
            run.complain(&format!("prctl: invalid value {value}"));
            return Ok(exit::ERROR);
        };
        // Only privileged values are kept here: those of the system, which every control has, cannot be changed.
        let privileged = parsed.value('t') == Some("privileged");
        if parsed.has('r') && !zone.rctls.contains_key(&control) {
            run.complain(match privileged {
                true => "prctl: no matching resource control to replace\n",
                false => "prctl: cannot modify system values\n",
            });
            return Ok(exit::ERROR);
        }
        if parsed.has('s') && !privileged {
            run.complain("prctl: -p required when setting basic rctls\n");
            return Ok(exit::ERROR);
        }
        let denies = parsed
            .value('e')
            .is_some_and(|action| action.contains("deny"));
        if denies && DENY_NEVER.contains(&control.as_str()) {
            run.complain(&format!("prctl: {control}: denying is not possible"));
            return Ok(exit::ERROR);
        }
        zone.rctls.insert(control, number.to_string());
        return Ok(exit::OK);
    }
    let (id, name) = (zone.id, name.clone());
    let lines: Vec<String> = zone
        .rctls
        .iter()
        .filter(|(c, _)| control.as_ref().is_none_or(|w| w == *c))
        .map(|(c, v)| format!("{c} privileged {v} - deny -"))
        .collect();
    run.say(&format!("zone: {id}: {name}"));
    lines.iter().for_each(|line| run.say(line));
    Ok(exit::OK)
}

/// ppriv(1): `ppriv -S PID`, of a process in the global zone that root started.
pub fn ppriv(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "ensDPSvlM:I:P:E:L:", &[]) else {
        run.complain("usage:\n\tppriv [-v] [-S] [-D|-N] [-s spec] { pid | core } ...");
        return Ok(exit::USAGE);
    };
    run.without(&parsed, "ppriv", "ensDPvlMIEL")?;
    for pid in &parsed.rest {
        if pid.parse::<u32>().is_err() {
            run.complain(&format!("ppriv: cannot examine {pid}: no such process"));
            return Ok(exit::ERROR);
        }
        run.say(&format!(
            "{pid}:\treddwarf\nflags = <none>\n\tE: all\n\tI: basic\n\tP: all\n\tL: all"
        ));
    }
    Ok(exit::OK)
}

/// `zonename`
pub fn zonename(run: &mut Run, _: &[String], _: &[u8]) -> Step<i32> {
    run.say("global");
    Ok(exit::OK)
}

/// `pagesize`
pub fn pagesize(run: &mut Run, _: &[String], _: &[u8]) -> Step<i32> {
    run.say("4096");
    Ok(exit::OK)
}

/// `psrinfo [-p]`
pub fn psrinfo(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    match args {
        [one] if one == "-p" => run.say("1"),
        _ => (0..4).for_each(|cpu| run.say(&format!("{cpu}\ton-line   since {}", now()))),
    }
    Ok(exit::OK)
}
