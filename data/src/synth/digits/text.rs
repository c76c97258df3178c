//! Described digits: short texts that name a digit, compute it, or leave two or more possible.

use super::super::exact::Dice;

/// The digits in five languages.
const WORDS: [[&str; 10]; 5] = [
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
    ["cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"],
    ["zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"],
];

/// Ways to name a digit, by language; `{}` is its name.
const NAMED: [&[&str]; 5] = [
    &[
        "{}",
        "it is {}",
        "that was a {}",
        "number {}, please",
        "I can see a {} here",
        "somebody said {}",
        "write down {}",
    ],
    &["{}", "das ist eine {}", "die Zahl {}", "ich höre {}", "bitte {} aufschreiben"],
    &["{}", "c'est le {}", "le chiffre {}", "je vois un {}"],
    &["{}", "es el {}", "el número {}", "veo un {}"],
    &["{}", "è il {}", "il numero {}", "vedo un {}"],
];

/// Ways to name a digit `{}` beside another `[]`, which it is not.
const CORRECTED: &[&str] = &["not [] but {}", "{}, not []", "no [], it was {}", "first I thought [] but it is {}"];

/// Ways to leave two digits possible, in any order.
const EITHER: &[&str] =
    &["{} or []", "either {} or []", "it could be {} or []", "maybe {}, maybe []", "{}? or was it []?"];

/// Traits that several digits share.
const TRAITS: [(&str, &[usize]); 12] = [
    ("a small even number", &[0, 2, 4]),
    ("a big even number", &[6, 8]),
    ("a small odd number", &[1, 3]),
    ("a big odd number", &[5, 7, 9]),
    ("it begins with an f", &[4, 5]),
    ("it begins with an s", &[6, 7]),
    ("it begins with a t", &[2, 3]),
    ("it ends with an e", &[1, 3, 5, 9]),
    ("written with a round loop", &[0, 6, 8, 9]),
    ("only straight lines", &[1, 4, 7]),
    ("a prime number", &[2, 3, 5, 7]),
    ("a square number", &[0, 1, 4, 9]),
];

/// Texts that say nothing.
const SILENT: &[&str] =
    &["no idea", "the line was noisy", "some digit", "I could not read it", "???", "ask somebody else"];

/// A text about `digit`, at most 60 bytes, with typing errors.
pub(in super::super) fn phrase(digit: usize, dice: &mut Dice) -> String {
    let kind = dice.between(0.0, 1.0);
    let text = if kind < 0.44 {
        named(digit, dice)
    } else if kind < 0.54 {
        beside(CORRECTED, digit, dice)
    } else if kind < 0.66 {
        worked_out(digit, dice)
    } else if kind < 0.86 {
        beside(EITHER, digit, dice)
    } else if kind < 0.95 {
        let fitting: Vec<&str> =
            TRAITS.iter().filter(|(_, digits)| digits.contains(&digit)).map(|(text, _)| *text).collect();
        dice.pick(&fitting).to_owned()
    } else {
        dice.pick(SILENT).to_owned()
    };
    mistype(&text, dice)
}

fn named(digit: usize, dice: &mut Dice) -> String {
    // English is as common as the other languages together.
    let language = if dice.chance(0.5) { 0 } else { 1 + dice.below(WORDS.len() - 1) };
    dice.pick(NAMED[language]).replace("{}", WORDS[language][digit])
}

/// Fills a pattern for this digit and any other one, both in English.
fn beside(patterns: &[&str], digit: usize, dice: &mut Dice) -> String {
    let other = (digit + 1 + dice.below(9)) % 10;
    let pattern = dice.pick(patterns);
    let (mut first, mut second) = (WORDS[0][digit], WORDS[0][other]);
    // Where both stay possible, either may come first.
    if patterns == EITHER && dice.chance(0.5) {
        (first, second) = (second, first);
    }
    pattern.replace("{}", first).replace("[]", second)
}

/// A sum or a difference of digits.
fn worked_out(digit: usize, dice: &mut Dice) -> String {
    let (left, sign, word, right) = if dice.chance(0.5) {
        let other = dice.below(digit + 1);
        (other, "+", "plus", digit - other)
    } else {
        let other = dice.below(10 - digit);
        (digit + other, "-", "minus", other)
    };
    match dice.below(3) {
        0 => format!("{left}{sign}{right}"),
        1 => format!("{left} {sign} {right} = ?"),
        _ => format!("{} {word} {}", WORDS[0][left], WORDS[0][right]),
    }
}

/// Drops, doubles or swaps letters now and then; one text in eight is in capitals, and one begins with one.
fn mistype(text: &str, dice: &mut Dice) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < letters.len() {
        if letters[at].is_alphabetic() && dice.chance(0.025) {
            match dice.below(3) {
                0 if letters.len() > 1 => drop(letters.remove(at)),
                1 => letters.insert(at, letters[at]),
                _ if at > 0 => letters.swap(at - 1, at),
                _ => {}
            }
            at += 1;
        }
        at += 1;
    }
    let capitals = match dice.below(8) {
        0 => letters.len(),
        1 => 1,
        _ => 0,
    };
    let upper = letters.iter().take(capitals).flat_map(|letter| letter.to_uppercase());
    upper.chain(letters.iter().skip(capitals).copied()).collect()
}
