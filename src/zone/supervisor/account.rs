//! The user that a program runs as, and its privileges.

use std::io::Read as _;
use std::path::Path;

use super::container::Failure;
use super::system;
use crate::storage::beneath;
use crate::zone::{Identity, Rights};

/// The most that is read of an account file, in bytes.
const ACCOUNTS: u64 = 1 << 20;

/// Reads an account file in the current root. An image may have something else under its name, like a FIFO or an
/// endless file.
fn read(path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(file) = beneath::open_plain(Path::new("/"), Path::new(path)) {
        let _ = file.take(ACCOUNTS).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The user that a program runs as.
pub(super) struct Account {
    pub(super) identity: Identity,
    pub(super) home: String,
}

impl Account {
    /// Looks users and groups up in the current root.
    pub(super) fn find(rights: &Rights) -> Result<Self, Failure> {
        Self::among(rights, &read("etc/passwd"), &read("etc/group"))
    }

    fn among(rights: &Rights, passwd: &str, group: &str) -> Result<Self, Failure> {
        let (user, named_group) = match rights.user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (rights.user.as_str(), None),
        };
        let entry = |matches: &dyn Fn(&[&str]) -> bool| {
            passwd
                .lines()
                .map(|line| line.split(':').collect::<Vec<_>>())
                .find(|parts| parts.len() >= 6 && matches(parts))
                .map(|parts| {
                    parts
                        .iter()
                        .map(|part| (*part).to_owned())
                        .collect::<Vec<_>>()
                })
        };
        let (uid, known) = match (rights.uid, user) {
            (Some(uid), _) => (uid, entry(&|parts| parts[2].parse() == Ok(uid))),
            (None, "") => (0, entry(&|parts| parts[2] == "0")),
            (None, user) => match (user.parse::<u32>(), entry(&|parts| parts[0] == user)) {
                (_, Some(known)) => {
                    let uid = known[2]
                        .parse()
                        .map_err(|_| format!("bad uid of user {user}"))?;
                    (uid, Some(known))
                }
                (Ok(uid), None) => (uid, entry(&|parts| parts[2].parse() == Ok(uid))),
                (Err(_), None) => {
                    return Err(format!(
                        "unable to find user {user}: no matching entries in passwd file"
                    ));
                }
            },
        };
        let by_name = |wanted: &str| {
            group
                .lines()
                .map(|line| line.split(':').collect::<Vec<_>>())
                .find(|parts| parts.len() >= 3 && parts[0] == wanted)
                .and_then(|parts| parts[2].parse::<u32>().ok())
        };
        let gid = match (rights.gid, named_group.filter(|_| rights.uid.is_none())) {
            (Some(gid), _) => gid,
            (None, Some(name)) => by_name(name).or_else(|| name.parse().ok()).ok_or_else(|| {
                format!("unable to find group {name}: no matching entries in group file")
            })?,
            (None, None) => known
                .as_ref()
                .and_then(|known| known[3].parse().ok())
                .unwrap_or(0),
        };
        let mut groups = rights.groups.clone();
        if let Some(known) = known.as_ref().filter(|_| !rights.strict_groups) {
            for line in group.lines() {
                let parts: Vec<&str> = line.split(':').collect();
                if parts.len() >= 4
                    && parts[3].split(',').any(|member| member == known[0])
                    && let Ok(gid) = parts[2].parse()
                {
                    groups.push(gid);
                }
            }
        }
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        let home = known.map_or("/".to_owned(), |known| known[5].clone());
        let identity = Identity { uid, gid, groups };
        Ok(Account { identity, home })
    }

    /// Switches to the user and gives up every privilege that it does not have.
    pub(super) fn assume(&self, rights: &Rights) -> Result<(), Failure> {
        system::assume(rights, &self.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_as_images_and_pods_name_them() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44::/var/www:/bin/sh\n";
        let group = "root:x:0:\nstaff:x:50:web,x\nwww:x:44:\n";
        let find = |uid: Option<u32>, gid: Option<u32>, user: &str| {
            let rights = Rights {
                uid,
                gid,
                user: user.into(),
                groups: vec![7],
                ..Rights::default()
            };
            Account::among(&rights, passwd, group).map(|Account { identity, home }| {
                let Identity { uid, gid, groups } = identity;
                (uid, gid, groups, home)
            })
        };
        assert_eq!(find(None, None, ""), Ok((0, 0, vec![0, 7], "/root".into())));
        assert_eq!(
            find(None, None, "web"),
            Ok((33, 44, vec![7, 44, 50], "/var/www".into()))
        );
        assert_eq!(
            find(None, None, "web:staff"),
            Ok((33, 50, vec![7, 50], "/var/www".into()))
        );
        assert_eq!(
            find(None, None, "1000:1001"),
            Ok((1000, 1001, vec![7, 1001], "/".into()))
        );
        assert_eq!(
            find(Some(33), None, "root"),
            Ok((33, 44, vec![7, 44, 50], "/var/www".into()))
        );
        assert_eq!(
            find(Some(9), Some(8), "web:www"),
            Ok((9, 8, vec![7, 8], "/".into()))
        );
        assert!(find(None, None, "nobody").is_err());
    }
}
