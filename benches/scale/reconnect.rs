//! A crash with many workers, which all come back at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tonic::Code;

use crate::{
    Figures, Goal, Size,
    backoff::{Backoff, random},
    load::{Steady, SteadyClient, p50_and_p99, try_connection},
    process::Orchestrator,
    progress,
    report::Table,
    worker::{Stream, Tally},
    workers::{OTHER_FILES, check_open_files},
};

const ABOUT: &str = "\
Workers without tasks, each with a connection of its own, all in one process beside the orchestrator, with which
they share the processors. The orchestrator is killed (SIGKILL) and started again at once. Each worker comes back
as one of the SDK does, with its code: after a random time within the span that the orchestrator has asked for, and
again after each try that is refused, with the session that it had, or with a new one if that is no longer waited
for. Times count from the moment that the port is open again. From then on until the last worker is back a client
submits 200 jobs a second; `submit` is the time from the moment for which it was planned to the answer, one sync to
the disk included, and for the first ones the client's own connection. What is refused before the port is open
delays a worker, and counts for nothing else.";

const WORKERS: u64 = 10_000;

/// Connections that are opened side by side before the crash. After it, all of them are.
const CONNECTING_MAX: usize = 32;

/// The pauses of the SDK where nobody asks for others.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("reconnect", ABOUT);
    let workers = size.of(WORKERS);
    check_open_files(workers + OTHER_FILES);
    progress(&format!("reconnect: {workers} workers"));
    let mut orchestrator = Orchestrator::start(&size.dir).await;
    let herd = Herd::new(orchestrator.url());
    let places = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut lives = JoinSet::new();
    for number in 0..workers {
        lives.spawn(live(number, herd.clone(), places.clone()));
    }
    herd.until_welcomed(workers).await;

    progress("reconnect: kill and start");
    orchestrator.kill();
    let started = orchestrator.start_again(&[]);
    let client = SteadyClient::start(orchestrator.port());
    herd.until_welcomed(2 * workers).await;
    let Steady { since, latencies } = client.end();
    let all_back = herd.last_welcome().duration_since(since);
    let submitted = latencies.len();
    let (p50, p99) = p50_and_p99(latencies);
    figures.add("port open after, s", since.duration_since(started).as_secs_f64(), 3, Goal::None);
    figures.add(
        format!("{workers} workers back after that, s"),
        all_back.as_secs_f64(),
        3,
        Goal::AtMost(10.0),
    );
    figures.add("sessions opened anew", herd.0.anew.load(Ordering::Relaxed) as f64, 0, Goal::None);
    figures.add(format!("submit p50 of {submitted} meanwhile, ms"), p50, 2, Goal::None);
    figures.add("submit p99 meanwhile, ms", p99, 2, Goal::AtMost(250.0));
    figures.add("largest memory of the new process, MiB", orchestrator.peak_mib(), 1, Goal::None);
    figures.0
}

/// What the workers have in common.
#[derive(Clone)]
struct Herd(Arc<Common>);

struct Common {
    url: String,
    tally: Arc<Tally>,
    /// How often any of them was welcomed, and when last.
    welcomes: watch::Sender<(u64, Instant)>,
    anew: AtomicU64,
}

impl Herd {
    fn new(url: String) -> Self {
        let welcomes = watch::Sender::new((0, Instant::now()));
        Self(Arc::new(Common { url, tally: Tally::new(), welcomes, anew: AtomicU64::new(0) }))
    }

    fn welcomed(&self) {
        self.0.welcomes.send_modify(|(count, last)| (*count, *last) = (*count + 1, Instant::now()));
    }

    async fn until_welcomed(&self, times: u64) {
        let mut welcomes = self.0.welcomes.subscribe();
        // The sender lives as long as this.
        let _ = welcomes.wait_for(|(count, _)| *count >= times).await;
    }

    fn last_welcome(&self) -> Instant {
        self.0.welcomes.borrow().1
    }
}

/// One worker, through the crash.
async fn live(number: u64, herd: Herd, places: Arc<Semaphore>) {
    let name = format!("bench-{number}");
    let place = places.acquire().await.expect("nobody closes it");
    let channel = try_connection(&herd.0.url).await.expect("a connection");
    let mut stream = Stream::register(channel, name.clone(), 1).await.expect("the worker is welcomed");
    drop(place);
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    for life in 0.. {
        // Whoever breaks off once more has been back.
        if life < 2 {
            herd.welcomed();
        }
        // It breaks when the orchestrator is killed.
        let _ = stream.serve(&herd.0.tally).await;
        backoff.reset();
        if let Some(within) = stream.reconnect_within {
            backoff.spread_over(within);
        }
        loop {
            tokio::time::sleep(backoff.next(random())).await;
            let Ok(channel) = try_connection(&herd.0.url).await else { continue };
            let again = match stream.again(channel.clone()).await {
                Err(status) if status.code() == Code::FailedPrecondition => {
                    herd.0.anew.fetch_add(1, Ordering::Relaxed);
                    Stream::register(channel, name.clone(), 1).await
                }
                again => again,
            };
            if let Ok(again) = again {
                stream = again;
                break;
            }
        }
    }
}
