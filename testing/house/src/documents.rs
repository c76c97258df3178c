//! Documents: the length of the README, the targets of links and anchors, the book's table of contents, and the
//! existence of commands.

use std::collections::{BTreeMap, BTreeSet};

use crate::markdown::{self, Page};
use crate::repository::{File, Violation};

/// The largest number of lines in the README.
pub const README_LINES: usize = 150;
/// The sources of the book.
pub const BOOK: &str = "docs/src/";
/// The generated page of commands: headings with `antiphon …`, and the flags below each.
pub const COMMANDS: &str = "docs/src/reference/commands.md";

/// All violations in the documents.
pub fn check(files: &[File]) -> Vec<Violation> {
    let pages: BTreeMap<&str, Page> = files
        .iter()
        .filter(|file| file.has_extension(".md"))
        .map(|file| (&*file.path, markdown::read(&file.text)))
        .collect();
    let mut violations = length(files);
    for (path, page) in &pages {
        links(path, page, &pages, files, &mut violations);
    }
    contents(&pages, &mut violations);
    match files.iter().find(|file| file.path == COMMANDS) {
        Some(file) => {
            let commands = Commands::parse(&file.text);
            for (path, page) in &pages {
                commands.check(path, page, &mut violations);
            }
        }
        None => violations.push(Violation::new(COMMANDS, 0, "is not there, and says which commands exist")),
    }
    violations.sort();
    violations
}

fn length(files: &[File]) -> Vec<Violation> {
    let readme = files.iter().filter(|file| file.path == "README.md");
    let long = readme.map(|file| file.text.lines().count()).filter(|lines| *lines > README_LINES);
    long.map(|lines| Violation::new("README.md", 0, format!("{lines} lines, and {README_LINES} are allowed"))).collect()
}

fn links(path: &str, page: &Page, pages: &BTreeMap<&str, Page>, files: &[File], violations: &mut Vec<Violation>) {
    for (line, link) in &page.links {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (target, anchor) = link.split_once('#').map_or((&**link, None), |(target, anchor)| (target, Some(anchor)));
        let Some(target) = resolve(path, target) else {
            violations.push(Violation::new(path, *line, format!("`{link}` leads out of the repository")));
            continue;
        };
        let folder = format!("{}/", target.trim_end_matches('/'));
        let exists =
            files.iter().any(|file| file.path == target || file.path.starts_with(&folder)) || target.is_empty();
        if !exists {
            violations.push(Violation::new(path, *line, format!("`{link}` leads to {target}, which is not there")));
        } else if path.starts_with(BOOK) && !target.starts_with(BOOK) {
            let message = format!("`{link}` leads out of {BOOK}, where the book has nothing");
            violations.push(Violation::new(path, *line, message));
        } else if let (Some(anchor), Some(page)) = (anchor, pages.get(&*target))
            && !page.anchors.iter().any(|known| known == anchor)
        {
            violations.push(Violation::new(path, *line, format!("`{link}`: {target} has no heading `#{anchor}`")));
        }
    }
}

/// The path that `target` refers to on the page at `path`; None if it is outside the repository.
fn resolve(path: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(path.to_owned());
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Checks that every page of the book is in the table of contents.
fn contents(pages: &BTreeMap<&str, Page>, violations: &mut Vec<Violation>) {
    let summary = format!("{BOOK}SUMMARY.md");
    let Some(page) = pages.get(&*summary) else { return };
    let listed: BTreeSet<String> = page.links.iter().filter_map(|(_, link)| resolve(&summary, link)).collect();
    for path in pages.keys().filter(|path| path.starts_with(BOOK) && **path != summary) {
        if !listed.contains(*path) {
            violations.push(Violation::new(path, 0, format!("is not in {summary}")));
        }
    }
}

/// Commands and their flags.
struct Commands {
    flags: BTreeMap<Vec<String>, BTreeSet<String>>,
}

impl Commands {
    fn parse(text: &str) -> Self {
        let mut flags: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
        let mut current: Vec<String> = Vec::new();
        for line in text.lines() {
            if line.starts_with('#') {
                let words: Vec<&str> = line.trim_matches(['#', ' ', '`']).split_whitespace().collect();
                let named = words.first() == Some(&"antiphon");
                current = if named { words[1..].iter().map(|word| (*word).to_owned()).collect() } else { Vec::new() };
            }
            let found = flags.entry(current.clone()).or_default();
            for word in line.split(|char: char| !char.is_ascii_alphanumeric() && char != '-') {
                if word.starts_with("--") && word.len() > 2 {
                    found.insert(word.to_owned());
                }
            }
        }
        Self { flags }
    }

    fn check(&self, path: &str, page: &Page, violations: &mut Vec<Violation>) {
        for block in page.blocks.iter().filter(|block| is_shell(&block.tag)) {
            // A command of several lines counts for its first line.
            let mut joined = String::new();
            for (at, line) in block.text.lines().enumerate() {
                joined.push_str(line.trim_end_matches('\\'));
                if !line.ends_with('\\') {
                    self.check_line(path, block.line + at + 1, &joined, violations);
                    joined.clear();
                }
            }
        }
        for (line, span) in page.spans.iter().filter(|(_, span)| span.starts_with("antiphon ")) {
            self.check_line(path, *line, span, violations);
        }
    }

    fn check_line(&self, path: &str, line: usize, text: &str, violations: &mut Vec<Violation>) {
        for arguments in invocations(text) {
            let given = arguments.iter().take_while(|word| is_name(word)).cloned().collect::<Vec<_>>();
            let command =
                (0..=given.len()).rev().map(|length| &given[..length]).find(|name| self.flags.contains_key(*name));
            let command = command.unwrap_or(&[]);
            if let Some(first) = given.first()
                && command.is_empty()
                && first != "help"
            {
                violations.push(Violation::new(path, line, format!("`antiphon {first}` is no command")));
                continue;
            }
            for flag in arguments.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                let flag = flag.split('=').next().unwrap_or(flag);
                let known = |name: &[String]| self.flags.get(name).is_some_and(|flags| flags.contains(flag));
                if !known(command) && !known(&[]) && !matches!(flag, "--help" | "--version") {
                    let message = format!("`antiphon {}` has no flag `{flag}`", command.join(" "));
                    violations.push(Violation::new(path, line, message));
                }
            }
        }
    }
}

fn is_shell(tag: &str) -> bool {
    matches!(tag.split(',').next(), Some("sh" | "bash" | "console"))
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|char| char.is_ascii_lowercase() || char == '-') && !word.starts_with('-')
}

/// The arguments of each call of `antiphon` in a line of shell.
fn invocations(text: &str) -> Vec<Vec<String>> {
    let words = shell_words(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let program = words[at].rsplit('/').next() == Some("antiphon") && !words[at].starts_with('-');
        let cargo = words[at] == "cargo" && words.get(at + 1).is_some_and(|word| word == "run");
        at += 1;
        if program && at > 1 && !is_before_command(&words[at - 2]) {
            continue;
        }
        let ends = |word: &String| matches!(&**word, "|" | "||" | "&&" | ";" | "&" | ">" | ">>" | "2>" | "do" | "done");
        let rest: Vec<String> = words[at..].iter().take_while(|word| !ends(word)).cloned().collect();
        if program {
            found.push(rest.into_iter().take_while(|word| word != "--").collect());
        } else if cargo
            && let Some(dashes) = rest.iter().position(|word| word == "--")
            && !rest[..dashes].iter().any(|word| matches!(&**word, "-p" | "--package" | "--example"))
        {
            found.push(rest[dashes + 1..].to_vec());
        }
    }
    found
}

/// Whether a word can precede a command: a separator, an assignment, a prompt or a program that runs another.
fn is_before_command(word: &str) -> bool {
    let assignment =
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|char| char.is_ascii_uppercase() || char == '_'));
    assignment || matches!(word, "|" | "||" | "&&" | ";" | "&" | "do" | "then" | "$" | "time" | "exec" | "nohup" | "!")
}

/// Splits at white space outside of quotation marks. Separators are separate words, and a comment ends the line.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for char in text.chars() {
        let last = words.len() - 1;
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (None, '\'' | '"') => quote = Some(char),
            (None, '#') if words[last].is_empty() => break,
            (None, ';' | '|' | '&' | '(' | ')') => {
                if words[last].is_empty() || matches!(&*words[last], "|" | "&") {
                    words[last].push(char);
                } else {
                    words.push(char.to_string());
                }
                if matches!(char, ';' | '(' | ')') {
                    words.push(String::new());
                }
            }
            (None, _) if char.is_whitespace() => words.push(String::new()),
            _ => words[last].push(char),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str =
        "# Commands\n`--log LEVEL`\n## `antiphon run`\n- `--set KEY=VALUE`\n## antiphon data synth\n`--train N`\n";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
        files.push(File::new(COMMANDS, REFERENCE));
        check(&files).iter().map(ToString::to_string).collect()
    }

    fn commands(block: &str) -> Vec<String> {
        found(&[("a.md", &format!("```sh\n{block}\n```\n"))])
    }

    #[test]
    fn a_planted_long_readme_is_found() {
        assert!(found(&[("README.md", &"x\n".repeat(README_LINES))]).is_empty());
        assert_eq!(found(&[("README.md", &"x\n".repeat(README_LINES + 1))]).len(), 1);
    }

    #[test]
    fn planted_dead_links_and_anchors_are_found() {
        let page = "# A\n## B c\n[1](#b-c) [2](#b) [3](d/e.md#f) [4](d/e.md#g) [5](h.md) [6](../x.md) [7](https://y.z/#w) [8](d)";
        let found = found(&[("a.md", page), ("d/e.md", "# F\n[up](../a.md)")]);
        assert_eq!(found.len(), 4, "{found:#?}");
        for dead in ["#b`", "d/e.md#g", "h.md", "../x.md"] {
            assert!(found.iter().any(|line| line.contains(dead)), "{dead}: {found:#?}");
        }
    }

    #[test]
    fn a_page_that_the_book_does_not_list_is_found() {
        let listed = format!("- [a](a.md)\n- [c]({})", "reference/commands.md");
        let found = found(&[
            ("docs/src/SUMMARY.md", &listed),
            ("docs/src/a.md", ""),
            ("docs/src/b.md", "[x](../../c.md)"),
            ("c.md", ""),
        ]);
        assert_eq!(found.len(), 2, "{found:#?}");
    }

    #[test]
    fn planted_commands_and_flags_that_do_not_exist_are_found() {
        assert_eq!(commands("antiphon walk").len(), 1);
        assert_eq!(commands("antiphon run job.yaml --sets a=b").len(), 1);
        assert_eq!(commands("A=b antiphon data synth x \\\n  --train 3 --tests 4 | jq --raw").len(), 1);
        assert_eq!(commands("cargo run --release -- run a.yaml --log debug --bad").len(), 1);
        assert_eq!(found(&[("a.md", "Type `antiphon walk x`.")]).len(), 1);
    }

    #[test]
    fn commands_and_flags_that_exist_are_fine() {
        let block = "antiphon run job.yaml --set \"a={b: --c}\" --log=info # --no\ncargo install --path cli\nls antiphon --x\nantiphon --version\nantiphon help run";
        assert!(commands(block).is_empty(), "{:#?}", commands(block));
    }
}
