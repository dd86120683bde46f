//! Artifacts: what a task needs on disk before it starts is downloaded, verified and unpacked into its directories.

mod checksum;
mod download;
mod git;
mod s3;
mod source;
mod unpack;

use std::ffi::OsStr;
use std::io::Seek;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use url::Url;

use super::ArtifactOptions;
use super::HookError;
use super::HookProgress;
use super::destination::locate;
use crate::agent::files::beneath::Attributes;
use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::Temporary;
use crate::agent::files::beneath::is_escape;
use crate::drivers::TaskDirs;
use crate::model::task::Artifact;

use download::Reporter;
use download::Request;
use s3::Bucket;
use source::Getter;
use source::Source;
use source::Unpack;
use unpack::Limits;
use unpack::Unpacker;

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
const ESCAPES: &str = "artifact destination path escapes alloc directory";

/// What a destination stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A directory that receives the file or the unpacked archive.
    Any,
    /// The file itself.
    File,
    /// A directory that receives an unpacked archive or a repository.
    Directory,
}

/// Downloads an interpolated artifact into the task's directories. A dropped future leaves no half-written file.
///
/// # Errors
/// Always recoverable, as a server may get well: `failed to download artifact "<source>": …`.
pub async fn fetch(
    artifact: &Artifact,
    dirs: &TaskDirs,
    options: &ArtifactOptions,
    progress: &HookProgress,
) -> Result<(), HookError> {
    fetch_text(artifact, dirs, options, progress).await.map_err(|reason| {
        HookError::recoverable(format!("failed to download artifact {:?}: {reason}", artifact.getter_source))
    })
}

async fn fetch_text(
    artifact: &Artifact,
    dirs: &TaskDirs,
    options: &ArtifactOptions,
    progress: &HookProgress,
) -> Result<(), String> {
    let mode = match artifact.getter_mode.as_str() {
        "file" => Mode::File,
        "dir" => Mode::Directory,
        _ => Mode::Any,
    };
    let source = Source::parse(&artifact.getter_source, &artifact.getter_options)?;
    let place = locate(dirs, destination(artifact, mode).as_str()).map_err(|_| ESCAPES.to_owned())?;
    let alloc = Directory::open(&dirs.alloc).map_err(|error| format!("{}: {error}", dirs.alloc.display()))?;
    let fetching = Fetching { artifact, dirs, options, alloc, place: place.clone(), mode };
    match source.getter {
        Getter::Git => fetching.git(&source).await?,
        Getter::Http => fetching.http(source, progress, options.http_read_timeout).await?,
        Getter::Gcs => {
            let source = Source { url: gcs_object(&source.url)?, ..source };
            fetching.http(source, progress, options.gcs_timeout).await?;
        }
        Getter::S3 => {
            tokio::time::timeout(options.s3_timeout, fetching.s3(source, progress))
                .await
                .map_err(|_| "context deadline exceeded".to_owned())??;
        }
    }
    if artifact.chown && !options.user.is_empty() {
        let alloc = Directory::open(&dirs.alloc).map_err(|error| error.to_string())?;
        chown(alloc, place, options.user.clone()).await?;
    }
    Ok(())
}

/// One artifact on its way.
struct Fetching<'a> {
    artifact: &'a Artifact,
    dirs: &'a TaskDirs,
    options: &'a ArtifactOptions,
    alloc: Directory,
    /// Relative to the allocation's directory.
    place: PathBuf,
    mode: Mode,
}

const NO_DIRECTORY_CHECKSUM: &str = "checksum cannot be specified for directory download";

impl Fetching<'_> {
    async fn git(&self, source: &Source) -> Result<(), String> {
        if source.checksum.is_some() {
            return Err(NO_DIRECTORY_CHECKSUM.to_owned());
        }
        if self.mode == Mode::File {
            return Err("a git repository is a directory: mode \"file\" cannot be used".to_owned());
        }
        let Self { alloc, dirs, place, .. } = self;
        let checkout = git::Checkout { source, alloc, dirs, place, env: &self.options.env };
        tokio::time::timeout(self.options.git_timeout, checkout.run())
            .await
            .map_err(|_| "context deadline exceeded".to_owned())?
    }

    async fn http(self, source: Source, progress: &HookProgress, timeout: Duration) -> Result<(), String> {
        if self.mode == Mode::Directory && source.unpack == Unpack::No {
            if source.checksum.is_some() {
                return Err(NO_DIRECTORY_CHECKSUM.to_owned());
            }
            progress(&format!(
                "artifact {:?} is a single file, mode \"dir\" wants an archive: nothing was downloaded",
                self.artifact.getter_source
            ));
            return Ok(());
        }
        let request = Request {
            url: &source.url,
            headers: &self.artifact.getter_headers,
            insecure: self.artifact.getter_insecure,
            max_bytes: self.options.http_max_bytes,
            login: self.login(source.url.host_str().unwrap_or_default()),
        };
        let mut file = self.temporary()?;
        let mut reporter = Reporter::new(progress, &self.artifact.getter_source, self.options.progress_after);
        tokio::time::timeout(timeout, request.run(&mut file.file, &mut reporter))
            .await
            .map_err(|_| format!("Get \"{}\": context deadline exceeded", source.url))??;
        self.install(file, source).await
    }

    /// From the file that the variable `NETRC` of the agent names, if downloads may see it, or else from `~/.netrc`.
    fn login(&self, host: &str) -> Option<(String, String)> {
        let named = self.options.env.get("NETRC").map(PathBuf::from);
        let path = named.or_else(|| Some(std::env::home_dir()?.join(".netrc")))?;
        download::netrc_login(&std::fs::read_to_string(path).ok()?, host)
    }

    async fn s3(self, source: Source, progress: &HookProgress) -> Result<(), String> {
        let bucket = Bucket::open(&source, &self.options.env)?;
        let mut reporter = Reporter::new(progress, &self.artifact.getter_source, self.options.progress_after);
        let max = self.options.http_max_bytes;
        if self.mode != Mode::Directory || source.unpack != Unpack::No {
            let mut file = self.temporary()?;
            match bucket.object(&mut file.file, max, &mut reporter).await {
                Ok(()) => return self.install(file, source).await,
                Err(s3::Missed::Nothing(_)) if self.mode == Mode::Any && source.unpack == Unpack::No => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if source.checksum.is_some() {
            return Err(NO_DIRECTORY_CHECKSUM.to_owned());
        }
        let into = self.alloc.create_all(&self.place, DIRECTORY_MODE).map_err(|error| self.io(&error))?;
        bucket.directory(&into, max, &mut reporter).await.map_err(|error| error.to_string())
    }

    fn io(&self, error: &std::io::Error) -> String {
        if is_escape(error) { ESCAPES.to_owned() } else { format!("{}: {error}", self.place.display()) }
    }

    fn temporary(&self) -> Result<Temporary, String> {
        let task = self.dirs.task.strip_prefix(&self.dirs.alloc).unwrap_or(Path::new(""));
        let made = self.alloc.create_all(&task.join("tmp"), 0o777).and_then(|tmp| tmp.temporary());
        made.map_err(|error| format!("{}/tmp: {error}", self.dirs.task.display()))
    }

    /// Verifies the download and puts it where it belongs, on a thread that may block.
    async fn install(self, file: Temporary, source: Source) -> Result<(), String> {
        let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let cancelled = cancel.0.clone();
        let limits =
            Limits { files: self.options.decompression_files, bytes: self.options.decompression_bytes };
        let (alloc, place, mode) = (self.alloc, self.place, self.mode);
        let work = move || Installing { alloc, source, place, mode, limits }.run(file, &cancelled);
        tokio::task::spawn_blocking(work).await.map_err(|error| format!("unpacking stopped: {error}"))?
    }
}

/// `https://www.googleapis.com/storage/v1/<bucket>/<object>` as the address of the object itself.
fn gcs_object(url: &Url) -> Result<Url, String> {
    let invalid = || format!("URL is not a valid GCS URL: {url}");
    let mut parts = url.path().trim_start_matches('/').splitn(4, '/');
    let (storage, _version, bucket) = (parts.next(), parts.next(), parts.next());
    let object = parts.next().filter(|object| !object.is_empty()).ok_or_else(invalid)?;
    let bucket =
        bucket.filter(|bucket| storage == Some("storage") && !bucket.is_empty()).ok_or_else(invalid)?;
    let mut direct = url.clone();
    if url.host_str() == Some("www.googleapis.com") {
        direct.set_host(Some("storage.googleapis.com")).map_err(|error| error.to_string())?;
    }
    direct.set_path(&format!("{bucket}/{object}"));
    Ok(direct)
}

/// The destination as written, or what stands for none.
fn destination(artifact: &Artifact, mode: Mode) -> String {
    if !artifact.relative_dest.is_empty() {
        return artifact.relative_dest.clone();
    }
    match mode {
        Mode::File => {
            let name = artifact.getter_source.rsplit('/').next().unwrap_or_default();
            format!("local/{name}")
        }
        Mode::Any | Mode::Directory => "local/".to_owned(),
    }
}

/// Tells blocking work that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A download that is complete, and where it goes.
struct Installing {
    alloc: Directory,
    source: Source,
    place: PathBuf,
    mode: Mode,
    limits: Limits,
}

impl Installing {
    fn run(&self, mut file: Temporary, cancelled: &AtomicBool) -> Result<(), String> {
        let Self { alloc, source, place, mode, limits } = self;
        let (mode, limits) = (*mode, *limits);
        let io = |error: std::io::Error| {
            if is_escape(&error) { ESCAPES.to_owned() } else { format!("{}: {error}", place.display()) }
        };
        if let Some(checksum) = &source.checksum {
            checksum.verify(&file.file, &source.filename)?;
            file.file.rewind().map_err(io)?;
        }
        let (parent, name) = match mode {
            Mode::File => {
                (place.parent().unwrap_or(Path::new("")), place.file_name().unwrap_or(OsStr::new("")))
            }
            Mode::Any | Mode::Directory => (place.as_path(), OsStr::new(&source.filename)),
        };
        if mode == Mode::File && name.is_empty() {
            return Err(format!("{}: the destination of mode \"file\" must be a file name", place.display()));
        }
        let into = alloc.create_all(parent, DIRECTORY_MODE).map_err(io)?;
        let subdirectory = source.subdirectory.as_ref().map(Path::new);
        let unpacker = Unpacker::new(&into, limits, subdirectory, cancelled);
        match source.unpack {
            Unpack::As(format) if mode == Mode::File => {
                unpacker.unpack_one(&file.file, format, name).map_err(|error| error.to_string())
            }
            Unpack::As(format) => unpacker.unpack(&file.file, format).map_err(|error| error.to_string()),
            Unpack::No => {
                let target = Path::new(name);
                let into = match target.parent() {
                    Some(below) => into.create_all(below, DIRECTORY_MODE).map_err(io)?,
                    None => into,
                };
                let name =
                    target.file_name().ok_or_else(|| format!("filename {name:?} is not a file name"))?;
                file.keep(&into, name, Attributes::mode(FILE_MODE)).map_err(io)
            }
        }
    }
}

/// Gives the destination and everything below it to `user`.
async fn chown(alloc: Directory, place: PathBuf, user: String) -> Result<(), String> {
    let work = move || {
        let user = match nix::unistd::User::from_name(&user) {
            Ok(Some(user)) => user,
            Ok(None) => return Err(format!("failed to chown: user: unknown user {user}")),
            Err(error) => return Err(format!("failed to chown: {error}")),
        };
        alloc
            .chown_all(&place, user.uid.as_raw(), user.gid.as_raw())
            .map_err(|error| format!("failed to chown {}: {error}", place.display()))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("failed to chown: {error}"))?
}

#[cfg(test)]
mod tests;
