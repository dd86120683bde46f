//! The functions of templates that look outside: services, variables, environment, files, time; and the set of all.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use sha2::Digest;
use sha2::Sha256;

use super::consul;
use super::data;
use super::engine::Answer as Known;
use super::engine::Dependency;
use super::engine::Stage;
use super::engine::sandboxed;
use super::text;
use crate::agent::hooks::Variable;
use crate::agent::hooks::VariableMeta;
use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::Functions;
use crate::gotemplate::between;
use crate::gotemplate::exactly;
use crate::gotemplate::int_of;
use crate::gotemplate::sockaddr;
use crate::gotemplate::sprig;
use crate::gotemplate::text_of;
use crate::gotemplate::time;
use crate::gotemplate::time::Moment;
use crate::gotemplate::value::Key;
use crate::gotemplate::value::Object;
use crate::gotemplate::value::Value;
use crate::model::service::ServiceRegistration;

/// Functions that need a Vault.
const VAULT: [&str; 3] = ["pkiCert", "secret", "secrets"];
/// Functions that Nomad has, and that would let a template reach out of its box.
const LEFT_OUT: [&str; 2] = ["plugin", "writeToFile"];
/// Functions that Nomad never allows.
const DISABLED: [&str; 1] = ["executeTemplate"];

/// How often one rendering may look at the addresses of the machine.
const SOCKADDR_MAX: usize = 500;

/// Every function, for one rendering.
pub(super) fn all(stage: &Stage) -> Functions<'_> {
    let mut functions = Functions::default();
    functions.add(data::FUNCTIONS);
    functions.add(text::FUNCTIONS);
    let asked = Cell::new(0);
    functions.bind("sockaddr", move |arguments| {
        asked.set(asked.get() + 1);
        if asked.get() > SOCKADDR_MAX {
            return Err(Failure::called(format_args!("called more than {SOCKADDR_MAX} times")));
        }
        sockaddr(arguments)
    });
    let lookup = |name: &str| {
        let found = stage.scene.env.get(name).or_else(|| stage.scene.node.get(name));
        found.cloned()
    };
    sprig::add(&mut functions, stage.scene.now.to_chrono(), lookup);
    consul::add(&mut functions, stage);
    for name in VAULT {
        functions.bind(name, |_| Err(Failure::called("Vault is not configured; use nomadVar")));
    }
    for name in LEFT_OUT {
        functions
            .bind(name, move |_| Err(Failure::called(format_args!("{name} is not available in Herder"))));
    }
    functions.bind("nomadService", |arguments| nomad_service(stage, arguments));
    functions.bind("nomadServices", |arguments| nomad_services(stage, arguments));
    functions.bind("nomadVar", |arguments| nomad_var(stage, arguments));
    functions.bind("nomadVarExists", |arguments| nomad_var_exists(stage, arguments));
    functions.bind("nomadVarList", |arguments| nomad_var_list(stage, "nomadVarList", arguments));
    functions.bind("nomadVarListSafe", |arguments| nomad_var_list(stage, "nomadVarListSafe", arguments));
    functions.bind("file", |arguments| file(stage, arguments));
    functions.bind("timestamp", |arguments| timestamp(stage, arguments));
    functions.bind("scratch", |arguments| {
        let [] = exactly("scratch", arguments)?;
        Ok(Value::Object(Rc::new(Scratch(stage.scratch.clone()))))
    });
    functions.bind("env", move |arguments| {
        let [name] = exactly("env", arguments)?;
        Ok(Value::from(lookup(&text_of(name)?).unwrap_or_default()))
    });
    functions.bind("mustEnv", move |arguments| {
        let [name] = exactly("mustEnv", arguments)?;
        let name = text_of(name)?;
        match lookup(&name).filter(|value| !value.is_empty()) {
            Some(value) => Ok(Value::from(value)),
            None => Err(Failure::called(format_args!("required environment variable {name} is empty"))),
        }
    });
    functions.bind("envOrDefault", move |arguments| {
        let [name, default] = exactly("envOrDefault", arguments)?;
        let value = lookup(&text_of(name)?).filter(|value| !value.is_empty());
        Ok(value.map_or_else(|| default.clone(), Value::from))
    });
    // Last, so that they hide whatever has the name.
    let denied = stage.scene.options.denied.iter().map(String::as_str);
    for name in denied.chain(DISABLED) {
        functions.bind(name.to_owned(), |_| Err(Failure::called("function is disabled")));
    }
    functions
}

/// `.Tags` of a service: a list with a method.
struct Tags(Value, Vec<String>);

impl Object for Tags {
    fn type_name(&self) -> &'static str {
        "dependency.ServiceTags"
    }

    fn member(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        (name == "Contains").then(|| match arguments {
            [tag] => Ok(Value::Bool(self.1.contains(&tag.to_text()))),
            _ => Err(format!("wrong number of args for Contains: want 1 got {}", arguments.len())),
        })
    }

    fn view(&self) -> Value {
        self.0.clone()
    }
}

fn tags(tags: &[String]) -> Value {
    Value::Object(Rc::new(Tags(Value::texts(tags), tags.to_vec())))
}

fn service_value(service: &ServiceRegistration) -> Value {
    Value::fields(
        "*dependency.NomadService",
        vec![
            ("ID", Value::from(&service.id)),
            ("Name", Value::from(&service.service_name)),
            ("Node", Value::from(service.node_id.to_string())),
            ("Address", Value::from(&service.address)),
            ("Port", Value::Int(service.port)),
            ("Datacenter", Value::from(&service.datacenter)),
            ("Tags", tags(&service.tags)),
            ("JobID", Value::from(&service.job_id)),
            ("AllocID", Value::from(service.alloc_id.to_string())),
        ],
    )
}

/// `nomadService "[tag.]name[@region]"`, or `nomadService count "key" "name"` for a stable choice.
fn nomad_service(stage: &Stage, arguments: &[Value]) -> Answer {
    let (choice, query) = match arguments {
        [query] => (None, text_of(query)?),
        [count, key, query] => {
            let count = usize::try_from(int_of(count)?).ok().filter(|count| *count > 0);
            let count = count.ok_or_else(|| Failure::called("nomadService: the count must be at least 1"))?;
            (Some((count, text_of(key)?)), text_of(query)?)
        }
        _ => {
            return Err(Failure::called(format_args!(
                "nomadService: expected a name, or a count, a key and a name; got {} arguments",
                arguments.len()
            )));
        }
    };
    let name = query.split_once('@').map_or(query.as_ref(), |(name, _region)| name);
    let (tag, name) = name.rsplit_once('.').map_or((None, name), |(tag, name)| (Some(tag), name));
    if name.is_empty() {
        return Err(Failure::called(format_args!("nomad.service: invalid format: {query:?}")));
    }
    let answer = stage.ask(Dependency::Service(name.to_owned()));
    let Some(Known::Service(mut services)) = answer else { return Ok(Value::from(Vec::new())) };
    if let Some(tag) = tag {
        services.retain(|service| service.tags.iter().any(|own| own == tag));
    }
    if let Some((count, key)) = choice {
        // Rendezvous hashing: each caller keeps its choice while others come and go.
        services.sort_by_cached_key(|service| Sha256::digest(format!("{key}{}", service.id)).to_vec());
        services.truncate(count);
    }
    Ok(Value::from(services.iter().map(service_value).collect::<Vec<_>>()))
}

fn nomad_services(stage: &Stage, arguments: &[Value]) -> Answer {
    between("nomadServices", arguments, 0, 1)?;
    let answer = stage.ask(Dependency::Services);
    let Some(Known::Services(names)) = answer else { return Ok(Value::from(Vec::new())) };
    let value = |(name, own): (&String, &Vec<String>)| {
        Value::fields(
            "*dependency.NomadServicesSnippet",
            vec![("Name", Value::from(name)), ("Tags", tags(own))],
        )
    };
    Ok(Value::from(names.iter().map(value).collect::<Vec<_>>()))
}

/// The path and namespace of `path[@namespace[.region]]`. The region is always our own.
fn variable_path(argument: &Value) -> Result<(String, String), Failure> {
    let text = text_of(argument)?;
    let (path, namespace) = text.split_once('@').unwrap_or((&text, ""));
    let namespace = namespace.split('.').next().unwrap_or_default();
    Ok((path.trim_matches('/').to_owned(), namespace.to_owned()))
}

/// A variable with the methods of consul-template's.
struct Items(Variable);

/// One item of a variable: prints its value.
struct Item {
    key: String,
    value: Value,
}

impl Object for Item {
    fn type_name(&self) -> &'static str {
        "dependency.NomadVarItem"
    }

    fn member(&self, name: &str, _: &[Value]) -> Option<Result<Value, String>> {
        match name {
            "Key" => Some(Ok(Value::from(&self.key))),
            "Value" | "String" => Some(Ok(self.value.clone())),
            _ => None,
        }
    }

    fn view(&self) -> Value {
        self.value.clone()
    }
}

fn item(key: &str, value: &str) -> Value {
    Value::Object(Rc::new(Item { key: key.to_owned(), value: Value::from(value) }))
}

impl Object for Items {
    fn type_name(&self) -> &'static str {
        "dependency.NomadVarItems"
    }

    fn member(&self, name: &str, _: &[Value]) -> Option<Result<Value, String>> {
        let items = &self.0.items;
        Some(Ok(match name {
            "Keys" => Value::texts(items.keys()),
            "Values" => Value::texts(items.values()),
            "Tuples" => {
                let pair = |(key, value): (&String, &String)| {
                    Value::fields(
                        "dependency.NomadVarItem",
                        vec![("K", Value::from(key)), ("V", Value::from(value))],
                    )
                };
                Value::from(items.iter().map(pair).collect::<Vec<_>>())
            }
            "Metadata" => meta_value(&self.0.meta),
            "Parent" => Value::fields(
                "*dependency.NomadVariable",
                vec![("Metadata", meta_value(&self.0.meta)), ("Items", self.view())],
            ),
            _ => return None,
        }))
    }

    fn view(&self) -> Value {
        let items = self.0.items.iter();
        Value::map(items.map(|(key, value)| (Key::from(key.as_str()), item(key, value))))
    }
}

fn meta_value(meta: &VariableMeta) -> Value {
    let index = |index: u64| Value::Uint(index);
    let time = |nanos: i64| {
        let at = chrono::DateTime::from_timestamp_nanos(nanos);
        Moment::utc(at).value()
    };
    Value::fields(
        "*dependency.NomadVarMeta",
        vec![
            ("Namespace", Value::from(&meta.namespace)),
            ("Path", Value::from(&meta.path)),
            ("CreateIndex", index(meta.create_index)),
            ("ModifyIndex", index(meta.modify_index)),
            ("CreateTime", time(meta.create_time)),
            ("ModifyTime", time(meta.modify_time)),
        ],
    )
}

fn nomad_var(stage: &Stage, arguments: &[Value]) -> Answer {
    let [argument] = exactly("nomadVar", arguments)?;
    let (path, namespace) = variable_path(argument)?;
    if path.is_empty() {
        return Err(Failure::called(format_args!(
            "nomad.var.block: invalid format: {:?}",
            argument.to_text()
        )));
    }
    let dependency = Dependency::Variable { path, namespace };
    let variable = match stage.ask(dependency.clone()) {
        Some(Known::Variable(Some(variable))) => variable,
        _ => {
            // Waits for a variable that does not exist, as for anything that is not known yet.
            stage.lacks(dependency);
            Variable::default()
        }
    };
    Ok(Value::Object(Rc::new(Items(variable))))
}

fn nomad_var_exists(stage: &Stage, arguments: &[Value]) -> Answer {
    let [argument] = exactly("nomadVarExists", arguments)?;
    let (path, namespace) = variable_path(argument)?;
    if path.is_empty() {
        return Err(Failure::called(format_args!(
            "nomad.var.exists: invalid format: {:?}",
            argument.to_text()
        )));
    }
    let answer = stage.ask(Dependency::VariableExists { path, namespace });
    Ok(Value::Bool(matches!(answer, Some(Known::Variable(Some(_))))))
}

fn nomad_var_list(stage: &Stage, function: &str, arguments: &[Value]) -> Answer {
    between(function, arguments, 0, 1)?;
    let (prefix, namespace) = match arguments.first() {
        Some(argument) => variable_path(argument)?,
        None => Default::default(),
    };
    if function == "nomadVarListSafe" && prefix.is_empty() {
        return Err(Failure::called("nomadVarListSafe: a prefix is needed"));
    }
    match stage.ask(Dependency::Variables { prefix, namespace }) {
        Some(Known::Variables(found)) => Ok(Value::from(found.iter().map(meta_value).collect::<Vec<_>>())),
        _ => Ok(Value::from(Vec::new())),
    }
}

fn file(stage: &Stage, arguments: &[Value]) -> Answer {
    let [path] = exactly("file", arguments)?;
    let path = text_of(path)?;
    let of_the_task = ["/local/", "/secrets/"].iter().any(|begin| path.starts_with(begin));
    let anywhere = stage.scene.options.disable_file_sandbox && path.starts_with('/') && !of_the_task;
    let place = if anywhere { Some(path.to_string()) } else { sandboxed(&stage.scene.dirs, &path) };
    let Some(place) = place else {
        return Err(Failure::called(format_args!("'{path}' is outside of sandbox")));
    };
    match stage.ask(Dependency::File(place)) {
        Some(Known::File(content)) => Ok(Value::from(content)),
        _ => Ok(Value::from("")),
    }
}

fn timestamp(stage: &Stage, arguments: &[Value]) -> Answer {
    let now = Moment::utc(stage.scene.now.to_chrono());
    match arguments {
        [] => Ok(Value::from(time::format(&now, "2006-01-02T15:04:05Z07:00"))),
        [layout] => match &*text_of(layout)? {
            "unix" => Ok(Value::from(stage.scene.now.secs().to_string())),
            layout => Ok(Value::from(time::format(&now, layout))),
        },
        _ => Err(Failure::called(format_args!(
            "timestamp: wrong number of arguments, expected 0 or 1, but got {}",
            arguments.len()
        ))),
    }
}

fn sockaddr(arguments: &[Value]) -> Answer {
    let mut words = Vec::with_capacity(arguments.len());
    for argument in arguments {
        words.push(text_of(argument)?.to_string());
    }
    sockaddr::evaluate(&words.join(" ")).map(Value::from).map_err(Failure::called)
}

/// What a template keeps while it is rendered.
struct Scratch(Rc<RefCell<BTreeMap<String, Value>>>);

/// Most entries of a scratch.
const SCRATCH_MAX: usize = 100_000;

impl Scratch {
    fn call(&self, name: &str, arguments: &[Value]) -> Result<Option<Value>, Failure> {
        let mut kept = self.0.borrow_mut();
        if kept.len() >= SCRATCH_MAX {
            return Err(Failure::called(format_args!("more than {SCRATCH_MAX} entries")));
        }
        let nothing = Value::from("");
        Ok(Some(match name {
            "Key" => {
                let [key] = exactly(name, arguments)?;
                Value::Bool(kept.contains_key(&*text_of(key)?))
            }
            "Get" => {
                let [key] = exactly(name, arguments)?;
                kept.get(&*text_of(key)?).cloned().unwrap_or_default()
            }
            "Set" => {
                let [key, value] = exactly(name, arguments)?;
                kept.insert(text_of(key)?.to_string(), value.clone());
                nothing
            }
            "SetX" => {
                let [key, value] = exactly(name, arguments)?;
                kept.entry(text_of(key)?.to_string()).or_insert_with(|| value.clone());
                nothing
            }
            "MapSet" | "MapSetX" => {
                let [map, key, value] = exactly(name, arguments)?;
                let (map, key) = (text_of(map)?, Key::Text(text_of(key)?));
                let of = kept.entry(map.to_string()).or_insert_with(|| Value::map([]));
                let Value::Map(of) = of else {
                    return Err(Failure::called(format_args!("{map:?} is not a map")));
                };
                if name == "MapSet" || of.get(&key).is_none() {
                    of.insert(key, value.clone()).map_err(Failure::called)?;
                }
                nothing
            }
            "MapValues" => {
                let [map] = exactly(name, arguments)?;
                match kept.get(&*text_of(map)?) {
                    None => Value::from(Vec::new()),
                    Some(Value::Map(of)) => {
                        Value::from(of.entries().into_iter().map(|(_, value)| value).collect::<Vec<_>>())
                    }
                    Some(_) => return Err(Failure::called(format_args!("{map:?} is not a map"))),
                }
            }
            _ => return Ok(None),
        }))
    }
}

impl Object for Scratch {
    fn type_name(&self) -> &'static str {
        "*template.Scratch"
    }

    fn member(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        match self.call(name, arguments) {
            Ok(value) => value.map(Ok),
            Err(Failure::Arguments(text) | Failure::Called(text)) => Some(Err(text)),
        }
    }

    fn view(&self) -> Value {
        Value::fields("*template.Scratch", Vec::new())
    }
}
