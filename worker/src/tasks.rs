//! The tasks that the worker holds: running, or finished with a result that the orchestrator has not acknowledged.
//!
//! Pure bookkeeping: no clock, no I/O, no handlers. `S` names a running attempt; it is handed out, once, when the attempt is
//! to stop. What is promised: every held task is in [`HeldTasks::ids`] until its result is acknowledged or it is
//! dropped; a result is handed out once per stream; a task that is not held cannot finish.

use std::collections::{HashMap, HashSet, VecDeque};

use avtomatika_proto::{
    limits,
    v1::{ResultVerdict, TaskResult},
};

/// Unacknowledged results at which the worker stops asking for tasks: as many as the largest worker has slots.
pub(crate) const OUTBOX_RESULTS_MAX: usize = limits::WORKER_SLOTS_MAX as usize;

/// Bytes of unacknowledged results at which the worker stops asking for tasks. Attempts that are still running may add
/// theirs on top.
pub(crate) const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a result weighs on the wire besides its data and its texts; generous.
const RESULT_ENVELOPE_BYTES: usize = 32;

enum Held<S> {
    /// `None` once the attempt has been told to stop.
    Running(Option<S>),
    Finished(TaskResult),
}

/// What became of an acknowledged result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// It changed the job; forgotten.
    Applied,
    /// It changed nothing and never will; forgotten.
    Refused,
    /// It is kept, to be sent again after [`HeldTasks::retry_now`].
    Later,
    /// No such result: acknowledged before, or dropped.
    Unknown,
}

/// See the module.
pub(crate) struct HeldTasks<S> {
    held: HashMap<String, Held<S>>,
    /// Results to send on this stream, in the order in which they came. May name tasks that are no longer held.
    ready: VecDeque<String>,
    /// Results that the orchestrator could not take now.
    later: Vec<String>,
    running: usize,
    outbox_bytes: usize,
    paused: bool,
}

impl<S> HeldTasks<S> {
    pub(crate) fn new() -> Self {
        Self {
            held: HashMap::new(),
            ready: VecDeque::new(),
            later: Vec::new(),
            running: 0,
            outbox_bytes: 0,
            paused: false,
        }
    }

    /// Takes a task on. False when it is held already: a repeated message.
    pub(crate) fn start(&mut self, task_id: &str, stop: S) -> bool {
        if self.held.contains_key(task_id) {
            return false;
        }
        self.held.insert(task_id.to_owned(), Held::Running(Some(stop)));
        self.running += 1;
        true
    }

    /// Whether the task is held.
    pub(crate) fn holds(&self, task_id: &str) -> bool {
        self.held.contains_key(task_id)
    }

    /// An attempt ended. False when its task was dropped meanwhile, so that the result interests nobody.
    pub(crate) fn finish(&mut self, result: TaskResult) -> bool {
        let Some(entry) = self.held.get_mut(&result.task_id) else { return false };
        if matches!(entry, Held::Finished(_)) {
            return false;
        }
        self.running -= 1;
        self.outbox_bytes += weight(&result);
        self.ready.push_back(result.task_id.clone());
        *entry = Held::Finished(result);
        self.update_pause();
        true
    }

    /// Hands out what stops the attempt: once, and only while it runs.
    pub(crate) fn stop(&mut self, task_id: &str) -> Option<S> {
        match self.held.get_mut(task_id) {
            Some(Held::Running(stop)) => stop.take(),
            _ => None,
        }
    }

    /// Hands out what stops each attempt that runs and has not been told to stop.
    pub(crate) fn stop_all(&mut self) -> Vec<S> {
        let running = self.held.values_mut().filter_map(|held| match held {
            Held::Running(stop) => stop.take(),
            Held::Finished(_) => None,
        });
        running.collect()
    }

    /// Every held task, for Hello.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.held.keys().cloned().collect()
    }

    /// A new stream begins: keeps the adopted tasks, drops every other one, and makes all results due again. Returns what
    /// stops the attempts of the dropped tasks.
    pub(crate) fn resume(&mut self, adopted: &[String]) -> Vec<S> {
        let adopted: HashSet<&str> = adopted.iter().map(String::as_str).collect();
        let dropped: Vec<String> =
            self.held.keys().filter(|id| !adopted.contains(id.as_str())).cloned().collect();
        let stops = dropped.iter().filter_map(|task_id| self.forget(task_id)).collect();
        let finished =
            |(id, held): (&String, &Held<S>)| matches!(held, Held::Finished(_)).then(|| id.clone());
        self.ready = self.held.iter().filter_map(finished).collect();
        self.later.clear();
        stops
    }

    /// The next batch of results, as many as are ready and fit. `None` when none is ready.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<TaskResult>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < limits::BATCH_ITEMS_MAX {
            let Some(task_id) = self.ready.front() else { break };
            if let Some(Held::Finished(result)) = self.held.get(task_id) {
                if bytes > 0 && bytes + weight(result) > limits::BATCH_BYTES_TARGET {
                    break;
                }
                bytes += weight(result);
                batch.push(result.clone());
            }
            self.ready.pop_front();
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Whether [`next_batch`](Self::next_batch) has something to look at.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The orchestrator answered a result.
    pub(crate) fn acknowledge(&mut self, task_id: &str, verdict: ResultVerdict) -> Acknowledged {
        if !matches!(self.held.get(task_id), Some(Held::Finished(_))) {
            return Acknowledged::Unknown;
        }
        match verdict {
            ResultVerdict::RetryLater => {
                self.later.push(task_id.to_owned());
                Acknowledged::Later
            }
            verdict => {
                self.forget(task_id);
                if verdict == ResultVerdict::Applied { Acknowledged::Applied } else { Acknowledged::Refused }
            }
        }
    }

    /// The pause after RETRY_LATER is over.
    pub(crate) fn retry_now(&mut self) {
        self.ready.extend(self.later.drain(..));
    }

    /// Attempts that have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Results that have not been acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.held.len() - self.running
    }

    /// Nothing runs and every result is acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether so many results wait that the worker should take no more tasks.
    pub(crate) fn is_outbox_full(&self) -> bool {
        self.paused
    }

    fn forget(&mut self, task_id: &str) -> Option<S> {
        let stop = match self.held.remove(task_id)? {
            Held::Running(stop) => {
                self.running -= 1;
                stop
            }
            Held::Finished(result) => {
                self.outbox_bytes -= weight(&result);
                None
            }
        };
        self.update_pause();
        stop
    }

    /// Pauses at the limit and resumes at half of it, so that a full outbox does not toggle the credits with every ack.
    fn update_pause(&mut self) {
        let part = if self.paused { 2 } else { 1 };
        self.paused = self.unacknowledged() >= OUTBOX_RESULTS_MAX / part
            || self.outbox_bytes >= OUTBOX_BYTES_MAX / part;
    }
}

fn weight(result: &TaskResult) -> usize {
    let error = result.error.as_ref().map_or(0, |error| error.code.len() + error.message.len());
    RESULT_ENVELOPE_BYTES
        + result.task_id.len()
        + result.job_id.len()
        + result.outcome.len()
        + result.data.len()
        + result.checkpoint.len()
        + error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(task_id: &str) -> TaskResult {
        TaskResult { task_id: task_id.into(), outcome: "success".into(), ..TaskResult::default() }
    }

    fn large_result(task_id: &str) -> TaskResult {
        TaskResult { data: "x".repeat(limits::PAYLOAD_BYTES_MAX), ..result(task_id) }
    }

    /// Holds the tasks, whose stops are their own names; those in `finished` have results.
    fn holding(running: &[&'static str], finished: &[&'static str]) -> HeldTasks<&'static str> {
        let mut tasks = HeldTasks::new();
        for &task_id in running.iter().chain(finished) {
            assert!(tasks.start(task_id, task_id));
        }
        for &task_id in finished {
            assert!(tasks.finish(result(task_id)));
        }
        tasks
    }

    fn sent(tasks: &mut HeldTasks<&'static str>) -> Vec<String> {
        let mut ids: Vec<String> =
            tasks.next_batch().unwrap_or_default().into_iter().map(|result| result.task_id).collect();
        ids.sort();
        ids
    }

    #[test]
    fn a_result_is_sent_once_per_stream_until_it_is_acknowledged() {
        let mut tasks = holding(&[], &["a"]);
        assert_eq!(sent(&mut tasks), ["a"]);
        assert_eq!(sent(&mut tasks), [""; 0]);

        assert!(tasks.resume(&["a".into()]).is_empty());
        assert_eq!(sent(&mut tasks), ["a"], "the stream broke before the ack");
        assert_eq!(tasks.acknowledge("a", ResultVerdict::Applied), Acknowledged::Applied);
        assert_eq!(tasks.acknowledge("a", ResultVerdict::Applied), Acknowledged::Unknown);
        assert!(tasks.is_empty());
    }

    #[test]
    fn a_refused_result_is_forgotten_and_a_postponed_one_is_sent_again() {
        let mut tasks = holding(&[], &["a", "b"]);
        assert_eq!(sent(&mut tasks), ["a", "b"]);
        assert_eq!(tasks.acknowledge("a", ResultVerdict::Refused), Acknowledged::Refused);
        assert_eq!(tasks.acknowledge("b", ResultVerdict::RetryLater), Acknowledged::Later);
        assert_eq!(sent(&mut tasks), [""; 0]);
        tasks.retry_now();
        assert_eq!(sent(&mut tasks), ["b"]);
    }

    #[test]
    fn what_the_orchestrator_does_not_adopt_is_stopped_and_forgotten() {
        let mut tasks = holding(&["kept", "dropped"], &["reported", "stale"]);
        assert_eq!(tasks.resume(&["kept".into(), "reported".into()]), ["dropped"]);
        let mut ids = tasks.ids();
        ids.sort();
        assert_eq!(ids, ["kept", "reported"]);
        assert!(!tasks.finish(result("dropped")), "its result interests nobody");
        assert_eq!(sent(&mut tasks), ["reported"]);
        assert_eq!((tasks.running(), tasks.unacknowledged()), (1, 1));
    }

    #[test]
    fn an_attempt_is_told_to_stop_once() {
        let mut tasks = holding(&["a", "b"], &["c"]);
        assert_eq!(tasks.stop("a"), Some("a"));
        assert_eq!(tasks.stop("a"), None);
        assert_eq!(tasks.stop("c"), None, "it has ended");
        assert_eq!(tasks.stop("unknown"), None);
        assert_eq!(tasks.stop_all(), ["b"]);
        assert!(tasks.finish(result("a")), "a stopped attempt still reports");
    }

    #[test]
    fn a_task_that_comes_twice_is_taken_once() {
        let mut tasks = holding(&["a"], &[]);
        assert!(!tasks.start("a", "again"));
        assert!(tasks.finish(result("a")));
        assert!(!tasks.finish(result("a")));
        assert_eq!(tasks.unacknowledged(), 1);
    }

    #[test]
    fn batches_stay_under_their_limits_and_lose_nothing() {
        let mut tasks = HeldTasks::new();
        for task_id in ["a", "b", "c"] {
            tasks.start(task_id, task_id);
            tasks.finish(large_result(task_id));
        }
        assert_eq!(tasks.next_batch().unwrap().len(), 1, "the largest results travel alone");
        assert_eq!(tasks.next_batch().unwrap().len(), 1);
        assert_eq!(tasks.next_batch().unwrap().len(), 1);
        assert_eq!(tasks.next_batch(), None);

        let mut tasks = HeldTasks::new();
        for number in 0..=limits::BATCH_ITEMS_MAX {
            tasks.start(&number.to_string(), ());
            tasks.finish(result(&number.to_string()));
        }
        assert_eq!(tasks.next_batch().unwrap().len(), limits::BATCH_ITEMS_MAX);
        assert_eq!(tasks.next_batch().unwrap().len(), 1);
    }

    #[test]
    fn a_full_outbox_pauses_the_worker_until_half_of_it_is_gone() {
        let mut tasks = HeldTasks::new();
        let names: Vec<String> = (0..64).map(|number| number.to_string()).collect();
        for name in &names {
            tasks.start(name, ());
            assert!(!tasks.is_outbox_full());
            tasks.finish(large_result(name));
        }
        assert!(tasks.is_outbox_full());
        for name in &names[..32] {
            assert!(tasks.is_outbox_full());
            tasks.acknowledge(name, ResultVerdict::Applied);
        }
        tasks.acknowledge(&names[32], ResultVerdict::Applied);
        assert!(!tasks.is_outbox_full());
    }
}
