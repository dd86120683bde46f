//! Makes Rust of the plugin protocol's descriptions. Nothing has to be installed for it.

use std::error::Error;

const PROTO: &str = "src/drivers/plugin/proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let files = ["framework.proto", "health.proto", "base.proto", "driver.proto"];
    let described = protox::compile(files, [PROTO])?;
    tonic_prost_build::configure()
        .btree_map(".")
        // One file with a module per package, so that references across packages resolve.
        .include_file("plugin_protocol.rs")
        .compile_fds(described)?;
    Ok(())
}
