//! Decisions per second.

use std::hint::black_box;

use avtomatika_orchestrator::engine::{Event, Job, JobStatus};

use crate::{
    Rounds,
    fixture::{Jobs, ONE_TASK, WITH_CHOICE, offers},
    median_and_spread,
    report::{Table, progress},
};

const ABOUT: &str = "\
One call of engine::decide on one thread: the job's next state, its history entries and its effects, made
and dropped. `first step` computes the task's params and a new task id. `result` merges the data and goes to
the end, where the blueprint says so by way of a choice of two conditions. A job of one task takes one of each.
Input of 100 bytes; 1,024 jobs in turn.";

/// Jobs that take turns, so that no decision finds its own job in the nearest cache.
const JOBS: usize = 1024;

pub fn measure(rounds: Rounds) -> Table {
    let mut table = Table::new("engine", ABOUT, &["decisions/s", "spread %"]);
    for (name, blueprint) in [("one task", ONE_TASK), ("one task and a choice", WITH_CHOICE)] {
        let mut jobs = Jobs::new(blueprint, 100);
        let accepted: Vec<Job> = (0..JOBS).map(|_| jobs.accepted()).collect();
        progress(&format!("engine: {name}, first step"));
        let mut turn = accepted.iter().cycle();
        let first_steps = rounds.per_second(|| {
            for job in turn.by_ref().take(JOBS) {
                black_box(jobs.decide(job, &Event::Submitted));
            }
            JOBS
        });
        table.row(format!("{name}: first step"), median_and_spread(&first_steps));

        let waiting: Vec<Job> = accepted
            .iter()
            .map(|job| {
                let decision = jobs.decide(job, &Event::Submitted);
                assert!(offers(&decision), "the first step offers a task");
                decision.job
            })
            .collect();
        let reports: Vec<Event> = waiting.iter().map(|job| jobs.success(job)).collect();
        let ended = jobs.decide(&waiting[0], &reports[0]).job;
        assert_eq!(ended.status, JobStatus::Finished, "the result ends the job");
        progress(&format!("engine: {name}, result"));
        let mut turn = waiting.iter().zip(&reports).cycle();
        let results = rounds.per_second(|| {
            for (job, report) in turn.by_ref().take(JOBS) {
                black_box(jobs.decide(job, report));
            }
            JOBS
        });
        table.row(format!("{name}: result"), median_and_spread(&results));
    }
    table
}
