//! Zones with a real process as init: the program at `/sbin/init` of the zone's root, in its own namespaces, with the
//! zone's root as its root and its mounts as bind mounts. The network is the host's. Linux, as root.
//!
//! A shell outside waits for the end of init: then an lx zone boots again, as its kernel would do, or halts if init
//! turned it off.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::run::{Run, Step, Stop};
use super::zoneadm::Configured;

/// The script that runs in the new namespaces before init: `$0` is the root, then the host name, then three words for
/// each mount.
const ENTER: &str = r#"set -e
root=$0; hostname "$1"; shift
for d in proc dev native var/ld; do mkdir -p "$root/$d"; done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ $# -gt 0 ]; do
  mount --rbind "$1" "$root$2"
  if [ "$3" = ro ]; then mount -o remount,ro,bind "$root$2"; fi
  shift 3
done
enter=$(command -v chroot)
exec env -i container=zone "$enter" "$root" /sbin/init <&- >&-"#;

/// A shell's exit status after SIGINT.
const OFF: i32 = 128 + 2;

/// The start time of a process: together with its id it identifies the process for good. None if it has ended.
fn started(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

/// Whether a process has a directory as its root.
fn inhabited(root: &Path) -> bool {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| fs::read_link(entry.path().join("root")).is_ok_and(|to| to == root))
}

/// Starts the init of a zone.
pub fn start(run: &mut Run, zone: &Configured) -> Step {
    let root = run.disk().real(&zone.root());
    let console = run.machine.own().join(format!("console.{}", zone.name));
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(console)?;
    // Without a separate program nobody reboots it. If init powers its namespace off, its parent sees it killed by
    // SIGINT (reboot(2)).
    let again = match run.machine.program() {
        Some(program) => format!(
            "[ $? = {OFF} ] && what=zone-off || what=zone-reboot; exec '{}' --root '{}' ctl $what '{}'",
            program.display(),
            run.disk().root().display(),
            zone.name
        ),
        None => String::new(),
    };
    let script = format!(
        "unshare --mount --pid --uts --ipc --propagation private --fork --kill-child sh -c \"$ENTER\" \"$@\"\n{again}"
    );
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &script, "zone"])
        .arg(&root)
        .arg(&zone.name);
    for mount in zone.mounts.iter().filter(|m| m.kind == "lofs") {
        let read_only = mount.options.iter().any(|o| o == "ro");
        command
            .arg(run.disk().real(&mount.special))
            .arg(&mount.directory)
            .arg(if read_only { "ro" } else { "rw" });
    }
    let mut child = command
        .env("ENTER", ENTER)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let pid = child.id();
    let init = started(pid).map(|time| (pid, time));
    std::thread::spawn(move || child.wait());
    if let Some(z) = run.host().zones.get_mut(&zone.name) {
        z.init = init;
    }
    Ok(())
}

/// The init of a zone with this root directory, by its process id on the host.
fn init_of(root: &Path) -> Option<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut inits = processes.filter(|entry| {
        let first = |status: String| {
            let ids = status.lines().find(|line| line.starts_with("NSpid:"));
            ids.is_some_and(|ids| ids.split_whitespace().count() > 2 && ids.ends_with("\t1"))
        };
        fs::read_link(entry.path().join("root")).is_ok_and(|to| to == root)
            && fs::read_to_string(entry.path().join("status")).is_ok_and(first)
    });
    inits.next()?.file_name().into_string().ok()
}

/// Runs zoneadmd's shutdown command in a zone; returns whether it succeeded.
pub fn shut_down(run: &mut Run, zone: &Configured) -> Step<bool> {
    let root = run.disk().real(&zone.root());
    run.away(|_| {
        let Some(init) = init_of(&root) else {
            return Ok(false);
        };
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &init, "--mount", "--pid", "--uts", "--ipc"]);
        enter.args(["--root", "--wd", "/bin/sh", "-c", "exec /sbin/init 0"]);
        let ended = enter.env_clear().stdin(Stdio::null()).status();
        Ok(ended?.success())
    })?
}

/// Kills every process of a zone, and waits until none is left.
pub fn end(run: &mut Run, zone: &str) -> Step {
    let Some(z) = run.host().zones.get_mut(zone) else {
        return Ok(());
    };
    let root = format!("{}/root", z.path);
    let Some((pid, time)) = z.init.take() else {
        return Ok(());
    };
    // The caller may be the shell that waited for init, which must not kill itself.
    let own = rustix::process::getpid().as_raw_nonzero().get() as u32;
    if own != pid
        && started(pid) == Some(time)
        && let Some(group) = rustix::process::Pid::from_raw(pid as i32)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let real = run.disk().real(&root);
    run.away(|_| {
        for _ in 0..2500 {
            if !inhabited(&real) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(4));
        }
        Err(Stop::Broken(format!("processes in {root} do not end")))
    })?
}
