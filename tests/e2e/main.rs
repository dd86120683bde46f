//! The built program against real things: etcd, docker, java, processes. Everything a test starts is ended.

mod cluster;
#[path = "../support/consul.rs"]
#[expect(dead_code, reason = "shared with the unit tests, which use all of it")]
mod consul;
mod docker;
#[path = "../support/etcd.rs"]
#[expect(dead_code, reason = "shared with the store's tests, which use all of it")]
mod etcd;
mod identity;
mod isolated;
mod network;
mod people;
mod plugin;
mod runtime;
mod service;
mod support;
mod templates;
mod traps;
mod tutorial;
