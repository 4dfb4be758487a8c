//! Every input of every corpus, a test each: `cargo test -p nlrig-fuzz console/`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nlrig_fuzz::Target;

/// CPU time of the whole replay, in seconds. An input that never ends is ended
/// by SIGXCPU.
const CPU_MAX_SECONDS: u64 = 300;

fn main() -> ExitCode {
    let (_, hard) = getrlimit(Resource::RLIMIT_CPU).expect("limits can be read");
    setrlimit(Resource::RLIMIT_CPU, CPU_MAX_SECONDS.min(hard), hard).expect("a lower limit");
    let mut arguments = Arguments::from_args();
    // The limit of memory is the process's; and the name of an input that
    // aborts the process is the last one printed.
    arguments.test_threads = Some(1);
    let tests = nlrig_fuzz::ALL.into_iter().flat_map(inputs).collect();
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn inputs(target: Target) -> Vec<Trial> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("a target has a corpus")
        .map(|entry| entry.expect("a corpus can be read").path())
        .collect();
    assert!(!paths.is_empty(), "{} has no input", folder.display());
    paths.sort();
    let test = |path: std::path::PathBuf| {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        Trial::test(format!("{}/{name}", target.name), move || {
            target.run(&fs::read(path)?);
            Ok(())
        })
    };
    paths.into_iter().map(test).collect()
}
