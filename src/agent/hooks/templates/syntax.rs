//! Brings template text into the form that the engine understands: its delimiters, no `else with`, no methods.

/// Go's own delimiters, the only ones that the engine knows.
const LEFT: &str = "{{";
const RIGHT: &str = "}}";

/// The methods of `scratch`; the engine calls functions only.
const SCRATCH: &str = "scratch.";

/// Rewrites `text`, whose actions stand between `left` and `right` (Go's when empty). Line numbers stay the same.
pub(super) fn normalise(text: &str, left: &str, right: &str) -> String {
    let left = if left.is_empty() { LEFT } else { left };
    let right = if right.is_empty() { RIGHT } else { right };
    let mut out =
        Rewriter { out: String::with_capacity(text.len()), blocks: Vec::new(), foreign: left != LEFT };
    let mut rest = text;
    while let Some(start) = rest.find(left) {
        out.text(&rest[..start]);
        let after = &rest[start + left.len()..];
        let Some(end) = action_end(after, right) else {
            // Not closed: the engine says so, with the position.
            out.out.push_str(LEFT);
            out.out.push_str(after);
            return out.out;
        };
        out.action(&after[..end]);
        rest = &after[end + right.len()..];
    }
    out.text(rest);
    out.out
}

/// Where `right` ends the action, outside of strings and comments.
fn action_end(action: &str, right: &str) -> Option<usize> {
    if let Some(comment) = action.strip_prefix("- ").unwrap_or(action).strip_prefix("/*") {
        let end = action.len() - comment.len() + comment.find("*/")? + 2;
        return Some(end + action[end..].find(right)?);
    }
    let mut at = 0;
    while at < action.len() {
        let rest = &action[at..];
        if rest.starts_with(right) {
            return Some(at);
        }
        let first = rest.chars().next()?;
        at += match first {
            '"' | '\'' | '`' => literal(rest)?,
            other => other.len_utf8(),
        };
    }
    None
}

/// Length of the quoted text that `rest` begins with.
fn literal(rest: &str) -> Option<usize> {
    let quote = rest.chars().next()?;
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

struct Rewriter {
    out: String,
    /// One per open block: whether it is a `with`, and how many ends its `else with` added.
    blocks: Vec<(bool, usize)>,
    /// The text has delimiters of its own, so `{{` in it is text.
    foreign: bool,
}

impl Rewriter {
    fn text(&mut self, text: &str) {
        if self.foreign {
            self.out.push_str(&text.replace('{', "{{\"{\"}}"));
        } else {
            self.out.push_str(text);
        }
    }

    fn action(&mut self, action: &str) {
        let (trim_left, body) = match action.strip_prefix('-').filter(|rest| rest.starts_with(is_space)) {
            Some(rest) => ("-", rest),
            None => ("", action),
        };
        let (trim_right, body) = match body.strip_suffix('-').filter(|rest| rest.ends_with(is_space)) {
            Some(rest) => ("-", rest),
            None => ("", body),
        };
        let mut words = body.split_whitespace();
        match (words.next(), words.next()) {
            (Some(word @ ("if" | "range" | "with" | "block" | "define")), _) => {
                self.blocks.push((word == "with", 0));
                self.push(trim_left, body, trim_right);
            }
            (Some("else"), Some("with")) if self.blocks.last().is_some_and(|(with, _)| *with) => {
                if let Some((_, ends)) = self.blocks.last_mut() {
                    *ends += 1;
                }
                let condition = body.trim_start().trim_start_matches("else");
                self.push(trim_left, " else ", "");
                self.push("", condition, trim_right);
            }
            (Some("end"), _) => {
                let ends = self.blocks.pop().map_or(0, |(_, ends)| ends);
                self.push(trim_left, body, if ends == 0 { trim_right } else { "" });
                for number in 1..=ends {
                    self.push("", " end ", if number == ends { trim_right } else { "" });
                }
            }
            _ => self.push(trim_left, body, trim_right),
        }
    }

    fn push(&mut self, trim_left: &str, body: &str, trim_right: &str) {
        self.out.push_str(LEFT);
        self.out.push_str(trim_left);
        self.body(body);
        self.out.push_str(trim_right);
        self.out.push_str(RIGHT);
    }

    /// Copies code, with methods of `scratch` as functions. Quoted text is left alone.
    fn body(&mut self, body: &str) {
        let mut rest = body;
        while let Some(first) = rest.chars().next() {
            let before = self.out.chars().next_back();
            let starts_word = before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '.' | '$'));
            if matches!(first, '"' | '\'' | '`') {
                let length = literal(rest).unwrap_or(rest.len());
                self.out.push_str(&rest[..length]);
                rest = &rest[length..];
            } else if let Some(method) = rest.strip_prefix(SCRATCH).filter(|_| starts_word) {
                self.out.push_str("scratch_");
                rest = method;
            } else {
                self.out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_delimiters_are_swapped_and_braces_kept() {
        for (text, expected) in [
            ("a [[ .x ]] b", "a {{ .x }} b"),
            ("{[[ .x ]]}", "{{\"{\"}}{{ .x }}}"),
            ("[[- \"]]\" | printf `]]` -]] {{ x }}", "{{- \"]]\" | printf `]]` -}} {{\"{\"}}{{\"{\"}} x }}"),
            ("[[/* ]] */]]x", "{{/* ]] */}}x"),
        ] {
            assert_eq!(normalise(text, "[[", "]]"), expected, "{text}");
        }
    }

    #[test]
    fn else_with_becomes_a_nested_with() {
        assert_eq!(
            normalise("{{ with a }}1{{- else with b -}}2{{ else }}3{{- end -}}4", "", ""),
            "{{ with a }}1{{- else }}{{ with b -}}2{{ else }}3{{- end }}{{ end -}}4"
        );
        let plain = "{{ if a }}1{{ else if b }}2{{ end }}";
        assert_eq!(normalise(plain, "", ""), plain);
    }

    #[test]
    fn methods_of_scratch_become_functions() {
        assert_eq!(
            normalise("{{ scratch.Set \"scratch.x\" 1 }}{{ .scratch.Get }}", "", ""),
            "{{ scratch_Set \"scratch.x\" 1 }}{{ .scratch.Get }}"
        );
    }
}
