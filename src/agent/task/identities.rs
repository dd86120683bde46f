//! The tokens of a task's identities: waited for, put into files and the environment, and exchanged when the cluster
//! has renewed them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::events;
use crate::agent::files::beneath::Attributes;
use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::Links;
use crate::agent::hooks::destination::locate;
use crate::agent::machine::Setup;
use crate::agent::task::TaskRunner;
use crate::drivers::TaskDirs;
use crate::drivers::users;
use crate::model::identity;
use crate::model::identity::Tokens;
use crate::model::task::Task;
use crate::model::task::WorkloadIdentity;

/// A task that waits longer for its tokens says so.
const SILENCE: Duration = Duration::from_secs(5);

/// What a renewed token asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Restart,
    Signal(String),
}

/// Where the file of an identity is, below the task's directory.
fn file_name(identity: &WorkloadIdentity) -> PathBuf {
    match (identity.filepath.as_str(), identity.name.as_str()) {
        ("", identity::DEFAULT) => "secrets/nomad_token".into(),
        ("", name) => format!("secrets/nomad_{name}.jwt").into(),
        (path, _) => path.into(),
    }
}

/// Whose the file is: the task's user's alone, or everybody's in the task if it names none that this machine knows.
fn attributes(user: &str) -> Attributes {
    let known = users::resolve(user).ok().flatten().map(|ids| (ids.uid, ids.gid));
    // Images have users of their own: their numbers mean something, though nobody here has them.
    let numbers = || {
        let (uid, gid) = user.split_once(':').unwrap_or((user, user));
        let uid = uid.parse().ok()?;
        Some((uid, gid.parse().unwrap_or(uid)))
    };
    match known.or_else(numbers) {
        Some((uid, gid)) => Attributes { mode: 0o600, uid: Some(uid), gid: Some(gid) },
        None => Attributes::mode(0o644),
    }
}

/// Writes one file. Its directory must exist.
fn write(dirs: &TaskDirs, path: &Path, jwt: &str, attributes: Attributes) -> io::Result<()> {
    let path = locate(dirs, &path.to_string_lossy()).map_err(io::Error::other)?;
    let name = path.file_name().ok_or_else(|| io::Error::other("no file name"))?;
    let parent = path.parent().unwrap_or(Path::new(""));
    let into = Directory::open(&dirs.alloc)?.directory(parent, Links::Inside)?;
    into.write(name, &mut jwt.as_bytes(), attributes).map(drop)
}

/// The variables that carry tokens.
pub(super) fn env(task: &Task, tokens: &Tokens) -> BTreeMap<String, String> {
    let shown = identity::wanted(task).filter(|identity| identity.env);
    let pairs = shown.filter_map(|identity| {
        let name = match identity.name.as_str() {
            identity::DEFAULT => "NOMAD_TOKEN".to_owned(),
            name => format!("NOMAD_TOKEN_{name}"),
        };
        Some((name, tokens.get(&task.name, &identity.name)?.jwt.clone()))
    });
    pairs.collect()
}

/// What the change of tokens asks for: nothing, a signal, or a restart, which makes signals needless.
fn renewals(task: &Task, before: &Tokens, after: &Tokens) -> Vec<Renewal> {
    let changed = identity::wanted(task).filter(|identity| {
        let of = |tokens: &Tokens| tokens.get(&task.name, &identity.name).cloned();
        of(before) != of(after)
    });
    let mut renewals: Vec<Renewal> = changed
        .filter_map(|identity| match identity.change_mode.as_str() {
            "restart" => Some(Renewal::Restart),
            "signal" => Some(Renewal::Signal(identity.change_signal.clone())),
            _ => None,
        })
        .collect();
    if renewals.contains(&Renewal::Restart) {
        renewals = vec![Renewal::Restart];
    }
    renewals.dedup();
    renewals
}

impl TaskRunner {
    /// Waits until the cluster has signed every identity that the task is to see, and writes their files.
    pub(super) async fn take_identities(&mut self, setup: &Setup, task: &Task) {
        if identity::wanted(task).next().is_none() {
            return;
        }
        let mut tokens = self.identities.clone();
        let complete = |tokens: &Arc<Tokens>| {
            identity::wanted(task).all(|identity| tokens.get(&task.name, &identity.name).is_some())
        };
        if tokio::time::timeout(SILENCE, tokens.wait_for(complete)).await.is_err() {
            self.event(events::hook_message("waiting for the cluster to sign the identities of the task"));
            self.note().await;
            // An error means that the agent is going, and this task's runner with it.
            let _ = tokens.wait_for(complete).await;
        }
        self.write_identities(setup, task);
    }

    /// Writes the newest tokens; tells what they ask for if the task runs already.
    pub(super) fn write_identities(&mut self, setup: &Setup, task: &Task) -> Vec<Renewal> {
        let tokens = self.identities.borrow_and_update().clone();
        let dirs = self.dirs(setup);
        for identity in identity::wanted(task).filter(|identity| identity.file) {
            let Some(token) = tokens.get(&task.name, &identity.name) else { continue };
            let path = file_name(identity);
            if let Err(error) = write(&dirs, &path, &token.jwt, attributes(&task.user)) {
                // As on the peer: the task runs without.
                let (alloc, path) = (setup.allocation.id, path.display());
                tracing::error!(%alloc, task = %task.name, %path, %error, "cannot write the token of an identity");
            }
        }
        let before = std::mem::replace(&mut self.given, tokens);
        renewals(task, &before, &self.given)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use nix::unistd::Uid;
    use nix::unistd::User;

    use super::*;
    use crate::model::identity::Token;

    fn identity(name: &str) -> WorkloadIdentity {
        WorkloadIdentity { name: name.to_owned(), env: true, file: true, ..WorkloadIdentity::default() }
    }

    fn tokens(pairs: &[(&str, &str)]) -> Tokens {
        let token = |jwt: &str| Token { jwt: jwt.to_owned(), ..Token::default() };
        let all = pairs.iter().map(|(name, jwt)| ((*name).to_owned(), token(jwt))).collect();
        Tokens { tasks: [("main".to_owned(), all)].into() }
    }

    #[test]
    fn token_files_belong_to_the_user_of_the_task_or_to_everybody_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let alloc = dir.path().canonicalize().unwrap();
        let dirs = TaskDirs { task: alloc.join("main"), alloc, ..TaskDirs::default() };
        std::fs::create_dir_all(dirs.task.join("secrets")).unwrap();
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let me = Uid::effective().as_raw();
        for (user, mode, owner) in [
            ("", 0o644, me),
            ("nobody", 0o600, nobody.uid.as_raw()),
            ("65534:65534", 0o600, 65534),
            ("no-such-user", 0o644, me),
        ] {
            let path = file_name(&identity("aws"));
            write(&dirs, &path, "x.y.z", attributes(user)).unwrap();
            let meta = std::fs::metadata(dirs.task.join("secrets/nomad_aws.jwt")).unwrap();
            assert_eq!((meta.mode() & 0o777, meta.uid()), (mode, owner), "{user}");
        }
        assert_eq!(file_name(&identity(identity::DEFAULT)), Path::new("secrets/nomad_token"));
    }

    #[test]
    fn a_token_file_in_a_missing_or_foreign_directory_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let alloc = dir.path().canonicalize().unwrap();
        let dirs = TaskDirs { task: alloc.join("main"), alloc: alloc.clone(), ..TaskDirs::default() };
        std::fs::create_dir_all(dirs.task.join("local")).unwrap();
        std::os::unix::fs::symlink("/tmp", dirs.task.join("local/out")).unwrap();
        for path in ["local/none/token", "../../token", "local/out/token"] {
            assert!(write(&dirs, Path::new(path), "x", Attributes::mode(0o644)).is_err(), "{path}");
        }
        write(&dirs, Path::new("local/token"), "x", Attributes::mode(0o644)).unwrap();
    }

    #[test]
    fn the_environment_carries_the_tokens_that_ask_for_it() {
        let hidden = WorkloadIdentity { env: false, ..identity("hidden") };
        let task = Task {
            name: "main".into(),
            identity: Some(identity(identity::DEFAULT)),
            identities: vec![identity("aws"), hidden],
            ..Task::default()
        };
        let env = env(&task, &tokens(&[("default", "d"), ("aws", "a"), ("hidden", "h")]));
        let pairs: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("NOMAD_TOKEN", "d"), ("NOMAD_TOKEN_aws", "a")]);
    }

    #[test]
    fn a_renewed_token_asks_for_what_its_identity_says() {
        let changing = |name: &str, mode: &str| WorkloadIdentity {
            change_mode: mode.into(),
            change_signal: if mode == "signal" { "SIGHUP".into() } else { String::new() },
            ..identity(name)
        };
        let task = Task {
            name: "main".into(),
            identities: vec![changing("quiet", ""), changing("hup", "signal"), changing("all", "restart")],
            ..Task::default()
        };
        let before = tokens(&[("quiet", "1"), ("hup", "1"), ("all", "1")]);
        let after = |pairs: [(&str, &str); 3]| renewals(&task, &before, &tokens(&pairs));
        assert_eq!(after([("quiet", "2"), ("hup", "1"), ("all", "1")]), []);
        assert_eq!(after([("quiet", "1"), ("hup", "2"), ("all", "1")]), [Renewal::Signal("SIGHUP".into())]);
        assert_eq!(after([("quiet", "1"), ("hup", "2"), ("all", "2")]), [Renewal::Restart]);
    }
}
