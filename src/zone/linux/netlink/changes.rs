//! Notifications about addresses and routes (linux/rtnetlink.h).

use std::io;
use std::os::unix::net;

use futures::stream::{BoxStream, StreamExt as _};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

/// Changes of IPv4 addresses, and of IPv4 routes.
const GROUPS: u32 = 0x10 | 0x40;

/// An item for each time that addresses or routes of this network namespace changed since the last one; several changes may
/// be one item. The stream ends if the kernel cannot tell of them. Must be called within a runtime.
pub fn address_changes() -> BoxStream<'static, ()> {
    match open() {
        Ok(socket) => futures::stream::unfold(socket, |socket| async move {
            let told = next(&socket).await;
            told.ok().map(|()| ((), socket))
        })
        .boxed(),
        Err(error) => {
            tracing::debug!(%error, "the kernel does not tell of changed addresses");
            futures::stream::empty().boxed()
        }
    }
}

fn open() -> io::Result<UnixDatagram> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    // Nothing is done with it but waiting and recv(2), which are the same for sockets of all families.
    UnixDatagram::from_std(net::UnixDatagram::from(socket))
}

/// Waits for a notification, and takes all that there are.
async fn next(socket: &UnixDatagram) -> io::Result<()> {
    // Which ones they are does not matter: the host is looked at.
    let mut buffer = [0; 1024];
    let mut is_told = false;
    while !is_told {
        socket.readable().await?;
        loop {
            match socket.try_recv(&mut buffer) {
                Ok(_) => is_told = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // More was to be told than fits into the socket's buffer.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    is_told = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
