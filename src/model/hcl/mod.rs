//! The tokens of HCL, and a look at expressions that its parser would read again and again.
//!
//! When a later operand of a chain of operators (`a + b + { …`) fails to parse because of an object in it, the parser
//! goes back and reads it once more before it gives up. Operands within such operands double that at every level, so a
//! file of two kilobytes could keep a processor busy for hours.

pub mod lexer;

use std::ops::Range;

use self::lexer::Kind;
use self::lexer::tokens;

/// Brackets in each other, each of them in a later operand. The innermost is read at most 2 to this power times.
const MAX_REPEATED: u32 = 4;

/// Between two brackets.
#[derive(Clone, Copy, Default)]
struct Frame {
    /// Operators in the present expression so far.
    chain: usize,
    /// Brackets around this that belong to later operands.
    repeated: u32,
    /// The end of a line ends an expression.
    by_lines: bool,
}

/// The bracket at which a text goes too deep, if it does.
pub fn too_deep(text: &str) -> Option<Range<usize>> {
    let mut frames = vec![Frame { by_lines: true, ..Frame::default() }];
    let (mut at, mut after_operator) = (0, false);
    for token in tokens(text) {
        at += token.spaces;
        let start = at;
        at += token.text.len();
        let frame = frames.last_mut()?;
        match token.kind {
            Kind::Operator | Kind::Minus => frame.chain += 1,
            Kind::Equal | Kind::Comma | Kind::Colon | Kind::Question => frame.chain = 0,
            Kind::Newline | Kind::Comment => {
                if frame.by_lines && !after_operator && token.text.ends_with('\n') {
                    frame.chain = 0;
                }
                continue;
            }
            Kind::OpenBrace | Kind::OpenBracket | Kind::OpenParen | Kind::OpenTemplate => {
                let repeated = frame.repeated + u32::from(frame.chain >= 2);
                if repeated > MAX_REPEATED {
                    return Some(start..at);
                }
                frames.push(Frame { chain: 0, repeated, by_lines: token.kind == Kind::OpenBrace });
            }
            Kind::CloseBrace | Kind::CloseBracket | Kind::CloseParen | Kind::CloseTemplate => {
                frames.pop();
                if frames.is_empty() {
                    // The parser stops here.
                    return None;
                }
            }
            _ => {}
        }
        after_operator = matches!(token.kind, Kind::Operator | Kind::Minus);
    }
    None
}

/// As [`too_deep`], for the text of a template.
pub fn template_too_deep(text: &str) -> bool {
    too_deep(&format!("<<HERDER_TEMPLATE\n{text}\nHERDER_TEMPLATE\n")).is_some()
}

#[cfg(test)]
mod tests {
    use hcl_edit::parser::parse_body;

    use super::*;

    fn nested(open: &str, depth: usize, close: &str) -> String {
        format!("x = {}1{}\n", open.repeat(depth), close.repeat(depth))
    }

    #[test]
    fn what_the_parser_reads_twice_per_level_is_refused() {
        for open in [
            "1 + 1 + {a = ",
            "1 + 1 + {\na = ",
            "\"s\" / bin / {\n a = ",
            "1 + 1 + 1 + 1 +\n{\n a = ",
            "1 + 1 + \"${{a = ",
            "1 - 1 - {a = [1, ",
            "1 + f(1, 2) + {a = ",
            "/* x */ 1 + 1 # y\n + {a = ",
        ] {
            let text = nested(open, 40, "");
            // In a list or in parentheses a line break ends nothing.
            let text = if open.starts_with("/*") {
                text.replace("x = ", "x = [").replace("{a = ", "{a = [")
            } else {
                text
            };
            assert!(too_deep(&text).is_some(), "{open}");
            assert!(too_deep(&nested(open, 4, "")).is_none(), "{open}");
        }
        let place = too_deep(&nested("1 + 1 + {a = ", 5, "")).unwrap();
        assert_eq!(place, 4 + 4 * 13 + 8..4 + 4 * 13 + 9);
    }

    #[test]
    fn other_nesting_is_left_to_the_parser() {
        for (open, close) in [
            ("{a = ", "}"),
            ("1 + {a = ", "}"),
            ("[1 + ", "]"),
            ("f(1, 2 - 1, 3 - ", ")"),
            ("true ? 1 + 1 : {a = ", "}"),
        ] {
            let text = nested(open, 20, close);
            assert!(too_deep(&text).is_none(), "{open}");
            assert!(parse_body(&text).is_ok(), "{text}");
        }
        assert!(too_deep("job a-b-c {\n group d-e-f {\n}\n}\n}}}}").is_none());
        assert!(!template_too_deep("a - b - c ${1 + 1 + 1} {{ range }} {"));
        assert!(template_too_deep(&format!("${{{}", "1 + 1 + {a = ".repeat(7))));
    }
}
