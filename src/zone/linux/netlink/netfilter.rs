//! Netfilter's messages (linux/netfilter/nfnetlink.h).

use std::io;

use rustix::net::netlink;

use super::{AF_INET, NLA_F_NESTED, NLM_F_ACK, Socket, attribute, put};

/// The length of netfilter's header before the attributes.
const HEAD: usize = 4;
/// Messages about rules: `NFNL_SUBSYS_NFTABLES << 8`.
const NFTABLES: u16 = 10 << 8;
const NFT_MSG_NEWGEN: u16 = NFTABLES | 15;
const NFT_MSG_GETGEN: u16 = NFTABLES | 16;
const NFTA_GEN_ID: u16 = 1;
const NFT_MSG_NEWSETELEM: u16 = NFTABLES | 12;
const NFT_MSG_GETSETELEM: u16 = NFTABLES | 13;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;

/// A netfilter socket.
pub(in super::super) struct Netfilter(Socket);

impl Netfilter {
    /// A socket in the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel has no netfilter, or no descriptor is left.
    pub(in super::super) fn open() -> io::Result<Netfilter> {
        Socket::open(Some(netlink::NETFILTER)).map(Netfilter)
    }

    /// Sends a message about IPv4, and reads the response until its end, as message types and attributes.
    ///
    /// # Errors
    /// The kernel's error.
    pub(in super::super) fn ask(
        &self,
        kind: u16,
        flags: u16,
        attributes: &[u8],
        mut tell: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let body = [&[AF_INET, 0, 0, 0], attributes].concat();
        self.0.ask(kind, flags, &body, |kind, told| {
            tell(kind, told.get(HEAD..).unwrap_or_default());
        })
    }

    /// The generation of the ruleset: each change of any table increments it.
    ///
    /// # Errors
    /// The kernel has no nftables, or rejects the request.
    pub(in super::super) fn generation(&self) -> io::Result<u32> {
        let mut found = None;
        self.ask(NFT_MSG_GETGEN, NLM_F_ACK, &[], |kind, told| {
            if kind == NFT_MSG_NEWGEN {
                let number = attribute(told, NFTA_GEN_ID);
                found = number.and_then(|number| Some(u32::from_be_bytes(number.try_into().ok()?)));
            }
        })?;
        found.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The value for a key in a map of an IPv4 table, both in the kernel's format; None if the key does not exist.
    /// nft(8) would read all tables first.
    ///
    /// # Errors
    /// The kernel rejects the request.
    pub(in super::super) fn element(
        &self,
        table: &str,
        map: &str,
        key: &[u8],
    ) -> io::Result<Option<Vec<u8>>> {
        let mut found = None;
        let question = element_question(table, map, key);
        let asked = self.ask(NFT_MSG_GETSETELEM, NLM_F_ACK, &question, |kind, told| {
            if kind == NFT_MSG_NEWSETELEM {
                found = element_data(told).map(<[u8]>::to_vec);
            }
        });
        match asked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            asked => asked.map(|()| found),
        }
    }
}

fn element_question(table: &str, map: &str, key: &[u8]) -> Vec<u8> {
    let nested = |kind: u16, content: &[u8]| {
        let mut attribute = Vec::new();
        put(&mut attribute, kind | NLA_F_NESTED, content);
        attribute
    };
    let text = |kind: u16, text: &str| {
        let mut attribute = Vec::new();
        put(&mut attribute, kind, &[text.as_bytes(), &[0]].concat());
        attribute
    };
    let mut value = Vec::new();
    put(&mut value, NFTA_DATA_VALUE, key);
    let element = nested(NFTA_LIST_ELEM, &nested(NFTA_SET_ELEM_KEY, &value));
    [
        text(NFTA_SET_ELEM_LIST_TABLE, table),
        text(NFTA_SET_ELEM_LIST_SET, map),
        nested(NFTA_SET_ELEM_LIST_ELEMENTS, &element),
    ]
    .concat()
}

fn element_data(told: &[u8]) -> Option<&[u8]> {
    let element = attribute(
        attribute(told, NFTA_SET_ELEM_LIST_ELEMENTS)?,
        NFTA_LIST_ELEM,
    )?;
    attribute(attribute(element, NFTA_SET_ELEM_DATA)?, NFTA_DATA_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_asked_for_and_read() {
        let asked = element_question("b", "tcp_ports", &[0, 80]);
        let element = attribute(&asked, NFTA_SET_ELEM_LIST_ELEMENTS).expect("a list");
        let key = attribute(element, NFTA_LIST_ELEM).expect("one");
        let key = attribute(key, NFTA_SET_ELEM_KEY).expect("a key");
        assert_eq!(attribute(key, NFTA_DATA_VALUE), Some(&[0, 80][..]));
        assert_eq!(
            attribute(&asked, NFTA_SET_ELEM_LIST_TABLE),
            Some(&b"b\0"[..])
        );
        assert_eq!(element_data(&asked), None, "a key alone");
        let mut value = Vec::new();
        put(&mut value, NFTA_DATA_VALUE, &[1, 2, 3, 4]);
        let mut told = Vec::new();
        put(&mut told, NFTA_SET_ELEM_DATA, &value);
        for kind in [NFTA_LIST_ELEM, NFTA_SET_ELEM_LIST_ELEMENTS] {
            let inner = std::mem::take(&mut told);
            put(&mut told, kind, &inner);
        }
        assert_eq!(element_data(&told), Some(&[1, 2, 3, 4][..]));
    }
}
