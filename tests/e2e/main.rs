//! The built program against real things: etcd, docker, java, processes. Everything a test starts is ended.

mod cluster;
mod docker;
#[path = "../support/etcd.rs"]
#[expect(dead_code, reason = "shared with the store's tests, which use all of it")]
mod etcd;
mod isolated;
mod people;
mod service;
mod support;
