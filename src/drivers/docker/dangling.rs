//! Finds containers of this agent that no task knows: left behind when the agent was killed between making one and
//! noting that it did, or when its state was lost.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use bollard::Docker as Client;
use bollard::query_parameters::ListContainersOptionsBuilder;
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use chrono::DateTime;
use parking_lot::Mutex;

use super::DockerOptions;
use super::config::ROOT_LABEL;
use super::cores::CoreKeeper;
use super::words;

/// Ids of the containers that tasks know.
pub(super) type Known = Arc<Mutex<BTreeSet<String>>>;

/// Looks again and again, for ever. The first look comes after one period: by then a new agent has found its tasks.
pub(super) async fn sweep(
    options: DockerOptions,
    known: Known,
    cores: Arc<CoreKeeper>,
    connect: impl Fn() -> Option<Client>,
) {
    loop {
        tokio::time::sleep(options.gc.dangling_period).await;
        if !options.gc.dangling_dry_run {
            cores.sweep(&options.alloc_root, options.gc.dangling_grace);
        }
        if let Some(client) = connect()
            && let Err(error) = sweep_once(&options, &known, &client).await
        {
            tracing::debug!(error = %words(&error), "cannot look for containers that were left behind");
        }
    }
}

async fn sweep_once(
    options: &DockerOptions,
    known: &Known,
    client: &Client,
) -> Result<(), bollard::errors::Error> {
    let ours = format!("{ROOT_LABEL}={}", options.alloc_root.display());
    let filters = HashMap::from([("label", vec![ours.as_str()])]);
    let list = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let grace = i64::try_from(options.gc.dangling_grace.as_secs()).unwrap_or(i64::MAX);
    // By Docker's clock, as the times of containers are.
    let now = client.info().await?.system_time.and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    let Some(now) = now.map(|time| time.timestamp()) else { return Ok(()) };
    for container in client.list_containers(Some(list)).await? {
        let Some(id) = container.id else { continue };
        let age = now - container.created.unwrap_or(now);
        if known.lock().contains(&id) || age < grace {
            continue;
        }
        let name = container.names.unwrap_or_default().join(" ");
        if options.gc.dangling_dry_run {
            tracing::info!(container = %id, %name, "would remove a container that no task knows");
            continue;
        }
        tracing::info!(container = %id, %name, "removing a container that no task knows");
        let remove = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        if let Err(error) = client.remove_container(&id, Some(remove)).await {
            tracing::warn!(container = %id, error = %words(&error), "cannot remove it");
        }
    }
    Ok(())
}
