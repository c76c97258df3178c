//! Circles of files that import each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::Import;
use crate::repository::Violation;

/// Allowed circles, each with its files and the reason: one per line in `circles.txt`.
pub struct Allowed {
    circles: Vec<BTreeSet<String>>,
}

impl Allowed {
    /// Reads lines of the form `file file … : reason`. A line without a reason is an error.
    ///
    /// # Errors
    ///
    /// The first line that has no reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut circles = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once(" : ") {
                Some((files, reason)) if !reason.trim().is_empty() => {
                    circles.push(files.split_whitespace().map(str::to_owned).collect());
                }
                _ => return Err(line.to_owned()),
            }
        }
        Ok(Self { circles })
    }
}

/// Every circle that is not allowed, and every allowed circle that no longer exists.
pub fn check(imports: &[Import], allowed: &Allowed) -> Vec<Violation> {
    let found = circles(imports);
    let mut violations = Vec::new();
    for circle in &found {
        if !allowed.circles.contains(circle) {
            let inside = |import: &&Import| circle.contains(&import.from) && circle.contains(&import.to);
            for import in imports.iter().filter(inside) {
                let message = format!(
                    "imports `{}` from {}, in a circle of {} files: move what both need below both",
                    import.name,
                    import.to,
                    circle.len()
                );
                violations.push(Violation::new(&import.from, import.line, message));
            }
        }
    }
    for circle in allowed.circles.iter().filter(|circle| !found.contains(circle)) {
        let files: Vec<&str> = circle.iter().map(String::as_str).collect();
        let message = format!("allows a circle that is not there, of {}: take the line out", files.join(", "));
        violations.push(Violation::new("testing/house/circles.txt", 0, message));
    }
    violations.sort();
    violations
}

/// The strongly connected sets of files.
fn circles(imports: &[Import]) -> Vec<BTreeSet<String>> {
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        arrows.entry(&import.from).or_default().insert(&import.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = arrows.keys().map(|file| (*file, reachable(file, &arrows))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (file, below) in &reached {
        if !below.contains(file) || found.iter().any(|circle| circle.contains(*file)) {
            continue;
        }
        let circle = below.iter().filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)));
        found.push(circle.map(|file| (*file).to_owned()).collect());
    }
    found
}

fn reachable<'a>(from: &str, arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(file) = open.pop() {
        for next in arrows.get(file).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(from: &str, to: &str) -> Import {
        Import { from: from.to_owned(), to: to.to_owned(), line: 1, name: "x".to_owned() }
    }

    fn allowed(text: &str) -> Allowed {
        Allowed::parse(text).expect("lines with reasons")
    }

    #[test]
    fn a_planted_circle_is_found_and_nothing_beside_it() {
        let imports = [import("a", "b"), import("b", "c"), import("c", "b"), import("c", "d")];
        let found = check(&imports, &allowed(""));
        assert_eq!(found.iter().map(|violation| &*violation.path).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn an_allowed_circle_may_not_grow() {
        let two = [import("a", "b"), import("b", "a")];
        assert!(check(&two, &allowed("a b : one idea")).is_empty());
        let three = [import("a", "b"), import("b", "c"), import("c", "a")];
        assert!(!check(&three, &allowed("a b : one idea")).is_empty());
    }

    #[test]
    fn an_allowed_circle_that_is_gone_is_found() {
        assert_eq!(check(&[import("a", "b")], &allowed("a b : one idea")).len(), 1);
    }

    #[test]
    fn a_circle_without_a_reason_is_refused() {
        assert!(Allowed::parse("a b").is_err());
    }
}
