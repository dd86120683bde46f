//! Files in the first version of HCL, read by its own grammar and written anew in the second.
//!
//! Only what the second version's parser refuses comes here, and only when the file has the structure of the first: commas
//! or blanks between arguments, quoted or dotted names, blocks that are assigned. There, `${…}` is text that nobody
//! evaluates. Every piece of the new text knows where it came from, so that problems are shown in the file as it is.

use std::ops::Range;

/// Objects within objects go no deeper.
const MAX_DEPTH: usize = 48;

/// Blocks whose first level of keys are labels: `port = { http = { … } }`.
const LABELLED: &[&str] = &[
    "action",
    "device",
    "group",
    "job",
    "port",
    "region",
    "reserved_ports",
    "scaling",
    "target",
    "task",
    "volume",
];
/// Blocks whose contents are not ours, where names mean nothing.
const FREE: &[&str] = &["config", "env", "headers", "meta", "options"];

/// A file in the second version of HCL.
pub(super) struct Translation {
    pub(super) text: String,
    /// Pieces of the new text, in order: where each starts, and the place that it came from.
    pieces: Vec<(usize, Range<usize>)>,
    /// The first place that only the first version allows.
    pub(super) mark: Range<usize>,
}

impl Translation {
    /// The place in the file of a place in the new text.
    pub(super) fn origin(&self, span: &Range<usize>) -> Range<usize> {
        let piece = |offset: usize| {
            let after = self.pieces.partition_point(|(start, _)| *start <= offset);
            after.checked_sub(1).and_then(|index| self.pieces.get(index)).map(|(_, origin)| origin.clone())
        };
        let start = piece(span.start).unwrap_or(0..0);
        let end = piece(span.end.saturating_sub(1).max(span.start)).unwrap_or(start.clone());
        start.start..end.end.max(start.end)
    }
}

/// Translates a file; `None` when it is not in the first version.
pub(super) fn translate(text: &str) -> Option<Translation> {
    let mut reader = Reader { text, at: 0, mark: None };
    let items = reader.items(0, true)?;
    let mark = reader.mark?;
    let mut writer = Writer { text: String::new(), pieces: Vec::new() };
    writer.body(&items, false);
    Some(Translation { text: writer.text, pieces: writer.pieces, mark })
}

struct Key {
    name: String,
    origin: Range<usize>,
}

struct Item {
    keys: Vec<Key>,
    value: Value,
    origin: Range<usize>,
}

enum Value {
    /// A number or boolean, as the second version writes it.
    Plain(String),
    Text(String),
    List(Vec<(Value, Range<usize>)>),
    Object(Vec<Item>),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    mark: Option<Range<usize>>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Passes blanks, line breaks and comments; true when a line break was among them.
    fn blanks(&mut self) -> bool {
        let mut broke = false;
        loop {
            let rest = &self.text[self.at..];
            let length = match rest.chars().next() {
                Some(c) if c.is_whitespace() => {
                    broke |= c == '\n';
                    c.len_utf8()
                }
                Some('#') => rest.find('\n').unwrap_or(rest.len()),
                Some('/') if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
                Some('/') if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
                _ => return broke,
            };
            self.at += length;
        }
    }

    /// Notes something that only the first version allows.
    fn note(&mut self, place: Range<usize>) {
        self.mark.get_or_insert(place);
    }

    /// Items up to the closing brace, or to the end of the file.
    fn items(&mut self, depth: usize, whole: bool) -> Option<Vec<Item>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut out = Vec::new();
        let mut separated = true;
        loop {
            separated |= self.blanks();
            match self.peek() {
                None => return whole.then_some(out),
                Some('}') if !whole => {
                    self.at += 1;
                    return Some(out);
                }
                Some(_) => {}
            }
            if !separated {
                self.note(self.at..self.at + 1);
            }
            out.push(self.item(depth)?);
            separated = self.blanks();
            if self.peek() == Some(',') {
                self.note(self.at..self.at + 1);
                self.at += 1;
                separated = true;
            }
        }
    }

    fn item(&mut self, depth: usize) -> Option<Item> {
        let start = self.at;
        let mut keys = vec![self.key(true)?];
        loop {
            self.blanks();
            match self.peek()? {
                '=' if keys.len() == 1 => {
                    self.at += 1;
                    self.blanks();
                    let value = self.value(depth)?;
                    return Some(Item { keys, value, origin: start..self.at });
                }
                '{' => {
                    self.at += 1;
                    let value = Value::Object(self.items(depth + 1, false)?);
                    return Some(Item { keys, value, origin: start..self.at });
                }
                _ => keys.push(self.key(false)?),
            }
        }
    }

    fn key(&mut self, is_name: bool) -> Option<Key> {
        let start = self.at;
        if self.peek()? == '"' {
            let name = self.quoted()?;
            if is_name {
                self.note(start..self.at);
            }
            return Some(Key { name, origin: start..self.at });
        }
        let rest = &self.text[start..];
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let length = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let name = &rest[..length];
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return None;
        }
        self.at += length;
        if name.contains('.') {
            self.note(start..self.at);
        }
        Some(Key { name: name.to_owned(), origin: start..self.at })
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let rest = &self.text[self.at..];
        match rest.chars().next()? {
            '"' => self.quoted().map(Value::Text),
            '<' => self.heredoc().map(Value::Text),
            '[' => self.list(depth),
            '{' => {
                self.at += 1;
                self.items(depth + 1, false).map(Value::Object)
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']' | '#' | '/');
                let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
                let plain =
                    if matches!(word, "true" | "false") { word.to_owned() } else { self.number(word)? };
                self.at += word.len();
                Some(Value::Plain(plain))
            }
        }
    }

    /// A number in decimal; those of other bases are converted.
    fn number(&mut self, word: &str) -> Option<String> {
        let (sign, digits) = word.strip_prefix('-').map_or(("", word), |digits| ("-", digits));
        let whole = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            self.note(self.at..self.at + word.len());
            i64::from_str_radix(hex, 16).ok()?
        } else if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
            self.note(self.at..self.at + word.len());
            i64::from_str_radix(digits, 8).ok()?
        } else {
            digits.parse::<f64>().ok().filter(|number| number.is_finite())?;
            return digits.starts_with(|c: char| c.is_ascii_digit()).then(|| word.to_owned());
        };
        Some(format!("{sign}{whole}"))
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blanks();
            if self.peek()? == ']' {
                self.at += 1;
                return Some(Value::List(items));
            }
            let start = self.at;
            let value = self.value(depth + 1)?;
            items.push((value, start..self.at));
            self.blanks();
            match self.peek()? {
                ',' => self.at += 1,
                ']' => {}
                _ => return None,
            }
        }
    }

    /// A string. `${` opens a region that is kept as it is, up to its brace.
    fn quoted(&mut self) -> Option<String> {
        let text = self.text;
        let mut chars = text[self.at + 1..].char_indices().map(|(at, c)| (at + self.at + 1, c)).peekable();
        let mut out = String::new();
        let mut braces = 0usize;
        while let Some((at, c)) = chars.next() {
            if braces > 0 {
                match c {
                    '{' => braces += 1,
                    '}' => braces -= 1,
                    _ => {}
                }
                out.push(c);
                continue;
            }
            match c {
                '"' => {
                    self.at = at + 1;
                    return Some(out);
                }
                '\n' => return None,
                '$' if chars.peek().is_some_and(|(_, next)| *next == '{') => {
                    chars.next();
                    out.push_str("${");
                    braces = 1;
                }
                '\\' => {
                    let (_, escape) = chars.next()?;
                    let mut code = |digits: usize, radix: u32, first: &str| {
                        let mut written = first.to_owned();
                        for _ in 0..digits {
                            written.push(chars.next()?.1);
                        }
                        u32::from_str_radix(&written, radix).ok().and_then(char::from_u32)
                    };
                    out.push(match escape {
                        'a' => '\u{7}',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'v' => '\u{b}',
                        'x' => code(2, 16, "")?,
                        'u' => code(4, 16, "")?,
                        'U' => code(8, 16, "")?,
                        digit @ '0'..='7' => code(2, 8, &digit.to_string())?,
                        other @ ('\\' | '"') => other,
                        _ => return None,
                    });
                }
                other => out.push(other),
            }
        }
        None
    }

    /// `<<-` takes the indentation of the closing line off all lines, when all have it.
    fn heredoc(&mut self) -> Option<String> {
        let rest = self.text[self.at..].strip_prefix("<<")?;
        let (indented, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        let (marker, body) = rest.split_once('\n')?;
        let marker = marker.trim_end();
        if marker.is_empty() || !marker.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            return None;
        }
        let mut lines = Vec::new();
        let mut at = self.text.len() - body.len();
        for line in body.split_inclusive('\n') {
            if line.trim() == marker {
                let indent = &line[..line.len() - line.trim_start().len()];
                self.at = at + line.trim_end().len();
                let all = lines.iter().all(|line: &&str| line.starts_with(indent));
                let kept = |line: &str| {
                    let line = if indented && all { &line[indent.len()..] } else { line };
                    line.to_owned()
                };
                return Some(lines.into_iter().map(kept).collect());
            }
            lines.push(line);
            at += line.len();
        }
        None
    }
}

struct Writer {
    text: String,
    pieces: Vec<(usize, Range<usize>)>,
}

fn is_name(name: &str) -> bool {
    hcl_edit::Ident::try_new(name).is_ok()
}

impl Writer {
    fn put(&mut self, text: &str, origin: &Range<usize>) {
        self.pieces.push((self.text.len(), origin.clone()));
        self.text.push_str(text);
    }

    fn body(&mut self, items: &[Item], free: bool) {
        for (index, item) in items.iter().enumerate() {
            let [key, labels @ ..] = item.keys.as_slice() else { continue };
            // Of an argument that is given several times, the last one counts.
            let again = |other: &Item| {
                other.keys.len() == 1
                    && other.keys[0].name == key.name
                    && !matches!(other.value, Value::Object(_))
            };
            if !matches!(item.value, Value::Object(_)) && items[index + 1..].iter().any(again) {
                continue;
            }
            match &item.value {
                Value::Object(inner) => self.block(key, labels, inner, free, &item.origin),
                Value::List(elements)
                    if !free
                        && !elements.is_empty()
                        && elements.iter().all(|(value, _)| matches!(value, Value::Object(_))) =>
                {
                    for (element, origin) in elements {
                        if let Value::Object(inner) = element {
                            self.block(key, labels, inner, free, origin);
                        }
                    }
                }
                value => {
                    self.put(&key.name, &key.origin);
                    self.text.push_str(" = ");
                    self.value(value, &item.origin);
                    self.text.push('\n');
                }
            }
        }
    }

    fn block(&mut self, key: &Key, labels: &[Key], inner: &[Item], free: bool, origin: &Range<usize>) {
        if !free && labels.is_empty() && LABELLED.contains(&key.name.as_str()) {
            for item in inner {
                if let (Value::Object(body), [label, more @ ..]) = (&item.value, item.keys.as_slice()) {
                    let mut labels = vec![Key { name: label.name.clone(), origin: label.origin.clone() }];
                    labels.extend(
                        more.iter().map(|key| Key { name: key.name.clone(), origin: key.origin.clone() }),
                    );
                    self.block(key, &labels, body, free, &item.origin);
                }
            }
            if inner.iter().all(|item| matches!(item.value, Value::Object(_))) && !inner.is_empty() {
                return;
            }
        }
        let inside = free || FREE.contains(&key.name.as_str());
        let named = |item: &Item| item.keys.first().is_some_and(|key| is_name(&key.name));
        self.put(&key.name, &key.origin);
        if inside && labels.is_empty() && !inner.iter().all(named) {
            self.text.push_str(" = ");
            self.object(inner, origin);
            self.text.push('\n');
            return;
        }
        for label in labels {
            self.text.push(' ');
            self.put(&literal(&label.name), &label.origin);
        }
        self.put(" {\n", origin);
        self.body(inner, inside);
        self.put("}\n", origin);
    }

    fn value(&mut self, value: &Value, origin: &Range<usize>) {
        match value {
            Value::Plain(plain) => self.put(plain, origin),
            Value::Text(text) => self.put(&literal(text), origin),
            Value::List(items) => {
                self.put("[", origin);
                for (item, origin) in items {
                    self.value(item, origin);
                    self.text.push_str(", ");
                }
                self.put("]", origin);
            }
            Value::Object(items) => self.object(items, origin),
        }
    }

    fn object(&mut self, items: &[Item], origin: &Range<usize>) {
        self.put("{", origin);
        for item in items {
            let [key, labels @ ..] = item.keys.as_slice() else { continue };
            self.put(&literal(&key.name), &key.origin);
            self.text.push_str(" = ");
            for label in labels {
                self.put("[{", &label.origin);
                self.put(&literal(&label.name), &label.origin);
                self.text.push_str(" = ");
            }
            self.value(&item.value, &item.origin);
            self.text.push_str(&"}]".repeat(labels.len()));
            self.text.push_str(", ");
        }
        self.put("}", origin);
    }
}

/// A text in quotes, with nothing in it that the second version would evaluate.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("${") || rest.starts_with("%{") {
            out.push(c);
        }
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out.push('"');
    out
}
