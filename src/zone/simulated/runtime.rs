//! The simulated zones as a runtime.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::super::{
    Answer, Change, Duplex, Ending, ExecSpec, Of, Process, ProcessId, ProcessSpec, Session, Signal,
    SignalNumber, System, Usage, Zone, ZoneError, ZoneName, ZoneRuntime, ZoneSpec, ZoneState,
    ZoneUsage,
};
use super::refusals::{find, fits, must_run};
use super::{BEHAVIOUR, Home, Simulated, behaviour};

impl ZoneRuntime for Simulated {
    fn brand(&self) -> &'static str {
        "simulated"
    }

    fn brands(&self) -> Vec<&'static str> {
        vec!["simulated"]
    }

    fn lacks(&self) -> Answer<'_, Vec<String>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Zone>> {
        async move {
            let state = self.state.lock();
            Ok(state.zones.values().map(|home| home.zone.clone()).collect())
        }
        .boxed()
    }

    fn get<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, Option<Zone>> {
        async move {
            let state = self.state.lock();
            Ok(state.zones.get(zone).map(|home| home.zone.clone()))
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()> {
        async move {
            let told = self.step("create", &spec.name, self.delays.create).await?;
            {
                let mut state = self.state.lock();
                if let Some(home) = state.zones.get(&spec.name) {
                    if home.zone.spec.labels != spec.labels {
                        return Err(ZoneError::State {
                            operation: "create",
                            what: format!("zone {}", spec.name),
                            state: "there already, and another's".into(),
                        });
                    }
                } else {
                    state.zones.insert(
                        spec.name.clone(),
                        Home {
                            zone: Zone {
                                spec: spec.clone(),
                                state: ZoneState::Installed,
                                boot: None,
                                created: Timestamp::now(),
                                processes: Vec::new(),
                            },
                            limits: BTreeMap::new(),
                            stubborn: BTreeMap::new(),
                        },
                    );
                }
            }
            let _ = self.changes.send(spec.name.clone());
            told
        }
        .boxed()
    }

    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let told = self.step("boot", zone, self.delays.boot).await?;
            let boot = {
                let mut state = self.state.lock();
                state.boots += 1;
                format!("boot-{}", state.boots)
            };
            self.with("boot", zone, |home| match home.zone.state {
                ZoneState::Running => Ok(()),
                ZoneState::Installed => {
                    home.zone.state = ZoneState::Running;
                    home.zone.boot = Some(boot);
                    Ok(())
                }
                state => Err(ZoneError::State {
                    operation: "boot",
                    what: format!("zone {zone}"),
                    state: state.to_string(),
                }),
            })?;
            told
        }
        .boxed()
    }

    fn halt<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let told = self.step("halt", zone, self.delays.remove).await?;
            let halted = self.with("halt", zone, |home| {
                home.zone.state = ZoneState::Installed;
                home.zone.boot = None;
                home.zone.processes.clear();
                Ok(())
            });
            match halted {
                Err(error) if !error.is_not_found() => Err(error),
                _ => told,
            }
        }
        .boxed()
    }

    fn delete<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let told = self.step("delete", zone, Duration::ZERO).await?;
            {
                let mut state = self.state.lock();
                if let Some(home) = state.zones.get(zone) {
                    if home.zone.state == ZoneState::Running {
                        return Err(ZoneError::State {
                            operation: "delete",
                            what: format!("zone {zone}"),
                            state: "running; halt it first".into(),
                        });
                    }
                    state.zones.remove(zone);
                }
            }
            let _ = self.changes.send(zone.clone());
            told
        }
        .boxed()
    }

    fn start<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessSpec) -> Answer<'a, ()> {
        async move {
            let told = self.step("start", zone, self.delays.start).await?;
            let (exit, stubborn) =
                behaviour(process.labels.get(BEHAVIOUR).map_or("", String::as_str));
            let fresh = self.with("start a process in", zone, |home| {
                must_run("start a process in", &home.zone)?;
                if home
                    .zone
                    .processes
                    .iter()
                    .any(|known| known.id == process.id)
                {
                    return Ok(false);
                }
                home.zone.processes.push(Process {
                    id: process.id.clone(),
                    labels: process.labels.clone(),
                    started: Timestamp::now(),
                    ended: None,
                    identity: None,
                });
                home.limits
                    .insert(process.id.clone(), process.limits.clone());
                home.stubborn.insert(process.id.clone(), stubborn);
                Ok(true)
            })?;
            if let Some((code, after)) = exit
                && fresh
            {
                if after.is_zero() {
                    self.exit(zone, &process.id, code);
                } else {
                    let (host, zone, id) = (self.clone(), zone.clone(), process.id.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        host.exit(&zone, &id, code);
                    });
                }
            }
            told
        }
        .boxed()
    }

    fn signal<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        signal: Signal,
    ) -> Answer<'a, ()> {
        async move {
            let told = self.step("signal", zone, Duration::ZERO).await?;
            let ends = self.with("signal a process in", zone, |home| {
                find("signal", &mut home.zone, process)?;
                let stubborn = home.stubborn.get(process).copied().unwrap_or(false);
                Ok(signal == Signal::KILL || (signal == Signal::TERM && !stubborn))
            })?;
            if ends {
                let SignalNumber(number) = signal.on(System::Linux);
                self.end(zone, process, |at| Ending {
                    signal: number,
                    ..Ending::exited(128 + number, at)
                });
            }
            told
        }
        .boxed()
    }

    fn forget<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, ()> {
        async move {
            let told = self.step("forget", zone, Duration::ZERO).await?;
            self.with("forget a process of", zone, |home| {
                if home
                    .zone
                    .processes
                    .iter()
                    .any(|known| known.id == *process && known.ended.is_none())
                {
                    return Err(ZoneError::State {
                        operation: "forget",
                        what: format!("process {process} of zone {zone}"),
                        state: "running".into(),
                    });
                }
                home.zone.processes.retain(|known| known.id != *process);
                home.limits.remove(process);
                home.stubborn.remove(process);
                Ok(())
            })?;
            told
        }
        .boxed()
    }

    fn limit<'a>(&'a self, zone: &'a ZoneName, change: &'a Change) -> Answer<'a, ()> {
        async move {
            let told = self.step("limit", zone, Duration::ZERO).await?;
            self.with("limit", zone, |home| {
                must_run("limit", &home.zone)?;
                match &change.of {
                    Of::Zone => {
                        let limits = change.limits.or(&home.zone.spec.limits);
                        for (process, own) in &home.limits {
                            fits(zone, process, own, &limits)?;
                        }
                        home.zone.spec.limits = limits;
                    }
                    Of::Process(id, labels) => {
                        let whole = home.zone.spec.limits.clone();
                        let process = find("limit", &mut home.zone, id)?;
                        if process.ended.is_some() {
                            return Err(ZoneError::State {
                                operation: "limit",
                                what: format!("process {id} of zone {zone}"),
                                state: "ended".into(),
                            });
                        }
                        let own = home.limits.entry(id.clone()).or_default();
                        let limits = change.limits.or(own);
                        fits(zone, id, &limits, &whole)?;
                        *own = limits;
                        process.labels.extend(labels.clone());
                    }
                }
                Ok(())
            })?;
            told
        }
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        exec: &'a ExecSpec,
    ) -> Answer<'a, Session> {
        async move {
            self.step("exec", zone, Duration::ZERO).await??;
            self.running("exec in", zone)?;
            self.with("exec in", zone, |home| {
                find("exec in", &mut home.zone, process)
                    .map(|found| found.ended.is_some())
                    .and_then(|ended| match ended {
                        false => Ok(()),
                        true => Err(ZoneError::State {
                            operation: "exec in",
                            what: format!("process {process} of zone {zone}"),
                            state: "ended".into(),
                        }),
                    })
            })?;
            let program = exec.command.first().map_or("", String::as_str);
            let arguments = exec.command.get(1..).unwrap_or_default().join(" ");
            let (own, other) = tokio::io::duplex(64 * 1024);
            let (mut out, stdout) = tokio::io::duplex(64 * 1024);
            let (resize, _) = mpsc::channel(1);
            let (tell, ended) = oneshot::channel();
            let mut input = other;
            match program {
                "true" | "false" | "echo" | "exit" | "cat" => {}
                other => {
                    return Err(ZoneError::Start {
                        reason: format!("exec: {other:?}: executable file not found in $PATH"),
                    });
                }
            }
            let program = program.to_owned();
            let wants_input = exec.stdin;
            tokio::spawn(async move {
                let code = match program.as_str() {
                    "false" => 1,
                    "exit" => arguments.parse().unwrap_or(2),
                    "echo" => {
                        let _ = out.write_all(format!("{arguments}\n").as_bytes()).await;
                        0
                    }
                    "cat" if wants_input => {
                        let mut buffer = vec![0; 8192];
                        loop {
                            match input.read(&mut buffer).await {
                                Ok(0) | Err(_) => break,
                                Ok(count) => {
                                    if out.write_all(&buffer[..count]).await.is_err() {
                                        break;
                                    }
                                }
                            }
                        }
                        0
                    }
                    _ => 0,
                };
                drop(out);
                let _ = tell.send(Ok(Ending::exited(code, Timestamp::now())));
            });
            Ok(Session {
                stdin: exec.stdin.then(|| Box::new(own) as _),
                stdout: Some(Box::new(stdout)),
                stderr: None,
                resize,
                ended,
            })
        }
        .boxed()
    }

    fn attach<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, Session> {
        async move {
            let _ = process;
            Err(ZoneError::Refused {
                operation: "attach to",
                what: format!("zone {zone}"),
                reason: "simulated processes have no streams".into(),
            })
        }
        .boxed()
    }

    fn dial<'a>(&'a self, zone: &'a ZoneName, port: u16) -> Answer<'a, Box<dyn Duplex>> {
        async move {
            Err(ZoneError::Refused {
                operation: "connect to",
                what: format!("port {port} of zone {zone}"),
                reason: "simulated zones have no network".into(),
            })
        }
        .boxed()
    }

    /// A simulated process uses one CPU from its start, and nothing else.
    fn usage<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ZoneUsage> {
        async move {
            self.with("measure", zone, |home| {
                // Metrics have a resolution of milliseconds: this way differences of two measurements, and times since
                // a start, are exact.
                let now = Timestamp::now().as_millisecond();
                let lived = |process: &Process| {
                    let millis = now.saturating_sub(process.started.as_millisecond());
                    u64::try_from(millis).unwrap_or(0).saturating_mul(1_000_000)
                };
                let running = home.zone.processes.iter();
                let running = running.filter(|process| process.ended.is_none());
                let processes: BTreeMap<_, _> = running
                    .map(|process| (process.id.clone(), lived(process)))
                    .map(|(id, cpu)| {
                        let usage = Usage {
                            cpu,
                            ..Usage::default()
                        };
                        (id, usage)
                    })
                    .collect();
                let total = Usage {
                    cpu: processes.values().map(|usage| usage.cpu).sum(),
                    ..Usage::default()
                };
                Ok(ZoneUsage {
                    at: Timestamp::from_millisecond(now).unwrap_or_default(),
                    total,
                    processes,
                    network: (0, 0),
                })
            })
        }
        .boxed()
    }

    fn changes(&self) -> broadcast::Receiver<ZoneName> {
        self.changes.subscribe()
    }
}
