//! Evaluation of expressions, with names of the run time left alone as text.
//!
//! Only `var`, `local` and the iterators of `dynamic` blocks have a value when a job is read. Every other name, such as
//! `${attr.kernel.name}` or `${NOMAD_PORT_http}`, is put back as it was written, for the scheduler or the agent.
//!
//! The parser's own library could evaluate as well, but it neither converts between types as HCL does, nor knows places of
//! errors within an expression, nor limits the work that an expression may cause. This is the one place that does.

mod operators;
mod template;
mod traversal;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use hcl_edit::Span;
use hcl_edit::expr::Conditional;
use hcl_edit::expr::Expression;
use hcl_edit::expr::ForExpr;
use hcl_edit::expr::FuncCall;
use hcl_edit::expr::Object;
use hcl_edit::expr::ObjectKey;

use super::functions;
use super::functions::Args;
use super::suggest::did_you_mean;
use super::types::TypeExpr;
use super::value::Map;
use super::value::Number;
use super::value::Value;

/// Bytes of values that the expressions of one file may produce, all intermediate results counted.
const MAX_PRODUCED: usize = 64 * 1024 * 1024;

/// What expressions may refer to, and what is left of the work they may cause together.
#[derive(Clone)]
pub(super) struct Scope {
    names: BTreeMap<String, Rc<Value>>,
    filesystem: bool,
    /// Whether names without a value are errors, and not names of the run time.
    closed: bool,
    /// Whether functions may be called.
    functions: bool,
    meter: Rc<Meter>,
}

/// Counts what expressions produce.
struct Meter {
    left: Cell<usize>,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) summary: String,
    pub(super) detail: String,
    /// The part of the text that is to blame, when it is not the whole expression.
    pub(super) span: Option<Range<usize>>,
}

impl Failure {
    pub(super) fn new(summary: &str, detail: impl Into<String>) -> Self {
        Self { summary: summary.to_owned(), detail: detail.into(), span: None }
    }

    /// Blames `node`, unless a part of it is blamed already.
    fn at(mut self, node: &impl Span) -> Self {
        self.span = self.span.or_else(|| node.span());
        self
    }
}

impl Scope {
    /// A scope without names. `filesystem`: whether functions may read files.
    pub(super) fn new(filesystem: bool) -> Self {
        let meter = Rc::new(Meter { left: Cell::new(MAX_PRODUCED) });
        Self { names: BTreeMap::new(), filesystem, closed: false, functions: true, meter }
    }

    /// A scope for values that must be written out: neither names nor functions.
    pub(super) fn literal() -> Self {
        Self { closed: true, functions: false, ..Self::new(false) }
    }

    /// A scope with nothing in it but one name; counts what is produced together with this one.
    pub(super) fn only(&self, name: &str, value: Value) -> Self {
        let names = BTreeMap::from([(name.to_owned(), Rc::new(value))]);
        Self { names, filesystem: false, closed: true, functions: true, meter: Rc::clone(&self.meter) }
    }

    /// Gives `name` a value.
    pub(super) fn declare(&mut self, name: &str, value: Value) {
        self.names.insert(name.to_owned(), Rc::new(value));
    }

    /// The value of `expression`, which stands in `text`; an empty text when its positions mean nothing.
    ///
    /// # Errors
    /// In Nomad's words: an unknown function, a missing attribute of `var`, an operand of the wrong type.
    pub(super) fn evaluate(&self, expression: &Expression, text: &str) -> Result<Value, Failure> {
        let mut evaluator = Evaluator { scope: self, locals: Vec::new(), text };
        let value = evaluator.expression(expression);
        // `try` and the branch of a condition that is not taken hide errors, but not this one.
        if self.meter.left.get() == 0 { Err(exhausted()) } else { value }
    }

    /// True when expressions have produced all that they may.
    pub(super) fn is_exhausted(&self) -> bool {
        self.meter.left.get() == 0
    }
}

fn not_allowed() -> Failure {
    Failure::new(NOT_ALLOWED, "Variables may not be used here.")
}

/// The summary of a name where none may be.
pub(super) const NOT_ALLOWED: &str = "Variables not allowed";

fn exhausted() -> Failure {
    let detail = format!("The expressions of this file produce more than {} MiB.", MAX_PRODUCED >> 20);
    Failure::new("Expressions too large", detail)
}

/// One evaluation.
struct Evaluator<'a> {
    scope: &'a Scope,
    /// Names that `for` expressions around the current place introduce, innermost last.
    locals: Vec<(String, Value)>,
    text: &'a str,
}

type Evaluated = Result<Value, Failure>;

impl Evaluator<'_> {
    /// Takes the size of a new value off the limit.
    fn produced(&self, value: Value) -> Evaluated {
        self.charge(value.size())?;
        Ok(value)
    }

    fn charge(&self, size: usize) -> Result<(), Failure> {
        let left = self.scope.meter.left.get().saturating_sub(size);
        self.scope.meter.left.set(left);
        if left == 0 { Err(exhausted()) } else { Ok(()) }
    }

    /// The value that a `for` around the current place gives to a name.
    fn local(&self, name: &str) -> Option<&Value> {
        self.locals.iter().rev().find(|(local, _)| local == name).map(|(_, value)| value)
    }

    /// The value of a name, or `None` for one of the run time.
    fn lookup(&self, name: &str) -> Option<&Value> {
        self.local(name).or_else(|| self.scope.names.get(name).map(Rc::as_ref))
    }

    fn expression(&mut self, expression: &Expression) -> Evaluated {
        let value = match expression {
            Expression::Null(_) => Ok(Value::Null),
            Expression::Bool(flag) => Ok(Value::Bool(*flag.value())),
            Expression::Number(number) => Ok(Value::Number(self.number(number))),
            Expression::String(text) => Ok(Value::String(text.value().clone())),
            Expression::Array(items) => {
                let items: Result<Vec<Value>, Failure> =
                    items.iter().map(|item| self.expression(item)).collect();
                return items.map(Value::Array);
            }
            Expression::Object(object) => return self.object(object),
            Expression::StringTemplate(template) => {
                let elements: Vec<_> = template.iter().collect();
                return self.template(&elements);
            }
            Expression::HeredocTemplate(heredoc) => return self.heredoc(heredoc),
            Expression::Parenthesis(inner) => return self.expression(inner.inner()),
            Expression::Variable(name) => {
                let known = self.lookup(name.as_str()).cloned();
                match known {
                    None if self.scope.closed => Err(not_allowed()),
                    known => Ok(known.unwrap_or_else(|| Value::String(format!("${{{}}}", name.as_str())))),
                }
            }
            Expression::Traversal(traversal) => self.traversal(traversal),
            Expression::Conditional(conditional) => return self.conditional(conditional),
            Expression::FuncCall(call) => self.call(call),
            Expression::UnaryOp(operation) => self.unary(operation),
            Expression::BinaryOp(operation) => self.binary(operation),
            Expression::ForExpr(node) => return self.for_expression(node),
        };
        value.and_then(|value| self.produced(value)).map_err(|failure| failure.at(expression))
    }

    /// A number as it is written; the parser knows only those that fit into 64 bits.
    fn number(&self, node: &hcl_edit::Formatted<hcl_edit::Number>) -> Number {
        let number = node.value();
        match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Number::Whole(i128::from(whole)),
            (None, Some(whole)) => Number::Whole(i128::from(whole)),
            (None, None) => {
                let written = node.span().and_then(|span| self.text.get(span)).and_then(Number::parse);
                written.unwrap_or_else(|| Number::from_f64(number.as_f64().unwrap_or_default()))
            }
        }
    }

    fn object(&mut self, object: &Object) -> Evaluated {
        let mut out = Map::new();
        for (key, value) in object.iter() {
            let key = match key {
                ObjectKey::Ident(name) => name.as_str().to_owned(),
                ObjectKey::Expression(Expression::Variable(name)) => name.as_str().to_owned(),
                ObjectKey::Expression(expression) => self.key(expression)?,
            };
            self.charge(key.len())?;
            out.insert(key, self.expression(value.expr())?);
        }
        self.charge(out.len())?;
        Ok(Value::Object(out))
    }

    /// A key of an object that is computed.
    fn key(&mut self, expression: &Expression) -> Result<String, Failure> {
        if let Expression::Traversal(_) = expression {
            let detail = "If this expression is intended to be a reference, wrap it in parentheses. If it's instead \
                          intended as a literal name containing periods, wrap it in quotes to create a string literal.";
            return Err(Failure::new("Ambiguous attribute key", detail).at(expression));
        }
        let value = self.expression(expression)?;
        value.to_text().ok_or_else(|| {
            let detail = match value {
                Value::Null => "Can't use a null value as a key.".to_owned(),
                _ => "Can't use this value as a key: string required.".to_owned(),
            };
            Failure::new("Incorrect key type", detail).at(expression)
        })
    }

    fn conditional(&mut self, node: &Conditional) -> Evaluated {
        let condition = self.condition(&node.cond_expr)?;
        let (chosen, other) =
            if condition { (&node.true_expr, &node.false_expr) } else { (&node.false_expr, &node.true_expr) };
        let value = self.expression(chosen)?;
        // The other branch counts for the type of the result only; its errors do not matter.
        let Ok(other) = self.expression(other) else { return Ok(value) };
        if value.is_null() || other.is_null() {
            return Ok(value);
        }
        if value.is_collection() != other.is_collection() {
            let (yes, no) = if condition { (&value, &other) } else { (&other, &value) };
            let detail = format!(
                "The true and false result expressions must have consistent types. The 'true' value is {}, but the 'false' \
                 value is {}.",
                yes.type_name(),
                no.type_name()
            );
            return Err(Failure::new("Inconsistent conditional result types", detail).at(&node.true_expr));
        }
        match value.to_text() {
            Some(text) if other.is_string() => Ok(Value::String(text)),
            _ => Ok(value),
        }
    }

    fn condition(&mut self, expression: &Expression) -> Result<bool, Failure> {
        let value = self.expression(expression)?;
        if value.is_null() {
            let detail = "The condition value is null. Conditions must either be true or false.";
            return Err(Failure::new("Null condition", detail).at(expression));
        }
        value.to_bool().map_err(|_| {
            let detail = "The condition expression must be of type bool.";
            Failure::new("Incorrect condition type", detail).at(expression)
        })
    }

    /// Key and value of every element of what a `for` goes through.
    fn elements(&mut self, expression: &Expression) -> Result<Vec<(Value, Value)>, Failure> {
        let value = self.expression(expression)?;
        let failure = match pairs(value) {
            Ok(pairs) => return Ok(pairs),
            Err(Value::Null) => {
                let detail = "A null value cannot be used as the collection in a 'for' expression.";
                Failure::new("Iteration over null value", detail)
            }
            Err(other) => {
                let detail = format!(
                    "A value of type {} cannot be used as the collection in a 'for' expression.",
                    other.type_name()
                );
                Failure::new("Iteration over non-iterable value", detail)
            }
        };
        Err(failure.at(expression))
    }

    /// Runs `body` once for every element, with its names declared.
    fn each(
        &mut self,
        elements: Vec<(Value, Value)>,
        names: (Option<&str>, &str),
        mut body: impl FnMut(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let outer = self.locals.len();
        for (key, value) in elements {
            self.charge(1)?;
            if let Some(name) = names.0 {
                self.locals.push((name.to_owned(), key));
            }
            self.locals.push((names.1.to_owned(), value));
            let result = body(self);
            self.locals.truncate(outer);
            result?;
        }
        Ok(())
    }

    fn for_expression(&mut self, node: &ForExpr) -> Evaluated {
        let elements = self.elements(&node.intro.collection_expr)?;
        let key_name = node.intro.key_var.as_ref().map(|name| name.as_str());
        let names = (key_name, node.intro.value_var.as_str());
        let mut items = Vec::new();
        let mut object = Map::new();
        self.each(elements, names, |this| {
            if let Some(condition) = &node.cond
                && !this.condition(&condition.expr)?
            {
                return Ok(());
            }
            let key = node.key_expr.as_ref().map(|key| this.computed_key(key)).transpose()?;
            let value = this.expression(&node.value_expr)?;
            this.charge(1 + key.as_ref().map_or(0, String::len))?;
            match key {
                None => items.push(value),
                Some(key) if node.grouping => match object.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(group) => group.push(value),
                    other => *other = value,
                },
                Some(key) => {
                    if object.contains_key(&key) {
                        let detail = format!(
                            "Two different items produced the key {key:?} in this 'for' expression. If duplicates are \
                             expected, use the ellipsis (...) after the value expression to enable grouping by key."
                        );
                        return Err(Failure::new("Duplicate object key", detail));
                    }
                    object.insert(key, value);
                }
            }
            Ok(())
        })
        .map_err(|failure| failure.at(node))?;
        Ok(if node.key_expr.is_some() { Value::Object(object) } else { Value::Array(items) })
    }

    /// The key of a `for` that makes an object: unlike those of object literals, it is always an expression.
    fn computed_key(&mut self, expression: &Expression) -> Result<String, Failure> {
        let value = self.expression(expression)?;
        value.to_text().ok_or_else(|| {
            let detail = "The key expression produced a value that is no string.";
            Failure::new("Invalid object key", detail).at(expression)
        })
    }

    fn call(&mut self, call: &FuncCall) -> Evaluated {
        let name = call.name.name.as_str();
        if !self.scope.functions {
            return Err(Failure::new("Function calls not allowed", "Functions may not be called here."));
        }
        match name {
            "can" => {
                let values: Vec<Evaluated> = call.args.iter().map(|arg| self.expression(arg)).collect();
                return Ok(Value::Bool(values.iter().all(Result::is_ok)));
            }
            "try" => return self.attempt(call),
            "convert" if call.args.len() == 2 => return self.conversion(call),
            _ => {}
        }
        let Some(function) = functions::find(name).filter(|_| call.name.namespace.is_empty()) else {
            let hint = did_you_mean(name, functions::names());
            let hint = hint.map(|near| format!(" Did you mean {near:?}?")).unwrap_or_default();
            let detail = format!("There is no function named {name:?}.{hint}");
            return Err(Failure::new("Call to unknown function", detail).at(&call.name.name));
        };
        let mut values = Vec::new();
        let last = call.args.len().saturating_sub(1);
        for (index, arg) in call.args.iter().enumerate() {
            let value = self.expression(arg)?;
            match value {
                Value::Array(items) if index == last && call.args.expand_final() => values.extend(items),
                _ if index == last && call.args.expand_final() => {
                    let detail =
                        "The expanding argument (indicated by ...) must be of a tuple, list, or set type.";
                    return Err(Failure::new("Invalid expanding argument value", detail).at(arg));
                }
                value => values.push(value),
            }
        }
        function.call(&Args(values), self.scope.filesystem).map_err(|wrong| {
            let failure = wrong.failure(function);
            match wrong.argument().and_then(|index| call.args.get(index.min(last))) {
                Some(arg) => failure.at(arg),
                None => failure,
            }
        })
    }

    /// The value of the first argument that has one.
    fn attempt(&mut self, call: &FuncCall) -> Evaluated {
        let mut said = String::new();
        for arg in call.args.iter() {
            match self.expression(arg) {
                Ok(value) => return Ok(value),
                Err(failure) => said.push_str(&format!("\n- {}\n  {}", failure.summary, failure.detail)),
            }
        }
        let detail = if said.is_empty() {
            "Call to function \"try\" failed: at least one argument is required.".to_owned()
        } else {
            format!(
                "Call to function \"try\" failed: no expression succeeded:{said}\n\nAt least one expression must produce a \
                 successful result."
            )
        };
        Err(Failure::new("Error in function call", detail))
    }

    /// `convert(value, type)`, whose second argument is a type and not a value.
    fn conversion(&mut self, call: &FuncCall) -> Evaluated {
        let (Some(value), Some(kind)) = (call.args.get(0), call.args.get(1)) else { return Ok(Value::Null) };
        let kind = TypeExpr::from_expression(kind)
            .map_err(|why| Failure::new("Invalid type specification", why).at(kind))?;
        let converted = kind.convert(self.expression(value)?);
        converted.map_err(|why| {
            let detail = format!("Invalid value for \"value\" parameter: {why}.");
            Failure::new("Invalid function argument", detail).at(value)
        })
    }

    /// The expression as it stands in the text; without a text, as it would be formatted.
    fn written(&self, span: Option<Range<usize>>, otherwise: impl FnOnce() -> String) -> String {
        match span.and_then(|span| self.text.get(span)) {
            Some(written) => written.trim().to_owned(),
            None => otherwise().trim().to_owned(),
        }
    }
}

/// Key and value of every element of a collection, or the value that is none.
pub(super) fn pairs(collection: Value) -> Result<Vec<(Value, Value)>, Value> {
    match collection {
        Value::Array(items) => {
            Ok(items.into_iter().enumerate().map(|(index, item)| (Value::from(index), item)).collect())
        }
        Value::Object(map) | Value::Map(map) => {
            Ok(map.into_iter().map(|(key, value)| (Value::String(key), value)).collect())
        }
        other => Err(other),
    }
}
