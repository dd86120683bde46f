//! Reads configuration files: HCL as agents write it, or JSON.

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use crate::gotemplate::sockaddr;

use super::ConfigError;
use super::schema;
use super::syntax;

/// Reads a file, or the `*.hcl` and `*.json` of a directory in alphabetical order.
///
/// # Errors
/// When a file cannot be read or understood, or holds unknown keys.
pub fn load(path: &Path) -> Result<Vec<(String, Value)>, ConfigError> {
    let shown = path.display().to_string();
    let failed = |why: String| ConfigError::Load { path: shown.clone(), why };
    let what = std::fs::metadata(path).map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => failed(format!("stat {shown}: no such file or directory")),
        _ => failed(why.to_string()),
    })?;
    let files = if what.is_dir() {
        files_of(path).map_err(|why| failed(why.to_string()))?
    } else {
        vec![path.to_owned()]
    };
    let mut loaded = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let text =
            std::fs::read_to_string(&file).map_err(|why| failed(format!("Error loading {name}: {why}")))?;
        let value = parse(&name, &text).map_err(|why| failed(format!("Error loading {name}: {why}")))?;
        loaded.push((name, value));
    }
    Ok(loaded)
}

fn files_of(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let wanted = name.ends_with(".hcl") || name.ends_with(".json");
        let leftover =
            name.ends_with('~') || name.starts_with(".#") || (name.starts_with('#') && name.ends_with('#'));
        if wanted && !leftover && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads the text of one file into the form that [`schema::merge`] takes.
///
/// # Errors
/// With line and reason.
pub fn parse(name: &str, text: &str) -> Result<Value, String> {
    let raw: Value = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|why| format!("failed to decode JSON file {name}: {why}"))?
    } else {
        syntax::parse(text).map_err(|why| format!("failed to decode HCL file {name}: {why}"))?
    };
    let mut unknown = Vec::new();
    let shaped = schema::shape(raw, schema::FILE, &mut unknown);
    if unknown.is_empty() {
        return Ok(shaped);
    }
    let lines: Vec<String> = unknown
        .iter()
        .filter_map(|key| line_of(text, key).map(|line| format!("{key} at {name}:{line}")))
        .collect();
    let places = if lines.is_empty() { String::new() } else { format!(" ({})", lines.join(", ")) };
    Err(format!("unexpected keys {}{places}", unknown.join(", ")))
}

/// The first line that assigns or opens `key`, counted from 1.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let starts = |line: &str| {
        let line = line.trim_start().trim_start_matches('"');
        line.strip_prefix(key).is_some_and(|rest| {
            let rest = rest.trim_start_matches('"').trim_start();
            rest.is_empty() || rest.starts_with(['=', '{', ':', '"'])
        })
    };
    text.lines()
        .position(starts)
        .or_else(|| text.lines().position(|line| line.contains(key)))
        .map(|at| at + 1)
}

/// Replaces templates of addresses, as `{{ GetInterfaceIP "eth0" }}:4646` or
/// `{{ GetAllInterfaces | include "network" "10.0.0.0/8" | attr "address" }}`.
///
/// # Errors
/// When a template is wrong, or finds no such address on this machine.
pub fn expand_address(text: &str) -> Result<String, ConfigError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let failed =
        |why: &str| ConfigError::Invalid(format!("Failed to parse address template {text:?}: {why}"));
    let found = sockaddr::expand(text).map_err(|why| failed(&why))?;
    let found = found.trim();
    if found.is_empty() || found.starts_with(':') {
        return Err(failed("this machine has no such address"));
    }
    Ok(found.to_owned())
}

/// The first private IPv4 address of this machine, else the first address that is not the loopback's.
pub fn private_address() -> Option<IpAddr> {
    let all: Vec<IpAddr> = sockaddr::interfaces().into_iter().map(|each| each.address).collect();
    let usable = || all.iter().copied().filter(|ip| !ip.is_loopback());
    usable()
        .find(|ip| sockaddr::is_private(*ip))
        .or_else(|| usable().find(IpAddr::is_ipv4))
        .or_else(|| usable().next())
}
