//! Where an attempt is while it is the job's current one, found out from the real dispatch: ready, or in a worker's hands.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    dispatch::{Adoption, Dispatch, Outbox, Verdict},
    engine::Offer,
    store::{SessionRecord, WorkerRecord},
    time::Timestamp,
};
use avtomatika_proto::{JobId, SessionId, TaskId};

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// From where to where, and why.
pub type Observed = BTreeSet<(&'static str, &'static str, &'static str)>;

/// One attempt and one worker for it.
struct Floor {
    dispatch: Dispatch,
    session: SessionRecord,
    observed: Observed,
}

impl Floor {
    fn new() -> Self {
        let worker = WorkerRecord {
            worker_id: Arc::from("w1"),
            worker_type: Arc::from(""),
            task_types: vec![Arc::from("work")],
            slots: 1,
            labels: Default::default(),
            resources: Default::default(),
            hostname: Arc::from(""),
            sdk_version: Arc::from(""),
            ..WorkerRecord::default()
        };
        let session = SessionRecord {
            session_id: SessionId::from_bytes([1; 16]),
            worker: Arc::new(worker),
            credential: [0; 32],
            opened_at: NOW,
            reproach: None,
        };
        Self { dispatch: Dispatch::default(), session, observed: Observed::new() }
    }

    fn place(&self) -> &'static str {
        match self.dispatch.lease(task_id()) {
            Some(_) => "held",
            None if self.dispatch.ready_counts().is_empty() => "gone",
            None => "ready",
        }
    }

    /// Does it, and sees what it did.
    fn see(&mut self, why: &'static str, deed: impl FnOnce(&mut Dispatch, &SessionRecord)) {
        let before = self.place();
        deed(&mut self.dispatch, &self.session);
        let after = self.place();
        assert_ne!(before, after, "{why} makes a difference");
        self.observed.insert((before, after, why));
    }

    fn offer(&mut self) {
        self.see("task is durable", |dispatch, _| dispatch.offer(offer(), NOW));
    }

    fn hand_out(&mut self) {
        self.dispatch.connect(&self.session, &[], Outbox::new().0, NOW);
        let session_id = self.session.session_id;
        self.see("a worker has a free slot", |dispatch, _| dispatch.credits(session_id, 1, NOW));
    }
}

fn task_id() -> TaskId {
    TaskId::from_bytes([2; 16])
}

fn offer() -> Offer {
    Offer {
        task_id: task_id(),
        job_id: JobId::compose(0, 0, 1),
        client: Arc::from("client"),
        task_type: Arc::from("work"),
        needs: None,
        params: Arc::from("{}"),
        attempt: 1,
        priority: 0,
        timeout: Duration::from_secs(1),
        ready_at: NOW,
        checkpoint: None,
        trace: None,
    }
}

/// Everything that moves an attempt between the queue and a worker.
pub fn observed() -> Observed {
    let mut floor = Floor::new();
    floor.offer();
    floor.see("no longer wanted", |dispatch, _| dispatch.withdraw(task_id(), &Arc::from("cancelled"), NOW));
    floor.offer();
    floor.hand_out();
    floor.see("no longer wanted", |dispatch, _| dispatch.withdraw(task_id(), &Arc::from("cancelled"), NOW));

    let mut lost = Floor::new();
    lost.offer();
    lost.hand_out();
    lost.see("its worker is lost", |dispatch, session| {
        assert_eq!(dispatch.disconnect(session.session_id).len(), 1);
    });

    let mut answered = Floor::new();
    answered.offer();
    answered.hand_out();
    answered.see("its result is durable", |dispatch, session| {
        dispatch.answer(session.session_id, task_id(), Verdict::Applied, NOW);
    });

    // Another process, which has nothing but the store.
    let mut restarted = Floor::new();
    restarted
        .dispatch
        .expect(Adoption::expect(vec![restarted.session.clone()], NOW + Duration::from_secs(5)));
    restarted.offer();
    restarted.see("its worker still has it after a restart", |dispatch, session| {
        let (_, reconciled) = dispatch.connect(session, &[task_id()], Outbox::new().0, NOW);
        assert_eq!(reconciled.adopted, [task_id()]);
    });

    [floor, lost, answered, restarted].into_iter().flat_map(|floor| floor.observed).collect()
}
