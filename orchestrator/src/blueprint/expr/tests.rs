//! Expressions and templates over one job, in tables; and over anything, for panics and cost.

use std::time::{Duration, Instant};

use avtomatika_proto::{JobId, limits::PAYLOAD_BYTES_MAX};
use proptest::prelude::*;
use serde_json::json;

use super::{parse::Root, *};

#[path = "../../fuzz/expressions.rs"]
mod fuzz;

/// A job with data of every kind.
struct Job {
    initial_data: Json,
    state_history: Json,
    result: Option<Json>,
    labels: BTreeMap<String, String>,
}

impl Job {
    fn new() -> Self {
        Self {
            initial_data: Json::object(
                r#"{"input": "hello", "amount": 120, "rate": 1.5, "zero": 0, "none": null, "yes": true,
                    "big": 18446744073709551615, "min": -9223372036854775808, "whole": 100.0,
                    "items": [{"price": 40, "count": 2}, {"price": 5, "count": 1}],
                    "nested": {"a": {"b": [1, 2, 3]}}, "text": "a\"b\\ü😀", "empty": [], "date": "2026-01-18T06:05:00Z"}"#,
            )
            .unwrap(),
            state_history: Json::object(r#"{"total": 85, "tags": ["x", "y"]}"#).unwrap(),
            result: Some(Json::object(r#"{"x": {"y": 7}}"#).unwrap()),
            labels: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
        }
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            job_id: ID.parse::<JobId>().unwrap(),
            blueprint_name: "test_workflow",
            blueprint_version: 3,
            current_state: "init",
            labels: &self.labels,
            priority: -5,
            created_at: Timestamp::from_micros(1_768_716_300_000_000),
            client: "acme",
            initial_data: &self.initial_data,
            state_history: &self.state_history,
            result: self.result.as_ref(),
            results: None,
            item: None,
            signal: None,
            now: Timestamp::from_micros(0),
            turn: None,
        }
    }
}

const ID: &str = "31c0f6fe-650e-4c67-9a15-641ec32266b7";

#[track_caller]
fn eval(source: &str) -> Result<Value, String> {
    let expr = Expr::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    let value = expr.eval(&Job::new().scope()).map_err(|error| {
        assert_eq!(error.expression, source);
        error.reason
    });
    value.map(|value| value.to_value())
}

#[track_caller]
fn values(table: &[(&str, Value)]) {
    for (source, expected) in table {
        let value = eval(source).unwrap_or_else(|reason| panic!("{source}: {reason}"));
        // As text, for 1 and 1.0 are to be told apart.
        assert_eq!(value.to_string(), expected.to_string(), "{source}");
    }
}

#[track_caller]
fn reasons(table: &[(&str, &str)]) {
    for (source, expected) in table {
        assert_eq!(eval(source), Err((*expected).to_owned()), "{source}");
    }
}

#[test]
fn the_job_can_be_looked_at() {
    values(&[
        ("job.id", json!(ID)),
        ("job.blueprint_name", json!("test_workflow")),
        ("job.blueprint_version", json!(3)),
        ("job.current_state", json!("init")),
        ("job.labels", json!({"env": "test"})),
        ("job.labels.env == 'test' && !has(job.labels.gpu)", json!(true)),
        ("job.priority < 0", json!(true)),
        ("job.created_at", json!("2026-01-18T06:05:00.000000Z")),
        ("job.created_at == timestamp(initial_data.date)", json!(true)),
        ("client.name", json!("acme")),
        ("client", json!({"name": "acme"})),
        ("initial_data.input", json!("hello")),
        ("initial_data['input']", json!("hello")),
        ("initial_data.nested.a.b[2]", json!(3)),
        ("initial_data.items[0]", json!({"price": 40, "count": 2})),
        ("state_history", json!({"total": 85, "tags": ["x", "y"]})),
        ("result.x.y", json!(7)),
        ("initial_data.none", json!(null)),
        ("initial_data.text", json!("a\"b\\ü😀")),
    ]);
}

#[test]
fn numbers_keep_their_kind() {
    values(&[
        ("initial_data.amount", json!(120)),
        ("initial_data.whole", json!(100.0)),
        ("initial_data.big", json!(u64::MAX)),
        ("initial_data.min", json!(i64::MIN)),
        ("initial_data.amount + 1", json!(121)),
        ("initial_data.amount * 1.5", json!(180.0)),
        ("initial_data.amount == 120.0", json!(true)),
        ("initial_data.rate * 2.0", json!(3.0)),
        ("7 / 2", json!(3)),
        ("-7 / 2", json!(-3)),
        ("-7 % 2", json!(-1)),
        ("7.0 / 2", json!(3.5)),
        ("2 - 3", json!(-1)),
        ("-initial_data.rate", json!(-1.5)),
        ("5u + 2", json!(7)),
        ("0xff", json!(255)),
        ("1 < 1.5 && 1.5 < 2 && 9007199254740993 > 9007199254740992.0", json!(true)),
        ("int('42') + int(4.9) + int(-1)", json!(45)),
        ("double('1.5') + double(1)", json!(2.5)),
        ("string(1) + string(1.5) + string(true)", json!("11.5true")),
        ("0.0 / 0.0 == 0.0 / 0.0", json!(false)),
        ("1.0 / 0.0 > 1", json!(true)),
    ]);
    reasons(&[
        ("1 / 0", "division by zero"),
        ("1 % initial_data.zero", "division by zero"),
        ("1.0 / 0.0", "inf is no JSON number"),
        ("initial_data.big + 1", "integer overflow"),
        ("initial_data.min - 1", "integer overflow"),
        ("initial_data.big * initial_data.big * 2", "integer overflow"),
        ("-initial_data.big", "integer overflow"),
        ("int(1e30)", "integer overflow"),
        ("int('x')", "int(…) cannot convert `x`"),
        ("int(0.0 / 0.0)", "int(…) cannot convert a float (NaN)"),
        ("double(null)", "double(…) cannot convert null"),
        ("string([1])", "string(…) cannot convert a list of 1"),
        ("bool('maybe')", "bool(…) cannot convert `maybe`"),
        ("1 + 'a'", "`+` does not work on an integer (1) and a string (\"a\")"),
        ("1.5 % 2.0", "`%` works on integers only"),
        ("{} - []", "`-` does not work on a map of 0 and a list of 0"),
    ]);
}

#[test]
fn strings_lists_and_maps_work_as_in_cel() {
    values(&[
        ("'a' + \"b\" + r'\\n' + '''c'''", json!("ab\\nc")),
        (
            "size(initial_data.text) == 6 && initial_data.items.size() == 2 && size({'a': 1}) == 1",
            json!(true),
        ),
        ("initial_data.input.contains('ell') && initial_data.input.startsWith('he')", json!(true)),
        ("initial_data.input.endsWith('x')", json!(false)),
        ("initial_data.input.matches('^h.*o$') && !matches(initial_data.input, 'x')", json!(true)),
        ("[1, 2] + [initial_data.amount]", json!([1, 2, 120])),
        ("[1, 2] == [1.0, 2.0] && [1] != [2] && {'a': [null]} == {'a': [null]}", json!(true)),
        ("2 in [1, 2] && 'env' in job.labels && !('x' in {}) && !(1 in {'1': 1})", json!(true)),
        ("1 == '1' || null == false", json!(false)),
        ("{'id': job.id, 'list': [true, null], 'in': {'x': initial_data.rate}}", {
            json!({"id": ID, "list": [true, null], "in": {"x": 1.5}})
        }),
        ("'a' < 'b' && false < true && [1][0] == 1", json!(true)),
        ("initial_data.yes ? 'y' : 'n'", json!("y")),
        ("dyn(initial_data.amount)", json!(120)),
    ]);
    reasons(&[
        ("[1, 2][2]", "the value has 2 elements, so none at 2"),
        ("initial_data.items[-1]", "`initial_data.items` has 2 elements, so none at -1"),
        ("initial_data['x']", "`initial_data` has no member `x`"),
        (
            "initial_data.items['x']",
            "`initial_data.items` is a list of 2, which has no element at a string (\"x\")",
        ),
        ("{1: 2}", "a map's key must be a string, not an integer (1)"),
        ("{'a': 1, 'a': 2}", "the key `a` stands twice in one map"),
        ("1 in 2", "`in` needs a list or a map, not an integer (2)"),
        ("'a' < 1", "cannot compare a string (\"a\") with an integer (1)"),
        ("null < 1", "cannot compare null with an integer (1)"),
        ("size(1)", "what `size` is asked of must be a string, not an integer (1)"),
        ("initial_data.amount.contains('1')", "the text must be a string, not an integer (120)"),
    ]);
}

#[test]
fn loops_are_the_standard_macros() {
    values(&[
        ("initial_data.items.map(item, item.price * item.count)", json!([80, 5])),
        ("initial_data.items.filter(item, item.price > 10)", json!([{"price": 40, "count": 2}])),
        ("initial_data.items.map(item, item.price > 10, item.count)", json!([2])),
        ("initial_data.items.all(item, item.price > 0)", json!(true)),
        ("initial_data.items.exists(item, item.price == 5)", json!(true)),
        ("initial_data.items.exists_one(item, item.price > 0)", json!(false)),
        ("initial_data.empty.all(x, x > 0) && !initial_data.empty.exists(x, x > 0)", json!(true)),
        ("job.labels.map(key, key + '=' + job.labels[key])", json!(["env=test"])),
        ("[1, 2].map(x, [10, 20].map(y, x * y))", json!([[10, 20], [20, 40]])),
        ("[1, 2].map(x, x + 1).filter(x, x > 2).map(x, x * 2)", json!([6])),
        ("[1].map(job, job + 1)", json!([2])),
        ("[[1, 2], [3]].map(x, x.map(x, x * 2))", json!([[2, 4], [6]])),
        // An element that decides makes errors of others irrelevant.
        ("[0, 1].exists(x, 1 / x == 1)", json!(true)),
        ("[0, 2].all(x, 1 / x == 1)", json!(false)),
    ]);
    reasons(&[
        ("[0].exists(x, 1 / x == 1)", "division by zero"),
        ("[0, 1].exists_one(x, 1 / x == 1)", "division by zero"),
        (
            "initial_data.amount.map(x, x)",
            "`initial_data.amount` is an integer (120), a list or a map is needed",
        ),
        ("[1].filter(x, x)", "`x` is an integer (1), a boolean is needed"),
        (
            "initial_data.items.map(item, item.colour)",
            "`item` has no member `colour`; where it may be missing, test for it with has(…)",
        ),
    ]);
}

#[test]
fn a_missing_member_is_named_and_can_be_tested_for() {
    values(&[
        ("has(initial_data.amount)", json!(true)),
        ("has(initial_data.nothing)", json!(false)),
        ("has(initial_data.none)", json!(true)),
        ("has(initial_data.nested.a.c) ? 1 : 2", json!(2)),
        ("has(initial_data.nothing) && initial_data.nothing > 5", json!(false)),
        // As in CEL, on either side.
        ("initial_data.nothing > 5 || true", json!(true)),
        ("initial_data.nothing > 5 && false", json!(false)),
    ]);
    reasons(&[
        ("job.idd", "`job` has no member `idd`; where it may be missing, test for it with has(…)"),
        (
            "initial_data.nothing",
            "`initial_data` has no member `nothing`; where it may be missing, test for it with has(…)",
        ),
        (
            "initial_data.nested.a.x > 1",
            "`initial_data.nested.a` has no member `x`; where it may be missing, test for it with has(…)",
        ),
        ("initial_data.amount.x", "`initial_data.amount` is an integer (120), so it has no member `x`"),
        ("has(initial_data.amount.x)", "`initial_data.amount` is an integer (120), so it has no member `x`"),
        ("initial_data.none.x", "`initial_data.none` is null, so it has no member `x`"),
        ("true && initial_data.amount", "`initial_data.amount` is an integer (120), a boolean is needed"),
        ("initial_data.amount ? 1 : 2", "`initial_data.amount` is an integer (120), a boolean is needed"),
    ]);
    let mut first = Job::new();
    first.result = None;
    let result = Expr::compile("result").unwrap();
    assert_eq!(result.eval(&first.scope()).unwrap().as_str(), "{}");
}

#[test]
fn times_can_be_compared_and_taken_apart() {
    values(&[
        ("job.created_at + duration('1h30m') == timestamp('2026-01-18T07:35:00Z')", json!(true)),
        ("job.created_at - timestamp('2026-01-18T06:00:00Z')", json!("300s")),
        ("duration('1.5s') + duration('500ms')", json!("2s")),
        ("-duration('90s')", json!("-90s")),
        ("job.created_at > timestamp('2026-01-01T00:00:00+02:00')", json!(true)),
        ("timestamp(0)", json!("1970-01-01T00:00:00.000000Z")),
        ("int(timestamp('1970-01-01T00:01:00Z'))", json!(60)),
        ("string(job.created_at)", json!("2026-01-18T06:05:00.000000Z")),
        ("duration('90m').getHours() + duration('90m').getMinutes()", json!(91)),
        (
            "[job.created_at.getFullYear(), job.created_at.getMonth(), job.created_at.getDate(), \
             job.created_at.getDayOfMonth(), job.created_at.getDayOfWeek(), job.created_at.getDayOfYear(), \
             job.created_at.getHours(), job.created_at.getMinutes(), job.created_at.getSeconds(), \
             job.created_at.getMilliseconds()]",
            json!([2026, 0, 18, 17, 0, 17, 6, 5, 0, 0]),
        ),
    ]);
    reasons(&[
        ("timestamp('yesterday')", "`yesterday` is no RFC 3339 timestamp"),
        ("duration('soon')", "`soon` is no duration such as 90s or 1h30m"),
        ("timestamp(initial_data.big)", "timestamp overflow"),
        ("timestamp(9223372036854) + duration('1s') > job.created_at", "timestamp overflow"),
        ("timestamp(9000000000000).getHours()", "the timestamp is out of range"),
        (
            "job.created_at + 1",
            "`+` does not work on a timestamp (2026-01-18T06:05:00.000000Z) and an integer (1)",
        ),
        ("(1).getHours()", "an integer (1) has no parts of time; make a timestamp(…) of it"),
        ("duration('1s').getMonth()", "a duration has hours, minutes, seconds and milliseconds only"),
    ]);
}

#[test]
fn what_is_wrong_with_an_expression_is_found_when_it_is_compiled() {
    let sources = [
        "",
        " \n",
        "initial_dat.x",
        "job.id + initial.x",
        "initial_data.items.map(item, itm.price)",
        "size(x)",
        "job.size(",
        "1 +",
        "1 + + 2",
        "a b",
        "job.priority = 3",
        "true and false",
        "true or false",
        "not true",
        "${job.id}",
        "'open",
        "job.id == \"a",
        "job.id.lower()",
        "strlen(job.id)",
        "size(job.id, 1)",
        "contains(job.id, 'a')",
        "job.id.int()",
        "has(job)",
        "[1].map(1, 2)",
        "[1].map(x)",
        "[1].all(x, [2].all(y, [3].all(z, true)))",
        "b'bytes'",
        "Point{x: 1}",
        "job.?id",
        "`job`.id",
        ".job.id",
        "int",
        "99999999999999999999",
        "job.id.matches(client.name)",
        "job.id.matches('(foo')",
        "job.id.matches('(a{1000}){1000}')",
        "job.id\u{0}",
        "ü",
        "{'a' 1}",
        "initial_data.x >\n\n  > 1",
    ];
    let errors = sources.map(|source| {
        let error = Expr::compile(source).err().unwrap_or_else(|| panic!("{source} compiles"));
        format!("{source:?} at {}: {error}", error.offset)
    });
    insta::assert_snapshot!(errors.join("\n"), @r##"
    "" at 0: the expression is empty; write for example `initial_data.amount`
    " \n" at 0: the expression is empty; write for example `initial_data.amount`
    "initial_dat.x" at 0: unknown variable `initial_dat`; did you mean `initial_data`?
    "job.id + initial.x" at 9: unknown variable `initial`; known are `job`, `initial_data`, `state_history`, `result`, `results`, `client`, `now`
    "initial_data.items.map(item, itm.price)" at 29: unknown variable `itm`; did you mean `item`?
    "size(x)" at 5: unknown variable `x`; known are `job`, `initial_data`, `state_history`, `result`, `results`, `client`, `now`
    "job.size(" at 9: expected ')', found the end of the expression; expressions are CEL, see docs/blueprints.md
    "1 +" at 3: expected expression, found the end of the expression; expressions are CEL, see docs/blueprints.md
    "1 + + 2" at 4: unexpected token; expressions are CEL, see docs/blueprints.md
    "a b" at 2: expected the end of the expression, found 'b'; expressions are CEL, see docs/blueprints.md
    "job.priority = 3" at 13: expected the end of the expression, found '='; write `==` to compare
    "true and false" at 5: expected the end of the expression, found 'and'; write `&&`
    "true or false" at 5: expected the end of the expression, found 'or'; write `||`
    "not true" at 4: expected the end of the expression, found 'true'; write `!`
    "${job.id}" at 0: unexpected character; write the expression alone, without `${` and `}`
    "'open" at 0: unterminated string literal; expressions are CEL, see docs/blueprints.md
    "job.id == \"a" at 10: unterminated string literal; expressions are CEL, see docs/blueprints.md
    "job.id.lower()" at 7: unknown function `lower`; docs/blueprints.md lists the functions
    "strlen(job.id)" at 0: unknown function `strlen`; docs/blueprints.md lists the functions
    "size(job.id, 1)" at 0: `size` is called in a way it does not have; write `size(x)`
    "contains(job.id, 'a')" at 0: `contains` is called in a way it does not have; write `x.contains(y)`
    "job.id.int()" at 7: `int` is called in a way it does not have; write `int(x)`
    "has(job)" at 4: invalid argument to has() macro; expressions are CEL, see docs/blueprints.md
    "[1].map(1, 2)" at 8: argument must be a simple name; expressions are CEL, see docs/blueprints.md
    "[1].map(x)" at 4: `map` is called in a way it does not have; see docs/blueprints.md for the forms of `has`, `matches` and the loops
    "[1].all(x, [2].all(y, [3].all(z, true)))" at 30: more than 2 loops are nested; leave such work to a worker
    "b'bytes'" at 0: byte strings are not supported; write a plain string
    "Point{x: 1}" at 0: message literals are not supported; write a map such as `{'id': job.id}`
    "job.?id" at 3: unsupported syntax '.?'; expressions are CEL, see docs/blueprints.md
    "`job`.id" at 0: unexpected quoted identifier; expressions are CEL, see docs/blueprints.md
    ".job.id" at 1: unknown variable `.job`; did you mean `job`?
    "int" at 0: unknown variable `int`; known are `job`, `initial_data`, `state_history`, `result`, `results`, `client`, `now`
    "99999999999999999999" at 0: invalid int literal; expressions are CEL, see docs/blueprints.md
    "job.id.matches(client.name)" at 7: the pattern of `matches` is no literal; write it out, as in `initial_data.code.matches('^[A-Z]+$')`
    "job.id.matches('(foo')" at 7: the pattern of `matches` is refused: unclosed group; write a shorter or correct RE2 pattern
    "job.id.matches('(a{1000}){1000}')" at 7: the pattern of `matches` is refused: Compiled regex exceeds size limit of 262144 bytes; write a shorter or correct RE2 pattern
    "job.id\0" at 6: unexpected character; expressions are CEL, see docs/blueprints.md
    "ü" at 0: unexpected character; expressions are CEL, see docs/blueprints.md
    "{'a' 1}" at 5: expected ':' in map entry; expressions are CEL, see docs/blueprints.md
    "initial_data.x >\n\n  > 1" at 20: unexpected token; expressions are CEL, see docs/blueprints.md
    "##);
}

#[test]
fn conditions_are_booleans() {
    let job = Job::new();
    let condition = |source: &str| Expr::compile(source).unwrap().eval_bool(&job.scope());
    assert_eq!(condition("initial_data.amount > 100"), Ok(true));
    assert_eq!(condition("initial_data.amount > 200"), Ok(false));
    assert_eq!(
        condition("initial_data.amount").unwrap_err().to_string(),
        "expression `initial_data.amount`: `initial_data.amount` is an integer (120), a boolean is needed"
    );
}

#[test]
fn an_error_says_where_in_the_expression_and_shows_the_value_cut() {
    let job = Job::new();
    let error = |source: &str| Expr::compile(source).unwrap().eval(&job.scope()).unwrap_err().to_string();
    assert_eq!(
        error("'é' == 'é' && initial_data.input"),
        "expression `'é' == 'é' && initial_data.input` at character 15: `initial_data.input` is a string (\"hello\"), a boolean \
         is needed"
    );
    let long = format!("!'{}'", "x".repeat(100));
    let told = error(&long);
    assert!(
        told.ends_with(&format!("the value is a string ({:?}…), a boolean is needed", "x".repeat(40))),
        "{told}"
    );
    assert_eq!(error("1 / 0"), "expression `1 / 0`: division by zero");
}

#[test]
fn every_name_has_its_value_where_it_stands() {
    let job = Job::new();
    let item = Datum::read(r#"{ "page": "p3" }"#).unwrap();
    let results = r#"[{"outcome":"success","data":{"n":1},"error":null}]"#;
    let signal = Json::object(r#"{"amount":7}"#).unwrap();
    let scope = Scope {
        item: Some((&item, 2)),
        results: Some(results),
        signal: Some(&signal),
        now: Timestamp::from_micros(1_768_716_360_000_000),
        ..job.scope()
    };
    for (place, source, expected) in [
        (Place::Common, "results.map(r, r.data.n)", json!([1])),
        (Place::Common, "now - job.created_at == duration('1m')", json!(true)),
        (Place::Common, "string(now)", json!("2026-01-18T06:06:00.000000Z")),
        (Place::Branch, "item.page + ' of ' + string(index + 1)", json!("p3 of 3")),
        (Place::Condition, "signal.amount > initial_data.rate", json!(true)),
    ] {
        let value = Expr::compile_at(source, place).unwrap().eval(&scope).unwrap();
        assert_eq!(value.to_value(), expected, "{source}");
    }
    // Where there is none, there is none, and no panic.
    for (name, nothing) in [("results", "[]"), ("item", "null"), ("index", "null")] {
        let value = Expr::compile_at(name, Place::Branch).unwrap().eval(&job.scope()).unwrap();
        assert_eq!(value.as_str(), nothing, "{name}");
    }
    for (place, source) in [(Place::Common, "item"), (Place::Condition, "index"), (Place::Branch, "signal.x")]
    {
        let error = Expr::compile_at(source, place).unwrap_err();
        assert!(error.message.contains("has a value only in"), "{error}");
    }
}

fn render(template: &Value) -> Result<Value, String> {
    let template = Template::compile(template).map_err(|error| format!("{}: {error}", error.offset))?;
    let rendered = template.render(&Job::new().scope()).map_err(|error| error.to_string())?;
    Ok(rendered.to_value())
}

#[test]
fn templates_keep_types_and_interpolate_text() {
    for (template, expected) in [
        (json!("plain"), json!("plain")),
        (json!("${initial_data.amount}"), json!(120)),
        (json!("${initial_data.items}"), json!([{"price": 40, "count": 2}, {"price": 5, "count": 1}])),
        (json!("${initial_data.none}"), json!(null)),
        (json!("n=${initial_data.amount}, ${initial_data.input}!"), json!("n=120, hello!")),
        (json!("${initial_data.none}${initial_data.whole}${initial_data.yes}"), json!("null100.0true")),
        (json!("list ${initial_data.nested.a}"), json!("list {\"b\": [1, 2, 3]}")),
        (json!("at ${job.created_at}"), json!("at 2026-01-18T06:05:00.000000Z")),
        (json!(" ${initial_data.amount}"), json!(" 120")),
        (json!("${{'a': {'b': '}'}}}"), json!({"a": {"b": "}"}})),
        (json!("${\"}\"}${'\\'}'}"), json!("}'}")),
        (json!("${r'\\'}}"), json!("\\}")),
        (json!("${'''a'}b'''}"), json!("a'}b")),
        (json!("${1 // } \n}"), json!(1)),
        (json!("$${job.id} costs $5 and $$ ${1}"), json!("${job.id} costs $5 and $$ 1")),
        (json!({"a": ["${1}", 2, {"b": "${'x'}"}], "c": null, "${job.id}": true}), {
            json!({"a": [1, 2, {"b": "x"}], "c": null, "${job.id}": true})
        }),
        (json!([]), json!([])),
        (json!(1.5), json!(1.5)),
    ] {
        assert_eq!(render(&template).map(|value| value.to_string()), Ok(expected.to_string()), "{template}");
    }
}

#[test]
fn what_is_only_named_is_passed_on_as_it_is_written() {
    let mut job = Job::new();
    job.initial_data = Json::object(
        r#" { "id": 123456789012345678901234567890, "price": 1.10, "e": 1E2, "text": "\u00e9\/",
              "order": { "id" : 1.0 , "k\u0065y": [ 0.10, { "deep": 9007199254740993.0 } ] } } "#,
    )
    .unwrap();
    let scope = job.scope();
    for (template, expected) in [
        (
            json!({"id": "${initial_data.id}", "price": "${initial_data.price}"}),
            r#"{"id":123456789012345678901234567890,"price":1.10}"#,
        ),
        (json!(["${initial_data.e}", "${initial_data.text}"]), r#"[1E2,"\u00e9\/"]"#),
        (
            json!("${initial_data.order}"),
            r#"{ "id" : 1.0 , "k\u0065y": [ 0.10, { "deep": 9007199254740993.0 } ] }"#,
        ),
        (json!("${initial_data.order.key[0]}"), "0.10"),
        (json!("${initial_data['order']['key'][1]}"), r#"{ "deep": 9007199254740993.0 }"#),
        (
            json!("no. ${initial_data.id}, ${initial_data.price} ${initial_data.text}"),
            r#""no. 123456789012345678901234567890, 1.10 é/""#,
        ),
        // What is computed, is computed.
        (json!("${initial_data.price + 0}"), "1.1"),
        (json!("${[initial_data.order.key]}"), r#"[[ 0.10, { "deep": 9007199254740993.0 } ]]"#),
        (json!("${[initial_data.price]}"), "[1.1]"),
    ] {
        let rendered = Template::compile(&template).unwrap().render(&scope).unwrap();
        assert_eq!(rendered.as_str(), expected, "{template}");
    }
    let whole = Template::compile(&json!("${initial_data}")).unwrap().render(&scope).unwrap();
    assert_eq!(whole.as_str(), job.initial_data.as_str().trim());
}

#[test]
fn faults_of_templates_have_their_place() {
    for (template, expected) in [
        (json!("ab ${"), "3: `${` is not closed; close it with `}`, or write `$${` for a plain `${`"),
        (json!("ab ${'}"), "3: `${` is not closed; close it with `}`, or write `$${` for a plain `${`"),
        (json!("ab ${}"), "5: the expression is empty; write for example `initial_data.amount`"),
        (json!(["é ${ jbo.id }"]), "6: unknown variable `jbo`; did you mean `job`?"),
        (
            json!({"a": "${initial_data.b}"}),
            "expression `initial_data.b`: `initial_data` has no member `b`; where it may be missing, test for it with has(…)",
        ),
    ] {
        assert_eq!(render(&template), Err(expected.to_owned()), "{template}");
    }
}

#[test]
fn only_what_an_expression_looks_at_is_taken_apart_and_that_once() {
    let job = Job::new();
    let scope = job.scope();
    let parsed = |template: Value| {
        let template = Template::compile(&template).unwrap();
        let data = Data::new(&scope);
        template.render_into(&data, &mut Output::default(), 0).unwrap();
        [Root::InitialData, Root::StateHistory, Root::Result].map(|root| data.has_read(root))
    };
    assert_eq!(parsed(json!({"id": "${job.id}", "by": "${client.name}"})), [false, false, false]);
    assert_eq!(parsed(json!(["${initial_data.input}", "${initial_data.amount}"])), [true, false, false]);
    assert_eq!(parsed(json!("${true || state_history.total > 1}")), [false, false, false]);
    assert_eq!(parsed(json!("${result.x.y + state_history.total}")), [false, true, true]);
}

/// A job with a list of `len` numbers and a text of `bytes` bytes.
fn large(len: usize, bytes: usize) -> Job {
    let list: Vec<usize> = (0..len).collect();
    let mut job = Job::new();
    job.initial_data = Json::object(&json!({"list": list, "text": "x".repeat(bytes)}).to_string()).unwrap();
    job
}

#[test]
fn work_is_bounded_however_little_is_written() {
    let job = large(10_000, 1000);
    let doubling = |times: usize| format!("[initial_data.text]{}", ".map(x, x + x)".repeat(times));
    let steps = "it takes more than 500000 steps; leave such work to a worker";
    for (source, expected) in [
        ("initial_data.list.map(x, initial_data.list.map(y, x * y))".to_owned(), steps),
        ("initial_data.list.all(x, initial_data.list.exists(y, y == -1) || true)".to_owned(), steps),
        ("initial_data.list.all(x, initial_data.list == initial_data.list)".to_owned(), steps),
        ("initial_data.list.all(x, !(-1 in initial_data.list))".to_owned(), steps),
        ("initial_data.list.all(x, size(initial_data.list + initial_data.list) > 0)".to_owned(), steps),
        ("initial_data.list.all(x, initial_data.text.matches('(.*)*y') || true)".to_owned(), steps),
        ("initial_data.list.all(x, job.labels.env.contains('t') && initial_data.text.contains('y') || true)".to_owned(), ""),
        (doubling(20), "it makes more than 1048576 bytes of text"),
        ("initial_data.list.map(x, initial_data.text)".to_owned(), "the value has more than 1048576 bytes; pass large data by reference"),
        (
            "(initial_data.list + [1]).map(x, x)".to_owned(),
            "the value has 10001 elements, a loop goes over at most 10000; leave such work to a worker",
        ),
    ] {
        let began = Instant::now();
        let outcome = Expr::compile(&source).unwrap().eval(&job.scope());
        // Generous: a debug build on a busy machine. Unbounded, each would take minutes.
        assert!(began.elapsed() < Duration::from_secs(5), "{source} took {:?}", began.elapsed());
        match outcome {
            Ok(_) => assert_eq!(expected, "", "{source}"),
            Err(error) => assert_eq!(error.reason, expected, "{source}"),
        }
    }
}

#[test]
fn data_that_one_decision_takes_apart_again_and_again_is_paid_for() {
    let job = large(0, PAYLOAD_BYTES_MAX - 100);
    let turn = Cell::new(0);
    let scope = Scope { turn: Some(&turn), ..job.scope() };
    let looks = Expr::compile("initial_data.list == []").unwrap();
    let times = (0..1000).take_while(|_| looks.eval(&scope).is_ok()).count();
    // A step is worth some tens of bytes, and there are two million.
    assert!((100..200).contains(&times), "{times} times a mebibyte");

    let taken = turn.replace(0);
    let times = (0..1000).take_while(|_| scope.pay_for_text(PAYLOAD_BYTES_MAX).is_ok()).count();
    assert!((100..200).contains(&times) && turn.get() <= taken + taken / 50, "{times} times {taken}");
}

#[test]
fn what_is_rendered_is_no_larger_than_a_payload() {
    let exact = large(0, PAYLOAD_BYTES_MAX - 100);
    let render = |template: Value| Template::compile(&template).unwrap().render(&exact.scope());
    let rendered = render(json!({"text": "${initial_data.text}", "pad": "x".repeat(70)})).unwrap();
    assert!(rendered.as_str().len() <= PAYLOAD_BYTES_MAX);
    let too_large = "the value has more than 1048576 bytes; pass large data by reference";
    for template in [
        json!({"text": "${initial_data.text}", "pad": "x".repeat(200)}),
        json!({"text": "${initial_data.text}", "k".repeat(200): 1}),
        json!(["${initial_data.text}", "${initial_data.text}"]),
        json!("${initial_data.text}${initial_data.text}"),
    ] {
        assert_eq!(render(template).unwrap_err().reason, too_large);
    }
}

#[test]
fn what_is_rendered_is_no_deeper_than_the_gate_lets_pass() {
    let deep = format!("{{\"d\":{}1{}}}", "[".repeat(126), "]".repeat(126));
    let mut job = Job::new();
    job.initial_data = Json::object(&deep).unwrap();
    let render = |template: Value| Template::compile(&template).unwrap().render(&job.scope());
    let fits = render(json!({"d": "${initial_data.d}"})).unwrap();
    assert!(Json::object(fits.as_str()).is_ok());
    for template in [json!({"e": {"d": "${initial_data.d}"}}), json!({"d": "${[initial_data.d]}"})] {
        let reason = render(template).unwrap_err().reason;
        assert_eq!(reason, "the value is nested deeper than 127 levels");
    }
}

#[test]
fn hostile_sources_are_refused_on_a_small_stack() {
    let nest =
        |open: &str, close: &str, times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
    let sources = [
        nest("(", ")", 40),
        nest("(", ")", 2000),
        nest("[", "]", 40),
        nest("[", "]", 2000),
        nest("{'a':", "}", 600),
        nest("size(", ")", 600),
        nest("true ? ", " : 2", 400),
        nest("true ? 1 : ", "", 370),
        nest("-", "", 4000),
        nest("!-", "", 2000),
        nest("1 + ", "", 1000),
        nest("1 + ", "", 200),
        nest("", " + 1", 499),
        nest("", " && 1", 499),
        nest("", "[0]", 1000),
        format!("job{}", ".a".repeat(499)),
        format!("job{}", ".a".repeat(2000)),
        format!("[1]{}", ".map(x, x)".repeat(99)),
        format!("[1]{}", ".map(x, x)".repeat(400)),
        "x".repeat(5000),
        format!("'{}'", "x".repeat(5000)),
        "(".repeat(4000),
        "[".repeat(30),
        "{".repeat(30),
        "a.b(".repeat(900),
        format!("'{}'.matches('{}')", "a".repeat(100), "(".repeat(1000)),
        format!("'a'.matches('{}a{}')", "(".repeat(200), ")".repeat(200)),
    ];
    // 2 MiB is what a thread of the runtime has.
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || {
        let job = Job::new();
        for source in sources {
            let began = Instant::now();
            if let Ok(expr) = Expr::compile(&source) {
                let _ = expr.eval(&job.scope());
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{source}");
        }
        // A deep chain within the limits is no fault.
        assert!(Expr::compile(&nest("1 + ", "", 90)).unwrap().eval(&job.scope()).is_ok());
        assert!(Expr::compile(&nest("(", ")", 30)).unwrap().eval(&job.scope()).is_ok());
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn compiled_expressions_go_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Expr>();
    shared::<Template>();
}

/// Text that looks like an expression more often than chance would have it.
fn expression_like() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "job",
        ".id",
        "initial_data",
        ".amount",
        ".items",
        "[0]",
        "['x']",
        "result",
        "client",
        "x",
        ".map(x, ",
        ".all(x, ",
        ".exists_one(x, ",
        ".filter(x, ",
        "has(",
        "size(",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "'a'",
        "\"b\"",
        "'",
        "\"",
        "'''",
        "r'",
        "b'",
        "\\",
        "1",
        "-1",
        "1.5",
        "0u",
        "1e9",
        "9223372036854775807",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " == ",
        " < ",
        " in ",
        " ? ",
        " : ",
        ", ",
        " && ",
        " || ",
        "!",
        "null",
        "true",
        "timestamp(",
        "duration(",
        "int(",
        "string(",
        ".matches('a*')",
        ".getHours()",
        "//",
        "\n",
        "é",
        "\u{0}",
        ".",
        "`",
        "$",
        "@",
        "#",
        "?",
        "0x",
        "..",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_the_compiler_panic(source in ".{0,200}") {
        let _ = Expr::compile(&source);
        let _ = Template::text(&source);
    }

    #[test]
    fn nothing_expression_like_makes_compiler_or_evaluation_panic(source in expression_like()) {
        let job = Job::new();
        if let Ok(expr) = Expr::compile(&source) {
            let _ = expr.eval(&job.scope());
        }
        if let Ok(template) = Template::text(&format!("a ${{{source}}} b ${{{source}")) {
            let _ = template.render(&job.scope());
        }
    }

    #[test]
    fn what_was_escaped_reads_as_it_was(text in "[$ {}a'\"]{0,20}") {
        let escaped = text.replace("${", "$${");
        let template = Template::text(&escaped).unwrap();
        prop_assert_eq!(template.render(&Job::new().scope()).unwrap().to_value(), Value::String(text));
    }
}
