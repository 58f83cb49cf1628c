#!/usr/bin/env python3
"""Sends and receives Ethernet frames with forged senders. Runs in a network namespace with a link eth0.

  hack/forge.py hear FILE             creates FILE once it listens; prints the kinds of frames received, up to the honest one
  hack/forge.py forge MAC IP GATEWAY  sends one frame of each kind to that neighbour, the honest one last
"""
import pathlib, re, socket, struct, subprocess, sys

ALL, LINK = 0x0003, "eth0"


def packed(mac):
    return bytes.fromhex(mac.replace(":", ""))


def own():
    mac = subprocess.run(["ip", "-o", "link", "show", LINK], capture_output=True, text=True).stdout
    address = subprocess.run(["ip", "-4", "-o", "addr", "show", LINK], capture_output=True, text=True).stdout
    return re.search(r"link/ether (\S+)", mac)[1], re.search(r"inet ([0-9.]+)", address)[1]


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source, target, tag):
    data = struct.pack("!HHHH", 53, 53, 8 + len(tag), 0) + tag
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


def arp(mac, source, target, tag):
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2, packed(mac), socket.inet_aton(source), bytes(6), socket.inet_aton(target)) + tag


def router(tag):
    """A router advertisement, ICMPv6 type 134."""
    source, target = socket.inet_pton(socket.AF_INET6, "fe80::bad"), socket.inet_pton(socket.AF_INET6, "ff02::1")
    # Inside the packet, because bridges cut off anything after its end.
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + tag
    pseudo = source + target + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), 58, 255, source, target) + body


def forge(victim, ip, gateway):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.bind((LINK, 0))
    mac, address = own()
    send = lambda target, source, kind, data: link.send(packed(target) + packed(source) + struct.pack("!H", kind) + data)
    send(victim, mac, 0x0806, arp(mac, gateway, ip, b"[gateway]"))
    send(victim, "02:5d:00:00:00:09", 0x0806, arp("02:5d:00:00:00:09", address, ip, b"[hardware]"))
    send(victim, mac, 0x0800, ipv4(gateway, ip, b"[names]"))
    send(victim, mac, 0x0800, ipv4("127.0.0.2", ip, b"[loopback]"))
    send(victim, "02:5d:00:00:00:09", 0x0800, ipv4(address, ip, b"[link]"))
    send("33:33:00:00:00:01", mac, 0x86DD, router(b"[router]"))
    send(victim, mac, 0x0800, ipv4(address, ip, b"[honest]"))


def hear(ready):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    link.bind((LINK, ALL))
    link.settimeout(30)
    pathlib.Path(ready).touch()
    heard = []
    while "honest" not in heard:
        frame, origin = link.recvfrom(2048)
        # Ignores outgoing frames: answers quote the frame they answer.
        if origin[2] != socket.PACKET_OUTGOING:
            heard += [tag.decode() for tag in re.findall(rb"\[(\w+)\]", frame[-16:])]
    print(" ".join(heard))


if __name__ == "__main__":
    {"hear": hear, "forge": forge}[sys.argv[1]](*sys.argv[2:])
