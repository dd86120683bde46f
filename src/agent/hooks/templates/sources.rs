//! What templates read from outside: fetched from the catalog and from files, and watched for changes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::Answer;
use super::engine::Dependency;
use super::engine::Scene;
use super::read_bounded;
use super::read_text;
use crate::agent::consul::ConsulError;
use crate::agent::hooks::Catalog;
use crate::agent::hooks::HookError;
use crate::agent::hooks::TemplateContext;
use crate::agent::hooks::TemplateOptions;
use crate::clock::Clock;
use crate::drivers::TaskDirs;

/// How often files that templates read, and Consul, are looked at.
const POLL: Duration = Duration::from_secs(2);
/// When a catalog that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// Answers known so far, and where to get more.
pub(super) struct Sources {
    pub(super) dirs: Arc<TaskDirs>,
    env: Arc<BTreeMap<String, String>>,
    node: Arc<BTreeMap<String, String>>,
    namespace: String,
    region: String,
    catalog: Arc<dyn Catalog>,
    clock: Arc<dyn Clock>,
    options: Arc<TemplateOptions>,
    known: Arc<BTreeMap<Dependency, Answer>>,
    /// The catalog's index that the oldest answer was read at.
    index: u64,
    polled_at: Instant,
    /// The catalog did not answer; it is asked again then.
    retry_at: Option<Instant>,
}

/// What an attempt to fetch brought.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// There is no such thing yet.
    pub(super) missing: BTreeSet<Dependency>,
    /// The catalog could not be asked.
    pub(super) unreachable: bool,
}

impl Fetched {
    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

impl Sources {
    pub(super) fn new(context: &TemplateContext) -> Self {
        Self {
            dirs: Arc::new(context.dirs.clone()),
            env: Arc::new(context.env.clone()),
            node: Arc::new(context.node.clone()),
            namespace: context.namespace.clone(),
            region: context.region.clone(),
            catalog: context.catalog.clone(),
            clock: context.clock.clone(),
            options: context.options.clone(),
            known: Arc::default(),
            index: 0,
            polled_at: Instant::now(),
            retry_at: None,
        }
    }

    pub(super) fn scene(&self) -> Scene {
        Scene {
            env: self.env.clone(),
            node: self.node.clone(),
            dirs: self.dirs.clone(),
            known: self.known.clone(),
            options: self.options.clone(),
            now: self.clock.now(),
        }
    }

    /// For texts: `nomad.service(redis@default.global)`.
    pub(super) fn name(&self, dependency: &Dependency) -> String {
        let place = format!("{}.{}", self.namespace, self.region);
        match dependency {
            Dependency::Service(name) => format!("nomad.service({name}@{place})"),
            Dependency::Services => format!("nomad.services(@{place})"),
            Dependency::Variable { path, namespace } => {
                format!("nomad.var.block({path}@{})", self.within(namespace))
            }
            Dependency::VariableExists { path, namespace } => {
                format!("nomad.var.exists({path}@{})", self.within(namespace))
            }
            Dependency::Variables { prefix, namespace } => {
                format!("nomad.var.list({prefix}@{})", self.within(namespace))
            }
            Dependency::File(path) => format!("file({path})"),
            Dependency::Consul(path) => format!("consul({path})"),
        }
    }

    /// A namespace with our region; empty: the job's.
    fn within(&self, namespace: &str) -> String {
        format!("{}.{}", self.own(namespace), self.region)
    }

    fn own<'a>(&'a self, namespace: &'a str) -> &'a str {
        if namespace.is_empty() { &self.namespace } else { namespace }
    }

    /// Gets answers. Errors are those that trying again cannot mend.
    pub(super) async fn fetch(&mut self, wanted: &BTreeSet<Dependency>) -> Result<Fetched, HookError> {
        let mut fetched = Fetched::default();
        for dependency in wanted {
            if self.known.contains_key(dependency) {
                // Known not to exist.
                fetched.missing.insert(dependency.clone());
                continue;
            }
            match self.ask(dependency).await {
                Ok(answer) => {
                    Arc::make_mut(&mut self.known).insert(dependency.clone(), answer);
                }
                Err(error) if error.recoverable => {
                    fetched.unreachable = true;
                    self.retry_at = Some(Instant::now() + RETRY);
                    fetched.missing.insert(dependency.clone());
                }
                Err(error) => return Err(HookError::fatal(format!("Template failed: {error}"))),
            }
        }
        Ok(fetched)
    }

    async fn ask(&mut self, dependency: &Dependency) -> Result<Answer, HookError> {
        let (index, answer) = match dependency {
            Dependency::Service(name) => {
                let (index, services) = self.catalog.services(&self.namespace, name).await?;
                (index, Answer::Service(services))
            }
            Dependency::Services => {
                let (index, names) = self.catalog.names(&self.namespace).await?;
                (index, Answer::Services(names))
            }
            Dependency::Variable { path, namespace } | Dependency::VariableExists { path, namespace } => {
                let (index, variable) = self.catalog.variable(self.own(namespace), path).await?;
                (index, Answer::Variable(variable))
            }
            Dependency::Variables { prefix, namespace } => {
                let (index, found) = self.catalog.variables(self.own(namespace), prefix).await?;
                (index, Answer::Variables(found))
            }
            Dependency::File(path) => return self.read(path),
            Dependency::Consul(path) => return self.ask_consul(path).await,
        };
        self.index = if self.index == 0 { index } else { self.index.min(index) };
        Ok(answer)
    }

    async fn ask_consul(&self, path: &str) -> Result<Answer, HookError> {
        let Some(consul) = &self.options.consul else {
            return Err(HookError::fatal("Consul is not configured"));
        };
        match consul.get(path).await {
            Ok(json) => Ok(Answer::Consul(json)),
            Err(ConsulError::Refused { status: 404, .. }) => Ok(Answer::Consul(serde_json::Value::Null)),
            Err(error) => Err(HookError::recoverable(error.to_string())),
        }
    }

    fn read(&self, path: &str) -> Result<Answer, HookError> {
        let read = match Path::new(path).strip_prefix(&self.dirs.alloc) {
            Ok(inside) => read_text(&self.dirs, inside),
            // Only where the agent's configuration allows any file.
            Err(_) => read_bounded(Path::new(path)),
        };
        match read {
            Ok(content) => Ok(Answer::File(content)),
            Err(error) => Err(HookError::fatal(format!("file({path}): {error}"))),
        }
    }

    /// Drops answers, so that they are asked for again.
    pub(super) fn forget(&mut self, dependencies: &BTreeSet<Dependency>) {
        let known = Arc::make_mut(&mut self.known);
        known.retain(|dependency, _| !dependencies.contains(dependency));
    }

    /// Waits until the catalog changes after what was read. Cancel-safe.
    pub(super) async fn changed(&self) -> u64 {
        self.catalog.changed(self.index).await
    }

    /// Waits until something in `used` may have changed: `Some` index of the catalog, `None` for what is polled.
    /// Cancel-safe.
    pub(super) async fn wait(&self, used: &BTreeSet<Dependency>) -> Option<u64> {
        let polled = used.iter().any(Dependency::is_polled);
        let catalog = used.iter().any(|each| !each.is_polled());
        let again = self.retry_at.unwrap_or_else(Instant::now);
        tokio::select! {
            seen = self.catalog.changed(self.index), if catalog => Some(seen),
            () = tokio::time::sleep_until(again), if self.retry_at.is_some() => Some(self.index),
            () = tokio::time::sleep_until(self.polled_at + POLL), if polled => None,
            else => std::future::pending().await,
        }
    }

    /// Reads again what may have changed, after [`Sources::wait`]; returns what really changed.
    pub(super) async fn reread(
        &mut self,
        used: &BTreeSet<Dependency>,
        seen: Option<u64>,
    ) -> BTreeSet<Dependency> {
        let mut changed = BTreeSet::new();
        let mut failed = false;
        for dependency in used {
            if dependency.is_polled() != seen.is_none() {
                continue;
            }
            // Errors leave the last answer in place: a task goes on with what it has.
            let Ok(answer) = self.ask(dependency).await else {
                failed = true;
                continue;
            };
            if self.known.get(dependency) != Some(&answer) {
                Arc::make_mut(&mut self.known).insert(dependency.clone(), answer);
                changed.insert(dependency.clone());
            }
        }
        match seen {
            Some(index) => {
                // All was asked for after this index, so only later changes are news.
                self.index = index;
                self.retry_at = failed.then(|| Instant::now() + RETRY);
            }
            None => self.polled_at = Instant::now(),
        }
        changed
    }
}
