//! What an earlier agent on this machine left in the directory of the allocations: mounts of ended allocations, and
//! directories that it meant to remove when it was killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::agent::dirs;
use crate::model::id::AllocId;

/// Clears up below `root`. `ended` are remembered and have ended; `known` are all that are remembered.
pub(super) fn clear(root: &Path, known: &BTreeSet<AllocId>, ended: &BTreeSet<AllocId>) {
    let present = match dirs::present(root) {
        Ok(present) => present,
        Err(error) => {
            tracing::warn!(%error, "cannot look for what an earlier agent left behind");
            return;
        }
    };
    for alloc in present {
        let result = if ended.contains(&alloc) {
            dirs::detach(root, alloc)
        } else if known.contains(&alloc) {
            Ok(())
        } else if let Some(pid) = process_of(alloc) {
            // Without the ledger's memory of it nobody may say that it has to end.
            tracing::warn!(
                %alloc, pid, "a directory of an unknown allocation is left alone: a process of it runs"
            );
            Ok(())
        } else {
            tracing::info!(%alloc, "removing the directory of an allocation that nobody knows");
            dirs::remove(root, alloc)
        };
        if let Err(error) = result {
            tracing::warn!(%alloc, %error, "cannot clear up after an earlier agent");
        }
    }
}

/// Some process that says it belongs to an allocation: by its control group, environment or command line.
fn process_of(alloc: AllocId) -> Option<i32> {
    let needle = alloc.to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| u32::try_from(*pid) != Ok(std::process::id())).find(|pid| {
        ["cgroup", "environ", "cmdline"].iter().any(|file| {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            text.windows(needle.len()).any(|window| window == needle.as_bytes())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_nobody_knows_are_removed_unless_a_process_lives_there() {
        let root = tempfile::tempdir().unwrap();
        let ids: Vec<AllocId> = (1..=4).map(|_| AllocId::from_random(rand::random())).collect();
        let [running, ended, lost, inhabited] = ids[..] else { unreachable!() };
        for id in &ids {
            dirs::build_shared(root.path(), *id).unwrap();
            let task = dirs::task_dirs(root.path(), *id, "web");
            dirs::build_task(&task, false, 0).unwrap();
            fs::write(task.secrets.join("key"), "x").unwrap();
        }
        fs::create_dir(root.path().join("something-else")).unwrap();
        let mut process = std::process::Command::new("sleep")
            .arg("60")
            .env("NOMAD_ALLOC_ID", inhabited.to_string())
            .spawn()
            .unwrap();
        let set = |ids: &[AllocId]| ids.iter().copied().collect();
        clear(root.path(), &set(&[running, ended]), &set(&[ended]));
        process.kill().unwrap();
        process.wait().unwrap();
        let secret = |id| dirs::task_dirs(root.path(), id, "web").secrets.join("key").exists();
        assert!(secret(running) && secret(inhabited));
        assert!(dirs::alloc_dir(root.path(), ended).is_dir());
        assert!(!nix::unistd::Uid::effective().is_root() || !secret(ended), "its secrets are gone");
        assert!(!dirs::alloc_dir(root.path(), lost).exists());
        assert!(root.path().join("something-else").is_dir());
        for id in ids {
            dirs::remove(root.path(), id).unwrap();
        }
    }
}
