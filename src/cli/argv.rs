//! Reads arguments the way Go's `flag` package writes them: `-name value`, `-name=value`, `--name`, booleans with
//! `=false`. Flags may also stand behind positional arguments.

use clap::Command;

use super::suggest::nearest;

/// What a command line asks of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Run it with these arguments, in the form that clap reads.
    Run(Vec<String>),
    /// Show its help.
    Help,
}

/// Rewrites the arguments behind the command's name. `stop_after` is the number of positional arguments behind
/// which everything is taken as it is (the command line of `alloc exec`).
///
/// # Errors
/// The text that Go would print for a bad flag, with a suggestion.
pub fn normalise(command: &Command, args: &[String], stop_after: Option<usize>) -> Result<Parsed, String> {
    if asks_for_help(args) {
        return Ok(Parsed::Help);
    }
    let mut flags = Vec::new();
    let mut positionals = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            positionals.extend(rest.cloned());
            break;
        }
        if !is_flag(arg) {
            positionals.push(arg.clone());
            if stop_after.is_some_and(|count| positionals.len() >= count) {
                positionals.extend(rest.cloned());
                break;
            }
            continue;
        }
        let body = arg.strip_prefix("--").unwrap_or(&arg[1..]);
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(known) = find(command, name) else { return Err(unknown_flag(command, name)) };
        let long = known.get_long().unwrap_or(name);
        if known.get_action().takes_values() {
            let value = match value {
                Some(value) => value,
                // A boolean that is true by default: only `=false` gives it a value.
                None if known.is_require_equals_set() => "true".to_owned(),
                None => rest.next().cloned().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
            };
            flags.push(format!("--{long}={value}"));
        } else {
            let on = value.as_deref().map_or(Some(true), parse_bool).ok_or_else(|| {
                format!("invalid boolean value {:?} for -{name}: parse error", value.unwrap_or_default())
            })?;
            // The last one wins, as in Go.
            flags.retain(|flag| *flag != format!("--{long}"));
            if on {
                flags.push(format!("--{long}"));
            }
        }
    }
    flags.push("--".to_owned());
    flags.extend(positionals);
    Ok(Parsed::Run(flags))
}

/// True if help is asked for anywhere before a `--`.
pub fn asks_for_help(args: &[String]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| matches!(arg.as_str(), "-h" | "-help" | "--help"))
}

/// Reads a Go boolean.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// True for what Go takes as a flag: a dash with something behind it that is not a number.
fn is_flag(arg: &str) -> bool {
    arg.len() > 1 && arg.starts_with('-') && !arg[1..].starts_with(|c: char| c.is_ascii_digit())
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

fn unknown_flag(command: &Command, name: &str) -> String {
    let known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let text = format!("flag provided but not defined: -{name}");
    match nearest(name, known) {
        Some(near) => format!("{text}\nDid you mean -{near}?"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        Command::new("x")
            .arg(Arg::new("detach").long("detach").action(ArgAction::SetTrue))
            .arg(Arg::new("var").long("var").action(ArgAction::Append))
            .arg(Arg::new("check-index").long("check-index"))
            .arg(Arg::new("t").long("t"))
    }

    fn run(line: &str) -> Result<String, String> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        normalise(&command(), &args, None).map(|parsed| match parsed {
            Parsed::Run(args) => args.join(" "),
            Parsed::Help => "help".to_owned(),
        })
    }

    #[test]
    fn one_dash_and_two_mean_the_same() {
        for (line, wanted) in [
            ("-detach -var a=b f.hcl", "--detach --var=a=b -- f.hcl"),
            ("--detach --var=a=b f.hcl", "--detach --var=a=b -- f.hcl"),
            ("f.hcl -detach", "--detach -- f.hcl"),
            ("-detach=false f", "-- f"),
            ("-detach -detach=0 f", "-- f"),
            ("-check-index 5 -", "--check-index=5 -- -"),
            ("-var -detach f", "--var=-detach -- f"),
            ("f -- -detach", "-- f -detach"),
            ("-t {{.ID}} x", "--t={{.ID}} -- x"),
            ("x -3", "-- x -3"),
            ("-bogus -h", "help"),
        ] {
            assert_eq!(run(line).as_deref(), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn bad_flags_are_named_with_a_suggestion() {
        assert_eq!(
            run("-detatch").unwrap_err(),
            "flag provided but not defined: -detatch\nDid you mean -detach?"
        );
        assert_eq!(run("-zzzzzz").unwrap_err(), "flag provided but not defined: -zzzzzz");
        assert_eq!(run("-var").unwrap_err(), "flag needs an argument: -var");
        assert_eq!(run("-detach=x").unwrap_err(), "invalid boolean value \"x\" for -detach: parse error");
    }

    #[test]
    fn a_command_line_to_execute_is_left_alone() {
        let args: Vec<String> = ["-detach", "abc", "ls", "-detach"].map(str::to_owned).to_vec();
        let parsed = normalise(&command(), &args, Some(1)).unwrap();
        assert_eq!(
            parsed,
            Parsed::Run(["--detach", "--", "abc", "ls", "-detach"].map(str::to_owned).to_vec())
        );
    }
}
