//! The functions of templates that look outside: services, variables, environment, files, time; and the table of all.

use std::collections::BTreeMap;
use std::collections::HashMap;

use gtmpl_ng::Func;
use gtmpl_ng::FuncError;
use gtmpl_ng::Value;
use sha2::Digest;
use sha2::Sha256;

use super::data;
use super::engine::Answer;
use super::engine::Dependency;
use super::engine::on_stage;
use super::engine::sandboxed;
use super::text;
use crate::model::service::ServiceRegistration;

type Answered = Result<Value, FuncError>;

/// Go layouts' words and chrono's, longest first where one begins another.
const LAYOUT: [(&str, &str); 19] = [
    ("2006", "%Y"),
    ("January", "%B"),
    ("Monday", "%A"),
    ("Z07:00", "%:z"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    ("MST", "UTC"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    (".000", "%.3f"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("%", "%%"),
];

/// Every function by name.
pub(super) const FUNCTIONS: &[(&str, Func)] = &[
    ("nomadService", nomad_service),
    ("nomadServices", nomad_services),
    ("nomadVar", nomad_var),
    ("nomadVarExists", nomad_var_exists),
    ("nomadVarList", |_| {
        fail("nomadVarList", "listing variables is not possible here; name the path with nomadVar")
    }),
    ("nomadVarListSafe", |_| {
        fail("nomadVarListSafe", "listing variables is not possible here; name the path with nomadVar")
    }),
    ("env", env),
    ("mustEnv", must_env),
    ("envOrDefault", env_or_default),
    ("file", file),
    ("timestamp", timestamp),
    ("scratch_Key", scratch_key),
    ("scratch_Get", scratch_get),
    ("scratch_Set", scratch_set),
    ("scratch_SetX", scratch_set_x),
    ("scratch_MapSet", scratch_map_set),
    ("scratch_MapValues", scratch_map_values),
    ("key", |_| consul("key")),
    ("keyExists", |_| consul("keyExists")),
    ("keyOrDefault", |_| consul("keyOrDefault")),
    ("ls", |_| consul("ls")),
    ("safeLs", |_| consul("safeLs")),
    ("tree", |_| consul("tree")),
    ("safeTree", |_| consul("safeTree")),
    ("service", |_| consul("service")),
    ("services", |_| consul("services")),
    ("connect", |_| consul("connect")),
    ("node", |_| consul("node")),
    ("nodes", |_| consul("nodes")),
    ("datacenters", |_| consul("datacenters")),
    ("peerings", |_| consul("peerings")),
    ("partitions", |_| consul("partitions")),
    ("exportedServices", |_| consul("exportedServices")),
    ("caRoots", |_| consul("caRoots")),
    ("caLeaf", |_| consul("caLeaf")),
    ("secret", |_| vault("secret")),
    ("secrets", |_| vault("secrets")),
    ("pkiCert", |_| vault("pkiCert")),
    ("executeTemplate", |_| fail("executeTemplate", "function is disabled")),
    ("plugin", |_| fail("plugin", "function is disabled")),
    ("writeToFile", |_| fail("writeToFile", "function is disabled")),
    ("base64Decode", text::base64_decode),
    ("base64Encode", text::base64_encode),
    ("base64URLDecode", text::base64_url_decode),
    ("base64URLEncode", text::base64_url_encode),
    ("indent", text::indent),
    ("join", text::join),
    ("md5sum", text::md5_sum),
    ("sha256Hex", text::sha256_hex),
    ("hmacSHA256Hex", text::hmac_sha256_hex),
    ("regexMatch", text::regex_match),
    ("regexReplaceAll", text::regex_replace_all),
    ("replaceAll", text::replace_all),
    ("split", text::split),
    ("splitToMap", text::split_to_map),
    ("toLower", text::to_lower),
    ("toUpper", text::to_upper),
    ("toTitle", text::to_title),
    ("trim", text::trim),
    ("trimPrefix", text::trim_prefix),
    ("trimSuffix", text::trim_suffix),
    ("trimSpace", text::trim_space),
    ("add", data::add),
    ("subtract", data::subtract),
    ("multiply", data::multiply),
    ("divide", data::divide),
    ("modulo", data::modulo),
    ("minimum", data::minimum),
    ("maximum", data::maximum),
    ("loop", data::loop_numbers),
    ("contains", data::contains),
    ("containsAll", data::contains_all),
    ("containsAny", data::contains_any),
    ("containsNone", data::contains_none),
    ("containsNotAll", data::contains_not_all),
    ("in", data::is_in),
    ("byTag", data::by_tag),
    ("byPort", data::by_port),
    ("mergeMap", data::merge_map),
    ("mergeMapWithOverride", data::merge_map_with_override),
    ("parseBool", data::parse_bool),
    ("parseFloat", data::parse_float),
    ("parseInt", data::parse_int),
    ("parseUint", data::parse_uint),
    ("parseJSON", data::parse_json),
    ("toJSON", data::to_json),
    ("toJSONPretty", data::to_json_pretty),
    ("toUnescapedJSON", data::to_unescaped_json),
    ("toUnescapedJSONPretty", data::to_unescaped_json_pretty),
    ("sprig_default", data::default),
    ("sprig_coalesce", data::coalesce),
    ("sprig_empty", data::empty),
    ("sprig_ternary", data::ternary),
    ("sprig_list", data::list),
    ("sprig_dict", data::dict),
    ("sprig_get", data::get),
    ("sprig_hasKey", data::has_key),
    ("sprig_keys", data::keys),
    ("sprig_first", data::first),
    ("sprig_last", data::last),
    ("sprig_int", data::parse_int),
    ("sprig_add", data::add),
    ("sprig_mul", data::multiply),
    ("sprig_toString", text::to_text),
    ("sprig_toJson", data::to_json),
    ("sprig_upper", text::to_upper),
    ("sprig_lower", text::to_lower),
    ("sprig_title", text::to_title),
    ("sprig_trim", text::trim_space),
    ("sprig_trimPrefix", text::trim_prefix),
    ("sprig_trimSuffix", text::trim_suffix),
    ("sprig_replace", text::replace_all),
    ("sprig_splitList", text::split),
    ("sprig_join", text::join),
    ("sprig_contains", text::has_text),
    ("sprig_hasPrefix", text::has_prefix),
    ("sprig_hasSuffix", text::has_suffix),
    ("sprig_repeat", text::repeat),
    ("sprig_quote", text::quote),
    ("sprig_squote", text::squote),
    ("sprig_indent", text::indent),
    ("sprig_nindent", text::nindent),
    ("sprig_b64enc", text::base64_encode),
    ("sprig_b64dec", text::base64_decode),
    ("sprig_sha256sum", text::sha256_hex),
];

/// Go's words for a function that failed.
pub(super) fn fail<T>(function: &str, reason: impl std::fmt::Display) -> Result<T, FuncError> {
    Err(FuncError::Generic(format!("error calling {function}: {reason}")))
}

fn consul<T>(function: &str) -> Result<T, FuncError> {
    fail(function, "Consul is not configured; use nomadService or nomadVar")
}

fn vault<T>(function: &str) -> Result<T, FuncError> {
    fail(function, "Vault is not configured; use nomadVar")
}

/// Exactly `N` arguments.
pub(super) fn exactly<'a, const N: usize>(
    function: &str,
    arguments: &'a [Value],
) -> Result<&'a [Value; N], FuncError> {
    let count = arguments.len();
    arguments
        .try_into()
        .map_err(|_| FuncError::Generic(format!("wrong number of args for {function}: want {N} got {count}")))
}

/// A value as text; absent ones are empty.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::NoValue | Value::Nil => String::new(),
        other => other.to_string(),
    }
}

/// Service values have fixed fields, so they are objects even where maps may miss keys.
fn service_value(service: &ServiceRegistration) -> Value {
    let tags: Vec<Value> = service.tags.iter().map(Value::from).collect();
    Value::Object(HashMap::from([
        ("ID".to_owned(), Value::from(&service.id)),
        ("Name".to_owned(), Value::from(&service.service_name)),
        ("Node".to_owned(), Value::from(service.node_id.to_string())),
        ("Address".to_owned(), Value::from(&service.address)),
        ("Port".to_owned(), Value::from(service.port)),
        ("Datacenter".to_owned(), Value::from(&service.datacenter)),
        ("Tags".to_owned(), Value::Array(tags)),
        ("JobID".to_owned(), Value::from(&service.job_id)),
        ("AllocID".to_owned(), Value::from(service.alloc_id.to_string())),
    ]))
}

/// `nomadService "[tag.]name[@region]"`, or `nomadService count "key" "name"` for a stable choice.
fn nomad_service(arguments: &[Value]) -> Answered {
    let (count, query) = match arguments {
        [query] => (None, text_of(query)),
        [Value::Number(count), key, query] => {
            (Some((count.as_u64().unwrap_or(0) as usize, text_of(key))), text_of(query))
        }
        _ => return fail("nomadService", "expected a name, or a count, a key and a name"),
    };
    let name = query.split_once('@').map_or(query.as_str(), |(name, _region)| name);
    let (tag, name) = name.rsplit_once('.').map_or((None, name), |(tag, name)| (Some(tag), name));
    if name.is_empty() {
        return fail("nomadService", format_args!("nomad.service: invalid format: {query:?}"));
    }
    let answer = on_stage(|stage| stage.ask(Dependency::Service(name.to_owned()))).flatten();
    let Some(Answer::Service(mut services)) = answer else { return Ok(Value::Array(Vec::new())) };
    if let Some(tag) = tag {
        services.retain(|service| service.tags.iter().any(|own| own == tag));
    }
    if let Some((count, key)) = count {
        // Rendezvous hashing: each caller keeps its choice while others come and go.
        services.sort_by_cached_key(|service| Sha256::digest(format!("{key}{}", service.id)).to_vec());
        services.truncate(count);
    }
    Ok(Value::Array(services.iter().map(service_value).collect()))
}

fn nomad_services(arguments: &[Value]) -> Answered {
    if arguments.len() > 1 {
        return fail("nomadServices", format_args!("expected 0 or 1 arguments, got {}", arguments.len()));
    }
    let answer = on_stage(|stage| stage.ask(Dependency::Services)).flatten();
    let Some(Answer::Services(names)) = answer else { return Ok(Value::Array(Vec::new())) };
    let of = |(name, tags): (String, Vec<String>)| {
        let tags = tags.iter().map(Value::from).collect();
        Value::Object(HashMap::from([
            ("Name".to_owned(), Value::from(name)),
            ("Tags".to_owned(), Value::Array(tags)),
        ]))
    };
    Ok(Value::Array(names.into_iter().map(of).collect()))
}

/// The variable that `arguments` name, and what is known of it.
fn variable(function: &str, arguments: &[Value]) -> Result<(Dependency, Option<Answer>), FuncError> {
    let [path] = exactly(function, arguments)?;
    let text = text_of(path);
    let (path, namespace) = text.split_once('@').unwrap_or((&text, ""));
    // The region is always our own.
    let namespace = namespace.split('.').next().unwrap_or_default();
    if path.is_empty() {
        return fail(function, format_args!("nomad.var.block: invalid format: {text:?}"));
    }
    let dependency = Dependency::Variable { path: path.to_owned(), namespace: namespace.to_owned() };
    let answer = on_stage(|stage| stage.ask(dependency.clone())).flatten();
    Ok((dependency, answer))
}

fn nomad_var(arguments: &[Value]) -> Answered {
    let (dependency, answer) = variable("nomadVar", arguments)?;
    let items = match answer {
        Some(Answer::Variable(Some(items))) => items,
        _ => {
            // Waits for a variable that does not exist, as for anything that is not known yet.
            on_stage(|stage| stage.missing.insert(dependency));
            BTreeMap::new()
        }
    };
    let entries = items.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    Ok(on_stage(|stage| stage.map(entries)).unwrap_or(Value::NoValue))
}

fn nomad_var_exists(arguments: &[Value]) -> Answered {
    let (_, answer) = variable("nomadVarExists", arguments)?;
    Ok(Value::from(matches!(answer, Some(Answer::Variable(Some(_))))))
}

fn lookup(name: &str) -> Option<String> {
    on_stage(|stage| stage.scene.env.get(name).or_else(|| stage.scene.node.get(name)).cloned()).flatten()
}

fn env(arguments: &[Value]) -> Answered {
    let [name] = exactly("env", arguments)?;
    Ok(Value::from(lookup(&text_of(name)).unwrap_or_default()))
}

fn must_env(arguments: &[Value]) -> Answered {
    let [name] = exactly("mustEnv", arguments)?;
    let name = text_of(name);
    match lookup(&name).filter(|value| !value.is_empty()) {
        Some(value) => Ok(Value::from(value)),
        None => fail("mustEnv", format_args!("required environment variable {name} is empty")),
    }
}

fn env_or_default(arguments: &[Value]) -> Answered {
    let [name, default] = exactly("envOrDefault", arguments)?;
    let value = lookup(&text_of(name)).filter(|value| !value.is_empty());
    Ok(Value::from(value.unwrap_or_else(|| text_of(default))))
}

fn file(arguments: &[Value]) -> Answered {
    let [path] = exactly("file", arguments)?;
    let path = text_of(path);
    let place = on_stage(|stage| sandboxed(&stage.scene.dirs, &path)).flatten();
    let Some(place) = place else {
        return fail("file", format_args!("'{path}' is outside of sandbox"));
    };
    match on_stage(|stage| stage.ask(Dependency::File(place))).flatten() {
        Some(Answer::File(content)) => Ok(Value::from(content)),
        _ => Ok(Value::from("")),
    }
}

fn timestamp(arguments: &[Value]) -> Answered {
    let now = on_stage(|stage| stage.scene.now).unwrap_or_default();
    match arguments {
        [] => Ok(Value::from(now.to_chrono().format("%Y-%m-%dT%H:%M:%SZ").to_string())),
        [layout] if text_of(layout) == "unix" => Ok(Value::from(now.secs().to_string())),
        [layout] => Ok(Value::from(now.to_chrono().format(&strftime(&text_of(layout))).to_string())),
        _ => fail(
            "timestamp",
            format_args!("wrong number of arguments, expected 0 or 1, but got {}", arguments.len()),
        ),
    }
}

/// A Go time layout in chrono's notation.
fn strftime(layout: &str) -> String {
    let mut out = String::new();
    let mut rest = layout;
    'text: while let Some(first) = rest.chars().next() {
        for (go, ours) in LAYOUT {
            if let Some(after) = rest.strip_prefix(go) {
                out.push_str(ours);
                rest = after;
                continue 'text;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

fn scratch_key(arguments: &[Value]) -> Answered {
    let [key] = exactly("Key", arguments)?;
    let key = text_of(key);
    Ok(Value::from(on_stage(|stage| stage.scratch.contains_key(&key)).unwrap_or_default()))
}

fn scratch_get(arguments: &[Value]) -> Answered {
    let [key] = exactly("Get", arguments)?;
    let key = text_of(key);
    Ok(on_stage(|stage| stage.scratch.get(&key).cloned()).flatten().unwrap_or(Value::NoValue))
}

fn scratch_set(arguments: &[Value]) -> Answered {
    let [key, value] = exactly("Set", arguments)?;
    on_stage(|stage| stage.scratch.insert(text_of(key), value.clone()));
    Ok(Value::from(""))
}

fn scratch_set_x(arguments: &[Value]) -> Answered {
    let [key, value] = exactly("SetX", arguments)?;
    on_stage(|stage| {
        stage.scratch.entry(text_of(key)).or_insert_with(|| value.clone());
    });
    Ok(Value::from(""))
}

fn scratch_map_set(arguments: &[Value]) -> Answered {
    let [map, key, value] = exactly("MapSet", arguments)?;
    on_stage(|stage| {
        let entry = stage.scratch.entry(text_of(map)).or_insert_with(|| Value::Map(HashMap::new()));
        if let Value::Map(entries) = entry {
            entries.insert(text_of(key), value.clone());
        }
    });
    Ok(Value::from(""))
}

fn scratch_map_values(arguments: &[Value]) -> Answered {
    let [map] = exactly("MapValues", arguments)?;
    match scratch_get(std::slice::from_ref(map))? {
        Value::Map(entries) => {
            let mut entries: Vec<(String, Value)> = entries.into_iter().collect();
            entries.sort_by(|left, right| left.0.cmp(&right.0));
            Ok(Value::Array(entries.into_iter().map(|(_, value)| value).collect()))
        }
        _ => Ok(Value::Array(Vec::new())),
    }
}
