//! The templates of a task, and the environment that they complete.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::agent::env;
use crate::agent::events;
use crate::agent::hooks::HookError;
use crate::agent::hooks::TemplateContext;
use crate::agent::machine::Setup;
use crate::agent::surroundings::TemplateTask;
use crate::agent::task::RunningTemplates;
use crate::agent::task::TaskRunner;
use crate::model::task::Task;
use crate::model::task::Template;

impl TaskRunner {
    /// The start of the task's templates, as a future that holds nothing of the runner.
    pub(super) fn templates_for(
        &self,
        setup: &Setup,
        task: &Task,
        whom: TemplateTask,
    ) -> BoxFuture<'static, Result<RunningTemplates, HookError>> {
        let env = self.base_env(setup, task);
        let node = self.machine.node_names();
        let resolve = |name: &str| env::lookup(&env, &node, name);
        // Only places are interpolated: the text of a template has its own language.
        let templates: Vec<Template> = task
            .templates
            .iter()
            .map(|template| {
                let mut template = template.clone();
                for text in [&mut template.source_path, &mut template.dest_path] {
                    *text = crate::model::interpolate::interpolate(text, resolve);
                }
                template
            })
            .collect();
        let context = TemplateContext {
            node: node.clone(),
            dirs: self.dirs(setup),
            namespace: setup.allocation.namespace.clone(),
            region: self.machine.config.region.clone(),
            alloc: setup.allocation.id,
            task: self.name.clone(),
            catalog: Arc::clone(&self.machine.config.catalog),
            options: Arc::clone(&self.machine.config.templates),
            clock: Arc::clone(&self.machine.context.clock),
            seed: self.machine.seed(),
            env: env::finish(env.clone()),
        };
        let progress = self.hook_progress(events::template);
        let surroundings = Arc::clone(&self.machine.config.surroundings);
        Box::pin(async move { surroundings.start_templates(templates, context, progress, whom).await })
    }

    pub(super) async fn start_templates(&mut self, setup: &Setup, task: &Task) -> Result<(), HookError> {
        if task.templates.is_empty() || self.templates.is_some() {
            return Ok(());
        }
        let started = self.templates_for(setup, task, TemplateTask::Coming);
        self.templates = Some(self.while_told(started).await?);
        Ok(())
    }

    /// Waits for a hook that may take long: what it says must be seen meanwhile.
    pub(super) async fn while_told<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                Some(event) = self.progress.1.recv() => {
                    self.event(event);
                    self.note().await;
                }
            }
        }
    }

    /// The complete environment, cleaned.
    pub(super) fn full_env(&self, setup: &Setup, task: &Task) -> Result<BTreeMap<String, String>, HookError> {
        let mut env = self.base_env(setup, task);
        if let Some((templates, _)) = &self.templates {
            env.extend(templates.env()?);
        }
        Ok(env::finish(env))
    }
}
