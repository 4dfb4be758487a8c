//! Names for addresses in a kernel: its `System.map`.

use std::fs;
use std::path::Path;

use nlrig_host::{Context, Result};

/// A function is not longer than this; what lies further behind the last
/// symbol is a module's.
const FUNCTION_MAX_BYTES: u64 = 1 << 20;

/// The functions of one kernel, by address.
#[derive(Debug)]
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads a `System.map`: a line a symbol, with address, type and name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Symbols> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Symbols::parse(&text))
    }

    fn parse(text: &str) -> Symbols {
        let mut symbols: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                let kind = words.next()?;
                let name = words.next()?;
                matches!(kind, "t" | "T" | "w" | "W").then(|| (address, name.to_string()))
            })
            .collect();
        symbols.sort_unstable();
        Symbols(symbols)
    }

    /// `function+0x1a`, or the bare address where no function is known.
    pub fn name(&self, address: u64) -> String {
        let after = self.0.partition_point(|(start, _)| *start <= address);
        match after.checked_sub(1).and_then(|at| self.0.get(at)) {
            Some((start, name)) if address - start < FUNCTION_MAX_BYTES => {
                format!("{name}+{:#x}", address - start)
            }
            _ => format!("{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_function_before_it() {
        let symbols = Symbols::parse(
            "c1000000 T _text\nc1000040 t spin\nc1000050 D data\nnonsense\nc1000060 W weak\n",
        );
        assert_eq!(symbols.name(0xc1000048), "spin+0x8");
        assert_eq!(symbols.name(0xc1000058), "spin+0x18");
        assert_eq!(symbols.name(0xc1000060), "weak+0x0");
        assert_eq!(symbols.name(0xbfffffff), "0xbfffffff");
        assert_eq!(symbols.name(0xf8000000), "0xf8000000");
    }
}
