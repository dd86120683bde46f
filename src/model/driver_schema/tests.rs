use serde_json::json;

use super::*;

fn problems(driver: &str, config: Value) -> Vec<String> {
    let table = options_of(driver).expect("a built-in driver");
    let config = config.as_object().expect("options");
    check_submitted(table, config).into_iter().map(|misfit| misfit.text).collect()
}

#[test]
fn every_driver_has_a_table_without_repeated_names() {
    for driver in ["docker", "exec", "raw_exec", "java", "qemu", "mock_driver"] {
        let table = options_of(driver).expect("a table");
        let names: std::collections::BTreeSet<&str> = table.iter().map(|option| option.name).collect();
        assert_eq!(names.len(), table.len(), "{driver}");
    }
    assert!(options_of("pot").is_none());
}

#[test]
fn names_types_and_what_is_missing_are_all_told() {
    assert_eq!(
        problems("raw_exec", json!({"comand": "x", "args": "a"})),
        [
            "Missing required argument: The argument \"command\" is required, but no definition was found.",
            "Incorrect attribute value type: Inappropriate value for attribute \"args\": list of string required.",
            "Invalid label: No argument or block type is named \"comand\".",
        ]
    );
}

#[test]
fn a_map_may_be_a_list_of_maps() {
    for labels in [json!({"a": 1}), json!([{"a": "x"}]), json!([{"a": "x"}, {"b": true}]), json!([])] {
        assert_eq!(problems("docker", json!({"image": "i", "labels": labels})), Vec::<String>::new());
    }
    assert_eq!(
        problems("docker", json!({"image": "i", "labels": ["a"]})),
        [
            "Incorrect attribute value type: Inappropriate value for attribute \"labels\": list of map of string required."
        ]
    );
}

#[test]
fn what_only_the_node_knows_is_not_judged() {
    let config = json!({
        "image": "i", "pids_limit": "${meta.pids}", "privileged": "${meta.p}", "ports": "${meta.ports}",
        "port_map": [{"http": "${meta.port}"}], "ulimit": [{"nofile": "${meta.files}"}], "image_pull_timeout": "${meta.t}",
        "mount": [{"type": "${meta.m}", "target": "/a"}],
    });
    assert_eq!(problems("docker", config.clone()), Vec::<String>::new());
    // On the node such a text is only a text.
    let table = options_of("docker").expect("a table");
    let found = check(table, config.as_object().expect("options"));
    let names: Vec<&str> = found.iter().map(|misfit| misfit.option.as_str()).collect();
    assert_eq!(
        names,
        ["image_pull_timeout", "pids_limit", "port_map", "ports", "privileged", "ulimit", "type"],
        "{found:?}"
    );
}

#[test]
fn blocks_are_checked_inside_with_their_place() {
    let config = json!({"image": "i", "devices": [{}], "mount": [
        {"type": "bind", "target": "/a"}, {"type": "nfs", "target": "/b", "readonly": "maybe"}]});
    let table = options_of("docker").expect("a table");
    let found = check(table, config.as_object().expect("options"));
    let places: Vec<_> = found.iter().map(|misfit| (misfit.blocks.clone(), misfit.option.as_str())).collect();
    assert_eq!(
        places,
        [(vec![("devices", 0)], "host_path"), (vec![("mount", 1)], "type"), (vec![("mount", 1)], "readonly"),]
    );
    assert_eq!(
        found[0].placed(),
        "devices: Missing required argument: The argument \"host_path\" is required, but no definition was found."
    );
}

#[test]
fn values_have_rules() {
    for (driver, config, expected) in [
        ("docker", json!({"image": ""}), "image must not be empty"),
        ("docker", json!({"image": "i", "command": " x"}), "command contains extra white space: \" x\""),
        ("docker", json!({"image": "i", "command": " "}), "command empty: \" \""),
        ("docker", json!({"image": "i", "cpu_cfs_period": 1_000_001}), "invalid value for cpu_cfs_period"),
        (
            "docker",
            json!({"image": "i", "image_pull_timeout": "5"}),
            "image_pull_timeout 5 not a valid duration: time: missing unit in duration \"5\"",
        ),
        ("docker", json!({"image": "i", "ulimit": [{"nofile": "a:b"}]}), "malformed ulimit nofile: \"a:b\""),
        (
            "docker",
            json!({"image": "i", "devices": [{"host_path": "/dev/null", "cgroup_permissions": "rx"}]}),
            "invalid cgroup permission string: \"rx\"",
        ),
        (
            "exec",
            json!({"command": "c", "pid_mode": "shared"}),
            "pid_mode must be \"private\" or \"host\", got \"shared\"",
        ),
        (
            "exec",
            json!({"command": "c", "work_dir": "x"}),
            "work_dir must be absolute but got relative path \"x\"",
        ),
        (
            "raw_exec",
            json!({"command": "c", "oom_score_adj": -1}),
            "oom_score_adj must be between 0 and 1000, got -1",
        ),
        (
            "qemu",
            json!({"image_path": "i", "accelerator": "hvf"}),
            "accelerator must be one of tcg, kvm, got \"hvf\"",
        ),
        (
            "qemu",
            json!({"image_path": "i", "port_map": [{"a": 70_000}]}),
            "port_map maps \"a\" to 70000, which is no port",
        ),
        (
            "mock_driver",
            json!({"run_for": "xx"}),
            "run_for xx not a valid duration: time: invalid duration \"xx\"",
        ),
    ] {
        assert_eq!(problems(driver, config), [expected]);
    }
}
