//! Claims about port formulas of threads.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::personality::{self, Persona};
use nlrig_netlink::Errno;
use serde_json::{Value, json};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::formula_group::{FormulaGroup, FormulaGroupOptions, Life, Stacks, map};
use crate::ports::process_ids_as_ports;
use crate::process::{CHILD_TIMEOUT, CloneOptions, ForkedChild, run_in_child};

pub const CASES: Cases = &[
    ("B12.1", threads_share_the_process_id),
    ("B12.2", bind_fails_with_a_port_in_use),
    ("B12.3", process_ids_as_ports),
    ("B13.1", popular_formula_among_10),
    ("B13.2", popular_formula_among_17),
    ("B13.3", bits_of_the_popular_formula),
    ("B13.4", process_ids_above_16_bits),
    ("B14.1", low_bits_of_threads),
    ("B14.2", low_bits_of_the_main_thread),
    ("B15.1", meaning_of_pthread_self),
    ("B15.2", low_bits_with_shifted_stacks),
    ("B16.1", probability_by_the_papers_formula),
    ("B16.2", popular_formula_in_many_layouts),
    ("B16.3", popular_formula_in_many_layouts),
    ("B17.1", new_formula_in_a_process),
    ("B17.2", new_formula_in_two_processes),
    ("B17.3", new_formula_without_randomisation),
    ("B17.4", new_formula_with_small_stacks),
];

/// `pthread_self() << 16 | getpid()`, the widely used formula.
fn popular_formula(address: usize, process: u32) -> u32 {
    ((address as u32) << 16) | process
}

/// `pthread_self() >> 16 | getpid() << 16`, the paper's formula.
fn papers_formula(address: usize, process: u32) -> u32 {
    ((address >> 16) as u32) | (process << 16)
}

/// The process id alone.
fn process_id(_: usize, process: u32) -> u32 {
    process
}

fn threads_share_the_process_id(evidence: &mut Evidence) -> Result<(), BoxError> {
    FormulaGroup::spawn_all(FormulaGroupOptions::new(4, process_id))?.note(evidence);
    Ok(())
}

fn bind_fails_with_a_port_in_use(evidence: &mut Evidence) -> Result<(), BoxError> {
    let group = FormulaGroup::spawn_all(FormulaGroupOptions::new(2, process_id))?;
    let second = group.members.get(1).ok_or("there is no second thread")?;
    evidence.outcome("second_socket", &second.socket);
    evidence.outcome("second_bind", &second.bind);
    Ok(())
}

fn popular_formula_among_10(evidence: &mut Evidence) -> Result<(), BoxError> {
    let failed = |life, shift| {
        let seen = run_in_child(|| {
            if shift > 0 {
                map(shift, libc::PROT_NONE)?;
            }
            let group = FormulaGroup::spawn_all(FormulaGroupOptions {
                life,
                ..FormulaGroupOptions::new(10, popular_formula)
            })?;
            Ok(json!(group.failed()))
        })?;
        seen.as_u64().ok_or_else(|| BoxError::from("the child did not report a number of threads"))
    };
    evidence.note("failed_of_those_that_stay", failed(Life::Stays, 0)?);
    evidence.note("failed_of_those_that_end", failed(Life::Ends, 0)?);
    // Arenas of 64-bit programs are aligned to 64 MiB, so the steps cover all
    // offsets in between.
    let mut layouts = 0;
    for step in 0..32 {
        layouts += u32::from(failed(Life::Allocates, step * (2 << 20))? > 0);
    }
    evidence.note("of_32_layouts_with_malloc_have_duplicates", layouts);
    Ok(())
}

fn popular_formula_among_17(evidence: &mut Evidence) -> Result<(), BoxError> {
    FormulaGroup::spawn_all(FormulaGroupOptions::new(17, popular_formula))?.note(evidence);
    Ok(())
}

fn bits_of_the_popular_formula(evidence: &mut Evidence) -> Result<(), BoxError> {
    let group = FormulaGroup::spawn_all(FormulaGroupOptions::new(64, popular_formula))?;
    let process = std::process::id();
    let ports: BTreeSet<u32> =
        group.members.iter().map(|member| popular_formula(member.pthread_self, process)).collect();
    let differ =
        ports.iter().fold(0, |bits, port| bits | port ^ ports.first().copied().unwrap_or_default());
    evidence.note("threads", group.members.len());
    evidence.note("kinds_of_ports", ports.len());
    evidence.note("bits_that_differ", format!("{differ:#x}"));
    Ok(())
}

fn process_ids_above_16_bits(evidence: &mut Evidence) -> Result<(), BoxError> {
    const PID_MAX: &str = "/proc/sys/kernel/pid_max";
    const PID_ABOVE_16_BITS: u32 = 77_777;
    let before = fs::read_to_string(PID_MAX)?;
    evidence.note("pid_max", before.trim().parse::<u64>()?);
    let raised =
        fs::write(PID_MAX, "4194304").map_err(|err| Errno(err.raw_os_error().unwrap_or_default()));
    evidence.outcome("raise_pid_max", &raised);
    let options = CloneOptions { pid: Some(PID_ABOVE_16_BITS), ..CloneOptions::default() };
    let child = ForkedChild::start_with(options, || Ok(json!(std::process::id())));
    let seen = child.and_then(|child| child.wait(CHILD_TIMEOUT));
    if raised.is_ok() {
        fs::write(PID_MAX, before)?;
    }
    let seen = seen.as_ref().ok().and_then(Value::as_u64);
    evidence.note("process_has_id_77777", seen == Some(u64::from(PID_ABOVE_16_BITS)));
    Ok(())
}

/// The distinct values of the lowest 12 bits of pthread_self().
fn low_bits(group: &FormulaGroup) -> BTreeSet<usize> {
    group.members.iter().map(|member| member.pthread_self & 0xfff).collect()
}

fn low_bits_of_threads(evidence: &mut Evidence) -> Result<(), BoxError> {
    let group = FormulaGroup::spawn_all(FormulaGroupOptions::new(16, popular_formula))?;
    let kinds = low_bits(&group);
    evidence.note("threads", group.members.len());
    evidence.note("kinds_of_low_12_bits", kinds.len());
    let first = kinds.first().copied().unwrap_or_default();
    evidence.note("low_12_bits", format!("{first:#x}"));
    Ok(())
}

fn low_bits_of_the_main_thread(evidence: &mut Evidence) -> Result<(), BoxError> {
    // SAFETY: pthread_self() takes no arguments.
    let main = unsafe { libc::pthread_self() } as usize & 0xfff;
    let kinds = low_bits(&FormulaGroup::spawn_all(FormulaGroupOptions::new(4, popular_formula))?);
    let first = kinds.first().copied().unwrap_or_default();
    evidence.note("of_threads", format!("{first:#x}"));
    evidence.note("of_the_main_thread", format!("{main:#x}"));
    evidence.note("main_thread_has_the_same", kinds.contains(&main));
    Ok(())
}

/// The base address of the calling thread's TLS segment, read from the kernel.
/// 0 if the call fails.
#[cfg(target_arch = "x86_64")]
fn segment_base() -> usize {
    const ARCH_GET_FS: libc::c_int = 0x1003;
    let mut base: usize = 0;
    // SAFETY: the call writes one unsigned long to `base`.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut base) };
    base
}

/// The base address of the calling thread's TLS segment, read from the kernel.
/// 0 if the call fails.
#[cfg(target_arch = "x86")]
fn segment_base() -> usize {
    /// struct user_desc.
    #[repr(C)]
    struct Descriptor {
        entry: u32,
        base: u32,
        limit: u32,
        flags: u32,
    }
    let selector: u32;
    // SAFETY: the instruction only reads a segment register.
    unsafe { std::arch::asm!("mov {:e}, gs", out(reg) selector, options(nomem, nostack)) };
    // Bits 0 and 1 of a selector are the privilege level, bit 2 selects the
    // table, and the rest is the descriptor's index.
    let mut descriptor =
        Descriptor { entry: (selector & 0xffff) >> 3, base: 0, limit: 0, flags: 0 };
    // SAFETY: the call fills in `descriptor`, a struct user_desc.
    unsafe { libc::syscall(libc::SYS_get_thread_area, &raw mut descriptor) };
    descriptor.base as usize
}

/// The start of the program's data segment: field 45 of /proc/self/stat.
fn start_of_data() -> Result<usize, BoxError> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Field 2, the name, is in parentheses and may contain any characters.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat: no name")?;
    Ok(fields.split_whitespace().nth(45 - 3).ok_or("/proc/self/stat: no field 45")?.parse()?)
}

static BASE: AtomicUsize = AtomicUsize::new(0);
static VARIABLE: AtomicUsize = AtomicUsize::new(0);

/// Computes a port, and records the TLS segment base and the address of a stack
/// variable.
fn port_and_addresses(address: usize, process: u32) -> u32 {
    let variable = std::hint::black_box(process);
    VARIABLE.store((&raw const variable).addr(), Ordering::SeqCst);
    BASE.store(segment_base(), Ordering::SeqCst);
    popular_formula(address, process)
}

fn meaning_of_pthread_self(evidence: &mut Evidence) -> Result<(), BoxError> {
    const DEFAULT_STACK_BYTES: usize = 8 << 20;
    let group = FormulaGroup::spawn_all(FormulaGroupOptions::new(1, port_and_addresses))?;
    let address = group.members.first().ok_or("there is no thread")?.pthread_self;
    let (base, variable) = (BASE.load(Ordering::SeqCst), VARIABLE.load(Ordering::SeqCst));
    if base == 0 {
        return Err("cannot read the TLS segment base".into());
    }
    evidence.note("is_the_address_of_the_control_block", address == base);
    evidence.note("is_its_offset_from_the_data", address == base.wrapping_sub(start_of_data()?));
    let above = address.wrapping_sub(variable);
    evidence.note("is_in_the_threads_own_stack", above < DEFAULT_STACK_BYTES);
    Ok(())
}

fn low_bits_with_shifted_stacks(evidence: &mut Evidence) -> Result<(), BoxError> {
    // 64 is the alignment of the thread control block.
    let options = FormulaGroupOptions {
        stacks: Stacks::Shifted(64),
        ..FormulaGroupOptions::new(4, popular_formula)
    };
    let group = FormulaGroup::spawn_all(options)?;
    evidence.note("threads", group.members.len());
    evidence.note("kinds_of_low_12_bits", low_bits(&group).len());
    Ok(())
}

/// The paper's probability of a duplicate among `threads` threads, in percent
/// with one decimal: 1 - 15! / ((16 - n)! 16^(n - 1)).
fn by_the_papers_formula(threads: u32) -> f64 {
    let distinct: f64 = (1..threads).map(|taken| f64::from(16 - taken) / 16.0).product();
    ((1.0 - distinct) * 1000.0).round() / 10.0
}

fn probability_by_the_papers_formula(evidence: &mut Evidence) -> Result<(), BoxError> {
    for threads in [7, 8, 10, 16] {
        let percent = by_the_papers_formula(threads);
        evidence.note(&format!("percent_at_{threads}"), percent);
    }
    Ok(())
}

fn popular_formula_in_many_layouts(evidence: &mut Evidence) -> Result<(), BoxError> {
    const PAGE_BYTES: usize = 4096;
    let mut with_duplicates = 0;
    let mut below_17 = 0;
    // All values of the four bits for the first thread.
    for step in 0..16 {
        let seen = run_in_child(|| {
            if step > 0 {
                map(step * PAGE_BYTES, libc::PROT_NONE)?;
            }
            Ok(json!(
                FormulaGroup::spawn_all(FormulaGroupOptions::new(17, popular_formula))?
                    .first_failed()
            ))
        })?;
        let first = seen.as_u64().ok_or("the child did not report a thread number")?;
        with_duplicates += u32::from(first > 0);
        below_17 += u32::from((1..17).contains(&first));
    }
    evidence.note("layouts", 16);
    evidence.note("with_duplicates_among_17_threads", with_duplicates);
    evidence.note("with_duplicates_among_the_first_16", below_17);
    Ok(())
}

/// Starts a child with the first free process id of `ids`.
fn start_with_free_pid(
    ids: impl Iterator<Item = u32>,
    keep_alive: bool,
    body: impl Fn() -> Result<Value, BoxError>,
) -> Result<ForkedChild, BoxError> {
    for id in ids {
        let taken = |err: &BoxError| err.downcast_ref() == Some(&nix::Error::EEXIST);
        match ForkedChild::start_with(
            CloneOptions { pid: Some(id), keep_alive, ..CloneOptions::default() },
            &body,
        ) {
            Err(err) if taken(&err) => {}
            started => return started,
        }
    }
    Err("all candidate process ids are in use".into())
}

/// The summary of a group, as reported by a child.
fn summary(group: &FormulaGroup) -> Value {
    json!({
        "process": std::process::id(),
        "threads": group.members.len(),
        "failed": group.failed(),
        "first_failed": group.first_failed(),
        "refused": group.refused.map_or("no".to_string(), |errno| errno.to_string()),
    })
}

fn new_formula_in_a_process(evidence: &mut Evidence) -> Result<(), BoxError> {
    const THREADS: usize = 2100;
    // Process ids with the lowest 9 bits set. The formula ORs them with the
    // address bits from 32 up, whose variation within a process they hide.
    let ids = (511..32768).step_by(512);
    let child = start_with_free_pid(ids, false, || {
        Ok(summary(&FormulaGroup::spawn_all(FormulaGroupOptions::new(THREADS, papers_formula))?))
    })?;
    if let Value::Object(seen) = child.wait(CHILD_TIMEOUT * 4)? {
        seen.into_iter().for_each(|(key, value)| evidence.note(&key, value));
    }
    Ok(())
}

fn new_formula_in_two_processes(evidence: &mut Evidence) -> Result<(), BoxError> {
    // A bit that is set in the addresses of all mappings, whatever the kernel's
    // random offset.
    const BIT: u32 = 0x200;
    let attempt =
        || Ok(summary(&FormulaGroup::spawn_all(FormulaGroupOptions::new(4, papers_formula))?));
    let ids = (0x4001..0x4100).step_by(2);
    let mut first = start_with_free_pid(ids.clone(), true, attempt)?;
    let one = first.report(CHILD_TIMEOUT)?;
    let other = start_with_free_pid(std::iter::once(first.id() | BIT), false, attempt)?;
    let other = other.wait(CHILD_TIMEOUT)?;
    for (name, seen) in [("first", one), ("second", other)] {
        evidence.note(&format!("{name}_process"), seen["process"].clone());
        evidence.note(&format!("{name}_threads"), seen["threads"].clone());
        evidence.note(&format!("{name}_failed"), seen["failed"].clone());
    }
    Ok(())
}

/// An environment variable that marks a process started by this program.
const STARTED: &str = "NLRIG_CLAIMS_STARTED";

fn new_formula_without_randomisation(evidence: &mut Evidence) -> Result<(), BoxError> {
    if std::env::var_os(STARTED).is_some() {
        println!(
            "{}",
            summary(&FormulaGroup::spawn_all(FormulaGroupOptions::new(4, papers_formula))?)
        );
        // Stays alive until the other process has finished.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    personality::set(personality::get()? | Persona::ADDR_NO_RANDOMIZE)?;
    let mut alive = Vec::new();
    for name in ["first", "second"] {
        let mut program = Command::new("/proc/self/exe")
            .arg("B17.3")
            .env(STARTED, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = program.stdout.take().ok_or("no pipe to the child")?;
        alive.push(program);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let seen: Value = serde_json::from_str(&line)?;
        evidence.note(&format!("{name}_threads"), seen["threads"].clone());
        evidence.note(&format!("{name}_failed"), seen["failed"].clone());
    }
    for mut program in alive {
        // wait() closes the child's standard input first.
        program.wait()?;
    }
    Ok(())
}

fn new_formula_with_small_stacks(evidence: &mut Evidence) -> Result<(), BoxError> {
    let options = FormulaGroupOptions {
        stacks: Stacks::OfSize(32 << 10),
        ..FormulaGroupOptions::new(16, papers_formula)
    };
    FormulaGroup::spawn_all(options)?.note(evidence);
    Ok(())
}
