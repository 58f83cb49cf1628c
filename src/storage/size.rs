//! Disk usage of trees, safe against concurrent changes.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

/// Maximum number of nested directories open at once.
const OPEN: usize = 128;
/// Maximum number of deeper directories remembered for later.
const DEEPER: usize = 256;

/// A directory that is being read.
struct Level {
    name: CString,
    entries: Dir,
}

fn directory<F: std::os::fd::AsFd>(
    at: F,
    name: impl rustix::path::Arg,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn taken(found: &Stat) -> u64 {
    found.st_blocks as u64 * 512
}

/// The bytes that the files of a tree use on disk. The tree may be under a pod's control: it is read through open
/// directories, entry by entry, so that neither many nor deep entries use much memory, and moved directories or links
/// do not lead outside.
pub(crate) fn tree_size(path: &Path) -> u64 {
    let Ok(found) = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else {
        return 0;
    };
    let mut total = taken(&found);
    // Paths below the tree, as lists of components.
    let mut left: Vec<Vec<CString>> = vec![Vec::new()];
    while let Some(parts) = left.pop() {
        let opened = parts.iter().try_fold(directory(CWD, path), |at, part| {
            Some(directory(at.ok()?, part.as_c_str()))
        });
        if let Some(Ok(top)) = opened {
            total += below(top, &parts, &mut left);
        }
    }
    total
}

/// The usage below a directory; paths of directories that are too deep are added to `left`.
fn below(top: OwnedFd, parts: &[CString], left: &mut Vec<Vec<CString>>) -> u64 {
    let level = |name: CString, fd: OwnedFd| {
        let entries = Dir::new(fd).ok()?;
        Some(Level { name, entries })
    };
    let mut total = 0;
    let mut open: Vec<Level> = level(CString::default(), top).into_iter().collect();
    let mut depth = open.len();
    while let Some(here) = open.last_mut() {
        let Some(Ok(entry)) = here.entries.next() else {
            open.pop();
            depth -= 1;
            continue;
        };
        let name = entry.file_name();
        let Ok(at) = here.entries.fd() else { continue };
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(found) = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        total += taken(&found);
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            continue;
        }
        if depth < OPEN {
            let next = directory(at, name).ok();
            if let Some(next) = next.and_then(|fd| level(name.to_owned(), fd)) {
                open.push(next);
                depth += 1;
            }
        } else if left.len() < DEEPER {
            let name = name.to_owned();
            let between = open.iter().skip(1).map(|level| level.name.clone());
            let whole = parts.iter().cloned().chain(between).chain([name]);
            left.push(whole.collect());
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn all_of_a_tree_is_measured_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let outside = directory.path().join("outside");
        fs::write(&outside, vec![1; 4 << 20]).expect("written");
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).expect("made");
        let empty = tree_size(&tree);
        fs::write(tree.join("file"), vec![1; 1 << 20]).expect("written");
        std::os::unix::fs::symlink(&outside, tree.join("link")).expect("made");
        std::os::unix::fs::symlink(directory.path(), tree.join("above")).expect("made");
        let whole = tree_size(&tree) - empty;
        assert!((1 << 20..2 << 20).contains(&whole), "{whole}");
        assert_eq!(tree_size(&directory.path().join("none")), 0);
        assert!(tree_size(&outside) >= 4 << 20);
    }

    #[test]
    fn nothing_hides_in_the_depth() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut at = directory.path().to_owned();
        for _ in 0..3 * OPEN {
            at.push("d");
        }
        fs::create_dir_all(&at).expect("made");
        let empty = tree_size(directory.path());
        fs::write(at.join("file"), vec![1; 1 << 20]).expect("written");
        fs::write(directory.path().join("file"), vec![1; 1 << 20]).expect("written");
        let more = tree_size(directory.path()) - empty;
        assert!((2 << 20..3 << 20).contains(&more), "{more}");
    }
}
