//! `fakehost ctl`: causes events on a host from outside.

use std::io;
use std::path::Path;

use super::events;
use super::exit;
use super::faults::{Action, Fault, When};
use super::getopt::getopt;
use super::host::{Health, Inits, ZoneStatus};
use super::machine::{Layout, Machine};
use super::run::{Run, Step};
use super::zfs;
use super::zonecfg::Flavour;

const HELP: &str = "fakehost --root DIR ctl ...
  init [-c] [-f omnios|gate] [-i simulated|real] [-p POOL] [-m MOUNTPOINT] [-s SIZE] [-n NIC]... [-b BRAND]...
                                    makes a host; with -c its brand lx checks configurations
  links DIRECTORY                   makes a link of each tool's name there
  fault [-t TOOL] [-c PART] [-n NTH] [-w before|halfway[:POINT]|after] fail TEXT [CODE] | crash | stall | orphan
                                    what happens to the NTH such command from now; prints its number
  faults | forget                   lists them; forgets all
  release NUMBER                    lets a stalled command go on
  pool POOL online|suspended|read-only|full|late
  fill DATASET BYTES                bytes that it holds beyond its files (0: none)
  open DATASET on|off               a process holds a file of it open
  reboot                            the host reboots
  zone-reboot ZONE                  its init exits: an lx zone boots again, a reddwarf one halts
  zone-off ZONE                     its init turns it off
  zone-stuck ZONE shutting_down|down|no
                                    a halt comes no further
  in ZONE zfs ARGS...               runs the tool in a running zone
  zone-use ZONE CPU MEMORY          seconds of CPU time and bytes of memory that it has used
  log                               what ran
  state                             the host's state as JSON";

/// Creates a host with the options of `ctl init`.
///
/// # Errors
/// An invalid command line, or an unusable directory.
pub fn init(root: &Path, args: &[String]) -> Result<i32, String> {
    let parsed = getopt(args, "cf:i:p:m:s:n:b:", &[]).map_err(|bad| format!("{bad:?}\n{HELP}"))?;
    let mut layout = Layout {
        checks: parsed.has('c'),
        ..Layout::recorded()
    };
    match parsed.value('f') {
        None | Some("omnios") => {}
        Some("gate") => layout.flavour = Flavour::Gate,
        Some(other) => return Err(format!("no such distribution: {other}\n{HELP}")),
    }
    match parsed.value('i') {
        None | Some("simulated") => {}
        Some("real") => layout.inits = Inits::Real,
        Some(other) => return Err(format!("no such kind of init: {other}\n{HELP}")),
    }
    if let Some(pool) = parsed.value('p') {
        layout.pool = pool.to_owned();
    }
    layout.mountpoint = parsed.value('m').map(str::to_owned);
    if let Some(size) = parsed.value('s') {
        layout.size = zfs::number(size)?;
    }
    let nics: Vec<String> = parsed.values('n').map(str::to_owned).collect();
    if !nics.is_empty() {
        layout.nics = nics;
    }
    layout.brands.extend(parsed.values('b').map(str::to_owned));
    Machine::create(root, &layout).map_err(|error| error.to_string())?;
    Ok(exit::OK)
}

/// `ctl args...`
pub fn control(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["help"] => {
            run.say(HELP);
            return Ok(exit::OK);
        }
        ["links", directory] => links(Path::new(directory)),
        ["fault", ..] => return fault(run, &args[1..]),
        ["faults"] => {
            let lines: Vec<String> = run.host().faults.iter().map(|f| format!("{f:?}")).collect();
            lines.iter().for_each(|line| run.say(line));
            Ok(())
        }
        ["forget"] => {
            run.host().faults.clear();
            Ok(())
        }
        ["release", number] => {
            let mark = run.machine.own().join(format!("stall.{number}"));
            std::fs::remove_file(mark)
                .map_err(|e| format!("no command is stalled by fault {number}: {e}"))
        }
        ["pool", pool, state] => self::pool(run, pool, state),
        ["fill", dataset, bytes] => {
            match (zfs::number(bytes), run.host().datasets.get_mut(*dataset)) {
                (Ok(bytes), Some(d)) => {
                    d.filled = bytes;
                    Ok(())
                }
                (Err(text), _) => Err(text),
                (_, None) => Err(format!("no dataset {dataset}")),
            }
        }
        ["open", dataset, state] => match run.host().datasets.get_mut(*dataset) {
            Some(d) => {
                d.held_open = *state == "on";
                Ok(())
            }
            None => Err(format!("no dataset {dataset}")),
        },
        ["reboot"] => {
            events::reboot_host(run)?;
            Ok(())
        }
        [what @ ("zone-reboot" | "zone-off"), zone] => {
            match events::end_init(run, zone, *what == "zone-off")? {
                true => Ok(()),
                false => Err(format!("zone {zone} does not run")),
            }
        }
        ["zone-stuck", zone, at] => match run.host().zones.get_mut(*zone) {
            Some(z) => {
                z.stuck = [ZoneStatus::ShuttingDown, ZoneStatus::Down]
                    .into_iter()
                    .find(|s| s.word() == *at);
                Ok(())
            }
            None => Err(format!("zone {zone} is not in the kernel")),
        },
        ["zone-use", zone, cpu, memory] => match run.host().zones.get_mut(*zone) {
            Some(z) => {
                let seconds: f64 = cpu.parse().unwrap_or(0.0);
                z.cpu = ((seconds * 1e9) as u64, 0);
                z.memory.0 = zfs::number(memory).unwrap_or(0);
                Ok(())
            }
            None => Err(format!("zone {zone} is not in the kernel")),
        },
        ["in", zone, "zfs", ..] => match run.host().zones.get(*zone).map(|z| z.status) {
            Some(ZoneStatus::Running) => {
                run.zone = Some((*zone).to_owned());
                return zfs::zfs(run, &args[3..], b"");
            }
            _ => Err(format!("zone {zone} does not run")),
        },
        ["log"] => {
            let lines = run.machine.log_lines()?;
            lines.iter().for_each(|line| run.say(&line.to_string()));
            Ok(())
        }
        ["state"] => {
            let text = serde_json::to_string_pretty(run.host()).map_err(io::Error::from)?;
            run.say(&text);
            Ok(())
        }
        _ => Err(HELP.to_owned()),
    };
    match result {
        Ok(()) => Ok(exit::OK),
        Err(text) => {
            run.complain(&text);
            Ok(exit::ERROR)
        }
    }
}

fn links(directory: &Path) -> Result<(), String> {
    let wrong = |error: io::Error| format!("{}: {error}", directory.display());
    let program = std::env::current_exe().map_err(wrong)?;
    std::fs::create_dir_all(directory).map_err(wrong)?;
    for (tool, _) in super::TOOLS.iter().filter(|(tool, _)| *tool != "ctl") {
        let link = directory.join(tool);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&program, link).map_err(wrong)?;
    }
    Ok(())
}

fn pool(run: &mut Run, name: &str, state: &str) -> Result<(), String> {
    let Some(pool) = run.host().pools.get_mut(name) else {
        return Err(format!("no pool {name}"));
    };
    pool.taken = 0;
    match state {
        "online" => {
            pool.health = Health::Online;
            pool.late = false;
        }
        "suspended" => pool.health = Health::Suspended,
        "read-only" => pool.health = Health::ReadOnly,
        "full" => pool.taken = pool.size,
        "late" => pool.late = true,
        _ => return Err(format!("no such state of a pool: {state}")),
    }
    Ok(())
}

fn fault(run: &mut Run, args: &[String]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "t:c:n:w:", &[]) else {
        run.complain(HELP);
        return Ok(exit::USAGE);
    };
    let when = match parsed.value('w').unwrap_or("before") {
        "before" => When::Before,
        "after" => When::After,
        "halfway" => When::Halfway(None),
        other => match other.strip_prefix("halfway:") {
            Some(point) => When::Halfway(Some(point.to_owned())),
            None => {
                run.complain(HELP);
                return Ok(exit::USAGE);
            }
        },
    };
    let words: Vec<&str> = parsed.rest.iter().map(String::as_str).collect();
    let action = match words.as_slice() {
        ["fail", text] => Action::Fail {
            code: exit::ERROR,
            text: (*text).to_owned(),
        },
        ["fail", text, code] => Action::Fail {
            code: code.parse().unwrap_or(exit::ERROR),
            text: (*text).to_owned(),
        },
        ["crash"] => Action::Crash,
        ["stall"] => Action::Stall,
        ["orphan"] => Action::Orphan,
        _ => {
            run.complain(HELP);
            return Ok(exit::USAGE);
        }
    };
    let id = run.host().number();
    let fault = Fault {
        id,
        tool: parsed.value('t').map(str::to_owned),
        contains: parsed.value('c').map(str::to_owned),
        nth: parsed
            .value('n')
            .and_then(|n| n.parse().ok())
            .unwrap_or(1)
            .max(1),
        when,
        action,
    };
    run.host().faults.push(fault);
    run.say(&id.to_string());
    Ok(exit::OK)
}
