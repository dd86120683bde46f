//! Loads an image from an archive in the task's directory.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use bollard::Docker as Client;
use bollard::query_parameters::ImportImageOptionsBuilder;
use futures::StreamExt;
use tokio_util::io::ReaderStream;

use crate::drivers::TaskDirs;

use super::words;

/// Reads the archive `name` and gives it to Docker.
///
/// # Errors
/// There is no such file, it lies outside of the task, or Docker cannot read it.
pub(super) async fn load(client: &Client, dirs: &TaskDirs, name: &str) -> Result<(), String> {
    let path = find(dirs, name)?;
    let file = tokio::fs::File::open(&path).await;
    let file = file.map_err(|error| format!("unable to open image archive: {}: {error}", path.display()))?;
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let mut stream = Box::pin(client.import_image_stream(options, ReaderStream::new(file), None));
    while let Some(step) = stream.next().await {
        let step = step.map_err(|error| format!("unable to load image: {}", words(&error)))?;
        if let Some(error) = step.error_detail {
            return Err(format!("unable to load image: {}", error.message.unwrap_or_default()));
        }
    }
    Ok(())
}

/// The file, in the task's `local` or else in its directory; links must not lead out.
fn find(dirs: &TaskDirs, name: &str) -> Result<PathBuf, String> {
    let missing = |error: io::Error| format!("unable to open image archive: {name}: {error}");
    let real = |dir: &Path| dir.join(name.trim_start_matches('/')).canonicalize();
    let path = real(&dirs.local).or_else(|_| real(&dirs.task)).map_err(missing)?;
    let alloc = dirs.alloc.canonicalize().map_err(missing)?;
    if path.starts_with(&alloc) {
        Ok(path)
    } else {
        Err(format!("unable to open image archive: {name} lies outside of the allocation"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_outside_of_the_allocation_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let alloc = dir.path().join("alloc");
        let task = alloc.join("web");
        let dirs = TaskDirs { local: task.join("local"), task: task.clone(), alloc, ..TaskDirs::default() };
        std::fs::create_dir_all(&dirs.local).unwrap();
        std::fs::write(dir.path().join("secret"), "").unwrap();
        std::fs::write(dirs.local.join("image.tar"), "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), dirs.local.join("link.tar")).unwrap();
        assert!(find(&dirs, "image.tar").unwrap().ends_with("local/image.tar"));
        assert!(find(&dirs, "local/image.tar").unwrap().ends_with("local/image.tar"));
        for name in ["link.tar", "../../../secret"] {
            let error = find(&dirs, name).unwrap_err();
            assert!(error.ends_with("lies outside of the allocation"), "{error}");
        }
        assert!(find(&dirs, "none.tar").unwrap_err().starts_with("unable to open image archive: none.tar"));
    }
}
