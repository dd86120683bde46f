//! Runs a parsed template.

use super::Failure;
use super::Functions;
use super::ITEMS_MAX;
use super::TEXT_MAX;
use super::Template;
use super::format::Out;
use super::format::print;
use super::tree::Branch;
use super::tree::Command;
use super::tree::Constant;
use super::tree::Node;
use super::tree::Operand;
use super::tree::Pipe;
use super::tree::Word;
use super::value::Key;
use super::value::Value;

/// Deepest recursion of templates.
const DEPTH_MAX: usize = 60;
/// Bytes or items of arguments that cost one more step.
const STEP_SIZE: usize = 16;

/// What follows a node.
enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'a> {
    template: &'a Template,
    functions: &'a Functions<'a>,
    out: Out,
    /// Name and value; inner scopes last.
    variables: Vec<(&'a str, Value)>,
    /// The template that runs, by its name.
    current: &'a str,
    depth: usize,
    steps: usize,
}

pub(super) fn run(template: &Template, data: &Value, functions: &Functions<'_>) -> Result<String, String> {
    let mut run = Run {
        template,
        functions,
        out: Out::new(TEXT_MAX),
        variables: vec![("$", data.clone())],
        current: &template.name,
        depth: 0,
        steps: 0,
    };
    run.list(data, &template.tree.body)?;
    Ok(run.out.into_text())
}

impl<'a> Run<'a> {
    /// An error at a place of the template.
    fn error<T>(
        &self,
        at: usize,
        what: &dyn std::fmt::Display,
        message: impl std::fmt::Display,
    ) -> Result<T, String> {
        let before = &self.template.source[..at.min(self.template.source.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        let (name, current) = (&self.template.name, self.current);
        Err(format!("template: {name}:{line}:{column}: executing \"{current}\" at <{what}>: {message}"))
    }

    fn step(&mut self, cost: usize, at: usize, what: &dyn std::fmt::Display) -> Result<(), String> {
        self.steps += cost;
        let most = self.template.steps;
        if self.steps > most {
            return self.error(at, what, format_args!("the template takes more than {most} steps"));
        }
        Ok(())
    }

    fn list(&mut self, dot: &Value, nodes: &'a [Node]) -> Result<Flow, String> {
        for node in nodes {
            match self.node(dot, node)? {
                Flow::Next => {}
                stop => return Ok(stop),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value, node: &'a Node) -> Result<Flow, String> {
        match node {
            Node::Text(text) => {
                if self.out.push(text).is_err() {
                    return self.error(0, &"text", format_args!("more than {TEXT_MAX} bytes of output"));
                }
            }
            Node::Action(pipe) => {
                let value = self.pipeline(dot, pipe)?;
                if pipe.variables.is_empty() && print(&mut self.out, &value).is_err() {
                    return self.error(pipe.at, pipe, format_args!("more than {TEXT_MAX} bytes of output"));
                }
            }
            Node::If(branch) => return self.branch(dot, branch, false),
            Node::With(branch) => return self.branch(dot, branch, true),
            Node::Range(branch) => return self.range(dot, branch),
            Node::Template { at, name, pipe } => self.call_template(dot, *at, name, pipe.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(&mut self, dot: &Value, branch: &'a Branch, with: bool) -> Result<Flow, String> {
        let scope = self.variables.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let flow = if value.truth() {
            self.list(if with { &value } else { dot }, &branch.body)
        } else {
            branch.otherwise.as_ref().map_or(Ok(Flow::Next), |nodes| self.list(dot, nodes))
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(&mut self, dot: &Value, branch: &'a Branch) -> Result<Flow, String> {
        let scope = self.variables.len();
        let pipe = &branch.pipe;
        // The variables of a range are set per round, not by the pipeline.
        let over = self.commands(dot, pipe)?;
        let rounds: Box<dyn Iterator<Item = (Value, Value)>> = match over.viewed() {
            Value::Missing | Value::Nil => Box::new(std::iter::empty()),
            Value::Int(count) if pipe.variables.len() < 2 => {
                Box::new((0..count).map(|number| (Value::Int(number), Value::Int(number))))
            }
            Value::Uint(count) if pipe.variables.len() < 2 => {
                Box::new((0..count).map(|number| (Value::Uint(number), Value::Uint(number))))
            }
            Value::Int(_) | Value::Uint(_) => {
                return self.error(pipe.at, pipe, "can't use it to iterate over more than one variable");
            }
            Value::List(items) => {
                let count = items.len();
                Box::new((0..count).map(move |index| (Value::Int(index as i64), items[index].clone())))
            }
            Value::Map(map) => {
                Box::new(map.entries().into_iter().map(|(key, value)| (Value::from(key), value)))
            }
            other => {
                let mut shown = Out::new(200);
                // Cut off when it is long.
                let _ = print(&mut shown, &other);
                return self.error(
                    pipe.at,
                    pipe,
                    format_args!("range can't iterate over {}", shown.into_text()),
                );
            }
        };
        let mut any = false;
        for (key, element) in rounds {
            any = true;
            self.step(1, pipe.at, pipe)?;
            self.variables.truncate(scope);
            match pipe.variables.as_slice() {
                [] => {}
                [name] => self.set(pipe, name, element.clone()),
                [first, second, ..] => {
                    self.set(pipe, first, key);
                    self.set(pipe, second, element.clone());
                }
            }
            if let Flow::Break = self.list(&element, &branch.body)? {
                break;
            }
        }
        self.variables.truncate(scope);
        match &branch.otherwise {
            Some(nodes) if !any => {
                let flow = self.list(dot, nodes);
                self.variables.truncate(scope);
                flow
            }
            _ => Ok(Flow::Next),
        }
    }

    fn set(&mut self, pipe: &Pipe, name: &'a str, value: Value) {
        if pipe.assigns
            && let Some(known) = self.variables.iter_mut().rev().find(|(known, _)| *known == name)
        {
            known.1 = value;
            return;
        }
        self.variables.push((name, value));
    }

    fn call_template(
        &mut self,
        dot: &Value,
        at: usize,
        name: &'a str,
        pipe: Option<&'a Pipe>,
    ) -> Result<(), String> {
        let what = format!("{{{{template {name:?}}}}}");
        let Some(body) = self.template.tree.defined.get(name) else {
            return self.error(at, &what, format_args!("template {name:?} not defined"));
        };
        if self.depth == DEPTH_MAX {
            return self.error(at, &what, format_args!("exceeded maximum template depth ({DEPTH_MAX})"));
        }
        self.step(1, at, &what)?;
        let data = match pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::Missing,
        };
        let variables = std::mem::replace(&mut self.variables, vec![("$", data.clone())]);
        let caller = std::mem::replace(&mut self.current, name);
        self.depth += 1;
        self.list(&data, body)?;
        self.depth -= 1;
        self.current = caller;
        self.variables = variables;
        Ok(())
    }

    fn pipeline(&mut self, dot: &Value, pipe: &'a Pipe) -> Result<Value, String> {
        let value = self.commands(dot, pipe)?;
        for name in &pipe.variables {
            self.set(pipe, name, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, dot: &Value, pipe: &'a Pipe) -> Result<Value, String> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        Ok(value.unwrap_or_default())
    }

    fn command(&mut self, dot: &Value, command: &'a Command, piped: Option<Value>) -> Result<Value, String> {
        let first = &command.words[0];
        self.step(1, first.at, command)?;
        match &first.operand {
            Operand::Identifier(name) => self.function(dot, name, command, piped),
            Operand::Field(names) => {
                let arguments = self.arguments(dot, command, piped)?;
                self.fields(first, dot.clone(), names, &arguments)
            }
            Operand::Variable(names) => {
                let receiver = self.variable(&names[0]);
                let arguments = self.arguments(dot, command, piped)?;
                if names.len() == 1 && !arguments.is_empty() {
                    return self.error(
                        first.at,
                        first,
                        format_args!("can't give argument to non-function {first}"),
                    );
                }
                self.fields(first, receiver, &names[1..], &arguments)
            }
            Operand::Chain(inner, names) => {
                let receiver = self.word(dot, inner)?;
                let arguments = self.arguments(dot, command, piped)?;
                self.fields(first, receiver, names, &arguments)
            }
            _ if command.words.len() > 1 || piped.is_some() => {
                self.error(first.at, first, format_args!("can't give argument to non-function {first}"))
            }
            Operand::Nil => self.error(first.at, first, "nil is not a command"),
            _ => self.word(dot, first),
        }
    }

    fn arguments(
        &mut self,
        dot: &Value,
        command: &'a Command,
        piped: Option<Value>,
    ) -> Result<Vec<Value>, String> {
        let mut arguments = Vec::with_capacity(command.words.len());
        for word in &command.words[1..] {
            arguments.push(self.word(dot, word)?);
        }
        arguments.extend(piped);
        Ok(arguments)
    }

    /// An operand on its own.
    fn word(&mut self, dot: &Value, word: &'a Word) -> Result<Value, String> {
        match &word.operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Nil => Ok(Value::Nil),
            Operand::Bool(truth) => Ok(Value::Bool(*truth)),
            Operand::Number { value, .. } => Ok(match value {
                Constant::Int(number) => Value::Int(*number),
                Constant::Uint(number) => Value::Uint(*number),
                Constant::Float(number) => Value::Float(*number),
            }),
            Operand::Text { text, .. } => Ok(Value::from(text)),
            Operand::Field(names) => self.fields(word, dot.clone(), names, &[]),
            Operand::Variable(names) => {
                let receiver = self.variable(&names[0]);
                self.fields(word, receiver, &names[1..], &[])
            }
            Operand::Identifier(name) => self.called(word.at, word, name, &[]),
            Operand::Chain(inner, names) => {
                if let Operand::Nil = inner.operand {
                    return self.error(
                        inner.at,
                        inner,
                        format_args!("indirection through explicit nil in {word}"),
                    );
                }
                let receiver = self.word(dot, inner)?;
                self.fields(word, receiver, names, &[])
            }
            Operand::Pipe(pipe) => self.pipeline(dot, pipe),
        }
    }

    fn variable(&self, name: &str) -> Value {
        let found = self.variables.iter().rev().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn function(
        &mut self,
        dot: &Value,
        name: &'a str,
        command: &'a Command,
        piped: Option<Value>,
    ) -> Result<Value, String> {
        let at = command.words[0].at;
        if let "and" | "or" = name {
            // Only as many arguments are looked at as are needed.
            let mut value = None;
            for word in &command.words[1..] {
                let next = self.word(dot, word)?;
                if next.truth() == (name == "or") {
                    return Ok(next);
                }
                value = Some(next);
            }
            return match piped.or(value) {
                Some(value) => Ok(value),
                None => self.error(
                    at,
                    command,
                    format_args!("wrong number of args for {name}: want at least 1 got 0"),
                ),
            };
        }
        let arguments = self.arguments(dot, command, piped)?;
        self.called(at, command, name, &arguments)
    }

    fn called(
        &mut self,
        at: usize,
        what: &dyn std::fmt::Display,
        name: &str,
        arguments: &[Value],
    ) -> Result<Value, String> {
        let size: usize = arguments.iter().map(size).sum();
        self.step(1 + size / STEP_SIZE, at, what)?;
        let value = match self.functions.call(name, arguments) {
            Ok(value) => value,
            Err(Failure::Arguments(message)) => return self.error(at, what, message),
            Err(Failure::Called(message)) => {
                return self.error(at, what, format_args!("error calling {name}: {message}"));
            }
        };
        match &value {
            Value::Text(text) if text.len() > TEXT_MAX => {
                self.error(at, what, format_args!("error calling {name}: more than {TEXT_MAX} bytes"))
            }
            Value::List(items) if items.len() > ITEMS_MAX => {
                self.error(at, what, format_args!("error calling {name}: more than {ITEMS_MAX} items"))
            }
            _ => Ok(value),
        }
    }

    /// Field after field; arguments are for the last one.
    fn fields(
        &mut self,
        word: &'a Word,
        receiver: Value,
        names: &'a [String],
        arguments: &[Value],
    ) -> Result<Value, String> {
        let mut value = receiver;
        for (index, name) in names.iter().enumerate() {
            let given = if index + 1 == names.len() { arguments } else { &[] };
            value = self.field(word, &value, name, given)?;
        }
        Ok(value)
    }

    fn field(&self, word: &Word, receiver: &Value, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let fail = |message: String| self.error(word.at, word, message);
        let mut receiver = receiver.clone();
        if let Value::Object(object) = &receiver {
            match object.member(name, arguments) {
                Some(Ok(value)) => return Ok(value),
                Some(Err(message)) => return fail(format!("error calling {name}: {message}")),
                None => receiver = receiver.viewed(),
            }
        }
        match &receiver {
            Value::Missing if self.template.strict => fail(format!("nil data; no entry for key {name:?}")),
            Value::Missing => Ok(Value::Missing),
            Value::Nil => fail(format!("nil pointer evaluating interface {{}}.{name}")),
            Value::Struct(of) => match of.field(name) {
                Some(_) if !arguments.is_empty() => {
                    fail(format!("{name} has arguments but cannot be invoked as function"))
                }
                Some(value) => Ok(value.clone()),
                None => fail(format!("can't evaluate field {name} in type {}", of.type_name())),
            },
            Value::Map(_) if !arguments.is_empty() => {
                fail(format!("{name} is not a method but has arguments"))
            }
            Value::Map(map) => match map.get(&Key::from(name)) {
                Some(value) => Ok(value),
                None if self.template.strict => fail(format!("map has no entry for key {name:?}")),
                None => Ok(Value::Missing),
            },
            other => fail(format!("can't evaluate field {name} in type {}", other.type_name())),
        }
    }
}

/// Roughly how much work a value makes for a function.
fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        _ => 0,
    }
}
