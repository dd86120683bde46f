//! When templates are rendered again: after their data have been quiet for a while; and when the task hears of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Prepared;
use super::engine::Dependency;
use super::render_again;
use super::sources::Sources;
use super::told;
use crate::agent::hooks::TemplateChange;
use crate::agent::hooks::TemplateContext;
use crate::agent::hooks::TemplateOptions;
use crate::model::task::Template;

/// When a template with changed data is rendered.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// However often the data change, not later than this.
    latest: Instant,
}

/// Keeps the files of one task current.
pub(super) struct Keeper {
    templates: Vec<Prepared>,
    due: Vec<Option<Due>>,
    sources: Sources,
    options: Arc<TemplateOptions>,
    random: Random,
    changes: mpsc::Sender<TemplateChange>,
    /// Templates whose new content the task has not heard of, and when it will.
    untold: BTreeSet<usize>,
    tell_at: Option<Instant>,
}

/// A small generator (SplitMix64): the same seed gives the same splays in every version.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn up_to(&mut self, max: Duration) -> Duration {
        let nanos = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        if nanos == 0 { Duration::ZERO } else { Duration::from_nanos(self.next() % nanos) }
    }
}

impl Keeper {
    pub(super) fn new(
        templates: Vec<Prepared>,
        sources: Sources,
        context: &TemplateContext,
        changes: mpsc::Sender<TemplateChange>,
    ) -> Self {
        let due = vec![None; templates.len()];
        let random = Random(context.seed);
        let options = Arc::clone(&context.options);
        Self { templates, due, sources, options, random, changes, untold: BTreeSet::new(), tell_at: None }
    }

    /// Runs until a template cannot be rendered any more, or nobody listens.
    pub(super) async fn run(mut self) {
        loop {
            let used: BTreeSet<Dependency> = self
                .templates
                .iter()
                .filter(|each| !each.template.once)
                .flat_map(|each| each.used.clone())
                .collect();
            let render_at = self.due.iter().flatten().map(|due| due.at).min();
            let step = tokio::select! {
                seen = self.sources.wait(&used), if !used.is_empty() => Step::Read(seen),
                () = until(render_at) => Step::Render,
                () = until(self.tell_at) => Step::Tell,
            };
            let going_on = match step {
                Step::Read(seen) => {
                    let changed = self.sources.reread(&used, seen).await;
                    self.postpone(&changed);
                    true
                }
                Step::Render => self.render().await,
                Step::Tell => self.tell().await,
            };
            if !going_on {
                return;
            }
        }
    }

    /// Starts or extends the quiet time of templates that read what changed.
    fn postpone(&mut self, changed: &BTreeSet<Dependency>) {
        let now = Instant::now();
        for (each, due) in self.templates.iter().zip(&mut self.due) {
            if each.template.once || each.used.is_disjoint(changed) {
                continue;
            }
            let (min, max) = quiet_time(&each.template, &self.options);
            let latest = due.map_or(now + max, |due| due.latest);
            *due = Some(Due { at: (now + min).min(latest), latest });
        }
    }

    async fn render(&mut self) -> bool {
        let now = Instant::now();
        let mut written = BTreeSet::new();
        for index in 0..self.templates.len() {
            if self.due[index].is_none_or(|due| due.at > now) {
                continue;
            }
            self.due[index] = None;
            let each = &mut self.templates[index];
            let rendered = match render_again(each, &mut self.sources).await {
                Ok(Some(text)) => each.write(text, &self.sources.dirs),
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            match rendered {
                Ok(true) => {
                    written.insert(index);
                }
                Ok(false) => {}
                Err(error) => {
                    let message = error.message;
                    let message = if message.starts_with("Template failed: ") {
                        message
                    } else {
                        format!("Template failed: {message}")
                    };
                    // Nobody listens any more when this fails, and we end either way.
                    let _ = self.changes.send(TemplateChange::Failed(message)).await;
                    return false;
                }
            }
        }
        self.tell_of(written);
        true
    }

    /// Lets the task know, after a splay, that the files of these templates are new.
    pub(super) fn tell_of(&mut self, written: BTreeSet<usize>) {
        let heard = written.into_iter().filter(|index| self.templates[*index].template.change_mode != "noop");
        self.untold.extend(heard);
        if !self.untold.is_empty() && self.tell_at.is_none() {
            let splays = self.untold.iter().map(|index| self.templates[*index].template.splay.to_std());
            let splay = splays.max().unwrap_or_default();
            self.tell_at = Some(Instant::now() + self.random.up_to(splay));
        }
    }

    async fn tell(&mut self) -> bool {
        self.tell_at = None;
        let untold = std::mem::take(&mut self.untold);
        let changed: Vec<&Template> = untold.iter().map(|index| &self.templates[*index].template).collect();
        for change in told(&changed) {
            if self.changes.send(change).await.is_err() {
                return false;
            }
        }
        true
    }
}

enum Step {
    Read(Option<u64>),
    Render,
    Tell,
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Shortest and longest time between a change of data and rendering: what the template asks for within the bounds of
/// the agent's configuration, or else that configuration's own.
fn quiet_time(template: &Template, options: &TemplateOptions) -> (Duration, Duration) {
    let Some(wait) = &template.wait else { return options.wait };
    let (least, longest) = options.wait_bounds;
    let within = |span: Duration| {
        let span = least.map_or(span, |least| span.max(least));
        longest.map_or(span, |longest| span.min(longest))
    };
    let min = within(wait.min.map_or(options.wait.0, |min| min.to_std()));
    let max = within(wait.max.map_or(options.wait.1, |max| max.to_std()));
    (min, max.max(min))
}
