//! Sprig's functions on maps, on types and on emptiness.

use std::rc::Rc;

use super::Row;
use super::answer;
use super::is_empty;
use super::string;
use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::exactly;
use crate::gotemplate::json;
use crate::gotemplate::json::Style;
use crate::gotemplate::text_of;
use crate::gotemplate::value::DEPTH_MAX;
use crate::gotemplate::value::Key;
use crate::gotemplate::value::Map;
use crate::gotemplate::value::Value;

pub(super) const TABLE: &[Row] = &[
    ("sprig_dict", dict),
    ("sprig_get", get),
    ("sprig_set", set),
    ("sprig_unset", unset),
    ("sprig_hasKey", has_key),
    ("sprig_pluck", pluck),
    ("sprig_keys", keys),
    ("sprig_values", values),
    ("sprig_pick", |a| chosen("pick", a, true)),
    ("sprig_omit", |a| chosen("omit", a, false)),
    ("sprig_merge", |a| merged("merge", a, false)),
    ("sprig_mustMerge", |a| merged("mustMerge", a, false)),
    ("sprig_mergeOverwrite", |a| merged("mergeOverwrite", a, true)),
    ("sprig_mustMergeOverwrite", |a| merged("mustMergeOverwrite", a, true)),
    ("sprig_dig", dig),
    ("sprig_deepCopy", |a| copied(&exactly::<1>("deepCopy", a)?[0], 0)),
    ("sprig_mustDeepCopy", |a| copied(&exactly::<1>("mustDeepCopy", a)?[0], 0)),
    ("sprig_default", default),
    ("sprig_empty", |a| answer(is_empty(&exactly::<1>("empty", a)?[0]))),
    ("sprig_ternary", |a| {
        let [yes, no, condition] = exactly("ternary", a)?;
        Ok(if condition.truth() { yes.clone() } else { no.clone() })
    }),
    ("sprig_typeOf", |a| answer(type_of(&exactly::<1>("typeOf", a)?[0]))),
    ("sprig_typeIs", |a| is(a, |value| type_of(value).to_owned())),
    ("sprig_typeIsLike", type_is_like),
    ("sprig_kindOf", |a| answer(exactly::<1>("kindOf", a)?[0].kind())),
    ("sprig_kindIs", |a| is(a, |value| value.kind().to_owned())),
    ("sprig_deepEqual", |a| {
        let [left, right] = exactly("deepEqual", a)?;
        answer(left.type_name() == right.type_name() && left.same(right))
    }),
    ("sprig_fromJson", from_json),
    ("sprig_mustFromJson", from_json),
    ("sprig_toJson", |a| to_json(a, Style { html: true, indent: None })),
    ("sprig_mustToJson", |a| to_json(a, Style { html: true, indent: None })),
    ("sprig_toPrettyJson", |a| to_json(a, Style { html: true, indent: Some(2) })),
    ("sprig_mustToPrettyJson", |a| to_json(a, Style { html: true, indent: Some(2) })),
    ("sprig_toRawJson", |a| to_json(a, Style::default())),
    ("sprig_mustToRawJson", |a| to_json(a, Style::default())),
];

/// An argument that must be a map.
fn map(function: &str, value: &Value) -> Result<Rc<Map>, Failure> {
    match value.viewed() {
        Value::Map(map) => Ok(map),
        other => Err(Failure::Arguments(format!(
            "wrong type for value; expected map[string]interface {{}}; got {} in {function}",
            other.type_name()
        ))),
    }
}

fn key(value: &Value) -> Key {
    Key::from(string(value).as_str())
}

fn dict(arguments: &[Value]) -> Answer {
    let pairs = arguments.chunks(2);
    let pairs = pairs.map(|pair| (key(&pair[0]), pair.get(1).cloned().unwrap_or_else(|| Value::from(""))));
    Ok(Value::map(pairs))
}

fn get(arguments: &[Value]) -> Answer {
    let [of, name] = exactly("get", arguments)?;
    Ok(map("get", of)?.get(&key(name)).unwrap_or_else(|| Value::from("")))
}

fn set(arguments: &[Value]) -> Answer {
    let [of, name, value] = exactly("set", arguments)?;
    let of = map("set", of)?;
    of.insert(key(name), value.clone()).map_err(Failure::called)?;
    Ok(Value::Map(of))
}

fn unset(arguments: &[Value]) -> Answer {
    let [of, name] = exactly("unset", arguments)?;
    let of = map("unset", of)?;
    of.remove(&key(name));
    Ok(Value::Map(of))
}

fn has_key(arguments: &[Value]) -> Answer {
    let [of, name] = exactly("hasKey", arguments)?;
    answer(map("hasKey", of)?.get(&key(name)).is_some())
}

fn pluck(arguments: &[Value]) -> Answer {
    let Some((name, maps)) = arguments.split_first() else {
        return Err(Failure::Arguments("wrong number of args for pluck: want at least 1 got 0".to_owned()));
    };
    let mut found = Vec::new();
    for each in maps {
        found.extend(map("pluck", each)?.get(&key(name)));
    }
    answer(found)
}

fn keys(arguments: &[Value]) -> Answer {
    let mut keys = Vec::new();
    for each in arguments {
        keys.extend(map("keys", each)?.entries().into_iter().map(|(key, _)| Value::from(key)));
    }
    answer(keys)
}

fn values(arguments: &[Value]) -> Answer {
    let [of] = exactly("values", arguments)?;
    answer(map("values", of)?.entries().into_iter().map(|(_, value)| value).collect::<Vec<_>>())
}

fn chosen(function: &str, arguments: &[Value], wanted: bool) -> Answer {
    let Some((of, names)) = arguments.split_first() else {
        return Err(Failure::Arguments(format!(
            "wrong number of args for {function}: want at least 1 got 0"
        )));
    };
    let names: Vec<Key> = names.iter().map(key).collect();
    let entries = map(function, of)?.entries().into_iter();
    Ok(Value::map(entries.filter(|(key, _)| names.contains(key) == wanted)))
}

fn merged(function: &str, arguments: &[Value], over: bool) -> Answer {
    let Some((into, others)) = arguments.split_first() else {
        return Err(Failure::Arguments(format!(
            "wrong number of args for {function}: want at least 1 got 0"
        )));
    };
    let into = map(function, into)?;
    for other in others {
        let other = map(function, other)?;
        merge(&into, &other, over, 0)?;
    }
    Ok(Value::Map(into))
}

fn merge(into: &Rc<Map>, from: &Map, over: bool, depth: usize) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        return Err(Failure::called("the maps are nested too deeply"));
    }
    for (key, value) in from.entries() {
        match (into.get(&key), &value) {
            (Some(Value::Map(inner)), Value::Map(other)) => {
                // Merging a map into itself changes nothing.
                if !Rc::ptr_eq(&inner, other) {
                    merge(&inner, other, over, depth + 1)?;
                }
            }
            (Some(present), new) => {
                if is_empty(&present) || over && !is_empty(new) {
                    into.insert(key, value).map_err(Failure::called)?;
                }
            }
            (None, _) => into.insert(key, value).map_err(Failure::called)?,
        }
    }
    Ok(())
}

/// `dig "a" "b" default map`
fn dig(arguments: &[Value]) -> Answer {
    let [path @ .., default, of] = arguments else {
        return Err(Failure::called("dig needs at least three arguments"));
    };
    if path.is_empty() {
        return Err(Failure::called("dig needs at least three arguments"));
    }
    let mut value = of.clone();
    for name in path {
        match map("dig", &value)?.get(&key(name)) {
            Some(next) => value = next,
            None => return Ok(default.clone()),
        }
    }
    Ok(value)
}

fn copied(value: &Value, depth: usize) -> Answer {
    if depth > DEPTH_MAX {
        return Err(Failure::called("the value is nested too deeply"));
    }
    Ok(match value.viewed() {
        Value::List(items) => {
            Value::from(items.iter().map(|item| copied(item, depth + 1)).collect::<Result<Vec<_>, _>>()?)
        }
        Value::Map(map) => {
            let entries = map.entries().into_iter();
            let copied = entries.map(|(key, value)| Ok((key, copied(&value, depth + 1)?)));
            Value::map(copied.collect::<Result<Vec<_>, Failure>>()?)
        }
        other => other,
    })
}

fn default(arguments: &[Value]) -> Answer {
    match arguments {
        [otherwise] => Ok(otherwise.clone()),
        [otherwise, value, ..] => Ok(if is_empty(value) { otherwise.clone() } else { value.clone() }),
        [] => Err(Failure::Arguments("wrong number of args for default: want at least 1 got 0".to_owned())),
    }
}

fn type_of(value: &Value) -> &'static str {
    if value.is_nothing() { "<nil>" } else { value.type_name() }
}

fn is(arguments: &[Value], name: impl Fn(&Value) -> String) -> Answer {
    let [wanted, value] = exactly("this function", arguments)?;
    answer(*text_of(wanted)? == name(value))
}

fn type_is_like(arguments: &[Value]) -> Answer {
    let [wanted, value] = exactly("typeIsLike", arguments)?;
    let (wanted, name) = (text_of(wanted)?, type_of(value));
    answer(*wanted == *name || name == format!("*{wanted}"))
}

fn from_json(arguments: &[Value]) -> Answer {
    let [text] = exactly("fromJson", arguments)?;
    let json = serde_json::from_str(&text_of(text)?).map_err(Failure::called)?;
    Ok(Value::from_json(&json, false))
}

fn to_json(arguments: &[Value], style: Style) -> Answer {
    let [value] = exactly("toJson", arguments)?;
    answer(json::write(value, style)?)
}
