//! Children: the branches of a map, and the jobs of other blueprints that a job runs.
//!
//! Each is a job of its own, so that ten thousand branches cost what ten thousand jobs cost and the parent stays small. The parent
//! knows how many there are and the id of the first; what each of them is given follows from the parent, which does not change
//! while it waits. It promises that the parent goes on once, and only for the children of its present state.

use std::{cell::OnceCell, sync::Arc};

use avtomatika_proto::{JobId, outcome, trace::span_of_job};
use serde::Serialize;

use super::{
    CHILD_DEPTH_MAX, ChildKind, ChildResult, Children, Effect, Harvest, HistoryEvent, Job, JobError,
    JobStatus, MAP_BRANCHES_MAX, Parent, RESULTS_BYTES_MAX, Refusal, Submission, Wait, code,
    draft::{Draft, Step, error, no_value},
    keys::claim_of,
};
use crate::{
    blueprint::{
        Blueprint, Branch, Data, Datum, MapState, Over, RunState, RunWork, StateKind, TaskWork, Template,
    },
    json::{Json, Raw},
    museum::{Mistake, plants},
};

/// A child that is to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildSpec {
    /// Its id.
    pub id: JobId,
    /// The blueprint that it runs, in its newest version; none for a branch, which stands in its parent's.
    pub blueprint: Option<Arc<str>>,
    /// The state in which a branch stands.
    pub state: Arc<str>,
    /// What it is submitted with.
    pub submission: Submission,
    /// Why it cannot run: then it fails at once.
    pub error: Option<JobError>,
}

/// How many children may run, and how many may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// At once.
    pub max_parallel: u32,
    /// In all.
    pub tolerated: u32,
}

impl Draft<'_, '_> {
    pub fn start_child(&mut self, run: &RunState) -> Step {
        if self.job.depth() >= CHILD_DEPTH_MAX {
            let message = format!("Jobs nest at most {CHILD_DEPTH_MAX} deep, and this one is that deep");
            return self.fail(outcome::FAILURE, error(code::DEPTH_LIMIT, message), JobStatus::Failed);
        }
        let first = self.reserve(1);
        if run.waits {
            self.await_children(first, 1, JobStatus::WaitingForChild, Some(run.work.blueprint.clone()));
            return Step::Stay;
        }
        if !(self.context.serves)(&run.work.blueprint) {
            // Nobody would hear of a child that cannot be started.
            return self.fail(outcome::FAILURE, unknown(&run.work.blueprint), JobStatus::Failed);
        }
        let begun = self.effects.iter().filter(|effect| matches!(effect, Effect::StartDetached(_))).count();
        if begun >= (self.context.room)() as usize {
            let message = "As many jobs are open as may be, or as many as may be were started at a time";
            return self.fail(outcome::FAILURE, error(code::OPEN_JOBS_LIMIT, message), JobStatus::Failed);
        }
        let scope = self.scope(self.context.now);
        let input = object_of(&run.work.input, &Data::new(&scope), &self.job.state);
        let spec = child_of(&self.job, (first, 0), ChildKind::Detached, Some(&run.work), input);
        if let Some(error) = spec.error {
            return self.fail(outcome::FAILURE, error, JobStatus::Failed);
        }
        self.note(HistoryEvent::ChildrenStarted).detail = Some(Arc::from(first.to_string()));
        self.effects.push(Effect::StartDetached(Box::new(spec)));
        self.go(outcome::SUCCESS)
    }

    pub fn start_branches(&mut self, map: &MapState) -> Step {
        let total = match self.count(map) {
            Ok(total) => total,
            Err(error) => return self.fail(outcome::FAILURE, error, JobStatus::Failed),
        };
        if total == 0 {
            self.job.results = Some(Arc::from("[]"));
            return self.go(outcome::SUCCESS);
        }
        let first = self.reserve(total);
        self.await_children(first, total, JobStatus::WaitingForParallel, None);
        Step::Stay
    }

    /// How many branches the map has for this job.
    pub fn count(&self, map: &MapState) -> Result<u32, JobError> {
        let runs = map.over.branches().any(|branch| matches!(branch, Branch::Run(_)));
        if runs && self.job.depth() >= CHILD_DEPTH_MAX {
            let message = format!("Jobs nest at most {CHILD_DEPTH_MAX} deep, and this one is that deep");
            return Err(error(code::DEPTH_LIMIT, message));
        }
        let total = match &map.over {
            Over::Named(named) => named.len(),
            Over::Each { list, .. } => {
                let value =
                    list.eval(&self.scope(self.context.now)).map_err(|cause| self.no_value(&cause))?;
                let Some(Datum::List(items)) = Datum::read(value.as_str()) else {
                    let shown: String = value.as_str().chars().take(80).collect();
                    let message =
                        format!("What state {:?} maps over is no list: it is {shown}", self.job.state);
                    return Err(error(code::EXPRESSION, message));
                };
                items.len()
            }
        };
        u32::try_from(total).ok().filter(|total| *total <= MAP_BRANCHES_MAX).ok_or_else(|| {
            let message = format!(
                "State {:?} would have {total} branches; the limit is {MAP_BRANCHES_MAX}",
                self.job.state
            );
            error(code::DATA_TOO_LARGE, message)
        })
    }

    fn reserve(&mut self, count: u32) -> JobId {
        let key = (self.context.reserve)(count);
        JobId::of_key(key, self.context.entropy.next_u64())
    }

    fn await_children(&mut self, first: JobId, total: u32, status: JobStatus, what: Option<Arc<str>>) {
        let since = self.context.now;
        self.job.status = status;
        self.job.resumes_at = None;
        self.job.wait = Some(Wait::Children(Children { first, total, since }));
        let what = what.unwrap_or_else(|| match total {
            1 => Arc::from("1 branch"),
            total => Arc::from(format!("{total} branches")),
        });
        self.note(HistoryEvent::ChildrenStarted).detail = Some(what);
        self.effects.push(Effect::StartChildren);
    }

    pub fn children_ended(&mut self, harvest: &Harvest) -> Result<Step, Refusal> {
        let children = self.job.children().filter(|children| children.first == harvest.first);
        let believed = plants(Mistake::ParentResumedTwice).then_some(0);
        let Some(total) = children.map(|children| children.total).or(believed) else {
            return Err(Refusal::StaleChildren);
        };
        self.job.wait = None;
        let results = match &harvest.results {
            Ok(results) => results,
            Err(error) => {
                self.note(HistoryEvent::ChildrenEnded).error = Some(error.clone());
                return Ok(self.fail(outcome::FAILURE, error.clone(), JobStatus::Failed));
            }
        };
        let failed = results.iter().filter(|result| result.failed).count();
        self.note(HistoryEvent::ChildrenEnded).detail =
            Some(Arc::from(format!("{failed} of {total} failed")));
        Ok(match self.state().map(|state| &state.kind) {
            Some(StateKind::Map(map)) => self.gather(map, results),
            Some(StateKind::Run(run)) => self.take_child(run.output.as_ref(), results.first()),
            _ => Step::Stay,
        })
    }

    fn gather(&mut self, map: &MapState, results: &[ChildResult]) -> Step {
        match text_of(map, results) {
            Ok(text) => self.job.results = Some(text),
            Err(error) => return self.fail(outcome::FAILURE, error, JobStatus::Failed),
        }
        let total = results.len() as u32;
        let failed = results.iter().filter(|result| result.failed).count() as u32;
        if failed <= map.tolerate.of(total) {
            self.job.error = None;
            return self.go(outcome::SUCCESS);
        }
        // Those that were called back because others had failed are not to blame.
        let was_called_back = |result: &ChildResult| *result.outcome == *outcome::CANCELLED;
        let is_to_blame = |result: &ChildResult| result.failed && result.error.is_some();
        let first = results.iter().position(|result| is_to_blame(result) && !was_called_back(result));
        let first = first.or_else(|| results.iter().position(is_to_blame));
        let example = first.and_then(|place| Some((place, results.get(place)?.error.as_ref()?)));
        let mut message = format!("{failed} of {total} branches failed");
        if let Some((place, error)) = example {
            let name = map.over.branch(place as u32).and_then(|(_, name)| name);
            let name = name.map_or_else(|| place.to_string(), |name| format!("{name:?}"));
            message.push_str(&format!("; branch {name}: {}: {}", error.code, error.message));
        }
        let error = error(code::BRANCHES_FAILED, message);
        self.blame(&error);
        self.fail(outcome::FAILURE, error, JobStatus::Failed)
    }

    /// Writes why the state fails into the entry that tells of the children's end, which is the last one.
    fn blame(&mut self, error: &JobError) {
        if let Some(entry) =
            self.entries.last_mut().filter(|entry| entry.event == HistoryEvent::ChildrenEnded)
        {
            entry.error = Some(error.clone());
        }
    }

    fn take_child(&mut self, output: Option<&Template>, result: Option<&ChildResult>) -> Step {
        let Some(result) = result else { return Step::Stay };
        self.job.outcome = Some(result.outcome.clone());
        if result.failed {
            let error = result.error.clone().unwrap_or_else(|| {
                error(code::CHILD_FAILED, format!("The child ended with {}", result.outcome))
            });
            self.blame(&error);
            return self.fail(&result.outcome, error, JobStatus::Failed);
        }
        let data = result.data.clone().unwrap_or_else(Json::empty);
        if let Err(error) = self.take_data(&data, output) {
            return self.fail(outcome::FAILURE, error, JobStatus::Failed);
        }
        self.job.error = None;
        self.go(&result.outcome)
    }
}

/// What becomes of a child whose blueprint is not served.
pub fn unknown(blueprint: &str) -> JobError {
    error(code::BLUEPRINT_UNKNOWN, format!("There is no blueprint {blueprint:?} to run"))
}

/// How the children that a job waits for are to be run; `None` when it waits for none.
pub fn plan(job: &Job, blueprint: &Blueprint) -> Option<Plan> {
    let total = job.children()?.total;
    match &blueprint.state(&job.state)?.kind {
        StateKind::Map(map) => Some(Plan {
            max_parallel: map.max_parallel.unwrap_or(total).max(1),
            tolerated: map.tolerate.of(total),
        }),
        StateKind::Run(_) => Some(Plan { max_parallel: 1, tolerated: 0 }),
        _ => None,
    }
}

/// Steps of expressions after which no further child is computed in one go. Each may take as many as any expression.
const STEPS_AT_ONCE: u64 = 500_000;

/// Bytes of input after which no further child is computed in one go.
const INPUT_AT_ONCE: usize = 4 * 1024 * 1024;

/// The children from number `from` on, at most `count`, and at least one of them; fewer where they are large or take long. None when
/// the job waits for none.
pub fn children_of(job: &Job, blueprint: &Blueprint, from: u32, count: u32) -> Vec<ChildSpec> {
    let (Some(children), Some(state)) = (job.children(), blueprint.state(&job.state)) else {
        return Vec::new();
    };
    let numbers = from..from.saturating_add(count).min(children.total);
    let scope = job.scope(children.since);
    match &state.kind {
        StateKind::Run(run) => {
            let spec = |index| {
                let input = object_of(&run.work.input, &Data::new(&scope), &job.state);
                child_of(job, (children.child(index), index), ChildKind::Run, Some(&run.work), input)
            };
            numbers.map(spec).collect()
        }
        StateKind::Map(map) => {
            let (text, items) = (OnceCell::new(), OnceCell::new());
            let data = Data::new(&scope);
            // It was a list when the state was entered, and nothing has changed since.
            if let Over::Each { list, .. } = &map.over
                && let Ok(list) = list.eval_over(&data)
                && let Some(Datum::List(list)) = Datum::read(text.get_or_init(|| list).as_str())
            {
                let _ = items.set(list);
            }
            let (mut steps, mut bytes) = (0, 0);
            let mut specs = Vec::new();
            for index in numbers {
                let item = items.get().and_then(|items| items.get(index as usize));
                let data = data.of_branch(item.map(|item| (item, index)));
                let Some(spec) = branch_of(job, (children, index), map, &data) else { break };
                steps += data.steps();
                bytes += spec.submission.initial_data.as_str().len();
                specs.push(spec);
                if steps >= STEPS_AT_ONCE || bytes >= INPUT_AT_ONCE {
                    break;
                }
            }
            specs
        }
        _ => Vec::new(),
    }
}

fn branch_of(
    job: &Job,
    (children, index): (&Children, u32),
    map: &MapState,
    data: &Data<'_>,
) -> Option<ChildSpec> {
    let id = (children.child(index), index);
    Some(match map.over.branch(index)?.0 {
        Branch::Task(work) => branch_with_keys(job, id, work, data),
        Branch::Run(work) => {
            child_of(job, id, ChildKind::Run, Some(work), object_of(&work.input, data, &job.state))
        }
    })
}

/// A branch with a task, and the keys that its attempts will take: they see what its params see.
fn branch_with_keys(job: &Job, id: (JobId, u32), work: &TaskWork, data: &Data<'_>) -> ChildSpec {
    let input = object_of(&work.params, data, &job.state);
    let claim = match work.keys.is_empty() {
        true => Ok(None),
        false => claim_of(&work.keys, data, &job.state).map(|claim| Some(Arc::new(claim))),
    };
    let (input, claim) = match claim {
        Ok(claim) => (input, claim),
        Err(error) => (input.and(Err(error)), None),
    };
    let mut spec = child_of(job, id, ChildKind::Branch, None, input);
    if let Some(parent) = &mut spec.submission.parent {
        parent.claim = claim;
    }
    spec
}

fn child_of(
    job: &Job,
    (id, index): (JobId, u32),
    kind: ChildKind,
    work: Option<&RunWork>,
    input: Result<Json, JobError>,
) -> ChildSpec {
    let (initial_data, error) = match input {
        Ok(input) => (input, None),
        Err(error) => (Json::empty(), Some(error)),
    };
    let submission = Submission {
        initial_data,
        labels: job.submission.labels.clone(),
        priority: job.submission.priority,
        dispatch_timeout: job.submission.dispatch_timeout,
        result_timeout: None,
        start_at: None,
        webhook_url: None,
        parent: Some(Parent {
            job_id: job.id,
            index,
            depth: job.depth() + 1,
            kind,
            claim: None,
            // Nobody waits for a child that lives on by itself: it takes its keys like anybody.
            slots: if kind == ChildKind::Detached { Vec::new() } else { job.slots_above() },
        }),
        trace: job.submission.trace.as_ref().map(|trace| Arc::new(trace.with_span(span_of_job(job.id, 0)))),
    };
    ChildSpec {
        id,
        blueprint: work.map(|work| work.blueprint.clone()),
        state: job.state.clone(),
        submission,
        error,
    }
}

/// What a child is given.
fn object_of(template: &Template, data: &Data<'_>, state: &str) -> Result<Json, JobError> {
    let input = template.render_over(data).map_err(|cause| no_value(state, &cause))?;
    input.to_object().ok_or_else(|| {
        error(code::EXPRESSION, format!("State {state:?}: what a child is given must be an object"))
    })
}

/// What a child that has ended ended with.
pub fn child_result(child: &Job) -> ChildResult {
    let own_word = child.outcome.clone().filter(|_| child.is_branch());
    let outcome = match child.status {
        JobStatus::Finished => own_word.unwrap_or_else(|| Arc::from(outcome::SUCCESS)),
        JobStatus::Cancelled => Arc::from(outcome::CANCELLED),
        JobStatus::Quarantined => Arc::from("quarantined"),
        _ => Arc::from(outcome::FAILURE),
    };
    ChildResult {
        outcome,
        failed: child.status != JobStatus::Finished,
        data: child.result.clone(),
        error: child.error.clone(),
    }
}

/// The result of a branch as the next states see it.
#[derive(Serialize)]
struct Shown<'r> {
    data: Option<Raw<'r>>,
    error: Option<ShownError<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'r str>,
    outcome: &'r str,
}

#[derive(Serialize)]
struct ShownError<'r> {
    code: &'r str,
    message: &'r str,
}

impl<'r> Shown<'r> {
    fn of(result: &'r ChildResult, name: Option<&'r str>) -> Self {
        let error = |error: &'r JobError| ShownError { code: &error.code, message: &error.message };
        Self {
            data: result.data.as_ref().map(|data| Raw(data.as_str())),
            error: result.error.as_ref().map(error),
            name,
            outcome: &result.outcome,
        }
    }
}

/// The list of the results.
fn text_of(map: &MapState, results: &[ChildResult]) -> Result<Arc<str>, JobError> {
    let mut text = String::from("[");
    for (index, result) in results.iter().enumerate() {
        let name = map.over.branch(index as u32).and_then(|(_, name)| name).map(|name| &**name);
        if index > 0 {
            text.push(',');
        }
        text.push_str(Json::of(&Shown::of(result, name)).as_str());
        if text.len() > RESULTS_BYTES_MAX {
            let message = format!("The results of the branches have more than {RESULTS_BYTES_MAX} bytes");
            return Err(error(code::DATA_TOO_LARGE, message));
        }
    }
    text.push(']');
    Ok(Arc::from(text))
}
