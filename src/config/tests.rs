use super::*;

fn resolve(text: &str, overlay: Value) -> Result<AgentConfig, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.hcl");
    std::fs::write(&path, text).unwrap();
    let flags = Flags { dev: false, files: vec![path], overlay };
    AgentConfig::resolve(&flags, |_| None, "worker-1")
}

const TUTORIAL: &str = r#"
# As the tutorials write it.
datacenter = "dc7"
data_dir  = "/opt/nomad/data"
bind_addr = "10.0.0.5"

server {
  enabled          = true
  bootstrap_expect = 1
  job_gc_threshold = "30m"
}

client {
  enabled = true
  servers = ["127.0.0.1"]
  options {
    "driver.raw_exec.enable" = "1"
  }
  meta {
    "rack" = "r1"
    zone   = 3
  }
  reserved {
    cpu            = 500
    reserved_ports = "22,80"
  }
  host_volume "data" {
    path = "/srv/data"
  }
}

plugin "docker" {
  config {
    allow_privileged = true
    volumes {
      enabled = true
    }
  }
}

etcd {
  endpoints = ["http://10.0.0.9:2379"]
}
"#;

#[test]
fn an_agent_file_is_read_whole() {
    let config = resolve(TUTORIAL, Value::Null).unwrap();
    assert_eq!(config.datacenter, "dc7");
    assert_eq!(config.name, "worker-1");
    assert!(config.server.enabled && config.client.enabled);
    assert_eq!(config.server.job_gc_threshold.to_string(), "30m0s");
    assert_eq!(config.client.meta["rack"], "r1");
    assert_eq!(config.client.meta["zone"], "3");
    assert_eq!(config.client.reserved.cpu, 500);
    assert_eq!(config.client.host_volume["data"].path, PathBuf::from("/srv/data"));
    assert_eq!(config.client.alloc_dir, PathBuf::from("/opt/nomad/data/alloc"));
    assert_eq!(config.driver_config("docker")["allow_privileged"], true);
    assert_eq!(config.driver_config("docker")["volumes"]["enabled"], true);
    assert_eq!(config.driver_config("raw_exec")["enabled"], true);
    assert_eq!(config.etcd.endpoints, ["http://10.0.0.9:2379"]);
    assert_eq!(config.etcd.root, "/herder/");
    assert_eq!(config.http_advertise().unwrap(), "10.0.0.5:4646");
    assert!(config.warnings.iter().any(|note| note.contains("bootstrap_expect")), "{:?}", config.warnings);
}

#[test]
fn flags_win_over_files_and_files_over_defaults() {
    let overlay = json!({ "datacenter": "dc9", "client": { "meta": { "rack": "r2" } }, "etcd": { "endpoints": ["http://x:1"] } });
    let config = resolve(TUTORIAL, overlay).unwrap();
    assert_eq!(config.datacenter, "dc9");
    assert_eq!(config.client.meta["rack"], "r2");
    assert_eq!(config.client.meta["zone"], "3");
    assert_eq!(config.etcd.endpoints, ["http://x:1"]);
}

#[test]
fn volumes_are_looked_for_where_the_agent_was_started() {
    let text = "data_dir = \"/d\"\nclient {\n enabled = true\n host_volume \"a\" {\n path = \"./a\"\n }\n}";
    let config = resolve(text, Value::Null).unwrap();
    assert_eq!(config.client.host_volume["a"].path, std::env::current_dir().unwrap().join("a"));
}

#[test]
fn json_files_mean_the_same() {
    let text = r#"{"data_dir": "/d", "client": {"enabled": true, "options": {"a.b": "c"}},
                   "plugin": [{"raw_exec": [{"config": [{"enabled": true}]}]}], "ports": {"http": 5656}}"#;
    let config = resolve(text, Value::Null).unwrap();
    assert!(config.client.enabled);
    assert_eq!(config.ports.http, 5656);
    assert_eq!(config.client.options["a.b"], "c");
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let why = resolve("data_dir = \"/d\"\nserver {\n  enabled = true\n  enabeld = true\n}\n", Value::Null)
        .unwrap_err();
    let text = why.to_string();
    assert!(text.starts_with("Error loading configuration from /"), "{text}");
    assert!(text.contains(": unexpected keys enabeld (enabeld at /"), "{text}");
    assert!(text.ends_with("agent.hcl:4)"), "{text}");
}

#[test]
fn broken_files_say_what_is_wrong() {
    let why = resolve("server {\n  enabled = \n}\n", Value::Null).unwrap_err().to_string();
    assert!(why.contains("failed to decode HCL file"), "{why}");
    let why =
        resolve("data_dir = \"/d\"\nserver {\n enabled = true\n heartbeat_grace = \"5x\"\n}", Value::Null)
            .unwrap_err();
    assert!(why.to_string().contains("can't parse time duration 5x"), "{why}");
    let flags = Flags { files: vec!["/nonexistent/a.hcl".into()], ..Flags::default() };
    let why = AgentConfig::resolve(&flags, |_| None, "x").unwrap_err().to_string();
    let wanted = "Error loading configuration from /nonexistent/a.hcl: stat /nonexistent/a.hcl: no such file or directory";
    assert_eq!(why, wanted);
}

#[test]
fn an_agent_without_role_is_refused() {
    let why = resolve("data_dir = \"/d\"", Value::Null).unwrap_err();
    assert_eq!(why.to_string(), "Must specify either server, client or dev mode for the agent.");
    let why = resolve("server {\n enabled = true\n}", Value::Null).unwrap_err();
    assert_eq!(why.to_string(), "Must specify \"data_dir\" config option or \"data-dir\" CLI flag");
    let why = resolve("data_dir = \"relative\"\nclient { enabled = true }", Value::Null).unwrap_err();
    assert_eq!(why.to_string(), "data-dir must be given as an absolute path: got relative");
}

#[test]
fn the_scheduler_of_a_new_cluster_follows_the_file() {
    let file = |block: &str| {
        format!(
            "data_dir = \"/d\"\nserver {{\n enabled = true\n default_scheduler_config {{\n{block}\n}}\n}}"
        )
    };
    let block = "scheduler_algorithm = \"spread\"\nmemory_oversubscription_enabled = true\n\
        preemption_config {\nbatch_scheduler_enabled = true\n}";
    let stored =
        resolve(&file(block), Value::Null).unwrap().server.default_scheduler_config.unwrap().stored();
    assert_eq!(stored["SchedulerAlgorithm"], "spread");
    assert_eq!(stored["MemoryOversubscriptionEnabled"], true);
    assert_eq!(stored["PreemptionConfig"]["BatchSchedulerEnabled"], true);
    assert_eq!(stored["PreemptionConfig"]["SystemSchedulerEnabled"], true, "as without the block");
    let why = resolve(&file("scheduler_algorithm = \"pack\""), Value::Null).unwrap_err().to_string();
    assert_eq!(why, "Invalid scheduler_algorithm: \"pack\" is neither binpack nor spread");
    let why = resolve(&file("memory_oversubscription = true"), Value::Null).unwrap_err().to_string();
    assert!(why.contains("unexpected keys memory_oversubscription"), "{why}");
}

#[test]
fn dev_mode_needs_nothing() {
    let config = AgentConfig::resolve(&Flags { dev: true, ..Flags::default() }, |_| None, "host").unwrap();
    assert!(config.server.enabled && config.client.enabled && config.temporary_data);
    assert_eq!(config.http_listeners().unwrap(), ["127.0.0.1:4646".parse().unwrap()]);
    assert_eq!(config.driver_config("raw_exec")["enabled"], true);
    assert_eq!(config.log_level, "DEBUG");
}

#[test]
fn the_environment_names_etcd() {
    let environment =
        |name: &str| (name == "HERDER_ETCD_ENDPOINTS").then(|| "a:2379, https://b:2379".to_owned());
    let config = AgentConfig::resolve(&Flags { dev: true, ..Flags::default() }, environment, "host").unwrap();
    assert_eq!(config.etcd.endpoints, ["http://a:2379", "https://b:2379"]);
}

#[test]
fn a_directory_is_read_in_alphabetical_order() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("b.hcl"), "datacenter = \"two\"").unwrap();
    std::fs::write(directory.path().join("a.json"), r#"{"datacenter": "one", "data_dir": "/d"}"#).unwrap();
    std::fs::write(directory.path().join("c.txt"), "nonsense {").unwrap();
    std::fs::write(directory.path().join("d.hcl"), "client {\n enabled = true\n}").unwrap();
    let config = AgentConfig::from_path(directory.path()).unwrap();
    assert_eq!(config.datacenter, "two");
    assert_eq!(config.files.len(), 3);
}

#[test]
fn addresses_are_found_by_templates_within_a_text() {
    let expand = |text: &str| file::expand_address(text).map_err(|error| error.to_string());
    assert_eq!(expand("10.0.0.1"), Ok("10.0.0.1".to_owned()));
    assert_eq!(expand("{{ GetInterfaceIP \"lo\" }}:4646"), Ok("127.0.0.1:4646".to_owned()));
    let chosen = "{{ GetAllInterfaces | include \"network\" \"127.0.0.0/8\" | attr \"name\" }}";
    assert_eq!(expand(chosen), Ok("lo".to_owned()));
    let missing = expand("{{ GetInterfaceIP \"no-such-interface\" }}:4646").unwrap_err();
    assert!(missing.ends_with("this machine has no such address"), "{missing}");
    assert!(expand("{{ GetNonsense }}").unwrap_err().contains("GetNonsense"));
}
