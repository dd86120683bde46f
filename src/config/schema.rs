//! The keys that a configuration file may hold, and how later files go over earlier ones.

use serde_json::Map;
use serde_json::Value;

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number, a text, a duration, a list of them.
    Scalar,
    /// A boolean that a later file can only turn on.
    Flag,
    /// A list that later files add to.
    Adding,
    /// Free keys, merged one by one.
    Map,
    /// A block with these keys.
    Block(&'static [(&'static str, Kind)]),
    /// Blocks with a label; each with these keys.
    Labelled(&'static [(&'static str, Kind)]),
    /// Anything: accepted, not looked at.
    Any,
}

use Kind::Adding;
use Kind::Any;
use Kind::Block;
use Kind::Flag;
use Kind::Labelled;
use Kind::Scalar;

const HOSTS: Kind = Block(&[("http", Scalar), ("rpc", Scalar), ("serf", Scalar)]);

/// The keys of a whole file.
pub const FILE: &[(&str, Kind)] = &[
    ("region", Scalar),
    ("datacenter", Scalar),
    ("name", Scalar),
    ("data_dir", Scalar),
    ("plugin_dir", Scalar),
    ("bind_addr", Scalar),
    ("ports", HOSTS),
    ("addresses", HOSTS),
    ("advertise", HOSTS),
    ("log_level", Scalar),
    ("log_json", Flag),
    ("log_include_location", Flag),
    ("log_file", Scalar),
    ("log_rotate_duration", Scalar),
    ("log_rotate_bytes", Scalar),
    ("log_rotate_max_files", Scalar),
    ("enable_syslog", Flag),
    ("syslog_facility", Scalar),
    ("enable_debug", Flag),
    ("leave_on_interrupt", Flag),
    ("leave_on_terminate", Flag),
    ("disable_update_check", Scalar),
    ("disable_anonymous_signature", Flag),
    ("http_api_response_headers", Kind::Map),
    ("limits", Any),
    ("server", Block(SERVER)),
    ("client", Block(CLIENT)),
    ("acl", Block(ACL)),
    ("tls", Block(TLS)),
    ("telemetry", Block(TELEMETRY)),
    ("plugin", Labelled(&[("args", Scalar), ("config", Any)])),
    ("etcd", Block(ETCD)),
    ("consul", Block(CONSUL)),
    ("vault", Any),
    ("ui", Any),
    ("autopilot", Any),
    ("audit", Any),
    ("sentinel", Any),
    ("reporting", Any),
    ("keyring", Any),
    ("license", Any),
    ("rpc", Any),
    ("eventlog", Any),
];

const ETCD: &[(&str, Kind)] = &[
    ("endpoints", Scalar),
    ("root", Scalar),
    ("user", Scalar),
    ("password", Scalar),
    ("ca_file", Scalar),
    ("cert_file", Scalar),
    ("key_file", Scalar),
];

const CONSUL: &[(&str, Kind)] = &[
    ("name", Scalar),
    ("address", Scalar),
    ("auth", Scalar),
    ("token", Scalar),
    ("ssl", Flag),
    ("verify_ssl", Flag),
    ("share_ssl", Scalar),
    ("ca_file", Scalar),
    ("cert_file", Scalar),
    ("key_file", Scalar),
    ("namespace", Scalar),
    ("timeout", Scalar),
    ("grpc_address", Scalar),
    ("grpc_ca_file", Scalar),
    ("tags", Scalar),
    ("auto_advertise", Scalar),
    ("checks_use_advertise", Scalar),
    ("server_service_name", Scalar),
    ("server_http_check_name", Scalar),
    ("server_serf_check_name", Scalar),
    ("server_rpc_check_name", Scalar),
    ("server_failures_before_critical", Scalar),
    ("server_failures_before_warning", Scalar),
    ("client_service_name", Scalar),
    ("client_http_check_name", Scalar),
    ("client_failures_before_critical", Scalar),
    ("client_failures_before_warning", Scalar),
    ("server_auto_join", Scalar),
    ("client_auto_join", Scalar),
    ("allow_unauthenticated", Scalar),
    ("service_auth_method", Scalar),
    ("task_auth_method", Scalar),
    ("service_identity", Any),
    ("task_identity", Any),
];

const SERVER: &[(&str, Kind)] = &[
    ("enabled", Flag),
    ("bootstrap_expect", Scalar),
    ("authoritative_region", Scalar),
    ("data_dir", Scalar),
    ("encrypt", Scalar),
    ("rejoin_after_leave", Flag),
    ("num_schedulers", Scalar),
    ("enabled_schedulers", Adding),
    ("node_gc_threshold", Scalar),
    ("job_gc_interval", Scalar),
    ("job_gc_threshold", Scalar),
    ("eval_gc_threshold", Scalar),
    ("batch_eval_gc_threshold", Scalar),
    ("deployment_gc_threshold", Scalar),
    ("csi_volume_claim_gc_interval", Scalar),
    ("csi_volume_claim_gc_threshold", Scalar),
    ("csi_plugin_gc_threshold", Scalar),
    ("acl_token_gc_threshold", Scalar),
    ("root_key_gc_interval", Scalar),
    ("root_key_gc_threshold", Scalar),
    ("root_key_rotation_threshold", Scalar),
    ("heartbeat_grace", Scalar),
    ("min_heartbeat_ttl", Scalar),
    ("failover_heartbeat_ttl", Scalar),
    ("max_heartbeats_per_second", Scalar),
    ("raft_protocol", Scalar),
    ("raft_multiplier", Scalar),
    ("raft_boltdb", Any),
    ("raft_logstore", Any),
    ("raft_snapshot_threshold", Scalar),
    ("raft_snapshot_interval", Scalar),
    ("raft_trailing_logs", Scalar),
    ("enable_event_broker", Scalar),
    ("event_buffer_size", Scalar),
    ("deploy_query_rate_limit", Scalar),
    ("job_default_priority", Scalar),
    ("job_max_priority", Scalar),
    ("job_max_count", Scalar),
    ("job_max_source_size", Scalar),
    ("job_tracked_versions", Scalar),
    ("oidc_issuer", Scalar),
    ("license_path", Scalar),
    ("license_env", Scalar),
    ("non_voting_server", Flag),
    ("redundancy_zone", Scalar),
    ("upgrade_version", Scalar),
    ("protocol_version", Scalar),
    ("plan_rejection_tracker", Any),
    ("search", Any),
    ("default_scheduler_config", Block(SCHEDULER)),
    ("server_join", Any),
    ("start_join", Adding),
    ("retry_join", Adding),
    ("retry_interval", Scalar),
    ("retry_max", Scalar),
    ("client_introduction", Any),
    ("plan_apply_pipeline", Scalar),
    ("start_timeout", Scalar),
];

const SCHEDULER: &[(&str, Kind)] = &[
    ("scheduler_algorithm", Scalar),
    ("memory_oversubscription_enabled", Scalar),
    ("reject_job_registration", Scalar),
    ("pause_eval_broker", Scalar),
    ("preemption_config", Block(PREEMPTION)),
];
const PREEMPTION: &[(&str, Kind)] = &[
    ("system_scheduler_enabled", Scalar),
    ("sysbatch_scheduler_enabled", Scalar),
    ("batch_scheduler_enabled", Scalar),
    ("service_scheduler_enabled", Scalar),
];

const CLIENT: &[(&str, Kind)] = &[
    ("enabled", Flag),
    ("servers", Adding),
    ("server_join", Any),
    ("state_dir", Scalar),
    ("alloc_dir", Scalar),
    ("alloc_mounts_dir", Scalar),
    ("host_volumes_dir", Scalar),
    ("host_volume_plugin_dir", Scalar),
    ("common_plugin_dir", Scalar),
    ("node_class", Scalar),
    ("node_pool", Scalar),
    ("meta", Kind::Map),
    ("options", Kind::Map),
    ("stats", Any),
    ("network_interface", Scalar),
    ("preferred_address_family", Scalar),
    ("network_speed", Scalar),
    ("cpu_total_compute", Scalar),
    ("memory_total_mb", Scalar),
    ("disk_total_mb", Scalar),
    ("disk_free_mb", Scalar),
    ("reservable_cores", Scalar),
    ("cpu_disable_dmidecode", Flag),
    ("reserved", Block(RESERVED)),
    ("min_dynamic_port", Scalar),
    ("max_dynamic_port", Scalar),
    ("client_min_port", Scalar),
    ("client_max_port", Scalar),
    ("max_kill_timeout", Scalar),
    ("no_host_uuid", Scalar),
    ("disable_remote_exec", Flag),
    ("gc_interval", Scalar),
    ("gc_disk_usage_threshold", Scalar),
    ("gc_inode_usage_threshold", Scalar),
    ("gc_max_allocs", Scalar),
    ("gc_parallel_destroys", Scalar),
    ("gc_volumes_on_node_gc", Flag),
    ("node_max_allocs", Scalar),
    ("default_ineligible", Flag),
    ("cni_path", Scalar),
    ("cni_config_dir", Scalar),
    ("bridge_network_name", Scalar),
    ("bridge_network_subnet", Scalar),
    ("bridge_network_subnet_ipv6", Scalar),
    ("bridge_network_hairpin_mode", Flag),
    ("bind_wildcard_default_host_network", Scalar),
    ("cgroup_parent", Scalar),
    ("nomad_service_discovery", Scalar),
    ("host_volume", Labelled(&[("path", Scalar), ("read_only", Scalar)])),
    ("host_network", Labelled(&[("cidr", Scalar), ("interface", Scalar), ("reserved_ports", Scalar)])),
    ("chroot_env", Kind::Map),
    ("drain_on_shutdown", Block(&[("deadline", Scalar), ("force", Scalar), ("ignore_system_jobs", Scalar)])),
    ("artifact", Block(ARTIFACT)),
    ("template", Block(TEMPLATE)),
    ("users", Any),
    ("fingerprint", Any),
];

const RESERVED: &[(&str, Kind)] =
    &[("cpu", Scalar), ("cores", Scalar), ("memory", Scalar), ("disk", Scalar), ("reserved_ports", Scalar)];

const ARTIFACT: &[(&str, Kind)] = &[
    ("http_read_timeout", Scalar),
    ("http_max_size", Scalar),
    ("gcs_timeout", Scalar),
    ("git_timeout", Scalar),
    ("hg_timeout", Scalar),
    ("s3_timeout", Scalar),
    ("decompression_size_limit", Scalar),
    ("decompression_file_count_limit", Scalar),
    ("disable_filesystem_isolation", Flag),
    ("filesystem_isolation_extra_paths", Scalar),
    ("set_environment_variables", Scalar),
];

const TEMPLATE: &[(&str, Kind)] = &[
    ("function_denylist", Scalar),
    ("function_blacklist", Scalar),
    ("disable_file_sandbox", Flag),
    ("max_stale", Scalar),
    ("block_query_wait", Scalar),
    ("wait", Block(WAIT)),
    ("wait_bounds", Block(WAIT)),
    ("consul_retry", Any),
    ("vault_retry", Any),
    ("nomad_retry", Any),
];
const WAIT: &[(&str, Kind)] = &[("min", Scalar), ("max", Scalar)];

const ACL: &[(&str, Kind)] = &[
    ("enabled", Flag),
    ("token_ttl", Scalar),
    ("policy_ttl", Scalar),
    ("role_ttl", Scalar),
    ("replication_token", Scalar),
    ("token_min_expiration_ttl", Scalar),
    ("token_max_expiration_ttl", Scalar),
];

const TLS: &[(&str, Kind)] = &[
    ("http", Flag),
    ("rpc", Flag),
    ("ca_file", Scalar),
    ("cert_file", Scalar),
    ("key_file", Scalar),
    ("rpc_upgrade_mode", Flag),
    ("tls_cipher_suites", Scalar),
    ("tls_min_version", Scalar),
    ("verify_https_client", Flag),
    ("verify_server_hostname", Flag),
];

const TELEMETRY: &[(&str, Kind)] = &[
    ("in_memory_collection_interval", Scalar),
    ("in_memory_retention_period", Scalar),
    ("collection_interval", Scalar),
    ("disable_hostname", Flag),
    ("use_node_name", Flag),
    ("publish_allocation_metrics", Flag),
    ("publish_node_metrics", Flag),
    ("include_alloc_metadata_in_metrics", Flag),
    ("allowed_metadata_keys_in_metrics", Scalar),
    ("filter_default", Scalar),
    ("prefix_filter", Scalar),
    ("disable_dispatched_job_summary_metrics", Flag),
    ("disable_quota_utilization_metrics", Flag),
    ("disable_rpc_rate_metrics_labels", Flag),
    ("disable_allocation_hook_metrics", Scalar),
    ("statsite_address", Scalar),
    ("statsd_address", Scalar),
    ("datadog_address", Scalar),
    ("datadog_tags", Scalar),
    ("prometheus_metrics", Flag),
    ("circonus_api_token", Scalar),
    ("circonus_api_app", Scalar),
    ("circonus_api_url", Scalar),
    ("circonus_submission_interval", Scalar),
    ("circonus_submission_url", Scalar),
    ("circonus_check_id", Scalar),
    ("circonus_check_force_metric_activation", Scalar),
    ("circonus_check_instance_id", Scalar),
    ("circonus_check_search_tag", Scalar),
    ("circonus_check_display_name", Scalar),
    ("circonus_check_tags", Scalar),
    ("circonus_broker_id", Scalar),
    ("circonus_broker_select_tag", Scalar),
];

/// Settings of Nomad's servers that do nothing where all state is in etcd.
const WITHOUT_EFFECT: [&str; 8] = [
    "bootstrap_expect",
    "encrypt",
    "raft_protocol",
    "raft_multiplier",
    "server_join",
    "start_join",
    "retry_join",
    "rejoin_after_leave",
];

/// A note for every setting in use that has no effect.
pub fn without_effect(merged: &Value) -> Vec<String> {
    let Some(server) = merged.get("server").and_then(Value::as_object) else { return Vec::new() };
    WITHOUT_EFFECT
        .iter()
        .filter(|key| server.contains_key(**key))
        .map(|key| format!("server.{key} is accepted and has no effect: all state is in etcd"))
        .collect()
}

fn kind_of(keys: &[(&str, Kind)], key: &str) -> Option<Kind> {
    keys.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
}

/// Brings a file's value into shape: blocks that may appear once become objects, and names every key that is
/// not known.
pub fn shape(value: Value, keys: &'static [(&'static str, Kind)], unknown: &mut Vec<String>) -> Value {
    let map = match value {
        Value::Object(map) => map,
        // A block that is given several times: the later ones go over the earlier ones.
        Value::Array(items) => {
            let mut merged = Value::Object(Map::new());
            for item in items {
                merge_keys(&mut merged, shape(item, keys, unknown), keys);
            }
            return merged;
        }
        other => return other,
    };
    let mut out = Map::new();
    for (key, value) in map {
        match kind_of(keys, &key) {
            None => unknown.push(key),
            Some(Block(inner)) => {
                let value = shape(value, inner, unknown);
                out.insert(key, value);
            }
            Some(Labelled(inner)) => {
                out.insert(key, labelled(value, inner, unknown));
            }
            Some(Kind::Map) => {
                let flat = match value {
                    Value::Array(items) => {
                        let entries = items.into_iter().filter_map(|item| match item {
                            Value::Object(map) => Some(map),
                            _ => None,
                        });
                        Value::Object(entries.flatten().collect())
                    }
                    other => other,
                };
                out.insert(key, flat);
            }
            Some(_) => {
                out.insert(key, value);
            }
        }
    }
    Value::Object(out)
}

fn labelled(value: Value, keys: &'static [(&'static str, Kind)], unknown: &mut Vec<String>) -> Value {
    let blocks = match value {
        Value::Array(items) => items,
        other => vec![other],
    };
    let mut out = Value::Object(Map::new());
    for block in blocks {
        let Value::Object(block) = block else { continue };
        for (label, inner) in block {
            let inner = shape(inner, keys, unknown);
            merge_labels(&mut out, Value::Object([(label, inner)].into_iter().collect()), keys);
        }
    }
    out
}

/// Puts a later configuration over an earlier one.
pub fn merge(base: &mut Value, over: Value) {
    merge_keys(base, over, FILE);
}

fn merge_keys(base: &mut Value, over: Value, keys: &[(&str, Kind)]) {
    let Value::Object(over) = over else { return };
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    let Value::Object(base) = base else { return };
    for (key, value) in over {
        let slot = base.entry(key.clone()).or_insert(Value::Null);
        match kind_of(keys, &key).unwrap_or(Any) {
            _ if slot.is_null() => *slot = value,
            Block(inner) => merge_keys(slot, value, inner),
            Labelled(inner) => merge_labels(slot, value, inner),
            Kind::Map => merge_keys(slot, value, &[]),
            Flag => {
                if value == Value::Bool(true) {
                    *slot = value;
                }
            }
            Adding => match (slot, value) {
                (Value::Array(all), Value::Array(more)) => all.extend(more),
                (slot, value) => *slot = value,
            },
            Scalar => {
                if !is_zero(&value) {
                    *slot = value;
                }
            }
            Any => deep_merge(slot, value),
        }
    }
}

fn merge_labels(base: &mut Value, over: Value, keys: &[(&str, Kind)]) {
    let (Value::Object(base), Value::Object(over)) = (base, over) else { return };
    for (label, value) in over {
        merge_keys(base.entry(label).or_insert(Value::Null), value, keys);
    }
}

fn deep_merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                deep_merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// The empty text, zero and null leave an earlier value as it is; `false` does not.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
