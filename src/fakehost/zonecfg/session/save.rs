//! The configuration of the zone: opened, created from templates, saved.

use super::super::doc::{self, Z};
use super::{Exit, Session, Step};
use crate::fakehost::xml::Element;

impl<'a> Session<'a> {
    /// Whether changes of this zone are rejected.
    pub fn read_only(&mut self) -> bool {
        if self.zone.starts_with("SUNW") {
            let text = format!("{}: zones beginning with SUNW are read-only.", self.zone);
            self.fail(&text);
            return true;
        }
        false
    }

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

    /// The hint in interactive use if the zone does not exist.
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

    /// The kernel's word for the state of a running zone. The kernel does not know the zones of an alternate root.
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

    /// A template, or the document of another zone, renamed to this one.
    pub fn template(&self, name: &str) -> Option<Element> {
        let shipped = match self.root.as_str() {
            "" => doc::template(name, &self.zone, self.flavour),
            // Those of an alternate root are separate files.
            _ => None,
        };
        shipped.or_else(|| {
            let mut found = self.store.load(name).ok().flatten()?;
            found.set("name", &self.zone);
            Some(found)
        })
    }
}

/// Why a document is not available.
pub(in super::super) enum InitError {
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
