//! Device access of containers. A container may create any device node that its capabilities allow, but may only use
//! the devices on runc's list; a privileged one may use all. So the nodes in images and volumes do not matter.
//!
//! Control groups version 1 have a list for that. On those of version 2 an eBPF program is attached, which the kernel
//! runs at each use.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

/// The character devices that every container may use: major number, and minor number unless all are included.
const USABLE: [(u32, Option<u32>); 9] = [
    (1, Some(3)),    // null
    (1, Some(5)),    // zero
    (1, Some(7)),    // full
    (1, Some(8)),    // random
    (1, Some(9)),    // urandom
    (5, Some(0)),    // tty
    (5, Some(2)),    // ptmx
    (10, Some(200)), // net/tun
    (136, None),     // terminals
];

/// Sets the usual devices in a control group of version 1, which may not use more than its parent.
///
/// # Errors
/// All devices could still be used.
pub(super) fn list(group: &Path) -> io::Result<()> {
    fs::write(group.join("devices.deny"), "a")?;
    for line in lines() {
        match fs::write(group.join("devices.allow"), line) {
            // The agent itself may not use it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

fn lines() -> impl Iterator<Item = String> {
    let usable = USABLE.iter().map(|(major, minor)| {
        let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
        format!("c {major}:{minor} rwm")
    });
    ["c *:* m", "b *:* m"]
        .map(str::to_owned)
        .into_iter()
        .chain(usable)
}

/// An eBPF instruction, in the kernel's layout.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination register in the low half, source register in the high half.
    registers: u8,
    jump: i16,
    value: i32,
}

const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Device types and access modes in `struct bpf_cgroup_dev_ctx`.
const CHARACTER: i32 = 2;
const READ_OR_WRITE: i32 = 2 | 4;

/// The program that returns 1 to allow an access and 0 to deny it.
fn program() -> Vec<Instruction> {
    let does = |code, to: u8, value| Instruction {
        code,
        registers: to,
        jump: 0,
        value,
    };
    let field = |to: u8, offset| Instruction {
        code: LOAD_WORD,
        registers: to | 1 << 4,
        jump: offset,
        value: 0,
    };
    let unless = |is: u8, value, jump| Instruction {
        code: JUMP_UNLESS,
        registers: is,
        jump,
        value,
    };
    let answer = |value| [does(SET, 0, value), does(EXIT, 0, 0)];
    let copied = Instruction {
        code: COPY,
        registers: 3 | 2 << 4,
        jump: 0,
        value: 0,
    };
    let mut usable = Vec::new();
    for (major, minor) in USABLE {
        match minor {
            Some(minor) => usable.extend([unless(4, major as i32, 3), unless(5, minor as i32, 2)]),
            None => usable.push(unless(4, major as i32, 2)),
        }
        usable.extend(answer(1));
    }
    let others = usable.len() as i16;
    // The lower half of the first word is the device type, the upper half the access mode.
    let mut program = vec![
        field(2, 0),
        copied,
        does(AND, 2, 0xffff),
        does(SHIFT_RIGHT, 3, 16),
        does(AND, 3, READ_OR_WRITE),
        field(4, 4),
        field(5, 8),
        unless(3, 0, 2),
    ];
    program.extend(answer(1));
    program.push(unless(2, CHARACTER, others));
    program.extend(usable);
    program.extend(answer(0));
    program
}

/// Constants of bpf(2).
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE_ATTACHMENT: u32 = 6;

/// The arguments of `PROG_LOAD`, as far as they are used.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The arguments of `PROG_ATTACH`.
#[repr(C)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Calls bpf(2).
///
/// # Safety
/// `T` begins as the variant of `union bpf_attr` for this command does, and what it points to is valid for the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    let size = std::mem::size_of::<T>() as libc::c_uint;
    // SAFETY: the kernel reads `size` bytes of `attributes`, assumes zeros after them, and writes nothing there for the
    // commands that are used here; the rest is the caller's promise.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    match done {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done as libc::c_int),
    }
}

/// Loads the program into the kernel.
///
/// # Errors
/// The kernel has no such programs, or this process may not load them.
pub(super) fn load() -> io::Result<OwnedFd> {
    let program = program();
    let license = c"Apache-2.0";
    let load = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: `Load` is laid out as the variant for this command; `program` and `license` outlive the call, `count` is
    // the number of instructions, and the license ends with a zero.
    let loaded = unsafe { bpf(PROG_LOAD, &load)? };
    // SAFETY: the command returned a descriptor that it opened, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(loaded) })
}

/// Attaches the program to a group of version 2; an attached older one of ours is replaced.
///
/// # Errors
/// All devices could still be used.
pub(super) fn attach(program: &OwnedFd, group: &Path) -> io::Result<()> {
    let directory = fs::File::open(group)?;
    let attach = Attach {
        group: directory.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE_ATTACHMENT,
        flags: 0,
    };
    // SAFETY: `Attach` is laid out as the variant for this command and has no pointers; both descriptors are open.
    unsafe { bpf(PROG_ATTACH, &attach) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u32 = 1;
    const MAKE: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    /// Interprets the program as the kernel would.
    fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let Instruction {
                code,
                registers: both,
                jump,
                value,
            } = program[at];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            at += 1;
            match code {
                LOAD_WORD => {
                    assert_eq!(from, 1, "all that is known is where the context is");
                    registers[to] = context[jump as usize / 4].into();
                }
                COPY => registers[to] = registers[from],
                SET => registers[to] = value as u64,
                AND => registers[to] &= value as u64,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_UNLESS if registers[to] != value as u64 => {
                    at = at.checked_add_signed(jump.into()).expect("forwards");
                }
                JUMP_UNLESS => {}
                EXIT => return registers[0],
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn a_container_makes_every_node_and_uses_the_harmless_ones() {
        let program = program();
        let character = CHARACTER as u32;
        for (kind, access, major, minor, allowed) in [
            (character, READ | WRITE, 1, 3, true),
            (character, READ | WRITE | MAKE, 1, 9, true),
            (character, READ, 1, 1, false),
            (character, READ | WRITE, 5, 2, true),
            (character, READ | WRITE, 5, 1, false),
            (character, WRITE, 136, 77, true),
            (character, READ | WRITE, 10, 200, true),
            (character, READ | WRITE, 10, 229, false),
            (character, MAKE, 10, 229, true),
            (BLOCK, MAKE, 8, 0, true),
            (BLOCK, READ, 8, 0, false),
            (BLOCK, WRITE | MAKE, 8, 0, false),
            // A block device with the numbers of a harmless character device.
            (BLOCK, READ, 1, 3, false),
            (BLOCK, READ, 136, 0, false),
        ] {
            let answer = run(&program, [access << 16 | kind, major, minor]);
            assert_eq!(answer == 1, allowed, "{kind} {access} {major}:{minor}");
        }
        let lines: Vec<_> = lines().collect();
        assert_eq!(lines[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(lines.last().expect("some"), "c 136:* rwm");
    }

    /// The kernel verifies the program. Only root can load it.
    #[test]
    fn the_kernel_takes_the_program() {
        match load() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            loaded => drop(loaded.expect("a program that the kernel takes")),
        }
    }

    /// A process in a group of version 2 with the program creates a node and cannot open it; elsewhere it can. Needs
    /// root and control groups version 2 (also beside those of version 1).
    #[test]
    fn a_group_of_version_2_is_restrained() {
        use rustix::mount::{MountFlags, UnmountFlags};
        let directory = tempfile::tempdir().expect("a directory");
        let hierarchy = directory.path().join("hierarchy");
        fs::create_dir(&hierarchy).expect("made");
        let none: Option<&std::ffi::CStr> = None;
        if let Err(error) =
            rustix::mount::mount("none", &hierarchy, "cgroup2", MountFlags::empty(), none)
        {
            eprintln!("skipped: no groups of version 2 can be mounted: {error}");
            return;
        }
        let group = hierarchy.join(format!("reddwarf-test-{}", std::process::id()));
        fs::create_dir(&group).expect("a group");
        // The kernel's log, 1:11, which is not among the harmless devices.
        let opens = |before: &str| {
            let node = directory.path().join("node");
            let script = format!("{before}mknod {0} c 1 11 && exec 3<{0}", node.display());
            let run = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            let opened = run.expect("a shell").status.success();
            let made = fs::remove_file(&node).is_ok();
            (made, opened)
        };
        let inside = format!("echo $$ >{}/cgroup.procs; ", group.display());
        let unrestrained = opens(&inside);
        let restrained = load().and_then(|program| {
            attach(&program, &group)?;
            // Again, like a restarted agent.
            attach(&program, &group)
        });
        let after = opens(&inside);
        let outside = opens("");
        fs::remove_dir(&group).expect("an empty group");
        rustix::mount::unmount(&hierarchy, UnmountFlags::empty()).expect("unmounted");
        restrained.expect("a program on the group");
        if !unrestrained.1 {
            eprintln!(
                "skipped: no node can be opened in {}",
                directory.path().display()
            );
            return;
        }
        assert_eq!(after, (true, false), "in the group");
        assert_eq!(outside, (true, true), "beside it");
    }
}
