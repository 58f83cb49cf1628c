//! One run of zonecfg: reading commands, the global scope, saving.

use std::fmt::Write as _;
use std::path::Path;

use super::doc::{self, Z};
use super::lexer::Lexer;
use super::parser::{self, Command, Parsed};
use super::resource::Resource;
use super::{Flavour, Host};
use crate::fakehost::exit;
use crate::fakehost::getopt::{Bad, Options};
use crate::fakehost::store::ConfigStore;
use crate::fakehost::xml::Element;

/// The source of commands, which decides what an error does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// `-f FILE`: stops at the first error, messages carry line numbers.
    File(String),
    /// Commands on the command line: continues after errors.
    Args,
    /// Standard input (never a terminal here): goes on after errors. With `-f -` messages carry line numbers.
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
    /// The alternate root (`-R`), or nothing. Zonepaths are told with it, and kept without it.
    pub root: String,
    pub flavour: Flavour,
    pub mode: Mode,
    pub zone: String,
    pub revert_zone: String,
    pub global_zone: bool,
    pub document: Option<Element>,
    /// Whether the document was created, not loaded.
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

    /// The whole program; `Err` is an immediate exit with status 1.
    pub fn main(&mut self, args: &[String], stdin: &[u8]) -> Result<i32, i32> {
        if args.is_empty() {
            self.usage_line();
            self.synopses();
            return Ok(exit::USAGE);
        }
        if args[0] == "help" {
            let text = args.join(" ") + "\n";
            self.run_input(text.as_bytes());
            return Ok(exit::OK);
        }
        let rest = match self.options(args) {
            Ok(rest) => rest,
            Err(code) => return Ok(code),
        };
        if self.zone.is_empty() {
            self.usage_line();
            return Ok(exit::USAGE);
        }
        if !self.root.is_empty() && !self.store.accessible(&self.zone) {
            let _ = writeln!(
                self.err,
                "zonecfg: Could not access zone configuration store: {}",
                Z::MiscFs.text()
            );
            return Ok(exit::ERROR);
        }
        if !rest.is_empty() {
            self.mode = Mode::Args;
            let text = rest.join(" ") + "\n";
            return Ok(self.finish(text.as_bytes()));
        }
        let Some(name) = self.mode.file_name().map(str::to_string) else {
            self.mode = Mode::Stdin { numbered: false };
            self.interactive = true;
            // Only to report early that the zone does not exist.
            let _ = self.initialize(false);
            return Ok(self.finish(stdin));
        };
        if name == "-" {
            self.mode = Mode::Stdin { numbered: true };
            self.interactive = true;
            return Ok(self.finish(stdin));
        }
        match self.host.read_file(Path::new(&name)) {
            Ok(bytes) => Ok(self.finish(&bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
                let _ = writeln!(self.err, "{name} is not a regular file.");
                Ok(exit::ERROR)
            }
            Err(e) => {
                let text = strerror(&e);
                let _ = writeln!(self.err, "could not open file {name}: {text}");
                Ok(exit::ERROR)
            }
        }
    }

    /// What the command line says; the words after its options.
    fn options<'w>(&mut self, args: &'w [String]) -> Result<&'w [String], i32> {
        self.mode = Mode::Args;
        let mut options = Options::new(args, "?f:R:z:", &[]);
        for option in options.by_ref() {
            let (letter, value) = match option {
                Ok((letter, value)) => (letter, value.unwrap_or_default()),
                Err(bad) => {
                    let _ = writeln!(self.err, "zonecfg: {bad}");
                    self.usage_line();
                    return Err(exit::USAGE);
                }
            };
            match letter {
                'f' => self.mode = Mode::File(value),
                'R' => self.set_root(&value)?,
                'z' if value != "global" && !doc::valid_zone_name(&value) => {
                    self.complain(&value, Z::BogusZoneName);
                    self.name_syntax();
                    return Err(exit::USAGE);
                }
                'z' => {
                    self.global_zone |= value == "global";
                    self.zone = value;
                }
                _ => {
                    self.usage_line();
                    return Err(exit::USAGE);
                }
            }
        }
        self.revert_zone = self.zone.clone();
        Ok(options.rest())
    }

    /// Takes the configurations of another root.
    fn set_root(&mut self, root: &str) -> Result<(), i32> {
        let why = match root.starts_with('/') {
            true if self.host.is_directory(Path::new(root)) => {
                // `/` is no other one.
                (self.store, self.root) = match root {
                    "/" => (self.host_store.clone(), String::new()),
                    _ => (self.host.alternate(Path::new(root)), root.to_owned()),
                };
                return Ok(());
            }
            true => "root path must be a directory",
            false => "root path must be absolute",
        };
        self.error(&format!("{why}: {root}"));
        Err(exit::USAGE)
    }

    fn finish(&mut self, input: &[u8]) -> i32 {
        if !self.run_input(input) {
            return exit::ERROR;
        }
        if self.clean_up() {
            exit::OK
        } else {
            exit::ERROR
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

    /// The warning before a limit for the global zone.
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

    fn usage_line(&mut self) {
        self.err.push_str(
            "usage:\tzonecfg help\n\tzonecfg -z <zone>\t\t\t(interactive)\n\tzonecfg -z <zone> <command>\n\tzonecfg -z <zone> -f <command-file>\n",
        );
    }

    fn synopses(&mut self) {
        self.err.push_str("Commands:\n\n");
        for (_, text) in SYNOPSES {
            let _ = writeln!(self.err, "{text}");
        }
    }

    /// Prints help on everything, or on one command; further explanations are left out here.
    fn help(&mut self, subject: Option<&str>) {
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

    /// The options of a command, parsed by getopt(3C) from its first word on; `None` after an error was printed. A `:`
    /// after a letter means that it takes a value.
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
            // The first word is the 0th, where getopt(3C) names a long option by its letter.
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
        // These two do not look at further words.
        if !options.rest().is_empty() && !matches!(command.name, "verify" | "remove") {
            self.short_usage(command.name);
            return None;
        }
        Some(flags)
    }

    /// Whether changes of this zone are rejected.
    pub fn read_only(&mut self) -> bool {
        if self.zone.starts_with("SUNW") {
            let text = format!("{}: zones beginning with SUNW are read-only.", self.zone);
            self.fail(&text);
            return true;
        }
        false
    }

    // ---- documents ------------------------------------------------------------------------

    /// Loads the zone's document if there is none yet. Errors have been reported.
    pub fn initialize(&mut self, expected: bool) -> Result<(), InitError> {
        if self.document.is_some() {
            return Ok(());
        }
        let error = match self.store.load(&self.zone) {
            Ok(Some(document)) => {
                let brand = self.brand(&document);
                if !self.host.has_brand(&brand) {
                    let text = format!(
                        "Zone {} uses non-existent brand \"{brand}\".  Unable to continue",
                        self.zone
                    );
                    self.error(&text);
                    return Err(InitError::Exit);
                }
                self.document = Some(document);
                self.fresh = false;
                self.got_handle = true;
                return Ok(());
            }
            Ok(None) if self.global_zone && !self.got_handle => {
                let Some(template) = self.template("SUNWblank") else {
                    self.complain("SUNWblank", Z::NoZone);
                    return Err(InitError::Reported);
                };
                self.document = Some(template);
                self.fresh = true;
                self.changed = true;
                self.got_handle = true;
                return Ok(());
            }
            Ok(None) => Z::NoZone,
            Err(_) => Z::InvalidDocument,
        };
        let text = format!("{}: {}", self.zone, error.text());
        self.error(&text);
        self.saw_error |= expected || self.got_handle;
        if error == Z::NoZone && !self.got_handle {
            self.suggest_create();
        }
        Err(InitError::Reported)
    }

    /// What somebody who types commands is told where there is no zone.
    pub fn suggest_create(&mut self) {
        if self.interactive {
            self.out
                .push_str("Use 'create' to begin configuring a new zone.\n");
        }
    }

    /// The state of the zone, if it exists.
    pub fn state(&self) -> Option<&'static str> {
        if let Some(state) = self.kernel_state(&self.zone) {
            return Some(state);
        }
        self.store.entry(&self.zone).map(|e| e.state.word())
    }

    /// The kernel's word for a zone that is up. The kernel knows nothing of the zones of an alternate root.
    pub fn kernel_state(&self, zone: &str) -> Option<&'static str> {
        match self.root.as_str() {
            "" => self.host.kernel_state(zone),
            _ => None,
        }
    }

    pub fn installed(&self) -> bool {
        !matches!(self.state(), None | Some("configured") | Some("incomplete"))
    }

    /// Writes the document.
    pub fn save(&mut self) -> Result<(), Z> {
        let document = self.document.clone().ok_or(Z::SavingFile)?;
        // Invalid UTF-8 became this character; the XML library does not write such a document.
        if document.to_text().contains("&#xFFFD;") {
            return Err(Z::SavingFile);
        }
        if !self.root.is_empty() && !self.store.indexable() {
            return Err(Z::UpdatingIndex);
        }
        if let Some(old) = self.renamed_from.take() {
            let state = self.store.entry(&old);
            self.store
                .save(&document, true)
                .map_err(|_| Z::SavingFile)?;
            if let Some(entry) = state {
                let uuid = (!entry.uuid.is_empty()).then_some(entry.uuid.as_str());
                let name = document.attr_or_empty("name");
                self.store
                    .set_state(name, entry.state, uuid)
                    .map_err(|_| Z::SavingFile)?;
            }
            self.store.remove(&old).map_err(|_| Z::SavingFile)?;
        } else {
            self.store
                .save(&document, self.fresh)
                .map_err(|_| Z::SavingFile)?;
        }
        self.fresh = false;
        self.changed = false;
        self.revert_zone = self.zone.clone();
        Ok(())
    }

    /// A template, or the document of another zone, in the name of this one.
    pub fn template(&self, name: &str) -> Option<Element> {
        let shipped = match self.root.as_str() {
            "" => doc::template(name, &self.zone, self.flavour),
            // Those of another root are files of its own.
            _ => None,
        };
        shipped.or_else(|| {
            let mut found = self.store.load(name).ok().flatten()?;
            found.set("name", &self.zone);
            Some(found)
        })
    }

    /// The zonepath as it is told: with the alternate root.
    pub fn zonepath(&self, document: &Element) -> String {
        format!("{}{}", self.root, document.attr_or_empty("zonepath"))
    }

    /// The brand of a document; one without a brand has that of the default template.
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

/// The options of a command in order, each with its value.
#[derive(Debug, Default)]
pub(super) struct Flags(pub Vec<(char, String)>);

impl Flags {
    /// Whether an option was given.
    pub fn has(&self, letter: char) -> bool {
        self.0.iter().any(|(l, _)| *l == letter)
    }
}

/// The error of a file operation, in the words of strerror(3C).
pub(super) fn strerror(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "No such file or directory".to_string(),
        std::io::ErrorKind::PermissionDenied => "Permission denied".to_string(),
        std::io::ErrorKind::IsADirectory => "Is a directory".to_string(),
        _ => error.to_string(),
    }
}

/// Why a document is not available.
pub(super) enum InitError {
    /// The message was printed; the command is not run.
    Reported,
    /// The program ends.
    Exit,
}

impl InitError {
    /// The result for the command that needed the document.
    pub fn step(self) -> Step {
        match self {
            Self::Reported => Ok(()),
            Self::Exit => Err(Exit),
        }
    }
}

pub(super) const MEMORY_EXPECTED: &str =
    "A non-negative number with a required scale suffix (K, M, G or T) was expected\nhere.";
