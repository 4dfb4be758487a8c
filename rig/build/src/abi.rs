//! The three ways to run a program, and the two kernels they need.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a program is and what it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Abi {
    /// A 32-bit program on a 32-bit kernel.
    #[serde(rename = "i386")]
    I386,
    /// A 32-bit program on a 64-bit kernel.
    #[serde(rename = "ia32")]
    Ia32,
    /// A 64-bit program on a 64-bit kernel.
    #[serde(rename = "x86_64")]
    X86_64,
}

/// What a kernel is built for, by the name that Kbuild's `ARCH=` and QEMU's
/// binaries use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// 32 bits.
    #[serde(rename = "i386")]
    I386,
    /// 64 bits.
    #[serde(rename = "x86_64")]
    X86_64,
}

impl Abi {
    /// All of them, in the order in which tables are printed.
    pub const ALL: [Abi; 3] = [Abi::I386, Abi::Ia32, Abi::X86_64];

    /// The kernel that runs it.
    pub fn kernel(self) -> Arch {
        match self {
            Abi::I386 => Arch::I386,
            Abi::Ia32 | Abi::X86_64 => Arch::X86_64,
        }
    }

    /// The kind of program it is.
    pub fn program(self) -> Arch {
        match self {
            Abi::I386 | Abi::Ia32 => Arch::I386,
            Abi::X86_64 => Arch::X86_64,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Abi::I386 => "i386",
            Abi::Ia32 => "ia32",
            Abi::X86_64 => "x86_64",
        }
    }
}

impl Arch {
    /// Both of them.
    pub const ALL: [Arch; 2] = [Arch::I386, Arch::X86_64];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Arch::I386 => "i386",
            Arch::X86_64 => "x86_64",
        }
    }

    /// The Rust target of programs for it: static, and glibc's, because musl
    /// does not take a thread's stack size from RLIMIT_STACK.
    pub fn rust_target(self) -> &'static str {
        match self {
            Arch::I386 => "i686-unknown-linux-gnu",
            Arch::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }

    /// The distribution's name of it.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::I386 => "i386",
            Arch::X86_64 => "amd64",
        }
    }
}

impl std::str::FromStr for Abi {
    type Err = String;

    fn from_str(text: &str) -> Result<Abi, String> {
        let names = || Abi::ALL.map(Abi::name).join(", ");
        let found = Abi::ALL.into_iter().find(|abi| abi.name() == text);
        found.ok_or_else(|| format!("no ABI \"{text}\": there is {}", names()))
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
