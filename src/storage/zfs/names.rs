//! Dataset names and zfs(8) commands: pure functions, so that plans print what the engine runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::illumos::{Command, Tool};
use crate::storage::{ConfigError, StoragePoolConfig};

/// The property with a dataset's purpose: set on each dataset of ours; datasets without it belong to others.
pub const MARK: &str = "reddwarf:is";
/// The purpose of a volume that is a directory of the host.
pub const VOLUME: &str = "volume";
/// The purpose of a volume whose only child is a zone's own ([`Names::delegated`]).
pub const DELEGATED: &str = "delegated";
/// The snapshot of a complete layer.
pub const READY: &str = "ready";
/// Mountpoints for roots in a home: the maximum number of roots that a pod can have at a time.
pub const SLOTS: usize = 64;
/// The longest name of a dataset including its snapshot (zfs_namecheck.c).
const LONGEST: usize = 255;

/// Whether a text is a dataset name component that needs no quoting anywhere: zoneadm(8) pastes names into a shell.
pub fn plain(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 128
        && part.as_bytes()[0].is_ascii_alphanumeric()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Checks the names of base datasets: legal, and short enough for all names below them.
///
/// # Errors
/// [`ConfigError::Name`], naming the flag.
pub fn check(config: &StoragePoolConfig) -> Result<(), ConfigError> {
    for (flag, value) in [
        ("--storage-pool", &config.pool),
        ("--zones-dataset", &config.zones),
        ("--images-dataset", &config.images),
        ("--volumes-dataset", &config.volumes),
    ] {
        let wrong = |reason| ConfigError::Name {
            flag,
            value: value.clone(),
            reason,
        };
        if !value.split('/').all(plain) {
            return Err(wrong(
                "it is not the name of a dataset such as tank/reddwarf: letters, digits, `_`, `-`, `.`, and `/` between parts",
            ));
        }
        if !value.as_bytes()[0].is_ascii_alphabetic() {
            return Err(wrong("the name of a pool begins with a letter"));
        }
        // `/pods/UID/CONTAINER-GENERATION` is the longest name below.
        if value.len() > LONGEST - 6 - 37 - 76 {
            return Err(wrong(
                "it is too long: names of containers must fit below it",
            ));
        }
    }
    Ok(())
}

/// The names of an engine's datasets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub StoragePoolConfig);

impl Names {
    /// The parent of all homes.
    pub fn homes(&self) -> String {
        format!("{}/pods", self.0.zones)
    }
    /// The home of an owner.
    pub fn home(&self, owner: &str) -> String {
        format!("{}/{owner}", self.homes())
    }
    /// The writable dataset of an owner.
    pub fn data(&self, owner: &str) -> String {
        format!("{}/rw", self.home(owner))
    }
    /// A root named `OWNER/NAME-GENERATION`.
    pub fn root(&self, name: &str) -> String {
        format!("{}/{name}", self.homes())
    }
    /// A layer. Sandboxes have their own names.
    pub fn layer(&self, chain: &str) -> String {
        let part = match chain.starts_with("sandbox-") {
            true => chain.to_owned(),
            false => format!("layer-{}", hex(chain)),
        };
        format!("{}/{part}", self.0.images)
    }
    /// The snapshot of a layer from which roots are cloned.
    pub fn ready(&self, chain: &str) -> String {
        format!("{}@{READY}", self.layer(chain))
    }
    /// A volume.
    pub fn volume(&self, name: &str) -> String {
        format!("{}/{name}", self.0.volumes)
    }
    /// The dataset of a delegated volume that zones get. Root in a zone may change everything of it and below it, its
    /// user properties too; the volume above, with the mark and the limit, is out of its reach.
    pub fn delegated(&self, name: &str) -> String {
        format!("{}/data", self.volume(name))
    }
}

/// A digest without its algorithm: a colon is valid in a dataset's name, but not elsewhere.
pub fn hex(chain: &str) -> &str {
    let digits = chain.rsplit(':').next().unwrap_or(chain);
    digits.get(..40).unwrap_or(digits)
}

/// A zfs(8) command with a timeout of a minute: it may wait for the pool's next transaction group.
pub fn zfs<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Command {
    Command::new(Tool::Zfs, words).within(60)
}

/// Creates a file system with properties and the mark.
pub fn create(dataset: &str, mark: &str, properties: &[(&str, String)]) -> Command {
    let mut words = vec!["create".to_owned()];
    options(&mut words, mark, properties);
    words.push(dataset.to_owned());
    zfs(words)
}

/// Creates a clone with properties and the mark.
pub fn clone(snapshot: &str, dataset: &str, mark: &str, properties: &[(&str, String)]) -> Command {
    let mut words = vec!["clone".to_owned()];
    options(&mut words, mark, properties);
    words.extend([snapshot.to_owned(), dataset.to_owned()]);
    zfs(words)
}

fn options(words: &mut Vec<String>, mark: &str, properties: &[(&str, String)]) {
    words.extend(["-o".to_owned(), format!("{MARK}={mark}")]);
    for (name, value) in properties {
        words.extend(["-o".to_owned(), format!("{name}={value}")]);
    }
}

/// Creates a snapshot.
pub fn snapshot(name: &str) -> Command {
    zfs(["snapshot", name])
}

/// Sets a property.
pub fn set(dataset: &str, name: &str, value: &str) -> Command {
    zfs(["set", &format!("{name}={value}"), dataset])
}

/// Mounts a file system.
pub fn mount(dataset: &str) -> Command {
    zfs(["mount", dataset])
}

/// Destroys a file system, and its descendants if `all`. Never its clones: they may be roots in use.
pub fn destroy(dataset: &str, all: bool) -> Command {
    let mut words = vec!["destroy"];
    words.extend(all.then_some("-r"));
    words.push(dataset);
    zfs(words).within(120)
}

/// Lists a file system, and its children if `below`.
pub fn list(dataset: &str, below: bool) -> Command {
    let mut words = vec!["list", "-Hp", "-t", "filesystem", "-o", COLUMNS];
    if below {
        words.extend(["-r", "-d", "1"]);
    }
    words.push(dataset);
    zfs(words)
}

/// Lists the snapshots of a dataset and of all below with the number of their holds.
pub fn snapshots(dataset: &str) -> Command {
    let words = ["list", "-Hp", "-r", "-t", "snapshot", "-o", "name,userrefs"];
    zfs(words.into_iter().chain([dataset]))
}

/// The snapshots that are held, from the output of [`snapshots`].
pub fn held(listed: &str) -> impl Iterator<Item = &str> {
    let rows = listed.lines().filter_map(|line| line.split_once('\t'));
    rows.filter(|(_, holds)| *holds != "0" && *holds != "-")
        .map(|(name, _)| name)
}

/// Lists the holds on a snapshot.
pub fn holds(snapshot: &str) -> Command {
    zfs(["holds", "-H", snapshot])
}

/// The tags in the output of [`holds`]. A tag is any text, with tabs and newlines.
pub fn tags(snapshot: &str, listed: &str) -> Vec<String> {
    let start = format!("{snapshot}\t");
    let mut records: Vec<String> = Vec::new();
    for line in listed.lines() {
        match (line.strip_prefix(&start), records.last_mut()) {
            (Some(rest), _) => records.push(rest.to_owned()),
            (None, Some(last)) => *last = format!("{last}\n{line}"),
            (None, None) => {}
        }
    }
    let tags = records.iter().filter_map(|record| record.rsplit_once('\t'));
    tags.map(|(tag, _)| tag.to_owned()).collect()
}

/// Releases a hold. A tag may begin with `-`.
pub fn release(tag: &str, snapshot: &str) -> Command {
    zfs(["release", "--", tag, snapshot])
}

/// Lists a dataset, all below it and their snapshots with origins and clones, for [`knot`].
pub fn clones(dataset: &str) -> Command {
    let kinds = "filesystem,volume,snapshot";
    let words = ["list", "-Hp", "-r", "-t", kinds, "-o", "name,origin,clones"];
    zfs(words.into_iter().chain([dataset]))
}

/// A clone that keeps a dataset from being removed with what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knot {
    /// The clone to be promoted.
    pub clone: String,
    /// Snapshots of the clone to be destroyed first, for promotion brings others of their names.
    pub clashes: Vec<String>,
    /// A dataset to be destroyed with all below it before anything else, for a snapshot with such a name is cloned.
    pub leaf: Option<String>,
}

/// Whether a dataset or a snapshot is `above`, or in or of it.
fn is_in(name: &str, above: &str) -> bool {
    let rest = name.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@']))
}

/// One of the datasets `cloned`, or of those made of them, that holds nothing that others are made of, and nothing of
/// `kept`.
fn leaf<'a>(
    rows: &[[Option<&'a str>; 3]],
    cloned: Vec<&'a str>,
    kept: [&str; 2],
) -> Option<&'a str> {
    let mut waiting = cloned;
    let mut known = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if !known.insert(name) || kept.iter().any(|kept| is_in(kept, name)) {
            continue;
        }
        let within = rows
            .iter()
            .filter(|row| row[0].is_some_and(|row| is_in(row, name)));
        let clones = within.flat_map(|row| row[2].unwrap_or_default().split(','));
        let before = waiting.len();
        waiting.extend(clones.filter(|clone| !clone.is_empty() && !is_in(clone, name)));
        if waiting.len() == before {
            return Some(name);
        }
    }
    None
}

/// What to promote before `zfs destroy -r` can remove a dataset and nothing else, from the output of [`clones`]: a clone
/// elsewhere; or one in the dataset that is higher up than what it was made of, for instance a parent that was made a
/// clone of its child. Where none is, everything depends on what is higher up or beside it, so nothing depends on itself
/// ("recursive dependency").
pub fn knot(dataset: &str, listed: &str) -> Option<Knot> {
    let rows: Vec<[Option<&str>; 3]> = listed
        .lines()
        .filter_map(|line| crate::illumos::parse::columns(line).try_into().ok())
        .collect();
    let is_inside = |name: &str| is_in(name, dataset);
    let level = |name: &str| name.matches('/').count();
    // A later snapshot takes the earlier ones along.
    let elsewhere = rows
        .iter()
        .rev()
        .flat_map(|[_, _, clones]| clones.iter().flat_map(|clones| clones.split(',')))
        .find(|clone| !clone.is_empty() && !is_inside(clone));
    if let Some(clone) = elsewhere {
        return Some(Knot {
            clone: clone.to_owned(),
            clashes: Vec::new(),
            leaf: None,
        });
    }
    let (clone, source) = rows.iter().find_map(|[name, origin, _]| {
        let (name, (source, _)) = ((*name)?, origin.and_then(|origin| origin.split_once('@'))?);
        (is_inside(source) && level(source) > level(name)).then_some((name, source))
    })?;
    let snapshots = |of: &str| {
        let of = of.to_owned();
        rows.iter().filter_map(move |[name, _, clones]| {
            let (name, snapshot) = (*name)?.split_once('@')?;
            (name == of).then_some((snapshot, clones.unwrap_or_default()))
        })
    };
    let clashes: Vec<(&str, &str)> = snapshots(clone)
        .filter(|(own, _)| snapshots(source).any(|(of, _)| of == *own))
        .collect();
    let cloned = clashes.iter().flat_map(|(_, clones)| clones.split(','));
    let cloned = cloned.filter(|clone| !clone.is_empty()).collect();
    Some(Knot {
        clone: clone.to_owned(),
        clashes: clashes
            .iter()
            .filter(|(_, clones)| clones.is_empty())
            .map(|(own, _)| format!("{clone}@{own}"))
            .collect(),
        leaf: leaf(&rows, cloned, [clone, source]).map(str::to_owned),
    })
}

/// Prints properties of a dataset, one per column.
pub fn show(dataset: &str, properties: &[&str]) -> Command {
    zfs(["list", "-Hp", "-o", &properties.join(","), dataset])
}

/// The columns of [`list`], in the order that [`Row`] expects.
const COLUMNS: &str =
    "name,mountpoint,mounted,origin,readonly,refquota,reddwarf:is,zoned,quota,canmount";

/// A row of [`list`]: a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its mountpoint if mounted; `None` for `none` and `legacy`.
    pub mountpoint: Option<PathBuf>,
    /// Whether it is mounted.
    pub mounted: bool,
    /// The snapshot from which it was cloned.
    pub origin: Option<String>,
    /// It is read-only.
    pub readonly: bool,
    /// Its `refquota`, in bytes.
    pub refquota: Option<u64>,
    /// Its mark, or the one inherited from an ancestor.
    pub mark: Option<String>,
    /// It is or was delegated to a zone: the global zone does not mount it.
    pub zoned: bool,
    /// Its `quota`, in bytes.
    pub quota: Option<u64>,
    /// It is mounted where its mountpoint says: `canmount` is on.
    pub mounts_itself: bool,
}

/// Parses the output of [`list`].
pub fn rows(text: &str) -> Vec<Row> {
    text.lines()
        .filter_map(|line| {
            let columns = crate::illumos::parse::columns(line);
            let &[
                name,
                mountpoint,
                mounted,
                origin,
                readonly,
                refquota,
                mark,
                zoned,
                quota,
                canmount,
            ] = &columns[..]
            else {
                return None;
            };
            let limit = |bytes: Option<&str>| {
                let bytes = bytes.and_then(|bytes| bytes.parse().ok());
                bytes.filter(|bytes| *bytes > 0)
            };
            Some(Row {
                name: name?.to_owned(),
                mountpoint: mountpoint
                    .filter(|path| path.starts_with('/'))
                    .map(PathBuf::from),
                mounted: mounted == Some("yes"),
                origin: origin.map(str::to_owned),
                readonly: readonly == Some("on"),
                refquota: limit(refquota),
                mark: mark.map(str::to_owned),
                zoned: zoned == Some("on"),
                quota: limit(quota),
                mounts_itself: canmount == Some("on"),
            })
        })
        .collect()
}

/// The commands that create a delegated volume with these limits: the volume, and the dataset in it for zones, which
/// must not inherit its mountpoint (`verify_datasets`).
pub fn make_delegated(names: &Names, name: &str, limits: &[(&str, String)]) -> [Command; 2] {
    let mut properties = limits.to_vec();
    properties.push(("mountpoint", "none".to_owned()));
    [
        create(&names.volume(name), DELEGATED, &properties),
        zfs(["create", "-o", "mountpoint=none", &names.delegated(name)]),
    ]
}

/// The directories of a home mounted at `at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeDirectories {
    /// The home itself: read-only, so that processes in a zone cannot put a link where something will be mounted.
    pub home: PathBuf,
    /// The directory that the owner's processes may write.
    pub data: PathBuf,
}

impl HomeDirectories {
    /// The directories of the home mounted at `at`.
    pub fn of(at: &Path) -> Self {
        HomeDirectories {
            home: at.to_owned(),
            data: at.join("rw"),
        }
    }
    /// The mountpoint of a root.
    pub fn slot(&self, number: usize) -> PathBuf {
        self.home.join("c").join(number.to_string())
    }
}

/// The commands that create the home of `owner`: those before and those after its directories ([`HomeDirectories`]:
/// every slot, and `rw`) are created.
pub fn make_home(names: &Names, owner: &str, quota: Option<u64>) -> ([Command; 1], [Command; 2]) {
    let home = names.home(owner);
    let quota = quota.map(|bytes| ("quota", bytes.to_string()));
    let first = create(&home, "home", quota.as_slice());
    let data = create(&names.data(owner), "data", &[("readonly", "off".into())]);
    ([first], [data, set(&home, "readonly", "on")])
}

/// The command that creates a root with the layer `chain`, mounted at `at`.
pub fn make_root(names: &Names, name: &str, chain: Option<&str>, at: &Path) -> Command {
    let properties = [
        ("readonly", "off".to_owned()),
        ("devices", "off".to_owned()),
        ("mountpoint", at.display().to_string()),
    ];
    match chain {
        Some(chain) => clone(&names.ready(chain), &names.root(name), "root", &properties),
        None => create(&names.root(name), "root", &properties),
    }
}
