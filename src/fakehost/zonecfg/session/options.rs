//! The command line of zonecfg.

use std::fmt::Write as _;
use std::path::Path;

use super::super::doc::{self, Z};
use super::usage::strerror;
use super::{Mode, Session};
use crate::fakehost::exit;
use crate::fakehost::getopt::Options;

impl<'a> Session<'a> {
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

    /// Parses the command line; returns the words after its options.
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

    /// Uses the configurations of another root.
    fn set_root(&mut self, root: &str) -> Result<(), i32> {
        let why = match root.starts_with('/') {
            true if self.host.is_directory(Path::new(root)) => {
                // `/` is the normal root.
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
}
