//! Data that moves from an allocation to its replacement on another node (`ephemeral_disk` with `sticky` and
//! `migrate`): packed by the old node, fetched over its HTTP API, unpacked by the new one.

pub mod pack;
mod unpack;

use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Buf;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::agent::files::beneath::Directory;
use crate::model::allocation::AllocationReport;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::node::NodeInfo;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::key::Key;
use crate::store::key::Keys;

/// Pause between two looks at an allocation of another node.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A node that is not registered for this long will not answer any more.
const GONE_AFTER: u32 = 30;
/// A transfer on which nothing arrives for this long is broken.
const STALL: Duration = Duration::from_secs(60);
/// Pieces in flight between network and disk.
const PIECES: usize = 8;

/// The parts of an allocation's directory that move: `alloc/data`, and `local` of each task.
pub fn parts<'a>(tasks: impl IntoIterator<Item = &'a str>) -> Vec<PathBuf> {
    let locals = tasks.into_iter().map(|task| Path::new(task).join("local"));
    std::iter::once(PathBuf::from("alloc/data")).chain(locals).collect()
}

/// Another node's allocation, seen from here.
#[async_trait]
pub trait Elsewhere: Send + Sync + 'static {
    /// Waits until the allocation has ended; false if it or its node is gone.
    async fn ended(&self, node: NodeId, alloc: AllocId) -> bool;

    /// Unpacks its `parts` below `into`.
    ///
    /// # Errors
    /// For people. What was unpacked before stays.
    async fn fetch(&self, node: NodeId, alloc: AllocId, parts: &[PathBuf], into: &Path)
    -> Result<(), String>;
}

/// Follows the other node in the store and asks its agent.
pub struct OverHttp {
    store: SharedStore,
    keys: Keys,
}

impl OverHttp {
    /// Nothing is asked before it is needed.
    pub fn new(store: SharedStore, keys: Keys) -> Self {
        Self { store, keys }
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        let (_, item) = self.store.get(&self.keys.text(key)).await?;
        Ok(item.and_then(|item| serde_json::from_slice(&item.value).ok()))
    }
}

#[async_trait]
impl Elsewhere for OverHttp {
    async fn ended(&self, node: NodeId, alloc: AllocId) -> bool {
        let mut silent = 0;
        loop {
            // While the store does not answer nothing is known; its return is waited for.
            if let Ok(report) = self.read::<AllocationReport>(&Key::AllocReport(node, alloc)).await {
                match report {
                    None => return false,
                    Some(report) if report.client_status.is_terminal() => return true,
                    Some(_) => {}
                }
                match self.read::<serde_json::Value>(&Key::NodeLive(node)).await {
                    Ok(None) => silent += 1,
                    Ok(Some(_)) => silent = 0,
                    Err(_) => {}
                }
            }
            if silent >= GONE_AFTER {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn fetch(
        &self,
        node: NodeId,
        alloc: AllocId,
        parts: &[PathBuf],
        into: &Path,
    ) -> Result<(), String> {
        let info: Option<NodeInfo> =
            self.read(&Key::NodeInfo(node)).await.map_err(|error| error.to_string())?;
        let address = info.map(|info| info.http_addr).filter(|address| !address.is_empty());
        let address = address.ok_or_else(|| format!("node {node} has no address"))?;
        let url = format!("http://{address}/v1/client/allocation/{alloc}/snapshot");
        crate::agent::hooks::install_tls();
        let client = reqwest::Client::builder().no_proxy().read_timeout(STALL).build();
        let client = client.map_err(|error| error.to_string())?;
        let answer = client.get(&url).send().await.map_err(|error| format!("GET {url}: {error}"))?;
        if !answer.status().is_success() {
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            return Err(format!("GET {url}: {status}: {}", text.trim()));
        }
        let (pieces, received) = mpsc::channel(PIECES);
        let (into, parts) = (into.to_owned(), parts.to_vec());
        let unpacking = tokio::task::spawn_blocking(move || {
            let directory = Directory::open(&into)?;
            unpack::unpack(Pieces { received, piece: Bytes::new() }, &directory, &parts)
        });
        let mut body = answer.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| io::Error::other(format!("the transfer broke off: {error}")));
            let broken = piece.is_err();
            // The other side has given up: its error says why.
            if pieces.send(piece).await.is_err() || broken {
                break;
            }
        }
        drop(pieces);
        match unpacking.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Received pieces as something to read from.
struct Pieces {
    received: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(into.len());
        self.piece.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;

    use super::*;

    async fn carry(from: &Path, to: &Path, parts: &[PathBuf]) -> io::Result<()> {
        let mut stream = pack::pack(from.to_owned(), parts.to_vec());
        let (pieces, received) = mpsc::channel(1000);
        while let Some(piece) = stream.next().await {
            pieces.send(piece).await.unwrap();
        }
        drop(pieces);
        let (to, parts) = (to.to_owned(), parts.to_vec());
        tokio::task::spawn_blocking(move || {
            unpack::unpack(Pieces { received, piece: Bytes::new() }, &Directory::open(&to).unwrap(), &parts)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn data_arrives_as_it_was() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = from.path().join("alloc/data");
        fs::create_dir_all(data.join("deep/er")).unwrap();
        fs::create_dir_all(from.path().join("web/local")).unwrap();
        fs::create_dir_all(from.path().join("web/secrets")).unwrap();
        fs::write(from.path().join("web/secrets/key"), "secret").unwrap();
        fs::write(data.join("deep/er/file"), vec![7; 300_000]).unwrap();
        fs::set_permissions(data.join("deep/er/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(data.join("deep"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("deep/er/file", data.join("link")).unwrap();
        fs::write(from.path().join("web/local/run.sh"), "#!").unwrap();
        nix::unistd::mkfifo(&data.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        carry(from.path(), to.path(), &parts(["web"])).await.unwrap();
        let new = to.path().join("alloc/data");
        assert_eq!(fs::read(new.join("deep/er/file")).unwrap(), vec![7; 300_000]);
        let mode = |path: &str| fs::metadata(new.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("deep"), mode("deep/er/file")), (0o700, 0o640));
        assert_eq!(fs::read_link(new.join("link")).unwrap(), Path::new("deep/er/file"));
        assert_eq!(fs::read_to_string(to.path().join("web/local/run.sh")).unwrap(), "#!");
        assert!(!new.join("pipe").exists() && !to.path().join("web/secrets").exists());
    }

    #[tokio::test]
    async fn links_lead_neither_out_of_the_old_nor_of_the_new_allocation() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("host"), "secret of the host").unwrap();
        fs::create_dir_all(from.path().join("alloc")).unwrap();
        symlink(outside.path(), from.path().join("alloc/data")).unwrap();
        fs::create_dir_all(from.path().join("web/local")).unwrap();
        symlink(outside.path(), from.path().join("web/local/way")).unwrap();
        carry(from.path(), to.path(), &parts(["web"])).await.unwrap();
        assert!(!to.path().join("alloc/data").exists(), "the link itself is no data");
        // An archive that writes through a link that it brought along.
        let mut archive = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "web/local/out", outside.path()).unwrap();
        for name in ["web/local/out/planted", "web/secrets/planted", "planted"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o644);
            let bytes = archive.clone_with(name, header);
            let (pieces, received) = mpsc::channel(4);
            pieces.try_send(Ok(bytes)).unwrap();
            drop(pieces);
            let target = to.path().to_owned();
            let result = tokio::task::spawn_blocking(move || {
                let directory = Directory::open(&target).unwrap();
                unpack::unpack(Pieces { received, piece: Bytes::new() }, &directory, &parts(["web"]))
            });
            assert!(result.await.unwrap().is_err(), "{name}");
        }
        assert!(!outside.path().join("planted").exists());
        assert!(!to.path().join("web/secrets").exists() && !to.path().join("planted").exists());
    }

    trait CloneWith {
        fn clone_with(&self, name: &str, header: tar::Header) -> Bytes;
    }

    impl CloneWith for tar::Builder<Vec<u8>> {
        fn clone_with(&self, name: &str, mut header: tar::Header) -> Bytes {
            let mut copy = tar::Builder::new(self.get_ref().clone());
            copy.append_data(&mut header, name, &b"x"[..]).unwrap();
            copy.into_inner().unwrap().into()
        }
    }
}
