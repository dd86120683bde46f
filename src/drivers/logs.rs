//! Writes a task's output to files of bounded size and number: `<task>.stdout.0`, `.1`, … Numbers are never used twice.
//!
//! Tasks own the directory and may put anything there, or something else in its place: links, pipes, files with
//! absurd numbers. None of that leads a write elsewhere, blocks it, or lets the files grow without bound.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use nix::fcntl::AT_FDCWD;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;
use serde::Deserialize;
use serde::Serialize;

use crate::model::task::LogConfig;

/// How far past the size limit a file may grow so that a line is not cut in two.
const LINE_SLACK: u64 = 32 * 1024;
/// The highest number of a file. Nobody writes so many: larger ones were put there by the task.
const LAST_INDEX: u64 = u32::MAX as u64;
/// Names that are not those of ordinary files are passed over, this many in a row.
const OBSTACLES: u64 = 64;

/// Where and how much to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFiles {
    pub dir: PathBuf,
    pub task: String,
    pub max_files: u64,
    /// Bytes after which the next file is begun.
    pub max_size: u64,
}

impl LogFiles {
    /// The files of `task` in `dir`; `None` if the task wants none.
    pub fn new(dir: &Path, task: &str, config: &LogConfig) -> Option<Self> {
        let positive = |value: i64| u64::try_from(value).unwrap_or(0).max(1);
        (!config.disabled).then(|| Self {
            dir: dir.to_path_buf(),
            task: task.to_owned(),
            max_files: positive(config.max_files),
            max_size: positive(config.max_file_size_mb) << 20,
        })
    }

    /// Opens the newest file of a stream (`stdout`, `stderr`) for appending.
    ///
    /// # Errors
    /// The directory cannot be read or the file not be written.
    pub fn open(&self, stream: &str) -> io::Result<RotatingFile> {
        let prefix = format!("{}.{stream}.", self.task);
        let directory = LogDirectory::open(&self.dir)?;
        let newest = directory.indexes(&prefix)?.last().copied().unwrap_or(0);
        let (index, file, size) = directory.open_from(&prefix, newest)?;
        Ok(RotatingFile { files: self.clone(), directory, prefix, index, file, size })
    }
}

/// The number at the end of a log's name; `None` for names that no log has.
pub fn index_in(name: &str, prefix: &str) -> Option<u64> {
    let number = name.strip_prefix(prefix)?;
    let index: u64 = number.parse().ok().filter(|index| *index <= LAST_INDEX)?;
    // Neither `+1` nor `01`: a number has one name.
    (index.to_string() == number).then_some(index)
}

/// The directory of the logs, held open: whatever a task puts in its place later changes nothing.
#[derive(Debug)]
struct LogDirectory(OwnedFd);

impl LogDirectory {
    /// The directory above belongs to the agent; the last name may be a link of the task, which is refused.
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(Self(openat(AT_FDCWD, path, flags, Mode::empty())?))
    }

    /// Numbers of the files that exist, ascending.
    fn indexes(&self, prefix: &str) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(format!("/proc/self/fd/{}", self.0.as_raw_fd()))? {
            let entry = entry?;
            let index = entry.file_name().to_str().and_then(|name| index_in(name, prefix));
            // Gone since it was listed: not there.
            found.extend(index.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn open_at(&self, prefix: &str, index: u64) -> io::Result<(File, u64)> {
        // Neither through a link nor into a pipe that nobody reads.
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_APPEND
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC;
        let name = format!("{prefix}{index}");
        let file = File::from(openat(self.0.as_fd(), name.as_str(), flags, Mode::from_bits_truncate(0o644))?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a regular file")));
        }
        Ok((file, metadata.len()))
    }

    /// Opens the file with the number `first`, or a later one if something else has its name.
    fn open_from(&self, prefix: &str, first: u64) -> io::Result<(u64, File, u64)> {
        let mut index = first;
        loop {
            match self.open_at(prefix, index) {
                Ok((file, size)) => return Ok((index, file, size)),
                Err(error) if is_hopeless(&error) || index - first == OBSTACLES => return Err(error),
                Err(_) => index += 1,
            }
        }
    }

    fn remove(&self, prefix: &str, index: u64) -> io::Result<()> {
        let name = format!("{prefix}{index}");
        Ok(unlinkat(self.0.as_fd(), name.as_str(), UnlinkatFlags::NoRemoveDir)?)
    }
}

/// Another name would not help.
fn is_hopeless(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::NotFound
    )
}

/// One stream's newest file.
#[derive(Debug)]
pub struct RotatingFile {
    files: LogFiles,
    directory: LogDirectory,
    prefix: String,
    index: u64,
    file: File,
    size: u64,
}

impl RotatingFile {
    /// The number of the newest file and its size in bytes.
    pub fn position(&self) -> (u64, u64) {
        (self.index, self.size)
    }

    /// Drops everything written after `position`, which an earlier call of [`Self::position`] returned.
    ///
    /// # Errors
    /// A file cannot be removed or cut.
    pub fn rewind(&mut self, position: (u64, u64)) -> io::Result<()> {
        let (index, size) = position;
        if index > self.index || (index == self.index && size >= self.size) {
            return Ok(());
        }
        for newer in self.directory.indexes(&self.prefix)?.into_iter().filter(|found| *found > index) {
            self.directory.remove(&self.prefix, newer)?;
        }
        (self.file, self.size) = self.directory.open_at(&self.prefix, index)?;
        self.index = index;
        self.size = self.size.min(size);
        self.file.set_len(self.size)
    }

    /// Appends, beginning new files and removing the oldest as needed.
    ///
    /// # Errors
    /// The disk refuses; what could not be written is lost.
    pub fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let room = self.files.max_size.saturating_sub(self.size);
            let len = data.len() as u64;
            if len < room {
                return self.append(data);
            }
            // Cut behind the first line end past the limit, if there is one nearby.
            let from = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
            let to = data.len().min(from + LINE_SLACK as usize);
            let cut = data[from..to].iter().position(|byte| *byte == b'\n').map(|at| from + at + 1);
            let over = self.size.saturating_add(len) < self.files.max_size + LINE_SLACK;
            match cut {
                Some(cut) => {
                    self.append(&data[..cut])?;
                    data = &data[cut..];
                }
                None if over => return self.append(data),
                None => {
                    self.append(&data[..from])?;
                    data = &data[from..];
                }
            }
            self.rotate()?;
        }
        Ok(())
    }

    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.size += data.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut next = self.index + 1;
        if next + OBSTACLES > LAST_INDEX {
            // Only a task that made such a file itself gets here: its logs begin anew.
            for index in self.directory.indexes(&self.prefix)? {
                self.directory.remove(&self.prefix, index)?;
            }
            next = 0;
        }
        (self.index, self.file, self.size) = self.directory.open_from(&self.prefix, next)?;
        let found = self.directory.indexes(&self.prefix)?;
        let excess = found.len().saturating_sub(usize::try_from(self.files.max_files).unwrap_or(usize::MAX));
        let mut outcome = Ok(());
        for old in found[..excess].iter().filter(|old| **old != self.index) {
            // One that cannot be removed must not keep the others.
            outcome = outcome.and(self.directory.remove(&self.prefix, *old));
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path, max_files: u64, max_size: u64) -> LogFiles {
        LogFiles { dir: dir.to_path_buf(), task: "web".to_owned(), max_files, max_size }
    }

    #[test]
    fn files_are_cut_at_lines_and_the_oldest_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = files(dir.path(), 2, 10).open("stdout").unwrap();
        for line in ["first line\n", "second line\n", "third\n", "end\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        assert_eq!(log.directory.indexes("web.stdout.").unwrap(), [1, 2]);
        assert_eq!(fs::read_to_string(dir.path().join("web.stdout.2")).unwrap(), "third\nend\n");
    }

    #[test]
    fn a_reopened_log_goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let logs = files(dir.path(), 3, 100);
        logs.open("stderr").unwrap().write(b"one\n").unwrap();
        let mut log = logs.open("stderr").unwrap();
        log.write(b"two\n").unwrap();
        let at = log.position();
        log.write(b"lost\n").unwrap();
        log.rewind(at).unwrap();
        log.write(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("web.stderr.0")).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_task_cannot_exhaust_the_numbers_of_its_logs() {
        let dir = tempfile::tempdir().unwrap();
        for number in [u64::MAX.to_string(), (u64::MAX - 1).to_string(), format!("{}0", u64::MAX)] {
            fs::write(dir.path().join(format!("web.stdout.{number}")), "planted").unwrap();
        }
        let mut log = files(dir.path(), 2, 4).open("stdout").unwrap();
        assert_eq!(log.position(), (0, 0), "names of no log do not count");
        log.write(b"long\nlonger\n").unwrap();
        fs::write(dir.path().join(format!("web.stdout.{LAST_INDEX}")), "").unwrap();
        let mut log = files(dir.path(), 2, 4).open("stdout").unwrap();
        assert_eq!(log.position().0, LAST_INDEX);
        for _ in 0..5 {
            log.write(b"again\n").unwrap();
        }
        let kept = log.directory.indexes("web.stdout.").unwrap();
        assert!(kept.len() <= 2 && kept.iter().all(|index| *index < 10), "{kept:?}");
        for (name, index) in [
            ("web.stdout.7", Some(7)),
            ("web.stdout.07", None),
            ("web.stdout.+7", None),
            ("web.stdout.", None),
        ] {
            assert_eq!(index_in(name, "web.stdout."), index, "{name}");
        }
    }

    #[test]
    fn links_pipes_and_directories_of_a_task_do_not_lead_its_logs_astray() {
        let root = tempfile::tempdir().unwrap();
        let (dir, outside) = (root.path().join("logs"), root.path().join("outside"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&outside).unwrap();
        let name = |index: u64| dir.join(format!("web.stdout.{index}"));
        std::os::unix::fs::symlink(outside.join("file"), name(0)).unwrap();
        nix::unistd::mkfifo(&name(1), Mode::S_IRWXU).unwrap();
        fs::create_dir(name(2)).unwrap();
        let mut log = files(&dir, 1, 4).open("stdout").unwrap();
        assert_eq!(log.position(), (3, 0));
        // From now on something else stands in the place of the directory.
        fs::rename(&dir, root.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(&outside, &dir).unwrap();
        log.write(b"first\nsecond\n").unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        let error = files(&dir, 1, 4).open("stdout").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{error}");
    }
}
