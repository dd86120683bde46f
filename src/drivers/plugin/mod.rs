//! Drivers that are programs of their own, over the protocol of Nomad's driver plugins: the agent starts every
//! executable file of its plugin directory, talks gRPC with it, and starts it anew when it ends. Tasks belong to the
//! plugin; their output is kept by a process of ours that outlives both.

mod driver;
mod keeper;
mod launch;
mod output;
mod schema;
mod session;
mod task;
mod types;

/// The protocol's messages and services, made from the descriptions in `proto/`.
#[expect(clippy::allow_attributes, clippy::doc_markdown, reason = "generated code")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/plugin_protocol.rs"));
}

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;
use serde_json::Map;
use serde_json::Value;

use self::driver::PluginDriver;
use self::keeper::Keeper;
use self::launch::Launch;

use super::Driver;
use super::Drivers;
use super::supervisor::Supervisor;

/// Why a plugin cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin}: {why}")]
pub struct PluginError {
    pub(crate) plugin: String,
    /// Without the plugin's name.
    pub(crate) why: String,
}

/// What the agent's configuration says about plugins.
#[derive(Clone, Debug, Default)]
pub struct PluginOptions {
    /// Every executable file in it is a plugin.
    pub dir: PathBuf,
    /// Where sockets and the plugins' names are kept; belongs to one agent.
    pub state: PathBuf,
    /// Ports for plugins that listen on one; inclusive.
    pub ports: (u16, u16),
    /// Arguments and configuration by file name.
    pub configured: BTreeMap<String, (Vec<String>, Map<String, Value>)>,
    /// Keeps the output of tasks.
    pub supervisor: Supervisor,
}

/// Starts all plugins, and returns the drivers that they are. One that does not start now is there as well, unhealthy,
/// and is tried again; what it is called is remembered from earlier times.
pub async fn discover(options: &PluginOptions) -> Drivers {
    let files = match executables(&options.dir) {
        Ok(files) => files,
        Err(error) => {
            tracing::error!(dir = %options.dir.display(), %error, "cannot look for plugins");
            return Drivers::new();
        }
    };
    if files.is_empty() {
        return Drivers::new();
    }
    let sockets = options.state.join("sockets");
    if let Err(error) = empty_directory(&sockets) {
        tracing::warn!(dir = %sockets.display(), %error, "plugins put their sockets where they like");
    }
    let names_file = options.state.join("names.json");
    let names = read_names(&names_file);
    let starts = files.into_iter().map(|file| {
        let launch = Launch { file, sockets: sockets.clone(), ports: options.ports, ..Launch::default() };
        start(options, launch, &names)
    });
    let mut drivers = Drivers::new();
    let mut fresh_names = BTreeMap::new();
    for (file, driver) in join_all(starts).await {
        let name = driver.name().to_owned();
        fresh_names.insert(file.clone(), name.clone());
        match drivers.entry(name) {
            Entry::Vacant(place) => {
                place.insert(driver);
            }
            Entry::Occupied(taken) => {
                let name = taken.key();
                tracing::error!(plugin = %file, driver = %name, "left out: another plugin is this driver already");
                driver.close().await;
            }
        }
    }
    if fresh_names != names
        && let Err(error) = serde_json::to_vec(&fresh_names)
            .map_err(io::Error::other)
            .and_then(|text| fs::write(&names_file, text))
    {
        tracing::warn!(file = %names_file.display(), %error, "cannot remember which plugin is which driver");
    }
    drivers
}

async fn start(
    options: &PluginOptions,
    mut launch: Launch,
    names: &BTreeMap<String, String>,
) -> (String, Arc<dyn Driver>) {
    let file = launch.name();
    let (args, config) = options.configured.get(&file).cloned().unwrap_or_default();
    launch.args = args;
    let remembered = names.get(&file).cloned().unwrap_or_else(|| file.clone());
    let (keeper, keeping) = Keeper::start(launch, config, remembered).await;
    let name = keeper.about().name.clone();
    let driver = PluginDriver::new(name, (keeper, keeping), options.supervisor.clone());
    (file, Arc::new(driver))
}

/// The executable files of a directory, by name.
fn executables(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // Follows links: plugins are often installed elsewhere.
        let executable =
            |metadata: fs::Metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
        if fs::metadata(&path).is_ok_and(executable) {
            files.push(path);
        } else {
            tracing::debug!(path = %path.display(), "not a plugin: it cannot be executed");
        }
    }
    files.sort();
    Ok(files)
}

/// Sockets of plugins that an earlier agent started are of no use.
fn empty_directory(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

fn read_names(file: &Path) -> BTreeMap<String, String> {
    fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}
