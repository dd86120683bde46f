//! Namespaces that the driver makes itself when it is started with `--network`: each belongs to a process that does
//! nothing else.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use herder::drivers::plugin::proto::hashicorp::nomad::plugins::drivers::proto as driver;
use herder::drivers::process::Process;
use nix::sys::signal::Signal;
use tonic::Status;

/// Under which the process is remembered by the host.
const HOLDER: &str = "holder";
/// How often it is looked whether the process has its namespace.
const LOOK: Duration = Duration::from_millis(10);

fn failed(error: impl std::fmt::Display) -> Status {
    Status::unknown(error.to_string())
}

/// Starts a process in a namespace of its own.
pub async fn make(hostname: &str) -> Result<driver::NetworkIsolationSpec, Status> {
    // The name goes along for whoever looks at the process.
    let script = "ip link set lo up; exec sleep infinity";
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", script, "network-of-sample", hostname])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let holder = Process::of_pid(i32::try_from(child.id()).map_err(failed)?).map_err(failed)?;
    std::thread::spawn(move || drop(child.wait()));
    let path = format!("/proc/{}/ns/net", holder.pid);
    let outside = fs::read_link("/proc/self/ns/net").map_err(failed)?;
    while fs::read_link(&path).map_err(failed)? == outside {
        if !holder.exists() {
            return Err(failed("cannot make a network namespace"));
        }
        tokio::time::sleep(LOOK).await;
    }
    let holder = serde_json::to_string(&holder).map_err(failed)?;
    Ok(driver::NetworkIsolationSpec {
        mode: driver::network_isolation_spec::Mode::Group.into(),
        path,
        labels: HashMap::from([(HOLDER.to_owned(), holder)]).into_iter().collect(),
        hosts_config: None,
    })
}

/// Ends the process; the namespace goes with its last user.
pub fn remove(spec: &driver::NetworkIsolationSpec) -> Result<(), Status> {
    if let Some(holder) = spec.labels.get(HOLDER) {
        let holder: Process = serde_json::from_str(holder).map_err(failed)?;
        holder.signal(Signal::SIGKILL);
    }
    Ok(())
}
