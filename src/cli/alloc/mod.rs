//! `alloc …`

pub mod actions;
pub mod fs;
pub mod logs;
mod resources;
pub mod status;

use serde_json::Value;

use super::context::Context;
use super::context::Failure;
use super::format::id;
use super::format::quoted;
use super::resolve;
use super::resolve::Accept;
use super::resolve::Kind;
use super::resolve::job_path;
use super::tables;
use super::view::View;
use super::view::rows;
use crate::client::Client;

/// Finds an allocation by prefix and reads it whole. Gives a client for its namespace too.
async fn find(context: &Context, wanted: &str, verbose: bool) -> Result<(Client, Value), Failure> {
    let client = context.client().await?;
    let table = |many: &[Value]| tables::allocations(many, context.now(), verbose);
    let stub = resolve::one(client, Kind::Allocation, wanted, "Alloc ID", table).await?;
    let client = client.in_namespace(stub.text("Namespace"));
    let alloc = read(&client, stub.text("ID")).await?;
    Ok((client, alloc))
}

async fn read(client: &Client, id: &str) -> Result<Value, Failure> {
    let answer = client.get(&format!("/v1/allocation/{id}"), &[]).await;
    Ok(answer.map_err(|why| format!("Error querying allocation: {why}"))?.value)
}

/// A running allocation of a job; the newest one.
async fn of_job(context: &Context, wanted: &str) -> Result<(Client, Value), Failure> {
    let client = context.client().await?;
    let found = resolve::job(client, wanted, Accept::Any).await?;
    let client = client.in_namespace(&found.namespace);
    let answer = client.get(&job_path(&found.id, "/allocations"), &[]).await;
    let list = answer.map_err(|why| format!("Error fetching allocations: {why}"))?.value;
    let newest = |status: &str| {
        let matching =
            rows(&list).iter().filter(|alloc| status.is_empty() || alloc.text("ClientStatus") == status);
        matching.max_by_key(|alloc| alloc.int("CreateIndex")).map(|alloc| alloc.text("ID").to_owned())
    };
    let Some(id) = newest("running").or_else(|| newest("")) else {
        let why = format!("job {} doesn't have any allocations", quoted(&found.id));
        return Err(format!("Error fetching allocations: {why}").into());
    };
    let alloc = read(&client, &id).await?;
    Ok((client, alloc))
}

/// The names of the tasks of an allocation.
fn tasks(alloc: &Value) -> Vec<String> {
    let group = alloc.text("TaskGroup");
    let groups = alloc.field("Job").list("TaskGroups");
    let tasks = groups.iter().find(|one| one.text("Name") == group).map_or(&[][..], |one| one.list("Tasks"));
    if tasks.is_empty() {
        return alloc.entries("TaskStates").into_iter().map(|(name, _)| name.to_owned()).collect();
    }
    tasks.iter().map(|task| task.text("Name").to_owned()).collect()
}

/// The task that a flag names, or the only one.
fn choose_task(alloc: &Value, flag: Option<&str>, verbose: bool) -> Result<String, Failure> {
    let names = tasks(alloc);
    match (flag, names.as_slice()) {
        (Some(task), names) if names.iter().any(|name| name == task) => Ok(task.to_owned()),
        (Some(task), names) => {
            Err(format!("Could not find task named: {task}, found:\n{}", names.join("\n")).into())
        }
        (None, [only]) => Ok(only.clone()),
        (None, names) => {
            let list: Vec<String> = names.iter().map(|name| format!("  * {name}")).collect();
            let alloc = quoted(&id(alloc.text("ID"), verbose));
            let text = format!(
                "Allocation {alloc} is running the following tasks:\n{}\n\nPlease specify the task.",
                list.join("\n")
            );
            Err(text.into())
        }
    }
}
