use std::time::Duration;

use axum::routing::get;
use connectrpc::Protocol;
use connectrpc::client::{CallOptions, ClientConfig, HttpClient};
use hydrant_contracts::proto::{
    Entry, GetRequest, GetResponse, PutRequest, PutResponse, STATE_GET_SPEC, STATE_PUT_SPEC,
    StateClient,
};
use hydrant_sdk::{Code, Context, Error, Hydrant, Service, Tier};

use crate::fake_node::FakeNode;
use crate::{soon, until};

async fn greet(request: GetRequest) -> Result<GetResponse, Error> {
    let context = Context::current().unwrap();
    Ok(GetResponse {
        entry: Some(Entry {
            key: format!("hello {}", request.key),
            value: context.correlation_id.as_str().into(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    })
}

async fn refuse(_: PutRequest) -> Result<PutResponse, Error> {
    Err(Error::new(Code::NotFound, "nobody", "nobody is here").mend("come later"))
}

fn service() -> Service {
    Service::new(Tier::Service, "greeter", "1.2.3")
        .unwrap()
        .endpoint(STATE_GET_SPEC, greet)
        .endpoint(STATE_PUT_SPEC, refuse)
        .http(axum::Router::new().route("/plain", get(|| async { "plain" })))
        .safe_to_repeat("/plain")
}

#[tokio::test]
async fn a_service_answers_in_every_protocol_and_stops_when_it_is_asked() {
    let node = FakeNode::start();
    let running = tokio::spawn(service().run_on(node.hydrant()));
    until(|| !node.seen.now().registered.is_empty()).await;
    let instance = node.seen.now().registered[0].clone();
    assert_eq!(instance.service.to_string(), "service/greeter");
    let methods: Vec<_> = instance
        .methods
        .iter()
        .map(|method| (method.path.as_str(), method.idempotent))
        .collect();
    assert_eq!(
        methods,
        [
            ("hydrant.v1.State/Get", true),
            ("hydrant.v1.State/Put", false)
        ]
    );
    assert_eq!(instance.prefixes[0].prefix, "/service/greeter/");
    assert_eq!(
        instance.repeatable_paths[0].as_str(),
        "/service/greeter/plain"
    );

    let base: http::Uri = format!("http://{}", instance.address).parse().unwrap();
    for (transport, protocol) in [
        (HttpClient::plaintext(), Protocol::Connect),
        (HttpClient::plaintext_http2_only(), Protocol::Grpc),
    ] {
        let config = ClientConfig::new(base.clone()).with_protocol(protocol);
        let client = StateClient::new(transport, config);
        let request = GetRequest {
            key: "ada".into(),
            ..Default::default()
        };
        let options = CallOptions::default().with_header("correlation-id", "order-7");
        let answer = soon(client.get_with_options(request, options))
            .await
            .unwrap();
        let entry = answer.into_owned().entry.into_option().unwrap();
        assert_eq!(
            (entry.key.as_str(), &*entry.value),
            ("hello ada", &b"order-7"[..])
        );
        let error = soon(client.put(PutRequest::default())).await.unwrap_err();
        let error = Error::from_connect(&error);
        assert_eq!(
            (error.code, &*error.reason, &*error.mend),
            (Code::NotFound, "nobody", "come later")
        );
    }
    node.seen.ask_to_stop("scaled down");
    soon(running).await.unwrap().unwrap();
    assert_eq!(node.seen.now().drains, 1);
}

#[tokio::test]
async fn calls_inside_a_handler_take_its_context_along() {
    let node = FakeNode::start();
    let hydrant = node.hydrant();
    let context = Context {
        deadline: Some(tokio::time::Instant::now() + Duration::from_secs(9)),
        ..Context::new()
    };
    let id = context.correlation_id.to_string();
    let calls = async {
        let endpoint = "/service/node/hydrant.v1.State/Get";
        let now: GetResponse = hydrant.call(endpoint, GetRequest::default()).await.unwrap();
        let later = hydrant.call_async::<_, GetResponse>(endpoint, GetRequest::default());
        assert_eq!(later.await.unwrap(), now);
    };
    soon(context.scope(calls)).await;
    let seen = node.seen.now();
    assert_eq!(seen.requests.len(), 2);
    for headers in &seen.requests {
        assert_eq!(headers["correlation-id"], id.as_str());
        assert_eq!(headers["hydrant-token"], "h1.service/test.abc");
        let ms: u64 = headers["connect-timeout-ms"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=9000).contains(&ms), "{ms}");
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_made_says_why() {
    let hydrant =
        Hydrant::new(hydrant_sdk::Config::new("http://127.0.0.1:1", None).unwrap()).unwrap();
    let call = async |endpoint: &str| {
        hydrant
            .call::<_, GetResponse>(endpoint, GetRequest::default())
            .await
            .unwrap_err()
    };
    assert_eq!(call("nonsense").await.code, Code::InvalidArgument);
    assert!(
        call("/service/node/page")
            .await
            .mend
            .contains("package.Service/Method")
    );
    assert_eq!(call("/service/node/a.B/C").await.code, Code::Unavailable);
}

#[tokio::test]
async fn a_service_without_a_node_ends_after_its_grace_time() {
    let mut config = hydrant_sdk::Config::new("http://127.0.0.1:1", None).unwrap();
    config.grace = Duration::from_millis(100);
    let error = soon(service().run_on(Hydrant::new(config).unwrap()))
        .await
        .unwrap_err();
    assert_eq!(&*error.reason, "abandoned");
}

#[tokio::test]
async fn a_service_ends_when_its_work_fails_or_it_answers_twice() {
    let node = FakeNode::start();
    let failing = service()
        .alongside(async { Err(Error::new(Code::Internal, "broken", "the work is broken")) });
    let error = soon(failing.run_on(node.hydrant())).await.unwrap_err();
    assert_eq!(&*error.reason, "broken");
    let twice = service().endpoint(STATE_GET_SPEC, greet);
    let error = soon(twice.run_on(node.hydrant())).await.unwrap_err();
    assert!(error.message.contains("hydrant.v1.State/Get"), "{error}");
}
