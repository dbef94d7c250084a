//! Webhooks with real receivers: what arrives, how it is signed, when it comes again, where it never goes.
//!
//! The chore and the clock are in the test's hands; the receivers are HTTP servers on ports of their own.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use avtomatika_orchestrator::{
    api,
    blueprint::{Registry, load},
    chores::{
        Chore,
        webhooks::{Compose, Webhooks},
    },
    conductor::{self, Admission, Conductor, Limits, Running, Settings, SubmitRequest},
    engine::{Edit, Retry, Submission},
    json::Json,
    metrics::Metrics,
    store::{NoticeRecord, NoticeStatus, Removal, Store, memory::MemoryStore},
    time::{Clock, Timestamp},
    webhook::{self, Key, Poster, Resolve},
};
use avtomatika_proto::{ErrorCode, JobId};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio::net::TcpListener;

use crate::receiver::{Receiver, Reply};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A clock that stands still until the test moves it.
#[derive(Clone)]
struct ManualClock(Arc<AtomicI64>);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Jobs that end by themselves: well, or badly unless their input is mended.
const BLUEPRINTS: [&str; 2] = [
    "
blueprint: instant
states:
  note: { start: true, pass: { seen: '${initial_data.n}' }, next: completed }
  completed: { end: finished }
",
    "
blueprint: picky
states:
  look:
    start: true
    choice: [{ when: 'initial_data.good', next: completed }]
    else: refused
  completed: { end: finished }
  refused: { end: failed }
",
];

/// Knows a few names, and counts nothing as public that is not.
#[derive(Clone, Default)]
struct Names(Arc<HashMap<&'static str, Vec<IpAddr>>>);

impl Resolve for Names {
    fn resolve(&self, name: Arc<str>) -> webhook::Addresses {
        let found = self.0.get(&*name).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// An orchestrator without its wire.
struct World {
    clock: ManualClock,
    store: Arc<MemoryStore>,
    conductor: Conductor,
    webhooks: Webhooks,
}

#[derive(Default)]
struct Options {
    names: Names,
    private_is_forbidden: bool,
    store: Option<Arc<MemoryStore>>,
    more_keys: Vec<Key>,
    post_within: Option<Duration>,
    roots: Option<RootCertStore>,
    compose: Option<Compose>,
}

fn world_with(options: Options) -> World {
    let clock = ManualClock(Arc::new(AtomicI64::new(1_700_000_000_000_000)));
    let store = options.store.unwrap_or_default();
    let mut registry = Registry::default();
    for text in BLUEPRINTS {
        registry.add(Arc::new(load("test.yaml", text).unwrap().definition.into_blueprint(1)), true);
    }
    let mut keys = vec![Key::from_secret(SECRET).unwrap()];
    keys.extend(options.more_keys);
    let setup = webhook::Setup { keys, allow_private: !options.private_is_forbidden };
    let settings = settings(Some(setup.clone()));
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let metrics = Arc::new(Metrics::new());
    let Running { conductor, .. } =
        conductor::start(store.clone(), shared.clone(), Arc::new(registry), settings, metrics.clone())
            .unwrap();
    let poster =
        Poster::over(&setup, Arc::new(options.names), options.roots.unwrap_or_else(RootCertStore::empty))
            .unwrap();
    let compose = options.compose.unwrap_or(api::compose);
    let patience = options.post_within.unwrap_or(Duration::from_secs(60));
    let poster = poster.within(patience, patience);
    let webhooks = Webhooks::new(conductor.clone(), shared, poster, compose, metrics, [3; 32]);
    World { clock, store, conductor, webhooks }
}

fn settings(webhooks: Option<webhook::Setup>) -> Settings {
    Settings {
        limits: Limits { max_open_jobs: 1000, max_workers: 1, resident_bytes_max: 0 },
        adoption_window: Duration::ZERO,
        webhooks,
        entropy_seed: [7; 32],
    }
}

fn world() -> World {
    world_with(Options::default())
}

fn acme() -> Arc<str> {
    Arc::from("acme")
}

fn request(blueprint: &str, input: &str, url: &str) -> SubmitRequest {
    let submission =
        Submission { webhook_url: Some(url.into()), ..Submission::of(Json::object(input).unwrap()) };
    SubmitRequest {
        blueprint: blueprint.into(),
        submission,
        idempotency_key: None,
        delay: None,
        wait: Duration::ZERO,
    }
}

impl World {
    async fn submit(&self, blueprint: &str, input: &str, url: &str) -> JobId {
        self.conductor.submit(&acme(), request(blueprint, input, url)).await.unwrap().job_id
    }

    /// What is due is delivered, or not, and that is stored.
    async fn deliver(&mut self) {
        self.webhooks.tick().await.unwrap();
        self.webhooks.settled().await;
    }

    async fn notices(&self, job_id: JobId) -> Vec<NoticeRecord> {
        self.conductor.notices(&acme(), job_id).await.unwrap()
    }

    async fn notice(&self, job_id: JobId) -> NoticeRecord {
        let mut notices = self.notices(job_id).await;
        assert_eq!(notices.len(), 1);
        notices.remove(0)
    }

    fn advance_to(&self, time: Timestamp) {
        self.clock.0.store(time.as_micros(), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn the_end_of_a_job_is_told_and_signed() {
    let (mut world, mut receiver) = (world(), Receiver::start().await);
    let job_id = world.submit("instant", r#"{"n": 9007199254740993}"#, &receiver.url("/hooks?from=us")).await;
    world.deliver().await;
    let request = receiver.next().await;
    assert_eq!((&*request.method, &*request.path), ("POST", "/hooks?from=us"));
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("host"), receiver.authority());
    assert!(request.header("user-agent").starts_with("avtomatika/"));
    let notice = world.notice(job_id).await;
    assert_eq!(request.header("webhook-id"), notice.id.to_string());
    assert_eq!(request.signatures(), [request.expected_signature(SECRET)]);
    let sent_at: i64 = request.header("webhook-timestamp").parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    assert!((now - 60..=now).contains(&sent_at), "receivers refuse what is minutes old: {sent_at} at {now}");

    let body = request.json();
    assert_eq!(body["type"], "job.finished");
    assert_eq!(body["timestamp"], notice.at.to_string());
    assert_eq!(body["data"]["id"], job_id.to_string());
    assert_eq!(body["data"]["status"], "finished");
    assert_eq!(body["data"]["webhook_url"], receiver.url("/hooks?from=us"));
    assert!(request.body.contains(r#""initial_data":{"n": 9007199254740993}"#), "{}", request.body);
    assert_eq!((notice.status, notice.attempts, notice.answer), (NoticeStatus::Delivered, 1, Some(200)));
    world.deliver().await;
    receiver.assert_nothing_came();
}

#[tokio::test]
async fn while_a_secret_is_replaced_messages_are_signed_with_both() {
    let other = webhook::DEVELOPMENT_SECRET;
    let mut world =
        world_with(Options { more_keys: vec![Key::from_secret(other).unwrap()], ..Options::default() });
    let mut receiver = Receiver::start().await;
    world.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    world.deliver().await;
    let request = receiver.next().await;
    assert_eq!(request.signatures(), [request.expected_signature(SECRET), request.expected_signature(other)]);
}

#[tokio::test]
async fn a_message_comes_again_under_its_id_after_ever_longer_pauses_and_not_for_ever() {
    let (mut world, mut receiver) = (world(), Receiver::start().await);
    receiver.answer_always(Reply::Status(500));
    let job_id = world.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    let mut ids = Vec::new();
    let mut pauses = Vec::new();
    loop {
        let before = world.clock.now();
        world.deliver().await;
        ids.push(receiver.next().await.header("webhook-id").to_owned());
        let notice = world.notice(job_id).await;
        assert_eq!(notice.problem.as_deref(), Some("the receiver answered 500 Internal Server Error"));
        if notice.status != NoticeStatus::Pending {
            assert_eq!(notice.status, NoticeStatus::Failed);
            assert_eq!(world.clock.now().saturating_since(notice.at), webhook::GIVE_UP_AFTER);
            break;
        }
        // Not a moment earlier.
        world.advance_to(notice.due_at - Duration::from_micros(1));
        world.deliver().await;
        receiver.assert_nothing_came();
        pauses.push(notice.due_at.saturating_since(before));
        world.advance_to(notice.due_at);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one message, one id");
    assert!(pauses[0] < Duration::from_secs(10) && pauses[..8].is_sorted(), "{pauses:?}");
    world.advance_to(world.clock.now() + webhook::GIVE_UP_AFTER);
    world.deliver().await;
    receiver.assert_nothing_came();
}

#[tokio::test]
async fn a_receiver_may_say_that_it_wants_no_more_and_a_human_may_insist() {
    let (mut world, mut receiver) = (world(), Receiver::start().await);
    receiver.answer(Reply::Status(410));
    let job_id = world.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    world.deliver().await;
    let first = receiver.next().await;
    let gone = world.notice(job_id).await;
    assert_eq!((gone.status, gone.answer), (NoticeStatus::Failed, Some(410)));

    let again = world.conductor.redeliver(&acme(), job_id, None).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].status, NoticeStatus::Pending);
    world.deliver().await;
    let second = receiver.next().await;
    assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(second.body, first.body);
    let taken = world.notice(job_id).await;
    assert_eq!((taken.status, taken.attempts), (NoticeStatus::Delivered, 2));

    // Nothing has failed any more; by its name it is sent all the same.
    assert_eq!(world.conductor.redeliver(&acme(), job_id, None).await.unwrap(), []);
    world.conductor.redeliver(&acme(), job_id, Some(taken.id)).await.unwrap();
    world.deliver().await;
    receiver.next().await;
    assert_eq!(world.notice(job_id).await.attempts, 3);
}

#[tokio::test]
async fn redelivery_is_for_the_owner_and_for_messages_that_exist() {
    let (world, receiver) = (world(), Receiver::start().await);
    let job_id = world.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    let id = world.notice(job_id).await.id;
    let stranger: Arc<str> = Arc::from("umbrella");
    for found in [
        world.conductor.redeliver(&stranger, job_id, Some(id)).await.map(drop),
        world.conductor.notices(&stranger, job_id).await.map(drop),
    ] {
        assert_eq!(found.unwrap_err().code, ErrorCode::JobNotFound);
    }
    let other = avtomatika_orchestrator::store::NoticeId { sequence: id.sequence + 1, ..id };
    let found = world.conductor.redeliver(&acme(), job_id, Some(other)).await;
    assert_eq!(found.unwrap_err().code, ErrorCode::WebhookNotFound);
}

#[tokio::test]
async fn a_name_that_leads_inside_is_never_connected_to() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = trap.local_addr().unwrap().port();
    let inside = |text: &str| vec![text.parse().unwrap()];
    let names = Names(Arc::new(HashMap::from([
        ("rebinding.example", inside("127.0.0.1")),
        ("mapped.example", inside("::ffff:127.0.0.1")),
        ("any.example", inside("0.0.0.0")),
        ("several.example", vec![Ipv4Addr::LOCALHOST.into(), "10.0.0.1".parse().unwrap()]),
    ])));
    let mut world = world_with(Options { names, private_is_forbidden: true, ..Options::default() });
    for name in ["rebinding", "mapped", "any", "several"] {
        let url = format!("http://{name}.example:{port}/");
        let job_id = world.submit("instant", r#"{"n": 1}"#, &url).await;
        world.deliver().await;
        let notice = world.notice(job_id).await;
        let problem = notice.problem.unwrap();
        assert!(problem.ends_with("leads to no address on the public Internet"), "{problem}");
        assert!(
            !problem.contains("127.0.0.1") && !problem.contains("10.0.0.1"),
            "it is not for the client to know"
        );
        assert_eq!((notice.status, notice.answer), (NoticeStatus::Pending, None));
    }
    // A connection that was made would be waiting now.
    let waiting = std::future::poll_fn(|cx| std::task::Poll::Ready(trap.poll_accept(cx).is_ready())).await;
    assert!(!waiting, "somebody connected");
}

#[tokio::test]
async fn b28_an_address_inside_is_refused_when_the_job_is_submitted() {
    let world = world_with(Options { private_is_forbidden: true, ..Options::default() });
    for url in [
        "http://127.0.0.1:8080/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://localhost/",
        "http://localhost./",
        "https://example.com:22/",
    ] {
        let refused = world.conductor.submit(&acme(), request("instant", "{}", url)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::WebhookUrlForbidden, "{url}");
    }
    let long = format!("https://example.com/{}", "x".repeat(3000));
    for url in ["ftp://x/", "http://user:hunter2@example.com/", "http://example.com/\r\nhost: x", &long] {
        let refused = world.conductor.submit(&acme(), request("instant", "{}", url)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidArgument, "{url}");
        assert!(!refused.message.contains("hunter2"), "{refused:?}");
    }
}

/// A certificate for this name, by an authority of its own.
fn certified(name: &str) -> (RootCertStore, ServerConfig) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (roots, config)
}

#[tokio::test]
async fn an_encrypted_receiver_must_be_who_its_name_says() {
    let (roots, config) = certified("hooks.example");
    let mut receiver = Receiver::start_tls(config).await;
    let port = receiver.authority().rsplit_once(':').unwrap().1.to_owned();
    let here: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
    let names = Names(Arc::new(HashMap::from([("hooks.example", here.clone()), ("other.example", here)])));
    let mut world = world_with(Options { names: names.clone(), roots: Some(roots), ..Options::default() });
    let url = format!("https://hooks.example:{port}/");
    let job_id = world.submit("instant", r#"{"n": 1}"#, &url).await;
    world.deliver().await;
    assert_eq!(receiver.next().await.header("host"), format!("hooks.example:{port}"));
    assert_eq!(world.notice(job_id).await.status, NoticeStatus::Delivered);

    let other = format!("https://other.example:{port}/");
    let mut stranger = world_with(Options { names, ..Options::default() });
    for (world, url, reason) in
        [(&mut world, other, "not valid for name"), (&mut stranger, url, "UnknownIssuer")]
    {
        let job_id = world.submit("instant", r#"{"n": 1}"#, &url).await;
        world.deliver().await;
        let problem = world.notice(job_id).await.problem.unwrap();
        assert!(problem.starts_with("TLS: ") && problem.contains(reason), "{problem}");
    }
    receiver.assert_nothing_came();
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (mut world, mut receiver, mut elsewhere) =
        (world(), Receiver::start().await, Receiver::start().await);
    receiver.answer(Reply::Redirect(elsewhere.url("/inside")));
    let job_id = world.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    world.deliver().await;
    receiver.next().await;
    elsewhere.assert_nothing_came();
    let notice = world.notice(job_id).await;
    let problem = "the receiver answered 307 Temporary Redirect; redirects are not followed";
    assert_eq!((notice.status, notice.problem.as_deref()), (NoticeStatus::Pending, Some(problem)));
}

#[tokio::test]
async fn without_a_secret_a_job_with_a_webhook_is_refused() {
    let mut registry = Registry::default();
    registry.add(Arc::new(load("test.yaml", BLUEPRINTS[0]).unwrap().definition.into_blueprint(1)), true);
    let clock = ManualClock(Arc::new(AtomicI64::new(1_700_000_000_000_000)));
    let (store, metrics) = (Arc::new(MemoryStore::new()), Arc::new(Metrics::new()));
    let running =
        conductor::start(store, Arc::new(clock), Arc::new(registry), settings(None), metrics).unwrap();
    let refused = running.conductor.submit(&acme(), request("instant", "{}", "https://example.com/")).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::WebhooksOff);
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_job_and_no_other_receiver() {
    let (mut world, mut hanging, mut other) = (world(), Receiver::start().await, Receiver::start().await);
    hanging.answer_always(Reply::Never);
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(world.submit("instant", r#"{"n": 1}"#, &hanging.url("/")).await);
    }
    world.webhooks.tick().await.unwrap();
    for _ in 0..conductor::UNDER_WAY_TO_HOST_MAX {
        hanging.next().await;
    }
    let job_id = world.submit("instant", r#"{"n": 2}"#, &other.url("/")).await;
    assert!(world.conductor.get(&acme(), job_id).await.unwrap().job.status.is_terminal());
    world.webhooks.tick().await.unwrap();
    assert_eq!(other.next().await.json()["data"]["id"], job_id.to_string());
    // Its messages wait, all of them.
    hanging.assert_nothing_came();
    for id in ids {
        assert_eq!(world.notice(id).await.status, NoticeStatus::Pending);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_attempt() {
    let patience = Some(Duration::from_millis(50));
    let mut world = world_with(Options { post_within: patience, ..Options::default() });
    let mut receiver = Receiver::start().await;
    receiver.answer(Reply::Never);
    let job_id = world.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    world.deliver().await;
    let notice = world.notice(job_id).await;
    assert_eq!(notice.problem.as_deref(), Some("no answer within 0.05 s"));
    // And so does one that breaks off, or is none.
    for reply in [Reply::Close, Reply::Garbage] {
        receiver.next().await;
        receiver.answer(reply);
        world.advance_to(world.notice(job_id).await.due_at);
        world.deliver().await;
        let found = world.notice(job_id).await.problem.unwrap();
        assert!(found.starts_with("the connection broke: "), "{found}");
    }
}

#[tokio::test]
async fn what_was_not_delivered_before_a_restart_is_delivered_after_it() {
    let mut receiver = Receiver::start().await;
    let before = world();
    let job_id = before.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    let id = before.notice(job_id).await.id;
    let store = before.store.clone();
    drop(before);
    let mut after = world_with(Options { store: Some(store), ..Options::default() });
    after.deliver().await;
    assert_eq!(receiver.next().await.header("webhook-id"), id.to_string());
    assert_eq!(after.notice(job_id).await.status, NoticeStatus::Delivered);
}

#[tokio::test]
async fn a_failure_is_told_even_if_the_job_was_mended_meanwhile() {
    let (mut world, mut receiver) = (world(), Receiver::start().await);
    let job_id = world.submit("picky", r#"{"good": false}"#, &receiver.url("/")).await;
    let retry = Retry {
        state: Some("look".into()),
        initial_data: Some(Edit::Replace(Json::object(r#"{"good": true}"#).unwrap())),
        state_history: None,
        by: acme(),
        reason: None,
        key: None,
    };
    world.conductor.retry(&acme(), job_id, retry, Admission::default()).await.unwrap();
    world.deliver().await;
    let mut bodies = [receiver.next().await.json(), receiver.next().await.json()];
    bodies.sort_by_key(|body| body["type"].to_string());
    let [failed, finished] = bodies;
    assert_eq!((&failed["type"], &failed["data"]["status"]), (&"job.failed".into(), &"failed".into()));
    assert_eq!(failed["data"]["current_state"], "refused");
    assert_eq!(failed["data"]["error_code"], "END_STATE");
    assert_eq!(failed["data"].get("state_history"), None, "it is not what it was then");
    assert_eq!(
        (&finished["type"], &finished["data"]["status"]),
        (&"job.finished".into(), &"finished".into())
    );
    assert_eq!(world.notices(job_id).await.len(), 2);
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_sent_again_and_again() {
    let (mut world, mut receiver) = (world(), Receiver::start().await);
    let job_id = world.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    receiver.answer(Reply::AfterSignal);
    world.webhooks.tick().await.unwrap();
    receiver.next().await;
    world.store.set_full(true);
    receiver.signal();
    world.webhooks.settled().await;
    world.deliver().await;
    receiver.assert_nothing_came();
    world.store.set_full(false);
    world.advance_to(world.clock.now() + Duration::from_secs(60));
    world.deliver().await;
    let notice = world.notice(job_id).await;
    if notice.status == NoticeStatus::Pending {
        // The conductor had not yet noticed that there is room.
        world.deliver().await;
    }
    receiver.next().await;
    assert_eq!(world.notice(job_id).await.status, NoticeStatus::Delivered, "twice, under one id");
}

#[tokio::test]
async fn what_a_forgotten_job_owed_is_forgotten() {
    let (mut world, mut receiver) = (world(), Receiver::start().await);
    let job_id = world.submit("instant", r#"{"n": 1}"#, &receiver.url("/")).await;
    world.conductor.prune(vec![Removal { job_id, idempotency: None }]).await.unwrap();
    world.deliver().await;
    receiver.assert_nothing_came();
    assert_eq!(world.store.notices(job_id).unwrap(), []);
    assert_eq!(world.conductor.stats().await.unwrap().undelivered_notices, 0);
}

#[tokio::test]
async fn a_delivery_that_panics_has_failed_and_is_made_again() {
    let compose: Compose = |_, _, _| panic!("a fault of its own");
    let mut world = world_with(Options { compose: Some(compose), ..Options::default() });
    let job_id = world.submit("instant", "{}", "http://127.0.0.1:9/").await;
    for attempts in 1..=2 {
        world.deliver().await;
        let notice = world.notice(job_id).await;
        assert_eq!((notice.status, notice.attempts), (NoticeStatus::Pending, attempts));
        assert_eq!(notice.problem.as_deref(), Some("the delivery panicked"));
        world.advance_to(notice.due_at);
    }
}
