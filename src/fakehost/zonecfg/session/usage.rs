//! Usage, help and error messages.

use std::fmt::Write as _;

use super::super::doc::Z;
use super::super::parser::Command;
use super::Session;
use crate::fakehost::getopt::{Bad, Options};

const SYNOPSES: &[(&str, &str)] = &[
    (
        "add",
        "add <resource-type>\n\t(global scope)\nadd <property-name> <property-value>\n\t(resource scope)",
    ),
    ("cancel", "cancel"),
    ("clear", "clear <property-name>"),
    ("commit", "commit"),
    ("create", "create [-F] [ -a <path> | -b | -t <template> ]"),
    ("delete", "delete [-F]"),
    ("end", "end"),
    ("exit", "exit [-F]"),
    ("export", "export [-f output-file]"),
    ("help", "help [commands] [syntax] [usage] [<command-name>]"),
    (
        "info",
        "info [<resource-type> [property-name=property-value]*]",
    ),
    (
        "remove",
        "remove [-F] <resource-type> [ <property-name>=<property-value> ]*\n\t(global scope)\nremove <property-name> <property-value>\n\t(resource scope)",
    ),
    ("revert", "revert [-F]"),
    (
        "select",
        "select <resource-type> { <property-name>=<property-value> }",
    ),
    ("set", "set <property-name>=<property-value>"),
    ("verify", "verify"),
];

/// The usage of a command.
fn synopsis(command: &str) -> &'static str {
    SYNOPSES
        .iter()
        .find(|(name, _)| *name == command)
        .map_or("", |(_, text)| text)
}

impl<'a> Session<'a> {
    /// Prints a message, preceded by the line of the command file if that is new.
    pub fn error(&mut self, text: &str) {
        if let Some(place) = self.mode.place(self.line.saturating_sub(1))
            && self.line > self.last_line
        {
            let _ = writeln!(self.err, "On {place}:");
        }
        let _ = writeln!(self.err, "{text}");
        self.last_line = self.line;
    }

    /// The warning printed before a limit for the global zone.
    pub fn warn_of_global(&mut self, what: &str) {
        if self.global_zone {
            self.error(&format!("WARNING: Setting a global zone {what} too low could deny\nservice to even the root user; this could render the system impossible\nto administer.  Please use caution."));
        }
    }

    /// Prints a message and sets the exit status to 1.
    pub fn fail(&mut self, text: &str) {
        self.error(text);
        self.saw_error = true;
    }

    /// Prints `SUBJECT: error text` and sets the exit status to 1.
    pub fn complain(&mut self, subject: &str, error: Z) {
        self.fail(&format!("{subject}: {}", error.text()));
    }

    /// Prints the usage of one command after invalid arguments.
    pub fn short_usage(&mut self, command: &str) {
        if let Some(place) = self.mode.place(self.line.saturating_sub(1)) {
            let _ = writeln!(self.err, "syntax error on {place}");
        }
        self.long_usage(command);
    }

    /// Prints the usage of one command after a semantic error.
    pub fn long_usage(&mut self, command: &str) {
        let _ = writeln!(self.err, "usage:\n{}", synopsis(command));
        self.saw_error = true;
    }

    pub(super) fn usage_line(&mut self) {
        self.err.push_str(
            "usage:\tzonecfg help\n\tzonecfg -z <zone>\t\t\t(interactive)\n\tzonecfg -z <zone> <command>\n\tzonecfg -z <zone> -f <command-file>\n",
        );
    }

    pub(super) fn synopses(&mut self) {
        self.err.push_str("Commands:\n\n");
        for (_, text) in SYNOPSES {
            let _ = writeln!(self.err, "{text}");
        }
    }

    /// Prints help on everything, or on one command; further explanations are left out here.
    pub(super) fn help(&mut self, subject: Option<&str>) {
        let known = |s: &str| SYNOPSES.iter().find(|(command, _)| *command == s);
        match subject {
            None | Some("commands" | "syntax" | "usage" | "-?") => {
                self.out.push_str("Commands:\n\n");
                for (_, text) in SYNOPSES {
                    let _ = writeln!(self.out, "{text}");
                }
            }
            Some(subject) => match known(subject) {
                Some((_, text)) => {
                    let _ = writeln!(self.out, "usage:\n{text}");
                }
                None => {
                    let _ = writeln!(
                        self.err,
                        "Unknown help subject {subject}.  More help is available for the following:\n\n\tcommands ('help commands')\n\tsyntax ('help syntax')\n\tusage ('help usage')\n\nYou may also obtain help on any command by typing 'help <command-name>.'"
                    );
                }
            },
        }
    }

    pub fn name_syntax(&mut self) {
        self.err.push_str(
            "\n<zone> := [A-Za-z0-9][A-Za-z0-9_.-]*\n\t(except the reserved words 'global' and anything starting with 'SUNW')\n\tName must be less than 64 characters.\n",
        );
    }

    /// The options of a command, parsed by getopt(3C) starting with its first word; `None` after an error was printed.
    /// A `:` after a letter means that the option takes a value.
    pub fn flags(&mut self, command: &Command, known: &str) -> Option<Flags> {
        // These two print their usage for unknown options; the others show their help and succeed.
        let strict = matches!(command.name, "create" | "export");
        let mut flags = Flags::default();
        let mut wrong = false;
        let mut options = Options::new(&command.args, known, &[]);
        for option in options.by_ref() {
            let bad = match option {
                Ok((letter, value)) => {
                    flags.0.push((letter, value.unwrap_or_default()));
                    continue;
                }
                Err(bad) => bad,
            };
            wrong = true;
            // The first word has index 0, for which getopt(3C) names a long option by its letter.
            let bad = match bad {
                Bad::Long(name) if command.args[0][2..] == name => Bad::Unknown('-'),
                bad => bad,
            };
            let asked = bad == Bad::Unknown('?');
            if !asked && !self.quiet_options {
                let _ = writeln!(self.err, "{}: {bad}", command.args[0]);
            }
            if strict && !asked {
                self.short_usage(command.name);
            } else {
                self.out.push_str("usage:\n");
                self.out.push_str(synopsis(command.name));
                self.out.push('\n');
            }
        }
        if wrong {
            return None;
        }
        // These two ignore further words.
        if !options.rest().is_empty() && !matches!(command.name, "verify" | "remove") {
            self.short_usage(command.name);
            return None;
        }
        Some(flags)
    }
}

/// The options of a command in order, each with its value.
#[derive(Debug, Default)]
pub(in super::super) struct Flags(pub Vec<(char, String)>);

impl Flags {
    /// Whether an option was given.
    pub fn has(&self, letter: char) -> bool {
        self.0.iter().any(|(l, _)| *l == letter)
    }
}

/// The error of a file operation, in the words of strerror(3C).
pub(in super::super) fn strerror(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "No such file or directory".to_string(),
        std::io::ErrorKind::PermissionDenied => "Permission denied".to_string(),
        std::io::ErrorKind::IsADirectory => "Is a directory".to_string(),
        _ => error.to_string(),
    }
}
