//! Waits until something happens to a file or directory, without looking again and again.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;
use nix::sys::inotify::InitFlags;
use nix::sys::inotify::Inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often to look where the kernel cannot tell: its watches are used up, or the file system has none.
const POLL: Duration = Duration::from_millis(250);
/// Bytes of events taken at once; which events they are does not matter.
const EVENTS: usize = 4096;

/// Changes of one file or directory.
pub(super) enum Changes {
    Kernel(AsyncFd<OwnedFd>),
    Poll,
}

impl Changes {
    /// Watches `path`; for a directory also what happens to the files in it.
    pub(super) fn of(path: &Path) -> Self {
        Self::kernel(path).unwrap_or_else(|error| {
            tracing::debug!(path = %path.display(), %error, "watching by looking");
            Self::Poll
        })
    }

    fn kernel(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(path, flags)?;
        // SAFETY: an `OwnedFd` is an open descriptor and stays the same one until it is dropped with the `AsyncFd`.
        let events = unsafe { AsyncFd::register_with_interest(OwnedFd::from(inotify), Interest::READABLE) };
        Ok(Self::Kernel(events?))
    }

    /// Waits for the next change since the last call. May come back without one. Cancel-safe.
    pub(super) async fn next(&mut self) {
        let Self::Kernel(events) = self else { return tokio::time::sleep(POLL).await };
        loop {
            let Ok(mut ready) = events.readable().await else { return tokio::time::sleep(POLL).await };
            let mut buffer = [0; EVENTS];
            match ready.try_io(|events| Ok(nix::unistd::read(events.as_fd(), &mut buffer)?)) {
                Ok(Ok(_)) => return,
                Ok(Err(_)) => return tokio::time::sleep(POLL).await,
                // Not ready after all.
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::files::beneath::Directory;

    #[tokio::test]
    async fn the_kernel_tells_of_changes_in_an_open_directory() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        let mut changes = Changes::kernel(&directory.as_path()).unwrap();
        for text in ["a", "b"] {
            std::fs::write(root.path().join("f"), text).unwrap();
            tokio::time::timeout(Duration::from_secs(20), changes.next()).await.unwrap();
        }
    }
}
