//! Every field of a job: whether a change of it replaces allocations, how it shows in a diff, and what the display says it
//! forces, which is not the same thing.

use serde_json::Value;
use serde_json::json;

use crate::model::diff::*;

const REPLACES: UpdateKind = UpdateKind::Destructive;
const STAYS: UpdateKind = UpdateKind::InPlace { recheck_node: false };
/// Stays where the node still satisfies the job.
const RECHECKS: UpdateKind = UpdateKind::InPlace { recheck_node: true };

/// What the display says about the task; nothing for changes outside of tasks.
const CREATE_DESTROY: &str = "forces create/destroy update";
const IN_PLACE: &str = "forces in-place update";
const SILENT: &str = "";

/// A job in which every field says something.
fn base() -> Value {
    json!({
        "ID": "web", "Name": "web", "Type": "service", "Region": "global", "Namespace": "default", "Priority": 50,
        "AllAtOnce": false, "Datacenters": ["dc1"], "NodePool": "default",
        "Constraints": [{"LTarget": "${attr.a}", "Operand": "=", "RTarget": "1"}],
        "Affinities": [{"LTarget": "${attr.a}", "Operand": "=", "RTarget": "1", "Weight": 50}],
        "Spreads": [{"Attribute": "${attr.a}", "Weight": 50, "SpreadTarget": [{"Value": "x", "Percent": 10}]}],
        "Update": {"Stagger": 1, "MaxParallel": 1},
        "Periodic": {"Enabled": true, "Spec": "@daily", "Specs": ["@hourly"], "SpecType": "cron",
                     "ProhibitOverlap": false, "TimeZone": "UTC"},
        "ParameterizedJob": {"Payload": "optional", "MetaRequired": ["a"], "MetaOptional": ["b"]},
        "Multiregion": {"Strategy": {"MaxParallel": 1, "OnFailure": ""},
                        "Regions": [{"Name": "north", "Count": 1, "Datacenters": ["dc1"], "NodePool": "", "Meta": {"k": "v"}}]},
        "Meta": {"owner": "ops"}, "ConsulNamespace": "a", "VaultNamespace": "a",
        "UI": {"Description": "one", "Links": [{"Label": "l", "Url": "u"}]},
        "TaskGroups": [group()],
    })
}

fn group() -> Value {
    json!({
        "Name": "front", "Count": 2, "Meta": {"tier": "1"}, "ShutdownDelay": 1, "StopAfterClientDisconnect": 1,
        "MaxClientDisconnect": 1, "PreventRescheduleOnLost": false,
        "Constraints": [{"LTarget": "${attr.a}", "Operand": "=", "RTarget": "1"}],
        "Affinities": [{"LTarget": "${attr.a}", "Operand": "=", "RTarget": "1", "Weight": 50}],
        "Spreads": [{"Attribute": "${attr.a}", "Weight": 50, "SpreadTarget": [{"Value": "x", "Percent": 10}]}],
        "Update": {"Stagger": 1, "MaxParallel": 1, "HealthCheck": "checks", "MinHealthyTime": 1, "HealthyDeadline": 1,
                   "ProgressDeadline": 1, "AutoRevert": false, "AutoPromote": false, "Canary": 0},
        "Migrate": {"MaxParallel": 1, "HealthCheck": "checks", "MinHealthyTime": 1, "HealthyDeadline": 1},
        "RestartPolicy": {"Attempts": 1, "Interval": 1, "Delay": 1, "Mode": "fail", "RenderTemplates": false},
        "ReschedulePolicy": {"Attempts": 1, "Interval": 1, "Delay": 1, "DelayFunction": "constant", "MaxDelay": 1,
                             "Unlimited": false},
        "Disconnect": {"LostAfter": 1, "StopOnClientAfter": 1, "Replace": true, "Reconcile": "best_score"},
        "EphemeralDisk": {"SizeMB": 300, "Sticky": false, "Migrate": false},
        "Scaling": {"Enabled": true, "Min": 1, "Max": 5, "Policy": {"cooldown": "1m"}, "Type": "horizontal"},
        "Consul": {"Namespace": "", "Cluster": "default", "Partition": ""},
        "Networks": [network()],
        "Services": [service()],
        "Volumes": {"data": {"Name": "data", "Type": "host", "Source": "d", "ReadOnly": false, "AccessMode": "m",
                             "AttachmentMode": "m", "PerAlloc": false,
                             "MountOptions": {"FSType": "ext4", "MountFlags": ["ro"]}}},
        "Tasks": [task()],
    })
}

fn network() -> Value {
    json!({
        "Mode": "bridge", "Hostname": "h", "MBits": 1, "DNS": {"Servers": ["1"], "Searches": ["s"], "Options": ["o"]},
        "ReservedPorts": [{"Label": "a", "Value": 80, "To": 1, "HostNetwork": "n", "IgnoreCollision": true}],
        "DynamicPorts": [{"Label": "b", "To": 1, "HostNetwork": "n"}], "CNI": {"Args": {"k": "v"}},
    })
}

fn service() -> Value {
    read(
        r#"{
        "Name": "web", "TaskName": "", "PortLabel": "a", "AddressMode": "auto", "Address": "x",
        "EnableTagOverride": false, "Tags": ["t"], "CanaryTags": ["c"], "Meta": {"k": "v"}, "CanaryMeta": {"k": "v"},
        "TaggedAddresses": {"k": "v"}, "Namespace": "default", "OnUpdate": "ignore", "Provider": "nomad",
        "Cluster": "default", "Weights": {"Passing": 1, "Warning": 1},
        "Checks": [{
            "Name": "up", "Type": "http", "Command": "c", "Args": ["a"], "Path": "/", "Protocol": "http",
            "PortLabel": "a", "Expose": false, "AddressMode": "host", "Interval": 1, "Timeout": 1,
            "InitialStatus": "passing", "Notes": "n", "TLSServerName": "s", "TLSSkipVerify": false, "Method": "GET",
            "Header": {"X": ["1"]}, "GRPCService": "g", "GRPCUseTLS": false, "TaskName": "app",
            "SuccessBeforePassing": 1, "FailuresBeforeCritical": 1, "FailuresBeforeWarning": 1, "Body": "b",
            "OnUpdate": "ignore", "CheckRestart": {"Limit": 1, "Grace": 1, "IgnoreWarnings": false}
        }],
        "Identity": {"Name": "i", "Audience": ["a"], "ChangeMode": "noop", "ChangeSignal": "s", "Env": false,
                     "File": false, "Filepath": "f", "ServiceName": "n", "TTL": 1}
    }"#,
    )
}

fn task() -> Value {
    let identity = |name: &str| {
        json!({"Name": name, "Audience": ["a"], "ChangeMode": "noop", "ChangeSignal": "s", "Env": false, "File": false,
               "Filepath": "f", "ServiceName": "n", "TTL": 1})
    };
    let mut task = read(
        r#"{
        "Name": "app", "Driver": "exec", "User": "nobody", "Leader": false, "KillSignal": "SIGINT", "Kind": "k",
        "KillTimeout": 1, "ShutdownDelay": 1,
        "Config": {"command": "c", "args": ["a"], "labels": [{"k": "v"}]},
        "Env": {"A": "1"}, "Meta": {"k": "v"},
        "Constraints": [{"LTarget": "${attr.a}", "Operand": "=", "RTarget": "1"}],
        "Affinities": [{"LTarget": "${attr.a}", "Operand": "=", "RTarget": "1", "Weight": 50}],
        "RestartPolicy": {"Attempts": 1, "Interval": 1, "Delay": 1, "Mode": "fail", "RenderTemplates": false},
        "Lifecycle": {"Hook": "prestart", "Sidecar": false},
        "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1, "Disabled": false},
        "DispatchPayload": {"File": "f"},
        "Vault": {"Role": "r", "Policies": ["p"], "Env": true},
        "Consul": {"Namespace": "n", "Cluster": "default", "Partition": "p"},
        "CSIPluginConfig": {"ID": "i", "Type": "node", "MountDir": "/csi"},
        "Schedule": {"Cron": {"Start": "s", "End": "e", "Timezone": "t"}},
        "Actions": [{"Name": "a", "Command": "c", "Args": ["x", "y"]}],
        "ScalingPolicies": [{"Type": "vertical_cpu", "Min": 1, "Max": 2}],
        "VolumeMounts": [{"Volume": "data", "Destination": "/d", "ReadOnly": false, "PropagationMode": "private",
                          "SELinuxLabel": "z"}],
        "Artifacts": [{"GetterSource": "s", "GetterOptions": {"k": "v"}, "GetterHeaders": {"k": "v"},
                       "GetterMode": "any", "GetterInsecure": false, "RelativeDest": "d", "Chown": false}],
        "Templates": [{"SourcePath": "s", "DestPath": "d", "EmbeddedTmpl": "e", "ChangeMode": "script",
                       "ChangeSignal": "s", "Splay": 1, "Perms": "0644", "Uid": 1, "Gid": 1, "LeftDelim": "{{",
                       "RightDelim": "}}", "Envvars": false, "VaultGrace": 1, "ErrMissingKey": false, "Once": false,
                       "Wait": {"Min": 1, "Max": 1},
                       "ChangeScript": {"Command": "c", "Args": ["a"], "Timeout": 1, "FailOnError": false}}],
        "Resources": {"CPU": 100, "Cores": 0, "MemoryMB": 100, "MemoryMaxMB": 200, "DiskMB": 1, "IOPS": 1,
                      "SecretsMB": 1, "NUMA": {"Affinity": "none", "Devices": ["gpu"]},
                      "Devices": [{"Name": "gpu", "Count": 1,
                                   "Constraints": [{"LTarget": "a", "Operand": "=", "RTarget": "1"}],
                                   "Affinities": [{"LTarget": "a", "Operand": "=", "RTarget": "1", "Weight": 5}]}]}
    }"#,
    );
    task["Identity"] = identity("default");
    task["Identities"] = json!([identity("other")]);
    task["Services"] = json!([service()]);
    task["Resources"]["Networks"] = json!([network()]);
    task
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Where fields are: a pointer to a block, its fields, what a change of one of them means, the place in the diff, and what the
/// display says.
type Row = (&'static str, &'static [&'static str], UpdateKind, &'static str, &'static str);

const GROUP: &str = "/TaskGroups/0";
const TASK: &str = "/TaskGroups/0/Tasks/0";

const JOB_ROWS: &[Row] = &[
    ("", &["Name", "Type", "Namespace", "Priority", "AllAtOnce"], STAYS, "", SILENT),
    ("", &["Region", "NodePool"], RECHECKS, "", SILENT),
    ("", &["ConsulNamespace", "VaultNamespace"], STAYS, "", SILENT),
    ("/Datacenters", &["0"], RECHECKS, "Datacenters", SILENT),
    ("/Constraints/0", &["LTarget", "Operand", "RTarget"], RECHECKS, "Constraint", SILENT),
    ("/Affinities/0", &["LTarget", "Operand", "RTarget", "Weight"], STAYS, "Affinity", SILENT),
    ("/Spreads/0", &["Attribute", "Weight"], STAYS, "Spread", SILENT),
    ("/Spreads/0/SpreadTarget/0", &["Value", "Percent"], STAYS, "Spread/SpreadTarget", SILENT),
    ("/Periodic", &["Enabled", "Spec", "SpecType", "ProhibitOverlap", "TimeZone"], STAYS, "Periodic", SILENT),
    ("/Periodic/Specs", &["0"], STAYS, "Periodic/Specs", SILENT),
    ("/ParameterizedJob", &["Payload"], STAYS, "ParameterizedJob", SILENT),
    ("/ParameterizedJob/MetaRequired", &["0"], STAYS, "ParameterizedJob/MetaRequired", SILENT),
    ("/ParameterizedJob/MetaOptional", &["0"], STAYS, "ParameterizedJob/MetaOptional", SILENT),
    ("/Multiregion/Strategy", &["MaxParallel", "OnFailure"], STAYS, "Multiregion/Strategy", SILENT),
    ("/Multiregion/Regions/0", &["Name", "Count", "NodePool"], STAYS, "Multiregion/Region", SILENT),
    ("/Multiregion/Regions/0/Datacenters", &["0"], STAYS, "Multiregion/Region/Datacenters", SILENT),
    ("/Multiregion/Regions/0/Meta", &["k"], STAYS, "Multiregion/Region", SILENT),
    ("/Meta", &["owner"], REPLACES, "", SILENT),
    ("/UI", &["Description"], STAYS, "UI", SILENT),
    ("/UI/Links/0", &["Label", "Url"], STAYS, "UI/Link", SILENT),
];

const GROUP_ROWS: &[Row] = &[
    ("", &["Count", "ShutdownDelay"], STAYS, "", SILENT),
    ("", &["StopAfterClientDisconnect", "MaxClientDisconnect", "PreventRescheduleOnLost"], STAYS, "", SILENT),
    ("/Meta", &["tier"], REPLACES, "", SILENT),
    ("/Constraints/0", &["LTarget", "Operand", "RTarget"], RECHECKS, "Constraint", SILENT),
    ("/Affinities/0", &["LTarget", "Operand", "RTarget", "Weight"], STAYS, "Affinity", SILENT),
    ("/Spreads/0", &["Attribute", "Weight"], STAYS, "Spread", SILENT),
    ("/Spreads/0/SpreadTarget/0", &["Value", "Percent"], STAYS, "Spread/SpreadTarget", SILENT),
    (
        "/Update",
        &[
            "Stagger",
            "MaxParallel",
            "HealthCheck",
            "MinHealthyTime",
            "HealthyDeadline",
            "ProgressDeadline",
            "AutoRevert",
            "AutoPromote",
            "Canary",
        ],
        STAYS,
        "Update",
        SILENT,
    ),
    (
        "/Migrate",
        &["MaxParallel", "HealthCheck", "MinHealthyTime", "HealthyDeadline"],
        STAYS,
        "Migrate",
        SILENT,
    ),
    ("/RestartPolicy", &["Attempts", "Interval", "Delay", "Mode"], STAYS, "RestartPolicy", SILENT),
    ("/RestartPolicy", &["RenderTemplates"], REPLACES, "RestartPolicy", SILENT),
    (
        "/ReschedulePolicy",
        &["Attempts", "Interval", "Delay", "DelayFunction", "MaxDelay", "Unlimited"],
        STAYS,
        "ReschedulePolicy",
        SILENT,
    ),
    ("/Disconnect", &["LostAfter", "StopOnClientAfter", "Replace", "Reconcile"], STAYS, "Disconnect", SILENT),
    ("/EphemeralDisk", &["SizeMB", "Sticky", "Migrate"], REPLACES, "EphemeralDisk", SILENT),
    ("/Scaling", &["Enabled", "Min", "Max", "Type"], STAYS, "Scaling", SILENT),
    ("/Scaling/Policy", &["cooldown"], STAYS, "Scaling/Policy", SILENT),
    ("/Consul", &["Namespace", "Cluster", "Partition"], STAYS, "Consul", SILENT),
    (
        "/Volumes/data",
        &["Name", "Type", "Source", "ReadOnly", "AccessMode", "AttachmentMode", "PerAlloc"],
        REPLACES,
        "Volume",
        SILENT,
    ),
    ("/Volumes/data/MountOptions", &["FSType"], REPLACES, "Volume/MountOptions", SILENT),
    ("/Volumes/data/MountOptions/MountFlags", &["0"], REPLACES, "Volume/MountOptions/MountFlags", SILENT),
];

const TASK_ROWS: &[Row] = &[
    ("", &["Driver", "User"], REPLACES, "", CREATE_DESTROY),
    // The display says one thing, the scheduler does another.
    ("", &["Leader", "KillSignal", "Kind", "ShutdownDelay"], STAYS, "", CREATE_DESTROY),
    ("", &["KillTimeout"], STAYS, "", IN_PLACE),
    ("/Config", &["command"], REPLACES, "Config", CREATE_DESTROY),
    ("/Config/args", &["0"], REPLACES, "Config", CREATE_DESTROY),
    ("/Config/labels/0", &["k"], REPLACES, "Config", CREATE_DESTROY),
    ("/Env", &["A"], REPLACES, "", CREATE_DESTROY),
    ("/Meta", &["k"], REPLACES, "", CREATE_DESTROY),
    ("/Constraints/0", &["LTarget", "Operand", "RTarget"], RECHECKS, "Constraint", IN_PLACE),
    ("/Affinities/0", &["LTarget", "Operand", "RTarget", "Weight"], STAYS, "Affinity", IN_PLACE),
    ("/RestartPolicy", &["Attempts", "Interval", "Delay", "Mode"], STAYS, "RestartPolicy", IN_PLACE),
    ("/RestartPolicy", &["RenderTemplates"], REPLACES, "RestartPolicy", CREATE_DESTROY),
    ("/Lifecycle", &["Hook", "Sidecar"], STAYS, "Lifecycle", IN_PLACE),
    ("/LogConfig", &["MaxFiles", "MaxFileSizeMB"], STAYS, "LogConfig", CREATE_DESTROY),
    ("/LogConfig", &["Disabled"], REPLACES, "LogConfig", CREATE_DESTROY),
    ("/DispatchPayload", &["File"], STAYS, "DispatchPayload", CREATE_DESTROY),
    ("/Vault", &["Role", "Env"], REPLACES, "Vault", CREATE_DESTROY),
    ("/Vault/Policies", &["0"], REPLACES, "Vault/Policies", CREATE_DESTROY),
    ("/Consul", &["Namespace", "Cluster", "Partition"], REPLACES, "Consul", CREATE_DESTROY),
    ("/CSIPluginConfig", &["ID", "Type", "MountDir"], REPLACES, "CSIPlugin", CREATE_DESTROY),
    ("/Schedule/Cron", &["Start", "End", "Timezone"], STAYS, "Schedule/Cron", CREATE_DESTROY),
    (
        "/Identity",
        &["Name", "ChangeMode", "ChangeSignal", "Env", "File", "Filepath", "ServiceName", "TTL"],
        REPLACES,
        "Identity",
        CREATE_DESTROY,
    ),
    ("/Identity/Audience", &["0"], REPLACES, "Identity/Audience", CREATE_DESTROY),
    (
        "/Identities/0",
        &["Name", "ChangeMode", "ChangeSignal", "Env", "File", "Filepath", "ServiceName", "TTL"],
        REPLACES,
        "Identity",
        CREATE_DESTROY,
    ),
    ("/Identities/0/Audience", &["0"], REPLACES, "Identity/Audience", CREATE_DESTROY),
    ("/Actions/0", &["Name", "Command"], STAYS, "Action", CREATE_DESTROY),
    ("/Actions/0/Args", &["0", "1"], STAYS, "Action/Args", CREATE_DESTROY),
    ("/ScalingPolicies/0", &["Type", "Min", "Max"], STAYS, "Scaling", CREATE_DESTROY),
    (
        "/VolumeMounts/0",
        &["Volume", "Destination", "ReadOnly", "PropagationMode", "SELinuxLabel"],
        REPLACES,
        "VolumeMount",
        CREATE_DESTROY,
    ),
    (
        "/Artifacts/0",
        &["GetterSource", "GetterMode", "GetterInsecure", "RelativeDest", "Chown"],
        REPLACES,
        "Artifact",
        CREATE_DESTROY,
    ),
    ("/Artifacts/0/GetterOptions", &["k"], REPLACES, "Artifact", CREATE_DESTROY),
    ("/Artifacts/0/GetterHeaders", &["k"], REPLACES, "Artifact", CREATE_DESTROY),
    (
        "/Templates/0",
        &[
            "SourcePath",
            "DestPath",
            "EmbeddedTmpl",
            "ChangeMode",
            "ChangeSignal",
            "Splay",
            "Perms",
            "Uid",
            "Gid",
            "LeftDelim",
            "RightDelim",
            "Envvars",
            "VaultGrace",
            "ErrMissingKey",
            "Once",
        ],
        REPLACES,
        "Template",
        CREATE_DESTROY,
    ),
    ("/Templates/0/Wait", &["Min", "Max"], REPLACES, "Template/Wait", CREATE_DESTROY),
    (
        "/Templates/0/ChangeScript",
        &["Command", "Timeout", "FailOnError"],
        REPLACES,
        "Template/ChangeScript",
        CREATE_DESTROY,
    ),
    ("/Templates/0/ChangeScript/Args", &["0"], REPLACES, "Template/ChangeScript/Args", CREATE_DESTROY),
    (
        "/Resources",
        &["CPU", "Cores", "MemoryMB", "MemoryMaxMB", "SecretsMB"],
        REPLACES,
        "Resources",
        CREATE_DESTROY,
    ),
    ("/Resources", &["DiskMB", "IOPS"], STAYS, "Resources", CREATE_DESTROY),
    ("/Resources/NUMA", &["Affinity"], REPLACES, "Resources/NUMA", CREATE_DESTROY),
    ("/Resources/NUMA/Devices", &["0"], REPLACES, "Resources/NUMA/Devices", CREATE_DESTROY),
    ("/Resources/Devices/0", &["Name", "Count"], REPLACES, "Resources/Device", CREATE_DESTROY),
    (
        "/Resources/Devices/0/Constraints/0",
        &["LTarget", "Operand", "RTarget"],
        REPLACES,
        "Resources/Device/Constraint",
        CREATE_DESTROY,
    ),
    (
        "/Resources/Devices/0/Affinities/0",
        &["LTarget", "Operand", "RTarget", "Weight"],
        REPLACES,
        "Resources/Device/Affinity",
        CREATE_DESTROY,
    ),
];

/// A changed port or setting shows as a network that comes and one that goes.
const NETWORK_ROWS: &[Row] = &[
    ("", &["Mode", "Hostname", "MBits"], REPLACES, "Network", SILENT),
    ("/DNS/Servers", &["0"], REPLACES, "Network/DNS/Servers", SILENT),
    ("/DNS/Searches", &["0"], REPLACES, "Network/DNS/Searches", SILENT),
    ("/DNS/Options", &["0"], REPLACES, "Network/DNS/Options", SILENT),
    ("/CNI/Args", &["k"], REPLACES, "Network/CNI", SILENT),
    ("/ReservedPorts/0", &["Label", "Value", "To", "HostNetwork"], REPLACES, "Network/Static Port", SILENT),
    ("/ReservedPorts/0", &["IgnoreCollision"], STAYS, "Network/Static Port", SILENT),
    ("/DynamicPorts/0", &["Label", "To", "HostNetwork"], REPLACES, "Network/Dynamic Port", SILENT),
];

const SERVICE_ROWS: &[Row] = &[
    (
        "",
        &[
            "Name",
            "TaskName",
            "PortLabel",
            "AddressMode",
            "Address",
            "EnableTagOverride",
            "Namespace",
            "OnUpdate",
            "Provider",
            "Cluster",
        ],
        STAYS,
        "Service",
        SILENT,
    ),
    ("/Tags", &["0"], STAYS, "Service/Tags", SILENT),
    ("/CanaryTags", &["0"], STAYS, "Service/CanaryTags", SILENT),
    ("/Meta", &["k"], STAYS, "Service", SILENT),
    ("/CanaryMeta", &["k"], STAYS, "Service", SILENT),
    ("/TaggedAddresses", &["k"], STAYS, "Service", SILENT),
    ("/Weights", &["Passing", "Warning"], STAYS, "Service/Weights", SILENT),
    (
        "/Checks/0",
        &[
            "Name",
            "Type",
            "Command",
            "Path",
            "Protocol",
            "PortLabel",
            "Expose",
            "AddressMode",
            "Interval",
            "Timeout",
            "InitialStatus",
            "Notes",
            "TLSServerName",
            "TLSSkipVerify",
            "Method",
            "GRPCService",
            "GRPCUseTLS",
            "TaskName",
            "SuccessBeforePassing",
            "FailuresBeforeCritical",
            "FailuresBeforeWarning",
            "Body",
            "OnUpdate",
        ],
        STAYS,
        "Service/Check",
        SILENT,
    ),
    ("/Checks/0/Args", &["0"], STAYS, "Service/Check/Args", SILENT),
    ("/Checks/0/Header/X", &["0"], STAYS, "Service/Check/Header", SILENT),
    (
        "/Checks/0/CheckRestart",
        &["Limit", "Grace", "IgnoreWarnings"],
        STAYS,
        "Service/Check/CheckRestart",
        SILENT,
    ),
    (
        "/Identity",
        &["Name", "ChangeMode", "ChangeSignal", "Env", "File", "Filepath", "ServiceName", "TTL"],
        STAYS,
        "Service/Identity",
        SILENT,
    ),
    ("/Identity/Audience", &["0"], STAYS, "Service/Identity/Audience", SILENT),
];

/// One field of the table: pointer, what a change means, the place in the diff, what the display says.
struct Field {
    pointer: String,
    kind: UpdateKind,
    /// Group and task included: `front/app/Config`.
    place: String,
    said: &'static str,
}

fn table() -> Vec<Field> {
    let network = format!("{GROUP}/Networks/0");
    let own_network = format!("{TASK}/Resources/Networks/0");
    let service = format!("{GROUP}/Services/0");
    let own_service = format!("{TASK}/Services/0");
    let parts: [(&str, &[Row], &str, Option<&'static str>); 7] = [
        ("", JOB_ROWS, "", None),
        (GROUP, GROUP_ROWS, "front", None),
        (TASK, TASK_ROWS, "front/app", None),
        (&network, NETWORK_ROWS, "front", None),
        (&own_network, NETWORK_ROWS, "front/app/Resources", Some(CREATE_DESTROY)),
        (&service, SERVICE_ROWS, "front", None),
        (&own_service, SERVICE_ROWS, "front/app", Some(IN_PLACE)),
    ];
    let mut out = Vec::new();
    for (prefix, rows, place, said) in parts {
        for (block, fields, kind, inside, own) in rows {
            for field in *fields {
                let places: Vec<&str> = [place, inside].into_iter().filter(|part| !part.is_empty()).collect();
                out.push(Field {
                    pointer: format!("{prefix}{block}/{field}"),
                    kind: *kind,
                    place: places.join("/"),
                    said: said.unwrap_or(own),
                });
            }
        }
    }
    out
}

fn job(value: &Value) -> Job {
    serde_json::from_value(value.clone()).expect("a job")
}

/// Another value of the same type.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_i64().unwrap_or(0) + 7),
        Value::String(text) => json!(format!("{text}z")),
        _ => panic!("{value} is no leaf"),
    }
}

/// The places of everything that a diff shows as changed.
fn places(diff: &JobDiff) -> BTreeSet<String> {
    fn inside(at: &str, fields: &[FieldDiff], objects: &[ObjectDiff], out: &mut BTreeSet<String>) {
        if fields.iter().any(|field| field.kind != DiffType::None) {
            out.insert(at.to_owned());
        }
        for object in objects {
            let at = if at.is_empty() { object.name.clone() } else { format!("{at}/{}", object.name) };
            inside(&at, &object.fields, &object.objects, out);
        }
    }
    let mut out = BTreeSet::new();
    inside("", &diff.fields, &diff.objects, &mut out);
    for group in &diff.task_groups {
        inside(&group.name, &group.fields, &group.objects, &mut out);
        for task in &group.tasks {
            inside(&format!("{}/{}", group.name, task.name), &task.fields, &task.objects, &mut out);
        }
    }
    out
}

#[test]
fn every_field_has_its_kind_of_update_its_place_in_the_diff_and_its_annotation() {
    let old = base();
    for Field { pointer, kind, place, said } in table() {
        let mut new = old.clone();
        let leaf = new.pointer_mut(&pointer).unwrap_or_else(|| panic!("no {pointer}"));
        *leaf = other(leaf);
        let (old, new) = (job(&old), job(&new));
        assert_ne!(old, new, "{pointer} is read");
        assert_eq!(update_kind(&old, &new, "front"), kind, "{pointer}");
        let diff = diff(Some(&old), &new, true);
        assert_eq!(diff.kind, DiffType::Edited, "{pointer}");
        let found = places(&diff);
        assert!(found.contains(&place), "{pointer}: {place} is not in {found:?}");
        let annotations = &diff.task_groups[0].tasks[0].annotations;
        assert_eq!(annotations.join(", "), said, "{pointer}");
    }
}

#[test]
fn the_table_names_every_field_that_a_job_has() {
    fn leaves(at: String, value: &Value, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| leaves(format!("{at}/{key}"), value, out))
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, item)| leaves(format!("{at}/{index}"), item, out));
            }
            _ => drop(out.insert(at)),
        }
    }
    // What no user writes, names by which groups and tasks are matched, and what only older clients send.
    let apart = [
        "/ID",
        "/Stop",
        "/ParentID",
        "/Dispatched",
        "/DispatchIdempotencyToken",
        "/Payload",
        "/ConsulToken",
        "/VaultToken",
        "/NomadTokenID",
        "/Status",
        "/StatusDescription",
        "/Stable",
        "/Version",
        "/SubmitTime",
        "/CreateIndex",
        "/ModifyIndex",
        "/JobModifyIndex",
        "/VersionTag",
        "/TaskGroups/0/Name",
        "/TaskGroups/0/Tasks/0/Name",
        // Meshes are compared as a whole.
        "/TaskGroups/0/Services/0/Connect",
        "/TaskGroups/0/Tasks/0/Services/0/Connect",
    ];
    let known: BTreeSet<String> = table().into_iter().map(|field| field.pointer).collect();
    let mut all = BTreeSet::new();
    leaves(String::new(), &serde_json::to_value(job(&base())).expect("serializes"), &mut all);
    let missing: Vec<&String> = all
        .iter()
        .filter(|leaf| !known.contains(*leaf) && !apart.contains(&leaf.as_str()))
        // The job's own policy shows what the groups say.
        .filter(|leaf| !leaf.starts_with("/Update/"))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn an_annotation_of_create_destroy_does_not_mean_that_the_allocation_is_replaced() {
    let rows = table().into_iter().filter(|field| field.said == CREATE_DESTROY && field.kind == STAYS);
    let pointers: Vec<String> = rows.map(|field| field.pointer).collect();
    for field in [
        "KillSignal",
        "Leader",
        "ShutdownDelay",
        "LogConfig/MaxFiles",
        "DispatchPayload/File",
        "Actions/0/Command",
    ] {
        assert!(pointers.contains(&format!("{TASK}/{field}")), "{field}");
    }
}

#[test]
fn meta_of_job_and_group_replaces_allocations_without_an_annotation() {
    let old = base();
    for pointer in ["/Meta/owner", "/TaskGroups/0/Meta/tier"] {
        let mut new = old.clone();
        *new.pointer_mut(pointer).expect("meta") = json!("other");
        let (old, new) = (job(&old), job(&new));
        assert_eq!(update_kind(&old, &new, "front"), REPLACES);
        let diff = diff(Some(&old), &new, true);
        assert!(diff.task_groups[0].tasks[0].annotations.is_empty());
        assert_eq!(diff.task_groups[0].tasks[0].kind, DiffType::None);
    }
}

#[test]
fn what_comes_and_goes_says_what_it_forces() {
    let old = base();
    let mut new = old.clone();
    let mut second = group();
    second["Name"] = json!("back");
    new["TaskGroups"] = json!([second]);
    let both = diff(Some(&job(&old)), &job(&new), true);
    let said: Vec<_> = both
        .task_groups
        .iter()
        .map(|group| (group.name.as_str(), group.kind, group.tasks[0].annotations.join(",")))
        .collect();
    assert_eq!(
        said,
        [
            ("back", DiffType::Added, "forces create".to_owned()),
            ("front", DiffType::Deleted, "forces destroy".to_owned()),
        ]
    );
    assert_eq!(update_kind(&job(&old), &job(&new), "front"), REPLACES);
    let mut wider = old.clone();
    let mut sidecar = task();
    sidecar["Name"] = json!("log");
    wider["TaskGroups"][0]["Tasks"] = json!([task(), sidecar]);
    let wider = job(&wider);
    assert_eq!(update_kind(&job(&old), &wider, "front"), REPLACES);
    let tasks = &diff(Some(&job(&old)), &wider, true).task_groups[0].tasks;
    assert_eq!((tasks[1].kind, tasks[1].annotations.join(",")), (DiffType::Added, CREATE_DESTROY.to_owned()));
}

#[test]
fn times_are_nanoseconds_maps_have_their_keys_and_unset_options_are_nil() {
    let old = base();
    let mut new = old.clone();
    new["TaskGroups"][0]["Tasks"][0]["KillTimeout"] = json!(5_000_000_000_i64);
    new["TaskGroups"][0]["Tasks"][0]["Env"] = json!({"A": "2", "B": "3"});
    new["TaskGroups"][0]["Disconnect"]["StopOnClientAfter"] = Value::Null;
    let diff = diff(Some(&job(&old)), &job(&new), true);
    let group = &diff.task_groups[0];
    let fields: Vec<_> = group.tasks[0]
        .fields
        .iter()
        .map(|field| (field.kind, field.name.as_str(), field.old.as_str(), field.new.as_str()))
        .collect();
    assert_eq!(
        fields,
        [
            (DiffType::Edited, "Env[A]", "1", "2"),
            (DiffType::Added, "Env[B]", "", "3"),
            (DiffType::Edited, "KillTimeout", "1", "5000000000"),
        ]
    );
    let disconnect = group.objects.iter().find(|object| object.name == "Disconnect").expect("an entry");
    let stop = disconnect.fields.iter().find(|field| field.name == "StopOnClientAfter").expect("a field");
    assert_eq!((stop.old.as_str(), stop.new.as_str()), ("1", "nil"));
}
