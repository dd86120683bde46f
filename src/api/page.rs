//! Lists: prefix and filter first, then one page, then the views of that page only.

use serde::Serialize;
use serde_json::Value;

use super::call::Call;
use super::error::ApiError;
use super::filter::Filter;
use super::read::Found;

/// Where an item stands in a list. Tokens are the key of the next page's first item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PageKey {
    number: u64,
    text: String,
}

/// How a list is ordered, which also is the form of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By text alone: `<namespace>.<id>`, `<id>`.
    Text,
    /// By creation: `<create index>.<id>`.
    Creation,
}

impl PageKey {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { number: 0, text: text.into() }
    }

    pub(super) fn creation(index: u64, id: impl ToString) -> Self {
        Self { number: index, text: id.to_string() }
    }

    fn token(&self, order: Order) -> String {
        match order {
            Order::Text => self.text.clone(),
            Order::Creation => format!("{}.{}", self.number, self.text),
        }
    }

    /// A token is a place to start from: one that cannot be read starts at the beginning.
    fn parse(token: &str, order: Order) -> Self {
        match order {
            Order::Text => Self::text(token),
            Order::Creation => {
                let (number, text) = token.split_once('.').unwrap_or((token, ""));
                Self { number: number.parse().unwrap_or(0), text: text.to_owned() }
            }
        }
    }
}

/// One page of `items`. `subject` gives the full object that a filter looks at, `view` what is sent.
///
/// # Errors
/// When the parameters or the filter cannot be read, or the filter names a field that does not exist.
pub(super) fn paginate<T, V: Serialize + Send + 'static>(
    call: &Call,
    order: Order,
    mut items: Vec<(PageKey, T)>,
    subject: impl Fn(&T) -> Result<Value, ApiError>,
    mut view: impl FnMut(&T) -> Option<V>,
) -> Result<Found, ApiError> {
    let filter = Filter::of(call)?;
    let per_page = match call.text("per_page") {
        None => 0,
        Some(text) => text
            .parse::<i64>()
            .map_err(|_| ApiError::bad_request("Expect a number for `per_page` query string parameter"))?,
    };
    items.sort_by(|a, b| a.0.cmp(&b.0));
    let is_reverse = call.param("reverse") == Some("true");
    if is_reverse {
        items.reverse();
    }
    let start = call.text("next_token").map(|token| PageKey::parse(token, order));
    let mut page = Vec::new();
    let mut next = None;
    for (key, item) in items {
        let is_before =
            start.as_ref().is_some_and(|start| if is_reverse { key > *start } else { key < *start });
        if is_before {
            continue;
        }
        if let Some(filter) = &filter
            && !filter.matches(&subject(&item)?)?
        {
            continue;
        }
        let is_full = per_page < 0 || (per_page > 0 && page.len() as i64 == per_page);
        if is_full {
            next = Some(key.token(order));
            break;
        }
        page.extend(view(&item));
    }
    Ok(Found::page(page, next))
}

/// The JSON value of a view, for filters.
pub(super) fn value_of<T: Serialize>(view: &T) -> Result<Value, ApiError> {
    serde_json::to_value(view)
        .map_err(|error| ApiError::internal(format!("cannot encode an object: {error}")))
}
