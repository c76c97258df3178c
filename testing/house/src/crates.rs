//! Dependencies between the crates of the workspace. Each crate depends only on crates below it in section `[crates]`
//! of `rooms.txt`. Crates that must not know the wire depend on no crate of the wire, not even indirectly.

use std::path::Path;
use std::process::Command;

use crate::repository::{File, Violation};
use crate::rooms::{self, Orders};

/// The section of `rooms.txt` with the order of the crates.
pub const SECTION: &str = "crates";
/// The section of `rooms.txt` with the crates that must not know the wire.
pub const NO_WIRE: &str = "no wire";
/// The crates of the wire.
pub const WIRE: &[&str] = &["tonic", "prost", "hyper", "h2", "reqwest"];

/// The package in a `Cargo.toml`, with its dependencies in the workspace.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The folder that the file is in.
    pub folder: String,
    /// The name of the package.
    pub name: String,
    /// Dependencies in the workspace, without dev-dependencies.
    pub needs: Vec<String>,
}

/// The manifests of the workspace's members.
pub fn manifests(files: &[File]) -> Vec<Manifest> {
    let Some(root) = files.iter().find(|file| file.path == "Cargo.toml") else { return Vec::new() };
    let members = root.text.split_once("members = [").map_or("", |(_, rest)| rest);
    let members = members.split(']').next().unwrap_or("").split('"').skip(1).step_by(2);
    let file = |member: &str| files.iter().find(|file| file.path == format!("{member}/Cargo.toml"));
    members.filter_map(|member| Some(manifest(member, &file(member)?.text))).collect()
}

fn manifest(folder: &str, text: &str) -> Manifest {
    let mut manifest = Manifest { folder: folder.to_owned(), name: String::new(), needs: Vec::new() };
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let key = key.trim().split('.').next().unwrap_or("");
        let normal =
            section == "dependencies" || (section.starts_with("target.") && section.ends_with(".dependencies"));
        if section == "package" && key == "name" {
            manifest.name = value.trim().trim_matches('"').to_owned();
        } else if normal && key.starts_with("antiphon") {
            manifest.needs.push(key.to_owned());
        }
    }
    manifest
}

/// Every dependency that does not lead down, every crate that is missing from the order, and every listed crate that
/// does not exist.
pub fn check(manifests: &[Manifest], orders: &Orders) -> Vec<Violation> {
    let mut violations = Vec::new();
    for Manifest { folder, name, needs } in manifests {
        let path = format!("{folder}/Cargo.toml");
        let Some(from) = orders.depth(SECTION, name) else {
            let message = format!("`{name}` is not in [{SECTION}] of {}: write where it belongs", rooms::FILE);
            violations.push(Violation::new(&path, 0, message));
            continue;
        };
        for need in needs {
            if orders.depth(SECTION, need).is_none_or(|to| to <= from) {
                let message = format!("`{name}` needs `{need}`, which is not below it in {}", rooms::FILE);
                violations.push(Violation::new(&path, 0, message));
            }
        }
    }
    for name in orders.section(SECTION).into_iter().flatten().flatten() {
        if !manifests.iter().any(|manifest| manifest.name == *name) {
            violations.push(Violation::new(rooms::FILE, 0, format!("there is no crate `{name}`: take it out")));
        }
    }
    violations
}

/// The crates of the wire among all dependencies of `name`.
///
/// # Errors
///
/// The message of cargo, if it fails.
pub fn wire_below(root: &Path, name: &str) -> Result<Vec<String>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut tree = Command::new(cargo);
    tree.current_dir(root).args(["tree", "--package", name, "--edges", "normal", "--prefix", "none", "--offline"]);
    let output = tree.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(wire_in(&String::from_utf8_lossy(&output.stdout)))
}

fn wire_in(tree: &str) -> Vec<String> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut found: Vec<String> = names.filter(|name| WIRE.contains(name)).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "[crates]\nantiphon\nantiphon-a antiphon-b\n";

    fn found(a: &str) -> usize {
        let files = [
            File::new("Cargo.toml", "[workspace]\nmembers = [\"cli\", \"a\", \"b\"]\n"),
            File::new(
                "cli/Cargo.toml",
                "[package]\nname = \"antiphon\"\n[dependencies]\nantiphon-a = { path = \"../a\" }\n",
            ),
            File::new("a/Cargo.toml", &format!("[package]\nname = \"antiphon-a\"\n{a}\n")),
            File::new("b/Cargo.toml", "[package]\nname = \"antiphon-b\"\n"),
        ];
        check(&manifests(&files), &Orders::parse(ORDER)).len()
    }

    #[test]
    fn planted_arrows_sideways_and_upwards_are_found() {
        assert_eq!(found("[dependencies]\nantiphon-b.workspace = true"), 1);
        assert_eq!(found("[target.'cfg(unix)'.dependencies]\nantiphon.workspace = true"), 1);
        assert_eq!(found("[dependencies]\nserde.workspace = true\n[dev-dependencies]\nantiphon-b.workspace = true"), 0);
    }

    #[test]
    fn a_crate_that_the_order_lacks_is_found() {
        let files = [
            File::new("Cargo.toml", "members = [\"c\"]"),
            File::new("c/Cargo.toml", "[package]\nname = \"antiphon-c\""),
        ];
        assert_eq!(check(&manifests(&files), &Orders::parse("[crates]\nantiphon-c\n")).len(), 0);
        assert_eq!(check(&manifests(&files), &Orders::parse("[crates]\nantiphon\n")).len(), 2);
    }

    #[test]
    fn a_planted_wire_is_found() {
        assert_eq!(wire_in("antiphon-data v0.1.0 (/x)\nserde v1.0.0\nprost v0.14.0\nprost v0.14.0 (*)\n"), ["prost"]);
    }
}
