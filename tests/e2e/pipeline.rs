//! `examples/pipeline` from one end to the other: the blueprints and scripts that its README shows, over real sockets.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use avtomatika_worker::exec::Exec;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::stack::{RunningWorker, Stack, in_time};

const SCRIPTS: [(&str, &str); 3] = [
    ("split_document", "examples/pipeline/workers/split_document.sh"),
    ("scan_page", "examples/pipeline/workers/scan_page.sh"),
    ("archive_pages", "examples/pipeline/workers/archive_pages.sh"),
];

/// The orchestrator, the worker that runs the scripts, and where they put their files.
struct Pipeline {
    stack: Stack,
    worker: RunningWorker,
    data: TempDir,
    hook: Hook,
}

impl Pipeline {
    async fn start() -> Self {
        let mut stack = Stack::start().await;
        stack.stop().await;
        for name in ["process_document", "archive_document"] {
            let path = example(&format!("examples/pipeline/blueprints/{name}.yaml"));
            stack.blueprints.push(fs::read_to_string(path).unwrap());
        }
        stack.start_again().await;
        let data = tempfile::tempdir().unwrap();
        let mut worker = stack.worker("scripts");
        for (task_type, script) in SCRIPTS {
            let command = format!("PIPELINE_DIR={} {}", data.path().display(), example(script).display());
            worker = worker.handler(task_type, Arc::new(Exec::new(command)));
        }
        let worker = RunningWorker::start(worker).await;
        Self { stack, worker, data, hook: Hook::start().await }
    }

    /// Sends a document, and returns the job's id.
    async fn send(&self, document: &Path) -> String {
        let body = json!({ "initial_data": { "document": document }, "webhook_url": self.hook.url });
        let (status, answer) = self.stack.post("/api/v1/jobs/documents", &body.to_string()).await;
        assert_eq!(status, 202, "{answer}");
        answer["job_id"].as_str().unwrap().to_owned()
    }

    /// Decides what the message asks, as whoever got the message can.
    async fn decide(&self, message: &Value, decision: &str) {
        let job_id = message["data"]["id"].as_str().unwrap();
        let token = &message["data"]["approval"]["token"];
        let body = json!({ "token": token, "decision": decision, "by": "the librarian" });
        let path = format!("/_public/webhooks/approval/{job_id}");
        let (status, answer) = self.stack.post(&path, &body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// The jobs of this status.
    async fn jobs(&self, status: &str) -> Vec<Value> {
        let (_, answer) = self.stack.get(&format!("/api/jobs?status={status}")).await;
        answer["jobs"].as_array().unwrap().clone()
    }

    async fn stop(self) {
        self.worker.stop().await.unwrap();
    }
}

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Receives webhooks, as anything that speaks HTTP can.
struct Hook {
    url: String,
    messages: mpsc::Receiver<Value>,
}

impl Hook {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, messages) = mpsc::channel(100);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let message = receive(stream).await;
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        });
        Self { url, messages }
    }

    async fn next(&mut self) -> Value {
        in_time(self.messages.recv()).await.unwrap()
    }
}

/// One request and its answer.
async fn receive(mut stream: TcpStream) -> Value {
    let mut request = BufReader::new(&mut stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        request.read_line(&mut line).await.unwrap();
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    request.read_exact(&mut body).await.unwrap();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// The files in an archive.
fn listing(archive: &Value) -> Vec<String> {
    let listed = Command::new("tar").arg("-tf").arg(archive.as_str().unwrap()).output().unwrap();
    let mut files: Vec<String> =
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_short_document_goes_through_and_its_webhook_is_told() {
    let mut pipeline = Pipeline::start().await;
    let job_id = pipeline.send(&example("examples/pipeline/alice.txt")).await;
    let message = pipeline.hook.next().await;
    assert_eq!((&message["type"], &message["data"]["id"]), (&json!("job.finished"), &json!(job_id)));
    let result = &message["data"]["result"];
    let pages = json!([
        { "page": "page-0001.txt", "words": 21, "checksum": "2931956366" },
        { "page": "page-0002.txt", "words": 24, "checksum": "1666218452" },
    ]);
    assert_eq!(result["pages"], pages);
    assert_eq!(listing(&result["archive"]), ["./", "./manifest.json", "./page-0001.txt", "./page-0002.txt"]);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_long_document_waits_for_a_human_and_survives_a_restart_and_a_disk_that_is_away() {
    let mut pipeline = Pipeline::start().await;
    let job_id = pipeline.send(&example("examples/pipeline/moby.txt")).await;
    let asked = pipeline.hook.next().await;
    assert_eq!(asked["type"], "job.approval_requested");
    assert!(
        asked["data"]["approval"]["message"].as_str().unwrap().ends_with("moby.txt has 4 pages. Process it?")
    );
    // People take their time; meanwhile the orchestrator is replaced.
    pipeline.stack.stop().await;
    pipeline.stack.start_again().await;
    // And a page is away when its turn comes.
    let page = pipeline.data.path().join(&job_id).join("page-0002.txt");
    let away = pipeline.data.path().join("away.txt");
    fs::rename(&page, &away).unwrap();
    pipeline.decide(&asked, "approved").await;
    let waiting = in_time(async {
        loop {
            // The other pages are done; this one waits to be tried again.
            let waiting = pipeline.jobs("waiting_for_timer").await;
            if let Some(branch) = waiting.first() {
                return branch.clone();
            }
        }
    })
    .await;
    assert_eq!(waiting["initial_data"]["page"], "page-0002.txt");
    assert!(waiting["error_message"].as_str().unwrap().contains("page-0002.txt is not there"), "{waiting}");
    fs::rename(&away, &page).unwrap();
    let ended = pipeline.hook.next().await;
    assert_eq!(ended["type"], "job.finished", "{ended}");
    let pages = ended["data"]["result"]["pages"].as_array().unwrap().clone();
    let words: Vec<u64> = pages.iter().map(|page| page["words"].as_u64().unwrap()).collect();
    assert_eq!(words, [43, 25, 25, 29], "in the order of the pages");
    assert_eq!(listing(&ended["data"]["result"]["archive"]).len(), 6);
    let (_, history) = pipeline.stack.get(&format!("/api/jobs/{job_id}/history")).await;
    assert!(history.to_string().contains("the librarian"), "who decided is in the history: {history}");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_document_that_nobody_wants_is_not_looked_at() {
    let mut pipeline = Pipeline::start().await;
    let job_id = pipeline.send(&example("examples/pipeline/moby.txt")).await;
    let asked = pipeline.hook.next().await;
    pipeline.decide(&asked, "rejected").await;
    let ended = pipeline.hook.next().await;
    assert_eq!((&ended["type"], &ended["data"]["current_state"]), (&json!("job.failed"), &json!("refused")));
    assert!(!pipeline.data.path().join(format!("{job_id}.tar")).exists());
    assert_eq!(pipeline.jobs("finished").await, Vec::<Value>::new(), "no page was scanned");
    pipeline.stop().await;
}

#[tokio::test]
async fn what_is_no_document_is_told_by_name() {
    let mut pipeline = Pipeline::start().await;
    let (status, answer) = pipeline.stack.post("/api/jobs/documents", r#"{"documnet": "moby.txt"}"#).await;
    assert_eq!((status, &answer["code"]), (400, &json!("INPUT_INVALID")), "{answer}");
    pipeline.send(Path::new("/there/is/no/such.txt")).await;
    let ended = pipeline.hook.next().await;
    assert_eq!(ended["type"], "job.failed");
    assert_eq!(ended["data"]["error_code"], "INVALID_INPUT_ERROR", "{ended}");
    assert!(
        ended["data"]["error_message"]
            .as_str()
            .unwrap()
            .contains("there is no document /there/is/no/such.txt")
    );
    pipeline.stop().await;
}

#[test]
fn splitting_goes_on_after_the_page_that_an_earlier_attempt_has_saved() {
    let data = tempfile::tempdir().unwrap();
    let pages = data.path().join("job");
    fs::create_dir(&pages).unwrap();
    for page in ["page-0001.txt", "page-0002.txt"] {
        fs::write(pages.join(page), "of the earlier attempt").unwrap();
    }
    let script = format!(
        "echo '{{\"document\": \"{}\"}}' | {} 3>'{}/said'",
        example("examples/pipeline/moby.txt").display(),
        example(SCRIPTS[0].1).display(),
        data.path().display()
    );
    let split = Command::new("sh")
        .args(["-c", &script])
        .env("PIPELINE_DIR", data.path())
        .env("AVTOMATIKA_JOB_ID", "job")
        .env("AVTOMATIKA_CHECKPOINT", r#"{"page": 2}"#)
        .output()
        .unwrap();
    let result: Value = serde_json::from_slice(&split.stdout).unwrap();
    assert_eq!(result["count"], 4, "{split:?}");
    assert_eq!(fs::read_to_string(pages.join("page-0002.txt")).unwrap(), "of the earlier attempt");
    assert_eq!(
        fs::read_to_string(data.path().join("said")).unwrap(),
        "progress 75% page 3 of 4\ncheckpoint {\"page\": 3}\nprogress 100% page 4 of 4\ncheckpoint {\"page\": 4}\n"
    );
}

#[test]
fn the_readme_of_the_pipeline_starts_these_scripts() {
    let readme = fs::read_to_string(example("examples/pipeline/README.md")).unwrap();
    for (task_type, script) in SCRIPTS {
        let option = format!("--task '{task_type}=exec:{script}'");
        assert!(readme.contains(&option), "the README does not say {option}");
    }
}
