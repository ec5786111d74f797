use hydrant_contracts::{Code, Identity, TokenKey, proto};
use hydrant_node::Quotas;

use crate::support::{Client, Server, code, error, instance, next, register};

async fn put(client: &Client, namespace: &str) -> Option<Code> {
    let request = proto::PutRequest {
        namespace: namespace.into(),
        key: "k".into(),
        value: b"v".into(),
        ..Default::default()
    };
    code(client.state.put(request).await)
}

async fn get(client: &Client, namespace: &str) -> Option<Code> {
    let request = proto::GetRequest {
        namespace: namespace.into(),
        key: "k".into(),
        ..Default::default()
    };
    code(client.state.get(request).await)
}

/// How the stream begins: `None` for an event.
async fn registers(client: &Client, request: proto::RegisterRequest) -> Option<Code> {
    match client.registry.register_instance(request).await {
        Ok(mut stream) => next!(stream).err().map(|error| error.code),
        Err(error) => Some(error.code),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_not_made_here_is_nobodys() {
    let server = Server::start().await;
    let name = Identity::Service("api/a".parse().unwrap());
    let good = server.key.issue(&name);
    let foreign = TokenKey::new(&[8; 32]).issue(&name);
    let raised = good.replace("api/a", "service/a");
    for forged in [
        Some(&*foreign),
        Some(&raised),
        Some("h1.operator."),
        Some(""),
        None,
    ] {
        let client = server.client_with(forged);
        let refused = Some(Code::Unauthenticated);
        assert_eq!(get(&client, "").await, refused, "{forged:?}");
        assert_eq!(
            registers(&client, register("api/a", "a-1", 0)).await,
            refused
        );
        let health = client.node.health(proto::HealthRequest::default());
        assert_eq!(code(health.await), refused);
        let campaign = client.election.campaign(proto::CampaignRequest {
            election: "e".into(),
            ..Default::default()
        });
        let refusal = match campaign.await {
            Ok(mut stream) => next!(stream).err().map(|error| error.code),
            Err(error) => Some(error.code),
        };
        assert_eq!(refusal, refused);
    }
    assert_eq!(get(&server.client_with(Some(&good)), "").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_services_own_token_registers_it() {
    let server = Server::start().await;
    let denied = Some(Code::PermissionDenied);
    let request = || register("api/a", "a-1", 0);
    assert_eq!(registers(&server.client("api/a"), request()).await, None);
    for who in ["api/b", "service/a", "orchestration/a", "operator"] {
        assert_eq!(
            registers(&server.client(who), request()).await,
            denied,
            "{who}"
        );
    }
    let mut steals = instance("api/b", "b-1");
    steals.methods = vec![proto::Method {
        path: "hydrant.v1.State/Get".into(),
        ..Default::default()
    }];
    let request = proto::RegisterRequest {
        instance: steals.into(),
        ..Default::default()
    };
    assert_eq!(registers(&server.client("api/b"), request).await, denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_listens_on_the_loopback_and_not_where_the_node_does() {
    let server = Server::start().await;
    let api = server.agent.address().to_string();
    for address in [
        "10.0.0.1:80",
        "0.0.0.0:4000",
        "127.0.0.1:0",
        "127.0.0.1:8081",
        &api,
        "x",
    ] {
        let mut wrong = instance("api/a", "a-1");
        wrong.address = address.into();
        let request = proto::RegisterRequest {
            instance: wrong.into(),
            ..Default::default()
        };
        let refused = registers(&server.client("api/a"), request).await;
        assert_eq!(refused, Some(Code::InvalidArgument), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_belongs_to_its_service() {
    let server = Server::start().await;
    let denied = Some(Code::PermissionDenied);
    let api = server.client("api/mobile");
    let inner = server.client("service/mobile");
    let operator = server.client("operator");
    // Who, which namespace, may read, may write.
    let table = [
        (&api, "", None, None),
        (&api, "api/mobile", None, None),
        (&api, "service/mobile", None, denied),
        (&api, "orchestration/mobile", None, denied),
        (&api, "service/other", denied, denied),
        (&api, "api/other", denied, denied),
        (&inner, "", None, None),
        (&inner, "api/mobile", denied, denied),
        (&operator, "service/other", None, None),
        (
            &operator,
            "",
            Some(Code::InvalidArgument),
            Some(Code::InvalidArgument),
        ),
        (
            &api,
            "nonsense",
            Some(Code::InvalidArgument),
            Some(Code::InvalidArgument),
        ),
    ];
    for (row, (client, namespace, reads, writes)) in table.into_iter().enumerate() {
        assert_eq!(get(client, namespace).await, reads, "row {row}");
        assert_eq!(put(client, namespace).await, writes, "row {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_and_tokens_are_the_operators() {
    let server = Server::start().await;
    let scale = |service: &str| proto::ScaleRequest {
        service: service.into(),
        instances: 3,
        ..Default::default()
    };
    let token = |service: &str| proto::IssueTokenRequest {
        tier: proto::Tier::TIER_SERVICE.into(),
        service: service.into(),
        ..Default::default()
    };
    let service = server.client("api/web").node;
    assert_eq!(
        code(service.scale(scale("web")).await),
        Some(Code::PermissionDenied)
    );
    assert_eq!(
        code(service.issue_token(token("x")).await),
        Some(Code::PermissionDenied)
    );

    let operator = server.client("operator").node;
    let scaled = operator.scale(scale("web")).await.unwrap().into_owned();
    assert_eq!((scaled.before, scaled.after), (2, 3));
    assert_eq!(
        error(operator.scale(scale("none")).await).reason,
        "not_supervised"
    );
    assert_eq!(
        code(operator.issue_token(token("node")).await),
        Some(Code::PermissionDenied)
    );
    let issued = operator.issue_token(token("x")).await.unwrap().into_owned();
    assert_eq!(
        get(&server.client_with(Some(&issued.token)), "service/x").await,
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_sees_its_own_lines_only() {
    let server = Server::start().await;
    for (who, seen) in [("api/web", 2), ("operator", 3), ("service/web", 0)] {
        let client = server.client(who);
        let mut lines = 0;
        let mut logs = client.node.logs(Default::default()).await.unwrap();
        while logs.message().await.unwrap().is_some() {
            lines += 1;
        }
        assert_eq!(lines, seen, "{who}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_more_than_his_share() {
    let quotas = Quotas {
        leases_per_caller: 2,
        watches_per_caller: 1,
        ..Quotas::default()
    };
    let server = Server::start_with(quotas, |engines| engines).await;
    let client = server.client("api/a");
    let mut held = Vec::new();
    for id in ["a-1", "a-2"] {
        let mut stream = client
            .registry
            .register_instance(register("api/a", id, 60_000))
            .await
            .unwrap();
        next!(stream).unwrap().unwrap();
        held.push(stream);
    }
    let full = Some(Code::ResourceExhausted);
    assert_eq!(registers(&client, register("api/a", "a-3", 0)).await, full);
    assert_eq!(
        registers(&server.client("api/b"), register("api/b", "b-1", 0)).await,
        None
    );

    let mut watch = client.registry.watch(Default::default()).await.unwrap();
    next!(watch).unwrap().unwrap();
    let second = match client.registry.watch(Default::default()).await {
        Ok(mut stream) => next!(stream).err().map(|error| error.code),
        Err(error) => Some(error.code),
    };
    assert_eq!(second, full);
}
