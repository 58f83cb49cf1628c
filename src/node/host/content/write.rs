//! Writes the files of a volume: all of them change at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

use super::Shown;
use crate::private;

/// The content of a volume: files by path.
pub(in super::super) type Files = BTreeMap<String, Shown>;

/// Checks that a path in a volume does not lead out of it.
pub(super) fn checked(path: &str) -> Result<&str, String> {
    let fine = !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        && !path.starts_with("..");
    match fine {
        true => Ok(path),
        false => Err(format!("invalid path: {path:?}")),
    }
}

/// Replaces the content of a volume, if it differs. `group` may read everything. Other volumes are mounted at the
/// directories `mounts`, which are made and kept.
pub(in super::super) fn write(
    directory: &Path,
    files: &Files,
    mounts: &BTreeSet<String>,
    group: Option<u32>,
) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let data = directory.join("..data");
    if !holds(&data, files) {
        replace(directory, files, group)?;
    }
    // Done even if the content is up to date: its writer may have been killed before this.
    let mut tops: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for top in &tops {
        let shown = directory.join(top);
        if std::fs::symlink_metadata(&shown).is_err() {
            symlink(Path::new("..data").join(top), shown)?;
        }
    }
    for mount in mounts {
        let top = mount.split('/').next().unwrap_or_default();
        // A file of the volume stays what it is; the mount fails then, as it must.
        if !tops.contains(top) {
            std::fs::create_dir_all(directory.join(mount))?;
            tops.insert(top);
        }
    }
    let version = std::fs::read_link(&data)?;
    for entry in std::fs::read_dir(directory)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name == "..data" || Path::new(&*name) == version || tops.contains(&*name) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(path)?,
            false => std::fs::remove_file(path)?,
        }
    }
    Ok(())
}

/// Replaces the visible version.
fn replace(directory: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    let data = directory.join("..data");
    let stamp = Timestamp::now()
        .strftime("..%Y_%m_%d_%H_%M_%S.%f")
        .to_string();
    let version = directory.join(&stamp);
    let _ = std::fs::remove_dir_all(&version);
    if let Err(error) = write_version(&version, files, group) {
        // The old version stays. An incomplete new one would take up space, of which there may be none.
        let _ = std::fs::remove_dir_all(&version);
        return Err(error);
    }
    let link = directory.join("..data_tmp");
    let _ = std::fs::remove_file(&link);
    symlink(&stamp, &link)?;
    std::fs::rename(&link, &data)
}

/// Creates the directory of one version.
fn write_version(version: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir(version)?;
    std::fs::set_permissions(version, std::fs::Permissions::from_mode(0o755))?;
    let give = |path: &Path, owner: Option<u32>| match (owner, group) {
        (None, None) => Ok(()),
        _ => std::os::unix::fs::chown(path, owner, group),
    };
    give(version, None)?;
    for (path, Shown { content, access }) in files {
        let whole = version.join(path);
        if let Some(parent) = whole.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Nobody else may read it before it has its own mode.
        let mut file = private::file().create_new(true).open(&whole)?;
        file.write_all(content)?;
        give(&whole, access.owner)?;
        let shared = if group.is_some() { 0o440 } else { 0 };
        let mode = access.mode | shared;
        std::fs::set_permissions(&whole, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether a version has exactly these files.
fn holds(data: &Path, files: &Files) -> bool {
    if !data.exists() {
        return false;
    }
    let mut count = 0;
    let mut left = vec![data.to_owned()];
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count == files.len()
        && files.iter().all(|(path, shown)| {
            std::fs::read(data.join(path)).is_ok_and(|found| found == shown.content)
        })
}
