//! Functions that read files, relative to the directory that the command runs in.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Answer;
use super::Args;
use super::Function;
use super::Value;
use super::Wrong;
use super::function;
use super::text;
use super::texts;

/// Larger files do not belong into a job file.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// `fileset` looks at no more entries than this.
const MAX_ENTRIES: usize = 100_000;

pub(super) const FUNCTIONS: &[Function] = &[
    function("abspath", &["path"], abspath),
    function("basename", &["path"], basename),
    function("dirname", &["path"], dirname),
    function("file", &["path"], file),
    function("filebase64", &["path"], filebase64),
    function("fileexists", &["path"], fileexists),
    function("fileset", &["path", "pattern"], fileset),
    function("pathexpand", &["path"], |args| path(args, 0).map(|path| shown(&path))),
];

/// The argument at `index` as a path, with `~` expanded.
fn path(args: &Args, index: usize) -> Result<PathBuf, Wrong> {
    let written = text(args, index)?;
    match (written.strip_prefix('~'), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            Ok(PathBuf::from(home).join(rest.trim_start_matches('/')))
        }
        _ => Ok(PathBuf::from(written)),
    }
}

fn shown(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

fn read(args: &Args) -> Result<Vec<u8>, Wrong> {
    let path = path(args, 0)?;
    let failed = |error: std::io::Error| format!("failed to read {}: {error}", path.display());
    if std::fs::metadata(&path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display()).into());
    }
    Ok(std::fs::read(&path).map_err(failed)?)
}

fn file(args: &Args) -> Answer {
    let contents = String::from_utf8(read(args)?);
    contents.map(Value::String).map_err(|_| {
        let path = text(args, 0).unwrap_or_default();
        format!("contents of {path} are not valid UTF-8; use filebase64 instead").into()
    })
}

fn filebase64(args: &Args) -> Answer {
    Ok(Value::String(STANDARD.encode(read(args)?)))
}

fn fileexists(args: &Args) -> Answer {
    Ok(Value::Bool(path(args, 0)?.is_file()))
}

fn abspath(args: &Args) -> Answer {
    let path = path(args, 0)?;
    let whole = std::path::absolute(&path).map_err(|error| error.to_string())?;
    let mut clean = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    Ok(shown(&clean))
}

fn basename(args: &Args) -> Answer {
    let path = path(args, 0)?;
    Ok(Value::String(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()))
}

fn dirname(args: &Args) -> Answer {
    let path = path(args, 0)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(shown(parent.unwrap_or(Path::new("."))))
}

fn fileset(args: &Args) -> Answer {
    let root = path(args, 0)?;
    let pattern = glob(&text(args, 1)?)?;
    let mut found = Vec::new();
    let mut pending = vec![root.clone()];
    let mut seen = 0;
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(format!("{} holds more than {MAX_ENTRIES} entries", root.display()).into());
            }
            if path.is_dir() && !path.is_symlink() {
                pending.push(path);
            } else if let Ok(relative) = path.strip_prefix(&root) {
                let relative = relative.to_string_lossy().into_owned();
                if pattern.is_match(&relative) {
                    found.push(relative);
                }
            }
        }
    }
    found.sort();
    Ok(texts(found))
}

/// A glob as a pattern: `*` and `?` stay within a directory, `**` does not.
fn glob(written: &str) -> Result<regex::Regex, String> {
    let mut out = String::from("^");
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        let (token, length) = if rest.starts_with("**/") {
            ("(.*/)?".to_owned(), 3)
        } else if rest.starts_with("**") {
            (".*".to_owned(), 2)
        } else {
            let token = match c {
                '*' => "[^/]*".to_owned(),
                '?' => "[^/]".to_owned(),
                '{' => "(".to_owned(),
                '}' => ")".to_owned(),
                ',' => "|".to_owned(),
                '[' | ']' => c.to_string(),
                other => regex::escape(&other.to_string()),
            };
            (token, c.len_utf8())
        };
        out.push_str(&token);
        rest = &rest[length..];
    }
    out.push('$');
    regex::Regex::new(&out).map_err(|_| format!("failed to glob pattern {written:?}"))
}
