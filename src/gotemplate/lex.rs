//! Splits the text of a template into tokens: plain text, and the words of actions between delimiters.

/// Delimiters of actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delimiters {
    pub left: String,
    pub right: String,
}

impl Default for Delimiters {
    fn default() -> Self {
        Self { left: "{{".to_owned(), right: "}}".to_owned() }
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Left,
    Right,
    Space,
    Assign,
    Declare,
    Bool,
    Char,
    CharConstant,
    Dot,
    /// With its dot.
    Field,
    Identifier,
    Keyword,
    Nil,
    Number,
    OpenParen,
    CloseParen,
    Pipe,
    RawString,
    String,
    /// With its `$`.
    Variable,
    End,
    Error,
}

/// A piece of the template.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Bytes from the begin of the template.
    pub(super) at: usize,
    /// The token as written; of an error its message.
    pub(super) text: String,
}

const KEYWORDS: [&str; 10] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

/// Cuts a template into tokens; the last one is `End` or `Error`.
pub(super) fn tokens(source: &str, delimiters: &Delimiters) -> Vec<Token> {
    let mut lexer = Lexer { source, delimiters, at: 0, parens: 0, out: Vec::new() };
    if let Err(message) = lexer.text() {
        let at = lexer.at.min(source.len());
        lexer.out.push(Token { kind: Kind::Error, at, text: message });
    } else {
        lexer.out.push(Token { kind: Kind::End, at: source.len(), text: String::new() });
    }
    lexer.out
}

struct Lexer<'a> {
    source: &'a str,
    delimiters: &'a Delimiters,
    at: usize,
    parens: usize,
    out: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn push(&mut self, kind: Kind, from: usize) {
        self.out.push(Token { kind, at: from, text: self.source[from..self.at].to_owned() });
    }

    /// All of the template: text and actions by turns.
    fn text(&mut self) -> Result<(), String> {
        loop {
            let from = self.at;
            let Some(found) = self.rest().find(self.delimiters.left.as_str()) else {
                self.at = self.source.len();
                if self.at > from {
                    self.push(Kind::Text, from);
                }
                return Ok(());
            };
            let left = from + found;
            let after = &self.source[left + self.delimiters.left.len()..];
            let trims = has_left_marker(after);
            let text = &self.source[from..left];
            let kept = if trims { text.trim_end_matches(is_space) } else { text };
            if !kept.is_empty() {
                self.out.push(Token { kind: Kind::Text, at: from, text: kept.to_owned() });
            }
            self.at = left + self.delimiters.left.len();
            let marker = if trims { 2 } else { 0 };
            if after[marker..].starts_with("/*") {
                self.at += marker;
                self.comment()?;
                continue;
            }
            self.out.push(Token { kind: Kind::Left, at: left, text: self.delimiters.left.clone() });
            self.at += marker;
            self.parens = 0;
            while !self.action()? {}
        }
    }

    fn comment(&mut self) -> Result<(), String> {
        let end = self.rest().find("*/").ok_or("unclosed comment")?;
        self.at += end + 2;
        match self.right() {
            Some(length) => self.close(length),
            None => return Err("comment ends before closing delimiter".to_owned()),
        }
        Ok(())
    }

    /// Bytes up to the end of the right delimiter, if one stands here.
    fn right(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        let right = self.delimiters.right.as_str();
        let mut chars = rest.chars();
        if chars.next().is_some_and(is_space)
            && chars.as_str().starts_with('-')
            && rest[2..].starts_with(right)
        {
            return Some((2 + right.len(), true));
        }
        rest.starts_with(right).then_some((right.len(), false))
    }

    fn close(&mut self, (length, trims): (usize, bool)) {
        self.at += length;
        if trims {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches(is_space).len();
        }
    }

    /// One token within an action. True at the end of the action.
    fn action(&mut self) -> Result<bool, String> {
        if let Some(right) = self.right() {
            if self.parens > 0 {
                return Err("unclosed left paren".to_owned());
            }
            let from = self.at;
            self.out.push(Token { kind: Kind::Right, at: from, text: self.delimiters.right.clone() });
            self.close(right);
            return Ok(true);
        }
        let from = self.at;
        let Some(first) = self.peek() else { return Err("unclosed action".to_owned()) };
        self.at += first.len_utf8();
        match first {
            c if is_space(c) => {
                while self.peek().is_some_and(is_space) && self.right().is_none() {
                    self.at += 1;
                }
                self.push(Kind::Space, from);
            }
            '=' => self.push(Kind::Assign, from),
            ':' => {
                if self.peek() != Some('=') {
                    return Err("expected :=".to_owned());
                }
                self.at += 1;
                self.push(Kind::Declare, from);
            }
            '|' => self.push(Kind::Pipe, from),
            '"' => self.quoted('"', Kind::String, "unterminated quoted string")?,
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant")?,
            '`' => {
                let end = self.rest().find('`').ok_or("unterminated raw quoted string")?;
                self.at += end + 1;
                self.push(Kind::RawString, from);
            }
            '$' => self.name(Kind::Variable, from)?,
            '.' if !self.peek().is_some_and(|next| next.is_ascii_digit()) => {
                if self.ends_word() {
                    self.push(Kind::Dot, from);
                } else {
                    self.name(Kind::Field, from)?;
                }
            }
            '.' | '+' | '-' | '0'..='9' => self.number(from)?,
            '(' => {
                self.parens += 1;
                self.push(Kind::OpenParen, from);
            }
            ')' => {
                self.parens = self.parens.checked_sub(1).ok_or("unexpected right paren")?;
                self.push(Kind::CloseParen, from);
            }
            c if c == '_' || c.is_alphanumeric() => self.name(Kind::Identifier, from)?,
            ',' => self.push(Kind::Char, from),
            c => return Err(format!("unrecognized character in action: U+{:04X} '{c}'", u32::from(c))),
        }
        Ok(false)
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &str) -> Result<(), String> {
        let from = self.at - 1;
        loop {
            let Some(c) = self.peek().filter(|c| *c != '\n') else { return Err(unterminated.to_owned()) };
            self.at += c.len_utf8();
            if c == '\\' {
                let next = self.peek().filter(|c| *c != '\n').ok_or(unterminated)?;
                self.at += next.len_utf8();
            } else if c == quote {
                self.push(kind, from);
                return Ok(());
            }
        }
    }

    /// A word may end here.
    fn ends_word(&self) -> bool {
        match self.peek() {
            None => true,
            Some(c) => {
                is_space(c)
                    || matches!(c, '.' | ',' | '|' | ':' | ')' | '(')
                    || self.rest().starts_with(self.delimiters.right.as_str())
            }
        }
    }

    fn name(&mut self, kind: Kind, from: usize) -> Result<(), String> {
        while let Some(c) = self.peek().filter(|c| *c == '_' || c.is_alphanumeric()) {
            self.at += c.len_utf8();
        }
        if !self.ends_word() {
            let bad = self.peek().unwrap_or_default();
            return Err(format!("bad character U+{:04X} '{bad}'", u32::from(bad)));
        }
        let kind = match &self.source[from..self.at] {
            _ if kind != Kind::Identifier => kind,
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => kind,
        };
        self.push(kind, from);
        Ok(())
    }

    fn number(&mut self, from: usize) -> Result<(), String> {
        self.at = from;
        let text = self.rest().trim_start_matches(['+', '-']);
        self.at += (self.rest().len() - text.len()).min(1);
        let hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        let mut last = ' ';
        while let Some(c) = self.peek() {
            let exponent = if hex { matches!(last, 'p' | 'P') } else { matches!(last, 'e' | 'E') };
            let sign = exponent && matches!(c, '+' | '-');
            let digit = c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            if !digit && !sign {
                break;
            }
            last = c;
            self.at += 1;
        }
        if self.peek().is_some_and(|c| c == '_' || c.is_alphanumeric()) || self.at == from {
            return Err(format!("bad number syntax: {:?}", &self.source[from..self.at]));
        }
        self.push(Kind::Number, from);
        Ok(())
    }
}

fn has_left_marker(after: &str) -> bool {
    after.starts_with('-') && after[1..].starts_with(is_space)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}
