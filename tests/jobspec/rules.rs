//! What a job must not say, in the words that scripts look for.

use herder::jobspec;
use herder::jobspec::check_update;

use super::job;
use super::with;

fn errors(job_body: &str, group: &str, task: &str) -> String {
    let found = jobspec::validate(&job(&with(job_body, group, task)));
    found.error_text().unwrap_or_default()
}

#[test]
fn messages_nest_with_their_newlines() {
    let job = job("job \"j\" {\n group \"g\" {\n task \"t\" {}\n }\n}\n");
    assert_eq!(
        jobspec::validate(&job).error_text().unwrap_or_default(),
        "1 error occurred:\n\t* Task group g validation failed: 1 error occurred:\n\t* Task t validation failed: 1 error \
         occurred:\n\t* Missing task driver\n\n\n\n\n\n"
    );
}

#[test]
fn each_rule_has_its_text() {
    let check = "type = \"tcp\"\n interval = \"5s\"\n timeout = \"1s\"";
    for (job, group, task, expected) in [
        ("type = \"odd\"", "", "", "Invalid job type: \"odd\""),
        ("id = \"a b\"", "", "", "Job ID contains a space"),
        ("priority = 101", "", "", "job priority must be between [1, 100]"),
        ("datacenters = [\"\"]", "", "", "Job datacenter must be non-empty string"),
        (
            "type = \"system\"",
            "count = 2",
            "",
            "Job task group g has count 2. Count cannot exceed 1 with system scheduler",
        ),
        ("", "count = -1", "", "Task group count can't be negative"),
        (
            "type = \"batch\"\nupdate {\n max_parallel = 1\n}",
            "",
            "",
            "Job type \"batch\" does not allow update block",
        ),
        (
            "type = \"batch\"\nmigrate {\n max_parallel = 1\n}",
            "",
            "",
            "Job type \"batch\" does not allow migrate block",
        ),
        (
            "type = \"system\"",
            "reschedule {\n delay = \"5s\"\n}",
            "",
            "System jobs should not have a reschedule policy",
        ),
        (
            "type = \"system\"\nspread {\n attribute = \"a\"\n}",
            "",
            "",
            "System jobs may not have a spread block",
        ),
        (
            "affinity {\n attribute = \"${attr.x}\"\n value = \"1\"\n weight = 0\n}",
            "",
            "",
            "Affinity 1 validation failed: 1 error occurred:\n\t* Affinity weight cannot be zero",
        ),
        (
            "constraint {\n attribute = \"${attr.x}\"\n}",
            "",
            "",
            "Constraint 1 validation failed: 1 error occurred:\n\t* Operator \"=\" requires an RTarget",
        ),
        ("constraint {\n value = \"x\"\n}", "", "", "No LTarget provided but is required by constraint"),
        (
            "constraint {\n attribute = \"a\"\n operator = \"odd\"\n value = \"x\"\n}",
            "",
            "",
            "Unknown constraint type \"odd\"",
        ),
        (
            "constraint {\n attribute = \"a\"\n version = \"x.y\"\n}",
            "",
            "",
            "Version constraint is invalid: Malformed constraint: x.y",
        ),
        (
            "constraint {\n attribute = \"a\"\n regexp = \"(\"\n}",
            "",
            "",
            "Regular expression failed to compile: ",
        ),
        (
            "",
            "",
            "constraint {\n distinct_hosts = true\n}",
            "Constraint 1 has disallowed Operand at task level: distinct_hosts",
        ),
        (
            "",
            "restart {\n attempts = 3\n delay = \"15s\"\n interval = \"10s\"\n}",
            "",
            "Nomad can't restart the TaskGroup 3 times in an interval of 10s with a delay of 15s",
        ),
        ("", "restart {\n mode = \"odd\"\n}", "", "Unsupported restart mode: \"odd\""),
        (
            "",
            "reschedule {\n attempts = 3\n interval = \"5m\"\n}",
            "",
            "Reschedule Policy with Attempts = 3, Interval = 5m0s, and Unlimited = true is ambiguous",
        ),
        (
            "",
            "reschedule {\n attempts = 5\n interval = \"1m\"\n delay = \"20s\"\n delay_function = \"constant\"\n unlimited = false\n}",
            "",
            "Nomad can only make 3 attempts in 1m0s with initial delay 20s and delay function \"constant\"",
        ),
        (
            "",
            "update {\n healthy_deadline = \"20m\"\n}",
            "",
            "Healthy deadline must be less than progress deadline: 20m0s > 10m0s",
        ),
        (
            "",
            "update {\n auto_promote = true\n}",
            "",
            "Auto Promote requires a Canary count greater than zero",
        ),
        (
            "",
            "ephemeral_disk {\n size = 50\n}",
            "",
            "log storage (100 MB) must be less than requested disk capacity (50 MB)",
        ),
        (
            "",
            "network {\n port \"a\" {\n static = 80\n }\n port \"b\" {\n static = 80\n }\n}",
            "",
            "Static port 80 already reserved by taskgroup network:a",
        ),
        (
            "",
            "network {\n port \"a\" {\n static = 70000\n }\n}",
            "",
            "Task group network validation failed: 1 error occurred:\n\t* Port a (70000) cannot be greater than 65535",
        ),
        (
            "",
            "network {\n port \"a\" {}\n}",
            "resources {\n network {\n port \"a\" {}\n }\n}",
            "Port label a already in use by taskgroup network",
        ),
        ("", "service {\n name = \"a_b\"\n}", "", "Service name must be valid per RFC 1123"),
        (
            "",
            "",
            "service {\n name = \"a\"\n port = \"no\"\n}",
            "port label \"no\" referenced by services a does not exist",
        ),
        (
            "",
            "service {\n provider = \"odd\"\n}",
            "",
            "Service provider must be \"consul\", or \"nomad\"; not \"odd\"",
        ),
        (
            "",
            "service {\n check {\n type = \"tcp\"\n timeout = \"1s\"\n }\n}",
            "",
            "missing required value interval. Interval cannot be less than 1s",
        ),
        (
            "",
            "network {\n port \"p\" {}\n}\nservice {\n provider = \"nomad\"\n port = \"p\"\n check {\n type = \"script\"\n }\n}",
            "",
            "invalid check type (\"script\"), must be one of tcp, http",
        ),
        (
            "",
            "",
            "resources {\n cpu = 100\n cores = 1\n}",
            "Task can only ask for 'cpu' or 'cores' resource, not both.",
        ),
        ("", "", "resources {\n memory = 5\n}", "minimum MemoryMB value is 10; got 5"),
        (
            "",
            "",
            "resources {\n memory = 50\n memory_max = 20\n}",
            "MemoryMaxMB value (20) should be larger than MemoryMB value (50)",
        ),
        (
            "",
            "",
            "kill_timeout = \"11m\"",
            "KillTimout (11m0s) longer than the group's ProgressDeadline (10m0s)",
        ),
        (
            "",
            "",
            "template {\n destination = \"a\"\n}",
            "Template 1 validation failed: 1 error occurred:\n\t* Must specify a source path or have an embedded template",
        ),
        (
            "",
            "",
            "template {\n data = \"x\"\n destination = \"../../x\"\n}",
            "destination escapes allocation directory",
        ),
        (
            "",
            "",
            "template {\n data = \"x\"\n destination = \"x\"\n perms = \"99\"\n}",
            "Failed to parse \"99\" as octal",
        ),
        (
            "",
            "",
            "artifact {\n mode = \"odd\"\n source = \"x\"\n}",
            "invalid artifact mode \"odd\"; must be one of: any, file, dir",
        ),
        (
            "",
            "",
            "artifact {\n source = \"x\"\n options {\n checksum = \"md5:zz\"\n }\n}",
            "invalid checksum: encoding/hex: invalid byte: U+007A 'z'",
        ),
        ("", "", "lifecycle {\n hook = \"odd\"\n}", "Lifecycle validation failed: invalid hook: odd"),
        (
            "",
            "",
            "volume_mount {\n volume = \"v\"\n destination = \"/x\"\n}",
            "Volume Mount (0) references undefined volume v",
        ),
        ("", "", "volume_mount {\n volume = \"v\"\n}", "volume mount has an empty destination"),
        ("", "", "vault {}", "Vault \"default\" not enabled but used in the job"),
        (
            "",
            "scaling {\n max = 0\n}",
            "",
            "Scaling policy invalid: maximum count must not be less than minimum count",
        ),
        (
            "periodic {\n cron = \"@daily\"\n}",
            "",
            "",
            "Periodic can only be used with \"batch\" or \"sysbatch\" scheduler",
        ),
        (
            "type = \"batch\"\nperiodic {\n cron = \"x\"\n}",
            "",
            "",
            "Invalid cron spec \"x\": missing field(s)",
        ),
        (
            "parameterized {}",
            "",
            "",
            "Parameterized job can only be used with \"batch\" or \"sysbatch\" scheduler",
        ),
        (
            "type = \"batch\"\nparameterized {\n meta_required = [\"a\"]\n meta_optional = [\"a\"]\n}",
            "",
            "",
            "Following keys exist in both: [a]",
        ),
    ] {
        let found = errors(job, group, task);
        assert!(found.contains(expected), "for {job} {group} {task}:\n{found}\nlacks\n{expected}");
    }
    let fine =
        format!("network {{\n port \"p\" {{}}\n}}\nservice {{\n port = \"p\"\n check {{\n {check}\n }}\n}}");
    assert_eq!(errors("", &fine, ""), "");
}

#[test]
fn what_passes_elsewhere_passes_here() {
    for (job, group, task) in [
        // A task's own restart policy is not checked.
        ("", "", "restart {\n attempts = 2\n delay = \"15s\"\n interval = \"10s\"\n mode = \"fail\"\n}"),
        ("", "restart {\n attempts = 10\n interval = \"5m\"\n delay = \"25s\"\n mode = \"delay\"\n}", ""),
        ("", "", "kill_signal = \"sigusr1\""),
        ("", "service {\n port = \"unknown\"\n}", ""),
        ("", "network {\n mode = \"foo\"\n port \"n\" {\n static = -1\n }\n}", ""),
        ("", "update {\n max_parallel = 0\n}", ""),
        ("type = \"system\"\nupdate {\n stagger = \"10s\"\n max_parallel = 2\n}", "", ""),
        ("type = \"batch\"\nperiodic {\n enabled = false\n cron = \"nonsense\"\n}", "", ""),
        ("", "", "dispatch_payload {\n file = \"x\"\n}"),
        ("", "", "lifecycle {}"),
        ("", "reschedule {\n attempts = 0\n unlimited = false\n}", ""),
        ("", "", "resources {\n disk = 300\n memory_max = -1\n}"),
    ] {
        assert_eq!(errors(job, group, task), "", "{job} {group} {task}");
    }
}

#[test]
fn warnings_are_listed_apart() {
    let found = jobspec::validate(&job(&with("type = \"batch\"\nperiodic {\n cron = \"@daily\"\n}", "", "")));
    assert_eq!(
        found.warnings_text(),
        "1 warning:\n\n* cron is deprecated and may be removed in a future release. Use crons instead"
    );
}

#[test]
fn some_things_may_not_change_between_versions() {
    let service = job(&with("", "", ""));
    let batch = job(&with("type = \"batch\"", "", ""));
    let periodic = job(&with("type = \"batch\"\nperiodic {\n crons = [\"@daily\"]\n}", "", ""));
    let parameterized = job(&with("type = \"batch\"\nparameterized {}", "", ""));
    for (old, new, expected) in [
        (&service, &batch, "cannot update job from type \"service\" to \"batch\""),
        (&periodic, &batch, "cannot update periodic job to being non-periodic"),
        (&batch, &periodic, "cannot update non-periodic job to being periodic"),
        (&parameterized, &batch, "cannot update parameterized job to being non-parameterized"),
        (&batch, &parameterized, "cannot update non-parameterized job to being parameterized"),
    ] {
        assert_eq!(check_update(old, new), Err(expected.to_owned()));
    }
    assert_eq!(check_update(&batch, &batch), Ok(()));
}
