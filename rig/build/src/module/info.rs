//! What a kernel module says of itself in its section `.modinfo`.

use std::fs;
use std::path::Path;

use nlrig_host::{Context, Error, ErrorKind, Result};
use object::{Object, ObjectSection};

use crate::kernel::Kernel;

/// The tags of a module, as modinfo(8) shows them.
#[derive(Clone, Debug)]
pub struct ModuleInfo {
    tags: Vec<(String, String)>,
    /// The names of the object's symbols that stand for parameters.
    parameters: Vec<String>,
}

/// Every variable of this name describes a parameter (linux/moduleparam.h).
const PARAMETER_SYMBOL: &[u8] = b"__param_str_";
/// A parameter that the kernel gives every module (lib/dynamic_debug.c).
const PARAMETER_OF_ALL: &str = "dyndbg";

impl ModuleInfo {
    /// Reads the tags of an object.
    ///
    /// # Errors
    /// It cannot be read, or is not a module; the message names it.
    pub fn read(path: &Path) -> Result<ModuleInfo> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        ModuleInfo::parse(&bytes).map_err(|reason| {
            Error::new(format!("{}: not a kernel module: {reason}", path.display()))
        })
    }

    fn parse(bytes: &[u8]) -> Result<ModuleInfo, String> {
        match bytes {
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err("compressed; run `unxz`".into()),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err("compressed; run `unzstd`".into()),
            [0x1f, 0x8b, ..] => return Err("compressed; run `gunzip`".into()),
            _ => {}
        }
        let file = object::File::parse(bytes).map_err(|err| err.to_string())?;
        let section = file.section_by_name(".modinfo").ok_or("no section .modinfo")?;
        let data = section.data().map_err(|err| err.to_string())?;
        let tags = strings(data)
            .filter_map(|tag| tag.split_once('='))
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let parameters = bytes
            .split(|&byte| byte == 0)
            .filter_map(|text| text.strip_prefix(PARAMETER_SYMBOL))
            .filter_map(|name| String::from_utf8(name.to_vec()).ok())
            .collect();
        Ok(ModuleInfo { tags, parameters })
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.tags.iter().filter(move |(tag, _)| tag == name).map(|(_, value)| value.as_str())
    }

    /// The name by which the kernel knows it.
    pub fn name(&self) -> Option<&str> {
        self.values("name").next()
    }

    /// The modules whose symbols it uses.
    pub fn depends(&self) -> impl Iterator<Item = &str> {
        self.values("depends").flat_map(|names| names.split(',')).filter(|name| !name.is_empty())
    }

    /// The parameters that it takes, as far as it describes them.
    pub fn parameters(&self) -> Vec<&str> {
        let described = self.values("parm").chain(self.values("parmtype"));
        let mut names: Vec<_> = described
            .filter_map(|text| text.split(':').next())
            .chain(self.parameters.iter().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether it takes a parameter of this name. The kernel ignores one that it
    /// does not take.
    pub fn has_parameter(&self, name: &str) -> bool {
        name == PARAMETER_OF_ALL || self.parameters().contains(&name)
    }

    /// Whether the kernel will take it for one of its own.
    ///
    /// # Errors
    /// Its version magic is not the kernel's: an error of the kind
    /// [`ErrorKind::ModuleBuild`] that has both.
    pub fn check_vermagic(&self, kernel: &Kernel) -> Result<()> {
        let image = kernel.image();
        let bytes = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
        let of_kernel = vermagic(&bytes, &kernel.version).with_context(|| {
            format!("{}: no version magic of {} in it", image.display(), kernel.version)
        })?;
        let own = self.values("vermagic").next().unwrap_or("nothing");
        if own.trim_end() == of_kernel.trim_end() {
            return Ok(());
        }
        let reason = format!(
            "built for \"{}\", but the guest kernel is \"{}\"; give the module's source folder, or --kernel-source of the kernel it is for",
            own.trim_end(),
            of_kernel.trim_end()
        );
        Err(Error::new(reason).with_kind(ErrorKind::ModuleBuild))
    }
}

/// The texts of a section of zero-terminated strings.
fn strings(data: &[u8]) -> impl Iterator<Item = &str> {
    data.split(|&byte| byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter(|text| !text.is_empty())
}

/// The version magic in a kernel's image: its release and the words of
/// VERMAGIC_STRING (linux/vermagic.h).
fn vermagic(image: &[u8], release: &str) -> Option<String> {
    let start = format!("{release} ");
    let is_words =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_- .+".contains(c));
    image
        .split(|&byte| byte == 0)
        .filter(|text| text.len() < 256)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter_map(|text| text.find(&start).map(|at| &text[at..]))
        .find(|text| is_words(text))
        .map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_magic_is_told_from_the_banner() {
        let image = b"\0Linux version 6.1.0 (nlrig@nlrig) #1 SMP\x006.1.0 SMP mod_unload 686 \0";
        assert_eq!(vermagic(image, "6.1.0").unwrap(), "6.1.0 SMP mod_unload 686 ");
        assert_eq!(vermagic(image, "6.1.1"), None);
    }

    #[test]
    fn what_is_not_a_module_is_refused_with_the_reason() {
        let refused = |bytes: &[u8]| ModuleInfo::parse(bytes).unwrap_err();
        assert!(refused(b"\xfd7zXZ\0").contains("unxz"));
        assert!(!refused(b"").is_empty() && !refused(b"\x7fELF").is_empty());
        let own = fs::read("/bin/sh").unwrap();
        assert!(refused(&own).contains(".modinfo"));
    }

    #[test]
    fn tags_are_read_by_name() {
        let info = ModuleInfo {
            tags: [
                ("name", "hello_nl"),
                ("depends", "a,b"),
                ("parmtype", "debug:bool"),
                ("parm", "debug:Be loud"),
            ]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .to_vec(),
            parameters: vec!["callback".to_string()],
        };
        assert_eq!(info.name(), Some("hello_nl"));
        assert_eq!(info.depends().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(info.parameters(), ["callback", "debug"]);
        assert!(info.has_parameter("dyndbg") && !info.has_parameter("debugg"));
    }
}
