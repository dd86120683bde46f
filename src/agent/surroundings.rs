//! The seam between task runners and hooks, so that runners can be tried without network or templates.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::agent::consul::Registry;
use crate::agent::hooks::ArtifactOptions;
use crate::agent::hooks::CheckHealth;
use crate::agent::hooks::CheckRestartRequest;
use crate::agent::hooks::HookError;
use crate::agent::hooks::HookProgress;
use crate::agent::hooks::ServiceContext;
use crate::agent::hooks::ServiceSink;
use crate::agent::hooks::TemplateChange;
use crate::agent::hooks::TemplateContext;
use crate::agent::hooks::artifacts;
use crate::agent::hooks::services::ServiceManager;
use crate::agent::hooks::templates::TemplateManager;
use crate::drivers::TaskDirs;
use crate::model::service::CheckResult;
use crate::model::service::Service;
use crate::model::task::Artifact;
use crate::model::task::Template;

/// Whom templates are started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateTask {
    /// A task that will be started afterwards.
    Coming,
    /// A task that was found running.
    Running,
}

/// What is prepared around a task. See `hooks` for what each call promises.
#[async_trait]
pub trait Surroundings: Send + Sync + 'static {
    /// Downloads one artifact.
    ///
    /// # Errors
    /// In words for an event.
    async fn fetch(
        &self,
        artifact: &Artifact,
        dirs: &TaskDirs,
        options: &ArtifactOptions,
        progress: &HookProgress,
    ) -> Result<(), HookError>;

    /// Renders all templates once and keeps them up. A task that already runs is told what changed meanwhile.
    ///
    /// # Errors
    /// In words for an event.
    async fn start_templates(
        &self,
        templates: Vec<Template>,
        context: TemplateContext,
        progress: HookProgress,
        task: TemplateTask,
    ) -> Result<(Box<dyn Templates>, mpsc::Receiver<TemplateChange>), HookError>;

    /// Registers services and runs their checks. `before`: results of an earlier agent, by check id, which stand
    /// until the checks have been asked again.
    fn start_services(
        &self,
        context: ServiceContext,
        services: Vec<Service>,
        sink: Arc<dyn ServiceSink>,
        restarts: mpsc::Sender<CheckRestartRequest>,
        before: BTreeMap<String, CheckResult>,
    ) -> Box<dyn Services>;
}

/// Templates at work; dropping ends them.
pub trait Templates: Send + Sync {
    /// Variables from files of templates with `envvars`, read anew.
    ///
    /// # Errors
    /// In words for an event.
    fn env(&self) -> Result<BTreeMap<String, String>, HookError>;
}

/// Registered services; dropping ends checks and leaves registrations.
pub trait Services: Send + Sync {
    /// New addresses or blocks.
    fn update(&self, context: ServiceContext, services: Vec<Service>);
    /// Grace periods begin anew.
    fn task_restarted(&self);
    /// Removes all registrations.
    fn deregister(&self);
    /// How the checks stand.
    fn health(&self) -> CheckHealth;
    /// Newest result of each check, by check id.
    fn results(&self) -> BTreeMap<String, CheckResult>;
}

/// The hooks of this program; services of provider `consul` are registered there, if it is given.
pub struct StandardSurroundings(pub Option<Registry>);

#[async_trait]
impl Surroundings for StandardSurroundings {
    async fn fetch(
        &self,
        artifact: &Artifact,
        dirs: &TaskDirs,
        options: &ArtifactOptions,
        progress: &HookProgress,
    ) -> Result<(), HookError> {
        artifacts::fetch(artifact, dirs, options, progress).await
    }

    async fn start_templates(
        &self,
        templates: Vec<Template>,
        context: TemplateContext,
        progress: HookProgress,
        task: TemplateTask,
    ) -> Result<(Box<dyn Templates>, mpsc::Receiver<TemplateChange>), HookError> {
        let (manager, changes) = match task {
            TemplateTask::Coming => TemplateManager::start(templates, context, progress).await?,
            TemplateTask::Running => TemplateManager::resume(templates, context, progress).await?,
        };
        Ok((Box::new(manager), changes))
    }

    fn start_services(
        &self,
        context: ServiceContext,
        services: Vec<Service>,
        sink: Arc<dyn ServiceSink>,
        restarts: mpsc::Sender<CheckRestartRequest>,
        before: BTreeMap<String, CheckResult>,
    ) -> Box<dyn Services> {
        Box::new(ServiceManager::resume(context, services, sink, restarts, before, self.0.clone()))
    }
}

impl Templates for TemplateManager {
    fn env(&self) -> Result<BTreeMap<String, String>, HookError> {
        TemplateManager::env(self)
    }
}

impl Services for ServiceManager {
    fn update(&self, context: ServiceContext, services: Vec<Service>) {
        ServiceManager::update(self, context, services);
    }

    fn task_restarted(&self) {
        ServiceManager::task_restarted(self);
    }

    fn deregister(&self) {
        ServiceManager::deregister(self);
    }

    fn health(&self) -> CheckHealth {
        ServiceManager::health(self)
    }

    fn results(&self) -> BTreeMap<String, CheckResult> {
        ServiceManager::results(self)
    }
}
