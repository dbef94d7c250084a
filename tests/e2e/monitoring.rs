//! The dashboard and the alerts of `examples/monitoring`: whatever they ask for is what a real orchestrator with real jobs says.

use std::collections::{BTreeMap, BTreeSet};

use avtomatika_proto::v1::SubmitJobRequest;
use avtomatika_worker::{TaskContext, TaskError};
use promql_parser::{
    label::{MatchOp, Matchers},
    parser::{Expr, LabelModifier, VectorSelector, parse},
    util::{ExprVisitor, walk_expr},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::stack::{RunningWorker, Stack, in_time};

const DASHBOARD: &str = include_str!("../../examples/monitoring/dashboard.json");
const ALERTS: &str = include_str!("../../examples/monitoring/alerts.yaml");
const DOCUMENT: &str = include_str!("../../docs/operating.md");

/// What Prometheus adds to everything that it reads.
const LABELS_OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// The values that each label of each metric has.
type Page = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The page of an orchestrator that has seen all kinds of ends.
async fn page() -> Page {
    let stack = Stack::start().await;
    let process = |_: Value, _: TaskContext| async { Ok::<_, TaskError>(json!({})) };
    let brittle =
        |_: Value, _: TaskContext| async { Err::<Value, _>(TaskError::transient("it does not work")) };
    let worker = stack.worker("w1").handle("process_data", process).handle("brittle", brittle);
    let worker = RunningWorker::start(worker).await;
    let (status, job) = stack.post("/api/jobs/test?wait=30s", r#"{"input": "x"}"#).await;
    assert_eq!((status, &job["status"]), (200, &json!("finished")));
    let mut client = stack.grpc().await;
    let request = SubmitJobRequest { blueprint: "brittle".into(), ..SubmitJobRequest::default() };
    let brittle = in_time(client.jobs.submit_job(request)).await.unwrap().into_inner().job_id;
    client.until(&brittle, |job| job.finished_at.is_some()).await;
    assert_eq!(stack.post("/api/jobs/nothing", "{}").await.0, 404);
    let page = in_time(reqwest::get(format!("{}/_public/metrics", stack.url))).await.unwrap();
    let text = page.text().await.unwrap();
    worker.stop().await.unwrap();
    read(&text)
}

fn read(text: &str) -> Page {
    let mut page = Page::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.split_once('}').unwrap().0),
            None => (line.split_once(' ').unwrap().0, ""),
        };
        let known = page.entry(name.to_owned()).or_default();
        for (key, value) in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
            known.entry(key.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    page
}

/// Looks at every series that an expression asks for.
struct Asked<'p> {
    page: &'p Page,
    /// Labels of the metrics below the present place.
    labels: BTreeSet<String>,
    grouped_by: BTreeSet<String>,
}

impl Asked<'_> {
    fn of(page: &Page, expression: &str) {
        let expr = parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let mut asked = Asked { page, labels: BTreeSet::new(), grouped_by: BTreeSet::new() };
        walk_expr(&mut asked, &expr).unwrap_or_else(|error| panic!("{expression}: {error}"));
        for label in &asked.grouped_by {
            assert!(asked.labels.contains(label), "{expression}: nothing has the label {label}");
        }
    }

    fn series(&mut self, selector: &VectorSelector) -> Result<(), String> {
        let Some(name) = &selector.name else { return Err("a selector without a name".to_owned()) };
        self.labels.extend(LABELS_OF_PROMETHEUS.map(str::to_owned));
        // Made by Prometheus itself.
        if name == "up" {
            return Ok(());
        }
        let labels = self.page.get(name).ok_or_else(|| format!("nobody exports {name}"))?;
        self.labels.extend(labels.keys().cloned());
        let Matchers { matchers, or_matchers } = &selector.matchers;
        for matcher in matchers.iter().chain(or_matchers.iter().flatten()) {
            if LABELS_OF_PROMETHEUS.contains(&matcher.name.as_str()) {
                continue;
            }
            let values = labels.get(&matcher.name);
            let values = values.ok_or_else(|| format!("{name} has no label {}", matcher.name))?;
            let wanted: Vec<&str> = match matcher.op {
                MatchOp::Equal => vec![&matcher.value],
                // Ours are lists of words.
                MatchOp::Re(_) => matcher.value.split('|').collect(),
                _ => Vec::new(),
            };
            for value in wanted {
                if !values.contains(value) {
                    return Err(format!("{name} never has {}={value:?}: {values:?}", matcher.name));
                }
            }
        }
        Ok(())
    }
}

impl ExprVisitor for Asked<'_> {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        match expr {
            Expr::VectorSelector(selector) => self.series(selector)?,
            Expr::MatrixSelector(matrix) => self.series(&matrix.vs)?,
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(by)) = &aggregate.modifier {
                    self.grouped_by.extend(by.labels.iter().cloned());
                }
            }
            Expr::Binary(binary) => {
                let on = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
                if let Some(LabelModifier::Include(on)) = on {
                    self.grouped_by.extend(on.labels.iter().cloned());
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

#[derive(Deserialize)]
struct Alerts {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[tokio::test]
async fn every_panel_and_every_alert_asks_for_what_there_is() {
    let page = page().await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // Grafana fills its variables in before Prometheus sees the expression.
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
            Asked::of(&page, &expression);
            asked += 1;
        }
    }
    let alerts: Alerts = serde_saphyr::from_str(ALERTS).unwrap();
    for rule in alerts.groups.iter().flat_map(|group| &group.rules) {
        Asked::of(&page, &rule.expr);
        asked += 1;
        assert!(["warning", "critical"].contains(&rule.labels["severity"].as_str()), "{}", rule.alert);
        let runbook = format!("docs/operating.md#{}", rule.alert.to_lowercase());
        assert_eq!(rule.annotations["runbook_url"], runbook);
        let heading = format!("### {}\n", rule.alert);
        assert!(DOCUMENT.contains(&heading), "docs/operating.md has no paragraph on {}", rule.alert);
    }
    assert!(asked > 60, "{asked} expressions");
}

#[tokio::test]
async fn a_question_for_what_there_is_not_is_noticed() {
    let page = read("a_total{kind=\"x\"} 1\n");
    for (expression, complaint) in [
        ("rate(b_total[1m])", "nobody exports b_total"),
        ("a_total{sort=\"x\"}", "a_total has no label sort"),
        ("a_total{kind=\"y\"}", "a_total never has kind"),
    ] {
        let expr = parse(expression).unwrap();
        let mut asked = Asked { page: &page, labels: BTreeSet::new(), grouped_by: BTreeSet::new() };
        let found = walk_expr(&mut asked, &expr).unwrap_err();
        assert!(found.starts_with(complaint), "{found}");
    }
}
