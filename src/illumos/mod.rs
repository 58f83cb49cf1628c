//! Commands of an illumos host: how they are run, what their answers mean.
//!
//! [`Tools`] is the only way to the host's tools. It is a value, so that plans can be printed, tested against a fake
//! host, or sent to other paths; nothing else in the crate starts a tool of illumos. What a failure means is decided
//! in [`class`] alone, what a tool prints is read in [`parse`] alone.

mod class;
#[cfg(test)]
pub(crate) mod fake;
mod host;
mod notes;
pub mod parse;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

pub use class::{Class, classify};
pub use host::HostTools;

/// A tool of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    /// zonecfg(8)
    Zonecfg,
    /// zoneadm(8)
    Zoneadm,
    /// dladm(8)
    Dladm,
    /// ipadm(8)
    Ipadm,
    /// zfs(8)
    Zfs,
    /// zpool(8)
    Zpool,
    /// routeadm(8)
    Routeadm,
    /// ipnat(8)
    Ipnat,
    /// svcs(1)
    Svcs,
    /// kstat(8)
    Kstat,
    /// route(8)
    Route,
    /// zonename(1)
    Zonename,
    /// ppriv(1)
    Ppriv,
    /// prctl(1)
    Prctl,
}

impl Tool {
    /// Every tool.
    pub const ALL: [Tool; 14] = [
        Tool::Zonecfg,
        Tool::Zoneadm,
        Tool::Dladm,
        Tool::Ipadm,
        Tool::Zfs,
        Tool::Zpool,
        Tool::Routeadm,
        Tool::Ipnat,
        Tool::Svcs,
        Tool::Kstat,
        Tool::Route,
        Tool::Zonename,
        Tool::Ppriv,
        Tool::Prctl,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Where every illumos distribution has it.
    pub fn path(self) -> &'static str {
        match self {
            Tool::Zonecfg => "/usr/sbin/zonecfg",
            Tool::Zoneadm => "/usr/sbin/zoneadm",
            Tool::Dladm => "/usr/sbin/dladm",
            Tool::Ipadm => "/usr/sbin/ipadm",
            Tool::Zfs => "/usr/sbin/zfs",
            Tool::Zpool => "/usr/sbin/zpool",
            Tool::Routeadm => "/sbin/routeadm",
            Tool::Ipnat => "/usr/sbin/ipnat",
            Tool::Svcs => "/usr/bin/svcs",
            Tool::Kstat => "/usr/bin/kstat",
            Tool::Route => "/usr/sbin/route",
            Tool::Zonename => "/usr/bin/zonename",
            Tool::Ppriv => "/usr/bin/ppriv",
            Tool::Prctl => "/usr/bin/prctl",
        }
    }
}

/// A command: exact words, no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The tool.
    pub tool: Tool,
    /// Its arguments, one a word.
    pub arguments: Vec<String>,
    /// What it reads from its standard input; nothing means that it has none.
    pub input: Option<String>,
    /// How long it may take; then it and all that it started are killed.
    pub limit: Duration,
    /// Whose command it is, if what it starts may go on after it was killed: [`Tools::settle`] ends that.
    pub owner: Option<String>,
}

impl Command {
    /// A command that has half a minute.
    pub fn new<S: Into<String>>(tool: Tool, arguments: impl IntoIterator<Item = S>) -> Self {
        Command {
            tool,
            arguments: arguments.into_iter().map(Into::into).collect(),
            input: None,
            limit: Duration::from_secs(30),
            owner: None,
        }
    }
    /// With another time limit, in seconds.
    pub fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }
    /// With something to read.
    pub fn fed(mut self, input: impl Into<String>) -> Self {
        self.input = Some(input.into());
        self
    }
    /// On behalf of `owner`: what it leaves running can be found and ended.
    pub fn owned(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }
}

/// As it would be typed: words that a shell would change are quoted.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(input) = &self.input {
            write!(f, "printf '%s\\n' {} | ", quoted(input.trim_end()))?;
        }
        f.write_str(self.tool.name())?;
        for argument in &self.arguments {
            write!(f, " {}", quoted(argument))?;
        }
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@=,+-%".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// What a command printed; it ended with 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output; what is not UTF-8 is replaced.
    pub stdout: String,
    /// Standard error: tools complain there even when all went well.
    pub stderr: String,
}

/// A command that did not end with 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{command}: {said}{}", class.remedy())]
pub struct Failure {
    /// What it means.
    pub class: Class,
    /// The command as it would be typed.
    pub command: String,
    /// What the tool said, or how it ended.
    pub said: String,
}

impl Failure {
    /// The failure of a command that ended with `code` and said `stderr`.
    pub fn of(command: &Command, code: i32, stdout: &str, stderr: &str) -> Self {
        // Some tools complain on their standard output.
        let words = match stderr.trim().is_empty() {
            true => stdout,
            false => stderr,
        };
        Failure {
            class: classify(command.tool, code, words),
            command: command.to_string(),
            said: match summary(words) {
                words if words.is_empty() => format!("it ended with {code}"),
                words => words,
            },
        }
    }
    /// Whether it failed since what it should make is there.
    pub fn exists(&self) -> bool {
        self.class == Class::Exists
    }
    /// Whether it failed since what it should change is not there.
    pub fn not_found(&self) -> bool {
        self.class == Class::NotFound
    }
}

/// What a tool said, in one line, without the usage text that follows some errors.
fn summary(words: &str) -> String {
    let lines = words
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take_while(|line| {
            let usage = ["usage:", "Usage:", "Commands:", "For more info, run"];
            !usage.iter().any(|start| line.starts_with(start))
        });
    let mut short = lines.collect::<Vec<_>>().join("; ");
    if short.len() > 600 {
        let end = (0..=600).rev().find(|at| short.is_char_boundary(*at));
        short.truncate(end.unwrap_or(0));
        short.push_str(" ...");
    }
    short
}

/// A way to the host's tools.
pub trait Tools: Send + Sync + 'static {
    /// Runs a command and waits for its end, at most as long as it may take.
    ///
    /// Dropping the future leaves the command running.
    fn run<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<Output, Failure>>;

    /// Ends what commands of this owner left running when the agent was killed, and waits until it is gone.
    fn settle<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<(), Failure>>;
}
