//! netlink(7) requests: messages, and sockets that carry them. Each subject has its own module.

mod changes;
mod netfilter;
mod routing;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

pub use self::changes::address_changes;
pub(super) use self::netfilter::Netfilter;
pub(super) use self::routing::Routing;

/// How long the kernel may take to respond.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest part of a response, in bytes.
const PART: usize = 32 << 10;
/// The length of a message header.
const HEAD: usize = 16;

const NLM_F_REQUEST: u16 = 0x1;
/// Requests an acknowledgement.
pub(super) const NLM_F_ACK: u16 = 0x4;
/// Requests all entries.
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_INET: u8 = 2;
/// Marks an attribute that contains attributes.
pub(super) const NLA_F_NESTED: u16 = 0x8000;

/// A netlink socket.
struct Socket(OwnedFd);

impl Socket {
    /// A socket in the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel lacks the protocol, or no descriptor is left.
    fn open(part: Option<Protocol>) -> io::Result<Socket> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            part,
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Socket(socket))
    }

    /// Sends a message, and reads the response until its end, as message types and bodies.
    ///
    /// # Errors
    /// The kernel's error.
    fn ask(
        &self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut tell: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let message = message(kind, flags, body)?;
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
                    _ => tell(kind, body),
                }
                left = after;
            }
        }
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(HEAD + body.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port id are zero, because there is only one request at a time.
    message.extend([0; 8]);
    message.extend(body);
    Ok(message)
}

/// Parts of messages are aligned to four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The type and body of the first message, and the bytes after it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(16..length)?;
    let after = bytes.get(aligned(length)..).unwrap_or_default();
    Some((kind, body, after))
}

/// The content of an attribute.
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

/// Appends an attribute.
pub(super) fn put(attributes: &mut Vec<u8>, kind: u16, content: &[u8]) {
    // Content that was read from an attribute fits.
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
        let one = message(26, NLM_F_DUMP, &attributes).expect("a message");
        let two = [&one[..], &one[..]].concat();
        let (kind, body, after) = next_message(&two).expect("one");
        assert_eq!(kind, 26);
        assert_eq!(attribute(body, 18), Some(&[0, 7][..]));
        assert_eq!(after, one);
        assert_eq!(next_message(&one[..one.len() - 1]), None);
        assert_eq!(next_message(&[0; 32]), None);
    }
}
