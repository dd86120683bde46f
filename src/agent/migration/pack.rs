//! Packs the data of an allocation as a tar, piece by piece. Links are packed, not followed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::Links;

/// Size of a piece, bytes.
const PIECE: usize = 64 << 10;
/// Pieces that wait for the network.
const WAITING: usize = 4;

/// The `parts` of the directory `root` as a tar. An error ends the stream before the archive is complete.
pub fn pack(root: PathBuf, parts: Vec<PathBuf>) -> BoxStream<'static, io::Result<Bytes>> {
    let (sender, pieces) = mpsc::channel(WAITING);
    drop(tokio::task::spawn_blocking(move || {
        let out = BufWriter::with_capacity(PIECE, Outlet { sender: sender.clone() });
        if let Err(error) = write(&root, &parts, out) {
            // Whoever received it may be gone.
            let _ = sender.blocking_send(Err(error));
        }
    }));
    ReceiverStream::new(pieces).boxed()
}

struct Outlet {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(root: &Path, parts: &[PathBuf], out: impl Write) -> io::Result<()> {
    let root = Directory::open(root)?;
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    for part in parts {
        match root.directory(part, Links::Refuse) {
            Ok(directory) => add_directory(&mut archive, &directory, part)?,
            // A task that was never set up, or one that put something else in its place.
            Err(_) => continue,
        }
    }
    archive.into_inner()?.flush()
}

fn add_directory(
    archive: &mut tar::Builder<impl Write>,
    directory: &Directory,
    name: &Path,
) -> io::Result<()> {
    let path = directory.as_path();
    let meta = fs::metadata(&path)?;
    archive.append_data(&mut header(&meta, tar::EntryType::Directory), name, io::empty())?;
    let mut entries: Vec<_> = fs::read_dir(&path)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (file, kind) = (entry.file_name(), entry.file_type()?);
        let (inner, full) = (Path::new(&file), name.join(&file));
        if kind.is_dir() {
            add_directory(archive, &directory.directory(inner, Links::Refuse)?, &full)?;
        } else if kind.is_file() {
            let mut content = directory.file(inner)?;
            let meta = content.metadata()?;
            archive.append_data(&mut header(&meta, tar::EntryType::Regular), &full, &mut content)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            let mut header = header(&entry.metadata()?, tar::EntryType::Symlink);
            archive.append_link(&mut header, &full, OsStr::from_bytes(target.as_os_str().as_bytes()))?;
        }
        // Pipes, sockets and devices are no data.
    }
    Ok(())
}

fn header(meta: &fs::Metadata, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(if kind == tar::EntryType::Regular { meta.len() } else { 0 });
    header.set_mode(meta.mode() & 0o1777);
    header.set_uid(u64::from(meta.uid()));
    header.set_gid(u64::from(meta.gid()));
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header
}
