//! The link of a zone: created, recognized, protected, deleted.

use std::net::Ipv4Addr;

use super::{MTU, dladm};
use crate::illumos::parse::{self, VnicRow};
use crate::illumos::{Command, Tool};

/// Link protection besides allowed addresses: set after each boot, because zoneadmd(8) rejects links that are
/// protected already, and resets everything at each halt.
const PROTECTION: &str = "mac-nospoof,restricted,ip-nospoof,dhcp-nospoof";
/// The minimum bandwidth that dladm(8) accepts, in kbit/s.
const LEAST: u64 = 1200;

/// The desired VNIC of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vnic {
    /// Its name.
    pub link: String,
    /// Its MAC address, two digits per byte.
    pub mac: String,
    /// The link under it.
    pub over: String,
    /// Its VLAN id; 0 means none.
    pub vlan: u16,
    /// Its maximum bandwidth, in bit/s.
    pub bandwidth: Option<u64>,
}

impl Vnic {
    /// Creates it until the next reboot, so that what a crash leaves behind does not stay.
    pub fn create(&self) -> Command {
        let mut words = vec!["create-vnic", "-t", "-l", &self.over, "-m", &self.mac];
        let vlan = self.vlan.to_string();
        if self.vlan != 0 {
            words.extend(["-v", &vlan]);
        }
        let mut properties = format!("mtu={MTU}");
        if let Some(bits) = self.bandwidth {
            properties.push_str(&format!(",maxbw={}K", bits.div_ceil(1000).max(LEAST)));
        }
        words.extend(["-p", &properties, &self.link]);
        Command::new(Tool::Dladm, words)
    }

    /// Whether the existing VNIC of its name matches.
    pub fn is(&self, row: &VnicRow) -> bool {
        row.link == self.link
            && row.over == self.over
            && row.vlan == self.vlan
            && row.mac == parse::mac(&self.mac)
    }

    /// Removes its protection: zoneadmd(8) does not boot a zone with a link that is protected already.
    pub fn unprotect(&self) -> Command {
        dladm([
            "reset-linkprop",
            "-t",
            "-p",
            "protection,allowed-ips",
            &self.link,
        ])
    }

    /// Protects it, once its zone is running.
    pub fn protect(&self) -> Command {
        let protection = format!("protection={PROTECTION}");
        dladm(["set-linkprop", "-t", "-p", &protection, &self.link])
    }

    /// Deletes it.
    pub fn delete(&self) -> Command {
        delete_vnic(&self.link)
    }
}

/// Whether the name and MAC address of a VNIC belong together, as those of zones' links do.
pub fn is_ours(row: &VnicRow) -> bool {
    let bytes: Vec<u8> = row
        .mac
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let &[_, _, a, b, c, d] = &bytes[..] else {
        return false;
    };
    let address = Ipv4Addr::new(a, b, c, d);
    row.mac == super::super::mac_address(address)
        && row.link == super::super::link_name(address.into())
}

/// Deletes a VNIC; one inside a zone is busy.
pub fn delete_vnic(link: &str) -> Command {
    dladm(["delete-vnic", "-t", link])
}

/// Lists all VNICs, for [`parse::vnics`].
pub fn show_vnics() -> Command {
    dladm(["show-vnic", "-p", "-o", "link,over,macaddress,vid"])
}

#[cfg(test)]
mod tests {
    use super::super::nat::{add_rule, redirect};
    use super::*;

    #[test]
    fn a_zones_link_is_made_recognised_and_protected() {
        let vnic = Vnic {
            link: "rdbn0".into(),
            mac: "02:5d:0a:58:00:11".into(),
            over: "aggr0".into(),
            vlan: 42,
            bandwidth: Some(10_000_000),
        };
        assert_eq!(
            vnic.create().to_string(),
            "dladm create-vnic -t -l aggr0 -m 02:5d:0a:58:00:11 -v 42 -p mtu=1500,maxbw=10000K rdbn0"
        );
        let rows = parse::vnics(
            "rdbn0:aggr0:2\\:5d\\:a\\:58\\:0\\:11:42\nrdbn0:aggr0:2\\:5d\\:a\\:58\\:0\\:12:42\n",
        );
        assert_eq!(
            rows.iter().map(|row| vnic.is(row)).collect::<Vec<_>>(),
            [true, false]
        );
        assert_eq!(
            vnic.protect().to_string(),
            "dladm set-linkprop -t -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof rdbn0"
        );
        let to = Ipv4Addr::new(10, 88, 0, 17);
        assert_eq!(
            add_rule(&redirect("e1000g0", None, 30080, to, 80, "TCP")).to_string(),
            "printf '%s\\n' 'rdr e1000g0 0.0.0.0/0 port 30080 -> 10.88.0.17 port 80 tcp' | ipnat -f -"
        );
    }
}
