//! What the kernel's netfilter is asked by netlink (linux/netfilter/nfnetlink.h): the messages, and the sockets that
//! carry them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// No part of an answer is longer, in bytes.
const PART: usize = 32 << 10;
/// Bytes of a message's head, and of the head of what netfilter is told.
const HEAD: usize = 16 + 4;

const NLM_F_REQUEST: u16 = 0x1;
/// The kernel says when it is done.
pub(super) const NLM_F_ACK: u16 = 0x4;
/// All that there is.
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_INET: u8 = 2;
/// The mark of attributes that hold others.
pub(super) const NLA_F_NESTED: u16 = 0x8000;
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

/// A socket by which netfilter is asked.
pub(super) struct Netfilter(OwnedFd);

impl Netfilter {
    /// One for the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel knows no netfilter, or no descriptor is left.
    pub(super) fn open() -> io::Result<Netfilter> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Netfilter(socket))
    }

    /// Sends a message about IPv4, and reads what is told, by kind and attributes, until the end of it.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn ask(
        &self,
        kind: u16,
        flags: u16,
        attributes: &[u8],
        mut tell: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let message = message(kind, flags, attributes)?;
        sendto(&self.0, &message, SendFlags::empty(), &kernel)?;
        let mut buffer = vec![0; PART];
        loop {
            let (_, length) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut left = &buffer[..length.min(PART)];
            while let Some((kind, body, after)) = next_message(left) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = body.get(..4).and_then(|code| code.try_into().ok());
                        return match code.map(i32::from_ne_bytes) {
                            Some(0) => Ok(()),
                            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                            None => Err(io::ErrorKind::InvalidData.into()),
                        };
                    }
                    _ => tell(kind, body.get(4..).unwrap_or_default()),
                }
                left = after;
            }
        }
    }

    /// The number of the ruleset as it is: each change of any table makes it another.
    ///
    /// # Errors
    /// The kernel has no nftables, or does not tell.
    pub(super) fn generation(&self) -> io::Result<u32> {
        let mut found = None;
        self.ask(NFT_MSG_GETGEN, NLM_F_ACK, &[], |kind, told| {
            if kind == NFT_MSG_NEWGEN {
                let number = attribute(told, NFTA_GEN_ID);
                found = number.and_then(|number| Some(u32::from_be_bytes(number.try_into().ok()?)));
            }
        })?;
        found.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// What a map of a table of IPv4 has for a key, as the kernel keeps both; nothing where it has no such key. nft(8) would
    /// read all tables first.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(super) fn element(
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

fn message(kind: u16, flags: u16, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(HEAD + attributes.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Neither a number nor an address: one question at a time is asked, of the kernel.
    message.extend([0; 8]);
    message.extend([AF_INET, 0, 0, 0]);
    message.extend(attributes);
    Ok(message)
}

/// Parts of messages begin at multiples of four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The kind and the body of the first of some messages, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(16..length)?;
    let after = bytes.get(aligned(length)..).unwrap_or_default();
    Some((kind, body, after))
}

/// The content of an attribute among others.
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let content = bytes.get(4..length)?;
        if kind & !NLA_F_NESTED == wanted {
            return Some(content);
        }
        bytes = bytes.get(aligned(length)..)?;
    }
}

/// Writes an attribute behind others.
pub(super) fn put(attributes: &mut Vec<u8>, kind: u16, content: &[u8]) {
    // What was read as one has such a length.
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    attributes.extend(length.to_ne_bytes());
    attributes.extend(kind.to_ne_bytes());
    attributes.extend(content);
    attributes.resize(aligned(attributes.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_one_after_the_other() {
        let mut attributes = Vec::new();
        put(&mut attributes, 18, &[0, 7]);
        let one = message(NFT_MSG_GETGEN, NLM_F_DUMP, &attributes).expect("a message");
        let two = [&one[..], &one[..]].concat();
        let (kind, body, after) = next_message(&two).expect("one");
        assert_eq!(kind, NFT_MSG_GETGEN);
        assert_eq!(attribute(&body[4..], 18), Some(&[0, 7][..]));
        assert_eq!(after, one);
        assert_eq!(next_message(&one[..one.len() - 1]), None);
        assert_eq!(next_message(&[0; 32]), None);
    }

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
