//! The root of every zone: our supervisor, what the brand's boot wants to find, and empty directories. Nothing of users.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Brand;

/// Directories of an lx zone's root that mounts of the brand and of ours need, real ones: links are refused as mount
/// points (vplat.c `valid_mount_point`).
const LX_DIRECTORIES: &[&str] = &[
    "bin",
    "dev",
    "etc",
    "etc/init.d",
    "etc/svc",
    "native",
    "proc",
    "rd/ctl",
    "rd/ro",
    "rd/rw",
    "rd/v",
    "run",
    "sbin",
    "sys",
    "tmp",
    "var/ld",
    "var/run",
    "rd/root",
];

/// zoneadm(8) shuts a zone down by `/bin/sh -c "exec /sbin/init 0"` in it (`zone_graceful_shutdown`). There is no shell: our
/// program understands that, and nothing else.
const LX_LINKS: &[(&str, &str)] = &[("bin/sh", "../sbin/init")];

/// Files that let `lx_boot` see a distribution whose script finds nothing to change (`lx_boot_zone_busybox`).
const LX_FILES: &[(&str, &str)] = &[
    ("etc/alpine-release", "3.18.0\n"),
    ("etc/inittab", "# Modified by lx brand\n"),
    (
        "etc/fstab",
        "swapfs    /dev/shm    tmpfs    defaults    0 0\n",
    ),
    ("etc/hosts", "127.0.0.1\tlocalhost\n"),
    ("etc/resolv.conf", ""),
    ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/mnttab", ""),
];

/// Directories of a reddwarf zone's root: those that `platform.xml` mounts at, and ours.
const REDDWARF_DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "etc/ipadm",
    "etc/svc/volatile",
    "lib",
    "opt",
    "proc",
    "rd/ctl",
    "rd/ro",
    "rd/rw",
    "rd/v",
    "rd/d",
    "root",
    "sbin",
    "system/contract",
    "system/object",
    "tmp",
    "usr",
    "var/run",
    "rd/root",
];

/// The same shell, which is the host's here.
const REDDWARF_LINKS: &[(&str, &str)] = &[("bin", "usr/bin")];

const REDDWARF_FILES: &[(&str, &str)] = &[
    ("etc/mnttab", ""),
    ("etc/netconfig", ""),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nipnodes: files dns\n",
    ),
    ("etc/passwd", "root:x:0:0:Super-User:/root:/sbin/sh\n"),
    ("etc/group", "root::0:\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n"),
    ("etc/resolv.conf", ""),
];

/// What is in a sandbox beside the supervisor.
struct Content {
    directories: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    links: &'static [(&'static str, &'static str)],
}

fn of(brand: Brand) -> Content {
    match brand {
        Brand::Lx => Content {
            directories: LX_DIRECTORIES,
            files: LX_FILES,
            links: LX_LINKS,
        },
        Brand::Reddwarf => Content {
            directories: REDDWARF_DIRECTORIES,
            files: REDDWARF_FILES,
            links: REDDWARF_LINKS,
        },
    }
}

/// The name of a sandbox: another one for another supervisor or another layout.
pub fn name(brand: Brand, supervisor: &[u8]) -> String {
    let content = of(brand);
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for directory in content.directories {
        context.update(directory.as_bytes());
    }
    for (path, text) in content.files.iter().chain(content.links) {
        context.update(path.as_bytes());
        context.update(text.as_bytes());
    }
    context.update(supervisor);
    let digest = context.finish();
    let hex: String = digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sandbox-{}-{hex}", brand.name())
}

/// Fills the root of a sandbox. In lx zones the supervisor is `/sbin/init`, which the brand executes by that name; in
/// reddwarf zones it is the brand's own, under `/usr/lib/brand`.
///
/// # Errors
/// A file cannot be written.
pub fn write(root: &Path, brand: Brand, supervisor: &[u8]) -> io::Result<()> {
    let content = of(brand);
    for directory in content.directories {
        let path = root.join(directory);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    for (path, text) in content.files {
        fs::write(root.join(path), text)?;
    }
    for (path, target) in content.links {
        std::os::unix::fs::symlink(target, root.join(path))?;
    }
    if brand == Brand::Lx {
        let init = root.join("sbin/init");
        fs::write(&init, supervisor)?;
        fs::set_permissions(init, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
