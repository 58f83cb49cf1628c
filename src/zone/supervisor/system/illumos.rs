//! illumos, in a reddwarf zone: the supervisor runs with the host's own libraries. Processes are grouped by
//! contract(5), one for each of our children: their descendants are in the same contract.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::Pid;

use super::super::Configuration;
use super::super::container::{Failure, Stage, at};
use super::super::roots::{Mounts, Options};
use super::Sight;
use crate::illumos::{HostTools, Tools as _, parse};
use crate::zone::illumos::native::{self, Interface, NATIVE, Surroundings};
use crate::zone::{Identity, Rights, ZoneNetwork};

/// What every root in a zone gets from the zone.
pub(in super::super) const AROUND: &Surroundings = &NATIVE;
/// The mount table, and its column separator (mnttab(5)).
pub(in super::super) const TABLE: (&str, u8) = ("/etc/mnttab", b'\t');
/// The file with the process id of the zone's init, for the process that asks it to shut down.
const SUPERVISOR: &str = "/var/run/reddwarf.pid";
/// The directory of notes about running tools; it disappears with the zone.
const NOTES: &str = "/var/run/reddwarf";

/// The maximum length of mount options, which are passed in and out as text (`MAX_MNTOPT_STR`, sys/mntent.h).
const OPTIONS: usize = 1024;
/// Mount options are text (sys/mount.h).
const MS_OPTIONSTR: c_int = 0x100;
/// All processes of a contract (sys/procset.h).
const P_CTID: c_int = 13;
/// The fatal event of our contracts: an uncorrectable hardware error; nothing else kills all members
/// (sys/contract/process.h).
const CT_PR_EV_HWERR: c_uint = 0x20;
/// Only the common part of a status is read (sys/contract.h).
const CTD_COMMON: c_int = 0;

// libcontract(3LIB), mount(2), umount2(2), sigsend(2): each declared as in its manual page.
#[link(name = "contract")]
unsafe extern "C" {
    fn ct_tmpl_set_critical(fd: c_int, events: c_uint) -> c_int;
    fn ct_tmpl_set_informative(fd: c_int, events: c_uint) -> c_int;
    fn ct_pr_tmpl_set_fatal(fd: c_int, events: c_uint) -> c_int;
    fn ct_tmpl_activate(fd: c_int) -> c_int;
    fn ct_status_read(fd: c_int, detail: c_int, status: *mut *mut c_void) -> c_int;
    fn ct_status_get_id(status: *mut c_void) -> c_int;
    fn ct_status_free(status: *mut c_void);
    fn ct_ctl_abandon(fd: c_int) -> c_int;
}
unsafe extern "C" {
    fn mount(special: *const c_char, directory: *const c_char, flags: c_int, ...) -> c_int;
    fn umount2(file: *const c_char, flags: c_int) -> c_int;
    fn sigsend(kind: c_int, id: c_int, signal: c_int) -> c_int;
}

/// The result of a libcontract function: 0, or an error number.
fn contracted(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The result of a system call: 0, or -1 with `errno` set.
fn called(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// The contract of a child. Dropping it abandons it: nobody waits for its events.
pub(in super::super) struct Cell(c_int);

impl Cell {
    /// Kills the child and its descendants.
    pub(in super::super) fn kill(&self) {
        // SAFETY: plain numbers. A contract without members is not a relevant error.
        let _ = unsafe { sigsend(P_CTID, self.0, 9) };
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let path = format!("/system/contract/process/{}/ctl", self.0);
        if let Ok(control) = OpenOptions::new().write(true).open(path) {
            // SAFETY: the descriptor is open for as long as `control` lives.
            let _ = unsafe { ct_ctl_abandon(control.as_raw_fd()) };
        }
    }
}

/// Makes children of this thread start in contracts of their own. Templates are per thread.
fn template() -> io::Result<File> {
    let template = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/system/contract/process/template")?;
    let fd = template.as_raw_fd();
    // SAFETY: the descriptor is that of a process template, and open for as long as `template` lives.
    unsafe {
        contracted(ct_tmpl_set_critical(fd, 0))?;
        contracted(ct_tmpl_set_informative(fd, 0))?;
        contracted(ct_pr_tmpl_set_fatal(fd, CT_PR_EV_HWERR))?;
        contracted(ct_tmpl_activate(fd))?;
    }
    Ok(template)
}

/// The contract that this thread created last.
fn latest() -> io::Result<Cell> {
    let latest = File::open("/system/contract/process/latest")?;
    let mut status = std::ptr::null_mut();
    // SAFETY: the descriptor is open, `status` is written before it is read, and freed once.
    unsafe {
        contracted(ct_status_read(latest.as_raw_fd(), CTD_COMMON, &mut status))?;
        let id = ct_status_get_id(status);
        ct_status_free(status);
        Ok(Cell(id))
    }
}

/// Starts a child in its own contract.
pub(in super::super) fn spawn(mut command: Command, _: Sight) -> io::Result<(u32, Cell)> {
    // The template ends with the thread.
    let spawned = std::thread::spawn(move || -> io::Result<(u32, Cell)> {
        let _template = template()?;
        let pid = command.spawn()?.id();
        Ok((pid, latest()?))
    });
    spawned
        .join()
        .map_err(|_| io::Error::other("a thread broke"))?
}

/// The program of this process, by path: a replaced one cannot be found in any other way.
pub(in super::super) fn program() -> io::Result<PathBuf> {
    Ok(native::INIT.into())
}

/// The path of an open descriptor.
pub(in super::super) fn path_of(fd: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/path/{}", fd.as_raw_fd()))
}

/// The root of a process.
pub(in super::super) fn root_of(pid: Pid) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{}/path/root", pid.as_raw_nonzero()))
}

/// Switches to a user. Its privileges are those of illumos: there are no capabilities.
pub(in super::super) fn assume(
    _: &Rights,
    Identity { uid, gid, groups }: &Identity,
) -> Result<(), Failure> {
    let count = at("take the groups", c_int::try_from(groups.len()))?;
    // SAFETY: `groups` has `count` elements of the required type; the others are plain numbers.
    unsafe {
        at(
            "take the groups",
            called(libc::setgroups(count, groups.as_ptr())),
        )?;
        at("take the group", called(libc::setgid(*gid)))?;
        at("take the user", called(libc::setuid(*uid)))
    }
}

/// This does not exist here: roots are mounted without set-user-id programs instead.
pub(in super::super) fn gain_no_more() -> Result<(), Failure> {
    Err("illumos has no no_new_privs".into())
}

/// This does not exist here, and zones with a filter are rejected.
pub(in super::super) fn confine(_: &Rights) -> Result<(), Failure> {
    Err("illumos has no filters of system calls".into())
}

/// A terminal: its master and its slave.
pub(in super::super) fn terminal(_: &Stage) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut master, mut slave) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both are places for a number; no name, modes and size are wanted.
    called(unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            none,
            std::ptr::null(),
            std::ptr::null(),
        )
    })?;
    // SAFETY: both were opened by this call, and nobody else knows them.
    let pair = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    for fd in [&pair.0, &pair.1] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(pair)
}

/// The mount operations of this system.
pub(in super::super) struct Kernel;

impl Kernel {
    /// Those of the running system.
    pub(in super::super) fn here() -> Self {
        Kernel
    }
}

fn mounted(source: &Path, target: &Path, kind: &str, options: &str) -> io::Result<()> {
    let (source, target, kind) = (text(source)?, text(target)?, CString::new(kind)?);
    let mut buffer = [0u8; OPTIONS];
    let place = buffer.get_mut(..options.len());
    let place = place.filter(|place| place.len() < OPTIONS);
    place
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(options.as_bytes());
    // SAFETY: all texts end with a zero and live during the call; the option buffer has the given length, and is only
    // written within it. There are no other data, as the null pointer and the 0 say.
    called(unsafe {
        mount(
            source.as_ptr(),
            target.as_ptr(),
            MS_OPTIONSTR,
            kind.as_ptr(),
            std::ptr::null::<c_char>(),
            0 as c_int,
            buffer.as_mut_ptr().cast::<c_char>(),
            OPTIONS as c_int,
        )
    })
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}

impl Mounts for Kernel {
    fn mount(
        &self,
        source: &Path,
        target: &Path,
        kind: &str,
        options: Options,
    ) -> Result<(), Errno> {
        let words = [
            (options.read_only, "ro"),
            (options.no_set_user_id, "nosetuid"),
        ];
        let words = words.iter().filter(|(wanted, _)| *wanted);
        let words: Vec<&str> = words.map(|(_, word)| *word).collect();
        mounted(source, target, kind, &words.join(",")).map_err(errno)
    }

    fn show(&self, source: &Path, target: &Path, options: Options) -> Result<(), Errno> {
        self.mount(source, target, "lofs", options)
    }
}

/// Unmounts what is mounted at a path.
pub(in super::super) fn unmount(path: &Path) -> Result<(), Errno> {
    let path = text(path).map_err(errno)?;
    // SAFETY: the text ends with a zero and lives during the call.
    called(unsafe { umount2(path.as_ptr(), 0) }).map_err(errno)
}

/// Mounts a tmpfs that everybody can write to, with this size limit in bytes.
pub(in super::super) fn tmpfs(path: &Path, size: Option<u64>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path)?;
    let options = size.map_or(String::new(), |size| format!("size={size}"));
    mounted(Path::new("swap"), path, "tmpfs", &options)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1777))
}

/// Sets the zone's host name.
pub(in super::super) fn name_host(name: &str) -> io::Result<()> {
    let length = c_int::try_from(name.len()).map_err(io::Error::other)?;
    // SAFETY: the text has the given length, and is only read.
    called(unsafe { libc::sethostname(name.as_ptr().cast(), length) })
}

/// The init of the zone, for a process that is started as `init 0`: the brand's shutdown hook does that in the zone.
pub(in super::super) fn supervisor(words: &[String]) -> Option<Pid> {
    (words == ["0"]).then_some(())?;
    let text = std::fs::read_to_string(SUPERVISOR).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Ends the zone: its brand does not restart init, so it halts with this process.
pub(in super::super) fn end_zone() -> io::Result<()> {
    std::process::exit(0)
}

/// What has to be done before supervising a zone: without SMF nobody else does it.
pub(in super::super) fn bring_up(configuration: &Configuration) -> io::Result<()> {
    std::fs::write(SUPERVISOR, std::process::id().to_string())?;
    let (name, value) = native::IPMGMTD_ENVIRONMENT;
    let daemon = Command::new(native::IPMGMTD)
        .env_clear()
        .env(name, value)
        .status()?;
    if !daemon.success() {
        let text = format!("{} ended with {daemon}", native::IPMGMTD);
        return Err(io::Error::other(text));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(furnish(configuration))
}

/// Adds the zone's addresses and mounts its datasets.
async fn furnish(configuration: &Configuration) -> io::Result<()> {
    let tools = HostTools::new(None, Path::new(NOTES))?;
    let spec = &configuration.spec;
    let interface = match &spec.network {
        ZoneNetwork::Own {
            address: std::net::IpAddr::V4(address),
            prefix,
            gateway: std::net::IpAddr::V4(gateway),
            link,
            ..
        } => Interface {
            link: link.clone(),
            address: *address,
            prefix: *prefix,
            gateway: *gateway,
        },
        other => {
            return Err(io::Error::other(format!(
                "a network that zones have not: {other:?}"
            )));
        }
    };
    let addresses = tools.run(&native::show_addresses()).await;
    let addresses = addresses.map_err(io::Error::other)?.stdout;
    let route = tools.run(&native::show_route()).await;
    let routed = route.is_ok_and(|output| parse::default_link(&output.stdout).is_some());
    for command in native::network(&interface, &addresses, routed) {
        match tools.run(&command).await {
            Err(failure) if !failure.exists() => return Err(io::Error::other(failure)),
            _ => {}
        }
    }
    let mounted = native::mount_datasets(&tools, &spec.datasets).await;
    mounted.map_err(io::Error::other)
}

/// Ends an init that cannot continue: the zone halts with it, and its messages are on the zone's console.
pub(in super::super) fn give_up() -> ExitCode {
    ExitCode::FAILURE
}

/// Sends messages to the zone's console, because an init is started without any stream.
pub(in super::super) fn open_console() {
    if let Ok(console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
}
