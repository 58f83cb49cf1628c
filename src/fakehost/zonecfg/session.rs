//! One run of zonecfg: its state, and how commands are read and dispatched.

mod options;
mod save;
mod usage;

use std::fmt::Write as _;

use super::doc;
use super::lexer::Lexer;
use super::parser::{self, Command, Parsed};
use super::resource::Resource;
use super::{Flavour, Host};
use crate::fakehost::store::ConfigStore;
use crate::fakehost::xml::Element;

pub(super) use self::save::InitError;
pub(super) use self::usage::strerror;

/// The source of commands, which decides what an error does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// `-f FILE`: stops at the first error, messages carry line numbers.
    File(String),
    /// Commands on the command line: continues after errors.
    Args,
    /// Standard input (never a terminal here): continues after errors. With `-f -` messages carry line numbers.
    Stdin { numbered: bool },
}

/// Leaves the program at once with status 1.
pub(super) struct Exit;

pub(super) type Step = Result<(), Exit>;

/// The resource being specified.
#[derive(Debug)]
pub(super) struct Scope {
    pub kind: &'static str,
    /// The resource that `select` found; `None` after `add`.
    pub old: Option<Resource>,
    pub new: Resource,
}

pub(super) struct Session<'a> {
    pub host: &'a dyn Host,
    host_store: &'a ConfigStore,
    pub store: ConfigStore,
    /// The alternate root (`-R`), or empty. Zonepaths are shown with it, and stored without it.
    pub root: String,
    pub flavour: Flavour,
    pub mode: Mode,
    pub zone: String,
    pub revert_zone: String,
    pub global_zone: bool,
    pub document: Option<Element>,
    /// Whether the document was created rather than loaded.
    pub fresh: bool,
    /// The old name after a change of name, until saved.
    pub renamed_from: Option<String>,
    pub got_handle: bool,
    pub changed: bool,
    pub saw_error: bool,
    pub leaving: bool,
    pub forced_exit: bool,
    pub scope: Option<Scope>,
    /// After a property was set, invalid options are no longer named.
    pub quiet_options: bool,
    /// Whether commands come from standard input by default.
    interactive: bool,
    line: u32,
    last_line: u32,
    pub out: String,
    pub err: String,
}

impl<'a> Session<'a> {
    pub fn new(host: &'a dyn Host, store: &'a ConfigStore, flavour: Flavour) -> Self {
        Self {
            host,
            host_store: store,
            store: store.clone(),
            root: String::new(),
            flavour,
            mode: Mode::Args,
            zone: String::new(),
            revert_zone: String::new(),
            global_zone: false,
            document: None,
            fresh: false,
            renamed_from: None,
            got_handle: false,
            changed: false,
            saw_error: false,
            leaving: false,
            forced_exit: false,
            scope: None,
            quiet_options: false,
            interactive: false,
            line: 1,
            last_line: 0,
            out: String::new(),
            err: String::new(),
        }
    }

    /// Runs commands until the input ends, `exit`, or (in a file) an error. False after an
    /// immediate exit.
    fn run_input(&mut self, input: &[u8]) -> bool {
        let mut lexer = Lexer::new(input, self.flavour);
        loop {
            let parsed = parser::parse(&mut lexer);
            self.line = lexer.line;
            match parsed {
                Parsed::Command(command) => {
                    if self.dispatch(command).is_err() {
                        return false;
                    }
                }
                Parsed::Nothing | Parsed::Eof => {}
                Parsed::Usage(command, line) => {
                    self.line = line;
                    self.short_usage(command);
                    self.line = lexer.line;
                }
                Parsed::Syntax(text, line) => {
                    self.saw_error = true;
                    if text == "\0" {
                        self.err.push_str("syntax error, token expected\n");
                    } else {
                        let place = match self.mode.place(line) {
                            Some(_) => format!(" on line {line}"),
                            None => String::new(),
                        };
                        let _ = writeln!(self.err, "syntax error{place} at '{text}'");
                        self.synopses();
                    }
                }
            }
            if self.saw_error && matches!(self.mode, Mode::File(_)) {
                self.leaving = true;
            }
            if (self.leaving && self.mode != Mode::Args) || lexer.eof {
                return true;
            }
        }
    }

    /// The end of the program: an unfinished resource, the implicit commit.
    fn clean_up(&mut self) -> bool {
        if self.scope.is_some() {
            if self.leaving {
                self.saw_error = true;
            } else {
                self.saw_error = true;
                self.error("Resource incomplete.");
                return false;
            }
        }
        if self.changed && self.document.is_some() {
            if self.verify(true).is_err() {
                return false;
            }
            if self.changed {
                self.saw_error = true;
                self.error("Configuration not saved.");
                return false;
            }
        }
        !(self.changed || self.saw_error)
    }

    fn dispatch(&mut self, command: Command) -> Step {
        match command.name {
            "add" => self.add(&command),
            "cancel" => self.cancel(&command),
            "clear" => self.clear(&command),
            "commit" => self.commit(&command),
            "create" => self.create(&command),
            "delete" => self.delete(&command),
            "end" => self.end(&command),
            "exit" => self.exit(&command),
            "export" => self.export(&command),
            "help" => {
                self.help(command.args.first().map(String::as_str));
                Ok(())
            }
            "info" => self.info(&command),
            "remove" => self.remove(&command),
            "revert" => self.revert(&command),
            "select" => self.select(&command),
            "set" => self.set(&command),
            _ => self.verify_command(&command),
        }
    }

    // ---- messages -------------------------------------------------------------------------

    // ---- documents ------------------------------------------------------------------------

    /// The zonepath as shown: with the alternate root.
    pub fn zonepath(&self, document: &Element) -> String {
        format!("{}{}", self.root, document.attr_or_empty("zonepath"))
    }

    /// The brand of a document; without one, that of the default template.
    pub fn brand(&self, document: &Element) -> String {
        match document.attr_or_empty("brand") {
            "" => doc::template("SUNWdefault", "", self.flavour)
                .map_or(String::new(), |t| t.attr_or_empty("brand").to_owned()),
            brand => brand.to_owned(),
        }
    }

    /// An attribute of the zone, or an empty text.
    pub fn attr(&self, name: &str) -> String {
        self.document
            .as_ref()
            .map_or(String::new(), |d| d.attr_or_empty(name).to_string())
    }

    /// Whether the document has an element of a name.
    pub fn has(&self, element: &str) -> bool {
        self.document
            .as_ref()
            .is_some_and(|d| d.named(element).next().is_some())
    }
}

pub(super) const MEMORY_EXPECTED: &str =
    "A non-negative number with a required scale suffix (K, M, G or T) was expected\nhere.";
