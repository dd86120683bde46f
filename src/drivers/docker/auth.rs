//! Finds out with which credentials an image is pulled: those of the job file, of Docker's configuration file, or of a
//! credential helper; the first that has any.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::drivers::options::Options;

use super::DockerOptions;

/// The name under which credentials of Docker's own registry are kept.
const HUB: &str = "https://index.docker.io/v1/";
/// What helpers say when they know nothing.
const NOT_FOUND: &str = "credentials not found";
/// Helpers may ask a service of a cloud.
const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// What is relevant of Docker's configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    auths: std::collections::BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: std::collections::BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `user:password` in base64.
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a helper answers.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The credentials for an image, if there are any.
///
/// # Errors
/// Credentials are configured and cannot be read.
pub(super) async fn find(
    options: &DockerOptions,
    config: &Map<String, Value>,
    image: &str,
) -> Result<Option<DockerCredentials>, String> {
    if let Some(own) = of_job(config) {
        return Ok(Some(own));
    }
    let registry = registry_of(image);
    if let Some(path) = &options.auth_config
        && let Some(found) = of_file(path, registry).await?
    {
        return Ok(Some(found));
    }
    if options.auth_helper.is_empty() { Ok(None) } else { ask_helper(&options.auth_helper, registry).await }
}

fn of_job(config: &Map<String, Value>) -> Option<DockerCredentials> {
    let auth = config.blocks("auth").into_iter().next()?;
    let text = |name: &str| Some(auth.text(name)).filter(|text| !text.is_empty());
    let found = DockerCredentials {
        username: text("username"),
        password: text("password"),
        email: text("email"),
        serveraddress: text("server_address"),
        ..DockerCredentials::default()
    };
    Some(found).filter(|found| found.username.is_some() || found.password.is_some())
}

/// The host (and port) that an image's name begins with, or Docker's own.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => {
            if ["docker.io", "index.docker.io"].contains(&first) { HUB } else { first }
        }
        _ => HUB,
    }
}

/// Keys may be bare hosts or addresses.
fn is_for(key: &str, registry: &str) -> bool {
    let host = |text: &str| {
        let text = text.trim_start_matches("https://").trim_start_matches("http://");
        text.split('/').next().unwrap_or_default().to_owned()
    };
    key == registry || host(key) == host(registry)
}

async fn of_file(path: &Path, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("cannot read auth config {}: {error}", path.display()))?;
    let file: File = serde_json::from_str(&text)
        .map_err(|error| format!("cannot read auth config {}: {error}", path.display()))?;
    if let Some((_, entry)) = file.auths.iter().find(|(key, _)| is_for(key, registry))
        && let Some(found) = entry.credentials(registry)?
    {
        return Ok(Some(found));
    }
    let helper = file.helpers.iter().find(|(key, _)| is_for(key, registry)).map(|(_, helper)| helper);
    let helpers = helper.into_iter().chain(Some(&file.store).filter(|store| !store.is_empty()));
    for helper in helpers {
        if let Some(found) = ask_helper(helper, registry).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Entry {
    fn credentials(&self, registry: &str) -> Result<Option<DockerCredentials>, String> {
        let (mut username, mut password) = (self.username.clone(), self.password.clone());
        if !self.auth.is_empty() {
            let invalid = || format!("auth of {registry} in the auth config is not base64 of user:password");
            let bytes = STANDARD.decode(self.auth.trim()).map_err(|_| invalid())?;
            let text = String::from_utf8(bytes).map_err(|_| invalid())?;
            let (user, secret) = text.trim_end_matches('\0').split_once(':').ok_or_else(invalid)?;
            (username, password) = (user.to_owned(), secret.to_owned());
        }
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let found = DockerCredentials {
            username: some(&username),
            password: some(&password),
            identitytoken: some(&self.identitytoken),
            registrytoken: some(&self.registrytoken),
            serveraddress: Some(registry.to_owned()),
            ..DockerCredentials::default()
        };
        let any = found.username.is_some() || found.identitytoken.is_some() || found.registrytoken.is_some();
        Ok(Some(found).filter(|_| any))
    }
}

/// Runs `docker-credential-<helper> get` with the registry on its input.
async fn ask_helper(helper: &str, registry: &str) -> Result<Option<DockerCredentials>, String> {
    ask_program(&format!("docker-credential-{helper}"), registry).await
}

async fn ask_program(program: &str, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let failed = |text: String| format!("{program} failed for {registry}: {text}");
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input may still answer.
        let _ = input.write_all(registry.as_bytes()).await;
    }
    let output = tokio::time::timeout(HELPER_LIMIT, child.wait_with_output()).await;
    let output = output.map_err(|_| failed(format!("no answer within {HELPER_LIMIT:?}")))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        if out.contains(NOT_FOUND) || err.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(failed(format!("{}{}", out.trim(), err.trim())));
    }
    let answer: Answer =
        serde_json::from_str(&out).map_err(|error| failed(format!("its answer is unreadable: {error}")))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    let mut found =
        DockerCredentials { serveraddress: Some(registry.to_owned()), ..DockerCredentials::default() };
    if answer.username == "<token>" {
        found.identitytoken = Some(answer.secret);
    } else {
        (found.username, found.password) = (Some(answer.username), Some(answer.secret));
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn images_name_their_registry() {
        for (image, registry) in [
            ("redis:7", HUB),
            ("team/app:1", HUB),
            ("docker.io/library/redis", HUB),
            ("localhost/app", "localhost"),
            ("127.0.0.1:5000/app@sha256:00", "127.0.0.1:5000"),
            ("ghcr.io/a/b:c", "ghcr.io"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
        assert!(is_for("https://ghcr.io/v1/", "ghcr.io"));
        assert!(is_for("index.docker.io", HUB));
        assert!(!is_for("ghcr.io:443", "ghcr.io"));
    }

    #[tokio::test]
    async fn the_job_comes_before_the_file_and_the_file_before_the_helper() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        let auth = STANDARD.encode("file:secret:with:colons");
        std::fs::write(
            &config,
            json!({"auths": {"https://ghcr.io": {"auth": auth}, "empty.io": {}}}).to_string(),
        )
        .unwrap();
        let helper = "no-such-helper".to_owned();
        let options =
            DockerOptions { auth_config: Some(config), auth_helper: helper, ..DockerOptions::default() };
        let job = json!({"auth": [{"username": "job", "password": "p"}]});
        let job = job.as_object().unwrap();
        let found = find(&options, job, "ghcr.io/a:1").await.unwrap().unwrap();
        assert_eq!(found.username.as_deref(), Some("job"));
        let none = Map::new();
        let found = find(&options, &none, "ghcr.io/a:1").await.unwrap().unwrap();
        assert_eq!(found.username.as_deref(), Some("file"));
        assert_eq!(found.password.as_deref(), Some("secret:with:colons"));
        let error = find(&options, &none, "empty.io/a:1").await.unwrap_err();
        assert!(error.starts_with("docker-credential-no-such-helper failed for empty.io: "), "{error}");
        let absent = DockerOptions { auth_config: Some("/no/such/file".into()), ..DockerOptions::default() };
        assert!(
            find(&absent, &none, "a").await.unwrap_err().contains("cannot read auth config /no/such/file")
        );
    }

    #[tokio::test]
    async fn helpers_are_asked_for_the_registry() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-x");
        let script = "#!/bin/sh\nread registry || true\ncase $registry in\n\
            a.io) echo '{\"Username\":\"u\",\"Secret\":\"s\"}';;\n\
            b.io) echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}';;\n\
            c.io) echo 'credentials not found in native keychain'; exit 1;;\n\
            *) echo broken >&2; exit 1;;\nesac\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let run = |registry: &'static str| {
            let program = program.clone();
            async move { ask_program(&program.display().to_string(), registry).await }
        };
        assert_eq!(run("a.io").await.unwrap().unwrap().username.as_deref(), Some("u"));
        assert_eq!(run("b.io").await.unwrap().unwrap().identitytoken.as_deref(), Some("t"));
        assert_eq!(run("c.io").await.unwrap(), None);
        assert!(run("d.io").await.unwrap_err().ends_with("broken"));
    }
}
