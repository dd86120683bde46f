use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::watch;

use super::engine::Answer;
use super::engine::Scene;
use super::*;
use crate::agent::hooks::Catalog;
use crate::clock::TokioClock;
use crate::model::id::AllocId;
use crate::model::service::ServiceRegistration;
use crate::model::task::ChangeScript;
use crate::model::task::WaitConfig;
use crate::model::time::Span;
use crate::model::time::Time;

fn service(name: &str, address: &str, port: i64, tags: &[&str]) -> ServiceRegistration {
    ServiceRegistration {
        id: format!("_nomad-task-{name}-{port}"),
        service_name: name.to_owned(),
        address: address.to_owned(),
        port,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..ServiceRegistration::default()
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn scene() -> Scene {
    let known = BTreeMap::from([
        (
            Dependency::Service("redis".to_owned()),
            Answer::Service(vec![
                service("redis", "10.0.0.1", 80, &["a", "b"]),
                service("redis", "10.0.0.2", 81, &["b"]),
            ]),
        ),
        (Dependency::Service("none".to_owned()), Answer::Service(Vec::new())),
        (
            Dependency::Services,
            Answer::Services(BTreeMap::from([("redis".to_owned(), vec!["a".to_owned()])])),
        ),
        (
            Dependency::Variable { path: "a/b".to_owned(), namespace: String::new() },
            Answer::Variable(Some(map(&[("user", "u")]))),
        ),
        (Dependency::Variable { path: "zz".to_owned(), namespace: String::new() }, Answer::Variable(None)),
        (Dependency::File("/data/alloc/1/web/local/x".to_owned()), Answer::File("content".to_owned())),
    ]);
    Scene {
        env: Arc::new(map(&[("NOMAD_TASK_NAME", "web"), ("EMPTY", "")])),
        node: Arc::new(map(&[("attr.kernel.name", "linux")])),
        dirs: Arc::new(TaskDirs {
            alloc: "/data/alloc/1".into(),
            task: "/data/alloc/1/web".into(),
            ..TaskDirs::default()
        }),
        known: Arc::new(known),
        now: Time::from_secs(1_700_000_000),
    }
}

fn rendered(text: &str, strict: bool) -> Result<String, String> {
    let syntax = Syntax { strict, ..Syntax::default() };
    let rendering = render(text, &syntax, "(dynamic)", &scene())?;
    if rendering.missing.is_empty() {
        Ok(rendering.text)
    } else {
        Err(format!("missing {:?}", rendering.missing))
    }
}

#[test]
fn templates_render_as_they_do_in_nomad() {
    for (text, expected) in [
        (
            r#"{{ range nomadService "redis" }}{{ .Address }}:{{ .Port }} {{ end }}"#,
            "10.0.0.1:80 10.0.0.2:81 ",
        ),
        (r#"{{ range nomadService "a.redis@global" }}{{ .Name }}{{ .Tags }}{{ end }}"#, "redis[a b]"),
        (r#"{{ range nomadService "none" }}x{{ else }}EMPTY{{ end }}"#, "EMPTY"),
        (r#"{{ len (nomadService 1 "key" "redis") }}"#, "1"),
        (
            r#"{{ with nomadService "redis" }}{{ with index . 0 }}{{ .Address }}{{ end }}{{ end }}"#,
            "10.0.0.1",
        ),
        (r#"{{ range nomadServices }}{{ .Name }} {{ .Tags }}{{ end }}"#, "redis [a]"),
        (
            r#"{{ range nomadService "redis" }}{{ if .Tags | contains "a" }}{{ .Port }}{{ end }}{{ end }}"#,
            "80",
        ),
        (r#"{{ range $tag, $s := nomadService "redis" | byTag }}{{ $tag }}{{ len $s }} {{ end }}"#, "a1 b2 "),
        (r#"{{ with nomadVar "a/b" }}{{ .user }}|{{ .zz }}{{ end }}"#, "u|<no value>"),
        (r#"{{ nomadVarExists "a/b" }} {{ nomadVarExists "zz" }}"#, "true false"),
        (r#"{{ env "NOMAD_TASK_NAME" }}{{ env "attr.kernel.name" }}[{{ env "NOPE" }}]"#, "weblinux[]"),
        (r#"{{ envOrDefault "EMPTY" "x" }}{{ mustEnv "NOMAD_TASK_NAME" }}"#, "xweb"),
        (r#"{{ with env "EMPTY" }}a{{ else with env "NOMAD_TASK_NAME" }}{{ . }}{{ else }}c{{ end }}"#, "web"),
        (
            r#"{{ file "/local/x" }}{{ file "local/x" }}{{ file "/data/alloc/1/web/local/x" }}"#,
            "contentcontentcontent",
        ),
        (
            r#"{{ timestamp }} {{ timestamp "unix" }} {{ timestamp "2006-01-02 15:04" }}"#,
            "2023-11-14T22:13:20Z 1700000000 2023-11-14 22:13",
        ),
        (r#"{{ "abc" | toUpper | printf "<%s>" }}{{ toTitle "a bc" }}"#, "<ABC>A Bc"),
        (
            r#"{{ "a,b" | split "," | join "-" }}{{ range $k, $v := splitToMap "," ":" "k:v,l:w" }}{{ $k }}{{ $v }}{{ end }}"#,
            "a-bkvlw",
        ),
        (
            r#"{{ "  a " | trimSpace }}{{ "xax" | trim "x" }}{{ "ab" | trimPrefix "a" }}{{ "ab" | trimSuffix "b" }}"#,
            "aaba",
        ),
        (
            r#"{{ "aba" | replaceAll "a" "x" }}{{ "foo1" | regexReplaceAll "o+(\\d)" "$1" }}{{ "ab" | regexMatch "^a" }}"#,
            "xbxf1true",
        ),
        (r#"{{ "a" | base64Encode }}{{ "YQ==" | base64Decode }}{{ "??>" | base64URLEncode }}"#, "YQ==aPz8-"),
        (r#"{{ "a\nb" | indent 2 }}"#, "  a\n  b"),
        (r#"{{ "a" | md5sum }}"#, "0cc175b9c0f1b6a831c399e269772661"),
        (
            r#"{{ hmacSHA256Hex "what do ya want for nothing?" "Jefe" }}"#,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            r#"{{ add 1 2 }} {{ subtract 1 5 }} {{ divide 2 10 }} {{ modulo 3 10 }} {{ 5 | multiply 2 }} {{ maximum 2 3 }}"#,
            "3 4 5 1 10 3",
        ),
        (
            r#"{{ range loop 3 }}{{ . }}{{ end }}{{ range loop 5 8 }}{{ . }}{{ end }}{{ range $i := loop 2 }}{{ $i }}{{ end }}"#,
            "01256701",
        ),
        (
            r#"{{ with parseJSON "{\"b\":[1,2.5],\"a\":{\"c\":true}}" }}{{ .a.c }}{{ index .b 1 }}{{ .zz }}{{ toJSON . }}{{ end }}"#,
            "true2.5<no value>{\"a\":{\"c\":true},\"b\":[1,2.5]}",
        ),
        (r#"{{ (parseJSON "").x }}{{ parseInt "7" | add 1 }}{{ parseBool "true" }}"#, "<no value>8true"),
        (
            r#"{{ sprig_default "d" (env "NOPE") }}{{ or (env "NOPE") "e" }}{{ "a" | sprig_quote }}"#,
            "de\"a\"",
        ),
        (r#"{{ scratch.Set "k" "v" }}{{ scratch.Get "k" }}{{ if scratch.Key "z" }}x{{ end }}"#, "v"),
        (r#"{{ .Missing }}"#, "<no value>"),
        ("{{- /* c */ -}} a {{- \" b\" }}", "a b"),
        (r#"{{ define "t" }}[{{ . }}]{{ end }}{{ template "t" "z" }}"#, "[z]"),
        (r#"{{ in (nomadService "redis" | sprig_first).Tags "b" }}"#, "true"),
    ] {
        assert_eq!(rendered(text, false).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn errors_are_in_the_words_of_consul_template() {
    for (text, expected) in [
        ("{{ nosuch \"x\" }}", "(dynamic): parse: template: :1: function \"nosuch\" not defined"),
        (
            "{{ plugin \"x\" }}",
            "(dynamic): execute: template: :1:3: executing \"\" at <plugin \"x\">: error calling plugin: function is disabled",
        ),
        (
            "a\n{{ mustEnv \"NOPE\" }}",
            "(dynamic): execute: template: :2:3: executing \"\" at <mustEnv \"NOPE\">: error calling mustEnv: \
             required environment variable NOPE is empty",
        ),
        (
            "{{ file \"/etc/hostname\" }}",
            "(dynamic): execute: template: :1:3: executing \"\" at <file \"/etc/hostname\">: error calling file: \
             '/etc/hostname' is outside of sandbox",
        ),
        (
            "{{ key \"a\" }}",
            "(dynamic): execute: template: :1:3: executing \"\" at <key \"a\">: error calling key: Consul is not \
             configured; use nomadService or nomadVar",
        ),
    ] {
        assert_eq!(rendered(text, false).unwrap_err(), expected, "{text}");
    }
    for path in ["../x", "/local/../../x", "/data/alloc/1/web/../y/z", "/alloc/data/x"] {
        let error = rendered(&format!("{{{{ file \"{path}\" }}}}"), false).unwrap_err();
        assert!(error.ends_with(&format!("'{path}' is outside of sandbox")), "{error}");
    }
}

#[test]
fn a_missing_key_is_an_error_when_the_template_wants_that() {
    for text in [
        "{{ with parseJSON \"{\\\"a\\\":1}\" }}{{ .zz }}{{ end }}",
        "{{ (nomadVar \"a/b\").zz }}",
        "{{ .zz }}",
    ] {
        let error = rendered(text, true).unwrap_err();
        assert!(error.ends_with("map has no entry for key \"zz\""), "{error}");
    }
    assert_eq!(rendered("{{ (nomadVar \"a/b\").user }}", true).as_deref(), Ok("u"));
}

#[test]
fn what_is_not_known_is_recorded_and_breaks_nothing() {
    let text = "{{ (index (nomadService \"new\") 0).Port }}";
    assert_eq!(rendered(text, false).unwrap_err(), "missing {Service(\"new\")}");
    let text = "{{ range nomadService \"new\" }}{{ end }}{{ with nomadVar \"zz\" }}{{ .x }}{{ end }}";
    let error = rendered(text, false).unwrap_err();
    assert!(error.contains("Service(\"new\")") && error.contains("Variable { path: \"zz\""), "{error}");
}

proptest::proptest! {
    /// Whatever pieces a template is put together from, rendering ends with a text or an error.
    #[test]
    fn no_template_text_breaks_the_engine(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "{{", "}}", "{{ ", " }}", "-", " - ", "if ", "else ", "with ", "end", "range ", "$x", ":=", ".", "|", "(", ")",
        "\"", "`", "'", "\\", "/*", "*/", "env \"A\"", "nomadService \"redis\"", "loop 2", "index", "0", "1e9",
        "printf \"%d\"", "é", "\n", " ", "define \"t\"", "template \"t\"", "break", "scratch.Set", "nil", "parseJSON",
    ]), 0..12)) {
        let text = pieces.concat();
        let failed = "the template engine failed on this template";
        proptest::prop_assert!(rendered(&text, false) != Err(failed.to_owned()), "{}", text);
        let swapped = Syntax { left: "-".to_owned(), right: "|".to_owned(), strict: true };
        let error = render(&text, &swapped, "(dynamic)", &scene()).err();
        proptest::prop_assert!(error.as_deref() != Some(failed), "{}", text);
    }

    #[test]
    fn no_environment_file_breaks_the_parser(text in "[A= \"'#\\\\u0-9\n\t]{0,24}") {
        let _ = env::parse(&text);
    }
}

/// A catalog that tests change.
#[derive(Default)]
struct FakeCatalog {
    services: Mutex<BTreeMap<String, Vec<ServiceRegistration>>>,
    variables: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
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

    async fn variable(
        &self,
        _: &str,
        path: &str,
    ) -> Result<(u64, Option<BTreeMap<String, String>>), HookError> {
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
    setup.catalog.variables.lock().unwrap().insert("a/b".to_owned(), map(&[("k", "v")]));
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
