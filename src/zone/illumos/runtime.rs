//! The operations on zones.

use std::fs;
use std::sync::Arc;

use futures::FutureExt as _;
use jiff::Timestamp;

use super::super::supervised::{self, Zones, remove_record};
use super::super::supervisor::{Configuration, ZONE};
use super::super::{
    Answer, Change, Of, ProcessId, ProcessSpec, System, ZoneError, ZoneName, ZoneSpec, ZoneUsage,
};
use super::home::{Home, Record};
use super::{Brand, Goal, IllumosRuntime, Inner};
use crate::blocking::blocking;
use crate::private::write_whole;

impl Inner {
    /// Writes the description that the supervisor reads when it starts, with paths inside the zone.
    async fn describe(&self, home: &Home) -> Result<(), String> {
        let mut spec = home.record.spec.clone();
        spec.memory_directories = spec
            .memory_directories
            .into_iter()
            .filter_map(|(path, size)| Some((home.layout.inside(&path)?, size)))
            .collect();
        let configuration = Configuration {
            spec,
            created: home.record.created,
            groups: Vec::new(),
        };
        let path = self
            .settings
            .data
            .join("pods")
            .join(&home.layout.owner)
            .join(ZONE);
        blocking(move || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            write_whole(&path, &serde_json::to_vec(&configuration)?)
        })
        .await
        .map_err(|error| error.to_string())
    }
}

impl supervised::Supervised for IllumosRuntime {
    type Home = Home;

    fn zones(&self) -> &Zones<Home> {
        &self.0.zones
    }

    fn brand(&self) -> &'static str {
        self.0.settings.brand.name()
    }

    fn system(&self, home: &Home) -> System {
        home.layout.brand.system()
    }

    fn brands(&self) -> Vec<&'static str> {
        let settings = &self.0.settings;
        let others = settings.sandboxes.keys().copied();
        std::iter::once(settings.brand)
            .chain(others.filter(|brand| *brand != settings.brand))
            .map(Brand::name)
            .collect()
    }

    fn lacks(&self) -> Answer<'_, Vec<String>> {
        async {
            let strangers = self.0.strangers.lock();
            Ok(strangers
                .iter()
                .map(|zone| format!("the zone {zone} has a name of ours and is not ours: rename it, or remove it"))
                .collect())
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()> {
        async move {
            let failed = |cause: String| ZoneError::failed("create", format!("zone {}", spec.name), cause);
            let found = self.0.zones.get(&spec.name);
            let home = match found {
                Some(home) => home,
                None => {
                    let home = self.0.home(Record {
                        spec: spec.clone(),
                        created: Timestamp::now(),
                        brand: Some(self.0.settings.brand.name().to_owned()),
                        resized: None,
                    })?;
                    if home.layout.sandbox.is_none() {
                        return Err(ZoneError::Refused {
                            operation: "create",
                            what: format!("zone {}", spec.name),
                            reason: format!("zones of the brand {} are not offered here: see `reddwarf doctor --brand {0}`", home.layout.brand.name()),
                        });
                    }
                    // There is no record of this zone: an existing one under its name must be ours.
                    let rows = self.0.tools.run(&home.layout.show()).await;
                    let there = match rows {
                        Ok(_) => true,
                        Err(failure) if failure.not_found() => false,
                        Err(failure) => return Err(failed(failure.to_string())),
                    };
                    if there {
                        let mark = self.0.mark(&spec.name).await;
                        if mark.map_err(|failure| failed(failure.to_string()))?.is_none() {
                            self.0.strangers.lock().insert(spec.name.to_string());
                            return Err(ZoneError::Refused {
                                operation: "create",
                                what: format!("zone {}", spec.name),
                                reason: "there is a zone of this name that is not ours; it is left alone: rename or remove it".into(),
                            });
                        }
                    }
                    let (directory, record) = (home.layout.directory.clone(), home.record.clone());
                    blocking(move || {
                        fs::create_dir_all(&directory)?;
                        write_whole(&directory.join(ZONE), &serde_json::to_vec(&record)?)
                    })
                    .await
                    .map_err(|error| failed(error.to_string()))?;
                    self.0.zones.add(spec.name.clone(), home)
                }
            };
            let _step = home.steps.lock().await;
            self.0.describe(&home).await.map_err(failed)?;
            let reached = self.0.reach("create", &home, Goal::Installed).await;
            self.0.zones.changed(&spec.name);
            reached
        }
        .boxed()
    }

    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let home = self.0.zones.find("boot", zone)?;
            let _step = home.steps.lock().await;
            let failed = |cause: String| ZoneError::failed("boot", format!("zone {zone}"), cause);
            self.0.describe(&home).await.map_err(failed)?;
            // The listener must exist before the supervisor dials.
            home.link
                .listen(&home.layout.control)
                .map_err(|error| failed(format!("{}: {error}", home.layout.control.display())))?;
            let led = self.0.rules.lead(zone, &home.layout.rules).await;
            led.map_err(|error| failed(error.to_string()))?;
            self.0.reach("boot", &home, Goal::Running).await?;
            if !home.link.hello(self.0.patience.hello).await {
                // The state `running` proves nothing: lxinit waits forever when it cannot continue.
                let halted = self.0.reach("halt", &home, Goal::Halted).await;
                home.link.close();
                self.0.zones.changed(zone);
                halted?;
                return Err(failed(format!(
                    "it was booted and nothing in it answers, so it was halted; look at its console (zlogin -C {zone}) while it boots"
                )));
            }
            if let Some(boot) = home.link.boot() {
                let settled = self.0.settle_in(&home, boot).await;
                settled.map_err(|failure| failed(failure.to_string()))?;
            }
            self.0.zones.changed(zone);
            Ok(())
        }
        .boxed()
    }

    fn halt<'a>(&'a self, home: &'a Arc<Home>) -> Answer<'a, ()> {
        async move {
            self.0.reach("halt", home, Goal::Halted).await?;
            self.0.rules.forget(&home.layout.zone).await;
            Ok(())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, home: &'a Arc<Home>) -> Answer<'a, ()> {
        async move {
            let zone = &home.layout.zone;
            self.0.reach("delete", home, Goal::Absent).await?;
            self.0.rules.forget(zone).await;
            let (directory, path) = (home.layout.directory.clone(), home.layout.path.clone());
            let removed = blocking(move || {
                // An empty directory of the zonepath may remain; one with content must not be removed.
                let _ = fs::remove_dir(path);
                remove_record(&directory)
            });
            let failed = |cause| ZoneError::failed("delete", format!("zone {zone}"), cause);
            removed.await.map_err(failed)
        }
        .boxed()
    }

    fn admit<'a>(&'a self, home: &'a Home, process: &'a ProcessSpec) -> Answer<'a, ProcessSpec> {
        async { home.layout.process(process) }.boxed()
    }

    fn forgotten<'a>(&'a self, _: &'a Home, _: &'a ProcessId) -> Answer<'a, ()> {
        async { Ok(()) }.boxed()
    }

    fn limit<'a>(&'a self, home: &'a Home, change: &'a Change) -> Answer<'a, ()> {
        async move {
            if change.of != Of::Zone {
                // Limits apply to the whole zone: a single container has none.
                return Ok(());
            }
            let _step = home.steps.lock().await;
            let zone = &home.layout.zone;
            let failed = |cause: String| ZoneError::failed("limit", format!("zone {zone}"), cause);
            if !home.runs() {
                return Err(ZoneError::State {
                    operation: "limit",
                    what: format!("zone {zone}"),
                    state: "not running".into(),
                });
            }
            let capped = self.0.cap(home, &change.limits).await;
            capped.map_err(|failure| failed(failure.to_string()))?;
            let mut record = home.record.clone();
            let limits = change.limits.or(&home.limits());
            record.resized = Some(limits.clone());
            let directory = home.layout.directory.clone();
            blocking(move || write_whole(&directory.join(ZONE), &serde_json::to_vec(&record)?))
                .await
                .map_err(|error| failed(error.to_string()))?;
            home.known.lock().resized = Some(limits);
            Ok(())
        }
        .boxed()
    }

    fn usage<'a>(&'a self, home: &'a Home) -> Answer<'a, ZoneUsage> {
        self.0.measure(home).boxed()
    }
}
