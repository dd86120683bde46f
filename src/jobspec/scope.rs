//! Evaluation of expressions, with names of the run time left alone as text.
//!
//! Only `var`, `local` and the iterators of `dynamic` blocks have a value when a job is read. Every other name, such as
//! `${attr.kernel.name}` or `${NOMAD_PORT_http}`, is put back as it was written, for the scheduler or the agent.

use std::collections::BTreeSet;
use std::ops::Range;

use hcl::Value;
use hcl::eval::Context;
use hcl::eval::Error as EvalError;
use hcl::eval::ErrorKind;
use hcl::eval::Evaluate;
use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::expr::ForExpr;
use hcl_edit::expr::Object;
use hcl_edit::expr::ObjectKey;
use hcl_edit::template::ForDirective;
use hcl_edit::visit_mut::VisitMut;
use hcl_edit::visit_mut::visit_expr_mut;

use super::functions;

/// What an expression may refer to.
#[derive(Clone)]
pub(super) struct Scope {
    context: Context<'static>,
    known: BTreeSet<String>,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) summary: String,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn new(summary: &str, detail: impl Into<String>) -> Self {
        Self { summary: summary.to_owned(), detail: detail.into() }
    }
}

impl Scope {
    /// A scope with all functions and no names. `filesystem`: whether functions may read files.
    pub(super) fn new(filesystem: bool) -> Self {
        let mut context = Context::new();
        functions::declare_all(&mut context, filesystem);
        Self { context, known: BTreeSet::new() }
    }

    /// Gives `name` a value.
    pub(super) fn declare(&mut self, name: &str, value: Value) {
        let Ok(identifier) = hcl::Identifier::new(name) else { return };
        self.context.declare_var(identifier, value);
        self.known.insert(name.to_owned());
    }

    /// The value of `expression`, which stands in `text`; an empty text when its positions mean nothing.
    ///
    /// # Errors
    /// In Nomad's words: an unknown function, a missing attribute of `var`, an operand of the wrong type.
    pub(super) fn evaluate(&self, expression: &Expression, text: &str) -> Result<Value, Failure> {
        if let Some(literal) = literal(expression) {
            return Ok(literal);
        }
        let mut rewritten = expression.clone();
        let mut placeholders = Placeholders { scope: self, locals: Vec::new(), text };
        placeholders.visit_expr_mut(&mut rewritten);
        let expression: hcl::Expression = rewritten.into();
        expression.evaluate(&self.context).map_err(|error| failure(&error))
    }
}

/// The value of an expression that needs no evaluation, the common case.
fn literal(expression: &Expression) -> Option<Value> {
    match expression {
        Expression::Null(_) => Some(Value::Null),
        Expression::Bool(value) => Some(Value::Bool(*value.value())),
        Expression::String(value) => Some(Value::String(value.value().clone())),
        _ => None,
    }
}

/// Replaces names that have no value by their own text, and evaluates what must not be evaluated eagerly.
struct Placeholders<'a> {
    scope: &'a Scope,
    /// Names that `for` expressions around the current place introduce.
    locals: Vec<String>,
    text: &'a str,
}

impl Placeholders<'_> {
    fn is_known(&self, name: &str) -> bool {
        self.scope.known.contains(name) || self.locals.iter().any(|local| local == name)
    }

    /// The written form of `expression`, when its root name has no value.
    fn placeholder(&self, expression: &Expression) -> Option<String> {
        let root = match expression {
            Expression::Variable(name) => name.as_str(),
            Expression::Traversal(traversal) => match &traversal.expr {
                Expression::Variable(name) => name.as_str(),
                _ => return None,
            },
            _ => return None,
        };
        if self.is_known(root) {
            return None;
        }
        Some(format!("${{{}}}", self.written(expression)))
    }

    /// The expression as it stands in the text; without a text, as it would be formatted.
    fn written(&self, expression: &Expression) -> String {
        let span: Option<Range<usize>> = expression.span();
        match span.and_then(|span| self.text.get(span)) {
            Some(written) => written.trim().to_owned(),
            None => expression.to_string().trim().to_owned(),
        }
    }

    /// `can` and `try` look at errors of their arguments; `convert` has a type as its second argument.
    fn special_call(&mut self, expression: &mut Expression) -> bool {
        let Expression::FuncCall(call) = expression else { return false };
        let name = call.name.name.as_str().to_owned();
        match name.as_str() {
            "can" | "try" if self.locals.is_empty() => {
                let values: Vec<_> =
                    call.args.iter().map(|arg| self.scope.evaluate(arg, self.text)).collect();
                if name == "can" {
                    *expression = Expression::from(values.iter().all(Result::is_ok));
                    return true;
                }
                if let Some(value) = values.into_iter().flatten().next() {
                    *expression = hcl::Expression::from(value).into();
                    return true;
                }
                false
            }
            "convert" if call.args.len() == 2 => {
                let written = call.args.get(1).map(|arg| self.written(arg));
                if let Some(first) = call.args.get_mut(0) {
                    self.visit_expr_mut(first);
                }
                if let (Some(second), Some(written)) = (call.args.get_mut(1), written) {
                    *second = Expression::from(written);
                }
                true
            }
            _ => false,
        }
    }

    fn visit_for(&mut self, node: &mut ForExpr) {
        self.visit_expr_mut(&mut node.intro.collection_expr);
        let outer = self.locals.len();
        self.locals.extend(node.intro.key_var.as_ref().map(|key| key.as_str().to_owned()));
        self.locals.push(node.intro.value_var.as_str().to_owned());
        if let Some(key) = &mut node.key_expr {
            self.visit_expr_mut(key);
        }
        self.visit_expr_mut(&mut node.value_expr);
        if let Some(condition) = &mut node.cond {
            self.visit_expr_mut(&mut condition.expr);
        }
        self.locals.truncate(outer);
    }
}

impl VisitMut for Placeholders<'_> {
    fn visit_expr_mut(&mut self, node: &mut Expression) {
        if let Some(text) = self.placeholder(node) {
            *node = Expression::from(text);
            return;
        }
        if self.special_call(node) {
            return;
        }
        match node {
            Expression::ForExpr(node) => self.visit_for(node),
            _ => visit_expr_mut(self, node),
        }
    }

    // Keys may be expressions, but the visitor hands them out for reading only: build the object anew.
    fn visit_object_mut(&mut self, node: &mut Object) {
        let mut rebuilt = Object::new();
        for (key, value) in node.iter() {
            let mut key = key.clone();
            let mut value = value.clone();
            if let ObjectKey::Expression(expression) = &mut key {
                self.visit_expr_mut(expression);
            }
            self.visit_expr_mut(value.expr_mut());
            rebuilt.insert(key, value);
        }
        *node = rebuilt;
    }

    fn visit_for_directive_mut(&mut self, node: &mut ForDirective) {
        let node = &mut node.for_expr;
        self.visit_expr_mut(&mut node.collection_expr);
        let outer = self.locals.len();
        self.locals.extend(node.key_var.as_ref().map(|key| key.as_str().to_owned()));
        self.locals.push(node.value_var.as_str().to_owned());
        self.visit_template_mut(&mut node.template);
        self.locals.truncate(outer);
    }
}

fn failure(error: &EvalError) -> Failure {
    match error.kind() {
        ErrorKind::UndefinedVar(name) => {
            Failure::new("Unknown variable", format!("There is no variable named \"{name}\"."))
        }
        ErrorKind::UndefinedFunc(name) => Failure::new(
            "Call to unknown function",
            format!("There is no function named \"{}\".", name.name.as_str()),
        ),
        ErrorKind::NoSuchKey(key) => Failure::new(
            "Unsupported attribute",
            format!("This object does not have an attribute named \"{key}\"."),
        ),
        ErrorKind::Index(_) => Failure::new(
            "Invalid index",
            "The given key does not identify an element in this collection value.",
        ),
        ErrorKind::UnaryOp(_, _) | ErrorKind::BinaryOp(_, _, _) => {
            Failure::new("Invalid operand", capitalized(&error.kind().to_string()))
        }
        ErrorKind::FuncCall(name, message) => Failure::new(
            "Error in function call",
            format!("Call to function \"{}\" failed: {message}.", name.name.as_str()),
        ),
        ErrorKind::KeyExists(key) => {
            Failure::new("Duplicate object key", format!("Two different items produced the key \"{key}\"."))
        }
        other => Failure::new("Invalid expression", capitalized(&other.to_string())),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
