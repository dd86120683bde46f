//! A driver plugin to learn from, and the one that the tests run: tasks are plain processes. It shows every call of the
//! protocol. Put the program into the agent's `plugin_dir`; the job file then says `driver = "sample"`.
//!
//! Options of the plugin: `unhealthy_file` (while that file exists the driver is unhealthy). Options of a task:
//! `command`, `args`, and for jobs written for other drivers `image`, `pot`, `tag`, `network_mode`, `port_map`, `mount`,
//! `copy`, which only show up in the task's environment, and `address`: where the task
//! is to be found. With the argument `--name x` the driver is called `x`, with `--network` it makes the networks of its
//! tasks' groups itself.
#![expect(clippy::print_stdout, reason = "the first line of a plugin says where it listens")]

mod network;
mod service;
mod watch;

use std::error::Error;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use herder::drivers::plugin::proto::grpc::health::v1::health_server::HealthServer;
use herder::drivers::plugin::proto::hashicorp::nomad::plugins::base::proto::base_plugin_server::BasePluginServer;
use herder::drivers::plugin::proto::hashicorp::nomad::plugins::drivers::proto::driver_server::DriverServer;
use herder::drivers::plugin::proto::plugin::grpc_controller_server::GrpcControllerServer;

use service::Sample;

/// Only a host of plugins knows it; whoever starts the program by hand gets a hint instead.
const COOKIE: (&str, &str) =
    ("NOMAD_PLUGIN_MAGIC_COOKIE", "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255");

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == watch::ARGUMENT) {
        return watch::main(&args[1..]);
    }
    if std::env::var(COOKIE.0).is_ok_and(|cookie| cookie == COOKIE.1) {
        let name = args.iter().skip_while(|arg| *arg != "--name").nth(1);
        let makes_networks = args.iter().any(|arg| arg == "--network");
        return serve(name.map_or("sample", String::as_str), makes_networks);
    }
    Err("this is a driver plugin: put it into the agent's plugin_dir instead of starting it".into())
}

#[tokio::main(flavor = "current_thread")]
async fn serve(name: &str, makes_networks: bool) -> Result<(), Box<dyn Error>> {
    let dir = std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").map_or_else(std::env::temp_dir, Into::into);
    let socket = dir.join(format!("sample-{}", std::process::id()));
    let listener = UnixListener::bind(&socket)?;
    let sample = Sample::new(name, makes_networks);
    let ended = sample.ended();
    println!("1|2|unix|{}|grpc", socket.display());
    Server::builder()
        .add_service(HealthServer::new(sample.clone()))
        .add_service(GrpcControllerServer::new(sample.clone()))
        .add_service(BasePluginServer::new(sample.clone()))
        .add_service(DriverServer::new(sample))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), ended)
        .await?;
    std::fs::remove_file(socket)?;
    Ok(())
}
