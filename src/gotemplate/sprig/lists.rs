//! Sprig's functions on lists.

use super::Row;
use super::answer;
use super::int;
use super::is_empty;
use super::items;
use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::ITEMS_MAX;
use crate::gotemplate::between;
use crate::gotemplate::exactly;
use crate::gotemplate::int_of;
use crate::gotemplate::value::Value;

pub(super) const TABLE: &[Row] = &[
    ("sprig_list", |a| answer(a.to_vec())),
    ("sprig_tuple", |a| answer(a.to_vec())),
    ("sprig_append", append),
    ("sprig_mustAppend", append),
    ("sprig_push", append),
    ("sprig_mustPush", append),
    ("sprig_prepend", prepend),
    ("sprig_mustPrepend", prepend),
    ("sprig_first", first),
    ("sprig_mustFirst", first),
    ("sprig_last", last),
    ("sprig_mustLast", last),
    ("sprig_rest", rest),
    ("sprig_mustRest", rest),
    ("sprig_initial", initial),
    ("sprig_mustInitial", initial),
    ("sprig_reverse", reverse),
    ("sprig_mustReverse", reverse),
    ("sprig_uniq", uniq),
    ("sprig_mustUniq", uniq),
    ("sprig_without", without),
    ("sprig_mustWithout", without),
    ("sprig_has", has),
    ("sprig_mustHas", has),
    ("sprig_compact", compact),
    ("sprig_mustCompact", compact),
    ("sprig_slice", slice),
    ("sprig_mustSlice", slice),
    ("sprig_concat", concat),
    ("sprig_chunk", chunk),
    ("sprig_mustChunk", chunk),
    ("sprig_until", |a| {
        let [count] = exactly("until", a)?;
        let count = int_of(count)?;
        numbers(0, count, if count < 0 { -1 } else { 1 })
    }),
    ("sprig_untilStep", |a| {
        let [start, stop, step] = exactly("untilStep", a)?;
        numbers(int_of(start)?, int_of(stop)?, int_of(step)?)
    }),
    ("sprig_seq", seq),
    ("sprig_all", |a| answer(!a.iter().any(is_empty))),
    ("sprig_any", |a| answer(a.iter().any(|value| !is_empty(value)))),
    ("sprig_coalesce", |a| Ok(a.iter().find(|value| !is_empty(value)).cloned().unwrap_or(Value::Nil))),
];

fn append(arguments: &[Value]) -> Answer {
    let [list, value] = exactly("append", arguments)?;
    let mut list = items("push", list)?;
    list.push(value.clone());
    answer(list)
}

fn prepend(arguments: &[Value]) -> Answer {
    let [list, value] = exactly("prepend", arguments)?;
    let mut list = items("prepend", list)?;
    list.insert(0, value.clone());
    answer(list)
}

fn first(arguments: &[Value]) -> Answer {
    let [list] = exactly("first", arguments)?;
    Ok(items("find first", list)?.first().cloned().unwrap_or(Value::Nil))
}

fn last(arguments: &[Value]) -> Answer {
    let [list] = exactly("last", arguments)?;
    Ok(items("find last", list)?.last().cloned().unwrap_or(Value::Nil))
}

fn rest(arguments: &[Value]) -> Answer {
    let [list] = exactly("rest", arguments)?;
    let list = items("find rest", list)?;
    Ok(list.split_first().map_or(Value::Nil, |(_, rest)| Value::from(rest.to_vec())))
}

fn initial(arguments: &[Value]) -> Answer {
    let [list] = exactly("initial", arguments)?;
    let list = items("find initial", list)?;
    Ok(list.split_last().map_or(Value::Nil, |(_, rest)| Value::from(rest.to_vec())))
}

fn reverse(arguments: &[Value]) -> Answer {
    let [list] = exactly("reverse", arguments)?;
    let mut list = items("find reverse", list)?;
    list.reverse();
    answer(list)
}

/// Different items of a list that are compared each with each: plain ones, and others.
const COMPARED_MAX: usize = 10_000;
const COMPARED_DEEP_MAX: usize = 300;

fn uniq(arguments: &[Value]) -> Answer {
    let [list] = exactly("uniq", arguments)?;
    let mut kept: Vec<Value> = Vec::new();
    let all = items("find uniq", list)?;
    let plain = |item: &Value| !matches!(item, Value::List(_) | Value::Map(_) | Value::Struct(_));
    let most = if all.iter().all(plain) { COMPARED_MAX } else { COMPARED_DEEP_MAX };
    for item in all {
        if kept.len() > most {
            return Err(Failure::called(format_args!("more than {most} different items")));
        }
        if !kept.iter().any(|known| known.same(&item)) {
            kept.push(item);
        }
    }
    answer(kept)
}

fn without(arguments: &[Value]) -> Answer {
    let Some((list, unwanted)) = arguments.split_first() else {
        return Err(Failure::Arguments("wrong number of args for without: want at least 1 got 0".to_owned()));
    };
    let mut list = items("find without", list)?;
    list.retain(|item| !unwanted.iter().any(|other| other.same(item)));
    answer(list)
}

fn has(arguments: &[Value]) -> Answer {
    let [wanted, list] = exactly("has", arguments)?;
    if list.is_nothing() {
        return answer(false);
    }
    answer(items("find has", list)?.iter().any(|item| item.same(wanted)))
}

fn compact(arguments: &[Value]) -> Answer {
    let [list] = exactly("compact", arguments)?;
    let mut list = items("compact", list)?;
    list.retain(|item| !is_empty(item));
    answer(list)
}

fn slice(arguments: &[Value]) -> Answer {
    between("slice", arguments, 1, 3)?;
    let list = items("slice", &arguments[0])?;
    let bound = |at: usize, otherwise: usize| match arguments.get(at) {
        None => Ok(otherwise),
        Some(value) => usize::try_from(int(value)).ok().filter(|at| *at <= list.len()).ok_or_else(|| {
            Failure::called(format_args!("slice bounds out of range: {} of {}", int(value), list.len()))
        }),
    };
    let (from, to) = (bound(1, 0)?, bound(2, list.len())?);
    if from > to {
        return Err(Failure::called(format_args!("slice bounds out of range: {from} > {to}")));
    }
    answer(list[from..to].to_vec())
}

fn concat(arguments: &[Value]) -> Answer {
    let mut all = Vec::new();
    for list in arguments {
        all.extend(items("concat", list)?);
        if all.len() > ITEMS_MAX {
            return Err(Failure::called(format_args!("more than {ITEMS_MAX} items")));
        }
    }
    answer(all)
}

fn chunk(arguments: &[Value]) -> Answer {
    let [size, list] = exactly("chunk", arguments)?;
    let size = usize::try_from(int_of(size)?).ok().filter(|size| *size > 0);
    let size = size.ok_or_else(|| Failure::called("the size of a chunk must be at least 1"))?;
    answer(items("chunk", list)?.chunks(size).map(|part| Value::from(part.to_vec())).collect::<Vec<_>>())
}

fn range(start: i64, stop: i64, step: i64) -> Result<Vec<i64>, Failure> {
    let mut found = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        if found.len() == ITEMS_MAX {
            return Err(Failure::called(format_args!("more than {ITEMS_MAX} items")));
        }
        found.push(at);
        let Some(next) = at.checked_add(step) else { break };
        at = next;
    }
    Ok(found)
}

fn numbers(start: i64, stop: i64, step: i64) -> Answer {
    answer(range(start, stop, step)?.into_iter().map(Value::Int).collect::<Vec<_>>())
}

/// Like the program `seq`: a text with blanks, both ends included.
fn seq(arguments: &[Value]) -> Answer {
    let (start, step, end) = match arguments {
        [end] => (1, None, int_of(end)?),
        [start, end] => (int_of(start)?, None, int_of(end)?),
        [start, step, end] => (int_of(start)?, Some(int_of(step)?), int_of(end)?),
        _ => return answer(""),
    };
    let step = step.unwrap_or(if end < start { -1 } else { 1 });
    let stop = end.saturating_add(step.signum());
    let numbers: Vec<String> = range(start, stop, step)?.iter().map(i64::to_string).collect();
    answer(numbers.join(" "))
}
