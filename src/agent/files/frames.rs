//! Streams of frames: the content of a file, or of all rotated files of a log, to the end or for as long as somebody
//! listens.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::Stream;
use futures::stream;
use serde::Serialize;
use serde::Serializer;
use tokio::sync::watch;
use tokio::time::Instant;

use super::FileError;
use super::beneath::Directory;
use super::beneath::Links;
use super::watch::Changes;
use crate::drivers::logs::index_in;

/// Largest data of one frame, bytes.
const FRAME_MAX: usize = 64 * 1024;
/// A stream without news sends an empty frame this often, so that both ends notice a broken connection.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// News are collected for this long after a frame, so that chatty tasks do not make a frame of each line.
const BATCH: Duration = Duration::from_millis(200);

/// A piece of a stream. Zero fields are left out; an empty frame is a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamFrame {
    /// Position in the file after the data, bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// In JSON: base64.
    #[serde(skip_serializing_if = "Bytes::is_empty", serialize_with = "as_base64")]
    pub data: Bytes,
    /// The file, relative to the allocation's directory; only when it is another than before.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// `file deleted` or `file truncated`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub file_event: &'static str,
}

impl StreamFrame {
    /// Nothing new.
    pub fn is_heartbeat(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(offset: &u64) -> bool {
    *offset == 0
}

fn as_base64<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `offset` bytes after the beginning.
    Start,
    /// `offset` bytes before the end.
    End,
}

/// How long a stream goes on.
#[derive(Clone, Debug)]
pub enum Follow {
    /// To the end of what is there.
    No,
    /// Until it is dropped.
    Always,
    /// Until this turns true, or is closed, and everything has been read.
    Until(watch::Receiver<bool>),
}

/// What a stream consists of.
pub(super) enum Content {
    File {
        path: PathBuf,
        file: File,
    },
    /// Rotated files `<prefix><number>` in the directory `place` of the allocation.
    Logs {
        directory: Directory,
        place: PathBuf,
        prefix: String,
    },
}

struct Open {
    file: Arc<File>,
    name: String,
    /// The number of a log.
    number: u64,
    offset: u64,
    /// The name has been sent.
    named: bool,
}

/// The state of a stream.
struct Reader {
    content: Content,
    open: Option<Open>,
    /// Bytes to skip in later logs, when the stream begins after the end of the first.
    skip: u64,
    changes: Option<Changes>,
    /// Turns true, or is closed, when nothing will be written any more.
    ended: Option<watch::Receiver<bool>>,
    last_sent: Option<Instant>,
    done: bool,
}

/// Frames of `content`. A followed stream also ends when the file is deleted.
///
/// # Errors
/// Those of opening. Later errors end the stream.
pub(super) fn frames(
    content: Content,
    origin: Origin,
    offset: u64,
    follow: Follow,
) -> Result<impl Stream<Item = Result<StreamFrame, FileError>> + Send + use<>, FileError> {
    let (follows, ended) = match follow {
        Follow::No => (false, None),
        Follow::Always => (true, None),
        Follow::Until(ended) => (true, Some(ended)),
    };
    // Before the first reading, so that nothing that happens after it is missed.
    let changes = follows.then(|| Changes::of(&content.watched()));
    let mut reader = Reader { content, open: None, skip: 0, changes, ended, last_sent: None, done: false };
    reader.begin(origin, offset)?;
    Ok(stream::unfold(reader, |mut reader| async move {
        let frame = reader.next().await?;
        reader.done |= frame.is_err();
        reader.last_sent = Some(Instant::now());
        Some((frame, reader))
    }))
}

impl Content {
    fn watched(&self) -> PathBuf {
        match self {
            Self::File { file, .. } => super::descriptor_path(file),
            Self::Logs { directory, .. } => directory.as_path(),
        }
    }
}

/// Numbers of the log files that are there, in order.
fn numbers(directory: &Directory, prefix: &str) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(directory.as_path())? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| index_in(name, prefix));
        numbers.extend(number);
    }
    Ok(numbers)
}

impl Reader {
    fn begin(&mut self, origin: Origin, offset: u64) -> Result<(), FileError> {
        match &self.content {
            Content::File { path, file, .. } => {
                let size = file.metadata()?.len();
                let offset = if origin == Origin::Start { offset } else { size.saturating_sub(offset) };
                let file = Arc::new(file.try_clone()?);
                let name = path.display().to_string();
                self.open = Some(Open { file, name, number: 0, offset, named: false });
            }
            Content::Logs { directory, prefix, .. } => {
                let mut numbers = numbers(directory, prefix)?;
                let Some(first) = numbers.first().copied() else {
                    self.skip = if origin == Origin::Start { offset } else { 0 };
                    return Ok(());
                };
                if origin == Origin::Start {
                    self.skip = offset;
                    return self.open_log(first);
                }
                let mut left = offset;
                while let Some(number) = numbers.pop_last() {
                    self.open_log(number)?;
                    let Some(open) = &mut self.open else { continue };
                    let size = open.file.metadata()?.len();
                    if left <= size || numbers.is_empty() {
                        open.offset = size.saturating_sub(left);
                        break;
                    }
                    left -= size;
                }
            }
        }
        Ok(())
    }

    /// Opens a log; one that has been rotated away meanwhile is left out.
    fn open_log(&mut self, number: u64) -> Result<(), FileError> {
        let Content::Logs { directory, place, prefix } = &self.content else { return Ok(()) };
        let name = format!("{prefix}{number}");
        let file = match directory.file(Path::new(&name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let size = file.metadata()?.len();
        let offset = self.skip.min(size);
        self.skip -= offset;
        let name = place.join(name).display().to_string();
        self.open = Some(Open { file: Arc::new(file), name, number, offset, named: false });
        Ok(())
    }

    async fn next(&mut self) -> Option<Result<StreamFrame, FileError>> {
        while !self.done {
            // Looked at first: what is read after the end is all there is.
            let over =
                self.ended.as_ref().is_some_and(|ended| *ended.borrow() || ended.has_changed().is_err());
            match self.read().await {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            if self.done || over {
                break;
            }
            let Some(changes) = &mut self.changes else { return None };
            let end = async {
                match &mut self.ended {
                    // An error is an end, too.
                    Some(ended) => drop(ended.wait_for(|ended| *ended).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                news = tokio::time::timeout(HEARTBEAT, changes.next()) => if news.is_err() {
                    return Some(Ok(StreamFrame::default()));
                },
                () = end => continue,
            }
            if let Some(sent) = self.last_sent {
                tokio::time::sleep_until(sent + BATCH).await;
            }
        }
        None
    }

    /// The next frame, if there is anything to tell now.
    async fn read(&mut self) -> Result<Option<StreamFrame>, FileError> {
        loop {
            let next = self.next_log()?;
            if let Some(frame) = self.read_open().await? {
                return Ok(Some(frame));
            }
            // Only what is read after the next log was there is sure to be the whole of this one.
            match next {
                Some(number) => self.open_log(number)?,
                None => return Ok(None),
            }
            if self.open.as_ref().is_some_and(|open| Some(open.number) != next) {
                return Ok(None);
            }
        }
    }

    fn next_log(&self) -> Result<Option<u64>, FileError> {
        let Content::Logs { directory, prefix, .. } = &self.content else { return Ok(None) };
        let numbers = numbers(directory, prefix)?;
        Ok(match &self.open {
            Some(open) => numbers.range(open.number + 1..).next().copied(),
            None => numbers.first().copied(),
        })
    }

    async fn read_open(&mut self) -> Result<Option<StreamFrame>, FileError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let (file, at) = (open.file.clone(), open.offset);
        let read = move || -> io::Result<(Vec<u8>, u64, u64)> {
            let mut data = vec![0; FRAME_MAX];
            let length = file.read_at(&mut data, at)?;
            data.truncate(length);
            let metadata = file.metadata()?;
            Ok((data, metadata.len(), metadata.nlink()))
        };
        let (data, size, names) = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| io::Error::other(error.to_string()))??;
        if !data.is_empty() {
            open.offset += data.len() as u64;
            let file = if open.named { String::new() } else { open.name.clone() };
            open.named = true;
            return Ok(Some(StreamFrame { offset: open.offset, data: data.into(), file, file_event: "" }));
        }
        if self.changes.is_none() {
            return Ok(None);
        }
        let event = if names == 0 && matches!(self.content, Content::File { .. }) {
            self.done = true;
            "file deleted"
        } else if size < open.offset && open.named {
            open.offset = 0;
            "file truncated"
        } else {
            return Ok(None);
        };
        Ok(Some(StreamFrame { file: open.name.clone(), file_event: event, ..StreamFrame::default() }))
    }
}

/// Opens the directory and prefix of a task's log.
pub(super) fn logs(root: &Directory, task: &str, kind: &str) -> io::Result<Content> {
    let place = PathBuf::from("alloc/logs");
    // A task may have put a link to others' secrets there.
    let directory = root.directory(&place, Links::Refuse)?;
    let prefix = format!("{task}.{kind}.");
    // A name is one segment, whatever a client sends.
    if Path::new(&prefix).file_name() != Some(OsStr::new(&prefix)) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Content::Logs { directory, place, prefix })
}
