//! The system call filter for `RuntimeDefault`: the one of Docker and containerd, so that images that run there run
//! here. <https://github.com/moby/profiles/blob/main/seccomp/default.json>
//!
//! `seccompiler` compiles the table to the kernel's program: it is small and pure Rust, whereas libseccomp is a C
//! library that would have to be found at build time and shipped. It only installs filters together with
//! `no_new_privs`, which is up to the pod, so this module installs them. Calls of another instruction set (32 bits)
//! kill the process.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::zone::Rights;

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// System calls that are always allowed.
const ALLOWED: &[c_long] = calls![
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_adjtime
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range
    SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve
    SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark
    SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr
    SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv
    SYS_get_robust_list SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups
    SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid
    SYS_getresuid SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid
    SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy
    SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioctl SYS_ioprio_get SYS_ioprio_set SYS_kill
    SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen
    SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_membarrier
    SYS_memfd_create SYS_memfd_secret SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap
    SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink
    SYS_mremap SYS_mseal SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap
    SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2 SYS_pidfd_open SYS_pidfd_send_signal
    SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2
    SYS_prlimit64 SYS_process_mrelease SYS_process_vm_readv SYS_process_vm_writev SYS_pselect6 SYS_ptrace
    SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg
    SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction
    SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getaffinity
    SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity
    SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget
    SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list
    SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority
    SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setsid SYS_setsockopt SYS_setuid SYS_setxattr
    SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice
    SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create
    SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime
    SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice
    SYS_wait4 SYS_waitid SYS_write SYS_writev
];

/// System calls that only x86 has.
#[cfg(target_arch = "x86_64")]
const OF_THIS_MACHINE: &[c_long] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_get_thread_area SYS_getdents
    SYS_getpgrp SYS_getrlimit SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt
    SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_renameat SYS_rmdir SYS_select
    SYS_set_thread_area SYS_setrlimit SYS_signalfd SYS_stat SYS_symlink SYS_sync_file_range SYS_time SYS_unlink
    SYS_utime SYS_utimes SYS_vfork
];
#[cfg(not(target_arch = "x86_64"))]
const OF_THIS_MACHINE: &[c_long] = &[];

/// System calls newer than libc's names: cachestat, fchmodat2, map_shadow_stack, futex_wake, futex_wait, futex_requeue,
/// statmount, listmount, setxattrat, getxattrat, listxattrat, removexattrat. Their numbers are the same on all
/// architectures.
const YOUNG: &[c_long] = &[451, 452, 453, 454, 455, 456, 457, 458, 463, 464, 465, 466];

/// System calls that a capability adds.
const BY_CAPABILITY: [(&str, &[c_long]); 14] = [
    ("DAC_READ_SEARCH", calls![SYS_open_by_handle_at]),
    (
        "SYS_ADMIN",
        calls![
        SYS_bpf SYS_clone SYS_clone3 SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_lookup_dcookie
        SYS_mount SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open SYS_quotactl SYS_quotactl_fd
        SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog SYS_umount2 SYS_unshare
            ],
    ),
    ("SYS_BOOT", calls![SYS_reboot]),
    ("SYS_CHROOT", calls![SYS_chroot]),
    (
        "SYS_MODULE",
        calls![SYS_delete_module SYS_init_module SYS_finit_module],
    ),
    ("SYS_PACCT", calls![SYS_acct]),
    (
        "SYS_PTRACE",
        calls![SYS_kcmp SYS_pidfd_getfd SYS_process_madvise],
    ),
    #[cfg(target_arch = "x86_64")]
    ("SYS_RAWIO", calls![SYS_iopl SYS_ioperm]),
    #[cfg(not(target_arch = "x86_64"))]
    ("SYS_RAWIO", &[]),
    ("SYS_TIME", calls![SYS_settimeofday SYS_clock_settime]),
    ("SYS_TTY_CONFIG", calls![SYS_vhangup]),
    (
        "SYS_NICE",
        calls![SYS_get_mempolicy SYS_mbind SYS_set_mempolicy SYS_set_mempolicy_home_node],
    ),
    ("SYSLOG", calls![SYS_syslog]),
    ("BPF", calls![SYS_bpf]),
    ("PERFMON", calls![SYS_perf_event_open]),
];

/// The flags of clone(2) that create namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

/// A condition on the first argument.
fn first(
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, String> {
    let text = |error: seccompiler::BackendError| error.to_string();
    let condition = SeccompCondition::new(0, length, operator, value).map_err(text)?;
    SeccompRule::new(vec![condition]).map_err(text)
}

/// The programs for a process with these privileges, in the order of installation.
fn programs(rights: &Rights) -> Result<Vec<BpfProgram>, String> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, Gt, Lt, MaskedEq};
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for call in ALLOWED.iter().chain(OF_THIS_MACHINE).chain(YOUNG) {
        rules.insert(*call, Vec::new());
    }
    // All address families except AF_ALG, which reaches the kernel's ciphers, and AF_VSOCK, which reaches the machine's
    // host.
    let families = vec![
        first(Dword, Lt, 38)?,
        first(Dword, Eq, 39)?,
        first(Dword, Gt, 40)?,
    ];
    rules.insert(libc::SYS_socket, families);
    let personalities = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let personalities = personalities.map(|value| first(Dword, Eq, value));
    let personalities = personalities.into_iter().collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_personality, personalities);
    let plain = first(Qword, MaskedEq(NAMESPACES), 0)?;
    rules.insert(libc::SYS_clone, vec![plain]);
    // Its flags are in memory, which filters cannot read: it fails as if it did not exist, and programs fall back to
    // clone.
    rules.insert(libc::SYS_clone3, Vec::new());
    for (capability, calls) in BY_CAPABILITY {
        if rights.capabilities.iter().any(|own| own == capability) {
            rules.extend(calls.iter().map(|call| (*call, Vec::new())));
        }
    }
    let compile = |rules, mismatch, matched| -> Result<BpfProgram, String> {
        let machine = std::env::consts::ARCH.try_into();
        let machine = machine.map_err(|error: seccompiler::BackendError| error.to_string())?;
        let filter = SeccompFilter::new(rules, mismatch, matched, machine);
        let filter = filter.map_err(|error| error.to_string())?;
        let program = filter.try_into();
        program.map_err(|error: seccompiler::BackendError| error.to_string())
    };
    let refused = |error: i32| SeccompAction::Errno(error as u32);
    let mut all = vec![compile(rules, refused(libc::EPERM), SeccompAction::Allow)?];
    if !rights.capabilities.iter().any(|own| own == "SYS_ADMIN") {
        let only = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        all.push(compile(only, SeccompAction::Allow, refused(libc::ENOSYS))?);
    }
    Ok(all)
}

/// Filters system calls of this process and its children from now on. Needs `SYS_ADMIN` or `no_new_privs`.
///
/// # Errors
/// The kernel's error.
pub(super) fn confine(rights: &Rights) -> Result<(), String> {
    for program in programs(rights)? {
        let length = u16::try_from(program.len()).map_err(|error| error.to_string())?;
        let filter = libc::sock_fprog {
            len: length,
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel copies `len` instructions and writes nothing; `program` outlives the call, and its
        // instructions have the kernel's layout (both are `repr(C)` of the same four fields).
        let failed = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const filter,
            )
        };
        if failed != 0 {
            return Err(std::io::Error::last_os_error().to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_calls_pass_and_a_capability_opens_its_own() {
        let rights = |capabilities: &[&str]| Rights {
            capabilities: capabilities.iter().map(|one| (*one).into()).collect(),
            ..Rights::default()
        };
        let usual = programs(&rights(&[])).expect("programs");
        let admin = programs(&rights(&["SYS_ADMIN"])).expect("programs");
        assert_eq!((usual.len(), admin.len()), (2, 1));
        // The kernel's maximum length.
        assert!(usual.iter().chain(&admin).all(|one| one.len() < 4096));
        let asks =
            |program: &BpfProgram, call: c_long| program.iter().any(|one| one.k == call as u32);
        for (call, free, with) in [
            (libc::SYS_openat, true, true),
            (libc::SYS_mount, false, true),
            (libc::SYS_kexec_load, false, false),
            (libc::SYS_io_uring_setup, false, false),
        ] {
            assert_eq!(
                (asks(&usual[0], call), asks(&admin[0], call)),
                (free, with),
                "{call}"
            );
        }
    }
}
