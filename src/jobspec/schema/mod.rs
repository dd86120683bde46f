//! What may stand in a job file: for every block its attributes and blocks, and where their values go in the job.
//!
//! The tables are data; `decode` walks a file along them. Keys are those of Nomad's JSON.

mod connect;

use serde_json::Map;
use serde_json::Value;

use super::shape;

/// The type of an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    /// Go's duration text, or nanoseconds.
    Duration,
    Texts,
    Numbers,
    /// A map of texts, only as an attribute.
    TextMap,
}

/// An attribute: its name in the file and its key in the job.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

/// How blocks of one name become one value of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// At most one: an object.
    One,
    /// Any number: a list of objects.
    Many,
    /// Any number, each with a label that becomes this key: a list of objects.
    Labelled(&'static str),
    /// Any number, each with a label: an object of objects; the label also becomes this key.
    Keyed(&'static str),
    /// A map of texts, as a block or as an attribute.
    TextMap,
    /// A map of texts, as a block only.
    TextMapBlock,
    /// A map of lists of texts, as a block.
    TextsMap,
    /// Free-form, by the rules of driver options.
    Free,
}

/// A kind of block inside another.
pub(super) struct Block {
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    pub(super) form: Form,
    pub(super) body: &'static Body,
}

/// Turns what was read from a body into the form of the job; returns problems as (summary, detail).
pub(super) type Finish = fn(&mut Map<String, Value>) -> Vec<(String, String)>;

/// The contents of a block.
pub(super) struct Body {
    pub(super) attributes: &'static [Attribute],
    pub(super) blocks: &'static [Block],
    pub(super) finish: Option<Finish>,
}

const fn attribute(name: &'static str, key: &'static str, kind: Kind) -> Attribute {
    Attribute { name, key, kind, required: false }
}

const fn required(name: &'static str, key: &'static str, kind: Kind) -> Attribute {
    Attribute { name, key, kind, required: true }
}

const fn text(name: &'static str, key: &'static str) -> Attribute {
    attribute(name, key, Kind::Text)
}

const fn number(name: &'static str, key: &'static str) -> Attribute {
    attribute(name, key, Kind::Number)
}

const fn flag(name: &'static str, key: &'static str) -> Attribute {
    attribute(name, key, Kind::Flag)
}

const fn duration(name: &'static str, key: &'static str) -> Attribute {
    attribute(name, key, Kind::Duration)
}

const fn texts(name: &'static str, key: &'static str) -> Attribute {
    attribute(name, key, Kind::Texts)
}

const fn block(name: &'static str, key: &'static str, form: Form, body: &'static Body) -> Block {
    Block { name, key, form, body }
}

const fn leaf(attributes: &'static [Attribute]) -> Body {
    Body { attributes, blocks: &[], finish: None }
}

/// Bodies without a schema of their own.
static FREE: Body = leaf(&[]);

pub(super) static JOB: Body = Body {
    attributes: &[
        text("id", "ID"),
        text("name", "Name"),
        text("region", "Region"),
        text("namespace", "Namespace"),
        text("type", "Type"),
        number("priority", "Priority"),
        flag("all_at_once", "AllAtOnce"),
        texts("datacenters", "Datacenters"),
        text("node_pool", "NodePool"),
        text("consul_token", "ConsulToken"),
        text("vault_token", "VaultToken"),
    ],
    blocks: &[
        block("constraint", "Constraints", Form::Many, &CONSTRAINT),
        block("affinity", "Affinities", Form::Many, &AFFINITY),
        block("spread", "Spreads", Form::Many, &SPREAD),
        block("group", "TaskGroups", Form::Labelled("Name"), &GROUP),
        block("task", "task", Form::Labelled("Name"), &TASK),
        block("vault", "vault", Form::One, &VAULT),
        block("update", "Update", Form::One, &UPDATE),
        block("reschedule", "Reschedule", Form::One, &RESCHEDULE),
        block("migrate", "Migrate", Form::One, &MIGRATE),
        block("meta", "Meta", Form::TextMap, &FREE),
        block("periodic", "Periodic", Form::One, &PERIODIC),
        block("parameterized", "ParameterizedJob", Form::One, &PARAMETERIZED),
        block("multiregion", "Multiregion", Form::One, &MULTIREGION),
        block("ui", "UI", Form::One, &UI),
    ],
    finish: Some(shape::job),
};

static GROUP: Body = Body {
    attributes: &[
        number("count", "Count"),
        duration("shutdown_delay", "ShutdownDelay"),
        duration("stop_after_client_disconnect", "StopAfterClientDisconnect"),
        duration("max_client_disconnect", "MaxClientDisconnect"),
        flag("prevent_reschedule_on_lost", "PreventRescheduleOnLost"),
    ],
    blocks: &[
        block("constraint", "Constraints", Form::Many, &CONSTRAINT),
        block("affinity", "Affinities", Form::Many, &AFFINITY),
        block("spread", "Spreads", Form::Many, &SPREAD),
        block("task", "Tasks", Form::Labelled("Name"), &TASK),
        block("network", "Networks", Form::Many, &NETWORK),
        block("service", "Services", Form::Many, &SERVICE),
        block("volume", "Volumes", Form::Keyed("Name"), &VOLUME),
        block("restart", "RestartPolicy", Form::One, &RESTART),
        block("reschedule", "ReschedulePolicy", Form::One, &RESCHEDULE),
        block("update", "Update", Form::One, &UPDATE),
        block("migrate", "Migrate", Form::One, &MIGRATE),
        block("disconnect", "Disconnect", Form::One, &DISCONNECT),
        block("ephemeral_disk", "EphemeralDisk", Form::One, &EPHEMERAL_DISK),
        block("scaling", "Scaling", Form::One, &SCALING),
        block("consul", "Consul", Form::One, &CONSUL),
        block("vault", "vault", Form::One, &VAULT),
        block("meta", "Meta", Form::TextMap, &FREE),
    ],
    finish: Some(shape::group),
};

static TASK: Body = Body {
    attributes: &[
        text("driver", "Driver"),
        text("user", "User"),
        flag("leader", "Leader"),
        duration("kill_timeout", "KillTimeout"),
        text("kill_signal", "KillSignal"),
        duration("shutdown_delay", "ShutdownDelay"),
        text("kind", "Kind"),
    ],
    blocks: &[
        block("config", "Config", Form::Free, &FREE),
        block("env", "Env", Form::TextMap, &FREE),
        block("meta", "Meta", Form::TextMap, &FREE),
        block("constraint", "Constraints", Form::Many, &CONSTRAINT),
        block("affinity", "Affinities", Form::Many, &AFFINITY),
        block("resources", "Resources", Form::One, &RESOURCES),
        block("service", "Services", Form::Many, &SERVICE),
        block("restart", "RestartPolicy", Form::One, &RESTART),
        block("artifact", "Artifacts", Form::Many, &ARTIFACT),
        block("template", "Templates", Form::Many, &TEMPLATE),
        block("logs", "LogConfig", Form::One, &LOGS),
        block("lifecycle", "Lifecycle", Form::One, &LIFECYCLE),
        block("dispatch_payload", "DispatchPayload", Form::One, &DISPATCH_PAYLOAD),
        block("vault", "Vault", Form::One, &VAULT),
        block("consul", "Consul", Form::One, &CONSUL),
        block("identity", "identity", Form::Many, &IDENTITY),
        block("volume_mount", "VolumeMounts", Form::Many, &VOLUME_MOUNT),
        block("csi_plugin", "CSIPluginConfig", Form::One, &CSI_PLUGIN),
        block("action", "Actions", Form::Labelled("Name"), &ACTION),
        block("schedule", "Schedule", Form::One, &SCHEDULE),
        block("scaling", "ScalingPolicies", Form::Labelled("Type"), &SCALING),
    ],
    finish: Some(shape::task),
};

static CONSTRAINT: Body = Body {
    attributes: &[
        text("attribute", "LTarget"),
        text("operator", "Operand"),
        text("value", "RTarget"),
        text("version", "version"),
        text("semver", "semver"),
        text("regexp", "regexp"),
        text("set_contains", "set_contains"),
        text("set_contains_all", "set_contains_all"),
        text("set_contains_any", "set_contains_any"),
        text("is_set", "is_set"),
        text("is_not_set", "is_not_set"),
        text("distinct_hosts", "distinct_hosts"),
        text("distinct_property", "distinct_property"),
    ],
    blocks: &[],
    finish: Some(shape::constraint),
};

static AFFINITY: Body = Body {
    attributes: &[
        text("attribute", "LTarget"),
        text("operator", "Operand"),
        text("value", "RTarget"),
        number("weight", "Weight"),
        text("version", "version"),
        text("semver", "semver"),
        text("regexp", "regexp"),
        text("set_contains", "set_contains"),
        text("set_contains_all", "set_contains_all"),
        text("set_contains_any", "set_contains_any"),
    ],
    blocks: &[],
    finish: Some(shape::affinity),
};

static SPREAD: Body = Body {
    attributes: &[text("attribute", "Attribute"), number("weight", "Weight")],
    blocks: &[block("target", "SpreadTarget", Form::Labelled("Value"), &SPREAD_TARGET)],
    finish: None,
};

static SPREAD_TARGET: Body = leaf(&[text("value", "Value"), number("percent", "Percent")]);

static UPDATE: Body = leaf(&[
    duration("stagger", "Stagger"),
    number("max_parallel", "MaxParallel"),
    text("health_check", "HealthCheck"),
    duration("min_healthy_time", "MinHealthyTime"),
    duration("healthy_deadline", "HealthyDeadline"),
    duration("progress_deadline", "ProgressDeadline"),
    flag("auto_revert", "AutoRevert"),
    flag("auto_promote", "AutoPromote"),
    number("canary", "Canary"),
]);

static RESCHEDULE: Body = leaf(&[
    number("attempts", "Attempts"),
    duration("interval", "Interval"),
    duration("delay", "Delay"),
    text("delay_function", "DelayFunction"),
    duration("max_delay", "MaxDelay"),
    flag("unlimited", "Unlimited"),
]);

static RESTART: Body = leaf(&[
    number("attempts", "Attempts"),
    duration("interval", "Interval"),
    duration("delay", "Delay"),
    text("mode", "Mode"),
    flag("render_templates", "RenderTemplates"),
]);

static MIGRATE: Body = leaf(&[
    number("max_parallel", "MaxParallel"),
    text("health_check", "HealthCheck"),
    duration("min_healthy_time", "MinHealthyTime"),
    duration("healthy_deadline", "HealthyDeadline"),
]);

static DISCONNECT: Body = leaf(&[
    duration("lost_after", "LostAfter"),
    duration("stop_on_client_after", "StopOnClientAfter"),
    flag("replace", "Replace"),
    text("reconcile", "Reconcile"),
]);

static EPHEMERAL_DISK: Body =
    leaf(&[number("size", "SizeMB"), flag("sticky", "Sticky"), flag("migrate", "Migrate")]);

static PERIODIC: Body = leaf(&[
    flag("enabled", "Enabled"),
    text("cron", "Spec"),
    texts("crons", "Specs"),
    flag("prohibit_overlap", "ProhibitOverlap"),
    text("time_zone", "TimeZone"),
]);

static PARAMETERIZED: Body = leaf(&[
    text("payload", "Payload"),
    texts("meta_required", "MetaRequired"),
    texts("meta_optional", "MetaOptional"),
]);

static MULTIREGION: Body = Body {
    attributes: &[],
    blocks: &[
        block("strategy", "Strategy", Form::One, &MULTIREGION_STRATEGY),
        block("region", "Regions", Form::Labelled("Name"), &MULTIREGION_REGION),
    ],
    finish: None,
};

static MULTIREGION_STRATEGY: Body =
    leaf(&[number("max_parallel", "MaxParallel"), text("on_failure", "OnFailure")]);

static MULTIREGION_REGION: Body = Body {
    attributes: &[
        number("count", "Count"),
        texts("datacenters", "Datacenters"),
        text("node_pool", "NodePool"),
    ],
    blocks: &[block("meta", "Meta", Form::TextMap, &FREE)],
    finish: None,
};

static UI: Body = Body {
    attributes: &[text("description", "Description")],
    blocks: &[block("link", "Links", Form::Many, &UI_LINK)],
    finish: None,
};

static UI_LINK: Body = leaf(&[text("label", "Label"), text("url", "Url")]);

static SCALING: Body = Body {
    attributes: &[flag("enabled", "Enabled"), number("min", "Min"), number("max", "Max")],
    blocks: &[block("policy", "Policy", Form::Free, &FREE)],
    finish: None,
};

static CONSUL: Body =
    leaf(&[text("namespace", "Namespace"), text("cluster", "Cluster"), text("partition", "Partition")]);

static VAULT: Body = leaf(&[
    text("role", "Role"),
    texts("policies", "Policies"),
    text("namespace", "Namespace"),
    text("cluster", "Cluster"),
    flag("env", "Env"),
    flag("disable_file", "DisableFile"),
    text("change_mode", "ChangeMode"),
    text("change_signal", "ChangeSignal"),
    flag("allow_token_expiration", "AllowTokenExpiration"),
]);

static NETWORK: Body = Body {
    attributes: &[
        text("mode", "Mode"),
        text("hostname", "Hostname"),
        number("mbits", "MBits"),
        text("device", "Device"),
        text("cidr", "CIDR"),
        text("ip", "IP"),
    ],
    blocks: &[
        block("port", "port", Form::Labelled("Label"), &PORT),
        block("reserved_ports", "reserved_ports", Form::Labelled("Label"), &PORT),
        block("dns", "DNS", Form::One, &DNS),
        block("cni", "CNI", Form::One, &CNI),
    ],
    finish: Some(shape::network),
};

static PORT: Body = leaf(&[
    number("static", "Value"),
    number("to", "To"),
    text("host_network", "HostNetwork"),
    flag("ignore_collision", "IgnoreCollision"),
]);

static DNS: Body =
    leaf(&[texts("servers", "Servers"), texts("searches", "Searches"), texts("options", "Options")]);

static CNI: Body = leaf(&[attribute("args", "Args", Kind::TextMap)]);

static RESOURCES: Body = Body {
    attributes: &[
        number("cpu", "CPU"),
        number("cores", "Cores"),
        number("memory", "MemoryMB"),
        number("memory_max", "MemoryMaxMB"),
        number("disk", "disk"),
        number("iops", "IOPS"),
        number("secrets", "SecretsMB"),
    ],
    blocks: &[
        block("network", "Networks", Form::Many, &NETWORK),
        block("device", "Devices", Form::Labelled("Name"), &DEVICE),
        block("numa", "NUMA", Form::One, &NUMA),
    ],
    finish: Some(shape::resources),
};

static DEVICE: Body = Body {
    attributes: &[number("count", "Count")],
    blocks: &[
        block("constraint", "Constraints", Form::Many, &CONSTRAINT),
        block("affinity", "Affinities", Form::Many, &AFFINITY),
    ],
    finish: None,
};

static NUMA: Body = leaf(&[text("affinity", "Affinity"), texts("devices", "Devices")]);

static SERVICE: Body = Body {
    attributes: &[
        text("name", "Name"),
        text("provider", "Provider"),
        text("port", "PortLabel"),
        text("address_mode", "AddressMode"),
        text("address", "Address"),
        texts("tags", "Tags"),
        texts("canary_tags", "CanaryTags"),
        flag("enable_tag_override", "EnableTagOverride"),
        text("on_update", "OnUpdate"),
        text("task", "TaskName"),
        text("cluster", "Cluster"),
    ],
    blocks: &[
        block("check", "Checks", Form::Many, &CHECK),
        block("check_restart", "check_restart", Form::One, &CHECK_RESTART),
        block("connect", "Connect", Form::One, &connect::CONNECT),
        block("identity", "Identity", Form::One, &IDENTITY),
        block("weights", "Weights", Form::One, &WEIGHTS),
        block("meta", "Meta", Form::TextMap, &FREE),
        block("canary_meta", "CanaryMeta", Form::TextMap, &FREE),
        block("tagged_addresses", "TaggedAddresses", Form::TextMap, &FREE),
    ],
    finish: Some(shape::service),
};

static WEIGHTS: Body = leaf(&[number("passing", "Passing"), number("warning", "Warning")]);

static CHECK: Body = Body {
    attributes: &[
        text("name", "Name"),
        text("type", "Type"),
        text("command", "Command"),
        texts("args", "Args"),
        text("path", "Path"),
        text("protocol", "Protocol"),
        text("port", "PortLabel"),
        flag("expose", "Expose"),
        text("address_mode", "AddressMode"),
        duration("interval", "Interval"),
        duration("timeout", "Timeout"),
        text("initial_status", "InitialStatus"),
        text("notes", "Notes"),
        text("advertise", "Advertise"),
        text("tls_server_name", "TLSServerName"),
        flag("tls_skip_verify", "TLSSkipVerify"),
        text("method", "Method"),
        text("grpc_service", "GRPCService"),
        flag("grpc_use_tls", "GRPCUseTLS"),
        text("task", "TaskName"),
        number("success_before_passing", "SuccessBeforePassing"),
        number("failures_before_critical", "FailuresBeforeCritical"),
        number("failures_before_warning", "FailuresBeforeWarning"),
        text("body", "Body"),
        text("on_update", "OnUpdate"),
    ],
    blocks: &[
        block("header", "Header", Form::TextsMap, &FREE),
        block("check_restart", "CheckRestart", Form::One, &CHECK_RESTART),
    ],
    finish: None,
};

static CHECK_RESTART: Body =
    leaf(&[number("limit", "Limit"), duration("grace", "Grace"), flag("ignore_warnings", "IgnoreWarnings")]);

static ARTIFACT: Body = Body {
    attributes: &[
        text("source", "GetterSource"),
        text("destination", "RelativeDest"),
        text("mode", "GetterMode"),
        flag("insecure", "GetterInsecure"),
        flag("chown", "Chown"),
    ],
    blocks: &[
        block("options", "GetterOptions", Form::TextMapBlock, &FREE),
        block("headers", "GetterHeaders", Form::TextMapBlock, &FREE),
    ],
    finish: None,
};

static TEMPLATE: Body = Body {
    attributes: &[
        text("data", "EmbeddedTmpl"),
        text("source", "SourcePath"),
        text("destination", "DestPath"),
        text("change_mode", "ChangeMode"),
        text("change_signal", "ChangeSignal"),
        flag("env", "Envvars"),
        duration("splay", "Splay"),
        text("perms", "Perms"),
        number("uid", "Uid"),
        number("gid", "Gid"),
        text("left_delimiter", "LeftDelim"),
        text("right_delimiter", "RightDelim"),
        flag("error_on_missing_key", "ErrMissingKey"),
        flag("once", "Once"),
        duration("vault_grace", "VaultGrace"),
    ],
    blocks: &[
        block("change_script", "ChangeScript", Form::One, &CHANGE_SCRIPT),
        block("wait", "Wait", Form::One, &WAIT),
    ],
    finish: None,
};

static CHANGE_SCRIPT: Body = leaf(&[
    text("command", "Command"),
    texts("args", "Args"),
    duration("timeout", "Timeout"),
    flag("fail_on_error", "FailOnError"),
]);

static WAIT: Body = leaf(&[duration("min", "Min"), duration("max", "Max")]);

static LOGS: Body = leaf(&[
    number("max_files", "MaxFiles"),
    number("max_file_size", "MaxFileSizeMB"),
    flag("disabled", "Disabled"),
    flag("enabled", "Enabled"),
]);

static LIFECYCLE: Body = leaf(&[text("hook", "Hook"), flag("sidecar", "Sidecar")]);

static DISPATCH_PAYLOAD: Body = leaf(&[text("file", "File")]);

static IDENTITY: Body = leaf(&[
    text("name", "Name"),
    texts("aud", "Audience"),
    flag("env", "Env"),
    flag("file", "File"),
    text("filepath", "Filepath"),
    text("change_mode", "ChangeMode"),
    text("change_signal", "ChangeSignal"),
    duration("ttl", "TTL"),
    text("service_name", "ServiceName"),
]);

static VOLUME: Body = Body {
    attributes: &[
        text("type", "Type"),
        text("source", "Source"),
        flag("read_only", "ReadOnly"),
        text("access_mode", "AccessMode"),
        text("attachment_mode", "AttachmentMode"),
        flag("per_alloc", "PerAlloc"),
    ],
    blocks: &[block("mount_options", "MountOptions", Form::One, &MOUNT_OPTIONS)],
    finish: None,
};

static MOUNT_OPTIONS: Body = leaf(&[text("fs_type", "FSType"), texts("mount_flags", "MountFlags")]);

static VOLUME_MOUNT: Body = leaf(&[
    text("volume", "Volume"),
    text("destination", "Destination"),
    flag("read_only", "ReadOnly"),
    text("propagation_mode", "PropagationMode"),
    text("selinux_label", "SELinuxLabel"),
]);

static CSI_PLUGIN: Body = leaf(&[
    text("id", "ID"),
    text("type", "Type"),
    text("mount_dir", "MountDir"),
    text("stage_publish_base_dir", "StagePublishBaseDir"),
    duration("health_timeout", "HealthTimeout"),
]);

static ACTION: Body = leaf(&[required("command", "Command", Kind::Text), texts("args", "Args")]);

static SCHEDULE: Body =
    Body { attributes: &[], blocks: &[block("cron", "Cron", Form::One, &SCHEDULE_CRON)], finish: None };

static SCHEDULE_CRON: Body =
    leaf(&[text("start", "Start"), text("end", "End"), text("timezone", "Timezone")]);

/// A body in which nothing is allowed.
pub(super) static EMPTY: Body = leaf(&[]);

/// The top of a file.
pub(super) static FILE: Body = Body {
    attributes: &[],
    blocks: &[
        block("job", "job", Form::Labelled("Name"), &JOB),
        block("variable", "variable", Form::Labelled("Name"), &EMPTY),
        block("variables", "variables", Form::One, &EMPTY),
        block("locals", "locals", Form::One, &EMPTY),
    ],
    finish: None,
};

#[cfg(test)]
mod tests;
