//! Jobs as clients and workers would make them.

use std::sync::Arc;

use avtomatika_orchestrator::{
    blueprint::{Blueprint, load},
    engine::{Context, Decision, Effect, Entropy, Event, Job, Report, Submission, Unlimited, decide},
    json::Json,
    time::Timestamp,
};
use avtomatika_proto::JobId;

/// One task whose params are computed, as in the first example of the README.
pub const ONE_TASK: &str = r#"
blueprint: one_task
states:
  work:
    start: true
    task:
      type: process_data
      params: { job_id: "${job.id}", payload: "${initial_data.input}" }
    on: { success: done, failure: failed }
  done: { end: finished }
  failed: { end: failed }
"#;

/// The same, and before the end a choice whose second condition holds.
pub const WITH_CHOICE: &str = r#"
blueprint: with_choice
states:
  work:
    start: true
    task:
      type: process_data
      params: { job_id: "${job.id}", payload: "${initial_data.input}" }
    on: { success: weigh, failure: failed }
  weigh:
    choice:
      - { when: "state_history.total > 1000", next: failed }
      - { when: "state_history.total > 100 && initial_data.input != ''", next: done }
    else: failed
  done: { end: finished }
  failed: { end: failed }
"#;

/// What a worker returns.
const RESULT: &str = r#"{"total":250,"status":"ok"}"#;

/// Makes jobs of one blueprint, and asks the engine about them.
pub struct Jobs {
    blueprint: Blueprint,
    entropy: Entropy,
    client: Arc<str>,
    worker: Arc<str>,
    outcome: Arc<str>,
    submission: Arc<Submission>,
    result: Json,
    made: u64,
}

impl Jobs {
    /// Jobs of this blueprint whose `initial_data` has so many bytes.
    pub fn new(blueprint: &str, initial_data_bytes: usize) -> Self {
        let filler = "x".repeat(initial_data_bytes.saturating_sub(r#"{"input":""}"#.len()));
        let initial_data = Json::object(&format!(r#"{{"input":"{filler}"}}"#)).expect("an object");
        Self {
            blueprint: load("bench.yaml", blueprint).expect("a sound blueprint").definition.into_blueprint(1),
            entropy: Entropy::from_seed([7; 32]),
            client: Arc::from("bench"),
            worker: Arc::from("worker"),
            outcome: Arc::from("success"),
            submission: Arc::new(Submission::of(initial_data)),
            result: Json::object(RESULT).expect("an object"),
            made: 0,
        }
    }

    /// The next job, which has not moved.
    pub fn accepted(&mut self) -> Job {
        const COUNTERS: u64 = 1 << JobId::COUNTER_BITS;
        let (ms, counter) = (1_700_000_000_000 + self.made / COUNTERS, (self.made % COUNTERS) as u16);
        self.made += 1;
        let id = JobId::compose(ms, counter, self.made);
        let now = Timestamp::from_micros(ms as i64 * 1000);
        // Every job has a submission of its own, as those from outside have.
        let submission = Arc::new(Submission::clone(&self.submission));
        Job::accepted(id, self.client.clone(), &self.blueprint, submission, now)
    }

    /// What the engine makes of an event.
    pub fn decide(&mut self, job: &Job, event: &Event) -> Decision {
        let reserve = &mut |_| unreachable!("the blueprint has no children");
        let (now, blueprint, entropy) = (job.created_at, &self.blueprint, &mut self.entropy);
        let (serves, keys) = (&|_: &str| false, &Unlimited);
        let mut context = Context { now, blueprint, entropy, reserve, serves, room: &|| 1000, keys };
        decide(job, event, &mut context).expect("the event concerns the job")
    }

    /// The report that the job's attempt was successful.
    pub fn success(&self, job: &Job) -> Event {
        Event::Reported(Report {
            task_id: job.attempt.as_ref().expect("the job waits for a worker").task_id,
            worker_id: self.worker.clone(),
            by_holder: true,
            outcome: self.outcome.clone(),
            data: self.result.clone(),
            error: None,
            held_for: None,
            checkpoint: None,
        })
    }
}

/// Whether the decision offers a task.
pub fn offers(decision: &Decision) -> bool {
    decision.effects.iter().any(|effect| matches!(effect, Effect::Offer(_)))
}
