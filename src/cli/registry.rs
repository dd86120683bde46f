//! All commands: their names, aliases, usage and what runs them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use clap::ArgMatches;
use clap::Args;
use clap::Command;

use super::agent;
use super::alloc;
use super::context::Context;
use super::context::Outcome;
use super::deployment;
use super::eval;
use super::fmt;
use super::general::General;
use super::job;
use super::misc;
use super::namespace;
use super::node;
use super::operator;
use super::server;
use super::service;
use super::status;

type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// A command whose flags and arguments clap reads into `Self`.
pub trait Run: Args + 'static {
    /// Runs it and gives the exit code.
    fn run(self, context: &Context) -> impl Future<Output = Outcome>;
}

/// One name of a command.
pub struct Spec {
    /// The words that name it.
    pub path: &'static str,
    /// The name that hints use.
    pub canonical: &'static str,
    /// What stands behind the name in its usage line.
    pub usage: &'static str,
    pub synopsis: &'static str,
    /// Left out of listings.
    pub hidden: bool,
    /// The exit code of errors.
    pub error_code: u8,
    /// After how many positional arguments everything is taken as it is.
    pub stop_after: Option<usize>,
    augment: fn(Command) -> Command,
    /// Reads the arguments and runs.
    pub run: fn(Arc<Context>, ArgMatches) -> Running,
}

impl Spec {
    const fn new<C: Run>(path: &'static str, usage: &'static str, synopsis: &'static str) -> Self {
        Self {
            path,
            canonical: path,
            usage,
            synopsis,
            hidden: false,
            error_code: 1,
            stop_after: None,
            augment: C::augment_args,
            run: |context, matches| {
                Box::pin(async move {
                    let command = C::from_arg_matches(&matches).map_err(|why| why.to_string())?;
                    command.run(&context).await
                })
            },
        }
    }

    /// The same under another name, which does not show in listings.
    const fn alias(mut self, path: &'static str) -> Self {
        self.path = path;
        self.hidden = true;
        self
    }

    const fn shown(mut self) -> Self {
        self.hidden = false;
        self
    }

    /// Everything behind this many positional arguments is taken as it is.
    const fn stops_after(mut self, count: usize) -> Self {
        self.stop_after = Some(count);
        self
    }

    const fn hint(mut self, canonical: &'static str) -> Self {
        self.canonical = canonical;
        self
    }

    const fn fails_with(mut self, code: u8) -> Self {
        self.error_code = code;
        self
    }

    /// The command as clap knows it: its own flags and the general ones.
    pub fn command(&self) -> Command {
        let command = Command::new(self.path).disable_help_flag(true).disable_version_flag(true);
        let command = General::augment_args((self.augment)(command));
        command.args_override_self(true)
    }
}

const JOB: &str = "[options] <job>";
const FILE: &str = "[options] <path>";
const ALLOC: &str = "[options] <allocation>";

const RUN: Spec = Spec::new::<job::run::RunJob>("job run", FILE, "Run a new job or update an existing job");
const PLAN: Spec =
    Spec::new::<job::plan::PlanJob>("job plan", FILE, "Dry-run a job update to determine its effects")
        .fails_with(255);
const VALIDATE: Spec =
    Spec::new::<job::validate::ValidateJob>("job validate", FILE, "Checks if a given job is valid");
const JOB_STATUS: Spec = Spec::new::<job::status::JobStatus>(
    "job status",
    "[options] [<job>]",
    "Display status information about a job",
)
.hint("status");
const STOP: Spec = Spec::new::<job::stop::StopJob>("job stop", "[options] <job> ...", "Stop a running job");
const INSPECT: Spec = Spec::new::<job::history::InspectJob>("job inspect", JOB, "Inspect a submitted job");
const INIT: Spec =
    Spec::new::<job::init::InitJob>("job init", "[options] <filename>", "Create an example job file");
const ALLOC_STATUS: Spec = Spec::new::<alloc::status::AllocStatus>(
    "alloc status",
    ALLOC,
    "Display allocation status information and metadata",
);
const ALLOC_LOGS: Spec = Spec::new::<alloc::logs::AllocLogs>(
    "alloc logs",
    "[options] <allocation> [<task>]",
    "Streams the logs of a task",
);
const ALLOC_FS: Spec = Spec::new::<alloc::fs::AllocFs>(
    "alloc fs",
    "[options] <allocation> [<path>]",
    "Inspect the contents of an allocation directory",
);
const ALLOC_EXEC: Spec = Spec::new::<alloc::exec::AllocExec>(
    "alloc exec",
    "[options] <allocation> <command> [<args>...]",
    "Execute commands in task",
)
.stops_after(1);
const JOB_ACTION: Spec =
    Spec::new::<job::action::JobAction>("job action", "[options] <action>", "Run a pre-defined job action");
const EVAL_STATUS: Spec = Spec::new::<eval::EvalStatus>(
    "eval status",
    "[options] <evaluation>",
    "Display evaluation status and placement failure reasons",
);
const NODE_STATUS: Spec = Spec::new::<node::status::NodeStatus>(
    "node status",
    "[options] [<node>]",
    "Display status information about nodes",
);
const NODE_DRAIN: Spec = Spec::new::<node::drain::NodeDrain>(
    "node drain",
    "[options] <node>",
    "Toggle drain mode on a given node",
);
const SERVER_MEMBERS: Spec = Spec::new::<server::ServerMembers>(
    "server members",
    "[options]",
    "Display a list of known servers and their status",
);

/// Every name that can be typed.
pub static SPECS: &[Spec] = &[
    Spec::new::<agent::Agent>("agent", "[options]", "Runs an agent"),
    Spec::new::<misc::Version>("version", "", "Prints the version"),
    Spec::new::<fmt::Fmt>("fmt", "[options] [path ...]", "Rewrites job files in canonical layout"),
    RUN,
    RUN.alias("run").shown(),
    PLAN,
    PLAN.alias("plan"),
    VALIDATE,
    VALIDATE.alias("validate"),
    JOB_STATUS,
    STOP,
    STOP.alias("stop").shown(),
    INSPECT,
    INSPECT.alias("inspect"),
    INIT,
    INIT.alias("init"),
    Spec::new::<job::dispatch::DispatchJob>(
        "job dispatch",
        "[options] <parameterized job> [input source]",
        "Dispatch an instance of a parameterized job",
    ),
    Spec::new::<job::lists::JobAllocs>("job allocs", JOB, "List allocations for a job"),
    Spec::new::<job::lists::JobDeployments>("job deployments", JOB, "List deployments for a job"),
    Spec::new::<job::history::JobHistory>("job history", JOB, "Display all tracked versions of a job"),
    Spec::new::<job::actions::ForcePeriodic>("job periodic force", JOB, "Force the launch of a periodic job"),
    Spec::new::<job::actions::EvalJob>("job eval", JOB, "Force an evaluation for the job"),
    Spec::new::<job::actions::RevertJob>(
        "job revert",
        "[options] <job> <version|tag>",
        "Revert to a prior version of the job",
    ),
    Spec::new::<job::actions::ScaleJob>(
        "job scale",
        "[options] <job> [<group>] <count>",
        "Change the count of a group of a job",
    ),
    Spec::new::<job::actions::PromoteJob>("job promote", JOB, "Promote a job's canaries"),
    ALLOC_STATUS,
    ALLOC_STATUS.alias("alloc-status").hint("alloc status"),
    JOB_ACTION,
    JOB_ACTION.alias("action"),
    ALLOC_EXEC,
    ALLOC_EXEC.alias("exec"),
    Spec::new::<alloc::pause::PauseAlloc>(
        "alloc pause",
        "[options] <allocation> <task>",
        "Pause or resume a task (Nomad Enterprise)",
    ),
    Spec::new::<alloc::checks::AllocChecks>(
        "alloc checks",
        ALLOC,
        "Outputs service health check status information",
    ),
    ALLOC_LOGS,
    ALLOC_LOGS.alias("logs"),
    ALLOC_FS,
    ALLOC_FS.alias("fs"),
    Spec::new::<alloc::actions::StopAlloc>("alloc stop", ALLOC, "Stop and reschedule a running allocation"),
    Spec::new::<alloc::actions::RestartAlloc>(
        "alloc restart",
        "[options] <allocation> [<task>]",
        "Restart a running allocation",
    ),
    Spec::new::<alloc::actions::SignalAlloc>(
        "alloc signal",
        "[options] <allocation> [<task>]",
        "Signal a running allocation",
    ),
    Spec::new::<deployment::ListDeployments>("deployment list", "[options]", "List all deployments"),
    Spec::new::<deployment::DeploymentStatus>(
        "deployment status",
        "[options] [<deployment>]",
        "Display the status of a deployment",
    ),
    Spec::new::<deployment::FailDeployment>(
        "deployment fail",
        "[options] <deployment>",
        "Manually fail a deployment",
    ),
    Spec::new::<deployment::PromoteDeployment>(
        "deployment promote",
        "[options] <deployment>",
        "Promote canaries in a deployment",
    ),
    Spec::new::<deployment::PauseDeployment>(
        "deployment pause",
        "[options] <deployment>",
        "Pause a deployment",
    ),
    Spec::new::<deployment::ResumeDeployment>(
        "deployment resume",
        "[options] <deployment>",
        "Resume a paused deployment",
    ),
    EVAL_STATUS,
    EVAL_STATUS.alias("eval-status").hint("eval status"),
    Spec::new::<eval::ListEvals>("eval list", "[options]", "List the set of evaluations"),
    NODE_STATUS,
    NODE_STATUS.alias("node-status").hint("node status"),
    NODE_DRAIN,
    NODE_DRAIN.alias("node-drain").hint("node drain"),
    Spec::new::<node::eligibility::NodeEligibility>(
        "node eligibility",
        "[options] <node>",
        "Toggle scheduling eligibility for a given node",
    ),
    SERVER_MEMBERS,
    SERVER_MEMBERS.alias("server-members"),
    Spec::new::<service::ListServices>("service list", "[options]", "Display all registered services"),
    Spec::new::<service::ServiceInfo>(
        "service info",
        "[options] <service>",
        "Display an individual service registration",
    ),
    Spec::new::<namespace::ListNamespaces>("namespace list", "[options]", "List namespaces"),
    Spec::new::<namespace::NamespaceStatus>(
        "namespace status",
        "[options] <namespace>",
        "Display a namespace's status",
    ),
    Spec::new::<status::Status>(
        "status",
        "[options] [<identifier>]",
        "Display the status output for a resource",
    ),
    Spec::new::<misc::SystemGc>("system gc", "[options]", "Run the system garbage collection process"),
    Spec::new::<operator::Api>("operator api", "[options] <path>", "Query the HTTP API"),
    Spec::new::<operator::Metrics>("operator metrics", "[options]", "Retrieve Nomad metrics"),
    Spec::new::<misc::Ui>("ui", "[options] [<identifier>]", "Show the address of the web UI"),
];

/// What a group of commands is for.
pub fn group_synopsis(group: &str) -> &'static str {
    match group {
        "alloc" => "Interact with allocations",
        "deployment" => "Interact with deployments",
        "eval" => "Interact with evaluations",
        "job" => "Interact with jobs",
        "job periodic" => "Interact with periodic jobs",
        "namespace" => "Interact with namespaces",
        "node" => "Interact with nodes",
        "operator" => "Provides cluster-level tools for operators",
        "server" => "Interact with servers",
        "service" => "Interact with registered services",
        "system" => "Interact with the system API",
        _ => "",
    }
}
