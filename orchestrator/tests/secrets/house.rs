//! Processes with known secrets, and everything that comes out of them.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use avtomatika_orchestrator::trust::TokenHash;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What must not be found, by name.
pub const SECRETS: [(&str, &str); 8] = [
    ("a client's token", "avtc_the-token-of-acme-4711"),
    ("an admin's token", "avtc_the-token-of-root-4712"),
    ("a token among the settings", "the-token-in-the-settings-4713"),
    ("a worker's token", "avtw_the-token-of-workers-4714"),
    ("a token that was struck", "avtc_the-token-that-was-struck-4715"),
    ("a guess at a token", "avtc_a-guess-at-a-token-4716"),
    ("a webhook's secret", "whsec_c2VjcmV0LW9mLXdlYmhvb2tzLTQ3MTctMDEyMzQ1Njc4OWFi"),
    ("what a webhook's URL holds", "key-in-the-url-4718"),
];

pub fn secret(name: &str) -> &'static str {
    SECRETS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}")).1
}

/// What a job's data hold. Nobody but the job's owner and its worker is to see it.
pub const PAYLOAD: &str = "payload-of-a-client-4719";

const BLUEPRINTS: [(&str, &str); 3] = [
    (
        "work",
        "states:\n  a: { start: true, task: { type: work, params: { text: '${initial_data.text}' } }, on: { success: done, failure: failed } }\n  \
         done: { end: finished }\n  failed: { end: failed }\n",
    ),
    (
        "ask",
        "states:\n  a: { start: true, approval: { message: pay?, deadline: 1h }, on: { approved: done, rejected: failed, timeout: failed } }\n  \
         done: { end: finished }\n  failed: { end: failed }\n",
    ),
    (
        "break",
        "states:\n  a: { start: true, pass: { sum: '${initial_data.nothing + 1}' }, next: done }\n  done: { end: finished }\n",
    ),
];

/// A directory for everything, and what is known so far.
pub struct House {
    dir: TempDir,
    port: u16,
    logs: Vec<PathBuf>,
    /// Everything that was answered, with heads.
    pub answered: String,
    /// The same, and with which good token it was asked for.
    answers: Vec<(String, String)>,
}

/// A process that ends with the test.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl House {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("blueprints")).unwrap();
        for (name, states) in BLUEPRINTS {
            let file = dir.path().join(format!("blueprints/{name}.yaml"));
            fs::write(file, format!("blueprint: {name}\nendpoint: /{name}\n{states}")).unwrap();
        }
        let house = Self { dir, port: 0, logs: Vec::new(), answered: String::new(), answers: Vec::new() };
        house.write_access(true);
        house
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Who may call; among them whoever is struck later.
    pub fn write_access(&self, with_struck: bool) {
        let entry = |name: &str, token: &str, more: &str| {
            format!("[\"{name}\"]\ntoken_sha256 = \"{}\"\n{more}\n", hash(secret(token)))
        };
        let mut clients = entry("acme", "a client's token", "quota = 20\nallowed_blueprints = [\"*\"]")
            + &entry("root", "an admin's token", "role = \"admin\"");
        if with_struck {
            clients += &entry("struck", "a token that was struck", "");
        }
        fs::write(self.path("clients.toml"), clients).unwrap();
        fs::write(self.path("workers.toml"), entry("w-*", "a worker's token", "")).unwrap();
    }

    /// The orchestrator, until it says that it runs.
    pub fn start(&mut self) -> Process {
        let process = self.start_refused();
        let line = process.until("running on http://localhost:");
        let (_, rest) = line.split_once("running on http://localhost:").unwrap();
        self.port = rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
        process
    }

    /// The orchestrator, whether it can run or not.
    pub fn start_refused(&mut self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator"));
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--log",
            "debug",
            "--log-format",
            "json",
            "--webhooks-allow-private",
        ]);
        for (flag, path) in [
            ("--data-dir", "data"),
            ("--blueprints", "blueprints"),
            ("--clients-file", "clients.toml"),
            ("--workers-file", "workers.toml"),
            ("--audit-log", "audit.jsonl"),
        ] {
            command.arg(flag).arg(self.path(path));
        }
        command.env("AVTOMATIKA_CLIENT_TOKEN", format!("inline:{}", secret("a token among the settings")));
        command.env("AVTOMATIKA_WEBHOOK_SECRET", secret("a webhook's secret"));
        self.spawn(command)
    }

    /// A worker in a process of its own: this program once more (see [`super::story`]).
    pub fn start_worker(&mut self, token: &str) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "story::a_worker_of_the_story", "--ignored", "--nocapture"]);
        command.env("AVTOMATIKA_TOKEN", token).env("AVTOMATIKA_ORCHESTRATOR", self.url());
        self.spawn(command)
    }

    fn spawn(&mut self, mut command: Command) -> Process {
        let log = self.path(&format!("log-{}", self.logs.len()));
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        command.env_remove("RUST_LOG");
        self.logs.push(log.clone());
        Process { child: command.spawn().unwrap(), log }
    }

    /// Sends a request; the answer is kept, all of it. Status and body.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let found = (status, serde_json::from_str(body).unwrap_or_default());
        let shown = |(_, token): &&(&str, &str)| headers.iter().any(|(_, value)| value.contains(token));
        let who = SECRETS.iter().find(shown).map_or("nobody", |(what, _)| what);
        self.answered += &answer;
        self.answers.push((who.to_owned(), answer));
        found
    }

    /// Whose token each answer was asked for with that holds this.
    pub fn answers_with(&self, text: &str) -> Vec<&str> {
        self.answers.iter().filter(|(_, answer)| answer.contains(text)).map(|(who, _)| who.as_str()).collect()
    }

    pub fn by(&mut self, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.send(method, path, &[("x-avtomatika-token", secret(token))], body)
    }

    /// Looks at a job until it stands like this.
    pub fn until(&mut self, token: &str, job: &str, status: &str) -> Value {
        let began = Instant::now();
        loop {
            let (_, found) = self.by(token, "GET", &format!("/api/jobs/{job}"), "");
            if found["status"] == status {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "{found} is never {status}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What was said by every process and written into every file, by name. The settings are what it all began with.
    pub fn written(&self) -> Vec<(String, String)> {
        let mut written = Vec::new();
        collect(self.dir.path(), &mut written);
        written
    }
}

fn collect(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, into),
            // What is searched for is ASCII, and stays.
            false => {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                into.push((path.display().to_string(), text));
            }
        }
    }
}

impl Process {
    /// Waits for a line with these words, and returns it.
    pub fn until(&self, words: &str) -> String {
        let began = Instant::now();
        loop {
            let said = fs::read_to_string(&self.log).unwrap();
            if let Some(line) = said.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "nobody says {words:?}: {said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    pub fn wait(mut self) {
        self.child.wait().unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hash(token: &str) -> String {
    TokenHash::of(token.as_bytes()).to_hex()
}

/// Every way in which a secret may be written that gives it away: as it is, as text in base64, and of a token its hash, against which
/// guesses could be tried elsewhere.
pub fn spellings(secret: &str) -> Vec<String> {
    let mut spellings = vec![secret.to_owned(), hash(secret)];
    // The middle of it is the same wherever it begins.
    spellings.extend((0..3).map(|at| STANDARD.encode(&secret.as_bytes()[at..at + 15])));
    if let Some(key) = secret.strip_prefix("whsec_") {
        spellings.push(key.to_owned());
        spellings.push(String::from_utf8(STANDARD.decode(key).unwrap()).unwrap());
    }
    spellings
}
