use std::sync::Arc;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult};
use hydrant_sdk::{Error, Hydrant, Service, Tier, Transport};

use crate::proto::{
    ConfirmationsClient, CreateRequest, CustomersClient, OnboardRequest, OnboardResponse,
    Onboarding, SendRequest,
};

/// `orchestration/onboarding`: the flow that crosses services. It shows the generated service
/// trait and the generated clients; `api/registration` shows the way without them.
pub async fn run() -> Result<(), Error> {
    let hydrant = Hydrant::from_env()?;
    let flow = Flow {
        customers: hydrant.client("service/customers", CustomersClient::new)?,
        confirmations: hydrant.client("service/confirmations", ConfirmationsClient::new)?,
    };
    Service::new(Tier::Orchestration, "onboarding", "1.0.0")?
        .service(Arc::new(flow))
        .run()
        .await
}

struct Flow {
    customers: CustomersClient<Transport>,
    confirmations: ConfirmationsClient<Transport>,
}

impl Onboarding for Flow {
    #[expect(
        refining_impl_trait,
        reason = "the trait promises less than this flow returns"
    )]
    async fn onboard(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, OnboardRequest>,
    ) -> ServiceResult<OnboardResponse> {
        let create = CreateRequest {
            name: request.name.into(),
            email: request.email.into(),
            ..Default::default()
        };
        let created = self.customers.create(create).await?.into_owned();
        let customer = created.customer.into_option().unwrap_or_default();
        let confirm = SendRequest {
            customer_id: customer.id.clone(),
            email: customer.email,
            ..Default::default()
        };
        self.confirmations.send(confirm).await?;
        Response::ok(OnboardResponse {
            customer_id: customer.id,
            is_new: created.created,
            ..Default::default()
        })
    }
}
