//! Repositories, fetched with the machine's `git`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::process::Command;

use super::DIRECTORY_MODE;
use super::ESCAPES;
use super::source::Source;
use crate::agent::files::beneath::Attributes;
use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::is_escape;
use crate::drivers::TaskDirs;

/// Longest part of git's own words in an error.
const OUTPUT_MAX: usize = 2000;

/// A repository that is wanted at `place`, relative to the allocation's directory.
pub(super) struct Checkout<'a> {
    pub(super) source: &'a Source,
    pub(super) alloc: &'a Directory,
    pub(super) dirs: &'a TaskDirs,
    pub(super) place: &'a Path,
    /// Variables of the agent that git may see.
    pub(super) env: &'a BTreeMap<String, String>,
}

/// A directory that goes away with its content.
struct Workplace(PathBuf);

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Checkout<'_> {
    /// Clones next to the destination and moves the working tree there.
    pub(super) async fn run(&self) -> Result<(), String> {
        // Not below a directory that the task can write to: what git reads there must be what git wrote.
        let workplace = Workplace(self.dirs.alloc.join(format!(".git-{}", uuid::Uuid::new_v4())));
        let io = |error: std::io::Error| format!("{}: {error}", workplace.0.display());
        std::fs::create_dir(&workplace.0).map_err(io)?;
        let tree = workplace.0.join("tree");
        let key = self.key_file(&workplace.0)?;
        let option =
            |name: &str| self.source.options.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let reference = option("ref");
        if reference.is_some_and(|name| name.starts_with('-')) {
            return Err(format!("git reference {reference:?} must not begin with a dash"));
        }
        let mut clone = vec!["clone".to_owned(), "--quiet".to_owned()];
        if let Some(depth) = option("depth") {
            let depth: u32 = depth.parse().map_err(|_| format!("invalid git depth {depth:?}"))?;
            clone.extend(["--depth".to_owned(), depth.to_string()]);
            if let Some(name) = reference {
                clone.extend(["--branch".to_owned(), name.to_owned()]);
            }
        }
        clone.extend(["--".to_owned(), self.source.url.to_string(), tree.display().to_string()]);
        self.git(&clone, &workplace.0, key.as_deref()).await?;
        if let Some(name) = reference.filter(|_| option("depth").is_none()) {
            let checkout = ["checkout", "--quiet", name, "--"].map(str::to_owned);
            self.git(&checkout, &tree, key.as_deref()).await?;
        }
        let update = ["submodule", "update", "--quiet", "--init", "--recursive"].map(str::to_owned);
        self.git(&update, &tree, key.as_deref()).await?;
        let wanted = match &self.source.subdirectory {
            Some(path) => tree.join(path),
            None => tree,
        };
        let into = self
            .alloc
            .create_all(self.place, DIRECTORY_MODE)
            .map_err(|error| if is_escape(&error) { ESCAPES.to_owned() } else { error.to_string() })?;
        tokio::task::spawn_blocking(move || copy_tree(&wanted, &into))
            .await
            .map_err(|error| format!("copying stopped: {error}"))?
    }

    fn key_file(&self, workplace: &Path) -> Result<Option<PathBuf>, String> {
        let Some(text) = self.source.options.get("sshkey").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let key = STANDARD.decode(text).map_err(|error| format!("git sshkey is not base64: {error}"))?;
        let directory = Directory::open(workplace).map_err(|error| error.to_string())?;
        directory
            .write(OsStr::new("key"), &mut key.as_slice(), Attributes::mode(0o600))
            .map_err(|error| error.to_string())?;
        Ok(Some(workplace.join("key")))
    }

    async fn git(&self, arguments: &[String], at: &Path, key: Option<&Path>) -> Result<(), String> {
        let mut command = Command::new("git");
        command.args(["-c", "protocol.file.allow=never", "-c", "core.hooksPath=/dev/null"]).args(arguments);
        command.current_dir(at).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        command
            .envs(self.env)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", at)
            .env("GIT_TERMINAL_PROMPT", "0");
        if let Some(key) = key {
            let ssh = format!("ssh -i {} -o StrictHostKeyChecking=no -o BatchMode=yes", key.display());
            command.env("GIT_SSH_COMMAND", ssh);
        }
        let output = command.output().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "git must be available and on the PATH".to_owned(),
            _ => format!("git: {error}"),
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().chars().take(OUTPUT_MAX).collect();
        Err(format!("git exited with {}: {said}", output.status.code().unwrap_or(-1)))
    }
}

/// Copies files and directories; links and git's own directory are left behind.
fn copy_tree(from: &Path, into: &Directory) -> Result<(), String> {
    let describe = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let mut pending = vec![(from.to_owned(), PathBuf::new())];
    while let Some((path, relative)) = pending.pop() {
        let at = into.create_all(&relative, DIRECTORY_MODE).map_err(|error| describe(&relative, error))?;
        for entry in std::fs::read_dir(&path).map_err(|error| describe(&path, error))? {
            let entry = entry.map_err(|error| describe(&path, error))?;
            let metadata = entry.metadata().map_err(|error| describe(&entry.path(), error))?;
            let name = entry.file_name();
            if metadata.is_dir() && name != ".git" {
                pending.push((entry.path(), relative.join(name)));
            } else if metadata.is_file() {
                use std::os::unix::fs::PermissionsExt;
                let mode = metadata.permissions().mode() & 0o777;
                let mut file =
                    std::fs::File::open(entry.path()).map_err(|error| describe(&entry.path(), error))?;
                at.write(&name, &mut file, Attributes::mode(mode))
                    .map_err(|error| describe(&entry.path(), error))?;
            }
        }
    }
    Ok(())
}
