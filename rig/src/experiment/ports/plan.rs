//! The trials: what matters, each by name, and no cross product.

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::ports::Formula;
use nlrig_guest::protocol::{Aslr, Job, Rlimit};

use super::types::{Bound, Most, PortParams, ThreadsAsked};
use crate::abi::{Abi, Arch};
use crate::experiment::threads::{
    BY_RLIMIT_MIN_BYTES, MEMORY_64_BYTES, NOFILE, THREADS_MAX, stacks,
};
use crate::experiment::{Selection, Trial, workload};
use crate::guest::Limits;
use crate::units::show_size;
use crate::usage;

const LIMITS: Limits = Limits::new(Duration::from_secs(40), Duration::from_secs(10 * 60));
/// For five thousand threads at 45 KiB each, and for what they share it with.
const MEMORY_BYTES: u64 = 1 << 30;
/// More than the limits that are set leave room for.
const MOST: u32 = 60_000;
/// What a thread allocates, if it does: less than the least that matters.
const MALLOC_BYTES: u32 = 64;
/// Processes of a batch, and threads of each: by 17 there are duplicates for sure.
const BATCH: u32 = 1000;
const BATCH_THREADS: u32 = 20;
/// What all of them report has to fit into what is kept of a trial.
const BATCH_MAX: u32 = 4000;
/// Threads, if the user does not say how many.
const MANY: u32 = 1000;
/// What a 32-bit program certainly has left for stacks.
const ROOM_32_BYTES: u64 = 5 << 29;
/// As many threads as the smaller machine holds.
const FEW: u32 = 5000;

/// How many processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processes {
    One,
    /// Two at once.
    Two,
    /// So many, as many at once as there are processors.
    Batch(u32),
}

/// A trial, before it has an ABI.
#[derive(Clone, Debug)]
struct Setting {
    /// What is special about it, for its name.
    name: String,
    what: Bound,
    threads: u32,
    stack_bytes: u64,
    malloc: bool,
    aslr: Aslr,
    /// Whether each thread ends before the next one is created.
    ends: bool,
    processes: Processes,
    /// Process ids, if they matter.
    pids: [Option<u32>; 2],
    sysctls: &'static [(&'static str, &'static str)],
}

impl Setting {
    fn new(name: &str, what: Bound, threads: u32) -> Setting {
        Setting {
            name: name.to_string(),
            what,
            threads,
            stack_bytes: 8 << 20,
            malloc: false,
            aslr: Aslr::On,
            ends: false,
            processes: Processes::One,
            pids: [None, None],
            sysctls: &[],
        }
    }
}

/// The trials that answer what was asked.
pub fn trials(selection: &Selection) -> Result<Vec<Trial<PortParams>>> {
    let what = match selection.set.get("formula").map(String::as_str) {
        None => None,
        Some("each") => Some(Bound::Each),
        Some(name) => Some(Bound::One(Formula::from_name(name).ok_or_else(|| {
            let names = Formula::ALL.map(Formula::name).join(", ");
            usage!("--set formula={name}: it is {names} or each")
        })?)),
    };
    let own = ["threads", "malloc", "aslr", "processes"]
        .iter()
        .any(|key| selection.set.contains_key(*key));
    let own = own
        || !selection.stacks.is_empty()
        || !selection.sysctls.is_empty()
        || !selection.rlimits.is_empty();
    let mut trials = Vec::new();
    for &abi in &selection.abis {
        let settings = if own { asked_for(selection, abi, what)? } else { named(abi) };
        let wanted = |setting: &&Setting| own || what.is_none_or(|what| setting.what == what);
        trials.extend(settings.iter().filter(wanted).map(|setting| trial(selection, abi, setting)));
    }
    if trials.is_empty() {
        return Err(usage!("--set formula: no trial by default binds it on these ABIs"));
    }
    // Those that share a guest have to be neighbours.
    trials.sort_by_key(|trial| trial.alone);
    Ok(trials)
}

/// What matters on this ABI.
fn named(abi: Abi) -> Vec<Setting> {
    use Formula::{LinuxJournal, Paper, PaperXor, Shift12};
    let one = |name: &str, formula, threads| Setting::new(name, Bound::One(formula), threads);
    let mut settings = Vec::new();
    // The table of formulas.
    let each = |formula| Setting { stack_bytes: 2 << 20, ..one("n=1000", formula, 1000) };
    settings.extend(Formula::ALL.map(each));
    // Figure 4.
    let ten = one("n=10", LinuxJournal, 10);
    settings.push(ten.clone());
    settings.push(Setting { name: "n=10/malloc".into(), malloc: true, ..ten });
    // Two processes with their stacks at the same places.
    let two = Setting { processes: Processes::Two, ..one("two-processes", Paper, 10) };
    settings.push(Setting {
        name: "two-processes/aslr=off".into(),
        aslr: Aslr::Off,
        ..two.clone()
    });
    // The curve. Without malloc all processes are alike.
    let curve = |name: &str, count, malloc| Setting {
        malloc,
        processes: Processes::Batch(count),
        ..one(name, LinuxJournal, BATCH_THREADS)
    };
    settings.push(curve("processes=250", BATCH / 4, false));
    settings.push(curve("processes=1000/malloc", BATCH, true));
    if abi == Abi::Ia32 {
        settings.push(Setting { stack_bytes: 2 << 20, ..one("most", Paper, MOST) });
        return settings;
    }
    settings.push(Setting { stack_bytes: 32 << 10, ..one("stack=32K", Paper, 16) });
    settings.push(Setting { ends: true, ..one("started-again", LinuxJournal, 10) });
    if abi == Abi::I386 {
        settings.push(Setting { stack_bytes: 2 << 20, ..one("most", Paper, MOST) });
        return settings;
    }
    // With its guard each stack is a multiple of 64 KiB.
    settings.push(Setting {
        stack_bytes: (8 << 20) - 4096,
        ..one("stack-and-guard=8M", LinuxJournal, 16)
    });
    settings.extend([16, 17].map(|n| one(&format!("n={n}"), LinuxJournal, n)));
    settings.push(two.clone());
    // Process ids of one bit, and of twelve.
    for pid in [1024, 4095] {
        let setting = one(&format!("pid={pid}"), Paper, 5000);
        settings.push(Setting { stack_bytes: 2 << 20, pids: [Some(pid), None], ..setting });
    }
    settings.push(Setting {
        name: "two-processes/aslr=off".into(),
        what: Bound::One(Shift12),
        aslr: Aslr::Off,
        ..two.clone()
    });
    // Two that differ above 16 bits only.
    settings.push(Setting {
        name: "two-processes/pid=12241,77777/aslr=off".into(),
        what: Bound::One(PaperXor),
        aslr: Aslr::Off,
        pids: [Some(12241), Some(77777)],
        sysctls: &[("kernel.pid_max", "131072")],
        ..two
    });
    // Table 4.
    settings.extend([2, 4, 8, 16].map(|mib| Setting {
        stack_bytes: mib << 20,
        sysctls: THREADS_MAX.sysctls,
        ..Setting::new(&format!("stack={mib}M/most"), Bound::Each, MOST)
    }));
    settings
}

/// What the user asks for in place of that.
fn asked_for(selection: &Selection, abi: Abi, what: Option<Bound>) -> Result<Vec<Setting>> {
    let number = |key: &str, own: u32, most: u32| match selection.set.get(key).map(String::as_str) {
        None => Ok(own),
        Some(text) => match text.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(usage!("--set {key}={text}: it is a number from 1 to {most}")),
        },
    };
    let most = selection.set.get("threads").is_some_and(|text| text == "most");
    let malloc = selection.one_of("malloc", ["off", "on"])? == "on";
    let aslr = if selection.one_of("aslr", ["on", "off"])? == "off" { Aslr::Off } else { Aslr::On };
    let processes = match number("processes", 1, BATCH_MAX)? {
        1 => Processes::One,
        2 => Processes::Two,
        many => Processes::Batch(many),
    };
    let batch = matches!(processes, Processes::Batch(_));
    let (own, at_most) = if batch { (BATCH_THREADS, 100) } else { (MANY, MOST) };
    let threads = if most && !batch { MOST } else { number("threads", own, at_most)? };
    let said = selection.set.contains_key("threads");
    let whats = match what {
        Some(what) => vec![what],
        None if batch => vec![Bound::One(Formula::LinuxJournal)],
        None => Formula::ALL.map(Bound::One).to_vec(),
    };
    if batch && (aslr == Aslr::Off || whats != [Bound::One(Formula::LinuxJournal)]) {
        return Err(usage!(
            "--set processes: many processes are for the chance of a duplicate, which is there with \
             formula=linux-journal and randomisation only"
        ));
    }
    if processes == Processes::Two && whats.contains(&Bound::Each) {
        return Err(usage!("--set processes=2: give one formula"));
    }
    let stacks = if selection.stacks.is_empty() { vec![2 << 20] } else { stacks(selection)? };
    let mut settings = Vec::new();
    for stack_bytes in stacks {
        let threads = if said { threads } else { threads.min(room_for(abi, stack_bytes)) };
        for &what in &whats {
            let mut name = format!("stack={}", show_size(stack_bytes));
            let count = if threads == MOST { "most".to_string() } else { format!("n={threads}") };
            name.push_str(&format!("/{count}"));
            if malloc {
                name.push_str("/malloc");
            }
            if aslr == Aslr::Off {
                name.push_str("/aslr=off");
            }
            match processes {
                Processes::One => {}
                Processes::Two => name.push_str("/two-processes"),
                Processes::Batch(many) => name.push_str(&format!("/processes={many}")),
            }
            let setting = Setting { malloc, aslr, processes, ..Setting::new(&name, what, threads) };
            settings.push(Setting { stack_bytes, ..setting });
        }
    }
    Ok(settings)
}

/// How many stacks of this size a program certainly has room for.
fn room_for(abi: Abi, stack_bytes: u64) -> u32 {
    match abi.program() {
        Arch::X86_64 => MOST,
        Arch::I386 => u32::try_from(ROOM_32_BYTES / stack_bytes).unwrap_or(MOST).clamp(1, MOST),
    }
}

fn trial(selection: &Selection, abi: Abi, setting: &Setting) -> Trial<PortParams> {
    let Setting { what, threads, stack_bytes, malloc, aslr, ends, processes, .. } = *setting;
    let mut argv = vec![workload("ports")];
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            argv.extend([name.to_string(), value]);
        }
    };
    add("--threads", Some(threads.to_string()));
    for formula in what.formulas() {
        add("--formula", Some(formula.name().to_string()));
    }
    add("--malloc", malloc.then(|| MALLOC_BYTES.to_string()));
    add("--pid", setting.pids[0].map(|pid| pid.to_string()));
    add("--second-pid", setting.pids[1].map(|pid| pid.to_string()));
    let mut rlimits = vec![Rlimit { name: "nofile".into(), value: Some(NOFILE) }];
    if stack_bytes < BY_RLIMIT_MIN_BYTES {
        add("--stack", Some(stack_bytes.to_string()));
    } else {
        rlimits.push(Rlimit { name: "stack".into(), value: Some(stack_bytes) });
    }
    let mut count = 1;
    match processes {
        Processes::One => {}
        Processes::Two => {
            count = 2;
            argv.push("--second".to_string());
        }
        Processes::Batch(many) => {
            count = many;
            argv.extend(["--batch".to_string(), many.to_string()]);
        }
    }
    if ends {
        argv.push("--ends".to_string());
    }
    rlimits.extend(selection.rlimits.iter().cloned());
    let own = |&(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let sysctls: Vec<_> =
        setting.sysctls.iter().map(own).chain(selection.sysctls.iter().cloned()).collect();
    let most = threads == MOST;
    let params = PortParams {
        formula: what,
        threads: if most { ThreadsAsked::Most(Most::Most) } else { ThreadsAsked::Count(threads) },
        stack_bytes,
        malloc,
        aslr,
        processes: count,
        pids: setting.pids.iter().flatten().copied().collect(),
        ends,
        setting: setting.name.clone(),
        sysctl: sysctls.iter().cloned().collect(),
        rlimit: rlimits.iter().map(|limit| (limit.name.clone(), limit.value)).collect(),
    };
    // As many as there can be on 64 bits are tens of thousands.
    let many = threads > FEW && abi.program() == Arch::X86_64;
    let memory = if many { MEMORY_64_BYTES } else { MEMORY_BYTES };
    // An id may be taken where others have run.
    let alone = many || setting.pids[0].is_some() || !sysctls.is_empty();
    let job = Job { argv, user: selection.user, rlimits, aslr, sysctls, ..Job::default() };
    let name = format!("ports/{abi}/{}/{}/{}", selection.kernel, what.name(), setting.name);
    Trial::new(name, abi, job)
        .params(params)
        .memory(memory)
        .limits(LIMITS)
        .alone_if(alone)
        // Tens of thousands of threads take minutes under TCG; one such trial is
        // enough for every change.
        .long_if(most && abi == Abi::X86_64 && stack_bytes != 2 << 20)
        .select(selection)
}
