//! Resource usage of a zone, as counted by the host.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Inner;
use super::home::Home;
use crate::illumos::{Command, Tool, parse};
use crate::zone::{ProcessId, Usage, ZoneError, ZoneUsage};

impl Inner {
    /// Measures a running zone.
    pub(super) async fn measure(&self, home: &Home) -> Result<ZoneUsage, ZoneError> {
        let zone = &home.layout.zone;
        let id = home.known.lock().row.as_ref().and_then(|row| row.id);
        let id = id.ok_or_else(|| ZoneError::State {
            operation: "measure",
            what: format!("zone {zone}"),
            state: "not running".into(),
        })?;
        let link = &home.layout.vnic.link;
        // By the zone's id, because names are truncated to 30 characters.
        let command = Command::new(
            Tool::Kstat,
            [
                "-p".to_owned(),
                format!("zones:{id}::nsec_user"),
                format!("zones:{id}::nsec_sys"),
                format!("memory_cap:{id}::rss"),
                format!("caps:{id}:nprocs_zone_{id}:usage"),
                format!("link:0:{link}:rbytes64"),
                format!("link:0:{link}:obytes64"),
            ],
        );
        let output = self
            .tools
            .run(&command)
            .await
            .map_err(|failure| ZoneError::failed("measure", format!("zone {zone}"), failure))?;
        let stats = parse::kstats(&output.stdout);
        let value = |name: &str| -> u64 {
            let found = stats
                .iter()
                .find(|([_, _, _, statistic], _)| statistic == name);
            found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        let total = Usage {
            cpu: value("nsec_user") + value("nsec_sys"),
            memory: value("rss"),
            working_set: value("rss"),
            pids: value("usage"),
        };
        let running: Vec<ProcessId> = home
            .link
            .processes()
            .into_iter()
            .filter(|process| process.ended.is_none())
            .map(|process| process.id)
            .collect();
        // The host counts by zone: usage of a container is known only if it is the only one.
        let processes = match running.as_slice() {
            [only] => BTreeMap::from([(only.clone(), total.clone())]),
            _ => BTreeMap::new(),
        };
        Ok(ZoneUsage {
            at: Timestamp::now(),
            total,
            processes,
            network: (value("rbytes64"), value("obytes64")),
        })
    }
}
