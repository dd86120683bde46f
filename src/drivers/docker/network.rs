//! Containers in the network namespace of their group. Docker joins containers to other containers only, so one that
//! does nothing joins the namespace first, and the tasks' containers join it. The namespace itself belongs to the
//! agent: when Docker restarts and its containers end, the next one joins the same namespace again.

use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::models::ContainerCreateBody;
use bollard::models::HostConfig;
use bollard::models::Mount;
use bollard::models::MountType;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::query_parameters::InspectContainerOptions;
use bollard::query_parameters::StartContainerOptions;
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use futures::StreamExt;
use serde_json::Map;

use crate::drivers::DriverError;
use crate::drivers::Progress;
use crate::drivers::TaskConfig;
use crate::drivers::options::Options;
use crate::model::id::AllocId;

use super::Docker;
use super::auth;
use super::config;
use super::images::Pull;
use super::pause;
use super::status;
use super::words;

/// Of the image that is made here.
const REPOSITORY: &str = "herder/pause";
const TAG: &str = "1";
/// Marks the containers that hold namespaces; the value is the allocation's id.
const LABEL: &str = "dev.herder.network";
/// How long such a container may take to join its namespace.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
const JOIN_PAUSE: Duration = Duration::from_millis(5);

/// The container that holds the namespace of an allocation for Docker; named as Nomad's is.
pub(super) fn holder(alloc: AllocId) -> String {
    format!("nomad_init_{alloc}")
}

/// Whether the task's container joins its group's namespace: a network mode of its own comes first.
fn joins(task: &TaskConfig) -> bool {
    task.network_namespace.is_some() && task.config.text("network_mode").is_empty()
}

/// Fits a container into the network of its group: what Docker does not give to a container in another's network
/// comes from files of the task.
///
/// # Errors
/// A file cannot be written.
pub(super) fn adapt(body: &mut ContainerCreateBody, task: &TaskConfig) -> Result<(), DriverError> {
    let Some(host) = &mut body.host_config else { return Ok(()) };
    let mut files: Vec<_> = task.network_files.places().collect();
    if joins(task) {
        if let (Some(more), Some(hosts)) = (host.extra_hosts.take(), &task.network_files.hosts) {
            let written = add_hosts(hosts, &more);
            written.map_err(|error| {
                DriverError::Recoverable(format!("cannot write {}: {error}", hosts.display()))
            })?;
        }
    } else {
        // Its own network has other addresses than the group's.
        files.retain(|(_, place)| *place != "/etc/hosts");
    }
    let binds = host.binds.get_or_insert_default();
    binds.extend(files.iter().map(|(from, to)| format!("{}:{to}", from.display())));
    Ok(())
}

/// Adds `name:address` entries, as Docker writes them, to the file of names.
fn add_hosts(file: &Path, more: &[String]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().append(true).open(file)?;
    for entry in more {
        if let Some((name, address)) = entry.split_once(':') {
            writeln!(file, "{address} {name}")?;
        }
    }
    Ok(())
}

/// Identifies a namespace.
fn identity(path: impl AsRef<Path>) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The first process of a container is in this namespace.
async fn is_in(client: &Client, container: &str, namespace: &Path) -> Option<bool> {
    let found = client.inspect_container(container, None::<InspectContainerOptions>).await.ok()?;
    let state = found.state?;
    let pid = state.pid.filter(|pid| *pid > 0 && state.running == Some(true))?;
    Some(identity(format!("/proc/{pid}/ns/net")) == identity(namespace))
}

impl Docker {
    /// Makes sure that the task's container finds its group's namespace, if it is to join it.
    ///
    /// # Errors
    /// Docker does not answer, or this machine cannot do it.
    pub(super) async fn hold_network(&self, task: &TaskConfig) -> Result<(), DriverError> {
        let Some(namespace) = task.network_namespace.as_deref().filter(|_| joins(task)) else {
            return Ok(());
        };
        let client = self.client()?;
        let name = holder(task.id.alloc);
        // Tasks of one group start at the same time.
        let _turn = self.holding.lock().await;
        if is_in(&client, &name, namespace).await == Some(true) {
            return Ok(());
        }
        self.discard(&name).await?;
        let image = self.holder_image(&client).await?;
        let failed = |error| DriverError::Recoverable(format!("cannot hold the network for docker: {error}"));
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let own = self.options.infra_image.is_empty();
        let body = body(task, namespace, image, own);
        client.create_container(Some(options), body).await.map_err(|error| failed(words(&error)))?;
        if !own {
            let place = UploadToContainerOptionsBuilder::default().path("/").build();
            let content = bollard::body_full(for_this_machine(pause::addition)?.into());
            let put = client.upload_to_container(&name, Some(place), content).await;
            put.map_err(|error| failed(words(&error)))?;
        }
        let started = client.start_container(&name, None::<StartContainerOptions>).await;
        started.map_err(|error| failed(words(&error)))?;
        let joined = async {
            while let Some(joined) = is_in(&client, &name, namespace).await {
                if joined {
                    return Ok(());
                }
                tokio::time::sleep(JOIN_PAUSE).await;
            }
            Err(failed(format!("container {name} could not join {}", namespace.display())))
        };
        let late = failed(format!("container {name} has not joined {}", namespace.display()));
        tokio::time::timeout(JOIN_LIMIT, joined).await.unwrap_or(Err(late))
    }

    /// Makes sure that a started container is where it must be: there are ways to set up Docker in which it is not.
    ///
    /// # Errors
    /// It is in another namespace. A container that has ended already gives none.
    pub(super) async fn check_network(&self, task: &TaskConfig, container: &str) -> Result<(), DriverError> {
        let Some(namespace) = task.network_namespace.as_deref().filter(|_| joins(task)) else {
            return Ok(());
        };
        match is_in(&self.client()?, container, namespace).await {
            Some(false) => Err(DriverError::Recoverable(format!(
                "docker did not put the container into the network namespace {}",
                namespace.display()
            ))),
            Some(true) | None => Ok(()),
        }
    }

    /// The image of the container that holds a namespace: the one that is configured, or ours.
    async fn holder_image(&self, client: &Client) -> Result<String, DriverError> {
        let configured = config::with_tag(&self.options.infra_image);
        let own = configured.is_empty();
        let image = if own { format!("{REPOSITORY}:{TAG}") } else { configured };
        match client.inspect_image(&image).await {
            Ok(_) => return Ok(image),
            Err(error) if status(&error) == Some(404) => {}
            Err(error) => return Err(DriverError::Recoverable(words(&error))),
        }
        if own {
            make_image(client, &image).await?;
        } else {
            self.pull_infra(&image).await?;
        }
        Ok(image)
    }

    async fn pull_infra(&self, image: &str) -> Result<(), DriverError> {
        let credentials = auth::find(&self.options, &Map::new(), image).await.map_err(|error| {
            DriverError::Recoverable(format!("Failed to find docker auth for infra_image {image:?}: {error}"))
        })?;
        let limit = self.options.infra_image_pull_timeout;
        let pull = Pull {
            client: self.connection.client(limit.as_secs() + 1)?,
            image: image.to_owned(),
            credentials,
            activity_limit: self.options.pull_activity_timeout,
        };
        let name = image.to_owned();
        let progress: Progress = Arc::new(move |text| tracing::info!(infra_image = %name, "{text}"));
        let pulled = self.images.pull(pull, limit, &progress).await;
        pulled.map_err(|why| DriverError::Recoverable(format!("Failed to pull infra_image `{image}`: {why}")))
    }
}

/// The program that joins a namespace, as `pack` packs it.
fn for_this_machine(pack: fn(&str) -> Option<Vec<u8>>) -> Result<Vec<u8>, DriverError> {
    let arch = std::env::consts::ARCH;
    pack(arch).ok_or_else(|| {
        DriverError::Fatal(format!("docker tasks cannot join their group's network on {arch}"))
    })
}

async fn make_image(client: &Client, image: &str) -> Result<(), DriverError> {
    let content = for_this_machine(pause::image)?;
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(REPOSITORY).tag(TAG).build();
    let mut import =
        Box::pin(client.create_image(Some(options), Some(bollard::body_full(content.into())), None));
    while let Some(step) = import.next().await {
        step.map_err(|error| {
            DriverError::Recoverable(format!("cannot make image {image}: {}", words(&error)))
        })?;
    }
    Ok(())
}

/// The container that holds a namespace; its image is our `own`, or has to be given the program.
fn body(task: &TaskConfig, namespace: &Path, image: String, own: bool) -> ContainerCreateBody {
    let mount = Mount {
        typ: Some(MountType::BIND),
        source: Some(namespace.display().to_string()),
        target: Some(pause::NAMESPACE.to_owned()),
        ..Mount::default()
    };
    ContainerCreateBody {
        image: Some(image),
        // Whatever the image would run, this container waits.
        cmd: Some(Vec::new()),
        user: Some("0:0".to_owned()),
        entrypoint: Some(vec![pause::PROGRAM.to_owned()]),
        // Containers that join this one get its hostname.
        hostname: Some(task.network_files.hostname.clone()).filter(|name| !name.is_empty()),
        labels: Some([(LABEL.to_owned(), task.id.alloc.to_string())].into()),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            mounts: Some(vec![mount]),
            // To change the namespace. The program does nothing else, and nobody can run another in its container.
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(vec!["SYS_ADMIN".to_owned()]),
            userns_mode: Some("host".to_owned()),
            readonly_rootfs: Some(own),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}
