//! Attributes of nodes, and the operators that compare them.

use std::cell::OnceCell;

use regex::Regex;

use crate::model::constraint::Constraint;

use super::node::NodeView;
use super::version::Style;
use super::version::VersionBounds;

/// One side of a constraint, or the attribute of a spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Literal(Box<str>),
    NodeId,
    NodeName,
    Datacenter,
    NodeClass,
    NodePool,
    Attribute(Box<str>),
    Meta(Box<str>),
    /// An interpolation that no node has a value for.
    Unknown,
}

impl Target {
    /// Reads `${…}` or a literal. Text around an interpolation makes it a literal or an unknown one, as in Nomad.
    pub(super) fn parse(text: &str) -> Self {
        if !text.starts_with("${") {
            return Self::Literal(text.into());
        }
        match text {
            "${node.unique.id}" => return Self::NodeId,
            "${node.unique.name}" => return Self::NodeName,
            "${node.datacenter}" => return Self::Datacenter,
            "${node.class}" => return Self::NodeClass,
            "${node.pool}" => return Self::NodePool,
            _ => {}
        }
        let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Self::Unknown;
        };
        if let Some(name) = name.strip_prefix("attr.") {
            Self::Attribute(name.into())
        } else if let Some(name) = name.strip_prefix("meta.") {
            Self::Meta(name.into())
        } else {
            Self::Unknown
        }
    }

    /// The value on `node`, if it has one.
    pub(super) fn resolve<'a>(&'a self, node: &'a NodeView) -> Option<&'a str> {
        let info = &node.info;
        match self {
            Self::Literal(text) => Some(text),
            Self::NodeId => Some(&node.id_text),
            Self::NodeName => Some(&info.name),
            Self::Datacenter => Some(&info.datacenter),
            Self::NodeClass => Some(&info.node_class),
            Self::NodePool => Some(node.pool()),
            Self::Attribute(name) => info.attributes.get(&**name).map(String::as_str),
            Self::Meta(name) => node.meta(name),
            Self::Unknown => None,
        }
    }

    /// The value differs between nodes of one class.
    pub(super) fn is_unique(&self) -> bool {
        match self {
            Self::NodeId | Self::NodeName => true,
            Self::Attribute(name) | Self::Meta(name) => name.starts_with("unique."),
            _ => false,
        }
    }
}

/// A comparison, with its pattern or version compiled at first use.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) left: Target,
    pub(super) right: Target,
    operator: Box<str>,
    /// Compiled from a literal right side.
    regex: OnceCell<Option<Regex>>,
    bounds: OnceCell<Option<VersionBounds>>,
}

impl Comparison {
    /// Prepares `left operator right`.
    pub(super) fn new(left: &str, operator: &str, right: &str) -> Self {
        Self {
            left: Target::parse(left),
            right: Target::parse(right),
            operator: operator.into(),
            regex: OnceCell::new(),
            bounds: OnceCell::new(),
        }
    }

    /// Prepares a constraint.
    pub(super) fn of(constraint: &Constraint) -> Self {
        Self::new(&constraint.left, &constraint.operand, &constraint.right)
    }

    /// Nodes of one class may give different answers.
    pub(super) fn is_unique(&self) -> bool {
        self.left.is_unique() || self.right.is_unique()
    }

    /// Whether it holds on `node`.
    pub(super) fn holds_on(&self, node: &NodeView) -> bool {
        self.holds(self.left.resolve(node), self.right.resolve(node))
    }

    /// Whether it holds between two values, `None` meaning that there is none.
    pub(super) fn holds(&self, left: Option<&str>, right: Option<&str>) -> bool {
        match &*self.operator {
            "!=" | "not" => return left != right,
            "is_set" => return left.is_some(),
            "is_not_set" => return left.is_none(),
            _ => {}
        }
        let (Some(left), Some(right)) = (left, right) else {
            return false;
        };
        match &*self.operator {
            "=" | "==" | "is" | "" => left == right,
            "<" => compare(left, right).is_lt(),
            "<=" => compare(left, right).is_le(),
            ">" => compare(left, right).is_gt(),
            ">=" => compare(left, right).is_ge(),
            "version" => self.within(left, right, Style::Lenient),
            "semver" => self.within(left, right, Style::Strict),
            "regexp" => self.matches(left, right),
            "set_contains" | "set_contains_all" => {
                items(right).all(|wanted| items(left).any(|present| present == wanted))
            }
            "set_contains_any" => items(right).any(|wanted| items(left).any(|present| present == wanted)),
            _ => false,
        }
    }

    fn within(&self, version: &str, bounds: &str, style: Style) -> bool {
        if matches!(self.right, Target::Literal(_)) {
            let parsed = self.bounds.get_or_init(|| VersionBounds::parse(bounds, style));
            return parsed.as_ref().is_some_and(|bounds| bounds.contain(version));
        }
        VersionBounds::parse(bounds, style).is_some_and(|bounds| bounds.contain(version))
    }

    fn matches(&self, text: &str, pattern: &str) -> bool {
        if matches!(self.right, Target::Literal(_)) {
            let compiled = self.regex.get_or_init(|| Regex::new(pattern).ok());
            return compiled.as_ref().is_some_and(|regex| regex.is_match(text));
        }
        Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// As integers when both are, else as numbers when both are, else as text.
fn compare(left: &str, right: &str) -> std::cmp::Ordering {
    if let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) {
        return left.cmp(&right);
    }
    if let (Ok(left), Ok(right)) = (left.parse::<f64>(), right.parse::<f64>()) {
        return left.total_cmp(&right);
    }
    left.cmp(right)
}

/// Whether `pattern`, in which `*` stands for any text, matches all of `text`.
pub(super) fn glob_matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}
