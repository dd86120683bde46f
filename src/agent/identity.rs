//! Who this agent is: the node id that outlives it, the boot of its machine, and this one process.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::agent::dice::Dice;
use crate::model::id::NodeId;

/// The file in the data directory that holds the node id.
const NODE_ID_FILE: &str = "client-id";
/// Changes with every boot of the machine.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Why the agent does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read or write the node id in {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} does not hold a node id (found {found:?}); restore it, or delete it to become a new node", path = path.display())]
    Invalid { path: PathBuf, found: String },
}

/// Names of this agent, from lasting to fleeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: NodeId,
    pub boot_id: String,
    pub session_id: String,
}

/// Reads the node id kept in `data_dir`, or makes one and keeps it.
///
/// # Errors
/// When the file cannot be read or written, or holds something else.
pub fn persistent_node_id(data_dir: &Path, dice: &mut Dice) -> Result<NodeId, IdentityError> {
    let path = data_dir.join(NODE_ID_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| IdentityError::Invalid { path, found: text.trim().chars().take(80).collect() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let node = NodeId::from_random(dice.bytes());
            write_whole(&path, node.to_string().as_bytes())
                .map_err(|source| IdentityError::Io { path, source })?;
            Ok(node)
        }
        Err(source) => Err(IdentityError::Io { path, source }),
    }
}

/// Writes a file so that a crash leaves either nothing or all of it.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let draft = path.with_extension("new");
    std::fs::write(&draft, bytes)?;
    std::fs::File::open(&draft)?.sync_all()?;
    std::fs::rename(&draft, path)
}

/// The boot id of this machine; empty where the kernel does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID_FILE).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_id_outlives_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let first = persistent_node_id(dir.path(), &mut Dice::random()).unwrap();
        assert_eq!(persistent_node_id(dir.path(), &mut Dice::random()).unwrap(), first);
    }

    #[test]
    fn a_damaged_id_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NODE_ID_FILE), "rubbish").unwrap();
        let error = persistent_node_id(dir.path(), &mut Dice::random()).unwrap_err().to_string();
        assert!(error.contains("client-id") && error.contains("rubbish"), "{error}");
    }
}
