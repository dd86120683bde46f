//! The syntax of configuration files: the first version of HCL, which has names, labels, and plain values, but no
//! expressions. Its line breaks and commas between items mean nothing.
//!
//! ```text
//! items  = { key ( "=" value | { key } "{" items "}" ) [ "," ] }
//! value  = number | bool | text | heredoc | "[" [ value { "," value } [ "," ] ] "]" | "{" items "}"
//! ```

use std::iter::Peekable;
use std::str::CharIndices;

use serde_json::Map;
use serde_json::Number;
use serde_json::Value;

/// Deeper nesting is no configuration.
const MAX_DEPTH: usize = 64;

/// Reads a file into the JSON form: a block is an object, labels are objects around it, and what is given several times is
/// a list in the order of the file.
///
/// # Errors
/// With the place: `At <line>:<column>: <what is wrong>`.
pub fn parse(text: &str) -> Result<Value, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { text, chars: text.char_indices().peekable() };
    let items = reader.items(0)?;
    match reader.next_token()? {
        (_, Token::End) => Ok(Value::Object(items)),
        (offset, token) => Err(reader.error(offset, &format!("unexpected {}", token.describe()))),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name without quotes: a key, or `true` and `false`.
    Name(String),
    Text(String),
    Number(Number),
    /// One of `= { } [ ] ,`.
    Sign(char),
    End,
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Self::Name(name) => format!("name {name:?}"),
            Self::Text(text) => format!("text {text:?}"),
            Self::Number(number) => format!("number {number}"),
            Self::Sign(sign) => format!("'{sign}'"),
            Self::End => "end of the file".to_owned(),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl Reader<'_> {
    /// Items up to a closing brace or the end, which is left to the caller.
    fn items(&mut self, depth: usize) -> Result<Map<String, Value>, String> {
        let mut items = Map::new();
        if depth > MAX_DEPTH {
            let offset = self.offset();
            return Err(self.error(offset, "blocks are nested too deeply"));
        }
        loop {
            let before = self.chars.clone();
            let key = match self.next_token()? {
                (_, Token::Name(key) | Token::Text(key)) => key,
                (_, Token::Sign('}') | Token::End) => {
                    self.chars = before;
                    return Ok(items);
                }
                (offset, token) => {
                    return Err(self.error(offset, &format!("expected a key, found {}", token.describe())));
                }
            };
            let value = self.item(&key, depth)?;
            add(&mut items, key, value);
            let before = self.chars.clone();
            if self.next_token()?.1 != Token::Sign(',') {
                self.chars = before;
            }
        }
    }

    /// What stands behind a key.
    fn item(&mut self, key: &str, depth: usize) -> Result<Value, String> {
        let mut labels = Vec::new();
        loop {
            match self.next_token()? {
                (_, Token::Sign('=')) if labels.is_empty() => {
                    let (offset, token) = self.next_token()?;
                    return self.value(offset, token, depth);
                }
                (offset, Token::Sign('{')) => {
                    let block = self.block(offset, depth)?;
                    let wrap = |inner, label| Value::Object(Map::from_iter([(label, inner)]));
                    return Ok(labels.into_iter().rev().fold(block, wrap));
                }
                (_, Token::Name(label) | Token::Text(label)) => labels.push(label),
                (offset, token) => {
                    let why = format!("expected '=' or '{{' after {key:?}, found {}", token.describe());
                    return Err(self.error(offset, &why));
                }
            }
        }
    }

    fn block(&mut self, opened: usize, depth: usize) -> Result<Value, String> {
        let items = self.items(depth + 1)?;
        match self.next_token()? {
            (_, Token::Sign('}')) => Ok(Value::Object(items)),
            _ => Err(self.error(opened, "this block is not closed")),
        }
    }

    fn value(&mut self, offset: usize, token: Token, depth: usize) -> Result<Value, String> {
        match token {
            Token::Name(name) if name == "true" => Ok(Value::Bool(true)),
            Token::Name(name) if name == "false" => Ok(Value::Bool(false)),
            Token::Text(text) => Ok(Value::String(text)),
            Token::Number(number) => Ok(Value::Number(number)),
            Token::Sign('{') => self.block(offset, depth),
            Token::Sign('[') => self.list(offset, depth),
            Token::Name(name) => Err(self.error(offset, &format!("a text needs quotes: {name:?}"))),
            other => Err(self.error(offset, &format!("expected a value, found {}", other.describe()))),
        }
    }

    fn list(&mut self, opened: usize, depth: usize) -> Result<Value, String> {
        let mut values = Vec::new();
        if depth > MAX_DEPTH {
            return Err(self.error(opened, "lists are nested too deeply"));
        }
        loop {
            match self.next_token()? {
                (_, Token::Sign(']')) => return Ok(Value::Array(values)),
                (_, Token::End) => return Err(self.error(opened, "this list is not closed")),
                (offset, token) => values.push(self.value(offset, token, depth + 1)?),
            }
            match self.next_token()? {
                (_, Token::Sign(',')) => {}
                (_, Token::Sign(']')) => return Ok(Value::Array(values)),
                (_, Token::End) => return Err(self.error(opened, "this list is not closed")),
                (offset, token) => {
                    let why = format!("expected ',' or ']' in a list, found {}", token.describe());
                    return Err(self.error(offset, &why));
                }
            }
        }
    }

    /// The next token and where it begins.
    fn next_token(&mut self) -> Result<(usize, Token), String> {
        self.skip_blanks()?;
        let Some(&(offset, first)) = self.chars.peek() else { return Ok((self.text.len(), Token::End)) };
        let token = match first {
            '=' | '{' | '}' | '[' | ']' | ',' => {
                self.chars.next();
                Token::Sign(first)
            }
            '"' => Token::Text(self.quoted(offset)?),
            '<' => Token::Text(self.heredoc(offset)?),
            '-' | '0'..='9' => Token::Number(self.number(offset)?),
            c if c.is_alphabetic() || c == '_' => Token::Name(self.word().to_owned()),
            c => return Err(self.error(offset, &format!("illegal character {c:?}"))),
        };
        Ok((offset, token))
    }

    fn skip_blanks(&mut self) -> Result<(), String> {
        while let Some(&(offset, c)) = self.chars.peek() {
            let rest = &self.text[offset..];
            if c.is_whitespace() {
                self.chars.next();
            } else if c == '#' || rest.starts_with("//") {
                self.advance_to(offset + rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").ok_or_else(|| self.error(offset, "this comment is not closed"))?;
                self.advance_to(offset + end + 2);
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Letters, digits, and what may stand in keys, `servers.0-a` for example.
    fn word(&mut self) -> &str {
        let start = self.offset();
        while self.chars.next_if(|(_, c)| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')).is_some() {}
        let end = self.offset();
        &self.text[start..end]
    }

    fn number(&mut self, offset: usize) -> Result<Number, String> {
        let minus = self.chars.next_if(|(_, c)| *c == '-').is_some();
        let mut digits = self.word().to_owned();
        // The sign of an exponent ends a word that began with a digit, unless it is a minus.
        if digits.ends_with(['e', 'E']) && self.chars.next_if(|(_, c)| *c == '+').is_some() {
            digits.push_str(self.word());
        }
        let integer = match digits.as_bytes() {
            [b'0', b'x' | b'X', hex @ ..] => {
                std::str::from_utf8(hex).ok().map(|hex| i64::from_str_radix(hex, 16))
            }
            [b'0', octal @ ..] if !octal.is_empty() && octal.iter().all(u8::is_ascii_digit) => {
                std::str::from_utf8(octal).ok().map(|octal| i64::from_str_radix(octal, 8))
            }
            _ => Some(digits.parse()),
        };
        let sign = |value: i64| if minus { -value } else { value };
        if let Some(Ok(value)) = integer {
            return Ok(Number::from(sign(value)));
        }
        let float = digits.parse::<f64>().ok().filter(|_| !digits.starts_with("0x"));
        float
            .and_then(|value| Number::from_f64(if minus { -value } else { value }))
            .ok_or_else(|| self.error(offset, &format!("this is not a number: {digits:?}")))
    }

    /// A text in quotes. What stands in `${ }` is kept as it is, quotes and line breaks included.
    fn quoted(&mut self, offset: usize) -> Result<String, String> {
        let mut out = String::new();
        let mut braces = 0_usize;
        self.chars.next();
        while let Some((at, c)) = self.chars.next() {
            match c {
                '{' if braces > 0 || out.ends_with('$') => braces += 1,
                '}' if braces > 0 => braces -= 1,
                '"' if braces == 0 => return Ok(out),
                '\n' if braces == 0 => break,
                '\\' if braces == 0 => {
                    out.push(self.escape(at)?);
                    continue;
                }
                _ => {}
            }
            out.push(c);
        }
        Err(self.error(offset, "this text is not closed"))
    }

    fn escape(&mut self, at: usize) -> Result<char, String> {
        let illegal = |reader: &Self| reader.error(at, "unknown escape in a text");
        let Some((_, c)) = self.chars.next() else { return Err(illegal(self)) };
        let (radix, length, mut code) = match c {
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\u{b}'),
            '\\' | '"' => return Ok(c),
            'x' => (16, 2, 0),
            'u' => (16, 4, 0),
            'U' => (16, 8, 0),
            '0'..='7' => (8, 2, c.to_digit(8).unwrap_or_default()),
            _ => return Err(illegal(self)),
        };
        for _ in 0..length {
            let digit =
                self.chars.next().and_then(|(_, c)| c.to_digit(radix)).ok_or_else(|| illegal(self))?;
            code = code
                .checked_mul(radix)
                .and_then(|code| code.checked_add(digit))
                .ok_or_else(|| illegal(self))?;
        }
        char::from_u32(code).ok_or_else(|| illegal(self))
    }

    /// `<<EOF` or `<<-EOF`; the second takes the last line's indentation from every line.
    fn heredoc(&mut self, offset: usize) -> Result<String, String> {
        let rest = &self.text[offset..];
        let Some(opening) = rest.strip_prefix("<<") else {
            return Err(self.error(offset, "illegal character '<'"));
        };
        let (header, body) = opening.split_once('\n').unwrap_or((opening, ""));
        let (indented, marker) = match header.trim_end().strip_prefix('-') {
            Some(marker) => (true, marker),
            None => (false, header.trim_end()),
        };
        if marker.is_empty() || !marker.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            return Err(self.error(offset, "expected a word after '<<'"));
        }
        let mut at = offset + 2 + header.len() + 1;
        let mut lines = Vec::new();
        for line in body.split_inclusive('\n') {
            if line.trim() == marker {
                let margin = &line[..line.len() - line.trim_start().len()];
                let cut = |line: &&str| {
                    if indented { line.strip_prefix(margin).unwrap_or(line) } else { line }.to_owned()
                };
                self.advance_to(at + line.trim_end_matches(['\n', '\r']).len());
                return Ok(lines.iter().map(cut).collect());
            }
            at += line.len();
            lines.push(line);
        }
        Err(self.error(offset, &format!("no line with {marker:?} ends this text")))
    }

    fn advance_to(&mut self, offset: usize) {
        while self.chars.next_if(|(at, _)| *at < offset).is_some() {}
    }

    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(offset, _)| *offset)
    }

    fn error(&self, offset: usize, why: &str) -> String {
        let before = &self.text[..offset.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("At {line}:{column}: {why}")
    }
}

/// Adds an item; a key that is there already becomes a list.
fn add(items: &mut Map<String, Value>, key: String, value: Value) {
    match items.get_mut(&key) {
        None => {
            items.insert(key, value);
        }
        Some(Value::Array(values)) if value.is_object() => values.push(value),
        Some(Value::Object(earlier)) if value.is_object() => {
            let earlier = Value::Object(std::mem::take(earlier));
            items.insert(key, Value::Array(vec![earlier, value]));
        }
        // A value that is given again: the later one counts.
        Some(earlier) => *earlier = value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn items_may_share_a_line_and_end_with_commas() {
        let text = r#"plugin "raw_exec" { config { enabled = true } } client { enabled = true, options { "a.b" = "1" } }"#;
        let expected = json!({
            "plugin": {"raw_exec": {"config": {"enabled": true}}},
            "client": {"enabled": true, "options": {"a.b": "1"}},
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn blocks_given_again_become_a_list_in_order() {
        let text = "plugin \"a\" { x = 1 }\nplugin \"b\" { x = 2 }\nplugin \"c\" {}\n";
        let expected = json!({"plugin": [{"a": {"x": 1}}, {"b": {"x": 2}}, {"c": {}}]});
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn values_of_every_kind_are_read() {
        let text = "a = -3 b = 0x1F c = 010 d = 1.5e2 e = [1, \"x\", [true],] f.g = { h = false } # end\ni = \"\\u00e9\\n\\\"\" // end\nj = 2e+1 k-l = 7";
        let expected = json!({
            "a": -3, "b": 31, "c": 8, "d": 150.0, "e": [1, "x", [true]], "f.g": {"h": false}, "i": "é\n\"", "j": 20.0, "k-l": 7,
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn interpolations_and_heredocs_are_kept_as_they_are() {
        let text = "a = \"${x ? \"y\" : \"z\"} {{ GetInterfaceIP \\\"eth0\\\" }}\"\nb = <<EOF\n  one\n  EOF\nc = <<-END\n    two\n      three\n    END\nd = 1";
        let expected = json!({
            "a": "${x ? \"y\" : \"z\"} {{ GetInterfaceIP \"eth0\" }}", "b": "  one\n", "c": "two\n  three\n", "d": 1,
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let cases = [
            ("a = \n}", "At 2:1: expected a value, found '}'"),
            ("a {\n b = 1\n", "At 1:3: this block is not closed"),
            ("a = \"x", "At 1:5: this text is not closed"),
            ("a = [1 2]", "At 1:8: expected ',' or ']' in a list, found number 2"),
            ("a = yes", "At 1:5: a text needs quotes: \"yes\""),
            ("a = 12q", "At 1:5: this is not a number: \"12q\""),
            ("}", "At 1:1: unexpected '}'"),
            ("a \"b\" = 1", "At 1:7: expected '=' or '{' after \"a\", found '='"),
            ("a = <<EOF\nx\n", "At 1:5: no line with \"EOF\" ends this text"),
            ("é = @", "At 1:5: illegal character '@'"),
            ("/* a", "At 1:1: this comment is not closed"),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "a {".repeat(100_000);
        assert!(parse(&text).unwrap_err().contains("nested too deeply"));
        let text = format!("a = {}", "[".repeat(100_000));
        assert!(parse(&text).unwrap_err().contains("nested too deeply"));
    }
}
