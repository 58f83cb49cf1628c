//! ipnat(8) and ipf(8), as far as a host of zones needs them: NAT rules, and whether the service is on. The grammar and
//! the output follow usr/src/cmd/ipf/tools/{ipnat_y.y,ipnat.c,lexer.c} and lib/common/printnat.c of illumos-gate.

use std::net::Ipv4Addr;

use super::exit;
use super::getopt::getopt;
use super::run::{Run, Step};

/// How many sessions the kernel's table holds if nobody says otherwise (`NAT_TABLE_MAX`).
pub const SESSIONS: usize = 30_000;
const SERVICE: &str = "svc:/network/ipfilter:default";
/// The file from which the service reads its rules when it starts or is refreshed.
const FILE: &str = "/etc/ipf/ipnat.conf";

/// Parses a rule word by word, and builds the output of `ipnat -l` for it.
struct Rule<'a> {
    words: std::iter::Peekable<std::str::SplitWhitespace<'a>>,
    printed: Vec<String>,
}

/// The error is the word at which the rule becomes invalid.
type Read<T> = Result<T, String>;

impl<'a> Rule<'a> {
    fn next(&mut self) -> &'a str {
        self.words.next().unwrap_or_default()
    }

    fn print(&mut self, word: impl Into<String>) {
        self.printed.push(word.into());
    }

    /// Consumes and prints the next word if it is this one.
    fn takes(&mut self, word: &str) -> bool {
        let found = self.words.next_if_eq(&word).is_some();
        if found {
            self.print(word);
        }
        found
    }

    fn expect(&mut self, word: &str) -> Read<()> {
        match self.takes(word) {
            true => Ok(()),
            false => Err(self.next().to_owned()),
        }
    }

    /// An address with its mask: `10.0.0.0/8`, `0/32`, `any`, or a single address.
    fn network(&mut self, everything: &str) -> Read<()> {
        let word = self.next();
        let (address, bits) = match word {
            "any" => ("0", "0"),
            _ => word.split_once('/').unwrap_or((word, "32")),
        };
        let address = address_of(address).ok_or(word)?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32).ok_or(word)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        self.print(match bits {
            0 => everything.to_owned(),
            _ => format!("{}/{bits}", Ipv4Addr::from(u32::from(address) & mask)),
        });
        Ok(())
    }

    /// The source and destination that a rule matches; false if there is only one address.
    fn ends(&mut self) -> Read<bool> {
        if !self.takes("from") {
            return Ok(false);
        }
        self.network("any")?;
        self.compare()?;
        self.expect("to")?;
        self.network("any")?;
        self.compare()?;
        Ok(true)
    }

    fn compare(&mut self) -> Read<()> {
        if self.takes("port") {
            self.expect("=")?;
            self.port()?;
        }
        Ok(())
    }

    fn port(&mut self) -> Read<()> {
        let word = self.next();
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        if !word.split(['-', ':']).all(is_port) {
            return Err(word.to_owned());
        }
        self.print(word);
        Ok(())
    }

    fn protocol(&mut self) -> bool {
        ["tcp", "udp", "tcp/udp"]
            .into_iter()
            .any(|one| self.takes(one))
    }

    fn map(&mut self) -> Read<()> {
        if !self.ends()? {
            self.network("0.0.0.0/0")?;
        }
        self.expect("->")?;
        self.network("0.0.0.0/0")?;
        if self.takes("portmap") {
            if !self.protocol() {
                return Err(self.next().to_owned());
            }
            if !self.takes("auto") {
                self.port()?;
            }
            self.takes("sequential");
        } else if self.takes("proxy") {
            self.expect("port")?;
            for _ in 0..2 {
                let word = self.next();
                self.print(word);
            }
        } else if self.takes("ports") && !self.takes("auto") {
            self.port()?;
        }
        self.protocol();
        Ok(())
    }

    fn redirect(&mut self) -> Read<()> {
        if !self.ends()? {
            self.network("0.0.0.0/0")?;
            self.expect("port")?;
            self.port()?;
        }
        self.expect("->")?;
        // At most a pair of addresses.
        let targets = self.next();
        let pair = targets
            .split(',')
            .map(address_of)
            .collect::<Option<Vec<_>>>();
        match pair {
            Some(pair) if pair.len() <= 2 => self.print(targets),
            _ => return Err(targets.to_owned()),
        }
        self.expect("port")?;
        self.port()?;
        if !self.protocol() {
            self.print("tcp");
        }
        self.takes("round-robin");
        self.takes("frag");
        self.takes("sticky");
        Ok(())
    }
}

fn address_of(text: &str) -> Option<Ipv4Addr> {
    match text {
        "0" => Some(Ipv4Addr::UNSPECIFIED),
        text => text.parse().ok(),
    }
}

/// A rule in the form in which `ipnat -l` prints it; the error is the word at which it becomes invalid.
fn rule(text: &str) -> Read<String> {
    let mut rule = Rule {
        words: text.split_whitespace().peekable(),
        printed: Vec::new(),
    };
    let what = rule.next();
    let link = rule.next();
    rule.print(what);
    rule.print(link);
    match what {
        "map" | "map-block" | "bimap" if !link.is_empty() => rule.map()?,
        "rdr" if !link.is_empty() => rule.redirect()?,
        other => return Err(other.to_owned()),
    }
    match rule.words.next() {
        None => Ok(rule.printed.join(" ")),
        Some(word) => Err(word.to_owned()),
    }
}

/// The lines of a file that contain rules, without comments, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.split('#').next().unwrap_or("").trim()))
        .filter(|(_, line)| !line.is_empty())
}

fn is_on(run: &mut Run) -> bool {
    let service = run.host().services.get(SERVICE);
    service.is_some_and(|service| service.state == "online")
}

/// Reads the service's own file, if the service is on; rules added by hand are lost.
pub fn load(run: &mut Run) -> Step {
    run.host().nat.clear();
    if !is_on(run) {
        return Ok(());
    }
    let text = std::fs::read_to_string(run.disk().real(FILE)).unwrap_or_default();
    // Up to the first invalid line.
    run.host().nat = lines(&text)
        .map_while(|(_, line)| rule(line).ok())
        .collect();
    Ok(())
}

/// `ipnat args...`
pub fn ipnat(run: &mut Run, args: &[String], stdin: &[u8]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "CdFf:hlnrRsv", &[]) else {
        run.complain("Usage: ipnat [-CdFhlnrRsv] [-f filename]");
        return Ok(exit::ERROR);
    };
    if !is_on(run) && !parsed.has('n') {
        // The device can be opened whether the service runs or not; iplioctl rejects requests.
        run.complain("ioctl(SIOCGNATS): I/O error");
        return Ok(exit::ERROR);
    }
    if parsed.has('F') {
        run.say("0 entries flushed from NAT table");
    }
    if parsed.has('C') {
        let n = std::mem::take(&mut run.host().nat).len();
        run.say(&format!("{n} entries flushed from NAT list"));
        run.point("cleared")?;
    }
    if let Some(file) = parsed.value('f') {
        let text = match file {
            "-" => String::from_utf8_lossy(stdin).into_owned(),
            file => {
                let inside = run.disk().real(file);
                let real = if inside.exists() { inside } else { file.into() };
                std::fs::read_to_string(real).unwrap_or_else(|_| {
                    // This does not end the command.
                    run.complain(&format!("fopen({file}) failed: No such file or directory"));
                    String::new()
                })
            }
        };
        // Line by line: rules before an invalid one are added, and a rejected rule does not end the command.
        for (line, text) in lines(&text) {
            let one = match rule(text) {
                Ok(one) => one,
                Err(word) => {
                    run.complain(&format!("syntax error error at \"{word}\", line {line}"));
                    return Ok(exit::ERROR);
                }
            };
            let host = run.host();
            let at = host.nat.iter().position(|r| *r == one);
            let refused = match (parsed.has('n'), parsed.has('r'), at) {
                (true, ..) => None,
                (_, true, Some(at)) => {
                    host.nat.remove(at);
                    None
                }
                (_, true, None) => Some("ioctl(delete nat rule): No such process"),
                (_, false, Some(_)) => Some("ioctl(add/insert nat rule): File exists"),
                (_, false, None) => {
                    host.nat.push(one);
                    None
                }
            };
            if let Some(refused) = refused {
                run.complain(&format!("{line}:{refused}"));
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

/// `ipf args...`: only the synchronization of interfaces.
pub fn ipf(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let on = is_on(run);
    match args {
        [one] if one == "-y" && !on => {
            run.complain("SIOCFRSYN: I/O error");
            Ok(exit::ERROR)
        }
        [one] if one == "-y" => {
            run.say("filter sync'd");
            Ok(exit::OK)
        }
        [one] if one == "-V" => {
            let running = if on { "yes" } else { "no" };
            run.say(&format!("ipf: IP Filter: v4.1.9 (592)\nRunning: {running}"));
            Ok(exit::OK)
        }
        [one, list] if one == "-T" => {
            for word in list.split(',') {
                tune(run, on, word);
            }
            Ok(exit::OK)
        }
        _ => {
            run.complain("fakehost: ipf is played only with -y, -V and -T");
            Ok(exit::NOT_PLAYED)
        }
    }
}

/// Tunables of ipfilter (`lcl_ipf_tuneables`) with their first values, and whether they can be set while it runs.
const TUNABLES: &[(&str, u64, bool)] = &[
    ("ipf_nattable_max", SESSIONS as u64, true),
    ("ipf_nattable_sz", 2047, false),
    // Half seconds.
    ("fr_defnatage", 1200, false),
    ("fr_tcpidletimeout", 864_000, false),
];

/// Shows or sets a tunable. Errors do not change the exit status (`ipf_dotuning`).
fn tune(run: &mut Run, on: bool, word: &str) {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let ioctl = if value.is_some() {
        "SIOCIPFSET"
    } else {
        "SIOCIPFGET"
    };
    let Some((_, first, live)) = TUNABLES.iter().find(|(known, ..)| *known == name) else {
        return run.complain(&format!("ioctl({ioctl}): No such process"));
    };
    match value.map(str::parse) {
        None => {
            let now = run.host().tunables.get(name).copied().unwrap_or(*first);
            run.say(&format!("{name}\tmin 0x1\tmax 0x7fffffff\tcurrent {now}"));
        }
        Some(Err(_)) => run.complain(&format!("invalid value '{name}'")),
        Some(Ok(_)) if on && !live => run.complain(&format!("ioctl({ioctl}): Device busy")),
        Some(Ok(number)) => drop(run.host().tunables.insert(name.to_owned(), number)),
    }
}

#[cfg(test)]
mod tests {
    use super::rule;

    #[test]
    fn rules_are_read_and_printed_as_ipnat_does() {
        for (text, printed) in [
            (
                "map e1000g0 10.88.0.0/24 -> 0/32 portmap tcp/udp auto",
                Ok("map e1000g0 10.88.0.0/24 -> 0.0.0.0/32 portmap tcp/udp auto"),
            ),
            (
                "map e1000g0 10.88.0.7/24 -> 0/32",
                Ok("map e1000g0 10.88.0.0/24 -> 0.0.0.0/32"),
            ),
            (
                "map e1000g0 10.88.0.0/24 -> 0/32 proxy port ftp ftp/tcp",
                Ok("map e1000g0 10.88.0.0/24 -> 0.0.0.0/32 proxy port ftp ftp/tcp"),
            ),
            (
                "map gw0 from 10.88.0.0/24 to any -> 10.88.0.1/32 portmap tcp/udp 1025:65000",
                Ok("map gw0 from 10.88.0.0/24 to any -> 10.88.0.1/32 portmap tcp/udp 1025:65000"),
            ),
            (
                "rdr e1000g0  any port 80 -> 10.88.0.17 port 8080",
                Ok("rdr e1000g0 0.0.0.0/0 port 80 -> 10.88.0.17 port 8080 tcp"),
            ),
            (
                "rdr gw0 0/0 port 80 -> 10.0.0.1,10.0.0.2 port 80 udp round-robin sticky",
                Ok("rdr gw0 0.0.0.0/0 port 80 -> 10.0.0.1,10.0.0.2 port 80 udp round-robin sticky"),
            ),
            (
                "rdr e1000g0 0/0 port 80 -> 10.0.0.1,10.0.0.2,10.0.0.3 port 80 tcp",
                Err("10.0.0.1,10.0.0.2,10.0.0.3"),
            ),
            ("rdr e1000g0 0/0 port 0 -> 10.0.0.1 port 80 tcp", Err("0")),
            (
                "rdr e1000g0 0/0 port 80 -> 10.0.0.1 port 80 tcp often",
                Err("often"),
            ),
            ("map e1000g0 10.88.0.0 0/32", Err("0/32")),
            ("map e1000g0 10.88.0.0/33 -> 0/32", Err("10.88.0.0/33")),
            ("pass in all", Err("pass")),
        ] {
            let read = rule(text);
            assert_eq!(read.as_deref().map_err(String::as_str), printed, "{text}");
        }
    }
}
