//! Commands of an illumos host: how they are run, and what their results mean.
//!
//! [`Tools`] is the only way to the host's tools. It is a trait, so that commands can be printed, run on a fake host,
//! or use other paths; nothing else in the crate runs a tool of illumos. Only [`class`] decides what a failure means,
//! and only [`parse`] reads the output of tools.

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
    /// ipf(8)
    Ipf,
    /// dispadmin(8)
    Dispadmin,
}

impl Tool {
    /// Every tool.
    pub const ALL: [Tool; 16] = [
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
        Tool::Ipf,
        Tool::Dispadmin,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Its path in every illumos distribution.
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
            Tool::Ipf => "/usr/sbin/ipf",
            Tool::Dispadmin => "/usr/sbin/dispadmin",
        }
    }
}

/// A command: exact arguments, no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The tool.
    pub tool: Tool,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its standard input; None for an empty one.
    pub input: Option<String>,
    /// The time limit; then it and all its descendants are killed.
    pub limit: Duration,
    /// The owner of the command, if processes that it starts may survive it: [`Tools::settle`] ends those.
    pub owner: Option<String>,
}

impl Command {
    /// A command with a time limit of half a minute.
    pub fn new<S: Into<String>>(tool: Tool, arguments: impl IntoIterator<Item = S>) -> Self {
        Command {
            tool,
            arguments: arguments.into_iter().map(Into::into).collect(),
            input: None,
            limit: Duration::from_secs(30),
            owner: None,
        }
    }
    /// Sets the time limit, in seconds.
    pub fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }
    /// Sets the standard input.
    pub fn fed(mut self, input: impl Into<String>) -> Self {
        self.input = Some(input.into());
        self
    }
    /// Sets the owner, so that processes left behind can be found and ended.
    pub fn owned(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }
}

/// Formats it as it would be typed: arguments that a shell would change are quoted.
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

/// The output of a command that ended with 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output; invalid UTF-8 is replaced.
    pub stdout: String,
    /// Standard error: tools may complain there even if they succeed.
    pub stderr: String,
}

/// The failure of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{command}: {said}{}", class.remedy())]
pub struct Failure {
    /// Its meaning.
    pub class: Class,
    /// The command as it would be typed.
    pub command: String,
    /// The tool's message, or how it ended.
    pub said: String,
}

impl Failure {
    /// The failure of a command with exit code `code` and output `stderr`.
    pub fn of(command: &Command, code: i32, stdout: &str, stderr: &str) -> Self {
        // Some tools write errors to standard output.
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
    /// Whether it failed because the thing to create exists.
    pub fn exists(&self) -> bool {
        self.class == Class::Exists
    }
    /// Whether it failed because the thing to change does not exist.
    pub fn not_found(&self) -> bool {
        self.class == Class::NotFound
    }
}

/// A tool's message in one line, without the usage text that follows some errors.
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

/// Runs the host's tools.
pub trait Tools: Send + Sync + 'static {
    /// Runs a command and waits for its end, up to its time limit.
    ///
    /// Dropping the future leaves the command running.
    fn run<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<Output, Failure>>;

    /// Kills processes that commands of this owner left running when the agent was killed, and waits until they are
    /// gone.
    fn settle<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<(), Failure>>;
}
