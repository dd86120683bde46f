//! Help texts, made from the registry and the flags' own descriptions.

use super::registry;
use super::registry::Spec;

/// Commands at the top of the program's help, in this order.
const COMMON: [&str; 7] = ["run", "stop", "status", "alloc", "job", "node", "agent"];
/// The section of the flags that are not general ones.
const OWN: &str = "Options";

/// The help of one command.
pub fn command(program: &str, spec: &Spec) -> String {
    let mut text = format!("Usage: {program} {} {}", spec.path, spec.usage).trim_end().to_owned();
    text.push_str(&format!("\n\n  {}\n", spec.synopsis));
    let command = spec.command();
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let heading = arg.get_help_heading().unwrap_or(OWN).to_owned();
        let value = match arg.get_value_names() {
            Some(names) if arg.get_action().takes_values() => format!("=<{}>", names.join(" ")),
            _ => String::new(),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let entry = format!("  -{long}{value}\n    {help}\n");
        match sections.iter_mut().find(|(name, _)| *name == heading) {
            Some((_, entries)) => entries.push(entry),
            None => sections.push((heading, vec![entry])),
        }
    }
    for (heading, entries) in sections {
        text.push_str(&format!("\n{heading}:\n\n{}", entries.join("\n")));
    }
    text.trim_end().to_owned()
}

/// The help of a group of commands.
pub fn group(program: &str, group: &str) -> String {
    let mut text = format!("Usage: {program} {group} <subcommand> [options] [args]\n");
    text.push_str(&format!("\n  {}\n\nSubcommands:\n", registry::group_synopsis(group)));
    let prefix = format!("{group} ");
    let mut found: Vec<(String, String)> = Vec::new();
    for spec in registry::SPECS.iter().filter(|spec| !spec.hidden) {
        let Some(rest) = spec.path.strip_prefix(&prefix) else { continue };
        let (name, synopsis) = match rest.split_once(' ') {
            Some((name, _)) => {
                (name.to_owned(), registry::group_synopsis(&format!("{group} {name}")).to_owned())
            }
            None => (rest.to_owned(), spec.synopsis.to_owned()),
        };
        if !found.iter().any(|(known, _)| *known == name) {
            found.push((name, synopsis));
        }
    }
    found.sort();
    text.push_str(&columns(&found, 4));
    text
}

/// The help of the program.
pub fn program(program: &str) -> String {
    let mut found: Vec<(String, String)> = Vec::new();
    for spec in registry::SPECS.iter().filter(|spec| !spec.hidden) {
        let (name, synopsis) = match spec.path.split_once(' ') {
            Some((name, _)) => (name, registry::group_synopsis(name)),
            None => (spec.path, spec.synopsis),
        };
        if !found.iter().any(|(known, _)| known == name) {
            found.push((name.to_owned(), synopsis.to_owned()));
        }
    }
    found.sort();
    let mut common = Vec::new();
    for name in COMMON {
        if let Some(at) = found.iter().position(|(known, _)| known == name) {
            common.push(found.remove(at));
        }
    }
    format!(
        "Usage: {program} [-version] [-help] <command> [args]\n\nCommon commands:\n{}\n\nOther commands:\n{}",
        columns(&common, 6),
        columns(&found, 6)
    )
}

fn columns(rows: &[(String, String)], gap: usize) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + gap;
    rows.iter().map(|(name, text)| format!("    {name:width$}{text}")).collect::<Vec<_>>().join("\n")
}
