//! Why a ready task has no worker yet: what stands in its way, who comes nearest to taking it and what that one lacks, and how
//! far the task is from its turn.
//!
//! This is the judgement; the words for it are the API's business. It is made when somebody asks, changes nothing, and looks at
//! a bounded number of workers and tasks, so that no question holds up dispatch. A new condition for taking a task is a new
//! [`Lack`].

use std::sync::Arc;

use avtomatika_proto::TaskId;

use super::{ClassId, Dispatch, Position, Session, Unmet, suit};
use crate::{conductor::LeaseView, spelling, time::Timestamp};

/// Workers that are looked at for one answer: a fraction of a millisecond.
const WORKERS_LOOKED_AT_MAX: usize = 1024;

/// Tasks that are counted from either end of a queue: a fraction of a millisecond.
const TASKS_COUNTED_MAX: usize = 4096;

/// Task types of one worker that an answer names.
const TYPES_NAMED_MAX: usize = 8;

/// Where a task is.
#[derive(Debug, Clone, PartialEq)]
pub enum Whereabouts {
    /// In a worker's hands.
    Held(LeaseView),
    /// Ready, and nobody's.
    Ready(Box<Standing>),
    /// Not here: not yet, or no more.
    Nowhere,
}

/// A ready task without a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// What stands in its way.
    pub obstacle: Obstacle,
    /// How far it is from its turn.
    pub position: Position,
    /// Who there is.
    pub workers: Workers,
    /// The connected worker that comes nearest to taking it; nobody when one could.
    pub nearest: Option<Nearest>,
}

/// What stands between a ready task and a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing more is handed out: the orchestrator stops.
    Stopping,
    /// Workers of before a restart may still have it. They are waited for until then.
    WorkersExpected(Timestamp),
    /// Nobody serves its type.
    NoWorker,
    /// All who serve it are about to leave.
    WorkersDraining,
    /// All who serve it have granted no credits, or are about to leave.
    WorkersPaused,
    /// Nobody who serves it has a free slot.
    WorkersFull,
    /// All who serve it are set aside, because too many jobs failed on them, or are about to leave.
    WorkersSetAside,
    /// Nobody who serves it meets what the task requires.
    NoneSuits,
    /// Nothing: its turn comes as soon as those before it are gone.
    Turn,
}

/// The workers there are for a task. Those that serve its type are free, full, paused, set aside, draining or unsuited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Workers {
    /// With an open stream.
    pub connected: usize,
    /// Of these, those that serve the type.
    pub serving: usize,
    /// With a free slot.
    pub free: usize,
    /// Without one.
    pub full: usize,
    /// Without credits.
    pub paused: usize,
    /// About to leave.
    pub draining: usize,
    /// Set aside, because too many jobs failed on them.
    pub set_aside: usize,
    /// Without something that the task requires.
    pub unsuited: usize,
    /// Expected back after a restart.
    pub expected: usize,
    /// There are more that serve it than were looked at: full, paused, set aside, draining and unsuited are counts of some of
    /// them.
    pub at_least: bool,
}

/// A worker that would take the task but for one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Its name.
    pub worker_id: Arc<str>,
    /// The one thing.
    pub lacks: Lack,
}

/// What a worker lacks to take a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Lack {
    /// All its slots are taken.
    FreeSlot {
        /// Tasks that it holds.
        held: u32,
        /// Tasks that it takes at once.
        slots: u32,
    },
    /// It holds as many tasks of the type as it may.
    TypeSlot {
        /// Tasks of the type that it holds.
        held: u32,
        /// Tasks of the type that it takes at once.
        limit: u32,
    },
    /// It takes no tasks at the moment, or is silent.
    Credits,
    /// It gets no tasks until then, because too many jobs failed on it.
    Trust(Timestamp),
    /// It is about to leave.
    Permanence,
    /// It does not have something that the task requires.
    Needs(Unmet),
    /// It does not serve the type.
    TaskType {
        /// Some of the types that it serves.
        serves: Vec<Arc<str>>,
        /// One of its types that is spelled much the same.
        similar: Option<Arc<str>>,
    },
}

impl Lack {
    /// Its name on every surface.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::FreeSlot { .. } => "free_slot",
            Self::TypeSlot { .. } => "type_slot",
            Self::Credits => "credits",
            Self::Trust(_) => "trust",
            Self::Permanence => "permanence",
            Self::Needs(unmet) => unmet.about,
            Self::TaskType { .. } => "task_type",
        }
    }
}

impl Dispatch {
    /// Where this task of this type is, and if it waits, why.
    pub fn whereabouts(&self, task_id: TaskId, task_type: &str) -> Whereabouts {
        if let Some(lease) = self.lease_view(task_id) {
            return Whereabouts::Held(lease);
        }
        let Some(position) = self.ready.position(task_id, TASKS_COUNTED_MAX) else {
            return Whereabouts::Nowhere;
        };
        let Some(class) = self.ready.class_of(task_id) else { return Whereabouts::Nowhere };
        let (workers, nearest) = self.look_around(class, task_type);
        let obstacle = self.obstacle(task_type, &workers);
        Whereabouts::Ready(Box::new(Standing { obstacle, position, workers, nearest }))
    }

    fn obstacle(&self, task_type: &str, workers: &Workers) -> Obstacle {
        if self.paused {
            return Obstacle::Stopping;
        }
        match self.awaited(task_type) {
            Some(until) => Obstacle::WorkersExpected(until),
            None if workers.free > 0 => Obstacle::Turn,
            None if workers.serving == 0 => Obstacle::NoWorker,
            None if workers.full > 0 => Obstacle::WorkersFull,
            None if workers.paused > 0 => Obstacle::WorkersPaused,
            None if workers.set_aside > 0 => Obstacle::WorkersSetAside,
            None if workers.draining > 0 => Obstacle::WorkersDraining,
            None => Obstacle::NoneSuits,
        }
    }

    fn look_around(&self, class: ClassId, task_type: &str) -> (Workers, Option<Nearest>) {
        let (free, class) = (self.placement.free_count(class), self.classes.get(class));
        let mut workers = Workers {
            connected: self.roster.len(),
            serving: self.roster.serving_count(task_type),
            free,
            expected: self.adoption.awaited(task_type),
            ..Workers::default()
        };
        workers.at_least = workers.serving > WORKERS_LOOKED_AT_MAX;
        let mut nearest: Option<(Distance<'_>, Lack)> = None;
        for session in self.roster.serving(task_type).take(WORKERS_LOOKED_AT_MAX) {
            let unmet = suit::unmet(class, &session.record.worker);
            let missing = (unmet.len(), unmet.iter().map(|unmet| unmet.shortfall_millionths).sum());
            let lack = unmet.into_iter().next().map(Lack::Needs);
            let Some(lack) = lack.or_else(|| lack_of(session, task_type)) else { continue };
            match lack {
                Lack::FreeSlot { .. } | Lack::TypeSlot { .. } => workers.full += 1,
                Lack::Credits => workers.paused += 1,
                Lack::Permanence | Lack::TaskType { .. } => workers.draining += 1,
                Lack::Trust(_) => workers.set_aside += 1,
                Lack::Needs(_) => workers.unsuited += 1,
            }
            let distance = distance(session, &lack, missing);
            if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                nearest = Some((distance, lack));
            }
        }
        let nearest = match nearest {
            _ if workers.free > 0 => None,
            Some(((.., name), lacks)) => Some(Nearest { worker_id: Arc::from(name), lacks }),
            None => self.nearest_by_type(task_type),
        };
        (workers, nearest)
    }

    /// Nobody serves the type: whoever serves one that is spelled much the same, or else anybody.
    fn nearest_by_type(&self, task_type: &str) -> Option<Nearest> {
        let served = self.roster.served_types().take(WORKERS_LOOKED_AT_MAX).map(|name| &**name);
        let similar = spelling::nearest(task_type, served);
        let by_name = |session: &&Session| session.record.worker.worker_id.clone();
        let session = match similar {
            Some(similar) => self.roster.serving(similar).take(WORKERS_LOOKED_AT_MAX).min_by_key(by_name),
            None => self.roster.iter().take(WORKERS_LOOKED_AT_MAX).min_by_key(by_name),
        }?;
        let worker = &session.record.worker;
        let serves = worker.task_types.iter().take(TYPES_NAMED_MAX).cloned().collect();
        let lacks = Lack::TaskType { serves, similar: similar.map(Arc::from) };
        Some(Nearest { worker_id: worker.worker_id.clone(), lacks })
    }
}

/// How far a worker is from taking a task: what kind of thing it lacks, how many of them, how much, then its name.
type Distance<'s> = (u8, usize, i64, &'s str);

/// `missing` are how many of the things that are required it does not have, and how far it is from having them.
fn distance<'s>(session: &'s Session, lack: &Lack, missing: (usize, u32)) -> Distance<'s> {
    let (kind, count, much) = match lack {
        Lack::FreeSlot { held, slots: limit } | Lack::TypeSlot { held, limit } => {
            (0, 1, i64::from(*held) - i64::from(*limit))
        }
        Lack::Credits => (1, 1, 0),
        Lack::Trust(until) => (2, 1, until.as_micros()),
        Lack::Permanence => (3, 1, 0),
        Lack::Needs(_) => (4, missing.0, missing.1.into()),
        Lack::TaskType { .. } => (5, 1, 0),
    };
    (kind, count, much, &session.record.worker.worker_id)
}

/// What a worker lacks that serves the type; nothing when it could take the task.
fn lack_of(session: &Session, task_type: &str) -> Option<Lack> {
    if session.draining {
        return Some(Lack::Permanence);
    }
    if let Some(until) = session.aside_until {
        return Some(Lack::Trust(until));
    }
    if session.slots == 0 || session.suspected {
        return Some(Lack::Credits);
    }
    let (held, slots) = (session.held(), session.slots);
    if session.free() == 0 {
        return Some(Lack::FreeSlot { held, slots });
    }
    let of_type = session.of_type(task_type).filter(|(held, limit)| held >= limit);
    of_type.map(|(held, limit)| Lack::TypeSlot { held, limit })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use avtomatika_proto::{JobId, SessionId};

    use super::{
        super::{Adoption, Outbox},
        *,
    };
    use crate::{
        engine::Offer,
        store::{SessionRecord, WorkerRecord},
    };

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn record(name: &str, task_types: &[&str]) -> SessionRecord {
        let worker = WorkerRecord {
            worker_id: Arc::from(name),
            worker_type: Arc::from("test"),
            task_types: task_types.iter().copied().map(Arc::from).collect(),
            slots: 8,
            labels: Default::default(),
            resources: Default::default(),
            hostname: Arc::from("test"),
            sdk_version: Arc::from(""),
            ..WorkerRecord::default()
        };
        SessionRecord {
            session_id: session(name),
            worker: Arc::new(worker),
            credential: [0; 32],
            opened_at: NOW,
            reproach: None,
        }
    }

    fn session(name: &str) -> SessionId {
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        SessionId::from_bytes(bytes)
    }

    fn connect(dispatch: &mut Dispatch, name: &str, task_types: &[&str], slots: u32) {
        dispatch.connect(&record(name, task_types), &[], Outbox::new().0, NOW);
        dispatch.credits(session(name), slots, NOW);
    }

    fn task(number: u8) -> TaskId {
        TaskId::from_bytes([number; 16])
    }

    fn offer(dispatch: &mut Dispatch, number: u8) {
        let offer = Offer {
            task_id: task(number),
            job_id: JobId::from_bytes([number; 16]),
            client: Arc::from("client"),
            task_type: Arc::from("resize"),
            needs: None,
            params: Arc::from("{}"),
            attempt: 1,
            priority: 0,
            timeout: Duration::from_secs(1),
            ready_at: NOW,
            checkpoint: None,
            trace: None,
        };
        dispatch.offer(offer, NOW);
    }

    fn standing(dispatch: &Dispatch, number: u8) -> Standing {
        match dispatch.whereabouts(task(number), "resize") {
            Whereabouts::Ready(standing) => *standing,
            other => panic!("{other:?}"),
        }
    }

    fn nearest(standing: &Standing) -> (&str, &Lack) {
        let nearest = standing.nearest.as_ref().expect("somebody comes near");
        (&nearest.worker_id, &nearest.lacks)
    }

    #[test]
    fn without_workers_nobody_comes_near() {
        let mut dispatch = Dispatch::default();
        assert_eq!(dispatch.whereabouts(task(1), "resize"), Whereabouts::Nowhere);
        offer(&mut dispatch, 1);
        let found = standing(&dispatch, 1);
        assert_eq!((found.obstacle, found.nearest), (Obstacle::NoWorker, None));
        assert_eq!(found.position, Position { ahead: 0, at_least: false, length: 1 });
    }

    #[test]
    fn a_worker_whose_type_is_spelled_much_the_same_comes_nearest_then_any() {
        let mut dispatch = Dispatch::default();
        offer(&mut dispatch, 1);
        connect(&mut dispatch, "a", &["render"], 1);
        let serves = |names: &[&str]| names.iter().copied().map(Arc::from).collect();
        let found = standing(&dispatch, 1);
        assert_eq!(found.obstacle, Obstacle::NoWorker);
        assert_eq!(nearest(&found), ("a", &Lack::TaskType { serves: serves(&["render"]), similar: None }));
        connect(&mut dispatch, "b", &["ocr", "reszie"], 1);
        let found = standing(&dispatch, 1);
        let similar = Some(Arc::from("reszie"));
        assert_eq!(nearest(&found), ("b", &Lack::TaskType { serves: serves(&["ocr", "reszie"]), similar }));
        assert_eq!((found.workers.connected, found.workers.serving), (2, 0));
    }

    #[test]
    fn the_full_come_nearer_than_the_paused_and_those_than_the_leaving() {
        let mut dispatch = Dispatch::default();
        connect(&mut dispatch, "leaving", &["resize"], 1);
        dispatch.drain(session("leaving"));
        offer(&mut dispatch, 1);
        let found = standing(&dispatch, 1);
        assert_eq!(
            (found.obstacle, nearest(&found)),
            (Obstacle::WorkersDraining, ("leaving", &Lack::Permanence))
        );
        connect(&mut dispatch, "paused", &["resize"], 0);
        let found = standing(&dispatch, 1);
        assert_eq!((found.obstacle, nearest(&found)), (Obstacle::WorkersPaused, ("paused", &Lack::Credits)));
        connect(&mut dispatch, "full", &["resize"], 1);
        let Whereabouts::Held(lease) = dispatch.whereabouts(task(1), "resize") else { panic!("it was free") };
        assert_eq!(&*lease.worker_id, "full");
        offer(&mut dispatch, 2);
        offer(&mut dispatch, 3);
        let found = standing(&dispatch, 3);
        assert_eq!(found.obstacle, Obstacle::WorkersFull);
        assert_eq!(nearest(&found), ("full", &Lack::FreeSlot { held: 1, slots: 1 }));
        assert_eq!(found.position, Position { ahead: 1, at_least: false, length: 2 });
        let Workers {
            connected,
            serving,
            free,
            full,
            paused,
            draining,
            set_aside,
            unsuited,
            expected,
            at_least,
        } = found.workers;
        assert_eq!(
            (connected, serving, free, full, paused, draining, set_aside, unsuited),
            (3, 3, 0, 1, 1, 1, 0, 0)
        );
        assert_eq!((expected, at_least), (0, false));
    }

    #[test]
    fn after_a_restart_workers_are_waited_for_and_a_stopping_orchestrator_says_so() {
        let mut dispatch = Dispatch::default();
        let until = NOW + Duration::from_secs(5);
        dispatch.expect(Adoption::expect(vec![record("old", &["resize"])], until));
        connect(&mut dispatch, "new", &["resize"], 1);
        offer(&mut dispatch, 1);
        let found = standing(&dispatch, 1);
        assert_eq!((found.obstacle, found.workers.expected), (Obstacle::WorkersExpected(until), 1));
        assert_eq!((found.workers.free, found.nearest), (1, None));
        dispatch.pause();
        assert_eq!(standing(&dispatch, 1).obstacle, Obstacle::Stopping);
        assert_eq!(dispatch.adoption_over(until).len(), 1);
    }

    #[test]
    fn a_task_that_is_aside_while_a_worker_is_free_waits_for_its_turn_only() {
        let mut dispatch = Dispatch::default();
        offer(&mut dispatch, 1);
        dispatch.put_aside(task(1));
        connect(&mut dispatch, "free", &["resize"], 1);
        let found = standing(&dispatch, 1);
        assert_eq!((found.obstacle, found.nearest), (Obstacle::Turn, None));
    }
}
