//! Where artifacts and templates may write: a path of a job file, as a path below the allocation's directory.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use crate::drivers::TaskDirs;

/// The path leaves the allocation's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path escapes alloc directory")]
pub struct Escapes;

/// `path` relative to the directory of the allocation. A relative path is below the task's directory; `/alloc`, and
/// paths that begin with a directory of this allocation on the host, are themselves; any other absolute path is
/// below the task's directory, as the task sees it.
///
/// # Errors
/// When `..` leads out of the allocation's directory.
pub fn locate(dirs: &TaskDirs, path: &str) -> Result<PathBuf, Escapes> {
    let task = dirs.task.strip_prefix(&dirs.alloc).map_err(|_| Escapes)?;
    let path = Path::new(path);
    if path.is_relative() {
        return inside(&task.join(path));
    }
    let absolute = Path::new("/").join(clean(path));
    if let Ok(below) = absolute.strip_prefix(&dirs.alloc) {
        return Ok(below.to_owned());
    }
    match absolute.strip_prefix("/alloc") {
        Ok(shared) => Ok(Path::new("alloc").join(shared)),
        Err(_) => Ok(task.join(clean(path))),
    }
}

/// An absolute path without `..`, and without the `/` it begins with; `..` at the root stays at the root.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn inside(path: &Path) -> Result<PathBuf, Escapes> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir if !inside.pop() => return Err(Escapes),
            Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_allocation() {
        let dirs = TaskDirs {
            alloc: "/data/alloc/1".into(),
            task: "/data/alloc/1/web".into(),
            ..Default::default()
        };
        for (path, expected) in [
            ("local/x", Some("web/local/x")),
            ("./local//x/", Some("web/local/x")),
            ("/local/x", Some("web/local/x")),
            ("/secrets/x", Some("web/secrets/x")),
            ("/etc/x", Some("web/etc/x")),
            ("/alloc/data/x", Some("alloc/data/x")),
            ("/allocation/x", Some("web/allocation/x")),
            ("alloc/x", Some("web/alloc/x")),
            ("/data/alloc/1/alloc/x", Some("alloc/x")),
            ("../alloc/x", Some("alloc/x")),
            ("../../2/x", None),
            ("local/../../../x", None),
            ("/data/alloc/1/../2/x", Some("web/data/alloc/2/x")),
            ("/alloc/../../x", Some("web/x")),
            ("/../../../etc/passwd", Some("web/etc/passwd")),
        ] {
            assert_eq!(locate(&dirs, path).ok().as_deref(), expected.map(Path::new), "{path}");
        }
    }
}
