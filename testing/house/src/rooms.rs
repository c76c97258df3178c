//! Rooms are the files and folders directly below a crate's `src`. They have an order, and a room imports only rooms
//! below it.
//!
//! `rooms.txt` has a section for each crate, with the top first; rooms in one line do not import each other. The root
//! of a crate (`lib.rs`, `main.rs`) is above all rooms and is not listed. A module inside a room can be listed as
//! `room/module`. It is then a separate room.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::Import;
use crate::repository::Violation;

/// The file with the orders.
pub const FILE: &str = "testing/house/rooms.txt";

/// The layers of each section, the highest first.
#[derive(Debug, PartialEq, Eq)]
pub struct Orders {
    sections: BTreeMap<String, Vec<Vec<String>>>,
}

impl Orders {
    /// Parses `[section]` lines and the lines of names below each.
    pub fn parse(text: &str) -> Self {
        let mut sections: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("").trim();
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                current = name.to_owned();
                sections.entry(current.clone()).or_default();
            } else if !line.is_empty() {
                let layer = line.split_whitespace().map(str::to_owned).collect();
                sections.entry(current.clone()).or_default().push(layer);
            }
        }
        Self { sections }
    }

    /// The layers of a section, the highest first.
    pub fn section(&self, name: &str) -> Option<&[Vec<String>]> {
        self.sections.get(name).map(Vec::as_slice)
    }

    /// The layer of `name` in `section`, from the top.
    pub fn depth(&self, section: &str, name: &str) -> Option<usize> {
        self.section(section)?.iter().position(|layer| layer.iter().any(|room| room == name))
    }

    /// The room of a module: the longest listed room that contains it, otherwise its first name. None for the root.
    fn room_of<'a>(&self, section: &str, module: &'a str) -> Option<&'a str> {
        let ends = module.rmatch_indices('/').map(|(end, _)| end);
        let mut holding = std::iter::once(module.len()).chain(ends).map(|end| &module[..end]);
        let written = holding.find(|room| self.depth(section, room).is_some());
        written.or_else(|| first_name(module)).filter(|room| !room.is_empty())
    }
}

/// The module of a file, as `room/module`; empty for the root.
fn module_of<'a>(folder: &str, file: &'a str) -> Option<&'a str> {
    let below = file.strip_prefix(folder)?.strip_prefix("/src/")?.strip_suffix(".rs")?;
    let module = below.strip_suffix("/mod").unwrap_or(below);
    Some(if matches!(module, "lib" | "main") { "" } else { module })
}

/// The module that an import leads to, which can be inline in the root's file; empty for the root itself.
fn module_below(import: &Import) -> String {
    import.name.rsplit_once("::").map_or("", |(module, _)| module).replace("::", "/")
}

fn first_name(module: &str) -> Option<&str> {
    module.split('/').next().filter(|room| !room.is_empty())
}

/// Every import that does not lead to a lower room, every room that is missing from `orders`, and every listed room
/// that does not exist. `modules` are the modules of the crate, as `room/module`.
pub fn check(folder: &str, modules: &BTreeSet<String>, imports: &[Import], orders: &Orders) -> Vec<Violation> {
    let mut violations = Vec::new();
    for room in modules.iter().filter(|module| !module.contains('/')) {
        if orders.depth(folder, room).is_none() {
            let message = format!("`{room}` is not in {FILE}: write below [{folder}] where it belongs");
            violations.push(Violation::new(&format!("{folder}/src/{room}"), 0, message));
        }
    }
    for room in orders.section(folder).into_iter().flatten().flatten() {
        if !modules.contains(room) {
            violations.push(Violation::new(FILE, 0, format!("{folder} has no room `{room}`: take it out")));
        }
    }
    for import in imports {
        let below = module_below(import);
        let from = module_of(folder, &import.from).and_then(|module| orders.room_of(folder, module));
        let to = orders.room_of(folder, &below);
        let upwards = match (from, to) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(from), Some(to)) => match (orders.depth(folder, from), orders.depth(folder, to)) {
                (Some(above), Some(below)) => from != to && above >= below,
                _ => false,
            },
        };
        if upwards {
            let message = format!(
                "`{}` imports `{}` from {}, which is not below it in {FILE}",
                from.unwrap_or("root"),
                import.name,
                to.map_or_else(|| import.to.clone(), |room| format!("`{room}`")),
            );
            violations.push(Violation::new(&import.from, import.line, message));
        }
    }
    violations
}

/// An order that agrees with the current imports, with each room as low as possible. None if there is a circle.
pub fn suggest(folder: &str, rooms: &BTreeSet<&str>, imports: &[Import]) -> Option<Vec<Vec<String>>> {
    let mut left = rooms.clone();
    let pairs: BTreeSet<(&str, &str)> = imports
        .iter()
        .filter_map(|import| {
            let to = import.name.split("::").next().filter(|room| !room.is_empty())?;
            Some((first_name(module_of(folder, &import.from)?)?, to))
        })
        .filter(|(from, to)| from != to)
        .collect();
    let mut layers = Vec::new();
    while !left.is_empty() {
        let layer: Vec<&str> = left
            .iter()
            .copied()
            .filter(|room| !pairs.iter().any(|(from, to)| from == room && left.contains(to)))
            .collect();
        if layer.is_empty() {
            return None;
        }
        left.retain(|room| !layer.contains(room));
        layers.insert(0, layer.into_iter().map(str::to_owned).collect());
    }
    Some(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "[a] # a crate\nb\nc d\n";

    fn import(from: &str, to: &str) -> Import {
        let path = |file: &str| format!("a/src/{file}.rs");
        let name = if to == "lib" { "::X".to_owned() } else { format!("{}::X", to.replace('/', "::")) };
        Import { from: path(from), to: path(to), line: 1, name }
    }

    fn found(imports: &[Import]) -> usize {
        check("a", &modules(&["b", "c", "d"]), imports, &Orders::parse(ORDER)).len()
    }

    fn modules(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn imports_downwards_and_within_a_room_are_fine() {
        assert_eq!(found(&[import("b/mod", "c"), import("b/x", "b"), import("lib", "b")]), 0);
    }

    #[test]
    fn planted_imports_upwards_sideways_and_from_the_root_are_found() {
        assert_eq!(found(&[import("c", "b/x")]), 1);
        assert_eq!(found(&[import("c", "d")]), 1);
        assert_eq!(found(&[import("c", "lib")]), 1);
    }

    #[test]
    fn a_room_in_the_file_of_the_root_is_a_room() {
        let inline = |from| Import { to: "a/src/lib.rs".to_owned(), ..import(from, "c") };
        assert_eq!(found(&[inline("b/x")]), 0);
        assert_eq!(found(&[inline("d")]), 1);
    }

    #[test]
    fn a_room_that_is_not_written_and_one_that_is_gone_are_found() {
        assert_eq!(check("a", &modules(&["b", "c", "e"]), &[], &Orders::parse(ORDER)).len(), 2);
    }

    #[test]
    fn a_module_that_is_written_is_a_room_of_its_own() {
        let orders = Orders::parse("[a]\nb c\nb/low\n");
        let modules = modules(&["b", "b/low", "b/other", "c"]);
        let found = |imports: &[Import]| check("a", &modules, imports, &orders).len();
        assert_eq!(found(&[import("b/other", "b/low"), import("b/mod", "b/low"), import("c", "b/low")]), 0);
        assert_eq!(found(&[import("b/low", "b/other")]), 1, "it is below the rest of its room");
        assert_eq!(found(&[import("c", "b/other")]), 1, "its line is not that of its room");
        let gone = Orders::parse("[a]\nb c\nb/low b/gone\n");
        assert_eq!(check("a", &modules, &[], &gone).len(), 1);
    }

    #[test]
    fn a_suggested_order_is_one_that_holds() {
        let rooms = ["b", "c", "d"].into();
        let imports = [import("b", "c"), import("b", "d")];
        assert_eq!(suggest("a", &rooms, &imports), Some(vec![vec!["b".into()], vec!["c".into(), "d".into()]]));
        assert_eq!(suggest("a", &rooms, &[import("b", "c"), import("c", "b")]), None);
    }
}
