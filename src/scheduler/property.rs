//! Attributes whose values matter across nodes: those of `spread` and of `distinct_property`. Allocations are counted
//! per value.

use hashbrown::HashMap;

use crate::model::constraint::Constraint;
use crate::model::constraint::Spread;

use super::attribute::Target;
use super::node::NodeView;
use super::unfit::Unfit;

/// The target that stands for all values not named.
const OTHERS: &str = "*";
/// The component of a node on which the attribute is missing, or whose value is not wanted.
const WORST: f64 = -1.0;
const DEFAULT_WEIGHT: f64 = 50.0;

/// What a property is watched for.
#[derive(Clone, Debug)]
enum Purpose {
    Spread {
        /// Share of the sum of all weights.
        weight: f64,
        /// Value to wanted number; empty for an even spread.
        desired: Vec<(Box<str>, f64)>,
    },
    Distinct {
        /// At most this many allocations per value.
        allowed: Result<u64, Box<str>>,
        scope: Scope,
    },
}

/// Whose allocations count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Group,
    Job,
}

/// An attribute and the number of allocations on nodes with each of its values.
#[derive(Clone, Debug)]
pub(super) struct Property {
    text: Box<str>,
    target: Target,
    purpose: Purpose,
    numbers: HashMap<Box<str>, u32>,
    values: Vec<(Box<str>, i64)>,
}

impl Property {
    fn new(text: &str, purpose: Purpose) -> Self {
        Self {
            text: text.into(),
            target: Target::parse(text),
            purpose,
            numbers: HashMap::new(),
            values: Vec::new(),
        }
    }

    /// The spread of a group of `count`, in a request whose spreads' weights add up to `weights`.
    pub(super) fn spread(spread: &Spread, weights: f64, count: f64) -> Self {
        let mut desired: Vec<(Box<str>, f64)> = spread
            .spread_target
            .iter()
            .map(|target| (target.value.as_str().into(), f64::from(target.percent) / 100.0 * count))
            .collect();
        let sum: f64 = desired.iter().map(|(_, number)| number).sum();
        if sum > 0.0 && sum < count && desired.iter().all(|(value, _)| &**value != OTHERS) {
            desired.push((OTHERS.into(), count - sum));
        }
        let weight = if weights > 0.0 { weight_of(spread) / weights } else { 0.0 };
        Self::new(&spread.attribute, Purpose::Spread { weight, desired })
    }

    /// A `distinct_property` constraint.
    pub(super) fn distinct(constraint: &Constraint, scope: Scope) -> Self {
        let count = constraint.right.trim();
        let allowed = if count.is_empty() { Ok(1) } else { count.parse().map_err(|_| count.into()) };
        Self::new(&constraint.left, Purpose::Distinct { allowed, scope })
    }

    pub(super) fn is_spread(&self) -> bool {
        matches!(self.purpose, Purpose::Spread { .. })
    }

    /// Nodes of one class may have different values.
    pub(super) fn is_unique(&self) -> bool {
        self.target.is_unique()
    }

    pub(super) fn scope(&self) -> Scope {
        match self.purpose {
            Purpose::Spread { .. } => Scope::Group,
            Purpose::Distinct { scope, .. } => scope,
        }
    }

    /// The number of the node's value; `None` when it has none.
    pub(super) fn value_of(&mut self, node: &NodeView) -> Option<u32> {
        let value = self.target.resolve(node)?;
        if let Some(number) = self.numbers.get(value) {
            return Some(*number);
        }
        let number = u32::try_from(self.values.len()).expect("fewer values than nodes");
        self.numbers.insert(value.into(), number);
        self.values.push((value.into(), 0));
        Some(number)
    }

    /// Counts `change` allocations more on nodes with this value.
    pub(super) fn count(&mut self, value: Option<u32>, change: i64) {
        if let Some(value) = value {
            self.values[value as usize].1 += change;
        }
    }

    /// For `distinct_property`: whether one more allocation may have this value.
    pub(super) fn check(&self, value: Option<u32>) -> Result<(), Unfit> {
        let Purpose::Distinct { allowed, .. } = &self.purpose else {
            return Ok(());
        };
        let allowed = match allowed {
            Ok(allowed) => *allowed,
            Err(count) => return Err(Unfit::InvalidProperty(count.clone())),
        };
        let Some(value) = value else {
            return Err(Unfit::MissingProperty(self.text.clone()));
        };
        let (value, used) = &self.values[value as usize];
        let used = u64::try_from(*used).unwrap_or(0);
        if used < allowed {
            return Ok(());
        }
        Err(Unfit::DistinctProperty { attribute: self.text.clone(), value: value.clone(), used })
    }

    /// For `spread`: the component of every value, in the order of their numbers.
    pub(super) fn spread_scores(&self) -> Vec<f64> {
        match &self.purpose {
            Purpose::Distinct { .. } => vec![0.0; self.values.len()],
            Purpose::Spread { desired, .. } if desired.is_empty() => self.even_scores(),
            Purpose::Spread { weight, desired } => self.target_scores(*weight, desired),
        }
    }

    fn even_scores(&self) -> Vec<f64> {
        let used = || self.values.iter().map(|(_, used)| *used).filter(|used| *used > 0);
        let (Some(min), Some(max)) = (used().min(), used().max()) else {
            return vec![0.0; self.values.len()];
        };
        let (min, max) = (min as f64, max as f64);
        let score = |used: f64| {
            if used != min {
                (min - used) / min
            } else if min == max {
                WORST
            } else {
                (max - min) / min
            }
        };
        self.values.iter().map(|(_, used)| score((*used).max(0) as f64)).collect()
    }

    fn target_scores(&self, weight: f64, desired: &[(Box<str>, f64)]) -> Vec<f64> {
        let target = |value: &str| desired.iter().find(|(name, _)| **name == *value);
        let others = target(OTHERS).map(|(_, number)| *number);
        let is_other = |value: &str| target(value).is_none();
        let pooled: i64 = self.values.iter().filter(|(value, _)| is_other(value)).map(|(_, used)| used).sum();
        let mut lowest = WORST;
        let mut scores: Vec<Option<f64>> = Vec::with_capacity(self.values.len());
        for (value, used) in &self.values {
            let (wanted, used) = match target(value) {
                Some((_, wanted)) => (Some(*wanted), *used),
                None => (others, pooled),
            };
            scores.push(match wanted {
                None => Some(WORST),
                Some(0.0) => None,
                Some(wanted) => {
                    let boost = (wanted - (used + 1) as f64) / wanted * weight;
                    lowest = lowest.min(boost);
                    Some(boost)
                }
            });
        }
        // A value of which none are wanted is as bad as the worst of the others.
        scores.into_iter().map(|score| score.unwrap_or(lowest)).collect()
    }
}

/// The component of a node that lacks the attribute.
pub(super) fn missing_score(property: &Property) -> f64 {
    if property.is_spread() { WORST } else { 0.0 }
}

/// A spread's weight; the default when it names none.
pub(super) fn weight_of(spread: &Spread) -> f64 {
    if spread.weight == 0 { DEFAULT_WEIGHT } else { spread.weight as f64 }
}
