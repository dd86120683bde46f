//! Arithmetic, comparison and logic, with the conversions of HCL.

use hcl_edit::expr::BinaryOp;
use hcl_edit::expr::BinaryOperator;
use hcl_edit::expr::Expression;
use hcl_edit::expr::UnaryOp;
use hcl_edit::expr::UnaryOperator;

use super::Evaluated;
use super::Evaluator;
use super::Failure;
use crate::jobspec::value::Number;
use crate::jobspec::value::Value;

/// Which operand a message is about.
#[derive(Clone, Copy)]
enum Side {
    Only,
    Left,
    Right,
}

fn unsuitable(side: Side, why: &str, operand: &Expression) -> Failure {
    let detail = match side {
        Side::Only => format!("Unsuitable value for unary operand: {why}."),
        Side::Left => format!("Unsuitable value for left operand: {why}."),
        Side::Right => format!("Unsuitable value for right operand: {why}."),
    };
    Failure::new("Invalid operand", detail).at(operand)
}

fn number(value: &Value, side: Side, operand: &Expression) -> Result<Number, Failure> {
    if value.is_null() {
        return Err(unsuitable(side, "argument must not be null", operand));
    }
    value.to_number().map_err(|why| unsuitable(side, why, operand))
}

fn flag(value: &Value, side: Side, operand: &Expression) -> Result<bool, Failure> {
    if value.is_null() {
        return Err(unsuitable(side, "argument must not be null", operand));
    }
    value.to_bool().map_err(|why| unsuitable(side, why, operand))
}

impl Evaluator<'_> {
    pub(super) fn unary(&mut self, node: &UnaryOp) -> Evaluated {
        let value = self.expression(&node.expr)?;
        match node.operator.value() {
            UnaryOperator::Neg => Ok(Value::Number(match number(&value, Side::Only, &node.expr)? {
                Number::Whole(whole) => Number::Whole(whole.saturating_neg()),
                Number::Fraction(number) => Number::Fraction(-number),
            })),
            UnaryOperator::Not => Ok(Value::Bool(!flag(&value, Side::Only, &node.expr)?)),
        }
    }

    pub(super) fn binary(&mut self, node: &BinaryOp) -> Evaluated {
        let left = self.expression(&node.lhs_expr)?;
        let right = self.expression(&node.rhs_expr)?;
        let operator = *node.operator.value();
        match operator {
            BinaryOperator::Eq => return Ok(Value::Bool(left == right)),
            BinaryOperator::NotEq => return Ok(Value::Bool(left != right)),
            BinaryOperator::And | BinaryOperator::Or => {
                let left = flag(&left, Side::Left, &node.lhs_expr)?;
                let right = flag(&right, Side::Right, &node.rhs_expr)?;
                let both = operator == BinaryOperator::And;
                return Ok(Value::Bool(if both { left && right } else { left || right }));
            }
            _ => {}
        }
        let left = number(&left, Side::Left, &node.lhs_expr)?;
        let right = number(&right, Side::Right, &node.rhs_expr)?;
        Ok(match operator {
            BinaryOperator::Less => Value::Bool(left < right),
            BinaryOperator::LessEq => Value::Bool(left <= right),
            BinaryOperator::Greater => Value::Bool(left > right),
            BinaryOperator::GreaterEq => Value::Bool(left >= right),
            _ => Value::Number(arithmetic(operator, left, right).map_err(|why| {
                Failure::new("Operation failed", format!("Error during operation: {why}.")).at(&node.rhs_expr)
            })?),
        })
    }
}

fn arithmetic(operator: BinaryOperator, left: Number, right: Number) -> Result<Number, &'static str> {
    if let (Some(left), Some(right)) = (left.as_whole(), right.as_whole()) {
        let exact = match operator {
            BinaryOperator::Plus => left.checked_add(right),
            BinaryOperator::Minus => left.checked_sub(right),
            BinaryOperator::Mul => left.checked_mul(right),
            BinaryOperator::Div if right != 0 && left.checked_rem(right) == Some(0) => {
                left.checked_div(right)
            }
            BinaryOperator::Mod if right != 0 => left.checked_rem(right),
            _ => None,
        };
        if let Some(exact) = exact {
            return Ok(Number::Whole(exact));
        }
    }
    let (left, right) = (left.as_f64(), right.as_f64());
    if right == 0.0 && matches!(operator, BinaryOperator::Div | BinaryOperator::Mod) {
        return Err("division by zero");
    }
    let result = match operator {
        BinaryOperator::Plus => left + right,
        BinaryOperator::Minus => left - right,
        BinaryOperator::Mul => left * right,
        BinaryOperator::Div => left / right,
        _ => left % right,
    };
    if result.is_finite() { Ok(Number::computed(result)) } else { Err("the result is out of range") }
}
