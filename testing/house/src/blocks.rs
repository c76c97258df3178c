//! Runs the code blocks of the documents that can be run.
//!
//! A block tagged `sh,run` is run by bash, the blocks of one page one after the other in one folder, which begins with a copy
//! of `examples/`. A block tagged `yaml,check` is a job file, which `antiphon check` accepts.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::markdown::{self, Block};
use crate::repository::{File, Violation};

/// Runs every block in a folder of its page below `scratch`, with `program`, which is `antiphon`, first in `PATH`.
///
/// # Errors
///
/// Where a folder cannot be made or bash cannot be started.
pub fn run(root: &Path, files: &[File], program: &Path, scratch: &Path) -> io::Result<(usize, Vec<Violation>)> {
    let mut count = 0;
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.has_extension(".md")) {
        let page = markdown::read(&file.text);
        let blocks: Vec<&Block> = page.blocks.iter().filter(|block| script(block).is_some()).collect();
        if blocks.is_empty() {
            continue;
        }
        let folder = scratch.join(file.path.replace('/', "-"));
        copy(&root.join("examples"), &folder.join("examples"))?;
        for block in blocks {
            count += 1;
            let output = run_block(block, &folder, program)?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                let message = format!(
                    "this block fails ({}): {}",
                    output.status,
                    last.into_iter().rev().collect::<Vec<_>>().join("\n    ")
                );
                violations.push(Violation::new(&file.path, block.line, message));
                break;
            }
        }
    }
    Ok((count, violations))
}

/// What bash is to run, where the block can be run.
fn script(block: &Block) -> Option<&str> {
    match &*block.tag {
        "sh,run" => Some(&block.text),
        "yaml,check" => Some("antiphon check block.yaml"),
        _ => None,
    }
}

fn run_block(block: &Block, folder: &Path, program: &Path) -> io::Result<Output> {
    if block.tag == "yaml,check" {
        fs::write(folder.join("block.yaml"), &block.text)?;
    }
    let beside = program.parent().unwrap_or(Path::new("."));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(beside.to_owned()).chain(std::env::split_paths(&path)));
    let path = path.map_err(io::Error::other)?;
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script(block).unwrap_or_default()]);
    bash.current_dir(folder).env("PATH", path).stdin(Stdio::null()).output()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                copy(&entry.path(), &target)?;
            }
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
