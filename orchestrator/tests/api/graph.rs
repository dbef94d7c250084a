//! Pictures: of a blueprint, and of a job with the path that it has taken; by REST and by gRPC.

use avtomatika_proto::{
    ApiError, ErrorCode,
    v1::{
        GetBlueprintRequest, GetJobGraphRequest, GraphFormat, admin_service_client::AdminServiceClient,
        job_service_client::JobServiceClient,
    },
};
use tonic::Request;

use crate::support::{ALICE, BOB, Server};

async fn ended_job(server: &Server) -> String {
    let answer = server.post("/api/jobs/instant?wait=30s", "{\"input\": 1}").await;
    assert_eq!(answer.text("status"), "finished");
    answer.text("id")
}

fn by_alice<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {ALICE}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_job_and_a_blueprint_are_drawn_in_every_format() {
    let server = Server::start().await;
    let id = ended_job(&server).await;
    for (format, media_type, of_blueprint, of_job) in [
        (
            "",
            "text/vnd.graphviz; charset=utf-8",
            "\"note\" -> \"completed\";",
            "-> \"completed\" [label=\"#1\", style=bold];",
        ),
        ("?format=dot", "text/vnd.graphviz; charset=utf-8", "digraph \"instant\" {", "fillcolor=palegreen"),
        ("?format=mermaid", "text/plain; charset=utf-8", "s0 --> s1", "s0 ==>|\"#35;1\"| s1"),
        (
            "?format=svg",
            "image/svg+xml; charset=utf-8",
            "<g class=\"plain\"><title>completed",
            "<g class=\"well\"><title>completed",
        ),
    ] {
        for (path, expected) in [("blueprints/instant", of_blueprint), (&*format!("jobs/{id}"), of_job)] {
            let answer = server.get(&format!("/api/{path}/graph{format}")).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, media_type));
            assert!(answer.body.contains(expected), "{}", answer.body);
            // Whatever is in it, a browser only shows it.
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert!(answer.header("content-security-policy").starts_with("default-src 'none';"));
        }
    }
    assert!(
        server
            .get(&format!("/api/jobs/{id}/graph"))
            .await
            .body
            .contains("finished in state completed after 1 move")
    );
}

#[tokio::test]
async fn grpc_draws_the_same() {
    let server = Server::start().await;
    let id = ended_job(&server).await;
    let mut jobs = JobServiceClient::connect(server.url("")).await.unwrap();
    let mut admin = AdminServiceClient::connect(server.url("")).await.unwrap();
    for (format, name) in [
        (GraphFormat::Unspecified, "dot"),
        (GraphFormat::Dot, "dot"),
        (GraphFormat::Mermaid, "mermaid"),
        (GraphFormat::Svg, "svg"),
    ] {
        let request = GetJobGraphRequest { job_id: id.clone(), format: format.into() };
        let graph = jobs.get_job_graph(by_alice(request)).await.unwrap().into_inner().graph;
        assert_eq!(graph, server.get(&format!("/api/jobs/{id}/graph?format={name}")).await.body);
        let request = GetBlueprintRequest { name: "instant".into(), version: 0, graph_format: format.into() };
        let answer = admin.get_blueprint(by_alice(request)).await.unwrap().into_inner();
        let expected = match format {
            GraphFormat::Unspecified => String::new(),
            _ => server.get(&format!("/api/blueprints/instant/graph?format={name}")).await.body,
        };
        assert_eq!(answer.graph, expected);
        assert!(answer.graph_dot.starts_with("digraph"));
    }
    let request = GetJobGraphRequest { job_id: id, format: 99 };
    let refused = jobs.get_job_graph(by_alice(request)).await.unwrap_err();
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn what_cannot_be_drawn_is_refused_by_name() {
    let server = Server::start().await;
    let id = ended_job(&server).await;
    let foreign = server.by(BOB, "GET", &format!("/api/jobs/{id}/graph"), "").await;
    assert_eq!((foreign.status, foreign.error().as_str()), (404, "Job not found"));
    for path in [format!("jobs/{id}"), "blueprints/instant".to_owned()] {
        let refused = server.get(&format!("/api/{path}/graph?format=svgg")).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.error(), "\"svgg\" is not a format of graphs; did you mean \"svg\"?");
        assert_eq!(refused.text("hint"), "Formats: dot, mermaid, svg.");
        assert_eq!(server.get(&format!("/api/{path}/graph?formt=svg")).await.status, 400);
    }
    assert_eq!(server.get("/api/blueprints/none/graph?format=svg").await.status, 404);
}
