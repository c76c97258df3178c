//! Limits the length of files, functions and names of tests, and the number of fields in a struct of the coordinator.
//!
//! Test files, `#[cfg(test)]` modules and generated code have no limit of length. Clippy's `too_many_lines` also limits
//! functions, but without blank lines and comments, which count here.

use std::collections::BTreeSet;

use crate::lexer::{self, Kind, Token};
use crate::repository::{File, Violation};

/// The largest number of lines in a file, without tests.
pub const FILE_LINES: usize = 499;
/// The largest number of lines in a function, with its signature.
pub const FUNCTION_LINES: usize = 60;
/// The largest number of characters in a test's name.
pub const TEST_NAME: usize = 60;
/// The largest number of fields in a struct of the coordinator.
pub const FIELDS: usize = 15;

/// All violations of the limits.
pub fn check(files: &[File]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| !is_generated(&file.path)) {
        if is_counted(&file.path) {
            let lines = lines_without_tests(&file.text);
            if lines > FILE_LINES {
                let message =
                    format!("{lines} lines without tests, and {FILE_LINES} are allowed: split it by what it owns");
                violations.push(Violation::new(&file.path, 0, message));
            }
        }
        if file.has_extension(".rs") {
            let tokens = lexer::tokens(&file.text);
            functions(&file.path, &tokens, &mut violations);
            test_names(&file.path, &tokens, &mut violations);
            if file.path.starts_with("coordinator/src/") {
                fields(&file.path, &tokens, &mut violations);
            }
        }
    }
    violations
}

fn is_generated(path: &str) -> bool {
    path.contains("/generated/")
}

fn is_counted(path: &str) -> bool {
    let counted = [".rs", ".proto", ".py"].iter().any(|extension| path.ends_with(extension));
    let test = path.split('/').any(|folder| folder == "tests") || path.ends_with("/tests.rs");
    counted && !test
}

/// A test module starts at the left margin and ends with the next brace there.
fn lines_without_tests(text: &str) -> usize {
    let mut counted = 0;
    let mut skipping = false;
    let mut held = false;
    for line in text.lines() {
        if skipping {
            skipping = line != "}";
        } else if held && line.ends_with('{') && line.split_whitespace().any(|word| word == "mod") {
            counted -= 1;
            skipping = true;
        } else {
            counted += 1;
            held = line == "#[cfg(test)]";
            continue;
        }
        held = false;
    }
    counted
}

fn functions(path: &str, tokens: &[Token], violations: &mut Vec<Violation>) {
    for (at, token) in tokens.iter().enumerate() {
        if token.word() != Some("fn") {
            continue;
        }
        let Some(name) = tokens.get(at + 1).and_then(Token::word) else { continue };
        let Some(open) = body(tokens, at) else { continue };
        let lines = tokens[lexer::closing(tokens, open)].line - token.line + 1;
        if lines > FUNCTION_LINES {
            let message = format!("`{name}` has {lines} lines, and {FUNCTION_LINES} are allowed: name its steps");
            violations.push(Violation::new(path, token.line, message));
        }
    }
}

/// The brace that opens the body of the item at `at`; None if the item ends with a semicolon.
fn body(tokens: &[Token], mut at: usize) -> Option<usize> {
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Sign(';') => return None,
            Kind::Sign('{') => return Some(at),
            Kind::Sign('(' | '[') => at = lexer::closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    None
}

/// Whether a function is a test: it has an attribute whose path ends in `test`.
fn test_names(path: &str, tokens: &[Token], violations: &mut Vec<Violation>) {
    let mut at = 0;
    let mut is_test = false;
    while at < tokens.len() {
        if let Some(end) = lexer::attribute(tokens, at) {
            let head = tokens[at..end].iter().take_while(|token| !token.is('(')).filter_map(Token::word).last();
            is_test |= head == Some("test");
            at = end;
            continue;
        }
        match tokens[at].word() {
            Some("fn") => {
                if let Some(name) = tokens.get(at + 1).and_then(Token::word)
                    && is_test
                    && name.len() > TEST_NAME
                {
                    let message =
                        format!("`{name}` has {} characters, and {TEST_NAME} are allowed in a test's name", name.len());
                    violations.push(Violation::new(path, tokens[at].line, message));
                }
                is_test = false;
            }
            Some("async" | "pub" | "unsafe") => {}
            _ => is_test = false,
        }
        at += 1;
    }
}

fn fields(path: &str, tokens: &[Token], violations: &mut Vec<Violation>) {
    for (at, token) in tokens.iter().enumerate() {
        if token.word() != Some("struct") {
            continue;
        }
        let (Some(name), Some(open)) = (tokens.get(at + 1).and_then(Token::word), body(tokens, at)) else { continue };
        let count = field_names(tokens, open).len();
        if count > FIELDS {
            let message = format!("`{name}` has {count} fields, and {FIELDS} are allowed: find the owners in it");
            violations.push(Violation::new(path, token.line, message));
        }
    }
}

/// The names before a single colon at the top level of the braces.
fn field_names(tokens: &[Token], open: usize) -> BTreeSet<&str> {
    let end = lexer::closing(tokens, open);
    let mut names = BTreeSet::new();
    let mut at = open + 1;
    let mut expecting = true;
    while at < end {
        if let Some(end) = lexer::attribute(tokens, at) {
            at = end;
            continue;
        }
        match &tokens[at].kind {
            Kind::Sign('(' | '[' | '{') => at = lexer::closing(tokens, at),
            Kind::Word(name) if expecting && tokens[at + 1].is(':') && !tokens[at + 2].is(':') => {
                names.insert(&**name);
                expecting = false;
            }
            // A comma in angle brackets is followed by a type, and no single colon follows a type.
            Kind::Sign(',') => expecting = true,
            _ => {}
        }
        at += 1;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&[File::new(path, text)]).into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn a_planted_long_file_is_found_and_its_tests_do_not_count() {
        let code = "const A: u8 = 1;\n".repeat(FILE_LINES);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    const B: u8 = 1;\n".repeat(50));
        assert!(found("a/src/b.rs", &format!("{code}{tests}")).is_empty());
        assert_eq!(found("a/src/b.rs", &format!("{code}\n{tests}")).len(), 1);
        assert!(found("a/tests/b.rs", &format!("{code}\n{tests}")).is_empty());
    }

    #[test]
    fn a_planted_long_function_is_found() {
        let function =
            |lines| format!("trait T {{ fn g(&self); }}\nfn f() -> [u8; 2] {{\n{}}}\n", "    g();\n".repeat(lines));
        assert!(found("a/src/b.rs", &function(FUNCTION_LINES - 2)).is_empty());
        assert_eq!(found("a/src/b.rs", &function(FUNCTION_LINES - 1)).len(), 1);
    }

    #[test]
    fn a_planted_long_name_of_a_test_is_found() {
        let named = |attribute, length| format!("{attribute} async fn {}() {{}}", "n".repeat(length));
        assert!(found("a/src/b.rs", &named("#[test]", TEST_NAME)).is_empty());
        assert_eq!(found("a/src/b.rs", &named("#[tokio::test(flavor = \"x\")] #[ignore]", TEST_NAME + 1)).len(), 1);
        assert!(found("a/src/b.rs", &named("#[inline]", TEST_NAME + 1)).is_empty());
    }

    #[test]
    fn a_planted_struct_with_too_many_fields_is_found() {
        let fields = |count: usize| {
            let fields: String =
                (0..count).map(|n| format!("#[serde(default)] pub f{n}: Map<a::B, (C, D)>,\n")).collect();
            format!("pub struct S<T: Copy> {{ {fields} }}")
        };
        assert!(found("coordinator/src/b.rs", &fields(FIELDS)).is_empty());
        assert_eq!(found("coordinator/src/b.rs", &fields(FIELDS + 1)).len(), 1);
        assert!(found("cli/src/b.rs", &fields(FIELDS + 1)).is_empty());
    }
}
