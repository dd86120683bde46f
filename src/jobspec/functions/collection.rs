//! Lists and maps.

use super::Answer;
use super::Args;
use super::Function;
use super::Map;
use super::Number;
use super::Value;
use super::Wrong;
use super::function;
use super::list;
use super::number;
use super::text;
use super::text_list;
use super::texts;
use super::types;
use super::whole;

/// Results with more elements than this are refused.
const MAX_ELEMENTS: usize = 262_144;
/// The most numbers that `range` makes.
const MAX_RANGE: usize = 1024;

const LIST: &str = "argument must be list, tuple, or set";

pub(super) const FUNCTIONS: &[Function] = &[
    function("chunklist", &["list", "size"], chunklist),
    function("coalesce", &["*?vals"], |args| {
        let found = types::unified(args.to_vec()).into_iter().find(|value| !value.is_null());
        found.ok_or_else(|| "no non-null arguments".into())
    }),
    function("coalescelist", &["*?vals"], |args| {
        let found = args.iter().find(|value| value.as_array().is_some_and(|items| !items.is_empty()));
        found.cloned().ok_or_else(|| "no non-null arguments".into())
    }),
    function("compact", &["list"], |args| {
        let kept = text_list(args, 0)?.into_iter().flatten().filter(|item| !item.is_empty());
        Ok(texts(kept))
    }),
    function("concat", &["*seqs"], |args| {
        if args.is_empty() {
            return Err("at least one argument is required".into());
        }
        Ok(Value::Array(lists(args, "all arguments must be lists or tuples")?.concat()))
    }),
    function("contains", &["list", "value"], |args| {
        let items = args[0].as_array().ok_or(LIST)?;
        Ok(Value::Bool(items.contains(&args[1])))
    }),
    function("distinct", &["list"], |args| {
        Ok(Value::Array(distinct(list(args, 0, "list required")?.to_vec())))
    }),
    function("element", &["list", "index"], element),
    function("flatten", &["list"], |args| {
        let items = args[0].as_array().ok_or("can only flatten lists, sets and tuples")?;
        Ok(Value::Array(flatten(items)))
    }),
    function("index", &["collection", "key"], index),
    function("keys", &["inputMap"], |args| Ok(texts(entries(args, 0)?.keys().cloned()))),
    function("values", &["mapping"], |args| Ok(Value::Array(entries(args, 0)?.values().cloned().collect()))),
    function("length", &["collection"], |args| match &args[0] {
        Value::Array(items) => Ok(Value::from(items.len())),
        Value::Map(map) => Ok(Value::from(map.len())),
        // An object has attributes, not elements.
        _ => Err("collection must be a list, a map or a tuple".into()),
    }),
    function("lookup", &["inputMap", "key", "?default"], |args| {
        let map = args[0].entries().ok_or("lookup() requires a map as the first argument")?;
        Ok(map.get(&text(args, 1)?).cloned().unwrap_or_else(|| args[2].clone()))
    }),
    function("merge", &["*?maps"], merge),
    function("range", &["*params"], range),
    function("setintersection", &["first_set", "*other_sets"], setintersection),
    function("setunion", &["first_set", "*other_sets"], |args| {
        Ok(as_set(lists(args, "set required")?.concat()))
    }),
    function("setproduct", &["*sets"], setproduct),
    function("slice", &["list", "start_index", "end_index"], slice),
    function("sort", &["list"], |args| {
        let mut items = Vec::new();
        for (index, item) in text_list(args, 0)?.into_iter().enumerate() {
            let null = || format!("given list element {index} is null; a null string cannot be sorted");
            items.push(item.ok_or_else(null)?);
        }
        items.sort();
        Ok(texts(items))
    }),
    function("zipmap", &["keys", "values"], zipmap),
];

fn entries(args: &Args, index: usize) -> Result<&Map, Wrong> {
    args[index].entries().ok_or_else(|| Wrong::Argument(index, "must have map or object type".to_owned()))
}

/// All arguments as lists.
fn lists(args: &Args, required: &str) -> Result<Vec<Vec<Value>>, Wrong> {
    let mut out = Vec::new();
    let mut total = 0;
    for index in 0..args.len() {
        let items = list(args, index, required)?;
        total += items.len();
        if total > MAX_ELEMENTS {
            return Err(format!("the result has more than {MAX_ELEMENTS} elements").into());
        }
        out.push(items.to_vec());
    }
    Ok(out)
}

/// The first of equal elements. Texts, the common case, are found by their order.
fn distinct(items: Vec<Value>) -> Vec<Value> {
    if items.iter().all(Value::is_string) {
        let mut seen = std::collections::BTreeSet::new();
        return items.into_iter().filter(|item| seen.insert(item.as_str().map(str::to_owned))).collect();
    }
    let mut out: Vec<Value> = Vec::new();
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

fn as_set(items: Vec<Value>) -> Value {
    let mut items = distinct(types::unified(items));
    types::in_order(&mut items);
    Value::Array(items)
}

fn flatten(items: &[Value]) -> Vec<Value> {
    let mut out = Vec::new();
    for item in items {
        match item {
            Value::Array(inner) => out.extend(flatten(inner)),
            other => out.push(other.clone()),
        }
    }
    out
}

fn chunklist(args: &Args) -> Answer {
    let items = list(args, 0, "list required")?;
    let size = usize::try_from(whole(args, 1)?).map_err(|_| "the size argument must be positive")?;
    let size = if size == 0 { items.len().max(1) } else { size };
    Ok(Value::Array(items.chunks(size).map(|chunk| Value::Array(chunk.to_vec())).collect()))
}

fn element(args: &Args) -> Answer {
    let items = list(args, 0, "list required")?;
    let index = whole(args, 1)?;
    if items.is_empty() {
        return Err("cannot use element function with an empty list".into());
    }
    let index = usize::try_from(index).map_err(|_| "cannot use element function with a negative index")?;
    Ok(items[index % items.len()].clone())
}

fn index(args: &Args) -> Answer {
    let found = match &args[0] {
        Value::Array(items) => match &args[1] {
            Value::Number(number) => types::whole(*number)
                .and_then(|index| usize::try_from(index).ok())
                .and_then(|index| items.get(index)),
            _ => return Err("key for list must be number".into()),
        },
        Value::Map(map) => match &args[1] {
            Value::String(key) => map.get(key),
            _ => return Err("key for map must be string".into()),
        },
        _ => return Err("collection must be a list, a map or a tuple".into()),
    };
    found.cloned().ok_or_else(|| "invalid index".into())
}

fn merge(args: &Args) -> Answer {
    let mut out = Map::new();
    let mut only_maps = !args.is_empty();
    for value in args.iter().filter(|value| !value.is_null()) {
        let wrong = || format!("arguments must be maps or objects, got {:?}", value.type_name());
        only_maps &= matches!(value, Value::Map(_));
        out.extend(value.entries().ok_or_else(wrong)?.clone());
    }
    Ok(if only_maps { Value::Map(out) } else { Value::Object(out) })
}

fn range(args: &Args) -> Answer {
    let numbers = (0..args.len()).map(|index| number(args, index).map(Number::as_f64));
    let numbers: Vec<f64> = numbers.collect::<Result<_, _>>()?;
    let (start, end, step) = match numbers.as_slice() {
        [end] => (0.0, *end, None),
        [start, end] => (*start, *end, None),
        [start, end, step] => (*start, *end, Some(*step)),
        _ => return Err("must have one, two, or three arguments".into()),
    };
    let step = step.unwrap_or(if end < start { -1.0 } else { 1.0 });
    if step > 0.0 && end < start {
        let why = "end must be greater than start when step is positive";
        return Err(Wrong::Argument(0, why.to_owned()));
    }
    if step < 0.0 && end > start {
        return Err(Wrong::Argument(0, "end must be less than start when step is negative".to_owned()));
    }
    let mut out = Vec::new();
    let mut next = start;
    while if step < 0.0 { next > end } else { next < end } {
        if out.len() >= MAX_RANGE {
            let way_out = "either decrease the difference between start and end or use a smaller step";
            return Err(format!("more than {MAX_RANGE} values were generated; {way_out}").into());
        }
        out.push(Value::Number(Number::computed(next)));
        next += step;
    }
    Ok(Value::Array(out))
}

fn setintersection(args: &Args) -> Answer {
    let mut sets = lists(args, "set required")?.into_iter();
    let mut out = sets.next().unwrap_or_default();
    for other in sets {
        out.retain(|item| other.contains(item));
    }
    Ok(as_set(out))
}

fn setproduct(args: &Args) -> Answer {
    if args.len() < 2 {
        return Err("at least two arguments are required".into());
    }
    let mut out = vec![Vec::new()];
    for items in lists(args, "a set or a list is required")? {
        if out.len().saturating_mul(items.len()) > MAX_ELEMENTS {
            return Err(format!("the product has more than {MAX_ELEMENTS} elements").into());
        }
        let extend = |row: &Vec<Value>| -> Vec<Vec<Value>> {
            items.iter().map(|item| row.iter().cloned().chain([item.clone()]).collect()).collect()
        };
        out = out.iter().flat_map(extend).collect();
    }
    Ok(Value::Array(out.into_iter().map(Value::Array).collect()))
}

fn slice(args: &Args) -> Answer {
    let items = list(args, 0, "list required")?;
    let wrong = |index: usize, why: &str| Wrong::Argument(index, why.to_owned());
    let start =
        usize::try_from(whole(args, 1)?).map_err(|_| wrong(1, "start index must not be less than zero"))?;
    let end =
        usize::try_from(whole(args, 2)?).map_err(|_| wrong(2, "end index must not be less than zero"))?;
    if end > items.len() {
        return Err(wrong(2, "end index must not be greater than the length of the list"));
    }
    let part =
        items.get(start..end).ok_or_else(|| wrong(1, "start index must not be greater than end index"))?;
    Ok(Value::Array(part.to_vec()))
}

fn zipmap(args: &Args) -> Answer {
    let keys = text_list(args, 0)?;
    let values = list(args, 1, "list required")?;
    if keys.len() != values.len() {
        return Err(format!(
            "number of keys ({}) does not match number of values ({})",
            keys.len(),
            values.len()
        )
        .into());
    }
    let mut out = Map::new();
    for (key, value) in keys.into_iter().zip(values) {
        out.insert(key.ok_or("keys must not be null")?, value.clone());
    }
    Ok(Value::Object(out))
}
