//! Cuts HCL into tokens, for the formatter: nothing is lost but blanks between tokens.

/// What a token is, as far as its surroundings care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ident,
    Number,
    /// Literal text of a string or heredoc.
    Text,
    OpenQuote,
    CloseQuote,
    OpenHeredoc,
    CloseHeredoc,
    /// `${` or `%{`, with a strip marker.
    OpenTemplate,
    /// The `}` of one, with a strip marker.
    CloseTemplate,
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    OpenParen,
    CloseParen,
    Equal,
    Dot,
    Comma,
    Colon,
    Ellipsis,
    Minus,
    Bang,
    Question,
    Operator,
    /// A comment; one that ends with its line holds the line break.
    Comment,
    Newline,
}

/// A token and the number of blanks before it.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub spaces: usize,
    /// What follows is the text of a heredoc.
    in_heredoc: bool,
}

impl Token<'_> {
    /// How many brackets are open after this token that were not before it.
    pub fn bracket_change(&self) -> i32 {
        match self.kind {
            Kind::OpenBrace | Kind::OpenBracket | Kind::OpenParen | Kind::OpenTemplate => 1,
            Kind::CloseBrace | Kind::CloseBracket | Kind::CloseParen | Kind::CloseTemplate => -1,
            _ => 0,
        }
    }
}

/// What the lexer is in.
enum Mode {
    /// Between brackets or at the top; counts the braces that are open in it.
    Code {
        braces: usize,
        in_template: bool,
    },
    Quoted,
    Heredoc {
        marker: String,
    },
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    modes: Vec<Mode>,
    tokens: Vec<Token<'a>>,
    spaces: usize,
}

/// The tokens of a text that parses.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let modes = vec![Mode::Code { braces: 0, in_template: false }];
    let mut lexer = Lexer { text, at: 0, modes, tokens: Vec::new(), spaces: 0 };
    while lexer.at < text.len() {
        match lexer.modes.last() {
            Some(Mode::Quoted) => lexer.quoted(),
            Some(Mode::Heredoc { .. }) => lexer.heredoc(),
            _ => lexer.code(),
        }
    }
    lexer.tokens
}

/// Where the first quoted string begins that does not end on its line: from its text on to the line break.
pub fn broken_string(text: &str) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    let mut in_quotes = false;
    for token in tokens(text) {
        at += token.spaces;
        match token.kind {
            Kind::OpenQuote => in_quotes = true,
            Kind::Text if in_quotes && token.text.contains('\n') => {
                let length = token.text.find('\n').unwrap_or_default();
                return Some(at..at + length.max(1));
            }
            Kind::CloseQuote | Kind::OpenTemplate | Kind::OpenHeredoc => in_quotes = false,
            Kind::CloseTemplate => in_quotes = true,
            _ => {}
        }
        // What follows a template belongs to a string or to a heredoc.
        in_quotes &= !token.in_heredoc;
        at += token.text.len();
    }
    None
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let length = length.max(1);
        let end = (self.at + length).min(self.text.len());
        let in_heredoc = matches!(self.modes.last(), Some(Mode::Heredoc { .. }));
        self.tokens.push(Token { kind, text: &self.text[self.at..end], spaces: self.spaces, in_heredoc });
        self.at = end;
        self.spaces = 0;
    }

    fn code(&mut self) {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or_default();
        match first {
            ' ' | '\t' => {
                self.at += 1;
                self.spaces += 1;
            }
            '\n' => self.push(Kind::Newline, 1),
            '\r' if rest.starts_with("\r\n") => self.push(Kind::Newline, 2),
            '#' => self.line_comment(),
            '/' if rest.starts_with("//") => self.line_comment(),
            '/' if rest.starts_with("/*") => {
                self.push(Kind::Comment, rest.find("*/").map_or(rest.len(), |end| end + 2));
            }
            '"' => {
                self.push(Kind::OpenQuote, 1);
                self.modes.push(Mode::Quoted);
            }
            '<' if self.opens_heredoc() => {}
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'));
                self.push(Kind::Ident, end.unwrap_or(rest.len()));
            }
            c if c.is_ascii_digit() => self.number(),
            _ => self.symbol(first),
        }
    }

    fn line_comment(&mut self) {
        let rest = self.rest();
        self.push(Kind::Comment, rest.find('\n').map_or(rest.len(), |end| end + 1));
    }

    fn number(&mut self) {
        let bytes = self.rest().as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = digits(0);
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end += 1 + digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits((end + 1 + sign).min(bytes.len()));
            if exponent > 0 {
                end += 1 + sign + exponent;
            }
        }
        self.push(Kind::Number, end);
    }

    fn symbol(&mut self, first: char) {
        let rest = self.rest();
        if let Some(long) =
            ["==", "!=", "<=", ">=", "&&", "||", "=>"].iter().find(|op| rest.starts_with(**op))
        {
            self.push(Kind::Operator, long.len());
            return;
        }
        if rest.starts_with("...") {
            self.push(Kind::Ellipsis, 3);
            return;
        }
        if let Some(Mode::Code { braces, in_template }) = self.modes.last_mut() {
            let closes = *in_template && *braces == 0 && (first == '}' || rest.starts_with("~}"));
            match first {
                '{' => *braces += 1,
                '}' => *braces = braces.saturating_sub(1),
                _ => {}
            }
            if closes {
                self.modes.pop();
                self.push(Kind::CloseTemplate, if first == '~' { 2 } else { 1 });
                return;
            }
        }
        let kind = match first {
            '{' => Kind::OpenBrace,
            '}' => Kind::CloseBrace,
            '[' => Kind::OpenBracket,
            ']' => Kind::CloseBracket,
            '(' => Kind::OpenParen,
            ')' => Kind::CloseParen,
            '=' => Kind::Equal,
            '.' => Kind::Dot,
            ',' => Kind::Comma,
            ':' => Kind::Colon,
            '-' => Kind::Minus,
            '!' => Kind::Bang,
            '?' => Kind::Question,
            _ => Kind::Operator,
        };
        self.push(kind, first.len_utf8());
    }

    /// Takes the opening of a heredoc, with its line break.
    fn opens_heredoc(&mut self) -> bool {
        let rest = self.rest();
        let Some(line) = rest.strip_prefix("<<").and_then(|after| after.split_once('\n')) else {
            return false;
        };
        let marker = line.0.trim_start_matches('-').trim_end_matches('\r');
        if marker.is_empty() || !marker.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            return false;
        }
        let marker = marker.to_owned();
        self.push(Kind::OpenHeredoc, "<<".len() + line.0.len() + 1);
        self.modes.push(Mode::Heredoc { marker });
        true
    }

    /// Enters `${` or `%{` at `offset` of the rest, after the text before it.
    fn template(&mut self, offset: usize) {
        if offset > 0 {
            self.push(Kind::Text, offset);
        }
        self.push(Kind::OpenTemplate, if self.rest()[2..].starts_with('~') { 3 } else { 2 });
        self.modes.push(Mode::Code { braces: 0, in_template: true });
    }

    fn quoted(&mut self) {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' => at += 2,
                b'"' => {
                    if at > 0 {
                        self.push(Kind::Text, at);
                    }
                    self.push(Kind::CloseQuote, 1);
                    self.modes.pop();
                    return;
                }
                _ => match step(bytes, at) {
                    Step::Template => return self.template(at),
                    Step::Next(length) => at += length,
                },
            }
        }
        self.push(Kind::Text, rest.len());
    }

    fn heredoc(&mut self) {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let at_line_start = self.text[..self.at].ends_with('\n');
        if at_line_start && let Some(Mode::Heredoc { marker }) = self.modes.last() {
            let line = rest.lines().next().unwrap_or_default();
            if line.trim() == marker {
                // The blanks before the marker are kept, because they mean something to nobody but the author.
                let length = line.trim_end().len();
                self.push(Kind::CloseHeredoc, length);
                self.modes.pop();
                return;
            }
        }
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at] == b'\n' {
                return self.push(Kind::Text, at + 1);
            }
            match step(bytes, at) {
                Step::Template => return self.template(at),
                Step::Next(length) => at += length,
            }
        }
        self.push(Kind::Text, rest.len());
    }
}

enum Step {
    Template,
    Next(usize),
}

/// Whether a template opens at `at`; `$${` and `%%{` are text.
fn step(bytes: &[u8], at: usize) -> Step {
    let mark = bytes[at];
    if mark != b'$' && mark != b'%' {
        return Step::Next(1);
    }
    match (bytes.get(at + 1), bytes.get(at + 2)) {
        (Some(b'{'), _) => Step::Template,
        (Some(second), Some(b'{')) if *second == mark => Step::Next(3),
        _ => Step::Next(1),
    }
}
