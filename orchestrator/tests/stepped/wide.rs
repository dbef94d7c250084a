//! What a map of many branches costs, beside as many jobs that stand by themselves. It is counted in what is written and in
//! processor time of the one thread that does it all, and not by a clock on the wall: the machine has other things to do.

use avtomatika_orchestrator::store::{Batch, Write};
use rustix::time::{ClockId, clock_gettime};

use super::*;

pub const WIDE: &str = "
blueprint: wide
states:
  scan:
    start: true
    map: { over: initial_data.items, task: { type: resize, params: { n: '${item.n}', of: '${initial_data.of}' } } }
    on: { success: done }
  done: { end: finished, result: { count: '${results.size()}', sum: '${results[0].data.n}' } }
";

const MANY: usize = 10_000;

/// Tasks that the worker has at once.
const SLOTS: u32 = 256;

/// What it took.
#[derive(Debug)]
struct Cost {
    writes: usize,
    bytes: usize,
    processor: Duration,
    /// The job that was submitted last.
    last: JobId,
}

/// What has been written so far.
#[derive(Debug, Default, Clone, Copy)]
pub struct Written {
    writes: usize,
    bytes: usize,
}

impl Written {
    pub fn add(&mut self, batch: &Batch) {
        self.writes += batch.writes.len();
        self.bytes += batch.writes.iter().map(bytes_of).sum::<usize>();
    }
}

/// The data of one write: what may grow with the number of branches.
fn bytes_of(write: &Write) -> usize {
    let (Write::InsertJob { job, entries, .. } | Write::UpdateJob { job, entries }) = write else { return 0 };
    let is_new = matches!(write, Write::InsertJob { .. });
    let input = if is_new { job.submission.initial_data.as_str().len() } else { 0 };
    let (result, results) = (job.result.as_ref().map(Json::as_str), job.results.as_deref());
    let told = [result, results].into_iter().flatten().map(str::len).sum::<usize>();
    input + job.state_history.as_str().len() + told + size_of_val(&entries[..])
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Stage {
    /// Submits these jobs, has the worker do all that follows, and counts.
    fn cost_of(&mut self, worker: &mut Worker, blueprint: &str, inputs: &[String]) -> Cost {
        let (began, before) = (processor_time(), self.written);
        let mut last = None;
        for inputs in inputs.chunks(SLOTS as usize) {
            let submitted = inputs.iter().map(|input| self.submit_with(blueprint, input));
            let submitted: Vec<_> = submitted.collect();
            self.settle();
            for mut answer in submitted {
                let Answered::Yes(Ok(accepted)) = answer.look() else { panic!("not accepted") };
                last = Some(accepted.job_id);
            }
            while self.report_all(worker) > 0 {
                self.settle();
            }
        }
        Cost {
            writes: self.written.writes - before.writes,
            bytes: self.written.bytes - before.bytes,
            processor: processor_time() - began,
            last: last.unwrap(),
        }
    }

    /// The worker tells of everything that it was given, at once.
    fn report_all(&mut self, worker: &mut Worker) -> usize {
        let heard = std::iter::from_fn(|| worker.hears.try_recv().ok());
        let results: Vec<WorkerResult> = heard
            .filter_map(|message| match message {
                ToWorker::Task(task) => Some(WorkerResult {
                    task_id: task.offer.task_id,
                    job_id: Some(task.offer.job_id),
                    outcome: Arc::from("success"),
                    data: Json::object(&task.offer.params).unwrap(),
                    error: None,
                    checkpoint: None,
                }),
                _ => None,
            })
            .collect();
        let count = results.len();
        self.conductor.tell(worker.session_id, worker.stream, FromWorker::Results(results));
        count
    }
}

#[test]
fn ten_thousand_branches_cost_what_ten_thousand_jobs_cost() {
    let text = "x".repeat(60);
    let inputs: Vec<String> = (0..MANY).map(|n| format!(r#"{{"n":{n},"text":"{text}"}}"#)).collect();
    let mut stage = Stage::new();
    let mut worker = stage.connect_with(SLOTS);
    let jobs = stage.cost_of(&mut worker, "task", &inputs);
    let items = inputs.join(",");
    let wide = format!(r#"{{"of":{MANY},"items":[{items}]}}"#);
    let map = stage.cost_of(&mut worker, "wide", std::slice::from_ref(&wide));
    println!("{MANY} jobs: {jobs:?}, {MANY} branches: {map:?}");

    let result = stage.store.load(map.last).unwrap().unwrap().result.unwrap();
    assert_eq!(result.as_str(), format!(r#"{{"count":{MANY},"sum":0}}"#));
    assert_eq!(stage.status(jobs.last), Some(JobStatus::Finished));
    // Each branch is begun and ended as a job is; the parent is written when it begins, and when all have ended.
    assert!(map.writes <= jobs.writes + 3, "{map:?}, as many jobs {jobs:?}");
    assert!(map.bytes <= 2 * jobs.bytes, "{map:?}, as many jobs {jobs:?}");
    // Generous: what grows with the square misses by far more.
    assert!(map.processor < 4 * jobs.processor, "{map:?}, as many jobs {jobs:?}");
}
