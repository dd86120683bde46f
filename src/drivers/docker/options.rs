//! What the agent's configuration says about Docker: the block `config` of `plugin "docker"`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use crate::drivers::exec::DEFAULT_CAPABILITIES;
use crate::drivers::options::Options;
use crate::drivers::settings::problems_of;
use crate::model::driver_schema::Kind;
use crate::model::driver_schema::Opt;
use crate::model::driver_schema::opt;
use crate::model::time::Span;

use super::TlsFiles;

/// Everything that can be configured.
const OPTIONS: &[Opt] = &[
    opt("allow_caps", Kind::Texts),
    opt("allow_privileged", Kind::Flag),
    opt("allow_runtimes", Kind::Texts),
    opt("auth", Kind::Block(AUTH)),
    opt("container_exists_attempts", Kind::Number),
    opt("disable_log_collection", Kind::Flag),
    opt("endpoint", Kind::Text),
    opt("extra_labels", Kind::Texts),
    opt("gc", Kind::Block(GC)),
    opt("infra_image", Kind::Text),
    opt("infra_image_pull_timeout", Kind::Text),
    opt("logging", Kind::Block(LOGGING)),
    opt("nvidia_runtime", Kind::Text),
    opt("oom_score_adj", Kind::Number),
    opt("pids_limit", Kind::Number),
    opt("pull_activity_timeout", Kind::Text),
    opt("tls", Kind::Block(TLS)),
    opt("volumes", Kind::Block(VOLUMES)),
    opt("windows_allow_insecure_container_admin", Kind::Flag),
];
const AUTH: &[Opt] = &[opt("config", Kind::Text), opt("helper", Kind::Text)];
const GC: &[Opt] = &[
    opt("image", Kind::Flag),
    opt("image_delay", Kind::Text),
    opt("container", Kind::Flag),
    opt("dangling_containers", Kind::Block(DANGLING)),
];
const DANGLING: &[Opt] = &[
    opt("enabled", Kind::Flag),
    opt("dry_run", Kind::Flag),
    opt("period", Kind::Text),
    opt("creation_grace", Kind::Text),
];
const LOGGING: &[Opt] = &[opt("type", Kind::Text), opt("config", Kind::Map)];
const VOLUMES: &[Opt] = &[opt("enabled", Kind::Flag), opt("selinuxlabel", Kind::Text)];
const TLS: &[Opt] = &[opt("cert", Kind::Text), opt("key", Kind::Text), opt("ca", Kind::Text)];

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerOptions {
    /// `unix:///var/run/docker.sock` or `tcp://<host>:<port>`.
    pub endpoint: String,
    /// Encrypts the way to a port.
    pub tls: Option<TlsFiles>,
    /// May tasks mount directories of the host?
    pub volumes_enabled: bool,
    /// Put behind every mount that is ours, such as `z`.
    pub selinux_label: String,
    pub allow_privileged: bool,
    /// Names without `CAP_`, lower case.
    pub allowed_capabilities: Vec<String>,
    pub allowed_runtimes: Vec<String>,
    /// The most processes that a container may have; also the most that a task may ask for.
    pub pids_limit: Option<u32>,
    /// Docker's own configuration file, with credentials of registries.
    pub auth_config: Option<PathBuf>,
    /// `docker-credential-<helper>` is asked for credentials.
    pub auth_helper: String,
    /// Patterns of labels beyond the one with the allocation's id: `job_*`.
    pub extra_labels: Vec<String>,
    pub logging: Logging,
    pub gc: GcOptions,
    pub container_exists_attempts: u32,
    pub oom_score_adj: i64,
    /// A pull that makes no progress for this long is given up.
    pub pull_activity_timeout: Duration,
    /// The image of the container that holds a group's network namespace; ours when empty.
    pub infra_image: String,
    pub infra_image_pull_timeout: Duration,
    pub disable_log_collection: bool,
    /// Where this agent keeps allocations. Containers are marked with it, so that agents which share a Docker
    /// leave each other's alone. Empty: containers left behind are not looked for.
    pub alloc_root: PathBuf,
}

/// Docker's own log of a container; ours is written from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    pub kind: String,
    pub config: BTreeMap<String, String>,
}

/// What is cleared up, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Remove an image that no task uses any more.
    pub image: bool,
    /// How long after its last use.
    pub image_delay: Duration,
    /// Remove the container of a task that has ended.
    pub container: bool,
    /// Remove containers of ours that no task knows.
    pub dangling: bool,
    /// Only say which those are.
    pub dangling_dry_run: bool,
    pub dangling_period: Duration,
    /// Containers younger than this are left alone.
    pub dangling_grace: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            image: true,
            image_delay: Duration::from_secs(180),
            container: true,
            dangling: true,
            dangling_dry_run: false,
            dangling_period: Duration::from_secs(300),
            dangling_grace: Duration::from_secs(300),
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        let config = [("max-file", "2"), ("max-size", "2m")];
        Self {
            kind: "json-file".to_owned(),
            config: config.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            endpoint: "unix:///var/run/docker.sock".to_owned(),
            tls: None,
            volumes_enabled: false,
            selinux_label: String::new(),
            allow_privileged: false,
            allowed_capabilities: DEFAULT_CAPABILITIES.iter().map(|&name| name.to_owned()).collect(),
            allowed_runtimes: vec!["runc".to_owned(), "nvidia".to_owned()],
            pids_limit: None,
            auth_config: None,
            auth_helper: String::new(),
            extra_labels: Vec::new(),
            logging: Logging::default(),
            gc: GcOptions::default(),
            container_exists_attempts: 5,
            oom_score_adj: 0,
            pull_activity_timeout: Duration::from_secs(120),
            infra_image: String::new(),
            infra_image_pull_timeout: Duration::from_secs(300),
            disable_log_collection: false,
            alloc_root: PathBuf::new(),
        }
    }
}

/// Collects problems with their place while values are read.
struct Reader<'a> {
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn duration(&mut self, from: &Map<String, Value>, name: &str, into: &mut Duration) {
        let text = from.text(name);
        match Span::parse(&text) {
            _ if text.is_empty() => {}
            Ok(span) => *into = span.to_std(),
            Err(error) => self.problems.push(format!("{name} {text:?} is not a duration: {error}")),
        }
    }
}

fn block(from: &Map<String, Value>, name: &str) -> Map<String, Value> {
    from.blocks(name).into_iter().next().unwrap_or_default()
}

fn flag(from: &Map<String, Value>, name: &str, into: &mut bool) {
    if from.contains_key(name) {
        *into = from.switch(name);
    }
}

fn text(from: &Map<String, Value>, name: &str, into: &mut String) {
    if from.contains_key(name) {
        *into = from.text(name);
    }
}

impl DockerOptions {
    /// Reads the block `config`; what it does not say stays as it is.
    ///
    /// # Errors
    /// Every problem.
    pub fn read(&mut self, config: &Map<String, Value>) -> Result<(), Vec<String>> {
        let mut problems = problems_of(OPTIONS, config);
        let mut reader = Reader { problems: &mut problems };
        text(config, "endpoint", &mut self.endpoint);
        flag(config, "allow_privileged", &mut self.allow_privileged);
        flag(config, "disable_log_collection", &mut self.disable_log_collection);
        if config.contains_key("allow_caps") {
            self.allowed_capabilities = crate::drivers::options::capabilities(config, "allow_caps");
        }
        if config.contains_key("allow_runtimes") {
            self.allowed_runtimes = config.list("allow_runtimes");
        }
        self.extra_labels = config.list("extra_labels");
        text(config, "infra_image", &mut self.infra_image);
        reader.duration(config, "infra_image_pull_timeout", &mut self.infra_image_pull_timeout);
        reader.duration(config, "pull_activity_timeout", &mut self.pull_activity_timeout);
        if let Some(score) = config.number("oom_score_adj") {
            self.oom_score_adj = score;
        }
        // Nothing and anything negative mean no limit, as in Docker.
        self.pids_limit = config.number("pids_limit").and_then(|limit| u32::try_from(limit).ok());
        self.pids_limit = self.pids_limit.filter(|limit| *limit > 0);
        let attempts = config.number("container_exists_attempts");
        if let Some(attempts) = attempts.and_then(|attempts| u32::try_from(attempts).ok()) {
            self.container_exists_attempts = attempts;
        }
        self.read_blocks(config, &mut reader);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn read_blocks(&mut self, config: &Map<String, Value>, reader: &mut Reader<'_>) {
        let auth = block(config, "auth");
        self.auth_config = Some(auth.text("config")).filter(|path| !path.is_empty()).map(PathBuf::from);
        text(&auth, "helper", &mut self.auth_helper);
        let volumes = block(config, "volumes");
        flag(&volumes, "enabled", &mut self.volumes_enabled);
        text(&volumes, "selinuxlabel", &mut self.selinux_label);
        let logging = block(config, "logging");
        if !logging.is_empty() {
            text(&logging, "type", &mut self.logging.kind);
            self.logging.config = logging.pairs("config").into_iter().collect();
        }
        let gc = block(config, "gc");
        flag(&gc, "image", &mut self.gc.image);
        flag(&gc, "container", &mut self.gc.container);
        reader.duration(&gc, "image_delay", &mut self.gc.image_delay);
        let dangling = block(&gc, "dangling_containers");
        flag(&dangling, "enabled", &mut self.gc.dangling);
        flag(&dangling, "dry_run", &mut self.gc.dangling_dry_run);
        reader.duration(&dangling, "period", &mut self.gc.dangling_period);
        reader.duration(&dangling, "creation_grace", &mut self.gc.dangling_grace);
        let tls = block(config, "tls");
        let files = ["cert", "key", "ca"].map(|name| tls.text(name));
        if files.iter().all(String::is_empty) {
            return;
        }
        if files.iter().any(String::is_empty) {
            reader.problems.push("tls: needs all of cert, key and ca".to_owned());
        }
        if !self.endpoint.starts_with("tcp://") {
            let text =
                format!("tls: needs an endpoint tcp://<host>:<port>, which {:?} is not", self.endpoint);
            reader.problems.push(text);
        }
        let [cert, key, ca] = files.map(PathBuf::from);
        self.tls = Some(TlsFiles { cert, key, ca });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: Value) -> Result<DockerOptions, Vec<String>> {
        let mut options = DockerOptions::default();
        options.read(config.as_object().unwrap()).map(|()| options)
    }

    #[test]
    fn what_is_not_said_is_as_in_the_table_of_defaults() {
        let options = read(json!({})).unwrap();
        assert_eq!(options, DockerOptions::default());
        assert_eq!(options.logging.config["max-size"], "2m");
        assert_eq!((options.gc.image_delay, options.pids_limit), (Duration::from_secs(180), None));
    }

    #[test]
    fn every_key_is_read() {
        let options = read(json!({
            "endpoint": "tcp://127.0.0.1:1", "allow_privileged": true, "allow_caps": ["CAP_CHOWN", "net_raw"],
            "allow_runtimes": ["kata"], "pids_limit": 7, "pull_activity_timeout": "3m", "oom_score_adj": -5,
            "extra_labels": ["job_*"], "disable_log_collection": true, "infra_image": "pause:1",
            "auth": {"config": "/etc/docker.json", "helper": "ecr"},
            "tls": {"cert": "c.pem", "key": "k.pem", "ca": "a.pem"},
            "volumes": [{"enabled": true, "selinuxlabel": "z"}],
            "logging": {"type": "journald", "config": [{"tag": "x"}]},
            "gc": {"image": false, "image_delay": "1h", "container": false,
                   "dangling_containers": {"enabled": false, "dry_run": true, "period": "1s", "creation_grace": "2s"}},
        }))
        .unwrap();
        assert_eq!(options.allowed_capabilities, ["chown", "net_raw"]);
        assert_eq!((options.pids_limit, options.oom_score_adj), (Some(7), -5));
        assert_eq!(options.auth_config, Some("/etc/docker.json".into()));
        assert_eq!(
            options.tls,
            Some(TlsFiles { cert: "c.pem".into(), key: "k.pem".into(), ca: "a.pem".into() })
        );
        assert!(options.volumes_enabled && options.selinux_label == "z");
        assert_eq!(
            (options.logging.kind.as_str(), options.logging.config["tag"].as_str()),
            ("journald", "x")
        );
        let gc = &options.gc;
        assert!(!gc.image && !gc.container && !gc.dangling && gc.dangling_dry_run);
        assert_eq!(gc.dangling_grace, Duration::from_secs(2));
    }

    #[test]
    fn every_problem_is_named() {
        let problems =
            read(json!({"volume": {}, "gc": {"image_delay": "soon", "images": true}, "tls": {"ca": "x"}}));
        let problems = problems.unwrap_err();
        assert_eq!(problems[0], "Invalid label: No argument or block type is named \"volume\".");
        assert_eq!(problems[1], "gc: Invalid label: No argument or block type is named \"images\".");
        assert!(problems[2].starts_with("image_delay \"soon\" is not a duration"), "{problems:?}");
        assert_eq!(
            problems[3..],
            [
                "tls: needs all of cert, key and ca",
                "tls: needs an endpoint tcp://<host>:<port>, which \"unix:///var/run/docker.sock\" is not",
            ]
        );
    }
}
