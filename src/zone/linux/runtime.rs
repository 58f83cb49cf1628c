//! The operations on zones.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags};

use super::super::supervised::{Supervised, Zones, remove_record};
use super::super::supervisor::{BORN, Configuration, PID, ZONE, group_of, mounts};
use super::super::{
    Answer, Change, Limits, Mount, Of, Process, ProcessId, ProcessSpec, Propagation, ZoneError,
    ZoneName, ZoneSpec, ZoneUsage,
};
use super::home::Home;
use super::{Inner, Linux};
use crate::descriptors;
use crate::private::write_whole;

/// Memory for a zone in addition to its processes' limits: its supervisor is in the zone's group, and must not be
/// killed when they run out of memory.
const SANDBOX: u64 = 64 << 20;
/// How long a supervisor may take to connect.
const HELLO: Duration = Duration::from_secs(20);

/// The limits of a zone's group: those of its processes, plus room for its supervisor.
fn with_sandbox(limits: &Limits) -> Limits {
    Limits {
        memory: limits.memory.map(|memory| memory.saturating_add(SANDBOX)),
        ..limits.clone()
    }
}

impl Inner {
    /// Kills all processes of a zone and waits until they are gone.
    fn end(&self, home: &Home) -> Result<(), String> {
        let name = home.configuration.spec.name.as_str();
        if let Some(pid) = home.pid()
            && let Some(pid) = Pid::from_raw(pid as i32)
            && let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            && home.pid().is_some()
        {
            let _ = rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL);
        }
        for _ in 0..500 {
            let left = self.groups.processes(name);
            if left.is_empty() && home.pid().is_none() {
                return Ok(());
            }
            // The kernel itself can kill a group (since 5.14), whereas process ids may be reused.
            let told = self.groups.zone(name).into_iter().filter(|group| {
                let kill = fs::OpenOptions::new()
                    .write(true)
                    .open(group.join("cgroup.kill"));
                kill.and_then(|mut kill| io::Write::write_all(&mut kill, b"1"))
                    .is_ok()
            });
            if told.count() == 0 {
                for handle in left
                    .iter()
                    .filter_map(|pid| Pid::from_raw(*pid))
                    .filter_map(|pid| {
                        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
                        let is_still = self
                            .groups
                            .processes(name)
                            .contains(&pid.as_raw_nonzero().get());
                        is_still.then_some(handle)
                    })
                {
                    let _ =
                        rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(4));
        }
        Err("its processes do not end".to_owned())
    }
}

/// Runs blocking work on files or processes, away from the threads that serve requests.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    zone: &ZoneName,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ZoneError> {
    let done = crate::blocking::blocking(work).await;
    done.map_err(|cause| ZoneError::failed(operation, format!("zone {zone}"), cause))
}

impl Supervised for Linux {
    type Home = Home;

    fn zones(&self) -> &Zones<Home> {
        &self.0.zones
    }

    fn brand(&self) -> &'static str {
        "linux"
    }

    fn brands(&self) -> Vec<&'static str> {
        vec!["linux"]
    }

    fn recursive_read_only(&self) -> bool {
        mounts::is_recursive()
    }

    fn lacks(&self) -> Answer<'_, Vec<String>> {
        async {
            let mut lacks = Vec::new();
            for (path, what) in [
                (
                    "/proc/self/ns/pid",
                    "process namespaces: use a kernel with CONFIG_PID_NS",
                ),
                (
                    "/proc/self/ns/net",
                    "network namespaces: use a kernel with CONFIG_NET_NS",
                ),
                ("/sys/module/overlay", "overlay mounts: modprobe overlay"),
            ] {
                let builtin = path.contains("overlay")
                    && fs::read_to_string("/proc/filesystems")
                        .is_ok_and(|text| text.contains("\toverlay"));
                if !builtin && !Path::new(path).exists() {
                    lacks.push(format!("this host lacks {what}"));
                }
            }
            Ok(lacks)
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()> {
        async move {
            if self.0.zones.get(&spec.name).is_some() {
                return Ok(());
            }
            if let Some(other) = spec.brand.as_deref().filter(|brand| *brand != "linux") {
                return Err(ZoneError::Refused {
                    operation: "create",
                    what: format!("zone {}", spec.name),
                    reason: format!(
                        "no runtime for {other:?} is configured: zones of this host are of the brand linux"
                    ),
                });
            }
            let configuration = Configuration {
                spec: spec.clone(),
                created: Timestamp::now(),
                groups: self.0.groups.zone(spec.name.as_str()),
            };
            let home = self.0.home(&spec.name, configuration.clone());
            let directory = home.directory.clone();
            blocking("create", &spec.name, move || {
                let text = serde_json::to_vec(&configuration).map_err(|error| error.to_string())?;
                fs::create_dir_all(&directory)
                    .and_then(|()| write_whole(&directory.join(ZONE), &text))
                    .map_err(|error| format!("{}: {error}", directory.display()))
            })
            .await?;
            self.0.zones.add(spec.name.clone(), home);
            self.0.zones.changed(&spec.name);
            Ok(())
        }
        .boxed()
    }

    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()> {
        async move {
            let home = self.0.zones.find("boot", zone)?;
            let _step = home.steps.lock().await;
            let failed = |cause: String| ZoneError::failed("boot", format!("zone {zone}"), cause);
            home.link
                .listen(&home.directory)
                .map_err(|error| failed(error.to_string()))?;
            if home.pid().is_none() {
                let (inner, own) = (self.0.clone(), home.clone());
                blocking("boot", zone, move || {
                    let spec = &own.configuration.spec;
                    // Remains of an earlier boot are removed first.
                    inner.end(&own)?;
                    let groups = &inner.groups;
                    groups
                        .make_zone(spec.name.as_str(), &with_sandbox(&own.limits.lock()))
                        .map_err(|error| format!("control groups: {error}"))?;
                    let log = fs::File::create(own.directory.join("init.log"))
                        .map_err(|error| error.to_string())?;
                    let done = std::process::Command::new("/proc/self/exe")
                        .arg("init")
                        .arg("--zone")
                        .arg(&own.directory)
                        .args(descriptors::before().map(|most| format!("--descriptors={most}")))
                        .current_dir("/")
                        .env_clear()
                        .stdin(std::process::Stdio::null())
                        .stdout(std::process::Stdio::null())
                        .stderr(log)
                        .status()
                        .map_err(|error| format!("reddwarf init: {error}"))?;
                    let complaint =
                        || fs::read_to_string(own.directory.join("init.log")).unwrap_or_default();
                    if !done.success() {
                        return Err(format!(
                            "its supervisor did not start: {}",
                            complaint().trim()
                        ));
                    }
                    let pid = own
                        .noted(BORN)
                        .ok_or_else(|| format!("its supervisor ended: {}", complaint().trim()))?;
                    inner.network.connect(spec, pid)?;
                    // From now on the zone counts as complete: one without a network would be created anew.
                    fs::rename(own.directory.join(BORN), own.directory.join(PID))
                        .map_err(|error| format!("{}: {error}", own.directory.display()))
                })
                .await?;
            }
            if home.link.hello(HELLO).await {
                return Ok(());
            }
            let complaint = fs::read_to_string(home.directory.join("init.log")).unwrap_or_default();
            Err(failed(format!(
                "its supervisor does not say hello: {}",
                complaint.trim()
            )))
        }
        .boxed()
    }

    fn halt<'a>(&'a self, home: &'a Arc<Home>) -> Answer<'a, ()> {
        async move {
            let (inner, own) = (self.0.clone(), home.clone());
            blocking("halt", &home.configuration.spec.name, move || {
                inner.end(&own)?;
                inner.network.disconnect(&own.configuration.spec)?;
                let name = own.configuration.spec.name.as_str();
                // The kernel releases a group a moment after its last process ended.
                let mut last = Ok(());
                for _ in 0..200 {
                    last = inner.groups.remove_zone(name);
                    match &last {
                        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        _ => break,
                    }
                }
                last.map_err(|error| format!("control groups: {error}"))?;
                let _ = fs::remove_file(own.directory.join(PID));
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, home: &'a Arc<Home>) -> Answer<'a, ()> {
        async move {
            let zone = &home.configuration.spec.name;
            if home.pid().is_some() {
                return Err(ZoneError::State {
                    operation: "delete",
                    what: format!("zone {zone}"),
                    state: "running; halt it first".into(),
                });
            }
            let directory = home.directory.clone();
            blocking("delete", zone, move || {
                remove_record(&directory).map_err(|error| error.to_string())
            })
            .await
        }
        .boxed()
    }

    fn admit<'a>(&'a self, home: &'a Home, process: &'a ProcessSpec) -> Answer<'a, ProcessSpec> {
        async move {
            let zone = &home.configuration.spec.name;
            let outwards = |mount: &Mount| mount.propagation == Propagation::Bidirectional;
            if process.mounts.iter().any(outwards) {
                return Err(ZoneError::Refused {
                    operation: "start",
                    what: format!("process {} of zone {zone}", process.id),
                    reason: "mounts that reach the host (mountPropagation: Bidirectional) are not offered".into(),
                });
            }
            let (groups, name) = (self.0.groups.clone(), group_of(&process.id));
            let (own, limits) = (zone.clone(), process.limits.clone());
            let privileged = process.rights.privileged;
            blocking("start a process in", zone, move || {
                groups
                    .make(own.as_str(), &name, &limits, privileged)
                    .map_err(|error| format!("control groups: {error}"))
            })
            .await?;
            Ok(process.clone())
        }
        .boxed()
    }

    fn forgotten<'a>(&'a self, home: &'a Home, process: &'a ProcessId) -> Answer<'a, ()> {
        async move {
            let zone = &home.configuration.spec.name;
            let (groups, own, name) = (self.0.groups.clone(), zone.clone(), group_of(process));
            blocking("forget a process of", zone, move || {
                // A group that is still busy is removed with the zone.
                let _ = groups.remove(own.as_str(), &name);
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn limit<'a>(&'a self, home: &'a Home, change: &'a Change) -> Answer<'a, ()> {
        async move {
            let zone = &home.configuration.spec.name;
            let groups = &self.0.groups;
            match &change.of {
                Of::Process(process, _) => {
                    let group = format!("{zone}/{}", group_of(process));
                    let (groups, limits) = (groups.clone(), change.limits.clone());
                    let what = || format!("process {process} of zone {zone}");
                    // The kernel reclaims memory during this call.
                    crate::blocking::blocking(move || groups.limit(&group, &limits))
                        .await
                        .map_err(|error| ZoneError::failed("limit", what(), error))
                }
                Of::Zone => {
                    let _step = home.steps.lock().await;
                    let failed = |error: io::Error| {
                        ZoneError::failed("limit", format!("zone {zone}"), error)
                    };
                    let mut ended = home.link.processes();
                    ended.retain(|process| process.ended.is_some());
                    let (own, limits) = (groups.clone(), with_sandbox(&change.limits));
                    let name = zone.to_string();
                    let limited = crate::blocking::blocking(move || {
                        // For the kernel, groups of ended processes still count as populated.
                        for process in &ended {
                            let _ = own.remove(&name, &group_of(&process.id));
                        }
                        own.limit(&name, &limits)
                    });
                    limited.await.map_err(failed)?;
                    // Stored for the next boot and for reports, after it has taken effect, so that it is never reported
                    // early.
                    let limits = change.limits.or(&home.limits.lock());
                    let mut configuration = home.configuration.clone();
                    configuration.spec.limits = limits.clone();
                    let text =
                        serde_json::to_vec(&configuration).map_err(|error| failed(error.into()))?;
                    let record = home.directory.join(ZONE);
                    let written =
                        crate::blocking::blocking(move || write_whole(&record, &text)).await;
                    written.map_err(failed)?;
                    *home.limits.lock() = limits;
                    Ok(())
                }
            }
        }
        .boxed()
    }

    fn usage<'a>(&'a self, home: &'a Home) -> Answer<'a, ZoneUsage> {
        async move {
            let groups = self.0.groups.clone();
            let zone = &home.configuration.spec.name;
            let (name, pid) = (zone.clone(), home.pid());
            let mut running = home.link.processes();
            running.retain(|process| process.ended.is_none());
            // A dozen files for each process, which the kernel makes when they are read.
            blocking("measure", zone, move || {
                let usage = |process: Process| {
                    let group = format!("{name}/{}", group_of(&process.id));
                    (process.id, groups.usage(&group))
                };
                Ok(ZoneUsage {
                    at: Timestamp::now(),
                    total: groups.usage(name.as_str()),
                    processes: running.into_iter().map(usage).collect(),
                    network: pid.map_or((0, 0), traffic),
                })
            })
            .await
        }
        .boxed()
    }
}

/// Bytes received and sent by `eth0` in the network namespace of a process.
fn traffic(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines()
        .find_map(|line| {
            let numbers = line.trim().strip_prefix("eth0:")?;
            let numbers: Vec<u64> = numbers
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect();
            Some((*numbers.first()?, *numbers.get(8)?))
        })
        .unwrap_or((0, 0))
}
