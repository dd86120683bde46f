//! Images from a registry: a real one, on this machine.

use std::fs;
use std::net::TcpListener;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use herder::drivers::DriverOptions;
use herder::drivers::all;
use herder::drivers::cgroup::Hierarchy;
use herder::drivers::docker::DockerOptions;
use herder::drivers::docker::GcOptions;
use serde_json::Value;
use serde_json::json;

use crate::docker::image;
use crate::docker::import;
use crate::support::Bench;
use crate::support::options;

const USER: &str = "herder";
/// With signs whose code differs between the two alphabets of base64.
const PASSWORD: &str = "s3cret~?>pass";
/// The same, as the registry wants it.
const PASSWORD_HASH: &str = "$2b$04$abcdefghijklmnopqrstuu2.FygaBB6ana7AR5QahuQIpGxt0.GgK";

/// A registry that ends with the test.
struct Registry {
    process: Child,
    dir: tempfile::TempDir,
    address: String,
    names: Mutex<Vec<String>>,
}

fn docker(args: &[&str]) -> bool {
    Command::new("docker").args(args).output().unwrap().status.success()
}

fn is_there(image: &str) -> bool {
    docker(&["image", "inspect", image])
}

impl Registry {
    async fn start(with_password: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let place = dir.path().display();
        let auth = if with_password {
            fs::write(dir.path().join("htpasswd"), format!("{USER}:{PASSWORD_HASH}\n")).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {place}/htpasswd}}}}\n")
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n\
             http: {{addr: \"{address}\"}}\n{auth}"
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve", &format!("{place}/config.yml")])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("docker-registry is missing: run `make setup`");
        let limit = tokio::time::Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            assert!(tokio::time::Instant::now() < limit, "the registry does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let registry = Self { process, dir, address, names: Mutex::default() };
        fs::write(registry.docker_config(), registry.auths().to_string()).unwrap();
        registry
    }

    /// A configuration file of Docker's with the right password.
    fn docker_config(&self) -> std::path::PathBuf {
        self.dir.path().join("config.json")
    }

    fn auths(&self) -> Value {
        use base64::Engine;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        json!({"auths": {&self.address: {"auth": auth}}})
    }

    /// Puts an image of this name into the registry and nowhere else. Each has an id of its own.
    fn push(&self, name: &str) -> String {
        let full = format!("{}/{name}", self.address);
        import(&full, &format!("ENV PATH=/bin MADE_FOR={full}"));
        let config = self.dir.path().display().to_string();
        assert!(docker(&["--config", &config, "push", "-q", &full]));
        assert!(docker(&["rmi", &full]));
        self.names.lock().unwrap().push(full.clone());
        full
    }

    /// How often manifests were asked for.
    fn manifest_requests(&self) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
        let asked = |line: &&str| {
            line.contains("response completed")
                && line.contains("/manifests/")
                && !line.contains("method=PUT")
        };
        log.lines().filter(asked).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for name in self.names.lock().unwrap().iter() {
            docker(&["rmi", name]);
        }
    }
}

fn with_docker(docker: DockerOptions) -> DriverOptions {
    DriverOptions { docker, ..options() }
}

fn echo(image: &str) -> Value {
    json!({"image": image, "command": "echo", "args": ["pulled"]})
}

#[tokio::test]
async fn images_are_pulled_when_they_must_be() {
    let registry = Registry::start(false).await;
    let (fixed, latest) = (registry.push("fixed:1"), registry.push("moving"));
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    let progress: herder::drivers::Progress =
        Arc::new(move |text: &str| sink.lock().unwrap().push(text.to_owned()));
    let mut seen = Vec::new();
    let mut bench = Bench::new("docker", echo(&format!("https://{fixed}")));
    for (config, pulls) in [
        (echo(&fixed), true),
        (echo(&fixed), false),
        (json!({"image": fixed, "command": "true", "force_pull": true}), true),
        (echo(&latest), true),
        (echo(&latest), true),
    ] {
        bench.set_config(config);
        bench.config.id.run += 1;
        let before = registry.manifest_requests();
        let (handle, _) = bench.driver.start(&bench.config, progress.clone()).await.unwrap();
        bench.handles.push(handle.clone());
        assert!(bench.wait(&handle).await.is_success());
        seen.push((registry.manifest_requests() > before) == pulls);
    }
    assert_eq!(seen, [true; 5]);
    assert_eq!(*events.lock().unwrap(), ["Downloading image"; 4]);
    bench.set_config(echo(&format!("{}/none:1", registry.address)));
    let error = bench.try_start().await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("Failed to pull `{}/none:1`: ", registry.address)), "{text}");
    bench.finish().await;
}

#[tokio::test]
async fn passwords_come_from_the_job_or_the_agents_configuration() {
    let registry = Registry::start(true).await;
    let name = registry.push("closed:1");
    let plain = DockerOptions::default();
    let file = DockerOptions { auth_config: Some(registry.docker_config()), ..DockerOptions::default() };
    let broken = DockerOptions { auth_config: Some("/no/such/file".into()), ..DockerOptions::default() };
    let auth = json!({"username": USER, "password": PASSWORD, "server_address": registry.address});
    let wrong = json!({"username": USER, "password": "wrong"});
    for (options, auth, soft, outcome) in [
        (&plain, Value::Null, false, Some("no basic auth credentials")),
        (&plain, auth.clone(), false, None),
        (&file, Value::Null, false, None),
        // The job's own come first, even when they are wrong.
        (&file, wrong, false, Some("unauthorized")),
        (&broken, Value::Null, false, Some("cannot read auth config /no/such/file")),
        (&broken, Value::Null, true, Some("no basic auth credentials")),
        (&broken, auth, false, None),
    ] {
        docker(&["rmi", &name]);
        let config = json!({"image": name, "command": "true", "auth": auth, "auth_soft_fail": soft});
        let mut bench = Bench::with(&with_docker(options.clone()), "docker", config);
        match (bench.try_start().await, outcome) {
            (Ok((handle, _)), None) => assert!(bench.wait(&handle).await.is_success()),
            (Err(error), Some(part)) => {
                assert!(error.to_string().contains(part), "{error}");
                assert!(error.is_recoverable());
            }
            (result, outcome) => panic!("{result:?} instead of {outcome:?}"),
        }
        bench.finish().await;
    }
}

#[tokio::test]
async fn tasks_that_want_an_image_at_the_same_time_all_get_it() {
    let registry = Registry::start(false).await;
    let name = registry.push("shared:1");
    let config = json!({"image": name, "command": "true", "force_pull": true});
    let (one, mut two) = (Bench::new("docker", config.clone()), Bench::new("docker", config));
    two.driver = one.driver.clone();
    let quiet = || -> herder::drivers::Progress { Arc::new(|_| {}) };
    let (first, second) =
        tokio::join!(one.driver.start(&one.config, quiet()), two.driver.start(&two.config, quiet()));
    for (mut bench, result) in [(one, first), (two, second)] {
        let (handle, _) = result.unwrap();
        bench.handles.push(handle.clone());
        assert!(bench.wait(&handle).await.is_success());
        bench.finish().await;
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_given_up() {
    image();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/x:1", silent.local_addr().unwrap());
    let mut bench = Bench::new("docker", json!({"image": name, "image_pull_timeout": "500ms"}));
    let error = bench.try_start().await.unwrap_err();
    assert!(error.to_string().ends_with("context deadline exceeded: not pulled within 500ms"), "{error}");
    assert!(error.is_recoverable());
    bench.finish().await;
    let docker =
        DockerOptions { pull_activity_timeout: Duration::from_millis(300), ..DockerOptions::default() };
    let mut bench = Bench::with(&with_docker(docker), "docker", json!({"image": name}));
    let error = bench.try_start().await.unwrap_err();
    assert!(error.to_string().ends_with("pull activity timeout: no progress within 300ms"), "{error}");
    bench.finish().await;
}

async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(tokio::time::Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_image_is_removed_some_time_after_its_last_use() {
    let registry = Registry::start(false).await;
    let gc = GcOptions { image_delay: Duration::from_millis(200), ..GcOptions::default() };
    let options = with_docker(DockerOptions { gc, ..DockerOptions::default() });
    let name = registry.push("used:1");
    let sleep = json!({"image": name, "command": "sleep", "args": ["1000"]});
    let mut first = Bench::with(&options, "docker", sleep);
    let handle = first.start().await;
    // A new agent knows what its tasks use.
    first.driver = all(&options).remove("docker").unwrap();
    first.driver.recover(&handle).await.unwrap();
    // These end, in this order: a second user of the image, one of an image that was there before, and one of an image
    // whose removal shows that the time for the others has passed.
    let marker = registry.push("marker:1");
    for image in [&name, image(), &marker] {
        let mut bench = Bench::new("docker", echo(image));
        bench.driver = first.driver.clone();
        assert!(bench.run().await.is_success());
        bench.finish().await;
    }
    wait_until("an unused image is still there", || !is_there(&marker)).await;
    assert!(is_there(&name), "an image that is used was removed");
    assert!(is_there(image()), "an image that nobody fetched was removed");
    // The driver is the one that remembers; it must outlive its last task.
    let driver = first.driver.clone();
    first.finish().await;
    wait_until("the image is still there", || !is_there(&name)).await;
    drop(driver);
}

#[tokio::test]
async fn an_image_is_loaded_from_an_archive() {
    let registry = Registry::start(false).await;
    let name = registry.push("archived:1");
    assert!(docker(&["pull", "-q", &name]));
    let mut bench = Bench::new(
        "docker",
        json!({"image": name, "load": "image.tar", "command": "echo", "args": ["loaded"]}),
    );
    let archive = bench.config.dirs.local.join("image.tar").display().to_string();
    assert!(docker(&["save", "-o", &archive, &name]));
    assert!(docker(&["rmi", &name]));
    let before = registry.manifest_requests();
    assert!(bench.run().await.is_success());
    assert_eq!(bench.log("stdout"), "loaded\n");
    assert_eq!(registry.manifest_requests(), before);
    bench.set_config(json!({"image": name, "load": "none.tar"}));
    let error = bench.try_start().await.unwrap_err().to_string();
    assert!(error.starts_with("unable to open image archive: none.tar"), "{error}");
    fs::write(&archive, "no archive at all").unwrap();
    bench.set_config(json!({"image": "herder-test/never:1", "load": "image.tar"}));
    let error = bench.try_start().await.unwrap_err().to_string();
    assert!(error.contains("unable to load image") || error.contains("Failed to find image"), "{error}");
    bench.finish().await;
}

#[tokio::test]
async fn containers_that_no_task_knows_are_removed() {
    let root = tempfile::tempdir().unwrap();
    let gc = GcOptions {
        dangling_period: Duration::from_millis(100),
        dangling_grace: Duration::ZERO,
        ..GcOptions::default()
    };
    let docker_options = DockerOptions { gc, alloc_root: root.path().to_owned(), ..DockerOptions::default() };
    let options = with_docker(docker_options);
    let config = json!({"image": image(), "command": "sleep", "args": ["1000"]});
    let mut known = Bench::with(&options, "docker", config.clone());
    let mut lost = Bench::with(&options, "docker", config.clone());
    // All are tasks of one agent, and these two have cores of their own.
    let parent = format!("herder-test-{}", known.config.id.alloc);
    let of_agent = || all(&DriverOptions { cgroup_parent: parent.clone(), ..options.clone() });
    for bench in [&mut known, &mut lost] {
        bench.driver = of_agent().remove("docker").unwrap();
        bench.config.grant.cpu.reserved_cores = vec![1];
        fs::create_dir(root.path().join(bench.config.id.alloc.to_string())).unwrap();
    }
    let reserved = |bench: &Bench| {
        let name = format!("{}.web", bench.config.id.alloc);
        let place = match Hierarchy::of_this_machine() {
            Hierarchy::V1(mounts) => mounts["cpuset"].join(&parent).join("reserve").join(name),
            Hierarchy::V2(mount) => mount.join(format!("{parent}.slice/reserve.slice/{name}.scope")),
            Hierarchy::None => panic!("these tests need control groups"),
        };
        place.is_dir()
    };
    let mut foreign = Bench::new("docker", config);
    let handle = known.start().await;
    lost.start().await;
    foreign.start().await;
    let name = |bench: &Bench| format!("web-{}", bench.config.id.alloc);
    let exists = |bench: &Bench| docker(&["container", "inspect", &name(bench)]);
    // The agent after a restart: it finds one of the two in its records.
    assert!(reserved(&known) && reserved(&lost));
    known.driver = of_agent().remove("docker").unwrap();
    known.driver.recover(&handle).await.unwrap();
    assert!(known.driver.fingerprint().await.healthy);
    wait_until("the lost container is still there", || !exists(&lost)).await;
    wait_until("its cores are still taken", || !reserved(&lost)).await;
    assert!(exists(&known) && exists(&foreign) && reserved(&known));
    for bench in [lost, known, foreign] {
        bench.finish().await;
    }
}

/// A network namespace that is gone when the test ends.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("herder-test-{}", uuid::Uuid::new_v4());
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Self(name)
    }

    fn path(&self) -> std::path::PathBuf {
        std::path::Path::new("/var/run/netns").join(&self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn inspect(container: &str, format: &str) -> String {
    let output = Command::new("docker").args(["inspect", "-f", format, container]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_image_that_holds_networks_can_be_ones_own() {
    use std::os::unix::fs::MetadataExt;
    let registry = Registry::start(true).await;
    let infra = registry.push("infra:1");
    let namespace = Namespace::new();
    let docker_options = DockerOptions {
        infra_image: infra.clone(),
        auth_config: Some(registry.docker_config()),
        ..DockerOptions::default()
    };
    let config = json!({"image": image(), "command": "sleep", "args": ["1000"]});
    let mut bench = Bench::with(&with_docker(docker_options), "docker", config.clone());
    bench.config.network_namespace = Some(namespace.path());
    bench.config.network_mode = "bridge".to_owned();
    bench.start().await;
    let holder = format!("nomad_init_{}", bench.config.id.alloc);
    assert_eq!(inspect(&holder, "{{.Config.Image}} {{.State.Running}}"), format!("{infra} true"));
    let pid = inspect(&format!("web-{}", bench.config.id.alloc), "{{.State.Pid}}");
    let inside = fs::metadata(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(inside.ino(), fs::metadata(namespace.path()).unwrap().ino());
    let (driver, alloc) = (bench.driver.clone(), bench.config.id.alloc);
    bench.finish().await;
    driver.leave_network(alloc).await.unwrap();
    assert!(!docker(&["container", "inspect", &holder]));

    let missing = format!("{}/no-such-infra", registry.address);
    let docker_options = DockerOptions { infra_image: missing.clone(), ..DockerOptions::default() };
    let mut bench = Bench::with(&with_docker(docker_options), "docker", config);
    bench.config.network_namespace = Some(namespace.path());
    let error = bench.try_start().await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("Failed to pull infra_image `{missing}:latest`: ")), "{text}");
    assert!(error.is_recoverable());
    bench.finish().await;
}

/// Programs are found by the search path, which belongs to the whole process: so this runs in one of its own, started
/// by the next test.
#[tokio::test]
#[ignore = "is run by another test, which prepares it"]
async fn inner_pulls_with_helpers() {
    let name = std::env::var("HERDER_TEST_IMAGE").unwrap();
    let dir = std::path::PathBuf::from(std::env::var("HERDER_TEST_DIR").unwrap());
    let address = name.split('/').next().unwrap().to_owned();
    let config = |text: Value| {
        let file = dir.join("docker.json");
        fs::write(&file, text.to_string()).unwrap();
        DockerOptions { auth_config: Some(file), ..DockerOptions::default() }
    };
    let by_registry = || config(json!({"credHelpers": {&address: "fine"}, "credsStore": "broken"}));
    let broken = || DockerOptions { auth_helper: "broken".to_owned(), ..DockerOptions::default() };
    for (options, soft, outcome) in [
        (DockerOptions { auth_helper: "fine".to_owned(), ..DockerOptions::default() }, false, None),
        (by_registry(), false, None),
        (broken(), false, Some("docker-credential-broken failed for ")),
        // Without credentials the registry refuses, which is another error.
        (broken(), true, Some("no basic auth credentials")),
    ] {
        docker(&["rmi", &name]);
        let task = json!({"image": name, "command": "true", "auth_soft_fail": soft});
        let mut bench = Bench::with(&with_docker(options), "docker", task);
        match (bench.try_start().await, outcome) {
            (Ok((handle, _)), None) => assert!(bench.wait(&handle).await.is_success()),
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (result, outcome) => panic!("{result:?} instead of {outcome:?}"),
        }
        bench.finish().await;
    }
    docker(&["rmi", &name]);
    let mut bench = Bench::with(
        &with_docker(config(json!({"credsStore": "fine"}))),
        "docker",
        json!({"image": name, "command": "true"}),
    );
    assert!(bench.run().await.is_success(), "the store of all registries");
    bench.finish().await;
    fs::write(dir.join("all pulled"), "").unwrap();
}

#[tokio::test]
async fn credential_helpers_give_passwords_for_pulls() {
    use std::os::unix::fs::PermissionsExt;
    let registry = Registry::start(true).await;
    let name = registry.push("helped:1");
    let dir = tempfile::tempdir().unwrap();
    let fine = format!(
        "#!/bin/sh\n[ \"$1\" = get ] && read registry || true\n[ \"$registry\" = {} ] || exit 1\n\
         echo '{{\"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'\n",
        registry.address
    );
    for (helper, script) in [("fine", fine.as_str()), ("broken", "#!/bin/sh\necho no keychain >&2\nexit 1\n")]
    {
        let program = dir.path().join(format!("docker-credential-{helper}"));
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let search = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let inner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "registry::inner_pulls_with_helpers", "--ignored", "--nocapture"])
        .env("PATH", search)
        .env("HERDER_TEST_IMAGE", &name)
        .env("HERDER_TEST_DIR", dir.path())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout);
    let pulled = inner.status.success() && dir.path().join("all pulled").exists();
    assert!(pulled, "{said}{}", String::from_utf8_lossy(&inner.stderr));
}
