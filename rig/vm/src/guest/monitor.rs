//! QEMU's monitor: what is left to ask when the guest answers no more.
//!
//! QMP is JSON, an object a line: a greeting, `qmp_capabilities`, then commands
//! and their answers, with events in between (QEMU's docs/interop/qmp-spec).
//! The socket is spoken to only then; until then QEMU's greeting waits in it.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nlrig_host::Result;
use nlrig_host::{Context, bail};
use serde_json::{Value, json};

use nlrig_host::interrupt;

/// QEMU answers at once or not at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// An answer is a few KiB; the registers of 64 processors some more.
const LINE_MAX_BYTES: usize = 1 << 20;

/// More processors than any guest has; each has a place in a reason.
pub const PROCESSORS_MAX: usize = 256;

/// The rig's end of the monitor.
#[derive(Debug)]
pub struct Monitor {
    socket: UnixStream,
    answers: BufReader<UnixStream>,
    greeted: bool,
    /// An answer did not come; one that comes late must not be taken for that to
    /// another command.
    given_up: bool,
}

impl Monitor {
    /// Speaks over this socket.
    ///
    /// # Errors
    /// It is none.
    pub fn new(socket: UnixStream) -> Result<Monitor> {
        socket.set_read_timeout(Some(interrupt::POLL))?;
        socket.set_write_timeout(Some(ANSWER_LIMIT))?;
        let answers = BufReader::new(socket.try_clone()?);
        Ok(Monitor { socket, answers, greeted: false, given_up: false })
    }

    /// The instruction pointer of each processor, in their order.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn instruction_pointers(&mut self) -> Result<Vec<u64>> {
        Ok(instruction_pointers(&self.human("info registers -a")?))
    }

    /// A break on the guest's serial line: the next byte on it is a system
    /// request.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn send_break(&mut self, chardev: &str) -> Result<()> {
        self.execute("chardev-send-break", json!({ "id": chardev })).map(drop)
    }

    /// A non-maskable interrupt for every processor.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn inject_nmi(&mut self) -> Result<()> {
        self.execute("inject-nmi", json!({})).map(drop)
    }

    /// A command of the monitor for people, and what it prints.
    fn human(&mut self, line: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_string())
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        if self.given_up {
            bail!("QEMU's monitor does not answer");
        }
        if !self.greeted {
            self.greeted = true;
            self.execute("qmp_capabilities", json!({}))?;
        }
        // In one piece: a value is written word by word.
        let request = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.socket.write_all(request.as_bytes()).context("QEMU's monitor is gone")?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        while let Some(line) = self.line(deadline)? {
            let mut answer: Value = serde_json::from_slice(&line)?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU's monitor refuses {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // The greeting, or an event.
        }
        self.given_up = true;
        bail!("QEMU's monitor does not answer {command}")
    }

    /// The next line, if it is whole before the deadline: however slowly its
    /// bytes come.
    fn line(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        while Instant::now() < deadline {
            interrupt::check()?;
            let come = match self.answers.fill_buf() {
                Ok([]) => bail!("QEMU's monitor is gone"),
                Ok(come) => come,
                Err(err) if is_nothing_yet(&err) => continue,
                Err(err) => return Err(err).context("QEMU's monitor is gone"),
            };
            let end = come.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(come.len(), |end| end + 1);
            line.extend_from_slice(&come[..taken]);
            self.answers.consume(taken);
            if line.len() > LINE_MAX_BYTES {
                bail!("QEMU's monitor sent a line that is too long");
            }
            if end.is_some() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }
}

/// Whether a read has only waited for as long as it may, or a signal came.
fn is_nothing_yet(err: &std::io::Error) -> bool {
    matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// `RIP=ffffffff81000000 ...` or `EIP=c1000000 ...`, once a processor.
fn instruction_pointers(registers: &str) -> Vec<u64> {
    registers
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("RIP=").or_else(|| word.strip_prefix("EIP=")))
        .filter_map(|number| u64::from_str_radix(number, 16).ok())
        .take(PROCESSORS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pointer_a_processor() {
        let text = "\r\nCPU#0\r\nRAX=0 RBX=1\r\nRIP=ffffffff8105d2a4 RFL=00000246\r\n\
                    \r\nCPU#1\r\nRIP=ffffffff81060000 RFL=2\r\nEIP=c10 EFL=2\r\n";
        assert_eq!(instruction_pointers(text), [0xffffffff8105d2a4, 0xffffffff81060000, 0xc10]);
        assert!(instruction_pointers("RIP=xyz").is_empty());
    }

    #[test]
    fn bytes_that_come_slowly_are_no_answer() {
        let (rig, qemu) = UnixStream::pair().unwrap();
        let mut monitor = Monitor::new(rig).unwrap();
        let start = Instant::now();
        (&qemu).write_all(b"{\"return\":").unwrap();
        assert_eq!(monitor.line(start + 2 * interrupt::POLL).unwrap(), None);
        (&qemu).write_all(&vec![b' '; LINE_MAX_BYTES / 8]).unwrap();
        assert_eq!(monitor.line(start + 4 * interrupt::POLL).unwrap(), None);
        assert!(start.elapsed() < ANSWER_LIMIT);
    }

    #[test]
    fn greeting_and_events_are_passed_over() {
        let (rig, qemu) = UnixStream::pair().unwrap();
        let mut monitor = Monitor::new(rig).unwrap();
        let script =
            "{\"QMP\":{}}\n{\"return\":{}}\n{\"event\":\"STOP\"}\n{\"return\":\"EIP=c1\"}\n";
        (&qemu).write_all(script.as_bytes()).unwrap();
        assert_eq!(monitor.instruction_pointers().unwrap(), [0xc1]);
        (&qemu).write_all(b"{\"error\":{\"desc\":\"no\"}}\n").unwrap();
        assert!(monitor.inject_nmi().is_err());
        drop(qemu);
        assert!(monitor.inject_nmi().is_err());
    }
}
