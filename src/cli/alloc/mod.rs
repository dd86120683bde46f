//! `alloc …`

pub mod actions;
pub mod checks;
pub mod exec;
pub mod fs;
pub mod logs;
pub mod pause;
mod resources;
pub mod status;
mod tail;

use std::time::Duration;

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
use crate::client::Body;
use crate::client::Client;
use crate::client::ClientError;
use crate::client::Query;
use crate::client::Socket;

/// The agent of an allocation is tried for this long before the request goes the long way.
const NEAR_PATIENCE: Duration = Duration::from_secs(1);

/// The two ways to what runs on a node: straight to its agent, and through whoever was asked so far.
struct Reach {
    near: Option<Client>,
    far: Client,
}

impl Reach {
    /// Looks up the agent of an allocation.
    async fn of(context: &Context, client: &Client, alloc: &Value) -> Self {
        let node = client.get(&format!("/v1/node/{}", alloc.text("NodeID")), &[]).await;
        let address = node.map(|node| node.value.text("HTTPAddr").to_owned()).unwrap_or_default();
        let is_same = client.address().ends_with(&format!("://{address}"));
        let near = (!address.is_empty() && !is_same)
            .then(|| context.client_at(client, &address, NEAR_PATIENCE).ok())
            .flatten();
        Self { near, far: client.clone() }
    }

    /// Reads an answer piece by piece. What the agent itself refuses is refused; but whoever does not know the
    /// allocation is another agent that happens to listen at that address here.
    async fn stream(&self, path: &str, query: Query<'_>) -> Result<Body, ClientError> {
        if let Some(near) = &self.near {
            match near.stream(path, query).await {
                Err(ClientError::Transport { .. }) => {}
                Err(why) if why.is_status(404) && why.to_string().contains("Unknown allocation") => {}
                answer => return answer,
            }
        }
        self.far.stream(path, query).await
    }

    /// Opens a websocket; the long way if the straight one does not work for whatever reason.
    async fn socket(&self, path: &str, query: Query<'_>) -> Result<Socket, ClientError> {
        if let Some(near) = &self.near
            && let Ok(socket) = near.socket(path, query).await
        {
            return Ok(socket);
        }
        self.far.socket(path, query).await
    }
}

/// Finds an allocation by prefix and reads it whole. Gives a client for its namespace too.
pub(super) async fn find(context: &Context, wanted: &str, verbose: bool) -> Result<(Client, Value), Failure> {
    let client = context.client().await?;
    let table = |many: &[Value]| tables::allocations(many, context.now(), verbose);
    let stub = resolve::one(client, Kind::Allocation, wanted, "Alloc ID", table).await?;
    let client = client.in_namespace(stub.text("Namespace"));
    let alloc = read(&client, stub.text("ID")).await?;
    Ok((client, alloc))
}

pub(super) async fn read(client: &Client, id: &str) -> Result<Value, Failure> {
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
pub(super) fn choose_task(alloc: &Value, flag: Option<&str>, verbose: bool) -> Result<String, Failure> {
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
