//! zpool(8): showing, exporting and importing pools.

use super::{mount, properties};
use crate::fakehost::exit;
use crate::fakehost::getopt::getopt;
use crate::fakehost::host::Health;
use crate::fakehost::run::{Run, Step};

const COLUMNS: &[&str] = &[
    "name",
    "size",
    "allocated",
    "free",
    "checkpoint",
    "expandsize",
    "fragmentation",
    "capacity",
    "dedupratio",
    "health",
    "altroot",
];

fn column(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "name" => ("name", "NAME"),
        "size" => ("size", "SIZE"),
        "alloc" | "allocated" => ("allocated", "ALLOC"),
        "free" => ("free", "FREE"),
        "ckpoint" | "checkpoint" => ("checkpoint", "CKPOINT"),
        "expandsz" | "expandsize" => ("expandsize", "EXPANDSZ"),
        "frag" | "fragmentation" => ("fragmentation", "FRAG"),
        "cap" | "capacity" => ("capacity", "CAP"),
        "dedup" | "dedupratio" => ("dedupratio", "DEDUP"),
        "health" => ("health", "HEALTH"),
        "altroot" => ("altroot", "ALTROOT"),
        "readonly" | "rdonly" => ("readonly", "RDONLY"),
        "failmode" => ("failmode", "FAILMODE"),
        "guid" => ("guid", "GUID"),
        "version" => ("version", "VERSION"),
        "bootfs" => ("bootfs", "BOOTFS"),
        _ => return None,
    })
}

fn value(run: &mut Run, pool: &str, property: &str, exact: bool) -> String {
    let (host, disk) = run.view();
    let free = host.free(pool, disk);
    let Some(p) = host.pools.get(pool) else {
        return "-".to_owned();
    };
    let used = p.size.saturating_sub(free);
    let bytes = |n: u64| match exact {
        true => n.to_string(),
        false => properties::nice(n),
    };
    match property {
        "name" => pool.to_owned(),
        "size" => bytes(p.size),
        "allocated" => bytes(used),
        "free" => bytes(free),
        "capacity" => {
            let percent = used.saturating_mul(100) / p.size.max(1);
            format!("{percent}{}", if exact { "" } else { "%" })
        }
        "fragmentation" => if exact { "0" } else { "0%" }.to_owned(),
        "dedupratio" => if exact { "1.00" } else { "1.00x" }.to_owned(),
        "health" => match p.health {
            Health::Suspended => "UNAVAIL",
            _ => "ONLINE",
        }
        .to_owned(),
        "readonly" => match p.health {
            Health::ReadOnly => "on",
            _ => "off",
        }
        .to_owned(),
        "failmode" => "wait".to_owned(),
        "guid" => host
            .datasets
            .get(pool)
            .map_or("-".to_owned(), |d| (d.id + 0x1000).to_string()),
        _ => "-".to_owned(),
    }
}

/// The named pools, or all; missing ones are reported.
fn pools(run: &mut Run, words: &[String]) -> (Vec<String>, i32) {
    let host = run.host();
    if words.is_empty() {
        let all = host.pools.iter().filter(|(_, p)| p.imported);
        return (all.map(|(name, _)| name.clone()).collect(), exit::OK);
    }
    let (found, missing): (Vec<String>, Vec<String>) =
        words.iter().cloned().partition(|name| host.has_pool(name));
    for name in &missing {
        run.complain(&format!("cannot open '{name}': no such pool"));
    }
    let code = if missing.is_empty() {
        exit::OK
    } else {
        exit::ERROR
    };
    (found, code)
}

/// `zpool args...`
pub fn zpool(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Some((command, args)) = args.split_first() else {
        run.complain("missing command\nusage: zpool command args ...");
        return Ok(exit::USAGE);
    };
    let known = match command.as_str() {
        "list" => "Ho:pT:v",
        "status" => "xvDT:",
        "get" => "Hpo:",
        "import" => "No:fR:d:a",
        "export" => "f",
        "clear" => "Fn",
        "create" | "destroy" | "add" | "attach" | "detach" | "history" | "iostat" | "offline"
        | "online" | "remove" | "replace" | "scrub" | "set" | "split" | "upgrade" => {
            run.complain(&format!(
                "fakehost: zpool {command} is not played by the fake host"
            ));
            return Ok(exit::NOT_PLAYED);
        }
        other => {
            run.complain(&format!(
                "unrecognized command '{other}'\nusage: zpool command args ..."
            ));
            return Ok(exit::USAGE);
        }
    };
    let parsed = match getopt(args, known, &[]) {
        Ok(parsed) => parsed,
        Err(bad) => {
            run.complain(&format!(
                "invalid option '{}'\nusage:\n\tzpool {command} ...",
                bad.letter()
            ));
            return Ok(exit::USAGE);
        }
    };
    match command.as_str() {
        "list" => {
            let asked: Vec<String> = match parsed.value('o') {
                Some(text) => text.split(',').map(str::to_owned).collect(),
                None => COLUMNS.iter().map(|c| (*c).to_owned()).collect(),
            };
            if let Some(unknown) = asked.iter().find(|c| column(c).is_none()) {
                run.complain(&format!(
                    "invalid property '{unknown}'\nusage:\n\tzpool list ..."
                ));
                return Ok(exit::USAGE);
            }
            let (found, code) = pools(run, &parsed.rest);
            if found.is_empty() && parsed.rest.is_empty() {
                run.say("no pools available");
                return Ok(code);
            }
            let columns: Vec<_> = asked.iter().filter_map(|c| column(c)).collect();
            if !parsed.has('H') && !found.is_empty() {
                let header: Vec<&str> = columns.iter().map(|(_, h)| *h).collect();
                run.say(&header.join("  "));
            }
            let separator = if parsed.has('H') { "\t" } else { "  " };
            for pool in found {
                let row: Vec<String> = columns
                    .iter()
                    .map(|(c, _)| value(run, &pool, c, parsed.has('p')))
                    .collect();
                run.say(&row.join(separator));
            }
            Ok(code)
        }
        "get" => {
            let Some((list, words)) = parsed.rest.split_first() else {
                run.complain("missing property argument\nusage:\n\tzpool get ...");
                return Ok(exit::USAGE);
            };
            let asked: Vec<&str> = match list.as_str() {
                "all" => COLUMNS
                    .iter()
                    .skip(1)
                    .copied()
                    .chain(["readonly", "failmode"])
                    .collect(),
                list => list.split(',').collect(),
            };
            if let Some(unknown) = asked.iter().find(|c| column(c).is_none()) {
                run.complain(&format!(
                    "bad property list: invalid property '{unknown}'\nusage:\n\tzpool get ..."
                ));
                return Ok(exit::USAGE);
            }
            let fields: Vec<&str> = parsed
                .value('o')
                .unwrap_or("name,property,value,source")
                .split(',')
                .collect();
            let (found, code) = pools(run, words);
            if !parsed.has('H') && !found.is_empty() {
                run.say(&fields.join("  ").to_ascii_uppercase());
            }
            for pool in found {
                for (property, _) in asked.iter().filter_map(|c| column(c)) {
                    let text = value(run, &pool, property, parsed.has('p'));
                    let row: Vec<&str> = fields
                        .iter()
                        .map(|f| match *f {
                            "name" => pool.as_str(),
                            "property" => property,
                            "value" => text.as_str(),
                            _ => "-",
                        })
                        .collect();
                    run.say(&row.join(if parsed.has('H') { "\t" } else { "  " }));
                }
            }
            Ok(code)
        }
        "status" => status(run, &parsed.rest, parsed.has('x')),
        "clear" => {
            let (found, code) = pools(run, &parsed.rest);
            for pool in found {
                if run.host().pools[&pool].health == Health::Suspended {
                    run.complain(&format!("cannot clear errors for {pool}: I/O error"));
                    return Ok(exit::ERROR);
                }
            }
            Ok(code)
        }
        "export" => {
            let (found, code) = pools(run, &parsed.rest);
            for pool in found {
                let (host, disk) = run.view();
                for dataset in host.tree(&pool).iter().rev() {
                    if let Err(text) = host.unmount(dataset, disk, parsed.has('f')) {
                        run.complain(&text);
                        return Ok(exit::ERROR);
                    }
                }
                if let Some(p) = host.pools.get_mut(&pool) {
                    p.imported = false;
                }
            }
            Ok(code)
        }
        _ => {
            let Some(pool) = parsed.rest.first() else {
                let waiting: Vec<String> = run
                    .host()
                    .pools
                    .iter()
                    .filter(|(_, p)| !p.imported)
                    .map(|(name, _)| name.clone())
                    .collect();
                if waiting.is_empty() {
                    run.complain("no pools available to import");
                    return Ok(exit::ERROR);
                }
                for name in waiting {
                    run.say(&format!("   pool: {name}\n  state: ONLINE"));
                }
                return Ok(exit::OK);
            };
            let (host, disk) = run.view();
            match host.pools.get_mut(pool) {
                None => {
                    run.complain(&format!("cannot import '{pool}': no such pool available"));
                    return Ok(exit::ERROR);
                }
                Some(p) if p.imported => {
                    run.complain(&format!(
                        "cannot import '{pool}': a pool with that name is already created/imported,\nand no additional pools with that name were found"
                    ));
                    return Ok(exit::ERROR);
                }
                Some(p) => {
                    p.imported = true;
                    p.health = match parsed.values('o').any(|o| o == "readonly=on") {
                        true => Health::ReadOnly,
                        false => Health::Online,
                    };
                }
            }
            if !parsed.has('N') {
                mount::import(host, disk);
            }
            Ok(exit::OK)
        }
    }
}

fn status(run: &mut Run, words: &[String], unhealthy: bool) -> Step<i32> {
    let (found, code) = pools(run, words);
    let bad: Vec<String> = found
        .iter()
        .filter(|pool| run.host().pools[*pool].health == Health::Suspended)
        .cloned()
        .collect();
    if unhealthy && bad.is_empty() {
        match words {
            [pool] if code == exit::OK => run.say(&format!("pool '{pool}' is healthy")),
            _ if code == exit::OK => run.say("all pools are healthy"),
            _ => {}
        }
        return Ok(code);
    }
    if found.is_empty() && words.is_empty() {
        run.say("no pools available");
    }
    for pool in if unhealthy { bad } else { found } {
        let suspended = run.host().pools[&pool].health == Health::Suspended;
        let state = if suspended { "UNAVAIL" } else { "ONLINE" };
        run.say(&format!("  pool: {pool}\n state: {state}"));
        if suspended {
            run.say("status: One or more devices are faulted in response to IO failures.\naction: Make sure the affected devices are connected, then run 'zpool clear'.");
        }
        run.say(&format!(
            "  scan: none requested\nconfig:\n\n\tNAME        STATE     READ WRITE CKSUM\n\t{pool:<12}{state:<10}   0     0     0\n\t  c1t0d0    {state:<10}   0     0     0\n\nerrors: No known data errors"
        ));
    }
    Ok(code)
}
