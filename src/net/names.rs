//! Names and MAC addresses of links.

use std::net::Ipv4Addr;

/// The name of the link with this number: `rd0x`, letters, then `n0`, a valid VNIC name for dladm(8)
/// (letters, digits, `_` and `.`; begins with a letter; ends in a number without leading zeros; at most 31 characters)
/// and interface name for Linux (at most 15). Numbers below 2^32 give distinct names.
pub fn link_name(number: u32) -> String {
    // No digits are allowed before the final number, so the number is written in letters, followed by `n0`.
    let mut letters = String::new();
    let mut rest = number;
    loop {
        letters.insert(0, (b'a' + (rest % 26) as u8) as char);
        rest /= 26;
        if rest == 0 {
            break;
        }
    }
    format!("rd{letters}n0")
}

/// The MAC address for an IP address: locally administered, and distinct for distinct addresses.
pub fn mac_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:5d:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
