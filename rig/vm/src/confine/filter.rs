//! Which system calls a confined process may make: seccomp filters.
//!
//! QEMU's filter denies a list, because what QEMU and its libraries call differs
//! between releases; `-sandbox` comes on top. The share daemon's filter allows a
//! list and kills the process for anything else.

use std::collections::BTreeMap;
use std::io;

use nlrig_host::{Error, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::stage::Secret;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that QEMU is denied: they start a program or a process, open a socket,
/// reach other processes, change files by name, or serve root alone.
const DENIED: [i64; 85] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_execveat,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_setpriority,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_lchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_utimensat,
    libc::SYS_futimesat,
    libc::SYS_truncate,
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_iopl,
    libc::SYS_ioperm,
];

/// Calls that serving files takes, as in virtiofsd's own filter (seccomp.rs of
/// 1.14); those with conditions are in [`share_daemon`].
const ALLOWED: [i64; 98] = [
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_epoll_create,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getdents,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_name_to_handle_at,
    libc::SYS_newfstatat,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvmsg,
    libc::SYS_removexattr,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    // The kernel's own, after a stop.
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_setgroups,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setxattr,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_tgkill,
    libc::SYS_time,
    libc::SYS_tkill,
    libc::SYS_umask,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

fn failed(err: impl std::fmt::Display) -> Error {
    Error::new(format!("cannot make a filter of system calls: {err}"))
}

/// The rule that one argument, all 64 bits of it, compares like this.
fn argument(index: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Qword, how, value);
    SeccompRule::new(vec![condition.map_err(failed)?]).map_err(failed)
}

/// A clone(2) that makes a thread, or one that makes a process.
fn clone(makes_thread: bool) -> Result<SeccompRule> {
    let thread = libc::CLONE_THREAD as u64;
    argument(0, SeccompCmpOp::MaskedEq(thread), if makes_thread { thread } else { 0 })
}

/// The filter of a QEMU that may start nothing but itself, once, with the secret.
pub(super) fn qemu(secret: Secret) -> Result<BpfProgram> {
    let mut rules = denied()?;
    rules.insert(libc::SYS_clone, vec![clone(false)?]);
    let other_than = |(index, &word)| argument(index, SeccompCmpOp::Ne, word);
    let without_secret: Result<Vec<_>> = (3..).zip(&secret).map(other_than).collect();
    rules.insert(libc::SYS_execve, without_secret?);
    program(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

/// The filter of a wrapper, which has to start QEMU.
pub(super) fn wrapper() -> Result<BpfProgram> {
    let mut rules = denied()?;
    for call in [libc::SYS_fork, libc::SYS_vfork, libc::SYS_execveat] {
        rules.remove(&call);
    }
    program(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

fn denied() -> Result<Rules> {
    let mut rules: Rules = DENIED.iter().map(|&call| (call, Vec::new())).collect();
    // The C library reads its own limits.
    rules.insert(libc::SYS_prlimit64, vec![argument(0, SeccompCmpOp::Ne, 0)?]);
    Ok(rules)
}

/// The filter of a share's daemon. Unlike virtiofsd's own it knows threads from
/// processes, and lets a thread have a working directory of its own and nothing
/// else.
pub(crate) fn share_daemon() -> Result<BpfProgram> {
    let mut rules: Rules = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![clone(true)?]);
    let own_directory = argument(0, SeccompCmpOp::Eq, libc::CLONE_FS as u64)?;
    rules.insert(libc::SYS_unshare, vec![own_directory]);
    program(rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

fn program(rules: Rules, others: SeccompAction, matched: SeccompAction) -> Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, others, matched, TargetArch::x86_64).map_err(failed)?;
    let program = BpfProgram::try_from(filter).map_err(failed)?;
    Ok([prologue().to_vec(), program].concat())
}

/// What a table of calls cannot say. The x32 calls have the architecture of the
/// others and higher numbers: there are none. clone3(2) has its flags in memory,
/// where no filter looks: there is none, so the C library takes clone(2).
fn prologue() -> [sock_filter; 4] {
    const X32: u32 = 0x4000_0000;
    let instruction = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let jump = |how| libc::BPF_JMP | how | libc::BPF_K;
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    [
        // The number is the first word of seccomp_data.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(jump(libc::BPF_JGE), 1, 0, X32),
        instruction(jump(libc::BPF_JEQ), 0, 1, libc::SYS_clone3 as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, missing),
    ]
}

/// Puts this thread under a filter, and all that it starts.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn install(program: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(program).map_err(|err| match err {
        seccompiler::Error::Prctl(err) | seccompiler::Error::Seccomp(err) => err,
        _ => io::Error::from_raw_os_error(libc::EINVAL),
    })
}
