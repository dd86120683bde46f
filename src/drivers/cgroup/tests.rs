//! Control groups: what is planned, and what is read from files of the kernel.

use super::*;

const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

fn grant(mhz: i64, memory: i64, max: i64) -> AllocatedTask {
    let mut grant = AllocatedTask::default();
    grant.cpu.cpu_shares = mhz;
    grant.memory.memory_mb = memory;
    grant.memory.memory_max_mb = max;
    grant
}

fn lines(plan: &TaskCgroups) -> Vec<String> {
    plan.limits.iter().map(|limit| format!("{}={}", limit.file.display(), limit.value)).collect()
}

fn wish<'a>(parent: &'a str, grant: &'a AllocatedTask, overrides: &'a Overrides) -> Wish<'a> {
    Wish { parent, name: "a.web", grant, pids_limit: None, scope: Scope::Isolated, overrides }
}

#[test]
fn a_version_2_mount_without_memory_beside_version_1_is_ignored() {
    let found = Hierarchy::from_mountinfo(V1, |_| "hugetlb misc\n".to_owned());
    assert_eq!(found.version(), Some("1"));
    let plan = plan(&found, &wish("/nomad", &grant(500, 64, 0), &Overrides::default()));
    assert_eq!(plan.dirs["cpu"], Path::new("/sys/fs/cgroup/cpu/nomad/a.web"));
    assert!(!plan.dirs.contains_key("cpuset"));
    let lines = lines(&plan);
    assert!(lines.contains(&"/sys/fs/cgroup/memory/nomad/a.web/memory.limit_in_bytes=67108864".to_owned()));
    assert!(lines.contains(&"/sys/fs/cgroup/cpu/nomad/a.web/cpu.shares=500".to_owned()));
}

fn v1(controllers: &[&str]) -> Hierarchy {
    Hierarchy::V1(controllers.iter().map(|name| ((*name).to_owned(), Path::new("/c").join(name))).collect())
}

#[test]
fn plain_processes_are_counted_and_limited_only() {
    let (grant, overrides) = (grant(500, 64, 0), Overrides::default());
    let machine = v1(&["blkio", "cpu", "cpuset", "devices", "freezer", "memory", "pids"]);
    let mut wish = Wish { scope: Scope::Plain, ..wish("nomad", &grant, &overrides) };
    let names = |plan: TaskCgroups| plan.dirs.into_keys().collect::<Vec<_>>().join(" ");
    assert_eq!(names(plan(&machine, &wish)), "cpu freezer memory");
    wish.pids_limit = Some(9);
    assert_eq!(names(plan(&machine, &wish)), "cpu freezer memory pids");
    wish.scope = Scope::Isolated;
    let isolated = plan(&machine, &wish);
    assert!(lines(&isolated).contains(&"/c/devices/nomad/a.web/devices.deny=a".to_owned()));
    assert_eq!(isolated.joined[0].dir, Path::new("/c/cpuset/nomad/share"));
    assert_eq!(names(isolated), "blkio cpu devices freezer memory pids");
}

#[test]
fn cores_are_taken_from_the_reserve() {
    let mut grant = grant(0, 64, 0);
    grant.cpu.reserved_cores = vec![1, 3];
    let overrides = Overrides::default();
    let found = plan(&v1(&["cpuset"]), &wish("nomad", &grant, &overrides));
    assert_eq!(lines(&found), ["/c/cpuset/nomad/reserve/a.web/cpuset.cpus=1,3"]);
    assert!(found.joined.is_empty());
    let found = plan(&Hierarchy::V2("/c".into()), &wish("nomad", &grant, &overrides));
    assert!(lines(&found).contains(&"/c/nomad.slice/reserve.slice/a.web.scope/cpuset.cpus=1,3".to_owned()));
}

#[test]
fn groups_of_somebody_else_replace_our_own() {
    let grant = grant(500, 64, 0);
    let paths = [("memory", "/c/memory/theirs"), ("cpu", "other")];
    let overrides = Overrides {
        v1: paths.map(|(name, path)| (name.to_owned(), PathBuf::from(path))).into(),
        v2: Some("theirs.slice".into()),
    };
    let found = plan(&v1(&["cpu", "freezer", "memory"]), &wish("nomad", &grant, &overrides));
    let joined: Vec<_> = found.joined.iter().map(|one| one.dir.display().to_string()).collect();
    assert_eq!(joined, ["/c/cpu/other", "/c/memory/theirs"]);
    assert_eq!((found.dirs.len(), found.limits.len()), (1, 0));
    let found = plan(&Hierarchy::V2("/c".into()), &wish("nomad", &grant, &overrides));
    assert_eq!((found.joined[0].dir.clone(), found.dirs.len()), ("/c/theirs.slice".into(), 0));
}

#[test]
fn version_2_uses_weights_and_one_directory() {
    let mountinfo = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
    let found = Hierarchy::from_mountinfo(mountinfo, |_| "cpu memory pids\n".to_owned());
    let plan = plan(&found, &wish("nomad", &grant(1024, 64, 128), &Overrides::default()));
    let dir = "/sys/fs/cgroup/nomad.slice/share.slice/a.web.scope";
    assert_eq!(
        lines(&plan),
        [
            format!("{dir}/memory.max=134217728"),
            format!("{dir}/memory.swap.max=0"),
            format!("{dir}/memory.low=67108864"),
            format!("{dir}/cpu.weight=39"),
        ]
    );
}

#[test]
fn version_2_groups_are_limited_joined_and_killed() {
    let root = tempfile::tempdir().expect("a directory");
    let slice = root.path().join("nomad.slice");
    let dir = slice.join("reserve.slice/a.web.scope");
    let share = slice.join("share.slice");
    fs::create_dir_all(&dir).expect("directories");
    fs::create_dir_all(&share).expect("directories");
    let names =
        "memory.max memory.swap.max memory.low cpu.weight cpuset.cpus pids.max cgroup.procs cgroup.kill";
    let own = names.split(' ').map(|name| dir.join(name));
    let controls =
        [root.path(), &slice, &slice.join("reserve.slice")].map(|dir| dir.join("cgroup.subtree_control"));
    for file in own.chain(controls.clone()).chain([share.join("cpuset.cpus")]) {
        fs::write(file, "").expect("a file");
    }
    fs::write(slice.join("cpuset.cpus.effective"), "0-3").expect("a file");
    fs::write(dir.join("memory.events"), "low 0\noom 2\noom_kill 1\n").expect("a file");
    let mut grant = grant(0, 64, 128);
    grant.cpu.reserved_cores = vec![2];
    let overrides = Overrides::default();
    let wish = Wish { pids_limit: Some(9), ..wish("nomad.slice", &grant, &overrides) };
    let plan = plan(&Hierarchy::V2(root.path().to_owned()), &wish);
    plan.create().expect("everything can be written");
    let read = |file: &Path| fs::read_to_string(file).expect("a file");
    for (name, value) in [
        ("memory.max", "134217728"),
        ("memory.swap.max", "0"),
        ("memory.low", "67108864"),
        ("cpu.weight", "1"),
        ("cpuset.cpus", "2"),
        ("pids.max", "9"),
    ] {
        assert_eq!(read(&dir.join(name)), value, "{name}");
    }
    assert_eq!(read(&share.join("cpuset.cpus")), "0,1,3");
    assert!(
        controls.iter().all(|file| read(file) == "+cpuset"),
        "controllers are on from the root downwards"
    );
    plan.join().expect("the group can be joined");
    assert_eq!(read(&dir.join("cgroup.procs")), "0");
    plan.kill();
    assert_eq!(read(&dir.join("cgroup.kill")), "1");
    assert_eq!(plan.oom_kills(), 1);
}

#[test]
fn groups_that_a_task_made_belong_to_it() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("a.web.scope");
    fs::create_dir_all(dir.join("own/deeper")).expect("directories");
    let group = TaskCgroups { dirs: [("unified".to_owned(), dir.clone())].into(), ..TaskCgroups::default() };
    group.remove().expect("it goes with all that is in it");
    assert!(!dir.exists());
    fs::create_dir_all(dir.join("own/deeper")).expect("directories");
    fs::write(dir.join("cgroup.procs"), "7\n").expect("a file");
    fs::write(dir.join("own/deeper/cgroup.procs"), "8\n0\n").expect("a file");
    assert_eq!(group.pids(), [7, 8]);
}

#[test]
fn limits_outside_of_a_control_group_mount_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let found = Hierarchy::V2(dir.path().to_owned());
    let plan = plan(&found, &wish("nomad.slice", &grant(500, 64, 0), &Overrides::default()));
    assert_eq!(plan.dirs["unified"], dir.path().join("nomad.slice/share.slice/a.web.scope"));
    let text = plan.create().expect_err("there are no control files").to_string();
    assert!(text.contains("memory.max"), "{text}");
    assert!(!plan.dirs["unified"].join("memory.max").exists());
}

#[test]
fn both_versions_are_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).expect("a file");
    let group = |names: &[&str]| TaskCgroups {
        dirs: names.iter().map(|name| ((*name).to_owned(), dir.path().to_owned())).collect(),
        joined: Vec::new(),
        limits: Vec::new(),
        partition: None,
    };
    write("cgroup.procs", "7\n0\n");
    write("cpuacct.usage", "3000\n");
    write("cpuacct.usage_user", "2000\n");
    write("cpuacct.usage_sys", "1000\n");
    write("cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 55\n");
    write("memory.stat", "cache 10\nrss 20\nrss_huge 99\n");
    write("memory.usage_in_bytes", "40\n");
    write("memory.max_usage_in_bytes", "80\n");
    let stats = group(&["cpu", "cpuacct", "memory"]).stats();
    assert_eq!((stats.cpu_time_ns, stats.user_ns, stats.system_ns), (3000, Some(2000), Some(1000)));
    assert_eq!((stats.throttled_periods, stats.throttled_ns), (Some(4), Some(55)));
    assert_eq!((stats.rss_bytes, stats.cache_bytes, stats.swap_bytes), (20, Some(10), None));
    assert_eq!((stats.usage_bytes, stats.max_usage_bytes, stats.kernel_bytes), (Some(40), Some(80), None));
    assert_eq!(stats.pids, [7]);
    write("cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_throttled 5\nthrottled_usec 6\n");
    write("memory.stat", "anon 20\nfile 10\nkernel 3\n");
    write("memory.current", "41\n");
    write("memory.peak", "81\n");
    write("memory.swap.current", "0\n");
    let stats = group(&["unified"]).stats();
    assert_eq!((stats.cpu_time_ns, stats.user_ns, stats.system_ns), (3000, Some(2000), Some(1000)));
    assert_eq!((stats.throttled_periods, stats.throttled_ns), (Some(5), Some(6000)));
    assert_eq!((stats.rss_bytes, stats.cache_bytes, stats.swap_bytes), (20, Some(10), Some(0)));
    assert_eq!((stats.usage_bytes, stats.max_usage_bytes, stats.kernel_bytes), (Some(41), Some(81), Some(3)));
}

#[test]
fn an_unlimited_maximum_leaves_only_the_soft_limit() {
    assert_eq!(memory_bytes(&grant(1, 64, -1)), (Some(64 << 20), None));
    assert_eq!(memory_bytes(&grant(1, 64, 0)), (None, Some(64 << 20)));
}
