//! Names and hardware addresses of links.

use std::net::Ipv4Addr;

/// The name of the link with this number: `rd0x`, then `p` and an instance number, as dladm(8) takes VNIC names
/// (letters, digits, `_` and `.`; a letter first; ends in a digit, its number without leading zeros; at most 31) and
/// Linux takes interfaces (at most 15). Numbers below 2^32 give names of their own.
pub fn link_name(number: u32) -> String {
    // Digits may not stand before the instance number, so the number is written in letters and ends in `n0`.
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

/// The hardware address that belongs to an address: locally administered, and as different as the addresses.
pub fn mac_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:5d:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
