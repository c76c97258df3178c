//! Converts a specification from JSON to YAML, with its keys in the same order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of a JSON document.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// A scalar as YAML writes it.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Converts a JSON document to YAML in block style. Lists of scalars stay on one line.
///
/// # Errors
/// The text is not JSON.
pub(super) fn from_json(json: &str) -> serde_json::Result<String> {
    let node: Node = serde_json::from_str(json)?;
    let mut text = String::new();
    match &node {
        Node::Map(entries) if !entries.is_empty() => write_entries(entries, 0, &mut text),
        other => text = format!("{}\n", inline(other)),
    }
    Ok(text)
}

/// Writes `key: value` lines, with nested values indented.
fn write_entries(entries: &[(String, Node)], indent: usize, text: &mut String) {
    for (key, value) in entries {
        *text += &format!("{:indent$}{}:", "", scalar(key));
        match value {
            Node::Map(inner) if !inner.is_empty() => {
                text.push('\n');
                write_entries(inner, indent + 2, text);
            }
            Node::List(items) if !items.iter().all(|item| matches!(item, Node::Scalar(_))) => {
                text.push('\n');
                items.iter().for_each(|item| write_item(item, indent + 2, text));
            }
            other => *text += &format!(" {}\n", inline(other)),
        }
    }
}

/// Writes `- value`, with the first entry of a map on the line of the hyphen.
fn write_item(item: &Node, indent: usize, text: &mut String) {
    let written = match item {
        Node::Map(entries) if !entries.is_empty() => {
            let mut inner = String::new();
            write_entries(entries, indent + 2, &mut inner);
            inner.trim_start().to_owned()
        }
        other => format!("{}\n", inline(other)),
    };
    *text += &format!("{:indent$}- {written}", "");
}

/// A node as YAML on one line.
fn inline(node: &Node) -> String {
    match node {
        Node::Scalar(scalar) => scalar.clone(),
        Node::List(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Node::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", scalar(key), inline(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Writes text without quotes if every YAML parser reads it as text, otherwise as a JSON string, which is valid YAML.
fn scalar(text: &str) -> String {
    const NOT_TEXT: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !NOT_TEXT.contains(&text.to_ascii_lowercase().as_str());
    if is_word {
        return text.to_owned();
    }
    // JSON allows some characters that YAML forbids, or that YAML 1.1 reads as the end of a line.
    let escaped = |c: char| ('\u{7f}'..='\u{9f}').contains(&c) || "\u{2028}\u{2029}\u{feff}".contains(c);
    let quoted = serde_json::Value::from(text).to_string();
    quoted.chars().fold(String::new(), |mut all, c| {
        if escaped(c) {
            all += &format!("\\u{:04x}", u32::from(c))
        } else {
            all.push(c)
        }
        all
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InOrder)
    }
}

/// Reads maps as lists of entries, because a `serde_json::Value` would sort them.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar("null".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        // YAML 1.1 reads `1e-5` as text, and `1.0e-5` as a number.
        let text = serde_json::Value::from(value).to_string();
        Ok(Node::Scalar(match text.split_once('e') {
            Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
            _ => text,
        }))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Scalar(scalar(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::spec::JobSpec;

    use super::*;

    #[test]
    fn yaml_keeps_order_and_quotes_what_is_not_a_word() {
        let json = r#"{"z":[{"b":1,"a":[]},{"c":{"d":null}}],"a":{"on":true,"lr":0.05},"e":{},"f":["1 s","no","x.y"],"g":"a: b"}"#;
        let yaml = from_json(json).expect("JSON");
        let expected = "z:\n  - b: 1\n    a: []\n  - c:\n      d: null\na:\n  \"on\": true\n  lr: 0.05\ne: {}\n\
                        f: [\"1 s\", \"no\", x.y]\ng: \"a: b\"\n";
        assert_eq!(yaml, expected);
        assert!(from_json("{").is_err());
        let odd = r##"{"a":1e-7,"b":2.5e-9,"c":"","d":"~","e":"- x","f":"#","g":"2026-01-01","h":"x\ny","i":[[1,[]]],"j":"\u007f\u2028"}"##;
        let expected = "a: 1.0e-7\nb: 2.5e-9\nc: \"\"\nd: \"~\"\ne: \"- x\"\nf: \"#\"\ng: \"2026-01-01\"\nh: \"x\\ny\"\n\
                        i:\n  - [1, []]\nj: \"\\u007f\\u2028\"\n";
        assert_eq!(from_json(odd).expect("JSON"), expected);
    }

    #[test]
    fn a_job_written_as_yaml_is_the_same_job() {
        let job = "name: mine\ndata: {train: ['a b.parquet', '$${x}/*.parquet'], id: id}\n\
                   modalities: [text, sensor]\nlabels: [\"no\", 'é: \"x\"', \"2\"]\nhead: {projection: off}\n\
                   schedule: {epochs: 5, order: {text: 2, sensor: 1}}\nfusion: {text: 0.25, sensor: 0.75}\n";
        let spec = JobSpec::from_json(job).expect("a job");
        let yaml = from_json(&spec.to_json()).expect("JSON");
        assert!(yaml.starts_with("name: mine\nseed: 0\nmodalities:\n  - name: text\n"), "{yaml}");
        assert_eq!(JobSpec::from_json(&yaml).expect("a job").to_json(), spec.to_json(), "{yaml}");
    }
}
