use serde_json::json;

use super::*;

struct Known(http::request::Parts);

impl Attributes for Known {
    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        match name {
            "source.port" => Some(Attribute::Int(4711)),
            "response.code" => Some(Attribute::Int(503)),
            "connection.mtls" => Some(Attribute::Bool(true)),
            "metadata.filter_metadata" => Some(Attribute::Json(json!({
                "envoy.filters.http.jwt_authn": { "idp": { "sub": "alice", "groups": ["a", "b"], "n": 3 } }
            }))),
            name => request::of_head(&self.0, true, name.strip_prefix("request.")?),
        }
    }

    fn names(&self) -> &'static [&'static str] {
        request::NAMES
    }
}

fn known() -> Known {
    let request = http::Request::get("/a/b?c=d")
        .header("host", "example.com:8443")
        .header("x-one", "1")
        .header("x-one", "2")
        .header("user-agent", "curl");
    Known(request.body(()).unwrap().into_parts().0)
}

fn evaluate(text: &str) -> Option<bool> {
    Expression::compile(text)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .evaluate(&known())
}

#[test]
fn attributes_have_envoys_names() {
    for text in [
        "request.path == '/a/b?c=d'",
        "request.url_path.startsWith('/a') && request.query == 'c=d'",
        "request.method == 'GET' && request.scheme == 'https' && request.protocol == 'HTTP/1.1'",
        "request.host == 'example.com:8443' && request.useragent == 'curl'",
        "request.headers['x-one'] == '1,2'",
        "request.headers[':path'] == request.path && request.headers[':authority'] == request.host",
        "'x-one' in request.headers && !('x-two' in request.headers)",
        "has(request.headers) && has(request.useragent) && !has(request.referer)",
        "request.headers.exists(name, name == 'x-one')",
        "request.time > timestamp('2020-01-01T00:00:00Z')",
        "source.port == 4711 && response.code >= 500 && connection.mtls",
        "metadata.filter_metadata['envoy.filters.http.jwt_authn'].idp.sub == 'alice'",
        "'b' in metadata.filter_metadata['envoy.filters.http.jwt_authn']['idp']['groups']",
        "request.path.matches('^/a/[a-z]') && matches(request.method, 'G.T')",
        "['x', 'curl'].exists(agent, request.useragent == agent)",
    ] {
        assert_eq!(evaluate(text), Some(true), "{text}");
    }
    assert_eq!(evaluate("request.path.matches('^b')"), Some(false));
}

#[test]
fn what_cannot_be_evaluated_has_no_outcome() {
    for text in [
        "request.headers['x-two'] == 'a'",
        "request.referer == 'a'",
        "request.path",
        "request.path > 5",
        "request.nothing == 1",
        "1 / 0 == 1",
        "response.headers['a'] == 'b'",
    ] {
        assert_eq!(evaluate(text), None, "{text}");
    }
    // One side is enough where it decides.
    assert_eq!(
        evaluate("request.referer == 'a' || source.port == 4711"),
        Some(true)
    );
}

#[test]
fn what_is_wrong_is_found_when_it_is_read() {
    for (text, why) in [
        ("request.path ==", "Syntax error"),
        ("", "Syntax error"),
        ("reqest.path == 'a'", "`reqest` is not known"),
        ("request.path.matches('(')", "is not a pattern"),
        ("request.path.matches(request.method)", "must be a literal"),
        ("sluice_matches(request.path, 0)", "is not a function"),
        ("Foo{a: 1}.a == 1", "not a type"),
        (
            "request.headers.all(a, request.headers.all(b, request.headers.all(c, a == b)))",
            "too many steps",
        ),
    ] {
        let error = Expression::compile(text).expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
    let long = format!("request.path == '{}'", "a".repeat(10_000));
    assert!(Expression::compile(&long).unwrap_err().contains("longer"));
    // As deep as it may be and far deeper: neither overflows the stack.
    for depth in [40, 500, 4000] {
        let _ = Expression::compile(&format!("{}true{}", "(".repeat(depth), ")".repeat(depth)));
        let _ = Expression::compile(&format!("{}true", "!".repeat(depth)));
        let _ = Expression::compile(&format!("{}1", "-".repeat(depth)));
        let _ = Expression::compile(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        let _ = Expression::compile(&format!("request{}", ".a".repeat(depth)));
        let sum = format!("1{} == 1", "+1".repeat(depth / 2));
        if let Ok(sum) = Expression::compile(&sum) {
            assert_eq!(sum.evaluate(&known()), Some(false));
        }
    }
}

#[test]
fn its_roots_are_known() {
    let expression = Expression::compile("response.code == 404 && request.path == '/'").unwrap();
    assert!(expression.mentions("response") && expression.mentions("request"));
    assert!(!expression.mentions("source"));
}
