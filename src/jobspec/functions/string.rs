//! Texts.

use hcl::Value;
use hcl::eval::FuncArgs;
use regex::Regex;

use super::Answer;
use super::Entry;
use super::arity;
use super::list;
use super::text;
use super::texts;
use super::whole;

pub(super) const FUNCTIONS: &[Entry] = &[
    ("chomp", |args| one(&args, |s| s.trim_end_matches(['\n', '\r']).to_owned())),
    ("format", format),
    ("formatlist", formatlist),
    ("indent", indent),
    ("join", join),
    ("lower", |args| one(&args, str::to_lowercase)),
    ("upper", |args| one(&args, str::to_uppercase)),
    ("title", |args| one(&args, title)),
    ("regex_replace", regex_replace),
    ("replace", replace),
    ("split", split),
    ("strlen", strlen),
    ("strrev", |args| one(&args, reversed)),
    ("reverse", |args| one(&args, reversed)),
    ("substr", substr),
    ("trim", trim),
    ("trimprefix", |args| two(&args, |s, p| s.strip_prefix(p).unwrap_or(s).to_owned())),
    ("trimsuffix", |args| two(&args, |s, p| s.strip_suffix(p).unwrap_or(s).to_owned())),
    ("trimspace", |args| one(&args, |s| s.trim().to_owned())),
];

fn one(args: &FuncArgs, function: fn(&str) -> String) -> Answer {
    arity(args, 1, 1)?;
    Ok(Value::String(function(&text(args, 0)?)))
}

fn two(args: &FuncArgs, function: fn(&str, &str) -> String) -> Answer {
    arity(args, 2, 2)?;
    Ok(Value::String(function(&text(args, 0)?, &text(args, 1)?)))
}

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at_start = true;
    for c in text.chars() {
        if at_start {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        at_start = !c.is_alphanumeric() && c != '_' && c != '\'';
    }
    out
}

fn trim(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let cutset = text(&args, 1)?;
    Ok(Value::String(text(&args, 0)?.trim_matches(|c| cutset.contains(c)).to_owned()))
}

fn replace(args: FuncArgs) -> Answer {
    arity(&args, 3, 3)?;
    Ok(Value::String(text(&args, 0)?.replace(&text(&args, 1)?, &text(&args, 2)?)))
}

fn regex_replace(args: FuncArgs) -> Answer {
    arity(&args, 3, 3)?;
    let pattern = Regex::new(&text(&args, 1)?).map_err(|error| error.to_string())?;
    Ok(Value::String(pattern.replace_all(&text(&args, 0)?, text(&args, 2)?.as_str()).into_owned()))
}

fn split(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let (separator, whole) = (text(&args, 0)?, text(&args, 1)?);
    if separator.is_empty() {
        return Ok(texts(whole.chars().map(String::from)));
    }
    Ok(texts(whole.split(&separator).map(str::to_owned)))
}

fn join(args: FuncArgs) -> Answer {
    let separator = text(&args, 0)?;
    let mut parts = Vec::new();
    for index in 1..args.len().max(2) {
        for item in list(&args, index)? {
            match item {
                Value::String(text) => parts.push(text),
                Value::Number(number) => parts.push(number.to_string()),
                Value::Bool(flag) => parts.push(flag.to_string()),
                _ => return Err("list elements must be strings".to_owned()),
            }
        }
    }
    Ok(Value::String(parts.join(&separator)))
}

fn strlen(args: FuncArgs) -> Answer {
    arity(&args, 1, 1)?;
    Ok(Value::from(text(&args, 0)?.chars().count()))
}

fn substr(args: FuncArgs) -> Answer {
    arity(&args, 3, 3)?;
    let chars: Vec<char> = text(&args, 0)?.chars().collect();
    let (offset, length) = (whole(&args, 1)?, whole(&args, 2)?);
    let size = i64::try_from(chars.len()).unwrap_or(i64::MAX);
    let start = if offset < 0 { (size + offset).max(0) } else { offset.min(size) };
    let end = if length < 0 { size } else { start.saturating_add(length).min(size) };
    let range = usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
    Ok(Value::String(chars.get(range).unwrap_or_default().iter().collect()))
}

fn indent(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let width = usize::try_from(whole(&args, 0)?).map_err(|_| "indent must not be negative")?;
    Ok(Value::String(text(&args, 1)?.replace('\n', &format!("\n{}", " ".repeat(width.min(1_000))))))
}

fn format(args: FuncArgs) -> Answer {
    let pattern = text(&args, 0)?;
    formatted(&pattern, &args[1..]).map(Value::String)
}

fn formatlist(args: FuncArgs) -> Answer {
    let pattern = text(&args, 0)?;
    let lengths = args[1..].iter().filter_map(|arg| arg.as_array().map(Vec::len));
    let length = lengths.max().unwrap_or(1);
    let mut out = Vec::with_capacity(length);
    for index in 0..length {
        let pick = |arg: &Value| match arg {
            Value::Array(items) => {
                items.get(index).cloned().ok_or_else(|| "lists must have the same length".to_owned())
            }
            single => Ok(single.clone()),
        };
        let row: Result<Vec<Value>, String> = args[1..].iter().map(pick).collect();
        out.push(formatted(&pattern, &row?)?);
    }
    Ok(texts(out))
}

/// A verb of a format: flags, width, precision.
#[derive(Default)]
struct Verb {
    zero: bool,
    left: bool,
    plus: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

fn formatted(pattern: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut next = 0;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '0' | '-' | '+' | ' ' | '#')) {
            match flag {
                '0' => verb.zero = true,
                '-' => verb.left = true,
                '+' => verb.plus = true,
                '#' => verb.alternate = true,
                _ => {}
            }
        }
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            verb.width = (verb.width * 10 + digit as usize - '0' as usize).min(10_000);
        }
        if chars.next_if_eq(&'.').is_some() {
            let mut precision = 0;
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                precision = (precision * 10 + digit as usize - '0' as usize).min(1_000);
            }
            verb.precision = Some(precision);
        }
        if chars.next_if_eq(&'[').is_some() {
            let digits: String = std::iter::from_fn(|| chars.next_if(|c| *c != ']')).collect();
            chars.next();
            next = digits.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).ok_or("bad argument index")?;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(letter) => {
                let value = values.get(next).ok_or_else(|| {
                    format!(
                        "not enough arguments for {pattern:?}: need index {} but have {}",
                        next + 1,
                        values.len()
                    )
                })?;
                out.push_str(&verb.apply(letter, value)?);
                next += 1;
            }
            None => return Err(format!("unterminated verb in {pattern:?}")),
        }
    }
    if next < values.len() && !pattern.contains("%[") {
        return Err(format!("too many arguments; only {next} used by format string"));
    }
    Ok(out)
}

impl Verb {
    fn apply(&self, letter: char, value: &Value) -> Result<String, String> {
        let number = || {
            super::as_number(value)
                .ok_or_else(|| format!("unsupported value for \"%{letter}\": number required"))
        };
        let whole = || -> Result<i64, String> {
            let number = number()?;
            if number.fract() == 0.0 { Ok(number as i64) } else { Err("an integer is required".to_owned()) }
        };
        let body = match letter {
            'v' | 's' if value.is_string() => self.cut(value.as_str().unwrap_or_default()),
            'v' => plain(value),
            's' => self.cut(&plain(value)),
            'q' => plain_quoted(value),
            'd' => whole()?.to_string(),
            't' => value.as_bool().ok_or("bool required")?.to_string(),
            'b' => format!("{:b}", whole()?),
            'o' => format!("{:o}", whole()?),
            'x' => match value {
                Value::String(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                _ => format!("{}{:x}", if self.alternate { "0x" } else { "" }, whole()?),
            },
            'X' => format!("{:X}", whole()?),
            'f' => format!("{:.*}", self.precision.unwrap_or(6), number()?),
            'e' => format!("{:e}", number()?),
            'g' => super::from_number(number()?).to_string(),
            other => return Err(format!("unrecognized format character {other:?}")),
        };
        Ok(self.padded(body, value.is_number() || letter == 'd'))
    }

    fn cut(&self, text: &str) -> String {
        self.precision.map_or_else(|| text.to_owned(), |precision| text.chars().take(precision).collect())
    }

    fn padded(&self, mut body: String, is_number: bool) -> String {
        if self.plus && is_number && !body.starts_with('-') {
            body.insert(0, '+');
        }
        let missing = self.width.saturating_sub(body.chars().count());
        if missing == 0 {
            return body;
        }
        if self.left {
            return body + &" ".repeat(missing);
        }
        if self.zero && is_number {
            let at = usize::from(body.starts_with(['-', '+']));
            body.insert_str(at, &"0".repeat(missing));
            return body;
        }
        " ".repeat(missing) + &body
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => super::encoding::json(other),
    }
}

fn plain_quoted(value: &Value) -> String {
    match value {
        Value::String(text) => super::encoding::json(&Value::String(text.clone())),
        other => format!("\"{}\"", super::encoding::json(other)),
    }
}
