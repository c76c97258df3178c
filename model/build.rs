//! Compiles the CUDA kernels, where the feature `cuda` asks for them; without it there is nothing to do.
//!
//! `nvcc` is that of `$NVCC`, `$CUDA_HOME/bin` or the PATH. `CUDA_COMPUTE_CAP` (`80` or `8.0`) is the oldest kind of
//! GPU that the program is for; without it, the kind that `nvidia-smi` finds.

#![allow(clippy::print_stdout, reason = "cargo reads what a build script prints")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What `common.cuh` calls NUMBER, COMPUTED and SUFFIX.
const NUMBERS: [(&str, &str, &str); 3] =
    [("float", "float", "f32"), ("double", "double", "f64"), ("Bf16", "float", "bf16")];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=src/nn/cuda");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where to"));
    let architecture = format!("--gpu-architecture=compute_{}", compute_capability());
    for (number, computed, suffix) in NUMBERS {
        let mut nvcc = Command::new(nvcc());
        nvcc.args(["--ptx", "-std=c++17", "-O3", &architecture]);
        nvcc.args([format!("-DNUMBER={number}"), format!("-DCOMPUTED={computed}"), format!("-DSUFFIX={suffix}")]);
        nvcc.arg("src/nn/cuda/kernels.cu").arg("-o").arg(out.join(format!("kernels_{suffix}.ptx")));
        let status = nvcc.status().unwrap_or_else(|error| {
            panic!("the feature `cuda` needs nvcc, NVIDIA's compiler ({error}): put it on the PATH, or set CUDA_HOME")
        });
        assert!(status.success(), "nvcc could not compile the kernels: {nvcc:?}");
    }
}

fn nvcc() -> PathBuf {
    if let Some(path) = std::env::var_os("NVCC") {
        return path.into();
    }
    let of_home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    of_home.filter(|path| path.exists()).unwrap_or_else(|| "nvcc".into())
}

/// Such as 80.
fn compute_capability() -> u32 {
    let text = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| {
        let asked = Command::new("nvidia-smi").args(["--query-gpu=compute_cap", "--format=csv,noheader"]).output();
        asked.map_or_else(|_| String::new(), |answer| String::from_utf8_lossy(&answer.stdout).into_owned())
    });
    let kind = |line: &str| line.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u32>().ok();
    // Of several GPUs the oldest: what is made for it runs on the others.
    text.lines().filter_map(kind).min().unwrap_or_else(|| {
        panic!("set CUDA_COMPUTE_CAP to the kind of GPU that the program is for, such as 80; got `{}`", text.trim())
    })
}
