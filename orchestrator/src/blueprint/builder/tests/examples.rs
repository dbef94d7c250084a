//! The blueprints of `examples/blueprints`, as one would build them.

use std::{fs, path::Path, time::Duration};

use serde_json::json;

use super::super::*;
use crate::blueprint::{KeyPolicy, RetryPolicy, Strategy, Tolerance, load};

#[test]
fn every_shipped_example_can_be_built_and_is_the_same_version() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints");
    let mut files: Vec<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    files.sort();
    let built = built();
    assert_eq!(files, built.iter().map(|(file, _)| *file).collect::<Vec<_>>(), "each file has its builder");
    for (file, builder) in built {
        let written = load(file, &fs::read_to_string(dir.join(file)).unwrap()).unwrap().definition;
        let built = builder.check().unwrap();
        assert_eq!(built.warnings, [], "{file}");
        assert_eq!(built.definition.canonical(), written.canonical(), "{file}");
        assert_eq!(
            format!("{:?}", built.definition.into_blueprint(1)),
            format!("{:?}", written.into_blueprint(1))
        );
    }
}

/// Every blueprint of `examples/blueprints`, as one would build it.
fn built() -> Vec<(&'static str, BlueprintBuilder)> {
    vec![
        ("announcement.yaml", announcement()),
        ("document_intake.yaml", document_intake()),
        ("fetch_with_retries.yaml", fetch_with_retries()),
        ("invoice_approval.yaml", invoice_approval()),
        ("order_review.yaml", order_review()),
        ("page_scan.yaml", page_scan()),
        ("payment.yaml", payment()),
        ("picture.yaml", picture()),
        ("stock_order.yaml", stock_order()),
        ("tenant_report.yaml", tenant_report()),
        ("test_workflow.yaml", test_workflow()),
        ("video_render.yaml", video_render()),
    ]
}

fn tenant_report() -> BlueprintBuilder {
    let scan = task("scan_page")
        .param("page", "${item}")
        .param("number", "${index + 1}")
        .param("of", "${initial_data.pages.size()}")
        .concurrency(at_once(r#""scan:" + initial_data.tenant"#, 2));
    let mail = task("send_bill")
        .param("tenant", "${initial_data.tenant}")
        .param("pages", "${results.size()}")
        .rate(per("'mail'", 5, Duration::from_secs(1)))
        .rate(per("'mail'", 100, Duration::from_secs(60)).burst(10));
    Blueprint::builder("tenant_report")
        .endpoint("/jobs/reports")
        .concurrency(at_once(r#""report:" + initial_data.tenant"#, 1).policy(KeyPolicy::CancelOldest))
        .start("scan", map_each("initial_data.pages", scan).on("success", "mail").on("failure", "failed"))
        .state("mail", mail.on("success", "completed").on("failure", "failed"))
        .state("completed", finished())
        .state("failed", failed())
}

fn video_render() -> BlueprintBuilder {
    Blueprint::builder("video_render")
        .endpoint("/jobs/video_render")
        .start(
            "cut",
            task("cut")
                .param("video", "${initial_data.video}")
                .requires(json!({ "software": ["ffmpeg >= 6"] }))
                .strategy(Strategy::LeastConnections)
                .on("success", "render")
                .on("failure", "failed"),
        )
        .state(
            "render",
            task("render")
                .param("scenes", "${state_history.scenes}")
                .timeout(Duration::from_secs(30 * 60))
                .requires(json!({
                    "labels": { "region": ["eu", "uk"], "tier": ">= 2" },
                    "resources": { "gpu_vram_gb": ">= 16", "cpus": 8 },
                    "models": ["upscaler"],
                    "max_cost": 0.5,
                }))
                .prefer(json!([
                    { "labels": { "disk": "ssd" }, "weight": 3 },
                    { "resources": { "gpu_vram_gb": ">= 24" } },
                ]))
                .strategy(Strategy::BestValue)
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state("completed", finished())
        .state("failed", failed())
}

fn announcement() -> BlueprintBuilder {
    Blueprint::builder("announcement")
        .start(
            "tell",
            task("announce")
                .param("text", "${initial_data.document} is here")
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state("completed", finished())
        .state("failed", failed())
}

fn document_intake() -> BlueprintBuilder {
    Blueprint::builder("document_intake")
        .endpoint("/jobs/documents")
        .start(
            "look",
            map_named()
                .branch("preview", task("make_preview").param("document", "${initial_data.document}"))
                .branch("text", run("page_scan").input(json!({ "pages": "${initial_data.pages}" })))
                .on("success", "keep")
                .on("failure", "failed"),
        )
        .state(
            "keep",
            pass()
                .set("preview", "${results[0].data.path}")
                .set("text", "${results[1].data.text}")
                .then("announce"),
        )
        .state(
            "announce",
            run("announcement")
                .input(json!({ "document": "${initial_data.document}" }))
                .detached()
                .on("success", "caption"),
        )
        .state(
            "caption",
            run("picture")
                .input(json!({ "width": 1240, "height": 1754, "caption": "${state_history.text}" }))
                .output(json!({ "words": "${has(result.words) ? result.words : 0}" }))
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state(
            "completed",
            finished()
                .result(json!({ "preview": "${state_history.preview}", "words": "${state_history.words}" })),
        )
        .state("failed", failed())
}

fn invoice_approval() -> BlueprintBuilder {
    let schema = json!({
        "type": "object",
        "required": ["invoice", "amount"],
        "properties": {
            "invoice": { "type": "string", "pattern": "^[A-Z]-[0-9]+$" },
            "amount": { "type": "number", "exclusiveMinimum": 0 },
        },
    });
    Blueprint::builder("invoice_approval")
        .endpoint("/jobs/invoices")
        .input_schema(schema)
        .start(
            "clerk",
            approval()
                .message("Pay ${initial_data.amount} for ${initial_data.invoice}?")
                .deadline(Duration::from_hours(48))
                .on("approved", "is_large")
                .on("rejected", "refused")
                .on("unclear", "head")
                .on("timeout", "head"),
        )
        .state("is_large", choice().when("initial_data.amount > 1000", "head").otherwise("pay"))
        .state(
            "head",
            approval()
                .message("The clerk says: ${has(result.comment) && result.comment != null ? result.comment : 'nothing'}")
                .on("approved", "pay")
                .on("rejected", "refused"),
        )
        .state(
            "pay",
            task("pay_invoice")
                .param("invoice", "${initial_data.invoice}")
                .param("amount", "${initial_data.amount}")
                .param("approved_by", "${result.by}")
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state("completed", finished())
        .state("refused", failed())
        .state("failed", failed())
}

fn page_scan() -> BlueprintBuilder {
    let schema = json!({
        "type": "object",
        "required": ["pages"],
        "properties": { "pages": { "type": "array", "items": { "type": "string" }, "maxItems": 10000 } },
    });
    let scan = task("scan_page")
        .param("page", "${item}")
        .param("number", "${index + 1}")
        .param("of", "${initial_data.pages.size()}")
        .timeout(Duration::from_mins(2))
        .retry(RetryPolicy { max_retries: 2, ..RetryPolicy::default() });
    Blueprint::builder("page_scan")
        .endpoint("/jobs/scans")
        .input_schema(schema)
        .start(
            "scan",
            map_each("initial_data.pages", scan)
                .max_parallel(4)
                .tolerate(Tolerance::Percent(10.0))
                .on("success", "gather")
                .on("failure", "failed"),
        )
        .state(
            "gather",
            task("join_text")
                .param("texts", "${results.filter(r, r.outcome == 'success').map(r, r.data.text)}")
                .param("missing", "${results.filter(r, r.outcome != 'success').size()}")
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state(
            "completed",
            finished()
                .result(json!({ "text": "${state_history.text}", "pages": "${initial_data.pages.size()}" })),
        )
        .state("failed", failed())
}

fn payment() -> BlueprintBuilder {
    let paid = "signal.order == initial_data.order && signal.amount >= initial_data.amount";
    Blueprint::builder("payment")
        .endpoint("/jobs/payments")
        .start(
            "listen",
            event("paid")
                .when(paid)
                .deadline(Duration::from_hours(72))
                .on("received", "rest")
                .on("timeout", "remind"),
        )
        .state(
            "remind",
            task("send_reminder")
                .param("order", "${initial_data.order}")
                .on("success", "breathe")
                .on("failure", "failed"),
        )
        .state("breathe", wait(Duration::from_hours(24)).then("last_chance"))
        .state(
            "last_chance",
            event("paid").deadline(Duration::from_hours(72)).on("received", "rest").on("timeout", "unpaid"),
        )
        .state("rest", wait_until("${initial_data.ship_after}").then("ship"))
        .state(
            "ship",
            task("ship_order")
                .param("order", "${initial_data.order}")
                .param("paid", "${state_history.amount}")
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state("completed", finished())
        .state("unpaid", failed())
        .state("failed", failed())
}

fn stock_order() -> BlueprintBuilder {
    let input = json!({
        "type": "object",
        "required": ["item", "count"],
        "properties": { "item": { "type": "string" }, "count": { "type": "integer", "minimum": 1 } },
    });
    let reserved = json!({
        "type": "object",
        "required": ["reservation", "price"],
        "properties": { "price": { "type": "number", "minimum": 0 } },
    });
    let once_more =
        RetryPolicy { max_retries: 1, initial_delay: Duration::from_secs(2), ..RetryPolicy::default() };
    Blueprint::builder("stock_order")
        .endpoint("/jobs/stock")
        .input_schema(input)
        .default_timeout(Duration::from_secs(30))
        .default_retry(once_more)
        .start(
            "reserve",
            task("reserve_stock")
                .param("item", "${initial_data.item}")
                .param("count", "${initial_data.count}")
                .result_schema(reserved)
                .output(json!({
                    "reservation": "${result.reservation}",
                    "total": "${result.price * initial_data.count}",
                }))
                .on("success", "bill")
                .on("failure", "failed")
                .catch("OUT_OF_STOCK", "back_order")
                .catch("INVALID_RESULT_ERROR", "failed"),
        )
        .state(
            "back_order",
            task("order_from_supplier")
                .param("item", "${initial_data.item}")
                .timeout(Duration::from_mins(5))
                .on("success", "reserve")
                .on("failure", "failed"),
        )
        .state(
            "bill",
            task("send_bill")
                .param("reservation", "${state_history.reservation}")
                .param("total", "${state_history.total}")
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state(
            "completed",
            finished().result(json!({
                "reservation": "${state_history.reservation}",
                "total": "${state_history.total}",
            })),
        )
        .state("failed", failed())
}

fn fetch_with_retries() -> BlueprintBuilder {
    let patient = RetryPolicy {
        max_retries: 5,
        initial_delay: Duration::from_secs(5),
        max_delay: Duration::from_mins(5),
        multiplier: 3.0,
    };
    let fetch = || task("fetch").timeout(Duration::from_mins(2));
    Blueprint::builder("fetch_with_retries")
        .endpoint("/jobs/fetch")
        .max_transitions(20)
        .start(
            "fetch",
            fetch()
                .param("url", "${initial_data.url}")
                .retry(patient)
                .on("success", "completed")
                .on("failure", "has_mirror"),
        )
        .state("has_mirror", choice().when("has(initial_data.mirror)", "fetch_mirror").otherwise("failed"))
        .state(
            "fetch_mirror",
            fetch()
                .param("url", "${initial_data.mirror}")
                .param("note", "instead of ${initial_data.url}")
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state("completed", finished())
        .state("failed", failed())
}

fn order_review() -> BlueprintBuilder {
    let heavy = "state_history.total > 1000 || job.labels.exists(key, key == 'review')";
    Blueprint::builder("order_review")
        .endpoint("/jobs/orders")
        .start(
            "price",
            task("price_order")
                .param("order_id", "${initial_data.order.id}")
                .param("lines", "${initial_data.order.items.map(item, item.price * item.count)}")
                .timeout(Duration::from_secs(30))
                .on("success", "decide")
                .on("failure", "failed"),
        )
        .state(
            "decide",
            choice().when("state_history.total == 0", "note_free").when(heavy, "review").otherwise("ship"),
        )
        .state(
            "note_free",
            pass()
                .set("note", "nothing to pay for ${initial_data.order.id}")
                .set("asked_by", "${client.name}")
                .then("ship"),
        )
        .state(
            "review",
            task("review_order")
                .param("order_id", "${initial_data.order.id}")
                .param("total", "${state_history.total}")
                .timeout(Duration::from_hours(48))
                .no_retry()
                .on("success", "ship")
                .on("rejected", "refused")
                .on("timeout", "refused")
                .on("failure", "failed"),
        )
        .state(
            "ship",
            task("ship_order")
                .param("order_id", "${initial_data.order.id}")
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state("completed", finished())
        .state("refused", failed())
        .state("failed", failed())
}

fn picture() -> BlueprintBuilder {
    Blueprint::builder("picture")
        .endpoint("/jobs/picture")
        .start(
            "scale",
            task("scale_picture")
                .param("width", "${initial_data.width}")
                .param("height", "${initial_data.height}")
                .param("longest_side", 256)
                .timeout(Duration::from_secs(30))
                .on("success", "caption")
                .on("failure", "failed"),
        )
        .state(
            "caption",
            task("count_words")
                .param("text", "${initial_data.caption}")
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state("completed", finished())
        .state("failed", failed())
}

fn test_workflow() -> BlueprintBuilder {
    Blueprint::builder("test_workflow")
        .endpoint("/jobs/test")
        .start(
            "init",
            task("process_data")
                .param("job_id", "${job.id}")
                .param("payload", "${initial_data.input}")
                .timeout(Duration::from_mins(1))
                .on("success", "completed")
                .on("failure", "failed"),
        )
        .state("completed", finished())
        .state("failed", failed())
}
