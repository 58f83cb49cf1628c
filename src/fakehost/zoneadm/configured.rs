//! A zone's configuration, as used by zoneadm(8) and zoneadmd(8).

use std::collections::BTreeMap;

use crate::fakehost::host::{ZoneLink, ZoneMount};
use crate::fakehost::privileges;
use crate::fakehost::xml::Element;

/// A configured zone.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    /// Its name.
    pub name: String,
    /// Its zonepath.
    pub path: String,
    /// Its brand.
    pub brand: String,
    /// Whether it has an exclusive IP stack.
    pub exclusive: bool,
    /// Whether it boots with the host.
    pub autoboot: bool,
    /// Its privileges.
    pub privileges: String,
    /// The boot arguments of its init.
    pub bootargs: String,
    /// Its links.
    pub links: Vec<Net>,
    /// Its mounts, sorted by directory as zoneadmd does.
    pub mounts: Vec<ZoneMount>,
    /// Its delegated datasets.
    pub datasets: Vec<String>,
    /// Its resource controls, with their limits.
    pub rctls: BTreeMap<String, String>,
}

/// A `net` resource.
#[derive(Debug, Clone)]
pub struct Net {
    /// The link in the running zone.
    pub link: ZoneLink,
    /// The link over which zoneadmd creates it, if it does.
    pub global_nic: Option<String>,
    /// The MAC address that it gets then.
    pub mac: Option<String>,
    /// The VLAN id that it gets then.
    pub vlan: Option<String>,
}

impl Configured {
    /// Parses a document of `/etc/zones`.
    pub fn read(document: &Element) -> Self {
        let text = |element: &Element, name: &str| {
            Some(element.attr_or_empty(name).to_owned()).filter(|v| !v.is_empty())
        };
        let mut mounts: Vec<ZoneMount> = document
            .named("filesystem")
            .map(|fs| ZoneMount {
                directory: fs.attr_or_empty("directory").to_owned(),
                special: fs.attr_or_empty("special").to_owned(),
                kind: fs.attr_or_empty("type").to_owned(),
                options: fs
                    .named("fsoption")
                    .map(|o| o.attr_or_empty("name").to_owned())
                    .collect(),
            })
            .collect();
        mounts.sort_by(|a, b| a.directory.cmp(&b.directory));
        Configured {
            name: document.attr_or_empty("name").to_owned(),
            path: document.attr_or_empty("zonepath").to_owned(),
            brand: document.attr_or_empty("brand").to_owned(),
            exclusive: document.attr_or_empty("ip-type") == "exclusive",
            autoboot: document.attr_or_empty("autoboot") == "true",
            privileges: document.attr_or_empty("limitpriv").to_owned(),
            bootargs: document.attr_or_empty("bootargs").to_owned(),
            links: document
                .named("network")
                .map(|net| Net {
                    link: ZoneLink {
                        name: net.attr_or_empty("physical").to_owned(),
                        allowed: text(net, "allowed-address"),
                        router: text(net, "defrouter"),
                    },
                    global_nic: text(net, "global-nic"),
                    mac: text(net, "mac-addr"),
                    vlan: text(net, "vlan-id"),
                })
                .collect(),
            mounts,
            datasets: document
                .named("dataset")
                .map(|d| d.attr_or_empty("name").to_owned())
                .collect(),
            rctls: document
                .named("rctl")
                .filter_map(|rctl| {
                    let limit = rctl.named("rctl-value").next()?.attr_or_empty("limit");
                    Some((rctl.attr_or_empty("name").to_owned(), limit.to_owned()))
                })
                .collect(),
        }
    }

    /// Checks whether it can have its configured privileges.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check_privileges(&self) -> Result<(), privileges::Wrong> {
        privileges::check(&self.privileges, self.exclusive)
    }

    /// The root of the zone in the global zone.
    pub fn root(&self) -> String {
        format!("{}/root", self.path)
    }
}
