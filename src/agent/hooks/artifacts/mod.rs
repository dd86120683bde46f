//! Artifacts: what a task needs on disk before it starts is downloaded, verified and unpacked into its directories.

mod checksum;
mod download;
mod git;
mod source;
mod unpack;

use std::ffi::OsStr;
use std::io::Seek;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

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

use download::Request;
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
    match source.getter {
        Getter::Git => {
            let checkout = git::Checkout { source: &source, alloc: &alloc, dirs, place: &place };
            tokio::time::timeout(options.git_timeout, checkout.run())
                .await
                .map_err(|_| "context deadline exceeded".to_owned())??;
        }
        Getter::Http if mode == Mode::Directory && source.unpack == Unpack::No => {
            progress(&format!(
                "artifact {:?} is a single file, mode \"dir\" wants an archive: nothing was downloaded",
                artifact.getter_source
            ));
            return Ok(());
        }
        Getter::Http => {
            let request = Request {
                url: &source.url,
                headers: &artifact.getter_headers,
                insecure: artifact.getter_insecure,
                max_bytes: options.http_max_bytes,
            };
            let mut file =
                temporary(&alloc, dirs).map_err(|error| format!("{}/tmp: {error}", dirs.task.display()))?;
            tokio::time::timeout(options.http_read_timeout, request.run(&mut file.file))
                .await
                .map_err(|_| format!("Get \"{}\": context deadline exceeded", source.url))??;
            let limits = Limits { files: options.decompression_files, bytes: options.decompression_bytes };
            install(file, alloc, source, place.clone(), mode, limits).await?;
        }
    }
    if artifact.chown && !options.user.is_empty() {
        let alloc = Directory::open(&dirs.alloc).map_err(|error| error.to_string())?;
        chown(alloc, place, options.user.clone()).await?;
    }
    Ok(())
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

fn temporary(alloc: &Directory, dirs: &TaskDirs) -> std::io::Result<Temporary> {
    let task = dirs.task.strip_prefix(&dirs.alloc).unwrap_or(Path::new(""));
    alloc.create_all(&task.join("tmp"), 0o777)?.temporary()
}

/// Tells blocking work that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Verifies the download and puts it where it belongs, on a thread that may block.
async fn install(
    file: Temporary,
    alloc: Directory,
    source: Source,
    place: PathBuf,
    mode: Mode,
    limits: Limits,
) -> Result<(), String> {
    let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
    let cancelled = cancel.0.clone();
    let work = move || install_blocking(file, &alloc, &source, &place, mode, limits, &cancelled);
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("unpacking stopped: {error}"))?
}

#[expect(clippy::too_many_arguments, reason = "the pieces of one download, used once")]
fn install_blocking(
    mut file: Temporary,
    alloc: &Directory,
    source: &Source,
    place: &Path,
    mode: Mode,
    limits: Limits,
    cancelled: &AtomicBool,
) -> Result<(), String> {
    let io = |error: std::io::Error| {
        if is_escape(&error) { ESCAPES.to_owned() } else { format!("{}: {error}", place.display()) }
    };
    if let Some(checksum) = &source.checksum {
        checksum.verify(&file.file, &source.filename)?;
        file.file.rewind().map_err(io)?;
    }
    let (parent, name) = match mode {
        Mode::File => (place.parent().unwrap_or(Path::new("")), place.file_name().unwrap_or(OsStr::new(""))),
        Mode::Any | Mode::Directory => (place, OsStr::new(&source.filename)),
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
            let name = target.file_name().ok_or_else(|| format!("filename {name:?} is not a file name"))?;
            file.keep(&into, name, Attributes::mode(FILE_MODE)).map_err(io)
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
