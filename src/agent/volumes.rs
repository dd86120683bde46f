//! Which directories of the host a task sees as volumes. Pure, except that the directories must be there.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use crate::drivers::Mount;
use crate::drivers::Propagation;
use crate::model::group::TaskGroup;
use crate::model::interpolate::interpolate;
use crate::model::node::NodeInfo;
use crate::model::task::Task;

/// The mounts of a task. `index`: of its allocation. `resolve`: the names that `${…}` knows.
///
/// # Errors
/// In Nomad's words where it has some; trying again does not help.
pub fn mounts(
    group: &TaskGroup,
    task: &Task,
    node: &NodeInfo,
    index: u32,
    resolve: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for wanted in &task.volume_mounts {
        let name = interpolate(&wanted.volume, resolve);
        if name.is_empty() {
            // An empty block is accepted and means nothing.
            continue;
        }
        let request = group
            .volumes
            .get(&name)
            .ok_or_else(|| format!("no volume {name:?} in group {:?}", group.name))?;
        if request.kind != "host" {
            return Err(format!(
                "volume {name:?} has type {:?}: only host volumes can be mounted by this agent",
                request.kind
            ));
        }
        let source =
            if request.per_alloc { format!("{}[{index}]", request.source) } else { request.source.clone() };
        let volume =
            node.host_volumes.get(&source).ok_or_else(|| format!("missing host volume {source:?}"))?;
        let from = PathBuf::from(&volume.path);
        if !from.exists() {
            return Err(format!("host volume {source:?}: {} does not exist", from.display()));
        }
        let mode = interpolate(&wanted.propagation_mode, resolve);
        mounts.push(Mount {
            from,
            to: inside(&interpolate(&wanted.destination, resolve))
                .ok_or_else(|| format!("volume {name:?} needs a destination other than the task's root"))?,
            read_only: wanted.read_only || request.read_only || volume.read_only,
            propagation: match mode.as_str() {
                "" | "private" => Propagation::Private,
                "host-to-task" => Propagation::HostToTask,
                "bidirectional" => Propagation::Bidirectional,
                _ => return Err(format!("volume mount has an invalid propagation mode: {mode:?}")),
            },
            selinux_label: wanted.selinux_label.clone(),
        });
    }
    Ok(mounts)
}

/// The absolute path in the task; `..` does not lead out of its root.
fn inside(destination: &str) -> Option<PathBuf> {
    let mut path = PathBuf::from("/");
    for part in Path::new(destination).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    (path != Path::new("/")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::group::VolumeRequest;
    use crate::model::node::HostVolume;
    use crate::model::task::VolumeMount;

    fn look(request: VolumeRequest, mount: VolumeMount) -> Result<Vec<Mount>, String> {
        let volume = |name: &str, path: &str, read_only| {
            (name.to_owned(), HostVolume { name: name.into(), path: path.into(), read_only })
        };
        let node = NodeInfo {
            host_volumes: [
                volume("data", "/usr", false),
                volume("data[2]", "/bin", false),
                volume("fixed", "/usr", true),
                volume("gone", "/no/such/place", false),
            ]
            .into(),
            ..NodeInfo::default()
        };
        let group = TaskGroup { volumes: [("v".to_owned(), request)].into(), ..TaskGroup::default() };
        let task = Task { volume_mounts: vec![mount], ..Task::default() };
        mounts(&group, &task, &node, 2, &|name| (name == "WHERE").then(|| "here".to_owned()))
    }

    fn host(source: &str) -> VolumeRequest {
        VolumeRequest { kind: "host".into(), source: source.into(), ..VolumeRequest::default() }
    }

    fn mount(destination: &str) -> VolumeMount {
        VolumeMount { volume: "v".into(), destination: destination.into(), ..VolumeMount::default() }
    }

    #[test]
    fn mounts_name_the_place_on_the_host_and_in_the_task() {
        let found = look(host("data"), mount("/srv/${WHERE}/../${WHERE}")).unwrap().remove(0);
        assert_eq!((found.from, found.to), (PathBuf::from("/usr"), PathBuf::from("/srv/here")));
        assert!(!found.read_only && found.propagation == Propagation::Private);
        let own = VolumeRequest { per_alloc: true, ..host("data") };
        assert_eq!(look(own, mount("x")).unwrap()[0].from, PathBuf::from("/bin"));
        let shared = VolumeMount { propagation_mode: "host-to-task".into(), ..mount("x") };
        assert_eq!(look(host("data"), shared).unwrap()[0].propagation, Propagation::HostToTask);
    }

    #[test]
    fn one_word_makes_a_mount_read_only() {
        let by_mount = VolumeMount { read_only: true, ..mount("x") };
        let by_request = VolumeRequest { read_only: true, ..host("data") };
        for (request, mount) in
            [(host("data"), by_mount), (by_request, mount("x")), (host("fixed"), mount("x"))]
        {
            assert!(look(request, mount).unwrap()[0].read_only);
        }
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        let csi = VolumeRequest { kind: "csi".into(), ..host("data") };
        let other = VolumeMount { volume: "w".into(), ..mount("x") };
        let odd = VolumeMount { propagation_mode: "sideways".into(), ..mount("x") };
        for (request, mount, expected) in [
            (csi, mount("x"), "only host volumes"),
            (host("nothing"), mount("x"), "missing host volume \"nothing\""),
            (host("gone"), mount("x"), "/no/such/place does not exist"),
            (host("data"), mount("/.."), "needs a destination"),
            (host("data"), other, "no volume \"w\""),
            (host("data"), odd, "invalid propagation mode: \"sideways\""),
        ] {
            let error = look(request, mount).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(look(host("data"), VolumeMount::default()), Ok(Vec::new()));
    }
}
