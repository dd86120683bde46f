//! Images: pulled once however many tasks wait for them, and removed some time after their last use. Those that were
//! there before belong to somebody else and stay.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::query_parameters::RemoveImageOptions;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::future::Shared;
use futures::future::WeakShared;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::drivers::Progress;
use crate::drivers::TaskId;

use super::words;

/// A pull that takes long says how far it is this often.
const REPORT_EVERY: Duration = Duration::from_secs(120);

type PullFuture = BoxFuture<'static, Result<(), String>>;

/// A pull that is under way while anybody waits for it, and how far it is.
type Pulling = (WeakShared<PullFuture>, Arc<Mutex<Layers>>);

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Images {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    pulls: Mutex<BTreeMap<String, Pulling>>,
    uses: Mutex<Uses>,
    /// Held for reading while an image is looked up and noted as used, for writing while one is removed: so nobody
    /// sees an image that is about to vanish.
    gate: tokio::sync::RwLock<()>,
}

#[derive(Default)]
struct Uses {
    /// By image id.
    tasks: BTreeMap<String, BTreeSet<TaskId>>,
    /// Ids of the images that were fetched for tasks.
    fetched: BTreeSet<String>,
    removals: BTreeMap<String, AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Images")
    }
}

/// An image in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) id: String,
    /// It was fetched for a task, so it may be removed.
    pub(super) fetched: bool,
}

/// What a pull is told.
pub(super) struct Pull {
    pub(super) client: Client,
    pub(super) image: String,
    pub(super) credentials: Option<DockerCredentials>,
    /// Without any progress for this long it is given up.
    pub(super) activity_limit: Duration,
}

impl Images {
    /// Pulls an image, or joins a pull of it that is under way. Given up after `limit`; a pull that nobody waits for
    /// any more is broken off.
    ///
    /// # Errors
    /// In Docker's words.
    pub(super) async fn pull(&self, pull: Pull, limit: Duration, progress: &Progress) -> Result<(), String> {
        let image = pull.image.clone();
        let (pulled, layers) = self.join(pull);
        let deadline = Instant::now() + limit;
        let mut report = tokio::time::interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
        tokio::pin!(pulled);
        loop {
            tokio::select! {
                result = &mut pulled => return result,
                () = tokio::time::sleep_until(deadline) => {
                    return Err(format!("context deadline exceeded: not pulled within {limit:?}"));
                }
                _ = report.tick() => {
                    let text = layers.lock().summary();
                    progress(&format!("Docker image {image} pull progress: {text}"));
                }
            }
        }
    }

    fn join(&self, pull: Pull) -> (Shared<PullFuture>, Arc<Mutex<Layers>>) {
        let mut pulls = self.inner.pulls.lock();
        pulls.retain(|_, (pull, _)| pull.upgrade().is_some());
        if let Some((present, layers)) = pulls.get(&pull.image)
            && let Some(present) = present.upgrade()
            && present.peek().is_none()
        {
            return (present, Arc::clone(layers));
        }
        let layers = Arc::new(Mutex::new(Layers::default()));
        let image = pull.image.clone();
        let shared = run(pull, Arc::clone(&layers)).boxed().shared();
        if let Some(weak) = shared.downgrade() {
            pulls.insert(image, (weak, Arc::clone(&layers)));
        }
        (shared, layers)
    }

    /// Notes that a task uses an image, and returns what must be remembered of it; `None` if it is not there.
    /// `fetched`: was the image with this id fetched just now?
    ///
    /// # Errors
    /// Docker does not answer.
    pub(super) async fn hold(
        &self,
        client: &Client,
        image: &str,
        task: &TaskId,
        fetched: impl Fn(&str) -> bool,
    ) -> Result<Option<Held>, bollard::errors::Error> {
        let _gate = self.inner.gate.read().await;
        match client.inspect_image(image).await {
            Ok(found) => {
                let id = found.id.unwrap_or_else(|| image.to_owned());
                let known = self.inner.uses.lock().fetched.contains(&id);
                let fetched = known || fetched(&id);
                let held = Held { id, fetched };
                self.hold_again(&held, task);
                Ok(Some(held))
            }
            Err(error) if super::status(&error) == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes that a task uses an image that is known to be there: its container exists.
    pub(super) fn hold_again(&self, held: &Held, task: &TaskId) {
        let mut uses = self.inner.uses.lock();
        uses.removals.remove(&held.id);
        if held.fetched {
            uses.fetched.insert(held.id.clone());
        }
        uses.tasks.entry(held.id.clone()).or_default().insert(task.clone());
    }

    /// Notes that a task has ended. After `delay` without another use the image is removed; never when that is `None`.
    pub(super) fn release(&self, client: Client, id: &str, task: &TaskId, delay: Option<Duration>) {
        let mut uses = self.inner.uses.lock();
        let Some(tasks) = uses.tasks.get_mut(id) else { return };
        tasks.remove(task);
        if !tasks.is_empty() {
            return;
        }
        uses.tasks.remove(id);
        let Some(delay) = delay.filter(|_| uses.fetched.contains(id)) else { return };
        let (weak, image) = (Arc::downgrade(&self.inner), id.to_owned());
        let removal = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let Some(inner) = weak.upgrade() else { return };
            let _gate = inner.gate.write().await;
            if inner.uses.lock().tasks.contains_key(&image) {
                return;
            }
            match client.remove_image(&image, None::<RemoveImageOptions>, None).await {
                Ok(_) => {
                    inner.uses.lock().fetched.remove(&image);
                    tracing::info!(%image, "removed an image that no task uses any more");
                }
                // Somebody else uses it, or it has more names than one.
                Err(error) => tracing::debug!(%image, error = %words(&error), "an unused image stays"),
            }
        });
        uses.removals.insert(id.to_owned(), AbortOnDropHandle::new(removal));
    }
}

async fn run(pull: Pull, layers: Arc<Mutex<Layers>>) -> Result<(), String> {
    let options = CreateImageOptionsBuilder::default().from_image(&pull.image).build();
    let mut stream = Box::pin(pull.client.create_image(Some(options), None, pull.credentials));
    loop {
        let limit = pull.activity_limit;
        let step = tokio::time::timeout(limit, stream.next()).await;
        match step.map_err(|_| format!("pull activity timeout: no progress within {limit:?}"))? {
            None => return Ok(()),
            Some(step) => {
                let step = step.map_err(|error| words(&error))?;
                if let Some(error) = &step.error_detail {
                    return Err(error.message.clone().unwrap_or_default());
                }
                layers.lock().note(&step);
            }
        }
    }
}

/// How far the layers of an image are.
#[derive(Debug, Default)]
struct Layers {
    by_id: BTreeMap<String, Layer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    waiting: bool,
    done: bool,
    current: i64,
    total: i64,
}

impl Layers {
    fn note(&mut self, step: &CreateImageInfo) {
        let Some(status) = step.status.as_deref() else { return };
        let Some(id) = step.id.as_ref().filter(|_| !status.starts_with("Pulling from")) else { return };
        let layer = self.by_id.entry(id.clone()).or_default();
        layer.waiting = matches!(status, "Pulling fs layer" | "Waiting");
        layer.done = matches!(status, "Pull complete" | "Already exists");
        if status == "Downloading"
            && let Some(detail) = &step.progress_detail
        {
            layer.current = detail.current.unwrap_or(0);
            layer.total = detail.total.unwrap_or(0);
        }
        if layer.done || matches!(status, "Download complete" | "Extracting") {
            layer.current = layer.total;
        }
    }

    fn summary(&self) -> String {
        let layers = self.by_id.values();
        let done = layers.clone().filter(|layer| layer.done).count();
        let waiting = layers.clone().filter(|layer| layer.waiting).count();
        let pulling = layers.clone().filter(|layer| !layer.done && !layer.waiting).count();
        let current: i64 = layers.clone().map(|layer| layer.current).sum();
        let total: i64 = layers.clone().map(|layer| layer.total).sum();
        format!(
            "Pulled {done}/{} ({}/{}) layers: {waiting} waiting/{pulling} pulling",
            layers.len(),
            size(current),
            size(total)
        )
    }
}

/// `1.5 MiB`.
fn size(bytes: i64) -> String {
    let mut value = bytes.max(0) as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::super::connection::Connection;
    use super::*;

    fn pull(image: &str) -> Pull {
        let client = Connection::new("tcp://127.0.0.1:1", None).client(1).unwrap();
        let activity_limit = Duration::from_secs(1);
        Pull { client, image: image.to_owned(), credentials: None, activity_limit }
    }

    #[test]
    fn a_pull_is_shared_while_anybody_waits_for_it() {
        let images = Images::default();
        let (first, layers) = images.join(pull("a:1"));
        let (second, same_layers) = images.join(pull("a:1"));
        let (other, _) = images.join(pull("b:1"));
        assert!(first.ptr_eq(&second) && Arc::ptr_eq(&layers, &same_layers));
        assert!(!first.ptr_eq(&other));
        drop(second);
        assert!(images.join(pull("a:1")).0.ptr_eq(&first));
        drop(first);
        let pulls = images.inner.pulls.lock();
        assert!(pulls["a:1"].0.upgrade().is_none(), "a pull that nobody waits for goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_pull_says_how_far_it_is() {
        // Nobody ever answers there.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", silent.local_addr().unwrap());
        let client = Connection::new(&endpoint, None).client(3600).unwrap();
        let activity_limit = Duration::from_secs(3600);
        let slow = Pull { client, image: "a:1".to_owned(), credentials: None, activity_limit };
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let progress: Progress = Arc::new(move |text| sink.lock().push(text.to_owned()));
        let error = Images::default().pull(slow, Duration::from_secs(300), &progress).await.unwrap_err();
        assert_eq!(error, "context deadline exceeded: not pulled within 300s");
        let wanted = "Docker image a:1 pull progress: Pulled 0/0 (0 B/0 B) layers: 0 waiting/0 pulling";
        assert_eq!(*told.lock(), [wanted, wanted]);
    }

    #[test]
    fn progress_counts_layers_and_bytes() {
        let mut layers = Layers::default();
        assert_eq!(layers.summary(), "Pulled 0/0 (0 B/0 B) layers: 0 waiting/0 pulling");
        let mut note = |id: &str, status: &str, sizes: Option<(i64, i64)>| {
            layers.note(&CreateImageInfo {
                id: Some(id.to_owned()),
                status: Some(status.to_owned()),
                progress_detail: sizes
                    .map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
                ..CreateImageInfo::default()
            });
        };
        note("7", "Pulling from library/redis", None);
        for id in ["a", "b", "c", "d"] {
            note(id, "Pulling fs layer", None);
        }
        note("a", "Downloading", Some((512, 1 << 20)));
        note("a", "Pull complete", None);
        note("b", "Downloading", Some((1536, 2048)));
        note("c", "Already exists", None);
        assert_eq!(layers.summary(), "Pulled 2/4 (1.0 MiB/1.0 MiB) layers: 1 waiting/1 pulling");
    }
}
