//! From request to answer. The order matters: who is calling comes before what is served, so that a stranger learns nothing of
//! either.

use std::{net::IpAddr, sync::Arc};

use avtomatika_proto::{ApiError, ErrorCode};
use axum::{body::Body, response::Response};
use http::{HeaderValue, Method, Request, header};
use hyper::body::{Body as _, Incoming};

use super::{
    actions, events, explanation, jobs, migrate, operate, put, query, reload,
    route::{self, NoRoute, PublicRoute, Route},
    schedules, submit, webhooks,
};
use crate::{
    api::{
        Inside,
        auth::Caller,
        callers::{self, Call, STRANGERS, Unwelcome, Visitor},
        intake::Line,
        reply,
    },
    trust::Role,
};

/// Answers one request. Every error becomes an answer.
pub(in crate::api) async fn answer(inside: &Inside, from: IpAddr, request: Request<Incoming>) -> Response {
    let head_only = request.method() == Method::HEAD;
    let (uri, method) = (request.uri().clone(), request.method().clone());
    let call = Call { from, method: method.as_str(), path: uri.path() };
    let response = match route::is_client_path(uri.path()) {
        true => client(inside, call, request).await,
        false => public(inside, call, request).await,
    };
    let response = response.unwrap_or_else(|error| reply::error(&error));
    match head_only {
        true => without_body(response),
        false => response,
    }
}

async fn public(
    inside: &Inside,
    call: Call<'_>,
    mut request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let uri = request.uri().clone();
    takes_turns(&mut request, STRANGERS.into());
    match route::public(request.method(), uri.path()) {
        Ok(PublicRoute::Approval(id)) => approval(inside, call, id, request).await,
        Ok(PublicRoute::Probe(probe)) => Ok(operate::public(inside, probe).await),
        Err(NoRoute::UnknownPath) if route::is_grpc_method(uri.path()) => Err(route::no_grpc()),
        Err(NoRoute::UnknownPath) => Err(route::unknown_path(None)),
        Err(NoRoute::WrongMethod(allow)) => Ok(wrong_method(allow)),
    }
}

/// For whoever has an approval's token, or for a client, whose call is noted as anywhere else.
async fn approval(
    inside: &Inside,
    call: Call<'_>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let turned_away = |unwelcome| call.turned_away(&inside.audit, &inside.auth, unwelcome);
    // Who calls comes first: credentials that are wrong are wrong whatever else is said.
    match callers::admit(&inside.auth, &request, || Role::Client) {
        Ok(caller) => {
            let answer = actions::decide_publicly(inside, Some(&caller.client), id, request).await;
            let code = answer.as_ref().err().map(|error| error.code.as_str());
            call.answered(&inside.audit, &inside.auth, &Visitor::Client(caller, Role::Client), code);
            answer
        }
        Err(Unwelcome { error, .. }) if error.code == ErrorCode::MissingToken => {
            let answer = actions::decide_publicly(inside, None, id, request).await;
            answer.map_err(|error| turned_away(error.into()))
        }
        Err(unwelcome) => Err(turned_away(unwelcome)),
    }
}

/// For a client. What it is let in for follows from where it calls; it is counted, and noted if it is an operator's.
async fn client(
    inside: &Inside,
    call: Call<'_>,
    mut request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let blueprints = inside.conductor.blueprints();
    let route = route::client(request.method(), call.path, &blueprints);
    let role = route.as_ref().map_or(Role::Client, Route::role);
    let caller = callers::admit(&inside.auth, &request, || role);
    let caller = caller.map_err(|unwelcome| call.turned_away(&inside.audit, &inside.auth, unwelcome))?;
    takes_turns(&mut request, caller.actor.clone());
    let answer = match route {
        Ok(route) => served(inside, &caller, route, request).await,
        Err(NoRoute::UnknownPath) => Err(route::unknown_path(Some(&blueprints))),
        Err(NoRoute::WrongMethod(allow)) => Ok(wrong_method(allow)),
    };
    let code = answer.as_ref().err().map(|error| error.code.as_str());
    call.answered(&inside.audit, &inside.auth, &Visitor::Client(caller, role), code);
    answer
}

/// Its body takes its turn among those of the same sender.
fn takes_turns(request: &mut Request<Incoming>, sender: Arc<str>) {
    let turn = Line::of(request).turn(sender);
    request.extensions_mut().insert(turn);
}

async fn served(
    inside: &Inside,
    caller: &Caller,
    route: Route<'_>,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let (client, uri) = (caller.client.clone(), request.uri().clone());
    match route {
        Route::Submit { blueprint, body } => {
            inside.auth.check_client(caller)?;
            submit::at_endpoint(inside, client, blueprint, body, request).await
        }
        Route::SubmitByName => {
            inside.auth.check_client(caller)?;
            submit::by_name(inside, client, request).await
        }
        Route::ListJobs => jobs::list(inside, client, &uri).await,
        Route::Job(id) => jobs::get(inside, &client, id, &uri).await,
        Route::JobHistory(id) => jobs::history(inside, &client, id, &uri).await,
        Route::JobEvents(id) => {
            query::none(&uri)?;
            events::follow(inside, caller, id).await
        }
        Route::JobGraph(id) => operate::job_graph(inside, &client, id, &uri).await,
        Route::ExplainJob(id) => explanation::get(inside, &client, id, &uri).await,
        Route::JobWebhooks(id) => webhooks::list(inside, &client, id, &uri).await,
        Route::Redeliver { id, webhook_id } => {
            webhooks::redeliver(inside, &client, id, webhook_id, &uri).await
        }
        Route::CancelJob(id) => jobs::cancel(inside, &client, id, request).await,
        Route::SignalJob(id) => actions::signal(inside, &client, id, request).await,
        Route::Decide(id, decision) => actions::decide(inside, &client, id, decision, request).await,
        Route::RetryJob(id) => actions::retry(inside, &client, id, request).await,
        Route::SkipJob(id) => actions::skip(inside, &client, id, request).await,
        Route::RepairJobs => actions::repair(inside, &client, request).await,
        Route::Workers => query::none(&uri).map(|()| operate::workers(inside))?.await,
        Route::RestoreWorker(id) => operate::restore_worker(inside, id).await,
        Route::DrainWorker(id) => operate::drain_worker(inside, id).await,
        Route::Schedules => query::none(&uri).map(|()| schedules::list(inside, &client)),
        Route::Blueprints => query::none(&uri).map(|()| operate::blueprints(inside)),
        Route::BlueprintByName(name) => query::none(&uri).and_then(|()| operate::blueprint(inside, name)),
        Route::BlueprintGraph(name) => operate::blueprint_graph(inside, name, &uri).await,
        Route::MigrateBlueprint(name) => migrate::migrate(inside, &client, name, request).await,
        Route::PutBlueprint(name) => put::blueprint(inside, name, request).await,
        Route::Reload => reload::reload(inside, request).await,
        Route::Dashboard => query::none(&uri).map(|()| operate::dashboard(inside))?.await,
    }
}

fn wrong_method(allow: &'static str) -> Response {
    let mut response = reply::error(&route::wrong_method(allow));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// The answer to HEAD: what GET would say, without saying it.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}
