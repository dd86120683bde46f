//! Templates: renders the files of a task before it starts, keeps them current, and says what the task must be told
//! when they change.

mod consul;
mod data;
mod engine;
mod env;
mod functions;
mod schedule;
mod sources;
mod text;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::HookError;
use super::HookProgress;
use super::TemplateChange;
use super::TemplateContext;
use super::destination::locate;
use crate::agent::files::beneath::Attributes;
use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::is_escape;
use crate::drivers::TaskDirs;
use crate::gotemplate::Delimiters;
use crate::gotemplate::Options;
use crate::model::task::Template;

use engine::Dependency;
use engine::render;
use schedule::Keeper;
use sources::Sources;

/// Changes that wait for the runner. A full queue makes rendering wait, nothing is lost.
const CHANGES_MAX: usize = 16;
/// Rounds of rendering and fetching; each round needs at least one new dependency.
const ROUNDS_MAX: usize = 64;
/// How long to wait before asking again for data that do not exist yet.
const MISSING_RETRY: Duration = Duration::from_secs(2);
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How many missing dependencies a text names.
const MISSING_NAMED: usize = 3;
/// Shortest time between two texts about missing data.
const MISSING_EVENT_EVERY: Duration = Duration::from_secs(3);
/// Largest template source, bytes.
const SOURCE_MAX: u64 = 16 << 20;
const DIRECTORY_MODE: u32 = 0o755;
const DEFAULT_MODE: u32 = 0o644;

/// Keeps the rendered files of one task current. Dropping it ends that.
pub struct TemplateManager {
    environment_files: Vec<PathBuf>,
    dirs: TaskDirs,
    keeper: JoinHandle<()>,
}

impl Drop for TemplateManager {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Whether there is somebody to tell about what the first rendering changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    NotStarted,
    Running,
}

/// A template ready to be rendered.
struct Prepared {
    template: Template,
    /// For errors: `(dynamic)`, or the path of the source.
    name: String,
    text: Arc<str>,
    syntax: Options,
    /// Relative to the allocation's directory.
    destination: PathBuf,
    attributes: Attributes,
    /// What was written last.
    written: Option<String>,
    /// What the last rendering read.
    used: BTreeSet<Dependency>,
}

impl TemplateManager {
    /// Renders all templates, waiting for data that do not exist yet, then keeps them current in the background.
    /// `progress` gets texts such as `Missing: nomad.var.block(a/b@default.global)`.
    ///
    /// # Errors
    /// Not recoverable: a template that is wrong (`Template failed: …`), or a bad source or destination
    /// (`template: …`).
    pub async fn start(
        templates: Vec<Template>,
        context: TemplateContext,
        progress: HookProgress,
    ) -> Result<(TemplateManager, mpsc::Receiver<TemplateChange>), HookError> {
        Self::begin(templates, context, progress, Task::NotStarted).await
    }

    /// As [`TemplateManager::start`], for a task that already runs, found again by a restarted agent: what changed
    /// in the meantime is told to it.
    ///
    /// # Errors
    /// As for `start`.
    pub async fn resume(
        templates: Vec<Template>,
        context: TemplateContext,
        progress: HookProgress,
    ) -> Result<(TemplateManager, mpsc::Receiver<TemplateChange>), HookError> {
        Self::begin(templates, context, progress, Task::Running).await
    }

    async fn begin(
        templates: Vec<Template>,
        context: TemplateContext,
        progress: HookProgress,
        task: Task,
    ) -> Result<(TemplateManager, mpsc::Receiver<TemplateChange>), HookError> {
        let mut prepared = Vec::with_capacity(templates.len());
        for template in templates {
            prepared.push(prepare(template, &context.dirs)?);
        }
        let environment_files = prepared.iter().filter(|each| each.template.envvars);
        let environment_files = environment_files.map(|each| each.destination.clone()).collect();
        let mut sources = Sources::new(&context);
        let rewritten = first_render(&mut prepared, &mut sources, &progress).await?;
        let (changes, receiver) = mpsc::channel(CHANGES_MAX);
        let dirs = context.dirs.clone();
        let mut keeper = Keeper::new(prepared, sources, &context, changes);
        if task == Task::Running {
            keeper.tell_of(rewritten);
        }
        let keeper = tokio::spawn(keeper.run());
        Ok((TemplateManager { environment_files, dirs, keeper }, receiver))
    }

    /// Variables from the files of templates with `env = true`, read anew: for each start of the task.
    ///
    /// # Errors
    /// Not recoverable: `Template failed to read environment variables: …`.
    pub fn env(&self) -> Result<BTreeMap<String, String>, HookError> {
        let fail = |reason: String| {
            HookError::fatal(format!("Template failed to read environment variables: {reason}"))
        };
        let mut variables = BTreeMap::new();
        for path in &self.environment_files {
            let shown = self.dirs.alloc.join(path);
            let text = read_text(&self.dirs, path).map_err(|error| {
                fail(format!("error opening env template {:?}: {error}", shown.display()))
            })?;
            let parsed = env::parse(&text).map_err(|error| {
                fail(format!("error parsing env template \"{}\": {error}", shown.display()))
            })?;
            variables.extend(parsed);
        }
        Ok(variables)
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        // A pipe would be waited for.
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    bounded_text(std::fs::File::open(path)?)
}

fn bounded_text(file: std::fs::File) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    file.take(SOURCE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SOURCE_MAX {
        return Err(std::io::Error::other(format!("the file is larger than {SOURCE_MAX} bytes")));
    }
    Ok(text)
}

fn read_text(dirs: &TaskDirs, path: &Path) -> std::io::Result<String> {
    bounded_text(Directory::open(&dirs.alloc)?.file(path)?)
}

/// Reads the source and checks where the result goes.
fn prepare(template: Template, dirs: &TaskDirs) -> Result<Prepared, HookError> {
    let fail = |reason: String| HookError::fatal(format!("template: {reason}"));
    if !template.source_path.is_empty() && !template.embedded_tmpl.is_empty() {
        return Err(fail("template: cannot specify both 'source' and 'contents'".to_owned()));
    }
    let (name, text) = if template.source_path.is_empty() {
        ("(dynamic)".to_owned(), template.embedded_tmpl.clone())
    } else {
        let source = locate(dirs, &template.source_path)
            .map_err(|_| fail("template source path escapes alloc directory".to_owned()))?;
        let shown = dirs.alloc.join(&source).display().to_string();
        let text = read_text(dirs, &source).map_err(|error| {
            if is_escape(&error) {
                return fail("template source path escapes alloc directory".to_owned());
            }
            fail(format!(
                "failed to read template: exit status 1: failed to open source file {shown:?}: {error}"
            ))
        })?;
        (shown, text)
    };
    let destination = locate(dirs, &template.dest_path)
        .ok()
        .filter(|path| path.file_name().is_some())
        .ok_or_else(|| fail("template destination path escapes alloc directory".to_owned()))?;
    let mode = match template.perms.as_str() {
        "" => DEFAULT_MODE,
        text => {
            u32::from_str_radix(text, 8).map_err(|_| fail(format!("Failed to parse {text:?} as octal")))?
        }
    };
    let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
    let attributes = Attributes { mode, uid: id(template.uid), gid: id(template.gid) };
    let or =
        |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    let delimiters =
        Delimiters { left: or(&template.left_delim, "{{"), right: or(&template.right_delim, "}}") };
    let syntax = Options { delimiters, strict: template.err_missing_key, ..Options::default() };
    Ok(Prepared {
        template,
        name,
        text: text.into(),
        syntax,
        destination,
        attributes,
        written: None,
        used: BTreeSet::new(),
    })
}

impl Prepared {
    /// Renders with what is known. `Ok(None)`: something is missing; it is in `missing` then.
    async fn render(
        &mut self,
        sources: &Sources,
        missing: &mut BTreeSet<Dependency>,
    ) -> Result<Option<String>, HookError> {
        let (text, syntax, name) = (Arc::clone(&self.text), self.syntax.clone(), self.name.clone());
        let scene = sources.scene();
        // A large template may take a while.
        let rendering = tokio::task::spawn_blocking(move || render(&text, &syntax, &name, &scene))
            .await
            .unwrap_or_else(|error| Err(format!("{}: the rendering stopped: {error}", self.name)))
            .map_err(|error| HookError::fatal(format!("Template failed: {error}")))?;
        self.used = rendering.used;
        if rendering.missing.is_empty() {
            return Ok(Some(rendering.text));
        }
        missing.extend(rendering.missing);
        Ok(None)
    }

    /// Writes the file if `text` is new. True when it was written.
    fn write(&mut self, text: String, dirs: &TaskDirs) -> Result<bool, HookError> {
        if self.written.as_ref() == Some(&text) {
            return Ok(false);
        }
        let first = self.written.is_none();
        // A restarted agent finds the file as it left it: that is no change.
        let same = first && self.is_in_place(&text, dirs);
        if !same {
            self.replace(&text, dirs).map_err(|error| {
                if is_escape(&error) {
                    return HookError::fatal("template: template destination path escapes alloc directory");
                }
                let path = dirs.alloc.join(&self.destination);
                HookError::fatal(format!(
                    "template: failed to write {:?}: {error}",
                    path.display().to_string()
                ))
            })?;
        }
        self.written = Some(text);
        Ok(!same)
    }

    fn is_in_place(&self, text: &str, dirs: &TaskDirs) -> bool {
        let wanted = self.attributes;
        let metadata = Directory::open(&dirs.alloc)
            .and_then(|alloc| alloc.handle(&self.destination))
            .and_then(|file| file.metadata());
        let fits = metadata.is_ok_and(|found| {
            found.is_file()
                && found.mode() & 0o7777 == wanted.mode & 0o7777
                && wanted.uid.is_none_or(|uid| uid == found.uid())
                && wanted.gid.is_none_or(|gid| gid == found.gid())
        });
        fits && read_text(dirs, &self.destination).is_ok_and(|present| present == text)
    }

    fn replace(&self, text: &str, dirs: &TaskDirs) -> std::io::Result<()> {
        let parent = self.destination.parent().unwrap_or(Path::new(""));
        let name = self.destination.file_name().unwrap_or(OsStr::new(""));
        let into = Directory::open(&dirs.alloc)?.create_all(parent, DIRECTORY_MODE)?;
        into.write(name, &mut text.as_bytes(), self.attributes).map(|_| ())
    }
}

/// Renders every template once. A file is written as soon as it can be; the task waits for all of them. Returns the
/// indexes of those whose file had to be written.
async fn first_render(
    prepared: &mut [Prepared],
    sources: &mut Sources,
    progress: &HookProgress,
) -> Result<BTreeSet<usize>, HookError> {
    let mut rewritten = BTreeSet::new();
    let mut said: Option<tokio::time::Instant> = None;
    let mut wait = RETRY_MIN;
    let mut rounds = 0;
    loop {
        let mut missing = BTreeSet::new();
        for (index, each) in prepared.iter_mut().enumerate().filter(|(_, each)| each.written.is_none()) {
            if let Some(text) = each.render(sources, &mut missing).await?
                && each.write(text, &sources.dirs)?
            {
                rewritten.insert(index);
            }
        }
        if missing.is_empty() {
            return Ok(rewritten);
        }
        let found = sources.fetch(&missing).await?;
        if found.missing != missing && rounds < ROUNDS_MAX {
            rounds += 1;
            continue;
        }
        rounds = 0;
        let due = said.is_none_or(|said| said.elapsed() >= MISSING_EVENT_EVERY);
        if due {
            said = Some(tokio::time::Instant::now());
            progress(&missing_text(&found.missing, sources));
        }
        // Whether the agent cannot ask or there is nothing yet: a task that waits is safe.
        let pause = if found.unreachable { wait } else { MISSING_RETRY };
        wait = (wait * 2).min(RETRY_MAX);
        let _ = tokio::time::timeout(pause, sources.changed()).await;
        sources.forget(&missing);
    }
}

fn missing_text(missing: &BTreeSet<Dependency>, sources: &Sources) -> String {
    let names: Vec<String> = missing.iter().take(MISSING_NAMED).map(|each| sources.name(each)).collect();
    let rest = missing.len().saturating_sub(MISSING_NAMED);
    let more = if rest == 0 { String::new() } else { format!(", and {rest} more") };
    format!("Missing: {}{more}", names.join(", "))
}

/// What is wanted of one event: the first that applies, coalesced over all templates that changed.
fn told(changed: &[&Template]) -> Vec<TemplateChange> {
    if changed.iter().any(|template| template.change_mode == "restart" || template.change_mode.is_empty()) {
        return vec![TemplateChange::Restart];
    }
    let mut told = Vec::new();
    let signals: BTreeSet<String> = changed
        .iter()
        .filter(|template| template.change_mode == "signal")
        .map(|template| match template.change_signal.as_str() {
            "" => "SIGHUP".to_owned(),
            signal => signal.to_uppercase(),
        })
        .collect();
    told.extend(signals.into_iter().map(TemplateChange::Signal));
    let scripts = changed.iter().filter(|template| template.change_mode == "script");
    told.extend(scripts.filter_map(|template| template.change_script.clone()).map(TemplateChange::Script));
    told
}

/// Rendering again after the first time, used by the keeper: fetches what is newly needed until all is known.
async fn render_again(each: &mut Prepared, sources: &mut Sources) -> Result<Option<String>, HookError> {
    for _ in 0..ROUNDS_MAX {
        let mut missing = BTreeSet::new();
        if let Some(text) = each.render(sources, &mut missing).await? {
            return Ok(Some(text));
        }
        if !sources.fetch(&missing).await?.is_complete() {
            // The file stays as it was until the data are there.
            return Ok(None);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
