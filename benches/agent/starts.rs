//! How long a driver takes to start a task, next to the bare operation.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use bollard::query_parameters::StartContainerOptions;
use herder::drivers::Driver;
use herder::drivers::DriverOptions;
use herder::drivers::TaskConfig;
use herder::drivers::TaskDirs;
use herder::drivers::TaskId;
use herder::drivers::all;
use herder::drivers::network::NetworkFiles;
use herder::drivers::supervisor::Supervisor;
use herder::drivers::unmount_all_below;
use herder::model::id::AllocId;
use herder::model::resources::AllocatedTask;
use herder::model::task::LogConfig;
use serde_json::Value;
use serde_json::json;

use crate::Options;
use crate::support::cpu;
use crate::support::stats::percentile;
use crate::support::stats::summary;

/// Not counted: the first ones fill caches.
const WARM_UP: usize = 3;
const IMAGE: &str = "herder-bench/busybox:1";

/// Measures all drivers that work here.
pub async fn measure(options: &Options) -> Result<(), String> {
    let supervisor = Supervisor::new(options.program.clone());
    let parent = format!("herder-bench-{}", std::process::id());
    let drivers =
        all(&DriverOptions { supervisor, raw_exec: true, cgroup_parent: parent, ..DriverOptions::default() });
    println!("start of a task, milliseconds: median (range) of {} starts each, in turns", options.starts);
    println!("load average {}", cpu::load());
    let sleep = json!({"command": "/bin/sleep", "args": ["60"]});
    for (name, goal) in [("raw_exec", 5.0), ("exec", 25.0)] {
        let (mut bare, mut own) = (Vec::new(), Vec::new());
        for round in 0..options.starts + WARM_UP {
            let spawned = spawn()?;
            let took = start(drivers[name].as_ref(), &sleep).await?;
            if round >= WARM_UP {
                bare.push(spawned);
                own.push(took);
            }
        }
        let over = percentile(&own, 0.5) - percentile(&bare, 0.5);
        println!("  bare spawn  {}", summary(&bare, 2));
        println!("  {name:<10}  {}   {over:.2} over it (goal {goal})", summary(&own, 2));
    }
    containers(options, drivers["docker"].as_ref()).await
}

fn spawn() -> Result<f64, String> {
    let begun = Instant::now();
    let child = Command::new("/bin/sleep").arg("60").spawn();
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    let mut child = child.map_err(|error| error.to_string())?;
    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
    Ok(took)
}

/// Starts one task and removes it again.
async fn start(driver: &dyn Driver, options: &Value) -> Result<f64, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let config = config(dir.path(), options).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let started = driver.start(&config, Arc::new(|_| {})).await;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    let (handle, _) = started.map_err(|error| error.to_string())?;
    let ended = driver.stop(&handle, "SIGKILL", Duration::from_secs(5)).await;
    let ended = ended.and(driver.wait(&handle).await.map(drop)).and(driver.remove(&handle).await);
    ended.map_err(|error| error.to_string())?;
    unmount_all_below(dir.path()).map_err(|error| error.to_string())?;
    Ok(took)
}

fn config(dir: &Path, options: &Value) -> std::io::Result<TaskConfig> {
    let alloc = dir.join("alloc");
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
        std::fs::create_dir_all(path)?;
    }
    let mut grant = AllocatedTask::default();
    grant.cpu.cpu_shares = 100;
    grant.memory.memory_mb = 64;
    Ok(TaskConfig {
        id: TaskId { alloc: AllocId(uuid::Uuid::new_v4()), task: "web".to_owned(), run: 1 },
        namespace: "default".to_owned(),
        job: "bench".to_owned(),
        job_name: "bench".to_owned(),
        parent_job: String::new(),
        group: "g".to_owned(),
        alloc_name: "bench.g[0]".to_owned(),
        node_name: "node".to_owned(),
        node_id: String::new(),
        node_mhz: 0,
        user: String::new(),
        config: options.as_object().cloned().unwrap_or_default(),
        env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        grant,
        dirs,
        logs: LogConfig::default(),
        ports: Vec::new(),
        network_mode: String::new(),
        network_namespace: None,
        network_files: NetworkFiles::default(),
        mounts: Vec::new(),
        kill_signal: String::new(),
    })
}

async fn containers(options: &Options, driver: &dyn Driver) -> Result<(), String> {
    let Ok(engine) = Docker::connect_with_local_defaults() else {
        println!("  docker      not measured: there is no engine");
        return Ok(());
    };
    if engine.ping().await.is_err() {
        println!("  docker      not measured: the engine does not answer");
        return Ok(());
    }
    make_image()?;
    let task = json!({"image": IMAGE, "command": "sleep", "args": ["60"]});
    let (mut bare, mut own) = (Vec::new(), Vec::new());
    for round in 0..options.containers + WARM_UP {
        let engine_took = start_container(&engine).await.map_err(|error| error.to_string())?;
        let took = start(driver, &task).await?;
        if round >= WARM_UP {
            bare.push(engine_took);
            own.push(took);
        }
    }
    let ratio = (percentile(&own, 0.5) / percentile(&bare, 0.5) - 1.0) * 100.0;
    println!("  engine API  {}", summary(&bare, 0));
    println!("  docker      {}   {ratio:+.1} % (goal 5 %)", summary(&own, 0));
    let _ = Command::new("docker").args(["image", "rm", "-f", IMAGE]).output();
    Ok(())
}

/// What a client that talks to the engine itself has to do.
async fn start_container(engine: &Docker) -> Result<f64, bollard::errors::Error> {
    let name = format!("herder-bench-{}", uuid::Uuid::new_v4());
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(vec!["sleep".to_owned(), "60".to_owned()]),
        ..ContainerCreateBody::default()
    };
    let begun = Instant::now();
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    engine.create_container(Some(options), body).await?;
    engine.start_container(&name, None::<StartContainerOptions>).await?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    engine.remove_container(&name, Some(force)).await?;
    Ok(took)
}

/// An image of busybox alone, so that nothing has to be downloaded.
fn make_image() -> Result<(), String> {
    let script = format!(
        "set -e; dir=$(mktemp -d); trap 'rm -rf $dir' EXIT; mkdir $dir/bin; cp /bin/busybox $dir/bin/busybox; \
         ln -s busybox $dir/bin/sleep; tar -C $dir -c bin | docker import --change 'ENV PATH=/bin' - {IMAGE}"
    );
    let made = Command::new("sh").args(["-c", &script]).output().map_err(|error| error.to_string())?;
    if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}
