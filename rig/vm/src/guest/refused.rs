//! A module that the guest kernel refused to load: the module's fault, not the
//! rig's.

use nix::errno::Errno;
use nlrig_init::protocol::RefusedModule;

use super::job::CONSOLE_LAG;
use super::{Guest, VmFailure};
use crate::outcome::{Result, Verdict};

impl Guest {
    /// The failure of a guest whose kernel refused to load a module.
    ///
    /// # Errors
    /// See [`Guest::listen_for`].
    pub fn refused_module(&mut self) -> Result<Option<VmFailure>> {
        let Some(refused) = self.ready.refused.first() else { return Ok(None) };
        let reason = reason(refused);
        // The kernel may have reported a fault before it refused the module.
        self.listen_for(CONSOLE_LAG)?;
        Ok(Some(self.with_splat(VmFailure::new(Verdict::Fail, reason))))
    }
}

/// The error of a module that was refused, and the kernel's own words if it
/// logged any.
fn reason(refused: &RefusedModule) -> String {
    let RefusedModule { name, errno, log } = refused;
    let errno = Errno::from_raw(*errno);
    let prefix = format!("{name}: ");
    let words = log.iter().rev().find(|line| line.starts_with(&prefix)).or(log.last());
    let words = words.map(|line| format!("; the kernel's log: {line}")).unwrap_or_default();
    format!(
        "the guest kernel refused to load the module {name}: {} ({errno:?}){words}",
        errno.desc()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_has_the_error_and_the_newest_line_of_the_module() {
        let refused = |log: &[&str]| RefusedModule {
            name: "hello".to_string(),
            errno: 22,
            log: log.iter().map(|line| (*line).to_string()).collect(),
        };
        let bare = reason(&refused(&[]));
        assert!(bare.ends_with("module hello: Invalid argument (EINVAL)"), "{bare}");
        let own = reason(&refused(&["hello: one", "hello: two", "loop: three"]));
        assert!(own.ends_with("log: hello: two"), "{own}");
        assert!(reason(&refused(&["a", "b"])).ends_with("log: b"));
    }
}
