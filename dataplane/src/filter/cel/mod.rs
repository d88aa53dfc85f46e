//! Expressions of the Common Expression Language over what is known of a request, by Envoy's names of attributes.
//!
//! Owns reading an expression, its bounds and its evaluation. Where attributes come from is the business of whoever
//! implements [`Attributes`]; what follows from an outcome is the caller's.
//!
//! Nothing here can take long: an expression that could is refused when it is read ([`bounds`]). One that cannot be
//! evaluated (an attribute is absent, types do not fit) has no outcome, and the caller decides for the safe side.

mod bounds;
pub mod request;
mod value;

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use cel::parser::{Expression as Tree, Parser};
use cel::{Context, ExecutionError, Value};
use http::HeaderMap;
use regex::Regex;

use self::value::Resolver;

/// Bytes of stack for reading the deepest expression of the longest length. Only what is touched is ever there.
const STACK: usize = 512 << 20;

/// What an expression may ask for, each by its root.
pub const ROOTS: &[&str] = &[
    "request",
    "response",
    "source",
    "destination",
    "connection",
    "upstream",
    "metadata",
    "xds",
];

/// What is known of something, by the names that Envoy has for it.
pub trait Attributes: Sync {
    /// An attribute by its full name, such as `request.path`; `None`: absent.
    fn attribute(&self, name: &str) -> Option<Attribute<'_>>;

    /// The full names of the attributes that there may be, so that `has(request.id)` can be answered.
    fn names(&self) -> &'static [&'static str];
}

/// The value of an attribute.
#[derive(Debug)]
pub enum Attribute<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A number with a sign.
    Int(i64),
    /// A number without one.
    Uint(u64),
    /// Yes or no.
    Bool(bool),
    /// A point in time.
    Time(SystemTime),
    /// A length of time.
    Duration(Duration),
    /// Header fields; several of one name are one, with commas. `more` holds what stands beside them (`:path`).
    Fields {
        /// The fields.
        headers: &'a HeaderMap,
        /// Names and values.
        more: Vec<(&'static str, Cow<'a, str>)>,
    },
    /// Anything else.
    Json(serde_json::Value),
}

impl<'a> Attribute<'a> {
    /// A text.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }
}

/// An expression, ready to be evaluated.
pub struct Expression {
    tree: Tree,
    /// With the standard functions and the expression's patterns.
    context: Context<'static, 'static>,
    text: Box<str>,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// Says what is wrong with it, or which bound it exceeds.
    pub fn compile(text: &str) -> Result<Self, String> {
        bounds::check_text(text)?;
        let mut tree = parse(text)?;
        let patterns = bounds::check(&mut tree)?;
        for name in tree.references().variables() {
            // The parser's own variables have an @ in front.
            if !ROOTS.contains(&name) && !name.starts_with('@') && !bounds::binds(&tree, name) {
                return Err(format!("`{name}` is not known"));
            }
        }
        Ok(Self {
            tree,
            context: context(patterns)?,
            text: text.into(),
        })
    }

    /// What it comes to; `None` if it cannot be evaluated, or is neither true nor false.
    pub fn evaluate(&self, attributes: &dyn Attributes) -> Option<bool> {
        match self.resolve(attributes)? {
            Value::Bool(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// What it comes to, as JSON; `None` if it cannot be evaluated, or its value has no form in JSON.
    pub fn value(&self, attributes: &dyn Attributes) -> Option<serde_json::Value> {
        value::json(&self.resolve(attributes)?)
    }

    fn resolve(&self, attributes: &dyn Attributes) -> Option<Value> {
        let resolver = Resolver(attributes);
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            let mut scope = self.context.new_inner_scope();
            scope.set_variable_resolver(&resolver);
            Value::resolve(&self.tree, &scope)
        }));
        match evaluated {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                // The error itself may hold what a client has sent.
                tracing::debug!(expression = %self, kind = kind(&error), "not evaluated");
                None
            }
            Err(_) => {
                tracing::warn!(expression = %self, "evaluation failed");
                None
            }
        }
    }

    /// True if it is evaluated, and true.
    pub fn matches(&self, attributes: &dyn Attributes) -> bool {
        self.evaluate(attributes) == Some(true)
    }

    /// True if it asks for attributes of this root, such as `response`.
    pub fn mentions(&self, root: &str) -> bool {
        self.tree.references().has_variable(root)
    }
}

/// Reads an expression where there is room for one of any depth, and refuses it there if it is deep.
fn parse(text: &str) -> Result<Tree, String> {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK);
        let reading = reader.spawn_scoped(scope, || {
            let tree = Parser::new()
                .parse(text)
                .map_err(|errors| first_line(&errors.to_string()))?;
            bounds::check_depth(&tree)?;
            Ok(tree)
        });
        let read = reading.map_err(|e| format!("it cannot be read: {e}"))?.join();
        read.unwrap_or_else(|_| Err("it cannot be read".into()))
    })
}

/// The functions that an expression may call.
fn context(patterns: Vec<Regex>) -> Result<Context<'static, 'static>, String> {
    let mut context = Context::default();
    if !patterns.is_empty() {
        let matches = move |text: std::sync::Arc<String>, at: i64| {
            let pattern = usize::try_from(at).ok().and_then(|at| patterns.get(at));
            pattern.is_some_and(|pattern| pattern.is_match(&text))
        };
        context
            .add_function(bounds::MATCHES, matches)
            .map_err(|e| e.to_string())?;
    }
    Ok(context)
}

fn kind(error: &ExecutionError) -> &'static str {
    match error {
        ExecutionError::NoSuchKey(_) => "no such attribute or key",
        ExecutionError::UndeclaredReference(_) => "no such attribute or function",
        _ => "types do not fit",
    }
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("ERROR: ")
        .to_owned()
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests;
