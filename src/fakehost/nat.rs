//! ipnat(8) and ipf(8), as far as a host of zones needs them: rules of NAT, and whether the service is on.

use super::exit;
use super::getopt::getopt;
use super::run::{Run, Step};

const SERVICE: &str = "svc:/network/ipfilter:default";
/// Where the service reads its rules when it starts or is refreshed.
const FILE: &str = "/etc/ipf/ipnat.conf";

/// A rule in the form in which `ipnat -l` prints it, or what is wrong with it.
fn rule(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let bad = |word: &str| Err(format!("syntax error error at \"{word}\""));
    let network = |text: &str| {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let good =
            address == "0" || address == "0.0.0.0" || address.parse::<std::net::IpAddr>().is_ok();
        good && (bits.parse::<u8>().is_ok_and(|b| b <= 128)
            || bits.parse::<std::net::Ipv4Addr>().is_ok())
    };
    match words.as_slice() {
        ["map" | "map-block" | "bimap", _, from, "->", to, rest @ ..] => {
            for word in [from, to] {
                if !network(word) {
                    return bad(word);
                }
            }
            match rest {
                []
                | ["portmap", _, _]
                | ["portmap", _, _, "sequential"]
                | ["proxy", "port", _, _] => {}
                [word, ..] => return bad(word),
            }
        }
        [
            "rdr",
            _,
            to,
            "port",
            port,
            "->",
            targets,
            "port",
            target,
            rest @ ..,
        ] => {
            let ports = |text: &str| {
                text.split('-')
                    .all(|p| p.parse::<u16>().is_ok_and(|p| p > 0))
            };
            if !network(to) {
                return bad(to);
            }
            if let Some(wrong) = [port, target].into_iter().find(|p| !ports(p)) {
                return bad(wrong);
            }
            // A pair of addresses at most.
            if targets.split(',').count() > 2 || !targets.split(',').all(network) {
                return bad(targets);
            }
            match rest {
                [] | ["tcp" | "udp" | "tcp/udp"] | ["tcp" | "udp" | "tcp/udp", "round-robin"] => {}
                [word, ..] => return bad(word),
            }
        }
        [word, ..] => return bad(word),
        [] => return bad(""),
    }
    Ok(words.join(" "))
}

/// The rules of a file: a line each, without comments.
fn rules(text: &str) -> Result<Vec<String>, (usize, String)> {
    text.lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.split('#').next().unwrap_or("").trim()))
        .filter(|(_, line)| !line.is_empty())
        .map(|(n, line)| rule(line).map_err(|why| (n, why)))
        .collect()
}

/// Reads the service's own file, if the service is on: what was added by hand is gone.
pub fn load(run: &mut Run) -> Step {
    run.host().nat.clear();
    if run
        .host()
        .services
        .get(SERVICE)
        .is_none_or(|s| s.state != "online")
    {
        return Ok(());
    }
    let text = std::fs::read_to_string(run.disk().real(FILE)).unwrap_or_default();
    if let Ok(all) = rules(&text) {
        run.host().nat = all;
    }
    Ok(())
}

/// `ipnat args...`
pub fn ipnat(run: &mut Run, args: &[String], stdin: &[u8]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "CdFf:hlnrsv", &[]) else {
        run.complain("Usage: ipnat [-CdFhlnrsv] [-f filename]");
        return Ok(exit::ERROR);
    };
    if run
        .host()
        .services
        .get(SERVICE)
        .is_none_or(|s| s.state != "online")
        && !parsed.has('n')
    {
        run.complain("open: No such file or directory\ncannot open \"/dev/ipnat\"");
        return Ok(exit::ERROR);
    }
    if parsed.has('C') {
        let n = std::mem::take(&mut run.host().nat).len();
        run.say(&format!("{n} entries flushed from NAT list"));
        run.point("cleared")?;
    }
    if parsed.has('F') {
        run.say("0 entries flushed from NAT table");
    }
    if let Some(file) = parsed.value('f') {
        let text = match file {
            "-" => String::from_utf8_lossy(stdin).into_owned(),
            file => {
                let inside = run.disk().real(file);
                let real = if inside.exists() { inside } else { file.into() };
                match std::fs::read_to_string(real) {
                    Ok(text) => text,
                    Err(_) => {
                        run.complain(&format!("{file}: open: No such file or directory"));
                        return Ok(exit::ERROR);
                    }
                }
            }
        };
        let all = match rules(&text) {
            Ok(all) => all,
            Err((line, why)) => {
                run.complain(&format!("{file}: {line}: {why}"));
                return Ok(exit::ERROR);
            }
        };
        for one in all {
            let host = run.host();
            let at = host.nat.iter().position(|r| *r == one);
            let wrong = match (parsed.has('r'), at, parsed.has('n')) {
                (_, _, true) => None,
                (true, Some(at), _) => {
                    host.nat.remove(at);
                    None
                }
                (true, None, _) => Some("ioctl(SIOCRMNAT): No such process"),
                (false, Some(_), _) => Some("ioctl(SIOCADNAT): File exists"),
                (false, None, _) => {
                    host.nat.push(one.clone());
                    None
                }
            };
            if let Some(wrong) = wrong {
                run.complain(wrong);
                return Ok(exit::ERROR);
            }
            run.point("rule")?;
        }
    }
    if parsed.has('l') {
        run.say("List of active MAP/Redirect filters:");
        let all = run.host().nat.clone();
        all.iter().for_each(|r| run.say(r));
        run.say("\nList of active sessions:");
    }
    Ok(exit::OK)
}

/// `ipf args...`: only what synchronises interfaces.
pub fn ipf(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    if run
        .host()
        .services
        .get(SERVICE)
        .is_none_or(|s| s.state != "online")
    {
        run.complain("open device: No such file or directory");
        return Ok(exit::ERROR);
    }
    match args {
        [one] if one == "-y" => {
            run.say("filter sync'd");
            Ok(exit::OK)
        }
        [one] if one == "-V" => {
            run.say("ipf: IP Filter: v4.1.9 (592)\nRunning: yes");
            Ok(exit::OK)
        }
        _ => {
            run.complain("fakehost: ipf is played only with -y and -V");
            Ok(exit::NOT_PLAYED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rule;

    #[test]
    fn rules_are_read() {
        for (text, good) in [
            (
                "map e1000g0 10.88.0.0/24 -> 0/32 portmap tcp/udp auto",
                true,
            ),
            ("map e1000g0 10.88.0.0/24 -> 0/32", true),
            (
                "map e1000g0 10.88.0.0/24 -> 0/32 proxy port ftp ftp/tcp",
                true,
            ),
            (
                "rdr e1000g0  0.0.0.0/0 port 80 -> 10.88.0.17 port 8080 tcp",
                true,
            ),
            (
                "rdr e1000g0 0/0 port 80 -> 10.0.0.1,10.0.0.2 port 80 tcp round-robin",
                true,
            ),
            (
                "rdr e1000g0 0/0 port 80 -> 10.0.0.1,10.0.0.2,10.0.0.3 port 80 tcp",
                false,
            ),
            ("rdr e1000g0 0/0 port 0 -> 10.0.0.1 port 80 tcp", false),
            ("map e1000g0 10.88.0.0 0/32", false),
            ("pass in all", false),
        ] {
            assert_eq!(rule(text).is_ok(), good, "{text}");
        }
        assert_eq!(
            rule("map  a0 10.0.0.0/8 ->   0/32").as_deref(),
            Ok("map a0 10.0.0.0/8 -> 0/32")
        );
    }
}
