//! From a job file, or a job of the API, to a complete and checked job.
//!
//! ```text
//! text ─► syntax ─► decode (schema, scope, shape) ─► job as JSON ─► fill ─► model::Job ─► canonicalize ─► validate
//! JSON, YAML ────────────────────────────────────────────────────►┘
//! ```

mod canonicalize;
mod decode;
mod defaults;
mod diagnostic;
mod eval;
mod fill;
mod format;
mod free;
mod functions;
mod hcl1;
mod hcl_json;
mod implied;
mod json;
mod outline;
mod request;
mod schema;
mod shape;
mod suggest;
mod syntax;
mod types;
mod update;
mod validate;
mod value;
mod values;
mod variables;
mod yaml;

use std::sync::Arc;

use serde_json::Value;

use crate::model::job::Job;

pub use self::canonicalize::Defaults;
pub use self::canonicalize::canonicalize;
pub use self::diagnostic::Diagnostic;
pub use self::diagnostic::Diagnostics;
pub use self::diagnostic::Severity;
pub use self::diagnostic::SourceText;
pub use self::json::decode_json;
pub use self::outline::Outline;
pub use self::update::check_update;
pub use self::validate::Facts;
pub use self::validate::Problem;
pub use self::validate::Validation;
pub use self::validate::validate;
pub use self::validate::validate_in;
pub use self::validate::warnings_text;
pub use self::variables::Variables;

use self::validate::Pick;
use self::validate::Step;

/// A job file: its name for messages, and its text.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

/// What a job file says.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The job, with the defaults of its blocks filled in; see [`canonicalize`] for the rest.
    pub job: Job,
    /// The job as written: only what the file says, in the form of the API.
    pub raw: Value,
    pub warnings: Vec<Diagnostic>,
    /// Where things stand in the file.
    pub outline: Outline,
}

/// How a job file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Hcl,
    /// HCL in JSON syntax, or a job of the API.
    Json,
    /// A job of the API, or a manifest.
    Yaml,
}

impl Format {
    /// Tells it from the first character, the ending of the name, and the first line.
    pub fn of(source: &Source<'_>) -> Self {
        if source.text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
            return Self::Json;
        }
        if yaml::is_file(source.name, source.text) { Self::Yaml } else { Self::Hcl }
    }

    /// The word for it in what a server keeps about where a job came from.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hcl => "hcl2",
            Self::Json => "json",
            Self::Yaml => "yaml",
        }
    }
}

impl Parsed {
    /// The job as written with every key of the API, `null` where the file says nothing: what `-output` prints and what
    /// parsing without canonicalization answers.
    pub fn request(&self) -> Value {
        request::as_written(self)
    }

    /// The job with its defaults, apart from those that only the server knows or adds.
    pub fn canonical(&self, cluster: &Defaults) -> Value {
        request::canonical(self, cluster)
    }
}

/// Reads a job file: HCL, HCL in JSON syntax, a job in the JSON of the API, or the same in YAML.
///
/// # Errors
/// With every problem of the file, each with its place.
pub fn parse(source: &Source<'_>, variables: &Variables) -> Result<Parsed, Diagnostics> {
    let trimmed = source.text.trim_start_matches('\u{feff}').trim_start();
    if trimmed.is_empty() {
        return Err(Diagnostic::nowhere("Job spec is empty", "").into());
    }
    match Format::of(source) {
        Format::Json => parse_json(source, variables),
        Format::Yaml => parse_yaml(source, variables),
        Format::Hcl => parse_hcl(source, variables),
    }
}

fn parse_hcl(source: &Source<'_>, variables: &Variables) -> Result<Parsed, Diagnostics> {
    evaluate(syntax::parse(source.name, source.text)?, variables, None)
}

/// From a syntax tree to a job. `json`: the places of a file in JSON syntax, which its tree does not have.
fn evaluate(
    syntax: syntax::Syntax,
    variables: &Variables,
    json: Option<Outline>,
) -> Result<Parsed, Diagnostics> {
    let tolerant = !syntax.warnings.is_empty();
    let outline = json.clone().map_or_else(|| Outline::of(&syntax.source, &syntax.body), |file| file.job());
    let diagnostics = Diagnostics(syntax.warnings);
    let mut decoder = decode::Decoder {
        source: syntax.source,
        diagnostics,
        tolerant,
        json,
        way: Vec::new(),
        translation: syntax.translation,
        expanded: 0,
    };
    let mut scope = eval::Scope::new(variables.filesystem);
    variables::declare(&mut decoder, &syntax.body, variables, &mut scope);
    let raw = decode_job(&mut decoder, &syntax.body, &scope);
    let (warnings, errors) = variables::split(decoder.diagnostics, &decoder.source.name);
    match raw {
        Some(raw) if errors.is_empty() => {
            if depth(&raw) > MAX_DEPTH {
                let detail =
                    format!("Blocks, lists and maps of a job nest no deeper than {MAX_DEPTH} levels.");
                return Err(Diagnostic::nowhere("Values nest too deep", detail).into());
            }
            let job = fill::job(raw.clone()).map_err(|why| Diagnostic::nowhere("Invalid job", why))?;
            Ok(Parsed { job, raw, warnings, outline })
        }
        _ => Err(Diagnostics(errors.into_iter().chain(warnings).collect())),
    }
}

/// Deeper jobs could be written as JSON, but not read again.
const MAX_DEPTH: usize = 100;

/// The levels of lists and maps in a value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The one `job` block of a file; complains about everything else at the top.
fn decode_job(
    decoder: &mut decode::Decoder,
    body: &hcl_edit::structure::Body,
    scope: &eval::Scope,
) -> Option<Value> {
    use hcl_edit::Span as _;
    let mut jobs = Vec::new();
    for structure in body {
        match structure {
            hcl_edit::structure::Structure::Attribute(attribute) => {
                let span = attribute.key.span().unwrap_or_default();
                let detail =
                    format!("An argument named \"{}\" is not expected here.", attribute.key.as_str());
                decoder.error(span, "Unsupported argument", detail);
            }
            hcl_edit::structure::Structure::Block(block) => match block.ident.as_str() {
                "job" => jobs.push(block),
                "variable" | "variables" | "locals" => {}
                other => decoder.unknown_block(other, decode::header_span(block), &schema::FILE),
            },
        }
    }
    let Some(block) = jobs.first() else {
        let detail = "A job block is required.";
        decoder.error(0..0, "Missing job block", detail);
        return None;
    };
    let span = decode::header_span(block);
    if let Some(second) = jobs.get(1) {
        let detail = "Only one job block is allowed.";
        decoder.error(decode::header_span(second), "Duplicate job block", detail);
    }
    decoder.way = vec![Step::Block("job", Pick::Nth(0))];
    let label = decoder.label(block, &schema::FILE.blocks[0])?;
    let mut job = decoder.body(&block.body, &schema::JOB, scope, span);
    job.entry("ID").or_insert_with(|| label.clone().into());
    job.entry("Name").or_insert_with(|| label.into());
    Some(Value::Object(job))
}

fn parse_json(source: &Source<'_>, variables: &Variables) -> Result<Parsed, Diagnostics> {
    let text = Arc::new(SourceText { name: source.name.to_owned(), text: source.text.to_owned() });
    let raw = json::parse(source.text).map_err(|failure| {
        Diagnostic::at(&text, failure.offset..failure.offset + 1, "Invalid JSON", failure.message)
    })?;
    if hcl_json::is_file(&raw) {
        let places = Outline::of_hcl_json(&text);
        let body = hcl_json::body(&raw)
            .map_err(|bad| Diagnostic::at(&text, places.find(&bad.way), bad.summary, bad.why))?;
        return evaluate(syntax::Syntax::plain(body, text), variables, Some(places));
    }
    refuse_variables(variables, "JSON")?;
    let raw = json::normalize(json::unwrap_job(raw));
    let places = outline::json::tree(&text.text).below("job");
    let job = fill::job(raw.clone())
        .map_err(|why| Diagnostic::at(&text, places.place(&why), "Invalid job", why))?;
    Ok(Parsed { job, raw, warnings: Vec::new(), outline: Outline::of_api(&text, &places) })
}

fn parse_yaml(source: &Source<'_>, variables: &Variables) -> Result<Parsed, Diagnostics> {
    refuse_variables(variables, "YAML")?;
    let written = source.text.trim_start_matches('\u{feff}');
    let text = Arc::new(SourceText { name: source.name.to_owned(), text: written.to_owned() });
    let (raw, places) = yaml::parse(&text).map_err(|problem| Diagnostics::from(*problem))?;
    let job = fill::job(raw.clone())
        .map_err(|why| Diagnostic::at(&text, places.place(&why), "Invalid job", why))?;
    Ok(Parsed { job, raw, warnings: Vec::new(), outline: Outline::of_api(&text, &places) })
}

/// A job without expressions has no use for variables that somebody gave on purpose.
fn refuse_variables(variables: &Variables, format: &str) -> Result<(), Diagnostics> {
    if variables.flags.is_empty() && variables.files.is_empty() {
        return Ok(());
    }
    let summary = "Invalid job options";
    Err(Diagnostic::nowhere(summary, format!("Cannot use variables with {format} files.")).into())
}

/// A job file in its canonical layout. Only blanks change.
///
/// # Errors
/// With the place where the text is no HCL, or when moving blanks would change what it says.
pub fn format(source: &Source<'_>) -> Result<String, Diagnostics> {
    syntax::check(source.name, source.text)?;
    let laid_out = format::layout(source.text);
    if syntax::check(source.name, &laid_out).is_err() {
        let detail =
            "Its heredocs can be read in two ways: write the mark of a heredoc nowhere but at its end.";
        return Err(Diagnostic::nowhere("The file has no canonical layout", detail).into());
    }
    Ok(laid_out)
}
