//! What programs say about themselves. The machine is looked at twice a minute, and starting a program only to hear
//! the same again can cost more than everything else that an idle agent does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::process::Command;

/// A file as it was: when it last changed, and its size in bytes.
type Version = (SystemTime, u64);

/// A program and its arguments.
type Question = (PathBuf, Vec<String>);

/// What programs answered, and how they were then.
static KNOWN: Mutex<BTreeMap<Question, (Version, Output)>> = Mutex::new(BTreeMap::new());

/// What `program` prints for these arguments; it is asked again once its file has changed. `None` when it cannot be
/// started or does not end within `limit`, which is not remembered.
pub async fn said(program: &Path, args: &[&str], limit: Duration) -> Option<Output> {
    let meta = fs::metadata(program).ok()?;
    let version = (meta.modified().ok()?, meta.len());
    let key = (program.to_owned(), args.iter().map(|arg| (*arg).to_owned()).collect());
    if let Some((then, output)) = KNOWN.lock().get(&key)
        && *then == version
    {
        return Some(output.clone());
    }
    // A CNI plugin says who it is when it has no order.
    let mut asked = Command::new(program);
    asked.args(args).env_remove("CNI_COMMAND").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(limit, asked.output()).await.ok()?.ok()?;
    KNOWN.lock().insert(key, (version, output.clone()));
    Some(output)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_program_is_asked_again_only_when_its_file_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (program, count) = (dir.path().join("program"), dir.path().join("count"));
        let write = |answer: &str| {
            let script = format!("#!/bin/sh\necho asked >> {}\necho {answer} $1\n", count.display());
            // A new file each time: a script that is being written cannot be run.
            let fresh = dir.path().join("fresh");
            fs::write(&fresh, script).unwrap();
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(&fresh, &program).unwrap();
        };
        let ask = async || {
            let output = said(&program, &["now"], Duration::from_secs(60)).await.unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        write("one");
        assert_eq!((ask().await, ask().await), ("one now\n".to_owned(), "one now\n".to_owned()));
        assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 1);
        write("other");
        assert_eq!(ask().await, "other now\n");
        assert_eq!(said(&dir.path().join("none"), &[], Duration::from_secs(60)).await, None);
    }
}
