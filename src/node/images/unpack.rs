//! Verifies layers while they are read, and unpacks them so that nothing in them can reach outside of their directory.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::storage::beneath::{ensure, open_as, open_in, root, through};
use crate::storage::{LayerDirectory, Whiteouts};

/// Limit for the unpacked size of a layer, in bytes: stops decompression bombs.
const LARGEST: u64 = 64 << 30;
/// Limit for the unpacked size of a layer, in percent of the free space: a full disk must not be what stops a bomb.
const SHARE: u64 = 90;
/// Limit for the number of files in a layer, for the same reason.
const FILES: u64 = 4 << 20;

/// A reader that hashes what it reads.
pub struct Hashing<R> {
    from: R,
    context: Context,
    count: u64,
    most: u64,
}

impl<R: Read> Hashing<R> {
    /// Hashes what is read from `from`.
    pub fn new(from: R) -> Self {
        Self::bounded(from, LARGEST)
    }
    /// The same, with a limit for the number of bytes read.
    fn bounded(from: R, most: u64) -> Self {
        Hashing {
            from,
            context: Context::new(&SHA256),
            count: 0,
            most,
        }
    }
    /// Reads the rest, and returns the digest and the length of everything.
    pub fn finish(mut self) -> io::Result<(String, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((text(self.context.finish().as_ref()), self.count))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.context.update(&buffer[..count]);
        self.count += count as u64;
        if self.count > self.most {
            return Err(too_large(self.most));
        }
        Ok(count)
    }
}

fn text(digest: &[u8]) -> String {
    use std::fmt::Write as _;
    digest.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digest of bytes.
pub fn digest(bytes: &[u8]) -> String {
    text(ring::digest::digest(&SHA256, bytes).as_ref())
}

/// Unpacks a layer, compressed or not. Returns the digests of the compressed and of the uncompressed bytes, and the
/// size of the latter.
///
/// # Errors
/// The layer is invalid, or the file system fails.
pub fn layer<R: Read>(from: R, to: &LayerDirectory) -> io::Result<(String, String, u64)> {
    bounded(from, to, room(&to.path)?)
}

/// How many bytes may be written at once to the disk of a directory.
///
/// # Errors
/// Any error of the system call.
pub fn room(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    let left = disk.f_bavail.saturating_mul(disk.f_frsize);
    Ok((left / 100 * SHARE).min(LARGEST))
}

/// The error for content that exceeds a limit.
pub fn too_large(most: u64) -> io::Error {
    io::Error::other(format!(
        "it is larger than {} MiB, which is the most that there is room for",
        most >> 20
    ))
}

fn bounded<R: Read>(from: R, to: &LayerDirectory, most: u64) -> io::Result<(String, String, u64)> {
    let mut outer = io::BufReader::with_capacity(1 << 16, Hashing::new(from));
    let start = io::BufRead::fill_buf(&mut outer)?;
    let (gzip, zstd) = (start.starts_with(&[0x1f, 0x8b]), super::zstd::begins(start));
    let plain: Box<dyn Read + '_> = match (gzip, zstd) {
        (true, _) => Box::new(flate2::read::MultiGzDecoder::new(&mut outer)),
        (_, true) => Box::new(super::zstd::Frames::new(&mut outer)),
        _ => Box::new(&mut outer),
    };
    let mut inner = Hashing::bounded(plain, most);
    entries(&mut inner, to, most)?;
    let (inner, size) = inner.finish()?;
    io::copy(&mut outer, &mut io::sink())?;
    let (own, _) = outer.into_inner().finish()?;
    Ok((own, inner, size))
}

/// A path in an archive as a relative path that stays inside; None for the root itself.
fn plain(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => whole.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => {
                return Err(io::Error::other(format!(
                    "the entry {path:?} leads out of the image"
                )));
            }
        }
    }
    Ok((!whole.as_os_str().is_empty()).then_some(whole))
}

/// Unpacks entries whose files have at most this many bytes in total: sparse files may be larger than the archive.
fn entries<R: Read>(from: R, to: &LayerDirectory, most: u64) -> io::Result<()> {
    let mut size = 0u64;
    let top = root(&to.path)?;
    let mut archive = tar::Archive::new(from);
    let mut directories: Vec<(PathBuf, i64)> = Vec::new();
    for (count, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if count as u64 >= FILES {
            return Err(io::Error::other(format!("it has more than {FILES} files")));
        }
        let given = entry.path()?.into_owned();
        let Some(path) = plain(&given)? else {
            continue;
        };
        let explain = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", given.display()))
        };
        size = size.saturating_add(entry.size());
        if size > most {
            return Err(explain(too_large(most)));
        }
        one(&top, &path, &mut entry, to.whiteouts, &mut directories).map_err(explain)?;
    }
    // The modification times of directories change when entries are created in them.
    for (path, time) in directories.into_iter().rev() {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Ok(parent) = open_in(&top, parent)
        {
            set_time(&parent, name, time);
        }
    }
    Ok(())
}

fn set_time(parent: &OwnedFd, name: &OsStr, time: i64) {
    let at = Timespec {
        tv_sec: time,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: at,
        last_modification: at,
    };
    let _ = rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW);
}

/// Removes what is at `name`, recursively if it is a directory.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            let path = Path::new(&through(parent)).join(name);
            std::fs::remove_dir_all(path)
        }
        Err(error) => Err(error.into()),
    }
}

fn one<R: Read>(
    top: &OwnedFd,
    path: &Path,
    entry: &mut tar::Entry<'_, R>,
    whiteouts: Whiteouts,
    directories: &mut Vec<(PathBuf, i64)>,
) -> io::Result<()> {
    let header = entry.header().clone();
    let name = path.file_name().unwrap_or_default();
    let parent_path = path.parent().unwrap_or(Path::new(""));
    let parent = ensure(top, parent_path, true)?;
    if let Some(gone) = name.as_bytes().strip_prefix(b".wh.") {
        return whiteout(&parent, OsStr::from_bytes(gone), whiteouts);
    }
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    let kind = header.entry_type();
    let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .map(|found| FileType::from_raw_mode(found.st_mode));
    let keeps = kind.is_dir() && matches!(there, Ok(FileType::Directory));
    if there.is_ok() && !keeps {
        clear(&parent, name)?;
    }
    let number = || -> io::Result<u64> {
        let (major, minor) = (header.device_major()?, header.device_minor()?);
        Ok(rustix::fs::makedev(major.unwrap_or(0), minor.unwrap_or(0)))
    };
    if kind.is_dir() {
        if !keeps {
            rustix::fs::mkdirat(&parent, name, mode)?;
        }
        directories.push((path.to_owned(), header.mtime()? as i64));
    } else if kind.is_symlink() {
        let target = entry
            .link_name()?
            .ok_or_else(|| io::Error::other("a link without target"))?;
        rustix::fs::symlinkat(target.as_ref(), &parent, name)?;
    } else if kind.is_hard_link() {
        let target = entry
            .link_name()?
            .ok_or_else(|| io::Error::other("a link without target"))?;
        let target = plain(&target)?.ok_or_else(|| io::Error::other("a link to the root"))?;
        let from = open_in(top, target.parent().unwrap_or(Path::new("")))?;
        let old = target.file_name().unwrap_or_default();
        rustix::fs::linkat(&from, old, &parent, name, AtFlags::empty())?;
        return Ok(());
    } else if kind.is_character_special() {
        rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, mode, number()?)?;
    } else if kind.is_block_special() {
        rustix::fs::mknodat(&parent, name, FileType::BlockDevice, mode, number()?)?;
    } else if kind.is_fifo() {
        rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0)?;
    } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, mode)?;
        io::copy(entry, &mut std::fs::File::from(file))?;
    } else {
        // Global extended headers and the like are not files.
        return Ok(());
    }
    let (uid, gid) = (header.uid()? as u32, header.gid()? as u32);
    rustix::fs::chownat(
        &parent,
        name,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if !kind.is_symlink() {
        // After the owner, because changing that clears set-id bits. The umask has removed other bits.
        rustix::fs::chmodat(&parent, name, mode, AtFlags::empty())?;
        attributes(&parent, name, entry)?;
    }
    if !kind.is_dir() {
        set_time(&parent, name, header.mtime()? as i64);
    }
    Ok(())
}

/// The extended attributes in images: file capabilities and user attributes.
fn attributes<R: Read>(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(());
    };
    let path = Path::new(&through(parent)).join(name);
    for extension in extensions.flatten() {
        let Some(key) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else {
            continue;
        };
        // Others could pretend to be overlayfs' own marks, or carry labels of another system.
        if key == b"security.capability" || key.starts_with(b"user.") {
            let key = OsStr::from_bytes(key);
            set_attribute(&path, key, extension.value_bytes())?;
        }
    }
    Ok(())
}

/// Sets an extended attribute of a file, if its file system supports them.
#[cfg(target_os = "linux")]
fn set_attribute(path: &Path, key: &OsStr, value: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::lsetxattr(path, key, value, rustix::fs::XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Other systems have different attributes under this name.
#[cfg(not(target_os = "linux"))]
fn set_attribute(_: &Path, _: &OsStr, _: &[u8]) -> rustix::io::Result<()> {
    Ok(())
}

/// Marks a directory as opaque for overlayfs: it hides those of lower layers.
#[cfg(target_os = "linux")]
fn opaque_mark(directory: &OwnedFd) -> rustix::io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(through(directory), "trusted.overlay.opaque", b"y", flags)
}

/// Only Linux has overlayfs.
#[cfg(not(target_os = "linux"))]
fn opaque_mark(_: &OwnedFd) -> rustix::io::Result<()> {
    Err(Errno::NOTSUP)
}

fn whiteout(parent: &OwnedFd, gone: &OsStr, how: Whiteouts) -> io::Result<()> {
    let opaque = gone.as_bytes() == b".wh..opq";
    if !opaque && (gone.is_empty() || gone == "." || gone == "..") {
        return Err(io::Error::other("a whiteout of nothing"));
    }
    match (how, opaque) {
        (Whiteouts::Overlay, true) => Ok(opaque_mark(parent)?),
        (Whiteouts::Overlay, false) => {
            clear(parent, gone)?;
            let kind = FileType::CharacterDevice;
            Ok(rustix::fs::mknodat(parent, gone, kind, Mode::empty(), 0)?)
        }
        (Whiteouts::Apply, true) => {
            let inside = open_as(parent, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
            for entry in std::fs::read_dir(through(&inside))?.flatten() {
                clear(parent, &entry.file_name())?;
            }
            Ok(())
        }
        (Whiteouts::Apply, false) => clear(parent, gone),
    }
}

#[cfg(test)]
mod tests;
