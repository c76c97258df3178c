//! Splits Rust source into the tokens that the checks need: without comments, contents of strings and code for tests
//! only.

/// One token and the line it starts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Line number, from 1.
    pub line: usize,
    /// The token itself.
    pub kind: Kind,
}

/// The kind of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or keyword, raw identifiers without their `r#`.
    Word(String),
    /// A single character of punctuation; `::` is two of them.
    Sign(char),
    /// The contents of a string literal.
    Text(String),
    /// A number, a character or a lifetime, which no check needs.
    Other,
}

impl Token {
    /// The identifier or keyword, if the token is one.
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether the token is this punctuation character.
    pub fn is(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }
}

/// Splits `source` into tokens.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() };
    while lexer.at < lexer.chars.len() {
        lexer.next();
    }
    lexer.tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn bump(&mut self) -> char {
        let char = self.peek(0);
        if char == '\n' {
            self.line += 1;
        }
        self.at += 1;
        char
    }

    fn push(&mut self, line: usize, kind: Kind) {
        self.tokens.push(Token { line, kind });
    }

    fn next(&mut self) {
        let (char, line) = (self.peek(0), self.line);
        match char {
            '/' if self.peek(1) == '/' => {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.bump();
                }
            }
            '/' if self.peek(1) == '*' => self.block_comment(),
            '"' => self.string(0),
            '\'' => self.quote(),
            'r' | 'b' | 'c' if self.raw_string() => {}
            _ if char.is_alphabetic() || char == '_' => {
                let word = self.take_while(|char| char.is_alphanumeric() || char == '_');
                self.push(line, Kind::Word(word));
            }
            _ if char.is_ascii_digit() => {
                self.take_while(|char| char.is_alphanumeric() || char == '_');
                self.push(line, Kind::Other);
            }
            _ if char.is_whitespace() => {
                self.bump();
            }
            _ => {
                self.bump();
                self.push(line, Kind::Sign(char));
            }
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while self.at < self.chars.len() && wanted(self.peek(0)) {
            taken.push(self.bump());
        }
        taken
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => {
                    self.at += 2;
                    depth += 1;
                }
                ('*', '/') => {
                    self.at += 2;
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {
                    self.bump();
                }
            }
        }
    }

    /// Reads a string that starts at its quotation mark. `hashes` is the number of `#` of a raw string plus one; raw
    /// strings have no escapes.
    fn string(&mut self, hashes: usize) {
        let line = self.line;
        self.bump();
        let mut text = String::new();
        while self.at < self.chars.len() {
            let char = self.bump();
            if char == '\\' && hashes == 0 {
                text.push(char);
                text.push(self.bump());
            } else if char == '"' && (1..hashes).all(|ahead| self.peek(ahead - 1) == '#') {
                self.at += hashes.saturating_sub(1);
                break;
            } else {
                text.push(char);
            }
        }
        self.push(line, Kind::Text(text));
    }

    /// Reads `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `b'…'`, `c"…"` or a raw identifier. Returns whether there was one.
    fn raw_string(&mut self) -> bool {
        let mut prefix = 1;
        if matches!(self.peek(0), 'b' | 'c') && self.peek(1) == 'r' {
            prefix = 2;
        }
        let raw = self.peek(prefix - 1) == 'r';
        let mut hashes = 0;
        while raw && self.peek(prefix + hashes) == '#' {
            hashes += 1;
        }
        match self.peek(prefix + hashes) {
            '"' => {
                self.at += prefix + hashes;
                self.string(if raw { hashes + 1 } else { 0 });
                true
            }
            '\'' if self.peek(0) == 'b' && prefix == 1 => {
                self.at += 1;
                self.quote();
                true
            }
            char if raw && hashes == 1 && (char.is_alphabetic() || char == '_') => {
                self.at += prefix + hashes;
                let line = self.line;
                let word = self.take_while(|char| char.is_alphanumeric() || char == '_');
                self.push(line, Kind::Word(word));
                true
            }
            _ => false,
        }
    }

    /// Reads a character or a lifetime.
    fn quote(&mut self) {
        let line = self.line;
        self.bump();
        if self.peek(0) == '\\' {
            self.at += 2;
            while self.at < self.chars.len() && self.bump() != '\'' {}
        } else if self.peek(1) == '\'' {
            self.at += 2;
        } else {
            self.take_while(|char| char.is_alphanumeric() || char == '_');
        }
        self.push(line, Kind::Other);
    }
}

/// Removes items that are compiled for tests only.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match attribute(tokens, at) {
            Some(end) if is_for_tests(&tokens[at..end]) => at = item_end(tokens, end),
            Some(end) => {
                kept.extend_from_slice(&tokens[at..end]);
                at = end;
            }
            None => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    kept
}

/// The end of the attribute that starts at `at`, if there is one.
pub fn attribute(tokens: &[Token], at: usize) -> Option<usize> {
    if !tokens[at].is('#') {
        return None;
    }
    let open = at + 1 + usize::from(tokens.get(at + 1)?.is('!'));
    if !tokens.get(open)?.is('[') {
        return None;
    }
    Some(closing(tokens, open) + 1)
}

/// Whether an attribute is `#[cfg(test)]`, or `all(…)` with `test` among its conditions.
fn is_for_tests(attribute: &[Token]) -> bool {
    let words: Vec<&str> = attribute.iter().filter_map(Token::word).collect();
    words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not") && !words.contains(&"any")
}

/// The index of the bracket that closes the one at `open`; the last token if none does.
pub fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len() - 1
}

/// The index after the item that starts at `at`, including its further attributes.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() {
        if let Some(end) = attribute(tokens, at) {
            at = end;
            continue;
        }
        break;
    }
    let is_use = tokens[at..].iter().take(6).filter_map(Token::word).any(|word| word == "use");
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Sign(';') => return at + 1,
            Kind::Sign('{') if !is_use => return closing(tokens, at) + 1,
            Kind::Sign('(' | '[' | '{') => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        without_tests(&tokens(source)).iter().filter_map(Token::word).map(str::to_owned).collect()
    }

    #[test]
    fn comments_strings_and_lifetimes_are_no_words() {
        let source =
            "/* a /* b */ c */ fn f<'a>(x: &'a str) { g(\"h \\\" i\", r#\"j \" k\"#, 'l', b'\\'', b\"m\") } // n";
        assert_eq!(words(source), ["fn", "f", "x", "str", "g"]);
    }

    #[test]
    fn items_for_tests_are_left_out() {
        let source = "use a; #[cfg(test)] use b::{c, d}; #[cfg(test)] #[rustfmt::skip] mod e { fn f() {} } fn g() {}
            #[cfg(test)] mod h; #[cfg(all(test, unix))] const I: [u8; 2] = [1, 2]; #[cfg(not(test))] fn j() {}";
        assert_eq!(words(source), ["use", "a", "fn", "g", "cfg", "not", "test", "fn", "j"]);
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let all = tokens("/*\n*/ a \"\n\n\" b");
        assert_eq!(all.iter().map(|token| token.line).collect::<Vec<_>>(), [2, 2, 4]);
    }
}
