//! kstat(8) of zones, links and the host; and small tools that show properties of a host.

use std::collections::BTreeMap;

use super::exit;
use super::getopt::getopt;
use super::host::{Host, LinkClass};
use super::run::{Run, Step, now};
use super::zonecfg::Flavour;

/// The longest name of a kstat in bytes.
const LONGEST: usize = 30;
/// The value for no limit.
const NO_LIMIT: &str = "18446744073709551615";

/// A kstat: the statistics of one thing.
struct Kstat {
    module: &'static str,
    instance: u64,
    name: String,
    class: &'static str,
    /// Statistics with their values.
    values: BTreeMap<String, String>,
}

impl Kstat {
    /// A kstat with these values; other statistics are 0.
    fn of(
        (module, instance, name, class): (&'static str, u64, &str, &'static str),
        statistics: &[&str],
        known: &[(&str, String)],
    ) -> Self {
        let zero = statistics.iter().map(|s| ((*s).to_owned(), "0".to_owned()));
        let known = known.iter().map(|(s, v)| ((*s).to_owned(), v.clone()));
        // Each has its class and times: there is no clock here.
        let own = [("class", class), ("crtime", "0"), ("snaptime", "0")];
        let own = own.map(|(s, v)| (s.to_owned(), v.to_owned()));
        Kstat {
            module,
            instance,
            name: name.chars().take(LONGEST).collect(),
            class,
            values: zero.chain(known).chain(own).collect(),
        }
    }
}

/// `zones:ID:NAME` (`zone_misc_kstat_create`).
const ZONE: &[&str] = &[
    "avenrun_15min",
    "avenrun_1min",
    "avenrun_5min",
    "boot_time",
    "forkfail_cap",
    "forkfail_misc",
    "forkfail_nomem",
    "forkfail_noproc",
    "init_pid",
    "mapfail_seglim",
    "nested_interp",
    "nsec_sys",
    "nsec_user",
    "nsec_waitrq",
];
/// `caps:ID:cpucaps_zone_ID` (cpucaps.c).
const CPU_CAP: &[&str] = &["above_sec", "below_sec", "maxusage", "nwait", "usage"];
/// `memory_cap:ID:NAME`.
const MEMORY: &[&str] = &[
    "anon_alloc_fail",
    "anonpgin",
    "execpgin",
    "fspgin",
    "pgpgin",
];
/// `zone_vfs:ID:NAME`.
const VFS: &[&str] = &[
    "100ms_ops",
    "10ms_ops",
    "10s_ops",
    "1s_ops",
    "delay_cnt",
    "delay_time",
    "nread",
    "nwritten",
    "rcnt",
    "reads",
    "rlentime",
    "rtime",
    "wcnt",
    "wlentime",
    "writes",
    "wtime",
];
/// `link:0:LINK` (dls_stat.c).
const LINK: &[&str] = &[
    "brdcstrcv",
    "brdcstxmt",
    "collisions",
    "ierrors",
    "ifspeed",
    "ipackets",
    "ipackets64",
    "link_duplex",
    "link_state",
    "multircv",
    "multixmt",
    "norcvbuf",
    "noxmtbuf",
    "obytes",
    "obytes64",
    "oerrors",
    "opackets",
    "opackets64",
    "rbytes",
    "rbytes64",
    "unknowns",
];

/// Adds the kstats of a zone.
fn of_zone(host: &Host, name: &str, all: &mut Vec<Kstat>) {
    let Some(zone) = host.zones.get(name) else {
        return;
    };
    let id = zone.id;
    let named = || ("zonename", name.to_owned());
    let init = zone.init.as_ref();
    let init = init.map_or(1000 + id, |(pid, _)| u64::from(*pid));
    all.push(Kstat::of(
        ("zones", id, name, "zone_misc"),
        ZONE,
        &[
            ("boot_time", zone.booted.to_string()),
            ("init_pid", init.to_string()),
            ("nsec_sys", zone.cpu.1.to_string()),
            ("nsec_user", zone.cpu.0.to_string()),
            named(),
        ],
    ));
    let limit = |control: &str| zone.rctls.get(control).cloned();
    if let Some(cap) = limit("zone.cpu-cap") {
        all.push(Kstat::of(
            ("caps", id, &format!("cpucaps_zone_{id}"), "zone_caps"),
            CPU_CAP,
            &[("value", cap), named()],
        ));
    }
    let or_none = |control: &str| limit(control).unwrap_or_else(|| NO_LIMIT.to_owned());
    for (kind, control, usage) in [
        ("swapresv", "zone.max-swap", zone.memory.1),
        ("lockedmem", "zone.max-locked-memory", 0),
        ("nprocs", "zone.max-processes", 1),
        ("physicalmem", "zone.max-physical-memory", zone.memory.0),
    ] {
        if kind == "physicalmem" && host.flavour == Flavour::Gate {
            continue;
        }
        all.push(Kstat::of(
            ("caps", id, &format!("{kind}_zone_{id}"), "zone_caps"),
            &[],
            &[
                ("usage", usage.to_string()),
                ("value", or_none(control)),
                named(),
            ],
        ));
    }
    let mut memory = vec![named()];
    if host.flavour == Flavour::Omnios {
        memory.extend([
            ("nover", "0".to_owned()),
            ("pagedout", "0".to_owned()),
            ("physcap", or_none("zone.max-physical-memory")),
            ("rss", zone.memory.0.to_string()),
            ("swap", zone.memory.1.to_string()),
            ("swapcap", or_none("zone.max-swap")),
        ]);
        all.push(Kstat::of(
            ("zone_vfs", id, name, "zone_vfs"),
            VFS,
            &[named()],
        ));
    }
    all.push(Kstat::of(
        ("memory_cap", id, name, "zone_memory_cap"),
        MEMORY,
        &memory,
    ));
}

/// All kstats, in the order in which they are printed.
fn statistics(host: &Host) -> Vec<Kstat> {
    let global = [
        ("init_pid", "1".to_owned()),
        ("zonename", "global".to_owned()),
    ];
    let mut all = vec![Kstat::of(
        ("zones", 0, "global", "zone_misc"),
        ZONE,
        &global,
    )];
    for name in host.zones.keys() {
        of_zone(host, name, &mut all);
    }
    for (name, link) in &host.links {
        if link.active && link.class != LinkClass::Etherstub {
            all.push(Kstat::of(("link", 0, name, "net"), LINK, &[]));
        }
    }
    let pages = [
        ("freemem", "1048576"),
        ("pagesfree", "1048576"),
        ("pagestotal", "2097152"),
        ("physmem", "2097152"),
    ];
    all.push(Kstat::of(
        ("unix", 0, "system_pages", "pages"),
        &[],
        &pages.map(|(s, v)| (s, v.to_owned())),
    ));
    for cpu in 0..4 {
        let counted = ["cpu_nsec_idle", "cpu_nsec_kernel", "cpu_nsec_user"];
        all.push(Kstat::of(("cpu", cpu, "sys", "misc"), &counted, &[]));
        let state = [("state", "on-line".to_owned())];
        let name = format!("cpu_info{cpu}");
        all.push(Kstat::of(("cpu_info", cpu, &name, "misc"), &[], &state));
    }
    all.sort_by_key(|k| (k.module, k.instance, k.name.to_lowercase()));
    all
}

/// Whether a name matches a pattern of gmatch(3GEN): `*` and `?` match any characters, `[a-c]` and `[!a-c]` one of a
/// set.
fn matches(pattern: &str, name: &str) -> bool {
    fn glob(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(b'*'), _) => {
                glob(&pattern[1..], name) || (!name.is_empty() && glob(pattern, &name[1..]))
            }
            (Some(b'?'), Some(_)) => glob(&pattern[1..], &name[1..]),
            (Some(b'['), Some(n)) => {
                let Some(end) = pattern.iter().skip(2).position(|c| *c == b']') else {
                    return false;
                };
                let (set, rest) = (&pattern[1..end + 2], &pattern[end + 3..]);
                let (wanted, set) = match set {
                    [b'!', set @ ..] => (false, set),
                    set => (true, set),
                };
                let range = set
                    .windows(3)
                    .any(|w| w[1] == b'-' && (w[0]..=w[2]).contains(n));
                (range || set.contains(n)) == wanted && glob(rest, &name[1..])
            }
            (Some(p), Some(n)) if p == n => glob(&pattern[1..], &name[1..]),
            _ => false,
        }
    }
    glob(pattern.as_bytes(), name.as_bytes())
}

const KSTAT_USAGE: &str = "Usage:
kstat [ -Cjlpq ] [ -T d|u ] [ -c class ]
      [ -m module ] [ -i instance ] [ -n name ] [ -s statistic ]
      [ interval [ count ] ]
kstat [ -Cjlpq ] [ -T d|u ] [ -c class ]
      [ module[:instance[:name[:statistic]]] ... ]
      [ interval [ count ] ]";

/// `kstat -p [-C|-l|-q] [-c CLASS] [-m M] [-i I] [-n N] [-s S] [M:I:N:S]...` (cmd/stat/kstat/kstat.c)
pub fn kstat(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    /// The status for an invalid selection of kstats.
    const WRONG: i32 = 2;
    let parsed = match getopt(args, "h?CqjlpT:m:i:n:s:c:", &[]) {
        Ok(parsed) if !parsed.has('h') && !parsed.has('?') => parsed,
        other => {
            if let Err(bad) = other {
                run.complain(&format!("kstat: {bad}"));
            }
            // An invalid option prints the help.
            run.complain(KSTAT_USAGE);
            return Ok(exit::OK);
        }
    };
    let parsable = ['p', 'C', 'l'].iter().any(|letter| parsed.has(*letter));
    if parsed.has('q') && (parsable || parsed.has('j')) {
        run.complain("-q and -lpj are mutually exclusive");
        run.complain(KSTAT_USAGE);
        return Ok(WRONG);
    }
    if !parsable || parsed.has('j') || parsed.has('T') {
        run.complain("fakehost: kstat is played only with -p, -C and -l");
        return Ok(exit::NOT_PLAYED);
    }
    let any = || "*".to_owned();
    let option = |letter| parsed.value(letter).map_or_else(any, str::to_owned);
    let mut patterns: Vec<[String; 4]> = Vec::new();
    for word in &parsed.rest {
        if word.bytes().all(|b| b.is_ascii_digit()) {
            run.complain("fakehost: kstat is played without an interval");
            return Ok(exit::NOT_PLAYED);
        }
        let parts: Vec<&str> = word.split(':').collect();
        if parts.len() > 4 {
            run.complain(KSTAT_USAGE);
            return Ok(WRONG);
        }
        if parts
            .iter()
            .any(|part| part.len() > 1 && part.starts_with('/') && part.ends_with('/'))
        {
            run.complain("fakehost: kstat is played without regular expressions");
            return Ok(exit::NOT_PLAYED);
        }
        let part = |at: usize| parts.get(at).filter(|part| !part.is_empty());
        patterns.push(std::array::from_fn(|at| {
            part(at).map_or_else(any, |part| (*part).to_owned())
        }));
    }
    let named = ['m', 'i', 'n', 's']
        .iter()
        .any(|letter| parsed.has(*letter));
    match (patterns.is_empty(), named) {
        (true, _) => patterns.push([option('m'), option('i'), option('n'), option('s')]),
        (false, false) => {}
        (false, true) => {
            // The usage follows on the same line.
            run.complain(&format!(
                "[module[:instance[:name[:statistic]]]] and -m -i -n -s are mutually exclusive{KSTAT_USAGE}"
            ));
            return Ok(WRONG);
        }
    }
    let (class, separator) = (option('c'), if parsed.has('C') { ':' } else { '\t' });
    let mut lines = Vec::new();
    let all = statistics(run.host());
    for [module, instance, name, statistic] in &patterns {
        for k in &all {
            let meant = matches(module, k.module)
                && matches(instance, &k.instance.to_string())
                && matches(name, &k.name)
                && matches(&class, k.class);
            let values = k
                .values
                .iter()
                .filter(|(s, _)| meant && matches(statistic, s));
            lines.extend(values.map(|(statistic, value)| {
                let key = format!("{}:{}:{}:{statistic}", k.module, k.instance, k.name);
                match parsed.has('l') {
                    true => key,
                    false => format!("{key}{separator}{value}"),
                }
            }));
        }
    }
    lines.iter().for_each(|line| run.say(line));
    Ok(if lines.is_empty() {
        exit::ERROR
    } else {
        exit::OK
    })
}

/// ppriv(1): `ppriv -S PID`, for a process in the global zone started by root.
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

/// `dispadmin -d [CLASS]`
pub fn dispadmin(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    const CLASSES: [(&str, &str); 4] = [
        ("FSS", "Fair Share"),
        ("FX", "Fixed Priority"),
        ("TS", "Time Sharing"),
        ("IA", "Interactive"),
    ];
    match args {
        [one] if one == "-d" => {
            let class = run.host().scheduling.clone();
            match CLASSES
                .iter()
                .find(|(name, _)| Some(*name) == class.as_deref())
            {
                Some((name, what)) => {
                    run.say(&format!("{name}\t({what})"));
                    Ok(exit::OK)
                }
                None => run.end(
                    exit::ERROR,
                    "dispadmin: Default scheduling class is not set",
                ),
            }
        }
        [one, class] if one == "-d" && CLASSES.iter().any(|(name, _)| name == class) => {
            run.host().scheduling = Some(class.clone());
            Ok(exit::OK)
        }
        _ => run.not_played("dispadmin but for -d"),
    }
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
