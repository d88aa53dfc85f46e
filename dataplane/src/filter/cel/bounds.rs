//! Bounds on what an expression may cost, found when it is read, so that evaluating it needs no clock.
//!
//! There are no loops but those over a list or a map, whose lengths are bounded; patterns must be literals and are
//! compiled here.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue};
use cel::parser::Expression as Tree;
use regex::{Regex, RegexBuilder};

/// Longest expression, in bytes.
const LONGEST: usize = 8 * 1024;
/// Deepest nesting of an expression: evaluating it takes stack.
const DEEPEST: usize = 100;
/// Most steps that an evaluation may take.
const STEPS: usize = 100_000;
/// Entries of the largest list or map that is an attribute, or part of one.
pub(super) const ENTRIES: usize = 256;
/// Bytes that a compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;
/// What calls of `matches` become: its second argument is the pattern's place.
pub(super) const MATCHES: &str = "sluice_matches";

/// Checks an expression's length.
pub(super) fn check_text(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
    }
    Ok(())
}

/// Checks what an expression costs, and takes its patterns out.
pub(super) fn check(tree: &mut Tree) -> Result<Vec<Regex>, String> {
    let mut walk = Walk::default();
    let steps = walk.steps(tree)?;
    if steps > STEPS {
        return Err("it could take too many steps".into());
    }
    Ok(walk.patterns)
}

/// Checks how deep an expression is.
pub(super) fn check_depth(tree: &Tree) -> Result<(), String> {
    let mut level = vec![tree];
    for _ in 0..DEEPEST {
        level = level.into_iter().flat_map(children).collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(format!("nested deeper than {DEEPEST}"))
}

/// True if the expression itself gives this name to something.
pub(super) fn binds(tree: &Tree, name: &str) -> bool {
    let mut found = false;
    visit(tree, &mut |expr| {
        if let Expr::Comprehension(loops) = expr {
            found |=
                loops.iter_var == name || loops.accu_var == name || loops.iter_var2.as_deref() == Some(name);
        }
    });
    found
}

fn visit(tree: &Tree, seen: &mut dyn FnMut(&Expr)) {
    seen(&tree.expr);
    for part in children(tree) {
        visit(part, seen);
    }
}

fn children(tree: &Tree) -> Vec<&Tree> {
    match &tree.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(loops) => vec![
            &loops.iter_range,
            &loops.accu_init,
            &loops.loop_cond,
            &loops.loop_step,
            &loops.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&*select.operand],
        Expr::Map(map) => entries(&map.entries).collect(),
        Expr::Struct(of) => entries(&of.entries).collect(),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn entries(entries: &[IdedEntryExpr]) -> impl Iterator<Item = &Tree> {
    entries.iter().flat_map(|entry| match &entry.expr {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    })
}

#[derive(Default)]
struct Walk {
    patterns: Vec<Regex>,
}

impl Walk {
    fn steps(&mut self, tree: &mut Tree) -> Result<usize, String> {
        let steps = match &mut tree.expr {
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => 0,
            Expr::Call(call) => {
                let mut steps = 0_usize;
                for part in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
                    steps = steps.saturating_add(self.steps(part)?);
                }
                self.take_pattern(call)?;
                steps
            }
            Expr::Comprehension(loops) => {
                let times = match &loops.iter_range.expr {
                    Expr::List(list) => list.elements.len(),
                    Expr::Map(map) => map.entries.len(),
                    _ => ENTRIES,
                };
                let once = self
                    .steps(&mut loops.loop_cond)?
                    .saturating_add(self.steps(&mut loops.loop_step)?);
                let around = self
                    .steps(&mut loops.iter_range)?
                    .saturating_add(self.steps(&mut loops.accu_init)?)
                    .saturating_add(self.steps(&mut loops.result)?);
                once.saturating_mul(times).saturating_add(around)
            }
            Expr::List(list) => {
                let mut steps = 0_usize;
                for part in &mut list.elements {
                    steps = steps.saturating_add(self.steps(part)?);
                }
                steps
            }
            Expr::Select(select) => self.steps(&mut select.operand)?,
            Expr::Map(map) => self.entries(&mut map.entries)?,
            Expr::Struct(of) => return Err(format!("`{}` is not a type that is known", of.type_name)),
        };
        Ok(steps.saturating_add(1))
    }

    fn entries(&mut self, entries: &mut [IdedEntryExpr]) -> Result<usize, String> {
        let mut steps = 0_usize;
        for entry in entries {
            steps = steps.saturating_add(match &mut entry.expr {
                EntryExpr::StructField(field) => self.steps(&mut field.value)?,
                EntryExpr::MapEntry(entry) => self
                    .steps(&mut entry.key)?
                    .saturating_add(self.steps(&mut entry.value)?),
            });
        }
        Ok(steps)
    }

    /// Puts the place of a compiled pattern where the pattern is.
    fn take_pattern(&mut self, call: &mut CallExpr) -> Result<(), String> {
        if call.func_name == MATCHES {
            return Err(format!("`{MATCHES}` is not a function"));
        }
        if call.func_name != "matches" {
            return Ok(());
        }
        let text = match (call.target.take(), call.args.len()) {
            (Some(target), 1) => *target,
            (None, 2) => call.args.remove(0),
            _ => return Err("matches: takes a text and a pattern".into()),
        };
        let Some(Expr::Literal(LiteralValue::String(pattern))) = call.args.first().map(|arg| &arg.expr)
        else {
            return Err("matches: the pattern must be a literal".into());
        };
        let regex = RegexBuilder::new(pattern.inner())
            .size_limit(PATTERN_SIZE)
            .build()
            .map_err(|_| format!("matches: `{}` is not a pattern", pattern.inner()))?;
        let at = i64::try_from(self.patterns.len()).map_err(|e| e.to_string())?;
        self.patterns.push(regex);
        let place = Tree {
            id: call.args.first().map_or(0, |arg| arg.id),
            expr: Expr::Literal(LiteralValue::Int(at.into())),
        };
        call.args = vec![text, place];
        MATCHES.clone_into(&mut call.func_name);
        Ok(())
    }
}
