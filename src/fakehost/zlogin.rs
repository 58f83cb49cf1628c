//! zlogin(1): runs a command in a running zone, or connects to its console.
//!
//! With simulated inits the command runs in the directory of the zone's root, without isolation; with real ones in the
//! zone's namespaces.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::exit;
use super::getopt::getopt;
use super::host::{Inits, ZoneStatus};
use super::run::{Run, Step};
use super::store::IndexState;
use super::zoneadm::State;
use super::zonecfg::Flavour;

/// The command line for a zone's `su`, or the words themselves if there is none.
fn string(words: &[String], flavour: Flavour) -> String {
    if flavour == Flavour::Gate || words.len() == 1 {
        return words.join(" ");
    }
    // OmniOS joins words with spaces, and escapes nothing.
    let quoted: Vec<String> = words
        .iter()
        .map(|w| match w.contains([' ', '\t']) {
            true => format!("'{w}'"),
            false => w.clone(),
        })
        .collect();
    quoted.join(" ")
}

/// `zlogin options ZONE [command...]`
pub fn zlogin(run: &mut Run, args: &[String], stdin: &[u8]) -> Step<i32> {
    let flavour = run.host().flavour;
    let known = match flavour {
        Flavour::Omnios => "dnECR:Se:l:QiIN",
        Flavour::Gate => "dnECR:Se:l:Q",
    };
    let usage = match flavour {
        Flavour::Omnios => {
            "usage: zlogin [-dinCEINQS] [-e cmdchar] [-l user] zonename [command [args ...] ]"
        }
        Flavour::Gate => {
            "usage: zlogin [ -dnQCES ] [ -e cmdchar ] [-l user] zonename [command [args ...] ]"
        }
    };
    let wrong = |run: &mut Run, why: &str| {
        if !why.is_empty() {
            run.complain(&format!("zlogin: {why}"));
        }
        run.complain(usage);
        Ok(exit::USAGE)
    };
    let parsed = match getopt(args, known, &[]) {
        Ok(parsed) => parsed,
        Err(bad) => return wrong(run, &bad.to_string()),
    };
    let (has, words) = (|letter| parsed.has(letter), parsed.rest.len());
    let console = has('C') || has('I');
    // In the order in which they are checked.
    let why = [
        (
            console && has('l'),
            "-l may not be specified for console login",
        ),
        (
            console && has('n'),
            "-n may not be specified for console login",
        ),
        (
            console && has('S'),
            "-S may not be specified for console login",
        ),
        (has('i') && has('n'), "-i and -n flags are incompatible"),
        (
            has('S') && has('l'),
            "-l may not be specified for failsafe login",
        ),
        (
            !console && has('d'),
            "-d may only be specified with console login",
        ),
        (!has('I') && has('N'), "-N may only be specified with -I"),
        (
            words == 1 && has('n'),
            "-n may not be specified for interactive login",
        ),
        (
            words > 1 && console,
            "Commands may not be specified for console login.",
        ),
    ];
    if let Some((_, why)) = why.iter().find(|(wrong, _)| *wrong) {
        return wrong(run, why);
    }
    let Some((name, words)) = parsed.rest.split_first() else {
        return wrong(run, "");
    };
    if name == "global" {
        run.complain("zlogin: 'zlogin' not applicable to the global zone");
        return Ok(exit::ERROR);
    }
    run.without(&parsed, "zlogin", "IR")?;
    let store = run.machine.configurations()?;
    let Some(entry) = store.entry(name) else {
        run.complain(&format!("zlogin: zone '{name}' unknown"));
        return Ok(exit::ERROR);
    };
    let zone = run.host().zones.get(name).cloned();
    if let (State::Index(state), true) = (run.state_of(&entry), zone.is_none())
        && state != IndexState::Installed
    {
        run.complain(&format!(
            "zlogin: cannot login to a zone which is '{}'",
            state.word()
        ));
        return Ok(exit::ERROR);
    }
    if parsed.has('C') {
        let loud = !parsed.has('Q');
        if loud {
            run.say(&format!("[Connected to zone '{name}' console]"));
        }
        if let Some(dead) = zone.as_ref().and_then(|z| z.dead.as_ref()) {
            run.say(dead);
        }
        if loud {
            run.say(&format!("\n[Connection to zone '{name}' console closed]"));
        }
        return Ok(exit::OK);
    }
    let Some(zone) = zone.filter(|z| z.status == ZoneStatus::Running) else {
        let state = run.state_of(&entry).word();
        run.complain(&format!(
            "zlogin: login allowed only to running zones ({name} is '{state}')."
        ));
        return Ok(exit::ERROR);
    };
    if words.is_empty() {
        run.complain("fakehost: zlogin is played only with a command or -C");
        return Ok(exit::NOT_PLAYED);
    }
    let root = format!("{}/root", zone.path);
    let disk = run.disk();
    // These releases only check for /usr/bin/su.
    if !parsed.has('S') && !disk.exists(&format!("{root}/usr/bin/su")) {
        run.complain("zlogin: exec failure: No such file or directory");
        return Ok(exit::ERROR);
    }
    let real = disk.real(&root);
    let text = string(words, flavour);
    let mut command = match (&zone.init, run.host().inits) {
        (Some((pid, _)), Inits::Real) => {
            let mut command = Command::new("nsenter");
            command.args([
                "--target",
                &pid.to_string(),
                "--mount",
                "--pid",
                "--uts",
                "--ipc",
                "--root",
                "--wd",
            ]);
            command.args(["/bin/sh", "-c", &text]);
            command
        }
        _ => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &text]).current_dir(&real);
            command
        }
    };
    let path = match zone.brand.as_str() {
        "lx" => "/bin:/usr/sbin:/usr/bin",
        _ => "/usr/sbin:/usr/bin",
    };
    command
        .env_clear()
        .env("PATH", path)
        .env("TERM", "dumb")
        .env("HOME", "/root")
        .env("LOGNAME", parsed.value('l').unwrap_or("root"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = if parsed.has('n') {
        Vec::new()
    } else {
        stdin.to_vec()
    };
    let output = run.away(move |_| {
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // A command that does not read closes it.
            let _ = pipe.write_all(&input);
        }
        child.wait_with_output()
    })?;
    match output {
        Ok(output) => {
            run.raw = output.stdout;
            run.err.push_str(&String::from_utf8_lossy(&output.stderr));
            // zlogin does not report that a signal killed the command.
            Ok(output.status.code().unwrap_or(exit::OK))
        }
        Err(error) => {
            run.complain(&format!("zlogin: exec failure: {error}"));
            Ok(exit::ERROR)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_joined_as_each_distribution_does() {
        let words = ["echo", "a b", "c"].map(str::to_owned);
        assert_eq!(string(&words, Flavour::Omnios), "echo 'a b' c");
        assert_eq!(string(&words, Flavour::Gate), "echo a b c");
        assert_eq!(
            string(&["echo a  b".to_owned()], Flavour::Omnios),
            "echo a  b"
        );
    }
}
