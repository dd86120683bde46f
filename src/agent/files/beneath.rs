//! Files below a directory that tasks can write to: no name, symbolic link or race leads out of it. Everything is
//! opened by the kernel relative to a directory descriptor (`openat2`), never by a path that was checked before.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::ResolveFlag;
use nix::fcntl::openat;
use nix::fcntl::openat2;
use nix::fcntl::renameat;
use nix::sys::stat::Mode;
use nix::sys::stat::fchmod;
use nix::sys::stat::mkdirat;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::UnlinkatFlags;
use nix::unistd::fchown;
use nix::unistd::fchownat;
use nix::unistd::linkat;
use nix::unistd::symlinkat;
use nix::unistd::unlinkat;

/// The kernel asks to try again when a name changed while it looked; a task that renames in a loop must not hold us.
const OPEN_ATTEMPTS: usize = 16;

/// Distinguishes temporary names of this process.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// What to do with symbolic links on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Follow those that stay inside.
    Inside,
    /// Refuse all.
    Refuse,
}

/// Mode bits and owner of a written file; `None` leaves the agent's own ids.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub mode: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Attributes {
    /// These mode bits, the agent's ids.
    pub fn mode(mode: u32) -> Self {
        Self { mode, uid: None, gid: None }
    }
}

/// An open directory that nothing reached through it can leave.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
}

/// True when `error` says that a path led out of its directory.
pub fn is_escape(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::ELOOP))
}

fn escape() -> io::Error {
    Errno::EXDEV.into()
}

/// `relative` without `.`; an error when it is absolute or has `..`.
fn plain(relative: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in relative.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(escape()),
        }
    }
    Ok(plain)
}

impl Directory {
    /// Opens the trusted directory `path`.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { fd: openat(AT_FDCWD, path, flags, Mode::empty())? })
    }

    fn open_at(&self, relative: &Path, flags: OFlag, links: Links) -> io::Result<OwnedFd> {
        let plain = plain(relative)?;
        let path = if plain.as_os_str().is_empty() { Path::new(".") } else { plain.as_path() };
        let flags = flags | OFlag::O_CLOEXEC;
        let mut resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if links == Links::Refuse {
            resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
        }
        for _ in 0..OPEN_ATTEMPTS {
            match openat2(self.fd.as_fd(), path, OpenHow::new().flags(flags).resolve(resolve)) {
                Err(Errno::EAGAIN) => {}
                // Kernels before 5.6, and sandboxes that do not know the call.
                Err(Errno::ENOSYS | Errno::EPERM) => return self.walk(path, flags),
                other => return Ok(other?),
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Opens name by name without following any link: stricter than needed, but safe on every kernel.
    fn walk(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let mut at = self.fd.try_clone()?;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let step = if names.peek().is_some() {
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
            } else {
                flags
            };
            at = openat(at.as_fd(), name.as_os_str(), step | OFlag::O_NOFOLLOW, Mode::empty())?;
        }
        Ok(at)
    }

    /// Opens a directory below.
    ///
    /// # Errors
    /// Those of opening it; see [`is_escape`].
    pub fn directory(&self, relative: &Path, links: Links) -> io::Result<Directory> {
        Ok(Self { fd: self.open_at(relative, OFlag::O_PATH | OFlag::O_DIRECTORY, links)? })
    }

    /// Opens a regular file below for reading.
    ///
    /// # Errors
    /// Those of opening it; see [`is_escape`]. Pipes, sockets and devices are refused.
    pub fn file(&self, relative: &Path) -> io::Result<File> {
        // Not blocking: the other end of a pipe may never be opened.
        let file = File::from(self.open_at(relative, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Links::Inside)?);
        let kind = file.metadata()?.file_type();
        if kind.is_file() || kind.is_dir() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    /// Opens anything below, for its metadata only.
    ///
    /// # Errors
    /// As for [`Directory::file`].
    pub fn handle(&self, relative: &Path) -> io::Result<File> {
        Ok(File::from(self.open_at(relative, OFlag::O_PATH, Links::Inside)?))
    }

    /// A path that names this very directory as long as it is open, whatever is renamed meanwhile.
    pub fn as_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Opens a directory below, making what is missing with `mode`.
    ///
    /// # Errors
    /// Those of making and opening; see [`is_escape`].
    pub fn create_all(&self, relative: &Path, mode: u32) -> io::Result<Directory> {
        let plain = plain(relative)?;
        let mut reached = PathBuf::new();
        let mut at = Self { fd: self.fd.try_clone()? };
        for part in plain.components() {
            reached.push(part);
            at = match self.directory(&reached, Links::Inside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match mkdirat(at.fd.as_fd(), part.as_os_str(), Mode::from_bits_truncate(mode)) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    self.directory(&reached, Links::Inside)?
                }
                other => other?,
            };
        }
        Ok(at)
    }

    /// A new file under a name of its own in this directory; it goes away when dropped.
    ///
    /// # Errors
    /// Those of making it.
    pub fn temporary(&self) -> io::Result<Temporary> {
        let name = temporary_name();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = self.fd.try_clone()?;
        let fd = openat(directory.as_fd(), name.as_str(), flags, Mode::from_bits_truncate(0o600))?;
        Ok(Temporary { directory, name, file: File::from(fd) })
    }

    /// Writes what `content` yields to the file `name` directly in this directory: all of it or, on an error,
    /// nothing. An existing file or link of that name is replaced.
    ///
    /// # Errors
    /// Those of reading `content` and of writing.
    pub fn write(&self, name: &OsStr, content: &mut dyn Read, attributes: Attributes) -> io::Result<u64> {
        let mut temporary = self.temporary()?;
        let bytes = io::copy(content, &mut temporary.file)?;
        temporary.keep(self, name, attributes)?;
        Ok(bytes)
    }

    /// Makes the symbolic link `name` in this directory, replacing a file or link of that name.
    ///
    /// # Errors
    /// Those of making it.
    pub fn link_symbolically(&self, name: &OsStr, target: &Path) -> io::Result<()> {
        self.remove(name)?;
        Ok(symlinkat(target, self.fd.as_fd(), name)?)
    }

    /// Makes `name` in this directory another name of the file `from` in `other`, which is not followed if it is a
    /// link.
    ///
    /// # Errors
    /// Those of making it.
    pub fn link(&self, name: &OsStr, other: &Directory, from: &OsStr) -> io::Result<()> {
        self.remove(name)?;
        Ok(linkat(other.fd.as_fd(), from, self.fd.as_fd(), name, AtFlags::empty())?)
    }

    /// Gives `relative` and everything below it to an owner. Links change hands themselves, they are not followed.
    ///
    /// # Errors
    /// Those of opening and changing.
    pub fn chown_all(&self, relative: &Path, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let plain = plain(relative)?;
        let Some(name) = plain.file_name() else { return Err(escape()) };
        let parent = self.directory(plain.parent().unwrap_or(Path::new("")), Links::Inside)?;
        let mut pending = vec![(Rc::new(parent), name.to_owned())];
        let mut listed = false;
        while let Some((parent, name)) = pending.pop() {
            match fchownat(parent.fd.as_fd(), name.as_os_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // Gone since it was listed.
                Err(Errno::ENOENT) if listed => continue,
                changed => changed?,
            }
            listed = true;
            // Not a directory, or gone: then there is nothing below it.
            let Ok(directory) = parent.directory(Path::new(&name), Links::Refuse) else { continue };
            let directory = Rc::new(directory);
            for entry in std::fs::read_dir(directory.as_path())? {
                pending.push((directory.clone(), entry?.file_name()));
            }
        }
        Ok(())
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(self.fd.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A file that is not complete yet. Removed when dropped, unless it was kept.
#[derive(Debug)]
pub struct Temporary {
    directory: OwnedFd,
    name: String,
    /// Open for reading and writing.
    pub file: File,
}

impl Temporary {
    /// Gives the file its attributes and moves it to `name` in `into`, replacing what is there; by copying when that
    /// is on another file system.
    ///
    /// # Errors
    /// Those of moving and copying. The temporary file goes away in any case.
    pub fn keep(mut self, into: &Directory, name: &OsStr, attributes: Attributes) -> io::Result<()> {
        self.file.flush()?;
        if attributes.uid.is_some() || attributes.gid.is_some() {
            let (uid, gid) = (attributes.uid.map(Uid::from_raw), attributes.gid.map(Gid::from_raw));
            fchown(self.file.as_fd(), uid, gid)?;
        }
        // After the owner, because a change of owner clears bits.
        fchmod(self.file.as_fd(), Mode::from_bits_truncate(attributes.mode & 0o7777))?;
        match renameat(self.directory.as_fd(), self.name.as_str(), into.fd.as_fd(), name) {
            Ok(()) => Ok(()),
            Err(Errno::EXDEV) => {
                self.file.rewind()?;
                into.write(name, &mut self.file, attributes).map(|_| ())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After it was kept the name is gone, and nobody else uses such names.
        let _ = unlinkat(self.directory.as_fd(), self.name.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}

fn temporary_name() -> String {
    let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    format!(".herder-{}-{number}.tmp", std::process::id())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_stay_inside_are_followed_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/real")).unwrap();
        std::fs::write(dir.path().join("root/real/a"), "inside").unwrap();
        std::fs::write(dir.path().join("outside"), "secret").unwrap();
        symlink("real", dir.path().join("root/link")).unwrap();
        symlink("../outside", dir.path().join("root/up")).unwrap();
        symlink("/etc", dir.path().join("root/etc")).unwrap();
        let root = Directory::open(&dir.path().join("root")).unwrap();

        let mut text = String::new();
        root.file(Path::new("link/a")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        for path in ["up", "etc/passwd", "../outside", "/etc/passwd", "real/../../outside"] {
            assert!(is_escape(&root.file(Path::new(path)).unwrap_err()), "{path}");
        }
        assert!(is_escape(&root.directory(Path::new("link"), Links::Refuse).unwrap_err()));
        assert!(is_escape(&root.create_all(Path::new("etc/x"), 0o755).unwrap_err()));
    }

    #[test]
    fn a_write_is_all_or_nothing_and_replaces_links() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("cut"))
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), dir.path().join("a")).unwrap();
        let root = Directory::open(dir.path()).unwrap();
        root.write(OsStr::new("a"), &mut "text".as_bytes(), Attributes::mode(0o640)).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "text");
        assert_eq!(dir.path().join("a").metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_to_string(outside.path()).unwrap(), "");

        root.write(OsStr::new("b"), &mut Broken, Attributes::mode(0o640)).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
