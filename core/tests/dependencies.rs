//! Core stays pure: its whole dependency tree is on a list, and adding a name is a decision.

use std::collections::BTreeSet;
use std::process::Command;

/// The direct dependencies of core.
const DIRECT: &[&str] =
    &["gemm", "pulp", "rand_chacha", "rand_core", "rayon", "saphyr-parser", "serde", "serde_json", "sha2", "thiserror"];

/// Their dependencies, on every processor and operating system that we build for. No runtime, no network, no device, no
/// clock, no random numbers from the operating system (`getrandom`, `rand`).
const TRANSITIVE: &[&str] = &[
    "antiphon-core",
    // gemm
    "bitflags",
    "bytemuck",
    "cfg-if",
    "dyn-stack",
    "dyn-stack-macros",
    "gemm-c32",
    "gemm-c64",
    "gemm-common",
    "gemm-f32",
    "gemm-f64",
    "libm",
    "num-complex",
    "num-traits",
    "once_cell",
    "paste",
    "pulp-wasm-simd-flag",
    "raw-cpuid",
    "reborrow",
    "seq-macro",
    // rand_chacha
    "ppv-lite86",
    "zerocopy",
    "zerocopy-derive",
    // rayon: only threads that the caller starts, and those of its global pool
    "crossbeam-deque",
    "crossbeam-epoch",
    "crossbeam-utils",
    "either",
    "rayon-core",
    // saphyr-parser
    "arraydeque",
    "thiserror-impl",
    // serde
    "itoa",
    "memchr",
    "proc-macro2",
    "quote",
    "serde_core",
    "serde_derive",
    "syn",
    "unicode-ident",
    "zmij",
    // sha2
    "block-buffer",
    "const-oid",
    "cpufeatures",
    "crypto-common",
    "digest",
    "hybrid-array",
    "libc",
    "typenum",
];

fn tree(depth: Option<u32>) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["tree", "--package", "antiphon-core", "--edges", "normal", "--prefix", "none", "--offline"]);
    if let Some(depth) = depth {
        cargo.args(["--depth", &depth.to_string()]);
    }
    let output = cargo.output().expect("the cargo that built this test runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names of crates are text");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn core_depends_on_these_crates_and_no_other() {
    let unknown: Vec<String> =
        tree(Some(1)).into_iter().filter(|name| name != "antiphon-core" && !DIRECT.contains(&&**name)).collect();
    assert!(unknown.is_empty(), "core/Cargo.toml names {unknown:?}: core needs no other crate than {DIRECT:?}");
}

#[test]
fn everything_below_core_is_on_the_list() {
    let unknown: Vec<String> =
        tree(None).into_iter().filter(|name| !DIRECT.contains(&&**name) && !TRANSITIVE.contains(&&**name)).collect();
    assert!(
        unknown.is_empty(),
        "core now depends on {unknown:?}: leave them out, or put them on the list in {} if they know of no runtime, \
         network, device, clock or ambient randomness",
        file!()
    );
}
