//! Variables from files of templates with `env = true`: one `KEY=value` per line.

use std::collections::BTreeMap;

/// Parses a file. An error names its line: `error on line 2: missing =`.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for (number, line) in text.split('\n').enumerate() {
        let parsed = parse_line(line).map_err(|reason| format!("error on line {}: {reason}", number + 1))?;
        variables.extend(parsed);
    }
    Ok(variables)
}

fn parse_line(line: &str) -> Result<Option<(String, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, value) = line.split_once('=').ok_or("missing =")?;
    let key = key.trim();
    let key = key.strip_prefix("export ").map_or(key, str::trim_start);
    check_key(key)?;
    Ok(Some((key.to_owned(), parse_value(value.trim())?)))
}

fn check_key(key: &str) -> Result<(), String> {
    let Some(first) = key.chars().next() else { return Err("empty key".to_owned()) };
    if !first.is_ascii_alphabetic() && first != '_' {
        return Err(format!("key must start with [A-Za-z_] but found '{first}'"));
    }
    match key.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '/')) {
        Some(bad) => Err(format!("key characters must be [A-Za-z0-9_./] but found '{bad}'")),
        None => Ok(()),
    }
}

fn parse_value(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted(&mut chars, &mut out)?,
            '\'' => loop {
                match plain(chars.next().ok_or("unmatched '")?)? {
                    '\'' => break,
                    other => out.push(other),
                }
            },
            '#' => {
                out.truncate(out.trim_end().len());
                break;
            }
            other => out.push(plain(other)?),
        }
    }
    Ok(out)
}

fn plain(c: char) -> Result<char, String> {
    if c < ' ' {
        return Err(format!("0x{:x} is an invalid value character", u32::from(c)));
    }
    Ok(c)
}

fn quoted(chars: &mut std::str::Chars<'_>, out: &mut String) -> Result<(), String> {
    loop {
        match plain(chars.next().ok_or("unmatched \"")?)? {
            '"' => return Ok(()),
            '\\' => out.push(escaped(chars)?),
            other => out.push(other),
        }
    }
}

fn escaped(chars: &mut std::str::Chars<'_>) -> Result<char, String> {
    Ok(match chars.next().ok_or("unmatched \"")? {
        c @ ('"' | '\\' | '/') => c,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let high = code_unit(chars)?;
            let mut units = vec![high];
            if (0xd800..0xdc00).contains(&high) && chars.as_str().starts_with("\\u") {
                chars.next();
                chars.next();
                units.push(code_unit(chars)?);
            }
            char::decode_utf16(units).next().and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        other => return Err(format!("invalid escape sequence '\\{other}'")),
    })
}

fn code_unit(chars: &mut std::str::Chars<'_>) -> Result<u16, String> {
    let digits: String = chars.by_ref().take(4).collect();
    let unit = (digits.len() == 4).then(|| u16::from_str_radix(&digits, 16).ok()).flatten();
    unit.ok_or_else(|| format!("invalid unicode escape '\\u{digits}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_the_grammar() {
        for (line, expected) in [
            ("A=b", Some(("A", "b"))),
            ("  export A_1.x/y =  b c  ", Some(("A_1.x/y", "b c"))),
            ("# A=b", None),
            ("   ", None),
            ("A=", Some(("A", ""))),
            ("A=b # c", Some(("A", "b"))),
            ("A=b#c", Some(("A", "b"))),
            ("A=\"b # c\" # d", Some(("A", "b # c"))),
            ("A='b \\n \"c\"'", Some(("A", "b \\n \"c\""))),
            ("A=x\"y\"'z'", Some(("A", "xyz"))),
            (r#"A="\"\\\/\n\u00e9\ud83d\ude00""#, Some(("A", "\"\\/\né😀"))),
            ("A=b=c", Some(("A", "b=c"))),
            ("A=b\r", Some(("A", "b"))),
        ] {
            let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(parse_line(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn errors_name_their_line() {
        for (text, expected) in [
            ("A=b\nnothing", "error on line 2: missing ="),
            ("1A=b", "error on line 1: key must start with [A-Za-z_] but found '1'"),
            ("A-B=b", "error on line 1: key characters must be [A-Za-z0-9_./] but found '-'"),
            ("=b", "error on line 1: empty key"),
            ("A=\"b", "error on line 1: unmatched \""),
            ("A='b", "error on line 1: unmatched '"),
            ("A=b\tc", "error on line 1: 0x9 is an invalid value character"),
            ("A=\"\\x\"", "error on line 1: invalid escape sequence '\\x'"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn the_last_of_two_wins() {
        assert_eq!(parse("A=1\nA=2\n").unwrap(), BTreeMap::from([("A".to_owned(), "2".to_owned())]));
    }
}
