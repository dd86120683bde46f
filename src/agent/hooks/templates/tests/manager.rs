//! Templates over time: first rendering, changes, what the task is told.

use super::*;

/// A catalog that tests change.
#[derive(Default)]
struct FakeCatalog {
    services: Mutex<BTreeMap<String, Vec<ServiceRegistration>>>,
    variables: Mutex<BTreeMap<String, Variable>>,
    index: watch::Sender<u64>,
    unreachable: Mutex<bool>,
}

impl FakeCatalog {
    fn set(&self, name: &str, services: Vec<ServiceRegistration>) {
        self.services.lock().unwrap().insert(name.to_owned(), services);
        self.index.send_modify(|index| *index += 1);
    }
}

#[async_trait]
impl Catalog for FakeCatalog {
    async fn services(&self, _: &str, name: &str) -> Result<(u64, Vec<ServiceRegistration>), HookError> {
        if *self.unreachable.lock().unwrap() {
            return Err(HookError::recoverable("no answer yet"));
        }
        let services = self.services.lock().unwrap().get(name).cloned().unwrap_or_default();
        Ok((*self.index.borrow(), services))
    }

    async fn names(&self, _: &str) -> Result<(u64, BTreeMap<String, Vec<String>>), HookError> {
        Ok((*self.index.borrow(), BTreeMap::new()))
    }

    async fn variable(&self, _: &str, path: &str) -> Result<(u64, Option<Variable>), HookError> {
        Ok((*self.index.borrow(), self.variables.lock().unwrap().get(path).cloned()))
    }

    async fn changed(&self, since: u64) -> u64 {
        let mut index = self.index.subscribe();
        let seen = index.wait_for(|index| *index > since).await.map(|index| *index);
        seen.unwrap_or(since)
    }
}

struct Setup {
    _root: tempfile::TempDir,
    context: TemplateContext,
    catalog: Arc<FakeCatalog>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Setup {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let alloc = root.path().join("1");
        let task = alloc.join("web");
        std::fs::create_dir_all(task.join("local")).unwrap();
        let catalog = Arc::new(FakeCatalog::default());
        let context = TemplateContext {
            env: map(&[("NOMAD_TASK_NAME", "web")]),
            node: BTreeMap::new(),
            dirs: TaskDirs { task, alloc, ..TaskDirs::default() },
            namespace: "default".to_owned(),
            region: "global".to_owned(),
            alloc: AllocId::default(),
            task: "web".to_owned(),
            catalog: catalog.clone(),
            options: Arc::default(),
            clock: TokioClock::starting_at(Time::from_secs(1_700_000_000)),
            seed: 1,
        };
        Self { _root: root, context, catalog, said: Arc::default() }
    }

    async fn start(
        &self,
        templates: Vec<Template>,
    ) -> Result<(TemplateManager, mpsc::Receiver<TemplateChange>), HookError> {
        let said = self.said.clone();
        let progress: HookProgress = Arc::new(move |text: &str| said.lock().unwrap().push(text.to_owned()));
        TemplateManager::start(templates, self.context.clone(), progress).await
    }

    fn path(&self, path: &str) -> PathBuf {
        self.context.dirs.task.join(path)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }
}

fn template(text: &str, destination: &str) -> Template {
    Template {
        embedded_tmpl: text.to_owned(),
        dest_path: destination.to_owned(),
        change_mode: "restart".to_owned(),
        perms: "0644".to_owned(),
        ..Template::default()
    }
}

const PORTS: &str = "{{ range nomadService \"redis\" }}P={{ .Port }}\n{{ end }}";

#[tokio::test(start_paused = true)]
async fn an_empty_service_renders_and_a_new_instance_restarts_once() {
    let setup = Setup::new();
    let env = Template { envvars: true, ..template(PORTS, "local/env.txt") };
    let (manager, mut changes) = setup.start(vec![env, template(PORTS, "local/b")]).await.unwrap();
    assert_eq!((setup.read("local/env.txt").as_str(), manager.env().unwrap()), ("", BTreeMap::new()));

    let before = tokio::time::Instant::now();
    setup.catalog.set("redis", vec![service("redis", "h", 7, &[])]);
    assert_eq!(changes.recv().await, Some(TemplateChange::Restart));
    assert_eq!(before.elapsed().as_secs(), 5, "the data are quiet for five seconds first");
    assert_eq!((manager.env().unwrap(), setup.read("local/b").as_str()), (map(&[("P", "7")]), "P=7\n"));

    // Another service, and the same content again: nothing to tell.
    setup.catalog.set("other", vec![]);
    setup.catalog.set("redis", vec![service("redis", "other-host", 7, &[])]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn an_environment_template_of_a_usual_job_gives_its_variables() {
    let setup = Setup::new();
    let text = "\n{{ range nomadService \"redis-svc\" }}\nREDIS_HOST={{ .Address }}\nREDIS_PORT={{ .Port }}\n\
                TASK={{ env \"NOMAD_TASK_NAME\"}}\n{{ end }}\nPTC_BUDGET={{ env \"NOMAD_META_budget\" }}\n";
    setup.catalog.set("redis-svc", vec![service("redis-svc", "10.0.0.5", 23456, &[])]);
    let env = Template { envvars: true, ..template(text, "local/env.txt") };
    let (manager, _changes) = setup.start(vec![env]).await.unwrap();
    assert_eq!(
        manager.env().unwrap(),
        map(&[("REDIS_HOST", "10.0.0.5"), ("REDIS_PORT", "23456"), ("TASK", "web"), ("PTC_BUDGET", "")])
    );
}

#[tokio::test(start_paused = true)]
async fn changes_within_the_quiet_time_become_one() {
    let setup = Setup::new();
    let wait = WaitConfig { min: Some(Span::from_secs(10)), max: Some(Span::from_secs(15)) };
    let template = Template { wait: Some(wait), splay: Span::from_secs(3), ..template(PORTS, "local/a") };
    let (_manager, mut changes) = setup.start(vec![template]).await.unwrap();
    let before = tokio::time::Instant::now();
    for port in 1..4 {
        setup.catalog.set("redis", vec![service("redis", "h", port, &[])]);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert_eq!(changes.recv().await, Some(TemplateChange::Restart));
    assert!((15..18).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
    assert_eq!(setup.read("local/a"), "P=3\n");
    assert!(changes.try_recv().is_err());
}

#[test]
fn one_event_is_one_restart_or_all_signals_and_scripts() {
    let of = |mode: &str, signal: &str| Template {
        change_mode: mode.to_owned(),
        change_signal: signal.to_owned(),
        change_script: Some(ChangeScript { command: "/s".to_owned(), ..ChangeScript::default() }),
        ..Template::default()
    };
    let (restart, hup, usr, script) =
        (of("restart", ""), of("signal", "sighup"), of("signal", "SIGUSR1"), of("script", ""));
    assert_eq!(told(&[&hup, &restart, &script]), [TemplateChange::Restart]);
    assert_eq!(
        told(&[&hup, &script, &usr, &hup]),
        [
            TemplateChange::Signal("SIGHUP".to_owned()),
            TemplateChange::Signal("SIGUSR1".to_owned()),
            TemplateChange::Script(script.change_script.clone().unwrap()),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_task_waits_for_missing_variables_and_an_unreachable_catalog() {
    let setup = Setup::new();
    *setup.catalog.unreachable.lock().unwrap() = true;
    let text = format!("{PORTS}{{{{ with nomadVar \"a/b\" }}}}{{{{ .k }}}}{{{{ end }}}}");
    let templates = vec![template(&text, "local/a"), template("plain", "local/b")];
    let start = setup.start(templates);
    tokio::pin!(start);
    tokio::time::timeout(Duration::from_secs(20), &mut start).await.map(|_| ()).unwrap_err();
    assert_eq!(setup.read("local/b"), "plain", "what can be rendered is");
    *setup.catalog.unreachable.lock().unwrap() = false;
    tokio::time::timeout(Duration::from_secs(60), &mut start).await.map(|_| ()).unwrap_err();
    setup.catalog.variables.lock().unwrap().insert("a/b".to_owned(), variable("a/b", &[("k", "v")]));
    start.await.unwrap();
    assert_eq!(setup.read("local/a"), "v");
    let said = setup.said.lock().unwrap().clone();
    assert_eq!(said[0], "Missing: nomad.service(redis@default.global), nomad.var.block(a/b@default.global)");
    assert_eq!(said.last().unwrap(), "Missing: nomad.var.block(a/b@default.global)");
}

#[tokio::test]
async fn bad_templates_sources_and_destinations_are_fatal() {
    let setup = Setup::new();
    std::os::unix::fs::symlink("/tmp", setup.path("out")).unwrap();
    let source = |path: &str| Template { source_path: path.to_owned(), ..template("", "local/a") };
    let both = Template { source_path: "local/s".to_owned(), ..template("x", "local/a") };
    let missing = format!(
        "template: failed to read template: exit status 1: failed to open source file \"{}\": No such file",
        setup.path("local/none").display()
    );
    for (template, expected) in [
        (both, "template: template: cannot specify both 'source' and 'contents'"),
        (source("../../x"), "template: template source path escapes alloc directory"),
        (source("out/x"), "template: template source path escapes alloc directory"),
        (source("local/none"), missing.as_str()),
        (template("x", "../../x"), "template: template destination path escapes alloc directory"),
        (template("x", "out/x"), "template: template destination path escapes alloc directory"),
        (
            template("{{ nosuch }}", "a"),
            "Template failed: (dynamic): parse: template: :1: function \"nosuch\" not defined",
        ),
    ] {
        let error = setup.start(vec![template]).await.map(|_| ()).unwrap_err();
        assert!(error.message.starts_with(expected) && !error.recoverable, "{error} for {expected}");
    }
}

#[tokio::test]
async fn templates_do_not_see_the_variables_of_others_and_rights_are_set_anew() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new();
    std::fs::write(setup.path("local/b"), "[]").unwrap();
    let variables = Template { envvars: true, ..template("A=1\n", "local/env") };
    let reader = Template { perms: "0640".to_owned(), ..template("[{{ env \"A\" }}]", "local/b") };
    let (manager, _changes) = setup.start(vec![variables, reader]).await.unwrap();
    assert_eq!(setup.read("local/b"), "[]");
    assert_eq!(setup.path("local/b").metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(manager.env().unwrap(), map(&[("A", "1")]));
}

#[tokio::test]
async fn files_have_their_mode_and_bad_env_files_say_where() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new();
    std::fs::write(setup.path("local/s"), "<< env \"NOMAD_TASK_NAME\" >>{{").unwrap();
    let sourced = Template {
        source_path: "local/s".to_owned(),
        left_delim: "<<".to_owned(),
        right_delim: ">>".to_owned(),
        perms: "600".to_owned(),
        ..template("", "/secrets/deep/a")
    };
    let broken = Template { envvars: true, ..template("A=1\nnothing\n", "local/env") };
    let (manager, _changes) = setup.start(vec![sourced, broken]).await.unwrap();
    assert_eq!(setup.read("secrets/deep/a"), "web{{");
    assert_eq!(setup.path("secrets/deep/a").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        manager.env().unwrap_err().message,
        format!(
            "Template failed to read environment variables: error parsing env template \"{}\": error on line 2: missing =",
            setup.path("local/env").display()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn files_that_templates_read_are_followed() {
    let setup = Setup::new();
    std::fs::write(setup.path("local/in"), "1").unwrap();
    let wait = WaitConfig { min: Some(Span::ZERO), max: None };
    let template = Template {
        wait: Some(wait),
        change_mode: "signal".to_owned(),
        ..template("{{ file \"local/in\" }}", "local/out")
    };
    let (_manager, mut changes) = setup.start(vec![template]).await.unwrap();
    std::fs::write(setup.path("local/in"), "2").unwrap();
    assert_eq!(changes.recv().await, Some(TemplateChange::Signal("SIGHUP".to_owned())));
    assert_eq!(setup.read("local/out"), "2");
}

#[tokio::test(start_paused = true)]
async fn a_template_that_is_rendered_once_stays_as_it_is() {
    let setup = Setup::new();
    let once = Template { once: true, ..template(PORTS, "local/once") };
    let (_manager, mut changes) = setup.start(vec![once, template(PORTS, "local/often")]).await.unwrap();
    setup.catalog.set("redis", vec![service("redis", "h", 1, &[])]);
    assert_eq!(changes.recv().await, Some(TemplateChange::Restart));
    assert_eq!((setup.read("local/once").as_str(), setup.read("local/often").as_str()), ("", "P=1\n"));
}

#[tokio::test(start_paused = true)]
async fn the_agents_configuration_bounds_the_quiet_time_and_denies_functions() {
    let mut setup = Setup::new();
    setup.context.options = Arc::new(TemplateOptions {
        wait_bounds: (Some(Duration::from_secs(20)), None),
        denied: vec!["toUpper".to_owned()],
        ..TemplateOptions::default()
    });
    let hasty = WaitConfig { min: Some(Span::ZERO), max: Some(Span::ZERO) };
    let template_ = Template { wait: Some(hasty), splay: Span::ZERO, ..template(PORTS, "local/a") };
    let (_manager, mut changes) = setup.start(vec![template_]).await.unwrap();
    setup.catalog.set("redis", vec![service("redis", "h", 1, &[])]);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(setup.read("local/a"), "");
    assert_eq!(changes.recv().await, Some(TemplateChange::Restart));
    let error = setup.start(vec![template("{{ toUpper \"a\" }}", "b")]).await.map(|_| ()).unwrap_err();
    assert!(error.message.ends_with("error calling toUpper: function is disabled"), "{error}");

    let outside = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    std::fs::write(outside.path(), "host").unwrap();
    let text = format!("{{{{ file \"{}\" }}}}", outside.path().display());
    let error = setup.start(vec![template(&text, "c")]).await.map(|_| ()).unwrap_err();
    assert!(error.message.contains("is outside of sandbox"), "{error}");
    setup.context.options =
        Arc::new(TemplateOptions { disable_file_sandbox: true, ..TemplateOptions::default() });
    setup.start(vec![template(&text, "c")]).await.unwrap();
    assert_eq!(setup.read("c"), "host");
}

#[tokio::test(start_paused = true)]
async fn a_template_that_breaks_later_ends_the_task() {
    let setup = Setup::new();
    let text = "{{ if nomadService \"redis\" }}{{ mustEnv \"NOPE\" }}{{ end }}";
    let (_manager, mut changes) = setup.start(vec![template(text, "local/a")]).await.unwrap();
    setup.catalog.set("redis", vec![service("redis", "h", 1, &[])]);
    let Some(TemplateChange::Failed(text)) = changes.recv().await else { panic!("not failed") };
    assert!(text.starts_with("Template failed: (dynamic): execute: template: :1:"), "{text}");
    assert_eq!(changes.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_task_hears_only_of_what_changed_meanwhile() {
    let setup = Setup::new();
    let progress: HookProgress = Arc::new(|_: &str| {});
    let signal = Template { change_mode: "signal".to_owned(), ..template(PORTS, "local/b") };
    for (port, expected) in [(1, None), (1, None), (2, Some(TemplateChange::Signal("SIGHUP".to_owned())))] {
        setup.catalog.set("redis", vec![service("redis", "h", port, &[])]);
        let templates = vec![template("same", "local/a"), signal.clone()];
        let (_manager, mut changes) = if setup.path("local/b").exists() {
            TemplateManager::resume(templates, setup.context.clone(), progress.clone()).await.unwrap()
        } else {
            setup.start(templates).await.unwrap()
        };
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(changes.try_recv().ok(), expected, "port {port}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_does_not_answer_is_asked_again() {
    let setup = Setup::new();
    let (_manager, mut changes) = setup.start(vec![template(PORTS, "local/a")]).await.unwrap();
    *setup.catalog.unreachable.lock().unwrap() = true;
    setup.catalog.set("redis", vec![service("redis", "h", 1, &[])]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(changes.try_recv().is_err());
    *setup.catalog.unreachable.lock().unwrap() = false;
    assert_eq!(changes.recv().await, Some(TemplateChange::Restart));
    assert_eq!(setup.read("local/a"), "P=1\n");
}

#[test]
fn managers_can_be_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<TemplateManager>();
    check::<crate::agent::hooks::services::ServiceManager>();
}

/// What a task puts in the place of its variables must not stop the agent, or use up its memory.
#[tokio::test]
async fn the_file_of_an_environment_template_may_be_anything_by_the_next_start() {
    let setup = Setup::new();
    let variables = Template { envvars: true, ..template("A=1\n", "local/env") };
    let (manager, _changes) = setup.start(vec![variables]).await.unwrap();
    let place = setup.path("local/env");
    let outside = setup.context.dirs.alloc.join("../secret");
    std::fs::write(&outside, "TOKEN=x\n").unwrap();
    type Plant<'a> = Box<dyn Fn() + 'a>;
    let planted: [(&str, Plant<'_>); 5] = [
        ("a pipe", Box::new(|| nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap())),
        ("a device", Box::new(|| std::os::unix::fs::symlink("/dev/zero", &place).unwrap())),
        ("a link out", Box::new(|| std::os::unix::fs::symlink("../../../secret", &place).unwrap())),
        ("a directory", Box::new(|| std::fs::create_dir(&place).unwrap())),
        ("a huge file", Box::new(|| std::fs::File::create(&place).unwrap().set_len(1 << 40).unwrap())),
    ];
    for (what, plant) in &planted {
        if place.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            std::fs::remove_dir(&place).unwrap();
        } else {
            let _ = std::fs::remove_file(&place);
        }
        plant();
        let error = manager.env().unwrap_err();
        assert!(
            error
                .message
                .starts_with("Template failed to read environment variables: error opening env template"),
            "{what}: {error}"
        );
    }
}
