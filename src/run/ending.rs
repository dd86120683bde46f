//! How the process ends: by a signal, or because another agent holds the node's id; and what an agent that leaves for
//! good does before it goes.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::json;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;

use crate::api::Api;
use crate::cli::AgentConsole;
use crate::config::DrainOnShutdown;

use super::client::Client;

/// After the deadline of a drain the last tasks still need time to end.
const DRAIN_GRACE: Duration = Duration::from_secs(60);
/// A draining agent looks this often whether it has become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Why the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Interrupt,
    Terminate,
    /// Another agent holds the node's id; the text says which.
    Refused(String),
}

/// The signals that end an agent.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on signals are waited for instead of ending the process.
    pub(super) fn new() -> Self {
        let stream = |kind| tokio::signal::unix::signal(kind).expect("signals can be watched");
        Self {
            interrupt: stream(SignalKind::interrupt()),
            terminate: stream(SignalKind::terminate()),
            hangup: stream(SignalKind::hangup()),
        }
    }

    /// Waits for SIGINT or SIGTERM. SIGHUP is noted: there is nothing to reload yet.
    pub(super) async fn next(&mut self, console: AgentConsole) -> Ending {
        loop {
            let (name, ending) = tokio::select! {
                _ = self.interrupt.recv() => ("interrupt", Ending::Interrupt),
                _ = self.terminate.recv() => ("terminated", Ending::Terminate),
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP: the configuration is read at start only");
                    continue;
                }
            };
            console.step(&format!("Caught signal: {name}"));
            return ending;
        }
    }
}

/// Why the node's id cannot be used, once that is certain; never for an agent without a client.
pub(super) async fn refused(client: Option<&Client>) -> String {
    match client {
        Some(client) => client.refused().await,
        None => std::future::pending().await,
    }
}

/// Moves the work of this node elsewhere and waits until it has ended, like `node drain -self`.
pub(super) async fn drain(api: &Api, client: &Client, wanted: &DrainOnShutdown) {
    let deadline = if wanted.force { -1 } else { wanted.deadline.0 };
    let order = json!({
        "DrainSpec": {"Deadline": deadline, "IgnoreSystemJobs": wanted.ignore_system_jobs},
        "Meta": {"message": "shutting down"},
    });
    let request = Request::put(format!("/v1/node/{}/drain", client.node_id()));
    let request = request.body(Bytes::from(order.to_string())).expect("a request of our own");
    let answer = api.handle(request).await;
    if !answer.status().is_success() {
        tracing::error!(status = %answer.status(), "cannot drain this node before shutdown");
        return;
    }
    let idle = async {
        while !client.is_idle(wanted.ignore_system_jobs) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let patience = wanted.deadline.to_std() + DRAIN_GRACE;
    if tokio::time::timeout(patience, idle).await.is_err() {
        tracing::warn!("the drain did not end in time: what still runs goes on without this agent");
    }
}
