//! Runs one command in a 32-bit guest.

use nlrig_vm::{Abi, Ended, Vm};

fn main() -> Result<(), nlrig_vm::Error> {
    let outcome = Vm::new(Abi::I386).memory(256 << 20).run(["uname", "-m"])?;
    match outcome.ended {
        Ended::Exited(0) => print!("the guest is {}", String::from_utf8_lossy(&outcome.stdout)),
        Ended::Exited(status) => println!("uname ended with status {status}"),
        Ended::Signalled(signal) => println!("signal {signal} killed uname"),
        Ended::NotStarted(reason) => println!("uname did not start: {reason}"),
        Ended::Failed(failure) => {
            println!("{}: {}", failure.verdict.name(), failure.reason);
        }
    }
    Ok(())
}
