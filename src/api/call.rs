//! A request, taken apart: decoded path, query parameters with Nomad's parsing rules, body.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::error::ApiError;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::model::id::JobId;
use crate::model::time::Span;
use crate::store::Revision;

/// The longest a blocking query waits, and the default; Nomad clamps to the same.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A request.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    /// Percent-decoded, with the leading `/`.
    pub path: String,
    /// As it came, with the query.
    pub raw_uri: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What the route's wildcards matched, in order.
    pub captures: Vec<String>,
}

impl Call {
    /// Takes a request apart.
    pub fn new(request: Request<Bytes>) -> Self {
        let (parts, body) = request.into_parts();
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        Self {
            method: parts.method,
            path: percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned(),
            raw_uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            query: query.into_owned().collect(),
            headers: parts.headers,
            body,
            captures: Vec::new(),
        }
    }

    /// What the first wildcard of the route matched.
    pub fn subject(&self) -> &str {
        self.captures.first().map_or("", String::as_str)
    }

    /// A query parameter as given.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.param(name).filter(|value| !value.is_empty())
    }

    /// A boolean parameter; absent and empty are false.
    ///
    /// # Errors
    /// With Nomad's text when it is not a boolean.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.optional_flag(name)?.unwrap_or(false))
    }

    /// A boolean parameter.
    ///
    /// # Errors
    /// With Nomad's text when it is not a boolean.
    pub fn optional_flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        parse_bool(text).map(Some).ok_or_else(|| {
            ApiError::internal(format!(
                "Failed to parse value of {name:?} ({text}) as a bool: strconv.ParseBool: parsing {text:?}: \
                 invalid syntax"
            ))
        })
    }

    /// An integer parameter.
    ///
    /// # Errors
    /// With Nomad's text when it is not an integer.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            ApiError::internal(format!(
                "Failed to parse value of {name:?} ({text}) as a int: strconv.Atoi: parsing {text:?}: invalid \
                 syntax"
            ))
        })
    }

    /// The namespace asked for; `default` if none. `*` only means all on lists.
    pub fn namespace(&self) -> &str {
        self.text("namespace").unwrap_or(DEFAULT_NAMESPACE)
    }

    /// Whether a list asks for this namespace.
    pub fn covers(&self, namespace: &str) -> bool {
        matches!(self.namespace(), "*") || self.namespace() == namespace
    }

    /// The job that the path names, in the namespace asked for.
    pub fn job(&self) -> JobId {
        JobId::new(self.namespace(), self.subject())
    }

    /// The prefix of a list; empty for everything.
    pub fn prefix(&self) -> &str {
        self.param("prefix").unwrap_or_default()
    }

    /// True when the answer shall be indented.
    pub fn is_pretty(&self) -> bool {
        self.param("pretty").is_some_and(|value| value != "0")
    }

    /// True when any server's present knowledge is good enough.
    ///
    /// # Errors
    /// When `stale` is not a boolean.
    pub fn is_stale(&self) -> Result<bool, ApiError> {
        match self.param("stale") {
            None => Ok(false),
            Some("") => Ok(true),
            Some(text) => parse_bool(text).ok_or_else(|| {
                ApiError::bad_request("Expect `true` or `false` for `stale` query string parameter")
            }),
        }
    }

    /// The index that a blocking query waits to be passed, and for how long. Absent: do not block.
    ///
    /// # Errors
    /// When `index` or `wait` cannot be read.
    pub fn blocking(&self) -> Result<Option<(Revision, Duration)>, ApiError> {
        let wait = match self.text("wait") {
            None => Span::ZERO,
            Some(text) => Span::parse(text).map_err(|_| ApiError::bad_request("Invalid wait time"))?,
        };
        let index = match self.text("index") {
            None => 0,
            Some(text) => text.parse::<u64>().map_err(|_| ApiError::bad_request("Invalid index"))?,
        };
        if index == 0 {
            return Ok(None);
        }
        let wait = if wait <= Span::ZERO { WAIT_MAX } else { wait.to_std().min(WAIT_MAX) };
        Ok(Some((Revision::try_from(index).unwrap_or(Revision::MAX), wait)))
    }

    /// The JSON body.
    ///
    /// # Errors
    /// With Nomad's texts for an empty or broken body.
    pub fn fields(&self) -> Result<Fields, ApiError> {
        Ok(Fields::of(self.value()?))
    }

    /// The first JSON value of the body.
    ///
    /// # Errors
    /// With Nomad's texts for an empty or broken body.
    pub fn value(&self) -> Result<Value, ApiError> {
        if self.body.is_empty() {
            return Err(ApiError::bad_request("Request body is empty"));
        }
        let mut values = serde_json::Deserializer::from_slice(&self.body).into_iter::<Value>();
        match values.next() {
            None => Err(ApiError::bad_request("EOF")),
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(ApiError::bad_request(error.to_string())),
        }
    }
}

/// Go's words for true and false.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A JSON object whose keys are matched whatever their case, as Go does.
#[derive(Clone, Debug, Default)]
pub struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// The fields of an object; none of anything else.
    pub fn of(value: Value) -> Self {
        match value {
            Value::Object(map) => {
                Self(map.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect())
            }
            _ => Self::default(),
        }
    }

    /// A field that is given and not null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(&name.to_ascii_lowercase()).filter(|value| !value.is_null())
    }

    /// A text; absent is empty.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).map_or(Ok(""), |value| value.as_str().ok_or_else(|| mismatch(name, value, "string")))
    }

    /// A boolean; absent is false.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        self.get(name).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| mismatch(name, value, "bool")))
    }

    /// An integer.
    ///
    /// # Errors
    /// When it is something else.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let read = |value: &Value| value.as_i64().ok_or_else(|| mismatch(name, value, "int"));
        self.get(name).map(read).transpose()
    }

    /// A number that is not negative; absent is 0.
    ///
    /// # Errors
    /// When it is something else.
    pub fn unsigned(&self, name: &str) -> Result<u64, ApiError> {
        self.get(name).map_or(Ok(0), |value| value.as_u64().ok_or_else(|| mismatch(name, value, "uint64")))
    }

    /// A list of texts; absent is empty.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let wrong = || mismatch(name, value, "[]string");
        let items = value.as_array().ok_or_else(wrong)?;
        items.iter().map(|item| item.as_str().map(String::from).ok_or_else(wrong)).collect()
    }

    /// A map of texts; absent is empty.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text_map(&self, name: &str) -> Result<BTreeMap<String, String>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(BTreeMap::new()) };
        let wrong = || mismatch(name, value, "map[string]string");
        let items = value.as_object().ok_or_else(wrong)?;
        items
            .iter()
            .map(|(key, item)| Ok((key.clone(), item.as_str().ok_or_else(wrong)?.to_owned())))
            .collect()
    }
}

fn mismatch(name: &str, value: &Value, wanted: &str) -> ApiError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    ApiError::bad_request(format!(
        "json: cannot unmarshal {found} into Go struct field .{name} of type {wanted}"
    ))
}
