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
use herder::drivers::session::ExecRequest;
use herder::drivers::session::ExecSession;
use herder::drivers::supervisor::Supervisor;
use herder::drivers::unmount_all_below;
use herder::model::exec::ExecInput;
use herder::model::exec::ExecOutput;
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
            job_name: "job".to_owned(),
            parent_job: String::new(),
            group: "group".to_owned(),
            alloc_name: "job.group[0]".to_owned(),
            node_name: "node".to_owned(),
            node_id: "5ec7a1e0-0000-4000-8000-000000000001".to_owned(),
            node_mhz: 2000,
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
            mounts: Vec::new(),
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
        for part in ["share", "reserve", "share.slice", "reserve.slice"] {
            // These stay for the next task, as their parent does.
            parents.iter().for_each(|parent| drop(fs::remove_dir(parent.join(part))));
        }
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

impl Bench {
    /// Begins an interactive command.
    pub async fn session(&self, handle: &TaskHandle, command: &[&str], tty: bool) -> ExecSession {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        self.driver.session(handle, &ExecRequest { command, tty }).await.unwrap()
    }
}

/// Everything a command says from now on, and its exit code.
pub async fn hear_all(session: &mut ExecSession) -> (String, String, Option<i32>) {
    let (mut out, mut err, mut code) = (Vec::new(), Vec::new(), None);
    while let Some(message) =
        tokio::time::timeout(Duration::from_secs(30), session.output.recv()).await.unwrap()
    {
        match message {
            ExecOutput::Stdout(data) => out.extend(data),
            ExecOutput::Stderr(data) => err.extend(data),
            ExecOutput::Exited(exit) => code = Some(exit),
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(out), text(err), code)
}

/// Hears until the output contains `text`.
pub async fn hear_until(session: &mut ExecSession, text: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(text) {
        match tokio::time::timeout(Duration::from_secs(30), session.output.recv()).await.unwrap() {
            Some(ExecOutput::Stdout(data)) => heard.push_str(&String::from_utf8_lossy(&data)),
            other => panic!("{other:?} instead of {text:?} after {heard:?}"),
        }
    }
    heard
}

/// Types something.
pub async fn type_in(session: &ExecSession, text: &str) {
    session.input.send(ExecInput::Data(text.as_bytes().to_vec())).await.unwrap();
}

/// What every driver with sessions does, on a task that runs and has a shell.
pub async fn check_sessions(bench: &Bench, handle: &TaskHandle) {
    let mut session = bench.session(handle, &["/bin/sh", "-c", "cat; echo bad >&2; exit 7"], false).await;
    let long = "0123456789abcdef\n".repeat(20_000);
    // More than any pipe holds, so that both directions must be served at once.
    let (input, told) = (session.input.clone(), long.clone());
    let typing = tokio::spawn(async move {
        for piece in told.as_bytes().chunks(10_000) {
            input.send(ExecInput::Data(piece.to_vec())).await.unwrap();
        }
        input.send(ExecInput::Close).await.unwrap();
    });
    let (out, err, code) = hear_all(&mut session).await;
    typing.await.unwrap();
    assert_eq!((out.len(), err.as_str(), code), (long.len(), "bad\n", Some(7)));
    assert!(out == long, "the input comes back as it was");

    let mut session = bench.session(handle, &["/bin/sh", "-c", "kill -9 $$"], false).await;
    assert_eq!(hear_all(&mut session).await.2, Some(137));

    let mut session = bench.session(handle, &["/bin/sh"], true).await;
    session.input.send(ExecInput::Resize { rows: 33, columns: 101 }).await.unwrap();
    type_in(&session, "until stty size | grep '33 101'; do :; done; test -t 0 && echo is-a-'terminal'\n")
        .await;
    hear_until(&mut session, "is-a-terminal").await;
    // The words come from the command itself: by then it has the terminal. What stands before them depends on whether
    // the shell's prompt came before or after the echo of what is typed.
    type_in(&session, "sh -c 'echo begun; exec sleep 1000'\n").await;
    hear_until(&mut session, "begun\r\n").await;
    // An interrupt typed at the terminal reaches the command, not the shell.
    type_in(&session, "\x03").await;
    type_in(&session, "echo $?-after; exit 5\n").await;
    let (out, _, code) = hear_all(&mut session).await;
    assert!(out.contains("130-after"), "{out}");
    assert_eq!(code, Some(5));
}

/// A command whose listener goes away is ended. `number` makes it findable among all processes.
pub async fn check_abandoned(bench: &Bench, handle: &TaskHandle, number: &str) {
    let script = format!("echo begun; sleep {number}");
    let mut session = bench.session(handle, &["/bin/sh", "-c", &script], false).await;
    hear_until(&mut session, "begun").await;
    drop(session);
    let began = std::time::Instant::now();
    while lives(number) {
        assert!(began.elapsed() < Duration::from_secs(20), "the command is left behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Is there a shell whose command line has this word?
fn lives(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
        .any(|line| line.starts_with("/bin/sh") && line.contains(word))
}
