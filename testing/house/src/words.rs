//! Retired words: terms that have a better one, and old forms.
//!
//! `words.txt` has one rule per line: alternatives with `|` between them, then `->` and the replacement. A pattern of
//! words matches in every text file, ignoring case: in prose, across line ends, and in the words of identifiers
//! (`LapsedSeat`, `lapsed_seat`). `word !next` does not match before `next`. A pattern in backticks is for words that
//! are common in prose: it matches only whole identifiers, in code and between backticks, with the same case. `only
//! folder/:` before the patterns restricts a rule to files below a folder.
//!
//! `words-allowed.txt` lists exceptions: `path: words : reason`; a path that ends in `/` is a folder.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{self, Token};
use crate::repository::{File, Violation};

/// One retired form.
#[derive(Debug)]
struct Retired {
    shape: Shape,
    /// The pattern, as in the list.
    name: String,
    instead: String,
    /// Folders that the rule applies to; empty means all.
    folders: Vec<String>,
}

#[derive(Debug)]
enum Shape {
    Words { words: Vec<String>, not_before: Option<String> },
    Identifier(String),
}

/// The list and its exceptions.
#[derive(Debug)]
pub struct Words {
    retired: Vec<Retired>,
    /// Exceptions: path and pattern.
    allowed: Vec<(String, String)>,
}

impl Words {
    /// Reads both lists.
    ///
    /// # Errors
    ///
    /// The first line that cannot be parsed.
    pub fn parse(list: &str, allowed: &str) -> Result<Self, String> {
        let mut retired = Vec::new();
        for line in entries(list) {
            let (patterns, instead) = line.split_once("->").ok_or_else(|| line.to_owned())?;
            let (folders, patterns) = match patterns.trim().strip_prefix("only ").and_then(|rest| rest.split_once(": "))
            {
                Some((folders, patterns)) => (folders.split_whitespace().map(str::to_owned).collect(), patterns),
                None => (Vec::new(), patterns),
            };
            for name in patterns.split('|').map(str::trim) {
                let shape = shape(name).ok_or_else(|| line.to_owned())?;
                let (name, instead) = (name.to_owned(), instead.trim().to_owned());
                retired.push(Retired { shape, name, instead, folders: Vec::clone(&folders) });
            }
        }
        let mut exceptions = Vec::new();
        for line in entries(allowed) {
            let (path, rest) = line.split_once(": ").ok_or_else(|| line.to_owned())?;
            let (names, reason) = rest.rsplit_once(" : ").ok_or_else(|| line.to_owned())?;
            if reason.trim().is_empty() {
                return Err(line.to_owned());
            }
            exceptions.extend(names.split('|').map(|name| (path.to_owned(), name.trim().to_owned())));
        }
        Ok(Self { retired, allowed: exceptions })
    }

    /// Every retired form in `files`, including their paths, and every unnecessary exception.
    pub fn check(&self, files: &[File]) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut used = BTreeSet::new();
        for file in files.iter().filter(|file| is_read(&file.path)) {
            for (line, retired) in self.found(file) {
                let exception = self.allowed.iter().position(|(path, name)| {
                    let inside = if path.ends_with('/') { file.path.starts_with(&**path) } else { file.path == *path };
                    inside && (*name == retired.name || name == "*")
                });
                match exception {
                    Some(exception) => {
                        used.insert(exception);
                    }
                    None => {
                        let message =
                            format!("`{}` is retired: write {}", retired.name.trim_matches('`'), retired.instead);
                        violations.push(Violation::new(&file.path, line, message));
                    }
                }
            }
        }
        for (at, (path, name)) in self.allowed.iter().enumerate() {
            if !used.contains(&at) {
                let message = format!("allows `{name}` in {path}, which is not there: take it out");
                violations.push(Violation::new(ALLOWED, 0, message));
            }
        }
        violations.sort();
        violations
    }

    fn found(&self, file: &File) -> Vec<(usize, &Retired)> {
        let mut found = Vec::new();
        let applies = |retired: &&Retired| {
            retired.folders.is_empty() || retired.folders.iter().any(|folder| file.path.starts_with(&**folder))
        };
        let mut by_first_word: BTreeMap<&str, Vec<&Retired>> = BTreeMap::new();
        for retired in self.retired.iter().filter(applies) {
            let first = match &retired.shape {
                Shape::Words { words, .. } => &words[0],
                Shape::Identifier(name) => name,
            };
            by_first_word.entry(first).or_default().push(retired);
        }
        let mut words = words_of(&file.path, 0);
        words.extend(words_of(&file.text, 1));
        for (at, word) in words.iter().enumerate() {
            for retired in by_first_word.get(&*word.text).into_iter().flatten() {
                if let Shape::Words { words: wanted, not_before } = &retired.shape
                    && stands_at(&words, at, wanted, not_before.as_deref())
                {
                    found.push((word.line, *retired));
                }
            }
        }
        for (line, identifier) in identifiers_of(file) {
            let retired = by_first_word.get(&*identifier).into_iter().flatten();
            let whole = retired.filter(|retired| matches!(retired.shape, Shape::Identifier(_)));
            found.extend(whole.map(|retired| (line, *retired)));
        }
        found
    }
}

/// Path of the list of exceptions.
pub const ALLOWED: &str = "testing/house/words-allowed.txt";

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn shape(name: &str) -> Option<Shape> {
    if let Some(identifier) = name.strip_prefix('`') {
        return Some(Shape::Identifier(identifier.strip_suffix('`')?.to_owned()));
    }
    let mut words: Vec<String> = name.split_whitespace().map(str::to_owned).collect();
    let not_before = match words.last()?.strip_prefix('!') {
        Some(next) => {
            let next = next.to_owned();
            words.pop();
            Some(next)
        }
        None => None,
    };
    (!words.is_empty()).then_some(Shape::Words { words, not_before })
}

/// Whether a file is checked. The lists themselves and files of other authors or programs are not.
fn is_read(path: &str) -> bool {
    let skipped = ["testing/house/words.txt", ALLOWED, "LICENSE", "Cargo.lock"];
    !skipped.contains(&path) && !path.ends_with(".svg")
}

/// A word in prose or in an identifier.
struct Word {
    line: usize,
    text: String,
    /// Whether only white space, comment marks or the separator of an identifier is between this word and the previous
    /// one.
    joined: bool,
}

fn stands_at(words: &[Word], at: usize, wanted: &[String], not_before: Option<&str>) -> bool {
    let Some(window) = words.get(at..at + wanted.len()) else { return false };
    let same = window.iter().zip(wanted).all(|(word, wanted)| word.text == *wanted);
    let joined = window.iter().skip(1).all(|word| word.joined);
    let next = words.get(at + wanted.len()).filter(|next| next.joined);
    same && joined && next.is_none_or(|next| Some(&*next.text) != not_before)
}

fn words_of(text: &str, first_line: usize) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut line = first_line;
    let mut gap = String::new();
    let mut current = String::new();
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(char) = chars.next() {
        let next_is_lower = chars.peek().is_some_and(|next| next.is_lowercase());
        let hump = char.is_uppercase() && (before.is_lowercase() || (before.is_uppercase() && next_is_lower));
        if (!char.is_alphanumeric() || hump) && !current.is_empty() {
            words.push(Word { line, text: std::mem::take(&mut current), joined: joins(&gap) });
            gap.clear();
        }
        if char.is_alphanumeric() {
            current.extend(char.to_lowercase());
        } else {
            gap.push(char);
        }
        line += usize::from(char == '\n');
        before = char;
    }
    if !current.is_empty() {
        words.push(Word { line, text: current, joined: joins(&gap) });
    }
    words
}

fn joins(gap: &str) -> bool {
    let comment = gap.contains('\n') && gap.chars().all(|char| char.is_whitespace() || "/!#*>\\".contains(char));
    gap.is_empty() || comment || gap.chars().all(char::is_whitespace) || matches!(gap, "_" | "-" | "'" | "’")
}

/// Whole identifiers in code and between backticks.
fn identifiers_of(file: &File) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if file.has_extension(".rs") || file.has_extension(".proto") {
        let word = |token: &Token| Some((token.line, token.word()?.to_owned()));
        found.extend(lexer::tokens(&file.text).iter().filter_map(word));
    }
    for (at, line) in file.text.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        let identifiers = quoted.flat_map(|quoted| quoted.split(|char: char| !char.is_alphanumeric() && char != '_'));
        found.extend(identifiers.filter(|name| !name.is_empty()).map(|name| (at + 1, name.to_owned())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# a comment\nreign|reigns -> term\nno more !than -> no longer\n`Part`|`parts` -> file\nonly cli/: cast -> processes\n";

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let words = Words::parse(LIST, "").expect("a list");
        words.found(&File::new(path, text)).into_iter().map(|(line, retired)| (line, retired.name.clone())).collect()
    }

    #[test]
    fn planted_words_are_found_in_prose_and_in_identifiers() {
        for text in
            ["the Reign of", "is_reign()", "ReignEnds", "REIGN_ENDS", "endReign", "HTTPReign", "`reign`", "/reign/"]
        {
            assert_eq!(found("a.md", text).len(), 1, "{text}");
        }
        for text in ["sovereign", "reigning", "foreign"] {
            assert!(found("a.md", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_phrase_is_found_over_the_end_of_a_line() {
        assert_eq!(found("a.rs", "x\n/// there is no\n/// more of it"), [(2, "no more !than".to_owned())]);
        assert!(found("a.md", "no more than three, no. More").is_empty());
    }

    #[test]
    fn everyday_words_are_found_as_identifiers_only() {
        assert_eq!(found("a.rs", "// a Part of it\nstruct Part { parts: Parts }").len(), 2);
        assert_eq!(found("a.md", "Part of the `parts`, and `a.parts`\nparts").len(), 2);
    }

    #[test]
    fn a_line_can_be_for_one_folder() {
        assert_eq!(found("cli/src/cast.rs", "cast").len(), 2);
        assert!(found("core/src/cast.rs", "cast").is_empty());
    }

    #[test]
    fn an_exception_holds_for_its_path_and_must_be_needed() {
        let words = Words::parse(LIST, "a/: reign : a name\nb.md: reigns|`Part` : quoted").expect("lists");
        let files = [File::new("a/b.md", "reign"), File::new("b.md", "reign\nreigns")];
        let lines: Vec<String> = words.check(&files).iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("b.md:1: `reign` is retired"), "{lines:?}");
        assert!(lines[1].contains("take it out"), "{lines:?}");
    }

    #[test]
    fn a_line_without_a_replacement_or_a_reason_is_refused() {
        assert!(Words::parse("reign", "").is_err());
        assert!(Words::parse(LIST, "a.md: reign").is_err());
    }
}
