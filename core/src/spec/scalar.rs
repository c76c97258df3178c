//! The meaning of scalars: numbers, fractions, times, periods, and lists of them. Each function returns None for a
//! value that does not fit.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use super::document::{Node, Value};
use super::model::{Every, OptionValue};

/// A whole number within bounds, written in decimal.
pub(super) fn whole(node: &Node, low: u64, high: u64) -> Option<u64> {
    let text = node.bare()?;
    let digits = text.strip_prefix('+').unwrap_or(text);
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|n| (low..=high).contains(n))
}

/// A finite number.
fn any_number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if plain { text.parse().ok().filter(|x: &f64| x.is_finite()) } else { None }
}

/// A number without exponent, read with this exponent appended: a division would round a second time.
fn scaled(text: &str, exponent: &str) -> Option<f64> {
    let text = text.trim_end();
    if text.contains(['e', 'E']) { None } else { any_number(&format!("{text}{exponent}")) }
}

/// A finite number within bounds.
pub(super) fn number(node: &Node, low: Bound<f64>, high: Bound<f64>) -> Option<f64> {
    any_number(node.bare()?).filter(|x| (low, high).contains(x))
}

/// Whether it is meant as a fraction rather than as text.
pub(super) fn looks_like_share(node: &Node) -> bool {
    node.bare().is_some_and(|text| text.ends_with('%') || any_number(text).is_some())
}

/// 0.1 or 10%, from 0 to below 1.
pub(super) fn share(node: &Node) -> Option<f64> {
    let text = node.bare()?;
    let share = match text.strip_suffix('%') {
        Some(percent) => scaled(percent, "e-2")?,
        None => any_number(text)?,
    };
    (0.0..1.0).contains(&share).then_some(share)
}

/// `1.5`, `1.5 s` or `250 ms` in seconds.
pub(super) fn seconds(node: &Node) -> Option<f64> {
    let text = node.bare()?;
    let seconds = if let Some(number) = text.strip_suffix("ms") {
        scaled(number, "e-3")?
    } else {
        any_number(text.strip_suffix('s').unwrap_or(text).trim_end())?
    };
    (seconds > 0.0 && seconds <= 3600.0).then_some(seconds)
}

/// `1 epoch`, `500 turns` or `end`.
pub(super) fn period(node: &Node) -> Option<Every> {
    let text = node.text()?;
    if text == "end" {
        return Some(Every::End);
    }
    let (number, unit) = text.split_once(' ')?;
    let n: u64 = number.parse().ok().filter(|n| *n > 0)?;
    match unit.trim_start() {
        "epoch" | "epochs" => Some(Every::Epochs(n)),
        "turn" | "turns" => Some(Every::Turns(n)),
        _ => None,
    }
}

/// A mapping of names to numbers, text, true or false, or lists of them.
pub(super) fn options(node: &Node) -> Option<BTreeMap<String, OptionValue>> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().map(|entry| Some((entry.key.clone(), option(&entry.node)?))).collect()
}

fn option(node: &Node) -> Option<OptionValue> {
    match &node.value {
        Value::List(values) => values.iter().map(option_scalar).collect::<Option<_>>().map(OptionValue::List),
        _ => option_scalar(node),
    }
}

fn option_scalar(node: &Node) -> Option<OptionValue> {
    if node.is_null() {
        return None;
    }
    let plain = whole(node, 0, u64::MAX).map(OptionValue::Whole).or_else(|| flag(node).map(OptionValue::Flag));
    let plain = plain.or_else(|| node.bare().and_then(any_number).map(OptionValue::Number));
    plain.or_else(|| node.text().map(|text| OptionValue::Text(text.to_owned())))
}

/// `true` or `false`.
pub(super) fn flag(node: &Node) -> Option<bool> {
    match node.bare()? {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Text that is not empty.
pub(super) fn text(node: &Node) -> Option<String> {
    node.text().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A list whose items all fit.
pub(super) fn list<T>(node: &Node, item: impl Fn(&Node) -> Option<T>) -> Option<Vec<T>> {
    match &node.value {
        Value::List(items) => items.iter().map(item).collect(),
        _ => None,
    }
}

/// A text or a list of them.
pub(super) fn texts(node: &Node) -> Option<Vec<String>> {
    text(node).map(|text| vec![text]).or_else(|| list(node, text))
}

#[cfg(test)]
mod tests {
    use super::super::document::Style;
    use super::super::error::Location;
    use super::*;

    fn plain(text: &str) -> Node {
        Node::plain(Location::START, text)
    }

    #[test]
    fn shares_are_the_number_they_look_like() {
        for (text, expected) in
            [("0.1", 0.1), ("10%", 0.1), ("10 %", 0.1), ("0", 0.0), ("99.9%", 0.999), ("1e-3", 0.001)]
        {
            assert_eq!(share(&plain(text)), Some(expected), "{text}");
        }
        for text in ["1", "100%", "-0.1", "inf", "nan", ".inf", "%", "0.1.1", "", "10%%"] {
            assert_eq!(share(&plain(text)), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_to_the_last() {
        assert_eq!(whole(&plain("18446744073709551615"), 0, u64::MAX), Some(u64::MAX));
        for text in ["18446744073709551616", "-1", "1.0", "1e3", "0x10", "1_000", "+", "", "++1"] {
            assert_eq!(whole(&plain(text), 0, u64::MAX), None, "{text}");
        }
        let quoted = Node::new(Location::START, Value::Scalar { text: "5".into(), style: Style::Quoted });
        assert_eq!(whole(&quoted, 0, 9), None, "quotes make text");
    }

    #[test]
    fn times_and_periods_carry_units() {
        for (text, expected) in [("1 s", 1.0), ("1.5s", 1.5), ("2", 2.0), ("250 ms", 0.25)] {
            assert_eq!(seconds(&plain(text)), Some(expected), "{text}");
        }
        for text in ["0", "-1 s", "1 h", "3601", "s", "ms"] {
            assert_eq!(seconds(&plain(text)), None, "{text}");
        }
        let cases = [("1 epoch", Every::Epochs(1)), ("10 epochs", Every::Epochs(10)), ("500 turns", Every::Turns(500))];
        for (text, expected) in cases {
            assert_eq!(period(&plain(text)), Some(expected), "{text}");
        }
        for text in ["0 epochs", "epoch", "1", "1 day", "-1 turns", "end of it"] {
            assert_eq!(period(&plain(text)), None, "{text}");
        }
    }
}
