//! A task directory and a driver for it, both gone when the test ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herder::drivers::Driver;
use herder::drivers::DriverError;
use herder::drivers::DriverOptions;
use herder::drivers::ExitStatus;
use herder::drivers::Started;
use herder::drivers::TaskConfig;
use herder::drivers::TaskDirs;
use herder::drivers::TaskHandle;
use herder::drivers::TaskId;
use herder::drivers::all;
use herder::drivers::docker::DockerOptions;
use herder::drivers::supervisor::Supervisor;
use herder::drivers::unmount_all_below;
use herder::model::id::AllocId;
use herder::model::resources::AllocatedTask;
use herder::model::task::LogConfig;
use serde_json::Value;

pub fn options() -> DriverOptions {
    let supervisor = Supervisor::new(PathBuf::from(env!("CARGO_BIN_EXE_herder")));
    let docker = DockerOptions { volumes_enabled: false, ..DockerOptions::default() };
    DriverOptions { supervisor, raw_exec: true, mock: true, docker, ..DriverOptions::default() }
}

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub driver: Arc<dyn Driver>,
    pub config: TaskConfig,
    pub handles: Vec<TaskHandle>,
}

impl Bench {
    pub fn new(driver: &str, config: Value) -> Self {
        Self::with(&options(), driver, config)
    }

    pub fn with(options: &DriverOptions, driver: &str, config: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let alloc = dir.path().join("alloc");
        let task = alloc.join("web");
        let dirs = TaskDirs {
            shared: alloc.join("alloc"),
            local: task.join("local"),
            secrets: task.join("secrets"),
            logs: alloc.join("alloc/logs"),
            private: task.join("private"),
            alloc,
            task,
        };
        for path in [&dirs.task, &dirs.shared, &dirs.local, &dirs.secrets, &dirs.logs, &dirs.private] {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut grant = AllocatedTask::default();
        grant.cpu.cpu_shares = 100;
        grant.memory.memory_mb = 64;
        let id = AllocId(uuid::Uuid::new_v4());
        // A parent of its own, so that it can be removed while other tests run.
        let options = DriverOptions { cgroup_parent: format!("herder-test-{id}"), ..options.clone() };
        let config = TaskConfig {
            id: TaskId { alloc: id, task: "web".to_owned(), run: 0 },
            namespace: "default".to_owned(),
            job: "job".to_owned(),
            group: "group".to_owned(),
            alloc_name: "job.group[0]".to_owned(),
            node_name: "node".to_owned(),
            user: String::new(),
            config: config.as_object().unwrap().clone(),
            env: [("PATH", "/usr/bin:/bin"), ("GREETING", "hello")].map(|(k, v)| (k.into(), v.into())).into(),
            grant,
            dirs,
            logs: LogConfig::default(),
            ports: Vec::new(),
            network_mode: String::new(),
            network_namespace: None,
            network_files: herder::drivers::network::NetworkFiles::default(),
            kill_signal: String::new(),
        };
        let driver = all(&options).remove(driver).unwrap();
        Self { dir, driver, config, handles: Vec::new() }
    }

    pub fn set_config(&mut self, config: Value) {
        self.config.config = config.as_object().unwrap().clone();
    }

    pub async fn try_start(&mut self) -> Result<(TaskHandle, Started), DriverError> {
        let (handle, started) = self.driver.start(&self.config, Arc::new(|_| {})).await?;
        self.handles.push(handle.clone());
        Ok((handle, started))
    }

    pub async fn start(&mut self) -> TaskHandle {
        self.try_start().await.unwrap().0
    }

    pub async fn run(&mut self) -> ExitStatus {
        let handle = self.start().await;
        self.wait(&handle).await
    }

    pub async fn wait(&self, handle: &TaskHandle) -> ExitStatus {
        tokio::time::timeout(Duration::from_secs(60), self.driver.wait(handle)).await.unwrap().unwrap()
    }

    pub fn log(&self, stream: &str) -> String {
        fs::read_to_string(self.config.dirs.logs.join(format!("web.{stream}.0"))).unwrap_or_default()
    }

    /// Follows a log until it contains `text`.
    pub async fn wait_for_log(&self, stream: &str, text: &str) {
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        while !self.log(stream).contains(text) {
            assert!(tokio::time::Instant::now() < limit, "{stream} lacks {text:?}: {:?}", self.log(stream));
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Removes everything and checks that nothing is left.
    pub async fn finish(mut self) {
        for handle in std::mem::take(&mut self.handles) {
            self.driver.remove(&handle).await.unwrap();
            self.driver.remove(&handle).await.unwrap();
        }
        unmount_all_below(self.dir.path()).unwrap();
        let parents = self.cgroup_parents();
        assert!(
            parents.iter().all(|dir| fs::remove_dir(dir).is_ok()),
            "control groups are left in {parents:?}"
        );
    }

    /// What the drivers of this bench made directly below the mount points.
    fn cgroup_parents(&self) -> Vec<PathBuf> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mountinfo.lines().filter(|line| line.contains(" - cgroup"));
        let mounts = mounts.filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let name = format!("herder-test-{}", self.config.id.alloc);
        let both = mounts.flat_map(|mount| [mount.join(&name), mount.join(format!("{name}.slice"))]);
        both.filter(|path| path.exists()).collect()
    }
}

impl Drop for Bench {
    /// A test that failed half way must leave nothing running either.
    fn drop(&mut self) {
        let (driver, handles) = (self.driver.clone(), std::mem::take(&mut self.handles));
        if handles.is_empty() {
            return;
        }
        let clean = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for handle in handles {
                let _ = runtime.block_on(driver.remove(&handle));
            }
        });
        let _ = clean.join();
    }
}
