//! Handles zones without a current request: foreign ones, zones and links whose records are lost, spontaneous reboots,
//! and unresponsive supervisors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::Inner;
use super::config::{self, MARK};
use super::home::{Home, Record};
use super::layout::{Brand, Layout, Settings, owner};
use super::plan::{self, Goal};
use crate::illumos::parse::{self, HostState, ZoneRow};
use crate::illumos::{Class, Command, Failure, Tool};
use crate::net::illumos::{delete_vnic, is_ours, show_vnics};
use crate::zone::{ZoneName, ZoneNetwork, ZoneSpec};

impl Inner {
    pub(super) async fn rows(&self) -> Result<Vec<ZoneRow>, Failure> {
        let command = Command::new(Tool::Zoneadm, ["list", "-cp"]);
        Ok(parse::zones(&self.tools.run(&command).await?.stdout))
    }

    /// The labels in a zone's attributes, if it is ours.
    pub(super) async fn mark(
        &self,
        zone: &ZoneName,
    ) -> Result<Option<BTreeMap<String, String>>, Failure> {
        let text = self.tools.run(&Layout::attributes(zone)).await?.stdout;
        let ours = parse::attribute(&text, MARK).as_deref() == Some(owner(zone));
        Ok(ours.then(|| config::labels(&text)))
    }

    /// Adopts a zone with our name whose record is lost, so that it can be removed; a foreign one is remembered.
    pub(super) async fn adopt(self: &Arc<Self>, row: ZoneRow) {
        let Some(zone) = ZoneName::new(&row.name).filter(|_| row.name.starts_with("rd-")) else {
            return;
        };
        if self.zones.get(&zone).is_some() || self.strangers.lock().contains(&row.name) {
            return;
        }
        let labels = match self.mark(&zone).await {
            Ok(Some(labels)) => labels,
            Ok(None) => {
                tracing::warn!(%zone, "a zone has a name like ours but not our mark; leaving it alone");
                self.strangers.lock().insert(row.name);
                return;
            }
            Err(failure) => {
                tracing::warn!(%zone, %failure, "cannot read the mark of a zone; leaving it alone");
                return;
            }
        };
        let brand = Brand::named(&row.brand).map(|brand| brand.name().to_owned());
        let spec = ZoneSpec {
            labels,
            brand,
            ..ZoneSpec::new(zone.clone(), lost_network(&self.settings))
        };
        let record = Record {
            brand: None,
            spec,
            created: Timestamp::now(),
            resized: None,
        };
        if let Ok(home) = self.home(record) {
            home.see(Some(row));
            self.zones.add(zone.clone(), home);
            self.zones.changed(&zone);
        }
    }

    /// Removes our links that belong to no known zone: their zones' records are lost, or were removed first.
    pub(super) async fn sweep(&self) {
        let vnics = match self.tools.run(&show_vnics()).await {
            Ok(output) => parse::vnics(&output.stdout),
            Err(failure) => {
                tracing::warn!(%failure, "links cannot be listed");
                return;
            }
        };
        let known = self.zones.all().into_iter();
        let known: BTreeSet<String> = known.map(|home| home.layout.vnic.link.clone()).collect();
        let own = self.settings.network.over();
        for row in vnics {
            if row.over != own || !is_ours(&row) || known.contains(&row.link) {
                continue;
            }
            match self.tools.run(&delete_vnic(&row.link)).await {
                // It is in a zone that is removed later: it is found again when the agent starts.
                Ok(_) => {}
                Err(failure) if matches!(failure.class, Class::Busy | Class::NotFound) => {}
                Err(failure) => {
                    tracing::warn!(%failure, "cannot remove a link that belongs to no zone")
                }
            }
        }
    }

    /// Looks at all zones, reports changes, and handles each zone. No zone waits for another one.
    pub(super) async fn look(self: &Arc<Self>) {
        let seen = |home: &Arc<Home>| home.known.lock().row.clone();
        let before: Vec<_> = self.zones.all();
        let before: Vec<_> = before.into_iter().map(|home| (seen(&home), home)).collect();
        let rows = match self.rows().await {
            Ok(rows) => rows,
            Err(failure) => {
                tracing::warn!(%failure, "zones cannot be listed");
                return;
            }
        };
        for (before, home) in before {
            let name = &home.layout.zone;
            {
                // A running step has newer information than this list.
                let Ok(_step) = home.steps.try_lock() else {
                    continue;
                };
                if before != seen(&home) {
                    continue;
                }
                let row = rows.iter().find(|row| row.name == name.as_str());
                if home.see(row.cloned()) {
                    self.zones.changed(name);
                }
            }
            let inner = self.clone();
            tokio::spawn(async move {
                if let Ok(_step) = home.steps.try_lock() {
                    inner.tend(&home).await;
                }
            });
        }
    }

    /// Does what a zone needs without a request.
    async fn tend(&self, home: &Home) {
        let Some(state) = home.known.lock().row.as_ref().map(|row| row.state) else {
            return;
        };
        let boot = home.link.boot();
        if let Some((most, why)) = plan::may_stay(state, boot.is_some(), &self.patience) {
            let since = *home.known.lock().still.get_or_insert_with(Instant::now);
            if since.elapsed() < most {
                return;
            }
            let zone = &home.layout.zone;
            tracing::warn!(%zone, "{why}: halting the zone, to boot it again");
            if let Err(error) = self.reach("halt", home, Goal::Halted).await {
                tracing::warn!(%error, "the zone cannot be halted");
            }
            home.known.lock().still = None;
            home.link.close();
            self.zones.changed(zone);
            return;
        }
        home.known.lock().still = None;
        if state == HostState::Running
            && let Some(boot) = boot
            && let Err(failure) = self.settle_in(home, boot).await
        {
            tracing::warn!(zone = %home.layout.zone, %failure, "cannot set the link protection or limits of a zone; retrying");
        }
    }

    /// Applies, once for each boot, whoever started it, what is not in the configuration: further protection of its
    /// link, and limits changed at runtime.
    pub(super) async fn settle_in(&self, home: &Home, boot: String) -> Result<(), Failure> {
        let (settled, resized) = {
            let known = home.known.lock();
            (known.settled.clone(), known.resized.clone())
        };
        if settled.as_ref() == Some(&boot) {
            return Ok(());
        }
        if let Some(limits) = resized {
            self.cap(home, &limits).await?;
        }
        self.tools.run(&home.layout.vnic.protect()).await?;
        home.known.lock().settled = Some(boot);
        Ok(())
    }
}

/// A network for a zone whose record is lost: any valid one; its link is unknown.
fn lost_network(settings: &Settings) -> ZoneNetwork {
    use crate::net::illumos::NetworkConfig;
    let (gateway, prefix) = match &settings.network {
        NetworkConfig::Etherstub(config) => (config.gateway, config.prefix_len),
        NetworkConfig::Direct(config) => (config.gateway, config.prefix_len),
    };
    let bits = u32::from(gateway);
    let address = std::net::Ipv4Addr::from(if bits & 1 == 1 { bits + 1 } else { bits | 1 });
    ZoneNetwork::Own {
        address: address.into(),
        prefix,
        gateway: gateway.into(),
        mac: crate::net::mac_address(address),
        link: "rdlost0".into(),
        ports: Vec::new(),
        bandwidth: None,
    }
}
