//! What chores and operators ask of a conductor that stands still: messages for webhooks, due times of schedules, other
//! blueprints.
//!
//! As with everything else that arrives, it waits for the next [`Stepped::take_in`].

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use avtomatika_proto::{ApiError, JobId};

use super::{Answer, Stepped};
use crate::{
    blueprint::{Change, Definition},
    conductor::{
        DueTime, ScheduleChange,
        mail::DueNotices,
        mailbox::{Request, Served},
        migration::Move,
        schedules::Scheduled,
    },
    store::{NoticeId, NoticeRecord, ScheduleRecord},
};

impl Stepped {
    /// See [`Conductor::take_notices`](crate::conductor::Conductor::take_notices).
    pub fn take_notices(&mut self) -> Answer<DueNotices> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::TakeNotices(reply));
        answer
    }

    /// See [`Conductor::settle_notice`](crate::conductor::Conductor::settle_notice).
    pub fn settle_notice(
        &mut self,
        id: NoticeId,
        record: Option<NoticeRecord>,
    ) -> Answer<Result<(), ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::SettleNotice { id, record: record.map(Arc::new), reply });
        answer
    }

    /// See [`Conductor::redeliver`](crate::conductor::Conductor::redeliver).
    pub fn redeliver(
        &mut self,
        client: &Arc<str>,
        job_id: JobId,
        id: Option<NoticeId>,
    ) -> Answer<Result<Vec<NoticeRecord>, ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Redeliver { client: client.clone(), job_id, id, reply });
        answer
    }

    /// Whether something may have become due for webhooks since this was last asked.
    pub fn has_notice_news(&self) -> bool {
        let news = self.house.core.mail.news();
        let told = pin!(news.notified());
        told.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// See [`Conductor::run_scheduled`](crate::conductor::Conductor::run_scheduled). Nothing when no such blueprint is served.
    pub fn run_scheduled(&mut self, due: DueTime) -> Option<Answer<Result<ScheduleRecord, ApiError>>> {
        let blueprint = self.house.core.blueprints.newest(&due.blueprint)?.clone();
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::RunScheduled(Scheduled { due, blueprint }, reply));
        Some(answer)
    }

    /// See [`Conductor::keep_schedules`](crate::conductor::Conductor::keep_schedules).
    pub fn keep_schedules(&mut self, changes: Vec<ScheduleChange>) -> Answer<Result<(), ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::KeepSchedules(changes, reply));
        answer
    }

    /// See [`Conductor::enact`](crate::conductor::Conductor::enact).
    pub fn enact(&mut self, definitions: Vec<Definition>) -> Answer<Result<Vec<Change>, ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Enact(Served::These(definitions), reply));
        answer
    }

    /// See [`Conductor::put_blueprint`](crate::conductor::Conductor::put_blueprint).
    pub fn put(&mut self, definition: Definition) -> Answer<Result<Vec<Change>, ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Enact(Served::Also(definition), reply));
        answer
    }

    /// Moves these jobs, as [`Conductor::migrate`](crate::conductor::Conductor::migrate) does with a page of them.
    pub fn migrate(
        &mut self,
        client: &Arc<str>,
        moves: Vec<Move>,
        version: u32,
    ) -> Answer<Result<Vec<Move>, ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Migrate { client: client.clone(), moves, version, reply });
        answer
    }
}
