//! Access to the files of allocations on this node, for the API: listing, reading, and following files and logs.
//!
//! Tasks own these directories and may fill them with links, so every path is opened by [`beneath::Directory`], and
//! what was opened is compared with the parts that nobody may read.

pub mod beneath;
mod content;
mod frames;
mod watch;

use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::model::time::Time;

use beneath::Directory;
use beneath::is_escape;
use content::SNIFF;
use content::content_type;
use content::file_mode;
use frames::Content;
use frames::frames;
use frames::logs;

pub use frames::Follow;
pub use frames::Origin;
pub use frames::StreamFrame;

/// Directories of a task that are nobody's business.
const HIDDEN: [&str; 2] = ["secrets", "private"];
/// The directory that the tasks of a group share.
const SHARED: &str = "alloc";

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("Path escapes the alloc directory")]
    Escapes,
    #[error("Reading secret file prohibited: {0}")]
    Secret(String),
    /// The step that failed (`open` or `stat`) and the path on the host.
    #[error("{0} {1}: no such file or directory")]
    NotFound(&'static str, String),
    #[error("file {0:?} is a directory")]
    IsDirectory(String),
    #[error("{0} is not a directory")]
    NotDirectory(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileInfo {
    pub name: String,
    pub is_dir: bool,
    /// Bytes.
    pub size: u64,
    /// Go's letters: `-rw-r--r--`.
    pub file_mode: String,
    pub mod_time: Time,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub content_type: &'static str,
}

/// A log of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    Stdout,
    Stderr,
}

impl LogKind {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The directory of one allocation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AllocFiles {
    root: Arc<Directory>,
    path: PathBuf,
}

impl AllocFiles {
    /// Opens `<data_dir>/alloc/<allocation>`.
    ///
    /// # Errors
    /// When it is not there: the allocation never ran here, or its files are gone.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let root = Directory::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FileError::NotFound("open", path.display().to_string()),
            _ => error.into(),
        })?;
        Ok(Self { root: Arc::new(root), path: path.to_owned() })
    }

    /// The entries of a directory, by name.
    ///
    /// # Errors
    /// See [`FileError`].
    pub async fn list(&self, path: &str) -> Result<Vec<FileInfo>, FileError> {
        let (this, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let directory = this.open_at("open", &path, |root, path| root.file(path))?;
            if !directory.metadata()?.is_dir() {
                return Err(FileError::NotDirectory(path));
            }
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(descriptor_path(&directory))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // Gone since it was listed.
                let Ok(metadata) = entry.metadata() else { continue };
                let inside = relative(&path).join(&name);
                let content = if metadata.is_file() {
                    this.root.file(&inside).ok().map(|file| sniff(&name, &file))
                } else {
                    None
                };
                entries.push(info(name, &metadata, content.unwrap_or_default()));
            }
            entries.sort_by(|left, right| left.name.cmp(&right.name));
            Ok(entries)
        })
        .await
    }

    /// One file or directory.
    ///
    /// # Errors
    /// See [`FileError`].
    pub async fn stat(&self, path: &str) -> Result<FileInfo, FileError> {
        let (this, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let handle = this.open_at("stat", &path, |root, path| root.handle(path))?;
            let metadata = handle.metadata()?;
            let name = relative(&path).file_name().map_or_else(
                || this.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                |name| name.to_string_lossy().into_owned(),
            );
            let content = if metadata.is_file() {
                this.root.file(&relative(&path)).ok().map(|file| sniff(&name, &file)).unwrap_or_default()
            } else {
                ""
            };
            Ok(info(name, &metadata, content))
        })
        .await
    }

    /// The bytes of a file from `offset` on, at most `limit` of them; and what kind they are.
    ///
    /// # Errors
    /// See [`FileError`].
    pub async fn read(
        &self,
        path: &str,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<(&'static str, impl Stream<Item = io::Result<Bytes>> + Send + use<>), FileError> {
        let (this, path) = (self.clone(), path.to_owned());
        let (content, file) = blocking(move || {
            let mut file = this.open_file(&path)?;
            let name = relative(&path).file_name().unwrap_or_default().to_string_lossy().into_owned();
            let content = sniff(&name, &file);
            file.seek(SeekFrom::Start(offset))?;
            Ok((content, file))
        })
        .await?;
        let bytes = tokio::fs::File::from_std(file).take(limit.unwrap_or(u64::MAX));
        Ok((content, ReaderStream::new(bytes)))
    }

    /// Frames of a file. With `follow` they go on until the stream is dropped or the file is deleted, and without
    /// news an empty frame comes each second.
    ///
    /// # Errors
    /// See [`FileError`].
    pub async fn stream(
        &self,
        path: &str,
        origin: Origin,
        offset: u64,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<StreamFrame, FileError>> + Send + use<>, FileError> {
        let (this, name) = (self.clone(), path.to_owned());
        let file = blocking(move || this.open_file(&name)).await?;
        let follow = if follow { Follow::Always } else { Follow::No };
        frames(Content::File { path: relative(path), file }, origin, offset, follow)
    }

    /// Frames of a task's log, across its rotated files, as for [`AllocFiles::stream`]. A log that has not begun
    /// is empty, and followed from its beginning.
    ///
    /// # Errors
    /// See [`FileError`].
    pub async fn logs(
        &self,
        task: &str,
        kind: LogKind,
        origin: Origin,
        offset: u64,
        follow: Follow,
    ) -> Result<impl Stream<Item = Result<StreamFrame, FileError>> + Send + use<>, FileError> {
        let content =
            logs(&self.root, task, kind.name()).map_err(|error| self.error("open", "alloc/logs", error))?;
        frames(content, origin, offset, follow)
    }

    fn open_file(&self, path: &str) -> Result<File, FileError> {
        let file = self.open_at("stat", path, |root, path| root.file(path))?;
        if file.metadata()?.is_dir() {
            return Err(FileError::IsDirectory(path.to_owned()));
        }
        Ok(file)
    }

    /// Opens `path` and refuses what lies in a hidden directory, also when a link led there.
    fn open_at(
        &self,
        step: &'static str,
        path: &str,
        open: impl Fn(&Directory, &Path) -> io::Result<File>,
    ) -> Result<File, FileError> {
        if leaves(path) {
            return Err(FileError::Escapes);
        }
        let hidden = || FileError::Secret(path.to_owned());
        if is_hidden(&relative(path)) {
            return Err(hidden());
        }
        let file = open(&self.root, &relative(path)).map_err(|error| self.error(step, path, error))?;
        let (root, real) =
            (std::fs::read_link(self.root.as_path())?, std::fs::read_link(descriptor_path(&file))?);
        match real.strip_prefix(&root) {
            Ok(inside) if is_hidden(inside) => Err(hidden()),
            Ok(_) => Ok(file),
            Err(_) => Err(FileError::Escapes),
        }
    }

    fn error(&self, step: &'static str, path: &str, error: io::Error) -> FileError {
        match error.kind() {
            _ if is_escape(&error) => FileError::Escapes,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                FileError::NotFound(step, self.path.join(relative(path)).display().to_string())
            }
            _ => error.into(),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error.to_string()).into()),
    }
}

/// A path that names an open file for as long as it is open.
fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A client's path without `/` in front, `.` and `..`.
fn relative(path: &str) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// More `..` than names before them, at some point.
fn leaves(path: &str) -> bool {
    let mut depth = 0_i64;
    for part in Path::new(path).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fn is_hidden(inside: &Path) -> bool {
    let mut parts = inside.components();
    let task = parts.next().filter(|first| first.as_os_str() != SHARED);
    let second = parts.next();
    task.is_some() && second.is_some_and(|name| HIDDEN.iter().any(|hidden| name.as_os_str() == *hidden))
}

fn sniff(name: &str, file: &File) -> &'static str {
    let mut beginning = [0; SNIFF];
    let length = file.read_at(&mut beginning, 0).unwrap_or(0);
    content_type(name, &beginning[..length])
}

fn info(name: String, metadata: &Metadata, content_type: &'static str) -> FileInfo {
    let modified = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    FileInfo {
        name,
        is_dir: metadata.is_dir(),
        size: metadata.len(),
        file_mode: file_mode(metadata),
        mod_time: Time(modified),
        content_type,
    }
}

#[cfg(test)]
mod tests;
