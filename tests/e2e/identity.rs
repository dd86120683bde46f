//! Identities of tasks: signed tokens in the environment and in files, renewed in time.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::RSA_PKCS1_2048_8192_SHA256;
use ring::signature::RsaPublicKeyComponents;
use serde_json::Value;

use crate::support::Agent;
use crate::support::eventually;
use crate::support::text;

const JOB: &str = r#"
job "speaker" {
  group "g" {
    task "t" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo $NOMAD_TOKEN > local/env; echo $NOMAD_TOKEN_short > local/short; trap 'echo x >> local/hups' HUP; while :; do sleep 0.1; done"]
      }
      identity {
        env  = true
        file = true
      }
      identity {
        name          = "short"
        aud           = ["example.com"]
        env           = true
        file          = true
        filepath      = "local/short.jwt"
        ttl           = "2s"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }
      identity {
        name     = "lost"
        aud      = ["example.com"]
        file     = true
        filepath = "local/no/such/directory"
        ttl      = "1h"
      }
    }
  }
}
"#;

/// What a token says, if the cluster's public key confirms it.
fn verified(agent: &Agent, token: &str) -> Value {
    let plain = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64");
    let parts: Vec<&str> = token.trim().split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("not a token: {token:?}") };
    let header: Value = serde_json::from_slice(&plain(header)).expect("a header");
    let keys = agent.get("/.well-known/jwks.json");
    let keys = keys["keys"].as_array().expect("a list");
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).expect("the key that signed");
    let part = |name: &str| plain(key[name].as_str().expect("a number"));
    let public = RsaPublicKeyComponents { n: part("n"), e: part("e") };
    let said = token.trim().rsplit_once('.').expect("three parts").0;
    public
        .verify(&RSA_PKCS1_2048_8192_SHA256, said.as_bytes(), &plain(signature))
        .expect("a valid signature");
    serde_json::from_slice(&plain(claims)).expect("claims")
}

#[test]
fn tasks_get_tokens_that_others_can_verify_and_that_are_renewed() {
    let agent = Agent::dev();
    assert_eq!(agent.get("/.well-known/jwks.json"), serde_json::json!({"keys": []}));
    let missing = agent.cli(&["operator", "api", "/.well-known/openid-configuration"]);
    assert!(
        missing.stdout.contains("OIDC Discovery endpoint disabled"),
        "{}{}",
        missing.stdout,
        missing.stderr
    );
    let file = agent.file("speaker.nomad", JOB);
    agent.ok(&["job", "run", text(&file)]);
    let id = agent.allocs("speaker")[0]["ID"].as_str().expect("an id").to_owned();
    let task: PathBuf = agent.dir.path().join("data/alloc").join(&id).join("t");
    let read = |path: &str| std::fs::read_to_string(task.join(path)).unwrap_or_default();
    let own = eventually("the task has written its token", || {
        Some(read("local/env")).filter(|token| token.contains('.'))
    });
    assert_eq!(own.trim(), read("secrets/nomad_token"));
    let said = verified(&agent, &own);
    assert_eq!(said["sub"], "global:default:speaker:g:t:default");
    assert_eq!((&said["nomad_allocation_id"], &said["nomad_task"]), (&Value::from(id), &Value::from("t")));
    assert_eq!((said["aud"][0].as_str(), said.get("exp")), (Some("nomadproject.io"), None));
    // The one that lives two seconds is exchanged, and the task is told.
    let first = verified(&agent, &read("local/short"));
    assert_eq!(first["exp"].as_i64(), first["iat"].as_i64().map(|issued| issued + 2));
    let next = eventually("the token is renewed", || {
        let next = verified(&agent, &read("local/short.jwt"));
        (next["iat"].as_i64() > first["iat"].as_i64()).then_some(next)
    });
    assert_eq!(next["sub"], "global:default:speaker:g:t:short");
    eventually("the task is told", || (!read("local/hups").is_empty()).then_some(()));
    // Where there is no directory there is no file, and the task does not mind.
    assert!(!task.join("local/no").exists());
    // Nobody sees the tokens of others by way of the API.
    let shown = agent.ok(&["operator", "api", "/v1/allocations?resources=true&task_states=true"]);
    assert!(!shown.contains(own.trim()));
    agent.ok(&["job", "stop", "-purge", "speaker"]);
}

#[test]
fn a_token_file_belongs_to_the_user_of_the_task_and_outlives_its_restart() {
    let agent = Agent::start(&["-dev"], "server {\n  oidc_issuer = \"https://herder.example\"\n}\n");
    let discovered = agent.get("/.well-known/openid-configuration");
    assert_eq!(discovered["jwks_uri"], "https://herder.example/.well-known/jwks.json");
    let job = r#"
job "user" {
  group "g" {
    task "t" {
      driver = "raw_exec"
      user   = "nobody"
      config {
        command = "/bin/sh"
        args    = ["-c", "cat secrets/nomad_token; sleep 1000"]
      }
      identity {
        file = true
      }
    }
  }
}
"#;
    let file = agent.file("user.nomad", job);
    agent.ok(&["job", "run", text(&file)]);
    let id = agent.allocs("user")[0]["ID"].as_str().expect("an id").to_owned();
    let logged = || Some(agent.ok(&["alloc", "logs", &id])).filter(|token| token.contains('.'));
    let token = eventually("the task's user reads its token", logged);
    assert_eq!(verified(&agent, &token)["iss"], "https://herder.example");
    agent.ok(&["alloc", "restart", &id]);
    eventually("it is the same after a restart", || (logged()? == format!("{token}{token}")).then_some(()));
    agent.ok(&["job", "stop", "-purge", "user"]);
}
