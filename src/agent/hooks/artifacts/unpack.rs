//! Unpacks archives. Every entry is written below one directory descriptor, so that no name or link in an archive
//! reaches out of it; numbers and sizes are bounded while unpacking, not by what the archive claims.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;

use crate::agent::files::beneath::Attributes;
use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::Links;

/// Mode of files whose archive knows none.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
/// Largest headers before an entry of a tar, bytes; padding counts, too.
const HEADERS_MAX: u64 = 1 << 20;
/// Largest target of a symbolic link in a zip.
const LINK_MAX_BYTES: u64 = 4096;

/// A kind of archive or compressed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Zip,
    /// A tar behind a compression.
    Tar(Compression),
    /// A single file behind one.
    Single(Compression),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Self::None => "un",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// What `content` was before it was compressed.
    fn reader<'a>(self, content: &'a File) -> io::Result<Box<dyn Read + 'a>> {
        let content = io::BufReader::new(content);
        Ok(match self {
            Self::None => Box::new(content),
            Self::Gzip => Box::new(MultiGzDecoder::new(content)),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(content)),
            Self::Xz => Box::new(XzDecoder::new_multi_decoder(content)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(content)?),
        })
    }
}

/// Suffixes of the URL path, longest first.
const SUFFIXES: [(&str, Format); 14] = [
    ("tar.bz2", Format::Tar(Compression::Bzip2)),
    ("tar.zst", Format::Tar(Compression::Zstd)),
    ("tar.gz", Format::Tar(Compression::Gzip)),
    ("tar.xz", Format::Tar(Compression::Xz)),
    ("tbz2", Format::Tar(Compression::Bzip2)),
    ("tzst", Format::Tar(Compression::Zstd)),
    ("tar", Format::Tar(Compression::None)),
    ("tgz", Format::Tar(Compression::Gzip)),
    ("txz", Format::Tar(Compression::Xz)),
    ("zip", Format::Zip),
    ("bz2", Format::Single(Compression::Bzip2)),
    ("zst", Format::Single(Compression::Zstd)),
    ("gz", Format::Single(Compression::Gzip)),
    ("xz", Format::Single(Compression::Xz)),
];

impl Format {
    /// By the end of a URL's path.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let matches = |suffix: &str| path.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        SUFFIXES.iter().find(|(suffix, _)| matches(suffix)).map(|(_, format)| *format)
    }

    /// By its name in the `archive` option.
    pub(super) fn named(name: &str) -> Option<Self> {
        SUFFIXES.iter().find(|(suffix, _)| *suffix == name).map(|(_, format)| *format)
    }
}

/// Bounds of one archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

/// Where and how much to unpack.
pub(super) struct Unpacker<'a> {
    into: &'a Directory,
    limits: Limits,
    /// Only this part of the archive, without this prefix.
    subdirectory: Option<&'a Path>,
    cancelled: &'a AtomicBool,
    files: usize,
    bytes: u64,
    found: bool,
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("archive has more than {0} files")]
    TooManyFiles(usize),
    #[error("archive unpacks to more than {0} bytes")]
    TooLarge(u64),
    #[error("entry {0:?} has an absolute path")]
    Absolute(String),
    #[error("entry contains '..': {0}")]
    Parent(String),
    #[error("entry {0:?} links out of the archive, to {1:?}")]
    LinkEscapes(String, String),
    #[error("entry {0:?} is a device or a pipe: artifacts may have files, directories and links only")]
    Special(String),
    #[error("{0}-compressed files can only unarchive to a single file")]
    SingleFileOnly(&'static str),
    #[error("expected a single file, got {0} files")]
    NotOneFile(usize),
    #[error("subdirectory {0:?} not found")]
    NoSubdirectory(String),
    #[error("entry {name:?}: {error}")]
    Entry { name: String, error: io::Error },
    #[error(transparent)]
    Zip(#[from] zip::result::ZipError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Ends with an error when the download was given up, and after too many bytes.
struct Bounded<'a, R> {
    inner: R,
    left: &'a mut u64,
    exceeded: &'a mut bool,
    cancelled: &'a AtomicBool,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("given up"));
        }
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                *self.left = left;
                Ok(read)
            }
            None => {
                *self.exceeded = true;
                Err(io::Error::other("too large"))
            }
        }
    }
}

/// Ends with an error when the headers between two entries are larger than any honest ones: they are read into memory.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("the headers of the archive are too large"))?);
        Ok(read)
    }
}

/// What is at a path of an archive.
enum Entry<'a> {
    Directory,
    File(&'a mut dyn Read, u32),
    Symbolic(PathBuf),
    Hard(PathBuf),
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(
        into: &'a Directory,
        limits: Limits,
        subdirectory: Option<&'a Path>,
        cancelled: &'a AtomicBool,
    ) -> Self {
        Self { into, limits, subdirectory, cancelled, files: 0, bytes: limits.bytes, found: false }
    }

    /// Unpacks all of `archive` into the directory.
    pub(super) fn unpack(mut self, archive: &File, format: Format) -> Result<(), UnpackError> {
        match format {
            Format::Zip => self.zip(archive)?,
            Format::Tar(compression) => self.tar(compression.reader(archive)?)?,
            Format::Single(compression) => return Err(UnpackError::SingleFileOnly(compression.name())),
        }
        match self.subdirectory {
            Some(path) if !self.found => Err(UnpackError::NoSubdirectory(path.display().to_string())),
            _ => Ok(()),
        }
    }

    /// Unpacks the one file of `archive` to `name` in the directory.
    pub(super) fn unpack_one(
        mut self,
        archive: &File,
        format: Format,
        name: &OsStr,
    ) -> Result<(), UnpackError> {
        match format {
            Format::Single(compression) => {
                let mut content = compression.reader(archive)?;
                self.file(self.into, name, &mut content, FILE_MODE)
            }
            Format::Tar(compression) => self.one_of_tar(compression.reader(archive)?, name),
            Format::Zip => {
                let mut archive = zip::ZipArchive::new(archive)?;
                if archive.len() != 1 {
                    return Err(UnpackError::NotOneFile(archive.len()));
                }
                let mut file = archive.by_index(0)?;
                let mode = zip_mode(&file);
                self.file(self.into, name, &mut file, mode)
            }
        }
    }

    fn one_of_tar(&mut self, content: impl Read, name: &OsStr) -> Result<(), UnpackError> {
        let left = Rc::new(Cell::new(HEADERS_MAX));
        let mut archive = tar::Archive::new(Metered { inner: content, left: Rc::clone(&left) });
        let mut files = 0;
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.size() > self.bytes {
                return Err(UnpackError::TooLarge(self.limits.bytes));
            }
            left.set(entry.size().saturating_add(HEADERS_MAX));
            if !entry.header().entry_type().is_file() {
                continue;
            }
            files += 1;
            if files > 1 {
                return Err(UnpackError::NotOneFile(files));
            }
            let mode = entry.header().mode()?;
            self.file(self.into, name, &mut entry, mode)?;
        }
        if files == 1 { Ok(()) } else { Err(UnpackError::NotOneFile(files)) }
    }

    fn tar(&mut self, content: impl Read) -> Result<(), UnpackError> {
        let left = Rc::new(Cell::new(HEADERS_MAX));
        let mut archive = tar::Archive::new(Metered { inner: content, left: Rc::clone(&left) });
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.size() > self.bytes {
                return Err(UnpackError::TooLarge(self.limits.bytes));
            }
            // What is left of this entry may be skipped, then headers follow.
            left.set(entry.size().saturating_add(HEADERS_MAX));
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let target = || -> Result<PathBuf, UnpackError> {
                Ok(entry.link_name()?.map(|path| path.into_owned()).unwrap_or_default())
            };
            match entry.header().entry_type() {
                tar::EntryType::Directory => self.entry(&name, Entry::Directory)?,
                tar::EntryType::Symlink => {
                    let target = target()?;
                    self.entry(&name, Entry::Symbolic(target))?;
                }
                tar::EntryType::Link => {
                    let target = target()?;
                    self.entry(&name, Entry::Hard(target))?;
                }
                tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                    let mode = entry.header().mode()?;
                    self.entry(&name, Entry::File(&mut entry, mode))?;
                }
                tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                    return Err(UnpackError::Special(name));
                }
                // Headers of the archive itself.
                _ => {}
            }
        }
        Ok(())
    }

    fn zip(&mut self, content: &File) -> Result<(), UnpackError> {
        let mut archive = zip::ZipArchive::new(content)?;
        for index in 0..archive.len() {
            let mut file = archive.by_index(index)?;
            let name = file.name()?.replace('\\', "/");
            if file.is_dir() || name.ends_with('/') {
                self.entry(&name, Entry::Directory)?;
            } else if file.is_symlink() {
                let mut target = String::new();
                (&mut file).take(LINK_MAX_BYTES).read_to_string(&mut target)?;
                self.entry(&name, Entry::Symbolic(target.into()))?;
            } else {
                let mode = zip_mode(&file);
                self.entry(&name, Entry::File(&mut file, mode))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, entry: Entry<'_>) -> Result<(), UnpackError> {
        self.files += 1;
        if self.files > self.limits.files {
            return Err(UnpackError::TooManyFiles(self.limits.files));
        }
        let Some(path) = self.wanted(&entry_path(name)?) else { return Ok(()) };
        let named = |error| UnpackError::Entry { name: name.to_owned(), error };
        let Some(file_name) = path.file_name() else { return Ok(()) };
        if matches!(entry, Entry::Directory) {
            self.into.create_all(&path, DIRECTORY_MODE).map_err(named)?;
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let at = self.into.create_all(parent, DIRECTORY_MODE).map_err(named)?;
        match entry {
            Entry::Directory => Ok(()),
            Entry::File(content, mode) => {
                self.file(&at, file_name, content, mode).map_err(|error| match error {
                    UnpackError::Io(error) => named(error),
                    other => other,
                })
            }
            Entry::Symbolic(target) => {
                let depth = parent.components().count();
                // The real place of the link must be known to tell how far `..` leads.
                let at = self.into.directory(parent, Links::Refuse).map_err(named)?;
                if !stays_inside(&target, depth) {
                    return Err(UnpackError::LinkEscapes(name.to_owned(), target.display().to_string()));
                }
                at.link_symbolically(file_name, &target).map_err(named)
            }
            Entry::Hard(target) => {
                let escapes = || UnpackError::LinkEscapes(name.to_owned(), target.display().to_string());
                let target_path = entry_path(&target.to_string_lossy()).map_err(|_| escapes())?;
                let target_path = self.wanted(&target_path).ok_or_else(escapes)?;
                let from_name = target_path.file_name().ok_or_else(escapes)?;
                let from = target_path.parent().unwrap_or(Path::new(""));
                let from = self.into.directory(from, Links::Refuse).map_err(named)?;
                at.link(file_name, &from, from_name).map_err(named)
            }
        }
    }

    /// The path below the wanted part of the archive, if it is in there.
    fn wanted(&mut self, path: &Path) -> Option<PathBuf> {
        match self.subdirectory {
            None => Some(path.to_owned()),
            Some(prefix) => {
                let below = path.strip_prefix(prefix).ok()?.to_owned();
                self.found = true;
                Some(below)
            }
        }
    }

    fn file(
        &mut self,
        at: &Directory,
        name: &OsStr,
        content: &mut dyn Read,
        mode: u32,
    ) -> Result<(), UnpackError> {
        let mut exceeded = false;
        let mut bounded = Bounded {
            inner: content,
            left: &mut self.bytes,
            exceeded: &mut exceeded,
            cancelled: self.cancelled,
        };
        // Set-user-id and the like are dropped: a download must not hand out rights.
        match at.write(name, &mut bounded, Attributes::mode(mode & 0o777)) {
            Ok(_) => Ok(()),
            Err(_) if exceeded => Err(UnpackError::TooLarge(self.limits.bytes)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Archives made on systems without mode bits get those of an ordinary file.
fn zip_mode<R: Read>(file: &zip::read::ZipFile<'_, R>) -> u32 {
    file.unix_mode().map(|mode| mode & 0o777).filter(|mode| *mode != 0).unwrap_or(FILE_MODE)
}

fn entry_path(name: &str) -> Result<PathBuf, UnpackError> {
    if name.starts_with('/') {
        return Err(UnpackError::Absolute(name.to_owned()));
    }
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(UnpackError::Parent(name.to_owned()));
            }
        }
    }
    Ok(path)
}

/// A relative target whose `..` all come first and are no more than `depth`. With `..` after a name, that name
/// could itself be a link, and then the text would not tell where it leads.
fn stays_inside(target: &Path, depth: usize) -> bool {
    let mut up = 0;
    let mut down = false;
    for part in target.components() {
        match part {
            Component::ParentDir if down => return false,
            Component::ParentDir => up += 1,
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    up <= depth && (up > 0 || down)
}
