//! Templates that change under a running task, and artifacts, of which one tries to get out of its box.

use std::path::Path;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::Digest;
use sha2::Sha256;
use tar::EntryType;

use crate::consul::Consul;
use crate::isolated::Files;
use crate::isolated::newest;
use crate::support::Agent;
use crate::support::eventually;
use crate::support::text;

/// A tar.gz of files whose names may be as bad as an attacker likes. Returns its SHA-256.
fn archive(path: &Path, files: &[(&str, &str)]) -> String {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("an entry");
    }
    let bytes = builder.into_inner().and_then(GzEncoder::finish).expect("an archive");
    std::fs::write(path, &bytes).expect("a writable directory");
    hex::encode(Sha256::digest(&bytes))
}

fn job(source: &str, checksum: &str) -> String {
    let template = |name: &str, more: &str| {
        format!(
            r#"
      template {{
        data        = "VALUE_{name}={{{{ file \"local/conf/{name}\" | trimSpace }}}}\n"
        destination = "local/{name}.out"
        splay       = "0s"
        wait {{
          min = "0s"
          max = "1s"
        }}
        {more}
      }}"#
        )
    };
    let templates = [
        template("restart", "change_mode = \"restart\"\nenv = true"),
        template("signal", "change_mode = \"signal\"\nchange_signal = \"SIGUSR1\""),
        template(
            "script",
            "change_mode = \"script\"\nchange_script {\n  command = \"/bin/echo\"\n  args = [\"hi\", \"there\"]\n}",
        ),
        template("noop", "change_mode = \"noop\"\nperms = \"0600\""),
    ]
    .concat();
    format!(
        r#"
job "changing" {{
  group "g" {{
    task "web" {{
      driver = "raw_exec"
      config {{
        command = "/bin/sh"
        args    = ["-c", "trap 'echo got usr1' USR1; echo started with $VALUE_restart; while :; do sleep 0.1; done"]
      }}
      artifact {{
        source      = "{source}"
        destination = "local/conf"
        options {{
          checksum = "sha256:{checksum}"
        }}
      }}{templates}
      template {{
        source          = "local/conf/greeting.tmpl"
        destination     = "local/greeting"
        left_delimiter  = "[["
        right_delimiter = "]]"
        change_mode     = "noop"
      }}
      resources {{
        cpu    = 20
        memory = 20
      }}
    }}
  }}
}}
"#
    )
}

/// Types and texts of the task's events, oldest first.
fn events(agent: &Agent, alloc: &str) -> Vec<String> {
    let alloc = agent.get(&format!("/v1/allocation/{alloc}"));
    let events = alloc["TaskStates"]["web"]["Events"].as_array().cloned().unwrap_or_default();
    let word = |event: &serde_json::Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| format!("{}: {}", word(event, "Type"), word(event, "DisplayMessage"))).collect()
}

fn has(events: &[String], wanted: &str) -> Option<()> {
    events.iter().any(|event| event == wanted).then_some(())
}

fn local(agent: &Agent, alloc: &str) -> PathBuf {
    agent.dir.path().join("data/alloc").join(alloc).join("web/local")
}

#[test]
fn a_task_hears_of_changed_templates_as_each_wants_it() {
    let agent = Agent::dev();
    let web = tempfile::tempdir().expect("a directory");
    let checksum = archive(
        &web.path().join("conf.tar.gz"),
        &[
            ("restart", "r1"),
            ("signal", "s1"),
            ("script", "c1"),
            ("noop", "n1"),
            (
                "greeting.tmpl",
                "[[ with $x := \"hello\" ]][[ $x | toUpper ]] {{kept}}[[ end ]] [[ env \"NOMAD_TASK_NAME\" ]]",
            ),
        ],
    );
    let files = Files::new(web.path());
    let source = format!("http://{}/conf.tar.gz", files.address);
    let file = agent.file("changing.nomad.hcl", &job(&source, &checksum));
    agent.ok(&["job", "run", "-detach", text(&file)]);
    let log = |wanted: &str| {
        eventually(wanted, || {
            let alloc = agent.allocs("changing").first()?["ID"].as_str()?.to_owned();
            let log = agent.cli(&["alloc", "logs", &alloc]).stdout;
            log.contains(wanted).then_some(log)
        })
    };
    log("started with r1\n");
    let alloc = newest(&agent, "changing");
    let dir = local(&agent, &alloc);
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    assert_eq!(read("greeting"), "HELLO {{kept}} web");
    assert_eq!(read("noop.out"), "VALUE_noop=n1\n");
    has(&events(&agent, &alloc), "Downloading Artifacts: Client is downloading artifacts").expect("told");

    let change = |name: &str, value: &str| {
        std::fs::write(dir.join("conf").join(name), value).expect("a writable directory");
        eventually("the file is rendered again", || {
            (read(&format!("{name}.out")) == format!("VALUE_{name}={value}\n")).then_some(())
        });
    };
    change("noop", "n2");
    change("signal", "s2");
    log("got usr1\n");
    eventually("the signal is told", || has(&events(&agent, &alloc), "Signaling: Template re-rendered"));
    change("script", "c2");
    let ran = "Task hook message: Template successfully ran script /bin/echo with arguments: [hi there]. Exit code: 0";
    eventually("the script is told", || has(&events(&agent, &alloc), ran));
    assert_eq!(log("started").matches("started").count(), 1, "nothing so far restarts the task");
    change("restart", "r2");
    log("started with r2\n");
    let told = events(&agent, &alloc);
    has(&told, "Restart Signaled: Template with change_mode restart re-rendered").expect("told");
}

#[test]
fn an_archive_that_reaches_out_is_refused_and_the_reason_told() {
    let agent = Agent::dev();
    let web = tempfile::tempdir().expect("a directory");
    archive(&web.path().join("evil.tar.gz"), &[("ok", "x"), ("../../../../evil", "x")]);
    let files = Files::new(web.path());
    let source = format!("http://{}/evil.tar.gz", files.address);
    let text_of_job = format!(
        r#"
job "evil" {{
  type = "batch"
  group "g" {{
    restart {{
      attempts = 0
      mode     = "fail"
    }}
    reschedule {{
      attempts  = 0
      unlimited = false
    }}
    task "web" {{
      driver = "raw_exec"
      config {{
        command = "/bin/true"
      }}
      artifact {{
        source = "{source}"
      }}
    }}
  }}
}}
"#
    );
    let file = agent.file("evil.nomad.hcl", &text_of_job);
    agent.ok(&["job", "run", "-detach", text(&file)]);
    let alloc = eventually("the task has failed", || {
        let alloc = agent.allocs("evil").into_iter().next()?;
        (alloc["ClientStatus"] == "failed").then(|| alloc["ID"].as_str().expect("an id").to_owned())
    });
    let told = events(&agent, &alloc);
    let expected = format!(
        "Failed Artifact Download: failed to download artifact \"{source}\": entry contains '..': ../../../../evil"
    );
    has(&told, &expected).unwrap_or_else(|| panic!("{told:?}"));
    for place in
        ["", "data", "data/alloc", &format!("data/alloc/{alloc}"), &format!("data/alloc/{alloc}/web")]
    {
        assert!(!agent.dir.path().join(place).join("evil").exists(), "{place}");
    }
}

#[test]
fn templates_read_consul_wait_for_its_keys_and_follow_them() {
    let consul = Consul::start();
    let block = format!("consul {{\n address = {:?}\n}}\n", consul.address);
    let agent = Agent::start(&["-dev"], &block);
    let job = r#"
job "reader" {
  group "g" {
    task "t" {
      driver = "raw_exec"
      config {
        command = "/bin/sleep"
        args    = ["1000"]
      }
      template {
        destination = "local/out"
        change_mode = "noop"
        wait {
          min = "0s"
          max = "1s"
        }
        data = <<EOT
{{ key "app/port" }} {{ keyOrDefault "app/none" "-" }} {{ keyExists "app/none" }}
{{ range ls "app" }}{{ .Key }}={{ .Value }};{{ end }}
{{ range tree "app" }}{{ .Key }}={{ .Value }};{{ end }}
{{ range service "other" }}{{ .Address }}:{{ .Port }} {{ .Status }}{{ end }}
EOT
      }
    }
  }
}
"#;
    consul.set_key("app/deep/x", "1");
    consul.plant(
        "o1",
        serde_json::json!({"ID": "o1", "Service": "other", "Address": "10.0.0.7", "Port": 80, "Tags": []}),
    );
    let file = agent.file("reader.nomad", job);
    agent.ok(&["job", "run", "-detach", text(&file)]);
    eventually("the task tells what it waits for", || {
        let alloc = agent.allocs("reader").into_iter().next()?;
        let events = alloc["TaskStates"]["t"]["Events"].as_array()?.clone();
        events
            .iter()
            .any(|event| event["DisplayMessage"].as_str().is_some_and(|text| text.contains("kv/app/port")))
            .then_some(())
    });
    consul.set_key("app/port", "6379");
    // Each question is asked by itself: what stood before the key came is looked at again soon.
    let whole = "6379 - false\nport=6379;\ndeep/x=1;port=6379;\n10.0.0.7:80 passing\n";
    let path = eventually("the template is rendered", || {
        let id = newest(&agent, "reader");
        let path = agent.dir.path().join(format!("data/alloc/{id}/t/local/out"));
        (std::fs::read_to_string(&path).ok()? == whole).then_some(path)
    });
    consul.set_key("app/port", "6380");
    eventually("it follows the key", || {
        std::fs::read_to_string(&path).ok()?.starts_with("6380 ").then_some(())
    });
    agent.ok(&["job", "stop", "-purge", "reader"]);
}
