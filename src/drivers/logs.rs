//! Writes a task's output to files of bounded size and number: `<task>.stdout.0`, `.1`, … Numbers are never used twice.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::model::task::LogConfig;

/// How far past the size limit a file may grow so that a line is not cut in two.
const LINE_SLACK: u64 = 32 * 1024;

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
        let index = indexes(&self.dir, &prefix)?.last().copied().unwrap_or(0);
        let (file, size) = open_at(&self.dir, &prefix, index)?;
        Ok(RotatingFile { files: self.clone(), prefix, index, file, size })
    }
}

/// One stream's newest file.
#[derive(Debug)]
pub struct RotatingFile {
    files: LogFiles,
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
        for newer in indexes(&self.files.dir, &self.prefix)?.into_iter().filter(|found| *found > index) {
            fs::remove_file(self.files.dir.join(format!("{}{newer}", self.prefix)))?;
        }
        (self.file, self.size) = open_at(&self.files.dir, &self.prefix, index)?;
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
        self.index += 1;
        (self.file, self.size) = open_at(&self.files.dir, &self.prefix, self.index)?;
        let found = indexes(&self.files.dir, &self.prefix)?;
        let excess = found.len().saturating_sub(usize::try_from(self.files.max_files).unwrap_or(usize::MAX));
        for old in &found[..excess] {
            fs::remove_file(self.files.dir.join(format!("{}{old}", self.prefix)))?;
        }
        Ok(())
    }
}

fn open_at(dir: &Path, prefix: &str, index: u64) -> io::Result<(File, u64)> {
    let path = dir.join(format!("{prefix}{index}"));
    let mut options = OpenOptions::new();
    // Tasks can write to the directory: a link they put there must not be followed.
    options.create(true).append(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Numbers of the files that exist, ascending.
fn indexes(dir: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let index = name.to_str().and_then(|name| name.strip_prefix(prefix)).map(str::parse::<u64>);
        found.extend(index.and_then(Result::ok));
    }
    found.sort_unstable();
    Ok(found)
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
        assert_eq!(indexes(dir.path(), "web.stdout.").unwrap(), [1, 2]);
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
}
