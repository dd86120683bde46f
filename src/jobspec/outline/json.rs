//! JSON with its places.

use super::tree::Entry;
use super::tree::Kind;
use super::tree::Tree;

/// The tree of a text that is valid JSON; of any other text as far as it goes.
pub(in crate::jobspec) fn tree(text: &str) -> Tree {
    Scanner { text, at: 0 }.value()
}

/// Reads JSON that another reader has accepted already, for the sake of the places.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes
            .get(self.at)
            .is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b',' || *byte == b':')
        {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn value(&mut self) -> Tree {
        let first = self.peek();
        let start = self.at;
        let kind = match first {
            Some(b'{') => {
                self.at += 1;
                Kind::Object(self.entries())
            }
            Some(b'[') => {
                self.at += 1;
                Kind::Array(self.items())
            }
            Some(b'"') => Kind::Text(self.string()),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find(|c: char| matches!(c, ',' | '}' | ']') || c.is_whitespace());
                let least = rest.chars().next().map_or(0, char::len_utf8);
                self.at += end.unwrap_or(rest.len()).max(least);
                Kind::Other
            }
        };
        Tree { span: start..self.at, kind }
    }

    fn entries(&mut self) -> Vec<Entry> {
        let mut out = Vec::new();
        while self.peek() == Some(b'"') {
            let start = self.at;
            let key = self.string();
            let span = start..self.at;
            out.push(Entry { key, span, value: self.value() });
        }
        self.close();
        out
    }

    fn items(&mut self) -> Vec<Tree> {
        let mut out = Vec::new();
        while !matches!(self.peek(), None | Some(b']' | b'}')) {
            out.push(self.value());
        }
        self.close();
        out
    }

    fn close(&mut self) {
        if self.peek().is_some() {
            self.at += 1;
        }
    }

    /// The text between the quote here and the next one that is not escaped.
    fn string(&mut self) -> String {
        let start = self.at;
        let mut escaped = true;
        let inside = self.text[start..].char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        self.at = inside.map_or(self.text.len(), |(offset, _)| start + offset + 1);
        let written = &self.text[start..self.at];
        serde_json::from_str(written).unwrap_or_else(|_| written.trim_matches('"').to_owned())
    }
}
