//! The parsed form of templates, and how errors quote it.

use std::fmt;

/// A part of a template that prints or decides.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { at: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// `if`, `with` and `range`: a pipeline and two bodies.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Option<Vec<Node>>,
}

/// Commands, each fed with the result of the one before.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    pub(super) at: usize,
    /// Variables that receive the result, with their `$`.
    pub(super) variables: Vec<String>,
    /// They exist already: `=` instead of `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or operand with arguments; at least one word.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) words: Vec<Word>,
}

/// An operand and its place, in bytes from the begin of the template.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) at: usize,
    pub(super) operand: Operand,
}

#[derive(Clone, Debug)]
pub(super) enum Operand {
    Dot,
    Nil,
    Bool(bool),
    Number {
        text: String,
        value: Constant,
    },
    /// As written, and what it means.
    Text {
        quoted: String,
        text: String,
    },
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a`; the first is the variable with its `$`.
    Variable(Vec<String>),
    Identifier(String),
    /// `(…).a` and `nil.a`.
    Chain(Box<Word>, Vec<String>),
    Pipe(Box<Pipe>),
}

/// A number as written in a template.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Constant {
    Int(i64),
    Uint(u64),
    Float(f64),
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.assigns { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            command.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            word.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |f: &mut fmt::Formatter<'_>, names: &[String]| {
            names.iter().try_for_each(|name| write!(f, ".{name}"))
        };
        match &self.operand {
            Operand::Dot => f.write_str("."),
            Operand::Nil => f.write_str("nil"),
            Operand::Bool(truth) => truth.fmt(f),
            Operand::Number { text, .. } => f.write_str(text),
            Operand::Text { quoted, .. } => f.write_str(quoted),
            Operand::Field(names) => fields(f, names),
            Operand::Variable(names) => f.write_str(&names.join(".")),
            Operand::Identifier(name) => f.write_str(name),
            Operand::Chain(word, names) => {
                word.fmt(f)?;
                fields(f, names)
            }
            Operand::Pipe(pipe) => write!(f, "({pipe})"),
        }
    }
}
