use std::cell::RefCell;

use super::value::Key;
use super::value::Object;
use super::*;

/// Something with a method.
struct Counter(RefCell<i64>);

impl Object for Counter {
    fn type_name(&self) -> &'static str {
        "*test.Counter"
    }

    fn member(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        match (name, arguments) {
            ("Next", []) => {
                *self.0.borrow_mut() += 1;
                Some(Ok(Value::Int(*self.0.borrow())))
            }
            ("Add", [Value::Int(a), Value::Int(b)]) => Some(Ok(Value::Int(a + b))),
            ("Fail", _) => Some(Err("boom".to_owned())),
            _ => None,
        }
    }

    fn view(&self) -> Value {
        Value::from("counter")
    }
}

fn data() -> Value {
    let json = serde_json::json!({
        "True": true, "False": false, "I": 17, "F": 2.5, "S": "x<y", "E": "", "N": null,
        "SI": [3, 4, 5], "SE": [], "MSI": {"two": 2, "one": 1, "three": 3}, "Deep": {"a": {"b": "c"}},
        "Big": 12_345_678.0, "Names": ["b", "a"], "L": [{"k": 1}, {"k": 2}],
    });
    let Value::Map(map) = Value::from_json(&json, true) else { panic!("no map") };
    let point = Value::fields("test.Point", vec![("X", Value::Int(1)), ("Y", Value::from("z"))]);
    map.insert(Key::from("P"), point).unwrap();
    map.insert(Key::from("C"), Value::Object(Rc::new(Counter(RefCell::default())))).unwrap();
    map.insert(Key::from("U"), Value::Uint(7)).unwrap();
    Value::Map(map)
}

fn functions() -> Functions<'static> {
    let mut functions = Functions::default();
    functions.bind("boom", |_| Err(Failure::called("it broke")));
    functions.bind("add", |arguments| {
        let [left, right] = exactly("add", arguments)?;
        Ok(Value::Int(int_of(left)? + int_of(right)?))
    });
    functions.bind("upper", |arguments| {
        let [text] = exactly("upper", arguments)?;
        Ok(Value::from(text_of(text)?.to_uppercase()))
    });
    let now = chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    sprig::add(&mut functions, now, |name| (name == "HOME").then(|| "/root".to_owned()));
    functions
}

fn render_with(source: &str, options: &Options) -> Result<String, String> {
    let functions = functions();
    Template::parse("t", source, options, &functions)?.render(&data(), &functions)
}

fn render(source: &str) -> Result<String, String> {
    render_with(source, &Options::default())
}

fn check(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        assert_eq!(render(source).as_deref(), Ok(*expected), "{source}");
    }
}

#[test]
fn text_comments_and_trim_markers() {
    check(&[
        ("", ""),
        ("plain }} text", "plain }} text"),
        ("a{{/* c }} */}}b", "ab"),
        ("a {{- /* c */ -}} b", "ab"),
        ("{{23 -}} < {{- 45}}", "23<45"),
        ("a \n{{- 1 }} \n b", "a1 \n b"),
        ("a {{ 1 -}} \n b", "a 1b"),
        ("{{- 3 }}{{ -3 }}{{-3}}", "3-3-3"),
        ("{{ `raw\n\"x\"` }}", "raw\n\"x\""),
        ("{{ \"\\t\\\"\\u00e9\\x41\\101\" }}", "\t\"éAA"),
        ("{{\n  1\n}}", "1"),
    ]);
}

#[test]
fn values_print_as_in_go() {
    check(&[
        (
            "{{ 1 }} {{ -2 }} {{ 1.5 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 017 }} {{ 1_000 }} {{ 'a' }}",
            "1 -2 1.5 31 5 15 15 1000 97",
        ),
        (
            "{{ 1e3 }} {{ 1e6 }} {{ 123456.0 }} {{ 1234567.0 }} {{ 0.00001 }} {{ 1e21 }} {{ 2.0 }}",
            "1000 1e+06 123456 1.234567e+06 1e-05 1e+21 2",
        ),
        (
            "{{ true }} {{ .True }} {{ .I }} {{ .F }} {{ .Big }} {{ .S }}",
            "true true 17 2.5 1.2345678e+07 x<y",
        ),
        (
            "{{ .SI }} {{ .MSI }} {{ .Names }} {{ .P }} {{ .SE }}",
            "[3 4 5] map[one:1 three:3 two:2] [b a] {1 z} []",
        ),
        ("{{ .N }} {{ .Nope }} {{ .Nope.Deeper }}", "<no value> <no value> <no value>"),
        ("{{ . | len }} {{ .C }}", "17 counter"),
        ("{{ .Deep.a.b }} {{ (.Deep).a.b }} {{ $.Deep.a }}", "c c map[b:c]"),
        ("{{ print .SI .N 1 2 \"a\" \"b\" 3 }}", "[3 4 5] <nil> 1 2ab3"),
        ("{{ println 1 \"a\" }}", "1 a\n"),
    ]);
}

#[test]
fn conditions_and_with() {
    check(&[
        ("{{if .True}}T{{end}}{{if .False}}F{{else}}E{{end}}", "TE"),
        ("{{if 0}}a{{else if .E}}b{{else if .S}}c{{else}}d{{end}}", "c"),
        ("{{if .SE}}a{{else}}b{{end}}{{if .P}}c{{end}}{{if .N}}d{{end}}{{if .Nope}}e{{end}}", "bc"),
        ("{{if 0.0}}a{{end}}{{if 1.5}}b{{end}}{{if .U}}c{{end}}", "bc"),
        ("{{with .S}}{{.}}{{end}}{{with .E}}a{{else}}{{.I}}{{end}}", "x<y17"),
        ("{{with .E}}a{{else with .S}}{{.}}{{else}}c{{end}}", "x<y"),
        ("{{with .E}}a{{else with .N}}b{{else}}c{{end}}", "c"),
        ("{{with $x := .I}}{{$x}}{{end}}{{with .Deep}}{{$.I}}{{.a.b}}{{end}}", "1717c"),
        ("{{if and .True .I}}a{{end}}{{if or .E .N}}b{{end}}{{if not .E}}c{{end}}", "ac"),
        ("{{and 1 0 (boom)}} {{or 0 2 (boom)}} {{and 1 2 3}} {{or 0 \"\"}}|", "0 2 3 |"),
        ("{{ 5 | and 1 }} {{ 6 | or 0 }} {{ 7 | or 1 }}", "5 6 1"),
    ]);
}

#[test]
fn ranges() {
    check(&[
        ("{{range .SI}}-{{.}}{{end}}", "-3-4-5"),
        ("{{range $i, $e := .SI}}{{$i}}={{$e}} {{end}}", "0=3 1=4 2=5 "),
        ("{{range $e := .SI}}{{$e}}{{end}}", "345"),
        ("{{range .MSI}}{{.}}{{end}} {{range $k, $v := .MSI}}{{$k}}{{$v}}{{end}}", "132 one1three3two2"),
        (
            "{{range .SE}}a{{else}}none{{end}}{{range .N}}{{else}}nil{{end}}{{range .Nope}}{{else}}missing{{end}}",
            "nonenilmissing",
        ),
        ("{{range 3}}{{.}}{{end}} {{range $i := 2}}{{$i}}{{end}}{{range 0}}{{else}}e{{end}}", "012 01e"),
        ("{{range .SI}}{{if eq . 4}}{{continue}}{{end}}{{.}}{{end}}", "35"),
        ("{{range .SI}}{{if eq . 4}}{{break}}{{end}}{{.}}{{end}}", "3"),
        ("{{range .SI}}{{range $.Names}}{{if eq . \"a\"}}{{break}}{{end}}{{.}}{{end}}{{end}}", "bbb"),
        ("{{$x := 0}}{{range .SI}}{{$x = .}}{{end}}{{$x}}", "5"),
        ("{{$x := 1}}{{range .SI}}{{$x := .}}{{end}}{{$x}}", "1"),
        ("{{$a := 9}}{{range $a = .SI}}{{end}}{{$a}}", "5"),
        ("{{range .L}}{{.k}}{{end}}", "12"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 3}}{{$x}}{{$y}}{{end}}{{$x}}", "232"),
    ]);
}

#[test]
fn pipelines_fields_and_methods() {
    check(&[
        ("{{ .S | upper | printf \"%s-%s\" \"a\" }}", "a-X<Y"),
        ("{{ (printf \"%d\" 3) | upper }} {{ upper (print \"a\" \"b\") }}", "3 AB"),
        ("{{ .C.Next }}{{ .C.Next }} {{ .C.Add 3 4 }} {{ 4 | .C.Add 3 }}", "12 7 7"),
        ("{{ $c := .C }}{{ $c.Add 1 2 }} {{ (.C).Next }}", "3 1"),
        ("{{ add 1 (add 2 3) }}", "6"),
        ("{{ .P.X }}{{ .P.Y }}", "1z"),
        ("{{ $x := 5 }}{{ $x }}{{ $y := $x | add 1 }}{{ $y }}", "56"),
    ]);
}

#[test]
fn definitions() {
    check(&[
        ("{{define \"a\"}}[{{.}}]{{end}}{{template \"a\" .I}}{{template \"a\"}}", "[17][<no value>]"),
        ("{{block \"b\" .S}}<{{.}}>{{end}}", "<x<y>"),
        (
            "{{define \"r\"}}{{if .}}{{.}}{{template \"r\" slice . 1}}{{end}}{{end}}{{template \"r\" \"abc\"}}",
            "abcbcc",
        ),
        ("{{template \"late\" 1}}{{define \"late\"}}L{{.}}{{end}}", "L1"),
        ("{{$x := 1}}{{define \"v\"}}{{$}}{{end}}{{template \"v\" 2}}", "2"),
        ("{{define \"d\"}}a{{end}}{{define \"d\"}} {{end}}{{template \"d\"}}", "a"),
    ]);
}

#[test]
fn the_functions_of_the_language() {
    check(&[
        (
            "{{eq 1 1}} {{eq 1 2 1}} {{eq .U 7}} {{eq .S \"x<y\"}} {{eq .N nil}} {{ne 1 2}}",
            "true true true true true true",
        ),
        (
            "{{lt 1 2}} {{le 2 2}} {{gt 2.5 1.5}} {{ge \"b\" \"a\"}} {{lt .U 8}} {{gt -1 .U}}",
            "true true true true true false",
        ),
        ("{{len .S}} {{len .SI}} {{len .MSI}}", "3 3 3"),
        (
            "{{index .SI 1}} {{index .MSI \"two\"}} {{index .MSI \"no\"}} {{index .L 1 \"k\"}} {{index .S 0}}",
            "4 2 <no value> 2 120",
        ),
        ("{{slice .S 1}} {{slice .S 1 2}} {{slice .SI 1 2}} {{slice .SI 0 1 2}}", "<y < [4] [3]"),
        ("{{html \"<a href='x'>&\\\"\"}}", "&lt;a href=&#39;x&#39;&gt;&amp;&#34;"),
        ("{{js \"it'd \\\"<b>\\\" \\\\ =\"}}", "it\\'d \\\"\\u003Cb\\u003E\\\" \\\\ \\u003D"),
        ("{{urlquery \"http://a b/?c=d&e\"}}", "http%3A%2F%2Fa+b%2F%3Fc%3Dd%26e"),
        ("{{not 0}} {{not .SI}}", "true false"),
    ]);
}

#[test]
fn printf_is_gos() {
    check(&[
        (
            "{{printf \"%d|%5d|%-5d|%05d|%+d|%x|%X|%#x|%o|%b|%c|%U|%q\" 42 42 42 42 42 42 42 42 8 5 65 65 65}}",
            "42|   42|42   |00042|+42|2a|2A|0x2a|10|101|A|U+0041|'A'",
        ),
        (
            "{{printf \"%s|%10s|%-4s|%.2s|%q|%x|% X|%v\" \"abc\" \"abc\" \"a\" \"abc\" \"a\\\"b\\n\" \"hi\" \"hi\" \"z\"}}",
            "abc|       abc|a   |ab|\"a\\\"b\\n\"|6869|68 69|z",
        ),
        (
            "{{printf \"%f|%.2f|%6.1f|%e|%g|%G|%08.3f|%+.1f\" 1.5 2.345 3.14159 1234.5678 1e-7 1e20 3.14159 2.0}}",
            "1.500000|2.35|   3.1|1.234568e+03|1e-07|1E+20|0003.142|+2.0",
        ),
        (
            "{{printf \"%t %v %T %T %T %T\" true nil 1 \"a\" 1.5 .SI}}",
            "true <nil> int string float64 []interface {}",
        ),
        ("{{printf \"%v %+v %#v\" .P .P .P}}", "{1 z} {X:1 Y:z} test.Point{X:1, Y:\"z\"}"),
        (
            "{{printf \"%d %q %s\" .SI .Names .MSI}}",
            "[3 4 5] [\"b\" \"a\"] map[one:%!s(int=1) three:%!s(int=3) two:%!s(int=2)]",
        ),
        (
            "{{printf \"%[2]d %[1]d\" 1 2}} {{printf \"%*d|%-*d|\" 4 7 3 7}} {{printf \"%.*f\" 1 2.55}}",
            "2 1    7|7  | 2.5",
        ),
        (
            "{{printf \"%d\" \"x\"}} {{printf \"%z\" 1}} {{printf \"%d\"}} {{printf \"x\" 1 \"a\"}} {{printf \"%\"}} {{printf \"%%\"}}",
            "%!d(string=x) %!z(int=1) %!d(MISSING) x%!(EXTRA int=1, string=a) %!(NOVERB) %",
        ),
        (
            "{{printf \"%s %d\" 1 1.5}} {{printf \"%[5]d\" 1}} {{printf \"%v\" .N}} {{printf \"%s\" nil}}",
            "%!s(int=1) %!d(float64=1.5) %!d(BADINDEX) <nil> %!s(<nil>)",
        ),
    ]);
}

#[test]
fn delimiters_may_be_others() {
    let options = Options {
        delimiters: Delimiters { left: "<<".to_owned(), right: ">>".to_owned() },
        ..Options::default()
    };
    assert_eq!(render_with("<< .I ", &options).unwrap_err(), "template: t:1: unclosed action");
    assert_eq!(render_with("{{ a }} << .I >> <<- `>>` ->> b", &options).as_deref(), Ok("{{ a }} 17>>b"));
}

#[test]
fn missing_keys_are_errors_where_that_is_wanted() {
    let strict = Options { strict: true, ..Options::default() };
    for (source, expected) in [
        ("{{ .Nope }}", "template: t:1:3: executing \"t\" at <.Nope>: map has no entry for key \"Nope\""),
        (
            "{{ .Deep.x.y }}",
            "template: t:1:3: executing \"t\" at <.Deep.x.y>: map has no entry for key \"x\"",
        ),
        (
            "{{ (index .MSI \"no\").x }}",
            "template: t:1:20: executing \"t\" at <(index .MSI \"no\").x>: nil data; no entry for key \"x\"",
        ),
    ] {
        assert_eq!(render_with(source, &strict).unwrap_err(), expected, "{source}");
    }
    assert_eq!(render_with("{{ .I }}{{ index .MSI \"no\" }}", &strict).as_deref(), Ok("17<no value>"));
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (source, expected) in [
        ("a\n{{ nosuch 1 }}", "template: t:2: function \"nosuch\" not defined"),
        ("{{ .I ", "template: t:1: unclosed action"),
        ("{{ if .I }}x", "template: t:1: unexpected EOF"),
        ("{{ end }}", "template: t:1: unexpected {{end}}"),
        ("{{ else }}", "template: t:1: unexpected {{else}}"),
        ("{{ if }}x{{ end }}", "template: t:1: missing value for if"),
        ("{{ }}", "template: t:1: missing value for command"),
        ("{{ $x }}", "template: t:1: undefined variable \"$x\""),
        ("{{ if 1 }}{{ $x := 1 }}{{ end }}{{ $x }}", "template: t:1: undefined variable \"$x\""),
        ("{{ break }}", "template: t:1: {{break}} outside {{range}}"),
        ("{{ \"a }}", "template: t:1: unterminated quoted string"),
        ("{{ `a }}", "template: t:1: unterminated raw quoted string"),
        ("{{ (1 }}", "template: t:1: unclosed left paren"),
        ("{{ 1) }}", "template: t:1: unexpected right paren"),
        ("{{ 3k }}", "template: t:1: bad number syntax: \"3k\""),
        ("{{ 1 | 2 }}", "template: t:1: non executable command in pipeline stage 2"),
        ("{{ . ! }}", "template: t:1: unrecognized character in action: U+0021 '!'"),
        ("{{ /* x }}", "template: t:1: unrecognized character in action: U+002F '/'"),
        ("{{/* x }}", "template: t:1: unclosed comment"),
        ("{{ define 1 }}{{ end }}", "template: t:1: unexpected \"1\" in define clause"),
        ("{{ $a, $b := 1 }}", "template: t:1: too many declarations in command"),
        ("{{ \"a\".x }}", "template: t:1: unexpected . after term \"\\\"a\\\"\""),
    ] {
        assert_eq!(render(source).unwrap_err(), expected, "{source}");
    }
}

#[test]
fn failures_are_named_with_what_was_executed() {
    for (source, expected) in [
        ("{{ nil }}", "template: t:1:3: executing \"t\" at <nil>: nil is not a command"),
        ("x\n {{ boom }}", "template: t:2:4: executing \"t\" at <boom>: error calling boom: it broke"),
        (
            "{{ upper }}",
            "template: t:1:3: executing \"t\" at <upper>: wrong number of args for upper: want 1 got 0",
        ),
        (
            "{{ upper 1 }}",
            "template: t:1:3: executing \"t\" at <upper 1>: wrong type for value; expected string; got int",
        ),
        (
            "{{ upper .Nope }}",
            "template: t:1:3: executing \"t\" at <upper .Nope>: invalid value; expected string",
        ),
        ("{{ .N.x }}", "template: t:1:3: executing \"t\" at <.N.x>: nil pointer evaluating interface {}.x"),
        (
            "{{ .P.Z }}",
            "template: t:1:3: executing \"t\" at <.P.Z>: can't evaluate field Z in type test.Point",
        ),
        ("{{ .I.x }}", "template: t:1:3: executing \"t\" at <.I.x>: can't evaluate field x in type int"),
        ("{{ .I 1 }}", "template: t:1:3: executing \"t\" at <.I>: I is not a method but has arguments"),
        ("{{ 1 2 }}", "template: t:1:3: executing \"t\" at <1>: can't give argument to non-function 1"),
        ("{{ .C.Fail }}", "template: t:1:3: executing \"t\" at <.C.Fail>: error calling Fail: boom"),
        (
            "{{ range .I.y }}{{ end }}",
            "template: t:1:9: executing \"t\" at <.I.y>: can't evaluate field y in type int",
        ),
        (
            "{{ range true }}{{ end }}",
            "template: t:1:9: executing \"t\" at <true>: range can't iterate over true",
        ),
        (
            "{{ template \"x\" }}",
            "template: t:1:3: executing \"t\" at <{{template \"x\"}}>: template \"x\" not defined",
        ),
        (
            "{{ index .SI 9 }}",
            "template: t:1:3: executing \"t\" at <index .SI 9>: error calling index: index out of range: 9",
        ),
        (
            "{{ eq 1 \"a\" }}",
            "template: t:1:3: executing \"t\" at <eq 1 \"a\">: error calling eq: incompatible types for comparison",
        ),
        (
            "{{ lt true false }}",
            "template: t:1:3: executing \"t\" at <lt true false>: error calling lt: invalid type for comparison",
        ),
        (
            "{{ eq .SI .SI }}",
            "template: t:1:3: executing \"t\" at <eq .SI .SI>: error calling eq: non-comparable type []interface {}",
        ),
        (
            "{{define \"q\"}}\n{{.I.x}}{{end}}{{template \"q\" .}}",
            "template: t:2:2: executing \"q\" at <.I.x>: can't evaluate field x in type int",
        ),
    ] {
        assert_eq!(render(source).unwrap_err(), expected, "{source}");
    }
}

#[test]
fn nothing_that_a_template_does_is_unbounded() {
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let blocks = "{{if 1}}".repeat(100_000);
    for (source, expected) in [
        (format!("{{{{ {deep} }}}}"), "levels of nesting"),
        (blocks, "levels of nesting"),
        ("{{define \"r\"}}{{template \"r\"}}{{end}}{{template \"r\"}}".to_owned(), "maximum template depth"),
        ("{{$x := \"aaaaaaaa\"}}{{range 60}}{{$x = print $x $x}}{{end}}".to_owned(), "too long"),
        ("{{ sprig_repeat 1000000000 \"aaaa\" }}".to_owned(), "larger than"),
        ("{{ sprig_until 100000000 }}".to_owned(), "more than 1000000 items"),
        ("{{$l := sprig_list 1}}{{range 60}}{{$l = sprig_concat $l $l}}{{end}}".to_owned(), "items"),
        (
            "{{$x := sprig_list}}{{range 300}}{{$x = sprig_list $x}}{{end}}{{$x}}".to_owned(),
            "bytes of output",
        ),
        (
            "{{$x := sprig_list 1 1}}{{range 100}}{{$x = sprig_list $x $x}}{{end}}{{print $x}}".to_owned(),
            "too long",
        ),
        (
            "{{$x := sprig_list 1 1}}{{range 100}}{{$x = sprig_list $x $x}}{{end}}{{sprig_toJson $x}}"
                .to_owned(),
            "too long",
        ),
        ("{{$d := sprig_dict}}{{$_ := sprig_set $d \"a\" $d}}".to_owned(), "cannot contain itself"),
        ("{{printf \"%999999999d\" 1 | len}}{{boom}}".to_owned(), "it broke"),
    ] {
        let error = render(&source).unwrap_err();
        assert!(error.contains(expected), "{error} for {expected}");
    }
    let few = Options { steps: 100_000, ..Options::default() };
    let error = render_with("{{range 100000}}{{range 100000}}{{end}}{{end}}", &few).unwrap_err();
    assert!(error.contains("more than 100000 steps"), "{error}");
    // Nested deeper than any stack, and gone without one.
    let ended = render("{{$x := sprig_list}}{{range 500000}}{{$x = sprig_list $x}}{{end}}done");
    assert_eq!(ended.as_deref(), Ok("done"));
}

#[test]
fn maps_are_shared_and_lists_are_not() {
    check(&[
        ("{{$d := sprig_dict \"a\" 1}}{{$e := $d}}{{$_ := sprig_set $e \"b\" 2}}{{$d}}", "map[a:1 b:2]"),
        ("{{$l := sprig_list 1}}{{$m := sprig_append $l 2}}{{$l}}{{$m}}", "[1][1 2]"),
        (
            "{{$d := sprig_dict \"a\" 1}}{{$e := sprig_deepCopy $d}}{{$_ := sprig_unset $e \"a\"}}{{$d}}{{$e}}",
            "map[a:1]map[]",
        ),
    ]);
}

#[test]
fn sprig_on_text() {
    check(&[
        (
            "{{sprig_trunc 3 \"hello\"}} {{sprig_trunc -2 \"hello\"}} {{sprig_abbrev 5 \"hello world\"}} {{sprig_abbrevboth 5 10 \"1234 5678 9123\"}}",
            "hel lo he... ...5678...",
        ),
        (
            "{{sprig_title \"ab cd\"}} {{sprig_untitle \"Ab Cd\"}} {{sprig_swapcase \"aB\"}} {{sprig_initials \"First Try\"}} {{sprig_nospace \" a b \"}}",
            "Ab Cd ab cd Ab FT ab",
        ),
        (
            "{{sprig_snakecase \"FirstName\"}} {{sprig_snakecase \"HTTPServer\"}} {{sprig_kebabcase \"FirstName\"}} {{sprig_camelcase \"http_server\"}}",
            "first_name http_server first-name HttpServer",
        ),
        (
            "{{sprig_substr 0 3 \"hello\"}} {{sprig_substr 2 -1 \"hello\"}} {{sprig_repeat 2 \"ab\"}} {{sprig_trimAll \"$\" \"$5$\"}} {{sprig_trimSuffix \"-\" \"a-\"}}",
            "hel llo abab 5 a",
        ),
        (
            "{{sprig_quote \"a\" 1 nil}} {{sprig_squote \"a\"}} {{sprig_cat \"a\" 1 \"b\"}} {{sprig_plural \"one\" \"many\" 2}}",
            "\"a\" \"1\" 'a' a 1 b many",
        ),
        (
            "{{sprig_indent 2 \"a\\nb\"}}|{{sprig_nindent 1 \"a\"}}|{{sprig_replace \"a\" \"b\" \"aa\"}}|{{sprig_wrap 5 \"ab cd ef\"}}",
            "  a\n  b|\n a|bb|ab cd\nef",
        ),
        (
            "{{sprig_splitList \",\" \"a,b\"}} {{(sprig_split \",\" \"a,b\")._1}} {{(sprig_splitn \",\" 2 \"a,b,c\")._1}} {{sprig_join \"-\" .SI}} {{sprig_sortAlpha .Names}}",
            "[a b] b b,c 3-4-5 [a b]",
        ),
        (
            "{{sprig_regexFind \"a+\" \"baab\"}} {{sprig_regexFindAll \"[0-9]\" \"1a2b3\" 2}} {{sprig_regexReplaceAll \"(a)b\" \"ab\" \"${1}c\"}} {{sprig_regexReplaceAllLiteral \"a\" \"ab\" \"$1\"}} {{sprig_regexSplit \"z+\" \"azzb\" -1}}",
            "aa [1 2] ac $1b [a b]",
        ),
        (
            "{{sprig_contains \"b\" \"abc\"}} {{sprig_hasPrefix \"a\" \"abc\"}} {{sprig_hasSuffix \"c\" \"abc\"}} {{len (sprig_randAlphaNum 9)}}",
            "true true true 9",
        ),
        (
            "{{sprig_env \"HOME\"}} {{sprig_expandenv \"$HOME/${HOME}x$\"}} {{sprig_hello}}",
            "/root /root//rootx$ Hello!",
        ),
    ]);
}

#[test]
fn sprig_on_lists_and_maps() {
    check(&[
        (
            "{{sprig_first .SI}}{{sprig_last .SI}}{{sprig_rest .SI}}{{sprig_initial .SI}}{{sprig_reverse .SI}}",
            "35[4 5][3 4][5 4 3]",
        ),
        (
            "{{sprig_uniq (sprig_list 1 1 2)}}{{sprig_without .SI 3 4}}{{sprig_has 4 .SI}}{{sprig_compact (sprig_list 0 1 \"\")}}{{sprig_slice .SI 1 2}}",
            "[1 2][5]true[1][4]",
        ),
        (
            "{{sprig_chunk 2 .SI}}{{sprig_concat .SI .Names}}{{sprig_prepend .SI 0}}{{sprig_until 3}}{{sprig_untilStep 3 0 -2}} {{sprig_seq 5 2 9}} {{sprig_seq 3}}",
            "[[3 4] [5]][3 4 5 b a][0 3 4 5][0 1 2][3 1] 5 7 9 1 2 3",
        ),
        (
            "{{$d := sprig_dict \"a\" 1 \"b\" 2}}{{sprig_get $d \"a\"}}{{sprig_get $d \"z\"}}{{sprig_hasKey $d \"b\"}}{{sprig_keys $d}}{{sprig_values $d}}{{sprig_pick $d \"a\"}}{{sprig_omit $d \"a\"}}{{sprig_pluck \"a\" $d $d}}",
            "1true[a b][1 2]map[a:1]map[b:2][1 1]",
        ),
        (
            "{{sprig_merge (sprig_dict \"a\" 1) (sprig_dict \"a\" 2 \"b\" 3)}}{{sprig_mergeOverwrite (sprig_dict \"a\" 1) (sprig_dict \"a\" 2)}}{{sprig_dig \"a\" \"b\" \"no\" .Deep}}{{sprig_dig \"a\" \"x\" \"no\" .Deep}}",
            "map[a:1 b:3]map[a:2]cno",
        ),
        (
            "{{sprig_default 5 .E}}{{sprig_default 5 6}}{{sprig_empty .SE}}{{sprig_coalesce 0 \"\" 7}}{{sprig_ternary 1 2 true}}{{sprig_all 1 0}}{{sprig_any 0 1}}",
            "56true71falsetrue",
        ),
        (
            "{{sprig_typeOf 1}} {{sprig_kindOf .SI}} {{sprig_kindIs \"map\" .MSI}} {{sprig_typeIs \"string\" \"\"}} {{sprig_deepEqual .SI (sprig_list 3 4 5)}}",
            "int slice true true true",
        ),
        (
            "{{sprig_toJson .L}} {{sprig_toRawJson .S}} {{sprig_toJson .S}} {{(sprig_fromJson \"{\\\"a\\\":[1]}\").a}}",
            "[{\"k\":1},{\"k\":2}] \"x<y\" \"x\\u003cy\" [1]",
        ),
        ("{{sprig_toPrettyJson .MSI}}", "{\n  \"one\": 1,\n  \"three\": 3,\n  \"two\": 2\n}"),
    ]);
}

#[test]
fn sprig_on_numbers_dates_and_the_rest() {
    check(&[
        (
            "{{sprig_add 1 \"2\" 3.9}} {{sprig_sub 5 3}} {{sprig_mul 2 3 4}} {{sprig_div 7 2}} {{sprig_mod 7 3}} {{sprig_max 1 5 3}} {{sprig_min 4 2}} {{sprig_add1 1}}",
            "6 2 24 3 1 5 2 2",
        ),
        (
            "{{sprig_ceil 1.2}} {{sprig_floor 1.8}} {{sprig_round 123.5555 3}} {{sprig_addf 1.5 2}} {{sprig_divf 10 4}} {{sprig_int \"12.0\"}} {{sprig_atoi \"7\"}} {{sprig_toDecimal \"777\"}} {{sprig_float64 \"1.5\"}}",
            "2 1 123.556 3.5 2.5 12 7 511 1.5",
        ),
        (
            "{{sprig_now | sprig_date \"2006-01-02\"}} {{sprig_dateInZone \"15:04\" 0 \"Europe/Berlin\"}} {{sprig_now | sprig_dateModify \"-1h30m\" | sprig_unixEpoch}} {{sprig_ago 1699999000}} {{sprig_duration 95}} {{sprig_durationRound \"2h10m\"}}",
            "2023-11-14 01:00 1699994600 16m40s 1m35s 2h",
        ),
        (
            "{{(sprig_toDate \"2006-01-02\" \"2017-12-31\").Year}} {{sprig_now.Unix}} {{sprig_htmlDate 86400}}",
            "2017 1700000000 1970-01-02",
        ),
        (
            "{{sprig_base \"a/b.c\"}} {{sprig_dir \"a/b.c\"}} {{sprig_ext \"a/b.c\"}} {{sprig_clean \"a/../b/./c/\"}} {{sprig_isAbs \"/a\"}}",
            "b.c a .c b/c true",
        ),
        (
            "{{sprig_b64enc \"a\"}} {{sprig_b64dec \"YQ==\"}} {{sprig_b32enc \"foobar\"}} {{sprig_b32dec \"MZXW6YTBOI======\"}} {{sprig_adler32sum \"abc\"}} {{sprig_sha1sum \"\"}}",
            "YQ== a MZXW6YTBOI====== foobar 38600999 da39a3ee5e6b4b0d3255bfef95601890afd80709",
        ),
        (
            "{{(sprig_urlParse \"http://u:p@h.x:80/a?q=1#f\").host}} {{sprig_urlJoin (sprig_dict \"scheme\" \"http\" \"host\" \"h\" \"path\" \"a\" \"query\" \"q\")}}",
            "h.x:80 http://h/a?q",
        ),
        (
            "{{(sprig_semver \"v1.2.3-rc.1+b\").Minor}} {{sprig_semver \"1.2\"}} {{sprig_semverCompare \"^1.2.0\" \"1.9.1\"}} {{sprig_semverCompare \"~1.2\" \"1.3.0\"}} {{sprig_semverCompare \">=1.0, <2\" \"1.5.0\"}} {{sprig_semverCompare \"<1 || 3.x\" \"3.4.5\"}}",
            "2 1.2.0 true false true true",
        ),
        ("{{len sprig_uuidv4}}", "36"),
    ]);
    let error = render("{{ sprig_fail \"stop here\" }}").unwrap_err();
    assert!(error.ends_with("error calling sprig_fail: stop here"), "{error}");
    let error = render("{{ sprig_genCA \"a\" 1 }}").unwrap_err();
    assert!(error.ends_with("sprig_genCA is not available in Herder"), "{error}");
    assert!(render("{{ sprig_div 1 0 }}").unwrap_err().contains("divide by zero"));
}

proptest::proptest! {
    /// Whatever pieces a template is put together from, rendering ends with a text or an error.
    #[test]
    fn no_text_breaks_the_engine(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "{{", "}}", "{{ ", " }}", "-", " - ", "if ", "else ", "with ", "end", "range ", "$x", ":=", "=", ".", "|", "(",
        ")", "\"", "`", "'", "\\", "/*", "*/", ".SI", "index", "0", "1e9", "printf \"%d\"", "é", "\n", " ", "nil",
        "define \"t\"", "template \"t\"", "break", "slice", ",", ".C.Next", "sprig_dict", "$", "block", "%[1]*d",
    ]), 0..14)) {
        let _ = render(&pieces.concat());
    }

    #[test]
    fn no_format_breaks_printf(format in "[%*.0-9+# \\[\\]vdsqxgeé-]{0,16}") {
        let mut out = format::Out::new(1 << 16);
        let _ = format::sprintf(&mut out, &format, &[Value::Int(3), Value::from("é"), Value::Float(1.5)]);
    }
}
