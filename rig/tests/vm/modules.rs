//! Modules that are not the rig's: a tutorial's with its own Makefile, several,
//! objects that were built before, and those that do not compile or load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::exec::{Outcome, check, nlrig, says};

pub fn tests() -> Vec<Trial> {
    let test = |name: &str, body: fn() -> Outcome| Trial::test(format!("modules/{name}"), body);
    vec![
        test("i386/tutorial", || tutorial("i386", "-m32")),
        test("ia32/tutorial", || tutorial("ia32", "-m32")),
        test("x86_64/tutorial", || tutorial("x86_64", "-m64")),
        test("x86_64/symbols-and-parameters", symbols_and_parameters),
        test("x86_64/object", object),
        test("x86_64/object-of-another-kernel", object_of_another_kernel),
        test("x86_64/does-not-compile", does_not_compile),
        test("i386/refused", refused),
        test("x86_64/not-loaded-unasked", not_loaded_unasked),
        test("run/another-module-is-refused", another_module_in_run),
        test("build/environment", environment),
    ]
}

/// A module whose init function is this, with further lines above.
fn source(above: &str, init: &str) -> String {
    format!(
        "#include <linux/module.h>\n{above}\nstatic int __init start(void)\n{{\n\t{init}\n}}\n\
         module_init(start);\nstatic void __exit stop(void) {{ }}\nmodule_exit(stop);\n\
         MODULE_LICENSE(\"GPL\");\n"
    )
}

/// A folder with a module of this name and a Makefile, as tutorials have it.
fn folder(dir: &Path, folder: &str, name: &str, text: &str) -> Result<PathBuf, Failed> {
    let folder = dir.join(folder);
    fs::create_dir_all(&folder)?;
    let makefile = format!(
        "obj-m += {name}.o\nall:\n\tmake -C /lib/modules/$(shell uname -r)/build M=$(PWD) modules\n"
    );
    fs::write(folder.join("Makefile"), makefile)?;
    fs::write(folder.join(format!("{name}.c")), text)?;
    Ok(folder)
}

fn run(command: &mut Command, dir: &Path) -> Result<Output, Failed> {
    Ok(command.current_dir(dir).output()?)
}

/// The example, in a folder with a blank, among what an older build has left.
fn tutorial(abi: &str, width: &str) -> Outcome {
    let dir = tempfile::tempdir()?;
    let module = dir.path().join("hello netlink");
    fs::create_dir(&module)?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello-netlink");
    for file in ["Makefile", "hello_nl.c", "hello_nl.h", "client.c"] {
        fs::copy(example.join(file), module.join(file))?;
    }
    fs::write(module.join("hello_nl.o"), "not an object")?;
    fs::write(module.join(".hello_nl.o.cmd"), "not a rule")?;
    let compiled = Command::new("gcc")
        .args(["-Wall", "-Wextra", "-Werror", "-static", width, "-o", "client", "client.c"])
        .current_dir(&module)
        .status()?;
    assert!(compiled.success());
    let mut exec = nlrig();
    exec.args(["--abi", abi, "--module", ".", "--module-param", "hello_nl.greeting=good day"]);
    let output = run(exec.args(["--", "./client", "world"]), &module)?;
    check("it succeeds", output.status.success(), &output)?;
    check("the module answers", output.stdout == b"good day, world\n", &output)?;
    let left = fs::read_dir(&module)?.count();
    check("nothing is built in the user's folder", left == 7, &output)
}

const LIBRARY: &str = "int answer(void) { return 42; }\nEXPORT_SYMBOL_GPL(answer);";
const USER: &str = "int answer(void);\nstatic int number = 1;\nmodule_param(number, int, 0444);\n\
                    static void unused_and_warned_about(void) { }";

/// Two folders: the second uses what the first exports, and warns.
fn symbols_and_parameters() -> Outcome {
    let dir = tempfile::tempdir()?;
    folder(dir.path(), "lib", "the-library", &source(LIBRARY, "return 0;"))?;
    let init = "pr_info(\"answer %d\\n\", answer() + number + EXTRA); return 0;";
    folder(dir.path(), "user", "user", &source(USER, init))?;
    let arguments = ["--module", "lib", "--module", "user", "--module-param", "user.number=7"];
    let script = "cat /sys/module/user/parameters/number; \
                  lsmod | cut -d ' ' -f 1; dmesg | grep -o 'answer [0-9]*'";
    let mut exec = nlrig();
    exec.args(arguments).args(["--module-make", "KCFLAGS=-DEXTRA=1000", "--"]);
    let output = run(exec.args(["sh", "-c", script]), dir.path())?;
    check("it succeeds", output.status.success(), &output)?;
    let expected = "7\nModule\nuser\nthe_library\nanswer 1049\n";
    check("both are loaded", output.stdout == expected.as_bytes(), &output)?;
    says(&output, "unused_and_warned_about")?;

    let mut exec = nlrig();
    exec.args(arguments).args(["--module-make", "KCFLAGS=-DEXTRA=1000"]);
    exec.args(["--module-param", "user.nummer=8", "--", "true"]);
    let output = run(&mut exec, dir.path())?;
    check("a parameter that does not exist is a slip", output.status.code() == Some(2), &output)?;
    says(&output, "it has number")
}

/// `nlrig build module` of a folder: the path of the object and its hash.
fn built(dir: &Path, command: &mut Command) -> Result<(String, String), Failed> {
    command.args(["--json", "--abi", "x86_64", "--module"]);
    let output = command.arg(dir).stdin(Stdio::null()).output()?;
    check("it builds", output.status.success(), &output)?;
    let artifacts: Value = serde_json::from_slice(&output.stdout)?;
    let text = |key: &str| artifacts[0][key].as_str().unwrap_or_default().to_string();
    Ok((text("path"), text("sha256")))
}

fn build() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nlrig"));
    command.args(["build", "module"]);
    command
}

fn object() -> Outcome {
    let dir = tempfile::tempdir()?;
    let module = folder(dir.path(), "x", "prebuilt", &source("", "return 0;"))?;
    let (object, _) = built(&module, &mut build())?;
    fs::copy(object, dir.path().join("pre built.ko"))?;
    let mut exec = nlrig();
    exec.args(["--module", "pre built.ko", "--", "cat", "/sys/module/prebuilt/initstate"]);
    let output = run(&mut exec, dir.path())?;
    check("it succeeds", output.status.success(), &output)?;
    check("it is loaded", output.stdout == b"live\n", &output)
}

/// Found before anything is booted.
fn object_of_another_kernel() -> Outcome {
    let dir = tempfile::tempdir()?;
    let module = folder(dir.path(), "x", "prebuilt", &source("", "return 0;"))?;
    let (object, _) = built(&module, &mut build())?;
    let bytes = fs::read(object)?;
    let magic = b"vermagic=6.";
    let at = bytes.windows(magic.len()).position(|part| part == magic).ok_or("a vermagic")?;
    let mut other = bytes.clone();
    other[at + magic.len() - 2] = b'5';
    fs::write(dir.path().join("other.ko"), other)?;
    let output = run(nlrig().args(["--module", "other.ko", "--", "true"]), dir.path())?;
    check("it is refused", output.status.code() == Some(125), &output)?;
    says(&output, "built for \"5.")?;
    says(&output, "the guest kernel is \"6.")?;
    fs::write(dir.path().join("text.ko"), "not an object")?;
    let output = run(nlrig().args(["--module", "text.ko", "--", "true"]), dir.path())?;
    check("it is refused", output.status.code() == Some(125), &output)?;
    says(&output, "text.ko: not a kernel module")
}

fn does_not_compile() -> Outcome {
    let dir = tempfile::tempdir()?;
    folder(dir.path(), "x", "broken", &source("", "return nothing;"))?;
    let output = run(nlrig().args(["--module", "x", "--", "true"]), dir.path())?;
    check("it is the rig's status", output.status.code() == Some(125), &output)?;
    says(&output, "module x for 6.")?;
    says(&output, ": broken.c:")?;
    says(&output, "error: 'nothing' undeclared")
}

/// The kernel's error and the module's own words, at a level that the console does
/// not show. The module behind it is not tried.
fn refused() -> Outcome {
    let dir = tempfile::tempdir()?;
    let init = "pr_info(KBUILD_MODNAME \": no such device here\\n\"); return -ENODEV;";
    folder(dir.path(), "x", "picky", &source("", init))?;
    folder(dir.path(), "y", "next", &source("", "return 0;"))?;
    let mut exec = nlrig();
    exec.args(["--abi", "i386", "--module", "x", "--module", "y", "--", "echo", "ran"]);
    let output = run(&mut exec, dir.path())?;
    check("it is the guest's fault", output.status.code() == Some(99), &output)?;
    check("the command is not run", output.stdout.is_empty(), &output)?;
    says(&output, "refused to load the module picky: No such device (ENODEV)")?;
    says(&output, "picky: no such device here")
}

fn not_loaded_unasked() -> Outcome {
    let loaded = ["sh", "-c", "lsmod | tail -n +2 | cut -d ' ' -f 1"];
    let output = nlrig().arg("--").args(loaded).output()?;
    check("no module is loaded", output.stdout.is_empty() && output.status.success(), &output)?;
    let output = nlrig().args(["--module", "rig", "--"]).args(loaded).output()?;
    check("the rig's own is, if asked for", output.stdout == b"nlrig\n", &output)
}

fn another_module_in_run() -> Outcome {
    let dir = tempfile::tempdir()?;
    folder(dir.path(), "x", "other", &source("", "return 0;"))?;
    let experiment = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nlrig"));
        command.arg("run").args(arguments).args(["--abi", "x86_64", "--module", "x", "--out", "o"]);
        run(command.stdin(Stdio::null()), dir.path())
    };
    let output = experiment(&["smoke"])?;
    check("smoke needs the rig's own", output.status.code() == Some(2), &output)?;
    says(&output, "--module rig")?;
    let output = experiment(&["module"])?;
    check("a substitute has its name", output.status.code() == Some(2), &output)?;
    says(&output, "must be called nlrig, not other")
}

/// Variables that Kbuild, make and gcc read: none of them changes what is built.
const VARIABLES: [(&str, &str); 16] = [
    ("ARCH", "arm64"),
    ("CC", "false"),
    ("CPATH", "/nowhere"),
    ("CROSS_COMPILE", "aarch64-linux-gnu-"),
    ("GCC_EXEC_PREFIX", "/nowhere/"),
    ("INSTALL_MOD_PATH", "/nowhere"),
    ("KBUILD_BUILD_USER", "somebody"),
    ("KBUILD_EXTMOD", "/nowhere"),
    ("KBUILD_OUTPUT", "/nowhere"),
    ("KBUILD_VERBOSE", "1"),
    ("KCFLAGS", "-DLEAKED -O3"),
    ("KCONFIG_CONFIG", "/nowhere/.config"),
    ("LLVM", "1"),
    ("MAKEFLAGS", "B"),
    ("O", "/nowhere"),
    ("W", "123"),
];

fn environment() -> Outcome {
    // Of this run's own, so that it is compiled and not found.
    let unique = std::process::id();
    let text = format!("int unique_{unique};\n#ifdef LEAKED\nint leaked;\n#endif");
    let dir = tempfile::tempdir()?;
    let module = folder(dir.path(), "x", "plain", &source(&text, "return 0;"))?;
    let cache = nlrig::cache::Cache::open()?;
    let (path, plain) = built(&module, &mut build())?;
    let entry = Path::new(&path).parent().ok_or("an entry")?;
    assert!(entry.starts_with(cache.root()));
    fs::remove_dir_all(entry)?;
    let (again, altered) = built(&module, build().envs(VARIABLES))?;
    assert_eq!(again, path, "the key does not depend on the environment");
    assert_eq!(altered, plain, "nor does what is built");
    Ok(())
}
