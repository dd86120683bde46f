//! The command line: Nomad's commands, flags, texts and exit codes. Each command lives in a file named after it
//! and talks to the API through [`crate::client`].

mod agent;
mod alloc;
mod argv;
mod context;
mod deployment;
mod eval;
mod fmt;
mod format;
mod general;
mod help;
mod job;
mod metrics;
mod misc;
mod monitor;
mod namespace;
mod node;
mod operator;
mod output;
mod present;
mod registry;
mod remote;
mod resolve;
mod server;
mod service;
mod status;
mod suggest;
mod tables;
mod view;

use std::ffi::OsString;
use std::sync::Arc;

use async_trait::async_trait;
use clap::FromArgMatches;

pub use self::agent::AgentConsole;
pub use self::agent::Banner;
use self::argv::Parsed;
use self::context::Context;
use self::context::Failure;
use self::general::General;
pub use self::output::Output;
use self::registry::Spec;
use crate::client::Transport;
use crate::config::AgentConfig;
use crate::config::EtcdConfig;

/// The exit code for an unknown command.
const UNKNOWN_COMMAND: u8 = 127;

/// What the command line needs from the rest of the program. `run` implements it; tests and other programs may too.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Gives the API called in this process, straight on etcd, without an agent.
    ///
    /// # Errors
    /// The text to show, when etcd cannot be reached.
    async fn in_process(&self, etcd: &EtcdConfig) -> Result<Arc<dyn Transport>, String>;

    /// Runs an agent until it is told to stop, and gives the exit code of the program.
    async fn run_agent(&self, config: AgentConfig, console: AgentConsole) -> u8;
}

/// Runs one command and gives the exit code. The first argument is the program's name, `herder` or `nomad`.
pub fn main(args: impl IntoIterator<Item = OsString>, connect: Arc<dyn Connect>) -> u8 {
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let program = program.rsplit('/').next().filter(|name| *name == "nomad").unwrap_or("herder").to_owned();
    let args: Vec<String> = args.collect();
    let out = Output::new(
        has_flag(&args, "no-color") || general::is_set("CLI_NO_COLOR"),
        has_flag(&args, "force-color") || general::is_set("CLI_FORCE_COLOR"),
    );
    match find_command(&args) {
        Found::Command(spec, words) => run_command(&program, spec, &args, words, out, connect),
        Found::Version => {
            out.line(misc::version_text(&program));
            0
        }
        Found::Group(group, exit, unknown) => {
            if let Some(word) = unknown {
                let command = format!("{group} {word}");
                let names = registry::SPECS.iter().map(|spec| spec.path);
                let hint = suggest::nearest(&command, names).map(|near| format!(" Did you mean {near:?}?"));
                out.error(format!("unknown command {command:?}.{}", hint.unwrap_or_default()));
            }
            out.line(help::group(&program, &group));
            exit
        }
        Found::FlagsFirst(spec) => {
            let moved = "the flags of a command go behind its name";
            out.line(format!("Invalid flags before the subcommand. Put them in their place: {moved}.\n"));
            out.line(help::command(&program, spec));
            1
        }
        Found::Nothing(word) => {
            let names = registry::SPECS.iter().map(|spec| spec.path.split(' ').next().unwrap_or_default());
            if let Some(word) = word {
                let hint = suggest::nearest(&word, names).map(|near| format!(" Did you mean {near:?}?"));
                out.error(format!("unknown command {word:?}.{}", hint.unwrap_or_default()));
            }
            out.line(help::program(&program));
            UNKNOWN_COMMAND
        }
        Found::ProgramHelp => {
            out.line(help::program(&program));
            0
        }
    }
}

fn has_flag(args: &[String], name: &str) -> bool {
    args.iter().any(|arg| arg.trim_start_matches('-') == name && arg.starts_with('-'))
}

enum Found {
    /// A command, and how many words name it.
    Command(&'static Spec, usize),
    /// A group, the exit code, and the word behind it that names none of its commands.
    Group(String, u8, Option<String>),
    FlagsFirst(&'static Spec),
    Version,
    ProgramHelp,
    /// No such command.
    Nothing(Option<String>),
}

/// The longest run of leading words that names a command or a group.
fn find_command(args: &[String]) -> Found {
    let words: Vec<&str> =
        args.iter().map(String::as_str).take_while(|arg| !arg.starts_with('-') && !arg.is_empty()).collect();
    if words.is_empty() {
        let first = args.first().map(String::as_str).unwrap_or_default();
        if matches!(first, "-v" | "-version" | "--version") {
            return Found::Version;
        }
        if matches!(first, "-h" | "-help" | "--help") {
            return Found::ProgramHelp;
        }
        let behind: Vec<String> = args.iter().filter(|arg| !arg.starts_with('-')).cloned().collect();
        return match find_command(&behind) {
            Found::Command(spec, _) if !behind.is_empty() => Found::FlagsFirst(spec),
            _ => Found::Nothing(None),
        };
    }
    for count in (1..=words.len().min(3)).rev() {
        let path = words[..count].join(" ");
        if let Some(spec) = registry::SPECS.iter().find(|spec| spec.path == path) {
            return Found::Command(spec, count);
        }
        let prefix = format!("{path} ");
        if registry::SPECS.iter().any(|spec| spec.path.starts_with(&prefix)) {
            let help = argv::asks_for_help(args);
            let unknown = words.get(count).filter(|_| !help).map(|&word| word.to_owned());
            return Found::Group(path, u8::from(!help), unknown);
        }
    }
    Found::Nothing(words.first().map(|&word| word.to_owned()))
}

fn run_command(
    program: &str,
    spec: &'static Spec,
    args: &[String],
    words: usize,
    out: Output,
    connect: Arc<dyn Connect>,
) -> u8 {
    let command = spec.command();
    let rest = match argv::normalise(&command, &args[words..], spec.stop_after) {
        Ok(Parsed::Help) => {
            out.line(help::command(program, spec));
            return 0;
        }
        Ok(Parsed::Run(rest)) => rest,
        Err(text) => {
            out.error(text);
            out.line(help::command(program, spec));
            return spec.error_code;
        }
    };
    let matches = match command.no_binary_name(true).try_get_matches_from(rest) {
        Ok(matches) => matches,
        Err(why) => {
            out.error(invalid_value(&why));
            out.line(help::command(program, spec));
            return spec.error_code;
        }
    };
    let general = match General::from_arg_matches(&matches) {
        Ok(general) => general,
        Err(why) => {
            out.error(why.to_string());
            return spec.error_code;
        }
    };
    let context = Context::new(program, args.to_vec(), general, out, connect);
    let runtime = if spec.path == "agent" || context.uses_etcd() {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(why) => {
            out.error(format!("Error executing CLI: {why}"));
            return 1;
        }
    };
    let code = match runtime.block_on((spec.run)(Arc::new(context), matches)) {
        Ok(code) => code,
        Err(failure) => {
            report(program, spec, out, &failure);
            failure.code.unwrap_or(spec.error_code)
        }
    };
    // A thread that waits for standard input must not keep the program.
    runtime.shutdown_background();
    code
}

fn report(program: &str, spec: &Spec, out: Output, failure: &Failure) {
    if !failure.text.is_empty() {
        out.error(&failure.text);
    }
    if failure.hint {
        out.error(format!("For additional help try '{program} {} -help'", spec.canonical));
    }
}

/// Go's words for a value that does not fit its flag.
fn invalid_value(why: &clap::Error) -> String {
    use clap::error::ContextKind;
    use clap::error::ContextValue;
    let text = |kind| match why.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let flag = text(ContextKind::InvalidArg);
    let name = flag.trim_start_matches('-').split(['=', ' ']).next().unwrap_or_default();
    if name.is_empty() {
        return why.to_string();
    }
    format!("invalid value {:?} for flag -{name}: parse error", text(ContextKind::InvalidValue))
}
