//! svcs(1), svcadm(8), svccfg(8), svcprop(1).

use std::collections::BTreeMap;

use super::exit;
use super::getopt::getopt;
use super::host::{Host, Service};
use super::run::{Run, Step};
use super::{nat, xml};

/// The instances that match a pattern: an FMRI, or the end of one.
fn matching(host: &Host, pattern: &str) -> Vec<String> {
    let bare = pattern.strip_prefix("svc:/").unwrap_or(pattern);
    host.services
        .keys()
        .filter(|fmri| {
            let name = fmri.trim_start_matches("svc:/");
            let service = name.split(':').next().unwrap_or(name);
            name == bare
                || service == bare
                || name.ends_with(&format!("/{bare}"))
                || service.ends_with(&format!("/{bare}"))
        })
        .cloned()
        .collect()
}

/// The supported columns and their widths (cmd/svc/svcs/svcs.c).
const COLUMNS: &[(&str, usize)] = &[
    ("state", 14),
    ("nstate", 13),
    ("sta", 4),
    ("stime", 8),
    ("fmri", 50),
    ("inst", 20),
    ("svc", 20),
];

const SVCS_USAGE: &str =
    "Usage: svcs [-aHpv] [-o col[,col ... ]] [-R restarter] [-sS col] [-Z | -z zone ]
            [<service> ...]
       svcs -d | -D [-Hpv] [-o col[,col ... ]] [-sS col] [-Z | -z zone ]
            [<service> ...]
       svcs [-l | -L] [-Z | -z zone] <service> ...
       svcs -x [-v] [-Z | -z zone] [<service> ...]
       svcs -?";

/// `svcs args...`
pub fn svcs(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let parsed = match getopt(args, "aHo:xvplLs:S:dDR:nzZ?", &[]) {
        Ok(parsed) => parsed,
        Err(bad) => {
            run.complain(&format!("svcs: {bad}\n{SVCS_USAGE}"));
            return Ok(exit::USAGE);
        }
    };
    run.without(&parsed, "svcs", "vplLsSdDRnzZ")?;
    if parsed.has('?') {
        run.say(SVCS_USAGE);
        return Ok(exit::OK);
    }
    if parsed.has('x') && (parsed.has('H') || parsed.has('o') || parsed.has('a')) {
        run.complain(SVCS_USAGE);
        return Ok(exit::USAGE);
    }
    if parsed.has('a') && !parsed.rest.is_empty() {
        run.complain("svcs: -a ignored when used with arguments.");
    }
    let columns: Vec<String> = parsed
        .value('o')
        .unwrap_or("state,stime,fmri")
        .split(',')
        .map(str::to_ascii_lowercase)
        .collect();
    let width = |column: &str| {
        COLUMNS
            .iter()
            .find(|(name, _)| *name == column)
            .map(|c| c.1)
    };
    if let Some(unknown) = columns.iter().find(|c| width(c).is_none()) {
        run.complain(&format!("svcs: Unknown column \"{unknown}\"."));
        return Ok(exit::ERROR);
    }
    let row = |cells: &[String]| {
        let cells = cells.iter().zip(&columns).map(|(cell, column)| {
            let width = width(column).unwrap_or(0);
            format!("{cell:<width$} ")
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    let host = run.host();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for pattern in &parsed.rest {
        match matching(host, pattern) {
            none if none.is_empty() => missing.push(pattern.clone()),
            some => found.extend(some),
        }
    }
    if parsed.rest.is_empty() {
        found = host
            .services
            .iter()
            .filter(|(_, s)| parsed.has('a') || s.state != "disabled")
            .map(|(name, _)| name.clone())
            .collect();
    }
    let rows: Vec<(String, Service)> = found
        .into_iter()
        .map(|name| (name.clone(), host.services[&name].clone()))
        .collect();
    for pattern in &missing {
        run.complain(&format!(
            "svcs: Pattern '{pattern}' doesn't match any instances"
        ));
    }
    let code = if missing.is_empty() {
        exit::OK
    } else {
        exit::ERROR
    };
    if parsed.has('x') {
        for (name, service) in rows {
            if service.state == "maintenance"
                || (!parsed.rest.is_empty() && service.state != "online")
            {
                run.say(&format!("{name}\n State: {} since now\n", service.state));
            }
        }
        return Ok(code);
    }
    if !parsed.has('H') {
        let names: Vec<String> = columns.iter().map(|c| c.to_ascii_uppercase()).collect();
        run.say(&row(&names));
    }
    for (name, service) in rows {
        let cells: Vec<String> = columns
            .iter()
            .map(|c| match c.as_str() {
                "state" => service.state.clone(),
                "sta" => service
                    .state
                    .chars()
                    .take(3)
                    .collect::<String>()
                    .to_uppercase(),
                "fmri" => name.clone(),
                "inst" => name.rsplit(':').next().unwrap_or("").to_owned(),
                "svc" => name
                    .trim_start_matches("svc:/")
                    .split(':')
                    .next()
                    .unwrap_or("")
                    .to_owned(),
                _ => "-".to_owned(),
            })
            .collect();
        run.say(&row(&cells));
    }
    Ok(code)
}

/// `svcadm enable|disable|restart|refresh|clear|mark ...`
pub fn svcadm(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let usage = "Usage: svcadm [-S <state>] [-v] [-Z | -z zone] [cmd [args ... ]]";
    let Some((command, args)) = args.split_first() else {
        run.complain(usage);
        return Ok(exit::USAGE);
    };
    let known = match command.as_str() {
        "enable" => "rst",
        "disable" => "st",
        "restart" | "refresh" | "clear" => "s",
        "mark" => "It",
        _ => {
            run.complain(usage);
            return Ok(exit::USAGE);
        }
    };
    let Ok(parsed) = getopt(args, known, &[]) else {
        run.complain(usage);
        return Ok(exit::USAGE);
    };
    let mut patterns = parsed.rest.clone();
    let marked = (command == "mark" && !patterns.is_empty()).then(|| patterns.remove(0));
    if patterns.is_empty() {
        run.complain(usage);
        return Ok(exit::USAGE);
    }
    let mut code = exit::OK;
    for pattern in patterns {
        let found = matching(run.host(), &pattern);
        match found.as_slice() {
            [] => {
                run.complain(&format!(
                    "svcadm: Pattern '{pattern}' doesn't match any instances"
                ));
                code = exit::ERROR;
                continue;
            }
            [_] => {}
            several => {
                let text = format!(
                    "svcadm: Pattern '{pattern}' matches multiple instances:\n    {}",
                    several.join("\n    ")
                );
                run.complain(&text);
                code = exit::ERROR;
                continue;
            }
        }
        let name = &found[0];
        let Some(service) = run.host().services.get_mut(name) else {
            continue;
        };
        match command.as_str() {
            "enable" => {
                service.state = "online".to_owned();
                service.enabled |= !parsed.has('t');
            }
            "disable" => {
                service.state = "disabled".to_owned();
                service.enabled &= parsed.has('t');
            }
            "mark" => service.state = marked.clone().unwrap_or_default(),
            "clear" => {
                if service.state != "maintenance" {
                    run.complain(&format!(
                        "svcadm: Instance \"{name}\" is not in a maintenance or degraded state."
                    ));
                    code = exit::ERROR;
                    continue;
                }
                service.state = "online".to_owned();
            }
            _ => {}
        }
        if name.contains("network/ipfilter") {
            nat::load(run)?;
        }
    }
    Ok(code)
}

/// The services in a manifest, with their properties and whether they are enabled.
fn manifest(text: &str) -> Option<Vec<(String, Service)>> {
    let bundle = xml::parse(text).filter(|e| e.name == "service_bundle")?;
    let mut all = Vec::new();
    for service in bundle.named("service") {
        let name = service.attr("name")?;
        let mut properties = BTreeMap::new();
        for group in service.named("property_group") {
            let group_name = group.attr("name")?;
            for value in group.named("propval") {
                let key = format!("{group_name}/{}", value.attr("name")?);
                properties.insert(key, value.attr_or_empty("value").to_owned());
            }
        }
        let mut instances: Vec<(String, bool)> = service
            .named("create_default_instance")
            .map(|i| ("default".to_owned(), i.attr("enabled") == Some("true")))
            .collect();
        for instance in service.named("instance") {
            instances.push((
                instance.attr("name")?.to_owned(),
                instance.attr("enabled") == Some("true"),
            ));
        }
        for (instance, enabled) in instances {
            all.push((
                format!("svc:/{name}:{instance}"),
                Service {
                    state: if enabled { "online" } else { "disabled" }.to_owned(),
                    enabled,
                    properties: properties.clone(),
                },
            ));
        }
    }
    Some(all)
}

/// `svccfg import|validate|delete ...`, `svccfg -s FMRI setprop|listprop ...`
pub fn svccfg(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "s:f:v", &[]) else {
        run.complain(
            "Usage:\tsvccfg [-v] [-s FMRI] [-f file]\n\tsvccfg [-v] [-s FMRI] <command> [args]",
        );
        return Ok(exit::USAGE);
    };
    let words: Vec<&str> = parsed.rest.iter().map(String::as_str).collect();
    if let Some(pattern) = parsed.value('s') {
        let Some(name) = matching(run.host(), pattern).into_iter().next() else {
            run.complain(&format!(
                "svccfg: Pattern '{pattern}' doesn't match any instances or services"
            ));
            return Ok(exit::ERROR);
        };
        let Some(service) = run.host().services.get_mut(&name) else {
            return Ok(exit::ERROR);
        };
        return match words.as_slice() {
            ["setprop", property, "=", rest @ ..] if !rest.is_empty() => {
                // A type may precede it: `astring: value`.
                let value = rest.iter().rfind(|w| !w.ends_with(':')).map_or("", |w| *w);
                service
                    .properties
                    .insert((*property).to_owned(), value.trim_matches('"').to_owned());
                Ok(exit::OK)
            }
            ["listprop"] => {
                let lines: Vec<String> = service
                    .properties
                    .iter()
                    .map(|(k, v)| format!("{k} astring {v}"))
                    .collect();
                lines.iter().for_each(|l| run.say(l));
                Ok(exit::OK)
            }
            _ => {
                run.complain("fakehost: svccfg -s is played only with setprop and listprop");
                Ok(exit::NOT_PLAYED)
            }
        };
    }
    match words.as_slice() {
        ["import" | "validate", file] => {
            let inside = run.disk().real(file);
            let real = if inside.exists() { inside } else { file.into() };
            let Ok(text) = std::fs::read_to_string(real) else {
                run.complain(&format!(
                    "svccfg: couldn't open \"{file}\": No such file or directory"
                ));
                return Ok(exit::ERROR);
            };
            let Some(all) = manifest(&text) else {
                run.complain(&format!(
                    "svccfg: couldn't parse document\nsvccfg: Document \"{file}\" is not valid."
                ));
                return Ok(exit::ERROR);
            };
            if words[0] == "import" {
                for (name, service) in all {
                    run.host().services.entry(name).or_insert(service);
                }
            }
            Ok(exit::OK)
        }
        ["delete", rest @ ..] if !rest.is_empty() => {
            let pattern = rest[rest.len() - 1];
            let found = matching(run.host(), pattern);
            if found.is_empty() {
                run.complain(&format!(
                    "svccfg: Pattern '{pattern}' doesn't match any instances or services"
                ));
                return Ok(exit::ERROR);
            }
            run.host().services.retain(|name, _| !found.contains(name));
            Ok(exit::OK)
        }
        _ => {
            run.complain("fakehost: svccfg is played only with import, validate, delete and -s");
            Ok(exit::NOT_PLAYED)
        }
    }
}

/// `svcprop [-p PROPERTY] FMRI`
pub fn svcprop(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let parsed = match getopt(args, "p:cfqtv", &[]) {
        Ok(parsed) if parsed.rest.len() == 1 => parsed,
        _ => {
            run.complain(
                "Usage: svcprop [-fqtv] [-C | -c | -s snapshot] [-z zone] [-p [name/]name]... \n         {FMRI | pattern}...\n       svcprop -w [-fqtv] [-z zone] [-p [name/]name] {FMRI | pattern}",
            );
            return Ok(exit::USAGE);
        }
    };
    let pattern = &parsed.rest[0];
    let Some(name) = matching(run.host(), pattern).into_iter().next() else {
        run.complain(&format!(
            "svcprop: Pattern '{pattern}' doesn't match any entities"
        ));
        return Ok(exit::ERROR);
    };
    let properties = run.host().services[&name].properties.clone();
    // Values are quoted for a shell.
    let quoted = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
    match parsed.value('p') {
        Some(property) => match properties.get(property) {
            Some(value) => {
                run.say(&quoted(value));
                Ok(exit::OK)
            }
            None => {
                run.complain(&format!(
                    "svcprop: Couldn't find property `{property}' for instance `{name}'."
                ));
                Ok(exit::ERROR)
            }
        },
        None => {
            for (key, value) in properties {
                run.say(&format!("{key} astring {}", quoted(&value)));
            }
            Ok(exit::OK)
        }
    }
}
