//! Tests the code blocks of README and book: blocks that begin with ` ```sh,run ` must run, and blocks that begin with
//! ` ```yaml,check ` must be valid jobs.
//!
//! The blocks of a page run in order and share a folder. It holds `examples/`, and the latest job as `job.yaml`, so
//! that a command can use the job above it. Commands find `antiphon` on their PATH. Processes that a block leaves in
//! the background end with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::reference::root;

/// A block of code that is tested.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    /// The line of the page in which the block begins.
    line: usize,
    kind: Kind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commands,
    Job,
}

#[test]
fn code_blocks_of_the_documentation_work() {
    let mut pages = vec![root().join("README.md")];
    pages_below(&root().join("docs/src"), &mut pages);
    let wrong: Vec<String> = pages.iter().flat_map(|page| try_page(page)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_block_that_does_not_work_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.md");
    let text = "A page.\n\n```sh,run\necho it works\n```\n\n```sh,run\necho it does not >&2; exit 3\n```\n\n```yaml,check\nname: x\n```\n";
    std::fs::write(&page, text).expect("a page");
    let wrong = try_page(&page);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(
        wrong[0].contains("page.md:7: ended with exit status: 3") && wrong[0].contains("it does not"),
        "{}",
        wrong[0]
    );
    assert!(
        wrong[1].contains("page.md:11: ended with exit status: 2") && wrong[1].contains("modalities"),
        "{}",
        wrong[1]
    );
}

#[test]
fn blocks_are_found_where_they_begin() {
    let text = "```sh\nnot tried\n```\n- in a list\n\n  ```yaml,check\n  name: a\n\n    b: c\n  ```\n````text\n```sh,run\nnot tried\n```\n````\n";
    let job = Block { line: 6, kind: Kind::Job, text: "name: a\n\n  b: c\n".to_owned() };
    assert_eq!(blocks(text), Ok(vec![job]));
    assert_eq!(blocks("```sh,runs\n```\n"), Err("1: `sh,runs` is neither `sh,run` nor `yaml,check`".to_owned()));
    assert_eq!(blocks("```sh,run\nls\n"), Err("1: the block has no end".to_owned()));
}

/// Every page below a folder, in the order of their names.
fn pages_below(folder: &Path, pages: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            pages_below(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// The errors of a page's blocks.
fn try_page(page: &Path) -> Vec<String> {
    let name = page.strip_prefix(root()).unwrap_or(page).display().to_string();
    let text = std::fs::read_to_string(page).expect("a page");
    let blocks = match blocks(&text) {
        Ok(blocks) => blocks,
        Err(reason) => return vec![format!("{name}:{reason}")],
    };
    if blocks.is_empty() {
        return Vec::new();
    }
    let folder = tempfile::tempdir().expect("a folder");
    copy(&root().join("examples"), &folder.path().join("examples"));
    let tried = blocks.iter().map(|block| (block.line, try_block(block, folder.path())));
    tried.filter_map(|(line, tried)| tried.err().map(|reason| format!("{name}:{line}: {reason}"))).collect()
}

fn try_block(block: &Block, folder: &Path) -> Result<(), String> {
    let mut program = match block.kind {
        Kind::Commands => {
            let mut bash = Command::new("bash");
            let script = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}", block.text);
            bash.args(["-euo", "pipefail", "-c", &script]);
            bash
        }
        Kind::Job => {
            std::fs::write(folder.join("job.yaml"), &block.text).expect("a job");
            let mut check = Command::new(env!("CARGO_BIN_EXE_antiphon"));
            check.args(["check", "job.yaml"]);
            check
        }
    };
    let said = tempfile::NamedTempFile::new().expect("a file");
    let output = || Stdio::from(File::options().append(true).open(said.path()).expect("a file"));
    program.current_dir(folder).env("PATH", path()).env_remove("RUST_LOG");
    program.stdin(Stdio::null()).stdout(output()).stderr(output());
    let status = program.status().expect("it starts");
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(said.path()).expect("what it said");
    let last: Vec<&str> = said.lines().rev().take(20).collect();
    let last: Vec<String> = last.into_iter().rev().map(|line| format!("    {line}")).collect();
    Err(format!("ended with {status}:\n{}\n{}", indented(&block.text), last.join("\n")))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  > {line}\n")).collect()
}

/// The search path, with the folder of the program first.
fn path() -> std::ffi::OsString {
    let program = Path::new(env!("CARGO_BIN_EXE_antiphon"));
    let own = program.parent().expect("it is in a folder").to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&others))).expect("a search path")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(path, to).expect("a copy");
        }
    }
}

/// The blocks of a page that are tested. Fences may be indented, as in lists, and longer than three characters.
fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let inner = line.trim_start();
        let (indent, info) = (line.len() - inner.len(), inner.trim_start_matches('`'));
        let fence = &inner[..inner.len() - info.len()];
        if fence.len() < 3 {
            continue;
        }
        let mut code = String::new();
        let closed = lines.by_ref().map(|(_, line)| line).any(|line| {
            let is_end = line.trim() == fence;
            if !is_end {
                code += line.get(indent..).unwrap_or(line.trim_start());
                code.push('\n');
            }
            is_end
        });
        let line = number + 1;
        let kind = match info.trim() {
            "sh,run" => Kind::Commands,
            "yaml,check" => Kind::Job,
            info if info.contains(',') && (info.starts_with("sh") || info.starts_with("yaml")) => {
                return Err(format!("{line}: `{info}` is neither `sh,run` nor `yaml,check`"));
            }
            _ => continue,
        };
        if !closed {
            return Err(format!("{line}: the block has no end"));
        }
        blocks.push(Block { line, kind, text: code });
    }
    Ok(blocks)
}
