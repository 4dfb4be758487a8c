//! Hostile guests: the parsers of all that comes out of one, fed with changed
//! copies of what real guests have said.
//!
//! `corpus/TARGET/` has what real guests said, what a hostile one might, and
//! every input that has ever broken a parser. All of it is tried first, then
//! changed copies of it for a few seconds. Beside "does not panic" each target
//! states what its text, its memory and its files must be like, and no input
//! may take longer than a second.
//!
//! - `NLRIG_FUZZ_SECONDS=600` makes it last so long, for each target;
//! - `NLRIG_FUZZ_SEED=7` chooses other inputs. The same seed and the same corpus
//!   make the same inputs in the same order.
//!
//! An input that breaks something is written into the corpus, so that the next
//! run begins with it.

mod bytes;
mod engine;
mod json;
mod memory;
mod mutate;
mod random;
mod target;

use engine::fuzz;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

#[test]
fn events() {
    let dir = tempfile::tempdir().unwrap();
    fuzz("events", 64 << 20, |input| target::events::check(dir.path(), input));
}

#[test]
fn console() {
    let dir = tempfile::tempdir().unwrap();
    fuzz("console", 8 << 20, |input| target::console::check(dir.path(), input));
}

#[test]
fn look() {
    let plans = target::look::plans();
    fuzz("look", 256 << 20, |input| target::look::check(&plans, input));
}

#[test]
fn monitor() {
    let symbols = target::monitor::symbols();
    fuzz("monitor", 128 << 20, |input| target::monitor::check(&symbols, input));
}
