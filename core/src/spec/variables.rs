//! `${NAME}` and `${NAME:-default}` inside text; `$${` stands for a plain `${`.

use super::document::{Node, Style, Value};
use super::error::SpecError;

/// The largest total length of expanded variables in one job, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// Looks up variables and counts their bytes.
pub(super) struct Variables<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) brought: usize,
}

impl Variables<'_> {
    /// Expands every scalar of the tree. A scalar that cannot be expanded is recorded as an error and marked.
    pub(super) fn expand(&mut self, node: &mut Node, errors: &mut Vec<SpecError>) {
        match &mut node.value {
            Value::List(items) => items.iter_mut().for_each(|item| self.expand(item, errors)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| self.expand(&mut entry.node, errors)),
            Value::Scalar { text, style } if text.contains("${") => match self.expanded(text) {
                Ok((expanded, looked_up)) => {
                    *text = expanded;
                    if looked_up {
                        *style = Style::Expanded;
                    }
                }
                Err(rule) => {
                    errors.push(node.error(rule));
                    if let Value::Scalar { style, .. } = &mut node.value {
                        *style = Style::Broken;
                    }
                }
            },
            Value::Scalar { .. } => {}
        }
    }

    /// The text with its variables expanded, and whether there were any.
    fn expanded(&mut self, text: &str) -> Result<(String, bool), String> {
        let mut expanded = String::new();
        let mut looked_up = false;
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                expanded += &rest[..at - 1];
                expanded += "${";
                rest = &rest[at + 2..];
                continue;
            }
            expanded += &rest[..at];
            let (inside, after) = rest[at + 2..].split_once('}').ok_or_else(malformed)?;
            let value = self.value(inside)?;
            self.brought += value.len();
            if self.brought > MOST_BYTES {
                return Err(format!(
                    "makes the variables of this job longer than {MOST_BYTES} bytes; use shorter values"
                ));
            }
            expanded += &value;
            looked_up = true;
            rest = after;
        }
        Ok((expanded + rest, looked_up))
    }

    fn value(&self, inside: &str) -> Result<String, String> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_part_of_name) {
            return Err(malformed());
        }
        match ((self.lookup)(name), default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => {
                Err(format!("needs the variable `{name}`, which is not set; set it, or write ${{{name}:-default}}"))
            }
        }
    }
}

fn is_part_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn malformed() -> String {
    "does not name a variable; write ${NAME} or ${NAME:-default}, or $${ for a plain ${".to_owned()
}

/// Text that expands to `text`.
pub(super) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "HOME" => Some("/root".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOME}".to_owned()),
            _ => None,
        };
        Variables { lookup: &lookup, brought: 0 }.expanded(text).map(|(text, _)| text)
    }

    #[test]
    fn escaped_text_comes_back() {
        for text in ["", "$", "${", "$${", "$$${HOME}$$", "a${HOME}b", "}${}$", "$$$${${${"] {
            assert_eq!(expanded(&escape(text)).as_deref(), Ok(text));
        }
    }

    #[test]
    fn variables_and_defaults() {
        for (text, expected) in [
            ("${HOME}/a-${HOME}", "/root/a-/root"),
            ("${NONE:-b}", "b"),
            ("${NONE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-b}", "b"),
            ("${NESTED}", "${HOME}"),
            ("$HOME {x} $", "$HOME {x} $"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["${NONE}", "${", "${}", "${HOME", "${1A}", "${A B}", "${:-x}"] {
            assert!(expanded(text).is_err(), "{text}");
        }
    }
}
