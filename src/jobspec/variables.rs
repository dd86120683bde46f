//! Input variables and locals: their declarations, their types, and where their values come from.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::parser::parse_expr;
use hcl_edit::structure::Block;
use hcl_edit::structure::Body;

use super::decode::Decoder;
use super::decode::expression_span;
use super::decode::header_span;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Severity;
use super::diagnostic::SourceText;
use super::diagnostic::too_deep;
use super::eval::NOT_ALLOWED;
use super::eval::Scope;
use super::hcl_json;
use super::json;
use super::syntax;
use super::types::TypeExpr;
use super::validate::Pick;
use super::validate::Step;
use super::value::Map;
use super::value::Value;
use crate::model::hcl;

/// Values for the variables of a job file, in rising precedence: environment, files, flags.
#[derive(Clone, Debug)]
pub struct Variables {
    /// Values of `NOMAD_VAR_<name>` and `HERDER_VAR_<name>`, by name.
    pub environment: BTreeMap<String, String>,
    /// Files of `-var-file` in order: name and text.
    pub files: Vec<(String, String)>,
    /// Pairs of `-var` in order.
    pub flags: Vec<(String, String)>,
    /// Whether a value for an undeclared variable is an error (else a warning). True by default.
    pub strict: bool,
    /// Whether functions may read files of this machine: only for the CLI.
    pub filesystem: bool,
}

impl Default for Variables {
    fn default() -> Self {
        let (environment, files, flags) = Default::default();
        Self { environment, files, flags, strict: true, filesystem: false }
    }
}

impl Variables {
    /// Takes the values out of a process environment. `HERDER_VAR_x` wins over `NOMAD_VAR_x`.
    #[must_use]
    pub fn with_environment(mut self, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut own = BTreeMap::new();
        for (name, value) in environment {
            if let Some(name) = name.strip_prefix("HERDER_VAR_") {
                own.insert(name.to_owned(), value);
            } else if let Some(name) = name.strip_prefix("NOMAD_VAR_") {
                self.environment.insert(name.to_owned(), value);
            }
        }
        self.environment.extend(own);
        self
    }
}

/// A declared variable.
struct Declared<'a> {
    kind: Option<TypeExpr>,
    value: Option<Value>,
    /// A value was there, but a bad one: nothing more is said about it.
    is_bad: bool,
    /// Where the value came from, for messages.
    origin: &'static str,
    validations: Vec<&'a Block>,
}

/// Reads all declarations of a file and gives `scope` its `var` and `local`.
pub(super) fn declare(decoder: &mut Decoder, body: &Body, given: &Variables, scope: &mut Scope) {
    let mut declared = BTreeMap::new();
    for block in body.get_blocks("variables") {
        for attribute in block.body.attributes() {
            let value = decoder.evaluate(&attribute.value, &Scope::literal());
            let kind = value.as_ref().map(TypeExpr::of);
            let is_bad = value.is_none();
            let variable = Declared { kind, value, is_bad, origin: "default", validations: Vec::new() };
            insert(decoder, &mut declared, attribute.key.as_str(), header_span(block), variable);
        }
    }
    for block in body.get_blocks("variable") {
        let label = block.labels.first().map(|label| Pick::Label(label.as_str().to_owned()));
        decoder.way = vec![Step::Block("variable", label.unwrap_or(Pick::Nth(0)))];
        declaration(decoder, &mut declared, block);
    }
    decoder.way.clear();
    apply(decoder, &mut declared, given);
    let mut values = Map::new();
    for (name, variable) in &declared {
        match &variable.value {
            Some(value) => {
                values.insert(name.clone(), value.clone());
            }
            None if variable.is_bad => {
                let kind = variable.kind.as_ref().unwrap_or(&TypeExpr::Any);
                values.insert(name.clone(), kind.placeholder());
            }
            None => {
                let detail = "A used variable must be set or have a default value; see \
                              https://developer.hashicorp.com/nomad/docs/job-specification/hcl2/variables for details.";
                let diagnostic = Diagnostic::nowhere(format!("Unset variable \"{name}\""), detail)
                    .with_hint(format!("set it with -var '{name}=…', -var-file, or NOMAD_VAR_{name}"));
                decoder.diagnostics.push(diagnostic);
                // So that one missing value is one error.
                let kind = variable.kind.as_ref().unwrap_or(&TypeExpr::Any);
                values.insert(name.clone(), kind.placeholder());
            }
        }
    }
    scope.declare("var", Value::Object(values));
    for (name, variable) in &declared {
        decoder.way = vec![Step::Block("variable", Pick::Label(name.clone()))];
        validate(decoder, name, variable, scope);
    }
    decoder.way = vec![Step::Block("locals", Pick::Nth(0))];
    locals(decoder, body, scope);
    decoder.way.clear();
}

fn insert<'a>(
    decoder: &mut Decoder,
    declared: &mut BTreeMap<String, Declared<'a>>,
    name: &str,
    span: std::ops::Range<usize>,
    variable: Declared<'a>,
) {
    if declared.insert(name.to_owned(), variable).is_some() {
        decoder.error(span, "Duplicate variable", format!("Duplicate {name} variable definition found."));
    }
}

fn declaration<'a>(decoder: &mut Decoder, declared: &mut BTreeMap<String, Declared<'a>>, block: &'a Block) {
    let span = header_span(block);
    let Some(name) = block.labels.first().map(|label| label.as_str().to_owned()) else {
        let detail = "All variable blocks must have 1 labels (name).";
        decoder.error(span, "Missing name for variable", detail);
        return;
    };
    if hcl_edit::Ident::try_new(name.as_str()).is_err() {
        let detail = "Name must start with a letter or underscore and may contain only letters, digits, underscores, \
                      and dashes.";
        decoder.error(span, "Invalid variable name", detail);
        return;
    }
    let (kind, value, is_bad) = (None, None, false);
    let mut variable = Declared { kind, value, is_bad, origin: "default", validations: Vec::new() };
    for attribute in block.body.attributes() {
        let place = attribute.key.span().unwrap_or_default();
        match attribute.key.as_str() {
            "description" => {}
            "type" => match TypeExpr::from_expression(&attribute.value) {
                Ok(kind) => variable.kind = Some(kind),
                Err(why) => {
                    decoder.error(expression_span(&attribute.value), "Invalid type specification", why)
                }
            },
            "default" => {
                variable.value = decoder.evaluate(&attribute.value, &Scope::literal());
                variable.is_bad = variable.value.is_none();
            }
            other => {
                let detail = format!("An argument named \"{other}\" is not expected here.");
                decoder.error(place, "Unsupported argument", detail);
            }
        }
    }
    for inner in block.body.blocks() {
        match inner.ident.as_str() {
            "validation" => variable.validations.push(inner),
            other => decoder.unknown_block(other, header_span(inner), &super::schema::EMPTY),
        }
    }
    match (variable.kind.clone(), variable.value.take()) {
        (Some(kind), Some(value)) => match kind.convert(value) {
            Ok(value) => variable.value = Some(value),
            Err(why) => {
                let place =
                    block.body.get_attribute("default").map(|default| expression_span(&default.value));
                let detail = format!(
                    "This default value is not compatible with the variable's type constraint: {why}."
                );
                decoder.error(place.unwrap_or(span.clone()), "Invalid default value for variable", detail);
                variable.is_bad = true;
            }
        },
        (None, Some(value)) => {
            variable.kind = Some(TypeExpr::of(&value));
            variable.value = Some(value);
        }
        (_, None) => {}
    }
    insert(decoder, declared, &name, span, variable);
}

/// Takes values from environment, files and flags, in this order.
fn apply(decoder: &mut Decoder, declared: &mut BTreeMap<String, Declared<'_>>, given: &Variables) {
    for (name, raw) in &given.environment {
        if let Some(variable) = declared.get_mut(name) {
            let source = SourceText { name: format!("<value for var.{name} from env>"), text: raw.clone() };
            assign_text(decoder, variable, name, source, "env");
        }
    }
    for (file, text) in &given.files {
        match parse_file(file, text) {
            Ok(parsed) => assign_file(decoder, declared, &parsed, given),
            Err(problems) => decoder.diagnostics.0.extend(problems.0),
        }
    }
    for (name, raw) in &given.flags {
        match declared.get_mut(name) {
            Some(variable) => {
                let source =
                    SourceText { name: format!("<value for var.{name} from arguments>"), text: raw.clone() };
                assign_text(decoder, variable, name, source, "cmd");
            }
            None => undeclared(decoder, given, "Undefined -var variable", name, None),
        }
    }
}

/// A file of variables, in HCL or in JSON.
fn parse_file(name: &str, text: &str) -> Result<syntax::Syntax, Diagnostics> {
    if !text.trim_start().starts_with('{') {
        return syntax::parse(name, text);
    }
    let source = Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() });
    let value = json::parse(text).map_err(|failure| {
        let span = failure.offset..failure.offset + 1;
        Diagnostic::at(&source, span, "Invalid JSON", failure.message)
    })?;
    let body = hcl_json::assignments(&value);
    let body = body.map_err(|why| Diagnostic::at(&source, 0..1, "Invalid variable name", why))?;
    Ok(syntax::Syntax::plain(body, source))
}

fn undeclared(
    decoder: &mut Decoder,
    given: &Variables,
    summary: &str,
    name: &str,
    place: Option<(&Arc<SourceText>, std::ops::Range<usize>)>,
) {
    let detail = format!(
        "A \"{name}\" variable value was set but was not found in the job file. To use it, declare it with a variable \
         \"{name}\" block."
    );
    let mut diagnostic = match place {
        Some((source, span)) => Diagnostic::at(source, span, summary, detail),
        None => Diagnostic::nowhere(summary, detail),
    };
    if !given.strict {
        diagnostic.severity = Severity::Warning;
    }
    decoder.diagnostics.push(diagnostic);
}

fn assign_file(
    decoder: &mut Decoder,
    declared: &mut BTreeMap<String, Declared<'_>>,
    parsed: &syntax::Syntax,
    given: &Variables,
) {
    let scope = Scope::literal();
    for block in parsed.body.blocks() {
        let detail = "A .var file is used to assign values to variables that have already been declared in the job file.";
        let span = header_span(block);
        decoder.diagnostics.push(Diagnostic::at(
            &parsed.source,
            span,
            "Variable declaration in a .var file",
            detail,
        ));
    }
    for attribute in parsed.body.attributes() {
        let name = attribute.key.as_str();
        let Some(variable) = declared.get_mut(name) else {
            let span = attribute.key.span().unwrap_or_default();
            undeclared(decoder, given, "Undefined variable", name, Some((&parsed.source, span)));
            continue;
        };
        let place = expression_span(&attribute.value);
        match scope.evaluate(&attribute.value, &parsed.source.text) {
            Ok(value) => match variable.kind.clone().unwrap_or(TypeExpr::Any).convert(value) {
                Ok(value) => {
                    variable.value = Some(value);
                    variable.origin = "varfile";
                }
                Err(why) => {
                    variable.is_bad = true;
                    let detail =
                        format!("This value is not compatible with the variable's type constraint: {why}.");
                    let summary = "Invalid value for variable";
                    decoder.diagnostics.push(Diagnostic::at(&parsed.source, place, summary, detail));
                }
            },
            Err(failure) => {
                variable.is_bad = true;
                let problem = Diagnostic::at(&parsed.source, place, failure.summary, failure.detail);
                decoder.diagnostics.push(problem);
            }
        }
    }
}

/// Text from outside: raw for texts and numbers, an expression for everything else.
fn assign_text(
    decoder: &mut Decoder,
    variable: &mut Declared<'_>,
    name: &str,
    source: SourceText,
    origin: &'static str,
) {
    let source = Arc::new(source);
    let kind = variable.kind.clone().unwrap_or(TypeExpr::Text);
    let value = if kind.takes_raw_text() {
        Ok(Value::String(source.text.clone()))
    } else {
        literal_expression(&source)
    };
    let converted = value.and_then(|value| {
        kind.convert(value).map_err(|why| {
            let from = if origin == "cmd" { "-var" } else { "environment" };
            let what = if origin == "cmd" { "arg" } else { "environment" };
            let detail = format!(
                "The received {what} value for {name} is not compatible with the variable's type constraint: {why}."
            );
            let summary = format!("Invalid argument value for {from} variable");
            Box::new(Diagnostic::at(&source, 0..source.text.len(), summary, detail))
        })
    });
    match converted {
        Ok(value) => {
            variable.value = Some(value);
            variable.origin = origin;
        }
        Err(diagnostic) => {
            variable.is_bad = true;
            decoder.diagnostics.push(*diagnostic);
        }
    }
}

fn literal_expression(source: &Arc<SourceText>) -> Result<Value, Box<Diagnostic>> {
    let whole = 0..source.text.len();
    if let Some(span) = hcl::too_deep(&source.text) {
        return Err(Box::new(too_deep(source, span)));
    }
    let expression = parse_expr(source.text.trim()).map_err(|error| {
        let detail = "Expected the start of an expression, but found an invalid expression token.";
        let at = error.location().offset().min(source.text.len());
        Box::new(Diagnostic::at(source, at..source.text.len(), "Invalid expression", detail))
    })?;
    let value = Scope::literal().evaluate(&expression, source.text.trim());
    value.map_err(|failure| Box::new(Diagnostic::at(source, whole, failure.summary, failure.detail)))
}

/// What a message to somebody who chose a wrong value should look like.
fn is_sentence(message: &str) -> bool {
    let starts = message.chars().next().is_some_and(|first| !first.is_alphabetic() || first.is_uppercase());
    starts && message.ends_with(['.', '?', '!'])
}

/// Checks the conditions of a variable against its value.
fn validate(decoder: &mut Decoder, name: &str, variable: &Declared<'_>, scope: &Scope) {
    for block in &variable.validations {
        let (Some(condition), Some(message)) =
            (block.body.get_attribute("condition"), block.body.get_attribute("error_message"))
        else {
            let detail = "A validation block needs the arguments \"condition\" and \"error_message\".";
            decoder.error(header_span(block), "Missing required argument", detail);
            continue;
        };
        let written = condition.value.to_string();
        if !written.contains(&format!("var.{name}")) {
            let detail = format!(
                "The condition for variable \"{name}\" must refer to var.{name} in order to test incoming values."
            );
            decoder.error(expression_span(&condition.value), "Invalid variable validation condition", detail);
            continue;
        }
        let Some(message) = decoder.evaluate(&message.value, &Scope::literal()) else { continue };
        let message = message.as_str().unwrap_or_default().to_owned();
        if !is_sentence(&message) {
            let detail = "The error message of a validation must be a full sentence, which starts with an upper-case letter \
                          and ends with a period, a question mark or an exclamation mark.";
            decoder.error(header_span(block), "Invalid validation error message", detail);
            continue;
        }
        let Some(own) = &variable.value else { continue };
        let own = Value::Object(Map::from([(name.to_owned(), own.clone())]));
        let value = match scope.only("var", own).evaluate(&condition.value, decoder.text()) {
            Ok(value) => value,
            Err(failure) => {
                let place = failure.span.unwrap_or_else(|| expression_span(&condition.value));
                if matches!(failure.summary.as_str(), NOT_ALLOWED | "Unsupported attribute") {
                    let detail = format!(
                        "The condition for variable \"{name}\" can only refer to the variable itself, using var.{name}."
                    );
                    decoder.error(place, "Invalid reference in variable validation", detail);
                } else {
                    decoder.error(place, &failure.summary, failure.detail);
                }
                continue;
            }
        };
        if value.to_bool() == Ok(true) {
            continue;
        }
        let summary = format!("Invalid value for {} variable", variable.origin);
        decoder.error(header_span(block), &summary, message);
    }
}

/// Evaluates locals in whatever order their references need.
fn locals(decoder: &mut Decoder, body: &Body, scope: &mut Scope) {
    let mut pending: BTreeMap<&str, &Expression> = BTreeMap::new();
    for block in body.get_blocks("locals") {
        for attribute in block.body.attributes() {
            pending.insert(attribute.key.as_str(), &attribute.value);
        }
    }
    let mut values = Map::new();
    scope.declare("local", Value::Object(values.clone()));
    loop {
        let ready: Vec<(&str, Value)> = pending
            .iter()
            .filter_map(|(name, expression)| Some((*name, scope.evaluate(expression, decoder.text()).ok()?)))
            .collect();
        if ready.is_empty() || scope.is_exhausted() {
            break;
        }
        for (name, value) in ready {
            pending.remove(name);
            values.insert(name.to_owned(), value);
        }
        scope.declare("local", Value::Object(values.clone()));
    }
    let mut said = BTreeSet::new();
    for (name, expression) in pending {
        if said.insert(name) {
            decoder.evaluate(expression, scope);
        }
    }
}

/// Warnings and errors of a decoder, apart; those of the file `main` in the order of their places.
pub(super) fn split(diagnostics: Diagnostics, main: &str) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
    let mut all = diagnostics.0;
    all.sort_by_key(|diagnostic| if diagnostic.file == main { diagnostic.span.start + 1 } else { 0 });
    all.into_iter().partition(|diagnostic| diagnostic.severity == Severity::Warning)
}
