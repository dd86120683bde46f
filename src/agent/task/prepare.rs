//! What is done before the first run of a task: directories, payload, artifacts; templates before each.

use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream;
use sha2::Digest;
use sha2::Sha256;

use crate::agent::dirs;
use crate::agent::env;
use crate::agent::events;
use crate::agent::files::beneath;
use crate::agent::files::beneath::Attributes;
use crate::agent::files::beneath::Directory;
use crate::agent::hooks::ArtifactOptions;
use crate::agent::hooks::HookError;
use crate::agent::machine::Setup;
use crate::agent::task::TaskRunner;
use crate::agent::task::Trouble;
use crate::agent::volumes;
use crate::drivers::Mount;
use crate::model::task::Artifact;
use crate::model::task::Task;

/// Artifacts of one task that are fetched at the same time.
const PARALLEL_DOWNLOADS: usize = 3;

impl TaskRunner {
    /// Directories, payload, artifacts (once), templates (once, or as the restart policy says).
    pub(super) async fn prepare(&mut self) -> Result<(), Trouble> {
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        self.check_user(&task)?;
        if !self.record.prepared {
            self.event(events::setup());
            self.note().await;
        }
        // After a reboot the memory that held the secrets is gone, and what had been put there with it.
        let fresh = self.build_directories(&setup, &task).await?;
        self.take_identities(&setup, &task).await;
        if fresh || !self.record.prepared {
            if fresh {
                self.record.artifacts.clear();
            }
            self.record.prepared = false;
            self.mounts(&setup, &task)?;
            self.write_payload(&setup, &task)?;
            self.fetch_artifacts(&setup, &task).await?;
            self.record.prepared = true;
        }
        if self.record.run > 0 && setup.restart_policy(&task).render_templates {
            self.templates = None;
        }
        self.start_templates(&setup, &task).await.map_err(|error| Trouble::template(&error))
    }

    /// The volumes that the task is to see.
    pub(super) fn mounts(&self, setup: &Setup, task: &Task) -> Result<Vec<Mount>, Trouble> {
        let wants = task.volume_mounts.iter().any(|mount| !mount.volume.is_empty());
        let Some(group) = setup.group().filter(|_| wants) else { return Ok(Vec::new()) };
        let trouble = |text: String| Trouble::hook("volumes", &HookError::fatal(text));
        if self.driver(task).is_some_and(|driver| !driver.mounts_volumes()) {
            let (driver, task) = (&task.driver, &task.name);
            return Err(trouble(format!(
                "task driver {driver:?} for {task:?} does not support host volumes"
            )));
        }
        let env = self.base_env(setup, task);
        let names = self.machine.node_names();
        let resolve = |name: &str| env::lookup(&env, &names, name);
        let index = setup.allocation.index;
        volumes::mounts(group, task, &self.machine.node(), index, &resolve).map_err(trouble)
    }

    fn check_user(&self, task: &Task) -> Result<(), Trouble> {
        let rules = &self.machine.config.users;
        if rules.allows(&task.driver, &task.user) {
            return Ok(());
        }
        let text = format!("running as user {:?} is disallowed", task.user);
        Err(Trouble::hook("validate", &HookError::fatal(text)))
    }

    /// True if the place for secrets is a new one.
    async fn build_directories(&mut self, setup: &Setup, task: &Task) -> Result<bool, Trouble> {
        let dirs = self.dirs(setup);
        let own_root = env::has_own_root(&task.driver) && task.driver != "docker";
        let secrets_mb = task.resources().secrets_mb;
        let made = tokio::task::spawn_blocking(move || dirs::build_task(&dirs, own_root, secrets_mb)).await;
        match made {
            Ok(Ok(fresh)) => Ok(fresh),
            Ok(Err(error)) => Err(Trouble::hook("task_dir", &HookError::recoverable(error.to_string()))),
            Err(error) => Err(Trouble::hook("task_dir", &HookError::fatal(error.to_string()))),
        }
    }

    /// A job that was dispatched without a payload gets an empty file.
    fn write_payload(&self, setup: &Setup, task: &Task) -> Result<(), Trouble> {
        let Some(block) = task.dispatch_payload.as_ref().filter(|block| !block.file.is_empty()) else {
            return Ok(());
        };
        let trouble = |text: String| Trouble::hook("dispatch_payload", &HookError::fatal(text));
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(setup.job.payload.as_deref().unwrap_or_default())
            .map_err(|error| trouble(format!("payload is not base64: {error}")))?;
        put_payload(&self.dirs(setup).local, Path::new(&block.file), &bytes).map_err(|error| {
            if beneath::is_escape(&error) {
                return trouble(format!("dispatch payload file {:?} escapes the task directory", block.file));
            }
            trouble(format!("cannot write {:?}: {error}", block.file))
        })
    }

    /// Several at a time. Those that are in place, from an earlier attempt or agent, are not fetched again.
    async fn fetch_artifacts(&mut self, setup: &Setup, task: &Task) -> Result<(), Trouble> {
        let env = self.base_env(setup, task);
        let names = self.machine.node_names();
        let resolve = |name: &str| env::lookup(&env, &names, name);
        let wanted = task.artifacts.iter().map(|artifact| env::interpolate_block(artifact, &resolve));
        let wanted = wanted.map(|artifact| (mark(&artifact), artifact));
        let missing: Vec<_> = wanted.filter(|(mark, _)| !self.record.artifacts.contains(mark)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.event(events::downloading());
        self.note().await;
        let fetching = missing.into_iter().map(|(mark, artifact)| self.fetch(setup, task, mark, artifact));
        let fetching: Vec<_> = fetching.collect();
        let mut fetched = stream::iter(fetching).buffer_unordered(PARALLEL_DOWNLOADS);
        while let Some(outcome) = self.while_told(fetched.next()).await {
            let mark = outcome.map_err(|error| Trouble {
                event: events::download_failed(&error.message),
                recoverable: error.recoverable,
                fatal: false,
            })?;
            self.record.artifacts.insert(mark);
            self.note().await;
        }
        Ok(())
    }

    /// The download of one artifact, as a future that holds nothing of the runner; it yields the artifact's mark.
    fn fetch(
        &self,
        setup: &Setup,
        task: &Task,
        mark: String,
        artifact: Artifact,
    ) -> BoxFuture<'static, Result<String, HookError>> {
        let options = ArtifactOptions { user: task.user.clone(), ..self.machine.config.artifacts.clone() };
        let progress = self.hook_progress(events::hook_message);
        let surroundings = Arc::clone(&self.machine.config.surroundings);
        let dirs = self.dirs(setup);
        Box::pin(async move {
            surroundings.fetch(&artifact, &dirs, &options, &progress).await?;
            Ok(mark)
        })
    }
}

/// Tells an artifact from others. It says nothing about headers and options, which may hold secrets.
fn mark(artifact: &Artifact) -> String {
    let text = serde_json::to_vec(artifact).expect("an artifact has text keys only");
    hex::encode(Sha256::digest(text))
}

/// Writes a file below `local`, which may hold links of an earlier allocation: none of them is followed.
fn put_payload(local: &Path, file: &Path, mut bytes: &[u8]) -> io::Result<()> {
    let name = file.file_name().ok_or_else(|| io::Error::other("no file name"))?;
    let directory = Directory::open(local)?;
    let directory = match file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => directory.create_all(parent, 0o755)?,
        None => directory,
    };
    directory.write(name, &mut bytes, Attributes::mode(0o755)).map(drop)
}
