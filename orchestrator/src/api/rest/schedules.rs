//! `GET /api/schedules`: the caller's schedules, when they are due next, and what became of them last.

use std::{collections::BTreeMap, sync::Arc};

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use crate::{
    api::{Inside, reply},
    schedule::ScheduleView,
    time::Timestamp,
};

pub(super) fn list(inside: &Inside, client: &str) -> Response {
    let views = inside.schedules.list_of(client, inside.conductor.wall_time());
    let document: Vec<ScheduleDocument<'_>> = views.iter().map(ScheduleDocument::of).collect();
    reply::json(StatusCode::OK, &document)
}

#[derive(Serialize)]
struct ScheduleDocument<'a> {
    name: &'a str,
    blueprint: &'a str,
    timing: String,
    time_zone: &'a str,
    enabled: bool,
    on_missed: &'static str,
    overlap: &'static str,
    labels: &'a BTreeMap<String, String>,
    priority: i32,
    next: Vec<String>,
    last_run: Option<RunDocument>,
    last_skip: Option<SkipDocument>,
    trouble: Option<Arc<str>>,
}

#[derive(Serialize)]
struct RunDocument {
    due_at: String,
    job_id: String,
}

#[derive(Serialize)]
struct SkipDocument {
    due_at: String,
    reason: &'static str,
}

impl<'a> ScheduleDocument<'a> {
    fn of(view: &'a ScheduleView) -> Self {
        let schedule = &view.schedule;
        let record = view.standing.as_ref().map(|standing| &standing.record);
        let run = record.and_then(|record| record.last_run);
        let skip = record.and_then(|record| record.last_skip);
        Self {
            name: &schedule.name,
            blueprint: &schedule.blueprint,
            timing: schedule.timing.to_string(),
            time_zone: schedule.timing.zone_name(),
            enabled: schedule.enabled,
            on_missed: schedule.on_missed.as_str(),
            overlap: schedule.overlap.as_str(),
            labels: &schedule.submission.labels,
            priority: schedule.submission.priority,
            next: view.next.iter().copied().map(Timestamp::to_rfc3339).collect(),
            last_run: run
                .map(|run| RunDocument { due_at: run.due_at.to_rfc3339(), job_id: run.job_id.to_string() }),
            last_skip: skip
                .map(|skip| SkipDocument { due_at: skip.due_at.to_rfc3339(), reason: skip.reason.as_str() }),
            trouble: view.standing.as_ref().and_then(|standing| standing.trouble.clone()),
        }
    }
}
