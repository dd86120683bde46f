//! The options of each built-in driver.

use super::Kind::Block;
use super::Kind::Flag;
use super::Kind::Map;
use super::Kind::Number;
use super::Kind::NumberMap;
use super::Kind::Text;
use super::Kind::Texts;
use super::Opt;
use super::opt;
use super::required;
use super::rules;

/// Every built-in driver and its options.
pub(super) const DRIVERS: &[(&str, &[Opt])] = &[
    ("docker", DOCKER),
    ("exec", EXEC),
    ("raw_exec", RAW_EXEC),
    ("java", JAVA),
    ("qemu", QEMU),
    ("mock_driver", MOCK),
];

const DOCKER: &[Opt] = &[
    required("image", Text).with(rules::not_empty),
    opt("advertise_ipv6_address", Flag),
    opt("args", Texts),
    opt(
        "auth",
        Block(&[
            opt("username", Text),
            opt("password", Text),
            opt("email", Text),
            opt("server_address", Text),
        ]),
    ),
    opt("auth_soft_fail", Flag),
    opt("cap_add", Texts),
    opt("cap_drop", Texts),
    opt("command", Text).with(rules::command),
    opt("container_exists_attempts", Number),
    opt("cpu_cfs_period", Number).with(rules::cfs_period),
    opt("cpu_hard_limit", Flag),
    opt("cpuset_cpus", Text),
    opt("devices", Block(DOCKER_DEVICE)),
    opt("dns_options", Texts),
    opt("dns_search_domains", Texts),
    opt("dns_servers", Texts),
    opt("entrypoint", Texts),
    opt("extra_hosts", Texts),
    opt("force_pull", Flag),
    opt("group_add", Texts),
    opt("healthchecks", Block(&[opt("disable", Flag)])),
    opt("hostname", Text),
    opt("image_pull_timeout", Text).with(rules::duration),
    opt("init", Flag),
    opt("interactive", Flag),
    opt("ipc_mode", Text),
    opt("ipv4_address", Text),
    opt("ipv6_address", Text),
    opt("isolation", Text).with(rules::docker_isolation),
    opt("labels", Map),
    opt("load", Text),
    opt("logging", Block(&[opt("type", Text), opt("driver", Text), opt("config", Map)])),
    opt("mac_address", Text),
    opt("memory_hard_limit", Number).with(rules::not_negative),
    opt("mount", Block(DOCKER_MOUNT)),
    opt("mounts", Block(DOCKER_MOUNT)),
    opt("network_aliases", Texts),
    opt("network_mode", Text),
    opt("oom_score_adj", Number).with(rules::score),
    opt("pid_mode", Text),
    opt("pids_limit", Number),
    opt("port_map", NumberMap).with(rules::ports),
    opt("ports", Texts),
    opt("privileged", Flag),
    opt("readonly_rootfs", Flag),
    opt("runtime", Text),
    opt("security_opt", Texts),
    opt("shm_size", Number).with(rules::not_negative),
    opt("storage_opt", Map),
    opt("sysctl", Map),
    opt("tty", Flag),
    opt("ulimit", Map).with(rules::ulimits),
    opt("userns_mode", Text),
    opt("uts_mode", Text),
    opt("volume_driver", Text),
    opt("volumes", Texts),
    opt("work_dir", Text),
];

const DOCKER_DEVICE: &[Opt] = &[
    required("host_path", Text),
    opt("container_path", Text),
    opt("cgroup_permissions", Text).with(rules::device_permissions),
];

const DOCKER_MOUNT: &[Opt] = &[
    opt("type", Text).with(rules::mount_type),
    required("target", Text),
    opt("source", Text),
    opt("readonly", Flag),
    opt("bind_options", Block(&[opt("propagation", Text).with(rules::propagation)])),
    opt("tmpfs_options", Block(&[opt("size", Number), opt("mode", Number)])),
    opt(
        "volume_options",
        Block(&[
            opt("no_copy", Flag),
            opt("labels", Map),
            opt("driver_config", Block(&[opt("name", Text), opt("options", Map)])),
        ]),
    ),
];

const EXEC: &[Opt] = &[
    required("command", Text).with(rules::not_empty),
    opt("args", Texts),
    opt("pid_mode", Text).with(rules::isolation),
    opt("ipc_mode", Text).with(rules::isolation),
    opt("cap_add", Texts),
    opt("cap_drop", Texts),
    opt("work_dir", Text).with(rules::absolute),
];

const RAW_EXEC: &[Opt] = &[
    required("command", Text).with(rules::not_empty),
    opt("args", Texts),
    opt("cgroup_v2_override", Text),
    opt("cgroup_v1_override", Map),
    opt("oom_score_adj", Number).with(rules::positive_score),
    opt("work_dir", Text).with(rules::absolute),
];

const JAVA: &[Opt] = &[
    opt("class", Text),
    opt("class_path", Text),
    opt("jar_path", Text),
    opt("jvm_options", Texts),
    opt("args", Texts),
    opt("pid_mode", Text).with(rules::isolation),
    opt("ipc_mode", Text).with(rules::isolation),
    opt("cap_add", Texts),
    opt("cap_drop", Texts),
    opt("work_dir", Text).with(rules::absolute),
];

const QEMU: &[Opt] = &[
    required("image_path", Text).with(rules::not_empty),
    opt("drive_interface", Text).with(rules::drive_interface),
    opt("accelerator", Text).with(rules::accelerator),
    opt("graceful_shutdown", Flag),
    opt("guest_agent", Flag),
    opt("args", Texts),
    opt("port_map", NumberMap).with(rules::ports),
];

const MOCK: &[Opt] = &[
    opt("run_for", Text).with(rules::duration),
    opt("exit_code", Number),
    opt("exit_signal", Number),
    opt("exit_err_msg", Text),
    opt("signal_error", Text),
    opt("start_error", Text),
    opt("start_error_recoverable", Flag),
    opt("start_block_for", Text).with(rules::duration),
    opt("kill_after", Text).with(rules::duration),
    opt("plugin_exit_after", Text).with(rules::duration),
    opt("driver_ip", Text),
    opt("driver_advertise", Flag),
    opt("driver_port_map", Text),
    opt("stdout_string", Text),
    opt("stdout_repeat", Number),
    opt("stdout_repeat_duration", Text).with(rules::duration),
    opt("stderr_string", Text),
    opt("stderr_repeat", Number),
    opt("stderr_repeat_duration", Text).with(rules::duration),
    opt("exec_command", Block(MOCK_EXEC)),
];

const MOCK_EXEC: &[Opt] = &[
    opt("run_for", Text).with(rules::duration),
    opt("exit_code", Number),
    opt("exit_signal", Number),
    opt("exit_err_msg", Text),
    opt("stdout_string", Text),
    opt("stdout_repeat", Number),
    opt("stdout_repeat_duration", Text).with(rules::duration),
    opt("stderr_string", Text),
    opt("stderr_repeat", Number),
    opt("stderr_repeat_duration", Text).with(rules::duration),
];
