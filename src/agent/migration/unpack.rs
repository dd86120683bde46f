//! Unpacks the data of a former allocation. The other node is believed no more than any archive: nothing is written
//! outside the parts that move, and no link is followed.

use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use nix::unistd::Gid;
use nix::unistd::Uid;

use crate::agent::files::beneath::Attributes;
use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::Links;

const DIRECTORY_MODE: u32 = 0o755;

/// Writes the entries of a tar below `root`; all of them must be within `parts`.
///
/// # Errors
/// Names the entry. What was written before stays.
pub(super) fn unpack(from: impl Read, root: &Directory, parts: &[PathBuf]) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    // Last, since a directory may be one that its owner made read-only.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if !parts.iter().any(|part| path.starts_with(part)) {
            return Err(named(io::Error::other("not a part of the data of an allocation")));
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            root.create_all(&path, DIRECTORY_MODE).map_err(named)?;
            directories.push((path, attributes(entry.header())?));
            continue;
        }
        put(&mut entry, root, &path, kind).map_err(named)?;
    }
    for (path, attributes) in directories.iter().rev() {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        settle(root, path, *attributes).map_err(named)?;
    }
    Ok(())
}

fn put<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    root: &Directory,
    path: &Path,
    kind: tar::EntryType,
) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("no name"))?;
    let parent = path.parent().unwrap_or(Path::new(""));
    root.create_all(parent, DIRECTORY_MODE)?;
    let parent = root.directory(parent, Links::Refuse)?;
    if kind.is_file() {
        let attributes = attributes(entry.header())?;
        parent.write(name, entry, attributes)?;
    } else if kind.is_symlink() {
        let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link without a target"))?;
        parent.link_symbolically(name, &target)?;
    } else {
        return Err(io::Error::other("neither a file nor a directory nor a link"));
    }
    Ok(())
}

fn attributes(header: &tar::Header) -> io::Result<Attributes> {
    let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
    let own = Uid::effective().is_root();
    Ok(Attributes {
        mode: header.mode()? & 0o1777,
        uid: if own { Some(id(header.uid()?)?) } else { None },
        gid: if own { Some(id(header.gid()?)?) } else { None },
    })
}

fn settle(root: &Directory, path: &Path, attributes: Attributes) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let directory = root.directory(path, Links::Refuse)?;
    let place = directory.as_path();
    nix::unistd::chown(&place, attributes.uid.map(Uid::from_raw), attributes.gid.map(Gid::from_raw))?;
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(attributes.mode))
}
