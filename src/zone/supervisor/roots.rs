//! A container in an illumos zone: it only has its own root. The zone around it is the sandbox.
//!
//! lx has no namespaces and no control groups, and special rules for mounts (lx_mount.c): a bind mount is a lofs mount,
//! which includes submounts by itself and takes its options at once; most flags are rejected; and nothing can be
//! mounted on a mount point, or on a directory that somebody holds open. Mounts belong to the zone, so they must be
//! removed explicitly when a container ends. Linux programs can only be executed if their root has `/native`.
//!
//! Everything is mounted below a view of the container's root, a directory for each generation in [`ROOTS`]: the
//! container of a process is recognized by its root.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::container::{Failure, Stage, at};
use super::system::{self, AROUND, Kernel, TABLE};
use crate::storage::beneath::{self, ensure};
use crate::zone::illumos::native::Surroundings;
use crate::zone::{Mount, ProcessId, Root};

/// The directory of the views of containers' roots.
pub const ROOTS: &str = "/rd/root";

/// The view of a container's root.
pub fn view(id: &ProcessId) -> PathBuf {
    Path::new(ROOTS).join(super::group_of(id))
}

/// Mount options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Read-only.
    pub(super) read_only: bool,
    /// No set-user-id programs.
    pub(super) no_set_user_id: bool,
}

/// The mount operations of the system that a zone runs on.
pub(super) trait Mounts {
    /// Mounts a file system.
    fn mount(
        &self,
        source: &Path,
        target: &Path,
        kind: &str,
        options: Options,
    ) -> Result<(), Errno>;
    /// Bind-mounts a directory or file, with submounts.
    fn show(&self, source: &Path, target: &Path, options: Options) -> Result<(), Errno>;
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = beneath::LOOK | OFlags::CLOEXEC;
    at(
        path.display(),
        rustix::fs::openat(CWD, path, flags, Mode::empty()),
    )
}

/// Builds the root of a container and changes to it.
pub(super) fn build(stage: &Stage) -> Result<(), Failure> {
    clear(&stage.scratch)?;
    at(stage.scratch.display(), fs::create_dir_all(&stage.scratch))?;
    assemble(&Kernel::here(), AROUND, stage)?;
    enter(&stage.scratch)
}

/// Joins a running container.
pub(super) fn enter(view: &Path) -> Result<(), Failure> {
    at("enter the root", rustix::process::chroot(view))?;
    at("enter the root", rustix::process::chdir("/"))
}

/// Adds to a root what it needs from the zone and lacks; rejects one with forbidden files.
fn complete(own: &Path, around: &Surroundings) -> Result<(), Failure> {
    let root = open(own)?;
    if let Some(file) = around
        .foreign
        .iter()
        .find(|file| beneath::open_in(&root, Path::new(file)).is_ok())
    {
        return Err(format!(
            "the image brings {file}: programs of zones of this brand are linked with the host's own libraries, so it must be made for illumos and without them"
        ));
    }
    for file in around.given.iter().map(Path::new) {
        if beneath::open_in(&root, file).is_err() {
            let text = at(file.display(), fs::read(file))?;
            let made = beneath::make_file(own, file, 0o644).and_then(|()| {
                let file = beneath::open_as(&root, file, OFlags::WRONLY)?;
                io::Write::write_all(&mut fs::File::from(file), &text)
            });
            at(file.display(), made)?;
        }
    }
    Ok(())
}

/// Mounts everything that a container sees below its view.
pub(super) fn assemble(
    mounts: &impl Mounts,
    around: &Surroundings,
    stage: &Stage,
) -> Result<(), Failure> {
    let Root::Directory(own) = &stage.spec.root else {
        return Err("layers of overlayfs are not known here".into());
    };
    let rights = &stage.spec.rights;
    complete(own, around)?;
    if rights.read_only_root {
        // Mount points must exist before.
        let root = open(own)?;
        for path in around.shown {
            at(path, ensure(&root, Path::new(path), true))?;
        }
        for one in around.mounted {
            at(one.at, ensure(&root, Path::new(one.at), one.directory))?;
        }
        for one in &stage.spec.mounts {
            let directory = at(one.source.display(), source(one).map(|(_, kind)| kind))?;
            at(one.target.display(), ensure(&root, &one.target, directory))?;
        }
    }
    // Instead of `no_new_privs`, which does not exist here, set-user-id is disabled for programs in the root.
    let options = Options {
        read_only: rights.read_only_root,
        no_set_user_id: rights.no_new_privileges,
    };
    at("show the root", mounts.show(own, &stage.scratch, options))?;
    let root = open(&stage.scratch)?;
    let target = |path: &Path, directory: bool| {
        let found = at(path.display(), ensure(&root, path, directory))?;
        // It must not be held open: nothing can be mounted on an open directory.
        at(path.display(), system::path_of(&found))
    };
    for path in around.shown.iter().map(Path::new) {
        let target = target(path, true)?;
        let options = match path.ends_with("dev") {
            true => Options::default(),
            false => Options {
                read_only: true,
                ..options
            },
        };
        at(path.display(), mounts.show(path, &target, options))?;
    }
    for one in around.mounted {
        let target = target(Path::new(one.at), one.directory)?;
        let options = Options {
            read_only: one.read_only,
            ..Options::default()
        };
        let mounted = mounts.mount(Path::new(one.source), &target, one.kind, options);
        at(one.at, mounted)?;
    }
    for one in &stage.spec.mounts {
        let (from, directory) = at(one.source.display(), source(one))?;
        let target = target(&one.target, directory)?;
        let options = Options {
            read_only: one.read_only,
            ..Options::default()
        };
        at(one.target.display(), mounts.show(&from, &target, options))?;
    }
    Ok(())
}

/// The source of a mount, and whether it is a directory.
fn source(of: &Mount) -> io::Result<(PathBuf, bool)> {
    let (part, is_directory) = beneath::part(&of.source, of.inside.as_deref())?;
    Ok((system::path_of(&part)?, is_directory))
}

/// The mounts at or below a path, the latest first: for each what its mount point may be.
fn mounted(below: &Path) -> io::Result<Vec<Vec<PathBuf>>> {
    let (table, between) = TABLE;
    Ok(targets(&fs::read(table)?, between, below))
}

/// What follows the mount point in a line of Linux's table: type, options and two numbers.
const AFTER: usize = 4;

/// The mount points in a table, of those at or below a path, the latest first. Linux separates columns by blanks and
/// writes others as `\040`, and so does lx, but leaves all as they are (`lxpr_read_mounts`): then a mount point begins
/// anywhere where the path stands, and what looks like a number in octal may be none.
fn targets(table: &[u8], between: u8, below: &Path) -> Vec<Vec<PathBuf>> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
    let below = below.as_os_str().as_bytes();
    let is_at_or_below = |field: &[u8]| {
        let rest = field.strip_prefix(below);
        rest.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'/'))
    };
    let candidates = |line: &[u8]| -> Vec<PathBuf> {
        if between != b' ' {
            let field = line.split(|byte| *byte == between).nth(1);
            return field
                .filter(|field| is_at_or_below(field))
                .map(path)
                .into_iter()
                .collect();
        }
        let mut columns = line.rsplitn(AFTER + 1, |byte| *byte == between);
        let Some(front) = columns.nth(AFTER) else {
            return Vec::new();
        };
        let starts = (1..front.len()).filter(|at| front[at - 1] == between);
        let fields = starts
            .map(|at| &front[at..])
            .filter(|field| is_at_or_below(field));
        let mut all: Vec<PathBuf> = fields
            .flat_map(|field| [path(&plain(field)), path(field)])
            .collect();
        all.dedup();
        all
    };
    let lines = table.split(|byte| *byte == b'\n');
    let mut all: Vec<_> = lines
        .map(candidates)
        .filter(|paths| !paths.is_empty())
        .collect();
    all.reverse();
    all
}

/// A field of the mount table: spaces and the like are written as `\040`.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                text.push(byte);
                rest = &after[3..];
            }
            None => {
                text.push(*first);
                rest = after;
            }
        }
    }
    text
}

/// Removes a view with all mounts in it. Nothing of the container runs any more.
///
/// # Errors
/// Something in it is busy.
pub(super) fn clear(view: &Path) -> Result<(), Failure> {
    empty(|| at(TABLE.0, mounted(view)), system::unmount)?;
    match fs::remove_dir(view) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", view.display()))
        }
        _ => Ok(()),
    }
}

/// Unmounts everything that a table has, as long as that takes something away: what one line may mean can be another's
/// mount point.
fn empty(
    table: impl Fn() -> Result<Vec<Vec<PathBuf>>, Failure>,
    unmount: impl Fn(&Path) -> Result<(), Errno>,
) -> Result<(), Failure> {
    loop {
        let (mut gone, mut failure) = (false, None);
        for paths in table()? {
            let mut last = None;
            let is_gone = paths.iter().any(|path| match unmount(path) {
                Ok(()) => true,
                Err(error) => {
                    last.get_or_insert((path.clone(), error));
                    false
                }
            });
            gone |= is_gone;
            if !is_gone {
                failure = failure.or(last);
            }
        }
        match failure {
            None => return Ok(()),
            Some((path, error)) if !gone => return at(path.display(), Err(error)),
            Some(_) => {}
        }
    }
}

/// Sends a signal to every process whose root is a view, or in it; returns whether there was one.
pub(super) fn signal(view: &Path, signal: Signal) -> bool {
    let mut any = false;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // A zombie has no root.
        if system::root_of(pid).is_ok_and(|root| root.starts_with(view)) {
            any |= rustix::process::kill_process(pid, signal).is_ok();
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::zone::illumos::native::{LX, NATIVE};
    use crate::zone::supervisor::Walls;
    use crate::zone::{Propagation, tests::process};

    /// Records mounts, in order, below the view.
    struct Noted {
        view: PathBuf,
        all: RefCell<Vec<String>>,
    }

    impl Noted {
        fn note(&self, what: &str, source: &Path, target: &Path, options: Options) {
            let target = target.strip_prefix(&self.view).expect("in the view");
            let read = if options.read_only { " ro" } else { "" };
            let no_set = if options.no_set_user_id {
                " nosetuid"
            } else {
                ""
            };
            let (source, target) = (source.display(), target.display());
            let line = format!("{what} {source} /{target}{read}{no_set}");
            self.all.borrow_mut().push(line);
        }
    }

    impl Mounts for Noted {
        fn mount(
            &self,
            source: &Path,
            target: &Path,
            kind: &str,
            options: Options,
        ) -> Result<(), Errno> {
            self.note(kind, source, target, options);
            Ok(())
        }
        fn show(&self, source: &Path, target: &Path, options: Options) -> Result<(), Errno> {
            self.note("lofs", source, target, options);
            Ok(())
        }
    }

    fn built(around: &Surroundings, own: &Path, confined: bool) -> Result<Vec<String>, Failure> {
        let scratch = own.with_file_name("view");
        fs::create_dir_all(&scratch).expect("made");
        let volume = own.with_file_name("volume");
        fs::create_dir_all(&volume).expect("made");
        let mut spec = process("web", 0, "");
        spec.root = Root::Directory(own.to_owned());
        spec.rights.read_only_root = confined;
        spec.rights.no_new_privileges = confined;
        spec.mounts = vec![Mount {
            source: volume.clone(),
            below: Vec::new(),
            inside: Some("part".into()),
            target: "/data".into(),
            read_only: true,
            recursive_read_only: false,
            propagation: Propagation::Private,
        }];
        let stage = Stage {
            walls: Walls::Roots,
            spec,
            groups: Vec::new(),
            tty: false,
            join: None,
            scratch: scratch.clone(),
            shm: PathBuf::new(),
        };
        let noted = Noted {
            view: scratch,
            all: RefCell::default(),
        };
        assemble(&noted, around, &stage)?;
        let above = own.parent().expect("one").display().to_string();
        let all = noted.all.into_inner();
        Ok(all.iter().map(|line| line.replace(&above, "")).collect())
    }

    #[test]
    fn a_root_gets_what_its_zone_has() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().canonicalize().expect("there");
        let own = directory.join("own");
        fs::create_dir_all(own.join("etc")).expect("made");
        let lx = built(&LX, &own, true).expect("built");
        assert_eq!(
            lx,
            [
                "lofs /own / ro nosetuid",
                "lofs /native /native ro nosetuid",
                "lofs /var/ld /var/ld ro nosetuid",
                "lofs /dev /dev",
                "proc proc /proc",
                "sysfs sysfs /sys ro",
                "lofs /volume/part /data ro",
            ]
        );
        // Files of this host stand for the zone's.
        let native = Surroundings {
            given: &["/etc/passwd"],
            ..NATIVE
        };
        fs::create_dir_all(own.join("opt")).expect("made");
        let made = built(&native, &own, false).expect("built");
        assert_eq!(
            made,
            [
                "lofs /own /",
                "lofs /lib /lib ro",
                "lofs /usr /usr ro",
                "lofs /sbin /sbin ro",
                "lofs /dev /dev",
                "proc proc /proc",
                "ctfs ctfs /system/contract",
                "objfs objfs /system/object",
                "mntfs mnttab /etc/mnttab",
                "tmpfs swap /var/run",
                "lofs /volume/part /data ro",
            ]
        );
        let given = fs::read(own.join("etc/passwd")).expect("given");
        assert_eq!(given, fs::read("/etc/passwd").expect("read"));
        fs::write(own.join("etc/passwd"), "own").expect("written");
        built(&native, &own, false).expect("built");
        assert_eq!(fs::read(own.join("etc/passwd")).expect("read"), b"own");
        // A link is resolved inside the root, and never leads out of it.
        fs::create_dir_all(own.join("usr/lib")).expect("made");
        std::os::unix::fs::symlink("/usr/lib", own.join("lib")).expect("made");
        fs::write(own.join("usr/lib/libc.so.1"), "").expect("written");
        let error = built(&native, &own, false).expect_err("refused");
        assert!(error.contains("the image brings /lib/libc.so.1"), "{error}");
    }

    #[test]
    fn what_is_mounted_below_is_found_in_each_table() {
        let below = Path::new("/rd/root/web-0");
        let found = |table: &str, between: u8| -> Vec<Vec<String>> {
            let found = targets(table.as_bytes(), between, below);
            let shown = |path: PathBuf| path.display().to_string();
            found
                .into_iter()
                .map(|paths| paths.into_iter().map(shown).collect())
                .collect()
        };
        let linux = "a /rd/root/web-0 x rw 0 0\nb /rd/root/web-00 x rw 0 0\nc /rd/root/web-0/a\\040b x rw 0 0\n";
        assert_eq!(
            found(linux, b' '),
            [
                vec!["/rd/root/web-0/a b", "/rd/root/web-0/a\\040b"],
                vec!["/rd/root/web-0"]
            ]
        );
        let illumos = "a\t/rd/root/web-0\tlofs\tro\t1\nc\t/rd/root/web-0/a b\tlofs\tro\t1\n";
        assert_eq!(
            found(illumos, b'\t'),
            [["/rd/root/web-0/a b"], ["/rd/root/web-0"]]
        );
        // lx escapes nothing, neither what is mounted nor where.
        let lx = "/rd/v/0 /rd/root/web-0/data files lofs rw,nodevices 0 0\n\
            /rd/v/0/my part /rd/root/web-0/b lofs ro 0 0\n\
            /rd/v/0/x /rd/root/web-0/y /rd/root/web-0/c lofs ro 0 0\n\
            swap /rd/root/web-00/a b tmpfs rw 0 0\n\n";
        assert_eq!(
            found(lx, b' '),
            [
                vec!["/rd/root/web-0/y /rd/root/web-0/c", "/rd/root/web-0/c"],
                vec!["/rd/root/web-0/b"],
                vec!["/rd/root/web-0/data files"],
            ]
        );
    }

    #[test]
    fn all_is_unmounted_whatever_a_line_may_mean() {
        let paths = |words: &[&str]| -> Vec<PathBuf> { words.iter().map(PathBuf::from).collect() };
        // The second line means `/v/b`, but its first meaning is where the first one is mounted.
        let mounts = RefCell::new(paths(&["/v/b /v/a", "/v/b"]));
        let unmount = |path: &Path| {
            let mut mounts = mounts.borrow_mut();
            let before = mounts.len();
            mounts.retain(|mount| mount != path);
            match mounts.len() < before {
                true => Ok(()),
                false => Err(Errno::INVAL),
            }
        };
        let meanings = |path: &PathBuf| match path.ends_with("b") {
            true => paths(&["/v/b /v/a", "/v/b"]),
            false => paths(&["/v/b /v/a"]),
        };
        empty(
            || Ok(mounts.borrow().iter().map(meanings).collect()),
            unmount,
        )
        .expect("all gone");
        assert!(mounts.borrow().is_empty());
        let busy = |_: &Path| Err(Errno::BUSY);
        let error = empty(|| Ok(vec![paths(&["/v"])]), busy).expect_err("busy");
        assert!(error.starts_with("/v: "), "{error}");
    }
}
