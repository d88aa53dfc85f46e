//! Expressions of the Common Expression Language, as far as they are read here: the proxy alone evaluates them, and
//! refuses what would take it too long.

use cel::common::ast::Expr;
use cel::parser::{Expression, Parser};

/// Bytes of stack for reading the deepest expression of the longest length. Only what is touched is ever there.
const STACK: usize = 512 << 20;
/// Longest expression, in bytes; the proxy's bound.
const LONGEST: usize = 8 * 1024;
/// What an expression may ask for.
const ROOTS: &[&str] = &[
    "request",
    "response",
    "source",
    "destination",
    "connection",
    "upstream",
    "metadata",
    "xds",
];

/// Reads an expression.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
    }
    // An expression takes stack by its depth, also when it is dropped.
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK);
        let reading = reader.spawn_scoped(scope, || read(text));
        let read = reading.map_err(|e| format!("it cannot be read: {e}"))?.join();
        read.unwrap_or_else(|_| Err("it cannot be read".into()))
    })
}

fn read(text: &str) -> Result<(), String> {
    let tree = Parser::new().parse(text).map_err(|errors| {
        let text = errors.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.trim_start_matches("ERROR: ").to_owned()
    })?;
    // What macros give names to is among the variables.
    if binds(&tree) {
        return Ok(());
    }
    let references = tree.references();
    let mut unknown: Vec<_> = references.variables();
    unknown.retain(|name| !ROOTS.contains(name) && !name.starts_with('@'));
    unknown.sort_unstable();
    match unknown.first() {
        Some(name) => Err(format!("`{name}` is not known")),
        None => Ok(()),
    }
}

/// True if there are names of the expression's own; the proxy tells them apart.
fn binds(tree: &Expression) -> bool {
    match &tree.expr {
        Expr::Comprehension(_) => true,
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).any(binds),
        Expr::Select(select) => binds(&select.operand),
        Expr::List(list) => list.elements.iter().any(binds),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_found() {
        for good in [
            "request.path.startsWith('/a') && 'x' in request.headers",
            "request.headers.exists(name, name == 'x')",
            "true",
        ] {
            assert_eq!(check(good), Ok(()));
        }
        for (bad, why) in [
            ("request.path ==", "Syntax error"),
            ("reqest.path == 'a'", "`reqest` is not known"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(check(&"a".repeat(LONGEST + 1)).is_err());
        // Depth costs no more than an error.
        let _ = check(&"(".repeat(LONGEST));
        let _ = check(&format!("1{}", "+1".repeat(LONGEST / 2 - 1)));
    }
}
