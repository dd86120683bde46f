//! Gives back memory that only the start of the process needed.

use std::time::Duration;

use procfs::process::MMPermissions;
use procfs::process::MMapPath;
use procfs::process::Process;

/// When an agent has settled.
const SETTLED: Duration = Duration::from_secs(4);

/// Waits until the process has settled, then unmaps its code. Reading configuration, looking at the machine and
/// connecting take most of the program, running tasks takes little of it. What is used again is mapped again from the
/// page cache, without a read while the system has memory to spare.
pub(super) async fn settle() {
    tokio::time::sleep(SETTLED).await;
    match unmap_code() {
        Ok(bytes) => tracing::debug!(bytes, "unmapped the program's code"),
        Err(error) => tracing::debug!(%error, "cannot unmap the program's code"),
    }
}

/// Unmaps the pages of code of this program; their number of bytes.
fn unmap_code() -> Result<u64, procfs::ProcError> {
    let myself = Process::myself()?;
    let program = myself.exe()?;
    let code = MMPermissions::READ | MMPermissions::EXECUTE;
    let mut bytes = 0;
    for map in myself.maps()? {
        let is_code = map.perms & !MMPermissions::PRIVATE == code;
        if !is_code || !matches!(&map.pathname, MMapPath::Path(path) if *path == program) {
            continue;
        }
        let (from, to) = map.address;
        let (Ok(start), Ok(length)) = (usize::try_from(from), usize::try_from(to - from)) else { continue };
        // Never written to, so every page is still as it is in the file: dropping it changes nothing that can be read.
        let result = unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED)
        };
        if result == 0 {
            bytes += to - from;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_on_without_its_code_being_mapped() {
        assert!(unmap_code().unwrap() > 1 << 20);
        assert_eq!("still here".to_uppercase(), "STILL HERE");
    }
}
