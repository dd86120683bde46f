//! Lists and maps.

use hcl::Value;
use hcl::eval::FuncArgs;

use super::Answer;
use super::Entry;
use super::arity;
use super::list;
use super::map;
use super::number;
use super::text;
use super::texts;
use super::whole;
use crate::jobspec::variables::TypeExpr;

/// Results with more elements than this are refused.
const MAX_ELEMENTS: usize = 1_048_576;

pub(super) const FUNCTIONS: &[Entry] = &[
    ("chunklist", chunklist),
    ("coalesce", |args| {
        let found = args.iter().find(|value| !value.is_null()).cloned();
        found.ok_or_else(|| "no non-null arguments".to_owned())
    }),
    ("coalescelist", |args| {
        let found = args.iter().find(|value| value.as_array().is_some_and(|items| !items.is_empty()));
        found.cloned().ok_or_else(|| "no non-empty arguments".to_owned())
    }),
    ("compact", |args| {
        arity(&args, 1, 1)?;
        let kept = list(&args, 0)?.into_iter().filter(|item| !item.is_null() && item.as_str() != Some(""));
        Ok(Value::Array(kept.collect()))
    }),
    ("concat", |args| {
        let lists: Result<Vec<_>, _> = (0..args.len()).map(|index| list(&args, index)).collect();
        Ok(Value::Array(lists?.into_iter().flatten().collect()))
    }),
    ("contains", |args| {
        arity(&args, 2, 2)?;
        Ok(Value::Bool(list(&args, 0)?.contains(&args[1])))
    }),
    ("distinct", |args| {
        arity(&args, 1, 1)?;
        Ok(Value::Array(distinct(list(&args, 0)?)))
    }),
    ("element", element),
    ("flatten", |args| {
        arity(&args, 1, 1)?;
        Ok(Value::Array(flatten(list(&args, 0)?)))
    }),
    ("index", index),
    ("keys", |args| {
        arity(&args, 1, 1)?;
        let mut keys: Vec<String> = map(&args, 0)?.into_iter().map(|(key, _)| key).collect();
        keys.sort();
        Ok(texts(keys))
    }),
    ("values", |args| {
        arity(&args, 1, 1)?;
        let mut pairs: Vec<_> = map(&args, 0)?.into_iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Value::Array(pairs.into_iter().map(|(_, value)| value).collect()))
    }),
    ("length", length),
    ("lookup", |args| {
        arity(&args, 3, 3)?;
        Ok(map(&args, 0)?.get(&text(&args, 1)?).cloned().unwrap_or_else(|| args[2].clone()))
    }),
    ("merge", |args| {
        let mut out = hcl::Map::new();
        for (index, value) in args.iter().enumerate() {
            if !value.is_null() {
                out.extend(map(&args, index)?);
            }
        }
        Ok(Value::Object(out))
    }),
    ("range", range),
    ("setintersection", |args| {
        let mut out = distinct(list(&args, 0)?);
        for index in 1..args.len() {
            let other = list(&args, index)?;
            out.retain(|item| other.contains(item));
        }
        Ok(as_set(out))
    }),
    ("setunion", |args| {
        let lists: Result<Vec<_>, _> = (0..args.len()).map(|index| list(&args, index)).collect();
        Ok(as_set(distinct(lists?.into_iter().flatten().collect())))
    }),
    ("setproduct", setproduct),
    ("slice", slice),
    ("sort", |args| {
        arity(&args, 1, 1)?;
        let mut items: Vec<String> =
            list(&args, 0)?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if items.len() != args[0].as_array().map_or(0, Vec::len) {
            return Err("list of string required".to_owned());
        }
        items.sort();
        Ok(texts(items))
    }),
    ("zipmap", |args| {
        arity(&args, 2, 2)?;
        let (keys, values) = (list(&args, 0)?, list(&args, 1)?);
        if keys.len() != values.len() {
            return Err(format!(
                "number of keys ({}) does not match number of values ({})",
                keys.len(),
                values.len()
            ));
        }
        let keys: Option<Vec<String>> = keys.iter().map(|key| key.as_str().map(str::to_owned)).collect();
        Ok(Value::Object(keys.ok_or("keys must be strings")?.into_iter().zip(values).collect()))
    }),
    ("convert", convert),
    ("try", |_| Err("no expression succeeded".to_owned())),
];

fn convert(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let kind = TypeExpr::parse(&text(&args, 1)?)?;
    kind.convert(args[0].clone())
}

fn distinct(items: Vec<Value>) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// Sets of texts are in order.
fn as_set(mut items: Vec<Value>) -> Value {
    if items.iter().all(Value::is_string) {
        items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    Value::Array(items)
}

fn flatten(items: Vec<Value>) -> Vec<Value> {
    items
        .into_iter()
        .flat_map(|item| match item {
            Value::Array(inner) => flatten(inner),
            other => vec![other],
        })
        .collect()
}

fn chunklist(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let items = list(&args, 0)?;
    let size = usize::try_from(whole(&args, 1)?).map_err(|_| "the size argument must be positive")?;
    let size = if size == 0 { items.len().max(1) } else { size };
    Ok(Value::Array(items.chunks(size).map(|chunk| Value::Array(chunk.to_vec())).collect()))
}

fn element(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let items = list(&args, 0)?;
    let index = whole(&args, 1)?;
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if count == 0 {
        return Err("cannot use element function with an empty list".to_owned());
    }
    let index = usize::try_from(index).map_err(|_| "cannot use element function with a negative index")?;
    Ok(items[index % items.len()].clone())
}

fn index(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let found = match &args[0] {
        Value::Array(items) => usize::try_from(whole(&args, 1)?).ok().and_then(|index| items.get(index)),
        Value::Object(map) => map.get(&text(&args, 1)?),
        _ => return Err("collection must be a list, a map or a tuple".to_owned()),
    };
    found.cloned().ok_or_else(|| "key does not exist".to_owned())
}

fn length(args: FuncArgs) -> Answer {
    arity(&args, 1, 1)?;
    match &args[0] {
        Value::Array(items) => Ok(Value::from(items.len())),
        Value::Object(map) => Ok(Value::from(map.len())),
        _ => Err("collection must be a list, a map or a tuple".to_owned()),
    }
}

fn range(args: FuncArgs) -> Answer {
    arity(&args, 1, 3)?;
    let (start, limit) =
        if args.len() == 1 { (0.0, number(&args, 0)?) } else { (number(&args, 0)?, number(&args, 1)?) };
    let step = if args.len() == 3 {
        number(&args, 2)?
    } else if limit < start {
        -1.0
    } else {
        1.0
    };
    if step == 0.0 {
        return Err("step must not be zero".to_owned());
    }
    let mut out = Vec::new();
    let mut next = start;
    while if step > 0.0 { next < limit } else { next > limit } {
        if out.len() >= 1024 {
            return Err("more than 1024 values were generated; either decrease the difference between start and end or use a smaller step".to_owned());
        }
        out.push(super::from_number(next));
        next += step;
    }
    Ok(Value::Array(out))
}

fn setproduct(args: FuncArgs) -> Answer {
    let mut out = vec![Vec::new()];
    for index in 0..args.len() {
        let items = list(&args, index)?;
        if out.len().saturating_mul(items.len()) > MAX_ELEMENTS {
            return Err(format!("the product has more than {MAX_ELEMENTS} elements"));
        }
        let extend = |row: &Vec<Value>| -> Vec<Vec<Value>> {
            items.iter().map(|item| row.iter().cloned().chain([item.clone()]).collect()).collect()
        };
        out = out.iter().flat_map(extend).collect();
    }
    Ok(Value::Array(out.into_iter().map(Value::Array).collect()))
}

fn slice(args: FuncArgs) -> Answer {
    arity(&args, 3, 3)?;
    let items = list(&args, 0)?;
    let start = usize::try_from(whole(&args, 1)?).map_err(|_| "start index must not be less than zero")?;
    let end = usize::try_from(whole(&args, 2)?).map_err(|_| "end index must not be less than zero")?;
    if start > end {
        return Err("start index must not be greater than end index".to_owned());
    }
    let part = items.get(start..end).ok_or("end index must not be greater than the length of the list")?;
    Ok(Value::Array(part.to_vec()))
}
