//! What is done before the first run of a task: directories, payload, artifacts; templates before each.

use base64::Engine;

use crate::agent::dirs;
use crate::agent::env;
use crate::agent::events;
use crate::agent::hooks::ArtifactOptions;
use crate::agent::hooks::HookError;
use crate::agent::machine::Setup;
use crate::agent::task::TaskRunner;
use crate::agent::task::Trouble;
use crate::model::task::Task;

impl TaskRunner {
    /// Directories, payload, artifacts (once), templates (once, or as the restart policy says).
    pub(super) async fn prepare(&mut self) -> Result<(), Trouble> {
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        if !self.record.prepared {
            self.event(events::setup());
            self.note().await;
            self.build_directories(&setup, &task).await?;
            self.write_payload(&setup, &task)?;
            self.fetch_artifacts(&setup, &task).await?;
            self.record.prepared = true;
        }
        if self.record.run > 0 && setup.restart_policy(&task).render_templates {
            self.templates = None;
        }
        self.start_templates(&setup, &task).await.map_err(|error| Trouble::template(&error))
    }

    async fn build_directories(&mut self, setup: &Setup, task: &Task) -> Result<(), Trouble> {
        let dirs = self.dirs(setup);
        let own_root = env::has_own_root(&task.driver) && task.driver != "docker";
        let secrets_mb = task.resources().secrets_mb;
        let made = tokio::task::spawn_blocking(move || dirs::build_task(&dirs, own_root, secrets_mb)).await;
        match made {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Trouble::hook("task_dir", &HookError::recoverable(error.to_string()))),
            Err(error) => Err(Trouble::hook("task_dir", &HookError::fatal(error.to_string()))),
        }
    }

    fn write_payload(&self, setup: &Setup, task: &Task) -> Result<(), Trouble> {
        let (Some(block), Some(payload)) = (&task.dispatch_payload, &setup.job.payload) else {
            return Ok(());
        };
        if block.file.is_empty() || payload.is_empty() {
            return Ok(());
        }
        let trouble = |text: String| Trouble::hook("dispatch_payload", &HookError::fatal(text));
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(payload)
            .map_err(|error| trouble(format!("payload is not base64: {error}")))?;
        let local = self.dirs(setup).local;
        let inside = std::path::Path::new(&block.file)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
        if !inside {
            return Err(trouble(format!(
                "dispatch payload file {:?} escapes the task directory",
                block.file
            )));
        }
        let path = local.join(&block.file);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, bytes));
        written.map_err(|error| trouble(format!("cannot write {}: {error}", path.display())))
    }

    async fn fetch_artifacts(&mut self, setup: &Setup, task: &Task) -> Result<(), Trouble> {
        if task.artifacts.is_empty() {
            return Ok(());
        }
        self.event(events::downloading());
        self.note().await;
        let env = self.base_env(setup, task);
        let names = self.machine.node_names();
        let resolve = |name: &str| env::lookup(&env, &names, name);
        let options = ArtifactOptions { user: task.user.clone(), ..self.machine.config.artifacts.clone() };
        let progress = self.hook_progress(events::hook_message);
        let surroundings = &self.machine.config.surroundings;
        let dirs = self.dirs(setup);
        for artifact in &task.artifacts {
            let artifact = env::interpolate_block(artifact, &resolve);
            let fetched = surroundings.fetch(&artifact, &dirs, &options, &progress);
            fetched.await.map_err(|error| Trouble {
                event: events::download_failed(&error.message),
                recoverable: error.recoverable,
                fatal: false,
            })?;
        }
        Ok(())
    }
}
