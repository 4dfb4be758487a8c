//! Every trial of the default plans as a test: it passes if its verdict is
//! `pass`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Failed, Trial};
use nlrig::abi::Abi;
use nlrig::accel::Wish;
use nlrig::artifact::Workshop;
use nlrig::command;
use nlrig::experiment::{self, Ask};
use nlrig::lab::Lab;
use nlrig::options::GuestOptions;
use nlrig::report::Verdict;
use nlrig::run::{self, Planned, Run};

/// The run that all tests of this process belong to, once one has begun.
type Shared = Arc<Mutex<Option<Run>>>;

pub fn tests() -> Vec<Trial> {
    let shared = Shared::default();
    let ask = Ask::new(&Abi::ALL, &GuestOptions::default().kernel);
    let planned = run::plan(experiment::ALL, &ask, 1).expect("the default plans are sound");
    planned.into_iter().map(|planned| test(planned, shared.clone())).collect()
}

fn test(planned: Planned, shared: Shared) -> Trial {
    let name = planned.trial.name.clone();
    let long = takes_long(&planned);
    Trial::test(name, move || {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        judge(&planned, &mut shared).map_err(|err| Failed::from(format!("{err:#}")))
    })
    .with_ignored_flag(long)
}

/// A table of 32 thousand threads takes half a minute a cell under TCG; one
/// cell of each is enough for every change.
fn takes_long(planned: &Planned) -> bool {
    let params = &planned.trial.params;
    planned.trial.abi == Abi::X86_64
        && params.get("setting").is_some_and(|setting| setting != "defaults")
        && params.get("stack_bytes").is_some_and(|bytes| bytes != 2 << 20)
}

fn judge(planned: &Planned, shared: &mut Option<Run>) -> anyhow::Result<()> {
    let run = match shared {
        Some(run) => run,
        None => shared.insert(begin()?),
    };
    let folder = run.dir.join(planned.trial.name.replace('/', "_"));
    let trial = run.trial(planned)?;
    match trial.verdict {
        Verdict::Pass => Ok(()),
        verdict => Err(anyhow::anyhow!(
            "{}: {}; see {}",
            verdict.name(),
            trial.reason.as_deref().unwrap_or("no reason"),
            folder.display()
        )),
    }
}

fn begin() -> anyhow::Result<Run> {
    let options = GuestOptions::default();
    let kernels = command::kernels(&options)?;
    let program = PathBuf::from(env!("CARGO_BIN_EXE_nlrig"));
    let lab = Lab::new(program, kernels.cache.clone(), Wish::Auto);
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm");
    Run::begin(Workshop::new(kernels), lab, BTreeMap::new(), &options.flavour, &results)
}
