//! Expressions, and texts with expressions in them: read, and evaluated over a job that has something of everything.

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;

use super::{Expr, Job, Template};

const WORDS: [&str; 44] = [
    "initial_data",
    ".input",
    ".amount",
    ".items",
    ".nested.a.b",
    "state_history",
    ".tags",
    "result.x",
    "job.id",
    "job.labels",
    "client.name",
    "now",
    "[0]",
    "[-1]",
    "['a']",
    ".map(x, x)",
    ".filter(x, x > 1)",
    ".all(x, true)",
    ".exists(x, x)",
    ".exists_one(x, x)",
    "size(",
    "string(",
    "int(",
    "double(",
    "bool(",
    "timestamp(",
    "duration('1s')",
    ".matches('a+')",
    ".startsWith('a')",
    ".contains('a')",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " == ",
    " in ",
    " ? 1 : 2",
    " && ",
    "!",
    "-9223372036854775808",
    "18446744073709551615",
    "1e308",
    "${",
];

/// Whatever is compiled ends, with a value that may be stored or with a reason.
fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let job = Job::new();
    let is_said_well = |said: String| assert!(said.len() < 4000, "{said}");
    match Expr::compile(text) {
        Ok(expr) => match expr.eval(&job.scope()) {
            Ok(value) => assert!(value.as_str().len() <= PAYLOAD_BYTES_MAX),
            Err(error) => is_said_well(error.reason),
        },
        Err(error) => is_said_well(error.to_string()),
    }
    if let Ok(template) = Template::text(text) {
        let _ = template.render(&job.scope()).map_err(|error| is_said_well(error.reason));
    }
}

#[test]
fn fuzz_expressions() {
    crate::fuzz::fuzz("expressions", Vec::new(), &WORDS, check);
}
