//! What workers say: the messages of their streams, and what they register with. The first byte tells which.

use avtomatika_proto::limits::{LABEL_VALUE_BYTES_MAX, LABELS_MAX, WORKER_SLOTS_MAX};
use prost::Message as _;

use super::*;

const MESSAGE: u8 = 0;
const REGISTRATION: u8 = 1;

fn check(bytes: &[u8]) {
    match bytes {
        [REGISTRATION, rest @ ..] => {
            if let Ok(request) = v1::RegisterWorkerRequest::decode(rest) {
                registration(request);
            }
        }
        [_, rest @ ..] => {
            if let Some(message) = v1::WorkerMessage::decode(rest).ok().and_then(|message| message.message) {
                assert!(data_bytes(&message) <= rest.len());
                domain(message).into_iter().for_each(said);
            }
        }
        [] => {}
    }
}

/// What goes on to dispatch is within every limit, whatever came.
fn said(said: FromWorker) {
    match said {
        FromWorker::Results(results) => {
            assert!((1..=RESULTS_AT_ONCE).contains(&results.len()));
            for result in results {
                is_kept(result.checkpoint);
                assert!(is_outcome(&result.outcome), "{}", result.outcome);
                assert!(result.data.as_str().len() <= PAYLOAD_BYTES_MAX);
                assert!(Json::object(result.data.as_str()).is_ok());
                if let Some(error) = result.error {
                    assert!(
                        error.code.len() <= NAME_BYTES_MAX && error.message.len() <= ERROR_MESSAGE_BYTES_MAX
                    );
                }
            }
        }
        FromWorker::Progress(_, progress) => {
            assert!((0.0..=1.0).contains(&progress.fraction), "{}", progress.fraction);
            assert!(progress.message.len() <= PROGRESS_MESSAGE_BYTES_MAX);
            is_kept(progress.checkpoint);
        }
        FromWorker::State { hot_cache, load } => {
            assert!(hot_cache.len() <= HOT_CACHE_MAX && hot_cache.iter().all(|name| is_name(name)));
            assert!(!load.is_nan());
        }
        FromWorker::Credits(_)
        | FromWorker::Drain
        | FromWorker::Silent
        | FromWorker::Heard
        | FromWorker::Away
        | FromWorker::Ended => {}
    }
}

/// A checkpoint is one that may be stored, or none.
fn is_kept(checkpoint: Option<Json>) {
    if let Some(checkpoint) = checkpoint {
        assert!(checkpoint.as_str().len() <= CHECKPOINT_BYTES_MAX);
        assert!(Json::object(checkpoint.as_str()).is_ok());
    }
}

fn registration(request: v1::RegisterWorkerRequest) {
    match worker_record(request) {
        Ok(worker) => {
            assert!(worker.worker_id.is_empty() || is_name(&worker.worker_id));
            assert!(worker.task_types.iter().all(|task_type| is_name(task_type)));
            assert!(worker.task_types.is_sorted() && !worker.task_types.is_empty());
            assert!((1..=WORKER_SLOTS_MAX).contains(&worker.slots));
            let texts = [&worker.labels, &worker.software, &worker.models];
            for (key, value) in texts.into_iter().flatten() {
                assert!(!key.is_empty() && value.len() <= LABEL_VALUE_BYTES_MAX);
                assert!(!key.chars().chain(value.chars()).any(char::is_control), "{key:?}: {value:?}");
            }
            assert!(worker.labels.len() <= LABELS_MAX);
            assert!(worker.resources.values().all(|amount| amount.is_finite()));
            let cost_is_sound =
                |terms: &Terms| terms.cost.is_none_or(|cost| cost.is_finite() && cost.is_sign_positive());
            assert!(worker.terms.values().all(cost_is_sound));
        }
        Err(error) => {
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.message.len() < 1000 && !error.message.chars().any(char::is_control), "{error:?}");
        }
    }
}

/// One of each, with something in every field.
fn made() -> Vec<Vec<u8>> {
    let [task_id, job_id] =
        ["01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8058"].map(str::to_owned);
    let result = v1::TaskResult {
        task_id: task_id.clone(),
        job_id,
        outcome: "success".into(),
        data: "{\"a\":1}".into(),
        error: Some(v1::TaskError { code: "E".into(), message: "m".into() }),
        checkpoint: "{\"page\":4}".into(),
    };
    let progress = v1::TaskProgress {
        task_id: task_id.clone(),
        fraction: 0.5,
        message: "half".into(),
        checkpoint: "{\"page\":3}".into(),
    };
    let words = [
        Up::Hello(v1::Hello { session_id: task_id.clone(), held_task_ids: vec![task_id.clone()] }),
        Up::Credits(v1::Credits { slots: 3 }),
        Up::TasksAccepted(v1::TasksAccepted { task_ids: vec![task_id] }),
        Up::TaskResults(v1::TaskResults { results: vec![result.clone(), result] }),
        Up::TaskProgress(progress),
        Up::WorkerState(v1::WorkerState { hot_cache: vec!["sdxl".into()], load: 0.25 }),
        Up::Drain(v1::Drain {}),
        Up::Heartbeat(v1::Heartbeat::default()),
    ];
    let message = |word| v1::WorkerMessage { message: Some(word) }.encode_to_vec();
    let mut made: Vec<Vec<u8>> =
        words.into_iter().map(|word| [vec![MESSAGE], message(word)].concat()).collect();
    let pair = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let registration = v1::RegisterWorkerRequest {
        worker_id: "w-1".into(),
        worker_type: "gpu".into(),
        supported_tasks: vec![v1::SupportedTask {
            r#type: "resize".into(),
            max_concurrent_tasks: 2,
            cost: Some(0.5),
        }],
        max_concurrent_tasks: 4,
        labels: pair("zone", "a"),
        resources: [("vram_gb".to_owned(), 24.0)].into(),
        hostname: "host".into(),
        sdk_version: "0.1.0".into(),
        installed_software: pair("ffmpeg", "6.1"),
        installed_models: pair("sdxl", "1"),
    };
    made.push([vec![REGISTRATION], registration.encode_to_vec()].concat());
    made
}

#[test]
fn fuzz_stream() {
    crate::fuzz::fuzz("stream", made(), &["success", "{\"a\":", "\u{0}", "\u{202e}", "code:a"], check);
}
