mod fields;

use serde_json::json;

use super::*;

fn job(task: Value) -> Job {
    let value = json!({
        "ID": "web", "Name": "web", "Type": "service", "Datacenters": ["*"], "Priority": 50,
        "TaskGroups": [{"Name": "front", "Count": 2, "Tasks": [task]}],
    });
    serde_json::from_value(value).expect("a job")
}

fn java(jar: &str) -> Value {
    json!({
        "Name": "app", "Driver": "java", "Config": {"jar_path": format!("local/{jar}"), "args": ["a", "b"]},
        "Artifacts": [{"GetterSource": format!("https://files.example/{jar}"), "RelativeDest": "local/"}],
        "Resources": {"CPU": 500, "MemoryMB": 128},
    })
}

fn find<'a>(objects: &'a [ObjectDiff], name: &str) -> Vec<&'a ObjectDiff> {
    objects.iter().filter(|object| object.name == name).collect()
}

fn task_of(diff: &JobDiff) -> &TaskDiff {
    &diff.task_groups[0].tasks[0]
}

#[test]
fn a_new_job_is_added_with_everything_in_it() {
    let diff = diff(None, &job(java("one.jar")), true);
    assert_eq!(diff.kind, DiffType::Added);
    assert_eq!(diff.task_groups[0].kind, DiffType::Added);
    assert_eq!(task_of(&diff).annotations, ["forces create"]);
    assert!(diff.fields.iter().any(|field| field.name == "Priority" && field.new == "50"));
    assert!(diff.fields.iter().all(|field| field.name != "ID" && field.name != "Version"));
}

#[test]
fn equal_jobs_differ_in_nothing_but_are_still_listed() {
    let same = job(java("one.jar"));
    let diff = diff(Some(&same), &same, true);
    assert_eq!(diff.kind, DiffType::None);
    assert_eq!((diff.fields.len(), diff.objects.len()), (0, 0));
    assert_eq!(task_of(&diff).kind, DiffType::None);
    assert_eq!(task_of(&diff).annotations, Vec::<String>::new());
}

#[test]
fn another_artifact_shows_as_one_added_and_one_deleted() {
    let diff = diff(Some(&job(java("one.jar"))), &job(java("two.jar")), true);
    let task = task_of(&diff);
    assert_eq!(task.kind, DiffType::Edited);
    assert_eq!(task.annotations, ["forces create/destroy update"]);
    let artifacts = find(&task.objects, "Artifact");
    assert_eq!(
        artifacts.iter().map(|object| object.kind).collect::<Vec<_>>(),
        [DiffType::Added, DiffType::Deleted]
    );
    let source = artifacts[0].fields.iter().find(|field| field.name == "GetterSource").expect("a source");
    assert_eq!((source.kind, source.new.as_str()), (DiffType::Added, "https://files.example/two.jar"));
    let names: Vec<&str> = artifacts[0].fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["Chown", "GetterInsecure", "GetterMode", "GetterSource", "RelativeDest"]);
    let config = find(&task.objects, "Config")[0];
    let names: Vec<&str> = config.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["args[0]", "args[1]", "jar_path"]);
    assert_eq!(config.fields[0].kind, DiffType::None);
    assert_eq!(config.fields[2].kind, DiffType::Edited);
}

#[test]
fn a_count_says_what_it_forces() {
    let old = job(java("one.jar"));
    let mut new = old.clone();
    new.task_groups[0].count = Some(3);
    let up = diff(Some(&old), &new, true);
    assert_eq!(up.task_groups[0].fields[0].annotations, ["forces create"]);
    assert_eq!(up.task_groups[0].fields[0].old, "2");
    let down = diff(Some(&new), &old, true);
    assert_eq!(down.task_groups[0].fields[0].annotations, ["forces destroy"]);
    assert_eq!(task_of(&up).kind, DiffType::None);
}

#[test]
fn datacenters_and_meta_have_their_own_form() {
    let old = job(java("one.jar"));
    let mut new = old.clone();
    new.datacenters.push("dc2".to_owned());
    new.meta.insert("owner".to_owned(), "ops".to_owned());
    let diff = diff(Some(&old), &new, true);
    let datacenters = find(&diff.objects, "Datacenters")[0];
    assert_eq!(datacenters.kind, DiffType::Edited);
    let added: Vec<&FieldDiff> =
        datacenters.fields.iter().filter(|field| field.kind == DiffType::Added).collect();
    assert_eq!((added.len(), added[0].new.as_str(), added[0].name.as_str()), (1, "dc2", "Datacenters"));
    assert_eq!(diff.fields[0].name, "Meta[owner]");
    assert_eq!(diff.fields[0].kind, DiffType::Added);
}

#[test]
fn a_changed_port_replaces_the_network() {
    let with = |to: i64| {
        let mut job = job(java("one.jar"));
        let network = json!([{"DynamicPorts": [{"Label": "http", "To": to, "HostNetwork": "default"}]}]);
        job.task_groups[0].networks = serde_json::from_value(network).expect("a network");
        job
    };
    let diff = diff(Some(&with(80)), &with(81), true);
    let networks = find(&diff.task_groups[0].objects, "Network");
    assert_eq!(networks.len(), 2);
    let port = &networks[0].objects[0];
    assert_eq!(port.name, "Dynamic Port");
    let names: Vec<&str> = port.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["HostNetwork", "Label", "To"]);
}

#[test]
fn a_service_is_edited_in_place() {
    let with = |tag: &str| {
        let mut task = java("one.jar");
        task["Services"] = json!([{"Name": "web", "Provider": "nomad", "Tags": [tag]}]);
        job(task)
    };
    let (old, new) = (with("a"), with("b"));
    let diff = diff(Some(&old), &new, true);
    assert_eq!(task_of(&diff).annotations, ["forces in-place update"]);
    let service = find(&task_of(&diff).objects, "Service")[0];
    assert_eq!(service.kind, DiffType::Edited);
    assert_eq!(service.objects[0].name, "Tags");
    assert_eq!(update_kind(&old, &new, "front"), UpdateKind::InPlace { recheck_node: false });
}

#[test]
fn the_wire_form_is_the_one_that_clients_know() {
    let old = job(java("one.jar"));
    let mut new = old.clone();
    new.priority = 60;
    let value = serde_json::to_value(diff(Some(&old), &new, false)).expect("serializes");
    let expected = json!({
        "Type": "Edited", "ID": "web", "Objects": null, "TaskGroups": null,
        "Fields": [{"Type": "Edited", "Name": "Priority", "Old": "50", "New": "60", "Annotations": null}],
    });
    assert_eq!(value, expected);
}

#[test]
fn each_field_has_its_kind_of_update() {
    let base = job(java("one.jar"));
    let kind = |edit: &dyn Fn(&mut Job)| {
        let mut new = base.clone();
        edit(&mut new);
        update_kind(&base, &new, "front")
    };
    let in_place = UpdateKind::InPlace { recheck_node: false };
    let recheck = UpdateKind::InPlace { recheck_node: true };
    assert_eq!(kind(&|_| {}), UpdateKind::None);
    assert_eq!(kind(&|job| job.version = 7), UpdateKind::None);
    assert_eq!(kind(&|job| job.priority = 70), in_place);
    assert_eq!(kind(&|job| job.task_groups[0].count = Some(9)), in_place);
    assert_eq!(kind(&|job| job.task_groups[0].tasks[0].kill_signal = "SIGTERM".to_owned()), in_place);
    assert_eq!(kind(&|job| job.affinities.push(Default::default())), in_place);
    assert_eq!(kind(&|job| job.task_groups[0].spreads.push(Default::default())), in_place);
    assert_eq!(kind(&|job| job.datacenters.push("dc9".to_owned())), recheck);
    assert_eq!(kind(&|job| job.node_pool = "gpu".to_owned()), recheck);
    assert_eq!(kind(&|job| job.task_groups[0].constraints.push(Default::default())), recheck);
    let destructive: [&dyn Fn(&mut Job); 7] = [
        &|job| drop(job.meta.insert("a".to_owned(), "b".to_owned())),
        &|job| drop(job.task_groups[0].tasks[0].env.insert("A".to_owned(), "b".to_owned())),
        &|job| job.task_groups[0].tasks[0].driver = "exec".to_owned(),
        &|job| job.task_groups[0].tasks[0].artifacts[0].getter_source.push('x'),
        &|job| job.task_groups[0].tasks[0].resources.as_mut().expect("resources").memory_mb = 256,
        &|job| job.task_groups[0].networks.push(Default::default()),
        &|job| job.task_groups[0].name = "back".to_owned(),
    ];
    for (index, edit) in destructive.into_iter().enumerate() {
        assert_eq!(kind(edit), UpdateKind::Destructive, "edit {index}");
    }
}

#[test]
fn the_order_of_arguments_counts_and_that_of_tags_does_not() {
    let with = |args: [&str; 2], tags: [&str; 2]| {
        let mut task = java("one.jar");
        task["Actions"] = json!([{"Name": "a", "Command": "c", "Args": args}]);
        task["Services"] = json!([{"Name": "s", "Tags": tags}]);
        job(task)
    };
    let base = with(["x", "y"], ["1", "2"]);
    assert_eq!(diff(Some(&base), &with(["x", "y"], ["2", "1"]), true).kind, DiffType::None);
    let swapped = diff(Some(&base), &with(["y", "x"], ["1", "2"]), true);
    let action = find(&task_of(&swapped).objects, "Action")[0];
    let fields: Vec<_> =
        action.objects[0].fields.iter().map(|field| (field.name.as_str(), field.kind)).collect();
    assert_eq!(fields, [("Args[0]", DiffType::Edited), ("Args[1]", DiffType::Edited)]);
}
