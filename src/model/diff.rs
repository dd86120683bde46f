//! What differs between two versions of a job, for people to read; and what the difference means for allocations.

mod object;
mod update;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::group::TaskGroup;
use super::job::Job;
use super::task::Task;
use super::wire::null;

pub use self::update::UpdateKind;
pub use self::update::update_kind;

/// How something differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DiffType {
    #[default]
    None,
    Added,
    Deleted,
    Edited,
}

/// A single value, written as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FieldDiff {
    #[serde(rename = "Type")]
    pub kind: DiffType,
    /// `Count`, `Meta[owner]`, `args[0]`.
    pub name: String,
    pub old: String,
    pub new: String,
    /// What the change forces.
    #[serde(with = "null")]
    pub annotations: Vec<String>,
}

/// A block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ObjectDiff {
    #[serde(rename = "Type")]
    pub kind: DiffType,
    pub name: String,
    #[serde(with = "null")]
    pub fields: Vec<FieldDiff>,
    #[serde(with = "null")]
    pub objects: Vec<ObjectDiff>,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskDiff {
    #[serde(rename = "Type")]
    pub kind: DiffType,
    pub name: String,
    #[serde(with = "null")]
    pub fields: Vec<FieldDiff>,
    #[serde(with = "null")]
    pub objects: Vec<ObjectDiff>,
    #[serde(with = "null")]
    pub annotations: Vec<String>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskGroupDiff {
    #[serde(rename = "Type")]
    pub kind: DiffType,
    pub name: String,
    #[serde(with = "null")]
    pub fields: Vec<FieldDiff>,
    #[serde(with = "null")]
    pub objects: Vec<ObjectDiff>,
    #[serde(with = "null")]
    pub tasks: Vec<TaskDiff>,
    /// What a plan would do, by counter name (`ignore`, `create`, `in-place update`, …); no zeros.
    #[serde(with = "null")]
    pub updates: BTreeMap<String, u64>,
}

impl TaskGroupDiff {
    /// Records what a plan would do with the group; zeros are left out.
    pub fn set_updates<'a>(&mut self, counters: impl IntoIterator<Item = (&'a str, u64)>) {
        let counters = counters.into_iter().filter(|(_, count)| *count > 0);
        self.updates = counters.map(|(name, count)| (name.to_owned(), count)).collect();
    }
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobDiff {
    #[serde(rename = "Type")]
    pub kind: DiffType,
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Fields", with = "null")]
    pub fields: Vec<FieldDiff>,
    #[serde(rename = "Objects", with = "null")]
    pub objects: Vec<ObjectDiff>,
    #[serde(rename = "TaskGroups", with = "null")]
    pub task_groups: Vec<TaskGroupDiff>,
}

impl JobDiff {
    /// The same without what the changes force.
    #[must_use]
    pub fn without_annotations(mut self) -> Self {
        for group in &mut self.task_groups {
            group.fields.iter_mut().for_each(|field| field.annotations.clear());
            group.tasks.iter_mut().for_each(|task| task.annotations.clear());
        }
        self
    }
}

/// Keys of a job that no user writes, or that are shown elsewhere.
const JOB_HIDDEN: &[&str] = &[
    "ID",
    "Status",
    "StatusDescription",
    "Version",
    "VersionTag",
    "Stable",
    "CreateIndex",
    "ModifyIndex",
    "JobModifyIndex",
    "Update",
    "SubmitTime",
    "NomadTokenID",
    "VaultToken",
    "ConsulToken",
    "Payload",
    "TaskGroups",
];

/// Compares two versions; without `old` the job is new. `contextual`: whether unchanged values appear beside changed
/// ones, and unchanged groups and tasks at all.
pub fn diff(old: Option<&Job>, new: &Job, contextual: bool) -> JobDiff {
    let old_value = old.map(object::tree);
    let new_value = object::tree(new);
    let members = object::members(old_value.as_ref(), Some(&new_value), JOB_HIDDEN, contextual);
    let empty = Vec::new();
    let old_groups = old.map_or(&empty, |job| &job.task_groups);
    let names: BTreeSet<&str> =
        old_groups.iter().chain(&new.task_groups).map(|group| group.name.as_str()).collect();
    let task_groups: Vec<TaskGroupDiff> = names
        .into_iter()
        .map(|name| {
            let old = old_groups.iter().find(|group| group.name == name);
            group_diff(name, old, new.group(name), contextual)
        })
        .filter(|group| contextual || group.kind != DiffType::None)
        .collect();
    let changed = members.is_changed() || task_groups.iter().any(|group| group.kind != DiffType::None);
    JobDiff {
        kind: kind_of(old.is_some(), true, changed),
        id: new.id.clone(),
        fields: members.fields,
        objects: members.objects,
        task_groups,
    }
}

fn kind_of(has_old: bool, has_new: bool, changed: bool) -> DiffType {
    match (has_old, has_new) {
        (false, _) => DiffType::Added,
        (_, false) => DiffType::Deleted,
        _ if changed => DiffType::Edited,
        _ => DiffType::None,
    }
}

fn group_diff(
    name: &str,
    old: Option<&TaskGroup>,
    new: Option<&TaskGroup>,
    contextual: bool,
) -> TaskGroupDiff {
    let (old_value, new_value) = (old.map(object::tree), new.map(object::tree));
    let hidden = ["Name", "Tasks"];
    let mut members = object::members(old_value.as_ref(), new_value.as_ref(), &hidden, contextual);
    for field in members.fields.iter_mut().filter(|field| field.name == "Count") {
        let count = |text: &str| text.parse::<i64>().unwrap_or(0);
        let text = if count(&field.new) > count(&field.old) { "forces create" } else { "forces destroy" };
        field.annotations = vec![text.to_owned()];
    }
    let empty = Vec::new();
    let old_tasks = old.map_or(&empty, |group| &group.tasks);
    let new_tasks = new.map_or(&empty, |group| &group.tasks);
    let names: BTreeSet<&str> = old_tasks.iter().chain(new_tasks).map(|task| task.name.as_str()).collect();
    let group_kind = kind_of(old.is_some(), new.is_some(), false);
    let tasks: Vec<TaskDiff> = names
        .into_iter()
        .map(|name| {
            let find = |tasks: &'_ [Task]| tasks.iter().position(|task| task.name == name);
            let old = find(old_tasks).map(|index| &old_tasks[index]);
            let new = find(new_tasks).map(|index| &new_tasks[index]);
            let mut task = task_diff(name, old, new, contextual);
            annotate(&mut task, group_kind);
            task
        })
        .filter(|task| contextual || task.kind != DiffType::None)
        .collect();
    let changed = members.is_changed() || tasks.iter().any(|task| task.kind != DiffType::None);
    TaskGroupDiff {
        kind: kind_of(old.is_some(), new.is_some(), changed),
        name: name.to_owned(),
        fields: members.fields,
        objects: members.objects,
        tasks,
        updates: BTreeMap::new(),
    }
}

fn task_diff(name: &str, old: Option<&Task>, new: Option<&Task>, contextual: bool) -> TaskDiff {
    let (old_value, new_value) = (old.map(object::tree), new.map(object::tree));
    let mut members =
        object::members(old_value.as_ref(), new_value.as_ref(), &["Name", "Config"], contextual);
    let config = |value: &Option<Value>| value.as_ref().and_then(|value| value.get("Config")).cloned();
    members.objects.extend(object::flat("Config", config(&old_value), config(&new_value), contextual));
    members.objects.sort_by(|a, b| a.name.cmp(&b.name));
    TaskDiff {
        kind: kind_of(old.is_some(), new.is_some(), members.is_changed()),
        name: name.to_owned(),
        fields: members.fields,
        objects: members.objects,
        annotations: Vec::new(),
    }
}

/// Says what a changed task forces. This is the rule of the display, coarser than what the scheduler does.
fn annotate(task: &mut TaskDiff, group: DiffType) {
    let text = match (group, task.kind) {
        (_, DiffType::None) => return,
        (DiffType::Added, _) => "forces create",
        (DiffType::Deleted, _) => "forces destroy",
        _ if task.fields.iter().any(|field| field.kind != DiffType::None && field.name != "KillTimeout") => {
            "forces create/destroy update"
        }
        _ if task.objects.iter().any(is_destructive) => "forces create/destroy update",
        _ => "forces in-place update",
    };
    task.annotations = vec![text.to_owned()];
}

fn is_destructive(object: &ObjectDiff) -> bool {
    match object.name.as_str() {
        "Service" | "Constraint" | "Affinity" | "Lifecycle" => false,
        "RestartPolicy" => changes(object, "RenderTemplates"),
        _ => object.kind != DiffType::None,
    }
}

fn changes(object: &ObjectDiff, field: &str) -> bool {
    object.fields.iter().any(|diff| diff.name == field && diff.kind != DiffType::None)
}

#[cfg(test)]
mod tests;
