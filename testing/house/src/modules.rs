//! The modules of one crate, and the imports between its files.
//!
//! An import is a path that starts with `crate`, `super`, `self` or the name of a module in scope, in a `use` or
//! inline. It leads to the file that *defines* the name: re-exports are followed. A re-export of a module's own
//! children is not an import, because it uses nothing. Neither is a `mod` item or the path in `pub(in …)`.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{self, Token};
use crate::repository::File;

/// A path of modules from the root of the crate; the root is empty.
type Module = Vec<String>;

/// One import.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The file with the import.
    pub from: String,
    /// The file that defines the imported item.
    pub to: String,
    /// The line in `from`.
    pub line: usize,
    /// The resolved path, for messages.
    pub name: String,
}

#[derive(Default)]
struct Scope {
    /// Names from `use`, with their paths and whether the `use` is `pub`.
    aliases: BTreeMap<String, (Module, bool)>,
    /// The paths of `use …::*`, and whether they are `pub`.
    globs: Vec<(Module, bool)>,
    /// Items that are defined here, except for modules.
    items: BTreeSet<String>,
    /// Path of the file.
    file: String,
    /// Paths, each with its line and whether it is a re-export.
    paths: Vec<(Module, usize, bool)>,
}

/// The modules of a crate.
#[derive(Default)]
pub struct Crate {
    scopes: BTreeMap<Module, Scope>,
}

impl Crate {
    /// Reads the crate whose root file (`…/src/lib.rs`) is `root`, and every module that it names.
    pub fn read(root: &str, files: &[File]) -> Self {
        let mut this = Self::default();
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        this.read_file(root, folder, Vec::new(), files);
        this
    }

    /// The modules of the root.
    pub fn rooms(&self) -> BTreeSet<&str> {
        self.scopes.keys().filter_map(|module| module.first()).map(String::as_str).collect()
    }

    /// Every module below the root, as `room/module`.
    pub fn modules(&self) -> BTreeSet<String> {
        self.scopes.keys().filter(|module| !module.is_empty()).map(|module| module.join("/")).collect()
    }

    /// Reads a module; `folder` is the folder of its children.
    fn read_file(&mut self, path: &str, folder: &str, module: Module, files: &[File]) {
        let Some(file) = files.iter().find(|file| file.path == path) else { return };
        let tokens = lexer::without_tests(&lexer::tokens(&file.text));
        self.read_module(&tokens, path, folder, module, files);
    }

    fn read_module(&mut self, tokens: &[Token], path: &str, folder: &str, module: Module, files: &[File]) {
        self.scopes.insert(module.clone(), Scope { file: path.to_owned(), ..Scope::default() });
        let mut reader =
            Reader { tokens, at: 0, public: false, depth: 0, scope: Scope::default(), children: Vec::new() };
        reader.read();
        let Reader { scope, children, .. } = reader;
        self.scopes.insert(module.clone(), Scope { file: path.to_owned(), ..scope });
        for (name, body) in children {
            let mut child = module.clone();
            child.push(name.clone());
            let below = format!("{folder}/{name}");
            if let Some((start, end)) = body {
                self.read_module(&tokens[start..end], path, &below, child, files);
                continue;
            }
            let candidates = [format!("{below}.rs"), format!("{below}/mod.rs")];
            if let Some(found) = candidates.iter().find(|path| files.iter().any(|file| file.path == **path)) {
                self.read_file(found, &below, child, files);
            }
        }
    }

    /// Every import from one file to another.
    pub fn imports(&self) -> Vec<Import> {
        let mut found = Vec::new();
        for (module, scope) in &self.scopes {
            for (path, line, exported) in &scope.paths {
                let Some(absolute) = self.absolute(module, path) else { continue };
                if *exported && absolute.starts_with(module) {
                    continue;
                }
                let Some((target, name)) = self.resolve(&absolute, 0) else { continue };
                let to = &self.scopes[&target].file;
                // A path to a module itself only names it; each use of an item in it has a separate path.
                if *to != scope.file && !name.is_empty() {
                    let name = format!("{}::{name}", target.join("::"));
                    found.push(Import { from: scope.file.clone(), to: to.clone(), line: *line, name });
                }
            }
        }
        found.sort();
        found.dedup_by(|a, b| (&a.from, &a.to, &a.name) == (&b.from, &b.to, &b.name));
        found
    }

    /// Resolves a path in `module` to one from the root of the crate. None if it leads out of the crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let mut absolute = match &**first {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            name => {
                let mut child = module.clone();
                child.push(name.to_owned());
                if self.scopes.contains_key(&child) {
                    child
                } else {
                    let (alias, _) = self.scopes[module].aliases.get(name)?;
                    if alias.first() == Some(first) {
                        return None;
                    }
                    self.absolute(module, alias)?
                }
            }
        };
        let mut rest = rest;
        while let Some((name, more)) = rest.split_first()
            && name == "super"
        {
            absolute.pop()?;
            rest = more;
        }
        absolute.extend_from_slice(rest);
        Some(absolute)
    }

    /// The module that defines the item at `path`, and the item's name in it; the name is empty if the path is a
    /// module.
    fn resolve(&self, path: &[String], depth: usize) -> Option<(Module, String)> {
        let longest = (0..=path.len()).rev().find(|length| self.scopes.contains_key(&path[..*length]))?;
        let module = path[..longest].to_vec();
        let Some(name) = path.get(longest) else { return Some((module, String::new())) };
        let scope = &self.scopes[&module];
        if depth < 16 && !scope.items.contains(name) {
            if let Some((alias, _)) = scope.aliases.get(name) {
                let mut target = self.absolute(&module, alias)?;
                target.extend_from_slice(&path[longest + 1..]);
                return self.resolve(&target, depth + 1);
            }
            for (glob, _) in &scope.globs {
                let Some(mut target) = self.absolute(&module, glob) else { continue };
                target.extend_from_slice(&path[longest..]);
                if let Some((found, item)) = self.resolve(&target, depth + 1)
                    && self.scopes[&found].items.contains(&item)
                {
                    return Some((found, item));
                }
            }
        }
        Some((module, name.clone()))
    }
}

/// Reads the tokens of one module.
struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Whether the current item is `pub`.
    public: bool,
    /// Depth of braces; items at depth 0 belong to the module.
    depth: usize,
    scope: Scope,
    /// Child modules, with the tokens of their bodies if they are inline.
    children: Vec<(String, Option<(usize, usize)>)>,
}

impl Reader<'_> {
    fn read(&mut self) {
        while self.at < self.tokens.len() {
            if let Some(end) = lexer::attribute(self.tokens, self.at) {
                self.at = end;
                continue;
            }
            let token = &self.tokens[self.at];
            match token.word() {
                Some("pub") => {
                    self.public = true;
                    self.at += 1;
                    if self.sign(0, '(') {
                        self.at = lexer::closing(self.tokens, self.at) + 1;
                    }
                    continue;
                }
                Some("use") => self.read_use(),
                Some("mod") if self.depth == 0 => self.read_mod(),
                Some("fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" | "macro_rules")
                    if self.depth == 0 =>
                {
                    self.read_item();
                }
                Some(_) => self.read_path(),
                None => {
                    if token.is('{') {
                        self.depth += 1;
                    } else if token.is('}') {
                        self.depth = self.depth.saturating_sub(1);
                    }
                    self.at += 1;
                }
            }
            self.public = false;
        }
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        self.tokens.get(self.at + ahead).and_then(Token::word)
    }

    fn sign(&self, ahead: usize, sign: char) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| token.is(sign))
    }

    fn read_item(&mut self) {
        let ahead = if self.sign(1, '!') { 2 } else { 1 };
        if let Some(name) = self.word(ahead)
            && !matches!(name, "fn" | "unsafe" | "extern" | "async" | "mut" | "_")
        {
            let name = name.to_owned();
            self.scope.items.insert(name);
            self.at += ahead;
        }
        self.at += 1;
    }

    fn read_mod(&mut self) {
        let Some(name) = self.word(1).map(str::to_owned) else {
            self.at += 1;
            return;
        };
        if self.sign(2, '{') {
            let end = lexer::closing(self.tokens, self.at + 2);
            self.children.push((name, Some((self.at + 3, end))));
            self.at = end + 1;
        } else {
            self.children.push((name, None));
            self.at += 3;
        }
    }

    fn read_use(&mut self) {
        self.at += 1;
        if self.sign(0, ':') {
            self.at += 2;
        }
        self.read_tree(Vec::new());
    }

    /// Reads one tree of a `use`, up to the `;`, `,` or `}` after it.
    fn read_tree(&mut self, mut path: Module) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        while self.at < self.tokens.len() {
            if self.sign(0, '{') {
                self.at += 1;
                while self.at < self.tokens.len() && !self.sign(0, '}') {
                    self.read_tree(path.clone());
                    self.at += usize::from(self.sign(0, ','));
                }
                self.at += 1;
                return;
            }
            if self.sign(0, '*') {
                self.at += 1;
                self.scope.globs.push((path.clone(), self.public));
                path.push("*".to_owned());
                self.scope.paths.push((path, line, self.public));
                return;
            }
            let Some(word) = self.word(0).map(str::to_owned) else { return };
            if word != "self" || path.is_empty() {
                path.push(word);
            }
            self.at += 1;
            if self.sign(0, ':') && self.sign(1, ':') {
                self.at += 2;
                continue;
            }
            let mut name = path.last().cloned();
            if self.word(0) == Some("as") {
                name = self.word(1).map(str::to_owned);
                self.at += 2;
            }
            if let Some(name) = name {
                self.scope.aliases.insert(name, (path.clone(), self.public));
            }
            self.scope.paths.push((path, line, self.public));
            return;
        }
    }

    /// Reads a path outside of a `use`, or a single word.
    fn read_path(&mut self) {
        let line = self.tokens[self.at].line;
        let inside = self.at > 1 && self.tokens[self.at - 1].is(':') && self.tokens[self.at - 2].is(':');
        let mut path: Module = self.word(0).map(str::to_owned).into_iter().collect();
        self.at += 1;
        while self.sign(0, ':')
            && self.sign(1, ':')
            && let Some(word) = self.word(2).map(str::to_owned)
        {
            path.push(word);
            self.at += 3;
        }
        if path.len() > 1 && !inside {
            self.scope.paths.push((path, line, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
        let found = Crate::read("a/src/lib.rs", &files).imports();
        let short = |path: &str| path.replace("a/src/", "").replace(".rs", "");
        found.iter().map(|import| format!("{} -> {}", short(&import.from), short(&import.to))).collect()
    }

    #[test]
    fn a_use_and_an_inline_path_are_imports() {
        let found = imports(&[
            ("a/src/lib.rs", "mod b; mod c; mod d;"),
            ("a/src/b.rs", "use crate::{c::{self, C}, d::D as E}; fn f() { c::g(); }"),
            ("a/src/c.rs", "pub struct C; pub fn g() { crate::d::h(super::b::f) }"),
            ("a/src/d.rs", "pub struct D; pub fn h() {}"),
        ]);
        assert_eq!(found, ["b -> c", "b -> c", "b -> d", "c -> b", "c -> d"]);
    }

    #[test]
    fn a_reexport_is_followed_and_is_no_import_itself() {
        let found = imports(&[
            ("a/src/lib.rs", "pub mod b; mod e; pub use b::C;"),
            ("a/src/b/mod.rs", "mod c; pub mod d; pub use c::C; pub use d::*;"),
            ("a/src/b/c.rs", "pub struct C;"),
            ("a/src/b/d.rs", "pub struct D; use super::C;"),
            ("a/src/e.rs", "use crate::C; use crate::b::D; use crate::b; fn f() -> b::C {}"),
        ]);
        assert_eq!(found, ["b/d -> b/c", "e -> b/c", "e -> b/d"]);
    }

    #[test]
    fn tests_visibility_and_other_crates_are_no_imports() {
        let found = imports(&[
            ("a/src/lib.rs", "mod b; mod c; use std::fmt::Debug;"),
            ("a/src/b.rs", "pub struct B; pub(in crate::c) struct E; #[cfg(test)] mod tests { use crate::c::C; }"),
            ("a/src/c.rs", "pub struct C; #[cfg(test)] use crate::b::B; fn f() { std::mem::drop(serde::b::B) }"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn an_inline_module_belongs_to_its_file() {
        let found = imports(&[
            ("a/src/lib.rs", "mod b; mod c;"),
            ("a/src/b.rs", "pub mod inner { use super::X; use super::super::c::C; } struct X;"),
            ("a/src/c.rs", "pub struct C; use crate::b::inner::Y;"),
        ]);
        assert_eq!(found, ["b -> c", "c -> b"]);
    }
}
