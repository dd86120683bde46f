//! `fmt`

use std::path::Path;
use std::path::PathBuf;

use super::argv::parse_bool;
use super::context::Context;
use super::context::Failure;
use super::context::Outcome;
use super::format::quoted;
use super::registry::Run;
use crate::jobspec;
use crate::jobspec::Diagnostics;
use crate::jobspec::Source;

/// Directories within directories are followed no deeper.
const MAX_DEPTH: usize = 64;

/// Rewrites job files in their canonical layout.
#[derive(clap::Args, Clone, Debug)]
pub struct Fmt {
    /// Exit with 1 if a file is not in the canonical layout, and write nothing.
    #[arg(long)]
    check: bool,
    /// Print the names of files whose layout changes: true or false. Default = true
    #[arg(long, value_name = "bool", require_equals = true)]
    list: Option<String>,
    /// Look into directories within directories.
    #[arg(long)]
    recursive: bool,
    /// Overwrite the files: true or false. Default = true
    #[arg(long, value_name = "bool", require_equals = true)]
    write: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

/// What to do with a file, and what was found.
struct Formatter<'a> {
    context: &'a Context,
    list: bool,
    write: bool,
    recursive: bool,
    changed: bool,
    problems: Vec<Diagnostics>,
}

impl Run for Fmt {
    async fn run(self, context: &Context) -> Outcome {
        let flag = |name: &str, value: &Option<String>| match value.as_deref() {
            None => Ok(true),
            Some(text) => parse_bool(text)
                .ok_or_else(|| format!("invalid boolean value {} for -{name}: parse error", quoted(text))),
        };
        let (list, write) = (flag("list", &self.list)?, flag("write", &self.write)?);
        let mut formatter = Formatter {
            context,
            list,
            write: write && !self.check,
            recursive: self.recursive,
            changed: false,
            problems: Vec::new(),
        };
        if self.args.first().is_some_and(|path| path == "-") {
            if self.args.len() > 1 {
                return Err(Failure::usage("Standard input cannot be combined with paths"));
            }
            formatter.stdin(self.check)?;
        } else {
            let current = [".".to_owned()];
            let paths = if self.args.is_empty() { &current[..] } else { &self.args };
            missing(paths)?;
            for path in paths {
                formatter.path(Path::new(path))?;
            }
        }
        for problem in &formatter.problems {
            context.out.error(problem.report(context.out.is_colored()).trim_end());
        }
        Ok(u8::from(!formatter.problems.is_empty() || (self.check && formatter.changed)))
    }
}

/// Complains about all paths that do not exist.
fn missing(paths: &[String]) -> Result<(), Failure> {
    let missing: Vec<&String> = paths.iter().filter(|path| !Path::new(path).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let errors = if missing.len() == 1 { "error" } else { "errors" };
    let lines: String = missing.iter().map(|path| format!("\n\t* No file or directory at {path}")).collect();
    Err(Failure::usage(format!("{} {errors} occurred:{lines}\n\n", missing.len())))
}

fn is_job_file(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "nomad" || ending == "hcl")
}

impl Formatter<'_> {
    fn stdin(&mut self, check: bool) -> Result<(), Failure> {
        let bytes = self.context.out.read_stdin().map_err(|why| format!("Error reading stdin: {why}"))?;
        let text = String::from_utf8(bytes).map_err(|why| format!("Error reading stdin: {why}"))?;
        match jobspec::format(&Source { name: "<stdin>", text: &text }) {
            Ok(formatted) => {
                self.changed |= formatted != text;
                if !check {
                    self.context.out.raw(formatted.as_bytes());
                }
            }
            Err(problems) => self.problems.push(problems),
        }
        Ok(())
    }

    fn path(&mut self, path: &Path) -> Result<(), Failure> {
        if path.is_dir() {
            return self.directory(path, 0);
        }
        if !is_job_file(path) {
            return Err("Only .nomad and .hcl files can be processed using nomad fmt".into());
        }
        self.file(path)
    }

    fn directory(&mut self, directory: &Path, depth: usize) -> Result<(), Failure> {
        let failed = |why: std::io::Error| format!("Error reading directory {}: {why}", directory.display());
        let entries = std::fs::read_dir(directory).map_err(failed)?;
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed)?;
        paths.sort();
        for path in paths {
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                if self.recursive && depth < MAX_DEPTH {
                    self.directory(&path, depth + 1)?;
                }
            } else if is_job_file(&path) {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let shown = path.strip_prefix("./").unwrap_or(path).display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|why| format!("Error reading file {shown}: {why}"))?;
        let formatted = match jobspec::format(&Source { name: &shown, text: &text }) {
            Ok(formatted) => formatted,
            Err(problems) => {
                self.problems.push(problems);
                return Ok(());
            }
        };
        if formatted != text {
            self.changed = true;
            if self.list {
                self.context.out.line(&shown);
            }
            if self.write {
                replace(path, &formatted).map_err(|why| format!("Error writing file {shown}: {why}"))?;
            }
        }
        if !self.list && !self.write {
            self.context.out.raw(formatted.as_bytes());
        }
        Ok(())
    }
}

/// Writes the whole file at once, so that an interruption leaves the old or the new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let staged = path.with_file_name(name);
    let kept = std::fs::metadata(path)?.permissions();
    let written = std::fs::write(&staged, text)
        .and_then(|()| std::fs::set_permissions(&staged, kept))
        .and_then(|()| std::fs::rename(&staged, path));
    if written.is_err() {
        // What was staged is of no use; the error that matters is the first one.
        let _ = std::fs::remove_file(&staged);
    }
    written
}
