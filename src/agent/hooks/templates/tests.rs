use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::watch;

use super::engine::Answer;
use super::engine::Scene;
use super::*;
use crate::agent::hooks::Catalog;
use crate::agent::hooks::TemplateOptions;
use crate::agent::hooks::Variable;
use crate::agent::hooks::VariableMeta;
use crate::clock::TokioClock;
use crate::model::id::AllocId;
use crate::model::service::ServiceRegistration;
use crate::model::task::ChangeScript;
use crate::model::task::WaitConfig;
use crate::model::time::Span;
use crate::model::time::Time;

mod manager;

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

fn variable(path: &str, items: &[(&str, &str)]) -> Variable {
    let meta =
        VariableMeta { namespace: "default".to_owned(), path: path.to_owned(), ..VariableMeta::default() };
    Variable { meta, items: map(items) }
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
            Answer::Variable(Some(variable("a/b", &[("user", "u")]))),
        ),
        (Dependency::Variable { path: "zz".to_owned(), namespace: String::new() }, Answer::Variable(None)),
        (
            Dependency::VariableExists { path: "a/b".to_owned(), namespace: String::new() },
            Answer::Variable(Some(variable("a/b", &[]))),
        ),
        (
            Dependency::VariableExists { path: "zz".to_owned(), namespace: String::new() },
            Answer::Variable(None),
        ),
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
        options: Arc::default(),
        now: Time::from_secs(1_700_000_000),
    }
}

fn rendered(text: &str, strict: bool) -> Result<String, String> {
    let syntax = Options { strict, ..Options::default() };
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
fn functions_do_what_they_do_in_consul_template() {
    for (text, expected) in [
        (
            r#"{{ scratch.MapSet "m" "b" 2 }}{{ scratch.MapSet "m" "a" 1 }}{{ scratch.MapSetX "m" "a" 9 }}{{ scratch.MapValues "m" }}{{ scratch.SetX "k" 1 }}{{ scratch.SetX "k" 2 }}{{ scratch.Get "k" }}"#,
            "[1 2]1",
        ),
        (
            r#"{{ with nomadVar "a/b" }}{{ .user.Value }}{{ .Keys }}{{ .Values }}{{ .Metadata.Path }}{{ range .Tuples }}{{ .K }}={{ .V }}{{ end }}{{ range $k, $v := . }}{{ $k }}{{ $v }}{{ end }}{{ .user | toUpper }}{{ .Parent.Items.user }}{{ end }}"#,
            "u[user][u]a/buser=uuseruUu",
        ),
        (
            r#"{{ range nomadService "redis" }}{{ .Tags.Contains "a" }} {{ join "," .Tags }} {{ end }}"#,
            "true a,b false b ",
        ),
        (
            r#"{{ range $p, $s := nomadService "redis" | byPort }}{{ $p }}:{{ len $s }} {{ end }}"#,
            "80:1 81:1 ",
        ),
        (
            r#"{{ with index (nomadService "redis") 0 }}{{ .JobID | printf "%q" }}{{ .Port | add 1 }}{{ end }}"#,
            "\"\"81",
        ),
        (
            r#"{{ $y := parseYAML "a: 1\nb: [x, 2.5]\nc: {d: true}" }}{{ $y.a }}{{ index $y.b 0 }}{{ $y.c.d }}|{{ toYAML $y.c }}|{{ toTOML $y.c }}"#,
            "1xtrue|d: true|d = true",
        ),
        (
            r#"{{ toJSONPretty (parseJSON "{\"a\":\"<\"}") }} {{ toUnescapedJSON "<" }} {{ toJSON "<" }}"#,
            "{\n  \"a\": \"\\u003c\"\n} \"<\" \"\\u003c\"",
        ),
        (
            r#"{{ containsAll (split "," "a,b") (split "," "a,b,c") }}{{ containsAny (split "," "z") (split "," "a") }}{{ containsNone (split "," "z") (split "," "a") }}{{ containsNotAll (split "," "a,z") (split "," "a") }}"#,
            "truefalsetruetrue",
        ),
        (
            r#"{{ explodeMap (sprig_dict "a/b" 1 "a/c" 2 "d" 3) }} {{ sprig_dict "a" 1 | mergeMap (sprig_dict "a" 2 "b" 3) }} {{ sprig_dict "a" 1 | mergeMapWithOverride (sprig_dict "a" 2) }}"#,
            "map[a:map[b:1 c:2] d:3] map[a:1 b:3] map[a:2]",
        ),
        (
            r#"{{ add 1.5 1 }} {{ divide 2 7.0 }} {{ minimum 1 2.5 }} {{ parseFloat "1.5" }} {{ parseUint "7" }} {{ parseInt "" }}"#,
            "2.5 3.5 1 1.5 7 0",
        ),
        (r#"{{ spew_dump "a" 1 }}{{ spew_sprintf "%d-%s" 1 "x" }}"#, "(string) (len=1) \"a\"\n(int) 1\n1-x"),
        (r#"{{ sprig_env "NOMAD_TASK_NAME" }} {{ sprig_now | sprig_date "2006" }}"#, "web 2023"),
        (r#"{{ "a\n\nb" | indent 1 }}{{ split "," " " | len }}{{ toTitle "x-y" }}"#, " a\n\n b0X-Y"),
        (
            r#"{{ sockaddr "GetInterfaceIP \"no-such-interface\"" }}|{{ timestamp "Mon Jan _2 15:04:05 2006" }}"#,
            "|Tue Nov 14 22:13:20 2023",
        ),
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
            "{{ nomadVarListSafe \"\" }}",
            "(dynamic): execute: template: :1:3: executing \"\" at <nomadVarListSafe \"\">: error calling \
             nomadVarListSafe: nomadVarListSafe: a prefix is needed",
        ),
        (
            "{{ executeTemplate \"a\" }}",
            "(dynamic): execute: template: :1:3: executing \"\" at <executeTemplate \"a\">: error calling \
             executeTemplate: function is disabled",
        ),
        (
            "{{ secret \"a\" }}",
            "(dynamic): execute: template: :1:3: executing \"\" at <secret \"a\">: error calling secret: Vault is not \
             configured; use nomadVar",
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
    for text in ["{{ with parseJSON \"{\\\"a\\\":1}\" }}{{ .zz }}{{ end }}", "{{ (nomadVar \"a/b\").zz }}"] {
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
        let delimiters = Delimiters { left: "-".to_owned(), right: "|".to_owned() };
        let swapped = Options { delimiters, strict: true, ..Options::default() };
        let error = render(&text, &swapped, "(dynamic)", &scene()).err();
        proptest::prop_assert!(error.as_deref() != Some(failed), "{}", text);
    }

    #[test]
    fn no_environment_file_breaks_the_parser(text in "[A= \"'#\\\\u0-9\n\t]{0,24}") {
        let _ = env::parse(&text);
    }
}

#[test]
fn functions_of_consul_need_a_consul() {
    let error = render("{{ key \"a\" }}", &Options::default(), "(dynamic)", &scene()).unwrap_err();
    assert!(error.ends_with("Consul is not configured; use nomadService or nomadVar"), "{error}");
}

#[test]
fn functions_of_consul_ask_and_read_its_answers() {
    let client = crate::agent::consul::Client::new(crate::agent::consul::ConsulOptions::default()).unwrap();
    let options = TemplateOptions { consul: Some(client), ..TemplateOptions::default() };
    let answers = [
        ("/v1/kv/a/b%20c?dc=east", serde_json::json!([{"Key": "a/b c", "Value": "eA=="}])),
        ("/v1/kv/none", serde_json::Value::Null),
        (
            "/v1/kv/t/?recurse=true",
            serde_json::json!([
                {"Key": "t/"}, {"Key": "t/one/k", "Value": "MQ=="}, {"Key": "t/two/k", "Value": "Mg=="},
            ]),
        ),
        (
            "/v1/health/service/web?tag=v1",
            serde_json::json!([
                {"Node": {"Address": "10.0.0.1"}, "Service": {"Port": 1}, "Checks": [{"Status": "passing"}]},
                {"Node": {"Address": "10.0.0.2"}, "Service": {"Port": 2}, "Checks": [{"Status": "passing"}, {"Status": "critical"}]},
            ]),
        ),
        (
            "/v1/health/service/web",
            serde_json::json!([
                {"Node": {"Address": "10.0.0.2"}, "Service": {"Address": "10.1.1.1", "Port": 2}, "Checks": [{"Status": "warning"}]},
            ]),
        ),
        ("/v1/catalog/services", serde_json::json!({"web": ["v1"], "db": []})),
        ("/v1/catalog/datacenters", serde_json::json!(["dc1", "dc2"])),
        (
            "/v1/catalog/node/n1",
            serde_json::json!({"Node": {"Node": "n1", "Address": "10.0.0.3"}, "Services": {}}),
        ),
    ];
    let known = answers.map(|(path, json)| (Dependency::Consul(path.to_owned()), Answer::Consul(json)));
    let scene = Scene { known: Arc::new(known.into()), options: Arc::new(options), ..scene() };
    for (text, expected) in [
        ("{{ key \"a/b c@east\" }}", "x"),
        ("{{ keyOrDefault \"none\" \"d\" }} {{ keyExists \"none\" }}", "d false"),
        (
            "{{ range $k, $p := tree \"t\" | byKey }}{{ $k }}:{{ range $n, $v := $p }}{{ $n }}={{ $v.Value }} {{ end }}{{ end }}",
            "one:k=1 two:k=2 ",
        ),
        ("{{ len (ls \"t\") }}", "0"),
        ("{{ range service \"v1.web\" }}{{ .Address }}:{{ .Port }}{{ end }}", "10.0.0.1:1"),
        (
            "{{ len (service \"web\") }}{{ range service \"web|any\" }} {{ .Address }} {{ .Status }}{{ end }}",
            "0 10.1.1.1 warning",
        ),
        ("{{ range services }}{{ .Name }} {{ end }}", "db web "),
        ("{{ datacenters | join \",\" }}", "dc1,dc2"),
        ("{{ with node \"n1\" }}{{ .Node.Address }}{{ end }}", "10.0.0.3"),
    ] {
        let rendering = render(text, &Options::default(), "(dynamic)", &scene).unwrap();
        assert_eq!((rendering.text.as_str(), rendering.missing.len()), (expected, 0), "{text}");
    }
    let rendering = render("{{ key \"none\" }}", &Options::default(), "(dynamic)", &scene).unwrap();
    assert_eq!(rendering.missing.len(), 1, "a key that is not there is waited for");
    let error = render("{{ caRoots }}", &Options::default(), "(dynamic)", &scene).unwrap_err();
    assert!(error.ends_with("caRoots is not available in Herder"), "{error}");
}
