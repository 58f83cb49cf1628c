//! The root of every zone: our supervisor, the files that the brand's boot expects, and empty directories. It has no
//! user data.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Brand;

/// The mount points in an lx zone's root for the brand and for us. They must be real directories: links are rejected as
/// mount points (vplat.c `valid_mount_point`).
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

/// zoneadm(8) shuts a zone down by `/bin/sh -c "exec /sbin/init 0"` in it (`zone_graceful_shutdown`). There is no
/// shell: our program understands exactly that.
const LX_LINKS: &[(&str, &str)] = &[("bin/sh", "../sbin/init")];

/// Files that make `lx_boot` choose a distribution whose script changes nothing that matters (`lx_boot_zone_busybox`). At
/// each boot it writes a script that brings up a network into the global zone's `/tmp` and moves it over
/// `etc/init.d/networking`: without such a file it would leave it where it is.
const LX_FILES: &[(&str, &str)] = &[
    ("etc/alpine-release", "3.18.0\n"),
    ("etc/init.d/networking", ""),
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

/// The mount points in a reddwarf zone's root: those in `platform.xml`, and ours.
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

/// `/bin`, whose shell is the host's here.
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
    // The address daemon of illumos-gate asks what a user may (`ipadm_check_auth`); OmniOS' lets root pass.
    ("etc/user_attr", "root::::auths=solaris.*,solaris.grant\n"),
];

/// The content of a sandbox besides the supervisor.
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

/// The name of a sandbox: it differs for each supervisor and layout.
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

/// Fills the root of a sandbox. In lx zones the supervisor is `/sbin/init`, which the brand executes; in reddwarf zones
/// it is the brand's own init under `/usr/lib/brand`.
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
