//! The process that stays with a task: it outlives the plugin, and writes down how the task ended.

use std::error::Error;
use std::fs;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The first argument that makes the program this.
pub const ARGUMENT: &str = "watch";

/// The file with the number of the task's process.
pub fn pid_file(prefix: &Path) -> PathBuf {
    prefix.with_extension("pid")
}

/// The file with exit code and signal.
pub fn exit_file(prefix: &Path) -> PathBuf {
    prefix.with_extension("exit")
}

/// `watch <prefix of files> <command> <arguments>…`: runs the command to its end.
pub fn main(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [prefix, command, args @ ..] = args else { return Err("too few arguments".into()) };
    let prefix = PathBuf::from(prefix);
    let mut child = Command::new(command).args(args).process_group(0).spawn()?;
    write(&pid_file(&prefix), &child.id().to_string())?;
    let status = child.wait()?;
    let signal = status.signal().unwrap_or_default();
    write(&exit_file(&prefix), &format!("{} {signal}", status.code().unwrap_or(128 + signal)))
}

/// Readers see all of it or nothing.
fn write(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text)?;
    Ok(fs::rename(&temporary, path)?)
}
