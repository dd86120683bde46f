//! Builds the tree of a template from its tokens.

use std::collections::BTreeMap;

use super::lex::Delimiters;
use super::lex::Kind;
use super::lex::Token;
use super::lex::tokens;
use super::tree::Branch;
use super::tree::Command;
use super::tree::Constant;
use super::tree::Node;
use super::tree::Operand;
use super::tree::Pipe;
use super::tree::Word;

/// Deepest nesting of blocks and parentheses.
const NESTING_MAX: usize = 60;

/// A template and those defined within it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) body: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

/// How a list of nodes ended.
enum Ending {
    End,
    /// At an `else`; what follows it in the action has not been read.
    Else,
    /// At the end of the text.
    Text,
}

/// Parses `source`; `known` says which functions there are. The error is the line, counted from 1, and a message.
pub(super) fn parse(
    source: &str,
    delimiters: &Delimiters,
    known: &dyn Fn(&str) -> bool,
) -> Result<Tree, (usize, String)> {
    let mut parser = Parser {
        tokens: tokens(source, delimiters),
        next: 0,
        variables: vec!["$".to_owned()],
        loops: 0,
        depth: 0,
        defined: BTreeMap::new(),
        known,
    };
    let body = match parser.list() {
        Ok((nodes, Ending::Text)) => Ok(nodes),
        Ok((_, Ending::End)) => Err("unexpected {{end}}".to_owned()),
        Ok((_, Ending::Else)) => Err("unexpected {{else}}".to_owned()),
        Err(message) => Err(message),
    };
    match body {
        Ok(body) => Ok(Tree { body, defined: parser.defined }),
        Err(message) => {
            let at = parser.tokens[parser.next.saturating_sub(1)].at;
            Err((source[..at].matches('\n').count() + 1, message))
        }
    }
}

struct Parser<'a> {
    tokens: Vec<Token>,
    next: usize,
    /// Variables in scope.
    variables: Vec<String>,
    /// Loops around the place.
    loops: usize,
    depth: usize,
    defined: BTreeMap<String, Vec<Node>>,
    known: &'a dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    fn take(&mut self) -> Token {
        let token = self.tokens[self.next.min(self.tokens.len() - 1)].clone();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    fn back(&mut self) {
        self.next -= 1;
    }

    fn take_word(&mut self) -> Token {
        loop {
            let token = self.take();
            if token.kind != Kind::Space {
                return token;
            }
        }
    }

    fn peek(&mut self) -> Token {
        self.tokens[self.next.min(self.tokens.len() - 1)].clone()
    }

    fn peek_word(&mut self) -> Token {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
        self.peek()
    }

    fn expect_right(&mut self, context: &str) -> Result<(), String> {
        let token = self.take_word();
        if token.kind == Kind::Right { Ok(()) } else { Err(unexpected(&token, context)) }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(format!("more than {NESTING_MAX} levels of nesting"));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Nodes up to `{{end}}`, `{{else}}` or the end of the text.
    fn list(&mut self) -> Result<(Vec<Node>, Ending), String> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                Kind::Text => nodes.push(Node::Text(token.text)),
                Kind::End => return Ok((nodes, Ending::Text)),
                Kind::Left => {
                    let word = self.take_word();
                    match (word.kind, word.text.as_str()) {
                        (Kind::Keyword, "end") => {
                            self.expect_right("end")?;
                            return Ok((nodes, Ending::End));
                        }
                        (Kind::Keyword, "else") => return Ok((nodes, Ending::Else)),
                        (Kind::Keyword, "define") if self.depth == 0 => self.define()?,
                        (Kind::Keyword, keyword) => nodes.push(self.keyword(keyword, &word)?),
                        _ => {
                            self.back();
                            nodes.push(Node::Action(self.pipeline("command", Kind::Right)?));
                        }
                    }
                }
                _ => return Err(unexpected(&token, "input")),
            }
        }
    }

    fn keyword(&mut self, keyword: &str, token: &Token) -> Result<Node, String> {
        match keyword {
            "if" => Ok(Node::If(self.branch("if")?)),
            "with" => Ok(Node::With(self.branch("with")?)),
            "range" => Ok(Node::Range(self.branch("range")?)),
            "break" | "continue" => {
                self.expect_right(keyword)?;
                if self.loops == 0 {
                    return Err(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                }
                Ok(if keyword == "break" { Node::Break } else { Node::Continue })
            }
            "template" => {
                let name = self.template_name("template clause")?;
                let pipe = if self.peek_word().kind == Kind::Right {
                    self.take();
                    None
                } else {
                    Some(self.pipeline("template clause", Kind::Right)?)
                };
                Ok(Node::Template { at: token.at, name, pipe })
            }
            "block" => {
                let name = self.template_name("block clause")?;
                let pipe = self.pipeline("block clause", Kind::Right)?;
                let body = self.definition("block clause")?;
                self.defined.insert(name.clone(), body);
                Ok(Node::Template { at: token.at, name, pipe: Some(pipe) })
            }
            _ => Err(unexpected(token, "command")),
        }
    }

    fn template_name(&mut self, context: &str) -> Result<String, String> {
        let token = self.take_word();
        match token.kind {
            Kind::String | Kind::RawString => unquote(&token.text),
            _ => Err(unexpected(&token, context)),
        }
    }

    fn define(&mut self) -> Result<(), String> {
        let name = self.template_name("define clause")?;
        self.expect_right("define clause")?;
        let body = self.definition("define clause")?;
        // An empty definition does not replace another one.
        let empty = body.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()));
        if !empty || !self.defined.contains_key(&name) {
            self.defined.insert(name, body);
        }
        Ok(())
    }

    /// The body of a template of its own: it sees no variables of its surroundings.
    fn definition(&mut self, context: &str) -> Result<Vec<Node>, String> {
        let outside = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let (body, ending) = self.nested(Self::list)?;
        (self.variables, self.loops) = (outside, loops);
        match ending {
            Ending::End => Ok(body),
            Ending::Else => Err(format!("unexpected {{{{else}}}} in {context}")),
            Ending::Text => Err("unexpected EOF".to_owned()),
        }
    }

    fn branch(&mut self, kind: &str) -> Result<Branch, String> {
        let scope = self.variables.len();
        let pipe = self.pipeline(kind, Kind::Right)?;
        if kind == "range" {
            self.loops += 1;
        }
        let (body, ending) = self.nested(Self::list)?;
        if kind == "range" {
            self.loops -= 1;
        }
        let otherwise = match ending {
            Ending::End => None,
            Ending::Text => return Err("unexpected EOF".to_owned()),
            Ending::Else => Some(self.otherwise(kind)?),
        };
        self.variables.truncate(scope);
        Ok(Branch { pipe, body, otherwise })
    }

    /// After `else`: a body, or another branch of the same kind that shares our `end`.
    fn otherwise(&mut self, kind: &str) -> Result<Vec<Node>, String> {
        let token = self.peek_word();
        let chained = token.kind == Kind::Keyword && token.text == kind && kind != "range";
        if chained {
            self.take();
            let inner = self.nested(|parser| parser.branch(kind))?;
            return Ok(vec![if kind == "if" { Node::If(inner) } else { Node::With(inner) }]);
        }
        self.expect_right("else")?;
        match self.nested(Self::list)? {
            (nodes, Ending::End) => Ok(nodes),
            (_, Ending::Else) => Err("expected end; found {{else}}".to_owned()),
            (_, Ending::Text) => Err("unexpected EOF".to_owned()),
        }
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe, String> {
        let at = self.peek_word().at;
        let (variables, assigns) = self.declarations(context)?;
        let mut pipe = Pipe { at, variables, assigns, commands: Vec::new() };
        loop {
            let token = self.take_word();
            if token.kind == end {
                self.check(&pipe, context)?;
                return Ok(pipe);
            }
            match token.kind {
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::OpenParen => {
                    self.back();
                    pipe.commands.push(self.command()?);
                }
                _ => return Err(unexpected(&token, context)),
            }
        }
    }

    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), String> {
        let mut variables: Vec<String> = Vec::new();
        loop {
            let start = self.next;
            let variable = self.peek_word();
            if variable.kind != Kind::Variable {
                break;
            }
            self.take();
            let next = self.peek_word();
            match next.kind {
                Kind::Assign | Kind::Declare => {
                    self.take();
                    let assigns = next.kind == Kind::Assign;
                    variables.push(variable.text);
                    if assigns {
                        for name in &variables {
                            self.check_variable(name)?;
                        }
                    } else {
                        self.variables.extend(variables.iter().cloned());
                    }
                    return Ok((variables, assigns));
                }
                Kind::Char if next.text == "," => {
                    self.take();
                    variables.push(variable.text);
                    if context == "range" && variables.len() < 2 {
                        let token = self.peek_word();
                        if token.kind == Kind::Variable {
                            continue;
                        }
                        return Err("range can only initialize variables".to_owned());
                    }
                    return Err(format!("too many declarations in {context}"));
                }
                _ => {
                    self.next = start;
                    break;
                }
            }
        }
        Ok((Vec::new(), false))
    }

    fn check(&self, pipe: &Pipe, context: &str) -> Result<(), String> {
        if pipe.commands.is_empty() {
            return Err(format!("missing value for {context}"));
        }
        // Only functions, fields and the like take a piped value.
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            if let Operand::Bool(_)
            | Operand::Dot
            | Operand::Nil
            | Operand::Number { .. }
            | Operand::Text { .. } = command.words[0].operand
            {
                return Err(format!("non executable command in pipeline stage {}", index + 1));
            }
        }
        Ok(())
    }

    fn check_variable(&self, name: &str) -> Result<(), String> {
        if self.variables.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(format!("undefined variable {name:?}"))
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut words = Vec::new();
        loop {
            self.peek_word();
            if let Some(word) = self.operand()? {
                words.push(word);
            }
            let token = self.take();
            match token.kind {
                Kind::Space => continue,
                Kind::Right | Kind::CloseParen => self.back(),
                Kind::Pipe => {}
                _ => return Err(unexpected(&token, "operand")),
            }
            break;
        }
        if words.is_empty() {
            return Err("empty command".to_owned());
        }
        Ok(Command { words })
    }

    /// A term with the fields that follow it.
    fn operand(&mut self) -> Result<Option<Word>, String> {
        let Some(word) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(word));
        }
        let at = self.peek().at;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.take().text[1..].to_owned());
        }
        let operand = match word.operand {
            Operand::Field(mut first) => {
                first.append(&mut names);
                return Ok(Some(Word { at: word.at, operand: Operand::Field(first) }));
            }
            Operand::Variable(mut first) => {
                first.append(&mut names);
                return Ok(Some(Word { at: word.at, operand: Operand::Variable(first) }));
            }
            Operand::Bool(_)
            | Operand::Text { .. }
            | Operand::Number { .. }
            | Operand::Nil
            | Operand::Dot => {
                return Err(format!("unexpected . after term {:?}", word.to_string()));
            }
            _ => Operand::Chain(Box::new(word), names),
        };
        Ok(Some(Word { at, operand }))
    }

    fn term(&mut self) -> Result<Option<Word>, String> {
        let token = self.take_word();
        let at = token.at;
        let operand = match token.kind {
            Kind::Identifier => {
                if !(self.known)(&token.text) {
                    return Err(format!("function {:?} not defined", token.text));
                }
                Operand::Identifier(token.text)
            }
            Kind::Dot => Operand::Dot,
            Kind::Nil => Operand::Nil,
            Kind::Variable => {
                self.check_variable(&token.text)?;
                Operand::Variable(vec![token.text])
            }
            Kind::Field => Operand::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => Operand::Bool(token.text == "true"),
            Kind::CharConstant | Kind::Number => {
                let value =
                    constant(&token.text).ok_or_else(|| format!("bad number syntax: {:?}", token.text))?;
                Operand::Number { text: token.text, value }
            }
            Kind::OpenParen => {
                let pipe =
                    self.nested(|parser| parser.pipeline("parenthesized pipeline", Kind::CloseParen))?;
                Operand::Pipe(Box::new(pipe))
            }
            Kind::String | Kind::RawString => {
                let text = unquote(&token.text)?;
                Operand::Text { quoted: token.text, text }
            }
            _ => {
                self.back();
                return Ok(None);
            }
        };
        Ok(Some(Word { at, operand }))
    }
}

/// Go's words for a token that does not belong where it stands.
fn unexpected(token: &Token, context: &str) -> String {
    match token.kind {
        Kind::Error => token.text.clone(),
        Kind::End => "unexpected EOF".to_owned(),
        Kind::Keyword => format!("unexpected <{}> in {context}", token.text),
        _ => {
            let text: String = token.text.chars().take(10).collect();
            let dots = if token.text.chars().count() > 10 { "..." } else { "" };
            format!("unexpected {text:?}{dots} in {context}")
        }
    }
}

/// The text that a quoted or raw string stands for.
pub(super) fn unquote(quoted: &str) -> Result<String, String> {
    let inner = &quoted[1..quoted.len() - 1];
    if quoted.starts_with('`') {
        return Ok(inner.replace('\r', ""));
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    let invalid = || "invalid syntax".to_owned();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = chars.next().ok_or_else(invalid)?;
        let mut digits = |count: usize, radix: u32, first: &str| {
            let text: String = first.chars().chain(chars.by_ref().take(count)).collect();
            u32::from_str_radix(&text, radix).ok().filter(|_| text.len() == count + first.len())
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' | '"' | '\'' => bytes.push(escape as u8),
            'x' => bytes.push(digits(2, 16, "").and_then(|n| u8::try_from(n).ok()).ok_or_else(invalid)?),
            '0'..='7' => {
                let number = digits(2, 8, &escape.to_string());
                bytes.push(number.and_then(|n| u8::try_from(n).ok()).ok_or_else(invalid)?);
            }
            'u' | 'U' => {
                let count = if escape == 'u' { 4 } else { 8 };
                let c = digits(count, 16, "").and_then(char::from_u32).ok_or_else(invalid)?;
                bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(invalid()),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A number or character constant of Go.
pub(super) fn constant(text: &str) -> Option<Constant> {
    if text.starts_with('\'') {
        let inner = unquote(text).ok()?;
        let mut chars = inner.chars();
        let c = chars.next()?;
        return chars.next().is_none().then_some(Constant::Int(i64::from(u32::from(c))));
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let clean = digits.replace('_', "").to_lowercase();
    let (radix, body) = match clean.as_bytes() {
        [b'0', b'x', ..] => (16, &clean[2..]),
        [b'0', b'b', ..] => (2, &clean[2..]),
        [b'0', b'o', ..] => (8, &clean[2..]),
        [b'0', _, ..] if clean.bytes().all(|b| b.is_ascii_digit()) => (8, &clean[1..]),
        _ => (10, clean.as_str()),
    };
    if body.starts_with(['+', '-']) {
        return None;
    }
    if let Ok(whole) = u64::from_str_radix(body, radix) {
        if negative {
            let least = i64::try_from(i128::from(whole).checked_neg()?).ok()?;
            return Some(Constant::Int(least));
        }
        return Some(i64::try_from(whole).map_or(Constant::Uint(whole), Constant::Int));
    }
    if radix != 10 || !clean.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let real: f64 = clean.parse().ok()?;
    let real = if negative { -real } else { real };
    real.is_finite().then_some(Constant::Float(real))
}
