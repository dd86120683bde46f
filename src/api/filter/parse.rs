//! The grammar: `or` binds weakest, then `and`, then `not`.

use regex::Regex;

use super::Expr;
use super::Selector;
use super::Test;

/// Expressions nested deeper are refused, so that nobody can exhaust the stack.
const DEPTH_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A bare word: selectors, keywords, numbers.
    Word(String),
    /// A quoted text.
    Text(String),
    /// `==`, `!=`, `(`, `)`, `{`, `}`, `[`, `]`, `,`.
    Sign(&'static str),
}

/// Reads an expression.
///
/// # Errors
/// `line:column (offset): what is wrong`.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens, at: 0 };
    let expr = parser.or(0)?;
    match parser.peek() {
        None => Ok(expr),
        Some(_) => Err(parser.expected("\"and\", \"or\" or the end")),
    }
}

fn place(text: &str, offset: usize) -> String {
    let before = &text[..offset.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{line}:{column} ({offset})")
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    const SIGNS: [&str; 9] = ["==", "!=", "(", ")", "{", "}", "[", "]", ","];
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if c == '"' || c == '`' {
            let (value, length) = quoted(&text[at..], c).ok_or_else(|| {
                format!("{}: no match found, the quoted text does not end", place(text, start))
            })?;
            at += length;
            tokens.push((start, Token::Text(value)));
        } else if let Some(sign) = SIGNS.iter().find(|sign| text[at..].starts_with(**sign)) {
            at += sign.len();
            tokens.push((start, Token::Sign(sign)));
        } else {
            let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+' | ':');
            let length = text[at..].find(|c| !is_word(c)).unwrap_or(text.len() - at);
            if length == 0 {
                return Err(format!("{}: no match found, unexpected {c:?}", place(text, start)));
            }
            at += length;
            tokens.push((start, Token::Word(text[start..at].to_owned())));
        }
    }
    Ok(tokens)
}

/// The value of a quoted text and its length with the quotes. Only double quotes know escapes.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((value, at + 1)),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                // A regular expression's own escapes stay as they are.
                other if other == '"' || other == '\\' => value.push(other),
                other => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
    None
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn expected(&self, what: &str) -> String {
        let offset = self.tokens.get(self.at).map_or(self.text.len(), |(offset, _)| *offset);
        format!("{}: no match found, expected: {what}", place(self.text, offset))
    }

    fn word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Word(own)) if own == word);
        self.at += usize::from(is_it);
        is_it
    }

    fn sign(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Sign(own)) if *own == sign);
        self.at += usize::from(is_it);
        is_it
    }

    fn or(&mut self, depth: usize) -> Result<Expr, String> {
        let mut left = self.and(depth)?;
        while self.word("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and(depth)?));
        }
        Ok(left)
    }

    fn and(&mut self, depth: usize) -> Result<Expr, String> {
        let mut left = self.not(depth)?;
        while self.word("and") {
            left = Expr::And(Box::new(left), Box::new(self.not(depth)?));
        }
        Ok(left)
    }

    fn not(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > DEPTH_MAX {
            return Err(self.expected("a simpler expression"));
        }
        if self.word("not") {
            return Ok(Expr::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.sign("(") {
            let inner = self.or(depth + 1)?;
            return if self.sign(")") { Ok(inner) } else { Err(self.expected("\")\"")) };
        }
        for (word, all) in [("any", false), ("all", true)] {
            let followed = matches!(self.tokens.get(self.at + 1), Some((_, Token::Word(_) | Token::Text(_))));
            let is_keyword = matches!(self.tokens.get(self.at + 1), Some((_, Token::Word(next)))
                if matches!(next.as_str(), "is" | "contains" | "matches" | "not" | "in"));
            if followed && !is_keyword && self.word(word) {
                return self.quantified(all, depth);
            }
        }
        self.comparison()
    }

    fn quantified(&mut self, all: bool, depth: usize) -> Result<Expr, String> {
        let of = self.selector()?;
        if !self.word("as") {
            return Err(self.expected("\"as\""));
        }
        let mut names = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(name)) => names.push(name),
                _ => {
                    self.at -= 1;
                    return Err(self.expected("a name"));
                }
            }
            if !self.sign(",") {
                break;
            }
        }
        if !self.sign("{") {
            return Err(self.expected("\"{\""));
        }
        let each = Box::new(self.or(depth + 1)?);
        if !self.sign("}") {
            return Err(self.expected("\"}\""));
        }
        Ok(Expr::Quantified { all, of, names, each })
    }

    /// `Selector operator [value]`, or `value [not] in Selector`.
    fn comparison(&mut self) -> Result<Expr, String> {
        let start = self.at;
        if let Some(Token::Word(value) | Token::Text(value)) = self.next() {
            let negated = self.word("not");
            if self.word("in") {
                let selector = self.selector()?;
                return Ok(Expr::Match(selector, Test::Contains(value, !negated)));
            }
        }
        self.at = start;
        let selector = self.selector()?;
        let test = self.test()?;
        Ok(Expr::Match(selector, test))
    }

    fn test(&mut self) -> Result<Test, String> {
        if self.sign("==") {
            return Ok(Test::Equal(self.value()?, true));
        }
        if self.sign("!=") {
            return Ok(Test::Equal(self.value()?, false));
        }
        if self.word("is") {
            let positive = !self.word("not");
            let is_empty = self.word("empty");
            return if is_empty { Ok(Test::Empty(positive)) } else { Err(self.expected("\"empty\"")) };
        }
        let positive = !self.word("not");
        if self.word("contains") {
            return Ok(Test::Contains(self.value()?, positive));
        }
        if self.word("matches") {
            let pattern = self.value()?;
            let regex = Regex::new(&pattern)
                .map_err(|error| format!("Failed to compile regular expression {pattern:?}: {error}"))?;
            return Ok(Test::Matches(regex, positive));
        }
        Err(self.expected("\"==\", \"!=\", \"contains\", \"in\", \"is\", \"matches\" or \"not\""))
    }

    fn value(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Word(value) | Token::Text(value)) => Ok(value),
            _ => {
                self.at -= 1;
                Err(self.expected("a value"))
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut path: Vec<String> = match self.next() {
            // A JSON pointer.
            Some(Token::Text(pointer)) if pointer.starts_with('/') => {
                return Ok(Selector(pointer[1..].split('/').map(String::from).collect()));
            }
            Some(Token::Word(word)) if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                word.split('.').map(String::from).collect()
            }
            _ => {
                self.at -= 1;
                return Err(self.expected("a selector"));
            }
        };
        loop {
            if self.sign("[") {
                match self.next() {
                    Some(Token::Text(key)) => path.push(key),
                    _ => {
                        self.at -= 1;
                        return Err(self.expected("a quoted key"));
                    }
                }
                if !self.sign("]") {
                    return Err(self.expected("\"]\""));
                }
            } else if let Some(Token::Word(word)) = self.peek()
                && let Some(rest) = word.strip_prefix('.')
                && self
                    .tokens
                    .get(self.at.wrapping_sub(1))
                    .is_some_and(|(_, token)| *token == Token::Sign("]"))
            {
                path.extend(rest.split('.').map(String::from));
                self.at += 1;
            } else {
                return Ok(Selector(path));
            }
        }
    }
}
